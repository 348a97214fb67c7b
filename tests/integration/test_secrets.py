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


# --- by value: whatever the definition gives to what it runs, however it comes back ------------------------------------------

VALUE = 'Xq7"tele\\graph/ö+12&z'  # no name says that it is a secret, no shape gives it away
SHOWN = """
import base64, html, json, os, sys, urllib.parse
v = os.environ["TOK"]
forms = [v, json.dumps(v), json.dumps(json.dumps(v)), ascii(v), repr(v.encode()), urllib.parse.quote(v), urllib.parse.quote_plus(v), html.escape(v),
         base64.b64encode(v.encode()).decode(), base64.urlsafe_b64encode(b"user:" + v.encode()).decode(), v.encode().hex(), v.upper()]
text = "; ".join("<%s>" % form for form in forms)
"""
PATH_KEY, FIELD = "B0-s3gm3nt/n0body-kn0ws", "f13ld-of-a-header"


def leaks(text):
    """What of the secrets is readable in it: half of any form is too much."""
    import base64
    import urllib.parse
    raw = VALUE.encode()
    known = ["tele", "TELE", urllib.parse.quote(VALUE)[:10], base64.b64encode(raw).decode()[:10], raw.hex()[:12],
             base64.urlsafe_b64encode(b"user:" + raw).decode()[8:20], "s3gm3nt", "kn0ws", "f13ld", "header-e", "h1dden"]
    return [one for one in known if one.encode() in text]


@pytest.fixture
def valued(start):
    origin, folder = start.origin(), start.folder()
    python = [sys.executable, "-S", "-E", "-c"]
    env = {"TOK": "${MY_TOK}"}
    tasks = {
        "raises": {"exec": {"argv": [*python, SHOWN + "raise ValueError('refused: ' + text)"], "env": env}},
        "says": {"exec": {"argv": [*python, SHOWN + "sys.exit('refused: ' + text)"], "env": env}},
        "cut": {"exec": {"argv": [*python, SHOWN + "sys.stderr.write((v * 4000)[5:]); sys.exit(4)"], "env": env}},
        "slow": {"exec": {"argv": [*python, SHOWN + "sys.stderr.write(text); sys.stderr.flush(); import time; time.sleep(600)"], "env": env,
                          "timeout": "3s"}},
        "prints": {"exec": {"argv": [*python, SHOWN + "print(text)"], "env": env}},
        "argument": {"exec": {"argv": [*python, "import sys; sys.exit(' '.join(sys.argv[1:]))", "--password", "h1dden-away", "x${MY_TOK}y"]}},
        "hook": {"http": {"url": "http://127.0.0.1:%d/T0/${MY_PATH}" % origin.port, "headers": {"X-Who": "${MY_FIELD}"}}},
        "away": {"http": {"url": "http://127.0.0.1:%d/T0/B0-s3gm3nt/n0body-kn0ws" % free()}},
    }
    with open(str(folder / "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": name, **how} for name, how in tasks.items()]}, file)
    operations = {name: c.operation("POST /" + name, {"name": name, "timeout": "60s", "respond_async": True},
                                    identity={"organization": ["header:X-Organization-Id"]}) for name in tasks}
    env = {"MY_TOK": VALUE, "MY_PATH": PATH_KEY, "MY_FIELD": FIELD}
    world = World.__new__(World)
    world.start, world.origin, world.folder = start, origin, folder
    world.router = start.router(c.router({"app": c.service(origin, operations)}, backends=c.embedded()),
                                c.features(c.boolean("task_abstraction_enabled", True)), folder=str(folder), env=env)
    world.worker = start.worker(world.router, env=env)
    return world


@pytest.mark.parametrize("task, expected", [
    ("raises", "refused: <***>; <"), ("says", "says: exit code 1"), ("cut", "cut: exit code 4"), ("slow", "timed out after 3000 ms"),
    ("prints", "prints: invalid JSON on its standard output"), ("argument", "argument: exit code 1"), ("hook", "hook: HTTP 404"),
    ("away", "away: not reached")])
def test_a_secret_is_hidden_by_its_value(valued, task, expected):
    valued.origin.answers(404, [], b"nothing at /T0/%s for %s, %s" % (PATH_KEY.encode(), FIELD.encode(), FIELD.upper().encode()))
    answer = ask(valued.router.port, request("POST", "/" + task, OWNER, b"{}"))
    told = json.loads(answer.body)
    assert answer.status >= 500 and told["detail"].startswith(expected), told
    logged = valued.worker.wait_event("task_ended", task=task)
    for text in (answer.body, *valued.everything_written()):
        assert leaks(text) == [], text[-1500:]
    if task in ("says", "argument"):
        assert "***" in logged["detail"]
    if task in ("hook", "away"):
        assert "http://127.0.0.1:" in logged["detail"]


def test_texts_with_short_and_everyday_values_stay_readable(start):
    folder = start.folder()
    program = "import sys; sys.exit('1 of 4711: not true in production, cannot reach http://models.internal:9000')"
    env = {"LEVEL": "1", "WITH": "true", "STAGE": "production", "MODELS": "http://models.internal:9000", "NUMBER": "471"}
    with open(str(folder / "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "plain", "exec": {"argv": [sys.executable, "-c", program], "env": env}}]}, file)
    operations = {"plain": c.operation("POST /plain", {"name": "plain", "timeout": "60s"})}
    router = start.router(c.router({"app": c.service(start.origin(), operations)}, backends=c.embedded()),
                          c.features(c.boolean("task_abstraction_enabled", True)), folder=str(folder))
    worker = start.worker(router)
    assert ask(router.port, request("POST", "/plain", OWNER, b"{}")).status == 500
    detail = worker.wait_event("task_ended")["detail"]
    assert "1 of 4711: not true in production, cannot reach http://models.internal:9000" in detail, detail
