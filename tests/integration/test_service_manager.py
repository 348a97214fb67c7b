"""What systemd is told by a router and a worker (sd_notify(3)): a service manager that only listens stands in for it."""
import json
import os
import signal
import socket

import pytest

import configuration as c
from http_text import PATIENCE
from programs import Process, free_port


class Manager:
    """Receives states as dicts. `env` is what it gives to its services."""

    def __init__(self, address, watchdog_ms=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(PATIENCE)
        self.env = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        if watchdog_ms:
            self.env["WATCHDOG_USEC"] = str(watchdog_ms * 1000)

    def next(self, but=()):
        """The next state that has none of these names."""
        while True:
            state = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            if not set(but) & set(state):
                return state


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    one = Manager(str(tmp_path / "notify") if request.param == "path" else "\0migration-router-test-%d-%d" % (os.getpid(), free_port()), 900)
    yield one
    one.socket.close()


def test_a_router_tells_that_it_is_ready_alive_reloading_and_stopping(start, manager):
    router = start.router(c.passing(start.origin()), env=manager.env)
    assert manager.next(but=["WATCHDOG"]) == {"MAINPID": str(router.pid), "READY": "1", "STATUS": "serving"}
    for _ in range(3):
        assert manager.next() == {"WATCHDOG": "1"}
    router.signal(signal.SIGHUP)
    reloading = manager.next(but=["WATCHDOG"])
    assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) > 0
    assert manager.next(but=["WATCHDOG"]) == {"READY": "1", "STATUS": "serving"}
    with open(router.config_path, "a", encoding="utf-8") as file:
        file.write("}")
    router.signal(signal.SIGHUP)
    assert "RELOADING" in manager.next(but=["WATCHDOG"])
    refused = manager.next(but=["WATCHDOG"])
    assert refused["READY"] == "1" and "refused" in refused["STATUS"]
    router.signal(signal.SIGTERM)
    assert manager.next(but=["WATCHDOG"]) == {"STOPPING": "1", "STATUS": "draining"}
    assert router.wait() == 0


def test_who_takes_over_is_the_main_process(start, manager):
    config = c.passing(start.origin())
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % free_port()
    old = start.router(config, env=manager.env)
    assert manager.next(but=["WATCHDOG"])["MAINPID"] == str(old.pid)
    new = start.process("migration-router", "--config", old.config_path, "--log-format", "json", "--takeover", cwd=old.folder, env=manager.env)
    told = manager.next(but=["WATCHDOG"])
    assert told == {"MAINPID": str(new.pid), "READY": "1", "STATUS": "serving"}, "the old one must not say that the service stops"
    assert old.wait() == 0


def test_a_worker_tells_the_same(start, manager, tmp_path):
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(json.dumps({"tasks": [{"name": "echo", "builtin": "echo"}]}))
    worker = start.process("task-backend-worker", "--backend", "embedded", "--database", str(tmp_path / "tasks.db"), "--tasks", str(tasks),
                           "--log-format", "json", env=manager.env)
    assert manager.next(but=["WATCHDOG"]) == {"MAINPID": str(worker.pid), "READY": "1", "STATUS": "serving"}
    assert manager.next() == {"WATCHDOG": "1"}
    tasks.write_text("{")
    worker.signal(signal.SIGHUP)
    assert "RELOADING" in manager.next(but=["WATCHDOG"])
    assert "refused" in manager.next(but=["WATCHDOG"])["STATUS"]
    worker.signal(signal.SIGTERM)
    assert "STOPPING" in manager.next(but=["WATCHDOG"])
    assert worker.wait() == 0


def test_a_manager_that_is_gone_stops_nothing(start, tmp_path):
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}
    router = start.router(c.passing(start.origin()), env=env)
    assert "No such file" in router.wait_event("service_manager_unreachable")["error"]
    assert isinstance(router, Process) and router.stop() == 0
