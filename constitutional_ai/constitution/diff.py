"""What changed between two constitutions: in their words, and in the labels that a judge gives.

The words are compared by principle: added, removed, renamed (same words, other name) or changed.
For the labels, the same pairs are judged under both constitutions. A pair's label is what
``resolve`` makes of all preference principles for its prompt set, not of a drawn few, so a label
never flips by the luck of a draw. A principle that both have is asked once.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from constitutional_ai.constitution.draws import Pool, shares
from constitutional_ai.data.pairs import Labelled, left_out
from constitutional_ai.engines.base import Engine
from constitutional_ai.judge.judge import Comparison, Unlabelled, Verdict
from constitutional_ai.judge.one_principle import under, usable
from constitutional_ai.judge.resolve import Resolved, resolve
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation
from constitutional_ai.stats import intervals as stats

Sort = Literal["added", "removed", "renamed", "changed"]
_WORDS = ("text", "critique_prompt", "revision_prompt", "preference_prompt", "rationale")


@dataclass(frozen=True)
class Change:
    """One principle's change. ``fields``: name → (before, after), what differs."""

    sort: Sort
    name: str
    fields: dict[str, tuple[Any, Any]]
    was: str = ""  # its earlier name, where it was renamed


def changes(before: Constitution, after: Constitution) -> list[Change]:
    """In the order of ``after``, then what is gone."""
    old = {principle.name: principle for principle in before.principles}
    new = {principle.name: principle for principle in after.principles}
    gone = {_words(p): p for p in before.principles if p.name not in new}
    result = []
    for principle in after.principles:
        if principle.name in old:
            if differs := _differs(old[principle.name], principle):
                result.append(Change("changed", principle.name, differs))
        elif earlier := gone.pop(_words(principle), None):
            differs = _differs(earlier, principle)
            result.append(Change("renamed", principle.name, differs, earlier.name))
        else:
            result.append(Change("added", principle.name, {"text": ("", principle.text)}))
    return result + [Change("removed", p.name, {"text": (p.text, "")}) for p in gone.values()]


def _words(principle: Principle) -> tuple[str, ...]:
    return tuple(" ".join(str(getattr(principle, field)).split()) for field in _WORDS)


def _differs(old: Principle, new: Principle) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, without the name and without prompts that only follow the text."""
    was, now = old.model_dump(exclude={"name"}), new.model_dump(exclude={"name"})
    differs = {name: (was[name], now[name]) for name in now if was[name] != now[name]}
    if "text" in differs or "kind" in differs:
        for name in _WORDS[1:4]:
            if old.text.strip() in was[name] and new.text.strip() in now[name]:
                differs.pop(name, None)
    return differs


def word_diff(before: str, after: str) -> str:
    """Both texts in one, as git's word diff marks them.

    >>> word_diff("Be kind to the user.", "Be fair to every user.")
    'Be [-kind-]{+fair+} to [-the-]{+every+} user.'
    """
    old, new = (re.findall(r"\s+|[^\s\w]|\w+", text) for text in (before, after))
    parts = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = "".join(old[i:j]), "".join(new[k:m])
        if tag == "equal":
            parts.append(gone)
        else:
            parts.append((f"[-{gone}-]" if gone else "") + (f"{{+{come}+}}" if come else ""))
    return "".join(parts)


def described(before: Constitution, after: Constitution) -> str:
    """The text diff as a person reads it."""
    lines = [
        f"--- {before.name} {before.version}  {before.hash}",
        f"+++ {after.name} {after.version}  {after.hash}",
    ]
    if before.hash == after.hash:
        return "\n".join([*lines, "the same"])
    if before.version == after.version and before.name == after.name:
        lines.append(f"note: the content differs, but both call themselves version {after.version}")
    if before.description != after.description:
        lines.append(f"description: {word_diff(before.description, after.description)}")
    lines += [
        f"{field}: differs"
        for field in ("exemplars", "thoughts", "scale", "rationale")
        if getattr(before, field) != getattr(after, field)
    ]
    drawn = shares(list(before.principles)), shares(list(after.principles))
    for change in changes(before, after):
        was = f" (was {change.was})" if change.was else ""
        lines += ["", f"{change.sort}: {change.name}{was}"]
        for name, (old, new) in change.fields.items():
            shown = word_diff(old, new) if name in _WORDS else f"{_plain(old)} → {_plain(new)}"
            lines.append(f"  {name}: {shown}")
        if "weight" in change.fields:
            lines += _drawn(change, *drawn)
    return "\n".join(lines)


def _drawn(change: Change, before: Mapping[Pool, Any], after: Mapping[Pool, Any]) -> list[str]:
    """How often a reweighted principle is drawn first, before and after."""
    lines = []
    for (use, prompts), pool in after.items():
        old, new = before[use, prompts].get(change.was or change.name), pool.get(change.name)
        if old is not None and new is not None:
            lines.append(f"  drawn for {use} of {prompts} prompts: {old:.1%} → {new:.1%}")
    return lines


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# ---- labels -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """A pair whose better answer changed. ``p`` is P(``first`` better), before and after."""

    line: int
    prompt: Conversation
    first: str
    second: str
    p: tuple[float, float]
    decided_by: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass
class Flips:
    """``read`` pairs had a label under both; ``unlabelled`` counts the others by reason."""

    read: int = 0
    flips: list[Flip] = field(default_factory=list)
    moved: float = 0.0  # the mean of |after − before| over the pairs that were read
    unlabelled: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> stats.Estimate:
        """With Wilson's interval. Raises ValueError where no pair could be read."""
        return stats.share([True] * len(self.flips) + [False] * (self.read - len(self.flips)))


Verdicts = dict[tuple[str, str], Verdict | Unlabelled]  # by the principle's hash and the row's id


def flips(
    before: Constitution,
    after: Constitution,
    rows: Sequence[Labelled],
    engine: Engine,
    fence: bool,
    progress: Progress,
) -> Flips:
    """Judge every row under both constitutions. Raises NoLogprobs."""
    asked: dict[str, tuple[Principle, list[Labelled]]] = {}
    for row in rows:
        both = (*usable(before, row.set), *usable(after, row.set))
        for hash_, principle in {principle.hash: principle for principle in both}.items():
            asked.setdefault(hash_, (principle, []))[1].append(row)
    verdicts: Verdicts = {}
    total = sum(len(of) for _, of in asked.values())
    with progress.task("judge", total=total, unit="comparisons") as tick:
        for hash_, (principle, of) in asked.items():
            questions = [Comparison(r.id, r.prompt, r.set, r.better, r.worse) for r in of]
            read = under(engine, principle, questions, fence, tick)
            verdicts |= {(hash_, row.id): verdict for row, verdict in zip(of, read, strict=True)}
    result, moves = Flips(), []
    for row in rows:
        old, new = (_label(constitution, row, verdicts) for constitution in (before, after))
        if isinstance(old, str) or isinstance(new, str):
            result.unlabelled[old if isinstance(old, str) else str(new)] += 1
            continue
        moves.append(abs(new.p - old.p))
        if (old.p - 0.5) * (new.p - 0.5) < 0:
            p, decided_by = (old.p, new.p), (old.decided_by, new.decided_by)
            flip = Flip(row.number, row.prompt, row.better, row.worse, p, decided_by)
            result.flips.append(flip)
    result.flips.sort(key=lambda flip: -abs(flip.p[1] - flip.p[0]))
    result.read = len(moves)
    result.moved = sum(moves) / len(moves) if moves else 0.0
    return result


def _label(constitution: Constitution, row: Labelled, verdicts: Verdicts) -> Resolved | str:
    """P(first better) and what decided it, or why there is none."""
    principles = usable(constitution, row.set)
    if not principles:
        return f"{constitution.name} {constitution.version} has no principle for {row.set} prompts"
    read = {}
    for principle in principles:
        verdict = verdicts[principle.hash, row.id]
        if isinstance(verdict, Unlabelled):
            return verdict.reason
        read[principle.name] = verdict.p_first
    return resolve(read, constitution)


def told_flips(
    result: Flips, source: Path, flaws: Mapping[str, int], engine: str, examples: int
) -> str:
    """The change of labels as a person reads it."""
    lines = ["", f"labels of {source} by {engine}:"]
    if result.read:
        share = result.share
        lines += [
            f"  {len(result.flips)} of {result.read} flip: {share['mean']:.3f}"
            f" (95 % interval {share['low']:.3f}–{share['high']:.3f})",
            f"  P(better) moves by {result.moved:.3f} on average",
        ]
    lines += [f"  no label: {n} × {reason}" for reason, n in sorted(result.unlabelled.items())]
    for flip in result.flips[:examples]:
        before, after = flip.p
        better, worse = (flip.second, flip.first) if after < 0.5 else (flip.first, flip.second)
        lines += [
            "",
            f"{source}:{flip.line}: {_short(flip.prompt[-1]['content'])}",
            f"  now better ({max(after, 1 - after):.2f}): {_short(better)}",
            f"  before ({max(before, 1 - before):.2f}):     {_short(worse)}",
        ]
    return "\n".join([*lines, *left_out(flaws)])


def _short(text: str, limit: int = 200) -> str:
    plain = " ".join(text.split()) or "(empty)"
    return plain if len(plain) <= limit else f"{plain[:limit].rstrip()} …"


def as_json(result: Flips) -> dict[str, Any]:
    return {
        "read": result.read,
        "flipped": len(result.flips),
        "share": result.share if result.read else None,
        "moved": result.moved,
        "unlabelled": dict(result.unlabelled),
        "flips": [asdict(flip) for flip in result.flips],
    }
