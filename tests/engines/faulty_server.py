"""A model server on loopback that breaks in every way that servers break, and keeps the books.

It speaks enough of the OpenAI chat interface for the engine's start-up questions. What a request
meets is decided by its last user message: ``"row 17 meets reset, html"`` is answered by a reset
connection, then by an HTML page, then truly. A fault followed by ``always`` never ends. The true
answer to a message is ``answer(message)``, so a reply that went to another row shows.
"""

import asyncio
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FAULTS = (
    "429", "429 unsaid", "500", "503", "hang", "drip", "truncated", "html", "empty", "many",
    "no text", "no logprobs", "reset", "closed",
)  # fmt: skip
MODEL = "faulty"
BRACKET = 0.9  # the probability that a reply begins with "("


def answer(message: str) -> str:
    return f"the answer to {message.split(' meets ')[0]}"


@dataclass
class FaultyServer:
    """``served`` counts true replies by message; ``most`` is the highest number at once.

    ``logprobs``, ``continues`` and ``chosen`` say what the server is able to do; without them it
    answers as if it had not been asked. ``key``: what it wants to be shown. ``says``: the one true
    reply to everything, if there is one. ``retry_after``: the seconds that a 429 names. ``front``:
    what stands before it, "html" (a page for everything) or "redirect".
    """

    logprobs: bool = True
    continues: bool = True
    chosen: bool = True
    key: str = ""
    says: str = ""
    retry_after: float = 0.02
    front: str = ""
    down: bool = False  # answers nothing but 503
    delay: float = 0.0  # seconds before each reply
    seen: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    now: int = 0
    most: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        try:
            while request := await _request(reader):
                path, headers, body = request
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    await self._reply(path, headers, body, reader, writer)
                finally:
                    self.now -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _reply(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        shown = headers.get("authorization", "none")
        if self.front == "html":
            await _send(writer, b"<html>Welcome</html>", kind="text/html")
        elif self.front == "redirect":
            await _send(writer, b"", 302, "Location: https://elsewhere/v1/models\r\n")
        elif self.key and shown != f"Bearer {self.key}":
            await _send(writer, {"error": {"message": f"wrong key {shown}"}}, 401)
        elif self.down:
            await _send(writer, {"error": {"message": "loading"}}, 503)
        elif path == "/v1/models":
            await _send(writer, {"data": [{"id": MODEL}]})
        elif path == "/tokenize" and self.chosen:
            await _send(writer, {"tokens": _tokens(json.loads(body))})
        elif path == "/v1/chat/completions":
            await self._chat(json.loads(body), reader, writer)
        else:
            await _send(writer, {"error": {"message": f"no {path}"}}, 404)

    async def _chat(
        self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.bodies.append(asked)
        await asyncio.sleep(self.delay)
        message = next(t["content"] for t in reversed(asked["messages"]) if t["role"] == "user")
        self.seen[message] += 1
        fault = _fault(message, self.seen[message])
        if fault == "hang":
            await reader.read(1)  # until the other side has had enough
            raise ConnectionResetError
        await self._act(fault, message, asked, writer)

    async def _act(
        self, fault: str, message: str, asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        reply = self._true(message, asked)
        whole = json.dumps(reply).encode()
        match fault:
            case "429":
                later = f"Retry-After: {self.retry_after}\r\n"
                await _send(writer, {"error": "slow down"}, 429, later)
            case "429 unsaid":
                await _send(writer, {"error": "slow down"}, 429)
            case "500" | "503" | "400":
                await _send(writer, {"error": {"message": "out of order"}}, int(fault))
            case "drip":
                writer.write(_head(200, len(whole)))
                for byte in whole:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.1)
            case "truncated":
                await _send(writer, whole[: len(whole) // 2])
            case "html":
                await _send(writer, b"<html>Bad gateway</html>", kind="text/html")
            case "empty":
                await _send(writer, {**reply, "choices": []})
            case "many":
                await _send(writer, {**reply, "choices": reply["choices"] * 2})
            case "no text":
                bare = {**reply["choices"][0], "message": {"role": "assistant", "content": None}}
                await _send(writer, {**reply, "choices": [bare]})
            case "no logprobs":
                # To a request for text nothing is missing, so such a row is served.
                bare = {k: v for k, v in reply["choices"][0].items() if k != "logprobs"}
                self.served[message] += not asked.get("logprobs")
                await _send(writer, {**reply, "choices": [bare]})
            case "reset":
                writer.transport.abort()
                raise ConnectionResetError
            case "closed":
                writer.write(_head(200, len(whole)) + whole[:20])
                await writer.drain()
                raise ConnectionResetError
            case _:
                self.served[message] += 1
                await _send(writer, whole)

    def _true(self, message: str, asked: dict[str, Any]) -> dict[str, Any]:
        open_ = asked["messages"][-1]["role"] == "assistant"
        text = self.says or answer(message)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        if self.logprobs and asked.get("logprobs"):
            choice["logprobs"] = {"content": self._logprobs(message, asked)}
        marks = 0 if open_ and self.continues and asked.get("continue_final_message") else 6 * open_
        usage = {"prompt_tokens": 10 + open_ + marks, "completion_tokens": len(text.split())}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _logprobs(self, message: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Behind "(", a row's number n gives A the probability (n + 1) / 2,000; B has the rest but
        1%. A reply begins with nothing but "(" or "I".
        """
        found = re.match(r"row (\d+)", message)
        p = (int(found[1]) + 1) / 2000 if found else 0.5
        values = {"A": math.log(p), "B": math.log(0.99 - p), "I": math.log(0.01)}
        first = {"(": math.log(BRACKET), "I": math.log(1 - BRACKET)}
        opened = asked["messages"][-1]["content"].endswith("(")
        if self.chosen and "logprob_token_ids" in asked:
            ids, here = asked["logprob_token_ids"], values if opened else first
            named = {f"token_id:{i}": here.get(chr(i), -20.0) for i in ids}
            return [_step("token_id:73", named, math.log(0.01))]
        steps = [] if opened else [_step("(", first)]
        likelier = "A" if p > 0.5 else "B"
        return [*steps, _step(likelier, values), _step(")", {")": -0.001, "]": -7.0})]


def _tokens(asked: dict[str, Any]) -> list[int]:
    """A token is a letter here; three more stand for all that was said before."""
    last = asked["messages"][-1]
    return [1, 2, 3, *(map(ord, last["content"]) if last["role"] == "assistant" else ())]


def _step(token: str, places: dict[str, float], value: float | None = None) -> dict[str, Any]:
    top = [{"token": name, "logprob": logprob} for name, logprob in places.items()]
    return {"token": token, "logprob": places.get(token, value), "top_logprobs": top}


def _fault(message: str, time: int) -> str:
    """What the ``time``-th request with this message meets; "" for nothing."""
    faults = message.partition(" meets ")[2].split(", ")
    if faults[-1].endswith(" always"):
        faults += [faults.pop().removesuffix(" always")] * 99
    return faults[time - 1] if time <= len(faults) else ""


async def _request(
    reader: asyncio.StreamReader,
) -> tuple[str, dict[str, str], bytes] | None:
    """Path, headers and body of the next request; None at the end of the connection."""
    line = await reader.readline()
    if not line:
        return None
    headers = {}
    while (header := (await reader.readline()).decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return line.decode().split()[1], headers, body


def _head(status: int, length: int, more: str = "", kind: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


async def _send(
    writer: asyncio.StreamWriter,
    body: dict[str, Any] | bytes,
    status: int = 200,
    more: str = "",
    kind: str = "application/json",
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    writer.write(_head(status, len(data), more, kind) + data)
    await writer.drain()


@contextmanager
def faulty_server(**able: Any) -> Iterator[FaultyServer]:
    """A server in a thread of its own, on a free port of loopback."""
    server, started, loop = FaultyServer(**able), threading.Event(), asyncio.new_event_loop()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512)

    listening = loop.run_until_complete(start())
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_stop(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(listening: asyncio.Server) -> None:
    listening.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
