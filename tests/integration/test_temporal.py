"""Operations served by a real Temporal server and a Python worker in the existing convention; the legacy caller cannot tell."""
import concurrent.futures
import json
import os
import re
import ssl
import threading
import time

import pytest
import requests

import configuration
import temporal_server
from http_text import PATIENCE, wait_until
from programs import free_port, need_backend

need_backend("temporal")

pytestmark = pytest.mark.skipif(not temporal_server.find()[0], reason=temporal_server.find()[1])

QUEUE = "tests"


def task(name, **more):
    return {"name": name, "args": {"$ref": "body:/args"}, "kwargs": {"$ref": "body:/kwargs", "default": {}}, "timeout": "60s", **more}


TASKS = {name: task(name) for name in ("add_numbers", "echo", "give_back", "give_size", "give_nothing", "fail", "fail_in_between",
                                       "simulate_work", "count")}
TASKS.update({
    "short": task("simulate_work", task_timeout="1s"),
    "unheard_of": task("unheard_of", task_timeout="1s"),
    "nobody": task("echo", queue="nobody-polls-this", task_timeout="1s"),
    "unattended": task("echo", queue="nobody-polls-this", respond_async=True),
    "later": task("simulate_work", respond_async=True),
    "whole": {"workflow": "takes-one", "args": [{"$ref": "body:"}], "single_input": True, "timeout": "60s"},
    "again": {"workflow": "once-more", "args": [2], "single_input": True, "timeout": "60s"},
})


def router_of(start, url, env=None, **settings):
    origin = start.origin()
    operations = {name: configuration.operation("POST /" + name, {**t, "backend": "temporal"}) for name, t in TASKS.items()}
    config = configuration.router({"s": configuration.service(origin, operations)}, backend="temporal",
                                  backends={"temporal": {"when_not_ready": "submit", "http_url": url, "task_queue": QUEUE, **settings}})
    router = start.router(config, env={"TASK_ABSTRACTION_ENABLED": "true", **(env or {})})
    router.origin = origin
    return router


def call(router, name, *args, kwargs=None, body=None, headers=None):
    body = body if body is not None else json.dumps({"args": list(args), **({"kwargs": kwargs} if kwargs else {})})
    return requests.post("http://127.0.0.1:%d/%s" % (router.port, name), data=body.encode(), timeout=PATIENCE * 2,
                         headers={"Content-Type": "application/json", **(headers or {})})


def health(router):
    return requests.get("http://127.0.0.1:%d/readyz" % router.admin_port, timeout=PATIENCE).json()["backends"][0]


def begin(router, name, *args):
    """Submits without waiting; the address of the task."""
    answer = call(router, name, *args, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return "http://127.0.0.1:%d%s" % (router.port, answer.headers["Location"])


def state(task_url):
    answer = requests.get(task_url, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(task_url):
    return wait_until(lambda: (lambda s: s if s["status"] in ("completed", "failed") else None)(state(task_url)), "the task to end")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Server and worker, shared by the tests that do no harm to them."""
    server = temporal_server.Server(tmp_path_factory.mktemp("temporal"))
    worker = temporal_server.Worker(tmp_path_factory.mktemp("worker"), server, QUEUE)
    yield server, worker
    worker.stop()
    server.stop()


@pytest.fixture
def own(tmp_path):
    """What a test starts for itself, to be killed."""
    started = []

    def begin_one(kind, *arguments, **how):
        started.append(kind(*arguments, **how))
        return started[-1]
    yield begin_one
    for one in reversed(started):
        one.stop()


@pytest.fixture
def router(start, engine):
    return router_of(start, engine[0].url)


# --- values --------------------------------------------------------------------------------------------------------------

def test_a_task_runs_in_the_existing_convention(router, engine):
    answer = call(router, "add_numbers", 2, 3)
    assert (answer.status_code, answer.text) == (200, "5")
    assert call(router, "echo", kwargs={"message": "hi"}).json() == "Echo: hi"
    row = router.wait_outcomes(2)[0]
    assert (row["backend"], row["result"], row["http_status"]) == ("temporal", "success", 200)
    assert re.fullmatch(r"add_numbers-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", row["task_id"])
    info = engine[0].describe(row["task_id"])
    assert info["type"]["name"] == "add_numbers_workflow" and info["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"


@pytest.mark.parametrize("text", [
    '9007199254740993', '1.0', '{"data":"eyJ9","metadata":{"encoding":"x"}}', '{"_protoMessageType":"x"}', '[1.0,-0.0,1e300,null]',
    '"h\\u00e9\\ud83d\\ude00\\u0000"', '"<>&\\u2028"', '{"":{"a b":[]}}'])
def test_values_arrive_as_they_were_sent(router, text):
    answer = call(router, "give_back", body='{"args":[%s]}' % text)
    assert (answer.status_code, answer.text) == (200, text.replace("1e300", "1e+300"))


def test_a_callers_trace_is_in_the_header_that_tracing_interceptors_read(router, engine):
    fields = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1"}
    assert call(router, "echo", "x", headers={**fields, "X-Request-ID": "traced"}).status_code == 200
    task_id = router.wait_outcomes(1, "request_id = 'traced'")[0]["task_id"]
    history = requests.get("%s/api/v1/namespaces/default/workflows/%s/history" % (engine[0].url, task_id), timeout=PATIENCE).json()
    started = history["history"]["events"][0]["workflowExecutionStartedEventAttributes"]
    assert started["header"]["fields"]["_tracer-data"] == fields  # as its HTTP API shows JSON payloads


def test_unicode_as_itself(router):
    answer = call(router, "give_back", body='{"args":["é😀"]}')
    assert answer.json() == "é😀"


def test_nothing_is_null(router):
    assert call(router, "give_nothing").text == "null"


def test_a_workflow_that_takes_one_input(router):
    assert call(router, "whole", body='{"n": 9007199254740993}').text == '{"got":{"n":9007199254740993}}'


def test_a_workflow_that_continues_as_new_is_followed_to_its_end(router):
    assert call(router, "again", body="{}").json() == "the last run"


def test_a_megabyte(router):
    answer = call(router, "give_size", "x" * (1 << 20))
    assert (answer.status_code, answer.text) == (200, str(1 << 20))


def test_more_than_the_engine_takes_goes_to_legacy(router):
    assert call(router, "give_size", "x" * (2 << 20)).text == "ok"
    row = router.wait_outcomes()[0]
    assert (row["side"], row["reason"]) == ("legacy", "input_too_large")


# --- ends ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, message", [("fail", "the disk is purple"), ("fail_in_between", "bad é")])
def test_a_failure_is_told_by_its_own_message(router, name, message):
    answer = call(router, name, message)
    assert (answer.status_code, answer.json()["detail"]) == (500, message)
    assert router.wait_outcomes()[0]["result"] == "failure"


@pytest.mark.parametrize("name, args, message", [
    ("short", [30], "timed out"), ("unheard_of", [], "timed out"), ("nobody", ["x"], "timed out waiting for a worker")])
def test_the_limit_of_execution_ends_what_does_not_end(router, name, args, message):
    answer = call(router, name, *args)
    assert (answer.status_code, answer.json()["detail"]) == (500, message)


def test_the_state_of_a_task(router):
    url = begin(router, "later", 2)
    seen = wait_until(lambda: (lambda s: s if s["status"] == "running" else None)(state(url)), "the task to run")
    assert seen["task_name"] == "simulate_work" and seen["started_at"] and not seen["completed_at"]
    end = ended(url)
    assert end["status"] == "completed" and end["result"]["requested_duration"] == 2
    assert end["started_at"] < end["completed_at"]


def test_cancel_of_a_running_task(router):
    url = begin(router, "later", 60)
    wait_until(lambda: state(url)["status"] == "running", "the task to run")
    assert requests.delete(url, timeout=PATIENCE).status_code == 202
    end = ended(url)
    assert (end["status"], end["error"]) == ("failed", "cancelled")
    assert requests.delete(url, timeout=PATIENCE).status_code == 202  # it has ended: nothing to do


def test_cancel_of_a_task_that_no_worker_took(router):
    url = begin(router, "unattended", "x")
    assert state(url)["status"] == "pending"
    assert requests.delete(url, timeout=PATIENCE).status_code == 202
    assert ended(url)["error"] == "terminated: cancelled before a worker took it"


# --- many, and faults ------------------------------------------------------------------------------------------------------

@pytest.mark.heavy
def test_many_at_once(router):
    n = 120
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        answers = list(pool.map(lambda i: call(router, "add_numbers", i, 1), range(n)))
    assert [a.text for a in answers] == [str(i + 1) for i in range(n)]


def test_a_lost_reply_does_not_run_the_task_twice(start, engine, own):
    server, worker = engine
    proxy = own(temporal_server.Proxy, server.http_port, lose=1)
    router = router_of(start, "http://127.0.0.1:%d" % proxy.port)
    answer = call(router, "count", "lost-once")
    assert (answer.status_code, answer.json()) == (200, "lost-once")
    assert proxy.lost == 1 and worker.runs("lost-once") == 1


def test_replies_lost_for_good_are_unknown_and_never_legacy(start, engine, own):
    server, worker = engine
    proxy = own(temporal_server.Proxy, server.http_port, lose=100)
    router = router_of(start, "http://127.0.0.1:%d" % proxy.port)
    answer = call(router, "count", "lost-for-good")
    assert answer.status_code == 504
    row = router.wait_outcomes()[0]
    assert (row["side"], row["result"]) == ("task", "unknown")
    wait_until(lambda: worker.runs("lost-for-good") == 1, "the one run")
    assert proxy.lost == 3 and not router.origin.requests


def test_a_server_that_is_gone_is_refused_quickly_and_legacy_serves(start):
    router = router_of(start, "http://127.0.0.1:%d" % free_port(), breaker="off")
    began = time.monotonic()
    for _ in range(20):
        assert call(router, "echo", "x").text == "ok"
    assert time.monotonic() - began < 30, "20 waits for a connection, of 2 s, would be more"
    rows = router.wait_outcomes(40)
    assert {(r["side"], r["role"], r["result"]) for r in rows} == {("task", "primary", "failure"), ("legacy", "fallback", "success")}
    wait_until(lambda: "Temporal: " in health(router)["detail"], "the health of it")
    assert not health(router)["reachable"]


def test_an_unknown_namespace_is_refused(start, engine):
    router = router_of(start, engine[0].url, namespace="nowhere")
    assert call(router, "echo", "x").text == "ok"
    wait_until(lambda: "nowhere" in health(router)["detail"], "the health of it")


def test_a_server_killed_in_the_middle_comes_back_and_the_wait_goes_on(start, own, tmp_path):
    server = own(temporal_server.Server, tmp_path, file="temporal.db")
    own(temporal_server.Worker, tmp_path, server, QUEUE)
    router = router_of(start, server.url)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(call(router, "simulate_work", 3)))
    caller.start()
    wait_until(lambda: any(w["type"]["name"] == "simulate_work_workflow" for w in server.workflows()), "the task to be there")
    server.kill()
    assert call(router, "echo", "x").text == "ok"  # refused meanwhile
    server.start()
    caller.join(PATIENCE * 2)
    assert answers and answers[0].status_code == 200 and answers[0].json()["requested_duration"] == 3
    assert call(router, "echo", "x").json() == "Echo: x"


def test_a_worker_killed_in_the_middle(start, own, tmp_path):
    server = own(temporal_server.Server, tmp_path)
    worker = own(temporal_server.Worker, tmp_path, server, QUEUE)
    router = router_of(start, server.url, execution_timeout="5s")
    url = begin(router, "later", 60)
    wait_until(lambda: state(url)["status"] == "running", "the task to run")
    worker.kill()
    assert ended(url)["error"] == "timed out"
    own(temporal_server.Worker, tmp_path, server, QUEUE)
    assert call(router, "echo", "x").json() == "Echo: x"


# --- settings ----------------------------------------------------------------------------------------------------------------

def test_health_tells_of_server_and_worker(start, engine, own, tmp_path):
    # a queue of its own: the server's count is approximate, and says for a while what waited for the shared worker
    own(temporal_server.Worker, tmp_path, engine[0], "attended", places=1)
    router = router_of(start, engine[0].url, env={"TEMPORAL_TASK_QUEUE": "attended"})
    wait_until(lambda: health(router)["worker"] and health(router)["backlog"] == 0, "health")
    lonely = router_of(start, engine[0].url, env={"TEMPORAL_TASK_QUEUE": "lonely"})
    wait_until(lambda: health(lonely)["detail"] == "no worker polls the task queue lonely", "health without a worker")
    assert health(lonely)["reachable"] and not health(lonely)["worker"]
    begin(lonely, "later", 0)
    wait_until(lambda: health(lonely)["backlog"] == 1, "what waits for a worker to be counted")


def test_one_variable_switches_the_backend(start, engine):
    origin = start.origin()
    operations = {"add": configuration.operation("POST /add", task("add_numbers"))}
    config = configuration.router({"s": configuration.service(origin, operations)}, backends=configuration.embedded(tasks=None))
    router = start.router(config, env={"TASK_ABSTRACTION_ENABLED": "true", "TASK_QUEUE_BACKEND": "temporal",
                                       "TEMPORAL_HTTP_URL": engine[0].url, "TEMPORAL_TASK_QUEUE": QUEUE})
    assert call(router, "add", 40, 2).text == "42"
    assert router.wait_outcomes()[0]["backend"] == "temporal"


def test_tls_with_a_client_certificate(start, engine, own, tls, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
    context.verify_mode = ssl.CERT_REQUIRED
    proxy = own(temporal_server.Proxy, engine[0].http_port, tls=context)
    url = "https://localhost:%d" % proxy.port
    router = router_of(start, url, ca_file=tls.authority, client_cert_file=tls.certificate, client_key_file=tls.key)
    assert call(router, "add_numbers", 1, 1).text == "2"
    without = router_of(start, url, ca_file=tls.authority)
    assert call(without, "add_numbers", 1, 1).status_code in (200, 504)
    assert without.wait_outcomes()[0]["result"] in ("failure", "unknown")
    mistrusting = router_of(start, url, client_cert_file=tls.certificate, client_key_file=tls.key)
    assert call(mistrusting, "add_numbers", 1, 1).text == "ok"
