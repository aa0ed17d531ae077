"""What an export reads of a run folder: one round's rows, its settings, and who made them.

The settings come from the stages' fingerprints, so an export needs no run file. A stage that is not
finished is refused, with the command that finishes it.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from constitutional_ai.errors import RunFolderError
from constitutional_ai.records import Conversation, Preference, RevisedAnswer
from constitutional_ai.run_file import setting_names
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import words_of
from constitutional_ai.store.run_folder import RunFolder, StageFolder, learner_of
from constitutional_ai.store.seeds import derive_seed
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
    """Labelled pairs: to train on, and those that the reward model, or DPO, held out.

    ``unlabelled`` counts, by reason, the pairs without a verdict. No trainer can use them.
    """

    train: list[Preference]
    test: list[Preference]
    unlabelled: Counter[str]


class Finished:
    """A round of a run, by default the last. Raises ExportError for a folder that is no run."""

    def __init__(self, path: Path, round: int | None = None) -> None:
        rounds = 1
        while (path / f"r{rounds + 1}").is_dir():
            rounds += 1
        several = (path / "r1").is_dir()
        if not several and not (path / "1-revise").is_dir():
            raise ExportError(f"{path}: no run folder: 1-revise is missing; name a `cai run` --out")
        self.path = path
        self.round = round or rounds
        if not 1 <= self.round <= rounds:
            raise ExportError(f"{path}: has no round {self.round}; it has {rounds}")
        # RunFolder lays out rounds by their number: any number above 1 means r1, r2, …
        self.learner = learner_of(path)
        self.folder = RunFolder(path, max(rounds, 2) if several else 1, learner=self.learner)

    @property
    def name(self) -> str:
        return self.path.absolute().name

    def done(self, stage: str) -> bool:
        return self.folder.stage(stage, self.round).done

    def stage(self, name: str) -> StageFolder:
        """A finished stage. Raises ExportError if it is not finished, or not one of this run's."""
        if name not in words_of(self.learner):
            raise ExportError(
                f'{self.path}: made with learner = "{self.learner}", so it has no stage {name}'
            )
        folder = self.folder.stage(name, self.round)
        if not folder.done:
            raise ExportError(f"{folder.path}: not finished; `cai {name}` makes it")
        return folder

    def model(self, stage: str) -> Path:
        """The model of a finished stage. Raises ExportError if it is gone."""
        model = self.stage(stage).path / "model"
        if not (model / "config.json").exists():
            raise ExportError(f"{model}: is missing; `cai run --redo {stage}` makes it again")
        return model

    @cached_property
    def _manifests(self) -> list[dict[str, Any]]:
        """Of the finished stages, in their order."""
        return [self.stage(name).manifest for name in words_of(self.learner) if self.done(name)]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The settings and inputs of all finished stages, by name."""
        return {k: v for manifest in self._manifests for k, v in manifest["fingerprint"].items()}

    @cached_property
    def settings(self) -> Settings:
        """As the finished stages know them; all others have their defaults."""
        known, tables = set(setting_names(Settings)), dict[str, Any]()
        for name, value in self.fingerprint.items():
            table, dot, key = name.partition(".")
            if dot and name in known:
                tables.setdefault(table, {})[key] = value
        top = {"seed": self.fingerprint["seed"], "learner": self.learner}
        return Settings.model_validate({**tables, **top})

    @property
    def constitution(self) -> tuple[str, str]:
        """Name and hash, such as ``("lab", "0123456789abcdef")``."""
        name, _, digest = str(self.fingerprint.get("constitution", "")).rpartition(" ")
        return name, digest

    @property
    def versions(self) -> dict[str, str]:
        return dict(self._manifests[-1]["versions"])

    def demonstrations(self) -> tuple[list[Demonstration], Counter[str]]:
        """What SL-CAI was trained on, row by row; how many rows were left out, by reason.

        The rule is that of stage 2: the last revision of every row, and the helpful answers that
        came to an end; none that is empty.
        """
        from constitutional_ai.records import HelpfulAnswer
        from constitutional_ai.stages.finetune import FILE

        rows = [
            Demonstration(row.id, row.prompt, row.answers[-1], "revised", row.model)
            for row in self.stage("revise").rows("revisions.jsonl", RevisedAnswer)
        ]
        wanted = self.settings.finetune.helpful
        helpful = self.stage("finetune").rows(FILE, HelpfulAnswer) if wanted else []
        rows += [
            Demonstration(row.id, row.prompt, row.answer, "helpful", row.model)
            for row in helpful
            if row.finished
        ]
        left_out = Counter(
            {
                "helpful answer cut off at the token limit": sum(not r.finished for r in helpful),
                "empty answer": sum(not row.answer.strip() for row in rows),
            }
        )
        return [row for row in rows if row.answer.strip()], +left_out

    def preferences(self) -> Preferences:
        """The judge's labels. Raises ExportError if there are none."""
        from constitutional_ai.records import HeldOut

        rows = self.stage("label").rows("preferences.jsonl", Preference)
        labelled = [row for row in rows if row.p_chosen is not None]
        if not labelled:
            raise ExportError(f"{self.stage('label').path}: no pair has a label; `--redo label`")
        tested = set()
        measured = "reward" if self.learner == "ppo" else self.learner  # what held pairs out
        if self.done(measured):
            tested = {row.id for row in self.stage(measured).rows("held_out.jsonl", HeldOut)}
        return Preferences(
            [row for row in labelled if row.id not in tested],
            [row for row in labelled if row.id in tested],
            Counter(row.unlabelled for row in rows if row.p_chosen is None),
        )

    def rl_prompts(self) -> tuple[list[Conversation], list[Conversation]]:
        """The prompts that stage 6 draws: to train on, and apart from them to watch.

        Raises RunFolderError if a source has changed since the run was made.
        """
        from constitutional_ai.data.prompts import prompts_identity
        from constitutional_ai.job import Job
        from constitutional_ai.principles import load_constitution
        from constitutional_ai.progress import Progress
        from constitutional_ai.stages.ppo import NAME, draw_prompts

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
