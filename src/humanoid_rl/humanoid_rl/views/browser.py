"""Headless Chromium through the Chrome DevTools protocol: for tests and pictures of the web pages made here.

`python -m humanoid_rl.views.browser URL PICTURE.png [--wait SECONDS] [--size 1280x800]` takes one picture.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from humanoid_rl_core.errors import UserError
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_ADVICE = "install it, e.g. apt install chromium, or on Ubuntu the google-chrome package of its maker"
_FLAGS = (
    "--headless",
    "--no-sandbox",  # its sandbox does not start as root, as in containers; it only opens pages made here
    "--disable-gpu",
    "--use-gl=angle",  # WebGL on the CPU
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--mute-audio",
)


def find_browser() -> str | None:
    """Path of a Chromium that can be used, None where there is none.

    A snap cannot: it has a /tmp of its own, and so never finds its profile. Ubuntu has no other Chromium; its
    chromium-browser is a script that calls the snap.
    """
    return next((path for path in map(shutil.which, _NAMES) if path and not _is_snap(Path(path))), None)


def _is_snap(program: Path) -> bool:
    if program.resolve().name == "snap":
        return True
    with program.open("rb") as file:
        return b"/snap/bin/" in file.read(4096)


class Browser:
    """A Chromium with one page. Use as a context manager: the processes are gone afterwards.

    Args:
        width, height: of the page, pixels.
        timeout: s to wait for anything.
        one_core: keep it to the last core. Drawing on the CPU takes every core that it gets, and what is
            looked at may be a control loop on the same machine.

    Raises UserError when there is no Chromium, TimeoutError when it or the page does not get ready.
    """

    def __init__(
        self, *, width: int = 1280, height: int = 800, timeout: float = 90.0, one_core: bool = False
    ) -> None:
        program = find_browser()
        if program is None:
            raise UserError(f"no Chromium found; {_ADVICE}")
        self._timeout = timeout
        self._ids = 0
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        # Chromium's libraries are its own; those of a ROS environment on the path are not meant for it.
        environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
        self._process = subprocess.Popen(
            [
                *(("taskset", "-c", str(max(os.sched_getaffinity(0)))) if one_core else ()),
                program,
                *_FLAGS,
                f"--user-data-dir={self._profile.name}",
                f"--window-size={width},{height}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # so that all of its processes can be ended together
        )
        try:
            address = self._page_address()
            self._socket = connect(address, max_size=None, open_timeout=timeout, ping_interval=None)
            self.call("Page.enable")
            self.call("Runtime.enable")
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **metrics)
        except BaseException:
            self._end()
            raise

    def _page_address(self) -> str:
        """WebSocket address of the page, once Chromium has written its port and opened the page."""
        port_file = Path(self._profile.name, "DevToolsActivePort")

        def address() -> str | None:
            if self._process.poll() is not None:
                raise UserError(f"Chromium ended at start with code {self._process.returncode}")
            try:
                port = int(port_file.read_text().split()[0])
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                    pages = [t for t in json.load(answer) if t["type"] == "page"]
            except (OSError, IndexError, ValueError, urllib.error.URLError):
                return None
            return pages[0]["webSocketDebuggerUrl"] if pages else None

        return self.wait_for(address, "Chromium to start")

    def wait_for(self, probe: Callable[[], Any], what: str, timeout: float | None = None) -> Any:
        """Asks `probe` until it gives something true; TimeoutError names `what` was waited for."""
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while not (found := probe()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {limit:.0f} s for {what}")
            time.sleep(0.2)
        return found

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its result; RuntimeError with Chromium's reason when it refuses."""
        self._ids += 1
        self._socket.send(json.dumps({"id": self._ids, "method": method, "params": parameters}))
        deadline = time.monotonic() + self._timeout
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if answer.get("id") == self._ids:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]

    def open(self, url: str) -> None:
        """Loads a page and waits until its document is complete."""
        result = self.call("Page.navigate", url=url)
        if result.get("errorText"):
            raise UserError(f"cannot open {url}: {result['errorText']}")
        self.wait_for(lambda: self.evaluate("document.readyState") == "complete", f"{url} to load")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page (awaited when it is a promise)."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails'].get('text')}")
        return result["result"].get("value")

    def centre_of(self, text: str, selector: str = "button") -> tuple[float, float] | None:
        """Middle, in page pixels, of the first visible element whose text is `text`, or None.

        Of an inline element that wraps, the middle of its first line: the middle of its bounding box may lie
        between two lines, on nothing that can be clicked.
        """
        found = self.evaluate(
            f"(() => {{ for (const e of document.querySelectorAll({json.dumps(selector)})) {{"
            f" if (e.textContent.trim() === {json.dumps(text)}) {{ e.scrollIntoView({{block: 'nearest'}});"
            " const r = e.getClientRects()[0]; if (r && r.width > 0)"
            " return [r.x + r.width / 2, r.y + r.height / 2]; } } return null; })()"
        )
        return None if found is None else (found[0], found[1])

    def click(self, text: str, selector: str = "button") -> None:
        """A real mouse click on the element with this text, once it is there and has stopped moving."""

        def resting_place() -> tuple[float, float] | None:
            place = self.centre_of(text, selector)
            time.sleep(0.3)
            return place if place is not None and place == self.centre_of(text, selector) else None

        x, y = self.wait_for(resting_place, f"'{text}' to appear and rest")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, *, whole_page: bool = False) -> bytes:
        """PNG of the window, or of the whole page."""
        result = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)
        return base64.b64decode(result["data"])

    def close(self) -> None:
        """Ends Chromium and removes its profile."""
        with contextlib.suppress(OSError, WebSocketException):
            self._socket.close()
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Takes a picture of a web page with headless Chromium.")
    parser.add_argument("url")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--wait", type=float, default=8.0, help="seconds after loading (default 8)")
    parser.add_argument("--size", default="1280x800", help="WIDTHxHEIGHT in pixels (default 1280x800)")
    parser.add_argument("--whole-page", action="store_true", help="not only what fits the window")
    options = parser.parse_args(argv)
    try:
        width, height = (int(part) for part in options.size.split("x"))
    except ValueError:
        parser.error(f"--size is '{options.size}', expected WIDTHxHEIGHT")
    try:
        with Browser(width=width, height=height) as browser:
            browser.open(options.url)
            time.sleep(options.wait)
            picture = browser.screenshot(whole_page=options.whole_page)
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_bytes(picture)
    except (UserError, TimeoutError, OSError) as error:
        print(f"browser: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
