"""What a study is: models of several runs that answer the test prompts, and what else they show.

A variant is a run file with some settings changed. Its run lies in a folder of its own, with the
settings in ``run.toml`` there, so `cai run` can go on from where the study left it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.constitution.writing import to_toml
from constitutional_ai.errors import SettingsError
from constitutional_ai.job import Job
from constitutional_ai.lab.studies.about import About
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.principles import Constitution
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_list import ONCE, STAGE_NAMES, words_of
from constitutional_ai.stages.pipeline import Step, fingerprints
from constitutional_ai.store.run_folder import Fingerprint, RunFolder, StageFolder

# ------------------------------------------------------------------------ runs and measurements


@dataclass(frozen=True)
class Variant:
    """A run file with some settings changed, run up to the stage ``until``.

    ``constitution``, if given, replaces the run file's.
    """

    name: str
    overrides: tuple[str, ...] = ()
    until: str = "finetune"
    constitution: Constitution | None = None


# The run file as it is. Two studies may want one run up to different stages.
COMMON_SL = Variant("common")
COMMON_RL = Variant("common", until="ppo")


@dataclass(frozen=True)
class Line:
    """A model of a variant's run. The scores of its answers to the test prompts get this name.

    ``model``: "base", "sl-cai", "rl-cai", or "sl-cai-2" for the model after two revisions.
    ``x``: where the line stands on an axis. ``prefix``: put before the names of its metrics.
    """

    name: str
    variant: Variant
    model: str
    x: float = 0.0
    temperature: float = 1.0
    prefix: str = ""


Work = Callable[[Job, StageFolder], Mapping[str, Any]]


@dataclass(frozen=True)
class Measurement:
    """``work`` on a variant's run once its stage ``after`` is done ("": on the base model alone).

    It writes into a folder of its own and returns counts. ``work`` is a function of a module, or a
    partial of one, so that another process can call it.
    """

    name: str
    variant: str
    work: Work
    after: str = "finetune"


# ------------------------------------------------------------------------- tables and figures


@dataclass(frozen=True)
class Axis:
    """A metric as a figure or a table shows it; ``bounds`` if it has natural ends."""

    metric: str
    label: str
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Lines:
    """A panel for each axis, one below the other, with a curve for each line.

    ``x`` names a metric that replaces the cells' x; ``diagonal`` draws where both are equal.
    """

    axes: tuple[Axis, ...]
    xlabel: str
    x: str = ""
    only: tuple[str, ...] = ()  # the lines to draw; () draws all
    diagonal: bool = False


@dataclass(frozen=True)
class Dots:
    """A row for each line, a column for each axis, a mark with its interval.

    The axes in ``alike`` measure one quantity and share one range, so marks can be compared.
    """

    axes: tuple[Axis, ...]
    alike: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Plane:
    """Every line in the plane of two axes; a line with several x is drawn as a path."""

    x: Axis
    y: Axis


Drawn = Lines | Dots | Plane


@dataclass(frozen=True)
class Study:
    """Each line's model answers the test prompts; its scores become cells of the table.

    ``runs`` and ``measurements`` are those that the lines do not ask for already. ``read`` adds
    the cells that are no scores of lines. All may depend on the seed.
    """

    about: About
    figures: Mapping[str, Drawn]
    table: Sequence[Axis]
    lines: Callable[["Base", int], Sequence[Line]] = lambda base, seed: ()
    runs: Callable[["Base", int], Sequence[Variant]] = lambda base, seed: ()
    measurements: Callable[["Base", int], Sequence[Measurement]] = lambda base, seed: ()
    read: Callable[["Bench", Collected], None] = lambda bench, cells: None
    xname: str = ""  # the heading of x in the table, "" if it has none

    @property
    def name(self) -> str:
        return self.about.name

    def variants(self, base: "Base", seed: int) -> list[Variant]:
        """Every run of the study, those of the lines first. One name may come twice."""
        return [*(line.variant for line in self.lines(base, seed)), *self.runs(base, seed)]


# --------------------------------------------------------------------------- where files lie


@dataclass(frozen=True)
class Base:
    """What a study starts from: a run file with the user's overrides, and a folder for all runs."""

    out: Path
    file: str
    overrides: tuple[str, ...] = ()

    def settings(self, seed: int, variant: Variant | None = None) -> Settings:
        """A variant's settings. A constitution of its own is written first."""
        changed: tuple[str, ...] = variant.overrides if variant else ()
        if variant and variant.constitution:
            changed = (*changed, f"constitution={self._written(variant.constitution)}")
        return load_settings(self.file, [*self.overrides, *changed, f"seed={seed}"])

    def _written(self, constitution: Constitution) -> Path:
        path = self.out / "constitutions" / f"{constitution.hash}.toml"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_toml(constitution), encoding="utf-8")
        return path

    def run_folder(self, variant: str, seed: int) -> Path:
        return self.out / "runs" / f"seed-{seed}" / variant

    def measured(self, variant: str, seed: int, name: str) -> StageFolder:
        path = self.out / "measured" / f"seed-{seed}" / f"{variant}.{name}"
        return StageFolder(path, name, seed)


@dataclass
class Planned:
    """A variant in one seed: its settings, its steps in order, and what each step depends on."""

    variant: Variant
    settings: Settings
    constitution: Constitution
    folder: Path
    steps: list[Step] = field(init=False)
    prints: dict[Step, Fingerprint] = field(init=False)

    def __post_init__(self) -> None:
        every, until = self.run.plan(), self.variant.until
        if until not in words_of(self.settings.learner):
            raise SettingsError(
                f'learner = "{self.settings.learner}": the run {self.variant.name} of a study needs'
                f" the stage {until}, which a run with this learner has not"
            )
        self.prints = fingerprints(self.settings, self.constitution, every)
        last = every.index((until, self.settings.rounds))
        self.steps = [step for step in every[: last + 1] if step[0] not in ONCE]

    @property
    def run(self) -> RunFolder:
        return RunFolder(
            self.folder, self.settings.rounds, self.settings.seed, self.settings.learner
        )

    def upto(self, stage: str) -> list[Step]:
        """The steps up to a stage of the last round; none for ""."""
        if not stage:
            return []
        assert STAGE_NAMES.index(stage) <= STAGE_NAMES.index(self.variant.until), stage
        return self.steps[: self.steps.index((stage, self.settings.rounds)) + 1]


@dataclass(frozen=True)
class Bench:
    """What ``Study.read`` reads from: finished runs and measurements, seed by seed."""

    base: Base
    seeds: Sequence[int]
    planned: Mapping[tuple[str, int], Planned]

    def stage(self, variant: str, seed: int, stage: str) -> StageFolder:
        """A stage's folder in the last round of a variant's run."""
        planned = self.planned[variant, seed]
        return planned.run.stage(stage, planned.settings.rounds)

    def measured(self, variant: str, seed: int, name: str) -> StageFolder:
        return self.base.measured(variant, seed, name)
