"""What an export reads of a run folder: one round's rows, its settings, and who made them.

Settings are put together again from the fingerprints of the stages, so an export needs no run file.
Stages that are not finished are refused, with the command that finishes them.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from constitutional_ai.errors import RunFolderError
from constitutional_ai.records import Conversation, Pair, Preference, RevisedAnswer
from constitutional_ai.run_file import setting_names
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import STAGE_NAMES
from constitutional_ai.store.run_folder import RunFolder, StageFolder
from constitutional_ai.store.whole import ExportError


@dataclass(frozen=True)
class Demonstration:
    """An answer to learn by SFT. ``source`` is "revised" or "helpful"."""

    id: str
    prompt: Conversation
    answer: str
    source: str
    model: str


@dataclass(frozen=True)
class Preferences:
    """Labelled pairs: to train on, and those that the reward model held out.

    ``unlabelled`` counts by reason the pairs without a verdict, which no trainer can use.
    """

    train: list[Preference]
    test: list[Preference]
    unlabelled: Counter[str]


class Finished:
    """A round of a run, the last unless another is named. Raises ExportError for other folders."""

    def __init__(self, path: Path, round: int | None = None) -> None:
        rounds = 1
        while (path / f"r{rounds + 1}").is_dir():
            rounds += 1
        if not any((path / name).is_dir() for name in ("1-revise", "r1")):
            raise ExportError(f"{path}: no run folder: 1-revise is missing; name a `cai run` --out")
        several = (path / "r1").is_dir()
        self.path = path
        self.round = round or rounds
        if not 1 <= self.round <= rounds:
            raise ExportError(f"{path}: has no round {self.round}; it has {rounds}")
        # RunFolder lays out rounds by their number: any number above 1 means r1, r2, …
        self.folder = RunFolder(path, max(rounds, 2) if several else 1)

    @property
    def name(self) -> str:
        return self.path.absolute().name

    def done(self, stage: str) -> bool:
        return self.folder.stage(stage, self.round).done

    def stage(self, name: str) -> StageFolder:
        """A stage that is finished. Raises ExportError where it is not."""
        found = self.folder.stage(name, self.round)
        if not found.done:
            raise ExportError(f"{found.path}: not finished; `cai {name}` makes it")
        return found

    def model(self, stage: str) -> Path:
        """The model that a finished stage left. Raises ExportError where it is gone."""
        found = self.stage(stage).path / "model"
        if not (found / "config.json").exists():
            raise ExportError(f"{found}: is missing; `cai run --redo {stage}` makes it again")
        return found

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Of all finished stages together: settings and inputs by name."""
        merged: dict[str, Any] = {}
        for stage in STAGE_NAMES:
            if self.done(stage):
                merged |= self.folder.stage(stage, self.round).manifest["fingerprint"]
        return merged

    @cached_property
    def settings(self) -> Settings:
        """As far as the finished stages tell them; the others are the defaults."""
        known, tables = set(setting_names(Settings)), dict[str, Any]()
        for name, value in self.fingerprint.items():
            table, dot, key = name.partition(".")
            if dot and name in known:
                tables.setdefault(table, {})[key] = value
        return Settings.model_validate({**tables, "seed": self.fingerprint["seed"]})

    @property
    def constitution(self) -> str:
        """Name and hash, as the rows' fingerprints have them: ``"lab 0123456789abcdef"``."""
        return str(self.fingerprint.get("constitution", ""))

    @property
    def versions(self) -> dict[str, str]:
        last = [stage for stage in STAGE_NAMES if self.done(stage)][-1]
        return dict(self.folder.stage(last, self.round).manifest["versions"])

    def demonstrations(self) -> tuple[list[Demonstration], Counter[str]]:
        """What SL-CAI was trained on, row by row, and how many rows were left out, by reason.

        The rule is that of stage 2: the last revision of every row, and the helpful answers that
        came to an end; none that is empty.
        """
        from constitutional_ai.records import HelpfulAnswer
        from constitutional_ai.stages.finetune import FILE

        left_out: Counter[str] = Counter()
        rows = []
        for row in self.stage("revise").rows("revisions.jsonl", RevisedAnswer):
            rows.append(Demonstration(row.id, row.prompt, row.answers[-1], "revised", row.model))
        if self.settings.finetune.helpful:
            for helpful in self.stage("finetune").rows(FILE, HelpfulAnswer):
                if not helpful.finished:
                    left_out["helpful answer cut off at the token limit"] += 1
                    continue
                made = (helpful.id, helpful.prompt, helpful.answer, "helpful", helpful.model)
                rows.append(Demonstration(*made))
        left_out["empty answer"] += sum(not row.answer.strip() for row in rows)
        return [row for row in rows if row.answer.strip()], +left_out

    def preferences(self) -> Preferences:
        """The judge's labels. Raises ExportError where there is none."""
        rows = self.stage("label").rows("preferences.jsonl", Preference)
        held = self._held_out()
        labelled = [row for row in rows if row.p_chosen is not None]
        if not labelled:
            raise ExportError(f"{self.stage('label').path}: no pair has a label; `--redo label`")
        return Preferences(
            [row for row in labelled if row.id not in held],
            [row for row in labelled if row.id in held],
            Counter(row.unlabelled for row in rows if row.p_chosen is None),
        )

    def _held_out(self) -> set[str]:
        if not self.done("reward"):
            return set()
        from constitutional_ai.records import HeldOut

        return {row.id for row in self.stage("reward").rows("held_out.jsonl", HeldOut)}

    def rl_prompts(self) -> tuple[list[Conversation], list[Conversation]]:
        """Prompts to train on by PPO and, apart from them, to watch: those that stage 6 draws.

        Raises RunFolderError where a source has changed since the run was made.
        """
        from constitutional_ai.data.prompts import prompts_identity
        from constitutional_ai.job import Job
        from constitutional_ai.principles import load_constitution
        from constitutional_ai.progress import Progress
        from constitutional_ai.stages.ppo import NAME, draw_prompts
        from constitutional_ai.store.run_folder import derive_seed

        for which in ("red_team", "helpful"):
            source = getattr(self.settings.prompts, which)
            before = self.fingerprint.get(f"prompts.{which} content")
            if before is not None and prompts_identity(source) != before:
                raise RunFolderError(
                    f"{source}: has changed since {self.path} was made; restore it, or run again"
                )
        # Prompts depend on settings alone; a job has a constitution, whichever it is.
        job = Job(self.settings, load_constitution("lab"), self.folder, self.round, Progress())
        seed = derive_seed(self.settings.seed, NAME, self.round)
        trained, watched = draw_prompts(job, seed)
        return [row.prompt for row in trained], [row.prompt for row in watched]

    def pairs(self) -> int:
        return len(self.stage("sample").rows("pairs.jsonl", Pair))
