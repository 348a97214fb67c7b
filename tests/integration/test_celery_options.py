"""What an application's transport options change in Redis: nothing of it is written over, and lists and channels follow them."""
import pytest
import requests
from kombu import Exchange, Queue

from celery_router import TASKS, call, celery_config, readyz, start_router
from celery_worker import application
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("celery")

PRIORITIES = {"p%d" % p: {**TASKS["add_numbers"], "name": "add_numbers", "priority": p} for p in (0, 4, 9)}


def ping(url, options):
    app = application(url)
    app.conf.broker_transport_options = options
    return app.control.inspect(timeout=10, limit=1).ping()


@pytest.mark.parametrize("options,settings", [
    ({"sep": ":"}, {"sep": ":"}),
    ({"sep": ":", "priority_steps": list(range(10))}, {"sep": ":", "priority_steps": list(range(10))}),
    ({"priority_steps": [0, 4]}, {"priority_steps": "0, 4"}),
    ({"fanout_prefix": False}, {"fanout_prefix": False}),
    ({"fanout_prefix": "/mine-{db}."}, {"fanout_prefix": "/mine-{db}."}),
    ({"fanout_patterns": False}, {"fanout_patterns": False}),
])
def test_lists_and_channels_follow_the_transport_options(start, own_redis, workers, options, settings):
    workers(own_redis.url(2), conf={"broker_transport_options": options})
    router = start_router(start, start.origin(), own_redis.url(2), tasks=PRIORITIES, **settings)
    for name in PRIORITIES:
        assert call(router, name, 1, 2).json() == 3
    wait_until(lambda: readyz(router)["worker"], "the worker to be seen")
    assert list(ping(own_redis.url(2), options).values()) == [{"ok": "pong"}], "what the router left can be read by Python"


def test_another_sep_does_not_break_python_producers(start, own_redis, workers):
    """The router does not know the application's sep: whatever it writes, the application must go on."""
    options = {"sep": "|"}
    workers(own_redis.url(), conf={"broker_transport_options": options})
    router = start_router(start, start.origin(), own_redis.url(), tasks={"add_numbers": TASKS["add_numbers"]})
    assert call(router, "add_numbers", 1, 2).json() == 3
    wait_until(lambda: readyz(router)["worker"], "the worker to be seen")
    app = application(own_redis.url())
    app.conf.broker_transport_options = options
    assert app.send_task("add_numbers", [2, 3]).get(timeout=PATIENCE) == 5
    assert ping(own_redis.url(), options)


def test_a_topic_exchange_of_the_queues_name_delivers_once(start, own_redis, workers):
    workers(own_redis.url())
    router = start_router(start, start.origin(), own_redis.url(), tasks={"count_up": {**TASKS["count_up"], "queue": "orders"}, **PRIORITIES})
    app = application(own_redis.url())
    with app.connection_for_write() as connection:
        exchange = Exchange("orders", type="topic")
        queue = Queue("orders", exchange, routing_key="orders.#")
        queue(connection.channel()).declare()
        call_and_forget(router)
        wait_until(lambda: own_redis.client().llen("orders") == 1, "the router's message")
        with connection.Producer() as producer:
            producer.publish({"x": 1}, exchange=exchange, routing_key="orders.new", declare=[queue])
        assert own_redis.client().llen("orders") == 2, "once, and the router's own"


def call_and_forget(router):
    with pytest.raises(requests.exceptions.Timeout):
        requests.post("http://127.0.0.1:%d/count_up" % router.port, json={"args": ["x"]}, timeout=1)


def keys(server):
    return {key.decode() for key in server.client().keys()}


def test_the_router_leaves_no_key_that_the_application_has_not(start, own_redis, workers):
    workers(own_redis.url())
    before = keys(own_redis)
    router = start_router(start, start.origin(), own_redis.url(), tasks=PRIORITIES)
    for name in PRIORITIES:
        assert call(router, name, 1, 2).json() == 3
    wait_until(lambda: readyz(router)["worker"], "the worker to be seen")
    wait_until(lambda: {k for k in keys(own_redis) - before if not k.startswith("celery-task-meta-")} == set(), "the answers to be read")


@pytest.mark.parametrize("worker,setting", [({"sep": "|"}, {}), ({"priority_steps": [0]}, {}), ({}, {"sep": "|"})])
def test_a_priority_that_nobody_reads_is_legacys(start, own_redis, workers, worker, setting):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b'"legacy"')))
    workers(own_redis.url(), conf={"broker_transport_options": worker})
    tasks = {name: {**task, "timeout": "20s"} for name, task in PRIORITIES.items()}
    config = celery_config(origin, own_redis.url(), tasks=tasks, when_not_ready="legacy", **setting)
    router = start.router(config, env={"TASK_ABSTRACTION_ENABLED": "true"})

    def told():
        return requests.get("http://127.0.0.1:%d/readyz" % router.admin_port, timeout=PATIENCE).json()["registration"]
    wait_until(lambda: any("nobody reads priority 9" in entry["missing"] for entry in told()), "the router to know")
    assert call(router, "p9", 1, 2).text == '"legacy"'
    assert call(router, "p0", 1, 2).text == "3"
    assert own_redis.client().llen("celery") == 0 and not [k for k in keys(own_redis) if k.startswith("celery") and "meta" not in k]


# --- results that nobody keeps ----------------------------------------------------------------------------------------------

def test_a_worker_that_keeps_no_results_keeps_ours(start, own_redis, workers):
    workers(own_redis.url(), conf={"task_ignore_result": True})
    router = start_router(start, start.origin(), own_redis.url(), tasks={"add_numbers": TASKS["add_numbers"]})
    assert call(router, "add_numbers", 1, 2).json() == 3


def test_fire_and_forget_is_answered_at_once(start, own_redis, workers):
    tasks = {"count_up": {**TASKS["count_up"], "fire_and_forget": True}}
    router = start_router(start, start.origin(), own_redis.url(), tasks=tasks)
    answer = call(router, "count_up", "counter")
    assert answer.status_code == 202 and answer.json()["status"] == "accepted"
    assert "will run" in answer.json()["note"] and "Location" not in answer.headers
    row = router.wait_outcomes()[0]
    assert (row["side"], row["result"], row["http_status"]) == ("task", "success", 202)
    assert row["task_id"] == answer.json()["task_id"]
    workers(own_redis.url())
    wait_until(lambda: own_redis.client().get("counter") == b"1", "the task to have run")
