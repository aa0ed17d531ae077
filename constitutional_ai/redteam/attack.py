"""A red-team campaign: every family on every request and model, judged; a folder that resumes.

    OUT/rows/attempts.jsonl   what was sent to which model, and its answer
    OUT/rows/readings.jsonl   the judge on each answer
    OUT/rows/truth.jsonl      the oracle on each answer: only for the laboratory's test topics
    OUT/rows/caught.jsonl     which principle's critique catches what (``critics``)

Each file is made in chunks; the same command goes on after a kill. Rows that an engine failed on
are listed in failures.jsonl, counted, and never scored.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field

from constitutional_ai.data import requests
from constitutional_ai.data.requests import SPLITS, TEST, Kind, Request
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.engines.identity import model_identity
from constitutional_ai.errors import RunFolderError, SettingsError
from constitutional_ai.judge import through as verdict
from constitutional_ai.judge.through import Judge, Reading
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation, Row, content_hash
from constitutional_ai.redteam import critics, families, search, truth
from constitutional_ai.redteam.critics import Caught
from constitutional_ai.redteam.families import Family
from constitutional_ai.redteam.search import Hunt, Search
from constitutional_ai.redteam.world import lab
from constitutional_ai.store import failures
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.run_folder import Fingerprint, StageFolder, derive_seed, in_chunks

ATTEMPTS, READINGS, TRUTH = "attempts.jsonl", "readings.jsonl", "truth.jsonl"
MAY_FAIL = 0.2  # the share of rows that an engine may fail on before the campaign stops
TREE = {"width": 3, "branches": 2}

Open = Callable[[str], Engine]


class Plan(BaseModel):
    """All that decides a campaign's rows. ``models`` maps a label to a model's spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: dict[str, str] = Field(min_length=1)
    prompts: str = TEST  # "lab", "lab-train" or a file
    benign: str | None = None
    examples: str | None = None
    families: tuple[str, ...] = ("all",)
    steps: Literal[1, 2] = 1
    judge: str = ""  # "" takes lab:s for the laboratory's prompts, else the first model
    critic: str = ""  # "" takes the judge
    attacker: str = ""  # "" takes "lab" for the laboratory's prompts, else the judge
    constitution: str = ""  # "" takes "lab" for the laboratory's prompts, else "red-team"
    candidates: str | None = None  # a further constitution whose principles are tried as critics
    requests: int = Field(default=100, ge=1)
    benign_requests: int = Field(default=50, ge=0)
    rounds: int = Field(default=4, ge=1)  # of a search
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=0, ge=0)  # 0 takes 64 in the laboratory, else 512
    seed: int = Field(default=0, ge=0)
    chunk: int = Field(default=256, ge=1)

    @property
    def in_lab(self) -> bool:
        return self.prompts in SPLITS

    def resolved(self) -> "Plan":
        """With every default filled in."""
        here = self.in_lab
        judge = self.judge or ("lab:s" if here else next(iter(self.models.values())))
        return self.model_copy(
            update={
                "judge": judge,
                "critic": self.critic or judge,
                "attacker": self.attacker or ("lab" if here else judge),
                "constitution": self.constitution or ("lab" if here else "red-team"),
                "max_new_tokens": self.max_new_tokens or (64 if here else 512),
            }
        )


class Attempt(Row):
    """One attack and the answer. ``request`` is the plain request, ``prompt`` what was sent.

    ``tries`` counts the messages of a search, of which this is the best by the judge; ``note`` says
    why a search sent none, and such a row is unread.
    """

    model: str
    family: str
    category: str
    kind: Kind
    request_id: str
    request: Conversation
    prompt: Conversation
    answer: str
    finished: bool
    tries: int = 1
    note: str = ""


class Item(NamedTuple):
    """One row to make."""

    model: str
    family: Family
    request: Request
    id: str


class Campaign(NamedTuple):
    """What a finished campaign measured; readings, caught and truth by the attempt's id.

    ``truth`` holds rows of ``truth.Truth`` where the oracle was read, and is empty elsewhere.
    """

    plan: Plan
    attempts: list[Attempt]
    readings: dict[str, Reading]
    caught: dict[str, Caught]
    truth: dict[str, Any]
    failed: dict[str, Any]  # file → how many rows an engine failed on, and why
    constitution: str = ""  # the hash of what its critiques were made under


def run(plan: Plan, out: Path, open_engine: Open, progress: Progress) -> Campaign:
    """Make, or finish, all rows under ``out``; a finished folder is read and nothing is asked.

    Raises RunFolderError where the folder belongs to another plan, SettingsError or DataError for
    what cannot be attacked, RowsFailed where more than MAY_FAIL of a file's rows failed.
    """
    plan = plan.resolved()
    constitution = load_constitution(plan.constitution)
    items = plan_items(plan)
    folder = StageFolder(out / "rows", "redteam", plan.seed)
    claim(folder, fingerprint(plan, constitution))
    attempts = attack(plan, folder, items, open_engine, progress)
    readings = judge(plan, folder, attempts, open_engine, progress)
    truth = _truth(plan, folder, attempts, progress)
    good_is = "held" if plan.in_lab else "through"
    tried = critics.tried_on(attempts, {**readings, **truth}, good_is)
    caught = _critics(plan, folder, tried, constitution, open_engine, progress)
    failed = {
        file: found
        for file, expected, made in (
            (ATTEMPTS, len(items), len(attempts)),
            (critics.FILE, len(tried), len(caught)),
        )
        if (found := failures.counts(folder.path, file, expected - made))
    }
    if not folder.done:
        folder.finish({"attempts": len(attempts), "caught": len(caught), **failed})
    return Campaign(plan, attempts, readings, caught, truth, failed, constitution.hash)


def claim(folder: StageFolder, print_: Fingerprint) -> None:
    """Begin the folder, or go on in it. Raises RunFolderError where it belongs to another plan.

    A folder without a row, such as one whose model was not found, belongs to nobody.
    """
    path = folder.path / "settings.json"
    if not any(folder.path.glob("*.jsonl")):
        path.unlink(missing_ok=True)
    held = json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.exists() else print_
    for key in [*print_, *held]:
        if held.get(key) != print_.get(key):
            raise RunFolderError(
                f"{folder.path}: was made with {key} = {held.get(key)!r}, now {print_.get(key)!r};"
                " take another --out, or delete the folder to attack again"
            )
    if not folder.done:
        folder.begin(print_)


def fingerprint(plan: Plan, constitution: Constitution) -> Fingerprint:
    """What the rows depend on, by name."""
    specs = [*plan.models.values(), plan.judge, plan.critic, plan.attacker]
    found: Fingerprint = plan.model_dump(mode="json")
    found |= {f"{spec} files": model_identity(spec) for spec in specs if spec != "lab"}
    for name in ("prompts", "benign", "examples"):
        found[f"{name} content"] = requests.identity(getattr(plan, name))
    return found | {"constitution content": constitution.hash}


def table(plan: Plan) -> dict[str, Family]:
    """The families that there are for these prompts."""
    if plan.in_lab:
        examples = lab().examples(40, plan.seed)
        return families.laboratory(examples)
    return families.general(requests.load_examples(plan.examples) if plan.examples else [])


def plan_items(plan: Plan) -> list[Item]:
    """Every row of a campaign, model after model. Searches go for harmful requests only."""
    asked = requests.load_requests(
        plan.prompts, plan.benign, plan.requests, plan.benign_requests, plan.seed
    )
    chosen = families.chosen(plan.families, table(plan), plan.steps)
    return [
        Item(label, family, request, content_hash(request.id, family.name, label, plan.seed))
        for label in plan.models
        for family in chosen
        for request in asked
        if family.kind != "search" or request.kind == "harmful"
    ]


def disguised(item: Item, seed: int) -> Conversation:
    """The attack on one request: the same for every model."""
    rng = random.Random(content_hash("attack", seed, item.family.name, item.request.id))
    return item.family.apply(item.request.prompt, rng)


def attack(
    plan: Plan, folder: StageFolder, items: Sequence[Item], open_engine: Open, progress: Progress
) -> list[Attempt]:
    """Every item's answer, to attempts.jsonl; items that a target failed on are left out."""
    searching = any(item.family.kind == "search" for item in items)
    hunter = _hunter(plan, open_engine) if searching and not folder.done else None

    def work(chunk: Sequence[Item], chunk_seed: int) -> list[Attempt | Failed]:
        made: list[Attempt | Failed] = []
        for (model, family), group in groupby(chunk, lambda item: (item.model, item.family)):
            engine, asked = open_engine(plan.models[model]), list(group)
            seed = derive_seed(chunk_seed, model, family.name)
            if family.kind == "search":
                assert hunter is not None
                made += _hunted(plan, engine, asked, hunter(family.name), seed)
            else:
                made += _answered(plan, engine, asked, seed)
        return made

    with progress.task("attack", total=len(items), unit="attempts") as tick:
        return in_chunks(folder, ATTEMPTS, items, plan.chunk, work, tick, Attempt, MAY_FAIL)


def _answered(
    plan: Plan, engine: Engine, items: Sequence[Item], seed: int
) -> list[Attempt | Failed]:
    prompts = [disguised(item, plan.seed) for item in items]
    replies = engine.generate(prompts, _sampling(plan, seed))
    return [
        Failed(id=item.id, reason=reply.failed)
        if reply.failed
        else _attempt(item, prompt, reply.text, reply.finished)
        for item, prompt, reply in zip(items, prompts, replies, strict=True)
    ]


def _hunted(
    plan: Plan, engine: Engine, items: Sequence[Item], hunter: Search, seed: int
) -> list[Attempt | Failed]:
    def ask(conversations: Sequence[Conversation], turn: int) -> list[str | None]:
        replies = engine.generate(conversations, _sampling(plan, turn)) if conversations else []
        return [None if reply.failed else reply.text for reply in replies]

    hunts = hunter.run([item.request.prompt for item in items], ask, seed)
    return [_of_hunt(item, hunt) for item, hunt in zip(items, hunts, strict=True)]


def _of_hunt(item: Item, hunt: Hunt) -> Attempt | Failed:
    best = hunt.best
    if best is None and hunt.failed:
        return Failed(id=item.id, reason="the target failed")
    if best is None:
        nothing = _attempt(item, hunt.request, "", True, 0)
        return nothing.model_copy(update={"note": "no usable message from the attacker"})
    prompt: Conversation = [*hunt.request[:-1], {"role": "user", "content": best.attack}]
    return _attempt(item, prompt, best.answer, True, len(hunt.tries))


def _attempt(
    item: Item, prompt: Conversation, answer: str, finished: bool, tries: int = 1
) -> Attempt:
    return Attempt(
        id=item.id,
        model=item.model,
        family=item.family.name,
        category=item.request.category,
        kind=item.request.kind,
        request_id=item.request.id,
        request=item.request.prompt,
        prompt=prompt,
        answer=answer,
        finished=finished,
        tries=tries,
    )


def _sampling(plan: Plan, seed: int) -> Sampling:
    return Sampling(temperature=plan.temperature, max_new_tokens=plan.max_new_tokens, seed=seed)


def _judge(plan: Plan, open_engine: Open) -> Judge:
    questions = verdict.LABORATORY if plan.in_lab else verdict.GENERAL
    return Judge(open_engine(plan.judge), questions)


def _hunter(plan: Plan, open_engine: Open) -> Callable[[str], Search]:
    """Searches by name; attacker and judge are opened once, and stay while the target is asked."""
    sits = _judge(plan, open_engine)
    attacker: search.Attacker
    if plan.attacker == "lab":
        if not plan.in_lab:
            raise SettingsError(
                "--attacker lab: knows the laboratory's language only; name a model"
            )
        attacker = search.LabAttacker(lab().names())
    else:
        attacker = search.ModelAttacker(open_engine(plan.attacker))
    on_topic = search.named_on_topic if plan.in_lab else search.judged_on_topic(sits.engine)

    def hunter(name: str) -> Search:
        if name == "tree":
            return Search(attacker, sits, on_topic, plan.rounds, **TREE)
        return Search(attacker, sits, on_topic, plan.rounds)

    return hunter


def judge(
    plan: Plan,
    folder: StageFolder,
    attempts: Sequence[Attempt],
    open_engine: Open,
    progress: Progress,
) -> dict[str, Reading]:
    """The judge on every answer, to readings.jsonl; one that it could not read says so."""

    def work(chunk: Sequence[Attempt], _: int) -> list[Reading]:
        sent = [row for row in chunk if not row.note]
        read = _judge(plan, open_engine).read(
            [row.request for row in sent],
            [row.answer for row in sent],
            [row.id for row in sent],
            plan.seed,
        )
        by_id = {reading.id: reading for reading in read}
        return [by_id.get(row.id) or verdict.nothing_to_read(row.id, row.note) for row in chunk]

    with progress.task("judge", total=len(attempts), unit="answers") as tick:
        rows = in_chunks(folder, READINGS, attempts, plan.chunk, work, tick, Reading)
    return {row.id: row for row in rows}


def _truth(
    plan: Plan, folder: StageFolder, attempts: Sequence[Attempt], progress: Progress
) -> dict[str, Any]:
    """The oracle on test topics; {} everywhere else."""
    if plan.prompts != TEST:
        return {}

    def work(chunk: Sequence[Attempt], _: int) -> list[truth.Truth]:
        return truth.read(
            [row.id for row in chunk],
            [row.request for row in chunk],
            [None if row.note else row.answer for row in chunk],
        )

    with progress.task("oracle", total=len(attempts), unit="answers") as tick:
        rows = in_chunks(folder, TRUTH, attempts, plan.chunk, work, tick, truth.Truth)
    return {row.id: row for row in rows}


def _critics(
    plan: Plan,
    folder: StageFolder,
    tried: Sequence[Attempt],
    constitution: Constitution,
    open_engine: Open,
    progress: Progress,
) -> dict[str, Caught]:
    principles = critics.candidates(constitution, plan.candidates)

    def work(chunk: Sequence[Attempt], _: int) -> list[Caught | Failed]:
        return critics.criticise(
            open_engine(plan.critic),
            principles,
            [row.id for row in chunk],
            [row.prompt for row in chunk],
            [row.answer for row in chunk],
            64 if plan.in_lab else 256,
        )

    size = max(1, plan.chunk // len(principles))
    with progress.task("criticise", total=len(tried), unit="answers") as tick:
        rows = in_chunks(folder, critics.FILE, tried, size, work, tick, Caught, MAY_FAIL)
    return {row.id: row for row in rows}


def outcomes(campaign: Campaign) -> dict[str, verdict.Outcome]:
    """What became of each attempt: by the oracle where it was read, else by the judge."""
    official = campaign.truth or campaign.readings
    return {row.id: cast(verdict.Outcome, official[row.id].outcome) for row in campaign.attempts}


def counted(campaign: Campaign) -> dict[str, int]:
    """How many attempts ended in each way."""
    return dict(Counter(outcomes(campaign).values()))
