"""An error has two texts: callers are told the task and the kind of failure, operators where and how; secrets stand in neither."""
import json
import os
import socket
import sys

import pytest

import configuration as c
from http_text import wait_until
from raw import ask, request

KEY = "S3CRET-of-the-api"
OWNER = [("X-Organization-Id", "org-1")]
SAYS = "import sys, os; sys.stderr.write(%r %% os.environ['API_KEY']); %s"
URL = "http://127.0.0.1:%d/v1/models?key=${API_KEY}&alt=json"


def free():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class World:
    def __init__(self, start):
        self.start, self.origin, self.folder = start, start.origin(), start.folder()
        api = {"url": URL % self.origin.port, "headers": {"Authorization": "Bearer ${API_KEY}"}}
        program = {"env": {"API_KEY": "${API_KEY}"}}
        tasks = {
            "busy": {"http": api},
            "away": {"http": {**api, "url": URL % free()}},
            "strange": {"http": {**api, "result": "/nothing/here"}},
            "shouts": {"exec": {"argv": [sys.executable, "-c", SAYS % ("cannot log in with %s at /srv/private/db\n", "sys.exit(3)")], **program}},
            "raises": {"exec": {"argv": [sys.executable, "-c", SAYS % (
                "at %s\n", "raise ValueError('no page 7 at https://x.test/?token=' + os.environ['API_KEY'])")], **program}},
            "absent": {"exec": {"argv": ["/srv/private/no-such-program"]}},
        }
        with open(str(self.folder / "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": name, **how} for name, how in tasks.items()]}, file)
        operations = {name: c.operation("POST /" + name, {"name": name, "timeout": "30s", "respond_async": True},
                                        identity={"organization": ["header:X-Organization-Id"]}) for name in tasks}
        env = {"API_KEY": KEY}
        self.router = start.router(c.router({"app": c.service(self.origin, operations)}, backends=c.embedded()),
                                   c.features(c.boolean("task_abstraction_enabled", True)), folder=str(self.folder), env=env)
        self.worker = start.worker(self.router, env=env)

    def everything_written(self):
        """The logs, and all files of the data folder."""
        yield self.router.log().encode()
        yield self.worker.log().encode()
        data = os.path.join(str(self.folder), "data")
        for name in os.listdir(data):
            if os.path.isfile(os.path.join(data, name)):
                with open(os.path.join(data, name), "rb") as file:
                    yield file.read()


@pytest.fixture
def world(start):
    return World(start)


CASES = {  # the caller is told; the operator finds
    "busy": ("busy: HTTP 429", "127.0.0.1"),
    "away": ("away: not reached", "127.0.0.1"),
    "strange": ("strange: its answer has no result", "/nothing/here"),
    "shouts": ("shouts: exit code 3", "/srv/private/db"),
    "raises": ("no page 7 at https://x.test/?token=***", "Traceback"),
    "absent": ("absent: it could not be started", "/srv/private/no-such-program"),
}


@pytest.mark.parametrize("task", CASES)
def test_what_callers_are_told(world, task):
    for_callers, for_operators = CASES[task]
    if task == "strange":
        world.origin.answers(200, [], b"{}")
    else:
        world.origin.answers(429, [], b"quota of key %s is used up, see http://internal.test/" % KEY.encode())
    answer = ask(world.router.port, request("POST", "/" + task, OWNER, b"{}"))
    told = json.loads(answer.body)
    assert answer.status == 500 and told["detail"] == for_callers

    accepted = ask(world.router.port, request("POST", "/" + task, [*OWNER, ("Prefer", "respond-async")], b"{}"))

    def ended():
        state = ask(world.router.port, request("GET", accepted.get("Location"), OWNER))
        return state if json.loads(state.body)["status"] == "failed" else None
    state = wait_until(ended, "the task to end")
    assert json.loads(state.body)["error"] == for_callers

    logged = world.worker.find("task_ended")[0]
    assert for_operators in logged["detail"], logged
    for text in (answer.body, state.body, *world.everything_written()):
        assert b"S3CRET" not in text, text[max(0, text.index(b"S3CRET") - 200):][:300]
    for text in (answer.body, state.body):
        assert b"/srv/private" not in text and b"127.0.0.1" not in text and b"internal.test" not in text
