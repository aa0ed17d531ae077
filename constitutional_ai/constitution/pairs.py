"""Lint rules about two principles: said twice, or undoing each other.

A contradiction is found by form: two clauses about the same thing, one of them denied ("always
apologise" against "never apologise", a "do" against a "dont"), or with opposite words in the same
place ("short" against "long"). Two denials, or a denial and an opposite, cancel. Contradictions by
meaning alone are not seen; ``cai constitution test`` is for those.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from constitutional_ai.constitution.findings import Finding
from constitutional_ai.constitution.similarity import Matrix, alike, content_stems, stem, words
from constitutional_ai.constitution.source import Draft, Drafted
from constitutional_ai.principles import Principle

NEAR, NEAR_EMBEDDED = 0.45, 0.9  # similarity from which two texts are one rule, by engine
SAME_THING = 0.6  # shared content of two clauses, as a part of what both hold

_DENIALS = frozenset(
    "not never no none nothing nobody without avoid avoids avoiding refrain refrains don't doesn't"
    " cannot can't won't shouldn't mustn't isn't aren't neither nor stop".split()
)
_OPPOSITES = [
    frozenset(stem(word) for word in pair.split("/"))
    for pair in "short/long brief/detailed brief/long brief/lengthy concise/detailed short/detailed"
    " concise/long terse/detailed formal/informal formal/casual refuse/comply refuse/answer"
    " decline/help decline/answer refuse/help reveal/hide reveal/conceal disclose/withhold"
    " include/omit mention/omit agree/disagree serious/humorous simple/technical plain/technical"
    " confident/uncertain direct/indirect blunt/gentle polite/rude warm/cold accept/reject"
    " allow/forbid start/end harmful/harmless safe/dangerous public/private".split()
]
_BREAKS = re.compile(r"[.;:!?]+|,? but |,? and (?=never|do not|don't|always|avoid)")


@dataclass(frozen=True)
class _Clause:
    """``asked`` is whether the principle wants what the clause says."""

    stems: frozenset[str]
    asked: bool


def two(
    draft: Draft, similarity: Callable[[Sequence[str]], Matrix] = alike, near: float = NEAR
) -> Iterator[Finding]:
    """Every finding about two principles; the later one is named."""
    if len(draft.drafted) < 2:
        return
    table = similarity([drafted.principle.text for drafted in draft.drafted])
    for i, j in combinations(range(len(draft.drafted)), 2):
        first, second = draft.drafted[i], draft.drafted[j]
        one, other = first.principle, second.principle
        if not set(one.prompts) & set(other.prompts):
            continue
        found = (
            _contradiction(draft, first, second)
            or _twice(draft, first, second, table[i, j], near)
            or _same_prompt(draft, first, second)
        )
        if found:
            yield found


def _twice(
    draft: Draft, first: Drafted, second: Drafted, similarity: float, near: float
) -> Finding | None:
    one, other = first.principle, second.principle
    if not set(one.use) & set(other.use):
        return None
    whose = f"{first.name!r} in line {first.at('text')}"
    if words(one.text) == words(other.text):
        reason, fix = f"has the text of {whose}", "delete one; weight says how often one is drawn"
        return Finding("duplicate", draft.path, second.at("text"), second.name, reason, fix)
    if similarity >= near:
        reason = f"says nearly what {whose} says (similarity {similarity:.2f})"
        fix = "join them, or say in each what the other leaves out"
        return Finding("near-duplicate", draft.path, second.at("text"), second.name, reason, fix)
    return None


def _same_prompt(draft: Draft, first: Drafted, second: Drafted) -> Finding | None:
    for field, use in (("critique_prompt", "critique"), ("preference_prompt", "preference")):
        both = use in first.principle.use and use in second.principle.use
        mine, yours = getattr(first.principle, field), getattr(second.principle, field)
        if both and words(mine) == words(yours):
            reason = f"its {field} is that of {first.name!r} in line {first.at(field)}"
            fix = "a model cannot tell the two apart: reword one, or delete it"
            return Finding("same-prompt", draft.path, second.at(field), second.name, reason, fix)
    return None


def _contradiction(draft: Draft, first: Drafted, second: Drafted) -> Finding | None:
    for mine in _clauses(first.principle):
        for yours in _clauses(second.principle):
            if _opposed(mine, yours):
                shared = ", ".join(sorted(mine.stems | yours.stems))
                reason = (
                    f"asks for the opposite of {first.name!r} in line {first.at('text')}"
                    f" (about: {shared})"
                )
                fix = "delete one, say in both when each holds, or give them different `prompts`"
                return Finding(
                    "contradiction", draft.path, second.at("text"), second.name, reason, fix
                )
    return None


def _clauses(principle: Principle) -> Iterator[_Clause]:
    for part in _BREAKS.split(principle.text):
        denied = sum(word in _DENIALS for word in words(part)) % 2 == 1
        stems = frozenset(
            stem for stem in content_stems(part) if stem not in {"avoid", "refrain", "without"}
        )
        if stems:
            yield _Clause(stems, asked=(principle.kind == "do") != denied)


def _opposed(mine: _Clause, yours: _Clause) -> bool:
    """About the same thing, and an odd number of differences: a denial, or opposite words."""
    mine_only, yours_only = mine.stems - yours.stems, yours.stems - mine.stems
    opposite = [(a, b) for a in mine_only for b in yours_only if frozenset((a, b)) in _OPPOSITES]
    differs = mine.asked != yours.asked
    if differs == bool(len({a for a, _ in opposite}) % 2):
        return False
    left = mine.stems - {a for a, _ in opposite}
    right = yours.stems - {b for _, b in opposite}
    shared, union = left & right, left | right
    if opposite and len(union) <= 1:
        return True  # "short" against "long and friendly"
    return bool(shared) and len(shared) / len(union) >= SAME_THING
