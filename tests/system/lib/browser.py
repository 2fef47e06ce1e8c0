"""A page in Debian's Chromium, spoken to by its DevTools protocol over a pair of pipes: JSON, each message ended by a NUL."""

import base64
import fcntl
import json
import os
import select
import time

from process import Process, until

BROWSER_S = 120.0  # how long something may take: a browser is many processes, and starts slowly on a machine that has much to do

COMMAND = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
           "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--hide-scrollbars", "--disable-crash-reporter", "--disable-breakpad", "--remote-debugging-pipe"]


def high(fd):
    """The same descriptor under a number that is neither 3 nor 4."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


class Browser(Process):
    """Chromium with one page open. What the page writes to its console, and what it may not do, are in `complaints`."""

    count = 0

    def __init__(self, folder, width=1200, height=900):
        Browser.count += 1
        self.answers, self.bytes, self.number, self.session, self.complaints = {}, b"", 0, None, []
        for_it, self.to_it = map(high, os.pipe())
        self.from_it, by_it = map(high, os.pipe())
        # Chromium reads from descriptor 3 and writes to 4.
        run = ["bash", "-c", f'exec "$@" 3<&{for_it} 4>&{by_it}', "bash", *COMMAND, f"--window-size={width},{height}",
               f"--user-data-dir={folder / f'chromium-{Browser.count}'}", "about:blank"]
        self.name, self.folder = f"chromium-{Browser.count}", folder
        self.log = folder / f"{self.name}.log"
        self.start(run, {"HOME": str(folder)}, (for_it, by_it))
        os.close(for_it)
        os.close(by_it)
        target = until(self._page, "Chromium has a page", BROWSER_S)
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _page(self):
        pages = [target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        return pages and pages[0]["targetId"]

    def _read(self, deadline):
        """Wait for more bytes, and take the whole messages."""
        ready, _, _ = select.select([self.from_it], [], [], max(deadline - time.monotonic(), 0))
        more = os.read(self.from_it, 1 << 16) if ready else b""
        assert more, f"Chromium says nothing: {self.text()[-2000:]}"
        *whole, self.bytes = (self.bytes + more).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self.answers[message["id"]] = message
            elif message["method"] == "Log.entryAdded":
                self.complaints.append(message["params"]["entry"]["text"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        os.write(self.to_it, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + BROWSER_S
        while self.number not in self.answers:
            self._read(deadline)
        answer = self.answers.pop(self.number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, script):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def shown(self, selector):
        """The text that an element shows; "" if it is not there or hidden."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" and len(key) == 1 else "")

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def problems(self):
        return []

    def finish(self):
        self.clean_up()
        for fd in (self.to_it, self.from_it):
            os.close(fd)
        return []
