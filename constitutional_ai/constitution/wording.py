"""Lint rules about one principle's name, text and prompts: what a critic or judge cannot apply.

The lists are of English. They look for wording that leaves nothing to check once it is taken away,
so an ordinary word in a sentence that says something is no finding.
"""

import re
from collections.abc import Iterator, Sequence

from constitutional_ai.constitution.findings import Finding
from constitutional_ai.constitution.similarity import content_stems, stem, words
from constitutional_ai.constitution.source import Draft, Drafted
from constitutional_ai.principles import Principle

SHORT_TEXT, LONG_TEXT, LONG_PROMPT = 3, 90, 120  # words
PROMPTS = ("critique_prompt", "revision_prompt", "preference_prompt")

_VAGUE = frozenset(
    stem(word)
    for word in "good bad nice great fine proper properly appropriate appropriately inappropriate"
    " suitable adequate acceptable reasonable reasonably quality high best well better excellent"
    " right wrong correct correctly ideal optimal positive negative value values standard standards"
    " user users people someone helpful useful way manner"
    " thing things overall generally general normal".split()
)
_UNJUDGEABLE = (
    (
        r"\b(?:user|customer|person|reader)s?\b[^.]{0,30}\b(?:will|would|should|must|to)\b[^.]{0,12}"
        r"\b(?:feel|be happy|be satisfied|come back|return|trust us|like us|buy)\b",
        "what somebody will feel or do later",
    ),
    (
        r"\bin (?:the long (?:run|term)|the future)\b|\blong-term (?:effects?|outcomes?)\b",
        "what comes of it long afterwards",
    ),
    (
        r"\b(?:other|earlier|previous|past) (?:conversations|sessions|chats)\b",
        "other conversations, which the judge does not see",
    ),
    (
        r"\b(?:true|real|actual|secret|hidden) (?:intentions?|motives?|beliefs?|feelings?)\b"
        r"|\bsincerely (?:believes?|means?|cares?)\b",
        "what somebody has in mind",
    ),
    (
        r"\b(?:within|under|in less than) (?:\d+|a few|two|three|five|ten) (?:milli)?"
        r"(?:seconds?|minutes?|hours?|ms)\b|\bresponse times?\b"
        r"|\b(?:respond|answer)s? (?:fast|quickly|promptly)\b",
        "how fast it came",
    ),
    (r"\bincreases? (?:sales|retention|engagement|revenue|conversions?)\b", "business results"),
    (
        r"\b(?:training data|its training|company policy|internal (?:policy|guidelines|rules))\b",
        "a document that no prompt contains",
    ),
)
_LOOPHOLE = re.compile(
    r"\b(?:if|where|when|whenever|wherever) (?:it is |it seems |deemed )?"
    r"(?:appropriate|possible|needed|necessary|applicable|suitable)\b"
    r"|\bas (?:appropriate|needed|necessary|applicable)\b"
    r"|\b(?:as (?:far|much) as (?:is )?(?:reasonable|practical))\b|\band so (?:on|forth)\b|\betc\b"
    r"|\bat (?:its|your) (?:own )?discretion\b|\b(?:should|must) try to\b|\btry your best\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\bTODO\b|\bFIXME\b|\bTBD\b|\bXXX+\b|\blorem ipsum\b|\{[a-z_]*\}|\{\{"
    r"|<[a-z][a-z _-]*>|\[(?:insert|your)\b[^\]]*\]",
    re.IGNORECASE,
)
_CONTROL = re.compile(
    r"<\|[^|>]*\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|\n\n(?:Human|Assistant):"
    r"|[\u0000-\u0008\u000b-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
_ELSEWHERE = re.compile(
    r"\b(?:principles?|rules?|articles?|points?) (?:#?\d+|above|below|before|[ivx]+\b)"
    r"|\b(?:the|this|these|those|all|any|either) (?:previous|preceding|following|other"
    r"|first|second|last) "
    r"(?:principles?|rules?|articles?)\b"
    r"|\bsame as (?:above|before)\b|\b(?:see|as) (?:stated |said |defined )?(?:above|below)\b",
    re.IGNORECASE,
)
_PROHIBITION = re.compile(
    r"^(?:please )?(?:do not|don't|never|avoid|refrain from|no \w+ing)\b"
    r"|^(?:the |an? |its |your )?(?:answer|response|reply|assistant|model|bot|chatbot)?s? ?"
    r"(?:should|must|may|will|can|does|do)(?: not|n't| never)\b"
    r"|^(?:the )?(?:answer|response|reply) never\b",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"\((?:A|B)\)|\b(?:[Oo]ption|[Aa]nswer|[Rr]esponse|[Rr]eply|[Cc]hoice|[Cc]hoose|[Pp]refer|[Pp]ick)"
    r" [\"']?(?:A|B|1|2)\b(?! [a-z]+ (?:answer|response|reply))"
    r"|\b(?:A or B|A and B|A over B|B over A)\b"
)
_WHICH = r"(?:answer|response|reply|option|one|text|message)s?"
_POSITION = re.compile(
    rf"\b(?:first|second|1st|2nd|former|latter|top|bottom|upper|lower|left|right|earlier|later|last)"
    rf"(?:-mentioned|hand)? {_WHICH}\b|\bthe (?:former|latter)\b"
    rf"|\b{_WHICH} (?:shown|given|listed|that (?:comes|stands))"
    r" (?:first|second|last|above|below)\b",
    re.IGNORECASE,
)
_COMPARES = re.compile(
    r"\b(?:which|compare|comparing|choose|prefer|pick|select|better|worse|more|less|most|least"
    r"|fewer|fewest|than|[a-z]{2,}(?:ier|iest))\b|\b(?:safer|kinder|fairer|clearer|shorter|closer|calmer|warmer)\b",
    re.IGNORECASE,
)
_TWO_ANSWERS = re.compile(
    rf"\b(?:which|both|two|either|each of the|neither)(?: of the(?:se|m)?)?(?: two)? {_WHICH}\b"
    r"|\bcompare the\b[^.?]*\b(?:answers|responses|replies)\b",
    re.IGNORECASE,
)


def each(draft: Draft) -> Iterator[Finding]:
    """Every finding about a principle alone."""
    for drafted in draft.drafted:
        for rule, field, reason, fix in (
            *_text(drafted.principle),
            *_texts_sent(drafted),
            *_preference_prompt(drafted.principle),
            *_critique_prompt(drafted),
        ):
            yield Finding(rule, draft.path, drafted.at(field), drafted.name, reason, fix)


_Found = tuple[str, str, str, str]  # rule, field, reason, fix


def _text(principle: Principle) -> Iterator[_Found]:
    text, count = principle.text, len(words(principle.text))
    if count < SHORT_TEXT:
        yield (
            "short-text",
            "text",
            f"{count} words say too little to hold an answer against",
            "say what an answer must do or not do, so that two readers agree",
        )
    if count > LONG_TEXT:
        yield (
            "long-text",
            "text",
            f"{count} words in one principle; a judge weighs only some",
            f"split it, or cut it below {LONG_TEXT} words",
        )
    if count >= SHORT_TEXT and len(set(content_stems(text)) - _VAGUE) == 0:
        yield (
            "vague",
            "text",
            f"nothing in it can be checked: {_quoted(text)}",
            "name what an answer shows: words, facts, steps, offers, omissions",
        )
    for pattern, what in _UNJUDGEABLE:
        if match := re.search(pattern, text, re.IGNORECASE):
            yield (
                "unjudgeable",
                "text",
                f"{_quoted(match[0])} asks for {what}",
                "ask for something that the request and the answer show",
            )
            break
    if match := _LOOPHOLE.search(text):
        yield (
            "loophole",
            "text",
            f"{_quoted(match[0])} leaves the rule to taste",
            "say when it holds and when not, or leave the words out",
        )
    if match := _ELSEWHERE.search(text):
        yield (
            "refers-elsewhere",
            "text",
            f"{_quoted(match[0])}: each principle is drawn alone",
            "repeat here what is meant",
        )
    yield from _polarity(principle)


def _polarity(principle: Principle) -> Iterator[_Found]:
    match = _PROHIBITION.search(principle.text.strip())
    if match and principle.kind == "dont":
        yield (
            "inverted-dont",
            "text",
            f'a "dont" names a fault, but {_quoted(match[0])} forbids it: twice no is yes',
            'describe the fault itself ("Insults or mockery …"), or make it a "do"',
        )
    if match and principle.kind == "do" and _is_derived(principle):
        yield (
            "negative-do",
            "text",
            f'{_quoted(match[0])} forbids, but the prompts of a "do" ask what falls short of it',
            'set kind = "dont" and describe the fault, or say what to do instead',
        )


def _is_derived(principle: Principle) -> bool:
    return principle.text.strip() in principle.preference_prompt


def _texts_sent(drafted: Drafted) -> Iterator[_Found]:
    """What holds for all that a model is sent, looked for where it is written."""
    principle = drafted.principle
    for field in ("name", "text", *(p for p in PROMPTS if p in drafted.written)):
        text = getattr(principle, field)
        if match := _CONTROL.search(text):
            yield (
                "control-text",
                field,
                f"{field} holds {match[0]!a}, which steers, or is unseen",
                "delete it; the chat template is put around prompts later",
            )
        if match := _PLACEHOLDER.search(text):
            yield (
                "placeholder",
                field,
                f"{field} still holds {_quoted(match[0])}",
                "write it out; nothing is filled in",
            )
        if field in PROMPTS and len(words(text)) > LONG_PROMPT:
            yield (
                "long-text",
                field,
                f"{len(words(text))} words in {field}",
                f"cut it below {LONG_PROMPT} words",
            )
        phase = "preference" if field == "preference_prompt" else "critique"
        if field in PROMPTS and phase not in principle.use:
            yield (
                "unused-prompt",
                field,
                f"{field} is written, but `use` has no {phase!r}",
                f'add "{phase}" to use, or delete the prompt',
            )


def _preference_prompt(principle: Principle) -> Iterator[_Found]:
    if "preference" not in principle.use:
        return
    prompt = principle.preference_prompt
    if match := _OPTION.search(prompt):
        yield (
            "names-option",
            "preference_prompt",
            f"{_quoted(match[0])} names an option",
            'ask "which answer …"; the judge sees each answer in both places',
        )
    if match := _POSITION.search(prompt):
        yield (
            "names-position",
            "preference_prompt",
            f"{_quoted(match[0])} tells answers by place",
            'ask "which answer …"; the order is swapped and must not matter',
        )
    if not _COMPARES.search(prompt):
        yield (
            "not-a-comparison",
            "preference_prompt",
            f"{_quoted(prompt)} compares nothing",
            'ask as in "Which answer is less harmful?"',
        )


def _critique_prompt(drafted: Drafted) -> Iterator[_Found]:
    for field in drafted.written & set(PROMPTS[:2]):
        match = _TWO_ANSWERS.search(getattr(drafted.principle, field))
        if match and "critique" in drafted.principle.use:
            yield (
                "critique-compares",
                field,
                f"{_quoted(match[0])}: a critic sees one answer",
                "ask about the answer that was just given",
            )


def _quoted(text: str, limit: int = 60) -> str:
    plain = " ".join(text.split())
    return f'"{plain}"' if len(plain) <= limit else f'"{plain[:limit].rstrip()} …"'


def names_alike(principles: Sequence[Drafted]) -> Iterator[tuple[Drafted, Drafted]]:
    """Principles whose names differ in case, hyphens or spaces at most, the earlier one first."""
    seen: dict[str, Drafted] = {}
    for drafted in principles:
        key = re.sub(r"[\s_-]+", "", drafted.name).casefold()
        if key in seen:
            yield seen[key], drafted
        seen.setdefault(key, drafted)
