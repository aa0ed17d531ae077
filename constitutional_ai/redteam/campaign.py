"""A red-team campaign: every family on every request and model, judged; a folder that resumes.

    OUT/rows/attempts.jsonl   what was sent to which model, and its answer
    OUT/rows/readings.jsonl   the judge on each answer
    OUT/rows/truth.jsonl      the oracle on each answer: only for the laboratory's test topics
    OUT/rows/caught.jsonl     which principle's critique catches what (``critics``)

Each file is made in chunks; the same command goes on after a kill. Rows that an engine failed on
are listed in failures.jsonl, counted, and never scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from constitutional_ai.data.requests import TEST
from constitutional_ai.errors import SettingsError
from constitutional_ai.judge import through as verdict
from constitutional_ai.judge.faults import is_laboratorys
from constitutional_ai.judge.through import Judge, Reading
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Row
from constitutional_ai.redteam import critics, search, truth
from constitutional_ai.redteam.attack import Attempt, Hunter, Open, answers
from constitutional_ai.redteam.critics import Caught
from constitutional_ai.redteam.plan import Item, Plan, fingerprint, items_of
from constitutional_ai.redteam.search import Search
from constitutional_ai.redteam.world import lab
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.run_folder import StageFolder

ATTEMPTS, READINGS, TRUTH = "attempts.jsonl", "readings.jsonl", "truth.jsonl"
MAY_FAIL = 0.2  # the share of rows that an engine may fail on before the campaign stops
TREE = {"width": 3, "branches": 2}

T = TypeVar("T")
R = TypeVar("R", bound=Row)
Work = Callable[[Sequence[T], int], Sequence[R | Failed]]  # a row for each item of a chunk


class Campaign(NamedTuple):
    """What a finished campaign measured; readings, caught and truth by the attempt's id.

    ``truth`` holds rows of ``truth.Truth`` where the oracle was read; it is empty elsewhere.
    """

    plan: Plan
    attempts: list[Attempt]
    readings: dict[str, Reading]
    caught: dict[str, Caught]
    truth: dict[str, Any]
    failed: dict[str, Any]  # file → how many rows an engine failed on, and why
    constitution: str = ""  # the hash of what its critiques were made under


@dataclass(frozen=True)
class Making:
    """The rows of one campaign, file by file. ``open_engine`` holds the few models in use."""

    plan: Plan
    folder: StageFolder
    open_engine: Open
    progress: Progress

    def attempts(self, items: Sequence[Item]) -> list[Attempt]:
        """Every item's answer; items that a target failed on are left out."""
        searching = any(item.family.kind == "search" for item in items)
        hunter = self._hunter() if searching and not self.folder.done else None

        def work(chunk: Sequence[Item], seed: int) -> list[Attempt | Failed]:
            return answers(self.plan, chunk, self.open_engine, hunter, seed)

        return self._made("attack", ATTEMPTS, items, work, Attempt)

    def readings(self, attempts: Sequence[Attempt]) -> list[Reading]:
        """The judge on every answer; one that it could not read says so."""

        def work(chunk: Sequence[Attempt], _: int) -> list[Reading]:
            sent = [row for row in chunk if not row.note]
            read = self._judge().read(
                [row.request for row in sent],
                [row.answer for row in sent],
                [row.id for row in sent],
                self.plan.seed,
            )
            by_id = {reading.id: reading for reading in read}
            return [by_id.get(row.id) or verdict.nothing_to_read(row.id, row.note) for row in chunk]

        return self._made("judge", READINGS, attempts, work, Reading, may_fail=0)

    def truth(self, attempts: Sequence[Attempt]) -> list[truth.Truth]:
        """The oracle on test topics; nothing everywhere else."""
        if self.plan.prompts != TEST:
            return []

        def work(chunk: Sequence[Attempt], _: int) -> list[truth.Truth]:
            return truth.read(
                [row.id for row in chunk],
                [row.request for row in chunk],
                [None if row.note else row.answer for row in chunk],
            )

        return self._made("oracle", TRUTH, attempts, work, truth.Truth, may_fail=0)

    def caught(self, tried: Sequence[Attempt], constitution: Constitution) -> list[Caught]:
        """Every principle's critique of what got through, and of some good answers."""
        principles = critics.candidates(constitution, self.plan.candidates)

        def work(chunk: Sequence[Attempt], _: int) -> list[Caught | Failed]:
            return critics.criticise(
                self.open_engine(self.plan.critic),
                principles,
                [row.id for row in chunk],
                [row.prompt for row in chunk],
                [row.answer for row in chunk],
                64 if self.plan.in_lab else 256,
                self.plan.seed,
                by_phrase=is_laboratorys(self.plan.critic),
            )

        size = max(1, self.plan.chunk // len(principles))
        return self._made("criticise", critics.FILE, tried, work, Caught, size)

    def _made(
        self,
        what: str,
        file: str,
        items: Sequence[T],
        work: Work[T, R],
        kind: type[R],
        size: int = 0,
        may_fail: float = MAY_FAIL,
    ) -> list[R]:
        with self.progress.task(what, total=len(items), unit="rows") as tick:
            size = size or self.plan.chunk
            return in_chunks(self.folder, file, items, size, work, tick, kind, may_fail)

    def _judge(self) -> Judge:
        questions = verdict.LABORATORY if self.plan.in_lab else verdict.GENERAL
        return Judge(self.open_engine(self.plan.judge), questions)

    def _hunter(self) -> Hunter:
        """Searches by name; attacker and judge stay open while the target is asked."""
        plan, sits = self.plan, self._judge()
        attacker: search.Attacker
        if plan.attacker != "lab":
            attacker = search.ModelAttacker(self.open_engine(plan.attacker))
        elif plan.in_lab:
            attacker = search.LabAttacker(lab().names())
        else:
            raise SettingsError(
                "--attacker lab: knows the laboratory's language only; name a model"
            )
        on_topic = search.named_on_topic if plan.in_lab else search.judged_on_topic(sits.engine)

        def hunter(name: str) -> Search:
            shape = TREE if name == "tree" else {}
            return Search(attacker, sits, on_topic, plan.rounds, **shape)

        return hunter


def run(plan: Plan, out: Path, open_engine: Open, progress: Progress) -> Campaign:
    """Make, or finish, all rows under ``out``; a finished folder is read and nothing is asked.

    Raises RunFolderError where the folder belongs to another plan, SettingsError or DataError for
    what cannot be attacked, RowsFailed where more than MAY_FAIL of a file's rows failed.
    """
    plan = plan.resolved()
    constitution = load_constitution(plan.constitution)
    items = items_of(plan)
    folder = StageFolder(out / "rows", "redteam", plan.seed)
    folder.claim(fingerprint(plan, constitution))
    making = Making(plan, folder, open_engine, progress)
    attempts = making.attempts(items)
    readings = {row.id: row for row in making.readings(attempts)}
    read = {row.id: row for row in making.truth(attempts)}
    good_is = "held" if plan.in_lab else "through"
    tried = critics.tried_on(attempts, {**readings, **read}, good_is)
    caught = {row.id: row for row in making.caught(tried, constitution)}
    lost = {
        ATTEMPTS: failures.counts(folder.path, ATTEMPTS, len(items) - len(attempts)),
        critics.FILE: failures.counts(folder.path, critics.FILE, len(tried) - len(caught)),
    }
    failed = {file: counts for file, counts in lost.items() if counts}
    if not folder.done:
        folder.finish({"attempts": len(attempts), "caught": len(caught), **failed})
    return Campaign(plan, attempts, readings, caught, read, failed, constitution.hash)


def outcomes(campaign: Campaign) -> dict[str, verdict.Outcome]:
    """What became of each attempt: by the oracle where it was read, else by the judge."""
    official = campaign.truth or campaign.readings
    return {row.id: cast(verdict.Outcome, official[row.id].outcome) for row in campaign.attempts}
