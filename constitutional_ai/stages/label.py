"""Stage 4: AI feedback. The judge's soft preference for each pair (paper, section 4.1).

The judge is the model that everything started from ("base"), the SL-CAI model ("sl-cai"), or any
other model by its path. A pair without a readable verdict is written too, with the reason, and
counted; it is never trained on. Rows are Preference.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.errors import ModelError
from constitutional_ai.job import Job
from constitutional_ai.judge import Judge, Unlabelled, Verdict, position_bias
from constitutional_ai.records import Pair, Preference, assistant, content_hash
from constitutional_ai.run import derive_seed, in_chunks
from constitutional_ai.stages import model_name

NAME = "label"
FILE = "preferences.jsonl"


def run(job: Job) -> dict[str, Any]:
    """Write preferences.jsonl; the manifest's counts. Raises ModelError if no pair got a label."""
    settings, folder = job.settings.label, job.stage(NAME)
    model = judge_model(job)
    judge, name = Judge(job.engine(model), job.constitution, settings), model_name(job, model)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    pairs = job.stage("sample").rows("pairs.jsonl", Pair)
    made_by = (NAME, stage_seed, name, job.constitution.hash, settings.model_dump())

    def work(chunk: Sequence[Pair], _: int) -> list[Preference]:
        verdicts = judge.compare(
            prompts=[pair.prompt for pair in chunk],
            sets=[pair.set for pair in chunk],
            firsts=[pair.answers[0] for pair in chunk],
            seconds=[pair.answers[1] for pair in chunk],
            ids=[pair.id for pair in chunk],
            seed=stage_seed,
        )
        return [
            preference(
                pair,
                verdict,
                id=content_hash(pair.id, *made_by),
                constitution=job.constitution.hash,
                judge=name,
                seed=job.settings.seed,
            )
            for pair, verdict in zip(chunk, verdicts, strict=True)
        ]

    with job.progress.task(NAME, total=len(pairs), unit="pairs") as tick:
        rows = in_chunks(folder, FILE, pairs, settings.chunk, work, tick, Preference)
    counts = summary(rows)
    if rows and not counts["labelled"]:
        reason = max(counts["unlabelled"], key=counts["unlabelled"].get)
        raise ModelError(
            f"{name} judged none of {len(rows)} pairs ({reason}); choose another `label.judge`"
        )
    return counts


def judge_model(job: Job) -> str | Path:
    """Which model judges. "base" is the run's starting model in every round, not this round's."""
    match job.settings.label.judge:
        case "base":
            return job.settings.model.path
        case "sl-cai":
            return job.stage("finetune").path / "model"
        case path:
            return path


def preference(
    pair: Pair,
    verdict: Verdict | Unlabelled,
    *,
    id: str,
    constitution: str,
    judge: str,
    seed: int,
) -> Preference:
    """The row of a judged pair: the answer with p ≥ 0.5 is the chosen one, the first on a tie."""
    first, second = pair.answers
    if isinstance(verdict, Verdict) and verdict.p_first < 0.5:
        first, second, verdict = second, first, verdict.swapped()
    read = verdict if isinstance(verdict, Verdict) else None
    return Preference(
        id=id,
        prompt=pair.prompt,
        set=pair.set,
        chosen=[assistant(first)],
        rejected=[assistant(second)],
        p_chosen=read.p_first if read else None,
        by_principle=read.by_principle if read else {},
        by_order=read.by_order if read else None,
        principle_hashes=verdict.principle_hashes,
        unlabelled="" if isinstance(verdict, Verdict) else verdict.reason,
        constitution=constitution,
        judge=judge,
        seed=seed,
    )


def summary(rows: Sequence[Preference]) -> dict[str, Any]:
    """Counts, and how sure and how steady the judge was; confidence is max(p, 1 − p)."""
    labels = [row.p_chosen for row in rows if row.p_chosen is not None]
    under: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, p in row.by_principle.items():
            under[name].append(max(p, 1 - p))
    counts: dict[str, Any] = {
        "rows": len(rows),
        "labelled": len(labels),
        "unlabelled": dict(Counter(row.unlabelled for row in rows if row.unlabelled)),
        "by_principle": {
            name: {"n": len(values), "confidence": fmean(values)}
            for name, values in sorted(under.items())
        },
    }
    if labels:
        bias = position_bias(row.by_order for row in rows if row.by_order is not None)
        counts["mean_confidence"] = fmean(labels)
        counts["position_bias"], counts["flip_rate"] = bias.mean, bias.flip_rate
    return counts
