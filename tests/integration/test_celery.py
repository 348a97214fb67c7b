"""Operations served by real Celery workers over a real Redis; the legacy caller cannot tell."""
import base64
import collections
import concurrent.futures
import json
import time

import pytest
import requests

import configuration
from celery_redis import Redis
from celery_router import TASKS, call, celery_config, readyz, start_router
from celery_worker import Worker, application
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("celery")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Redis and a worker with threads, shared by the tests that do no harm to them."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    worker = Worker(tmp_path_factory.mktemp("worker"), server.url(0), server.url(1))
    yield server, worker
    worker.stop()
    server.stop()


@pytest.fixture
def router(start, engine):
    return start_router(start, start.origin(), engine[0].url(0), engine[0].url(1))


def test_a_task_runs_and_its_result_is_the_answer(router):
    answer = call(router, "add_numbers", 2, 3)
    assert (answer.status_code, answer.text) == (200, "5")
    row = router.wait_outcomes()[0]
    assert (row["side"], row["backend"], row["result"]) == ("task", "celery", "success")


def test_numbers_and_characters_arrive_as_they_were_sent(router):
    body = '{"args": [9007199254740993, 1.0, -0.0, 1e2, "\\u00e4\U0001f600\\ud83d\\ude00\\n"], "kwargs": {"k\u00e9y": null}}'
    answer = requests.post("http://127.0.0.1:%d/everything" % router.port, data=body.encode(), timeout=PATIENCE,
                           headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert '"args": [9007199254740993, 1.0, -0.0, 100.0, ' in answer.text
    assert answer.json() == {"args": [9007199254740993, 1.0, 0.0, 100.0, "\xe4\U0001f600\U0001f600\n"], "kwargs": {"k\xe9y": None}}


def test_a_worker_is_told_that_a_task_is_a_shadow(start, engine):
    """Beside legacy, then in its place."""
    task = {"marks": {"name": "marks", "args": {"$ref": "body:/args"}, "timeout": "30s"}}
    config = celery_config(start.origin(), engine[0].url(0), engine[0].url(1), task)
    config["services"]["s"]["operations"]["marks"].update(safe_to_shadow=True, identity={"user": "header:X-User"})
    flag = configuration.variants("task_abstraction_enabled", shadow=100)
    router = start.router(config, configuration.features(flag, segments=[configuration.everybody()]))
    key = "marks-%s" % router.pid
    call(router, "marks", key, headers={"X-User": "u"})
    router.wait_outcomes(1, "role = 'shadow' AND result = 'success'")
    assert engine[0].client(1).lrange(key, 0, -1) == [b"True"]
    router.write_flags(configuration.features(configuration.boolean("task_abstraction_enabled", True)))
    wait_until(lambda: call(router, "marks", key, headers={"X-User": "u"}).text == "{}", "the task to serve")
    assert b"None" in engine[0].client(1).lrange(key, 0, -1)


def test_a_callers_trace_goes_on_in_the_worker(start, engine):
    """In each step of a workflow, too, whether or not the worker knows anything of traces."""
    tasks = {"trace": {"name": "trace", "timeout": "30s"}, "flow": {"workflow": "two", "timeout": "30s"}}
    folder = start.folder()
    (folder / "workflows.yml").write_text(json.dumps({"workflows": [{"name": "two", "steps": [{"task": "trace"}, {"name": "b", "task": "trace"}]}]}))
    config = celery_config(start.origin(), engine[0].url(0), engine[0].url(1), tasks)
    config["backends"]["celery"]["workflows"] = "workflows.yml"
    router = start.router(config, folder=str(folder), env={"TASK_ABSTRACTION_ENABLED": "true"})
    fields = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1,b=2"}
    assert call(router, "trace", headers=fields).json() == list(fields.values())
    flow = call(router, "flow", headers=fields)
    assert flow.json() == {"trace": list(fields.values()), "b": list(fields.values())}, flow.text
    assert call(router, "trace").json() == [None, None]


def test_a_megabyte_goes_through_both_ways(router):
    text = "\xe4 b" * 350000
    assert call(router, "give_back", text).json() == text
    assert call(router, "give_size", text).json() == len(text)


def test_a_failed_task_tells_its_innermost_message(router):
    answer = call(router, "fail", "bad input")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "bad input"
    assert router.wait_outcomes()[0]["result"] == "failure"


def test_a_task_nobody_registered_fails_with_a_clear_error(router):
    answer = call(router, "unheard_of")
    assert answer.status_code == 500
    assert "unheard_of" in answer.json()["detail"] and "not registered" in answer.json()["detail"]


def test_a_result_that_is_no_json_is_unknown_and_says_so(router):
    answer = call(router, "not_json_number")
    assert answer.status_code == 502 and "cannot be read" in answer.json()["detail"]


def test_states_of_its_own_do_not_end_a_task(router):
    assert call(router, "progress", 0.2).json() == "done"


def test_a_task_between_two_tries_is_running(start, engine):
    server = engine[0]
    router = start_router(start, start.origin(), server.url(0), server.url(1),
                          tasks={"try_twice": {"name": "try_twice", "timeout": "30s", "respond_async": True}})
    answer = call(router, "try_twice", headers={"Prefer": "respond-async"})
    url = "http://127.0.0.1:%d%s" % (router.port, answer.headers["Location"])
    key = "celery-task-meta-" + answer.json()["task_id"]
    wait_until(lambda: b'"RETRY"' in (server.client(1).get(key) or b""), "the first try to have failed")
    assert requests.get(url, timeout=PATIENCE).json()["status"] == "running"
    end = wait_until(lambda: (lambda t: t if t["status"] != "running" else None)(requests.get(url, timeout=PATIENCE).json()), "the end")
    assert (end["status"], end["result"]) == ("completed", "at the second try")


@pytest.mark.heavy
def test_three_hundred_at_once(router):
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: call(router, "add_numbers", n, 1).json(), range(300)))
    assert answers == [n + 1 for n in range(300)]


# --- the message -------------------------------------------------------------------------------------------------------

ARGS = ["it's", "line\n\ttab\\", [1, [2, [3, [4, [5]]]]], {"a": {"b": {"c": {"d": 1}}}}, 1.0, 1e22, 9007199254740993, True, None,
        "\xe4\U0001f600", "a word " * 300, "never shown", {"nor": ["this"]}]
KWARGS = {"k": "v", "long key": "x" * 3000, "it's": {}}


def queued(server, queue):
    """The messages of a queue, all priorities, oldest first, with the body decoded as text."""
    found = []
    client = server.client()
    for key in client.scan_iter(queue + "*"):
        for raw in reversed(client.lrange(key, 0, -1)):
            message = json.loads(raw)
            message["body"] = base64.b64decode(message["body"]).decode()
            found.append((key.decode(), message))
    return found


def comparable(key, message):
    headers, properties = dict(message["headers"]), dict(message["properties"])
    assert headers["id"] == headers["root_id"] == properties["correlation_id"]
    assert headers["origin"].startswith("gen") and "@" in headers["origin"]
    for name in ("id", "root_id", "origin"):
        del headers[name]
    for name in ("correlation_id", "reply_to", "delivery_tag"):
        assert properties.pop(name)
    expires = headers.pop("expires")
    return {"key": key, "body": json.loads(message["body"]), "headers": headers, "header names": list(message["headers"]),
            "properties": properties, "names": list(message), "property names": list(message["properties"]),
            "expires": expires and len(expires)}


@pytest.mark.parametrize("args,kwargs,options", [
    ([1, 2], {"k": "v"}, {}),
    ([], {}, {"priority": 5, "expires": 30}),
    (ARGS, KWARGS, {"priority": 9, "time_limit": 30}),
    (["x" * 1024], {"a": "y" * 1023}, {"time_limit": 2.5}),
    ([[["a"] * 600]], {str(n): n for n in range(200)}, {"priority": 3}),
])
def test_the_message_equals_the_real_producers(start, own_redis, args, kwargs, options):
    url = own_redis.url()
    application(url).send_task("echo", args=args, kwargs=kwargs, queue="ours", **options)
    real = queued(own_redis, "ours")
    own_redis.client().flushall()
    task = {"name": "echo", "queue": "ours", "respond_async": True, "priority": options.get("priority", 0),
            "args": {"$ref": "body:/args"}, "kwargs": {"$ref": "body:/kwargs"},
            **({"expires": "%ds" % options["expires"]} if "expires" in options else {}),
            **({"task_timeout": "%dms" % (options["time_limit"] * 1000)} if "time_limit" in options else {})}
    router = start_router(start, start.origin(), url, tasks={"echo": task})
    assert call(router, "echo", *args, kwargs=kwargs, headers={"Prefer": "respond-async"}).status_code == 202
    ours = queued(own_redis, "ours")
    assert len(real) == len(ours) == 1
    told = comparable(*ours[0])
    assert told["headers"].pop("ignore_result") is False, "a worker that keeps no results by default keeps this one"
    expected = comparable(*real[0])
    del expected["headers"]["ignore_result"]
    assert told == expected
    assert own_redis.client().smembers("_kombu.binding.ours") == set(), "LPUSH needs no binding"


# --- when parts are away -----------------------------------------------------------------------------------------------

def test_without_a_worker_the_caller_is_told_in_time_and_the_task_is_kept(start, own_redis, workers):
    tasks = {"add_numbers": {**TASKS["add_numbers"], "timeout": "2s"}}
    router = start_router(start, start.origin(), own_redis.url(), tasks=tasks)
    assert call(router, "add_numbers", 1, 2).status_code == 504
    assert router.wait_outcomes()[0]["result"] == "timeout"
    wait_until(lambda: readyz(router)["reachable"] and not readyz(router)["worker"], "a state without worker")
    assert own_redis.client().llen("celery") == 1
    workers(own_redis.url())
    wait_until(lambda: own_redis.client().llen("celery") == 0, "the worker to take the task")
    wait_until(lambda: readyz(router)["worker"], "a state with worker")


def test_without_redis_legacy_serves_quickly(start, own_redis):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b"legacy")))
    router = start_router(start, origin, own_redis.url())
    own_redis.stop()
    began = time.monotonic()
    for _ in range(20):
        answer = call(router, "add_numbers", 1, 2)
        assert (answer.status_code, answer.content) == (200, b"legacy")
    assert time.monotonic() - began < 30, "20 waits for a connection, of 3 s, would be more"
    answered = router.wait_outcomes(20, "answered")
    refused = router.query("SELECT * FROM attempts WHERE NOT answered")
    assert {(r["side"], r["role"], r["result"]) for r in refused} == {("task", "primary", "failure")}
    roles = collections.Counter((r["side"], r["role"], r["result"], r["reason"]) for r in answered)
    # The first few meet it; then the breaker is open.
    assert roles.pop(("legacy", "fallback", "success", "env_default")) == len(refused) <= 5
    assert set(roles) == {("legacy", "primary", "success", "breaker_open")}


def test_a_silent_redis_is_unknown_and_never_run_again(start, own_redis):
    """Written and not answered: the caller hears 504, legacy is not asked, and the message is there once."""
    origin = start.origin()
    config = celery_config(origin, own_redis.url(), command_timeout="3s", tasks={"echo": {**TASKS["echo"], "timeout": "20s"}})
    router = start.router({**config, "threads": 1}, env={"TASK_ABSTRACTION_ENABLED": "true"})
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(call, router, "echo", "makes the connection")
        wait_until(lambda: own_redis.client().llen("celery") == 1, "the first task to be queued")
        own_redis.pause()
        answers = [a.result() for a in [pool.submit(call, router, "echo", n) for n in range(2)]]
        own_redis.go_on()
        assert [a.status_code for a in answers] == [504, 504]
        wait_until(lambda: own_redis.client().llen("celery") >= 3, "the messages")
        rows = router.wait_outcomes(2)
        assert [(r["side"], r["result"]) for r in rows] == [("task", "unknown")] * 2
        assert sorted(json.loads(m["body"])[0][0] for _, m in queued(own_redis, "celery")
                      if m["headers"]["task"] == "echo" and "connection" not in m["body"]) == [0, 1]
        assert not origin.requests
        for _, message in queued(own_redis, "celery"):  # ends the first caller's wait, which survived
            if "connection" in message["body"]:
                answer_task(own_redis, message["headers"]["id"], "late")
        assert waiting.result().json() == "late"


def answer_task(server, task_id, result, db=0):
    """What a worker's result backend does."""
    text = json.dumps({"status": "SUCCESS", "result": result, "traceback": None, "children": [], "task_id": task_id,
                       "date_done": "2026-01-31T08:15:00.123456+00:00"})
    server.client(db).set("celery-task-meta-" + task_id, text, ex=86400)
    server.client(db).publish("celery-task-meta-" + task_id, text)


def test_a_result_comes_through_a_restart_of_redis(start, own_redis, workers):
    """The worker holds the task; the router's subscription is made again, and nothing is lost."""
    router = start_router(start, start.origin(), own_redis.url())
    workers(own_redis.url())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(call, router, "simulate_work", 3) for _ in range(8)]
        wait_until(lambda: len(own_redis.client().keys("celery-task-meta-*")) == 8, "the tasks to have started")
        own_redis.stop()
        own_redis.start()
        assert [w.result().json()["status"] for w in waiting] == ["completed"] * 8
    assert call(router, "add_numbers", 1, 1).json() == 2


def test_a_killed_worker_costs_its_task_and_nothing_else(start, own_redis, workers):
    tasks = {**TASKS, "simulate_work": {**TASKS["simulate_work"], "timeout": "3s"}}
    router = start_router(start, start.origin(), own_redis.url(), tasks=tasks)
    victim = workers(own_redis.url())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, router, "simulate_work", 20)
        wait_until(lambda: own_redis.client().keys("celery-task-meta-*"), "the task to have started")
        victim.kill()
        workers(own_redis.url())
        assert call(router, "add_numbers", 1, 1).json() == 2
        assert waiting.result().status_code == 504
    results = {r["operation"]: r["result"] for r in router.wait_outcomes(2)}
    assert results == {"simulate_work": "timeout", "add_numbers": "success"}


def test_a_time_limit_of_the_router_ends_the_wait_not_the_task(start, engine):
    tasks = {"count_up": TASKS["count_up"], "simulate_work": {**TASKS["simulate_work"], "timeout": "1s"}}
    router = start_router(start, start.origin(), engine[0].url(0), engine[0].url(1), tasks=tasks)
    assert call(router, "simulate_work", 4).status_code == 504
    task_id = router.wait_outcomes()[0]["task_id"]
    wait_until(lambda: b"SUCCESS" in (engine[0].client(1).get("celery-task-meta-" + task_id) or b""), "the task to end")


def test_a_cancelled_task_is_revoked_before_it_starts(start, own_redis, workers):
    """DELETE of an asynchronous task that waits on a queue which the worker takes up only after the revocation."""
    tasks = {"count_up": {**TASKS["count_up"], "respond_async": True, "queue": "later"}}
    config = celery_config(start.origin(), own_redis.url(), tasks=tasks)
    config["services"]["s"]["operations"]["count_up"]["auth"] = "bearer"
    config["tokens"] = "tokens.txt"
    folder = start.folder()
    (folder / "tokens.txt").write_text(configuration.sha256("token") + "\n")
    router = start.router(config, folder=folder, env={"TASK_ABSTRACTION_ENABLED": "true"})
    worker = workers(own_redis.url())
    headers = {"Authorization": "Bearer token", "Prefer": "respond-async"}
    answer = call(router, "count_up", "counter", headers=headers)
    assert answer.status_code == 202
    url = "http://127.0.0.1:%d%s" % (router.port, answer.headers["Location"])
    assert requests.delete(url, headers=headers, timeout=PATIENCE).status_code in (200, 202, 204)
    wait_until(lambda: "revoked" in worker.log(), "the worker to have heard of it")
    worker.app.control.add_consumer("later", reply=True)
    wait_until(lambda: own_redis.client().llen("later") == 0, "the worker to take the task")
    state = wait_until(lambda: (lambda t: t if t["status"] == "failed" else None)(
        requests.get(url, headers=headers, timeout=PATIENCE).json()), "the end")
    assert state["error"] == "revoked"
    assert own_redis.client().get("counter") is None


def test_no_subscription_is_left_behind(start, own_redis, workers):
    router = start_router(start, start.origin(), own_redis.url(1), own_redis.url(2))
    workers(own_redis.url(1), own_redis.url(2))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda n: call(router, "give_back", n).json(), range(100))) == list(range(100))
    wait_until(lambda: len([c for c in own_redis.client().pubsub_channels("celery-task-meta-*")]) <= KEPT_CHANNELS,
               "the channels to be left")


KEPT_CHANNELS = 3  # each of two threads keeps its last one until it has another; the control loop keeps one to know that it hears


def test_passwords_databases_and_users(start, tmp_path, workers):
    server = Redis(tmp_path, "--requirepass", "s:e/c@ret")
    try:
        admin = server.client(password="s:e/c@ret")
        admin.execute_command("ACL", "SETUSER", "rou%ter", "on", ">p@ss", "~*", "&*", "+@all")
        url = "redis://:s%%3Ae%%2Fc%%40ret@127.0.0.1:%d/2" % server.port
        workers(url)
        with_user = "redis://rou%%25ter:p%%40ss@127.0.0.1:%d/2" % server.port
        for broker in (url, with_user):
            router = start_router(start, start.origin(), broker)
            assert call(router, "add_numbers", 1, 2).json() == 3
        wrong = start_router(start, "http://127.0.0.1:9", "redis://:not-it@127.0.0.1:%d/2" % server.port)
        wait_until(lambda: "WRONGPASS" in readyz(wrong).get("detail", ""), "a refusal")
        assert "not-it" not in wrong.log() and "s:e/c@ret" not in router.log() and "p@ss" not in router.log()
    finally:
        server.stop()


def test_a_unix_socket(start, tmp_path, workers):
    path = tmp_path / "redis.sock"
    server = Redis(tmp_path, "--unixsocket", str(path))
    try:
        workers(server.url(3), server.url(4))
        router = start_router(start, start.origin(), "redis+socket://%s?virtual_host=3" % path,
                              "redis+socket://%s?virtual_host=4" % path)
        assert call(router, "add_numbers", 1, 2).json() == 3
    finally:
        server.stop()


# --- the extraction workers, as deployed -------------------------------------------------------------------------------

EXTRACTION = {
    "name": "execute_extraction", "queue": "celery_executor_legacy", "timeout": "30s",
    "args": [{"executor_name": "legacy", "operation": "answer_prompt", "run_id": {"$ref": "body:/run_id"},
              "execution_source": {"$ref": "body:/execution_source", "default": "tool"},
              "organization_id": {"$ref": "identity:organization"}, "executor_params": {"$ref": "body:"},
              "request_id": {"$ref": "request:id"}}],
    "response": [
        {"when": {"ref": "result:/success", "equals": True}, "body": {"$ref": "result:/data"}},
        {"status": 500, "body": {"error": {"$ref": "result:/error"}, "name": "ExtractionError", "code": 500, "payload": None}},
    ],
}


@pytest.mark.parametrize("backend_from", ["file", "environment"])
def test_the_extraction_task_as_it_is_deployed(start, own_redis, workers, backend_from):
    """TASK_QUEUE_BACKEND=celery, CELERY_BROKER_URL and an existing worker: the legacy caller cannot tell."""
    workers(own_redis.url(0), own_redis.url(1), queues="celery_executor_legacy")
    origin = start.origin()
    operation = configuration.operation("POST /answer-prompt", EXTRACTION)
    services = {"prompt": configuration.service(origin, {"answer": operation}, identity=configuration.IDENTITY)}
    urls = {"CELERY_BROKER_URL": own_redis.url(0), "CELERY_RESULT_BACKEND": own_redis.url(1)}
    env = {"TASK_ABSTRACTION_ENABLED": "true"}
    if backend_from == "file":
        config = configuration.router(services, backend="celery", backends={
            "celery": {"broker_url": urls["CELERY_BROKER_URL"], "result_backend": urls["CELERY_RESULT_BACKEND"]}})
    else:
        config = configuration.router(services, backend="embedded", backends=configuration.embedded(tasks=None))
        env.update(urls, TASK_QUEUE_BACKEND="celery")
    router = start.router(config, env=env)
    body = {"run_id": "r-1", "tool_id": "t", "outputs": [{"name": "total", "prompt": "How much?"}], "big": 9007199254740993}
    url = "http://127.0.0.1:%d/answer-prompt" % router.port
    headers = {"X-Organization-Id": "org-7", "X-Request-ID": "req-1", "Authorization": "Bearer k"}
    answer = requests.post(url, json=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {"operation": "answer_prompt", "echo": body, "run_id": "r-1", "organization": "org-7", "request": "req-1"}
    assert not origin.requests
    failed = requests.post(url, json={**body, "explode": True}, headers=headers, timeout=PATIENCE)
    assert (failed.status_code, failed.json()["error"]) == (500, "the model refused")


# --- settings ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("url,complaint", [
    ("rediss://:topsecret@host/0?ssl_ciphers=x", "not supported"),  # the scheme, or what is asked of it
    ("sqs://user:topsecret@host", "redis://"),
    ("amqp://user:topsecret@host", "result_backend"),
    ("redis://:topsecret@host:99999/0", "port"),
    ("redis://:topsecret@host/zero", "database"),
    ("sentinel://:topsecret@host/0", "master_name"),
])
def test_a_wrong_address_is_named_at_the_start_without_its_secret(start, tmp_path, url, complaint):
    path = tmp_path / "router.yml"
    path.write_text(json.dumps(celery_config("http://127.0.0.1:9", url)))
    router = start.process("migration-router", "--config", path, cwd=tmp_path)
    assert router.wait() == 2
    assert complaint in router.log() and "topsecret" not in router.log()
    assert "broker_url" in router.log() or complaint == "result_backend"


def test_an_input_above_the_limit_goes_to_legacy(start, engine):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b"legacy")))
    router = start_router(start, origin, engine[0].url(0), engine[0].url(1), max_input="10KiB")
    assert call(router, "give_size", "x" * 20000).content == b"legacy"
    assert router.wait_outcomes()[0]["reason"] == "input_too_large"
    assert call(router, "give_size", "x" * 9000).json() == 9000
