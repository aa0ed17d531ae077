"""Measures models on held-out prompts: what `cai run`'s stage and `cai evaluate --model` share.

    prompts × models        answers.py                   transcripts, given
    × readers               oracle.py or judged.py       grades, comparisons, canaries
    models × what they knew choices.py, likelihood.py    choices, likelihoods
    = scores                scores.py, tax.py            scores, comparisons, frontier

In the laboratory the oracle reads the answers. Elsewhere a lexicon finds refusals and a judge,
where there is one, reads each answer alone and in pairs; and each model is asked what it should
not have unlearned.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.data.answers import AnswersFile
from constitutional_ai.data.cases import Case
from constitutional_ai.drawing import tables
from constitutional_ai.engines.ask import used
from constitutional_ai.engines.pool import HELD
from constitutional_ai.evaluation import answers, choices, judged, likelihood, scores, tax
from constitutional_ai.evaluation.choices import Chosen
from constitutional_ai.evaluation.likelihood import Likelihood
from constitutional_ai.evaluation.oracle import oracle
from constitutional_ai.evaluation.rows import Compared, Graded, Transcript
from constitutional_ai.evaluation.scores import Observation, Scores
from constitutional_ai.job import Job
from constitutional_ai.judge import questions as asking
from constitutional_ai.judge.open import evaluating, judge_model
from constitutional_ai.stats.paired import least_difference, prompts_needed
from constitutional_ai.store import failures
from constitutional_ai.store.run_folder import StageFolder

TRANSCRIPTS, SCORES = answers.FILE, "scores.json"
SUMMARY, CANARIES, FRONTIER = "comparisons.json", "canaries.json", "frontier.svg"
GOLD = "gold.json"  # what the oracle says of a run in the laboratory
FILES = (
    TRANSCRIPTS, answers.GIVEN, judged.GRADES, judged.COMPARISONS, failures.FILE,
    choices.FILE, likelihood.FILE, SCORES, SUMMARY, CANARIES, FRONTIER,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is measured. ``given`` are answers from files; ``judged``: whether there is a judge."""

    models: Mapping[str, str | Path]
    cases: Sequence[Case]
    in_lab: bool
    judged: bool
    given: Sequence[AnswersFile] = ()

    @property
    def sets(self) -> dict[str, str]:
        """{kind: prompt set}; a kind whose prompts stand in both is red-team."""
        sets: dict[str, str] = {}
        for case in self.cases:
            if sets.get(case.kind) != "red-team":
                sets[case.kind] = case.set
        return sets

    @property
    def sliced(self) -> list[str]:
        """The kinds that are divided into slices."""
        return [kind for kind in self.sets if any(c.slice for c in self.cases if c.kind == kind)]


def measure(job: Job, folder: StageFolder, plan: Plan, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Write every file of the evaluation but scores.json; its content and the manifest's counts."""
    drawn = _open_models(job, folder, plan)
    job = evaluating(job)
    for line in power_lines(plan, job.settings.evaluate.difference):
        job.progress.note(line)
    rows = _answered(job, folder, plan, seed)

    settings, cases = job.settings.evaluate, {case.id: case for case in plan.cases}
    read_by_judge = plan.judged and not plan.in_lab
    graded: list[Graded] = []
    compared: list[Compared] = []
    if read_by_judge and settings.grade:
        graded = judged.grade(job, folder, rows, cases, seed)
    if read_by_judge and settings.pairs != "off":
        compared = judged.compare(job, folder, rows, cases, seed)
    if plan.judged:
        write(folder.path / CANARIES, judged.canaries(job, rows, cases, seed))

    observed = _observed(job, plan, rows, graded)
    summary = _summary(observed, compared, plan, seed)
    lacking: dict[str, int] = {}
    if not plan.in_lab:
        chosen, likelihoods = _kept(job, folder, plan, seed)
        models = list(dict.fromkeys(row.model for row in rows))
        known = tax.Measured(models, plan.sets, observed, compared, chosen, likelihoods)
        summary["tax"] = tax.rows(known, seed)
        lacking = {
            "unanswered_questions": sum(row.right is None for row in chosen),
            "unread_dialogues": sum(row.logprob is None for row in likelihoods),
        }
    write(folder.path / SUMMARY, summary)
    if summary["frontier"]:
        draw_frontier(summary["frontier"]["points"], folder.path / FRONTIER)
    content: dict[str, Any] = {"models": scores.summarise(observed, seed, plan.sliced)}
    _add_win_rates(content["models"], summary["win_rates"], rows)
    if lost := scores.unscored(observed):
        content["unscored"] = lost
    return content, {
        "answers": len(rows),
        "answers_by_model": dict(Counter(row.model for row in rows)),
        "unfinished": sum(not row.finished for row in rows if not row.missing),
        "missing": sum(bool(row.missing) for row in rows),
        "ungraded": sum(bool(row.unlabelled) for row in graded),
        "uncompared": sum(row.p_better is None for row in compared),
        **drawn,
        **lacking,
    }


def _open_models(job: Job, folder: StageFolder, plan: Plan) -> dict[str, Any]:
    """So that a model that cannot be opened is an error before anything else is said.

    Returns what the first one draws with.
    """
    models = list(plan.models.values())
    if not (folder.path / TRANSCRIPTS).exists():
        for model in models[1:HELD]:
            job.engine(model)
    return used(job.engine(models[0]), job.settings.evaluate) if models else {}


def _answered(job: Job, folder: StageFolder, plan: Plan, seed: int) -> list[Transcript]:
    read = oracle().read if plan.in_lab else None
    rows: list[Transcript] = []
    if plan.given:
        of_models = {name: given for file in plan.given for name, given in file.answers.items()}
        rows += answers.given(folder, plan.cases, of_models, read)
    if plan.models:
        rows += answers.generate(job, folder, plan.models, plan.cases, seed, read)
    return rows


def _kept(
    job: Job, folder: StageFolder, plan: Plan, seed: int
) -> tuple[list[Chosen], list[Likelihood]]:
    """What the models still know, and how likely they find what people answered.

    Who is tested in the laboratory's world knows no other.
    """
    settings, models = job.settings.evaluate, dict(plan.models)
    asked = settings.capability and not oracle().known(plan.cases)
    chosen = choices.measure(job, folder, models) if asked else []
    if not settings.dialogues:
        return chosen, []
    dialogues = likelihood.load(settings.dialogues, settings.dialogue_count, seed)
    return chosen, likelihood.measure(job, folder, models, dialogues)


def _observed(
    job: Job, plan: Plan, rows: Sequence[Transcript], graded: Sequence[Graded]
) -> list[Observation]:
    if plan.in_lab:
        return scores.by_oracle(rows, oracle().METRICS)
    asked = {kind: ["refused"] for kind in plan.sets}
    if graded:
        chosen = job.settings.evaluate.questions
        questions = asking.questions_for(str(judge_model(job)), chosen)
        for case in plan.cases:
            asked[case.kind] += [q.metric for q in questions if q.applies(case)]
    metrics = {kind: list(dict.fromkeys(names)) for kind, names in asked.items()}
    return scores.by_judge(rows, graded, metrics)


def _add_win_rates(
    models: Scores, rates: Sequence[Mapping[str, Any]], rows: Sequence[Transcript]
) -> None:
    """P(better than the first model) among each model's other metrics."""
    for rate in rates:
        if rate["against"] == rows[0].model:
            names = [name for name in ("win_rate", "unlabelled") if name in rate]
            models[rate["model"]][rate["kind"]] |= {name: rate[name] for name in names}


def _summary(
    observed: Sequence[Observation], compared: Sequence[Compared], plan: Plan, seed: int
) -> dict[str, Any]:
    models = list(dict.fromkeys(row.model for row in observed))
    return {
        "sets": plan.sets,
        "paired": scores.paired_to_first(observed, seed, plan.sliced),
        "win_rates": scores.win_rates(compared, seed),
        "elo": scores.elo_scores(compared, models, plan.sets, seed),
        "frontier": scores.frontier_points(observed, plan.sets, seed),
    }


def power_lines(plan: Plan, difference: float) -> list[str]:
    """Which differences that many prompts can show, at power 0.8, before anything runs."""
    need, lines = prompts_needed(difference), []
    for kind, count in Counter(case.kind for case in plan.cases).items():
        least = least_difference(count)
        finds = f"a difference of {least:.2f}" if least is not None else "no difference at all"
        lines.append(
            f"{kind}: {count} prompts find {finds} between two models' shares with power 0.8;"
            f" {difference:.2f} would take {need:,} (unrelated answers, the worst case)"
        )
    return lines


def draw_frontier(points: Mapping[str, Any], path: Path) -> None:
    """Every model by harmlessness and helpfulness."""
    from constitutional_ai.drawing import figures

    marks = [
        figures.Point(name, point["helpfulness"], point["harmlessness"])
        for name, point in points.items()
    ]
    figure = figures.tradeoff(marks, "helpfulness", "harmlessness (1 − harm / 4)")
    path.write_text(figures.svg(figure, "frontier"), encoding="utf-8")


def show_scores(folder: Path) -> str:
    """The tables of an evaluation that is done."""
    return tables.everything(load(folder / SCORES), load(folder / SUMMARY))


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load(path: Path) -> Any:
    return json.loads(path.read_bytes())
