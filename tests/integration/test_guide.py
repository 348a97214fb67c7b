"""docs/moving-an-operation.md, typed as it stands: its files are written, its commands run, and what they print is compared.

Only the ports are others, since those of the page may be in use.
"""
import fnmatch
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from programs import ROOT, SANITIZERS, free_port, program

PAGE = os.path.join(ROOT, "docs", "moving-an-operation.md")
PORTS = ("8001", "18001", "6379", "9900")
LIMIT = 90  # seconds for one block
# A block, and the name in backquotes at the beginning of the paragraph before it.
BLOCK = re.compile(r"(?:^`(?P<name>[\w.]+)`[^\n]*(?:\n[^\n]+)*\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def blocks():
    ports = {port: str(free_port()) for port in PORTS}
    with open(PAGE, encoding="utf-8") as file:
        page = re.sub(r"\b(%s)\b" % "|".join(PORTS), lambda m: ports[m[0]], file.read())
    return [(m["kind"], m["name"], m["text"]) for m in BLOCK.finditer(page)]


class Shell:
    """One shell for the whole page, as a reader has it."""

    def __init__(self, folder):
        path = os.pathsep.join([os.path.dirname(program("migration-router")), os.path.dirname(program("migration-rollout")),
                                os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TASK_", "FLIPT_", "CELERY_", "HATCHET_", "TEMPORAL_"))}
        self.process = subprocess.Popen(["bash"], cwd=folder, env=dict(environment, PATH=path), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)

    @property
    def folder(self):
        return os.readlink("/proc/%d/cwd" % self.process.pid)

    def run(self, text):
        """What a block prints; its end is a mark on a line of its own."""
        self.process.stdin.write(text + "\nprintf '\\n%s\\n' END-OF-BLOCK\n")
        self.process.stdin.flush()
        deadline, printed = time.monotonic() + LIMIT, []
        while True:
            try:
                line = self.lines.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError("after %d s still at\n%s\nwhich printed\n%s" % (LIMIT, text, "".join(printed))) from None
            if line == "END-OF-BLOCK\n":
                return "".join(printed).strip("\n").split("\n")
            printed.append(line)

    def end(self):
        """With whatever the page has started, when it was not followed to its end."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def agrees(printed, expected):
    """… stands for anything within a line, and alone on a line for any number of lines."""
    if not expected:
        return not printed
    if expected[0] == "…":
        return any(agrees(printed[n:], expected[1:]) for n in range(len(printed) + 1))
    pattern = "".join("*" if c == "…" else "[%s]" % c if c in "[?*" else c for c in expected[0])
    return bool(printed) and fnmatch.fnmatchcase(printed[0], pattern) and agrees(printed[1:], expected[1:])


@pytest.mark.parametrize("printed,expected,good", [
    ("a\nb", "a\nb", True), ("a\nb", "a", False), ("a", "a\nb", False), ("a\nb\nc", "…\nc", True), ("a\nb\nc", "a\n…", True),
    ("a 17 b", "a … b", True), ("a [x]", "a [x]", True), ("a x", "a [x]", False), ("", "", True),
])
def test_the_comparison(printed, expected, good):
    assert agrees(printed.split("\n"), expected.split("\n")) == good


def follow(shell, text, expected):
    """What only looks may be asked again: outcomes are in the file a moment after the answer."""
    deadline = time.monotonic() + 10
    while True:
        printed = shell.run(text)
        if expected is None or agrees(printed, expected):
            return
        assert text.startswith("migration-status") and time.monotonic() < deadline, "%s\nprinted\n%s\nnot\n%s" % (
            text, "\n".join(printed), "\n".join(expected))


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_page_is_true(tmp_path):
    pytest.importorskip("celery")
    page = blocks()
    assert [kind for kind, _, _ in page].count("sh") >= 12 and {name for _, name, _ in page if name} == {
        "legacy.py", "shop.py", "router.yml", "flags.yml"}
    shell = Shell(tmp_path)
    try:
        for at, (kind, name, text) in enumerate(page):
            following = page[at + 1] if at + 1 < len(page) else (None, None, None)
            if name:
                with open(os.path.join(shell.folder, name), "w", encoding="utf-8") as file:
                    file.write(text)
            elif kind == "sh":
                follow(shell, text, following[2].rstrip("\n").split("\n") if following[0] == "text" else None)
        with open(os.path.join(shell.folder, "router.log"), encoding="utf-8") as file:
            log = file.read()
        assert "level=error" not in log and not any(mark in log for mark in SANITIZERS), log
    finally:
        shell.end()
