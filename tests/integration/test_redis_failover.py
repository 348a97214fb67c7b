"""Redis behind Sentinels, whose master is killed: the Celery client, our worker, and the state that replicas share."""
import json
import os

import pytest
from celery import Celery

import configuration as c
from celery_router import call, start_router
from http_text import PATIENCE, wait_until
from mixed_workers import Ours
from programs import need_backend
from redis_sentinels import MASTER, Group
from test_replicas import World

need_backend("celery")


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    one = Group(tmp_path_factory.mktemp("sentinels"))
    yield one
    one.stop()


class Sentinels:
    """What the worker and the router need of a server."""

    def __init__(self, group):
        self.url = group.url


def test_tasks_go_on_after_the_master_of_broker_and_results_was_killed(start, group, tmp_path):
    worker = Ours(str(tmp_path), Sentinels(group), master_name=MASTER)
    app = Celery("producer", broker=group.url(0), backend=group.url(1))
    app.conf.broker_transport_options = app.conf.result_backend_transport_options = {"master_name": MASTER}
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b"legacy")))
    router = start_router(start, origin, group.url(0), group.url(1), master_name=MASTER, health_interval="500ms")
    try:
        assert app.send_task("add_numbers", args=(1, 2)).get(timeout=PATIENCE) == 3
        wait_until(lambda: call(router, "add_numbers", 2, 2).text == "4", "the router to be served by the task side")
        killed = group.kill_master()
        group.failed_over(killed)
        wait_until(lambda: call(router, "add_numbers", 3, 3).text == "6", "the task side to serve again")
        again = Celery("producer", broker=group.url(0), backend=group.url(1))  # Python's own connections are not what is tested
        again.conf.broker_transport_options = again.conf.result_backend_transport_options = {"master_name": MASTER}
        assert again.send_task("add_numbers", args=(4, 4)).get(timeout=PATIENCE) == 8
        group.come_back(killed)
    finally:
        worker.stop()


@pytest.fixture
def world(start, group, monkeypatch):
    class Shared(World):
        def __init__(self):
            monkeypatch.setattr("test_replicas.Redis", lambda *_: group)
            monkeypatch.setattr("test_replicas.REPLICAS", 2)
            super().__init__(start)

        def config(self):
            config = super().config()
            config["state"]["url"] = group.url(3, "?master_name=" + MASTER)
            return config

        def stop(self):
            self.balancer.stop()
    one = Shared()
    yield one
    one.stop()


def test_follow_ups_are_found_after_a_failover_and_unknown_while_it_lasts(world, group):
    began = {name: world.run(name) for name in ("a", "b", "c")}
    assert all(told["status"] != "legacy" for told in began.values())
    group.synced()
    writer = group.master().client()
    writer.set("behind-all", 1)
    assert writer.wait(1, 60000) == 1  # the replica has this, and so what was written before it
    killed = group.kill_master()
    answers = []
    while group.master() in (None, killed):
        answers.append(world.status("a"))
    assert all(a.status == 503 or world.told(a) == began["a"] for a in answers), answers
    wait_until(lambda: all(world.status("a", at).status == 200 for at in (0, 1)), "both routers to know the new master")
    for at in (0, 1):
        assert {name: world.told(world.status(name, at)) for name in began} == began
    assert world.run("d") and world.told(world.status("d"))
    wait_until(lambda: world.replicas[0].router.find("state_server_changed"), "the failover to be told")
    group.come_back(killed)


def test_an_address_without_the_masters_name_is_named(start, tmp_path, group):
    path = os.path.join(str(tmp_path), "router.yml")
    config = c.router({"s": c.service("http://127.0.0.1:9")}, state={"url": group.url(3)})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    router = start.process("migration-router", "--config", path, cwd=tmp_path)
    assert router.wait() == 2
    assert "state.url: sentinel:// needs the master's name" in router.log()
