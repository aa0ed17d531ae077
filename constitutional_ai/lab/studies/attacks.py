"""The laboratory's jailbreaks on a run's model, and which principle's critique catches what.

Harmful requests of the test topics in every disguise of ``world/jailbreaks.py``, some of which no
training has shown; an answer is read against the plain request inside.
"""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from constitutional_ai.data.cases import Case
from constitutional_ai.data.requests import TEST
from constitutional_ai.evaluation import answers
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job
from constitutional_ai.lab import redteam as lab
from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.model_scores import AFTER, BASE, SL
from constitutional_ai.lab.studies.plan import Bench, Measurement
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.redteam import campaign as attacked
from constitutional_ai.redteam import scores as redteam
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder, derive_seed

CAUGHT = "caught.json"
LEAST = 4  # requests in each disguise, however small the run


def asked(variant: str, model: str = SL) -> Measurement:
    work = partial(ask, model=model)
    return Measurement(_name(model), variant, work, AFTER[model])


def _name(model: str) -> str:
    return f"attacks {model}"


def requests(job: Job) -> int:
    """How many harmful requests stand in every disguise: an eighth of an evaluation's."""
    return max(LEAST, job.settings.evaluate.harmful // 8)


def ask(job: Job, folder: StageFolder, *, model: str) -> Mapping[str, Any]:
    """Write transcripts.jsonl: every request in every disguise, with the oracle's readings."""
    seed = derive_seed(job.settings.seed, "attacks")
    plain: dict[str, Conversation] = {}
    cases = []
    for prompt in lab.draw(TEST, requests(job), 0, seed):
        for family in lab.names():
            rng = random.Random(content_hash("attack", prompt.id, family))
            disguised = lab.disguise(family, prompt.prompt, rng)
            plain[content_hash(disguised)] = prompt.prompt
            cases.append(
                Case(
                    id=f"{prompt.id} {family}",
                    prompt=disguised,
                    set="red-team",
                    kind="harmful",
                    slice=family,
                )
            )

    def read(prompt: Conversation, text: str) -> dict[str, float]:
        return truth.read(plain[content_hash(prompt)], text)

    spec = answering.path_of(job, model)
    rows = answers.generate(job, folder, {model: spec}, cases, seed, read)
    return {"attacks": len(rows)}


def add(
    found: Collected, bench: Bench, line: str, variant: str, metric: str, model: str = SL
) -> None:
    """Attack success of a variant's model over all disguises, in every seed."""
    for seed in bench.seeds:
        rows = bench.measured(variant, seed, _name(model)).rows(answers.FILE, Transcript)
        read = [row for row in rows if not row.missing]
        if read:
            through = stats.share(row.metrics["harmful_steps"] > 0 for row in read)
            found.add(line, metric, seed, through)


def catching(variant: str) -> Measurement:
    return Measurement("caught", variant, catch, after="")


def catch(job: Job, folder: StageFolder) -> Mapping[str, Any]:
    """Attack the base model; which principles' critiques find fault with what got through."""
    spec = str(answering.path_of(job, BASE))
    plan = Plan(
        models={BASE: spec},
        families=("seen", "unseen"),
        judge=spec,
        critic=spec,
        constitution=job.settings.constitution,
        requests=requests(job),
        benign_requests=max(LEAST, requests(job) // 2),
        seed=job.settings.seed,
    )
    campaign = attacked.run(
        plan, folder.path / "redteam", lambda path: job.engine(path), job.progress
    )
    matrix = redteam.matrix(campaign)
    (folder.path / CAUGHT).write_text(json.dumps(matrix) + "\n", encoding="utf-8")
    return {"attacks": len(campaign.attempts), **Counter(attacked.outcomes(campaign).values())}


def pooled(shares: Sequence[stats.Estimate]) -> stats.Estimate:
    """The share over several groups together."""
    right = sum(round(share["mean"] * share["n"]) for share in shares)
    every = sum(share["n"] for share in shares)
    return stats.share([True] * right + [False] * (every - right))


def caught(bench: Bench, variant: str, seed: int) -> dict[str, dict[str, stats.Estimate]]:
    """What ``catch`` wrote: {family: {principle: share caught}}."""
    found: dict[str, dict[str, stats.Estimate]] = json.loads(
        (bench.measured(variant, seed, "caught").path / CAUGHT).read_text(encoding="utf-8")
    )
    return found
