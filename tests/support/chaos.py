"""Two routers that share their state, under traffic while everything around them fails at random, and what must be true in the end (docs/promises.md).

    scripts/chaos --seed N --minutes M        prints a table; exit code 1 when a promise was broken

Every request has a number. Legacy and the workers write down the number of what they execute, each in its own file, before they
answer; callers write down what they were told. The seed decides which faults come in which order, for how long, and what each
request is; how they fall together is the machine's.
"""
import argparse
import collections
import contextlib
import glob
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import _pytest.outcomes

import configuration as c
from celery_redis import Redis
from celery_worker import Worker
from disk import Disk
from flipt_server import Server
from http_text import Cut, wait_until
from origin import Origin
from programs import Process, Router, free_port, write_atomically
from raw import Client, request

CALLERS = 8
PATIENCE = 60.0
FLUSH_S = 0.1          # of outcomes, as configured
UNWRITTEN_S = 5.0      # a kill may cost the outcomes of the last flush; on a loaded machine that takes its time
FLAG = "task_abstraction_enabled"
SHARES = (0, 25, 50, 100)
ANSWERS = {200, 500, 502, 503, 504}
COMPLETED, FAILED = 2, 3  # task.state in tasks.db
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
# Notes the number in `done`, then answers as legacy would.
STEP = "import json, os, sys; k = json.load(sys.stdin)['kwargs']; " \
       "os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), b'%d\\n' % k['n']); " \
       "print(json.dumps({'n': k['n'], 'side': 'task'}))"

Told = collections.namedtuple("Told", "kind number name router status side began ended")


class Legacy:
    """Counts what it executes. `mode`: well; slow; cut_before (nothing executed); cut_after (executed, and no answer)."""

    def __init__(self):
        self.lock, self.done, self.mode = threading.Lock(), [], "well"
        self.origin = Origin()
        self.origin.always(self.answer)

    def answer(self, x):
        mode = self.mode
        if mode == "slow":
            time.sleep(0.3)
        if mode == "cut_before":
            x.reset()
            return
        if x.request.method == "POST":
            with self.lock:
                self.done.append(json.loads(x.request.body)["n"])
        if mode == "cut_after":
            x.reset()
            return
        x.answer(200, [("Content-Type", "application/json")], b'{"side": "legacy"}')


class Side:
    """One router with its embedded worker and its data folder."""

    def __init__(self, world, name, flags, disk, clock):
        self.world, self.name, self.folder = world, name, os.path.join(world.folder, name)
        os.makedirs(self.folder)
        self.port, self.lock = free_port(), threading.Lock()
        self.down, self.unwritten = [], []  # intervals: no process listens; what is recorded may be lost
        self.disk = self.within = self.env = None
        if disk:
            with contextlib.suppress(_pytest.outcomes.Skipped):
                self.disk = Disk(os.path.join(self.folder, "data"), "64m")  # ten minutes of outcomes fit
        if clock and FAKETIME and "san" not in os.environ.get("MIGRATION_ROUTER_BUILD", ""):
            self.set_clock("+0")
            self.env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self.clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                        "FAKETIME_NO_CACHE": "1"}
        self.within = self.disk.within(self.folder) if self.disk else ()
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "step", "exec": {"argv": [sys.executable, "-S", "-E", "-c", STEP, world.done]}}]}, file)
        self.config = self.configuration(flags)
        self.router = self.worker = None
        self.start()
        self.hire()

    def configuration(self, flags):
        def task(name, backend, key):
            return {"name": name, "kwargs": {"n": {"$ref": key}}, "timeout": "4s", "backend": backend}

        def pinned(match, key, number, role):
            return c.operation(match, task("step", "embedded", number), pin={"group": "g", "key": key, "role": role}, identity=c.IDENTITY)
        operations = {
            "embedded": c.operation("POST /embedded", task("step", "embedded", "body:/n"), identity=c.IDENTITY),
            "celery": c.operation("POST /celery", task("step", "celery", "body:/n"), identity=c.IDENTITY),
            "start": pinned("POST /start", "body:/name", "body:/n", "start"),
            "look": pinned("POST /look", "body:/name", "body:/n", "follow")}
        service = c.service(self.world.legacy.origin, operations, {"connect_timeout": "2s", "response_timeout": "5s"})
        service["listen"] = "127.0.0.1:%d" % self.port
        backends = {**c.embedded(when_not_ready="legacy"), "celery": {"broker_url": self.world.redis.url(0)}}
        config = c.router({"app": service}, backends=backends, outcomes={"flush": "%dms" % (FLUSH_S * 1000)}, drain_timeout="10s",
                          state={"url": self.world.state.url(0)})
        if flags:
            config["flags"] = flags
        return config

    @property
    def clock(self):
        return os.path.join(self.folder, "clock")

    def set_clock(self, to):
        write_atomically(self.clock, to + "\n")

    def start(self, *arguments):
        features = None if "flags" in self.config else self.world.features(50)
        if os.path.exists(os.path.join(self.folder, "flags.yml")):
            features = None
        self.router = Router(self.folder, self.config, features, self.env, within=self.within, arguments=arguments)
        self.world.processes.append(self.router)

    def hire(self):
        self.worker = Process("task-backend-worker", "--backend", "embedded", "--config", self.router.config_path, "--log-format", "json",
                              "--lease", "3s", cwd=self.folder, env=self.env, within=self.within)
        self.world.processes.append(self.worker)
        self.worker.wait_event("worker_ready", patience=PATIENCE)

    def kill_router(self):
        now = time.monotonic()
        self.unwritten.append((now - UNWRITTEN_S, now))
        self.down.append([now, None])
        self.router.kill()

    def restart_router(self):
        self.start()
        self.down[-1][1] = time.monotonic()

    def was_down(self, began, ended):
        return any(down <= ended and (up is None or up >= began) for down, up in self.down)

    def may_lack(self, began, ended):
        """The answer left at some time in between: callers read it when they get to it."""
        return any(a <= ended and began <= b for a, b in self.unwritten)

    def data(self, name):
        path = os.path.join(self.folder, "data", name)
        return self.disk.path(name) if self.disk else path

    def open_tasks(self):
        return self.rows("tasks.db", "SELECT * FROM task WHERE state NOT IN (%d, %d)" % (COMPLETED, FAILED))

    def rows(self, name, sql):
        """Of a copy: SQLite's locks do not reach into another mount namespace."""
        with tempfile.TemporaryDirectory(dir=self.world.folder) as folder:
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(self.data(name) + suffix, os.path.join(folder, name + suffix))
            with contextlib.closing(sqlite3.connect(os.path.join(folder, name))) as db:
                db.row_factory = sqlite3.Row
                return [dict(row) for row in db.execute(sql)]


class World:
    def __init__(self, folder, seed):
        self.folder, self.random = str(folder), random.Random(seed)
        self.processes, self.told, self.lock = [], [], threading.Lock()
        self.next, self.names = 0, []
        self.ending = threading.Event()
        self.done = os.path.join(self.folder, "done")
        self.legacy = Legacy()
        self.redis, self.state = self.durable_redis("broker"), self.durable_redis("state")
        self.flipt = Server(2)
        self.flipt.load(self.features(50))
        self.celery, self.sides = None, ()
        self.faults, self.busy, self.failed = collections.Counter(), set(), []

    def begin(self):
        self.hire_celery()
        self.a = Side(self, "a", None, disk=True, clock=False)
        self.sides = (self.a,)
        self.b = Side(self, "b", self.flipt.source(), disk=False, clock=True)
        self.sides = (self.a, self.b)

    def durable_redis(self, name):
        folder = os.path.join(self.folder, name)
        os.mkdir(folder)
        return Redis(folder, "--appendonly", "yes", "--appendfsync", "always")

    def features(self, share):
        return c.features(c.boolean(FLAG, False, share))

    def hire_celery(self):
        self.celery = Worker(self.folder, self.redis.url(0), conf={"task_acks_late": False}, concurrency=4)

    # --- callers ---

    def caller(self, seed):
        rng = random.Random(seed)
        while not self.ending.is_set():
            with self.lock:
                number, self.next = self.next, self.next + 1
                name = rng.choice(self.names[-200:]) if self.names else None
            kind = rng.choice(("embedded", "celery", "start", "look", "plain"))
            if kind == "look" and not name:
                kind = "start"
            if kind == "start":
                name = ("name-%d" % number, None, None)
            self.call(kind, number, name, rng)

    def call(self, kind, number, name, rng):
        side = self.sides[rng.randrange(2)]  # whoever began it: their state is shared
        body = json.dumps({"n": number, "name": name[0] if name else "-"}).encode()
        fields = [("X-User-Id", "user-%d" % rng.randrange(500)), ("X-Request-ID", "chaos-%d" % number)]
        began = time.monotonic()
        status = where = None
        try:
            with Client(side.port, patience=PATIENCE) as client:
                answer = client.ask(request("POST", "/" + kind, fields, body))
            status = answer.status
            if status == 200:
                where = json.loads(answer.body)["side"]
        except (Cut, OSError):
            if side.router.popen.poll() is not None:
                self.ending.wait(0.05)  # nobody listens: do not turn in circles
        told = Told(kind, number, name, side, status, where, began, time.monotonic())
        with self.lock:
            self.told.append(told)
            if kind == "start" and where:
                self.names.append((name[0], side, where))

    # --- faults: each ends what it began. Two of one part (a router's side, Redis, …) never overlap ---

    def faults_of(self):
        """(name, part, what it does for so many seconds, weight)"""
        faults = [("flags flipped", "flags", self.flip, 6), ("Celery worker killed", "celery", self.kill_celery, 2),
                  ("broker stopped", "broker", lambda s: self.stop_redis(self.redis, s), 3),
                  ("broker killed", "broker", lambda s: self.restart_redis(self.redis, s), 2),
                  ("state stopped", "state", lambda s: self.stop_redis(self.state, s), 3),
                  ("state killed", "state", lambda s: self.restart_redis(self.state, s), 2),
                  ("Flipt broken", "flipt", self.break_flipt, 2), ("legacy restarted", "legacy", self.drop_legacy, 2),
                  ("disk full", self.a, self.fill_disk, 3), ("clock steps", self.b, self.step_clock, 3)]
        faults += [("legacy " + mode, "legacy", lambda s, m=mode: self.legacy_is(m, s), 2) for mode in ("slow", "cut_before", "cut_after")]
        for side in self.sides:
            faults += [("router killed", side, lambda s, x=side: self.kill_router(x, s), 3),
                       ("router stopped", side, lambda s, x=side: self.suspend(x.router.pid, s), 2),
                       ("router and worker killed", side, lambda s, x=side: self.kill_both(x, s), 2),
                       ("takeover", side, lambda s, x=side: self.take_over(x, s), 2),
                       ("worker killed", side, lambda s, x=side: self.kill_worker(x, s), 3),
                       ("worker stopped", side, lambda s, x=side: self.suspend(x.worker.pid, 2 * s), 2),  # at times longer than a lease
                       ("reload", side, lambda _, x=side: x.router.signal(signal.SIGHUP), 2)]
        return faults

    def flip(self, _):
        share, other = self.random.choice(SHARES), self.random.choice(SHARES)
        self.a.router.write_flags(self.features(share))
        self.flipt.load(self.features(other))

    def kill_router(self, side, seconds):
        side.kill_router()
        self.ending.wait(seconds / 2)
        side.restart_router()

    def take_over(self, side, _):
        """Nobody is refused or cut meanwhile: no time of this counts as down."""
        old = side.router
        side.start("--takeover")
        assert old.wait(2 * PATIENCE) == 0, "the process that was taken over ended badly:\n" + old.log()[-4000:]

    def kill_worker(self, side, seconds):
        side.worker.kill()
        self.ending.wait(seconds)
        side.hire()

    def kill_both(self, side, seconds):
        side.worker.kill()
        side.kill_router()
        self.ending.wait(seconds / 2)
        side.restart_router()
        side.hire()

    def suspend(self, pid, seconds):
        os.kill(pid, signal.SIGSTOP)
        self.ending.wait(seconds)
        os.kill(pid, signal.SIGCONT)

    def kill_celery(self, seconds):
        self.celery.kill()
        self.ending.wait(seconds / 2)
        self.hire_celery()

    def stop_redis(self, server, seconds):
        server.pause()
        self.ending.wait(seconds)
        server.go_on()

    def restart_redis(self, server, seconds):
        server.process.kill()
        server.process.wait()
        self.ending.wait(seconds / 2)
        server.start()

    def legacy_is(self, mode, seconds):
        self.legacy.mode = mode
        self.ending.wait(seconds / 2)
        self.legacy.mode = "well"

    def drop_legacy(self, _):
        self.legacy.origin.drop_connections()

    def break_flipt(self, seconds):
        self.flipt.between.break_with(self.random.choice(("hang", "slow", "half", "500", "garbage")))
        self.ending.wait(seconds)
        self.flipt.between.break_with(None)

    def fill_disk(self, seconds):
        if not self.a.disk:
            return
        began = time.monotonic()
        self.a.disk.fill()
        self.ending.wait(seconds)
        self.a.disk.free()
        self.a.unwritten.append((began - UNWRITTEN_S, time.monotonic() + 3 * UNWRITTEN_S))

    def step_clock(self, seconds):
        if not self.b.env:
            return
        self.b.set_clock(self.random.choice(("+1d", "-1d", "+90m", "-5m")))
        self.ending.wait(seconds)
        self.b.set_clock("+0")

    def inject(self, fault, seconds):
        name, part, what, _ = fault
        try:
            what(seconds)
        except Exception as why:  # of the run itself: told in the end
            self.failed.append("%s: %s: %s" % (name, type(why).__name__, str(why)[:2000]))
        finally:
            self.busy.discard(part)

    def disturb(self, seconds):
        """Starts faults, several at once, until the time is over and all have ended."""
        faults, running = self.faults_of(), []
        while time.monotonic() - self.began < seconds and not self.failed:
            fault = self.random.choices(faults, [weight for _, _, _, weight in faults])[0]
            lasts, pause = self.random.uniform(0.2, 2.5), self.random.uniform(0.05, 0.8)
            if fault[1] not in self.busy:
                self.busy.add(fault[1])
                self.faults[fault[0]] += 1
                running.append(threading.Thread(target=self.inject, args=(fault, lasts), daemon=True))
                running[-1].start()
            self.ending.wait(pause)
        for thread in running:
            thread.join(2 * PATIENCE)
        assert not self.failed, self.failed

    # --- the run ---

    def run(self, seconds):
        self.began = time.monotonic()
        seeds = [self.random.random() for _ in range(CALLERS)]
        callers = [threading.Thread(target=self.caller, args=(seed,), daemon=True) for seed in seeds]
        for thread in callers:
            thread.start()
        self.disturb(seconds)
        self.ending.set()
        for thread in callers:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "a caller was never answered"
        self.settle()

    def settle(self):
        """All is well again: what was accepted ends, and started names are asked for once more."""
        self.ending.clear()  # what waits from here on waits for real
        for side in self.sides:
            try:
                wait_until(lambda: not side.open_tasks(), "every accepted task to end", 2 * PATIENCE)
            except AssertionError as why:
                raise AssertionError("router %s: %s; %s; faults that failed: %s; its worker: %s" % (
                    side.name, why, side.open_tasks()[:5], self.failed, side.worker.log()[-3000:])) from why
        wait_until(self.celery_is_empty, "Celery's queue to be empty", 2 * PATIENCE)
        self.last_looks = []
        for name in self.names[-60:]:
            wait_until(lambda: self.look_again(name), "an answer about %s" % name[0], PATIENCE)

    def celery_is_empty(self):
        client = self.redis.client(0)
        return not client.llen("celery")

    def look_again(self, name):
        """503 and the like are no answer yet: backends are asked every few seconds whether they are back."""
        with self.lock:
            number, self.next = self.next, self.next + 1
        self.call("look", number, name, self.random)
        told = self.told[-1]
        if told.status == 200:
            self.last_looks.append(told)
        return told.status == 200

    def stop(self):
        self.ending.set()
        for process in reversed(self.processes):
            code = process.popen.poll()
            if code is None:
                process.popen.send_signal(signal.SIGCONT)
                assert process.stop() == 0, "%s ended badly:\n%s" % (process.name, process.log()[-4000:])
            process.check_sanitizers()
        self.celery.stop()

    def clean_up(self):
        for process in self.processes:
            if process.popen.poll() is None:
                with contextlib.suppress(Exception):
                    process.popen.send_signal(signal.SIGCONT)
                    process.kill()
        if self.celery:
            self.celery.kill()
        for server in (self.redis, self.state):
            server.go_on()
            server.stop()
        self.flipt.stop()
        self.legacy.origin.stop()
        for side in self.sides:
            if side.disk:
                side.disk.end()

    # --- what must be true ---

    def executed(self):
        """Number → where it was executed, once for each time."""
        found = collections.defaultdict(list)
        for number in self.legacy.done:
            found[number].append("legacy")
        for path in (self.done, os.path.join(self.folder, "runs")):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                for line in file:
                    found[int(line)].append("task")
        return found

    def violations(self):
        executed = self.executed()
        yield from self.unanswered()
        yield from self.repeated(executed)
        for told in self.told:
            if told.status == 200 and executed.get(told.number) != [told.side]:
                yield "request %d was answered by %s and executed by %s" % (told.number, told.side, executed.get(told.number) or "nobody")
        yield from self.wrong_sides()
        for side in self.sides:
            yield from self.wrong_outcomes(side)
            for name in ("outcomes.db", "tasks.db", "ledger.db"):
                whole = side.rows(name, "PRAGMA integrity_check")
                if whole != [{"integrity_check": "ok"}]:
                    yield "router %s: %s is damaged: %s" % (side.name, name, whole)

    def unanswered(self):
        for told in self.told:
            if told.status is None and not told.router.was_down(told.began, told.ended):
                yield "request %d (%s) got no answer from router %s, which was up" % (told.number, told.kind, told.router.name)
            if told.status is not None and told.status not in ANSWERS:
                yield "request %d (%s) was answered %d" % (told.number, told.kind, told.status)

    def repeated(self, executed):
        for number, places in sorted(executed.items()):
            if len(places) > 1:
                yield "request %d was executed %d times: %s" % (number, len(places), ", ".join(places))

    def wrong_sides(self):
        """A follow-up call that is answered is answered by the side that answered the start."""
        for told in self.told:
            if told.kind == "look" and told.side and told.side != told.name[2]:
                yield "request %d about %s went to %s, which began on %s" % (told.number, told.name[0], told.side, told.name[2])

    def wrong_outcomes(self, side):
        rows = collections.defaultdict(list)
        for row in side.rows("outcomes.db", "SELECT request_id, http_status, answered FROM attempts"):
            if row["answered"]:
                rows[row["request_id"]].append(row["http_status"])
        for told in self.told:
            if told.router is not side or told.status is None:
                continue
            found = rows.get("chaos-%d" % told.number, [])
            if found != [told.status] and not (found == [] and side.may_lack(told.began, told.ended)):
                kills = [down - told.ended for down, _ in side.down if down > told.ended]
                yield "router %s: request %d was answered %d and recorded as %s; the router was killed %s" % (
                    side.name, told.number, told.status, found, "%.1f s later" % min(kills) if kills else "never after it")


def report(world, broken, seconds, seed):
    statuses = collections.Counter(str(t.status or "connection lost") for t in world.told)
    executed = world.executed()
    lines = ["seed %s, %.0f s: %d requests, %d faults" % (seed, seconds, len(world.told), sum(world.faults.values())),
             "answers:    " + ", ".join("%s: %d" % pair for pair in sorted(statuses.items())),
             "served by:  " + ", ".join("%s: %d" % pair for pair in sorted(collections.Counter(t.side for t in world.told if t.side).items())),
             "executions: %d, follow-up calls answered: %d" % (len(executed), sum(t.kind == "look" and bool(t.side) for t in world.told)),
             "faults:     " + ", ".join("%s %d" % pair for pair in sorted(world.faults.items())),
             "broken promises: %d" % len(broken)]
    return lines + ["  " + line for line in broken[:40]]


def run(folder, seed, seconds):
    """The world after its run, and the promises that it broke."""
    world = World(folder, seed)
    try:
        world.begin()
        world.run(seconds)
        world.stop()
        return world, list(world.violations())
    finally:
        world.clean_up()


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)), help="which faults come, in which order (default: another one each time)")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--keep", metavar="FOLDER", help="data and logs stay here")
    options = parser.parse_args()
    folder = options.keep or tempfile.mkdtemp(prefix="chaos-")
    os.makedirs(folder, exist_ok=True)
    try:
        world, broken = run(folder, options.seed, options.minutes * 60)
        print("\n".join(report(world, broken, options.minutes * 60, options.seed)))
        if options.keep:
            with open(os.path.join(folder, "routers.log"), "w", encoding="utf-8") as file:
                file.write("\n".join("== %s %d\n%s" % (p.name, p.pid, p.log()) for p in world.processes))
        return 1 if broken else 0
    finally:
        if not options.keep:
            subprocess.run(["rm", "-rf", folder], check=False)


if __name__ == "__main__":
    sys.exit(main())
