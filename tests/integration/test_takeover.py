"""A new router process takes over from the one that runs: nobody is refused, reset or served twice; pins hold in both directions."""
import collections
import contextlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest

import configuration as c
from http_text import PATIENCE, wait_until
from programs import free_port, write_atomically
from raw import Client, ask, request

ECHO = {"tasks": [{"name": "echo", "exec": {"argv": ["cat"]}}]}
PIN = {"group": "thing", "key": "query:name"}
ORGANIZATION = ("X-Organization-Id", "org-1")


class Place:
    """A data folder with a configuration, and the routers that work there one after the other."""

    def __init__(self, start, config):
        self.start, self.folder, self.config = start, str(start.folder()), config
        self.path = os.path.join(self.folder, "router.yml")
        self.port = int(config["services"]["echo"]["listen"].rsplit(":", 1)[1])
        self.admin = int(config["admin"]["listen"].rsplit(":", 1)[1])
        self.write(config)

    def write(self, config):
        write_atomically(self.path, json.dumps(config))

    def begin(self, *arguments):
        return self.start.process("migration-router", "--config", self.path, "--log-format", "json", *arguments, cwd=self.folder)

    def serve(self, *arguments):
        router = self.begin(*arguments)
        router.wait_event("ready")
        return router

    def take_over(self):
        router = self.serve("--takeover")
        assert router.find("took_over")
        return router

    def query(self, sql):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "outcomes.db"), timeout=30)) as db:
            return db.execute(sql).fetchall()


def at_fixed_ports(config):
    for service in config["services"].values():
        service["listen"] = "127.0.0.1:%d" % free_port()
    return config


@pytest.fixture
def place(start):
    return Place(start, at_fixed_ports(c.passing(start.origin())))


class SilentServer:
    """Accepts and never answers: a router that waits for its flags there is in the middle of its start."""

    def __enter__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = "http://127.0.0.1:%d" % self.sock.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.sock.close()


def waiting_for_flags(place, silent):
    """The configuration of a new router that stops in the middle of the takeover."""
    config = json.loads(json.dumps(place.config))
    config["flags"] = {"url": silent.url, "rules": "v2.11"}
    config["services"]["echo"]["operations"] = {"op": c.operation("POST /op", {"name": "echo"})}
    config["backends"] = c.embedded(None)
    return config


def served_by(place, router):
    """Which process answers there now."""
    assert ask(place.port, request("GET", "/x")).status == 200
    assert ask(place.admin, request("GET", "/healthz")).status == 200
    return router.popen.poll() is None


# --- under load --------------------------------------------------------------------------------------------------------

class Load:
    """Callers with kept and with new connections; every request has an id of its own."""

    def __init__(self, place, kept=3, new=3):
        self.place, self.ended, self.told, self.ids = place, threading.Event(), collections.Counter(), itertools.count()
        self.sent = []
        self.threads = [threading.Thread(target=self.call, args=how) for how in
                        [(place.port, True)] * kept + [(place.port, False)] * new + [(place.admin, True), (place.admin, False)]]

    def call(self, port, kept):
        client = None
        while not self.ended.is_set():
            number = next(self.ids)
            target = "/healthz" if port == self.place.admin else "/load/%d" % number
            try:
                client = client or Client(port)
                answer = client.ask(request("GET", target, [("X-Request-ID", "load-%d" % number)] +
                                            ([] if kept else [("Connection", "close")])))
                self.told[answer.status] += 1
                if port != self.place.admin:
                    self.sent.append(number)
                if not kept or (answer.get("Connection") or "").lower() == "close":
                    client.close()
                    client = None
            except Exception as why:  # pylint: disable=broad-except
                self.told[("kept " if kept else "new ") + repr(why)] += 1
                client = None
        if client:
            client.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def more(self, n=40):
        at = sum(self.told.values())
        wait_until(lambda: sum(self.told.values()) >= at + n, "load")

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def test_twenty_takeovers_under_load_refuse_reset_and_repeat_nothing(start):
    origin = start.origin()
    place = Place(start, at_fixed_ports(c.passing(origin)))
    router = place.serve("--takeover")  # nobody is there: a start as any
    assert not router.find("took_over")
    with Load(place) as load:
        for n in range(20):
            load.more()
            place.write(dict(place.config, threads=(2, 2, 1, 3)[n % 4]))
            old, router = router, place.take_over()
            load.more()
            assert old.wait() == 0, old.log()
            assert old.find("stopped")[0]["cut"] == 0
        load.more()
    assert router.stop() == 0
    assert set(load.told) == {200}, load.told
    executed = collections.Counter(r.target for r in origin.requests)
    assert executed == {"/load/%d" % n: 1 for n in load.sent}
    recorded = place.query("SELECT count(*), count(DISTINCT request_id) FROM outcomes")[0]
    assert recorded == (len(load.sent), len(load.sent))
    assert place.query("SELECT sum(count) FROM rollups") == [(len(load.sent),)]
    assert not os.path.exists(os.path.join(place.folder, "data", "router.sock"))


def test_new_processes_killed_in_the_middle_leave_the_old_one_serving_under_load(start):
    origin = start.origin()
    place = Place(start, at_fixed_ports(c.passing(origin)))
    router = place.serve()
    with SilentServer() as silent, Load(place) as load:
        for n in range(6):
            place.write(waiting_for_flags(place, silent))
            new = place.begin("--takeover")
            new.wait_event("taking_over")
            if n % 2:
                new.wait_event("listening")
            load.more(20)
            new.kill()
            told = router.wait_event("takeover_failed", count=n + 1)
            assert told["by_pid"] == new.pid
            load.more(20)
        place.write(place.config)
        old, router = router, place.take_over()
        load.more()
        assert old.wait() == 0
    assert set(load.told) == {200}, load.told
    assert collections.Counter(r.target for r in origin.requests) == {"/load/%d" % n: 1 for n in load.sent}


# --- what goes wrong ---------------------------------------------------------------------------------------------------

def test_a_new_process_that_cannot_start_changes_nothing_and_both_say_so(place):
    old = place.serve()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = json.loads(json.dumps(place.config))
        config["admin"]["listen"] = "127.0.0.1:%d" % port  # the last thing that a start does
        place.write(config)
        new = place.begin("--takeover")
        assert new.wait() == 1
        assert str(port) in new.find("takeover_failed")[0]["error"]
    told = old.wait_event("takeover_failed", by_pid=new.pid)
    assert str(port) in told["error"]
    assert served_by(place, old)
    write_atomically(place.path, "services: [")
    broken = place.begin("--takeover")
    assert broken.wait() == 2 and served_by(place, old)
    place.write(place.config)
    place.take_over()
    assert old.wait() == 0


def test_a_new_process_without_flags_does_not_take_over(place):
    old = place.serve()
    with SilentServer() as silent:
        place.write(waiting_for_flags(place, silent))
        new = place.begin("--takeover")
        assert new.wait(60) == 1
    assert "no flags" in old.wait_event("takeover_failed")["error"]
    assert served_by(place, old)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_old_process_ends_in_the_middle(place, how):
    old = place.serve()
    with SilentServer() as silent:
        place.write(waiting_for_flags(place, silent))
        new = place.begin("--takeover")
        new.wait_event("listening")
        old.signal(how)
        new.wait_event("ready")  # it does not wait for flags any longer: nobody else is there
        assert old.wait() == (0 if how == signal.SIGTERM else -signal.SIGKILL)
        assert served_by(place, new)
        told = place.start.run("migration-router", "--config", place.path)
        assert told.returncode == 1 and "process %d" % new.pid in told.stderr


def test_the_old_process_is_killed_while_it_drains(place):
    old = place.serve()
    with Client(place.port) as kept:
        assert kept.ask(request("GET", "/before")).status == 200
        new = place.take_over()
        old.kill()
    assert served_by(place, new)
    place.take_over()
    assert new.wait() == 0


def test_a_third_process_is_refused_in_between(place):
    old = place.serve()
    with SilentServer() as silent:
        place.write(waiting_for_flags(place, silent))
        new = place.begin("--takeover")
        new.wait_event("taking_over")
        told = place.start.run("migration-router", "--config", place.path)
        assert told.returncode == 1 and "process %d" % old.pid in told.stderr
        told = place.start.run("migration-router", "--config", place.path, "--takeover")
        assert told.returncode == 1 and "process %d is taking over" % new.pid in told.stderr
        old.signal(signal.SIGHUP)
        assert "process %d is taking over" % new.pid in old.wait_event("reload_refused")["problem"]
        new.kill()
    old.wait_event("takeover_failed")
    place.write(place.config)
    with Client(place.port) as kept:
        assert kept.ask(request("GET", "/before")).status == 200
        new = place.take_over()
        assert old.popen.poll() is None  # it waits for who has a kept connection
        told = place.start.run("migration-router", "--config", place.path)
        assert told.returncode == 1 and "process %d" % new.pid in told.stderr
        old.signal(signal.SIGHUP)
        old.wait_event("reload_refused", count=2)
        third = place.take_over()  # while the first still drains
        assert new.wait() == 0
        assert kept.ask(request("GET", "/after")).status == 200
    assert old.wait() == 0 and served_by(place, third)


def test_only_this_user_and_root_may_ask(start, tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    place = Place(start, at_fixed_ports(c.passing(start.origin())))
    router = place.serve()
    path = os.path.join(place.folder, "data", "router.sock")
    assert os.stat(path).st_mode & 0o7777 == 0o600
    ask_as_nobody = ("import os, socket, sys\nfd = os.open(sys.argv[1], os.O_PATH)\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
                     "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect('/proc/self/fd/%d' % fd)\n"
                     "data, fds, _, _ = socket.recv_fds(s, 100000, 300)\nsys.stdout.write('%d %d' % (len(data) > 0, len(fds)))\n")
    os.chmod(path, 0o666)
    told = subprocess.run([sys.executable, "-c", ask_as_nobody, path], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout == "1 0", told.stderr
    assert "65534" in router.wait_event("takeover_refused")["why"]
    assert served_by(place, router)


@pytest.mark.parametrize("said, n", [(b"", 1), (b"", 200), (b"x", 1), (b"x", 201), (b"x", 202), (b"x", 253)])
def test_descriptors_that_come_unasked_are_closed(place, said, n):
    """The kernel delivers one more than the router asks for: room is rounded up; and with an empty message, too."""
    router = place.serve()
    sent = os.path.join(place.folder, "sent")
    folder, fd = os.open(os.path.join(place.folder, "data"), os.O_PATH), os.open(sent, os.O_RDWR | os.O_CREAT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect("/proc/self/fd/%d/router.sock" % folder)
        socket.send_fds(sock, [said], [fd] * n)
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""  # it has been read, and the conversation is over
    os.close(folder)
    os.close(fd)
    own = "/proc/%d/fd/" % router.pid
    links = []
    for name in os.listdir(own):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(own + name))
    assert links.count(sent) == 0 and served_by(place, router)
    place.take_over()
    assert router.wait() == 0


def test_an_old_process_that_stands_still_is_named(place):
    old = place.serve()
    old.signal(signal.SIGSTOP)
    try:
        new = place.begin("--takeover")
        assert new.wait(90) == 1
    finally:
        old.signal(signal.SIGCONT)
    assert "process %d does not answer" % old.pid in new.find("start_failed")[0]["error"]
    place.take_over()  # once it goes on
    assert old.wait() == 0


def test_sigterm_to_the_old_one_ends_its_patience_with_idle_connections(place):
    old = place.serve()
    with Client(place.port) as kept:
        assert kept.ask(request("GET", "/before")).status == 200
        new = place.take_over()
        assert old.popen.poll() is None
        old.signal(signal.SIGTERM)
        assert old.wait() == 0 and old.find("stopped")[0]["cut"] == 0
        assert kept.closed() == b""
    assert served_by(place, new)


# --- other addresses ---------------------------------------------------------------------------------------------------

def test_listeners_come_and_go_with_a_takeover(start):
    origin = start.origin()
    config = at_fixed_ports(c.router({"echo": c.service(origin), "goes": c.service(origin), "comes": c.service(origin)}))
    ports = {name: int(s["listen"].rsplit(":", 1)[1]) for name, s in config["services"].items()}
    without = {name: dict(config, services={k: v for k, v in config["services"].items() if k != name}) for name in ("goes", "comes")}
    place = Place(start, without["comes"])
    old = place.serve()
    held = [Client(ports["goes"]) for _ in range(30)]
    place.write(without["goes"])
    new = place.take_over()
    for client in held:
        assert client.ask(request("GET", "/x")).status == 200
        client.close()
    assert old.wait() == 0 and old.find("stopped")[0]["cut"] == 0
    assert ask(ports["comes"], request()).status == 200 and ask(ports["echo"], request()).status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports["goes"]), timeout=30)
    assert new.stop() == 0
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=30)


# --- pins and tasks ----------------------------------------------------------------------------------------------------

class Pins(Place):
    def __init__(self, start):
        self.origin = start.origin()
        self.origin.answers(200, [], b"legacy")
        task = {"name": "echo", "kwargs": {"x": {"$ref": "query:name"}}, "timeout": "30s"}
        operations = {role: c.operation("POST /" + role, dict(task), pin={**PIN, "role": role}) for role in ("start", "follow", "end")}
        operations["later"] = c.operation("POST /later", {**task, "respond_async": True})
        super().__init__(start, at_fixed_ports(c.router({"echo": c.service(self.origin, operations)}, backends=c.embedded(),
                                                        identity={"organization": ["header:X-Organization-Id"]}, threads=1)))
        write_atomically(os.path.join(self.folder, "tasks.yml"), json.dumps(ECHO))
        self.flags(True)

    def flags(self, on):
        write_atomically(os.path.join(self.folder, "flags.yml"), json.dumps(c.features(c.boolean("task_abstraction_enabled", on))))

    def worker(self):
        worker = self.start.process("task-backend-worker", "--backend", "embedded", "--config", self.path, "--log-format", "json", cwd=self.folder)
        worker.wait_event("worker_ready")

    def call(self, role, name, over=None, fields=()):
        whole = request("POST", "/%s?name=%s" % (role, name), [ORGANIZATION, *fields], b"")
        return over.ask(whole) if over else ask(self.port, whole)

    def side(self, *call, over=None):
        """Whose the call was; `over`: connections of the old process, each of which serves one more. A removal under way in the other
        process may make that unknown for a moment, wrong it is never."""
        def told():
            answer = self.call(*call, over=over.pop() if over else None)
            return None if answer.status == 503 and b"Side unknown" in answer.body else answer
        answer = wait_until(told, "the side to be known")
        assert answer.status == 200, answer.body
        return "legacy" if answer.body == b"legacy" else "task"

    def wait_removed(self, name):
        def gone():
            with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "ledger.db"), timeout=30)) as db:
                return not db.execute("SELECT 1 FROM entries WHERE key = ?", (name,)).fetchall()
        wait_until(gone, "the removal to be in the file")


def test_pins_and_tasks_are_found_in_both_processes(start):
    place = Pins(start)
    old = place.serve()
    place.worker()
    assert place.side("start", "before") == "task"
    kept = [Client(place.port) for _ in range(20)]  # each serves one more call of the old process
    for n, client in enumerate(kept):
        assert place.side("start", "kept-%d" % n, over=[client]) == "task"
    tasks = [place.call("later", "x", fields=[("Prefer", "respond-async")])]
    new = place.take_over()
    assert new.find("flags_published") and old.popen.poll() is None
    # what the old one has, in the new one
    assert place.side("follow", "before") == "task"
    # what the new one has, in the old one
    assert place.side("start", "of-the-new") == "task"
    assert place.side("follow", "of-the-new", over=kept) == "task"
    # what the old one still begins, in the new one
    assert place.side("start", "of-the-old", over=kept) == "task"
    assert place.side("follow", "of-the-old") == "task"
    # what either has ended belongs to nobody, like what never was
    assert place.side("end", "before", over=kept) == "task"
    assert place.side("follow", "before") == "legacy"
    assert place.side("end", "of-the-new") == "task"
    place.wait_removed("of-the-new")
    assert place.side("follow", "of-the-new", over=kept) == "legacy"
    assert place.side("follow", "nobodys", over=kept) == "legacy"
    # asynchronous tasks have their owners in both
    tasks += [place.call("later", "y", over=kept.pop(), fields=[("Prefer", "respond-async")]),
              place.call("later", "z", fields=[("Prefer", "respond-async")])]
    assert [t.status for t in tasks] == [202, 202, 202]
    for task in tasks:
        whole = request("GET", task.get("Location"), [ORGANIZATION])
        assert ask(place.port, whole).status == kept.pop().ask(whole).status == 200
    # what is started anew on legacy is legacy's
    place.flags(False)
    new.signal(signal.SIGHUP)
    new.wait_event("flags_published", count=2)
    assert place.side("start", "of-the-old") == "legacy"
    place.wait_removed("of-the-old")
    assert place.side("follow", "of-the-old", over=kept) == "legacy"
    for client in kept:
        client.close()
    assert old.wait() == 0
    new.wait_event("ledger_alone")
    assert place.side("follow", "kept-7") == "task" and place.side("follow", "before") == "legacy"
    assert place.side("follow", "of-the-old") == "legacy"
    rows = place.query("SELECT count(*), count(DISTINCT request_id) FROM outcomes")[0]
    assert rows[0] == rows[1] > 0


def test_a_follow_up_is_refused_rather_than_misled_while_the_ledger_cannot_be_read(start):
    place = Pins(start)
    old = place.serve()
    place.worker()
    assert place.side("start", "x") == "task"
    with Client(place.port) as kept:
        assert place.side("follow", "x", over=[kept]) == "task"
        new = place.take_over()
        ledger = os.path.join(place.folder, "data", "ledger.db")
        os.rename(ledger, ledger + ".away")
        told = [place.call("follow", "never-seen", over=kept), place.call("follow", "never-seen")]
        assert [a.status for a in told] == [503, 503] and place.origin.requests == []
        os.rename(ledger + ".away", ledger)
        assert wait_until(lambda: place.call("follow", "x").status == 200, "the ledger to be there again")
        assert place.origin.requests == []
    assert old.wait() == 0
    new.wait_event("ledger_alone")
    assert place.side("follow", "x") == "task" and place.side("follow", "never-seen") == "legacy"


def test_pages_that_are_open_go_over_to_the_new_process(place):
    """A stream of server-sent events never ends by itself: it must not hold up the old process, and finds the new one."""
    def stream():
        client = stack.enter_context(Client(place.admin))
        client.send(request("GET", "/_admin/live", [("Accept", "text/event-stream")]))
        assert client.read_head().first.startswith("HTTP/1.1 200")
        return client

    old = place.serve()
    with contextlib.ExitStack() as stack:
        streams = [stream() for _ in range(16)]
        new = place.take_over()
        for one in streams:
            assert b"event: version" in one.closed(), "it ended"
        assert old.wait() == 0 and old.find("stopped")[0]["cut"] == 0
        again = stream()
        assert new.stop() == 0
        assert b"event: version" in again.closed()


def test_who_takes_over_reports_from_then_on(place):
    """The last word of the process that leaves would be that the router was stopped."""
    def facts():
        rows = place.query("SELECT facts FROM standing") if place.query("SELECT 1 FROM sqlite_master WHERE name = 'standing'") else []
        return json.loads(rows[0][0]) if rows else {}

    old = place.serve()
    wait_until(lambda: facts().get("router", "").endswith(":%d" % old.pid), "the first one to report")
    new = place.take_over()
    assert old.wait() == 0
    wait_until(lambda: facts()["router"].endswith(":%d" % new.pid), "the second one to report")
    lives = "SELECT kind FROM events WHERE kind IN ('start', 'stop') ORDER BY id"
    assert not facts()["stopped"] and [kind for kind, in place.query(lives)] == ["start", "start"]
    assert new.stop() == 0
    assert facts()["stopped"] and [kind for kind, in place.query(lives)] == ["start", "start", "stop"]
