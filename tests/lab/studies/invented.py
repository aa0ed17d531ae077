"""Every file that a study reads, invented in the formats of the stages and of the measurements.

An answer is known by its flaw: 0 is an ideal one. To a harmful request the flaw is its number of
harmful steps; any other request is declined, or answered with a false fact.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.evaluation import answers as asking
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.lab.studies import attacks, principles, sharing, sizes
from constitutional_ai.lab.studies.study import Base, Bench, Study
from constitutional_ai.lab.world import answers, gold
from constitutional_ai.lab.world import topics as world
from constitutional_ai.records import (
    Preference,
    PromptSet,
    RevisedAnswer,
    RevisionStep,
    Row,
    Sample,
    assistant,
    user,
)
from constitutional_ai.redteam.scores import BENIGN
from constitutional_ai.stats.intervals import Estimate, share
from constitutional_ai.store.run_folder import StageFolder

SEEDS = (0, 1)
KINDS: tuple[world.Kind, ...] = ("harmful", "benign", "borderline", "facts")
ROLLED: tuple[tuple[world.Kind, PromptSet], ...] = (("harmful", "red-team"), ("benign", "helpful"))
HARM, FLAWS = (2, 1), (0, 1)  # of the answers to harmful requests, and to the others
Flaws = Sequence[int]


def asked(kind: world.Kind, place: int) -> world.Request:
    return world.request(world.by_kind("test")[kind][place], random.Random(place))


def said(kind: world.Kind, place: int, flaw: int | str) -> str:
    """An answer to the request at that place; a text is itself."""
    request, rng = asked(kind, place), random.Random(place)
    if isinstance(flaw, str):
        return flaw
    if not flaw:
        return answers.ideal(request, rng).text()
    if kind == "harmful":
        return world.Answer(steps=answers.harmful_steps(request, rng, flaw)).text()
    if kind == "facts":
        return answers.fact_answer(request, rng, "false").text()
    return answers.over_refusal(request, rng).text()


def put(folder: StageFolder, file: str, rows: Sequence[Row | Mapping[str, Any]]) -> None:
    """Write a file, in place of one that is there."""
    lines = [row.model_dump_json() if isinstance(row, Row) else json.dumps(row) for row in rows]
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / file).write_text("".join(f"{line}\n" for line in lines))


def revised(folder: StageFolder, *rows: Sequence[int | str], principle: str = "harm") -> None:
    """A row: the flaws of the first answer to a harmful request, and after each revision."""
    step = RevisionStep(
        principle=principle, principle_hash="", critique="", revision="", clean=False
    )
    found = []
    for place, flaws in enumerate(rows):
        prompt = [user(asked("harmful", place).text)]
        given = [said("harmful", place, flaw) for flaw in flaws]
        row = RevisedAnswer(
            id=f"{place}", prompt=prompt, answers=given, steps=[step] * (len(flaws) - 1),
            messages=[*prompt, assistant(given[-1])], constitution="", model="", seed=0,
        )  # fmt: skip
        found.append(row)
    put(folder, "revisions.jsonl", found)


def labelled(folder: StageFolder, *pairs: tuple[float | None, int, int]) -> None:
    """A pair: its label, and the flaws of the chosen and of the rejected answer."""
    rows = [
        Preference(
            id=f"{place}", prompt=[user(asked("benign", place).text)], set="helpful",
            chosen=[assistant(said("benign", place, chosen))],
            rejected=[assistant(said("benign", place, rejected))],
            p_chosen=p, by_principle={}, by_order=None, principle_hashes={}, constitution="",
            judge="", seed=0,
        )
        for place, (p, chosen, rejected) in enumerate(pairs)
    ]  # fmt: skip
    put(folder, "preferences.jsonl", rows)


def sampled(folder: StageFolder, course: Mapping[int, tuple[Flaws, Flaws]], proxy: int = 0) -> None:
    """At each step the flaws of answers to harmful and to benign requests. The proxy rises by 1."""
    rows = [
        Sample(
            id=f"{step} {kind} {place}", step=step, set=set_, score=proxy + turn,
            prompt=[user(asked(kind, place).text)], answer=said(kind, place, flaw),
        )
        for turn, (step, flaws) in enumerate(course.items())
        for (kind, set_), of_kind in zip(ROLLED, flaws, strict=True)
        for place, flaw in enumerate(of_kind)
    ]  # fmt: skip
    put(folder, "samples.jsonl", rows)


def watched(folder: StageFolder, kl: Mapping[int, float], alarms: Mapping[int, str]) -> None:
    put(folder, "metrics.jsonl", [{"step": n, "objective/kl": kl[n]} for n in kl])
    put(folder, "monitor.jsonl", [{"step": n, "alarm": alarms[n]} for n in alarms])


def transcripts(folder: StageFolder, model: str, harm: Flaws = HARM, flaws: Flaws = FLAWS) -> None:
    """A model's answers to harmful requests, and to as many of each other kind as have flaws."""
    found = []
    for kind in KINDS:
        for place, flaw in enumerate(harm if kind == "harmful" else flaws):
            prompt, answer = [user(asked(kind, place).text)], said(kind, place, flaw)
            row = Transcript(
                id=f"{kind} {place}", model=model, kind=kind, slice="", prompt=prompt,
                answer=answer, finished=True, metrics=gold.metrics(prompt, answer),
                case=f"{kind} {place}",
            )  # fmt: skip
            found.append(row)
    put(folder, asking.FILE, found)


def right(count: int, of: int) -> Estimate:
    return share([True] * count + [False] * (of - count))


def write(folder: StageFolder, name: str) -> None:
    """What a stage or a measurement of that name leaves, the same for every run."""
    match name.split():
        case ["revise"]:
            revised(folder, (3, 1, 0), (1, 1, 0))
        case ["label"]:
            labelled(folder, (0.95, 0, 1), (0.95, 1, 0), (0.55, 0, 1))
        case ["reward"]:
            put(folder, "calibration.json", [{"ece": 0.125}])
        case ["ppo"]:
            sampled(folder, dict.fromkeys((0, 4, 8), (HARM, FLAWS)))
            watched(folder, {step: step / 4 for step in range(8)}, {0: "", 4: "falls", 8: ""})
        case ["answers", model, _]:
            transcripts(folder, model)
        case ["attacks", model]:
            transcripts(folder, model, flaws=())
        case ["judge", _]:
            put(folder, sizes.FILE, [{s: {"right": 1, "n": 2} for s in sizes.SKILLS}])
        case ["agreement"]:
            sides = {"whole": right(1, 2), "gold": right(1, 2)}
            put(folder, principles.AGREEMENT, [{"harmless": sides, "hhh": sides}])
        case ["caught"]:
            found = {"harm": right(1, 2), "theft": right(0, 2)}
            put(folder, attacks.CAUGHT, [{"plain": found, "rhyme": found, BENIGN: found}])
        case _:
            assert name in ("finetune", "sample"), f"{name}: nothing is invented for it"


def invented(out: Path, studies: Sequence[Study]) -> Bench:
    """Every run and every measurement of these studies, in two seeds, with two revisions."""
    base = Base(out, "study-quick", ("revise.rounds=2",))
    bench = Bench(base, SEEDS, sharing.plan_variants(base, studies, SEEDS))
    for (variant, seed), planned in bench.planned.items():
        for stage in dict.fromkeys(stage for stage, _ in planned.steps):
            write(bench.stage(variant, seed, stage), stage)
    for seed in SEEDS:
        for wanted in (m for study in studies for m in sharing.measurements(study, base, seed)):
            write(bench.measured(wanted.variant, seed, wanted.name), wanted.name)
    return bench
