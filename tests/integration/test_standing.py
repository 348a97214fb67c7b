"""Where the migration stands, in one sentence: the same from the router and from its file, loud when something burns, of now only."""
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios

import pytest

import configuration as c
from http_text import wait_until
from programs import ROOT, environment, free_port, program
from raw import ask, request

ECHO = [sys.executable, "-S", "-E", "-c", "import json, sys; print(json.load(sys.stdin)['kwargs']['n'])"]
FAILS = [sys.executable, "-S", "-E", "-c", "raise SystemExit('no')"]


def timeless(sentence):
    """Without the time at which a window begins: it moves while a test looks twice."""
    return re.sub(r" since \d\d:\d\d UTC", "", sentence)


class World:
    """An operation `create` whose task runs on the embedded backend, an operation without a task, and paths that nobody mapped."""

    def __init__(self, start, percent, argv=ECHO, when_not_ready=None, worker=True, legacy=None, timeout="20s"):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [], b"legacy")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "create", "exec": {"argv": argv}}]}, file)
        create = c.operation("POST /create", {"name": "create", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": timeout}, flags=["orders"],
                             identity=c.IDENTITY)
        health = {"match": "GET /health"}
        backend = {"database": "data/tasks.db", "tasks": "tasks.yml", **({"when_not_ready": when_not_ready} if when_not_ready else {})}
        self.config = c.router({"orders": c.service(legacy or self.origin, {"create": create, "health": health})},
                               backends={"embedded": backend})
        self.router = start.router(self.config, self.flags(percent), folder=self.folder)
        self.worker = start.worker(self.router) if worker else None
        if worker:
            self.wait("a worker", lambda s: s["facts"]["backends"][0]["worker"] and not s["facts"]["operations"][0]["not_ready"])

    @staticmethod
    def flags(percent):
        return c.features(c.boolean("orders", False, percent))

    def call(self, user, n=1):
        return ask(self.router.port, request("POST", "/create", [("X-User-Id", "u%d" % user)], b'{"n": %d}' % n)).status

    def calls(self, n, first=0):
        return [self.call(first + user) for user in range(n)]

    def polls(self, n):
        for number in range(n):
            ask(self.router.port, request("GET", "/health" if number % 2 else "/nobody/mapped/this"))

    def now(self):
        return json.loads(ask(self.router.admin_port, request("GET", "/_admin/standing.json")).body)

    def ready(self):
        return json.loads(ask(self.router.admin_port, request("GET", "/readyz")).body)

    def wait(self, what, fits):
        """The standing once it fits."""
        return wait_until(lambda: (lambda s: s if fits(s) else None)(self.now()), what)

    def set(self, percent):
        self.router.write_flags(self.flags(percent))
        self.wait("%s %% to be set" % percent, lambda s: s["operations"][0]["set"] == percent)

    def status(self, *arguments, codes=(0,)):
        told = self.start.run("migration-status", "--db", self.router.outcomes_path, *arguments)
        assert told.returncode in codes, told
        return told.stdout

    def events(self, kind):
        return self.router.query("SELECT * FROM events WHERE kind = ? ORDER BY id", kind)

    def check_stop(self, *words):
        """The router, /readyz and whoever reads the file say it, with these words."""
        said = self.wait("a stop with %s" % (words,), lambda s: s["level"] == "stop" and all(w in s["sentence"] for w in words))
        assert said["sentence"].startswith("STOP: ")
        wait_until(lambda: self.status().splitlines()[0] == self.now()["sentence"], "the file to say the same sentence")
        ready = wait_until(lambda: (lambda r: r if r["standing"]["level"] == "stop" else None)(self.ready()), "/readyz to know it")
        assert ready["status"] == "degraded" and any("see standing" in m for m in ready["missing"])
        return said


def test_a_worker_that_stopped_with_everybody_on_it_is_a_stop(start):
    w = World(start, 100)
    assert w.calls(5) == [200] * 5
    w.router.wait_outcomes(5)
    w.router.wait_worker()
    gate = ["migration-status", "--db", w.router.outcomes_path, "--gate", "--no-guard", "--min-executions", "3"]
    assert start.run(*gate).returncode == 0
    w.worker.stop()
    said = w.check_stop("embedded has no worker since ", "orders.create (100 % set)")
    assert said["command"].startswith("migration-router check --backends ")
    for only in ([], ["--operation", "create"]):
        judged = start.run(*gate, *only)
        assert judged.returncode == 3 and "Gate: not enough data: " in judged.stdout, judged.stdout
    assert start.run(*gate, "--operation", "health").returncode == 3, "which nobody has moved"
    assert {e["backend"] for e in w.events("backend_gone")} == {"embedded"}
    gone, back = len(w.events("backend_gone")), len(w.events("backend_back"))
    w.worker = start.worker(w.router)
    w.wait("calm", lambda s: s["level"] == "ok")
    wait_until(lambda: len(w.events("backend_back")) == back + 1, "its return to be an event")
    assert len(w.events("backend_gone")) == gone


def test_a_worker_that_stopped_where_tasks_are_submitted_anyway_is_a_stop_with_the_way_back(start):
    w = World(start, 100, when_not_ready="submit", timeout="300ms")
    w.worker.stop()
    assert set(w.calls(5)) == {504}
    w.router.wait_outcomes(5)
    said = w.check_stop("embedded has no worker since ", "5 tasks of orders.create (100 % set) failed or timed out")
    assert said["command"].endswith("rollback orders")


def test_tasks_that_all_fail_are_a_stop(start):
    w = World(start, 100, argv=FAILS)
    w.calls(49)
    w.router.wait_outcomes(49)
    said = w.check_stop("orders.create: 49 of 49 tasks failed since ", "100 % set")
    assert said["command"].endswith("rollback orders") and w.router.config_path in said["command"]
    assert said["operations"][0]["verdict"] == "tasks failing"


def test_legacy_that_is_gone_is_a_stop(start):
    w = World(start, 0, legacy="http://127.0.0.1:%d" % free_port())
    assert set(w.calls(30)) == {502}
    w.router.wait_outcomes(30)
    said = w.check_stop("legacy orders is gone since ", "refused", "all 30 calls failed in the last 15 minutes")
    assert said["command"].startswith("curl -i http://127.0.0.1:")
    assert [e["service"] for e in w.events("legacy_gone")] == ["orders"]


def test_a_broken_flags_file_is_a_stop(start):
    w = World(start, 25)
    w.calls(20)
    with open(w.router.flags_path, "w", encoding="utf-8") as file:
        file.write("flags: [unclosed\n")
    said = w.check_stop("flags cannot be read since ", "flags.yml:")
    assert said["command"].startswith("migration-router check ")
    assert w.events("flags_failing") and said["operations"][0]["set"] == 25
    w.router.write_flags(w.flags(25))
    w.wait("calm", lambda s: s["level"] in ("ok", "empty"))
    wait_until(lambda: w.events("flags_back"), "its recovery to be an event")


def test_what_cannot_move_is_in_no_percentage(start):
    """After 100 % was set, polls and unknown paths made it look like 34 %."""
    w = World(start, 0)
    w.calls(10)
    w.polls(20)
    w.set(100)
    assert w.calls(15, first=100) == [200] * 15
    w.polls(10)
    w.router.wait_outcomes(55)
    said = w.wait("what was recorded", lambda s: s["executions"] == 15)
    assert (said["set"], said["measured"]) == (100, 100), "what was before it was set is no part of it"
    assert "100 % set, 100 % measured" in said["sentence"]
    assert said["left_out"] == 30 and said["without_task"] == 1 and "30 answers" in said["others"]
    text = w.status()
    assert timeless(text.splitlines()[0]) == timeless(said["sentence"])
    assert "\nTotal Executions: 25\n" in text, "the rest of the report is of its own span"
    assert "Left out, as they cannot move: 30 answers; 1 operation without a task; 15 of unknown paths." in text
    moved, = w.events("percent")
    assert (moved["operation"], moved["before_permyriad"], moved["after_permyriad"]) == ("create", 0, 10000)


def test_what_is_set_stands_beside_what_is_measured(start):
    w = World(start, 25)
    w.calls(60)
    w.router.wait_outcomes(60)
    said = w.wait("what was recorded", lambda s: s["executions"] == 60)
    of = w.router.query("SELECT count(*) AS n FROM attempts WHERE side = 'task'")[0]["n"]
    assert said["operations"][0]["set"] == 25 and said["measured"] == pytest.approx(of / 60 * 100, abs=1e-3)
    assert re.match(r"orders.create: 25 % set, [\d.]+ % measured, .*; next: 50 %, once it is safe$", said["sentence"]), said["sentence"]
    assert said["command"] == "migration-status --gate"


def test_a_router_that_has_gone_silent_is_a_stop(start):
    w = World(start, 25)
    w.calls(20)
    wait_until(lambda: w.router.query("SELECT 1 FROM standing"), "the first report")
    w.router.stop()
    assert w.status().splitlines()[0].startswith("STOP: the router was stopped at ")
    assert w.events("stop") and w.events("start")


def test_nothing_is_not_well(start):
    w = World(start, 0, worker=False)
    said = w.wait("facts", lambda s: s["facts"])
    assert said["level"] in ("empty", "watch") and said["measured"] is None


def test_the_door_wants_no_parameters(start):
    w = World(start, 0, worker=False)
    assert ask(w.router.admin_port, request("GET", "/_admin/standing.json?since=1h")).status == 400


# --- migration-status --------------------------------------------------------------------------------------------------

def on_terminal(arguments, columns, rows, until=None, env=None):
    """What migration-status writes to a terminal of that size: to its end, or until that has come."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(environment({"TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})}))
        while fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)[:2] == b"\0\0":
            os.sched_yield()
        os.execv(program("migration-status"), ["migration-status", *map(str, arguments)])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    told = b""
    try:
        while not until or not until(told.decode("utf-8", "replace")):
            more = os.read(fd, 65536)
            if not more:
                break
            told += more
    except OSError:  # the terminal's other end is closed
        pass
    if until:
        os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    os.close(fd)
    return told.decode().replace("\r\n", "\n")


def test_a_terminal_gets_color_no_line_that_is_wider_than_it_and_the_headline_while_watched(start):
    w = World(start, 100, argv=FAILS)
    w.calls(10)
    w.router.wait_outcomes(10)
    w.check_stop("10 of 10 tasks failed")
    told = on_terminal(["--db", w.router.outcomes_path], 80, 50)
    assert told.startswith("\033[1;31mSTOP: "), told
    plain = re.sub("\033\\[[0-9;]*m", "", told)
    assert max(map(len, plain.splitlines())) <= 80, plain
    assert re.search(r"^orders\.create +100\.0% +100\.0%  tasks failing +█+$", plain, re.M), plain
    assert "\033" not in on_terminal(["--db", w.router.outcomes_path], 80, 50, env={"NO_COLOR": "1"})
    assert "\033" not in w.status()
    seen = []

    def until(told):
        screens = told.split("\033[H\033[2J")[1:]
        if len(screens) == 2 and not seen:
            seen.append(screens[0])
            os.rename(w.router.outcomes_path, w.router.outcomes_path + ".away")
        return seen and "cannot be read" in screens[-1]

    w.router.stop()
    told = on_terminal(["--db", w.router.outcomes_path, "--watch=1"], 80, 12, until)
    screen = seen[0].splitlines()
    assert "STOP: the router was stopped" in screen[0] and len(screen) < 12 and "more than fits" in seen[0]
    assert "STOP: what was recorded cannot be read" in told.split("\033[H\033[2J")[-1], "and not the last good report"


def test_an_option_given_twice_is_never_silently_the_last(start):
    told = start.run("migration-status", "--since", "1h", "--since", "2h")
    assert told.returncode == 2 and "is given twice: --since" in told.stderr
    w = World(start, 25, worker=False)
    wait_until(lambda: w.router.query("SELECT 1 FROM standing"), "the first report")
    told = start.run("migration-status", "--db", w.router.outcomes_path, "--db", w.router.outcomes_path)
    assert told.returncode == 1 and "is listed twice" in told.stderr and not told.stdout


def test_a_mistaken_argument_is_named_without_its_password(start):
    for given in ("http://ops:swordfish@127.0.0.1:9/?token=swordfish", "http://127.0.0.1:9/?token=swordfish\033[2J"):
        told = start.run("migration-status", "--router", given)
        assert told.returncode == 2 and "127.0.0.1:9" in told.stderr, told.stderr
        assert "swordfish" not in told.stderr and "\033" not in told.stderr, told.stderr


def test_of_several_routers_the_worst_comes_first(start):
    well, ill = World(start, 25), World(start, 100, argv=FAILS)
    for w in (well, ill):
        w.calls(10)
        w.router.wait_outcomes(10)
    said = ill.check_stop("10 of 10 tasks failed")
    told = start.run("migration-status", "--db", well.router.outcomes_path, "--router", "http://127.0.0.1:%d" % ill.router.admin_port)
    told = told.stdout.split("\n")[0]
    assert timeless(told) == timeless(said["sentence"]) + " [http://127.0.0.1:%d]" % ill.router.admin_port
    ill.router.stop()
    told = json.loads(start.run("migration-status", "--db", ill.router.outcomes_path, "--db", well.router.outcomes_path, "--json").stdout)
    assert told["level"] == "stop" and [s["source"] for s in told["standings"]] == [ill.router.outcomes_path, well.router.outcomes_path]


def test_json_is_as_the_schema_says(start):
    fastjsonschema = pytest.importorskip("fastjsonschema")
    with open(os.path.join(ROOT, "docs", "migration-status.schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    report = fastjsonschema.compile(schema)
    standing = fastjsonschema.compile({**schema, "$ref": "#/definitions/standing", "properties": {}, "required": []})
    w = World(start, 25)
    standing(w.wait("facts", lambda s: s["facts"]))
    w.calls(30)
    w.polls(3)
    w.router.wait_outcomes(33)
    report(json.loads(w.status("--json")))
    report(json.loads(w.status("--json", "--gate", "--min-executions", "1", "--no-guard", codes=(0, 1))))  # on a busy machine tasks are too slow for it
    w.worker.stop()
    standing(w.check_stop("no worker"))
    told = json.loads(w.status("--json"))
    report(told)
    for broken in ({**told, "level": "calm"}, {**told, "version": 2}, {k: v for k, v in told.items() if k != "sentence"}):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            report(broken)
