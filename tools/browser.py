"""Drives Chromium over its own pipe (DevTools protocol), so that nothing more than the browser is needed.

Chromium reads commands on descriptor 3 and answers on descriptor 4, each message ended by a null byte
(``--remote-debugging-pipe``).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip


def find_browser() -> str | None:
    """Returns the path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab of a Chromium of its own, with an empty profile.

    A context manager.

    Attributes:
        events: What the browser told, in order.

    Raises:
        RuntimeError: If there is no Chromium, a command is refused, or the page raises an error.
        TimeoutError: If something does not happen in time.
    """

    def __init__(self, *, width: int = 1280, height: int = 800, timeout: float = 60.0) -> None:
        self.events: list[dict[str, Any]] = []
        self._size, self._timeout = (width, height), timeout
        self._buffer, self._number, self._session = b"", 0, ""

    def __enter__(self) -> Browser:
        found = find_browser()
        if found is None:
            raise RuntimeError(f"no Chromium is installed: one of {', '.join(NAMES)}")
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        commands, self._to = map(_high, os.pipe())
        self._from, answers = map(_high, os.pipe())

        def place() -> None:
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        size = f"--window-size={self._size[0]},{self._size[1]}"
        self._process = subprocess.Popen(
            [found, *_QUIET, *sandbox, size, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(3, 4), preexec_fn=place, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.show(*self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            session, self._session = self._session, ""
            self.call("Browser.close")
            self._session = session
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)  # a session of its own: the browser and its children alone
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the protocol and returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._timeout
        while True:
            answer = self._read(deadline)
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error'].get('message')}")
            return dict(answer["result"])

    def open(self, address: str) -> None:
        """Opens an address and waits until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """Returns what an expression of the page is, promises waited for."""
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"])[:2000])
        return told["result"].get("value")

    def until(self, expression: str, *, timeout: float | None = None) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + (timeout or self._timeout)
        while True:
            with contextlib.suppress(RuntimeError):  # the page is being replaced
                if self.value(f"Boolean({expression})"):
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true in time: {expression}")
            time.sleep(0.1)

    def drop(self, files: Sequence[Path | str], selector: str) -> None:
        """Drops files and folders on an element, as from a file manager."""
        box = self.value(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [os.path.abspath(f) for f in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def press(self, key: str) -> None:
        """Presses and releases a key, e.g. ``Tab``, ``Enter``, ``ArrowDown``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the window and what the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path | str, *, whole: bool = False) -> Path:
        """Writes what is seen, or the whole page, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
        return Path(path)

    def requested(self) -> Iterator[str]:
        """Addresses that were asked for since the page was opened."""
        for event in self.events:
            if event.get("method") == "Network.requestWillBeSent":
                yield event["params"]["request"]["url"]

    def complaints(self) -> list[str]:
        """What the console shows as errors, and what the page did not catch."""
        said = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                said.append(json.dumps(parameters["exceptionDetails"])[:500])
            elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                said.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        return said

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


def _high(descriptor: int) -> int:
    """Moves a descriptor away from those that the browser is given."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
