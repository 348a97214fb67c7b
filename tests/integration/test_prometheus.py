"""What /metrics says: read by promtool and by a real Prometheus, which evaluates every expression of the dashboard and the alerts."""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import configuration as c
from http_text import wait_until
from programs import ROOT
from raw import ask, request

ECHO = "import json, sys; n = json.load(sys.stdin)['kwargs']['n']; sys.exit('no') if n == 13 else print(json.dumps({'n': n}))"
FLAG, SHADOW = "task_abstraction_enabled", "shadow_enabled"
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)$')


def need(program):
    if not shutil.which(program):
        pytest.skip("%s is not installed (Debian's package prometheus has it)" % program)


class World:
    """Operations of every kind: two sides, pins, a shadow whose answers are compared, without a task, and paths that nobody knows."""

    def __init__(self, start, worker=True):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.always(self.legacy)
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "tell", "exec": {"argv": [sys.executable, "-S", "-E", "-c", ECHO]}}]}, file)

        def task(key):
            return {"name": "tell", "kwargs": {"n": {"$ref": key}}, "timeout": "20s"}
        operations = {
            "answer": c.operation("POST /answer", {**task("body:/n"), "idempotent": True}),
            "begin": c.operation("POST /begin", task("body:/n"), pin={"group": "g", "key": "body:/name", "role": "start"}),
            "look": c.operation("GET /look", task("query:n"), pin={"group": "g", "key": "query:name", "role": "follow"}),
            "both": c.operation("POST /both", task("body:/n"), flags=(SHADOW,), safe_to_shadow=True, compare={}),
            "plain": {"match": "GET /plain"},
        }
        self.config = c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(when_not_ready="legacy"),
                               identity={"user": ["header:X-User-Id"]})
        self.router = start.router(self.config, self.flags(100), folder=self.folder)
        self.worker = start.worker(self.router) if worker else None
        if worker:
            wait_until(lambda: self.value("migration_backend_worker") == 1, "the worker to be seen")

    @staticmethod
    def flags(percentage):
        return c.features(c.boolean(FLAG, False, percentage=percentage), c.variants(SHADOW, shadow=100), segments=[c.everybody()])

    def legacy(self, exchange):
        broken = b'"n": 500' in exchange.read_body()
        exchange.answer(500 if broken else 200, [("Content-Type", "application/json")], b'{"n": 1}')

    def call(self, method, path, user="u", **body):
        return ask(self.router.port, request(method, path, [("X-User-Id", user)], json.dumps(body).encode() if body else None)).status

    def scrape(self, accept=None):
        return ask(self.router.admin_port, request("GET", "/metrics", [("Accept", accept)] if accept else []))

    def samples(self):
        """{(name, labels): value}"""
        found = {}
        for line in self.scrape().body.decode().splitlines():
            if not line.startswith("#"):
                name, labels, value = SAMPLE.match(line).groups()
                assert (name, labels or "") not in found, "twice: " + line
                found[name, labels or ""] = float(value)
        return found

    def value(self, name, labels=None):
        found = [v for (n, l), v in self.samples().items() if n == name and (labels is None or l == labels)]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def traffic(self):
        """Some of everything: served by both sides, failed, fallen back, pinned, shadowed, unmapped, refused."""
        for n in (1, 2, 13):
            self.call("POST", "/answer", n=n)
        self.call("POST", "/begin", n=1, name="x")
        self.call("GET", "/look?n=1&name=x")
        self.call("GET", "/look?n=1&name=y")
        self.call("POST", "/both", n=1)
        self.call("POST", "/both", n=2)
        self.call("GET", "/plain")
        self.call("GET", "/unknown")
        self.router.write_flags(self.flags(0))
        wait_until(lambda: self.value("migration_rollout_percent", 'flag="%s"' % FLAG) == 0, "the new flags")
        for n in (1, 500):
            self.call("POST", "/answer", n=n)
        ask(self.router.port, request("GET", "/", [("Content-Length", "x")]))
        self.router.wait_outcomes(15)
        wait_until(lambda: self.value("migration_shadow_compared_total", 'service="app",operation="both",pair="sides"') == 2, "two pairs")


@pytest.fixture
def world(start):
    return lambda **how: World(start, **how)


def test_promtool_finds_nothing_to_say(world):
    need("promtool")
    w = world()
    w.traffic()
    done = subprocess.run(["promtool", "check", "metrics"], input=w.scrape().body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done


def test_each_series_is_there_before_the_first_request(world):
    """`increase` does not see the first error of a series that begins with it."""
    w = world()
    before = w.samples()
    w.traffic()
    after = w.samples()
    assert set(after) == set(before), sorted(set(after) ^ set(before))
    for what in ("executions_total", "attempts_total", "decisions_total", "attempt_duration_seconds_bucket", "legacy_errors_total",
                 "shadow_compared_total", "pinned_requests_total"):
        name = "migration_" + what
        assert {v for (n, _), v in before.items() if n == name} == {0}, name
    increased = {n for (n, labels), v in after.items() if n.endswith("_total") and v > before[n, labels]}
    assert {"migration_executions_total", "migration_pinned_requests_total", "migration_refused_total"} <= increased


def test_counts_are_those_of_sqlite(world):
    w = world()
    w.traffic()
    got = w.samples()
    rows = w.router.query("SELECT operation, side, backend, role, reason, result, answered, count(*) n FROM attempts "
                          "GROUP BY 1, 2, 3, 4, 5, 6, 7")
    attempts, decisions, executions = {}, {}, {}
    for row in rows:
        one = 'service="app",operation="%s"' % row["operation"]
        key = one + ',side="%s",backend="%s",role="%s",result="%s"' % (row["side"], row["backend"], row["role"], row["result"])
        attempts[key] = attempts.get(key, 0) + row["n"]
        if row["role"] == "primary":
            key = one + ',reason="%s"' % row["reason"]
            decisions[key] = decisions.get(key, 0) + row["n"]
        if row["answered"]:
            key = one + ',side="%s"' % row["side"]
            executions[key] = executions.get(key, 0) + row["n"]
    assert decisions['service="app",operation="look",reason="pinned"'] == 2
    for name, wanted in (("attempts", attempts), ("decisions", decisions), ("executions", executions)):
        told = {labels: v for (n, labels), v in got.items() if n == "migration_%s_total" % name and v}
        assert told == wanted, name
    assert got["migration_pinned_requests_total", 'service="app",operation="look",side="task"'] == 1
    assert got["migration_pinned_requests_total", 'service="app",operation="look",side="legacy"'] == 1


def test_the_percentage_that_is_set_stands_beside_what_is_observed(world):
    w = world()
    one = 'service="app",operation="answer"'
    assert w.value("migration_rollout_percent", 'flag="%s"' % FLAG) == 100
    assert w.value("migration_set_share", one) == 1
    observed = w.value("migration_observed_share", one)
    assert observed != observed, "a share of no requests is not 0"
    w.call("POST", "/answer", n=1)
    wait_until(lambda: w.value("migration_observed_share", one) == 1, "the answer to be counted")
    w.router.write_flags(w.flags(25))
    wait_until(lambda: w.value("migration_rollout_percent", 'flag="%s"' % FLAG) == 25, "25 %")
    assert w.value("migration_set_share", one) == 0.25
    assert w.value("migration_rollout_percent", 'flag="%s"' % SHADOW) == 0
    w.router.write_flags(w.flags(0))
    wait_until(lambda: w.value("migration_set_share", one) == 0, "0 %")
    w.call("POST", "/answer", n=1)
    wait_until(lambda: w.value("migration_observed_share", one) == 0.5, "one of two")


def test_flags_that_do_not_change_stay_confirmed(world):
    """An unchanged file was once as old as its last change: whoever alerts on the age was called for nothing."""
    w = world(worker=False)
    first = w.value("migration_flags_confirmed_timestamp_seconds")
    wait_until(lambda: w.value("migration_flags_confirmed_timestamp_seconds") > first, "the file to be confirmed again")
    age = w.value("migration_flags_snapshot_age_seconds")
    os.replace(os.path.join(w.folder, "flags.yml"), os.path.join(w.folder, "away.yml"))
    wait_until(lambda: w.value("migration_flags_failing") == 1, "the failure to be told")
    assert w.value("migration_flags_failures_total") >= 1
    wait_until(lambda: w.value("migration_flags_snapshot_age_seconds") > age + 3, "the snapshot to grow old")


def test_the_page_of_metrics_lists_them_all(world):
    w = world()
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as file:
        documented = re.findall(r"^\| `([a-z_]+)(?:\{([a-z_,]*)\})?` \| (counter|gauge|histogram|info) \|", file.read(), re.MULTILINE)
    documented = {name: (kind, labels) for name, labels, kind in documented}
    text = w.scrape("application/openmetrics-text").body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    suffix = {"counter": "_total", "info": "_info"}
    assert {name + suffix.get(kind, ""): kind for name, kind in kinds.items()} == {name: kind for name, (kind, _) in documented.items()}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, _ = SAMPLE.match(line).groups()
            name = name if name in documented else re.sub("_(bucket|sum|count)$", "", name)
            told = [l for l in re.findall(r'([a-z_]+)="', labels or "") if l != "le"]
            assert ",".join(told) == documented[name][1], line
