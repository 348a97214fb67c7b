"""The guard writes (`guard: {write: true}`): after a breach the percentage is set back where the flags are, and until then the hold stays."""
import json
import os

import pytest

import configuration as c
from http_text import wait_until
from programs import environment, write_atomically
from raw import ask, request
from test_flipt import flipt1, flipt2  # noqa: F401  (fixtures)

FLAG = "task_abstraction_enabled"
BAD = b'{"a": "x", "b": {}}'  # add_numbers fails
WRITES = {"on_breach": "hold", "write": True}


class World:
    """An operation half of whose users go to an embedded worker, where they fail."""

    def __init__(self, start, source=None, guard=None, folder=None, origin=None):
        self.start = start
        self.origin = origin or start.origin()
        self.origin.always(lambda x: x.answer(200, (), b"legacy"))
        self.folder = folder or str(start.folder())
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "add_numbers", "builtin": "add_numbers"}]}, file)
        task = {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}], "timeout": "20s"}
        config = c.router({"app": c.service(self.origin, {"add": c.operation("POST /add", task)})}, backends=c.embedded(),
                          identity={"user": ["header:X-User-Id"]}, guard=guard or WRITES)
        if source:
            config["flags"] = {**source, "poll": "100ms", "stream": False}
        self.config = config
        self.router = start.router(config, None if source else self.flags(50), folder=self.folder)
        self.worker = start.worker(self.router)
        self.users = 0

    @staticmethod
    def flags(percentage):
        return c.features(c.boolean(FLAG, False, percentage))

    @property
    def flags_path(self):
        return os.path.join(self.folder, "flags.yml")

    def write_flags(self, percentage):
        write_atomically(self.flags_path, json.dumps(self.flags(percentage)))

    def percentage(self):
        with open(self.flags_path, encoding="utf-8") as file:
            return json.load(file)["flags"][0]["rollouts"][0]["threshold"]["percentage"]

    def post(self, router=None):
        self.users += 1
        return ask((router or self.router).port, request("POST", "/add", [("X-User-Id", "user-%d" % self.users)], BAD))

    def break_it(self, router=None):
        router = router or self.router
        for _ in range(60):
            if router.find("guard_breach"):
                return
            self.post(router)
        router.wait_event("guard_breach")

    def verdict(self, router=None):
        def told():
            answer = ask((router or self.router).admin_port, request("GET", "/_admin/gate?operation=add"))
            return json.loads(answer.body).get("operations")
        return wait_until(told, "a verdict")[0]

    def writes(self, router=None):
        return json.loads(ask((router or self.router).admin_port, request("GET", "/readyz")).body)["guard_writes"]

    def wait_released(self, router=None):
        return wait_until(lambda: (lambda v: v if not v["held"] else None)(self.verdict(router)), "the hold to end")

    def history(self):
        path = os.path.join(self.folder, "data", "rollouts.jsonl")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def percentage_of(flipt):
    def threshold(flag):
        return flag["rollouts"][0]["threshold"]["percentage"]
    space = flipt.standin.namespaces[flipt.namespace]
    return threshold(space["flags"][FLAG])


def test_after_a_breach_the_file_says_0_and_the_history_says_why(start):
    w = World(start)
    w.break_it()
    w.router.wait_event("moved", who="guard", flag=FLAG, result="done")
    assert w.percentage() == 0
    told = w.wait_released()
    assert told["epoch"] == 2 and told["began_because"] == "the split changed"
    line, = w.history()
    assert (line["who"], line["command"], line["from"], line["to"], line["result"]) == ("guard", "set", 50, 0, "done")
    assert line["message"].startswith("breach of app.add: ") and line["evidence"]["operations"][0]["verdict"] == "breach"
    assert line["evidence"]["guard"]["kinds"]["failure"]["bad_entities"]["task"] >= 7
    shown = start.run("migration-rollout", "--config", w.router.config_path, "history")
    assert "guard" in shown.stdout and "breach of app.add" in shown.stdout
    event = wait_until(lambda: w.router.query("SELECT who, what FROM events WHERE kind = 'move'"), "the event")[0]
    assert event["who"] == "guard" and event["what"] == "set %s to 0 %%" % FLAG
    assert [w.post().body for _ in range(20)] == [b"legacy"] * 20
    assert w.writes() == [] and len(w.history()) == 1


def test_without_write_the_file_stays_as_it_is(start):
    w = World(start, guard={"on_breach": "hold"})
    w.break_it()
    wait_until(lambda: w.verdict()["held"], "the hold")
    assert w.writes() == [] and w.percentage() == 50 and w.history() == []
    w.config["guard"] = WRITES  # allowed after all
    w.router.write_config(w.config)
    w.router.signal(1)
    w.wait_released()
    assert w.percentage() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_after_a_breach_flipt_says_0(start, request, version):
    flipt = request.getfixturevalue("flipt%d" % version)
    flipt.load(World.flags(50))
    w = World(start, source=flipt.source())
    w.break_it()
    w.router.wait_event("moved", who="guard", result="done")
    w.wait_released()
    line, = w.history()
    assert (line["from"], line["to"], line["who"]) == (50, 0, "guard")
    assert len(flipt.between.writes) == 1


def test_without_permission_the_hold_stays_and_it_is_tried_again(start, flipt2):  # noqa: F811
    flipt2.load(World.flags(50))
    flipt2.between.read_only = True
    w = World(start, source=flipt2.source())
    w.break_it()
    failed = w.router.wait_event("guard_write_failed", service="app", operation="add")
    assert "read-only" in failed["error"] and failed["effect"].startswith("the hold stays")
    wait_until(lambda: len(flipt2.between.writes) >= 3, "it to be tried again")
    assert w.verdict()["held"] and [w.post().body for _ in range(20)] == [b"legacy"] * 20
    state, = w.writes()
    assert state["state"] == "failing" and "read-only" in state["error"]
    assert len(w.router.find("guard_write_failed")) == 1, "the same is not told again and again"
    assert w.router.query("SELECT count(*) AS n FROM events WHERE kind = 'move' AND who = 'guard'")[0]["n"] == 1
    flipt2.between.read_only = False
    w.wait_released()
    assert w.history()[-1]["result"] == "done"


def test_an_unreachable_flipt_is_written_to_when_it_is_back(start, flipt2):  # noqa: F811
    flipt2.load(World.flags(50))
    w = World(start, source=flipt2.source())
    wait_until(lambda: w.verdict() is not None, "the guard")
    for _ in range(3):
        w.post()
    flipt2.between.stop()
    w.break_it()
    w.router.wait_event("guard_write_failed")
    assert w.verdict()["held"]
    flipt2.between.start()
    w.wait_released()
    assert w.history()[-1]["result"] == "done"


def test_a_lost_answer_of_flipt_is_found_out(start, flipt2):  # noqa: F811
    flipt2.load(World.flags(50))
    flipt2.between.cut_at = 1
    w = World(start, source=flipt2.source())
    w.break_it()
    w.wait_released()
    wait_until(lambda: [line["result"] for line in w.history()] == ["done"], "one line in the history")


def test_a_file_that_cannot_be_read_is_written_when_it_is_back(start):
    w = World(start)
    w.post()
    away = w.flags_path + ".away"
    os.rename(w.flags_path, away)
    w.break_it()
    assert "No such file" in w.router.wait_event("guard_write_failed")["error"]
    assert w.verdict()["held"] and w.history() == []
    os.rename(away, w.flags_path)
    w.wait_released()
    assert w.percentage() == 0 and len(w.history()) == 1


def test_what_someone_has_set_in_the_meantime_stays(start):
    w = World(start)
    w.post()
    os.rename(w.flags_path, w.flags_path + ".away")
    w.break_it()
    w.router.wait_event("guard_write_failed")
    w.write_flags(10)
    w.wait_released()  # by the change: another split
    wait_until(lambda: w.writes() == [], "nothing to be wanted any more")
    assert w.percentage() == 10 and w.history() == []


def test_a_hold_from_before_a_kill_is_taken_up(start):
    w = World(start)
    w.post()
    away = w.flags_path + ".away"
    os.rename(w.flags_path, away)
    w.break_it()
    w.router.wait_event("guard_write_failed")
    w.router.kill()
    os.rename(away, w.flags_path)
    again = start.router(w.config, None, folder=w.folder)
    again.wait_event("moved", who="guard", result="done")
    w.wait_released(again)
    assert w.percentage() == 0 and len(w.history()) == 1


def test_of_two_replicas_one_writes(start):
    one = World(start)
    shared = one.flags_path
    two = World(start, source={"file": shared}, origin=one.origin)
    two.config["flags"].pop("stream", None)
    for n in range(60):
        one.post()
        two.users = one.users
        two.post()
        if one.router.find("guard_breach") and two.router.find("guard_breach"):
            break
    one.wait_released()
    two.wait_released()
    assert one.percentage() == 0
    lines = one.history() + two.history()
    assert [line["result"] for line in lines] == ["done"], lines


def test_in_a_takeover_the_new_process_writes_and_once(start):
    w = World(start)
    w.post()
    away = w.flags_path + ".away"
    os.rename(w.flags_path, away)
    w.break_it()
    w.router.wait_event("guard_write_failed")
    os.rename(away, w.flags_path)
    os.rename(w.flags_path, away)
    new = start.process("migration-router", "--config", w.router.config_path, "--log-format", "json", "--takeover", cwd=w.folder, env=environment())
    new.wait_event("took_over")
    os.rename(away, w.flags_path)
    new.wait_event("moved", who="guard", result="done")
    assert w.percentage() == 0 and len(w.history()) == 1 and not w.router.find("moved")
    w.router.signal(15)
    w.router.wait()


def test_write_without_a_hold_is_refused_by_name(start):
    w = World(start)
    w.config["guard"] = {"on_breach": "watch", "write": True}
    w.router.write_config(w.config)
    told = start.run("migration-router", "check", w.router.config_path)
    assert told.returncode != 0 and "guard.write" in told.stdout + told.stderr and "on_breach" in told.stdout + told.stderr
