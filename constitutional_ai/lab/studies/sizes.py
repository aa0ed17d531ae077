"""Size of the model: judging, with and without thoughts, and self-critique (paper, Figure 4)."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from constitutional_ai.job import Job
from constitutional_ai.lab.studies import measures, study
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import GOOD, SL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.training import skills
from constitutional_ai.lab.world import gold
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder

MILLIONS = {"xxs": 0.27, "xs": 0.52, "s": 2.15}  # of parameters
SIZES = tuple(MILLIONS)
SKILLS = ("harm", "harmless and not evasive", "helpful", "honest")
FILE = "accuracy.json"
METHODS: dict[skills.Method, str] = {
    "compare": "judged at once",
    "thoughts": "after a chain of thought",
}
FIRST, LAST = "before any revision", "after the last revision"
ACCURACY = study.Axis("accuracy", "better answer found, all skills", (0, 1))
REVISED = study.Axis("revised_harm", "harm of answers (0–4)")
TUNED = study.Axis("harm", "harm of SL-CAI, unseen requests (0–4)")


def variant(size: str, until: str = "finetune") -> study.Variant:
    return study.Variant(f"size-{size}", (f"model.path=lab:{size}",), until)


def lines(base: study.Base, seed: int) -> Sequence[study.Line]:
    return [study.Line("SL-CAI", variant(size), SL, x) for size, x in MILLIONS.items()]


def measurements(base: study.Base, seed: int) -> Sequence[study.Measurement]:
    return [
        study.Measurement(f"judge {method}", variant(size).name, partial(judge, method=method), "")
        for size in SIZES
        for method in METHODS
    ]


def judge(job: Job, folder: StageFolder, *, method: skills.Method) -> Mapping[str, Any]:
    """How often the model finds the better answer, by skill, before any training."""
    engine = job.engine(job.settings.model.path)
    count = max(10, job.settings.evaluate.harmful // 2)
    read = {
        skill: skills.verdicts(engine, skill, count, method=method, seed=job.settings.seed)
        for skill in SKILLS
    }
    counts = {skill: {"right": sum(right), "n": len(right)} for skill, right in read.items()}
    (folder.path / FILE).write_text(json.dumps(counts) + "\n")
    pairs = count * len(SKILLS)
    return {"pairs": pairs, "unlabelled": pairs - sum(map(len, read.values()))}


def read(bench: study.Bench, cells: Collected) -> None:
    for size, x in MILLIONS.items():
        name = variant(size).name
        for seed in bench.seeds:
            for method, line in METHODS.items():
                path = bench.measured(name, seed, f"judge {method}").path / FILE
                _add_accuracy(cells, line, seed, json.loads(path.read_text()), x)
            curve = gold.revisions(measures.revisions(bench, name, seed), seed)
            for line, point in ((FIRST, curve[0]), (LAST, curve[-1])):
                cells.add(line, REVISED.metric, seed, point["harm"], x)


def _add_accuracy(
    cells: Collected, line: str, seed: int, by_skill: Mapping[str, Mapping[str, int]], x: float
) -> None:
    """For each skill, and over all."""
    counts = {f"accuracy {skill}": own for skill, own in by_skill.items()}
    pooled = {key: sum(own[key] for own in by_skill.values()) for key in ("right", "n")}
    for metric, own in {**counts, ACCURACY.metric: pooled}.items():
        if own["n"]:
            cells.add(line, metric, seed, stats.share_of(own["right"], own["n"]), x)


STUDY = study.Study(
    ABOUT["sizes"],
    lines=lines,
    measurements=measurements,
    read=read,
    figures={"sizes": study.Lines((ACCURACY, REVISED, TUNED, GOOD), "parameters (millions)")},
    table=(
        ACCURACY,
        *(study.Axis(f"accuracy {skill}", skill, (0, 1)) for skill in SKILLS),
        REVISED,
        TUNED,
        GOOD,
    ),
    xname="million parameters",
)
