"""What a task costs its caller: the router and its task client against the engines' own Python clients and the bare engine, on the same
server and the same worker. The caller has one core, everything else the other.

The router's CPU is that of the whole process: HTTP towards its caller, templates and the outcome on disk are in it.
"""
import json
import os
import subprocess
import sys

from bench_programs import (CORE_LOAD, CORE_TESTED, FOLDER, ROOT, ROUNDS, SECONDS, WRK_DONE, Server, free_port, goal, median, need_program,
                            wrk, write)

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

IN_FLIGHT = (1, 64)
COUNT = int(os.environ.get("BENCH_TASKS", "1000"))  # per round and caller
CALLERS = os.path.join(ROOT, "scripts", "bench.d")

LOAD = """
wrk.method, wrk.path, wrk.body = "POST", "/add", '{"args": [1, 2]}'
wrk.headers["Content-Type"] = "application/json"
"""


def caller(*command):
    """One that measures itself and prints a line of JSON; alone on the tested core."""
    run = subprocess.run(["taskset", "-c", str(CORE_TESTED), *command], cwd=FOLDER, stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    if run.returncode != 0:
        raise SystemExit("%s:\n%s" % (" ".join(command), run.stderr[-2000:]))
    row = json.loads(run.stdout)
    return {"p50": row["p50_us"], "p99": row["p99_us"], "cpu": row["cpu_us"], "rate": row["per_second"]}


def start_router(backend, settings, task):
    port, folder = free_port(), os.path.join(FOLDER, "data-" + backend)
    write("no-flags.yml", json.dumps({"namespace": "default", "flags": []}))
    operation = {"match": "POST /add", "flags": ["task_abstraction_enabled"], "auth": "none", "task": task}
    config = {"data": folder, "threads": 1, "admin": {"listen": "127.0.0.1:%d" % free_port()}, "flags": {"file": "no-flags.yml"},
              "backend": backend, "backends": {backend: settings}, "identity": {"user": ["header:X-User-Id"]},
              "services": {"s": {"listen": "127.0.0.1:%d" % port, "legacy": "http://127.0.0.1:%d" % free_port(),
                                 "operations": {"add": operation}}}}
    path = write("router-%s.yml" % backend, json.dumps(config))
    return Server("router-" + backend, CORE_TESTED, need_program("migration-router"), "--config", path, "--log-level", "warn",
                  port=port, env=dict(os.environ, TASK_ABSTRACTION_ENABLED="true"))


def rounds_of(callers):
    """Interleaved, so that what else the machine does meets all of them."""
    rows = {name: [] for name in callers}
    for _ in range(ROUNDS):
        for name, call in callers.items():
            rows[name].append(call())
    return rows


def table(title, rows):
    print("%s; median of %d rounds" % (title, ROUNDS))
    print("%-44s %12s %9s %9s %9s" % ("", "CPU us/task", "p50 us", "p99 us", "tasks/s"))
    for name, row in rows.items():
        print("%-44s %12.1f %9.0f %9.0f %9.0f" % (name, median(row, "cpu"), median(row, "p50"), median(row, "p99"), median(row, "rate")))


def ratio(rows, ours, theirs, key="cpu"):
    """The median of the rounds' ratios: each is of one moment of this machine."""
    return median([{key: a[key] / b[key]} for a, b in zip(rows[ours], rows[theirs])], key)


def added(rows, ours, theirs):
    return median([{"p50": a["p50"] - b["p50"]} for a, b in zip(rows[ours], rows[theirs])], "p50")


def through_router(router, connections):
    row = wrk(router, "tasks.lua", connections, min(SECONDS, 4))
    if row["errors"]:
        raise SystemExit("%d requests failed: %s" % (row["errors"], router.said()[-2000:]))
    return row


def labels(engine):
    return {(who, n): "%s, %s" % (who, "in series" if n == 1 else "%d in flight" % n) for n in IN_FLIGHT
            for who in ("router, HTTP to HTTP", "its task client", "Python: " + engine)}


OURS = ("its task client", "router, HTTP to HTTP")


def compare_cpu(rows, engine, limit):
    of = labels(engine)
    for n in IN_FLIGHT:
        for who in OURS:
            share = ratio(rows, of[who, n], of["Python: " + engine, n])
            goal("CPU of %s, of the Python client's" % of[who, n], share, limit, "1/%.1f" % (1 / share))


def compare_latency(rows, engine, base):
    for who in OURS:
        more = added(rows, labels(engine)[who, 1], base)
        goal("p50 of %s beside %s" % (labels(engine)[who, 1], base), more, 300, "%+.0f us" % more)


def celery():
    from celery_worker import Worker
    port = free_port()
    Server("redis", CORE_LOAD, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", port=port)
    url = "redis://127.0.0.1:%d/0" % port
    os.sched_setaffinity(0, {CORE_LOAD})  # what it starts inherits it
    worker = Worker(FOLDER, url, pool="solo", concurrency=1, conf={"task_track_started": False})
    try:
        router = start_router("celery", {"broker_url": url}, {"name": "add_numbers", "args": {"$ref": "body:/args"}})
        client, python = need_program("bench-tasks"), os.path.join(CALLERS, "celery_client.py")
        of, raw = labels("send_task().get()"), "the bare engine (C, two sockets), in series"
        callers = {raw: lambda: caller(need_program("bench-celery-raw"), str(port), "add_numbers", str(COUNT))}
        for n in IN_FLIGHT:
            callers[of["router, HTTP to HTTP", n]] = lambda n=n: through_router(router, n)
            callers[of["its task client", n]] = lambda n=n: caller(client, "celery", "add_numbers", str(COUNT), str(n), "broker_url=" + url)
            callers[of["Python: send_task().get()", n]] = lambda n=n: caller(sys.executable, python, url, "add_numbers", str(COUNT), str(n))
        rows = rounds_of(callers)
        table("Celery over Redis, one worker without a pool", rows)
        compare_cpu(rows, "send_task().get()", 0.1)
        compare_latency(rows, "send_task().get()", raw)
    finally:
        worker.stop()
        Server.stop_all()


def temporal():
    import temporal_server
    if not temporal_server.find()[0]:
        print("skipped: " + temporal_server.find()[1])
        return
    server = temporal_server.Server(FOLDER)
    try:
        worker = temporal_server.Worker(FOLDER, server, "bench")
        try:
            measure_temporal(server)
        finally:
            worker.stop()
            Server.stop_all()
    finally:
        server.stop()


def measure_temporal(server):
    settings = {"http_url": server.url, "task_queue": "bench"}
    router = start_router("temporal", settings, {"name": "add_numbers", "args": {"$ref": "body:/args"}})
    client, python = need_program("bench-tasks"), os.path.join(CALLERS, "temporal_client.py")
    of, callers, count = labels("start_workflow().result()"), {}, str(COUNT // 4)
    for n in IN_FLIGHT:
        callers[of["router, HTTP to HTTP", n]] = lambda n=n: through_router(router, n)
        callers[of["its task client", n]] = lambda n=n: caller(client, "temporal", "add_numbers", count, str(n),
                                                               *("%s=%s" % setting for setting in settings.items()))
        callers[of["Python: start_workflow().result()", n]] = lambda n=n: caller(sys.executable, python, server.address, "bench",
                                                                                 "add_numbers", count, str(n))
    rows = rounds_of(callers)
    table("Temporal (development server), Python worker", rows)
    compare_cpu(rows, "start_workflow().result()", None)
    compare_latency(rows, "start_workflow().result()", of["Python: start_workflow().result()", 1])


def run():
    write("tasks.lua", LOAD + WRK_DONE)
    cores = os.sched_getaffinity(0)
    try:
        celery()
        print()
        temporal()
    finally:
        os.sched_setaffinity(0, cores)
