"""Size of the model: judging, with and without thoughts, and self-critique (paper, Figure 4)."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from constitutional_ai.job import Job
from constitutional_ai.judge.judge import Comparison, Judge, Verdict
from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.model_scores import GOOD, SL
from constitutional_ai.lab.studies.plan import Axis, Base, Bench, Lines, Measurement, Study, Variant
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import RevisedAnswer
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder

SIZES = ("xxs", "xs", "s")
MILLIONS = {"xxs": 0.27, "xs": 0.52, "s": 2.15}  # of parameters
SKILLS = ("harm", "harmless and not evasive", "helpful", "honest")
FILE = "accuracy.json"
Method = Literal["compare", "thoughts"]
METHODS: dict[Method, str] = {"compare": "judged at once", "thoughts": "after a chain of thought"}
FIRST, LAST = "before any revision", "after the last revision"
ACCURACY = Axis("accuracy", "better answer found, all skills", (0, 1))
REVISED = Axis("revised_harm", "harm of answers (0–4)")
TUNED = Axis("harm", "harm of SL-CAI, unseen requests (0–4)")


def variant(size: str) -> str:
    return f"size-{size}"


def variants(base: Base, seed: int) -> Sequence[Variant]:
    return [Variant(variant(size), (f"model.path=lab:{size}",)) for size in SIZES]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    found = []
    for size in SIZES:
        found.append(answering.asked(variant(size), SL))
        for method in METHODS:
            work = partial(judge, method=method)
            found.append(Measurement(f"judge {method}", variant(size), work, after=""))
    return found


def judge(job: Job, folder: StageFolder, *, method: Method) -> Mapping[str, Any]:
    """Pairs of which the oracle knows the better one, judged by the model before any training."""
    asked = {"method": method, "samples": 1, "max_new_tokens": 16, "fence": False, "mode": "soft"}
    settings = job.settings.label.model_copy(update=asked)
    judge = Judge(job.engine(job.settings.model.path), job.constitution, settings)
    count = max(10, job.settings.evaluate.harmful // 2)
    found, unread = {}, 0
    for skill in SKILLS:
        name, pairs = truth.questions(skill, count)
        principle = job.constitution.principle(name)
        questions = [
            Comparison(f"{skill} {number}", prompt, "red-team", better, worse, (principle,))
            for number, (prompt, better, worse) in enumerate(pairs)
        ]
        verdicts = judge.compare(questions, job.settings.seed)
        read = [v.p_first > 0.5 for v in verdicts if isinstance(v, Verdict)]
        unread += len(verdicts) - len(read)
        found[skill] = {"right": sum(read), "n": len(read)}
    (folder.path / FILE).write_text(json.dumps(found) + "\n")
    return {"pairs": count * len(SKILLS), "unlabelled": unread}


def read(bench: Bench, found: Collected) -> None:
    for size in SIZES:
        x, name = MILLIONS[size], variant(size)
        answering.add(found, bench, "SL-CAI", name, SL, x)
        for seed in bench.seeds:
            for method, line in METHODS.items():
                path = bench.measured(name, seed, f"judge {method}").path / FILE
                _add_accuracy(found, line, seed, json.loads(path.read_text()), x)
            rows = bench.stage(name, seed, "revise").rows("revisions.jsonl", RevisedAnswer)
            curve = truth.revisions(rows, seed)
            for line, point in ((FIRST, curve[0]), (LAST, curve[-1])):
                found.add(line, REVISED.metric, seed, point["harm"], x)


def _add_accuracy(
    found: Collected, line: str, seed: int, skills: Mapping[str, Mapping[str, int]], x: float
) -> None:
    """Over all skills, and each one."""
    flags: list[bool] = []
    for skill, counts in skills.items():
        own = [True] * counts["right"] + [False] * (counts["n"] - counts["right"])
        flags += own
        if own:
            found.add(line, f"accuracy {skill}", seed, stats.share(own), x)
    if flags:
        found.add(line, ACCURACY.metric, seed, stats.share(flags), x)


STUDY = Study(
    name="sizes",
    title="Size of the model",
    paper="Figure 4",
    question="Do larger models judge and criticise themselves better?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={"sizes": Lines((ACCURACY, REVISED, TUNED, GOOD), "parameters (millions)")},
    table=(
        ACCURACY,
        *(Axis(f"accuracy {skill}", skill, (0, 1)) for skill in SKILLS),
        REVISED,
        TUNED,
        GOOD,
    ),
    xname="million parameters",
    caveats=(
        "Three sizes of one recipe, each trained on the same kind of text; a thought is one word"
        " about each answer, which is what these models were taught. The judge's accuracy has no"
        " seed in it but the thoughts': the pairs are the same.",
    ),
)
