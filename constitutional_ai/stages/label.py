"""Stage 4: AI feedback. The judge's soft preference for each pair (paper, section 4.1).

The judge is the model that everything started from ("base"), the SL-CAI model ("sl-cai"), or any
other model by its spec; ``label.jury`` seats more of them. A pair without a readable verdict is
written too, with the reason, and counted; it is never trained on, and too many of them stop the
stage. So is a pair that nobody is asked about, which does not count as too many: two identical
answers, or one that was cut off (``label.cut``). Rows are Preference.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from constitutional_ai.engines.ask import used
from constitutional_ai.errors import ModelError
from constitutional_ai.job import Job, model_name
from constitutional_ai.judge.agreement import (
    WIDE_GAP,
    disagreement,
    order_gap,
    order_warning,
    position_bias,
)
from constitutional_ai.judge.judge import Comparison, Unlabelled, Verdict, mode_of
from constitutional_ai.judge.jury import seat
from constitutional_ai.judge.open import judges_of
from constitutional_ai.records import Pair, Preference, assistant, content_hash
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.seeds import derive_seed

NAME = "label"
FILE = "preferences.jsonl"
IDENTICAL, CUT = ASIDE = ("identical answers", "an answer was cut off at max_new_tokens")


def run(job: Job) -> dict[str, Any]:
    """Write preferences.jsonl; the manifest's counts.

    Raises ModelError if more than ``label.max_unlabelled`` of the pairs got no label, those aside
    that nobody is asked about, or if there is no other. The rows that are written by then are kept.
    """
    settings, folder = job.settings.label, job.stage(NAME)
    judges = {model_name(job, model): judge for model, judge in judges_of(job).items()}
    judge, name = seat(list(judges.values())), " + ".join(judges)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    pairs = job.stage("sample").rows("pairs.jsonl", Pair)
    made_by = (NAME, stage_seed, name, job.constitution.hash, settings.identity())
    temperatures = {n: each.temperature for n, each in judges.items() if each.temperature != 1.0}
    lost: Counter[str] = Counter()
    left_out = Counter(aside(pair, settings) for pair in pairs)
    comparable = left_out[""]
    if pairs and not comparable:
        raise ModelError(
            f"none of {len(pairs)} pairs is worth a label ({left_out[IDENTICAL]} hold one answer"
            f" twice, {left_out[CUT]} an answer that was cut off); raise sample.temperature or"
            " sample.max_new_tokens"
        )

    def work(chunk: Sequence[Pair], _: int) -> list[Preference]:
        _stop_at(lost, comparable, settings, name)
        asked_about = [pair for pair in chunk if not aside(pair, settings)]
        compared = judge.compare([Comparison.of(pair) for pair in asked_about], stage_seed)
        lost.update(v.reason for v in compared if isinstance(v, Unlabelled))
        of_pair = dict(zip((pair.id for pair in asked_about), compared, strict=True))
        verdicts = [of_pair.get(pair.id, Unlabelled(aside(pair, settings), {})) for pair in chunk]
        return [
            preference(
                pair,
                verdict,
                settings,
                id=content_hash(pair.id, *made_by),
                constitution=job.constitution.hash,
                judge=name,
                seed=job.settings.seed,
                temperature=temperatures,
            )
            for pair, verdict in zip(chunk, verdicts, strict=True)
        ]

    with job.progress.task(NAME, total=len(pairs), unit="pairs") as tick:
        rows = in_chunks(folder, FILE, pairs, settings.chunk, work, tick, Preference)
    reasons = Counter(row.unlabelled for row in rows if row.unlabelled)
    for reason in ASIDE:
        del reasons[reason]
    _stop_at(reasons, comparable, settings, name)
    counts = summary(rows)
    if counts.get("order_gap", 0.0) > WIDE_GAP:
        job.progress.note(order_warning(counts["order_gap"]))
    drawn = settings.method in ("thoughts", "vote")
    engine = next(iter(judges.values())).engine
    return {**counts, **(used(engine, settings) if drawn else {})}


def aside(pair: Pair, settings: LabelSettings) -> str:
    """Why nobody is asked about a pair: it teaches nothing, or what it should not; "" if not."""
    if pair.answers[0] == pair.answers[1]:
        return IDENTICAL
    return CUT if pair.cut and settings.cut == "drop" else ""


def _stop_at(reasons: Counter[str], pairs: int, settings: LabelSettings, name: str) -> None:
    """Raise ModelError if all pairs are unlabelled, or more of them than may be."""
    lost = reasons.total()
    if not lost or (lost < pairs and lost <= settings.max_unlabelled * pairs):
        return
    (reason, often), *_ = reasons.most_common(1)
    if lost == pairs:
        what = f"{name} judged none of {pairs} pairs"
    else:
        what = f"{name} left {lost} of {pairs} pairs unlabelled, more than label.max_unlabelled"
        what += f" = {settings.max_unlabelled:g}"
    raise ModelError(
        f"{what} ({often}x: {reason}); choose another `label.judge` or `label.method`, or raise"
        f" `label.max_unlabelled` to go on with the others: the rows are kept"
    )


def preference(
    pair: Pair,
    verdict: Verdict | Unlabelled,
    settings: LabelSettings,
    *,
    id: str,
    constitution: str,
    judge: str,
    seed: int,
    temperature: dict[str, float],
) -> Preference:
    """The row of a judged pair: the answer with p ≥ 0.5 is the chosen one, the first on a tie."""
    first, second = pair.answers
    if isinstance(verdict, Verdict) and verdict.p_first < 0.5:
        first, second, verdict = second, first, verdict.swap()
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
        method=settings.method,
        mode=mode_of(settings),
        p_soft=read.p_soft if read else None,
        temperature=temperature,
        by_judge=read.by_judge if read else {},
        disagreement=disagreement(read.by_judge) if read else None,
        unread=dict(read.unread) if read else {},
        decided_by=list(read.decided_by) if read else [],
        scores=read.scores if read else None,
        thoughts=list(read.thoughts) if read else [],
        chosen_model=pair.model,
        rejected_model=pair.model,
        mass=read.mass if read else None,
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
        counts["mean_confidence"] = fmean(labels)
    if orders := [row.by_order for row in rows if row.by_order is not None]:
        bias = position_bias(orders)
        counts["position_bias"], counts["flip_rate"] = bias.mean, bias.flip_rate
        counts["order_gap"] = order_gap(orders)
    if masses := [row.mass for row in rows if row.mass is not None]:
        counts["mass"] = fmean(masses)
    if apart := [row.disagreement for row in rows if row.disagreement is not None]:
        counts["disagreement"] = fmean(apart)
    if unread := sum((Counter(row.unread) for row in rows), Counter()):
        counts["unread"] = dict(unread)
    return counts
