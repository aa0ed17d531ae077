"""What the report says, in its order: the run's findings as sections of the page.

Nothing is measured here. Every number was written by an earlier stage; what a run did not measure
(such as gold outside the laboratory) has no section.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from constitutional_ai.drawing.page import (
    Article,
    Drawing,
    Page,
    Section,
    Story,
    Table,
    Turn,
    percent,
    table_of,
)
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.principles import Constitution
from constitutional_ai.records import Conversation
from constitutional_ai.report import training_data
from constitutional_ai.report.attachments import evaluated, sections_of, taxed
from constitutional_ai.report.findings import Findings
from constitutional_ai.stats.intervals import Estimate

T = TypeVar("T")

CAN = (
    "What this laboratory can show: how the whole method learns, against a truth that is known"
    " exactly. What revision after revision does, whether AI labels with errors still improve a"
    " policy, how KL holds off over-optimisation, how over-refusal comes and goes."
)
CANNOT = (
    "What it cannot show: how large any of these effects is in a real language model. Its world is"
    " templated English of a few hundred words; its model was taught to criticise and to judge,"
    " where a large model does so unasked; its harms are toys. No number on this page is a forecast"
    " for another model, and the model that came out of it is safe for nothing but this world."
)
SAME_JUDGE = (
    "The judge of these answers also labelled the data that the models were trained on. What it"
    " cannot see was neither trained away nor counted: evaluate.judge names another."
)
JUDGED = (
    "No oracle knows these prompts. The answers were read and compared by a model, both orders"
    " averaged, so the figures share that judge's blind spots; refusals were counted by"
    " a lexicon of common openings. Read the transcripts, and have people rate a sample, before you"
    " rely on them."
)


def page(findings: Findings, drawings: Mapping[str, Drawing]) -> Page:
    """The page; ``drawings`` are the figures by their names in ``draw``."""
    sections = [
        _section("Harmlessness and helpfulness", drawings, ["tradeoff"]),
        Section("Harm, and what its fall cost", _judge_words(findings), tables=_tax(findings)),
        _section(
            "Revisions",
            drawings,
            ["revisions"],
            _revision_words(findings),
            training_data.stopped(findings.manifests),
        ),
        Section("Labels", words=training_data.labels(findings.manifests)),
        _section("Reward model", drawings, ["calibration"], tables=_reward_tables(findings)),
        _last_training(findings, drawings),
        Section("Scores", tables=_score_tables(findings)),
        *_compared(findings),
        *(s for folder in findings.settings.report.beside for s in sections_of(Path(folder))),
        Section("Critique and revision", stories=_revision_stories(findings)),
        Section("Answers to test prompts", stories=_answer_stories(findings)),
        Section("Seconds", tables=[_seconds(findings)]),
        _constitution(findings.constitution),
        *([_split(findings.split)] if findings.split else []),
        _provenance(findings),
        Section("What this can and cannot show", words=_honest(findings), boxed=True),
    ]
    return Page(
        title=f"{findings.settings.name}: Constitutional AI under “{findings.constitution.name}”",
        headline=headline(findings),
        note="Intervals are 95 %, over the test prompts of one run; they do not cover the seed."
        + (" A synthetic laboratory: see the box at the end." if findings.in_lab else ""),
        sections=[s for s in sections if _filled(s)],
    )


def _compared(findings: Findings) -> list[Section]:
    """Between the run's models; and every row that got no label or no score, with the reason."""
    lost = training_data.unlabelled(findings.manifests)
    compared: list[Section] = []
    if findings.summary:
        compared = evaluated({"unscored": findings.unscored}, findings.summary)
    return [*compared, *([Section("Not labelled", tables=lost)] if lost else [])]


def headline(findings: Findings) -> str:
    """The result in one sentence."""
    base, tuned, final = (findings.scores[name] for name in ("base", "sl-cai", "rl-cai"))
    if not findings.in_lab:
        parts = [
            f"{_number(final[kind]['win_rate'])} on {kind} prompts"
            for kind in final
            if "win_rate" in final[kind]
        ]
        refusals = [
            f"{percent(base[kind]['refused'])} → {percent(found['refused'])} on {kind} prompts"
            for kind, found in final.items()
            if not kind.endswith(BY_SLICE) and "refused" in found and "refused" in base[kind]
        ]
        harm = [
            f"{percent(base[kind]['harmful'])} → {percent(found['harmful'])} of the answers to"
            f" {kind} prompts give real help; "
            for kind, found in final.items()
            if not kind.endswith(BY_SLICE) and "harmful" in found and "harmful" in base[kind]
        ]
        return (
            f"From the base to RL-CAI, {''.join(harm)}the judge puts RL-CAI's answer above the"
            f" base's with probability {', '.join(parts)}; refusals: {', '.join(refusals)}."
        )
    steps = [percent(model["harmful"]["harmful_steps"]) for model in (base, tuned, final)]
    good = percent(final["harmful"]["good_refusal"])
    asked, benign = final["harmful"]["harmful_steps"]["n"], final["benign"]["helpful"]["n"]
    return (
        f"Asked for harm by {asked} unseen prompts, the base model gives harmful steps in"
        f" {steps[0]} of its answers, SL-CAI in {steps[1]}, RL-CAI in {steps[2]}; {good} of"
        f" RL-CAI's answers decline with the right reason and a right alternative. Helpfulness on"
        f" {benign} benign requests: {_number(base['benign']['helpful'])} before,"
        f" {_number(final['benign']['helpful'])} after."
    )


def _tax(findings: Findings) -> list[Table]:
    return taxed(findings.summary)


def _judge_words(findings: Findings) -> list[str]:
    """That the judge of the training data was the judge of its outcome, where it was."""
    counts = (found.get("counts", {}) for found in findings.manifests.values())
    same = any(found.get("judged_by_its_labeller") for found in counts)
    return [SAME_JUDGE] if same else []


def _section(
    title: str,
    drawings: Mapping[str, Drawing],
    names: Sequence[str],
    words: Sequence[str] = (),
    tables: Sequence[Table] = (),
) -> Section:
    return Section(title, words, [drawings[n] for n in names if n in drawings], tables)


def _filled(section: Section) -> bool:
    parts = (section.words, section.drawings, section.tables, section.stories, section.articles)
    return any(parts) or bool(section.details)


def _revision_words(findings: Findings) -> list[str]:
    steps = [step for row in findings.revised for step in row.steps]
    if not steps:
        return []
    clean = fmean(step.clean for step in steps)
    return [
        f"{len(findings.revised)} answers to red-team prompts, {len(steps)} critiques and"
        f" revisions; {100 * clean:.0f} % of the critiques found nothing to change."
    ]


def _last_training(findings: Findings, drawings: Mapping[str, Drawing]) -> Section:
    """What made RL-CAI."""
    if findings.settings.learner == "dpo":
        words = training_data.held_out_by_dpo(findings.manifests)
        return _section("Direct preference optimisation", drawings, ["dpo"], words)
    named = ["ppo-steps", "ppo-kl", "ppo-health"]
    return _section("Reinforcement learning", drawings, named, _alarms(findings))


def _alarms(findings: Findings) -> list[str]:
    alarms = [str(row["alarm"]) for row in findings.monitor if row.get("alarm")]
    if not findings.monitor:
        return ["The monitor was off."]
    if not alarms:
        return [f"The monitor looked {len(findings.monitor)} times and raised no alarm."]
    return [f"The monitor's alarm: {alarm}" for alarm in alarms]


def _reward_tables(findings: Findings) -> list[Table]:
    caption = "P(better than the base's answer) of answers that no sound judge prefers."
    rows = [
        [name, f.get("win_rate"), f.get("unlabelled", 0)] for name, f in findings.canaries.items()
    ]
    canaries = Table(caption, ["", "win rate", "unlabelled"], rows)
    return [*_gold_tables(findings), *([canaries] if rows else [])]


def _gold_tables(findings: Findings) -> list[Table]:
    if findings.gold is None:
        return []
    labels, reward = findings.gold["labels"], findings.gold["reward"]
    rows = [
        (f"{_MEASURED[findings.settings.learner]}, held-out pairs", reward),
        ("labels, all principles", labels["overall"]),
        *((f"labels under “{name}”", found) for name, found in labels["by_principle"].items()),
    ]
    cells = [[name, f.get("agreement"), f["pairs"], f["near_ties"]] for name, f in rows]
    caption = (
        "Agreement with gold on pairs that gold tells apart; near-ties are left out and counted."
    )
    skills = [[name, found, found["n"]] for name, found in findings.gold["judge"].items()]
    return [
        Table(caption, ["", "agreement", "pairs", "near-ties"], cells),
        Table("The judge on pairs about test topics: right answers.", ["", "right", "n"], skills),
    ]


_MEASURED = {"ppo": "reward model", "dpo": "implicit reward of DPO"}
BY_SLICE = "_by_slice"
_CAPTIONS = {
    "harmful": "Harmful requests: harm is a mean from 0 to 4, the others are shares of answers.",
    "benign": "Benign requests: helpful is a mean from 0 to 1, the others are shares of answers.",
    "borderline": "Borderline requests look harmful and are not: a refusal is an over-refusal.",
    "facts": "Questions of fact.",
}


def _score_tables(findings: Findings) -> list[Table]:
    kinds = dict.fromkeys(kind for m in findings.models.values() for kind in m)
    named = [kind for kind in _CAPTIONS if kind in kinds]
    others = [kind for kind in kinds if kind not in _CAPTIONS and not kind.endswith(BY_SLICE)]
    tables = [
        table_of(
            _CAPTIONS.get(kind, f"Prompts of the kind “{kind}”."),
            {name: m[kind] for name, m in findings.models.items() if kind in m},
        )
        for kind in (*named, *others)
    ]
    slices = {
        f"{name}, {part}": found
        for name, model in findings.models.items()
        if name in ("base", "sl-cai", "rl-cai")
        for part, found in model.get("harmful_by_slice", {}).items()
    }
    if slices:
        what = "what was new to the base model" if findings.in_lab else "slice"
        tables.append(table_of(f"Harmful requests by {what}.", slices))
    return tables


def _asked(prompt: Conversation) -> str:
    return prompt[-1]["content"]


def _revision_stories(findings: Findings) -> list[Story]:
    rows = _spread(findings.revised, findings.settings.report.transcripts // 2)
    return [
        Story(
            _asked(row.prompt),
            [
                [Turn("first answer", row.answers[0])],
                *(
                    [
                        Turn(f"critique {k}, under “{step.principle}”", step.critique),
                        Turn(f"revision {k}", step.revision),
                    ]
                    for k, step in enumerate(row.steps, 1)
                ),
            ],
        )
        for row in rows
    ]


def _answer_stories(findings: Findings) -> list[Story]:
    """Some prompts of every kind, answered by the base and by what became of it."""
    shown = {"base": "base", "sl-cai": "SL-CAI", "rl-cai": "RL-CAI"}
    by_prompt: dict[tuple[str, str], dict[str, Transcript]] = {}
    for row in findings.transcripts:
        by_prompt.setdefault((row.kind, _asked(row.prompt)), {})[row.model] = row
    count = findings.settings.report.transcripts - findings.settings.report.transcripts // 2
    stories = []
    for kind, asked in _spread(list(by_prompt), count):
        given = by_prompt[kind, asked]
        columns = [
            [Turn(label, given[name].answer, _reading(given[name]))]
            for name, label in shown.items()
            if name in given
        ]
        stories.append(Story(f"{asked} [{kind}]", columns))
    return stories


def _spread(rows: Sequence[T], count: int) -> list[T]:
    """``count`` rows at even distances, the first among them."""
    count = min(count, len(rows))
    return [rows[k * len(rows) // count] for k in range(count)]


def _reading(row: Transcript) -> str:
    read = [name.replace("_", " ") for name, value in row.metrics.items() if value]
    values = [
        f"{name} {row.metrics[name.replace(' ', '_')]:.2g}" if name in ("harm", "helpful") else name
        for name in read
        if name != "names request"
    ]
    return ("oracle: " + ", ".join(values) if values else "") + (
        "" if row.finished else " (cut off)"
    )


def _seconds(findings: Findings) -> Table:
    rows = [[name, found.get("seconds")] for name, found in findings.manifests.items()]
    total = sum(found.get("seconds", 0.0) for found in findings.manifests.values())
    return Table(
        "Seconds by stage, as measured in this run.", ["", "seconds"], [*rows, ["all", total]]
    )


def _constitution(constitution: Constitution) -> Section:
    articles = [
        Article(
            name=p.name,
            text=p.text,
            facts=f"{p.kind}, weight {p.weight:g}, for {' and '.join(p.use)}, {p.hash}",
            prompts={
                "critique": p.critique_prompt,
                "revision": p.revision_prompt,
                "preference": p.preference_prompt,
            },
        )
        for p in constitution.principles
    ]
    words = [
        f"{constitution.name} {constitution.version}, hash {constitution.hash}."
        f" {constitution.description}"
    ]
    return Section("Constitution", words=words, articles=articles)


def _split(split: Mapping[str, Any]) -> Section:
    words = (
        "Which topics the base model was taught to criticise and judge, which the alignment ran on,"
    )
    words += " and which the test asks; no test topic was seen in either."
    details = {name: _json(part) for name, part in split.items()}
    return Section("Split of topics", words=[words], details=details)


def _provenance(findings: Findings) -> Section:
    details = {f"manifest: {name}": _json(found) for name, found in findings.manifests.items()}
    settings = findings.settings.to_toml()
    words = [f"Seed {findings.settings.seed}; model {findings.settings.model.path}."]
    return Section("Provenance", words=words, details={"settings": settings, **details})


def _honest(findings: Findings) -> list[str]:
    return [JUDGED] if not findings.in_lab else [CAN, CANNOT]


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def _number(estimate: Estimate) -> str:
    return f"{estimate['mean']:.2f} ({estimate['low']:.2f}–{estimate['high']:.2f})"
