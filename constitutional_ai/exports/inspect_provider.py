"""Our engines as models of Inspect: ``inspect eval task.py --model cai/lab:s``.

After ``cai/`` comes a model spec: lab:s, a folder, a hub id, http://HOST:PORT/v1#MODEL. Model
arguments are settings of ``[model]``: ``-M device=cuda -M dtype=bfloat16``. Tools, images,
log-probabilities and stop sequences are refused.

Inspect asks sample by sample, so requests wait a moment for others to share a batch of the engine.
Inspect finds this module through the entry point ``inspect_ai`` of the package.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
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
from constitutional_ai.store.seeds import derive_seed

AT_ONCE = 64  # requests that Inspect may have open, and an engine's batch
GATHER = 0.05  # seconds that a request waits for others


@dataclass(eq=False)
class Request:
    """A question, and its reply or the engine's error as soon as there is one."""

    conversation: Conversation
    # temperature and top_p (None: the model's own), new tokens, seed
    sampling: tuple[float | None, float | None, int, int | None]
    reply: Completion | None = None
    error: Exception | None = None


class Batcher:
    """Answers requests of the same sampling together, one batch at a time, in a thread."""

    def __init__(self, open_: Callable[[], Engine]) -> None:
        self._open = open_
        self._engine: Engine | None = None
        self._waiting: list[Request] = []
        self._lock = anyio.Lock()
        self._batches = 0

    async def ask(self, request: Request) -> Completion:
        """The engine's reply. Raises what the engine raises."""
        self._waiting.append(request)
        await anyio.sleep(GATHER)
        async with self._lock:
            while request in self._waiting:  # else an earlier batch has answered it
                alike = [one for one in self._waiting if one.sampling == request.sampling]
                batch = alike[:AT_ONCE]
                self._waiting = [one for one in self._waiting if one not in batch]
                await anyio.to_thread.run_sync(self._answer, batch)
        if request.error:
            raise request.error
        assert request.reply is not None
        return request.reply

    def _answer(self, batch: Sequence[Request]) -> None:
        try:
            self._engine = self._engine or self._open()
            self._batches += 1
            temperature, top_p, limit, seed = batch[0].sampling
            if seed is None:
                seed = derive_seed("inspect", self._batches)
            replies = self._engine.generate(
                [request.conversation for request in batch],
                Sampling(temperature, top_p, limit, seed),
            )
            for request, reply in zip(batch, replies, strict=True):
                request.reply = reply
        except Exception as error:  # noqa: BLE001 - everybody who asked has to learn of it
            for request in batch:
                request.error = error


@modelapi(name="cai")
class CaiAPI(ModelAPI):  # type: ignore[misc]  # inspect_ai is no dependency of the type check
    """``model_name`` is the spec after ``cai/``."""

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
        sampling = (config.temperature, config.top_p, config.max_tokens or 256, config.seed)
        reply = await self._batcher.ask(Request([_turn(one) for one in input], sampling))
        if reply.failed:
            raise RuntimeError(f"{self.model_name}: {reply.failed}")
        stop = "stop" if reply.finished else "max_tokens"
        output = ModelOutput.from_content(self.model_name, reply.text, stop)
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
    parts = [] if isinstance(message.content, str) else message.content
    if any(part.type != "text" for part in parts):
        raise NotImplementedError("cai/ models take text alone")
    return {"role": message.role, "content": message.text}
