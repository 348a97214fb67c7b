"""Our worker on Celery's queues: real Python producers over a real Redis, beside real Python workers, through kills and outages."""
import datetime
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest
import requests
from celery import chain, chord, group
from celery.canvas import chunks, xmap, xstarmap
from celery.exceptions import NotRegistered, SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

import configuration
import core_tasks
from celery_worker import application
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("celery")


def tasks_of(folder, **changed):
    """Tasks as programs: `count` notes its key and gives it back; `hold` goes on until the file `go` is there."""
    runs, go = os.path.join(folder, "runs"), os.path.join(folder, "go")
    note = 'read -r key; echo "begin $key" >>%s; ' % runs
    one = {"stdin": {"text": "args:/0"}, "stdout": "text"}
    definitions = {
        "count": {"exec": {"argv": ["sh", "-c", note + 'printf %s "$key"'], **one}},
        "hold": {"exec": {"argv": ["sh", "-c", note + 'until test -e %s; do sleep 0.02; done; echo "end $key" >>%s; printf %%s "$key"'
                                   % (go, runs)], **one}},
    }
    program = [sys.executable, "-E", "-S", core_tasks.__file__]
    definitions["give_back"] = {"exec": {"argv": program + ["give_back"], "env": {"RUNS_FOLDER": folder}}}
    definitions["fail"] = {"exec": {"argv": program + ["fail"], "env": {"RUNS_FOLDER": folder}}}
    definitions["third_time"] = {"exec": {"argv": ["sh", "-c", note + 'test $(grep -c "begin $key" %s) -ge 3 || exit 75; printf %%s "$key"'
                                                   % runs], **one}}
    definitions["hold_again"] = {**definitions["hold"], "idempotent": True}
    return [{"name": name, "builtin": name} for name in ("add_numbers", "echo", "simulate_work")] + \
        [{"name": name, **how, **changed.get(name, {})} for name, how in definitions.items()]


class Place:
    """A Redis, a Python producer, and workers of ours on it."""

    def __init__(self, start, server, folder):
        self.start, self.server, self.folder, self.workers = start, server, str(folder), []
        self.app = application(server.url(0), server.url(1))
        self.write_tasks(tasks_of(self.folder))

    def write_tasks(self, tasks):
        path = os.path.join(self.folder, "tasks.yml")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"tasks": tasks}, file)
        os.replace(path + ".new", path)

    def worker(self, *arguments, queues="celery", **settings):
        config = configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="celery", backends={"celery": {
            "broker_url": self.server.url(0), "result_backend": self.server.url(1), "tasks": "tasks.yml", **settings}})
        path = os.path.join(self.folder, "worker.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        process = self.start.process("task-backend-worker", "--config", path, "--queues", queues, "--log-format", "json", *arguments,
                                     cwd=self.folder)
        process.wait_event("worker_ready")
        self.workers.append(process)
        return process

    def send(self, name, *args, **how):
        return self.app.send_task(name, args=args, **how)

    def sig(self, name, *args, **options):
        return self.app.signature(name, args=args, **options)

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def wait_run(self, line, count=1):
        wait_until(lambda: self.runs().count(line) >= count, "a task to say: " + line)

    def go(self):
        with open(os.path.join(self.folder, "go"), "w", encoding="utf-8"):
            pass

    def broker(self):
        return self.server.client(0)

    def meta(self, result):
        return json.loads(self.server.client(1).get("celery-task-meta-" + result.id))

    def nothing_left(self):
        """No message waits, or is held by anybody."""
        broker = self.broker()
        return not broker.llen("celery") and not broker.hlen("unacked") and not broker.zcard("unacked_index")


@pytest.fixture
def place(start, own_redis, tmp_path):
    one = Place(start, own_redis, tmp_path)
    yield one
    for process in one.workers:  # while Redis is there
        process.stop()


def test_a_producers_trace_is_in_the_environment_of_programs(place):
    """And what is no trace context harms nobody: whoever can write into the queue must not set variables or fields as they like."""
    tell = {"name": "tell", "exec": {"argv": ["sh", "-c", 'cat >/dev/null; printf %s "$TRACEPARENT/$TRACESTATE"'], "stdout": "text"}}
    place.write_tasks([*tasks_of(place.folder), tell])
    place.worker()
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert place.send("tell", headers={"traceparent": parent, "tracestate": "a=1"}).get(timeout=PATIENCE) == parent + "/a=1"
    for bad in ("x", parent + "0", parent[:-1] + "\n", parent[:-1] + "G"):
        assert place.send("tell", headers={"traceparent": bad, "tracestate": "a=1"}).get(timeout=PATIENCE) == "/", bad
    assert place.send("tell", headers={"traceparent": parent, "tracestate": "a=1\nX: y"}).get(timeout=PATIENCE) == "/"
    assert place.send("tell", headers={"traceparent": 7, "tracestate": None}).get(timeout=PATIENCE) == "/"
    # As the router writes the steps of a workflow: the worker passes on what a signature's options say.
    step = place.app.signature("tell", immutable=True, options={"headers": {"traceparent": parent, "tracestate": "a=1"}})
    assert (place.app.signature("tell") | step).apply_async().get(timeout=PATIENCE) == parent + "/a=1"


def test_a_python_producer_gets_its_results(place):
    place.worker()
    results = [place.send("add_numbers", n, 1) for n in range(100)]
    assert [r.get(timeout=PATIENCE) for r in results] == list(range(1, 101))
    meta = place.meta(results[0])
    assert meta.pop("date_done").endswith("+00:00")
    assert meta == {"status": "SUCCESS", "result": 1, "traceback": None, "children": [], "task_id": results[0].id}
    assert 86000 < place.server.client(1).ttl("celery-task-meta-" + results[0].id) <= 86400
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_failures_are_exceptions_in_python(place):
    place.worker()
    with pytest.raises(NotRegistered):
        place.send("nobody_knows_it").get(timeout=PATIENCE)
    with pytest.raises(RuntimeError, match="missing required argument: 'b'"):
        place.send("add_numbers", 1).get(timeout=PATIENCE)
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_term_lets_what_runs_end_and_gives_back_the_rest(place):
    worker = place.worker("--concurrency", 1)
    running, waiting = place.send("hold", "first"), place.send("count", "second")
    place.wait_run("begin first")
    wait_until(lambda: place.broker().hlen("unacked"), "the second to be held")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: place.broker().llen("celery") == 1, "what had not begun to be back in its queue")
    place.go()
    assert running.get(timeout=PATIENCE) == "first" and worker.wait() == 0
    assert place.runs() == ["begin first", "end first"]
    place.worker()
    assert waiting.get(timeout=PATIENCE) == "second"
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_early_acknowledged_tasks_never_run_twice_over_kill_9(place):
    worker = place.worker("--concurrency", 1, visibility_timeout="1s")
    place.send("hold", "once")
    waiting = place.send("count", "held")
    place.wait_run("begin once")
    wait_until(lambda: place.broker().hlen("unacked"), "the second to be held")
    worker.kill()
    place.worker(visibility_timeout="1s")
    # What was only held comes back; what had begun is lost, as with Celery.
    assert waiting.get(timeout=PATIENCE) == "held"
    assert place.runs().count("begin once") == 1
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_late_acknowledged_tasks_run_again_after_kill_9(place):
    worker = place.worker(visibility_timeout="1s")
    result = place.send("hold_again", "twice")
    place.wait_run("begin twice")
    worker.kill()
    place.go()
    place.worker(visibility_timeout="1s")
    assert result.get(timeout=PATIENCE) == "twice"
    assert place.runs().count("begin twice") == 2
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_a_task_longer_than_the_visibility_timeout_runs_once(place):
    place.worker(visibility_timeout="1s")
    place.worker("--worker-name", "other", visibility_timeout="1s")
    result = place.send("hold_again", "long")
    place.wait_run("begin long")
    tag = place.broker().zrange("unacked_index", 0, 0)[0]
    first = place.broker().zscore("unacked_index", tag)
    wait_until(lambda: place.broker().zscore("unacked_index", tag) > first + 2, "it to be held for longer than two timeouts")
    place.go()
    assert result.get(timeout=PATIENCE) == "long" and place.runs().count("begin long") == 1


def test_redis_restarted_while_a_task_runs(place):
    server = place.server
    worker = place.worker()
    result = place.send("hold", "through")
    place.wait_run("begin through")
    server.stop()
    place.go()
    worker.wait_event("task_ended")
    server.start()
    wait_until(lambda: server.client(1).exists("celery-task-meta-" + result.id), "the result to be stored after all")
    assert place.meta(result)["result"] == "through"
    assert place.send("add_numbers", 1, 2).get(timeout=PATIENCE) == 3


def test_health_and_metrics_of_the_worker(place):
    worker = place.worker("--health-port", "0", "--worker-name", "w1")
    port = int(worker.wait_event("health_listening")["port"])
    assert place.send("add_numbers", 1, 2).get(timeout=PATIENCE) == 3
    told = requests.get("http://127.0.0.1:%d/health" % port, timeout=PATIENCE)
    assert told.status_code == 200 and told.json()["status"] == "healthy" and told.json()["worker"] == "w1"
    assert 'task_worker_tasks_total{result="success"} 1' in requests.get("http://127.0.0.1:%d/metrics" % port, timeout=PATIENCE).text
    assert requests.get("http://127.0.0.1:%d/" % port, timeout=PATIENCE).status_code == 404
    environment = {"CELERY_BROKER_URL": place.server.url(0), "CELERY_RESULT_BACKEND": place.server.url(1)}
    check = place.start.run("task-backend-worker", "--backend", "celery", "--health-check", env=environment)
    assert (check.returncode, check.stdout.split(":")[0]) == (0, "healthy"), check.stdout
    place.server.stop()
    wait_until(lambda: requests.get("http://127.0.0.1:%d/health" % port, timeout=PATIENCE).status_code == 503, "the loss to show")
    check = place.start.run("task-backend-worker", "--backend", "celery", "--health-check", env=environment)
    assert check.returncode == 1 and check.stdout.startswith("unhealthy: "), check.stdout
    place.server.start()
    wait_until(lambda: requests.get("http://127.0.0.1:%d/health" % port, timeout=PATIENCE).status_code == 200, "it to be well again")


def test_the_command_line_of_a_celery_worker(place):
    environment = {"CELERY_BROKER_URL": "redis://user:secret@127.0.0.1:1/0"}

    def run(*arguments, **env):
        return place.start.run("task-backend-worker", "--backend", "celery", *arguments, env={**environment, **env})
    told = run("--dry-run")
    assert told.returncode == 0 and "queues=celery\n" in told.stdout and "secret" not in told.stdout
    assert told.stdout.startswith("worker-%s-celery: backend=celery " % socket.gethostname())
    assert run("--dry-run", ENVIRONMENT="production").returncode == 2
    assert "task add_numbers" in run("--list-tasks").stdout
    wrong = run("--dry-run", CELERY_BROKER_URL="sqs://x")
    assert wrong.returncode == 2 and "CELERY_BROKER_URL" in wrong.stderr
    unserved = run("--dry-run", CELERY_BROKER_URL="amqp://x", CELERY_RESULT_BACKEND="rpc://")
    assert unserved.returncode == 2 and "RabbitMQ" in unserved.stderr, unserved.stderr
    assert "only: " in place.start.run("task-backend-worker", "--backend", "router", "--dry-run").stderr


# --- remote control and events ------------------------------------------------------------------------------------------

def test_inspect_sees_it_as_any_worker(place):
    worker = place.worker("--worker-name", "ours", "--concurrency", 1)
    node = "ours@" + socket.gethostname()
    running, scheduled, reserved = place.send("hold", "seen"), place.send("echo", "x", countdown=600), None
    place.wait_run("begin seen")
    reserved = place.send("echo", "y")
    inspect = place.app.control.inspect(destination=[node])
    wait_until(lambda: inspect.reserved()[node], "the second to be reserved")
    assert inspect.ping() == {node: {"ok": "pong"}} and place.app.control.ping()[0] == {node: {"ok": "pong"}}
    registered = inspect.registered()[node]
    assert {task["name"] for task in tasks_of("x")} < set(registered) and "health_check" in registered, "and the core tasks"
    assert registered == sorted(registered)
    active = inspect.active()[node][0]
    assert (active["id"], active["name"], active["acknowledged"], active["worker_pid"]) == (running.id, "hold", True, worker.pid)
    assert inspect.reserved()[node][0]["id"] == reserved.id and inspect.scheduled()[node][0]["request"]["id"] == scheduled.id
    assert inspect.query_task(running.id)[node][running.id][0] == "active"
    stats = inspect.stats()[node]
    assert stats["total"] == {"hold": 1} and stats["pool"]["max-concurrency"] == 1 and stats["pid"] == worker.pid
    assert [q["name"] for q in inspect.active_queues()[node]] == ["celery"]
    assert place.app.control.inspect(destination=["somebody@else"], timeout=0.3).ping() is None
    assert "has no command" in place.app.control.broadcast("dance", reply=True)[0][node]["error"]
    place.go()
    assert running.get(timeout=PATIENCE) == "seen"


def test_revoked_tasks_do_not_begin_and_terminated_ones_end(place):
    place.worker("--concurrency", 1)
    running, waiting, later = place.send("hold", "ended"), place.send("count", "never"), place.send("count", "later", countdown=600)
    place.wait_run("begin ended")
    wait_until(lambda: place.broker().hlen("unacked") == 2, "the others to be held")
    for result in (waiting, later):
        result.revoke()
        with pytest.raises(TaskRevokedError, match="revoked"):
            result.get(timeout=PATIENCE)
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        running.get(timeout=PATIENCE)
    assert place.meta(running)["status"] == "REVOKED" and place.runs() == ["begin ended"]
    assert {waiting.id, later.id, running.id} == set(list(place.app.control.inspect().revoked().values())[0])
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_events_as_flower_reads_them(place):
    seen, state = [], place.app.events.State()
    with place.app.connection() as connection:
        receiver = place.app.events.Receiver(connection, handlers={"*": lambda e: (seen.append(e), state.event(e))})
        reading = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False))
        reading.start()

        def wait_event(kind):
            wait_until(lambda: any(e["type"] == kind for e in seen), "the event " + kind)
        try:
            wait_until(place.broker().pubsub_numpat, "the receiver to listen")
            worker = place.worker("--worker-name", "ours")
            node = "ours@" + socket.gethostname()
            wait_event("worker-online")
            place.app.control.enable_events(destination=[node], reply=True)
            good, bad = place.send("add_numbers", 1, 2), place.send("add_numbers", 1)
            wait_event("task-succeeded")
            wait_event("task-failed")
            assert state.tasks[good.id].state == "SUCCESS" and state.tasks[good.id].result == "3"
            assert state.tasks[good.id].name == "add_numbers" and state.tasks[good.id].worker.hostname == node
            assert state.tasks[bad.id].state == "FAILURE" and "missing required" in state.tasks[bad.id].exception
            assert state.workers[node].alive
            place.app.control.shutdown(destination=[node])
            wait_event("worker-offline")
            assert worker.wait() == 0
        finally:
            receiver.should_stop = True
            reading.join(PATIENCE)


# --- what follows a task, and what it asks for --------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("python", [False, pytest.param(True, marks=pytest.mark.heavy)], ids=["ours", "ours and Python's"])


@pytest.fixture
def shared(place, workers, python):
    """One queue, served by ours alone, or by a Python worker with the same tasks as well."""
    place.worker("--concurrency", 2)
    if python:
        workers(place.server.url(0), place.server.url(1), concurrency=2)
    return place


@BOTH
def test_chains_groups_and_chords_give_python_its_results(shared):
    add, back = (lambda *n: shared.sig("add_numbers", *n)), shared.sig("give_back")
    numbered = chain(add(1, 2), add(3), add(4)).apply_async()
    grouped = group(add(n, 10) for n in range(5)).apply_async()
    counted = chord([add(n, n) for n in range(10)], back).apply_async()
    within = chain(add(1, 1), group(add(10), add(20)), back).apply_async()
    ending = chain(add(1, 1), group(add(10), add(20))).apply_async()
    chains = chord([chain(add(1, 1), add(1)), chain(add(2, 2), add(2))], chain(back, back)).apply_async()
    linked = add(5, 5).set(link=[add(1)]).apply_async()
    fixed = chain(add(1, 1), shared.sig("add_numbers", 7, 7, immutable=True)).apply_async()
    assert numbered.get(timeout=PATIENCE) == 10 and numbered.parent.get(timeout=PATIENCE) == 6
    assert grouped.get(timeout=PATIENCE) == [10, 11, 12, 13, 14]
    assert counted.get(timeout=PATIENCE) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert within.get(timeout=PATIENCE) == [12, 22] and ending.get(timeout=PATIENCE) == [12, 22]
    assert chains.get(timeout=PATIENCE) == [3, 6]
    assert linked.get(timeout=PATIENCE) == 10 and linked.children[0].get(timeout=PATIENCE) == 11
    assert fixed.get(timeout=PATIENCE) == 14
    wait_until(shared.nothing_left, "everything to be acknowledged")
    assert not [k for k in shared.server.client(1).keys("celery-taskset-meta-*") if not k.endswith(b".c")]


@BOTH
def test_any_canvas_within_any_other_gives_python_its_results(shared):
    add, back = (lambda *n: shared.sig("add_numbers", *n)), shared.sig("give_back")
    raw = shared.app.signature  # as a dict that no producer has rewritten: what the worker itself must take apart
    pair = group(add(10), add(20))
    header = chain(add(1, 1), chord([group(add(1), add(2)), add(3)], back)).apply_async()
    twice = chain(add(1, 1), group(add(10), add(20)), back, group(back, back)).apply_async()
    nested = chord([chord([add(1, 1), add(2, 2)], back), add(3, 3), chain(add(1, 1), group(add(1), add(2)))], chain(back, back)).apply_async()
    chords = chain(add(1, 1), chord([add(1), add(2)], back), chord([back, back], back)).apply_async()
    grouped = group(chain(add(1, 1), add(1)), chord([add(1, 1), add(2, 2)], back), group(add(5, 5), add(6, 6))).apply_async()
    linked = add(5, 5).set(link=[raw({**chord([pair], back.clone().set(task_id="linked-end"))})]).apply_async()
    for result, expected in ((header, None), (twice, [[12, 22], [12, 22]]), (nested, [[2, 4], 6, [3, 4]]), (chords, [[3, 4], [3, 4]]),
                             (grouped, [3, [2, 4], 10, 12])):
        answer = result.get(timeout=PATIENCE)
        assert expected is None or answer == expected, answer
    assert sorted(header.get()) == [3, 4, 5]  # Celery itself turns an inner group round
    assert linked.get(timeout=PATIENCE) == 10
    assert sorted(shared.app.AsyncResult("linked-end").get(timeout=PATIENCE)) == [20, 30]
    wait_until(shared.nothing_left, "everything to be acknowledged")
    assert not [k for k in shared.server.client(1).keys("celery-taskset-meta-*") if k.endswith((b".j", b".t", b".d"))]


def test_a_group_that_nobody_made_a_chord_of_is_one(place):
    """A chain as another producer than Python's may write it: the rest of it follows all parts, once."""
    place.worker()
    add, back = (lambda *n: place.sig("add_numbers", *n)), place.sig("give_back")
    rest = [back.clone().set(task_id="the-end"), {**group(add(10), group(add(20), add(30)))}]  # the last one first
    place.app.send_task("add_numbers", args=(1, 1), chain=rest)
    assert sorted(place.app.AsyncResult("the-end").get(timeout=PATIENCE)) == [12, 22, 32]


@BOTH
def test_map_starmap_and_chunks_are_one_task_each_with_all_results(shared):
    add, echo = shared.sig("add_numbers"), shared.sig("give_back")
    many = chunks(add, list(zip(range(100), range(100))), 10, app=shared.app).apply_async()
    assert [n for piece in many.get(timeout=PATIENCE) for n in piece] == list(range(0, 200, 2))
    assert xstarmap(add, [(1, 2), (3, 4)], app=shared.app).apply_async().get(timeout=PATIENCE) == [3, 7]
    assert xmap(echo, [1, [2], "3"], app=shared.app).apply_async().get(timeout=PATIENCE) == [1, [2], "3"]
    assert xmap(echo, [], app=shared.app).apply_async().get(timeout=PATIENCE) == []
    followed = chain(xstarmap(add, [(1, 2), (3, 4)], app=shared.app), echo).apply_async()
    assert followed.get(timeout=PATIENCE) == [3, 7]
    wait_until(shared.nothing_left, "everything to be acknowledged")


def test_a_map_ends_with_the_first_failure_and_within_its_time(place):
    place.worker()
    fails = xstarmap(place.sig("add_numbers"), [(1, 2), ("a", 1), (3, 4)], app=place.app).apply_async()
    with pytest.raises(Exception, match="add_numbers"):
        fails.get(timeout=PATIENCE)
    slow = xmap(place.sig("simulate_work"), [0.2] * 100, app=place.app).apply_async(time_limit=1)
    with pytest.raises(Exception, match="TimeLimitExceeded|1"):
        slow.get(timeout=PATIENCE)
    for body in ({"task": None, "it": []}, {"task": {"task": "nobody"}, "it": [1]}, {"task": {"task": "echo"}, "it": 7}, {}):
        with pytest.raises(Exception):
            place.app.send_task("celery.map", kwargs=body).get(timeout=PATIENCE)
    assert place.app.send_task("celery.backend_cleanup").get(timeout=PATIENCE) is None
    assert place.app.send_task("celery.accumulate", args=(4, 5), kwargs={"index": 1}).get(timeout=PATIENCE) == 5
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_control_changes_the_pool_and_how_often_and_long_tasks_run(place):
    place.worker("--concurrency", 1)
    control = place.app.control

    def said(answers):
        return [list(answer.values())[0] for answer in answers]

    assert said(control.pool_grow(2, reply=True, timeout=PATIENCE, limit=1)) == [{"ok": "pool will grow"}]
    for key in "abc":
        place.send("hold", key)
    wait_until(lambda: len([line for line in place.runs() if line.startswith("begin")]) == 3, "all three to run at once")
    place.go()
    assert said(control.pool_shrink(2, reply=True, timeout=PATIENCE, limit=1)) == [{"ok": "pool will shrink"}]
    assert "error" in said(control.pool_shrink(1, reply=True, timeout=PATIENCE, limit=1))[0]
    assert said(control.autoscale(5, 1, reply=True, timeout=PATIENCE, limit=1)) == [{"error": "ValueError('Autoscale not enabled')"}]
    assert said(control.rate_limit("nobody", "1/m", reply=True, timeout=PATIENCE, limit=1)) == [{"error": "unknown task"}]
    assert "Invalid rate limit" in said(control.rate_limit("echo", "often", reply=True, timeout=PATIENCE, limit=1))[0]["error"]
    assert said(control.rate_limit("add_numbers", "1/h", reply=True, timeout=PATIENCE, limit=1)) == [{"ok": "new rate limit set successfully"}]
    first, second, other = place.send("add_numbers", 1, 1), place.send("add_numbers", 2, 2), place.send("give_back", 3)
    assert first.get(timeout=PATIENCE) == 2 and other.get(timeout=PATIENCE) == 3
    assert second.state == "PENDING"
    assert said(control.rate_limit("add_numbers", 0, reply=True, timeout=PATIENCE, limit=1)) == [{"ok": "rate limit disabled successfully"}]
    assert second.get(timeout=PATIENCE) == 4
    assert said(control.time_limit("simulate_work", hard=0.3, reply=True, timeout=PATIENCE, limit=1)) == [{"ok": "time limits set successfully"}]
    with pytest.raises(Exception, match="TimeLimitExceeded|0.3"):
        place.send("simulate_work", 60).get(timeout=PATIENCE)


@BOTH
def test_what_follows_a_failure_fails_with_it(shared):
    add, back, fail = (lambda *n: shared.sig("add_numbers", *n)), shared.sig("give_back"), shared.sig("fail", "no")
    chained = chain(fail, add(3), add(4)).apply_async()
    counted = chord([add(1, 1), fail], back).apply_async()
    called = fail.clone().set(link_error=[shared.sig("count").set(task_id="errback")]).apply_async()
    for result in (chained, chained.parent, chained.parent.parent):
        with pytest.raises(Exception, match="no"):
            result.get(timeout=PATIENCE)
    with pytest.raises(Exception, match="no"):
        counted.get(timeout=PATIENCE)  # of the part; the body has
    wait_until(lambda: shared.server.client(1).exists("celery-task-meta-" + counted.id), "the body to fail")
    assert shared.meta(counted)["result"]["exc_type"] == "ChordError" and "Dependency" in str(shared.meta(counted)["result"]["exc_message"])
    assert shared.app.AsyncResult("errback").get(timeout=PATIENCE) == called.id
    wait_until(shared.nothing_left, "everything to be acknowledged")


def test_a_handler_asks_to_be_run_again(place):
    place.worker(retry_delay="200ms")
    result = place.send("third_time", "thrice")
    assert result.get(timeout=PATIENCE) == "thrice" and place.runs().count("begin thrice") == 3
    place.worker("--worker-name", "no more", "--queues", "strict", max_retries=0)
    with pytest.raises(RuntimeError, match="exit code 75"):
        place.send("third_time", "once", queue="strict").get(timeout=PATIENCE)
    assert place.runs().count("begin once") == 1


def test_eta_expiry_and_time_limits(place):
    place.worker("--concurrency", 1)
    begun = time.time()
    assert place.send("echo", "later", countdown=0.7).get(timeout=PATIENCE) == "Echo: later" and time.time() - begun > 0.7
    with pytest.raises(TaskRevokedError, match="expired"):
        place.send("echo", "never", countdown=0.5, expires=0.1).get(timeout=PATIENCE)
    with pytest.raises(TimeLimitExceeded):
        place.send("hold", "hard", time_limit=0.5).get(timeout=PATIENCE)
    with pytest.raises(SoftTimeLimitExceeded):
        place.send("hold", "soft", soft_time_limit=0.5, time_limit=60).get(timeout=PATIENCE)
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_bodies_of_every_kind(place):
    worker = place.worker()
    assert place.send("echo", "packed", compression="zlib").get(timeout=PATIENCE) == "Echo: packed"
    assert place.send("echo", "packed", compression="gzip").get(timeout=PATIENCE) == "Echo: packed"
    assert place.send("give_back", {"at": datetime.datetime(2024, 1, 2, 3, 4, 5)}).get(timeout=PATIENCE) == {"at": "2024-01-02T03:04:05"}
    assert place.send("echo", "first", priority=9).get(timeout=PATIENCE) == "Echo: first"
    place.app.conf.task_protocol = 1
    old = place.send("echo", "old")
    place.app.conf.task_protocol = 2
    assert old.get(timeout=PATIENCE) == "Echo: old"
    for _ in range(2):
        with pytest.raises(Exception, match="application/x-python-serialize is not taken"):
            place.send("echo", "pickled", serializer="pickle").get(timeout=PATIENCE)
    place.broker().lpush("celery", "no message at all", "{}", json.dumps({"body": "", "headers": {}}))
    assert place.send("echo", "after").get(timeout=PATIENCE) == "Echo: after"
    refused = "content type application/x-python-serialize is not taken, only JSON"
    worker.wait_event("message_rejected", reason=refused)
    worker.wait_event("message_rejected", reason="no message of kombu's")
    assert len(worker.find("message_rejected", reason=refused)) == 1
    wait_until(place.nothing_left, "everything to be acknowledged")
