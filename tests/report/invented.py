"""Pages of a run, a campaign and a study that never were, with any text in their models' mouths."""

from typing import Any

from constitutional_ai.drawing import figures
from constitutional_ai.drawing.page import Drawing, render
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.judge.through import Reading
from constitutional_ai.lab.evaluation import METRICS
from constitutional_ai.lab.studies import pages
from constitutional_ai.lab.studies.about import About
from constitutional_ai.lab.studies.results import Collected, Result
from constitutional_ai.lab.studies.study import Axis, Dots, Lines, Plane, Study
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import RevisedAnswer, RevisionStep, assistant, user
from constitutional_ai.redteam import page as redteam
from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.attack import Attempt
from constitutional_ai.redteam.campaign import Campaign
from constitutional_ai.redteam.critics import Caught
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.report import plots, sections
from constitutional_ai.report import redteam as shown
from constitutional_ai.report.findings import Findings
from constitutional_ai.settings import Settings
from constitutional_ai.stats.intervals import Estimate


def estimate(mean: float, n: int = 100) -> Estimate:
    return {"mean": mean, "low": max(0, mean - 0.05), "high": mean + 0.05, "n": n}


def scores(harm: float) -> dict[str, Any]:
    found = {kind: {m: estimate(0.5) for m in names} for kind, names in METRICS.items()}
    found["harmful"]["harmful_steps"] = estimate(harm)
    found["benign"]["helpful"] = estimate(0.9)
    return {**found, "harmful_by_slice": {"unseen verb": found["harmful"]}}


def gold() -> dict[str, Any]:
    point = {"preference": estimate(1), "helpful": estimate(0.9), "good_refusal": estimate(0.4)}
    agreed = {"pairs": 90, "near_ties": 30, "agreement": estimate(0.9, 60)}
    return {
        "revisions": [{"revision": k, "harm": estimate(3 - k)} for k in range(3)],
        "labels": {"overall": agreed, "by_principle": {"hhh": agreed}},
        "reward": {"pairs": 5, "near_ties": 5},
        "ppo": [{"step": step, "proxy": step / 5, **point} for step in (0, 5)],
        "judge": {"harm": estimate(0.97)},
    }


def invented(nasty: str) -> Findings:
    """Findings of a run in which every model and every principle says ``nasty``."""
    step = RevisionStep(
        principle=nasty, principle_hash="0", critique=nasty, revision="Better.", clean=False
    )
    revised = RevisedAnswer(
        id="r1",
        prompt=[user("How do I steal a bike?")],
        answers=[nasty, "Better.", "Best."],
        steps=[step, step],
        messages=[user("How do I steal a bike?"), assistant("Best.")],
        constitution="c",
        model="m",
        seed=0,
    )
    transcripts = [
        Transcript(
            id=f"{model}-{kind}",
            model=model,
            kind=kind,
            slice="",
            prompt=[user(f"A {kind} request {nasty}")],
            answer=nasty,
            finished=model != "base",
            metrics={"harm": 2.0, "insult": 1.0, "evasive": 0.0},
        )
        for model in ("base", "sl-cai", "rl-cai")
        for kind in METRICS
    ]
    models = {"base": 0.99, "sl-cai-1": 0.5, "sl-cai-2": 0.2, "sl-cai": 0.2, "rl-cai": 0.01}
    ppo = [{"step": k, "objective/kl": k / 2, "objective/scores": k / 5} for k in range(6)]
    ppo[5] |= {"objective/entropy": float("nan")}
    return Findings(
        settings=Settings.model_validate({"revise": {"rounds": 2}}),
        constitution=Constitution(
            name="two", version="1", principles=(Principle(name="kind", text=f"Be kind. {nasty}"),)
        ),
        scores={name: scores(harm) for name, harm in models.items()},
        transcripts=transcripts,
        revised=[revised] * 3,
        calibration={
            "ece": 0.04,
            "bins": [
                {"predicted": 0.2, "observed": 0.3, "n": 9},
                {"predicted": 0.8, "observed": 0.7, "n": 9},
            ],
        },
        ppo=ppo,
        monitor=[{"step": 5, "monitor/judge": 0.6, "monitor/judge/se": None, "alarm": nasty}],
        manifests={
            "1-revise": {"seconds": 3.5, "versions": {"torch": "2"}},
            "4-label": {"seconds": 1.0, "counts": {"rows": 40, "unlabelled": {nasty: 3}}},
        },
        summary=compared(),
        unscored={"rl-cai": {"harmful": {"harm": {nasty: 2}}}},
        canaries={"says nothing": {"win_rate": estimate(0.1)}},
        gold=gold(),
        split={"harmful": {"taught": 10, "test, unseen verb": 4}},
    )


def compared() -> dict[str, Any]:
    """comparisons.json of two models."""
    paired = {
        "model": "rl-cai", "against": "base", "kind": "harmful", "slice": "", "metric": "harm",
        "difference": {"mean": -2.5, "low": -2.8, "high": -2.2, "n": 100}, "p": 0.0001,
        "p_holm": 0.0002, "left_out": 1,
    }  # fmt: skip
    win = {
        "model": "rl-cai", "against": "base", "kind": "harmful", "win_rate": estimate(0.9),
        "flipped_by_order": estimate(0.02), "unlabelled": 4,
    }  # fmt: skip
    elo = {"models": {"base": estimate(0), "rl-cai": estimate(120)}, "smoothed": True}
    sets = {"harmful": "red-team"}
    return {"sets": sets, "paired": [paired], "win_rates": [win], "elo": {"red-team": elo}}


def draw(findings: Findings) -> dict[str, Drawing]:
    return {
        name: Drawing(
            plot.title, plot.caption, figures.inline(figures.svg(plot.figure, name), name)
        )
        for name, plot in plots.draw(findings).items()
    }


def page(findings: Findings, drawings: dict[str, Drawing]) -> str:
    return render(sections.page(findings, drawings))


def run_page(nasty: str) -> str:
    """The run's report."""
    findings = invented(nasty)
    return page(findings, draw(findings))


def campaign(nasty: str) -> Campaign:
    """Two models, three families and six requests."""
    names, families = ("before", "after one round"), ("plain", "role-play", "refusal suppression")
    rows = [
        Attempt(
            id=f"{model}-{family}-{n}", model=model, family=family, category=nasty, kind="harmful",
            request_id=str(n), request=[user(f"{n} {nasty}")], prompt=[user(nasty)], answer=nasty,
            finished=True,
        )
        for model in names for family in families for n in range(6)
    ]  # fmt: skip
    through = {row.id: int(row.request_id) < 2 + 2 * (row.model == "before") for row in rows}
    readings = {
        row.id: Reading(id=row.id, refused=False, p_harm=float(through[row.id]), p_stray=0.0)
        for row in rows
    }
    caught = {
        row.id: Caught(id=row.id, by_principle={nasty: True}, unread=[], critiques={nasty: nasty})
        for row in rows
        if through[row.id]
    }
    plan = Plan(models={name: name for name in names}, prompts="requests.jsonl").resolved()
    return Campaign(plan, rows, readings, caught, {}, {})


def redteam_page(nasty: str) -> str:
    """The page of that campaign."""
    made = campaign(nasty)
    found = measured.scores(made)
    return render(redteam.page(made, found, redteam.got_through(made), shown.picture(found)))


def study_page(nasty: str) -> str:
    """A study with each kind of figure: lines, a plane, and rows of marks by three metrics."""
    axes = tuple(
        Axis(metric, label, (0, 1))
        for metric, label in (
            ("harmless", "answers to harmful requests without harm"),
            ("helpful", "help on benign requests"),
            ("refused", "benign requests refused (share)"),
        )
    )
    study = Study(
        About("invented", "What was never measured", "Figure 0", "Is it legible?", "", (nasty,)),
        figures={
            "lines": Lines(axes, "number of revisions"),
            "plane": Plane(axes[1], axes[0]),
            "rows": Dots(axes),
        },
        table=axes,
        xname="k",
    )
    found = Collected()
    for k, line in enumerate(("base", "SL-CAI", "RL-CAI", "RLHF with noisy labels", "joint")):
        for seed in range(3):
            for x in range(3):
                for m, axis in enumerate(axes):
                    value = 0.1 + 0.15 * k + 0.05 * x + 0.02 * seed + 0.05 * m
                    found.add(line, axis.metric, seed, estimate(value), x)
    result = Result(
        study="invented", seeds=[0, 1, 2], file="lab", overrides=[nasty], model="lab:s",
        command=nasty, version="0", cells=found.cells(), runs=[], notes=[nasty],
    )  # fmt: skip
    return pages.html([(study, result)])
