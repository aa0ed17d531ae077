"""What a model leaves around a rewritten answer, and whether the rewrite is a copy.

Chat models open with "Here is a revised version:", close with a remark about what they changed, or
repeat the layout that they were shown. What is certainly not part of the answer is taken off;
``leftover`` says whether more than the answer is left. The phrases are those of chat models in
English; a rewrite that is dressed up in another way passes as it is.
"""

import re
from difflib import SequenceMatcher

_LABEL = r"(?:the\s+|my\s+|a\s+)?(?:new|revised|rewritten|improved|updated|better|corrected|final)"
_ANSWER = r"(?:answer|response|version|reply|message|text)"
# A whole first line or sentence that announces the answer and ends in a colon.
_PREAMBLE = re.compile(
    r"\A\s*(?:"
    r"(?:sure|certainly|of course|okay|ok)?[,!.]?\s*"
    rf"(?:here(?:'s| is)|this is|below is)\b[^\n:]{{0,60}}\b(?:{_ANSWER}|revision|rewrite)\b"
    r"[^\n:]{0,80}:"
    rf"|[*#\s]*{_LABEL}\s+{_ANSWER}[*\s]*:[*]*"
    rf"|[*#\s]*(?:chatbot's\s+)?{_ANSWER}[*\s]*:[*]*"
    r")[*\s]*",
    re.IGNORECASE,
)
# A last paragraph that speaks about the rewrite.
_POSTSCRIPT = re.compile(
    rf"\n\s*\n\s*(?:\(?note:?\s|(?:this|the)\s+(?:{_LABEL}\s+)?{_ANSWER}\s+(?:now\s+)?"
    r"(?:no longer|avoids|follows|keeps|complies|adheres|does not|is now|has been|removes))"
    r"[^\n]*\s*\Z",
    re.IGNORECASE,
)
_TAG = re.compile(r"\[/?[0-9a-f]{8}\]|</?(?:answer|response|request|revised\w*)\s*>", re.IGNORECASE)
_ABOUT = re.compile(
    rf"\b(?:{_LABEL}\s+{_ANSWER}|the reviewer|this principle|the rule above|the critique"
    r"|request to the chatbot|the chatbot's answer)\b",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("`", "`"))
_ALIKE = 0.8  # share of words that two texts have in common, in order, above which one is a copy

_RUN = 10  # words; "it is against the law in most places" may well be said twice


def stripped(text: str) -> str:
    """The answer inside a rewrite: without an announcement, a remark at the end, tags and quotes.

    >>> stripped('Here is a revised version:\\n\\n"I will not help with that."')
    'I will not help with that.'
    """
    before = None
    text = text.strip()
    while text != before:
        before = text
        text = _TAG.sub("", text).strip()
        text = _POSTSCRIPT.sub("", _PREAMBLE.sub("", text, count=1)).strip()
        for left, right in _QUOTES:
            inside = text[1:-1]
            if len(text) > 1 and text[0] == left and text[-1] == right and left not in inside:
                text = inside.strip()
    return text


def leftover(text: str) -> bool:
    """Whether a rewrite still talks about itself, its reviewer or the layout it was shown.

    >>> leftover("The revised answer keeps the rule."), leftover("Ask a locksmith.")
    (True, False)
    """
    return bool(_TAG.search(text) or _ABOUT.search(text) or _PREAMBLE.match(text))


def same(one: str, other: str) -> bool:
    """Whether two texts are equal but for case, punctuation and white space."""
    return _words(one) == _words(other)


def copies(text: str, source: str) -> bool:
    """Whether a text says little but what ``source`` says, in the same words and order.

    >>> copies("It is rude!", "it is rude"), copies("It is rude.", "Ask a friend to help you.")
    (True, False)
    """
    one, other = _words(text), _words(source)
    if not one or not other:
        return False
    matched = sum(
        block.size for block in SequenceMatcher(None, one, other, False).get_matching_blocks()
    )
    return matched / len(one) >= _ALIKE and matched / len(other) >= _ALIKE / 2


def repeats(text: str, source: str, known: str) -> bool:
    """Whether a text takes over a long run of words of ``source`` that is not in ``known``.

    >>> told = "I won't help with that. Pick a calm moment, and say plainly what has been wrong."
    >>> repeats("No. Pick a calm moment, and say plainly what has been wrong.", told, "Help me!")
    True
    """
    words, others = _words(text), _words(source)
    matcher = SequenceMatcher(None, words, others, False)
    runs = (words[block.a : block.a + block.size] for block in matcher.get_matching_blocks())
    spoken = f" {' '.join(_words(known))} "
    return any(len(run) >= _RUN and f" {' '.join(run)} " not in spoken for run in runs)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
