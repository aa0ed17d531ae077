"""The engine for any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

A model is named ``http://HOST:PORT/v1#MODEL``. How the engine learns what the server can do is in
abilities.py, how requests survive a bad night in client.py. A row that is given up comes back as a
Completion with ``failed`` set, or as NaN in place of log-probabilities.

If the server has vLLM's ``logprob_token_ids``, the log-probabilities of options are those of the
very tokens that the local engine reads. Otherwise the likeliest tokens are read along the greedy
reply, up to the first in which the options differ. An option that is not among them gets the least
value that is, a bound from above. A server without log-probabilities raises NoLogprobs.

Not covered: the text-completion interface (a base model needs a chat template), several answers in
one request, tools, images.
"""

import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from constitutional_ai.engines.abilities import (
    CONTINUE,
    QUESTION,
    Body,
    chosen_fields,
    chosen_tokens,
    find_abilities,
    find_model,
    only_choice,
    token_ids,
    token_steps,
)
from constitutional_ai.engines.base import Completion, Own, Sampling
from constitutional_ai.engines.client import Client, Lost, Refused, Unusable
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import ModelError, NoLogprobs, SettingsError
from constitutional_ai.records import Conversation, assistant
from constitutional_ai.settings import HttpSettings

CHAT = "chat/completions"
UNSEEN = -9999.0  # no token seen that begins this option; what OpenAI and vLLM write, too

_FINISHED = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}
_CUT = {"length", "max_tokens"}
_DRESSING = " \n\t*_`\"'."


class _Question(NamedTuple):
    """What all options begin with, to be put in the assistant's mouth, and the id each has next."""

    opening: str
    ids: list[int]


class HttpEngine:
    """A model on a server. Raises ModelError if it cannot be reached, or does not chat."""

    def __init__(self, model: str, settings: HttpSettings | None = None) -> None:
        settings = settings or HttpSettings()
        spec = ModelSpec.parse(model)
        assert spec.kind == "server"
        self.client = Client(spec.name, settings, key_for(spec.name, settings.keys))
        self.model = find_model(self.client, spec.detail)
        self.name = f"{spec.name}#{self.model}"
        extra: Body = json.loads(settings.extra) if settings.extra else {}
        self._body: Body = {"model": self.model, **extra}
        self.can = find_abilities(self.client, self._body)
        self._questions: dict[tuple[str, ...], _Question | None] = {}

    @property
    def own(self) -> Own:
        """The server's: what a request leaves out, it fills in."""
        return Own(None, None)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order; one that was given up has ``failed`` set.

        Each row has a seed of its own, from ``sampling.seed`` and its place. Raises ModelError for
        a conversation that is to be continued, if the server cannot.
        """
        drawing = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        said = {name: value for name, value in drawing.items() if value is not None}
        bodies = [
            self._asked(
                conversation,
                {
                    self.can.limit: sampling.max_new_tokens,
                    **said,
                    "seed": random.Random(f"{sampling.seed}/{row}").getrandbits(31),
                },
            )
            for row, conversation in enumerate(conversations)
        ]
        return [
            Completion("", 0, False, failed=reply.reason) if isinstance(reply, Lost) else reply
            for reply in self.client.post_all(CHAT, bodies, read_completion)
        ]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        """Natural log-probabilities of the first token in which the options differ, a list a row.

        A row that was given up has NaN for every option. Raises NoLogprobs if the server gives no
        log-probabilities.
        """
        if not self.can.likeliest:
            raise NoLogprobs(
                f"{self.name}: answers without the log-probabilities that it is asked for; let it"
                ' reply in words (label.method = "vote"), or take another judge'
            )
        question = self._question(tuple(options))
        # An open message is spelt together with the option; there texts are compared, not ids.
        by_id = [n for n, turns in enumerate(conversations) if question and not is_open(turns)]
        by_text = sorted(set(range(len(conversations))) - set(by_id))
        replies: dict[int, list[float] | Lost] = {}
        for rows, ask in ((by_id, self._by_id), (by_text, self._by_text)):
            asked = [conversations[n] for n in rows]
            replies.update(zip(rows, ask(asked, options), strict=True))
        lost = [math.nan] * len(options)
        in_order = (replies[n] for n in range(len(conversations)))
        return [lost if isinstance(reply, Lost) else reply for reply in in_order]

    def _by_id(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float] | Lost]:
        question = self._question(tuple(options))
        if question is None:
            return []
        opening = [assistant(question.opening)] if question.opening else []
        fields = chosen_fields(question.ids) | {self.can.limit: 1, "temperature": 1.0}
        bodies = [self._asked([*turns, *opening], fields) for turns in conversations]

        def read(data: Any) -> list[float]:
            values = chosen_tokens(only_choice(data))
            if not set(question.ids) <= values.keys():
                raise Unusable("a reply without the log-probabilities asked for")
            return [values[i] for i in question.ids]

        return self.client.post_all(CHAT, bodies, read)

    def _by_text(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float] | Lost]:
        fields = {
            self.can.limit: max(map(len, options)) + 2,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": self.can.likeliest,
        }
        bodies = [self._asked(turns, fields) for turns in conversations]
        return self.client.post_all(
            CHAT, bodies, lambda data: read_options(only_choice(data), options)
        )

    def _asked(self, conversation: Conversation, fields: Body) -> Body:
        """The body of one request."""
        if not is_open(conversation):
            return {**self._body, "messages": conversation, **fields}
        if not self.can.continues:
            raise ModelError(
                f"{self.name}: cannot go on from the end of an assistant's message, which this"
                " setting needs; take a server that honours continue_final_message, such as vLLM"
            )
        return {**self._body, "messages": conversation, **CONTINUE, **fields}

    def _question(self, options: tuple[str, ...]) -> _Question | None:
        if options not in self._questions:
            self._questions[options] = self._find_question(options) if self.can.chosen else None
        return self._questions[options]

    def _find_question(self, options: Sequence[str]) -> _Question | None:
        """How the server's tokenizer spells the options; None if ids would not tell them apart.

        The opening must be spelt alone as it is within the options: "(A" may be one token.
        """
        spelt = [self._spelt(option) for option in options]
        shared = [column[0] for column in takewhile(_all_equal, zip(*spelt, strict=False))]
        ids = [ids[len(shared)] for ids in spelt if len(ids) > len(shared)]
        if len(set(ids)) < len(options):
            return None
        head = [letters[0] for letters in takewhile(_all_equal, zip(*options, strict=False))]
        sizes = range(len(head) + 1) if self.can.continues else range(1)
        openings = ("".join(head[:size]) for size in sizes)
        opening = next((text for text in openings if self._spelt(text) == shared), None)
        return None if opening is None else _Question(opening, ids)

    def _spelt(self, answer: str) -> list[int]:
        said = [assistant(answer)] if answer else []
        return token_ids(self.client, self.model, [*QUESTION, *said])


def is_open(conversation: Conversation) -> bool:
    """Whether the assistant's last message is to be continued."""
    return conversation[-1]["role"] == "assistant"


def _all_equal(column: Sequence[object]) -> bool:
    return len(set(column)) == 1


def read_completion(data: Any) -> Completion:
    """A chat completion's text. Raises Unusable for a broken reply, Refused for a filtered one."""
    choice = only_choice(data)
    reason, message = choice.get("finish_reason"), choice["message"]
    if reason == "content_filter":
        raise Refused("the server's content filter cut the answer off")
    if reason not in _FINISHED | _CUT:
        raise Unusable(f"a reply that ended with {reason!r}")
    text = message.get("content")
    if text is None:
        text = message.get("refusal")  # where hosted models put their own refusals
    if text is None and reason in _CUT:
        text = ""  # all tokens went to hidden reasoning
    if not isinstance(text, str):
        raise Unusable("a message without text")
    usage = data.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Completion(text, tokens if isinstance(tokens, int) else 0, reason in _FINISHED)


def read_options(choice: Mapping[str, Any], options: Sequence[str]) -> list[float]:
    """Log-probabilities of options from the likeliest tokens along a greedy reply.

    Tokens that all options begin with are passed over. At the next place, a token that begins only
    one option counts for it. A reply that is nothing but "B" counts for "(B)", too.
    """
    steps = token_steps(choice)
    if not steps:
        raise Unusable("a reply without the log-probabilities asked for")
    said = "".join(token for token, _ in steps).strip(_DRESSING)
    bare = [option.strip(" ()[]") for option in options]
    alone = said in bare and said not in options and choice.get("finish_reason") in _FINISHED
    names = bare if alone else [option.lstrip() for option in options]

    def meant(text: str) -> list[int]:
        """The options that a text begins, or that begin it."""
        if alone:
            text = text.strip(_DRESSING)
            return [n for n, name in enumerate(names) if text in ("", name)]
        text = text.lstrip()
        return [n for n, name in enumerate(names) if name.startswith(text) or text.startswith(name)]

    before, place = "", 0
    while place < len(steps) - 1 and len(meant(before + steps[place][0])) > 1:
        before += steps[place][0]
        place += 1
    places = steps[place][1]
    mass = [0.0] * len(options)
    for text, value in places.items():
        if len(begun := meant(before + text)) == 1:
            mass[begun[0]] += math.exp(value)
    if not any(mass):
        return [UNSEEN] * len(options)
    rest = max(1 - sum(math.exp(value) for value in places.values()), 1e-12)
    unseen = min(math.log(rest), *places.values())
    return [math.log(m) if m else unseen for m in mass]


def key_for(url: str, keys: Sequence[str]) -> str:
    """The key that the environment holds for a server; "" where none is named."""
    parts = urlsplit(url)
    for entry in keys:
        host, _, variable = entry.rpartition("=")
        if host in (parts.netloc, parts.hostname):
            key = os.environ.get(variable, "").strip()
            if not key:
                raise SettingsError(f"http.keys: {variable}, for {host}, is not set; export it")
            return key
    return ""
