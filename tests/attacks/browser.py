"""A real browser, driven over its debugging pipe: JSON texts that end in a zero byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 20.0
# The browser reads its commands from file 3 and answers on file 4.
STARTER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    """Return the path of a browser, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab of the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def send(self, method: str, **params: Any) -> Any:
        return self._browser.send(method, params, self._session)

    def open(self, url: str) -> Page:
        """Go to a URL and wait until it has loaded, or failed to."""
        self.send("Page.enable")
        self.send("Page.navigate", url=url)
        until = time.monotonic() + PATIENCE_S
        while self.run("document.readyState + location.href") == "completeabout:blank":
            assert time.monotonic() < until, f"{url} did not open"
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < until, f"{url} did not load"
        return self

    def listen(self, *methods: str) -> list[dict[str, Any]]:
        """Have the browser report what these methods enable, and return the list that the reports are added to."""
        heard = self._browser.heard.setdefault(self._session, [])
        for method in methods:
            self.send(method)
        return heard

    def run(self, expression: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")


class Browser:
    """A headless browser; every name leads to this machine."""

    def __init__(self, path: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [
            path,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * 127.0.0.1",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        starter = [sys.executable, "-c", STARTER, str(theirs_in), str(theirs_out), *command]
        self._process = subprocess.Popen(
            starter, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._seen = b""
        self._number = 0
        self.heard: dict[str, list[dict[str, Any]]] = {}

    def send(self, method: str, params: dict[str, Any], session: str | None = None) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            if answer.get("sessionId") in self.heard:
                self.heard[answer["sessionId"]].append(answer)

    def page(self) -> Page:
        """Open a tab."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        return self._attached(target)

    def frame_texts(self) -> dict[str, str]:
        """Return what the frames of other sites show, in all tabs, by the URL that they were sent to."""
        found = self.send("Target.getTargets", {})["targetInfos"]
        frames = [target for target in found if target["type"] == "iframe"]
        return {frame["url"]: self._attached(frame["targetId"]).run("document.body.innerText") for frame in frames}

    def close(self) -> None:
        os.close(self._out)
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._in)

    def _attached(self, target: str) -> Page:
        return Page(self, self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])

    def _read(self) -> Any:
        while b"\0" not in self._seen:
            part = os.read(self._in, 65_536)
            assert part, "the browser ended"
            self._seen += part
        message, _, self._seen = self._seen.partition(b"\0")
        return json.loads(message)


@contextmanager
def opened_browser() -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(path, Path(profile))
        try:
            yield browser
        finally:
            browser.close()
