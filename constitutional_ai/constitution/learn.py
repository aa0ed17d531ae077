"""``cai constitution learn``: which principles explain given preferences.

1. A model is asked, on a sample of pairs, which rule the choice followed. The order of the answers
   is drawn, so that a liking for one place does not become a rule.
2. Proposals with much the same words are one candidate: the most central wording of each cluster.
   Or the candidates are another constitution's principles, and nothing is proposed.
3. Each candidate is judged alone on the pairs, both orders averaged. It explains a pair where it
   gives the chosen answer more than half.
4. Principles are selected greedily on one part of the pairs. Each step takes the one that most
   raises the share explained by the mean of those selected, while the gain is large enough. All
   reported shares come from the other part, which selected nothing.

Related: inverse constitutional AI (Findeis et al. 2024, arXiv 2406.06560), where a model votes on
summaries of rules; here the pipeline's own judge decides, by log-probabilities.

Not covered: weights are equal; a rule that holds only in part of the pairs is scored over all.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from constitutional_ai import prompts as templates
from constitutional_ai.constitution.entries import Entry, unique_names
from constitutional_ai.constitution.similarity import alike, clusters
from constitutional_ai.data.pairs import Labelled, load_usable, sample
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.errors import ConstitutionError, DataError
from constitutional_ai.judge.judge import Comparison, Verdict, nonce
from constitutional_ai.judge.one_principle import under
from constitutional_ai.principles import Principle, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation, PromptSet, content_hash
from constitutional_ai.stats import intervals as stats

SAME = 0.35  # mean similarity from which proposals say the same
SHORTEST, LONGEST = 4, 60  # words of a proposal that can be a principle

Explained = dict[str, float]  # row id → P(chosen better), where there was a verdict


@dataclass(frozen=True)
class Candidate:
    """A principle that may explain; ``proposed`` is how often its cluster was proposed."""

    principle: Principle
    proposed: int = 0
    variants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """``share`` is the part of the held-out pairs that the principle explains alone."""

    candidate: Candidate
    share: stats.Estimate | None
    unlabelled: int


@dataclass(frozen=True)
class Step:
    """One round of the selection; ``share`` is what all principles so far explain together."""

    name: str
    share: stats.Estimate | None


@dataclass
class Learned:
    """The candidates, best first, the selection in order, and what they were learned from."""

    source: str
    engine: str
    selected_on: int
    held_out: int
    skipped: Counter[str]
    asked: int = 0  # pairs that were asked about for proposals
    unreadable: Counter[str] = field(default_factory=Counter)
    scored: list[Scored] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Asking:
    """Who is asked, and how much. ``candidates`` names a constitution; without one, propose."""

    engine: Engine
    fence: bool
    sampling: Sampling
    candidates: str | None
    propose: int
    limit: int
    most: int
    min_gain: float


def learn(path: Path, set: PromptSet, asking: Asking, progress: Progress) -> Learned:
    """Raises DataError where there are too few pairs, or no proposal can be read; NoLogprobs."""
    pairs, skipped = load_usable(path, set)
    rows = sample(pairs, asking.limit, "learn", asking.sampling.seed)
    fit, held = split(rows)
    if not fit or not held:
        raise DataError(
            f"{path}: {len(rows)} preferences are too few to hold some of them out; add rows"
        )
    engine = asking.engine.name
    result = Learned(str(path), engine, len(fit), len(held), skipped)
    if asking.candidates is None:
        candidates = _propose(fit[: asking.propose], result, asking, progress)
    else:
        candidates = _taken(asking.candidates)
    judged = _judge(candidates, rows, asking, progress)
    for candidate in candidates:
        explained = judged[candidate.principle.name]
        share = _estimate(_of(explained, held))
        result.scored.append(Scored(candidate, share, len(rows) - len(explained)))
    result.scored.sort(key=lambda one: -(one.share["mean"] if one.share else 0.0))
    on_fit = {name: _of(explained, fit) for name, explained in judged.items()}
    names = [name for name, _ in select(on_fit, asking.most, asking.min_gain)]
    for number, name in enumerate(names, 1):
        together = [_of(judged[one], held) for one in names[:number]]
        result.steps.append(Step(name, _estimate(_mean(together))))
    return result


def split(rows: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """(to select on, held out), by a hash of the prompt: pairs of one prompt stay together."""
    held = [int(content_hash("held out", row.prompt), 16) % 2 == 0 for row in rows]
    return (
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )


# ---- candidates -------------------------------------------------------------------------------


def _taken(path: str) -> list[Candidate]:
    constitution = load_constitution(path)
    taken = [Candidate(p) for p in constitution.principles if "preference" in p.use]
    if not taken:
        raise ConstitutionError(
            f'{path}: no principle of it has "preference" in use; add it to one'
        )
    return taken


def _propose(
    rows: Sequence[Labelled], result: Learned, asking: Asking, progress: Progress
) -> list[Candidate]:
    """Candidates in the model's own words, those proposed most often first."""
    conversations = [_question(row, asking.fence, asking.sampling.seed) for row in rows]
    with progress.task("propose", total=len(rows), unit="pairs") as tick:
        replies = asking.engine.generate(conversations, asking.sampling)
        tick(len(rows))
    result.asked, texts = len(rows), []
    for reply in replies:
        text, reason = read_proposal(reply.text)
        if reason:
            result.unreadable[reason] += 1
        else:
            texts.append(text)
    if not texts:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in result.unreadable.items())
        raise DataError(
            f"{result.source}: {result.engine} proposed no readable principle for"
            f" {result.asked} pairs ({reasons}); take another --engine, or --candidates FILE"
        )
    return _clustered(texts)


def _question(row: Labelled, fence: bool, seed: int) -> Conversation:
    chosen_first = random.Random(content_hash("learn", seed, row.id)).random() < 0.5
    first, second = (row.better, row.worse) if chosen_first else (row.worse, row.better)
    quoted = nonce(seed, row.id, first, second) if fence else ""
    preferred = templates.OPTIONS[0 if chosen_first else 1]
    return templates.explanation(row.prompt, first, second, preferred, quoted)


def read_proposal(reply: str) -> tuple[str, str]:
    """(the rule in a reply, "") or ("", why there is none).

    >>> read_proposal("Sure! The answer should name its source. That helps.")
    ('The answer should name its source.', '')
    >>> read_proposal("I prefer (A).")
    ('', 'no sentence that begins with "The answer should"')
    """
    plain = " ".join(reply.replace("*", "").replace('"', "").split())
    match = re.search(r"\b[Tt]he (?:answer|response|reply|assistant) should\b[^.!?]*[.!?]?", plain)
    if match is None:
        return "", 'no sentence that begins with "The answer should"'
    text = match[0][0].upper() + match[0][1:].rstrip(".!?") + "."
    if not SHORTEST <= len(text.split()) <= LONGEST:
        return "", f"not between {SHORTEST} and {LONGEST} words"
    if re.search(r"\([AB]\)|\b(?:option|answer|response) [AB]\b", text):
        return "", "it names an option"
    return text, ""


def _clustered(texts: Sequence[str]) -> list[Candidate]:
    table, central = alike(texts), []
    groups = clusters(table, SAME)
    for group in groups:
        central.append(max(group, key=lambda i: (float(table[i, group].sum()), -i)))
    entries = [Entry.of(texts[centre]).settled() for centre in central]
    unique_names(entries)
    candidates = []
    for entry, group, centre in zip(entries, groups, central, strict=True):
        others = dict.fromkeys(texts[i] for i in group if texts[i] != texts[centre])
        candidates.append(Candidate(Principle(**entry.fields), len(group), tuple(others)))
    return candidates


# ---- what they explain --------------------------------------------------------------------------


def _judge(
    candidates: Sequence[Candidate], rows: Sequence[Labelled], asking: Asking, progress: Progress
) -> dict[str, Explained]:
    judged: dict[str, Explained] = {}
    questions = [Comparison(r.id, r.prompt, r.set, r.better, r.worse) for r in rows]
    total = len(candidates) * len(rows)
    with progress.task("judge", total=total, unit="comparisons") as tick:
        for principle in (candidate.principle for candidate in candidates):
            verdicts = under(asking.engine, principle, questions, asking.fence, tick)
            judged[principle.name] = {
                row.id: verdict.p_first
                for row, verdict in zip(rows, verdicts, strict=True)
                if isinstance(verdict, Verdict)
            }
    return judged


def _of(explained: Explained, rows: Sequence[Labelled]) -> Explained:
    return {row.id: explained[row.id] for row in rows if row.id in explained}


def _estimate(explained: Explained) -> stats.Estimate | None:
    """The share of pairs that are explained; a tie explains nothing."""
    return stats.share(p > 0.5 for p in explained.values()) if explained else None


def _mean(several: Sequence[Explained]) -> Explained:
    """The mean under several principles, of the pairs on which any has a verdict."""
    ids = dict.fromkeys(id_ for explained in several for id_ in explained)
    read = {id_: [explained[id_] for explained in several if id_ in explained] for id_ in ids}
    return {id_: sum(values) / len(values) for id_, values in read.items()}


def select(judged: Mapping[str, Explained], most: int, min_gain: float) -> list[tuple[str, float]]:
    """Greedy: (name, share that it and those before it explain by their mean), in order.

    Never a principle that explains no more than half of the pairs alone. Ties go to the first.

    >>> select({"a": {"1": 0.9, "2": 0.9, "3": 0.2}, "b": {"1": 0.6, "2": 0.4, "3": 0.9}}, 2, 0.01)
    [('a', 0.6666666666666666), ('b', 1.0)]
    """
    sound = [name for name, explained in judged.items() if _explained(explained) > 0.5]
    chosen: list[tuple[str, float]] = []
    while len(chosen) < most:
        before = chosen[-1][1] if chosen else 0.0
        taken = [name for name, _ in chosen]
        gains = {
            name: _explained(_mean([judged[one] for one in (*taken, name)]))
            for name in sound
            if name not in taken
        }
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] - before < min_gain:
            return chosen
        chosen.append((best, gains[best]))
    return chosen


def _explained(explained: Explained) -> float:
    return sum(p > 0.5 for p in explained.values()) / len(explained) if explained else 0.0
