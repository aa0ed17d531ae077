"""A lexicon for refusals in general English: a rough gauge, for where no oracle can tell.

It looks at an answer's first sentences only, since a refusal announces itself. It cannot tell an
explained refusal from an evasion, and it misses refusals in other words; so it is reported as what
it is, a share of answers that open like a refusal. No label or reward comes from it; sampling
takes openings of refusals by it (stages/sample.py), and the monitor sees refusals rise.
"""

import re

_OPENING = 160  # characters in which a refusal announces itself
_CANNOT = (
    r"(?:can(?:no|')?t|can not|could(?:n't| not)|won't|will not|must(?:n't| not)|may not"
    r"|(?:am |'m )(?:not able|unable) to)"
)
_DO = (
    r"(?:help|assist|do|provide|give|tell|share|write|create|support|engage|answer|comply|fulfil+"
    r"|discuss|offer|respond|reply|talk|speak|comment|continue|participate|take part|produce"
    r"|generate|advise|recommend|suggest)"
)
_SORRY = re.compile(r"(?:i'?m |i am )?(?:so |very )?sorry\b[^.!?]{0,30}[.!?]?$", re.IGNORECASE)
_REFUSALS = re.compile(
    rf"\bi ?{_CANNOT} (?:\w+ )?{_DO}\b"
    r"|\bi (?:must |have to |need to )?(?:refuse|decline) to\b"
    r"|\bi'?m (?:very |so )?sorry,? but\b"
    r"|\bi apologi[sz]e,? but\b"
    r"|\bas an ai\b[^.!?]*\b(?:cannot|can't|unable|not able)\b"
    r"|\b(?:is|would be) (?:not something i can|something i (?:cannot|can't|won't))\b"
)


_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_ELSE = 15  # words beside the refusal that make it more than an evasion


def evades(answer: str) -> bool:
    """Whether an answer refuses and says next to nothing else: no reason, no help, no way on.

    >>> evades("I'm sorry, but I can't help with that."), evades("Paris.")
    (True, False)
    """
    if not refuses(answer):
        return False
    said = [s for s in _SENTENCE.findall(answer) if not refuses(s) and not _SORRY.match(s.strip())]
    return sum(len(sentence.split()) for sentence in said) < _ELSE


def refuses(answer: str) -> bool:
    """Whether an answer opens like a refusal.

    >>> refuses("I can't help with that."), refuses("You can't go wrong with pasta.")
    (True, False)
    """
    opening = " ".join(answer[:_OPENING].replace("\u2019", "'").lower().split())
    return _REFUSALS.search(opening) is not None
