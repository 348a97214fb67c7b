"""check --backends, fail_fast and /readyz on Celery: real workers are asked what they have registered and which queues they consume."""
import json
import os

import pytest
import requests

from celery_choir import Choir
from celery_router import TASKS, celery_config, readyz, start_router
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("celery")


def operations(**queues):
    """The operation of each task is named like it; a queue of None is the default one."""
    return {name: {**TASKS[name], **({"queue": queue} if queue else {})} for name, queue in queues.items()}


class Checked:
    """A configuration, and what `check --backends` says of it."""

    def __init__(self, start, broker, results=None, tasks=None, **settings):
        self.start, self.folder = start, str(start.folder())
        self.path = os.path.join(self.folder, "router.yml")
        self.config = celery_config("http://127.0.0.1:9", broker, results, tasks, **settings)
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def check(self):
        """The exit code, and of each operation: reachable, known, worker, and the sentence."""
        ended = self.start.run("migration-router", "check", self.path, "--backends")
        rows = {line.split()[0][2:]: line.split(None, 6)[3:] for line in ended.stdout.splitlines() if line.startswith("s.")}
        return ended.returncode, rows


def assert_nothing_left(server):
    """No list of answers, and no binding of one. (Workers keep bindings of their own.) Soon: the router does not wait for it."""
    client = server.client()
    wait_until(lambda: not client.keys("*.reply.celery.pidbox") and not client.smembers("_kombu.binding.reply.celery.pidbox"),
               "the list of answers and its binding to be removed")


def test_tasks_and_queues_of_live_workers(start, own_redis, workers):
    one = workers(own_redis.url(0), own_redis.url(1), queues="celery,urgent")
    other = workers(own_redis.url(0), own_redis.url(1), queues="slow", without=["echo"])
    checked = Checked(start, own_redis.url(0), own_redis.url(1),
                      operations(add_numbers=None, give_size="urgent", progress="slow", unheard_of=None, fail="elsewhere", echo="slow"))
    code, rows = checked.check()
    assert code == 1
    assert rows["add_numbers"] == rows["give_size"] == rows["progress"] == ["yes", "yes", "yes", "-"]
    assert rows["unheard_of"][:3] == ["yes", "no", "yes"]
    assert rows["unheard_of"][3].startswith('no live worker has registered task "unheard_of"; registered are: add_numbers, ')
    assert rows["fail"][:3] == ["yes", "yes", "no"]
    names = rows["fail"][3].split()[1:3]
    assert sorted(n.strip(",") for n in names) == sorted([one.name, other.name])
    assert rows["fail"][3].startswith("workers ") and rows["fail"][3].endswith(', not "elsewhere"')
    assert rows["echo"][3] == 'task "echo" is registered with %s, which does not consume "slow"; its workers do not know the task' % one.name
    assert_nothing_left(own_redis)


def test_one_of_two_workers_of_a_queue_lacks_the_task(start, own_redis, workers):
    """As in the middle of a deployment: a part of the calls would fail."""
    workers(own_redis.url())
    old = workers(own_redis.url(), without=["add_numbers"])
    code, rows = Checked(start, own_redis.url(), tasks=operations(add_numbers=None, give_size=None)).check()
    assert code == 1 and rows["give_size"][-1] == "-"
    assert rows["add_numbers"][3] == 'worker %s consumes "celery" without having registered task "add_numbers": what it receives will fail' % old.name


def test_a_killed_worker_does_not_count(start, own_redis, workers):
    checked = Checked(start, own_redis.url(), tasks=operations(add_numbers=None))
    victim = workers(own_redis.url())
    assert checked.check() == (0, {"add_numbers": ["yes", "yes", "yes", "-"]})
    victim.kill()
    wait_until(lambda: own_redis.client().pubsub_numsub("/0.celery.pidbox") == [(b"/0.celery.pidbox", 0)], "the worker to be gone")
    code, rows = checked.check()
    assert code == 1 and rows["add_numbers"][:3] == ["yes", "?", "no"] and "no worker listens on 127.0.0.1:" in rows["add_numbers"][3]


def test_a_worker_that_hangs_is_no_answer_and_leaves_nothing_behind(start, own_redis, workers):
    checked = Checked(start, own_redis.url(), tasks=operations(add_numbers=None))
    hung = workers(own_redis.url())
    hung.pause()
    try:
        code, rows = checked.check()
        assert code == 1 and rows["add_numbers"] == ["yes", "?", "?", "workers listen, but none answered in time"]
        workers(own_redis.url())
        assert checked.check() == (0, {"add_numbers": ["yes", "yes", "yes", "-"]}), "one that answers is enough"
    finally:
        hung.go_on()
    # It answers now, to questions that nobody waits for any more.
    assert hung.app.control.inspect(destination=[hung.name], timeout=PATIENCE).ping()
    client = own_redis.client()
    assert all(client.ttl(key) > 0 for key in client.keys("*.reply.celery.pidbox")), "late answers go by themselves"


@pytest.mark.heavy
def test_many_workers_and_many_tasks(start, own_redis):
    """Three hundred workers with five hundred tasks each, played by one thread."""
    names = sorted(["task_%03d_of_a_package_with_a_long_name" % n for n in range(500)] + ["add_numbers"])
    with Choir(own_redis, 300, names):
        checked = Checked(start, own_redis.url(), tasks=operations(add_numbers=None, give_size=None))
        code, rows = checked.check()
    assert code == 1 and rows["add_numbers"] == ["yes", "yes", "yes", "-"]
    assert rows["give_size"][:2] == ["yes", "no"] and len(rows["give_size"][3]) < 256
    assert_nothing_left(own_redis)


def test_results_on_another_redis_that_is_away(start, own_redis, workers):
    workers(own_redis.url())
    code, rows = Checked(start, own_redis.url(), "redis://127.0.0.1:1/0", operations(add_numbers=None)).check()
    assert code == 1 and rows["add_numbers"][0] == "no"
    assert rows["add_numbers"][3].startswith("results cannot be received: Redis at 127.0.0.1:1/0: ")


def test_fail_fast_names_what_no_worker_knows(start, own_redis, workers):
    workers(own_redis.url())
    checked = Checked(start, own_redis.url(), tasks=operations(add_numbers=None, unheard_of=None))
    checked.config["fail_fast"] = True
    with open(checked.path, "w", encoding="utf-8") as file:
        json.dump(checked.config, file)
    ended = start.run("migration-router", "--config", checked.path)
    assert ended.returncode == 1
    assert 'fail_fast: s.unheard_of on celery: no live worker has registered task' in ended.stderr, ended.stderr


def test_readiness_follows_the_workers(start, own_redis, workers):
    router = start_router(start, start.origin(), own_redis.url(), tasks=operations(add_numbers="late", echo=None), health_interval="1s")
    workers(own_redis.url())

    def lacking():
        told = requests.get("http://127.0.0.1:%d/readyz" % router.admin_port, timeout=PATIENCE).json()
        return {entry["operation"]: entry["missing"] for entry in told["registration"]}
    told = wait_until(lambda: (lambda l: l if list(l) == ["s.add_numbers"] else None)(lacking()), "one operation to lack its queue", 40)
    assert told["s.add_numbers"].endswith('not "late"')
    workers(own_redis.url(), queues="late")
    wait_until(lambda: lacking() == {}, "the new worker to be seen", 40)
    wait_until(lambda: readyz(router)["worker"], "the backend to have one")
