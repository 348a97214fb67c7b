"""The Hatchet backend through the router: against the stand-in, and the same against a real engine where HATCHET_CLIENT_TOKEN is set."""
import concurrent.futures
import json
import os
import threading
import urllib.parse
import uuid

import configuration as c
import pytest
from hatchet import Engine, Failed, TimedOut, read, recorded, token
from hatchet_real import TOKEN, Server, Worker
from http_text import PATIENCE, wait_until
from programs import Process, free_port, need_backend
from raw import ask, request
from temporal_server import Proxy

need_backend("hatchet")


# --- engines -----------------------------------------------------------------------------------------------------------------

class StandIn:
    """The stand-in with workers of the convention; tasks that wait are let go by `release`."""
    real = False

    def __init__(self):
        self.release = threading.Event()
        self.engine = Engine({"rt_echo_workflow": lambda run: {"args": run.input["args"], "kwargs": run.input["kwargs"]},
                              "rt_sum_workflow": lambda run: {"rt_sum": sum(run.input["args"])},
                              "rt_length_workflow": lambda run: {"rt_length": len(run.input["args"][0])},
                              "rt_fail_workflow": self.fail, "rt_timeout_workflow": self.time_out, "rt_slow_workflow": self.slow,
                              "rt_flaky_workflow": self.flaky, "document-pipeline": pipeline, "single-object": lambda run: run.input,
                              "rt_echo_workflow_2": lambda run: {}})
        self.engine.retries["rt_flaky_workflow"] = 1
        self.environment = {"HATCHET_CLIENT_TOKEN": self.engine.token()}

    @staticmethod
    def fail(run):
        raise Failed(run.input["args"][0])

    @staticmethod
    def time_out(run):
        raise TimedOut("Task exceeded timeout of 2s")

    @staticmethod
    def flaky(run):
        if run.attempt == 1:
            raise Failed("flaky attempt 0")
        return {"attempt": run.attempt}

    def slow(self, run):
        self.release.wait(PATIENCE)
        return {"slept": 1}

    def runs(self, key, value):
        """Ids of the runs with this in their metadata."""
        return [run.id for run in self.engine.runs.values() if run.metadata.get(key) == value]

    @property
    def url(self):
        return self.engine.url

    def stop(self):
        self.release.set()
        self.engine.stop()


def pipeline(run):
    return {"extract-text": {"text": run.input["document"]}, "process-llm": {"summary": run.input["document"].upper()}}


pipeline.steps = ["extract-text", "process-llm"]


class Real:
    """An engine of the user's, and the worker of tests/support started for it."""
    real = True

    def __init__(self, folder):
        self.server = Server()
        self.environment = self.server.environment
        self.worker = Worker(folder, self.server)

    @property
    def url(self):
        return self.server.url

    def runs(self, key, value):
        """The engine lists a run some time after it was taken, and each only once."""
        rows = wait_until(lambda: self.server.runs(key, value), "the engine to list the run")
        return [row["workflowRunExternalId"] for row in rows]

    def stop(self):
        self.worker.stop()


class Between(Proxy):
    """Stands before the engine. While `swallow` is set, what is posted never comes to it; what is posted waits for the `gate`."""
    swallow, swallowed = False, 0
    gate, posts, most_posts = None, 0, 0

    def answer(self, inside, request):
        if self.gate and request.startswith(b"POST"):
            with self.lock:
                self.posts += 1
                self.most_posts = max(self.posts, self.most_posts)
            self.gate.wait(PATIENCE)
            with self.lock:
                self.posts -= 1
        if self.swallow and request.startswith(b"POST"):
            with self.lock:
                self.swallowed += 1
            return
        super().answer(inside, request)


@pytest.fixture
def between(hatchet):  # pylint: disable=redefined-outer-name
    """Of (lose): the variables that lead to the engine through a proxy."""
    address = urllib.parse.urlsplit(hatchet.url)
    if address.scheme != "http":
        pytest.skip("the engine speaks TLS, and the proxy does not")

    def put(**how):
        put.proxy = Between(address.port or 80, to_host=address.hostname, **how)
        return {"HATCHET_SERVER_URL": "http://127.0.0.1:%d" % put.proxy.port}
    yield put
    put.proxy.stop()


@pytest.fixture(scope="module")
def real_engine(tmp_path_factory):
    if not TOKEN:
        pytest.skip("HATCHET_CLIENT_TOKEN is not set: no real Hatchet engine to run against")
    engine = Real(tmp_path_factory.mktemp("hatchet"))
    yield engine
    engine.stop()


@pytest.fixture
def stand_in():
    engine = StandIn()
    yield engine
    engine.stop()


@pytest.fixture(params=["stand-in", "real"])
def hatchet(request):  # pylint: disable=redefined-outer-name
    return request.getfixturevalue("stand_in" if request.param == "stand-in" else "real_engine")


# --- a router in front of it --------------------------------------------------------------------------------------------------

def task(name, **mapping):
    return {"name": name, "args": [{"$ref": "body:"}], "timeout": "20s", **mapping}


OPERATIONS = {
    "echo": c.operation("POST /echo", task("rt_echo", kwargs={"who": {"$ref": "header:X-Who", "default": "nobody"}})),
    "length": c.operation("POST /length", task("rt_length")),
    "sum": c.operation("POST /sum", {"name": "rt_sum", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}], "timeout": "20s"}),
    "fail": c.operation("POST /fail", task("rt_fail")),
    "timeout": c.operation("POST /timeout", {"name": "rt_timeout", "timeout": "20s"}),
    "slow": c.operation("POST /slow", {"name": "rt_slow", "timeout": "20s", "respond_async": True}),
    "short": c.operation("POST /short", {"name": "rt_slow", "args": [8], "timeout": "2s"}),
    "flaky": c.operation("POST /flaky", {"name": "rt_flaky", "timeout": "20s"}),
    "missing": c.operation("POST /missing", task("rt_nobody_registered_this")),
    "pipeline": c.operation("POST /pipeline", {"workflow": "document-pipeline", "args": [{"$ref": "body:"}], "single_input": True,
                                               "timeout": "20s"}),
    "object": c.operation("POST /object", {"workflow": "single-object", "args": [{"$ref": "body:"}], "single_input": True,
                                           "timeout": "20s"}),
}


def front(start, engine, flags=None, operations=OPERATIONS, env=None, **sections):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
    config = c.router({"app": c.service(origin, operations, limits={"max_body": "16MiB"})},
                      **{"backends": {"hatchet": {"when_not_ready": "submit"}}, **sections})
    environment = {"TASK_QUEUE_BACKEND": "hatchet", **engine.environment, **(env or {})}
    router = start.router(config, flags or c.features(c.boolean("task_abstraction_enabled", True)), env=environment)
    return router, origin


def post(router, target, body, fields=(), raw=False):
    data = body if raw else json.dumps(body, ensure_ascii=False).encode()
    return ask(router.port, request("POST", target, [("Content-Type", "application/json"), *fields], data))


# --- what every backend does ---------------------------------------------------------------------------------------------------

def test_a_result(start, hatchet):
    router, origin = front(start, hatchet)
    answer = post(router, "/echo", {"a": 1}, [("X-Who", "me")])
    assert answer.status == 200 and json.loads(answer.body) == {"args": [{"a": 1}], "kwargs": {"who": "me"}}
    row = router.wait_outcomes(1)[0]
    assert (row["side"], row["backend"], row["result"]) == ("task", "hatchet", "success") and row["task_id"]
    assert not origin.requests


def test_a_plain_value_travels_under_the_tasks_name(start, hatchet):
    router, _ = front(start, hatchet)
    assert post(router, "/sum", {"a": 2, "b": 3}).body == b"5"


def test_unicode(start, hatchet):
    router, _ = front(start, hatchet)
    text = "grüße 🎈 \u2028 \" \\ \t 漢字"
    assert json.loads(post(router, "/echo", text).body)["args"] == [text]


def test_a_megabyte(start, hatchet):
    router, _ = front(start, hatchet)
    text = "x€" * (1 << 18)
    assert json.loads(post(router, "/echo", text).body)["args"] == [text]


def test_a_failure_has_its_message(start, hatchet):
    router, _ = front(start, hatchet)
    answer = post(router, "/fail", "no such document")
    assert answer.status == 500 and json.loads(answer.body)["detail"] == "no such document"
    assert router.wait_outcomes(1)[0]["result"] == "failure"


def test_a_time_limit_of_the_worker_is_told(start, hatchet):
    router, _ = front(start, hatchet)
    answer = post(router, "/timeout", {})
    assert answer.status == 500 and "timeout of 2s" in json.loads(answer.body)["detail"]


def test_an_unknown_workflow_goes_to_legacy_and_is_named(start, hatchet):
    router, origin = front(start, hatchet)
    assert post(router, "/missing", {}).body == b'"legacy"'
    assert "rt_nobody_registered_this_workflow" in router.wait_event("task_fell_back")["why"]
    rows = router.wait_outcomes(2)
    assert [(r["side"], r["role"]) for r in rows] == [("task", "primary"), ("legacy", "fallback")]
    assert len(origin.requests) == 1


def test_the_callers_time_limit(start, hatchet):
    router, _ = front(start, hatchet)
    assert post(router, "/short", {}).status == 504
    assert router.wait_outcomes(1)[0]["result"] == "timeout"


def test_polling_and_cancelling(start, hatchet):
    router, _ = front(start, hatchet)
    answer = post(router, "/slow", {}, [("Prefer", "respond-async")])
    assert answer.status == 202
    place = answer.get("Location")

    def state():
        told = ask(router.port, request("GET", place))
        assert told.status == 200, told.body
        return json.loads(told.body)
    wait_until(lambda: state()["status"] == "running", "the task to run")
    assert state()["task_name"] == "rt_slow" and state()["started_at"].startswith("20")
    assert ask(router.port, request("DELETE", place)).status == 202
    wait_until(lambda: state()["status"] == "failed", "the task to be cancelled")
    assert state()["error"] == "cancelled"


def test_a_hundred_at_once(start, hatchet):
    router, origin = front(start, hatchet)
    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda i: json.loads(post(router, "/echo", i).body)["args"], range(120)))
    assert answers == [[i] for i in range(120)] and not origin.requests
    assert len({r["task_id"] for r in router.wait_outcomes(120)}) == 120


def test_a_crowd_takes_turns(start, hatchet, between):
    """An engine that is asked everything at once answers nothing in time: 16 submissions of each thread are under way."""
    router, origin = front(start, hatchet, env=between(), threads=1,
                           backends={"hatchet": {"when_not_ready": "submit", "breaker": "off"}})
    between.proxy.gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(post, router, "/echo", i) for i in range(50)]
        wait_until(lambda: b'migration_in_flight{service="app"} 50' in ask(router.admin_port, request("GET", "/metrics")).body,
                   "all to be in the router")
        wait_until(lambda: between.proxy.posts == 16, "the first to be under way")
        between.proxy.gate.set()
        assert [json.loads(a.result().body)["args"] for a in answers] == [[i] for i in range(50)]
    assert between.proxy.most_posts == 16 and not origin.requests


def test_numbers(start, hatchet):
    """The engine reads them into doubles: what would not come through is legacy's, and nobody sees another number."""
    router, origin = front(start, hatchet)
    answer = post(router, "/echo", b'[9007199254740992, -9007199254740991, 1.5, 1.0, 1e22, "9007199254740993"]', raw=True)
    assert json.loads(answer.body)["args"] == [[9007199254740992, -9007199254740991, 1.5, 1, 1e22, "9007199254740993"]]
    assert post(router, "/echo", b'[{"id": 9007199254740993}]', raw=True).body == b'"legacy"' and len(origin.requests) == 1
    assert "round the number 9007199254740993" in router.wait_event("input_not_taken")["why"]
    assert router.wait_outcomes(2)[-1]["reason"] == "input_not_representable"


def test_the_outputs_of_a_dag_by_task(start, hatchet):
    router, _ = front(start, hatchet)
    answer = post(router, "/pipeline", {"document": "abc"})
    assert json.loads(answer.body) == {"extract-text": {"text": "abc"}, "process-llm": {"summary": "ABC"}}
    assert list(json.loads(answer.body)) == ["extract-text", "process-llm"]


def test_a_single_input_is_the_whole_input(start, hatchet):
    router, origin = front(start, hatchet)
    assert json.loads(post(router, "/object", {"k": [1]}).body) == {"k": [1]}
    assert post(router, "/object", [1]).body == b'"legacy"' and len(origin.requests) == 1
    assert "must be an object" in router.wait_event("task_fell_back")["why"]


def test_an_input_above_four_megabytes_goes_to_legacy(start, hatchet):
    router, origin = front(start, hatchet)
    assert post(router, "/echo", "x" * 4100000).body == b'"legacy"'
    assert router.wait_outcomes(1)[0]["reason"] == "input_too_large" and len(origin.requests) == 1


def test_an_input_below_four_megabytes_is_taken(start, hatchet):
    router, origin = front(start, hatchet)
    assert post(router, "/length", "x" * 3900000).body == b"3900000" and not origin.requests


def test_a_failure_between_two_tries_is_not_believed(start, hatchet):
    router, _ = front(start, hatchet)
    answer = post(router, "/flaky", {})
    assert (answer.status, json.loads(answer.body)) == (200, {"attempt": 2})


def test_a_lost_reply_is_found_again_and_not_executed_twice(start, hatchet, between):
    router, origin = front(start, hatchet, env=between(lose=1))
    answer = post(router, "/echo", {"once": True}, [("X-Request-ID", "lost-" + uuid.uuid4().hex)])
    assert answer.status == 200 and json.loads(answer.body)["args"] == [{"once": True}] and not origin.requests
    row = router.wait_outcomes(1)[0]
    assert hatchet.runs("request_id", row["request_id"]) == [row["task_id"]]


def test_a_request_id_that_is_used_twice_finds_no_other_run(start, hatchet, between):
    """The second is lost on its way to the engine, and nobody knows: it is not sent again, and the first is not taken for it."""
    router, origin = front(start, hatchet, env=between())
    same = [("X-Request-ID", "same-" + uuid.uuid4().hex)]
    assert json.loads(post(router, "/echo", "first", same).body)["args"] == ["first"]
    between.proxy.swallow = True
    assert post(router, "/echo", "second", same).status == 504
    rows = router.wait_outcomes(2)
    assert rows[1]["result"] == "unknown" and not origin.requests
    assert between.proxy.swallowed == 1 and hatchet.runs("request_id", same[0][1]) == [rows[0]["task_id"]]


def test_a_token_that_is_not_accepted_goes_to_legacy(start, hatchet):
    forged = hatchet.environment["HATCHET_CLIENT_TOKEN"].rpartition(".")[0] + ".c2lnbmF0dXJlIG9mIG5vYm9keQ"
    router, _ = front(start, hatchet, env={"HATCHET_CLIENT_TOKEN": forged})
    assert post(router, "/echo", {}).body == b'"legacy"'
    assert "token not accepted" in router.wait_event("task_fell_back")["why"]
    assert forged not in router.log() and forged.split(".")[1] not in router.log()


def checked(start, engine, *arguments):
    """What `check` says in the columns operation, backend, by, reachable, known, worker, missing; and how it ended."""
    router, _ = front(start, engine)
    ended = start.run("migration-router", "check", *arguments, router.config_path, env={"TASK_QUEUE_BACKEND": "hatchet", **engine.environment})
    return ended, {line.split()[0]: line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.")}


def test_check_says_what_is_registered(start, hatchet):
    ended, rows = checked(start, hatchet, "--backends")
    assert ended.returncode == 1 and "1 missing" in ended.stdout, ended.stdout + ended.stderr
    assert rows["app.missing"][3:6] == ["yes", "no", "no"]
    assert 'Hatchet has no workflow "rt_nobody_registered_this_workflow"' in rows["app.missing"][6]
    assert all(row[3:] == ["yes", "yes", "yes", "-"] for name, row in rows.items() if name != "app.missing")


def test_check_runs_a_task_through(start, hatchet):
    ended, _ = checked(start, hatchet, "--test", "app.sum", "--body", '{"a": 2, "b": 3}')
    assert ended.returncode == 0 and "answer     200 application/json\n5\n" in ended.stdout, ended.stdout + ended.stderr


# --- what only the stand-in shows ----------------------------------------------------------------------------------------------

def test_the_message_as_it_is_sent(start, stand_in):
    router, _ = front(start, stand_in)
    post(router, "/echo", {}, [("X-Request-ID", "req-77")])
    sent = json.loads(stand_in.engine.asked("POST", "/trigger")[0][2])
    assert sent.pop("additionalMetadata")["request_id"] == "req-77"
    assert sent == {"workflowName": "rt_echo_workflow", "input": {"args": [{}], "kwargs": {"who": "nobody"}}, "return_only_id": True}


def test_a_workflows_name_is_asked_for_once(start, stand_in):
    router, _ = front(start, stand_in, threads=1)
    for _ in range(3):
        assert post(router, "/echo", {}).status == 200
    # Once by the thread that serves; and perhaps once by the look at what is registered, which has a client of its own.
    assert len(stand_in.engine.asked("GET", r"/workflows\?name=rt_echo_workflow&")) in (1, 2)


def test_an_error_of_the_engine_is_unknown_and_never_legacy(start, stand_in):
    router, origin = front(start, stand_in)
    stand_in.engine.fault("POST", "/trigger", (500, {"message": "Internal Server Error"}))
    assert post(router, "/echo", {}).status == 504
    assert router.wait_outcomes(1)[0]["result"] == "unknown" and not origin.requests
    assert len(stand_in.engine.asked("POST", "/trigger")) == 1
    assert 1 < len(stand_in.engine.asked("GET", "additional_metadata=task_id")) <= 8


@pytest.mark.parametrize("status, body", [(400, {"errors": [{"description": "priority must be between 1 and 3"}]}),
                                          (415, {"message": "Unsupported Media Type"}), (403, None)])
def test_a_refusal_goes_to_legacy(start, stand_in, status, body):
    router, origin = front(start, stand_in)
    stand_in.engine.fault("POST", "/trigger", (status, body))
    assert post(router, "/echo", {}).body == b'"legacy"' and len(origin.requests) == 1
    why = router.wait_event("task_fell_back")["why"]
    assert "token not accepted" in why if status == 403 else str(status) in why


def test_an_engine_that_is_gone_goes_to_legacy(start, stand_in):
    router, origin = front(start, stand_in)
    stand_in.engine.stop()
    assert post(router, "/echo", {}).body == b'"legacy"' and len(origin.requests) == 1
    stand_in.engine.start()
    assert json.loads(post(router, "/echo", 1).body)["args"] == [1]


def test_an_engine_that_is_restarted_in_the_middle(start, stand_in):
    router, origin = front(start, stand_in)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, router, "/slow", {})
        stand_in.engine.wait_run("rt_slow_workflow", "RUNNING")
        stand_in.engine.stop()
        stand_in.release.set()
        stand_in.engine.start()
        assert waiting.result(PATIENCE).body == b'{"slept": 1}'
    assert len(stand_in.engine.of("rt_slow_workflow")) == 1 and not origin.requests


def test_status_errors_are_borne(start, stand_in):
    router, _ = front(start, stand_in)
    stand_in.engine.fault("GET", "/status$", (500, {"message": "Internal Server Error"}), times=2)
    stand_in.engine.fault("GET", "/status$", "cut")
    assert post(router, "/echo", 1).status == 200


def test_without_a_worker_it_waits_and_health_says_so(start, stand_in):
    stand_in.engine.worker = False
    router, _ = front(start, stand_in)

    def told():
        ready = json.loads(ask(router.admin_port, request("GET", "/readyz")).body)
        return next(b for b in ready["backends"] if b["name"] == "hatchet")
    assert "no active worker serves the workflow" in router.wait_event("backend_health", worker="False")["detail"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, router, "/echo", 1)
        stand_in.engine.wait_run("rt_echo_workflow", "QUEUED")
        wait_until(lambda: told().get("backlog") == 1, "the backlog in /readyz")
        stand_in.engine.begin_worker()
        assert waiting.result(PATIENCE).status == 200


def test_an_engine_whose_database_is_down_is_not_reachable(start, stand_in):
    stand_in.engine.ready = False
    router, _ = front(start, stand_in)
    assert "api repository is not healthy" in router.wait_event("backend_health", reachable="False")["detail"]
    assert post(router, "/echo", 1).body == b'"legacy"'


# --- settings --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, said", [
    ("not-a-token", "not a JWT"), ("a.b.c", "not JSON in base64url"), (token("http://127.0.0.1:1", tenant="me"), "sub"),
    (token("http://127.0.0.1:1", expires_in=-60), "expired"), (token(None), "HATCHET_SERVER_URL"), ("", "HATCHET_CLIENT_TOKEN")],
    ids=["text", "dots", "tenant", "expired", "nowhere", "empty"])
def test_a_token_that_cannot_be_used_stops_the_start(start, given, said):
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(c.passing("http://127.0.0.1:%d" % free_port()), file)
    process = Process("migration-router", "--config", path, "--log-format", "json", cwd=os.path.dirname(path),
                      env={"TASK_QUEUE_BACKEND": "hatchet", **({"HATCHET_CLIENT_TOKEN": given} if given else {})})
    assert process.wait() == 2
    why = process.lines[-1]
    assert said in why and "hatchet" in why.lower() and (not given or given not in process.log())


def test_a_token_file_and_another_server(start, stand_in):
    path = os.path.join(start.folder(), "token")
    with open(path, "w", encoding="utf-8") as file:
        file.write(token("http://127.0.0.1:%d" % free_port()) + "\n")
    router, _ = front(start, stand_in, env={"HATCHET_CLIENT_TOKEN": "", "HATCHET_SERVER_URL": stand_in.engine.url + "/"},
                      backends={"hatchet": {"token_file": path}})
    assert post(router, "/echo", 1).status == 200


@pytest.mark.parametrize("name, server", [("HATCHET_TOKEN", "HATCHET_CLIENT_SERVER_URL"), ("HATCHET_CLIENT_TOKEN", "HATCHET_SERVER_URL")])
def test_the_names_of_the_variables(start, stand_in, name, server):
    stand_in.environment = {name: token(None), server: stand_in.engine.url}
    router, _ = front(start, stand_in)
    assert post(router, "/sum", {"a": 1, "b": 1}).body == b"2"


def test_an_engine_that_is_not_there_does_not_touch_the_other_backend(start, stand_in):
    stand_in.engine.stop()
    origin = start.origin()
    origin.answers(200, [], b"legacy")
    operations = {"here": c.operation("POST /here", task("echo", backend="embedded")),
                  "there": c.operation("POST /there", task("rt_echo", backend="hatchet"))}
    config = c.router({"app": c.service(origin, operations)}, backends={**c.embedded(tasks=None), "hatchet": {"when_not_ready": "submit"}})
    router, _ = start.with_worker(config, c.features(c.boolean("task_abstraction_enabled", True)), env=stand_in.environment)
    assert post(router, "/here", "x").body == b'"Echo: x"'
    assert post(router, "/there", "x").body == b"legacy"
    router.wait_event("backend_health", backend="hatchet", reachable="False")
    stand_in.engine.start()
    assert json.loads(post(router, "/there", "x").body)["args"] == ["x"]


# --- the stand-in itself -----------------------------------------------------------------------------------------------------------

def test_the_stand_in_reads_numbers_as_the_engine_did():
    given, taken = recorded(176)["request_body"]["input"], recorded(177)["response_body"]["run"]["input"]["input"]
    assert json.dumps(read(json.dumps(given)), sort_keys=True) == json.dumps(taken)
