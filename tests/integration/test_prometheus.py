"""What /metrics says: read by promtool and by a real Prometheus, which evaluates every expression of the dashboard and the alerts."""
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

import pytest

import configuration as c
from http_text import wait_until
from programs import ROOT, free_port
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


@pytest.mark.heavy
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


# --- the alerts --------------------------------------------------------------------------------------------------------

ALERTS = os.path.join(ROOT, "dashboards", "alerts.yml")
ONE, OPERATION = 'instance="r:1",job="m"', 'instance="r:1",job="m",service="app",operation="answer"'
TASK, OLD = OPERATION + ',side="task",backend="celery",role="primary"', OPERATION + ',side="legacy",backend="",role="primary"'
# A router at which all is well, by the minute: ten in a hundred on the task side.
HEALTHY = {
    "migration_build_info{%s}" % ONE: "1x500",
    'migration_attempts_total{%s,result="success"}' % OLD: "0+900x500",
    'migration_attempts_total{%s,result="failure"}' % OLD: "0x500",
    'migration_attempts_total{%s,result="rejected"}' % OLD: "0+90x500",
    'migration_attempts_total{%s,result="success"}' % TASK: "0+100x500",
    'migration_attempts_total{%s,result="failure"}' % TASK: "0x500",
    'migration_executions_total{%s,side="task"}' % OPERATION: "0+100x500",
    'migration_executions_total{%s,side="legacy"}' % OPERATION: "0+900x500",
    "migration_observed_share{%s}" % OPERATION: "0.1x500",
    "migration_set_share{%s}" % OPERATION: "0.1x500",
    'migration_legacy_up{%s,service="app"}' % ONE: "1x500",
    'migration_backend_up{%s,backend="celery"}' % ONE: "1x500",
    'migration_backend_worker{%s,backend="celery"}' % ONE: "1x500",
    'migration_backend_operations_not_ready{%s,backend="celery"}' % ONE: "0x500",
    'migration_breaker_state{%s,backend="celery"}' % ONE: "0x500",
    'migration_guard_verdict{%s,verdict="breach"}' % OPERATION: "0x500",
    'migration_guard_verdict{%s,verdict="safe"}' % OPERATION: "1x500",
    'migration_guard_verdict{%s,verdict="share_mismatch"}' % OPERATION: "0x500",
    "migration_guard_held{%s}" % OPERATION: "0x500",
    'migration_shed_total{%s,service="app",limit="service"}' % ONE: "0x500",
    "migration_flags_in_use{%s}" % ONE: "1x500",
    'migration_trace_spans_total{%s,result="exported"}' % ONE: "0+60x500",
    'migration_trace_spans_total{%s,result="dropped"}' % ONE: "0x500",
    'migration_trace_spans_total{%s,result="failed"}' % ONE: "0x500",
    "process_open_fds{%s}" % ONE: "100x500",
    "process_max_fds{%s}" % ONE: "1024x500",
    # of another program that the same Prometheus scrapes
    'process_open_fds{instance="other:1",job="o"}': "1000x500",
    'process_max_fds{instance="other:1",job="o"}': "1024x500",
    "migration_state_up{%s}" % ONE: "1x500",
    **{"migration_%s{%s}" % (name, ONE): "0x500" for name in (
        "guard_failing", "flags_failing", "flags_broken", "flags_vanished", "flags_snapshot_age_seconds", "outcomes_dropped_total",
        "outcomes_failing", "idempotency_failing", "state_at_risk", "state_losses_total", "accept_failing")},
}
# What goes wrong, and which alerts then fire, and no other: {alerts: (series, minutes)}.
CASES = {
    "": [({}, 10), ({}, 480),
         # one error of a side that nearly nobody is on, and a caller's own mistakes
         ({'migration_attempts_total{%s,result="success"}' % TASK: "0+1x500",
           'migration_attempts_total{%s,result="failure"}' % TASK: "0 0 0 1x490"}, 6),
         ({'migration_attempts_total{%s,result="rejected"}' % OLD: "0+9000x500"}, 10),
         ({"migration_observed_share{%s}" % OPERATION: "0.4x500"}, 30),  # a busy customer
         # no flag is asked for: there is none that could be old
         ({"migration_flags_snapshot_age_seconds{%s}" % ONE: "9999x500", "migration_flags_in_use{%s}" % ONE: "0x500"}, 10)],
    "MigrationErrorBudgetBurnsFast": [({'migration_attempts_total{%s,result="failure"}' % TASK: "0+3x500"}, 10),
                                      ({'migration_attempts_total{%s,result="failure"}' % OLD: "0+20x500"}, 10)],
    "MigrationErrorBudgetBurnsSlowly": [({'migration_attempts_total{%s,result="failure"}' % TASK: "0+1x500"}, 60)],
    "MigrationErrorBudgetBurnsFast MigrationErrorBudgetBurnsSlowly": [({'migration_attempts_total{%s,result="failure"}' % TASK: "0+9x500"}, 60)],
    "MigrationRouterAbsent": [(None, 10)],
    "MigrationRouterGone": [({"migration_build_info{%s}" % ONE: "1x20", 'migration_build_info{instance="r:2",job="m"}': "1x500"}, 28)],
    "MigrationLegacyDown": [({'migration_legacy_up{%s,service="app"}' % ONE: "0x500"}, 2)],
    "MigrationBackendDown": [({'migration_backend_up{%s,backend="celery"}' % ONE: "0x500",
                               'migration_backend_worker{%s,backend="celery"}' % ONE: "0x500"}, 10)],
    "MigrationNoWorker": [({'migration_backend_worker{%s,backend="celery"}' % ONE: "1 1 0x500",
                            'migration_backend_operations_not_ready{%s,backend="celery"}' % ONE: "3x500"}, 20)],
    "MigrationBreakerOpen": [({'migration_breaker_state{%s,backend="celery"}' % ONE: "2x500"}, 5)],
    "MigrationOperationsNotReady": [({'migration_backend_operations_not_ready{%s,backend="celery"}' % ONE: "3x500"}, 15)],
    "MigrationGuardBreach": [({'migration_guard_verdict{%s,verdict="breach"}' % OPERATION: "1x500"}, 1)],
    "MigrationGuardHolds": [({"migration_guard_held{%s}" % OPERATION: "1x500"}, 10)],
    "MigrationGuardBlind": [({"migration_guard_failing{%s}" % ONE: "1x500"}, 10)],
    "MigrationShareMismatch": [({'migration_guard_verdict{%s,verdict="share_mismatch"}' % OPERATION: "1x500"}, 1)],
    "MigrationNotServedAsSet": [({"migration_observed_share{%s}" % OPERATION: "0.34x500",
                                  "migration_set_share{%s}" % OPERATION: "1x500"}, 30)],
    "MigrationFlagsOld": [({"migration_flags_snapshot_age_seconds{%s}" % ONE: "0+60x500"}, 10)],
    "MigrationFlagsFailing": [({"migration_flags_failing{%s}" % ONE: "1x500"}, 10)],
    "MigrationFlagsIncomplete": [({"migration_flags_%s{%s}" % (name, ONE): "1x500"}, 10) for name in ("broken", "vanished")],
    "MigrationOutcomesDropped": [({"migration_outcomes_dropped_total{%s}" % ONE: "0 0 0 5x500"}, 5)],
    "MigrationOutcomesFailing": [({"migration_outcomes_failing{%s}" % ONE: "1x500"}, 5)],
    "MigrationStateDown": [({"migration_state_up{%s}" % ONE: "0x500"}, 5), ({"migration_idempotency_failing{%s}" % ONE: "1x500"}, 5)],
    "MigrationStateAtRisk": [({"migration_state_at_risk{%s}" % ONE: "1x500"}, 5),
                             ({"migration_state_losses_total{%s}" % ONE: "0 0 1x500"}, 5)],
    "MigrationDescriptors": [({"process_open_fds{%s}" % ONE: "900x500"}, 5)],
    "MigrationCannotAccept": [({"migration_accept_failing{%s}" % ONE: "1x500"}, 1)],
    "MigrationSpansLost": [({'migration_trace_spans_total{%s,result="%s"}' % (ONE, result): "0+1x500"}, 10) for result in ("dropped", "failed")],
    "MigrationShedding": [({'migration_shed_total{%s,service="app",limit="service"}' % ONE: "0+9x500"}, 10)],
}


def alert_names():
    with open(ALERTS, encoding="utf-8") as file:
        return re.findall(r"^ +- alert: (\w+)$", file.read(), re.MULTILINE)


def alert_case(fires, series, minutes):
    whole = {} if series is None else {**HEALTHY, **series}
    return {"interval": "1m", "name": "%s after %d minutes: %s" % (fires or "all is well", minutes, series),
            "input_series": [{"series": name, "values": values.replace("x500", "x%d" % (minutes + 1))} for name, values in whole.items()],
            "promql_expr_test": [{"expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > 0', "eval_time": "%dm" % minutes,
                                  "exp_samples": [{"labels": '{alertname="%s"}' % name, "value": 1} for name in fires.split()]}]}


@pytest.mark.heavy
def test_each_alert_fires_for_its_fault_and_for_nothing_else(tmp_path):
    need("promtool")
    checked = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert set(alert_names()) == {name for fires in CASES for name in fires.split()}
    cases = [alert_case(fires, *case) for fires, of in CASES.items() for case in of]
    path = tmp_path / "alerts_test.yml"
    path.write_text(json.dumps({"rule_files": [ALERTS], "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


# --- a real Prometheus -------------------------------------------------------------------------------------------------

DASHBOARD = os.path.join(ROOT, "dashboards", "grafana.json")


class Prometheus:
    """One that scrapes a router every second, with the alert rules."""

    def __init__(self, folder, target):
        self.port = free_port()
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [ALERTS],
                       "scrape_configs": [{"job_name": "migration", "static_configs": [{"targets": [target]}]}]}, file)
        self.process = subprocess.Popen(["prometheus", "--config.file=" + config, "--storage.tsdb.path=" + os.path.join(folder, "tsdb"),
                                         "--web.listen-address=127.0.0.1:%d" % self.port, "--log.level=error"], stdin=subprocess.DEVNULL)
        wait_until(self.is_ready, "Prometheus to be ready")

    def is_ready(self):
        try:
            return ask(self.port, request("GET", "/-/ready")).status == 200
        except OSError:
            return False

    def get(self, path, **query):
        answer = ask(self.port, request("GET", path + "?" + urllib.parse.urlencode(query) if query else path))
        told = json.loads(answer.body)
        assert told["status"] == "success", (path, query, told)
        return told["data"]

    def query(self, expression):
        return self.get("/api/v1/query", query=expression)["result"]

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def prometheus():
    running = []

    def begin(*where):
        need("prometheus")
        running.append(Prometheus(*where))
        return running[-1]
    yield begin
    for one in running:
        one.stop()


def dashboard_expressions():
    with open(DASHBOARD, encoding="utf-8") as file:
        dashboard = json.load(file)
    found = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [(v["name"], re.sub(r"^label_values\((.*), \w+\)$", r"\1", v["query"]["query"]))
              for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(found) > 30
    for variable, value in (("$__rate_interval", "5s"), ("$__range", "1m"), ("$service", ".*"), ("$operation", ".*")):
        found = [(title, expression.replace(variable, value)) for title, expression in found]
    return found


def names_in(expression):
    return set(re.findall(r"(?<![\w:])(?:migration|process)_\w+", re.sub(r'"[^"]*"', '""', expression)))


def missing_names(expressions, known):
    return {name for _, expression in expressions for name in names_in(expression) if re.sub("_(bucket|sum|count)$", "", name) not in known}


@pytest.mark.heavy
def test_a_real_prometheus_evaluates_the_dashboard_and_the_alerts(world, prometheus):
    w = world()
    p = prometheus(w.folder, "127.0.0.1:%d" % w.router.admin_port)
    wait_until(lambda: p.query("migration_executions_total"), "the first scrape")
    w.traffic()
    wait_until(lambda: p.query('migration_decisions_total{reason="unmapped"} == 1'), "what was called to be scraped")
    target = p.get("/api/v1/targets")["activeTargets"][0]
    assert (target["health"], target["lastError"]) == ("up", "")

    known = {re.sub("_(bucket|sum|count)$", "", name) for name in p.get("/api/v1/label/__name__/values")}
    expressions = dashboard_expressions()
    assert missing_names(expressions, known) == set()
    assert missing_names([("a panel", "sum(migration_made_up_total)")], known) == {"migration_made_up_total"}, "this test can fail"
    for title, expression in expressions:
        if not expression.endswith("> 0"):  # all is well
            wait_until(lambda e=expression: p.query(e), "an answer of %s: %s" % (title, expression))
        p.query(expression)

    def rules():
        return [rule for group in p.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), "all rules to be evaluated")
    assert {rule["name"] for rule in rules() if rule["type"] == "alerting"} == set(alert_names())
    assert missing_names([(rule["name"], rule["query"]) for rule in rules()], known) == set()

    assert [r["name"] for r in rules() if r.get("state") not in (None, "inactive")] == []
    w.worker.stop()
    alert = wait_until(lambda: [a for a in p.get("/api/v1/alerts")["alerts"] if a["labels"]["alertname"] == "MigrationNoWorker"],
                       "the alert to be pending")[0]
    assert alert["state"] == "pending" and alert["annotations"]["summary"] == "The backend embedded has no worker"
    assert not [a for a in p.get("/api/v1/alerts")["alerts"] if "error" in json.dumps(a["annotations"]).lower().replace("last error", "")]
