"""A backend of the tests' own (tests/support/parrot_backend.c): one file and one row, and everything that the others have works.

Its router is migration-router with that row more (tests/meson.build).
"""
import concurrent.futures
import glob
import json
import os

import pytest

import configuration as c
from conftest import Started
from programs import ROOT
from raw import ask, request

ROUTER = "migration-router-parrot"
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))


def operations():
    def task(name, **more):
        return c.operation("POST /" + name, {"name": name, "args": {"$ref": "body:/args"}, "timeout": "2s", **more})
    names = ("add_numbers", "give_back", "give_size", "fail", "unheard_of")
    return {**{name: task(name) for name in names},
            "never": task("never", respond_async=True), "simulate_work": task("simulate_work", respond_async=True)}


def configured(start, settings, **sections):
    return c.router({"app": c.service(start.origin(), operations())}, identity=c.IDENTITY, backend="parrot",
                    backends={"parrot": {"when_not_ready": "submit", **settings}}, **sections)


def check(start, settings, *arguments, env=None):
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(configured(start, settings), file, indent=1)
    return path, start.run(ROUTER, "check", path, *arguments, env=env)


def post(router, path, args, **fields):
    named = [("X-User-Id", "u"), ("Content-Type", "application/json")] + [(n.replace("_", "-"), v) for n, v in fields.items()]
    body = args if isinstance(args, bytes) else json.dumps({"args": args}, ensure_ascii=False).encode()
    return ask(router.port, request("POST", path, named, body))


def state(router, location, method="GET"):
    answer = ask(router.port, request(method, location, [("X-User-Id", "u")]))
    return json.loads(answer.body)["status"] if method == "GET" else answer.status


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    started = Started(tmp_path_factory)
    yield started.router(configured(started, {"silent": "never"}), FLAGS, name=ROUTER)
    started.end()


def test_its_name_is_nowhere_else():
    """One file, one row: no place in the programs' sources knows it, and two of the tests' do beside this one."""
    files = [f for pattern in ("src/**", "tests/**", "meson*") for f in glob.glob(os.path.join(ROOT, pattern), recursive=True)
             if f.endswith((".c", ".h", ".py", "meson.build", "meson_options.txt"))]
    assert len(files) > 200, "the sources are there"
    naming = set()
    for name in files:
        with open(name, encoding="utf-8") as file:
            if "parrot" in file.read().lower():
                naming.add(os.path.relpath(name, ROOT))
    assert naming == {"tests/support/parrot_backend.c", "tests/meson.build", "tests/integration/test_new_backend.py"}


def test_the_build_says_that_it_has_it(start):
    assert start.run(ROUTER, "--version").stdout.splitlines()[1].endswith(", parrot")
    assert "parrot" not in start.run("migration-router", "--version").stdout
    ended = start.run("migration-router", "check", check(start, {})[0])
    assert ended.returncode == 2 and 'there is no backend "parrot"; available: embedded' in ended.stderr


def test_registration_is_checked(start):
    _, ended = check(start, {"silent": ["never", "other"]}, "--backends")
    rows = {line.split()[0]: line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.")}
    assert len(rows) == len(operations()) and ended.returncode == 1 and "1 missing" in ended.stdout, ended.stdout + ended.stderr
    assert rows["app.give_back"][1:] == ["parrot", "default", "yes", "yes", "yes", "-"]
    assert rows["app.never"][4] == "yes", "a list of the settings is read"
    assert rows["app.unheard_of"][4:] == ["no", "yes", "the parrot has never heard of it"]


def test_one_task_is_run_through(start):
    _, ended = check(start, {}, "--test", "app.give_back", "--body", '{"args": [9007199254740993]}')
    assert ended.returncode == 0 and ended.stdout.endswith("answer     200 application/json\n9007199254740993\n"), ended.stdout


@pytest.mark.parametrize("settings, where, said", [
    ({"dealy": "1s"}, "dealy", 'unknown key; did you mean "delay"?'),
    ({"colour": "red"}, "colour", "unknown key; known here: delay, silent, fail_fast, when_not_ready, breaker, max_in_flight"),
    ({"delay": "soon"}, "delay", "expected a duration up to 1m"),
    ({"delay": {"a": 1}}, "delay", "expected a single value or a list"),
])
def test_a_wrong_setting_is_named_with_its_line(start, settings, where, said):
    path, ended = check(start, settings)
    with open(path, encoding="utf-8") as file:
        line = 1 + next(i for i, text in enumerate(file) if '"%s"' % where in text)
    assert ended.returncode == 2 and "%s:%d: backends.parrot.%s: %s\n" % (path, line, where, said) in ended.stderr


def test_its_variable_wins_over_the_file(start):
    _, ended = check(start, {"delay": "1s"}, env={"PARROT_DELAY": "soon"})
    assert ended.returncode == 2 and ended.stderr.endswith("environment: PARROT_DELAY: expected a duration up to 1m\n")
    slow = start.router(configured(start, {"delay": "1ms"}), FLAGS, env={"PARROT_DELAY": "1m"}, name=ROUTER)
    assert post(slow, "/give_back", [1]).status == 504, "a task takes a minute now, its caller waits for two seconds"


def test_one_variable_switches_to_it(start):
    config = c.router({"app": c.service(start.origin(), operations())}, identity=c.IDENTITY, backends={"embedded": {}})
    switched = start.router(config, FLAGS, env={"TASK_QUEUE_BACKEND": "parrot"}, name=ROUTER)
    assert post(switched, "/give_back", ["x"]).body == b'"x"'
    assert switched.wait_outcomes(1)[0]["backend"] == "parrot"


def test_what_nobody_knows_is_logged(router):
    event = router.wait_event("registration_missing", backend="parrot")
    assert (event["operation"], event["missing"]) == ("unheard_of", "the parrot has never heard of it")


# --- what a caller may expect of every backend ---------------------------------------------------------------------------

def test_result_and_outcome(router):
    answer = post(router, "/add_numbers", [2, 3], X_Request_ID="sum")
    assert (answer.status, answer.body) == (200, b"5")
    row = router.wait_outcomes(1, "request_id = 'sum'")[0]
    assert (row["side"], row["result"], row["backend"]) == ("task", "success", "parrot")


def test_failure_and_what_nobody_knows(router):
    failed, unheard = post(router, "/fail", ["the model is away"]), post(router, "/unheard_of", [])
    assert failed.status == unheard.status == 500
    assert "the model is away" in json.loads(failed.body)["detail"] and "unheard_of" in json.loads(unheard.body)["detail"]


@pytest.mark.parametrize("text", ["9007199254740993", "1.0", "-0.5", '"\u00e9😀 \\u0000\\n"', '{"\u043a":["\u5024",null]}'])
def test_values_arrive_as_they_were_sent(router, text):
    assert post(router, "/give_back", ('{"args":[%s]}' % text).encode()).body == text.encode()


def test_large_input(router):
    assert post(router, "/give_size", ["x" * (1 << 20)]).body == b"1048576"


def test_time_limit(router):
    assert post(router, "/never", [], X_Request_ID="late").status == 504
    assert router.wait_outcomes(1, "request_id = 'late'")[0]["result"] == "timeout"


def test_states_and_cancellation(router):
    location = post(router, "/never", [], Prefer="respond-async").get("Location")
    assert state(router, location) == "running"
    assert state(router, location, "DELETE") in (200, 202, 204)
    assert state(router, location) == "failed"
    location = post(router, "/simulate_work", [0], Prefer="respond-async").get("Location")
    assert state(router, location) == "completed"


def test_a_thousand_at_once(router):
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: post(router, "/add_numbers", [n, 1]), range(1000)))
    assert [(a.status, a.body) for a in answers] == [(200, b"%d" % (n + 1)) for n in range(1000)]
