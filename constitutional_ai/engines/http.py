"""The engine for any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

A model is named ``http://HOST:PORT/v1#MODEL``. How the engine learns what the server can do is in
abilities.py, how requests survive a bad night in client.py. A row that is given up comes back as a
Completion with ``failed`` set, or as NaN in place of log-probabilities.

If the server has vLLM's ``logprob_token_ids``, the log-probabilities of options are those of the
very tokens that the local engine reads. Otherwise the likeliest tokens are read along the greedy
reply, up to the first in which the options differ, and every spelling among them counts. An option
that is not among them gets the least value that is, a bound from above. A server without
log-probabilities raises NoLogprobs.

Not covered: the text-completion interface (a base model needs a chat template), several answers in
one request, tools, images.
"""

import json
import math
import os
import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
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
from constitutional_ai.engines.spelling import DRESSING, Begun, begun, log_sum
from constitutional_ai.errors import ModelError, NoLogprobs, SettingsError
from constitutional_ai.records import Conversation, assistant
from constitutional_ai.settings import HttpSettings

CHAT = "chat/completions"
UNSEEN = -9999.0  # no token seen that begins this option; what OpenAI and vLLM write, too

_FINISHED = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}
_CUT = {"length", "max_tokens"}


class _Question(NamedTuple):
    """The tokens that begin the options, and the text of each start of their opening.

    ``openings[k]`` is put in the assistant's mouth to ask for the place k of ``begun``.
    """

    begun: Begun
    openings: tuple[str, ...]


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
        """Natural log of each option's probability, over the spellings that a reply may begin with.

        One request a question; by ids, one more for each token with which all options begin. A row
        that was given up has NaN for every option. Raises NoLogprobs if the server gives no
        log-probabilities.
        """
        if not self.can.likeliest:
            raise NoLogprobs(
                f"{self.name}: answers without the log-probabilities that it is asked for; let it"
                ' reply in words (label.method = "vote"), or take another judge'
            )
        question = self._question(tuple(options))
        # An open message is spelt together with the option; there texts are compared, not ids.
        opened = [n for n, turns in enumerate(conversations) if is_open(turns)]
        fresh = [n for n, turns in enumerate(conversations) if not is_open(turns)]
        going_on = partial(self._by_text, going_on=True)
        replies: dict[int, list[float] | Lost] = {}
        for rows, ask in (
            (fresh, self._by_id if question else self._by_text),
            (opened, going_on),
        ):
            asked = [conversations[n] for n in rows]
            replies.update(zip(rows, ask(asked, options) if rows else [], strict=True))
        lost = [math.nan] * len(options)
        in_order = (replies[n] for n in range(len(conversations)))
        return [lost if isinstance(reply, Lost) else reply for reply in in_order]

    def _by_id(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float] | Lost]:
        question = self._question(tuple(options))
        if question is None:
            return []
        found = question.begun
        bodies = [
            self._asked(
                [*turns, assistant(opening)] if opening else turns,
                chosen_fields(found.tokens(place)) | {self.can.limit: 1, "temperature": 1.0},
            )
            for turns in conversations
            for place, opening in enumerate(question.openings)
        ]
        replies = self.client.post_all(CHAT, bodies, _read_tokens)
        count = len(question.openings)
        of_rows = (replies[start : start + count] for start in range(0, len(replies), count))
        return [_joined(found, of_row) for of_row in of_rows]

    def _by_text(
        self, conversations: Sequence[Conversation], options: Sequence[str], going_on: bool = False
    ) -> list[list[float] | Lost]:
        fields = {
            self.can.limit: max(map(len, options)) + 2,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": self.can.likeliest,
        }
        bodies = [self._asked(turns, fields) for turns in conversations]
        return self.client.post_all(
            CHAT, bodies, lambda data: read_options(only_choice(data), options, going_on)
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

        Each start of the opening must be spelt alone as it is within the options: "(A" may be one
        token.
        """
        before = self._spelt("")

        def spelt(reply: str) -> list[int]:
            return self._spelt(reply)[len(before) :]

        try:
            found = begun(options, spelt)
        except ValueError:
            return None
        head = [letters[0] for letters in takewhile(_all_equal, zip(*options, strict=False))]
        sizes = range(len(head) + 1) if self.can.continues else range(1)
        starts = ["".join(head[:size]) for size in sizes]
        texts = {tuple(spelt(text)): text for text in reversed(starts)}
        openings = [texts.get(found.opening[:place]) for place in range(len(found.places))]
        known = tuple(text for text in openings if text is not None)
        return _Question(found, known) if len(known) == len(openings) else None

    def _spelt(self, answer: str) -> list[int]:
        said = [assistant(answer)] if answer else []
        return token_ids(self.client, self.model, [*QUESTION, *said])


def is_open(conversation: Conversation) -> bool:
    """Whether the assistant's last message is to be continued."""
    return conversation[-1]["role"] == "assistant"


def _all_equal(column: Sequence[object]) -> bool:
    return len(set(column)) == 1


def _read_tokens(data: Any) -> dict[int, float]:
    values = chosen_tokens(only_choice(data))
    if not values:
        raise Unusable("a reply without the log-probabilities asked for")
    return values


def _joined(of: Begun, replies: Sequence[dict[int, float] | Lost]) -> list[float] | Lost:
    """One question's log-probabilities from its replies, a place each."""
    found: list[dict[int, float]] = []
    for reply in replies:
        if isinstance(reply, Lost):
            return reply
        found.append(reply)
    return of.logprobs(found)


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


def read_options(
    choice: Mapping[str, Any], options: Sequence[str], going_on: bool = False
) -> list[float]:
    """Log-probabilities of options from the likeliest tokens along a greedy reply.

    ``going_on``: the reply goes on from an open message, whose end may be the option's bracket.

    A token that begins one option, in any spelling, counts for it. One that may begin several, such
    as "(", is followed where the reply goes that way. Bare words count for none where the reply is
    prose, such as "A better answer is …"; the rest of an open message may be any text.
    """
    steps = token_steps(choice)
    if not steps:
        raise Unusable("a reply without the log-probabilities asked for")
    words = [option.strip(DRESSING) for option in options]
    reply = "".join(token for token, _ in steps).lstrip(" \n\t*_`\"'")
    prose = not going_on and any(re.match(rf"{re.escape(word)}[ ,]+\w", reply) for word in words)

    def meant(text: str) -> list[int]:
        """The options that a reply may name that begins with this text."""
        said = text.strip(DRESSING)
        if not said:
            return list(range(len(options)))
        if prose and not set(text) & set("(["):
            return []
        long = [n for n, word in enumerate(words) if len(word) > 1]
        whole = [n for n, word in enumerate(words) if said == word]
        whole += [n for n in long if said.lower() == words[n].lower() and n not in whole]
        return whole or [n for n in long if words[n].startswith(said)]

    terms: list[list[float]] = [[] for _ in options]
    before, opened, unseen = "", 0.0, 0.0
    for token, places in steps:
        for text, value in places.items():
            if len(named := meant(before + text)) == 1:
                terms[named[0]].append(opened + value)
        rest = max(1 - sum(math.exp(value) for value in places.values()), 1e-12)
        unseen = opened + min(math.log(rest), *places.values())
        if len(meant(before + token)) < 2:
            break
        before, opened = before + token, opened + places[token]
    if not any(terms):
        return [UNSEEN] * len(options)
    return [log_sum(of) if of else unseen for of in terms]


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
