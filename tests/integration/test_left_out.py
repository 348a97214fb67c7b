"""A build that has not all backends (-Dbackends=…): it says so wherever one that is left out is named, and nothing takes its place.

scripts/test runs this on a build of its own.
"""
import json
import os
import subprocess

import pytest

import configuration as c
from programs import backends_built, program
from raw import ask, request

LEFT_OUT = [name for name in ("celery", "temporal", "hatchet") if name not in backends_built()]
if not LEFT_OUT:
    pytest.skip("no backend is left out of this build", allow_module_level=True)
HAS = ", ".join(backends_built())


def check(start, env=None, **sections):
    config = c.router({"app": c.service("http://127.0.0.1:9", {"a": c.operation("POST /a", {"name": "echo"})})}, identity=c.IDENTITY,
                      **{"backends": c.embedded(None), **sections})
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return start.run("migration-router", "check", path, env=env)


def test_the_others_work(start):
    assert check(start).returncode == 0


@pytest.mark.parametrize("name", LEFT_OUT)
def test_naming_it_is_an_error_that_says_so(start, name):
    said = 'the backend "%s" is not part of this build, which has: %s\n' % (name, HAS)
    for place, told in (
            ("backends.%s: " % name, check(start, backends={name: {}, **c.embedded(None)})),
            (":1: backend: ", check(start, backend=name)),
            ("environment: TASK_QUEUE_BACKEND: ", check(start, env={"TASK_QUEUE_BACKEND": name})),
            ("environment: TASK_BACKEND_TYPE: ", check(start, env={"TASK_BACKEND_TYPE": name}))):
        assert told.returncode == 2 and place + said in told.stderr, told.stderr
    worker = start.run("task-backend-worker", "--backend", name)
    assert worker.returncode == 2 and said.rstrip() in worker.stderr


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_variant_that_names_it_does_not_mean_the_default_backend(start, name):
    origin = start.origin()
    origin.answers(200, [], b"legacy")
    config = c.router({"app": c.service(origin, {"a": c.operation("POST /a", {"name": "echo"}, flags=["where"])})}, identity=c.IDENTITY,
                      backends=c.embedded(None))
    router = start.router(config, c.features(c.variants("where", **{name: 100}), segments=[c.everybody()]))
    assert ask(router.port, request("POST", "/a", [("X-User-Id", "u")], b"{}")).body == b"legacy"


@pytest.mark.skipif("celery" not in LEFT_OUT, reason="this build has the celery backend")
def test_its_library_is_not_linked():
    """By the worker; the router may share its state in a Redis, whatever its backends are."""
    linked = subprocess.run(["ldd", program("task-backend-worker")], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "libuv" in linked.stdout and "hiredis" not in linked.stdout
