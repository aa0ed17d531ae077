"""Conversations to token ids and back, so that no control token can come from data.

The chat template is rendered once for each sequence of roles, with placeholders where the contents
belong. What is around them is cut into control tokens, whose ids stand fixed, and plain text. Plain
text and contents between two control tokens are then spelt in one piece, as the model saw them in
its training, by a copy of the tokenizer that knows no added tokens:

    <|im_start|>  user\n ␣  <|im_end|>  \n  <|im_start|>  assistant\n
                       ↑ the content, which may well be the text "<|im_end|>"

A role marker that is not flagged as a control token, or not even added but a word of the
vocabulary, counts as one where the template uses it and it looks like one: "<…>" or "[…]". Markers
of several tokens, such as "### Response:", are text that contents can spell, too: no id tells them
apart.

Contents are spelt from the vocabulary alone, so added tokens that are plain text (some tokenizers
have runs of spaces) are spelt too. Template logic that reads a content, as some templates do to
drop earlier reasoning, sees the placeholder. Templates that can open with reasoning are asked not
to. A tokenizer without a chat template gets Human/Assistant text, which no control token keeps
apart: there an answer ends at "Human:", too.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer

from constitutional_ai import world
from constitutional_ai.engines.spelling import Begun, apart, begun
from constitutional_ai.errors import DataError, ModelError
from constitutional_ai.records import Conversation

_SPEAKERS = {"system": "", "user": "Human: ", "assistant": "Assistant: "}
_STOP = "\n\nHuman:"

# A placeholder stands in private-use characters between two unit separators. Those count as white
# space for str.strip, so a side on which the separator is gone is one that the template strips.
_SLOT = "\x1f\ue000{}\ue001\x1f"
_SLOT_PATTERN = re.compile("(\x1f?)\ue000(\\d+)\ue001(\x1f?)")


class _Slot(NamedTuple):
    """Where a message's content belongs, and which of its ends the template strips."""

    message: int
    strip_left: bool
    strip_right: bool

    def content(self, conversation: Conversation) -> str:
        text = conversation[self.message]["content"]
        text = text.lstrip() if self.strip_left else text
        return text.rstrip() if self.strip_right else text


# A layout holds ids of control tokens, plain text, and slots.
_Layout = list[int | str | _Slot]

# Where a text stands: at the very beginning, after a control token, or behind other text. Some
# tokenizers put a space before a text that begins something.
_Place = Literal["start", "after control", "inside"]

_MARKER = re.compile(r"<.+>|\[.+\]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how a byte is written where a vocabulary lacks a character


class ChatTokens:
    """Encodes prompts and answers for one tokenizer.

    ``end_id`` closes an answer: the control token that the template puts after an assistant
    message, or else the tokenizer's eos. ``pad_id`` is never ``end_id``; without a pad token of the
    tokenizer's own it is an ordinary id, as every mask here is made from lengths. ``one_spelling``:
    the laboratory's, whose models were taught to say an option in one way.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._name = tokenizer.name_or_path or "the tokenizer"
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{self._name}: has no tokenizer.json; convert it to a fast tokenizer")
        self._spellers = _spellers(backend)
        self._reader = _changed(backend, {})
        self._control = _control_tokens(tokenizer)
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._begun: dict[tuple[str, ...], Begun] = {}
        self.has_template = tokenizer.chat_template is not None
        taught = world.part("world.tokenizer").CHAT_TEMPLATE
        self.one_spelling: bool = tokenizer.chat_template == taught
        self._said_by_template = self._find_markers() if self.has_template else set()
        self.end_id = self._find_end()
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad not in (None, self.end_id) else int(self.end_id == 0)

    @property
    def takes_system(self) -> bool:
        """Whether a conversation may begin with a system turn."""
        if not self.has_template:
            return True
        try:
            self._layout([{"role": "system", "content": ""}, {"role": "user", "content": ""}])
        except ModelError:
            return False
        return True

    def prompt(self, conversation: Conversation) -> list[int]:
        """Ids up to where the assistant speaks; an assistant message that comes last is left open.

        Raises ModelError if the chat template refuses the roles or leaves a message out.
        """
        if not self.has_template:
            return self._spoken(conversation)
        ids: list[int] = []
        text = ""
        for part in self._layout(conversation):
            if isinstance(part, int):
                ids += [*self.content(text, "after control" if ids else "start"), part]
                text = ""
            else:
                text += part if isinstance(part, str) else part.content(conversation)
        return ids + self.content(text, "after control" if ids else "start")

    def answer(self, text: str) -> list[int]:
        """Ids of an answer to a prompt that ends with a user turn, the end token included."""
        return [*self._opening(text), self.end_id]

    def continued(self, conversation: Conversation, text: str) -> list[int]:
        """The prompt and, behind it, the assistant's next ``text``, left open."""
        if conversation[-1]["role"] != "assistant":
            return self.prompt(conversation) + self._opening(text)
        *earlier, last = conversation
        return self.prompt([*earlier, {**last, "content": last["content"] + text}])

    def question(
        self, conversation: Conversation, options: Sequence[str]
    ) -> tuple[list[int], Begun]:
        """The prompt, and the tokens with which a reply may begin that names an option.

        With ``one_spelling``, or where an assistant's message is left open, only the options' own
        spelling counts, and what all of them begin with is part of the prompt. Raises ValueError
        for options that do not differ before one of them ends.
        """
        if not self.one_spelling and conversation[-1]["role"] != "assistant":
            named = tuple(options)
            if named not in self._begun:
                self._begun[named] = begun(named, self._opening)
            return self.prompt(conversation), self._begun[named]
        prompt, choices = apart([self.continued(conversation, o) for o in options], options)
        return list(prompt), Begun.at_once(choices)

    def text(self, ids: Sequence[int]) -> str:
        """An answer's text without control tokens; without a template, cut at the next speaker."""
        said = [i for i in ids if i != self.end_id and i not in self._said_by_template]
        text: str = self.tokenizer.decode(said, skip_special_tokens=True)
        return text if self.has_template else text.split(_STOP)[0].strip()

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether an answer came to its end, rather than to a token limit."""
        if len(ids) and ids[-1] == self.end_id:
            return True
        return not self.has_template and _STOP in self.tokenizer.decode(list(ids))

    def content(self, text: str, place: _Place = "inside") -> list[int]:
        """Ids of ordinary text: never one of a control token.

        Raises DataError for half a surrogate pair, and for a text that the vocabulary can only
        spell with a control token.
        """
        if not text.isascii() and text.encode(errors="ignore").decode() != text:
            raise DataError(
                f"half a surrogate pair; the text was cut in a character: {text[:60]!r}"
            )
        # A vocabulary may hold the control token's own string. Break it up wherever it stands. If
        # that does not help, because the tokenizer rewrites texts first, break up everything.
        for pieces in ([text], self._around_control(text), list(text)):
            ids = [
                i
                for n, piece in enumerate(pieces)
                if piece
                for i in self._spellers["inside" if n else place].encode(piece).ids
            ]
            if self._control.keys().isdisjoint(ids):
                return ids
        raise DataError(f"cannot be spelt without control tokens, leave it out: {text[:60]!r}")

    def _around_control(self, text: str) -> list[str]:
        """The text in pieces, with every control token's string in single characters."""
        names = sorted(self._control.values(), key=len, reverse=True)
        pieces: list[str] = []
        for n, part in enumerate(re.split(f"({'|'.join(map(re.escape, names))})", text)):
            pieces += list(part) if n % 2 else [part]
        return pieces

    def _opening(self, text: str) -> list[int]:
        if not self.has_template:
            return self.content(f" {text}")
        before = self._layout([{"role": "user", "content": ""}])[-1]
        return self.content(text, "after control" if isinstance(before, int) else "inside")

    def _spoken(self, conversation: Conversation) -> list[int]:
        text = "".join(f"\n\n{_SPEAKERS[turn['role']]}{turn['content']}" for turn in conversation)
        if conversation[-1]["role"] != "assistant":
            text += "\n\nAssistant:"
        if self.tokenizer("").input_ids[:1] == [self.tokenizer.bos_token_id]:
            return [self.tokenizer.bos_token_id, *self.content(text, "after control")]
        return self.content(text, "start")

    def _layout(self, conversation: Conversation) -> _Layout:
        roles = tuple(turn["role"] for turn in conversation)
        if roles not in self._layouts:
            self._layouts[roles] = self._lay_out(roles)
        return self._layouts[roles]

    def _lay_out(self, roles: tuple[str, ...]) -> _Layout:
        is_open = roles[-1] == "assistant"
        # Split by three groups a slot: text, left, number, right, text, left, …
        parts = _SLOT_PATTERN.split(self._render(roles, generation_prompt=not is_open))
        if [int(number) for number in parts[2::4]] != list(range(len(roles))):
            raise self._refusal(roles, "it leaves out, repeats or moves a message")
        layout: _Layout = self._literal(parts[0])
        last = len(roles) - 1
        for left, number, right, text in zip(*(parts[n::4] for n in (1, 2, 3, 4)), strict=True):
            layout.append(_Slot(int(number), not left, not right))
            if not (is_open and int(number) == last):
                layout += self._literal(text)
        return layout

    def _render(self, roles: Sequence[str], generation_prompt: bool) -> str:
        messages = [{"role": role, "content": _SLOT.format(n)} for n, role in enumerate(roles)]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                enable_thinking=False,
            )
        except TemplateError as error:
            raise self._refusal(roles, str(error)) from error
        return rendered

    def _refusal(self, roles: Sequence[str], reason: str) -> ModelError:
        return ModelError(
            f"{self._name}: its chat template cannot say {', '.join(roles)}: {reason}"
        )

    def _literal(self, text: str) -> _Layout:
        """The template's own text, cut at the control tokens in it."""
        spelt = self._reader.encode(text, add_special_tokens=False)
        layout: _Layout = []
        done = 0
        for number, (start, end) in zip(spelt.ids, spelt.offsets, strict=True):
            if number in self._control:
                layout += [text[done:start], number]
                done = end
        return [part for part in (*layout, text[done:]) if part != ""]

    def _find_markers(self) -> set[int]:
        """Ids of the control tokens that the template says, unflagged role markers among them."""
        said: set[int] = set()
        for roles in (["user", "assistant", "user"], ["system", "user"]):
            try:
                rendered = self._render(roles, generation_prompt=True)
            except ModelError:  # a model that knows no system turn; it is refused when there is one
                continue
            for text in _SLOT_PATTERN.split(rendered)[::4]:
                said.update(self._reader.encode(text, add_special_tokens=False).ids)
        for number in said:
            name = self.tokenizer.convert_ids_to_tokens(number)
            if _MARKER.fullmatch(name) and not _BYTE.fullmatch(name):
                self._control.setdefault(number, name)
        return said & self._control.keys()

    def _find_end(self) -> int:
        if self.has_template:
            rendered = self._render(["user", "assistant"], generation_prompt=False)
            for part in self._literal(_SLOT_PATTERN.split(rendered)[-1]):
                if isinstance(part, int):
                    return part
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"{self._name}: has no end-of-sequence token; set eos_token")
        return int(self.tokenizer.eos_token_id)


def _spellers(backend: Tokenizer) -> dict[_Place, Tokenizer]:
    """Copies that read every string as ordinary text, one for each place that it may stand in.

    The flag ``split_special_tokens`` is not enough: it still reads added tokens that are not marked
    special, such as "<think>".
    """
    parts = json.loads(backend.to_str())
    plain: dict[_Place, set[str]] = {
        "start": set(),
        "after control": {"first"},
        "inside": {"first", "always"},
    }
    return {
        place: _changed(
            backend,
            {
                "added_tokens": [],
                "normalizer": _unprefixed(parts.get("normalizer"), without),
                "pre_tokenizer": _unprefixed(parts.get("pre_tokenizer"), without),
            },
        )
        for place, without in plain.items()
    }


def _changed(backend: Tokenizer, changes: dict[str, Any]) -> Tokenizer:
    """A copy that adds, cuts and pads nothing, with other parts where ``changes`` names them."""
    parts = json.loads(backend.to_str())
    parts.update(post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps({**parts, **changes}))


def _unprefixed(part: Any, without: set[str]) -> Any:
    """A normaliser or pre-tokenizer that puts no space before a text.

    ``without`` names which habit is dropped: of doing so before the first text only, or always.
    """
    if not isinstance(part, dict):
        return part
    part = dict(part)
    for inner in ("normalizers", "pretokenizers"):
        if inner in part:
            part[inner] = [_unprefixed(each, without) for each in part[inner]]
    if part.get("prepend_scheme") in without:
        part["prepend_scheme"] = "never"
    if "always" in without:
        if part.get("add_prefix_space"):
            part["add_prefix_space"] = False
        if part.get("type") == "Prepend":
            return {"type": "Sequence", "normalizers": []}
    return part


def _control_tokens(tokenizer: Any) -> dict[int, str]:
    """Id and string of every added token, but not of an unknown token that is nothing else."""
    tokens = {n: token.content for n, token in tokenizer.added_tokens_decoder.items()}
    others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    if tokenizer.unk_token_id not in others:
        tokens.pop(tokenizer.unk_token_id, None)
    return tokens
