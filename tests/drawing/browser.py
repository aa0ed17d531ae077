"""A headless Chromium for tests, spoken to in the DevTools protocol over a pipe.

The standard library alone: the protocol's messages are JSON ended by a zero byte, on the browser's
file descriptors 3 and 4. Whatever the browser wants from the network goes to a server of ours that
counts it and answers 404, so that no test depends on a network or touches one.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

BINARY = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ASKED, FAILED = "Network.requestWillBeSent", "Network.loadingFailed"
WAIT = 60.0  # seconds for an answer; a loaded machine starts a browser slowly
_ABOVE = 10  # the descriptors that are handed over must not be 3 or 4 themselves
_HANDED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
    " os.execv(sys.argv[3], sys.argv[3:])"
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--hide-scrollbars",
    "--proxy-bypass-list=<-loopback>",  # loopback too goes through the proxy that counts
    "--remote-debugging-pipe",
)


class Browser:
    """One tab. Raises TimeoutError where the browser stays silent."""

    def __init__(self, profile: Path, proxy: str = "") -> None:
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in (theirs_in, theirs_out)]
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        flags += [f"--proxy-server={proxy}"] if proxy else []
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _HANDED, *map(str, given), BINARY, *flags],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, *given):
            os.close(fd)
        self._sent, self._read, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == self._sent)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def show(self, url: str, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a page in a window of ``width`` CSS pixels; below 600 it is a phone's."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=wanted)
        self.events.clear()
        self.call("Page.navigate", url=url)
        self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(b64decode(found["data"]))

    def requested(self) -> list[str]:
        """The addresses that the page was let ask for since ``show``, its own first."""
        told = [(e.get("method"), e["params"]) for e in self.events if "params" in e]
        refused = {p["requestId"] for m, p in told if m == FAILED and p.get("blockedReason")}
        asked = [p for m, p in told if m == ASKED and p["requestId"] not in refused]
        return [p["request"]["url"] for p in asked]

    def _until(self, wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT
        while True:
            while b"\0" not in self._read:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._in], [], [], left)[0]:
                    raise TimeoutError("the browser does not answer")
                block = os.read(self._in, 1 << 20)
                if not block:
                    raise EOFError("the browser is gone")
                self._read += block
            line, _, self._read = self._read.partition(b"\0")
            found: dict[str, Any] = json.loads(line)
            if "id" not in found:
                self.events.append(found)
            if wanted(found):
                return found


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """A proxy that reaches nothing: its address, and the requests that came to it, in order."""
    hits: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _count(self) -> None:
            hits.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_GET = do_HEAD = do_POST = do_CONNECT = _count

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hits
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
