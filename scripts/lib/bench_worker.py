"""What a task costs its worker: ours on a Celery queue against `celery worker` with each of its pools, for add_numbers.

The worker has one core, Redis and the producer the other. Messages are put into the queue at once; time is from then until the last result
is stored; CPU is that of the worker's processes, user and system.
"""
import json
import os
import sys
import time
import uuid

import redis

from bench_programs import CORE_LOAD, CORE_TESTED, FOLDER, ROOT, ROUNDS, Server, free_port, goal, median, need_program

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

COUNT = int(os.environ.get("BENCH_TASKS", "1000"))  # per round and Python worker; ours gets ten times as many
POOLS = {"prefork": 1, "solo": 1, "threads": 8}


def messages(n):
    """As Celery's own producer writes them, of which one is asked."""
    from celery import Celery
    app = Celery("producer", broker="memory://")
    with app.connection() as connection:
        queue = connection.SimpleQueue("celery")
        app.send_task("add_numbers", args=[1, 2], connection=connection)
        channel = connection.default_channel
        one = channel._get("celery")  # pylint: disable=protected-access
        queue.close()
    one["headers"]["id"] = one["properties"]["correlation_id"] = one["headers"]["root_id"] = "THE-ID"
    text = json.dumps(one)
    return [text.replace("THE-ID", str(uuid.uuid4())).replace(one["properties"]["delivery_tag"], str(uuid.uuid4())) for _ in range(n)]


def ticks(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def cpu_seconds(process):
    found, todo = 0, [process.pid]
    while todo:
        pid = todo.pop()
        found += ticks(pid)
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task), encoding="ascii") as file:
                todo += [int(child) for child in file.read().split()]
    return found / os.sysconf("SC_CLK_TCK")


def measure(port, process, n):
    client, results = redis.Redis(port=port, db=0), redis.Redis(port=port, db=1)
    results.flushdb()
    with client.pipeline(transaction=False) as pipe:
        for text in messages(n):
            pipe.lpush("celery", text)
        cpu, begun = cpu_seconds(process), time.monotonic()
        pipe.execute()
    while results.dbsize() < n:
        if time.monotonic() > begun + 300:
            raise SystemExit("only %d of %d results came" % (results.dbsize(), n))
        time.sleep(0.005)
    seconds = time.monotonic() - begun
    return {"rate": n / seconds, "cpu": (cpu_seconds(process) - cpu) / n * 1e6}


def with_python(port, pool):
    from celery_worker import Worker
    os.sched_setaffinity(0, {CORE_TESTED})
    worker = Worker(FOLDER, "redis://127.0.0.1:%d/0" % port, "redis://127.0.0.1:%d/1" % port, pool=pool, concurrency=POOLS[pool],
                    conf={"task_track_started": False})
    os.sched_setaffinity(0, {CORE_LOAD})
    try:
        measure(port, worker.process, 50)
        return measure(port, worker.process, COUNT)
    finally:
        worker.stop()


def with_ours(port):
    env = dict(os.environ, CELERY_BROKER_URL="redis://127.0.0.1:%d/0" % port, CELERY_RESULT_BACKEND="redis://127.0.0.1:%d/1" % port)
    worker = Server("task-backend-worker", CORE_TESTED, need_program("task-backend-worker"), "--backend", "celery", env=env,
                    ready=lambda s: "worker_ready" in s.said())
    try:
        measure(port, worker.popen, 50)
        return measure(port, worker.popen, 10 * COUNT)
    finally:
        worker.popen.terminate()
        worker.popen.wait(30)


def run():
    port, cores = free_port(), os.sched_getaffinity(0)
    Server("redis", CORE_LOAD, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", port=port)
    os.sched_setaffinity(0, {CORE_LOAD})
    ours, rows = "task-backend-worker --backend celery", {}
    try:
        for _ in range(ROUNDS):
            rows.setdefault(ours, []).append(with_ours(port))
            for pool in POOLS:
                rows.setdefault("celery worker -P " + pool, []).append(with_python(port, pool))
    finally:
        os.sched_setaffinity(0, cores)
        Server.stop_all()
    print("add_numbers from a full queue over Redis, worker on one core; median of %d rounds" % ROUNDS)
    print("%-44s %12s %9s" % ("", "CPU us/task", "tasks/s"))
    for name, row in rows.items():
        print("%-44s %12.1f %9.0f" % (name, median(row, "cpu"), median(row, "rate")))
    for name in list(rows)[1:]:
        share = median([{"cpu": a["cpu"] / b["cpu"]} for a, b in zip(rows[ours], rows[name])], "cpu")
        goal("CPU of ours, of %s" % name, share, 0.1, "1/%.1f" % (1 / share))
    return True
