"""The real programs under test: started on free ports, followed by their log, ended by their pid."""
import collections
import contextlib
import functools
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading

import pytest

from http_text import PATIENCE, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MIGRATION_ROUTER_BUILD", os.path.join(ROOT, "build-test-gcc"))
PLACES = ("src/programs", "tests", ".")
SANITIZERS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "WARNING: ThreadSanitizer")


def program(name):
    for place in PLACES:
        path = os.path.join(BUILD, place, name)
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("%s is not in %s" % (name, BUILD))


@functools.lru_cache(maxsize=None)
def backends_built():
    told = subprocess.run([program("migration-router"), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return told.stdout.split("backends: ")[1].strip().split(", ")


def need_backend(*names):
    """Skips the test, or at its head the file, when the build has not these."""
    missing = [name for name in names if name not in backends_built()]
    if missing:
        pytest.skip("left out of this build: " + ", ".join(missing), allow_module_level=True)


CLAIMS = collections.deque(maxlen=100)


def claimed(port):
    """Whether no other test here, of this run or another, was just given that port: an abstract name, which ends with this process."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind("\0migration-router-tests-port-%d" % port)
    except OSError:
        claim.close()
        return False
    CLAIMS.append(claim)  # the oldest is let go
    return True


def free_port():
    """A port below the kernel's range for outgoing connections, so that none of those takes it meanwhile; nor does another test that
    runs at the same time, before ours has bound it or while ours wants nobody there."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            if claimed(port):
                return port


def environment(more=None):
    """Of a program under test: what the person who runs the tests has set for servers of their own does not count."""
    own = ("TASK_", "HATCHET_", "FLIPT_", "PROMPT_", "TEMPORAL_", "CELERY_", "MIGRATION_STATE_", "MIGRATION_ROUTER_TOKEN")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(own)}, **(more or {})}


class Process:
    """A program with its standard error read line by line; lines of JSON are events. `within` is what starts it (disk.py)."""

    def __init__(self, name, *arguments, cwd=None, env=None, within=()):
        self.name = name
        self.lines, self.events = [], []
        self.changed = threading.Condition()
        self.popen = subprocess.Popen([*within, program(name), *map(str, arguments)], cwd=cwd, env=environment(env),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def pid(self):
        return self.popen.pid

    def _read(self):
        for raw in self.popen.stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            with self.changed:
                self.lines.append(line)
                if isinstance(event, dict):
                    self.events.append(event)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def log(self):
        return "\n".join(self.lines)

    def find(self, event, **fields):
        return [e for e in self.events if e.get("event") == event and all(str(e.get(k)) == str(v) for k, v in fields.items())]

    def wait_event(self, event, count=1, patience=PATIENCE, **fields):
        """The count-th log event of that name with these fields."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.find(event, **fields)) >= count or self.popen.poll() is not None, patience)
            found = self.find(event, **fields)
        assert len(found) >= count, "%s never logged %s %s; it said:\n%s" % (self.name, event, fields, self.log())
        return found[count - 1]

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, patience=PATIENCE):
        code = self.popen.wait(patience)
        self.reader.join(patience)
        return code

    def kill(self):
        """As the kernel does when memory runs out."""
        self.popen.kill()
        return self.wait()

    def stop(self, patience=PATIENCE):
        """SIGTERM, and the exit code it leads to."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not end after SIGTERM; it said:\n%s" % (self.name, self.log())) from None

    def check_sanitizers(self):
        for line in self.lines:
            assert not any(mark in line for mark in SANITIZERS), "%s: a sanitizer spoke:\n%s" % (self.name, self.log())

    def memory(self):
        """Resident bytes."""
        with open("/proc/%d/status" % self.pid, encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))


class Router(Process):
    """migration-router with the configuration `config` (a dict; JSON is YAML), in a folder of its own."""

    def __init__(self, folder, config, flags=None, env=None, name="migration-router", within=(), arguments=()):
        self.folder, self.config = str(folder), config
        self.flags_path = os.path.join(self.folder, "flags.yml")
        if flags is not None:
            self.write_flags(flags)
        self.config_path = os.path.join(self.folder, "router.yml")
        self.admin_port = int(config["admin"]["listen"].rsplit(":", 1)[1])
        self.service_names = list(config["services"])
        self.write_config(config)
        super().__init__(name, "--config", self.config_path, "--log-format", "json", *arguments, cwd=self.folder, env=env,
                         within=within)
        self.wait_event("ready")
        self.ports = {name: int(self.wait_event("listening", service=name)["port"]) for name in self.service_names}
        self.port = self.ports[self.service_names[0]]

    def write_config(self, config):
        write_atomically(self.config_path, json.dumps(config, indent=1))

    def write_flags(self, features):
        write_atomically(self.flags_path, json.dumps(features, indent=1))

    @property
    def outcomes_path(self):
        return os.path.join(self.folder, "data", "outcomes.db")

    def query(self, sql, *values):
        """Rows of outcomes.db; an empty list while there is no file or table yet."""
        try:
            uri = "file:%s?mode=ro" % self.outcomes_path
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
                db.row_factory = sqlite3.Row
                return [dict(row) for row in db.execute(sql, values)]
        except sqlite3.OperationalError as why:
            if "no such table" in str(why) or "unable to open" in str(why):
                return []
            raise

    def wait_outcomes(self, n=1, where="1", patience=PATIENCE):
        """The first n recorded attempts, in the order of their start (threads record apart), once they are in the file."""
        sql = "SELECT * FROM attempts WHERE %s ORDER BY time, id" % where
        return wait_until(lambda: (lambda rows: rows if len(rows) >= n else None)(self.query(sql)),
                          "%d outcomes where %s" % (n, where), patience)

    def wait_worker(self):
        """Until it knows of its first backend's worker: before, legacy serves and no gate opens."""
        wait_until(lambda: self.query("SELECT 1 FROM standing WHERE facts ->> '$.backends[0].worker'"), "the router to know of its worker")


def write_atomically(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".new", path)


__all__ = ["Process", "Router", "program", "environment", "free_port", "write_atomically", "BUILD"]
