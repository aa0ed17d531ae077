"""The laboratory's jailbreaks on a run's model, and which principle's critique catches what.

Harmful requests of the test topics in every disguise of ``world/jailbreaks.py``. No training has
shown some of the disguises. An answer is read against the plain request inside.
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
from constitutional_ai.lab.studies.measures import AFTER, BASE, path_of
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.studies.study import Bench, Line, Measurement
from constitutional_ai.lab.world import gold
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.redteam import campaign as attacked
from constitutional_ai.redteam import scores as redteam
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder
from constitutional_ai.store.seeds import derive_seed

CAUGHT = "caught.json"
LEAST = 4  # requests in each disguise, however small the run


def asked(line: Line) -> Measurement:
    """The line's model answers every request in every disguise."""
    work = partial(ask, model=line.model)
    return Measurement(_name(line.model), line.variant.name, work, AFTER[line.model])


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
        return gold.metrics(plain[content_hash(prompt)], text)

    spec = path_of(job, model)
    rows = answers.generate(job, folder, {model: spec}, cases, seed, read)
    return {"attacks": len(rows)}


def add(cells: Collected, bench: Bench, line: Line) -> None:
    """Attack success of the line's model over all disguises, in every seed."""
    for seed in bench.seeds:
        folder = bench.measured(line.variant.name, seed, _name(line.model))
        read = [row for row in folder.rows(answers.FILE, Transcript) if not row.missing]
        if read:
            through = stats.share(row.metrics["harmful_steps"] > 0 for row in read)
            cells.add(line.name, f"{line.prefix}attack", seed, through)


def catching(variant: str) -> Measurement:
    return Measurement("caught", variant, catch, after="")


def catch(job: Job, folder: StageFolder) -> Mapping[str, Any]:
    """Attack the base model; which principles' critiques find fault with what got through."""
    spec = str(path_of(job, BASE))
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
    count = sum(round(share["mean"] * share["n"]) for share in shares)
    return stats.share_of(count, sum(share["n"] for share in shares))


def caught(bench: Bench, variant: str, seed: int) -> dict[str, dict[str, stats.Estimate]]:
    """What ``catch`` wrote: {family: {principle: share caught}}."""
    path = bench.measured(variant, seed, "caught").path / CAUGHT
    by_family: dict[str, dict[str, stats.Estimate]] = json.loads(path.read_text(encoding="utf-8"))
    return by_family
