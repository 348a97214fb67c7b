"""A task's error of any length leaves a whole document: long texts are cut at a character, NULs are escaped."""
import json
import os
import sys

import pytest

import configuration as c
from http_text import wait_until
from raw import ask, request

RAISES = "import json, sys; n, unit = json.load(sys.stdin)['args']; raise ValueError(unit * n)"
OWNER = [("X-Organization-Id", "org-1")]


@pytest.fixture
def world(start):
    folder = str(start.folder())
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "raises", "exec": {"argv": [sys.executable, "-X", "utf8", "-c", RAISES]}}]}, file)
    args = {"name": "raises", "args": {"$ref": "body:"}, "timeout": "30s", "respond_async": True}
    old_shape = {"status": 500, "body": {"error": {"$ref": "error:detail"}}}
    identity = {"organization": ["header:X-Organization-Id"]}
    operations = {"plain": c.operation("POST /plain", args, identity=identity), "old": c.operation("POST /old", args, identity=identity, error=old_shape)}
    router = start.router(c.router({"app": c.service(start.origin(), operations)}, backends=c.embedded()),
                          c.features(c.boolean("task_abstraction_enabled", True)), folder=folder)
    start.worker(router)
    return router


@pytest.mark.parametrize("unit", ("x", "\u00e9\U0001f600", "\"\\\n", "\x00\x9b"))
@pytest.mark.parametrize("n", (1, 300, 4096, 15000, 65536, 200000, 1 << 20))
def test_of_any_length(world, n, unit):
    body = json.dumps([n // len(unit.encode()) + 1, unit]).encode()
    for path in ("/plain", "/old"):
        answer = ask(world.port, request("POST", path, OWNER, body))
        told = json.loads(answer.body)
        said = told["detail" if path == "/plain" else "error"]
        assert answer.status == 500 and len(said) > 0
        if n >= 65536:
            assert len(said.encode()) < 40000
    accepted = ask(world.port, request("POST", "/plain", [*OWNER, ("Prefer", "respond-async")], body))

    def ended():
        state = json.loads(ask(world.port, request("GET", accepted.get("Location"), OWNER)).body)
        return state if state["status"] == "failed" else None
    assert wait_until(ended, "the task to end")["error"]
