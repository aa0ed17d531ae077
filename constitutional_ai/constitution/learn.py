"""The inverse: which principles explain given preferences.

1. On a sample of pairs a model is asked which rule the choice followed; the order is drawn, so that
   a liking for one place does not become a rule.
2. Proposals that say the same, by n-grams, are one candidate: the most central wording of each
   cluster. Or the candidates are another constitution's principles, and nothing is proposed.
3. Each candidate is judged alone on the pairs, both orders averaged. It explains a pair where it
   gives the chosen answer more than half.
4. Principles are selected greedily on one part of the pairs: the one that raises the share which
   the mean of those selected explains the most, while it gains enough. All shares that are
   reported come from the other part, which selected nothing.

Related: inverse constitutional AI (Findeis et al. 2024, arXiv 2406.06560), which lets a model vote
on summaries of rules; here the pipeline's own judge decides, by log-probabilities.

Not covered: weights are equal; a rule that holds only in part of the pairs is scored over all.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from constitutional_ai import prompts as templates
from constitutional_ai.constitution.imported_principle import Entry, unique_names
from constitutional_ai.constitution.similarity import alike, clusters
from constitutional_ai.data.preferences import Compared
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.judge.judge import Comparison, Verdict, nonce
from constitutional_ai.judge.one_principle import under
from constitutional_ai.principles import Principle
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.stats import intervals as stats

SAME = 0.35  # mean similarity from which proposals say the same
SHORTEST, LONGEST = 4, 60  # words of a proposal that can be a principle
MIN_GAIN = 0.01  # share of pairs that a further principle must explain in addition

Explained = dict[str, float]  # row id → P(chosen better), where there was a verdict


@dataclass(frozen=True)
class Candidate:
    """A principle that may explain; ``proposed`` is how often its cluster was proposed."""

    principle: Principle
    proposed: int = 0
    variants: tuple[str, ...] = ()


@dataclass
class Proposals:
    candidates: list[Candidate]
    asked: int
    unreadable: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Scored:
    """``share`` of the held-out pairs that the principle explains alone; ``fit`` of the others."""

    candidate: Candidate
    share: stats.Estimate | None
    fit: float
    unlabelled: int


@dataclass(frozen=True)
class Step:
    """One round of the selection: the share that all principles so far explain together."""

    name: str
    fit: float
    share: stats.Estimate | None


@dataclass
class Learned:
    scored: list[Scored]
    steps: list[Step]

    @property
    def selected(self) -> list[Principle]:
        by_name = {one.candidate.principle.name: one.candidate.principle for one in self.scored}
        return [by_name[step.name] for step in self.steps]


def split(rows: Sequence[Compared]) -> tuple[list[Compared], list[Compared]]:
    """(to select on, held out), by a hash of the prompt: pairs of one prompt stay together."""
    held = [int(content_hash("held out", row.prompt), 16) % 2 == 0 for row in rows]
    return (
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )


def propose(
    rows: Sequence[Compared], engine: Engine, fence: bool, sampling: Sampling, progress: Progress
) -> Proposals:
    """Candidates in the model's own words, those proposed most often first."""
    conversations = [_question(row, fence, sampling.seed) for row in rows]
    with progress.task("propose", total=len(rows), unit="pairs") as tick:
        replies = engine.generate(conversations, sampling)
        tick(len(rows))
    found = Proposals([], len(rows))
    texts = []
    for reply in replies:
        text, reason = read_proposal(reply.text)
        if reason:
            found.unreadable[reason] += 1
        else:
            texts.append(text)
    found.candidates = _clustered(texts)
    return found


def _question(row: Compared, fence: bool, seed: int) -> Conversation:
    chosen_first = random.Random(content_hash("learn", seed, row.id)).random() < 0.5
    first, second = (row.chosen, row.rejected) if chosen_first else (row.rejected, row.chosen)
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
    if not texts:
        return []
    table = alike(texts)
    found = []
    for group in clusters(table, SAME):
        centre = max(group, key=lambda i: (float(table[i, group].sum()), -i))
        variants = tuple(dict.fromkeys(texts[i] for i in group if texts[i] != texts[centre]))
        found.append((texts[centre], len(group), variants))
    entries = [Entry.of(text).settled() for text, _, _ in found]
    unique_names(entries)
    return [
        Candidate(Principle(**entry.fields), count, variants)
        for entry, (_, count, variants) in zip(entries, found, strict=True)
    ]


def explain(
    candidates: Sequence[Candidate],
    rows: Sequence[Compared],
    engine: Engine,
    fence: bool,
    progress: Progress,
    most: int = 8,
    min_gain: float = MIN_GAIN,
) -> Learned:
    """Score every candidate and select at most ``most``. Raises NoLogprobs."""
    fit, held = split(rows)
    judged: dict[str, Explained] = {}
    total = len(candidates) * len(rows)
    with progress.task("judge", total=total, unit="comparisons") as tick:
        for candidate in candidates:
            principle = candidate.principle
            questions = [Comparison(r.id, r.prompt, r.set, r.chosen, r.rejected) for r in rows]
            verdicts = under(engine, principle, questions, fence, tick)
            judged[principle.name] = {
                row.id: v.p_first
                for row, v in zip(rows, verdicts, strict=True)
                if isinstance(v, Verdict)
            }
    scored = [_scored(candidate, judged, fit, held, len(rows)) for candidate in candidates]
    scored.sort(key=lambda one: -(one.share["mean"] if one.share else 0.0))
    steps = select({n: _of(p, fit) for n, p in judged.items()}, most, min_gain)
    told = []
    for number, (name, share) in enumerate(steps, 1):
        together = [_of(judged[step[0]], held) for step in steps[:number]]
        told.append(Step(name, share, _estimate(_mean(together))))
    return Learned(scored, told)


def _scored(
    candidate: Candidate,
    judged: Mapping[str, Explained],
    fit: Sequence[Compared],
    held: Sequence[Compared],
    asked: int,
) -> Scored:
    found = judged[candidate.principle.name]
    on_fit = _of(found, fit)
    share = sum(p > 0.5 for p in on_fit.values()) / len(on_fit) if on_fit else 0.0
    return Scored(candidate, _estimate(_of(found, held)), share, asked - len(found))


def _of(found: Explained, rows: Sequence[Compared]) -> Explained:
    return {row.id: found[row.id] for row in rows if row.id in found}


def _estimate(found: Explained) -> stats.Estimate | None:
    """The share of pairs that are explained; a tie explains nothing."""
    return stats.share(p > 0.5 for p in found.values()) if found else None


def _mean(several: Sequence[Explained]) -> Explained:
    """The mean under several principles, of the pairs on which any has a verdict."""
    ids = dict.fromkeys(id_ for found in several for id_ in found)
    read = {id_: [found[id_] for found in several if id_ in found] for id_ in ids}
    return {id_: sum(values) / len(values) for id_, values in read.items()}


def select(judged: Mapping[str, Explained], most: int, min_gain: float) -> list[tuple[str, float]]:
    """Greedy: (name, share that it and those before it explain by their mean), in order.

    Never a principle that explains no more than half of the pairs alone. Ties go to the first.

    >>> select({"a": {"1": 0.9, "2": 0.9, "3": 0.2}, "b": {"1": 0.6, "2": 0.4, "3": 0.9}}, 2, 0.01)
    [('a', 0.6666666666666666), ('b', 1.0)]
    """
    sound = [name for name, found in judged.items() if _explained(found) > 0.5]
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


def _explained(found: Explained) -> float:
    return sum(p > 0.5 for p in found.values()) / len(found) if found else 0.0
