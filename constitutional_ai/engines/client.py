"""Requests to a model server: many at a time, tried again; one outcome each, in order.

Three kinds of things go wrong. The server is away or says "later" (no connection, 429, any reply
with Retry-After): the request waits up to ``patience`` seconds, and no try is counted. The reply is
broken or late, or an error of the server (5xx, a reset, half a JSON): ``retries`` more tries follow
after exponential waits with full jitter. The request is refused (400, 422): no more tries. What is
given up becomes Lost, and the others go on. A wrong key or address (401, 403, 404, a redirect) ends
the call. So does a server that is still away when requests have been given up, since an outage is
no failure of a row.

Not covered: streaming, HTTP/2, more than one server behind one name.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from constitutional_ai.errors import ModelError, ServerGone
from constitutional_ai.progress import Done, asking
from constitutional_ai.settings import HttpSettings

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

FIRST_WAIT = 0.5  # seconds at most before the second try; doubled for each further one
CONNECT_SECONDS = 10.0
LATER = (429,)
AGAIN = (408, 409, 425)  # and every 5xx
SECRET = 8  # characters from which on a key is struck out of replies; a short one is a word
WRONG = {
    401: "it wants a key; name the variable that holds it: http.keys = ['HOST=VARIABLE']",
    403: "it refuses the key",
    404: "it knows no such address or model; an address usually ends with /v1",
    405: "this is no OpenAI-compatible server's address; that usually ends with /v1",
}

_log = logging.getLogger("constitutional_ai")


class Unusable(Exception):
    """A reply that came and cannot be used, such as one without choices: worth another try."""


class Refused(Exception):
    """A request that will never get a usable reply."""


@dataclass(frozen=True)
class Lost:
    """In place of a reply: why there is none. ``refused``: the server said no to the request."""

    reason: str
    refused: bool = False


class _Later(Exception):
    """Come again in ``seconds``, or after the usual wait if that is None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Client:
    """Asks one server. ``url`` is its base, such as ``http://host:8000/v1``.

    ``key`` goes to that server only, and is struck out of all that the server says.
    """

    def __init__(self, url: str, settings: HttpSettings, key: str = "") -> None:
        self.url = url
        self.settings = settings
        self._key = key
        self._pause_until = 0.0  # by time.monotonic; one reply's Retry-After holds for all
        self._said = -60.0

    def get(self, path: str) -> Any:
        """The JSON at a path, or None. Raises ModelError if nobody answers, or with a page."""
        return run_sync(self._get(path))

    def post_all(
        self, path: str, bodies: Sequence[dict[str, Any]], read: Callable[[Any], T]
    ) -> list[T | Lost]:
        """``read`` of the JSON reply to each body, or Lost, in order.

        ``read`` raises Unusable to have the request tried again, Refused to have it given up.
        Raises ModelError for a wrong key or address, ServerGone if the server is away.
        """
        done = asking(len(bodies), "replies")
        return run_sync(self._post_all(path, [json.dumps(body) for body in bodies], read, done))

    async def _get(self, path: str) -> Any:
        import httpx2

        async with self._http() as http:
            try:
                reply = await http.get(self._at(path))
            except httpx2.TransportError as error:
                raise ModelError(
                    f"{self.url}: no answer ({_named(error)}); is it running?"
                ) from None
        if reply.status_code in (401, 403):
            raise ModelError(f"{self.url}: {WRONG[reply.status_code]} ({self._told(reply)})")
        self._refuse_redirect(reply)
        if reply.status_code != 200:
            return None
        try:
            return self._struck(reply.json())
        except ValueError:
            raise ModelError(
                f"{self.url}: answers with {_kind(reply)} in place of JSON: {WRONG[405]}"
            ) from None

    async def _post_all(
        self, path: str, bodies: Sequence[str], read: Callable[[Any], T], done: Done
    ) -> list[T | Lost]:
        outcomes: list[T | Lost] = [Lost("not asked")] * len(bodies)
        todo = iter(enumerate(bodies))  # shared: each worker takes the next one

        async def work(http: "httpx2.AsyncClient") -> None:
            for place, body in todo:
                outcomes[place] = await self._ask(http, path, body, read)
                done(1)

        async with self._http() as http:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.settings.concurrency, len(bodies))):
                        group.create_task(work(http))
            except* ModelError as errors:
                raise errors.exceptions[0] from None
            given_up = [o.reason for o in outcomes if isinstance(o, Lost) and not o.refused]
            if given_up and not await self._alive(http):
                raise ServerGone(
                    f"{self.url}: gone ({given_up[0]}); start it, and the same command goes on"
                )
        return outcomes

    async def _ask(
        self, http: "httpx2.AsyncClient", path: str, body: str, read: Callable[[Any], T]
    ) -> T | Lost:
        tries, patient_until = 0, time.monotonic() + self.settings.patience
        while True:
            await asyncio.sleep(max(0.0, self._pause_until - time.monotonic()))
            try:
                return read(await self._one_reply(http, path, body))
            except Refused as error:
                return Lost(str(error), refused=True)
            except Unusable as error:
                tries += 1
                if tries > self.settings.retries:
                    return Lost(f"{error}, {tries} times")
                await asyncio.sleep(self._wait(tries))
            except _Later as error:
                if time.monotonic() >= patient_until:
                    return Lost(str(error))
                self._say(str(error))
                if error.seconds is None:
                    await asyncio.sleep(self._wait(3))
                else:
                    pause = min(error.seconds, self.settings.max_wait) + random.uniform(0, 0.1)
                    self._pause_until = max(self._pause_until, time.monotonic() + pause)

    async def _one_reply(self, http: "httpx2.AsyncClient", path: str, body: str) -> Any:
        """The JSON of a 200. Raises Unusable, Refused, _Later or ModelError for anything else."""
        import httpx2

        limit = self.settings.timeout
        try:
            async with asyncio.timeout(limit):  # of the whole: a slow drip ends, too
                reply = await http.post(self._at(path), content=body)
        except TimeoutError:
            raise Unusable(f"no whole reply within {limit:g} s") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise _Later(f"no connection ({_named(error)})") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Unusable(f"connection broken ({_named(error)})") from None
        self._check(reply)
        try:
            return self._struck(reply.json())
        except ValueError:
            raise Unusable(f"HTTP 200 with a body that is no JSON ({_kind(reply)})") from None

    def _check(self, reply: "httpx2.Response") -> None:
        code = reply.status_code
        if code == 200:
            return
        reason = f"HTTP {code}: {self._told(reply)}"
        wait = retry_after(reply.headers.get("retry-after", ""))
        if code in LATER or (wait is not None and code >= 500):
            raise _Later(reason, wait)
        if code in AGAIN or code >= 500:
            raise Unusable(reason)
        if code in WRONG:
            raise ModelError(f"{self.url}: {WRONG[code]} ({reason})")
        self._refuse_redirect(reply)
        raise Refused(reason)

    def _refuse_redirect(self, reply: "httpx2.Response") -> None:
        """A key does not travel on to another address by itself."""
        if reply.is_redirect:
            where = reply.headers.get("location", "")[:200]
            raise ModelError(f"{self.url}: redirects to {where}; name the address there")

    async def _alive(self, http: "httpx2.AsyncClient") -> bool:
        import httpx2

        try:
            return (await http.get(self._at("models"))).status_code < 500
        except httpx2.TransportError:
            return False

    def _http(self) -> "httpx2.AsyncClient":
        import httpx2

        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limit = self.settings.timeout
        return httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(limit, connect=min(CONNECT_SECONDS, limit), pool=None),
            limits=httpx2.Limits(
                max_connections=self.settings.concurrency,
                max_keepalive_connections=self.settings.concurrency,
            ),
            follow_redirects=False,
        )

    def _at(self, path: str) -> str:
        """``models`` is below the base; ``/tokenize`` is at the server's root."""
        root = self.url.removesuffix("/v1") if path.startswith("/") else f"{self.url}/"
        return root + path

    def _wait(self, tries: int) -> float:
        """Full jitter: anything up to the bound, so that requests that failed together part."""
        return random.uniform(0, min(self.settings.max_wait, FIRST_WAIT * 2 ** (tries - 1)))

    def _told(self, reply: "httpx2.Response") -> str:
        """What an error reply says, in one short line and without the key."""
        try:
            data = reply.json()
            inner = data.get("error", data)
            text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        except (ValueError, AttributeError):
            text = reply.text
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:200] or "no reason given"

    def _struck(self, data: Any) -> Any:
        """A reply without the key: some proxies echo it, and replies become rows."""
        if len(self._key) < SECRET:
            return data
        match data:
            case str():
                return data.replace(self._key, "***")
            case list():
                return [self._struck(one) for one in data]
            case dict():
                return {name: self._struck(one) for name, one in data.items()}
        return data

    def _say(self, reason: str) -> None:
        """Say, once a minute, that the server is what is waited for."""
        if time.monotonic() - self._said >= 60:
            self._said = time.monotonic()
            _log.warning("%s: waiting: %s", self.url, reason)


def retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None if it is neither.

    >>> retry_after("1.5"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after("soon")
    (1.5, 0.0, None)
    """
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__


def _kind(reply: "httpx2.Response") -> str:
    return str(reply.headers.get("content-type", "no content type"))


def run_sync(job: Coroutine[Any, Any, T]) -> T:
    """Run to the end; in a thread of its own where a loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, job).result()
