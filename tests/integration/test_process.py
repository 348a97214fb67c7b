"""The router's life as a process: reloads, who is let in at the admin listener, descriptors, draining, its data folder."""
import collections
import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading

import pytest

import configuration as c
from http_text import wait_until
from programs import Process, environment, free_port, program
from raw import ask, request

ENDPOINTS = ("/", "/metrics", "/_admin/flags", "/_admin/report.json")


def status(router, path, token=None, host="localhost", more=()):
    lines = ["Host: " + host] + (["Authorization: Bearer " + token] if token else []) + list(more)
    head = "GET %s HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n" % (path, "\r\n".join(lines))
    return ask(router.admin_port, head.encode())


def reload(router, config):
    before = len(router.find("reloaded"))
    router.write_config(config)
    router.signal(signal.SIGHUP)
    router.wait_event("reloaded", count=before + 1)


def write_tokens(folder, *tokens):
    path = os.path.join(str(folder), "admin-tokens.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(c.sha256(token) + "\n" for token in tokens))
    return path


def guarded(start, folder, *tokens):
    config = c.passing(start.origin())
    config["admin"].update(auth="bearer", tokens=write_tokens(folder, *tokens))
    return config


# --- what lives long borrows nothing from what a reload replaces -------------------------------------------------------

def test_twenty_reloads_of_differing_configurations_leave_every_endpoint_guarded_and_whole(start):
    folder = start.folder()
    config = {**guarded(start, folder, "right"), "backends": c.embedded(None)}
    router = start.router(config, folder=folder)
    for n in range(20):
        operations = {"op%d" % i: c.operation("POST /op/%d/%s" % (i, "x" * (7 * n % 90)), {"name": "echo"}, flags=["f%d" % (n % 5)])
                      for i in range((n * 13) % 60)}
        config["services"]["echo"] = c.service(start.origin(), operations)
        config["admin"]["hosts"] = ["name-%d.example" % i for i in range(n)]
        reload(router, config)
        for path in ENDPOINTS:
            assert status(router, path).status == 401, (n, path)
            assert status(router, path, "wrong").status in (401, 429), (n, path)
            # the first report may find no database yet
            assert status(router, path, "right").status in (200, 503), (n, path)
        whole = json.loads(status(router, "/readyz", "right").body)
        assert whole["backends"][0]["name"] == "embedded" and len(whole["flags"]["where"]) > 1
        assert status(router, "/healthz").status == 200
        if n:
            assert status(router, "/metrics", "right", host="name-%d.example" % (n - 1)).status == 200
    assert router.popen.poll() is None


def test_rotated_admin_tokens_take_effect_at_a_reload(start):
    folder = start.folder()
    config = guarded(start, folder, "old")
    router = start.router(config, folder=folder)
    assert status(router, "/metrics", "old").status == 200
    write_tokens(folder, "new")
    reload(router, config)
    assert status(router, "/metrics", "new").status == 200
    assert status(router, "/metrics", "old").status == 401
    assert not router.find("reload_needs_restart")


def test_what_needs_a_restart_is_said_at_every_reload_and_opens_no_door(start):
    folder = start.folder()
    config = guarded(start, folder, "right")
    router = start.router(config, folder=folder)
    other = dict(config, admin={"listen": "127.0.0.2:%d" % router.admin_port})  # loopback: "none" by default
    for _ in range(2):
        reload(router, other)
    assert len(router.find("reload_needs_restart", key="admin.listen")) == 2
    assert status(router, "/metrics").status == 401
    assert status(router, "/metrics", "right").status == 200
    reload(router, dict(config, outcomes={"retention_days": 3}))
    router.wait_event("reload_needs_restart", key="outcomes")


@pytest.mark.parametrize("section,key,value", [("limits", "max_connections", 77), ("client", "head_timeout", "7s"), ("client", "idle_timeout", "7s"),
                                               ("client", "half_close_is_gone", False), ("client", "drain_timeout", "7s"),
                                               (None, "limits.max_head", "8KiB")])
def test_limits_and_timeouts_of_a_listener_that_stays_open_are_said_to_need_a_restart(start, section, key, value):
    """Of one that was opened by a reload, too: what counts is what it was opened with."""
    router = start.router(c.passing(start.origin()))
    config = json.loads(json.dumps(router.config))
    config["services"]["late"] = c.service(start.origin())
    reload(router, config)
    router.wait_event("listening", service="late")
    assert not router.find("reload_needs_restart")
    other = json.loads(json.dumps(config))
    if section:
        other["services"]["late"][section] = {key: value}
        key = "services.late.%s.%s" % (section, key)
    else:
        other["limits"] = {"max_head": value}
    for n in range(2):
        reload(router, other)
        router.wait_event("reload_needs_restart", count=n + 1, key=key)
    reload(router, config)
    reload(router, dict(config, threads=3))  # a barrier: planes look at configurations in their order
    router.wait_event("reload_needs_restart", key="threads")
    assert {e["key"] for e in router.find("reload_needs_restart")} == {key, "threads"}


# --- who is let in -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("host,fine", [("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:1", True), ("[::1]:9", True),
                                       ("127.8.8.8", True), ("router.internal", True), ("Router.Internal.:9900", True),
                                       ("evil.example", False), ("localhost.evil.example", False), ("10.0.0.1", False),
                                       ("127.0.0.1.evil.example:9900", False), ("[::2]", False), ("", False), ("localhost.:1", True),
                                       ("localhost:evil", False), ("localhost:1:2", False), ("localhost:1@evil.example", False),
                                       ("evil@localhost", False), ("[::1]evil.example", False), ("[::1].evil:1", False),
                                       ("localhost,evil.example", False), ("localhost..", False), ("localhost\\evil", False)])
def test_the_admin_listener_is_asked_by_its_own_names_alone(start, host, fine):
    config = c.passing(start.origin())
    config["admin"]["hosts"] = ["router.internal"]
    router = start.router(config)
    for path in ENDPOINTS[1:] + ("/readyz",):
        told = status(router, path, host=host).status
        assert told in (200, 503) if fine else told == 421, path
    if host:
        assert status(router, "/healthz", host=host).status == 200
        target = b"GET http://%s/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % host.encode()
        assert (ask(router.admin_port, target).status != 421) == fine


def test_readiness_without_a_token_tells_nothing_of_the_inside(start):
    folder = start.folder()
    config = {**guarded(start, folder, "right"), "backends": c.embedded(None)}
    router = start.router(config, folder=folder)
    for token in (None, "wrong"):
        answer = status(router, "/readyz", token)
        assert answer.status == 200 and set(json.loads(answer.body)) == {"status", "ready"}
        assert str(folder).encode() not in answer.body and b"127.0.0.1" not in answer.body
    assert b"flags.yml" in status(router, "/readyz", "right").body


def test_wrong_admin_tokens_are_logged_and_slowed_down_but_shut_nobody_out(start):
    folder = start.folder()
    router = start.router(guarded(start, folder, "right", "second"), folder=folder)
    assert status(router, "/metrics", "right").status == 200
    told = [status(router, "/metrics", "guess-%d" % n).status for n in range(30)]
    assert told[:20] == [401] * 20 and told[20:] == [429] * 10
    assert status(router, "/metrics", "second").status == 429, "a guess is not told that it was right"
    assert status(router, "/metrics", "right").status == 200
    logged = router.find("admin_token_wrong")
    assert [e["within_a_minute"] for e in logged] == [1, 20] and logged[0]["peer"] == "127.0.0.1"
    assert "guess-" not in router.log()


def test_wrong_override_secrets_are_logged_and_slowed_down(start):
    config = c.passing(start.origin())
    config["override"] = {"enabled": True, "secret_sha256": c.sha256("open sesame")}
    config["services"]["echo"]["operations"] = {"op": c.operation("POST /op", {"name": "echo"})}
    router = start.router({**config, "backends": c.embedded(None)})
    for n in range(30):
        assert ask(router.port, request("POST", "/op", [("X-Migration-Override", "legacy"), ("X-Migration-Override-Secret", "no-%d" % n)])).status == 200
    router.wait_event("override_secret_wrong", within_a_minute=20)
    assert len(router.find("override_secret_wrong")) == 2 and "no-1" not in router.log()
    ask(router.port, request("POST", "/op", [("X-Migration-Override", "legacy"), ("X-Migration-Override-Secret", "open sesame")]))
    rows = router.wait_outcomes(31)
    assert {row["reason"] for row in rows} & {"override"} == set(), "nobody finds it by trying on"


def test_liveness_has_a_place_beside_idle_connections(start):
    router = start.router(c.passing(start.origin()))
    idle = []
    try:
        for n in range(200):
            idle.append(socket.create_connection(("127.0.0.1", router.admin_port)))
            if n % 2:
                idle[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: lo")
            if n > 60:
                assert ask(router.admin_port, request("GET", "/healthz")).status == 200
        assert wait_until(lambda: status(router, "/readyz").status == 200, "readiness")
    finally:
        for sock in idle:
            sock.close()


# --- descriptors -------------------------------------------------------------------------------------------------------

def test_a_listener_hears_again_by_itself_when_descriptors_are_free(start):
    origin = start.origin()
    config = c.router({"quiet": c.service(origin), "crowded": c.service(origin)}, threads=1)
    router = start.router(config)
    quiet, crowded = router.ports["quiet"], router.ports["crowded"]
    limit = router.descriptors() + 20
    resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (limit, limit))
    held = [socket.create_connection(("127.0.0.1", quiet))]
    try:
        held += [socket.create_connection(("127.0.0.1", crowded)) for _ in range(60)]
        router.wait_event("accept_failing")
        with socket.create_connection(("127.0.0.1", quiet)) as waiting:
            waiting.sendall(request())
            for _ in range(10):
                assert status(router, "/healthz").status == 200, "a descriptor is kept in reserve"
            told = status(router, "/readyz")
            assert told.status == 503 and "descriptors" in told.body.decode()
            for sock in held[1:]:  # the quiet listener's connection stays
                sock.close()
            waiting.settimeout(30)
            # It may be taken while the others are still being closed: then it can be told that legacy could not be reached.
            head = waiting.recv(100)
            assert b" 200 " in head or b" 502 " in head, head
            if b" 502 " in head:
                router.wait_event("legacy_failing")
        router.wait_event("accept_resumed")
        wait_until(lambda: ask(quiet, request()).status == 200 and ask(crowded, request()).status == 200, "both to serve")
        wait_until(lambda: status(router, "/readyz").status == 200, "readiness")
        assert len(router.find("accept_failing")) == 1
    finally:
        for sock in held:
            sock.close()


# --- draining ----------------------------------------------------------------------------------------------------------

class Burst:
    """Many connections at once, each with its request sent or about to be."""

    def __init__(self, port, n, late=0):
        self.socks, self.late = [], late
        for _ in range(n):
            try:
                self.socks.append(socket.create_connection(("127.0.0.1", port), timeout=30))
            except OSError:
                break
        for sock in self.socks[late:]:
            sock.sendall(request())

    def answers(self):
        for sock in self.socks[:self.late]:
            sock.sendall(request())
        counted = collections.Counter()
        for sock in self.socks:
            try:
                data = sock.recv(100)
                counted["answered" if b" 200 " in data else "closed" if not data else data[:20]] += 1
            except OSError as why:
                counted[type(why).__name__] += 1
            sock.close()
        return counted


@pytest.mark.parametrize("late", [0, 300])
def test_what_was_accepted_before_sigterm_is_answered(start, late):
    router = start.router(c.passing(start.origin(), limits={"max_in_flight": 5000}))
    burst = Burst(router.port, 700, late)
    router.signal(signal.SIGTERM)
    assert burst.answers() == {"answered": 700}
    assert router.wait() == 0
    assert router.find("stopped")[0]["cut"] == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", router.port), timeout=30)


def test_a_reload_that_closes_a_listener_answers_what_it_had_accepted(start):
    origin = start.origin()
    config = c.router({"stays": c.service(origin), "goes": c.service(origin, limits={"max_in_flight": 5000})})
    router = start.router(config)
    burst = Burst(router.ports["goes"], 500)
    services = dict(config["services"])
    goes = dict(services.pop("goes"), listen="127.0.0.1:%d" % router.ports["goes"])
    reload(router, dict(config, services=services))
    assert burst.answers() == {"answered": 500}
    wait_until(lambda: not listens(router.ports["goes"]), "the listener to be closed")
    reload(router, dict(config, services={**services, "goes": goes}))
    wait_until(lambda: listens(router.ports["goes"]), "the listener to be there again")
    assert ask(router.ports["goes"], request()).status == 200


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        return True
    except ConnectionRefusedError:
        return False


def test_connections_that_bring_nothing_hold_up_no_end(start):
    router = start.router(c.passing(start.origin()))
    with socket.create_connection(("127.0.0.1", router.port)):
        router.signal(signal.SIGTERM)
        assert router.wait(8) == 0
        assert router.find("stopped")[0]["cut"] == 0


def test_a_request_that_never_becomes_whole_is_counted_as_cut(start):
    config = c.passing(start.origin())
    config["drain_timeout"] = "1s"
    router = start.router(config)
    with socket.create_connection(("127.0.0.1", router.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
        with socket.create_connection(("127.0.0.1", router.port)) as other:
            other.sendall(request())
            other.recv(100)
        router.signal(signal.SIGTERM)
        assert router.wait() == 0
    assert router.find("stopped")[0]["cut"] == 1


# --- addresses ---------------------------------------------------------------------------------------------------------

def test_a_reload_onto_an_address_of_another_process_is_refused_as_a_start_is(start):
    one, two = start.router(c.passing(start.origin())), start.router(c.passing(start.origin()))
    config = json.loads(json.dumps(two.config))
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % one.port
    two.write_config(config)
    two.signal(signal.SIGHUP)
    two.wait_event("reload_refused", count=2)  # the first says that there is no flags.yml
    told = two.find("reload_refused")[-1]
    assert "services.echo.listen" in told["problem"] and str(one.port) in told["problem"]
    assert ask(two.port, request()).status == 200 and not two.find("reloaded")


# --- the data folder ---------------------------------------------------------------------------------------------------

def test_a_second_router_on_a_data_folder_is_refused_with_the_firsts_process_id(start):
    router = start.router(c.passing(start.origin()))
    other = c.passing(start.origin())
    path = os.path.join(router.folder, "other.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(other, file)
    for _ in range(2):
        told = start.run("migration-router", "--config", path)
        assert told.returncode == 1 and "process %d" % router.pid in told.stderr and "data folder" in told.stderr
    assert ask(router.port, request()).status == 200
    router.kill()  # what it leaves behind is in nobody's way
    again = start.router(other, folder=router.folder)
    assert ask(again.port, request()).status == 200


def test_two_routers_that_share_a_file_of_outcomes_lose_none(start):
    origin, shared = start.origin(), os.path.join(start.folder(), "outcomes.db")
    one, two = (start.router({**c.passing(origin), "outcomes": {"path": shared}}) for _ in range(2))
    for _ in range(100):
        assert ask(one.port, request()).status == ask(two.port, request()).status == 200
    assert one.stop() == two.stop() == 0
    assert not one.find("recorder_failing") and not two.find("recorder_failing")
    with contextlib.closing(sqlite3.connect(shared)) as db:
        assert db.execute("SELECT count(*), (SELECT sum(count) FROM rollups) FROM outcomes").fetchone() == (200, 200)


# --- restarts without a gap --------------------------------------------------------------------------------------------

class Activated(Process):
    """A router whose listening sockets are handed to it, as systemd does."""

    def __init__(self, path, *sockets):
        self.name, self.lines, self.events, self.changed = "migration-router", [], [], threading.Condition()
        handed = " ".join("%d<&%d" % (3 + i, sock.fileno()) for i, sock in enumerate(sockets))
        script = 'export LISTEN_PID=$$ LISTEN_FDS=%d; exec "$@" %s' % (len(sockets), handed)
        self.popen = subprocess.Popen(["bash", "-c", script, "sh", program("migration-router"), "--config", path, "--log-format", "json"],
                                      env=environment(), pass_fds=[s.fileno() for s in sockets], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.wait_event("ready")


def listening():
    sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
    high = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100)  # out of the way of 3, 4, …
    sock.close()
    return socket.socket(fileno=high)


def test_twenty_restarts_on_handed_over_sockets_refuse_and_reset_nobody(start):
    service, admin, stray = listening(), listening(), listening()
    config = c.passing(start.origin())
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % service.getsockname()[1]
    config["admin"]["listen"] = "127.0.0.1:%d" % admin.getsockname()[1]
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    told, ended = collections.Counter(), threading.Event()

    def load(port, target):
        while not ended.is_set():
            try:
                told[ask(port, request("GET", target, [("Connection", "close")])).status] += 1
            except Exception as why:  # pylint: disable=broad-except
                told[repr(why)] += 1
    threads = [threading.Thread(target=load, args=(port, target)) for port, target in
               [(service.getsockname()[1], "/")] * 4 + [(admin.getsockname()[1], "/healthz")]]
    router = Activated(path, service, admin, stray)
    assert len(router.find("inherited_socket_unused")) == 1
    for thread in threads:
        thread.start()
    try:
        for n in range(20):
            done = sum(told.values())
            wait_until(lambda at=done: sum(told.values()) > at + 20, "load")
            assert router.stop() == 0
            assert router.find("stopped")[0]["cut"] == 0
            router = Activated(path, service, admin)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        assert router.stop() == 0
    assert set(told) == {200}, told


def test_sockets_of_systemd_outlive_a_takeover_and_the_one_who_took_over(start):
    """Handed over with the rest, left open by who leaves, and found by the one whom the service manager starts next."""
    service, admin = listening(), listening()
    config = c.passing(start.origin())
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % service.getsockname()[1]
    config["admin"]["listen"] = "127.0.0.1:%d" % admin.getsockname()[1]
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    told, ended = collections.Counter(), threading.Event()

    def load():
        while not ended.is_set():
            try:
                told[ask(service.getsockname()[1], request("GET", "/", [("Connection", "close")])).status] += 1
            except Exception as why:  # pylint: disable=broad-except
                told[repr(why)] += 1
    thread = threading.Thread(target=load)
    first = Activated(path, service, admin)
    thread.start()
    try:
        for _ in range(3):
            before = sum(told.values())
            wait_until(lambda at=before: sum(told.values()) > at + 5, "load")
            second = start.process("migration-router", "--config", path, "--log-format", "json", "--takeover")
            second.wait_event("ready")
            assert first.wait() == 0
            before = sum(told.values())
            wait_until(lambda at=before: sum(told.values()) > at + 5, "load")
            assert second.stop() == 0
            first = Activated(path, service, admin)
            assert not first.find("inherited_socket_unused")
    finally:
        ended.set()
        thread.join()
        assert first.stop() == 0
    assert set(told) == {200}, told


def test_systemds_own_program_activates_a_router(start):
    activate = shutil.which("systemd-socket-activate")
    if not activate:
        pytest.skip("there is no systemd-socket-activate")
    config = c.passing(start.origin())
    ports = [free_port(), free_port()]
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % ports[0]
    config["admin"]["listen"] = "127.0.0.1:%d" % ports[1]
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    listen = [word for port in ports for word in ("--listen", "127.0.0.1:%d" % port)]
    told = subprocess.Popen([activate, *listen, "--fdname", "service:admin", program("migration-router"), "--config", path,
                             "--log-format", "json"], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while sum("Listening on" in line for line in lines) < len(ports):
            lines.append(told.stderr.readline())
            assert lines[-1], "".join(lines)
        # Nobody has started the router yet: the first caller does, and waits in the socket.
        assert ask(ports[0], request()).status == 200
        assert ask(ports[1], request("GET", "/healthz")).status == 200
    finally:
        told.terminate()
        rest = told.communicate(timeout=60)[1]
    assert told.returncode == 0 and "inherited_socket_unused" not in rest, rest


# --- SIGUSR1: debug lines while something is looked into ------------------------------------------------------------------

def test_debug_lines_come_and_go_with_a_signal(start):
    router, asked = start.router(c.passing(start.origin())), []

    def toggle():
        before = len(router.find("log_level"))
        router.signal(signal.SIGUSR1)
        router.wait_event("log_level", count=before + 1)
        return router.find("log_level")[-1]["level"]

    def ask_one():
        """Its line, if any, has been written once its outcome is recorded."""
        asked.append(ask(router.port, request("GET", "/x")).status)
        router.wait_outcomes(len(asked))
        return len(router.find("request"))
    assert ask_one() == 0
    assert toggle() == "debug"
    ask_one()
    router.wait_event("request", count=1)
    assert toggle() == "info" and ask_one() == 1
    assert (toggle(), toggle()) == ("debug", "info") and ask_one() == 1


def test_debug_lines_tell_the_story_of_a_request(start):
    add = c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}, identity=c.IDENTITY)
    origin = start.origin()
    config = c.router({"app": c.service(origin, {"add": add})}, backends=c.embedded(tasks=None))
    router, _ = start.with_worker(config, c.features(c.boolean("task_abstraction_enabled", True)))
    router.signal(signal.SIGUSR1)
    router.wait_event("log_level")

    def story(target, body):
        head = ["POST %s HTTP/1.1" % target, "Host: x", "X-User-Id: ann", "X-Request-ID: story" + target.replace("/", "-"),
                "Content-Length: %d" % len(body), "Connection: close", "", ""]
        assert ask(router.port, "\r\n".join(head).encode() + body).status == 200
        mine = {"request_id": "story" + target.replace("/", "-")}
        end = router.wait_event("request", **mine)
        lines = [line for line in router.events if line.get("request_id") == mine["request_id"]]
        assert lines[-1] == end
        times = [line["at_us"] for line in lines[:-1]]
        assert times == sorted(times) and times[0] >= 0
        return [line["event"] for line in lines], {k: v for line in lines for k, v in line.items()}

    events, told = story("/add", b'{"a": 2, "b": 3}')
    assert events == ["request_head", "request_body_held", "request_decided", "task_submitting", "task_submitted", "task_ended",
                      "request_answered", "request"]
    assert (told["side"], told["reason"], told["user"], told["submission"], told["task"]) == ("task", "flag", "ann", "accepted", "add_numbers")
    events, told = story("/other", b"x")
    assert events == ["request_head", "request_decided", "legacy_started", "legacy_answered", "request"]
    assert (told["operation"], told["reason"], told["role"]) == ("(unmapped)", "unmapped", "primary")
