"""A backend of the tests' own (tests/support/parrot_backend.c): one file and one row, and everything that the others have works.

Its router is migration-router with that row more (tests/meson.build).
"""
import functools
import glob
import json
import os

import pytest

import configuration as c
from conftest import Started
from programs import ROOT
from raw import ask, request
# The contract that it can keep, against the `world` below.
from test_contract import (World, test_a_task_that_nobody_knows_is_no_success, test_asynchronous_and_its_states,  # noqa: F401
                           test_failure_tells_the_real_message, test_large_input, test_numbers, test_result,
                           test_the_same_request_id_twice_is_two_requests, test_time_limit, test_two_hundred_at_once, test_unicode)

ROUTER = "migration-router-parrot"
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))


class Parrot:
    name = "parrot"

    def __init__(self, _start, _tmp, _worker):
        self.env = {}

    def begin(self, router):
        pass

    def stop(self):
        pass


class StartedWithParrot(Started):
    router = functools.partialmethod(Started.router, name=ROUTER)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    started = StartedWithParrot(tmp_path_factory)
    yield World(started, tmp_path_factory.mktemp("engine"), Parrot)
    started.end()


def operations():
    def echoing(name, **more):
        return c.operation("POST /" + name, {"name": name, "args": {"$ref": "body:/args"}, "timeout": "2s", **more})
    return {name: echoing(name) for name in ("give_back", "unheard_of")} | {"never": echoing("never", respond_async=True)}


def configured(start, settings, **sections):
    return c.router({"app": c.service(start.origin(), operations())}, identity=c.IDENTITY, backend="parrot",
                    backends={"parrot": settings}, **sections)


def check(start, settings, *arguments, env=None):
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(configured(start, settings), file, indent=1)
    return path, start.run(ROUTER, "check", path, *arguments, env=env)


def post(router, path, args, **fields):
    named = [("X-User-Id", "u"), ("Content-Type", "application/json")] + [(n.replace("_", "-"), v) for n, v in fields.items()]
    return ask(router.port, request("POST", path, named, json.dumps({"args": args}).encode()))


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
    assert ended.returncode == 2 and 'there is no backend "parrot"; there are: embedded' in ended.stderr


def test_registration_is_checked(start):
    _, ended = check(start, {"silent": ["never", "other"]}, "--backends")
    rows = {line.split()[0]: line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.")}
    assert ended.returncode == 1 and "1 missing" in ended.stdout, ended.stdout + ended.stderr
    assert rows["app.give_back"][1:] == ["parrot", "default", "yes", "yes", "yes", "-"]
    assert rows["app.never"][4] == "yes", "a list of the settings is read"
    assert rows["app.unheard_of"][4:] == ["no", "yes", "the parrot has never heard of it"]


def test_one_task_is_run_through(start):
    _, ended = check(start, {}, "--test", "app.give_back", "--body", '{"args": [9007199254740993]}')
    assert ended.returncode == 0 and ended.stdout.endswith("answer     200 application/json\n9007199254740993\n"), ended.stdout


@pytest.mark.parametrize("settings, where, said", [
    ({"dealy": "1s"}, "dealy", 'unknown key; did you mean "delay"?'),
    ({"colour": "red"}, "colour", "unknown key; known here: delay, silent, fail_fast"),
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
    router = start.router(configured(start, {"delay": "1ms"}), FLAGS, env={"PARROT_DELAY": "1m"}, name=ROUTER)
    assert post(router, "/give_back", [1]).status == 504, "a task takes a minute now, its caller waits for two seconds"


def test_one_variable_switches_to_it(start):
    config = c.router({"app": c.service(start.origin(), operations())}, identity=c.IDENTITY, backends={"embedded": {}})
    router = start.router(config, FLAGS, env={"TASK_QUEUE_BACKEND": "parrot"}, name=ROUTER)
    assert post(router, "/give_back", ["x"]).body == b'"x"'
    assert router.wait_outcomes(1)[0]["backend"] == "parrot"


def test_a_task_that_never_ends_can_be_cancelled(start):
    router = start.router(configured(start, {"silent": "never"}), FLAGS, name=ROUTER)
    location = post(router, "/never", [], Prefer="respond-async").get("Location")

    def state(method="GET"):
        return ask(router.port, request(method, location, [("X-User-Id", "u")]))
    assert json.loads(state().body)["status"] == "running"
    assert state("DELETE").status in (200, 202, 204)
    assert json.loads(state().body)["status"] == "failed"


def test_readiness_names_what_nobody_knows(start):
    config = configured(start, {"silent": "never"}, fail_fast=False)
    router = start.router(config, FLAGS, name=ROUTER)
    event = router.wait_event("registration_missing", backend="parrot")
    assert (event["operation"], event["missing"]) == ("unheard_of", "the parrot has never heard of it")
