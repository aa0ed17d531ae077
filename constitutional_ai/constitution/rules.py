"""The rules of lint. Each finds a fault that is certain from the file alone, without any model.

Every rule goes once through the principles, so ten thousand of them take seconds. Not covered:
whether a principle is clear, wise or at odds with another one; ``cai constitution test`` asks a
model about that.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from itertools import product
from typing import Literal

from constitutional_ai.constitution.draws import NEEDED, Pool, shares
from constitutional_ai.constitution.similarity import stem, words
from constitutional_ai.principles import PROMPTS, Draft, Drafted, Principle
from constitutional_ai.toml_file import Finding

# An error breaks a run or its labels; a warning is a likely mistake.
SEVERITY: dict[str, Literal["error", "warning"]] = {
    "invalid": "error",
    "empty-text": "error",
    "name-collision": "error",
    "placeholder": "error",
    "control-text": "error",
    "inverted-dont": "error",
    "names-option": "error",
    "names-position": "error",
    "unused-prompt": "warning",
    "no-critique": "error",
    "no-preference": "error",
    "never-drawn": "error",
    "drowns-others": "warning",
    "duplicate": "error",
    "near-duplicate": "warning",
    "same-prompt": "warning",
    "contradiction": "error",
    "unknown-rule": "warning",
    "unused-ignore": "warning",
}
OFTEN = 0.8  # of the draws: from here on the others hardly count
RARE = 0.01  # of an even share of the draws: below, a principle hardly counts

_CONTROL = re.compile(
    r"<\|[^|>]*\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|\n\n(?:Human|Assistant):"
    r"|[\u0000-\u0008\u000b-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
_PLACEHOLDER = re.compile(
    r"\b(?:TODO|FIXME|TBD|XXX+)\b|\{\w*\}|\{\{|[<\[](?:your|insert)\b[^>\]]*[>\]]"
)
_FORBIDS = re.compile(
    r"(?:please )?(?:do not|don't|avoid|refrain from|never(?! \w+ing\b)"
    r"|(?:the |an? )?(?:answer|response|reply|assistant|model)s? (?:should|must|may|can)"
    r"(?:n't| not| never))\b",
    re.IGNORECASE,
)
_ANSWER = r"(?:option|answer|response|reply|choice)"
_OPTION = re.compile(rf"\([AB]\)|\b(?i:{_ANSWER}) [\"']?[AB]\b")
_POSITION = re.compile(rf"\b(?:first|second|1st|2nd|former|latter) {_ANSWER}\b", re.IGNORECASE)
# Words that may be left out before two texts are compared. Words that turn a meaning are not here.
_SMALL = frozenset(
    "a an and any are at be by for from in into is it its of on or should that the this to which"
    " who with".split()
)


def findings(draft: Draft) -> Iterator[Finding]:
    """What is wrong with the principles that could be read, and with the constitution."""
    if not draft.drafted:
        return
    for rule_of_all in (_names, _head, _phases, _draws, _twice):
        yield from rule_of_all(draft)
    for drafted in draft.drafted:
        yield from _texts(draft, drafted)
        yield from _prompts(draft, drafted)


def _at(draft: Draft, rule: str, line: int, reason: str, fix: str, name: str = "") -> Finding:
    return Finding(rule, draft.report.path, line, name, reason, fix, SEVERITY[rule])


def _of(draft: Draft, drafted: Drafted, rule: str, key: str, reason: str, fix: str) -> Finding:
    return _at(draft, rule, drafted.at(key), reason, fix, drafted.principle.name)


def _names(draft: Draft) -> Iterator[Finding]:
    seen: dict[str, Drafted] = {}
    for drafted in draft.drafted:
        name = drafted.principle.name
        first = seen.setdefault(re.sub(r"[\s_-]+", "", name).casefold(), drafted)
        if first.principle.name != name:  # equal names keep the file from loading
            reason = f"differs too little from {_whose(first, 'name')}"
            fix = "rename one; case, hyphens, underscores and spaces do not tell names apart"
            yield _of(draft, drafted, "name-collision", "name", reason, fix)


def _head(draft: Draft) -> Iterator[Finding]:
    """Placeholders in the turns that a judge is sent, other than those that are filled in."""
    if draft.constitution is None:
        return
    scale, head = draft.constitution.scale, draft.file.head()
    turns = [("thoughts", "{question}", text) for text in draft.constitution.thoughts]
    turns += [("scale", "{text}", scale.prompt)] if scale else []
    for key, filled, text in turns:
        if match := _PLACEHOLDER.search(text.replace(filled, "")):
            reason, fix = (
                f"{key} still has {match[0]!r}",
                f"write it out; only {filled} is filled in",
            )
            yield _at(draft, "placeholder", head.at(key), reason, fix)


def _texts(draft: Draft, drafted: Drafted) -> Iterator[Finding]:
    """What holds for everything that a model is sent, where the author wrote it."""
    principle = drafted.principle
    written = [prompt for prompt in PROMPTS if prompt in drafted.table.values]
    for key in ("name", "text", *written, *(("rationale",) if _tells_why(draft) else ())):
        text = getattr(principle, key)
        if match := _CONTROL.search(text):
            reason = f"{key} has {match[0]!a}, which steers the model or cannot be seen"
            fix = "delete it; the chat template is put around prompts later"
            yield _of(draft, drafted, "control-text", key, reason, fix)
        if match := _PLACEHOLDER.search(text):
            reason, fix = f"{key} still has {match[0]!r}", "write it out; nothing is filled in"
            yield _of(draft, drafted, "placeholder", key, reason, fix)
    match = _FORBIDS.match(principle.text.strip())
    if match and principle.kind == "dont":
        reason = (
            f'a "dont" describes a fault, but {match[0]!r} forbids it, so it asks for the fault'
        )
        fix = 'describe the fault itself ("Insults or mockery …"), or make it a "do"'
        yield _of(draft, drafted, "inverted-dont", "text", reason, fix)


def _tells_why(draft: Draft) -> bool:
    """Whether models are shown the rationales, which no rule reads as long as people alone do."""
    return draft.file.values.get("rationale") is True


def _prompts(draft: Draft, drafted: Drafted) -> Iterator[Finding]:
    principle = drafted.principle
    if "preference" in principle.use:
        shown = ["preference_prompt", *(["rationale"] if _tells_why(draft) else [])]
        for rule, pattern, what in (
            ("names-option", _OPTION, "names an option, and each answer is shown as both"),
            ("names-position", _POSITION, "names a place, and each answer is shown in both"),
        ):
            for key in shown:
                if match := pattern.search(getattr(principle, key)):
                    fix = 'ask "which answer …"'
                    reason = f"{match[0]!r} {what}"
                    yield _of(draft, drafted, rule, key, reason, fix)
    for key in PROMPTS:
        phase = "preference" if key == "preference_prompt" else "critique"
        if key in drafted.table.values and phase not in principle.use:
            reason = f"{key} is written, but `use` has no {phase!r}"
            fix = f'add "{phase}" to use, or delete the prompt'
            yield _of(draft, drafted, "unused-prompt", key, reason, fix)


def _phases(draft: Draft) -> Iterator[Finding]:
    drawn = shares([drafted.principle for drafted in draft.drafted])
    for use, prompts in NEEDED:
        if not drawn[use, prompts]:
            reason = f"nothing can be drawn for {use} of {prompts} prompts, so a run stops there"
            fix = f'give a principle use = ["{use}", …] and prompts = ["{prompts}", …]'
            yield _at(draft, f"no-{use}", 1, reason, fix)


def _draws(draft: Draft) -> Iterator[Finding]:
    pools = shares([drafted.principle for drafted in draft.drafted])
    for drafted in draft.drafted:
        principle = drafted.principle
        drawn = {key: pool[principle.name] for key, pool in pools.items() if principle.name in pool}
        if not drawn:
            key = "prompts" if principle.use else "use"
            reason = f"`{key}` is empty, so it is never drawn"
            fix = "name a phase and a prompt set, or delete the principle"
            yield _of(draft, drafted, "never-drawn", key, reason, fix)
        elif all(share < RARE / len(pools[key]) for key, share in drawn.items()):
            reason = f"weight {principle.weight:g} gives it {max(drawn.values()):.2%} of the draws"
            yield _of(draft, drafted, "never-drawn", "weight", reason, "raise it, or delete it")
        for (use, prompts), share in drawn.items():
            if share > OFTEN and len(pools[use, prompts]) >= 3:
                reason = f"takes {share:.0%} of the draws for {use} of {prompts} prompts"
                fix = "lower its weight, or delete the principles that hardly count"
                yield _of(draft, drafted, "drowns-others", "weight", reason, fix)
                break


# ---- said twice ---------------------------------------------------------------------------------


_ALIKE = {  # (reason, fix)
    "contradiction": (
        'has the text of {whose}, but one is a "do" and the other a "dont"',
        "delete one, or give them different `prompts`",
    ),
    "duplicate": ("has the text of {whose}", "delete one; weight says how often one is drawn"),
    "near-duplicate": (
        "has the words of {whose} in another order or form",
        "delete one, or say in each what the other leaves out",
    ),
    "same-prompt": (
        "its {key} is that of {whose}",
        "a model cannot tell the two apart: reword one, or delete it",
    ),
}


def _twice(draft: Draft) -> Iterator[Finding]:
    """Each principle against those before it that are drawn for the same prompts and phase."""
    seen: dict[Hashable, Drafted] = {}
    for drafted in draft.drafted:
        reported = False
        for rule, key, what, pools in _likenesses(drafted.principle):
            first = next((seen[pool, what] for pool in pools if (pool, what) in seen), None)
            if first is not None and not reported:
                reported = True
                reason, fix = _ALIKE[rule]
                reason = reason.format(key=key, whose=_whose(first, key))
                yield _of(draft, drafted, rule, key, reason, fix)
            if rule != "contradiction":
                for pool in pools:
                    seen.setdefault((pool, what), drafted)


def _likenesses(principle: Principle) -> Iterator[tuple[str, str, Hashable, Sequence[Pool]]]:
    """(rule, key, what two principles must share to break the rule, where both are drawn)."""
    kind, said = principle.kind, tuple(words(principle.text))
    other = "dont" if kind == "do" else "do"
    pools = list(product(principle.use, principle.prompts))
    if said:
        yield "contradiction", "text", ("text", other, said), pools
        yield "duplicate", "text", ("text", kind, said), pools
    if telling := frozenset(stem(word) for word in said if word not in _SMALL):
        yield "near-duplicate", "text", ("words", kind, telling), pools
    for key, phase in (("critique_prompt", "critique"), ("preference_prompt", "preference")):
        asked = tuple(words(getattr(principle, key)))
        yield "same-prompt", key, (key, asked), [pool for pool in pools if pool[0] == phase]


def _whose(first: Drafted, key: str) -> str:
    return f"{first.principle.name!r} in line {first.at(key)}"
