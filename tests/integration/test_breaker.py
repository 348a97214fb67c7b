"""The circuit breaker of a backend, with a real Redis and a real Celery worker that counts what it runs."""
import concurrent.futures
import json
import re

import pytest

import configuration
from celery_router import call, celery_config
from http_text import PATIENCE, wait_until
from raw import ask, request

SETTINGS = {"failures": 3, "silence": "300ms", "open_for": "500ms", "probes": 2}
N = 40


class World:
    """One operation, which counts its executions by their number: in Redis on the task side, in `legacy` on the other."""

    def __init__(self, start, redis, **settings):
        self.redis, self.origin, self.legacy = redis, start.origin(), []
        self.origin.always(self.serve)
        task = {"name": "count_up", "args": {"$ref": "body:/args"}, "timeout": settings.pop("timeout", "60s")}
        settings = {"breaker": SETTINGS, "command_timeout": "20s", **settings}
        self.config = celery_config(self.origin, redis.url(), tasks={"count_up": task}, **settings)
        self.router = start.router(self.config, env={"TASK_ABSTRACTION_ENABLED": "true"})

    def serve(self, exchange):
        self.legacy.append(json.loads(exchange.read_body())["args"][0])
        exchange.answer(body=b'"legacy"')

    def call(self, number):
        return call(self.router, "count_up", "n%d" % number)

    def served(self, number):
        answer = self.call(number)
        return "legacy" if answer.text == '"legacy"' else answer.status_code

    def executions(self, number):
        return int(self.redis.client().get("n%d" % number) or 0), self.legacy.count("n%d" % number)

    def metrics(self, name):
        text = ask(self.router.admin_port, request("GET", "/metrics")).body.decode()
        return {labels: float(value) for labels, value in re.findall(r"^%s\{([^}]*)\} (\S+)$" % name, text, re.MULTILINE)}

    def state(self):
        return ["closed", "half_open", "open"][int(self.metrics("migration_breaker_state")['backend="celery"'])]

    def readyz(self):
        return json.loads(ask(self.router.admin_port, request("GET", "/readyz")).body)

    def breaker(self):
        return self.readyz()["backends"][0]["breaker"]


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(N) as executor:
        yield executor


def finish(world, futures):
    """Nobody is executed twice, and who was told of success or legacy was executed once, there."""
    for number, future in enumerate(futures):
        runs = world.executions(number)
        assert sum(runs) <= 1, (number, runs)
        if future.result() == "legacy":
            assert runs == (0, 1), number
        elif future.result() == 200:
            assert runs == (1, 0), number


def freeze_and_call(world, pool):
    """All that legacy serves are answered while those that were submitted wait."""
    assert world.served(1000) == 200
    world.router.wait_outcomes(1)  # that answer is no news any more
    world.redis.pause()
    futures = [pool.submit(world.served, number) for number in range(N)]
    wait_until(lambda: sum(f.done() for f in futures) >= N - SETTINGS["failures"], "legacy to serve the others")
    waiting = [f for f in futures if not f.done()]
    assert len(waiting) == SETTINGS["failures"], [f.result() for f in futures if f.done()]
    assert {f.result() for f in futures if f.done()} == {"legacy"}
    return futures, waiting


def test_metrics_are_there_from_the_start(start, own_redis):
    world = World(start, own_redis)
    assert world.metrics("migration_breaker_state") == {'backend="celery"': 0}
    assert world.metrics("migration_breaker_transitions_total") == {
        'backend="celery",to="%s"' % to: 0 for to in ("closed", "half_open", "open")}
    assert world.breaker()["state"] == "closed"


def test_a_frozen_redis_costs_no_more_than_failures_callers_their_time(start, own_redis, workers, pool):
    workers(own_redis.url())
    world = World(start, own_redis)
    futures, waiting = freeze_and_call(world, pool)
    assert world.state() == "open"
    opened = world.router.wait_event("breaker_open")
    assert "have had no answer for" in opened["why"] and opened["backend"] == "celery"
    told = world.readyz()
    assert told["status"] == "degraded" and any("circuit breaker" in line for line in told["missing"])
    assert told["backends"][0]["breaker"]["why"] == opened["why"]
    rows = world.router.wait_outcomes(N - len(waiting), "reason = 'breaker_open'")
    assert {(r["side"], r["role"], r["backend"], r["result"]) for r in rows} == {("legacy", "primary", "", "success")}
    own_redis.go_on()
    assert {f.result() for f in waiting} == {200}, "they were only late"
    assert world.state() == "closed"
    assert world.router.wait_event("breaker_closed")["why"] == "it has answered"
    assert len(world.router.find("breaker_open")) == 1
    finish(world, futures)


def test_a_redis_that_stays_frozen_is_tried_by_probes_and_nothing_runs_twice(start, own_redis, workers, pool):
    workers(own_redis.url())
    world = World(start, own_redis, command_timeout="3s")
    futures, waiting = freeze_and_call(world, pool)
    # Written, no reply: it may run, and is not run again. What a plane without a connection could not write is legacy's.
    assert {f.result() for f in waiting} <= {504, "legacy"}
    assert {world.served(number) for number in range(N, N + 5)} <= {"legacy", 504}
    own_redis.go_on()
    wait_until(lambda: world.served(2000) == 200 and world.state() == "closed", "probes to close it")
    steps = world.metrics("migration_breaker_transitions_total")
    assert steps['backend="celery",to="open"'] >= 1 and steps['backend="celery",to="closed"'] == 1
    assert world.router.find("breaker_half_open") and len(world.router.find("breaker_closed")) == 1
    unknown = [number for number, future in enumerate(futures) if future.result() == 504]
    wait_until(lambda: all(world.executions(number) == (1, 0) for number in unknown), "what Redis had got to run, once")
    finish(world, futures)


def test_refusals_one_after_the_other_open_it(start, own_redis):
    world = World(start, own_redis, **{"breaker": {**SETTINGS, "open_for": "1h"}})
    own_redis.stop()
    assert [world.served(number) for number in range(6)] == ["legacy"] * 6
    rows = world.router.wait_outcomes(6, "side = 'legacy'")
    assert [r["reason"] for r in rows].count("breaker_open") == 3
    assert [r["role"] for r in rows].count("fallback") == 3
    assert world.state() == "open"
    assert sorted(world.legacy) == ["n%d" % n for n in range(6)]


def test_what_is_known_opens_it_at_once(start, own_redis, workers):
    """Readiness decides by operation; when none of a backend's operations would be run, its breaker shows it."""
    world = World(start, own_redis, when_not_ready="legacy")
    wait_until(lambda: world.state() == "open", "the missing worker to be known")
    assert world.served(1) == "legacy"
    assert world.router.wait_outcomes(1)[0]["reason"] == "backend_not_ready"
    why = world.breaker()["why"]
    assert "worker" in why, why
    workers(own_redis.url())
    wait_until(lambda: world.state() != "open", "the worker to be seen", 3 * PATIENCE)
    assert world.state() == "half_open"
    assert [world.served(number) for number in range(2, 4)] == [200, 200]
    assert world.state() == "closed"


def test_workers_that_end_nothing_open_it_and_a_result_closes_it(start, own_redis, workers):
    worker = workers(own_redis.url())
    world = World(start, own_redis, timeout="1s")
    assert wait_until(lambda: world.served(100) == 200, "a first result")
    worker.pause()
    assert [world.served(number) for number in range(SETTINGS["failures"])] == [504] * SETTINGS["failures"]
    assert "had no result in time" in world.router.wait_event("breaker_open")["why"]
    assert world.served(50) == "legacy"
    worker.go_on()
    wait_until(lambda: world.served(101) == 200 and world.state() == "closed", "results to close it")
    wait_until(lambda: all(world.executions(number) == (1, 0) for number in range(SETTINGS["failures"])), "each to run once")


def test_off_is_off_and_a_reload_changes_it(start, own_redis):
    world = World(start, own_redis, breaker="off")
    assert world.breaker()["state"] == "off"
    own_redis.stop()
    assert [world.served(number) for number in range(5)] == ["legacy"] * 5
    assert {r["role"] for r in world.router.wait_outcomes(5, "side = 'legacy'")} == {"fallback"}
    world.config["backends"]["celery"]["breaker"] = SETTINGS
    world.router.write_config(world.config)
    world.router.signal(1)
    world.router.wait_event("reloaded")
    assert [world.served(number) for number in range(5, 8)] == ["legacy"] * 3
    world.router.wait_event("breaker_open")


@pytest.mark.parametrize("breaker, problem", [
    ({"failures": 0}, "failures: expected a whole number from 1 to 1000"),
    ({"fails": 3}, "breaker.fails: unknown key"),
    ("sometimes", "expected off, or a mapping with failures, silence, open_for and probes"),
])
def test_a_mistake_is_named(start, own_redis, breaker, problem):
    path = start.folder() / "router.yml"
    path.write_text(json.dumps(celery_config(start.origin(), own_redis.url(), breaker=breaker)))
    done = start.run("migration-router", "check", path)
    assert done.returncode == 2 and problem in done.stdout + done.stderr
