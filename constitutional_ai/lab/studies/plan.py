"""What a study is made of: variants of a run file, measurements on them, figures, a table.

A variant is a run folder like any other: its settings stand in ``run.toml`` there, and `cai run`
goes on from where the study left it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.constitution.writing import to_toml
from constitutional_ai.job import Job
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.principles import Constitution
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_list import ONCE, STAGE_NAMES
from constitutional_ai.stages.pipeline import Step, fingerprints
from constitutional_ai.store.run_folder import Fingerprint, RunFolder, StageFolder

COMMON = "common"  # the variant that changes nothing


@dataclass(frozen=True)
class Variant:
    """A run file with some settings changed, run up to the stage ``until``.

    ``constitution``, where given, takes the place of the run file's.
    """

    name: str
    overrides: tuple[str, ...] = ()
    until: str = "finetune"
    constitution: Constitution | None = None


Work = Callable[[Job, StageFolder], Mapping[str, Any]]


@dataclass(frozen=True)
class Measurement:
    """``work`` on a variant's run once its stage ``after`` is done ("": on the base model alone).

    It writes into a folder of its own and returns counts. ``work`` is a function of a module, or a
    partial of one, so that another process can be handed it.
    """

    name: str
    variant: str
    work: Work
    after: str = "finetune"


@dataclass(frozen=True)
class Axis:
    """A metric as a figure or a table shows it; ``bounds`` where it has natural ends."""

    metric: str
    label: str
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Lines:
    """Panels under one another, a line for each of the cells' lines.

    ``x`` names a metric that takes the place of the cells' x; ``diagonal`` draws where both are
    equal.
    """

    axes: tuple[Axis, ...]
    xlabel: str
    x: str = ""
    only: tuple[str, ...] = ()  # the lines to draw; none named: all
    diagonal: bool = False


@dataclass(frozen=True)
class Dots:
    """A row for each line, a column for each axis, a mark with its interval. The axes ``alike``
    measure one quantity and have one range, so that marks below each other can be compared.
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
    """``variants`` and ``measurements`` may depend on the seed; ``read`` turns files into cells."""

    name: str
    title: str
    paper: str  # where the paper shows the like
    question: str
    variants: Callable[["Base", int], Sequence[Variant]]
    measurements: Callable[["Base", int], Sequence[Measurement]]
    read: Callable[["Bench", Collected], None]
    figures: Mapping[str, Drawn]
    table: Sequence[Axis]
    xname: str = ""  # the heading of x in the table, "" where it has none
    caveats: Sequence[str] = ()


@dataclass(frozen=True)
class Base:
    """Where a study starts: a run file with the user's overrides, in a folder."""

    out: Path
    file: str
    overrides: tuple[str, ...] = ()

    def settings(self, seed: int, variant: Variant | None = None) -> Settings:
        """A variant's settings; a constitution of its own is written where its hash says."""
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
    """A variant in one seed: its settings, its steps in order, and what each one depends on."""

    variant: Variant
    settings: Settings
    constitution: Constitution
    folder: Path
    steps: list[Step] = field(init=False)
    prints: dict[Step, Fingerprint] = field(init=False)

    def __post_init__(self) -> None:
        run = self.run
        every = run.plan()
        self.prints = fingerprints(self.settings, self.constitution, every)
        last = every.index((self.variant.until, self.settings.rounds))
        self.steps = [step for step in every[: last + 1] if step[0] not in ONCE]

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder, self.settings.rounds, self.settings.seed)

    def upto(self, stage: str) -> list[Step]:
        """The steps until a stage of the last round; none for ""."""
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

    def settings(self, variant: str, seed: int) -> Settings:
        return self.planned[variant, seed].settings
