"""Our Celery worker, and what nobody's producer sends, and a Redis in each odd state: it goes on, and nothing stays behind."""
import base64
import copy
import json
import threading

import pytest
import redis

from http_text import PATIENCE, wait_until
from programs import need_backend
from test_celery_worker_c import place  # pylint: disable=unused-import

need_backend("celery")

DEEP = "[" * 3000 + "]" * 3000
ODD = [None, True, 0, -1, 1.5, 1e300, 10 ** 30, "", "x" * 70000, "\0", "\ud800", [], [None], {}, {"": {}}, [[[]]]]
HEADERS = ("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id", "argsrepr",
           "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression", "traceparent",
           "tracestate", "x_migration_shadow", "redelivered")
PROPERTIES = ("correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag")
EMBEDDED = ("callbacks", "errbacks", "chain", "chord")
SIGNATURE = {"task": "add_numbers", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
CANVAS = [{**SIGNATURE, "task": kind, "kwargs": {"tasks": odd, "header": odd, "body": odd}, "subtask_type": kind[7:]}
          for kind in ("celery.group", "celery.chain", "celery.chord") for odd in (None, [], {}, "x", [7], [SIGNATURE, None], SIGNATURE)]


def message(place):
    """As Python's producer writes one, taken off the queue."""
    place.app.send_task("add_numbers", args=(1, 2), queue="template")
    return json.loads(place.broker().rpop("template"))


def with_body(text, body):
    changed = copy.deepcopy(text)
    changed["body"] = base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()
    return changed


def odd_messages(good):
    for place_of, names in (("headers", HEADERS), ("properties", PROPERTIES)):
        for name in names:
            for odd in ODD:
                changed = copy.deepcopy(good)
                changed[place_of][name] = odd
                yield json.dumps(changed)
    for name in ("body", "content-encoding", "content-type", "headers", "properties"):
        for odd in ODD:
            yield json.dumps({**good, name: odd})
    for name in EMBEDDED:
        for odd in (*ODD, *CANVAS, *([c] for c in CANVAS)):
            yield json.dumps(with_body(good, [[1, 2], {}, {name: odd}]))
    for body in (*ODD, *([odd, {}, {}] for odd in ODD), *([[1, 2], odd, {}] for odd in ODD), *([[1, 2], {}, odd] for odd in ODD),
                 DEEP.encode(), b"\xff\xfe", b"{", b""):
        yield json.dumps(with_body(good, body))
    yield from ("", "{", "null", "[]", "\"x\"", DEEP, "\xff", json.dumps(good)[:-1], json.dumps(good) + "}")


def test_no_message_ends_the_worker_or_stays_with_it(place):
    worker = place.worker("--concurrency", 4)
    good, broker = message(place), place.broker()
    sent = list(odd_messages(good))
    for start in range(0, len(sent), 100):
        broker.lpush("celery", *[text.encode("utf-8", "surrogatepass") for text in sent[start:start + 100]])
        assert place.send("add_numbers", start, 1).get(timeout=PATIENCE) == start + 1
        assert worker.popen.poll() is None, worker.log()[-2000:]
    # What is far in the future waits, as with Celery; nothing else does.
    wait_until(lambda: not broker.llen("celery") and broker.hlen("unacked") <= len(ODD), "the odd messages to be gone")
    assert place.app.control.inspect(timeout=PATIENCE, limit=1).ping()


def pause(server):
    server.client().execute_command("CLIENT", "PAUSE", 1500, "ALL")


def freeze(server):
    server.pause()
    threading.Timer(1.5, server.go_on).start()


def full(server):
    client = server.client()
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")
    threading.Timer(1.5, lambda: client.config_set("maxmemory", "0")).start()


@pytest.mark.parametrize("trouble", [pause, freeze, full], ids=lambda f: f.__name__)
def test_a_redis_in_trouble_while_tasks_run_loses_nothing(place, trouble):
    """While they run their results wait; each runs once, and each result is there afterwards."""
    place.worker("--concurrency", 4, command_timeout="1s")
    results = [place.send("hold", "h%d" % n) for n in range(4)] + [place.send("add_numbers", n, 1) for n in range(20)]
    for n in range(4):
        place.wait_run("begin h%d" % n)
    trouble(place.server)
    place.go()
    assert [r.get(timeout=PATIENCE) for r in results] == ["h%d" % n for n in range(4)] + list(range(1, 21))
    assert sorted(place.runs()) == sorted(["%s h%d" % (what, n) for n in range(4) for what in ("begin", "end")])
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_a_flushed_redis_keeps_nobody_waiting(place):
    """Messages and results are gone with it; what runs ends, and what is sent afterwards is served."""
    place.worker("--concurrency", 2)
    held = place.send("hold", "h")
    place.wait_run("begin h")
    place.broker().flushall()
    place.go()
    place.wait_run("end h")
    assert place.send("add_numbers", 4, 5).get(timeout=PATIENCE) == 9
    assert held.get(timeout=PATIENCE) == "h"
    wait_until(place.nothing_left, "everything to be acknowledged")


def test_keys_of_another_type_are_told_and_removed_by_nobody(place):
    """Somebody else's under Celery's names: the worker says what is wrong, goes on, and serves once they are gone."""
    worker = place.worker("--concurrency", 2)
    broker = place.broker()
    assert place.send("add_numbers", 1, 1).get(timeout=PATIENCE) == 2
    wait_until(place.nothing_left, "everything to be acknowledged")
    broker.set("unacked", "odd")
    with pytest.raises(redis.exceptions.ResponseError):
        broker.hlen("unacked")
    waiting = place.send("add_numbers", 2, 2)
    wait_until(lambda: "WRONGTYPE" in worker.log(), "the worker to say what is wrong")
    assert broker.get("unacked") == b"odd"
    broker.delete("unacked")
    assert waiting.get(timeout=PATIENCE) == 4
