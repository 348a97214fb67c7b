"""A flag that operations use and that its file loses: nobody moves, the log and /readyz say so, also after a restart."""
import http.client
import json
import os
import signal
import time

import pytest

import configuration as c
from http_text import wait_until
from programs import write_atomically
from raw import ask, request

FLAG = "task_abstraction_enabled"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
EVERYBODY_TO_TASK = {"TASK_ABSTRACTION_ENABLED": "true"}  # where the flag is nowhere


def config(origin):
    return c.router({"app": c.service(origin, {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)})},
                    backends=c.embedded(tasks=None))


def echo(router, user="u1"):
    answer = ask(router.port, request("POST", "/echo", [("X-User-Id", user)], b'{"message": "hi"}'))
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


def ready(router):
    connection = http.client.HTTPConnection("127.0.0.1", router.admin_port, timeout=30)
    connection.request("GET", "/readyz")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def flags_file(router):
    return os.path.join(router.folder, "flags.yml")


def text(*flags):
    return json.dumps(c.features(*flags, segments=[c.everybody()]), indent=1)


def everybody_to_legacy():
    return c.variants(FLAG, off=100, on=0)


def misspelt():
    return {**everybody_to_legacy(), "key": FLAG + "x"}


def cut_behind_an_earlier_flag():
    earlier = "flags:\n- key: other\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n"
    return earlier


WAYS = {"emptied": "flags: []\n", "misspelt": text(misspelt()), "cut": cut_behind_an_earlier_flag(), "another's": text(c.boolean("a", True))}


@pytest.mark.parametrize("in_place", (True, False), ids=("written in place", "renamed over"))
@pytest.mark.parametrize("way", WAYS)
def test_a_flag_that_vanishes_from_its_file_moves_nobody(start, way, in_place):
    settings = config(start.origin())
    router, _ = start.with_worker(settings, c.features(everybody_to_legacy(), segments=[c.everybody()]), env=EVERYBODY_TO_TASK)
    assert echo(router) == "legacy"
    if in_place:
        with open(flags_file(router), "w", encoding="utf-8") as file:
            file.write(WAYS[way])
    else:
        write_atomically(flags_file(router), WAYS[way])
    event = router.wait_event("flags_vanished")
    assert (event["count"], event["flags"]) == (1, FLAG)
    status = ready(router)
    assert status["status"] == "degraded" and status["ready"] and status["flags"]["vanished"] == [FLAG]
    assert any("vanished" in what for what in status["missing"])
    assert {echo(router, "u%d" % i) for i in range(20)} == {"legacy"}
    assert {row["reason"] for row in router.query("SELECT * FROM attempts")} == {"flag"}

    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                          "--user", "u1", env=EVERYBODY_TO_TASK).stdout
    assert "side       legacy" in explained and "has vanished" in explained

    assert router.stop() == 0
    again = start.router(settings, folder=router.folder, env=EVERYBODY_TO_TASK)
    again.wait_event("flags_vanished")
    assert {echo(again, "u%d" % i) for i in range(20)} == {"legacy"}

    write_atomically(flags_file(again), text(c.variants(FLAG, off=0, on=100)))  # back, and it counts at once
    again.wait_event("flags_back")
    wait_until(lambda: echo(again) == "task", "the flag to count again")
    assert ready(again)["flags"]["vanished"] == []


@pytest.mark.parametrize("how", ("removed", "unreadable"))
def test_after_a_restart_without_its_file_the_last_good_serves(start, how):
    settings = config(start.origin())
    router, _ = start.with_worker(settings, c.features(everybody_to_legacy(), segments=[c.everybody()]), env=EVERYBODY_TO_TASK)
    assert echo(router) == "legacy"
    assert router.stop() == 0
    os.unlink(flags_file(router))
    if how == "unreadable":
        write_atomically(flags_file(router), "flags:\n- key: [\n")
    again = start.router(settings, folder=router.folder, env=EVERYBODY_TO_TASK)
    assert again.wait_event("flags_from_disk")
    assert {echo(again, "u%d" % i) for i in range(20)} == {"legacy"}
    status = ready(again)
    assert status["flags"]["failing"] and status["flags"]["loaded"] and status["status"] == "degraded"


PATIENCE_OF_ROUTERS = 1  # seconds that they wait for the rest of a file that looks cut


def cut_and_written_on(router, attempt):
    """Whether the rest came before the router had to take what was there."""
    began = time.monotonic()
    with open(flags_file(router), "w", encoding="utf-8") as file:
        file.write(cut_behind_an_earlier_flag())
        file.flush()
        router.signal(signal.SIGHUP)
        router.wait_event("reloaded", count=attempt)
        assert echo(router) == "legacy"
        file.write("- key: %s\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n" % FLAG)
    return time.monotonic() - began < PATIENCE_OF_ROUTERS


def test_a_file_cut_while_it_is_written_is_no_new_state(start):
    """Its writer takes its time: what stands there in between would be valid. A machine on which the writer takes longer than routers wait
    proves nothing: then again."""
    settings = config(start.origin())
    router, _ = start.with_worker(settings, c.features(everybody_to_legacy(), segments=[c.everybody()]), env=EVERYBODY_TO_TASK)
    for attempt in range(1, 30):
        told = len(router.find("flags_vanished"))
        in_time = cut_and_written_on(router, attempt)
        wait_until(lambda: echo(router) == "task", "the whole file to count")
        if in_time:
            break
        write_atomically(flags_file(router), text(everybody_to_legacy()))
        wait_until(lambda: echo(router) == "legacy", "the old state")
    assert in_time, "the machine was too slow each time"
    assert len(router.find("flags_vanished")) == told and "flags_refresh_failed" not in router.log()
