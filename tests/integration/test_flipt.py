"""Flipt as the source of flags: a change to effect, v1 and v2, its absence and its oddities, the last good snapshot.

Against the stand-in, and against a real server where FLIPT_URL and FLIPT_VERSION (1 or 2, and FLIPT_CLIENT_TOKEN) name one:
then everything runs that needs no faults. Its namespace `default` is overwritten.
"""
import http.client
import json
import os
import ssl
import statistics
import time

import pytest

import configuration as c
from flipt import FAULTS, Flipt, StandIn
from http_text import wait_until
from raw import Client, ask, request

REAL = os.environ.get("FLIPT_URL")
REAL_VERSION = int(os.environ.get("FLIPT_VERSION", "2"))
FLAG = "task_abstraction_enabled"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
needs_faults = pytest.mark.skipif(bool(REAL), reason="needs a server that can be broken")


class Server:
    """What tests need of a server: its URL, its API, and (stand-in only) its faults."""

    def __init__(self, version, token=None, tls=None):
        self.standin = None if REAL else StandIn(version, token, tls)
        self.version, self.token = version, token or (os.environ.get("FLIPT_CLIENT_TOKEN") if REAL else None)
        self.url = REAL or self.standin.url
        self.api = Flipt(self.url, version, self.token)
        self.__dict__.update(load=self.api.load, set_flag=self.api.set_flag, delete_flag=self.api.delete_flag)


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def flipt(request):
    if REAL and request.param != REAL_VERSION:
        pytest.skip("the real server is v%d" % REAL_VERSION)
    yield from serve(request.param)


@pytest.fixture
def flipt2():
    if REAL and REAL_VERSION != 2:
        pytest.skip("the real server is v1")
    yield from serve(2)


def serve(version):
    server = Server(version)
    yield server
    if server.standin:
        server.standin.stop()


@pytest.fixture
def origin(start):
    return start.origin()


def config(origin, flipt, poll="100ms", stream=True, **flags):
    operations = {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)}
    source = {"source": "flipt", "url": flipt.url, "poll": poll, "stream": stream, **flags}
    return c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None), flags=source)


def everything(enabled, key=FLAG):
    return c.features(c.boolean(key, enabled))


def side_of(answer):
    assert answer.status == 200
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


def echo(router, user="u1"):
    return side_of(ask(router.port, request("POST", "/echo", [("X-User-Id", user)], b'{"message": "hi"}')))


def admin(router, path):
    connection = http.client.HTTPConnection("127.0.0.1", router.admin_port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse().read()
    connection.close()
    return json.loads(answer)


def flags_status(router):
    return admin(router, "/readyz")["flags"]


def wait_side(router, side):
    wait_until(lambda: echo(router) == side, "requests to go to %s" % side)


# --- a change to its effect --------------------------------------------------------------------------------------------

def test_the_version_is_found_and_a_change_takes_effect(start, origin, flipt):
    flipt.load(everything(False))
    router, _ = start.with_worker(config(origin, flipt), env={"FLIPT_CLIENT_TOKEN": flipt.token or ""})
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")
    assert flags_status(router)["source"] == "flipt v%d" % flipt.version
    assert echo(router) == "legacy"
    for enabled, side in ((True, "task"), (False, "legacy"), (True, "task")):
        flipt.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)
    status = flags_status(router)
    assert not status["failing"] and status["last_error"] == "" and status["confirmed_ms_ago"] < 30000
    assert {row["result"] for row in router.query("SELECT * FROM attempts")} <= {"success"}


def test_the_stream_brings_a_change_within_a_tenth_of_a_second(start, origin, flipt2):
    """The poll is far away, so that only the stream can bring it; measured at the first request that it decided."""
    flipt2.load(everything(False))
    router, _ = start.with_worker(config(origin, flipt2, poll="1h"), env={"FLIPT_CLIENT_TOKEN": flipt2.token or ""})
    wait_until(lambda: flags_status(router)["streaming"], "the stream to be up")
    took = []
    with Client(router.port) as client:
        ask_again = lambda: side_of(client.ask(request("POST", "/echo", [("X-User-Id", "u1")], b'{"message": "hi"}')))
        assert ask_again() == "legacy"
        for n in range(12):
            wanted = "legacy" if n % 2 else "task"
            payload = c.boolean(FLAG, wanted == "task")
            flipt2.set_flag(payload)
            done = time.monotonic()
            while ask_again() != wanted:
                assert time.monotonic() - done < 10, "the change never took effect"
            took.append(time.monotonic() - done)
    # Counted from when Flipt said that it was done; the median, since other programs run on this machine.
    assert statistics.median(took) < 0.1, took


def test_evaluation_equals_the_servers(start, origin, flipt):
    """In process by the rules of the version that the server is: what it says itself is the oracle."""
    if not REAL:
        pytest.skip("the oracle is a real server; the recorded corpora are test_flags_corpus")
    flipt.load(c.features(c.variants(FLAG, **{"25": 25.3, "0": 74.7}), segments=[c.everybody()]))
    router, _ = start.with_worker(config(origin, flipt), env={"FLIPT_CLIENT_TOKEN": flipt.token or ""})
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")
    for user in ("user-%d" % n for n in range(100)):
        said = flipt.api.call("POST", "/evaluate/v1/variant", {"namespaceKey": "default", "flagKey": FLAG, "entityId": user,
                                                              "context": {"user_id": user}})
        assert echo(router, user) == ("task" if said["variantKey"] == "25" else "legacy"), user


@needs_faults
def test_polls_cost_a_304_when_nothing_changed(start, origin, flipt):
    flipt.load(everything(True))
    router, _ = start.with_worker(config(origin, flipt, stream=False))
    wait_side(router, "task")
    seen = len(flipt.standin.polls)
    flipt.standin.wait_polls(seen + 3)
    digest = flags_status(router)["digest"]
    assert all(p.get("If-None-Match") == digest for p in flipt.standin.polls[seen + 1:])
    assert all(p["X-Flipt-Environment"] == "default" for p in flipt.standin.polls)
    assert all(p["X-Flipt-Accept-Server-Version"] == "1.47.0" for p in flipt.standin.polls)
    assert len(router.find("flags_published")) == 1


@needs_faults
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1)])
def test_a_server_of_the_other_version_in_its_place_is_noticed(start, origin, before, after):
    server = Server(before)
    server.load(everything(True))
    router, _ = start.with_worker(config(origin, server))
    wait_side(router, "task")
    server.standin.version = after
    server.standin.drop()
    wait_until(lambda: flags_status(router)["source"] == "flipt v%d" % after, "v%d to be found" % after)
    Flipt(server.url, after).set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    server.standin.stop()


@needs_faults
def test_the_stream_ends_and_comes_back(start, origin, flipt2):
    flipt2.load(everything(False))
    router, _ = start.with_worker(config(origin, flipt2, poll="1h"))
    flipt2.standin.wait_stream()
    wait_until(lambda: flags_status(router)["streaming"], "the stream to be up")
    for enabled, side in ((True, "task"), (False, "legacy")):
        flipt2.standin.drop()
        router.wait_event("flags_stream_ended")
        flipt2.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)
        wait_until(lambda: flags_status(router)["streaming"], "the stream to be up again")


@needs_faults
def test_without_a_working_stream_the_poll_does_it(start, origin, flipt2):
    flipt2.standin.streams_fail = True
    flipt2.load(everything(False))
    router, _ = start.with_worker(config(origin, flipt2))
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")
    flipt2.set_flag(c.boolean(FLAG, True))
    wait_side(router, "task")
    assert not flags_status(router)["streaming"] and not flags_status(router)["failing"]


# --- access ------------------------------------------------------------------------------------------------------------

@needs_faults
@pytest.mark.parametrize("version", [2, 1])
def test_the_token_is_sent_and_its_lack_is_named(start, origin, version):
    server = Server(version, token="client-token-7")
    server.load(everything(True))
    router, _ = start.with_worker(config(origin, server))
    wait_until(lambda: "401" in flags_status(router)["last_error"], "the refusal to be told")
    assert echo(router) == "legacy"
    knowing, _ = start.with_worker(config(origin, server), env={"FLIPT_CLIENT_TOKEN": "client-token-7"})
    wait_side(knowing, "task")
    assert "client-token-7" not in knowing.log() + json.dumps(admin(knowing, "/readyz"))
    server.standin.stop()


@needs_faults
def test_over_tls_with_an_authority_of_ones_own(start, origin, tls):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    plain = StandIn(2)
    Flipt(plain.url, 2).load(everything(True))
    server = Server.__new__(Server)
    server.standin = StandIn(2, tls=context)
    server.standin.namespaces = plain.namespaces
    plain.stop()
    server.url = server.standin.url
    router, _ = start.with_worker(config(origin, server, ca_file=tls.authority))
    wait_side(router, "task")
    strict = start.router(config(origin, server))
    wait_until(lambda: flags_status(strict)["failing"], "the unknown authority to be refused")
    assert echo(strict) == "legacy"
    server.standin.stop()


# --- absence and oddity ------------------------------------------------------------------------------------------------

@needs_faults
def test_absent_at_the_start_then_there(start, origin, flipt):
    flipt.load(everything(True))
    flipt.standin.stop()
    router, _ = start.with_worker(config(origin, flipt))
    router.wait_event("flags_refresh_failed")
    assert echo(router) == "legacy"
    ready = admin(router, "/readyz")
    assert ready["ready"] and ready["status"] == "degraded" and ready["flags"]["last_error"]
    flipt.standin.start()
    wait_side(router, "task")
    wait_until(lambda: not flags_status(router)["failing"], "the source to be well")


@needs_faults
def test_after_a_restart_without_flipt_the_last_good_serves(start, origin, flipt):
    flipt.load(everything(True))
    settings = config(origin, flipt)
    router, _ = start.with_worker(settings)
    wait_side(router, "task")
    digest = flags_status(router)["digest"]
    saved = os.path.join(router.folder, "data", "flags.snapshot.json")
    wait_until(lambda: os.path.exists(saved), "the snapshot to be saved")
    assert os.stat(saved).st_mode & 0o777 == 0o600
    flipt.standin.stop()
    assert router.stop() == 0
    again = start.router(settings, folder=router.folder)
    again.wait_event("flags_from_disk", digest=digest)
    assert echo(again) == "task"
    status = flags_status(again)
    assert status["loaded"] and status["digest"] == digest and status["confirmed_ms_ago"] >= 0
    wait_until(lambda: flags_status(again)["failing"], "the absence to be told")
    flipt.standin.start()
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(again, "legacy")


@needs_faults
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other namespace"])
def test_a_damaged_file_of_the_last_good_is_refused(start, origin, flipt2, damage):
    flipt2.load(everything(True))
    settings = config(origin, flipt2)
    router, _ = start.with_worker(settings)
    wait_side(router, "task")
    assert router.stop() == 0
    flipt2.standin.stop()
    path = os.path.join(router.folder, "data", "flags.snapshot.json")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write({"cut": text[:len(text) // 2], "changed": text.replace(FLAG, FLAG.replace("task", "tusk")), "empty": "",
                    "other namespace": text}[damage])
    env = {"FLIPT_NAMESPACE": "elsewhere"} if damage == "other namespace" else None
    again = start.router(settings, folder=router.folder, env=env)
    again.wait_event("flags_saved_snapshot_unusable")
    assert echo(again) == "legacy"
    assert not flags_status(again)["loaded"]


@needs_faults
@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "empty"])
def test_whatever_goes_wrong_the_last_good_serves_and_nobody_waits(start, origin, flipt, fault):
    if fault == "hole" and flipt.version == 1:
        pytest.skip("v1 has no namespaces of several documents")
    flipt.load(everything(True))
    router, _ = start.with_worker(config(origin, flipt))
    wait_side(router, "task")
    flipt.standin.break_with(fault)
    began = time.monotonic()
    if fault != "hang":
        router.wait_event("flags_refresh_failed")
    for _ in range(20):
        assert echo(router) == "task"
    assert time.monotonic() - began < 20
    if fault != "hang":
        ready = admin(router, "/readyz")
        assert ready["ready"] and ready["flags"]["failing"] and ready["flags"]["last_error"], ready
        assert len(router.find("flags_refresh_failed")) <= 3, "told once per state, not per attempt"
    if fault == "hole":
        # The first failure may be a transfer that was cut when the stand-in began to break.
        wait_until(lambda: "32 characters" in flags_status(router)["last_error"], "the hole to be named")
    flipt.standin.break_with(None)
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    wait_until(lambda: not flags_status(router)["failing"], "the source to be well again")


@needs_faults
def test_a_hang_before_the_headers_is_told_and_left(start, origin, flipt):
    flipt.load(everything(True))
    router, _ = start.with_worker(config(origin, flipt))
    wait_side(router, "task")
    flipt.standin.break_with("hang")
    wait_until(lambda: flags_status(router)["failing"], "the hang to be told")
    assert echo(router) == "task"
    flipt.standin.break_with(None)
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


@needs_faults
def test_a_suddenly_empty_snapshot_keeps_what_operations_use(start, origin, flipt):
    flipt.load(everything(True))
    router, _ = start.with_worker(config(origin, flipt))
    wait_side(router, "task")
    flipt.standin.break_with("empty")
    event = router.wait_event("flags_vanished")
    assert (event["count"], event["first"]) == (1, FLAG)
    assert echo(router) == "task"
    flipt.standin.break_with(None)
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


def test_a_lost_flag_keeps_its_last_good_definition_also_on_disk(start, origin, flipt):
    other = "prompt_helpers_enabled"
    flipt.load(c.features(c.boolean(FLAG, True), c.boolean(other, True)))
    settings = config(origin, flipt)
    env = {"FLIPT_CLIENT_TOKEN": flipt.token or ""}
    router, _ = start.with_worker(settings, env=env)
    wait_side(router, "task")
    flipt.delete_flag(FLAG)
    assert router.wait_event("flags_vanished")["first"] == FLAG
    assert echo(router) == "task"
    flipt.set_flag(c.boolean(other, False))  # the rest takes effect meanwhile
    path = os.path.join(router.folder, "data", "flags.snapshot.json")

    def saved():
        with open(path, encoding="utf-8") as file:
            return {f["key"]: f["enabled"] for f in json.load(file)["snapshot"]["flags"]}
    wait_until(lambda: saved() == {FLAG: True, other: False}, "both to be on disk")
    assert router.stop() == 0
    again = start.router(settings, folder=router.folder, env=env)
    again.wait_event("flags_vanished")
    assert echo(again) == "task"
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(again, "legacy")


def test_explain_reads_what_the_router_saved(start, origin, flipt):
    flipt.load(c.features(c.variants(FLAG, **{"50": 50, "0": 50}), segments=[c.everybody()]))
    router, _ = start.with_worker(config(origin, flipt), env={"FLIPT_CLIENT_TOKEN": flipt.token or ""})
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")
    digest = flags_status(router)["digest"]
    path = os.path.join(router.folder, "data", "flags.snapshot.json")
    wait_until(lambda: os.path.exists(path), "the snapshot to be saved")
    sides = set()
    for user in ("user-%d" % n for n in range(12)):
        told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                         "--user", user)
        side = echo(router, user)
        sides.add(side)
        assert "side       %s\n" % side in told.stdout and "digest     %s\n" % digest in told.stdout, told.stdout + told.stderr
        assert "v%d rules" % flipt.version in told.stdout and "bucket" in told.stdout
    assert sides == {"task", "legacy"}
