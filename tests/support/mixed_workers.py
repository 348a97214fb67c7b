"""Python's Celery workers and ours on one queue, killed at random: who did what, and what Celery's own rules allow to be missing.

Half of the tasks (`count`) are acknowledged late by both kinds: each ends, and is run again only where a worker was lost. The others (`step`) are
acknowledged before they begin: none runs twice, and what ran in a worker that was lost has no result. A message that kombu had popped and not yet
noted as unacknowledged (two commands) is lost with a Python worker; ours does it in one.
"""
import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

import configuration
from celery_redis import Redis
from celery_worker import Worker, application
from http_text import PATIENCE, wait_until
from programs import program

VISIBILITY = 5
CONCURRENCY = 4


class Ours:
    def __init__(self, folder, server, **settings):
        note = 'read -r key; echo "$key" >>%s; printf %%s "$key"' % os.path.join(folder, "runs")
        one = {"exec": {"argv": ["sh", "-c", note], "stdin": {"text": "args:/0"}, "stdout": "text"}}
        tasks = [{"name": "count", "idempotent": True, **one}, {"name": "step", **one}, {"name": "add_numbers", "builtin": "add_numbers"}]
        with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": tasks}, file)
        config = configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="celery", backends={"celery": {
            "broker_url": server.url(0), "result_backend": server.url(1), "tasks": "tasks.yml", "visibility_timeout": "%ds" % VISIBILITY,
            **settings}})
        path = os.path.join(folder, "worker.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.log_path = os.path.join(folder, "ours-%d.log" % random.randrange(1 << 40))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([program("task-backend-worker"), "--config", path, "--queues", "celery", "--log-format", "json",
                                             "--concurrency", str(CONCURRENCY)], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.is_ready, "our worker to be ready")

    def is_ready(self):
        assert self.process.poll() is None, self.log()
        return '"worker_ready"' in self.log()

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def python(folder, server):
    return Worker(folder, server.url(0), server.url(1), concurrency=CONCURRENCY, conf={
        "task_annotations": {"count": {"acks_late": True, "reject_on_worker_lost": True}},
        "broker_transport_options": {"visibility_timeout": VISIBILITY}, "worker_prefetch_multiplier": 4})


class Mixed:
    def __init__(self, folder, tasks, ours, pythons, seed):
        self.folder, self.tasks, self.random = str(folder), tasks, random.Random(seed)
        self.server = Redis(self.folder)
        self.app = application(self.server.url(0), self.server.url(1))
        self.app.conf.broker_transport_options = {"visibility_timeout": VISIBILITY}
        self.workers, self.kills, self.late, self.early = [], collections.Counter(), {}, {}
        for kind, n in (("ours", ours), ("python", pythons)):
            self.workers += [(kind, self.start(kind)) for _ in range(n)]

    def start(self, kind):
        return Ours(self.folder, self.server) if kind == "ours" else python(self.folder, self.server)

    def send(self):
        for n in range(self.tasks // 2):
            self.late["c%d" % n] = self.app.send_task("count", args=("c%d" % n,)).id
            self.early[str(n)] = self.app.send_task("step", args=(str(n),)).id

    def kill(self, kind=None, again=True):
        """One of them at random, or of this kind."""
        at = self.random.choice([i for i, (k, _) in enumerate(self.workers) if kind in (None, k)])
        kind, worker = self.workers.pop(at)
        worker.kill()
        self.kills[kind] += 1
        if again:
            self.workers.append((kind, self.start(kind)))

    def left(self):
        broker = self.server.client(0)
        return broker.llen("celery") + broker.hlen("unacked") + broker.zcard("unacked_index")

    def states(self, ids):
        keys = ["celery-task-meta-" + i for i in ids.values()]
        found = self.server.client(1).mget(keys)
        return {key: json.loads(text)["status"] if text else None for key, text in zip(ids, found)}

    def runs(self):
        with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
            return collections.Counter(file.read().split("\n")[:-1])

    def end(self, patience=PATIENCE):
        wait_until(lambda: self.left() == 0, "all messages to be acknowledged", patience)
        # What is acknowledged early, or has just ended, still runs.
        wait_until(lambda: not [1 for _, w in self.workers if w.process.poll() is None and self.busy()], "what runs to end", patience)

    def busy(self):
        before = self.done()
        time.sleep(0.5)
        return self.done() != before

    def done(self):
        return self.server.client(1).dbsize(), sum(self.runs().values())

    def violations(self):
        runs, late, early = self.runs(), self.states(self.late), self.states(self.early)
        kills, places = sum(self.kills.values()), sum(self.kills.values()) * CONCURRENCY
        unfinished = [key for key, state in late.items() if state != "SUCCESS"]
        if len(unfinished) > self.kills["python"]:
            yield "%d tasks that are acknowledged late have not ended, with %d Python workers lost: %s" % (
                len(unfinished), self.kills["python"], unfinished[:10])
        again = sum(runs[key] - 1 for key in self.late if runs[key] > 1)
        if again > places + kills * 4 * CONCURRENCY:  # what it held, too, is delivered again
            yield "%d tasks ran again with %d workers lost" % (again, kills)
        twice = [key for key in self.early if runs[key] > 1]
        if twice:
            yield "ran twice though they were acknowledged before: %s" % twice[:10]
        without = [key for key, state in early.items() if state != "SUCCESS"]
        if len(without) > places + self.kills["python"]:
            yield "%d tasks have no result with %d workers lost" % (len(without), kills)
        unmade = [key for key, state in {**late, **early}.items() if state == "SUCCESS" and not runs[key]]
        if unmade:
            yield "have a result and never ran: %s" % unmade[:10]

    def told(self):
        runs, late, early = self.runs(), self.states(self.late), self.states(self.early)
        return ["%d tasks, workers lost: %s" % (self.tasks, dict(self.kills)),
                "late:  %d ended, %d ran more than once" % (sum(s == "SUCCESS" for s in late.values()), sum(runs[k] > 1 for k in late)),
                "early: %d ended, %d ran more than once, %d began and have no result, %d never began" % (
                    sum(s == "SUCCESS" for s in early.values()), sum(runs[k] > 1 for k in early),
                    sum(s != "SUCCESS" and runs[k] > 0 for k, s in early.items()), sum(not runs[k] for k in early))]

    def stop(self):
        for _, worker in self.workers:
            worker.stop()
        self.server.stop()


def rss_kib(pid):
    with open("/proc/%d/status" % pid, encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1])


def memory(folder, tasks):
    """Our worker's resident memory after so many tasks; results are kept for a second only, so that the server has room."""
    server = Redis(folder)
    worker = Ours(folder, server, result_expires="1s")
    app = application(server.url(0), server.url(1))
    try:
        done = 0
        for mark in [m for m in (1000, 10000, 50000, 100000) if m < tasks] + [tasks]:
            while done < mark:
                for n in range(min(1000, mark - done)):
                    app.send_task("add_numbers", args=(n, 1), ignore_result=False)
                done += min(1000, mark - done)
                wait_until(lambda: not server.client(0).llen("celery") and not server.client(0).hlen("unacked"), "the tasks to end")
            print("%7d tasks: %6d KiB" % (done, rss_kib(worker.process.pid)), flush=True)
    finally:
        worker.stop()
        server.stop()


def main():
    parser = argparse.ArgumentParser(prog="scripts/mixed-workers", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", type=int, default=10000)
    parser.add_argument("--ours", type=int, default=2, metavar="N", help="workers of ours at a time (default: 2)")
    parser.add_argument("--pythons", type=int, default=1, metavar="N", help="Python's (default: 1)")
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--memory", action="store_true", help="instead: one worker of ours without kills, and its memory (--tasks 100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixed-") as folder:
        if options.memory:
            memory(folder, options.tasks)
            return 0
        mixed = Mixed(folder, options.tasks, options.ours, options.pythons, options.seed)
        try:
            began = time.monotonic()
            sender = threading.Thread(target=mixed.send, daemon=True)  # the workers are faster than it
            sender.start()
            while sender.is_alive() or mixed.server.client(0).llen("celery"):
                time.sleep(mixed.random.uniform(0.3, 1.5))
                mixed.kill()
            mixed.end(300)
            print("seed %s, %.0f s" % (options.seed, time.monotonic() - began))
            broken = list(mixed.violations())
            print("\n".join(mixed.told() + ["broken promises: %d" % len(broken)] + ["  " + line for line in broken]))
            return 1 if broken else 0
        finally:
            mixed.stop()


if __name__ == "__main__":
    sys.exit(main())
