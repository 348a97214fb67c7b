"""Pictures of the page in states worth looking at: python screenshots.py [FOLDER [STATE…]]. scripts/screenshots prepares what it needs."""
import contextlib
import math
import os
import random
import re
import signal
import subprocess
import shutil
import sys
import tempfile
import time

import configuration as c
from browser import MISSING, Browser
from history import History
from http_text import wait_until
from origin import Origin
from programs import BUILD, ROOT, Process, Router
from raw import ask, request

OPERATIONS = {"prompt": ["answer_prompt", "summarize"], "runner": ["run", "stop"], "structure": ["process"]}


class World:
    """A router with a few operations in different stages, an origin as each legacy service, and a worker."""

    def __init__(self, operations=None, percent=None, tasks=True, broken=False):
        self.folder = tempfile.mkdtemp(prefix="screenshot-")
        self.origin, self.processes = Origin(), []
        self.operations = OPERATIONS if operations is None else operations
        self.percent = percent or {"answer_prompt": 25, "summarize": 100, "run": 5, "stop": 0, "process": 50}
        services = {}
        for name, all_of_it in self.operations.items():
            services[name] = c.service(self.origin, {
                op: c.operation("POST /%s" % op, {"name": "add_numbers" if tasks else "exit_one", "args": [{"$ref": "body:/a"}, 1], "timeout": "5s"}, flags=["%s_enabled" % op],
                                identity=c.IDENTITY, guard="watch") for op in all_of_it})
        services.setdefault("unused", c.service(self.origin))
        self.config = c.router(services, backends={"embedded": {"database": "data/tasks.db", "tasks": "tasks.yml"}}, threads=1)
        self.config["services"] = services
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            file.write("tasks:\n  - {name: add_numbers, builtin: add_numbers}\n  - {name: exit_one, exec: {argv: [/bin/false]}}\n")
        self.flags = c.features(*(c.boolean("%s_enabled" % op, False, self.percent.get(op, 0)) for ops in self.operations.values() for op in ops))
        if broken:
            self.flags["flags"][0]["rollouts"] = [{"threshold": {"percentage": "many", "value": True}}]

    def start(self, worker=True):
        self.router = Router(self.folder, self.config, self.flags)
        self.processes.append(self.router)
        if worker:
            self.worker = Process("task-backend-worker", "--backend", "embedded", "--config", self.router.config_path, "--log-format", "json",
                                  cwd=self.folder)
            self.processes.append(self.worker)
            self.worker.wait_event("worker_ready")
            wait_until(lambda: b'"status":"ready"' in ask(self.router.admin_port, request("GET", "/readyz")).body, "ready", 30)
        return self

    def rewrite(self, fill, since):
        """Makes history: the router is stopped for it, and goes on with it."""
        self.stop()
        history = History(self.router.outcomes_path, int(time.time() * 1e6))
        fill(history, history.minutes(since))
        history.done()
        return self.start()

    def traffic(self, n=200, bad=0):
        for name, all_of_it in self.operations.items():
            for op in all_of_it:
                for i in range(n):
                    self.origin.answers(500 if i < bad else 200) if i in (0, bad) else None
                    ask(self.router.ports[name], request("POST", "/" + op, [("X-User-Id", "user-%d" % i), ("X-Organization-Id", "org-%d" % (i % 9))],
                                                         b'{"a": %d}' % i))

    def url(self, query=""):
        return "http://127.0.0.1:%d/%s" % (self.router.admin_port, query)

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        self.processes = []

    def end(self):
        self.stop()
        self.origin.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def week(world, days=7, dips=True):
    """A ramp that goes well: each operation on its way to what is set now."""
    def fill(history, minutes):
        begin, seeds = minutes[0], {}
        for name, all_of_it in world.operations.items():
            for op in all_of_it:
                seeds[op] = random.Random(op)
                last = 0
                for i, percent in enumerate(p for p in (1, 5, 25, 50, 100) if p <= world.percent.get(op, 0)):
                    at = begin + int(days * 1440 * (0.15 + 0.16 * i) + days * 15 * len(op))
                    history.event(at, "percent", name, op, "%s: %g %% → %g %%" % (op, last, percent), "the guard says safe", "ann", before=last, after=percent)
                    last = percent
        for minute in minutes:
            width = 60 if minute < history.folded else 1
            day = 0.55 + 0.45 * math.sin((minute % 1440) / 1440 * 2 * math.pi - 1.8)
            for name, all_of_it in world.operations.items():
                for op in all_of_it:
                    r = seeds[op]
                    steps = [p for p in (1, 5, 25, 50, 100) if p <= world.percent.get(op, 0)]
                    on = [p for i, p in enumerate(steps) if minute >= begin + int(days * 1440 * (0.15 + 0.16 * i) + days * 15 * len(op))]
                    share = (on[-1] if on else 0) / 100
                    n = max(0, int(r.gauss(8 * width * day * (1 + len(op) % 3), 2)))
                    task = sum(r.random() < share for _ in range(n)) if n < 60 else int(n * share)
                    bad = sum(r.random() < 0.004 for _ in range(n - task))
                    history.add(minute, name, op, "legacy", n - task - bad, median_us=140_000 + 20_000 * len(op) * day)
                    history.add(minute, name, op, "legacy", bad, "failure", 30_000)
                    history.add(minute, name, op, "task", task, median_us=110_000 + 12_000 * len(op))
    return fill


@contextlib.contextmanager
def world(**how):
    w = World(**how)
    try:
        yield w
    finally:
        w.end()


def settled(w, level, patience=30):
    """Until the page says what it should."""
    wait_until(lambda: b'data-level="%s"' % level.encode() in ask(w.router.admin_port, request("GET", "/")).body, "a page that says " + level, patience)


def empty(shot):
    with world() as w:
        shot("empty", w.start().url())


def nothing_declared(shot):
    with world(operations={"echo": []}) as w:
        shot("nothing-declared", w.start(worker=False).url())


def healthy(shot):
    with world() as w:
        w.start()
        w.rewrite(week(w), 7 * 1440).traffic(200)
        shot("healthy", w.url())
        shot("healthy-week", w.url("?since=7d"))
        shot("healthy-one", w.url("?since=7d&service=prompt&operation=answer_prompt"))
        shot("healthy-dark", w.url("?since=7d"), dark=True)
        shot("healthy-phone", w.url("?since=7d"), width=360)
        shot("healthy-forced", w.url("?since=7d"), forced=True, dark=True)


def worker_gone(shot):
    with world() as w:
        w.start()
        w.rewrite(week(w, 1), 1440).traffic(100)
        w.worker.stop()
        settled(w, "stop")
        shot("worker-gone", w.url())
        shot("worker-gone-phone", w.url(), width=360)


def tasks_failing(shot):
    with world(tasks=False, percent={op: 100 for ops in OPERATIONS.values() for op in ops}) as w:
        w.start().traffic(49)
        settled(w, "stop")
        shot("tasks-failing", w.url("?since=1h"))


def legacy_gone(shot):
    with world() as w:
        w.start()
        w.rewrite(week(w, 1), 1440).traffic(40)
        w.origin.stop()
        w.traffic(60)
        settled(w, "stop")
        shot("legacy-gone", w.url())
        shot("legacy-gone-dark", w.url(), dark=True)


def broken_flags(shot):
    with world() as w:
        w.start()
        w.rewrite(week(w, 1), 1440).traffic(100)
        w.router.write_flags("no flags: [")
        wait_until(lambda: b'data-level="ok"' not in ask(w.router.admin_port, request("GET", "/")).body, "that flags fail", 30)
        shot("broken-flags", w.url())


def a_year(shot):
    with world() as w:
        w.start()
        w.rewrite(week(w, 365), 365 * 1440).traffic(100)
        shot("year", w.url("?since=365d"))


def many_operations(shot):
    operations = {"service%d" % s: ["operation_%d_%d" % (s, i) for i in range(50)] for s in range(4)}
    percent = {op: (0, 1, 5, 25, 50, 100)[i % 6] for i, op in enumerate(op for ops in operations.values() for op in ops)}
    with world(operations=operations, percent=percent) as w:
        w.start().traffic(5)
        shot("200-operations", w.url("?since=1h"))
        shot("200-operations-phone", w.url("?since=1h"), width=360)


def many_organizations(shot):
    with world() as w:
        w.start()
        w.rewrite(lambda history, minutes: history.rows(40000, "prompt", "answer_prompt", ["org-%05d" % i for i in range(10000)]), 60).traffic(100)
        shot("10000-organizations", w.url("?since=24h"))


def demo(shot):
    """What scripts/run --demo-history shows, at the top: the README's picture, scripts/screenshots docs/images demo."""
    with tempfile.TemporaryDirectory(prefix="screenshot-") as folder:
        run = subprocess.Popen([sys.executable, "-u", os.path.join(ROOT, "scripts", "sample", "demo.py"), "--demo-history"],
                               env={**os.environ, "DEMO_BUILD": BUILD, "DEMO_FOLDER": folder}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            serving = next(line for line in run.stdout if "its page http" in line)
            shot("demo", re.search(r"page (http\S+/);", serving).group(1) + "?since=7d", height=1000)
        finally:
            run.send_signal(signal.SIGINT)
            run.communicate()


STATES = [demo, empty, nothing_declared, healthy, worker_gone, tasks_failing, legacy_gone, broken_flags, a_year, many_operations, many_organizations]


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "screenshots"
    wanted = sys.argv[2:] or [state.__name__ for state in STATES]
    unknown = set(wanted) - {state.__name__ for state in STATES}
    if MISSING or unknown:
        raise SystemExit(MISSING or "unknown state: " + ", ".join(sorted(unknown)))
    os.makedirs(folder, exist_ok=True)
    browser = Browser()
    complaints = []

    def shot(name, url, width=1280, dark=False, forced=False, height=None):
        """The whole page, or so much of it that fits into `height`."""
        browser.size(width, height or 800)
        browser.media(dark=dark, forced=forced, still=True)
        browser.open(url)
        browser.screenshot(os.path.join(folder, name + ".png"), whole=height is None)
        print(os.path.join(folder, name + ".png"))
        wide = browser.run("return document.documentElement.scrollWidth")
        complaints.extend("%s: %s" % (name, said) for said in browser.complaints())
        browser.open("about:blank")
        if wide > width:
            complaints.append("%s: %d px wide, of %d" % (name, wide, width))

    try:
        for state in STATES:
            if state.__name__ in wanted:
                state(shot)
    finally:
        browser.stop()
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
