"""Conversations to token ids and back, so that no control token can come from data.

The chat template is rendered once for each sequence of roles, with placeholders where the contents
belong. The text between them is the template's own and is encoded with control tokens on; contents
are encoded apart, by a copy of the tokenizer that knows no added tokens, and spliced in:

    <|im_start|>user\\n ␣ <|im_end|>\\n<|im_start|>assistant\\n
                       ↑ ids of the content, which may well be the text "<|im_end|>"

Contents are spelt from the vocabulary alone, so added tokens that are plain text (some tokenizers
have runs of spaces) are spelt too. Template logic that reads a content, as some templates do to
drop earlier reasoning, sees the placeholder. A tokenizer without a chat template gets
Human/Assistant text, which no control token keeps apart: there an answer ends at "Human:", too.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer

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


_Layout = list[list[int] | _Slot]


class ChatTokens:
    """Encodes prompts and answers for one tokenizer.

    ``end_id`` closes an answer: the control token that the template puts after an assistant
    message, or else the tokenizer's eos. ``pad_id`` is never ``end_id``; where the tokenizer has no
    pad token of its own it is an ordinary id, as every mask here is made from lengths.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._name = tokenizer.name_or_path or "the tokenizer"
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{self._name}: has no tokenizer.json; convert it to a fast tokenizer")
        self._plain = _without_added_tokens(backend)
        self._control = _control_tokens(tokenizer)
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self.has_template = tokenizer.chat_template is not None
        self.end_id = self._find_end()
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad not in (None, self.end_id) else int(self.end_id == 0)

    def prompt(self, conversation: Conversation) -> list[int]:
        """Ids up to where the assistant speaks; an assistant message that comes last is left open.

        Raises ModelError where the chat template refuses the roles or leaves a message out.
        """
        if not self.has_template:
            return self._spoken(conversation)
        ids: list[int] = []
        for part in self._layout(conversation):
            ids += self.content(part.content(conversation)) if isinstance(part, _Slot) else part
        return ids

    def answer(self, text: str) -> list[int]:
        """Ids of an answer to a prompt that ends with a user turn, the end token included."""
        return [*self._opening(text), self.end_id]

    def continued(self, conversation: Conversation, text: str) -> list[int]:
        """The prompt and, behind it, the assistant's next ``text``, left open."""
        if conversation[-1]["role"] != "assistant":
            return self.prompt(conversation) + self._opening(text)
        *earlier, last = conversation
        return self.prompt([*earlier, {**last, "content": last["content"] + text}])

    def text(self, ids: Sequence[int]) -> str:
        """An answer's text without control tokens; without a template, cut at the next speaker."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text if self.has_template else text.split(_STOP)[0].strip()

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether an answer came to its end, rather than to a token limit."""
        if len(ids) and ids[-1] == self.end_id:
            return True
        return not self.has_template and _STOP in self.tokenizer.decode(list(ids))

    def content(self, text: str) -> list[int]:
        """Ids of ordinary text: never one of a control token.

        Raises DataError for a text that the vocabulary can only spell with a control token.
        """
        ids: list[int] = self._plain.encode(text).ids
        if self._control.keys().isdisjoint(ids):
            return ids
        # A vocabulary may hold the control token's own string: break it up wherever it stands.
        names = "|".join(re.escape(name) for name in self._control.values())
        pieces: list[str] = []
        for n, part in enumerate(re.split(f"({names})", text)):
            pieces += list(part) if n % 2 else [part]
        ids = [i for piece in pieces for i in self._plain.encode(piece).ids]
        if self._control.keys().isdisjoint(ids):
            return ids
        raise DataError(f"cannot be spelt without control tokens, leave it out: {text[:60]!r}")

    def _opening(self, text: str) -> list[int]:
        return self.content(text if self.has_template else f" {text}")

    def _spoken(self, conversation: Conversation) -> list[int]:
        text = "".join(f"\n\n{_SPEAKERS[turn['role']]}{turn['content']}" for turn in conversation)
        if conversation[-1]["role"] != "assistant":
            text += "\n\nAssistant:"
        starts_with_bos = self.tokenizer("").input_ids[:1] == [self.tokenizer.bos_token_id]
        return [self.tokenizer.bos_token_id] * starts_with_bos + self.content(text)

    def _layout(self, conversation: Conversation) -> _Layout:
        roles = tuple(turn["role"] for turn in conversation)
        if roles not in self._layouts:
            self._layouts[roles] = self._lay_out(roles)
        return self._layouts[roles]

    def _lay_out(self, roles: tuple[str, ...]) -> _Layout:
        is_open = roles[-1] == "assistant"
        # Split by three groups a slot: text, left, number, right, text, left, …
        parts = _SLOT_PATTERN.split(self._render(roles, generation_prompt=not is_open))
        found = [int(number) for number in parts[2::4]]
        if found != list(range(len(roles))):
            raise self._refusal(roles, "it leaves out, repeats or moves a message")
        layout: _Layout = [self._literal(parts[0])]
        for left, number, right, text in zip(*(parts[n::4] for n in (1, 2, 3, 4)), strict=True):
            layout += [_Slot(int(number), not left, not right), self._literal(text)]
        return layout[:-1] if is_open else layout

    def _render(self, roles: Sequence[str], generation_prompt: bool) -> str:
        messages = [{"role": role, "content": _SLOT.format(n)} for n, role in enumerate(roles)]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation_prompt
            )
        except TemplateError as error:
            raise self._refusal(roles, str(error)) from error
        return rendered

    def _refusal(self, roles: Sequence[str], reason: str) -> ModelError:
        return ModelError(
            f"{self._name}: its chat template cannot say {', '.join(roles)}: {reason}"
        )

    def _literal(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _find_end(self) -> int:
        if self.has_template:
            rendered = self._render(["user", "assistant"], generation_prompt=False)
            for token in self._literal(_SLOT_PATTERN.split(rendered)[-1]):
                if token in self._control:
                    return token
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"{self._name}: has no end-of-sequence token; set eos_token")
        return int(self.tokenizer.eos_token_id)


def _without_added_tokens(backend: Tokenizer) -> Tokenizer:
    """A copy that reads every string as ordinary text.

    The flag ``split_special_tokens`` is not enough: it still reads added tokens that are not marked
    special, such as "<think>".
    """
    parts = json.loads(backend.to_str())
    parts.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(parts))


def _control_tokens(tokenizer: Any) -> dict[int, str]:
    """Id and string of every added token, save an unknown token that has no other part to play."""
    tokens = {n: token.content for n, token in tokenizer.added_tokens_decoder.items()}
    others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    if tokenizer.unk_token_id not in others:
        tokens.pop(tokenizer.unk_token_id, None)
    return tokens
