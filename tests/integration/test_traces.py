"""W3C trace context goes on into tasks, and spans are exported over OTLP/HTTP to a collector that keeps them."""
import base64
import json
import os
import re
import sys
import threading

import pytest

import configuration as c
from http_text import wait_until
from listening import Answering, Listening
from programs import need_backend
from raw import ask, request

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = "00-%s-%s-01" % (TRACE, CALLER)
STATE = "vendor=t61rcWkgMzE,other=1"
TELL = "import json, os, sys; sys.stdin.read(); print(json.dumps({k: os.environ.get(k) for k in ('TRACEPARENT', 'TRACESTATE')}))"
ENDED = re.compile("^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$")


class Collector(Listening):
    """Answers with what the test says, and keeps what it took."""

    def __init__(self, *statuses, partial=None):
        self.statuses, self.partial, self.posts, self.fields = list(statuses), partial, [], []
        self.lock = threading.Lock()
        super().__init__(Post)

    def spans(self):
        with self.lock:
            return [span for post in self.posts for r in post["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]

    def wait(self, n):
        return wait_until(lambda: (lambda spans: spans if len(spans) >= n else None)(self.spans()), "%d spans" % n)


class Post(Answering):
    def respond(self):
        body = self.data
        with self.owner.lock:
            status = self.owner.statuses.pop(0) if self.owner.statuses else 200
            self.owner.fields.append((self.path, dict(self.headers)))
            if status == 200:
                self.owner.posts.append(json.loads(body))
        self.answer(status, json.dumps({"partialSuccess": self.owner.partial} if self.owner.partial else {}))


@pytest.fixture
def collector():
    running = []

    def begin(*statuses, **how):
        running.append(Collector(*statuses, **how))
        return running[-1]
    yield begin
    for one in running:
        one.stop()


class World:
    def __init__(self, start, traces=None, percentage=100, variant=None, worker=True, limits=None, **sections):
        self.origin, self.folder = start.origin(), str(start.folder())
        self.origin.answers(200, [("Content-Type", "application/json")], b"{}")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "tell", "exec": {"argv": [sys.executable, "-S", "-E", "-c", TELL]}},
                                 {"name": "own", "exec": {"argv": [sys.executable, "-S", "-E", "-c", TELL], "env": {"TRACEPARENT": "mine"}}},
                                 {"name": "post", "http": {"url": self.origin.url + "/handler"}},
                                 {"name": "fail", "exec": {"argv": ["false"]}}],
                       "workflows": [{"name": "both", "steps": [{"name": "a", "task": "tell"}, {"name": "b", "task": "tell"}]}]}, file)
        operations = {name: c.operation("POST /" + name, {"name": name, "timeout": "20s"}, safe_to_shadow=True)
                      for name in ("tell", "own", "post")}
        operations["fail"] = c.operation("POST /fail", {"name": "fail", "timeout": "20s", "idempotent": True})
        operations["both"] = c.operation("POST /both", {"workflow": "both", "timeout": "20s"})
        if traces:
            traces = {"flush": "50ms", **traces}
        flags = c.features(variant or c.boolean("task_abstraction_enabled", False, percentage=percentage), segments=[c.everybody()])
        self.router = start.router(c.router({"app": c.service(self.origin, operations, **(limits or {}))}, backends=c.embedded(),
                                            identity={"user": ["header:X-User-Id"]}, **({"traces": traces} if traces else {}), **sections),
                                   flags, folder=self.folder)
        self.worker = start.worker(self.router) if worker else None

    def post(self, path, *fields):
        return ask(self.router.port, request("POST", path, [("X-User-Id", "u"), *fields], b"{}"))

    def told(self, path, *fields):
        answer = self.post(path, *fields)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def metric(self, result):
        text = ask(self.router.admin_port, request("GET", "/metrics")).body.decode()
        return int(re.search(r'^migration_trace_spans_total\{result="%s"\} (\d+)$' % result, text, re.MULTILINE).group(1))


@pytest.fixture
def world(start):
    return lambda **how: World(start, **how)


def attributes(span):
    return {a["key"]: a["value"].get("stringValue", a["value"].get("intValue")) for a in span["attributes"]}


# --- into tasks --------------------------------------------------------------------------------------------------------

def test_a_callers_trace_goes_on_in_the_task(world):
    w = world()
    fields = ("traceparent", PARENT), ("tracestate", "vendor=t61rcWkgMzE"), ("tracestate", "other=1")
    assert w.told("/tell", *fields) == {"TRACEPARENT": PARENT, "TRACESTATE": STATE}
    assert w.told("/own", *fields) == {"TRACEPARENT": "mine", "TRACESTATE": None}, "what the definition sets stands"
    assert w.told("/both", *fields)["b"] == {"TRACEPARENT": PARENT, "TRACESTATE": STATE}, "each step of a workflow has it"
    w.told("/post", *fields)
    handler = w.origin.requests[-1].head
    assert (handler.get("traceparent"), handler.get("tracestate")) == (PARENT, STATE)


@pytest.mark.parametrize("text", ["", "00-%s-%s" % (TRACE, CALLER), PARENT.upper(), "ff" + PARENT[2:], "00-%s-%s-01" % ("0" * 32, CALLER),
                                  "00-%s-%s-01" % (TRACE, "0" * 16), PARENT + "-extra", "00-%s-%s-0x" % (TRACE, CALLER)])
def test_what_is_no_trace_context_is_as_if_absent(world, text):
    assert world().told("/tell", ("traceparent", text), ("tracestate", "a=1")) == {"TRACEPARENT": None, "TRACESTATE": None}


def test_two_contexts_are_none_and_legacy_gets_what_was_sent(world):
    w = world()
    assert w.told("/tell", ("traceparent", PARENT), ("traceparent", PARENT)) == {"TRACEPARENT": None, "TRACESTATE": None}
    assert w.told("/tell") == {"TRACEPARENT": None, "TRACESTATE": None}
    w = world(percentage=0, traces={"endpoint": "http://127.0.0.1:9/v1/traces"}, worker=False)
    w.post("/tell", ("TraceParent", PARENT), ("tracestate", "a=1"))
    sent = [(n, v) for n, v in w.origin.requests[-1].head.fields if n.lower().startswith("trace")]
    assert sent == [("TraceParent", PARENT), ("tracestate", "a=1")], "byte for byte"


# --- to a collector ----------------------------------------------------------------------------------------------------

def test_a_span_per_request_and_per_attempt(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url + "/v1/traces", "service_name": "edge"})
    told = w.told("/tell", ("traceparent", PARENT), ("tracestate", STATE))
    spans = {s["kind"]: s for s in to.wait(2)}
    server, attempt = spans[2], spans[4]
    assert (server["traceId"], server["parentSpanId"], server["name"]) == (TRACE, CALLER, "POST /tell")
    assert (attempt["traceId"], attempt["parentSpanId"], attempt["name"]) == (TRACE, server["spanId"], "embedded tell")
    assert told == {"TRACEPARENT": "00-%s-%s-01" % (TRACE, attempt["spanId"]), "TRACESTATE": STATE}, "the task is the attempt's child"
    assert int(server["startTimeUnixNano"]) <= int(attempt["startTimeUnixNano"]) + 10**6
    assert int(attempt["endTimeUnixNano"]) <= int(server["endTimeUnixNano"]) + 10**6
    assert attributes(server)["http.response.status_code"] == "200" and attributes(server)["http.route"] == "/tell"
    row = w.router.wait_outcomes(1)[0]
    assert {k: v for k, v in attributes(attempt).items() if k.startswith("migration.")} == {
        "migration." + k: row[k] for k in ("service", "operation", "side", "backend", "role", "reason", "result", "task_id", "request_id")}
    resource = attributes(to.posts[0]["resourceSpans"][0]["resource"])
    assert resource["service.name"] == "edge" and resource["service.instance.id"].endswith(":%d" % w.router.pid)
    path, fields = to.fields[0]
    assert path == "/v1/traces" and fields["Content-Type"] == "application/json"
    wait_until(lambda: w.metric("exported") == 2, "both to be counted")


def test_each_attempt_of_a_fallback_has_its_span(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url, "sample": 1})
    assert w.post("/fail").status == 200
    spans = to.wait(3)
    server = next(s for s in spans if s["kind"] == 2)
    assert "parentSpanId" not in server and {s["traceId"] for s in spans} == {server["traceId"]}
    tried = {attributes(s)["migration.side"]: s for s in spans if s["kind"] != 2}
    assert {s["parentSpanId"] for s in tried.values()} == {server["spanId"]}
    assert tried["task"]["status"]["code"] == 2 and "code" not in tried["legacy"]["status"]
    assert attributes(tried["legacy"])["migration.role"] == "fallback" and tried["legacy"]["kind"] == 3


def test_what_reached_no_side_has_no_attempt(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url, "sample": 1}, limits={"limits": {"max_body": "1"}}, worker=False)
    assert w.post("/tell").status == 413
    w.router.stop()
    (span,) = to.spans()
    assert span["kind"] == 2 and attributes(span)["migration.reason"] == "refused"


def test_shadows_have_spans_and_their_tasks_know_them(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url}, variant=c.variants("task_abstraction_enabled", shadow=100))
    w.post("/post", ("traceparent", PARENT))
    spans = to.wait(3)
    shadow = next(s for s in spans if attributes(s).get("migration.role") == "shadow")
    assert shadow["traceId"] == TRACE and shadow["parentSpanId"] == next(s["spanId"] for s in spans if s["kind"] == 2)
    handler = next(r for r in w.origin.requests if r.target == "/handler").head
    assert handler.get("traceparent") == "00-%s-%s-01" % (TRACE, shadow["spanId"])


def test_sampling_is_by_the_caller_or_by_the_share(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url})
    assert w.told("/tell", ("traceparent", PARENT[:-2] + "00"))["TRACEPARENT"] == PARENT[:-2] + "00", "not sampled: as it came"
    made = w.told("/tell")["TRACEPARENT"]
    assert ENDED.match(made) and made.endswith("-00"), "by nobody: told that it is not"
    w.told("/tell", ("traceparent", PARENT))
    assert {s["traceId"] for s in to.wait(2)} == {TRACE}
    w.router.stop()
    assert len(to.spans()) == 2
    # A stranger does not decide what is kept here.
    w = world(traces={"endpoint": to.url}, trusted_proxies=["10.9.9.9"])
    assert w.told("/tell", ("traceparent", PARENT))["TRACEPARENT"] == PARENT[:-2] + "00"
    w.router.stop()
    assert len(to.spans()) == 2
    w = world(traces={"endpoint": to.url, "sample": 1}, trusted_proxies=["10.9.9.9"])
    assert w.told("/tell", ("traceparent", PARENT[:-2] + "00"))["TRACEPARENT"].startswith("00-%s-" % TRACE)
    assert len(to.wait(4)) == 4


def test_what_waits_is_exported_at_the_end(world, collector):
    to = collector()
    w = world(traces={"endpoint": to.url, "sample": 1, "flush": "60s"}, percentage=0, worker=False)
    for _ in range(5):
        w.post("/tell")
    w.router.stop()
    assert len(to.spans()) == 10


# --- a collector that fails --------------------------------------------------------------------------------------------

def test_a_collector_that_is_busy_gets_them_again(world, collector):
    to = collector(503, 429)
    w = world(traces={"endpoint": to.url, "sample": 1}, percentage=0, worker=False)
    w.post("/tell")
    assert len(to.wait(2)) == 2 and len(to.fields) >= 3
    assert w.router.wait_event("traces_failing")["error"] == "the collector answers 503"
    w.router.wait_event("traces_recovered")
    assert (w.metric("failed"), w.metric("dropped")) == (0, 0)


def test_what_a_collector_refuses_is_counted(world, collector):
    to = collector(400)
    w = world(traces={"endpoint": to.url, "sample": 1}, percentage=0, worker=False)
    w.post("/tell")
    wait_until(lambda: w.metric("failed") == 2, "the refusal to be counted")
    to.partial = {"rejectedSpans": "1", "errorMessage": "one too many"}
    w.post("/tell")
    wait_until(lambda: (w.metric("failed"), w.metric("exported")) == (3, 1), "the one to be counted")


def test_nobody_waits_for_a_collector_and_what_has_no_room_is_counted(world):
    with_nobody = {"endpoint": "http://127.0.0.1:9/v1/traces", "sample": 1, "queue": 16}
    w = world(traces=with_nobody, percentage=0, worker=False)
    for _ in range(600):
        assert w.post("/tell").status == 200
    wait_until(lambda: w.metric("dropped") > 0, "spans to be dropped")
    assert w.metric("exported") == 0
    w.router.stop()


def test_the_authorization_comes_from_a_file_and_is_never_told(world, collector, start):
    to = collector()
    folder = str(start.folder())
    with open(os.path.join(folder, "key"), "w", encoding="utf-8") as file:
        file.write("Bearer very-secret\n")
    w = world(traces={"endpoint": to.url, "sample": 1, "authorization_file": os.path.join(folder, "key")}, percentage=0, worker=False)
    w.post("/tell")
    to.wait(2)
    assert to.fields[0][1]["Authorization"] == "Bearer very-secret"
    assert "very-secret" not in w.router.log()


def test_mistakes_in_traces_are_named(start, tmp_path):
    path = tmp_path / "router.yml"
    config = {**c.passing(start.origin()), "traces": {"endpoint": "ftp://x", "sample": 2, "frob": 1, "authorization_file": "none-there"}}
    path.write_text(json.dumps(config))
    said = start.run("migration-router", "check", path)
    assert said.returncode != 0
    for part in ("traces.sample: expected a share from 0 to 1, not \"2\"", "traces.frob", "traces.endpoint", "traces.authorization_file"):
        assert part in said.stdout + said.stderr, (part, said)


# --- on the other backends ---------------------------------------------------------------------------------------------

def test_celerys_message_has_it_where_opentelemetry_looks(start, own_redis):
    need_backend("celery")
    from celery_router import celery_config  # noqa: PLC0415
    origin = start.origin()
    router = start.router(celery_config(origin, own_redis.url(), tasks={"tell": {"name": "tell", "timeout": "1s"}}, when_not_ready="submit"),
                          env={"TASK_ABSTRACTION_ENABLED": "true"})
    ask(router.port, request("POST", "/tell", [("traceparent", PARENT), ("tracestate", STATE)], b'{"args": []}'))
    message = json.loads(own_redis.client().lindex("celery", 0))
    assert (message["headers"]["traceparent"], message["headers"]["tracestate"]) == (PARENT, STATE)
    assert "traceparent" not in json.dumps(json.loads(base64.b64decode(message["body"])))
