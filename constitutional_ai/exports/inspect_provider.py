"""Our engines as models of Inspect: ``inspect eval task.py --model cai/lab:s``.

What stands behind ``cai/`` is a model spec: lab:s, a folder, a hub id, http://HOST:PORT/v1#MODEL.
Inspect asks sample by sample; requests that come together are answered in one batch of the engine.
Model arguments are settings of ``[model]``: ``-M device=cuda -M dtype=bfloat16``. Not covered:
tools, images, log-probabilities, stop sequences; each is refused, never passed over.

Inspect finds this module through the entry point ``inspect_ai`` of the package.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import anyio
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.records import Conversation
from constitutional_ai.store.run_folder import derive_seed

AT_ONCE = 64  # requests that Inspect may have open, and an engine's batch
GATHER = 0.05  # seconds in which requests come together
POLL = 0.005


@dataclass(frozen=True)
class _Request:
    conversation: Conversation
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int | None
    reply: "Future[Completion]"

    @property
    def key(self) -> tuple[object, ...]:
        """Requests with the same can share a batch."""
        return (self.temperature, self.top_p, self.max_new_tokens, self.seed)


class Batcher:
    """Answers requests from a thread of its own, as many at a time as came together."""

    def __init__(self, open_: Callable[[], Engine]) -> None:
        self._open = open_
        self._queue: Queue[_Request] = Queue()
        self._batches = 0
        threading.Thread(target=self._work, daemon=True, name="cai").start()

    def ask(self, request: _Request) -> None:
        self._queue.put(request)

    def _work(self) -> None:
        engine: Engine | None = None
        while True:
            waiting = self._gathered()
            try:
                engine = engine or self._open()
                for batch in _batches(waiting):
                    self._answer(engine, batch)
            except Exception as error:  # noqa: BLE001 - whoever asked has to learn of it
                for request in waiting:
                    if not request.reply.done():
                        request.reply.set_exception(error)

    def _gathered(self) -> list[_Request]:
        found = [self._queue.get()]
        until = time.monotonic() + GATHER
        while len(found) < AT_ONCE and (left := until - time.monotonic()) > 0:
            try:
                found.append(self._queue.get(timeout=left))
            except Empty:
                break
        return found

    def _answer(self, engine: Engine, batch: Sequence[_Request]) -> None:
        self._batches += 1
        first = batch[0]
        seed = first.seed if first.seed is not None else derive_seed("inspect", self._batches)
        sampling = Sampling(first.temperature, first.top_p, first.max_new_tokens, seed)
        replies = engine.generate([request.conversation for request in batch], sampling)
        for request, reply in zip(batch, replies, strict=True):
            request.reply.set_result(reply)


def _batches(requests: Sequence[_Request]) -> list[list[_Request]]:
    groups: dict[tuple[object, ...], list[_Request]] = {}
    for request in requests:
        groups.setdefault(request.key, []).append(request)
    return list(groups.values())


@modelapi(name="cai")
class CaiAPI(ModelAPI):  # type: ignore[misc]  # inspect_ai is no dependency of the type check
    """``model_name`` is the spec behind ``cai/``."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._model_args = model_args
        self._batcher = Batcher(self._engine)

    def _engine(self) -> Engine:
        from constitutional_ai.engines import open_engine
        from constitutional_ai.settings import Settings

        model = {"path": self.model_name, **self._model_args}
        return open_engine(self.model_name, Settings.model_validate({"model": model}))

    def max_connections(self) -> int:
        return AT_ONCE

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        _refuse(tools, config)
        began = time.monotonic()
        request = _Request(
            conversation=[_turn(message) for message in input],
            temperature=1.0 if config.temperature is None else config.temperature,
            top_p=1.0 if config.top_p is None else config.top_p,
            max_new_tokens=config.max_tokens or 256,
            seed=config.seed,
            reply=Future(),
        )
        self._batcher.ask(request)
        while not request.reply.done():
            await anyio.sleep(POLL)
        reply = request.reply.result()
        if reply.failed:
            raise RuntimeError(f"{self.model_name}: {reply.failed}")
        output = ModelOutput.from_content(
            self.model_name, reply.text, "stop" if reply.finished else "max_tokens"
        )
        output.usage = ModelUsage(output_tokens=reply.tokens, total_tokens=reply.tokens)
        output.time = time.monotonic() - began
        return output


def _refuse(tools: Sequence[ToolInfo], config: GenerateConfig) -> None:
    asked = {
        "tools": tools,
        "stop sequences": config.stop_seqs,
        "log-probabilities": config.logprobs,
        "several choices": (config.num_choices or 1) > 1,
    }
    if names := [name for name, value in asked.items() if value]:
        raise NotImplementedError(f"cai/ models take no {', '.join(names)}")


def _turn(message: ChatMessage) -> Any:
    if message.role not in ("system", "user", "assistant"):
        raise NotImplementedError(f"cai/ models take no messages of the role {message.role}")
    if not isinstance(message.content, str) and any(
        part.type != "text" for part in message.content
    ):
        raise NotImplementedError("cai/ models take text alone")
    return {"role": message.role, "content": message.text}
