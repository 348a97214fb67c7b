"""A headless Chromium by the WebDriver protocol (W3C), as chromedriver speaks it; with the DevTools' own commands where that says nothing."""
import base64
import os
import re
import shutil
import subprocess
import tempfile

import requests

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = None if DRIVER and BROWSER else os.environ.get("BROWSER_MISSING") or "no browser: chromium and chromium-driver are not installed"


class Browser:
    def __init__(self, width=1280, height=1000):
        self.profile = tempfile.mkdtemp(prefix="browser-")
        self.driver = subprocess.Popen([DRIVER, "--port=0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                       env={**os.environ, "HOME": self.profile, "TZ": "UTC"})
        for line in self.driver.stdout:
            port = re.search(r"started successfully on port (\d+)", line)
            if port:
                break
        self.http = requests.Session()
        self.http.trust_env = False  # no proxies
        self.url = "http://127.0.0.1:%s/session" % port.group(1)
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + self.profile,
                     "--no-first-run", "--disable-background-networking", "--disable-component-update", "--lang=en-US", "--no-proxy-server",
                     *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        made = self._call("POST", "", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": BROWSER, "args": arguments}}}})
        self.url += "/" + made["sessionId"]
        self.size(width, height)

    def _call(self, method, path, body=None):
        answer = self.http.request(method, self.url + path, json=body, timeout=60).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError("%s: %s" % (answer["error"], answer["message"]))
        return answer

    def cdp(self, command, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height=1000):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def media(self, **features):
        """media(dark=True): as the reader's system asks for."""
        names = {"dark": ("prefers-color-scheme", "dark", "light"), "forced": ("forced-colors", "active", "none"),
                 "still": ("prefers-reduced-motion", "reduce", "no-preference")}
        self.cdp("Emulation.setEmulatedMedia", features=[
            {"name": names[n][0], "value": names[n][1 if on else 2]} for n, on in features.items()])

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """The script calls its last argument with what is to be returned."""
        return self._call("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def text(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector)

    def key(self, name):
        code = {"Tab": 9, "Enter": 13}[name]
        for kind in ("rawKeyDown", "char", "keyUp") if name == "Enter" else ("rawKeyDown", "keyUp"):
            self.cdp("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **({"text": "\r"} if kind == "char" else {}))

    def complaints(self):
        """What the browser's console got: errors of scripts, and what the policy refused."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"}) if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path, whole=True):
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def stop(self):
        try:
            self._call("DELETE", "")
        except (AssertionError, requests.RequestException):
            pass
        self.driver.terminate()
        self.driver.wait(30)
        self.driver.stdout.close()
        shutil.rmtree(self.profile, ignore_errors=True)
