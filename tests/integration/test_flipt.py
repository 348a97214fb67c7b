"""Flipt as the source of flags: a change to effect, v1 and v2, its absence and its oddities, the last good snapshot.

Against the stand-in, and where FLIPT_URL and FLIPT_VERSION name a real server (flipt_server.py), what is of its version against that one:
each test in a namespace of its own, which it removes. Faults lie between the router and the server (flipt_between.py).
"""
import http.client
import json
import os
import signal
import ssl
import threading
import time

import pytest

import configuration as c
from flipt_between import HeldPoll, FAULTS
from flipt_server import REAL_VERSION
from http_text import PATIENCE, wait_until
from raw import Client, ask, request

FLAG = "task_abstraction_enabled"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
VERSIONS = [pytest.param(v, id="v%d%s" % (v, " (real)" if v == REAL_VERSION else "")) for v in (2, 1)]


@pytest.fixture(params=VERSIONS)
def flipt(request, serve):
    return serve(request.param)


@pytest.fixture
def flipt2(serve):
    return serve(2)


@pytest.fixture
def flipt1(serve):
    return serve(1)


@pytest.fixture
def origin(start):
    return start.origin()


def config(origin, flipt, poll="100ms", stream=True, **flags):
    operations = {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)}
    source = {k: v for k, v in {**flipt.source(), "poll": poll, "stream": stream, **flags}.items() if v is not None}
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


def started(start, origin, flipt, env=None, **flags):
    """A router that follows this server, and a worker of its tasks."""
    return start.with_worker(config(origin, flipt, **flags), env=env)[0]


def wait_loaded(router):
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")


def wait_streaming(router):
    wait_until(lambda: flags_status(router)["streaming"], "the stream to be up")


def wait_well(router):
    wait_until(lambda: not flags_status(router)["failing"], "the source to be well")


def saved_snapshot(router):
    return os.path.join(router.folder, "data", "flags.snapshot.json")


def wait_side(router, side):
    wait_until(lambda: echo(router) == side, "requests to go to %s" % side)


# --- a change to its effect --------------------------------------------------------------------------------------------

def test_the_version_is_found_and_a_change_takes_effect(start, origin, flipt):
    flipt.load(everything(False))
    router = started(start, origin, flipt)
    wait_loaded(router)
    assert flags_status(router)["source"] == "flipt v%d" % flipt.version
    assert echo(router) == "legacy"
    for enabled, side in ((True, "task"), (False, "legacy"), (True, "task")):
        flipt.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)
    status = flags_status(router)
    assert not status["failing"] and status["last_error"] == "" and status["confirmed_ms_ago"] < 30000
    assert {row["result"] for row in router.query("SELECT * FROM attempts")} <= {"success"}


def test_the_stream_brings_changes_within_a_tenth_of_a_second(start, origin, flipt2):
    """The poll is far away, so that only the stream can bring them; measured at the first request that a change decided, from when
    Flipt said that it was done. A busy machine makes some slow: it goes on until there were 95 quick ones, as many as a hundred have."""
    flipt2.load(everything(False))
    router = started(start, origin, flipt2, poll="1h")
    wait_streaming(router)
    took, deadline = [], time.monotonic() + 2 * PATIENCE
    with Client(router.port) as client:
        def ask_again():
            return side_of(client.ask(request("POST", "/echo", [("X-User-Id", "u1")], b'{"message": "hi"}')))
        assert ask_again() == "legacy"
        while sum(t <= 0.1 for t in took) < 95:
            assert time.monotonic() < deadline, took
            wanted = "legacy" if len(took) % 2 else "task"
            flipt2.set_flag(c.boolean(FLAG, wanted == "task"))
            done = time.monotonic()
            while ask_again() != wanted:
                assert time.monotonic() - done < PATIENCE, "the change never took effect"
            took.append(time.monotonic() - done)


@pytest.mark.skipif(not REAL_VERSION, reason="the oracle is a real server; the recorded corpora are test_flags_corpus")
@pytest.mark.parametrize("kind", ["variant", "boolean"])
def test_evaluation_equals_the_servers(start, origin, serve, kind):
    """In process by the rules of the version that the server is: what it says itself is the oracle."""
    server = serve(REAL_VERSION)
    flag = c.variants(FLAG, **{"25": 25.3, "0": 74.7}) if kind == "variant" else c.boolean(FLAG, False, percentage=33)
    server.load(c.features(flag, segments=[c.everybody()]))
    router = started(start, origin, server)
    wait_loaded(router)
    sides = set()
    for user in ("user-%d" % n for n in range(200)):
        said = server.api.call("POST", "/evaluate/v1/" + kind, {"namespaceKey": server.namespace, "flagKey": FLAG,
                                                               "entityId": user, "context": {"user_id": user}})
        side = "task" if said.get("variantKey") == "25" or said.get("enabled") else "legacy"
        assert echo(router, user) == side, user
        sides.add(side)
    assert sides == {"task", "legacy"}


def test_polls_cost_a_304_when_nothing_changed(start, origin, flipt):
    if flipt.standin:
        flipt.standin.storage = "database"  # of files v1 tells time and size alone
    flipt.load(everything(True))
    router = started(start, origin, flipt, stream=False)
    wait_side(router, "task")
    digest = flags_status(router)["digest"]
    wait_until(lambda: flipt.between.polls[-1].headers.get("If-None-Match") == digest, "the ETag to be relied upon")
    seen = len(flipt.between.polls)
    flipt.between.wait_polls(seen + 3)
    asked = [p.headers for p in flipt.between.polls[seen:]]
    assert all(h.get("If-None-Match") == digest for h in asked)
    assert all(h["X-Flipt-Environment"] == "default" for h in asked)
    assert all(h["X-Flipt-Accept-Server-Version"] == "1.47.0" for h in asked)
    assert len(router.find("flags_published")) == 1


def test_changes_that_share_their_etag_all_take_effect(start, origin, flipt1):
    """v1 makes it of the time of the last change, of which some databases keep whole seconds."""
    flipt1.load(everything(False))
    router = started(start, origin, flipt1)
    wait_loaded(router)
    flipt1.between.etag = "0123456789" * 4
    for enabled, side in ((True, "task"), (False, "legacy")):
        flipt1.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)


RELEASES = [(2, "2.0.0"), (2, "2.10.0"), (2, "2.11.0"), (2, None), (1, "1.48.0"), (1, "1.59.1"), (1, "1.61.1"), (1, None)]


@pytest.mark.parametrize("stream", (True, False), ids=("stream", "poll"))
@pytest.mark.parametrize("version, release", RELEASES)
def test_a_digest_that_several_states_share_hides_no_change(start, origin, serve, version, release, stream):
    """Flipt 2.0 to 2.10 and 1.48 to 1.59.1 give a namespace of several files the last file's; of others nobody knows."""
    if stream and version == 1:
        pytest.skip("v1 has no stream")
    flipt = serve(version)
    if not flipt.standin:
        pytest.skip("a real server has its own digests")
    flipt.standin.release[version] = release
    flipt.load(everything(False))
    if release != "2.11.0":
        flipt.standin.digest = "0123456789" * 4
    router = started(start, origin, flipt, stream=stream)
    wait_loaded(router)
    assert flags_status(router).get("version") == release
    content = flags_status(router)["content"]
    for enabled, side in ((True, "task"), (False, "legacy"), (True, "task")):
        flipt.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)
        assert (flags_status(router)["content"] == content) == (not enabled)
    if release != "2.11.0":
        assert not any("If-None-Match" in p.headers for p in flipt.between.polls)
    seen, published = len(flipt.between.polls), len(router.find("flags_published"))
    if not stream:
        flipt.between.wait_polls(seen + 3)
        assert len(router.find("flags_published")) == published  # what is the same is not published again


def test_a_server_is_taken_for_what_it_was_where_it_does_not_tell(start, origin, serve):
    """2.8 does not scale {on: 20} to everybody. A restart and a server that hides its version must not move the other 80 %."""
    flipt = serve(2)
    if not flipt.standin:
        pytest.skip("a real server has its own version")
    flipt.standin.release[2] = "2.8.0"
    flipt.load(c.features(c.variants(FLAG, on=20), segments=[c.everybody()]))
    settings = config(origin, flipt, stream=False)
    router, _ = start.with_worker(settings)
    wait_loaded(router)

    def share(of):
        return sum(echo(of, "u%d" % i) == "task" for i in range(100))
    assert 5 < share(router) < 40
    got = start.run("migration-rollout", "--config", router.config_path, "get", FLAG).stdout
    assert "20 % of everybody" in got, got
    flipt.standin.release[2] = None
    assert router.stop() == 0
    again = start.router(settings, folder=router.folder)
    flipt.between.wait_polls(len(flipt.between.polls) + 2)
    assert 5 < share(again) < 40
    flipt.standin.release[2] = "2.11.0"
    flipt.standin.touch()
    third = start.router(config(origin, flipt, stream=False), folder=None)
    wait_loaded(third)
    assert third.find("flipt_server")[0]["version"] == "2.11.0"


@pytest.mark.parametrize("before, after", [(1, 2), (2, 1)])
def test_a_server_of_the_other_version_in_its_place_is_noticed(start, origin, serve, before, after):
    old = serve(before, shown_token="client-token-5")
    new = serve(after, namespace=old.namespace)
    old.load(everything(True))
    new.load(everything(True))
    router = started(start, origin, old)
    wait_side(router, "task")
    old.between.lead_to(new.api.url, new.api.token)
    wait_until(lambda: flags_status(router)["source"] == "flipt v%d" % after, "v%d to be found" % after)
    new.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


def test_the_stream_ends_and_comes_back(start, origin, flipt2):
    flipt2.load(everything(False))
    router = started(start, origin, flipt2, poll="1h")
    wait_streaming(router)
    for count, (enabled, side) in enumerate(((True, "task"), (False, "legacy")), 1):
        flipt2.between.drop()
        router.wait_event("flags_stream_ended", count=count)
        flipt2.set_flag(c.boolean(FLAG, enabled))
        wait_side(router, side)
        wait_streaming(router)


def test_a_silent_stream_is_opened_anew(start, origin, flipt2):
    """A connection can be dead without a sign, and this protocol says nothing while nothing changes."""
    flipt2.load(everything(False))
    router = started(start, origin, flipt2, poll="1h", stream_idle="300ms")
    flipt2.between.wait_begun(4)
    flipt2.set_flag(c.boolean(FLAG, True))
    wait_side(router, "task")
    assert router.find("flags_stream_ended") == [] and router.find("flags_refresh_failed") == []
    assert len(flipt2.between.polls) == 1, "nothing was wrong: no reason to poll"


def test_a_stream_that_cannot_be_opened_anew_is_replaced_by_polls_at_once(start, origin, flipt2):
    flipt2.load(everything(False))
    router = started(start, origin, flipt2, stream_idle="300ms", timeout="500ms")
    wait_streaming(router)
    flipt2.between.streams_hang = True
    router.wait_event("flags_stream_ended")
    flipt2.set_flag(c.boolean(FLAG, True))
    wait_side(router, "task")
    flipt2.between.wait_polls(len(flipt2.between.polls) + 3)  # beside a stream there would be one in 30 s
    assert not flags_status(router)["streaming"]
    flipt2.between.streams_hang = False
    wait_streaming(router)


def test_without_a_working_stream_the_poll_does_it(start, origin, flipt2):
    flipt2.between.streams_fail = True
    flipt2.load(everything(False))
    router = started(start, origin, flipt2)
    wait_loaded(router)
    flipt2.set_flag(c.boolean(FLAG, True))
    wait_side(router, "task")
    assert not flags_status(router)["streaming"] and not flags_status(router)["failing"]


# --- access ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
def test_the_token_is_sent_and_a_wrong_one_is_named_until_it_is_right(start, origin, serve, version):
    server = serve(version, shown_token="client-token-7")
    server.load(everything(True))
    router = started(start, origin, server, env={"FLIPT_CLIENT_TOKEN": "client-token-8"})
    wait_until(lambda: "401" in flags_status(router)["last_error"], "the refusal to be told")
    assert echo(router) == "legacy"
    without = started(start, origin, server, token_file=None)
    wait_until(lambda: "401" in flags_status(without)["last_error"], "the lack to be told")
    knowing = started(start, origin, server)
    wait_side(knowing, "task")
    server.between.shown_token = "client-token-8"  # Flipt learns of it, and forgets the other
    server.between.release()
    wait_side(router, "task")
    wait_well(router)
    wait_until(lambda: flags_status(knowing)["failing"], "the old token to be refused")
    assert echo(knowing) == "task", "the last good serves"
    for one in (router, knowing):
        assert "client-token-" not in one.log() + json.dumps(admin(one, "/readyz"))


def standin_with(serve, version, **parts):
    server = serve(version)
    if not server.standin:
        pytest.skip("a real server asks for what it asks")
    server.load(everything(True))
    for name, value in parts.items():
        setattr(server.standin, name, value)
    return server


def written(start, text):
    path = start.folder() / "token"
    path.write_text(text)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_token_file_is_read_again_when_it_has_changed(start, origin, serve, version):
    server = standin_with(serve, version, token="client-token-1")
    token = written(start, "client-token-1\n")
    router = started(start, origin, server, token_file=str(token))
    wait_side(router, "task")
    server.api.token = server.standin.token = "client-token-2"
    server.standin.touch()
    server.between.release()
    wait_until(lambda: flags_status(router)["failing"], "the old token to be refused")
    token.write_text("")  # as while it is being written
    wait_until(lambda: "401" in flags_status(router)["last_error"], "the refusal to be told")
    token.write_text("client-token-2\r\n")
    wait_well(router)
    server.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    router.signal(signal.SIGHUP)
    router.wait_event("reloaded")
    assert not router.find("reload_needs_restart")
    assert "client-token-" not in router.log() + json.dumps(admin(router, "/readyz"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("where", ("file", "environment"))
def test_a_jwt_is_shown_as_one(start, origin, serve, version, where):
    server = standin_with(serve, version, token="e30.e30.sig", scheme="JWT")
    token = str(written(start, " e30.e30.sig\n\n"))
    env = {"FLIPT_CLIENT_TOKEN": "e30.e30.sig\n"} if where == "environment" else None
    router = started(start, origin, server, auth="jwt", env=env, **({"token_file": token} if where == "file" else {}))
    wait_side(router, "task")
    got = start.run("migration-rollout", "--config", router.config_path, "get", FLAG, env=env)
    assert got.returncode == 0, got.stderr
    other = started(start, origin, server, env={"FLIPT_CLIENT_TOKEN": "e30.e30.sig"})
    wait_until(lambda: "401" in flags_status(other)["last_error"], "a bearer token to be refused")
    server.standin.token = None  # what removes the namespace shows a bearer token


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kubernetes_token_is_exchanged_and_so_is_its_successor(start, origin, serve, version):
    server = standin_with(serve, version, token="client-token-1", service_account="pod-token-1")
    token = written(start, "pod-token-1")
    router = started(start, origin, server, auth="kubernetes", token_file=str(token))
    wait_side(router, "task")
    got = start.run("migration-rollout", "--config", router.config_path, "get", FLAG)
    assert got.returncode == 0, got.stderr
    server.standin.token = "client-token-2"  # the server has forgotten what it gave out
    server.standin.touch()
    server.between.release()
    wait_until(lambda: server.standin.logins >= 3, "another exchange")
    wait_well(router)
    server.standin.token, server.standin.service_account = "client-token-3", "pod-token-2"
    token.write_text("pod-token-2\n")
    server.standin.touch()
    server.between.release()
    server.api.token = "client-token-3"
    server.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    assert not any(t in router.log() for t in ("client-token-", "pod-token-"))


@pytest.mark.parametrize("variable, value, says", [
    ("FLIPT_CLIENT_TOKEN", "a b", "has blanks"), ("FLIPT_CLIENT_TOKEN", "Bearer abc", "without a scheme"),
    ("FLIPT_CLIENT_TOKEN", "\n", "is empty"), ("FLIPT_CLIENT_TOKEN", "a\nb", "control characters"),
    ("FLIPT_NAMESPACE", "a\nb", "control characters"), ("FLIPT_ENVIRONMENT", "  ", "is empty"),
    ("FLIPT_SERVER_URL", "ftp://x", "http://"), ("FLIPT_SERVER_URL", "http://a:99999", "port")])
def test_what_the_environment_says_is_checked_as_the_files_values_are(start, origin, variable, value, says):
    path = start.folder() / "router.yml"
    operations = {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)}
    path.write_text(json.dumps(c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None),
                                        flags={"source": "flipt", "url": "http://127.0.0.1:1"})))
    told = start.run("migration-router", "check", path, env={variable: value})
    assert told.returncode == 2 and "environment: %s: " % variable in told.stderr and says in told.stderr, told.stderr
    assert variable != "FLIPT_CLIENT_TOKEN" or value.strip() not in told.stderr or not value.strip()
    told = start.run("migration-router", "check", path, env={"FLIPT_SERVER_URL": " HTTP://127.0.0.1:1\n", "FLIPT_CLIENT_TOKEN": "t\r\n"})
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("namespace", ("a b", "a#b", "a?b=c", "..", ".", "ü/x", "50%25"))
@pytest.mark.parametrize("version", VERSIONS)
def test_names_are_one_segment_of_the_path_whatever_they_are_made_of(start, origin, serve, version, namespace):
    server = serve(version)
    if not server.standin:
        pytest.skip("a real server has rules for names")
    server.standin.create_namespace(namespace, namespace)
    server.standin.namespaces[namespace]["flags"] = server.standin.namespaces[server.namespace]["flags"]
    server.load(everything(True))
    router = started(start, origin, server, namespace=namespace)
    wait_side(router, "task")
    got = start.run("migration-rollout", "--config", router.config_path, "get")
    assert got.returncode == 0 and FLAG in got.stdout, got.stderr


def test_the_scheme_of_a_url_is_written_in_any_case(start, origin, flipt):
    flipt.load(everything(True))
    router = started(start, origin, flipt, url=flipt.url.replace("http://", "HTTP://"))
    wait_side(router, "task")


# --- answers of somebody else ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status, fields, body, says", [
    (302, [("Location", "https://user:secret@sso.example/login?token=secret#x")], b"", "it redirects to https://sso.example/login, which"),
    (301, [("Location", "/ui/")], b"", "it redirects to /ui/, which"),
    (200, [("Content-Type", "text/html; charset=utf-8")], b"<!doctype html><title>Sign in</title>", "HTML page"),
    (200, [("Content-Type", "application/json")], b"\n <html>", "HTML page"),
    (404, [("Content-Type", "text/html")], b"<h1>404</h1>", "HTML page"),
    (403, [("Content-Type", "text/html")], b"<h1>no</h1>", "HTML page"),
])
def test_what_is_no_answer_of_flipt_is_called_what_it_is(start, origin, status, fields, body, says):
    other = start.origin()
    other.answers(status, fields, body)
    settings = c.router({"app": c.service(origin, {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)})},
                        backends=c.embedded(tasks=None), flags={"source": "flipt", "url": other.url})
    router, _ = start.with_worker(settings)
    wait_until(lambda: says in flags_status(router)["last_error"], says)
    told = start.run("migration-rollout", "--config", router.config_path, "get")
    assert told.returncode == 1 and says in told.stderr, told.stderr
    assert "secret" not in router.log() + told.stderr


@pytest.mark.parametrize("how", ("seconds", "date"))
def test_a_server_that_asks_to_be_left_alone_is_left_alone(start, origin, how):
    other, times = start.origin(), []

    def refuse(x):
        if "snapshot" in x.request.target:
            times.append(time.monotonic())
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 4))
        x.answer(503, [("Retry-After", "3" if how == "seconds" else later)])
    other.always(refuse)
    settings = c.router({"app": c.service(origin, {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)})},
                        backends=c.embedded(tasks=None), flags={"source": "flipt", "url": other.url, "poll": "100ms"})
    router, _ = start.with_worker(settings)
    wait_until(lambda: len(times) >= 2, "two polls")
    assert times[1] - times[0] >= 2, times


@pytest.mark.parametrize("auth", ("token", "kubernetes"))
def test_a_new_token_does_not_wait_until_a_refused_one_might_be_shown_again(start, origin, auth):
    """The server asks to be left alone for an hour."""
    other, shown, refusal = start.origin(), [], [("Retry-After", "3600")]

    def refuse(x):
        shown.append((x.request.head.get("Authorization") or "") + x.request.body.decode())
        x.answer(401, refusal)
    other.always(refuse)
    token = written(start, "old-token")
    flags = {"source": "flipt", "url": other.url, "token_file": str(token)}
    settings = c.router({"app": c.service(origin, {"echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY)})},
                        backends=c.embedded(tasks=None), flags={**flags, **({"auth": auth} if auth == "kubernetes" else {})})
    router, _ = start.with_worker(settings)
    wait_until(lambda: "401" in flags_status(router)["last_error"], "the refusal to be told")
    assert any("old-token" in one for one in shown) and not any("new-token" in one for one in shown)
    for n in range(2):
        token.write_text("new-token-%d\n" % n)
        wait_until(lambda n=n: any("new-token-%d" % n in one for one in shown), "the new token to be shown")
    assert "token-" not in router.log()


@pytest.mark.parametrize("version", VERSIONS)
def test_over_tls_with_an_authority_of_ones_own(start, origin, serve, tls, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server = serve(version, tls=context)
    server.load(everything(True))
    router = started(start, origin, server, ca_file=tls.authority)
    wait_side(router, "task")
    server.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    strict = start.router(config(origin, server))
    wait_until(lambda: flags_status(strict)["failing"], "the unknown authority to be refused")
    assert "certificate" in flags_status(strict)["last_error"]


def test_an_environment_that_is_not_there_is_an_error(start, origin, flipt2):
    """A v2 server would serve its default one for what the path says."""
    flipt2.load(everything(True))
    router = started(start, origin, flipt2, environment="elsewhere")
    assert "environment" in router.wait_event("flags_refresh_failed")["error"]
    assert echo(router) == "legacy" and not flags_status(router)["loaded"]


# --- absence and oddity ------------------------------------------------------------------------------------------------

def test_absent_at_the_start_then_there(start, origin, flipt):
    flipt.load(everything(True))
    flipt.between.stop()
    router = started(start, origin, flipt)
    router.wait_event("flags_refresh_failed")
    assert echo(router) == "legacy"
    ready = admin(router, "/readyz")
    assert ready["ready"] and ready["status"] == "degraded" and ready["flags"]["last_error"]
    flipt.between.start()
    wait_side(router, "task")
    wait_well(router)
    router.wait_event("flags_refresh_recovered")


def test_after_a_restart_without_flipt_the_last_good_serves(start, origin, flipt):
    flipt.load(everything(True))
    settings = config(origin, flipt)
    router, _ = start.with_worker(settings)
    wait_side(router, "task")
    digest = flags_status(router)["digest"]
    wait_until(lambda: os.path.exists(saved_snapshot(router)), "the snapshot to be saved")
    assert os.stat(saved_snapshot(router)).st_mode & 0o777 == 0o600
    flipt.between.stop()
    assert router.stop() == 0
    again = start.router(settings, folder=router.folder)
    again.wait_event("flags_from_disk", digest=digest)
    assert echo(again) == "task"
    status = flags_status(again)
    assert status["loaded"] and status["digest"] == digest and status["confirmed_ms_ago"] >= 0
    wait_until(lambda: flags_status(again)["failing"], "the absence to be told")
    flipt.between.start()
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(again, "legacy")


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other namespace"])
def test_a_damaged_file_of_the_last_good_is_refused(start, origin, flipt2, damage):
    flipt2.load(everything(True))
    settings = config(origin, flipt2)
    router, _ = start.with_worker(settings)
    wait_side(router, "task")
    assert router.stop() == 0
    flipt2.between.stop()
    with open(saved_snapshot(router), encoding="utf-8") as file:
        text = file.read()
    with open(saved_snapshot(router), "w", encoding="utf-8") as file:
        file.write({"cut": text[:len(text) // 2], "changed": text.replace(FLAG, FLAG.replace("task", "tusk")), "empty": "",
                    "other namespace": text}[damage])
    env = {"FLIPT_NAMESPACE": "elsewhere"} if damage == "other namespace" else None
    again = start.router(settings, folder=router.folder, env=env)
    again.wait_event("flags_saved_snapshot_unusable")
    assert echo(again) == "legacy"
    assert not flags_status(again)["loaded"]


def test_a_kill_while_the_last_good_is_written_leaves_a_whole_file(start, origin, flipt2):
    """Killed as soon as the neighbour that is to replace the file is seen; a large snapshot takes its time."""
    segments = [{"key": "s%d" % n, "constraints": [{"type": "STRING_COMPARISON_TYPE", "property": "organization_id",
                                                    "operator": "isoneof", "value": json.dumps(["%d" % m for m in range(300)])}]}
                for n in range(10)]
    flags = [c.variants("f%d" % n, segment="s%d" % n, **{"1": 50, "0": 50}) for n in range(10)]
    flipt2.load(c.features(c.boolean(FLAG, True), *flags, segments=segments))
    settings = config(origin, flipt2)
    folder, router = start.folder(), None

    def being_written():
        return [name for name in os.listdir(os.path.join(folder, "data")) if name.startswith("flags.snapshot.json.")]
    left = 0
    for kill in range(40):  # on a busy machine many come too early or too late
        if left and kill >= 8:
            break
        router = start.router(settings, folder=folder)
        assert router.find("flags_saved_snapshot_unusable") == [], router.log()
        assert bool(router.find("flags_from_disk")) == (kill > 0)
        wait_until(lambda: os.path.exists(saved_snapshot(router)), "the first snapshot to be saved")
        assert being_written() == [], "what was left has been removed"
        flipt2.set_flag(c.boolean(FLAG, kill % 2 == 0))
        deadline = time.monotonic() + 2
        while not being_written() and time.monotonic() < deadline:
            pass
        router.kill()
        left += len(being_written())
        with open(saved_snapshot(router), encoding="utf-8") as file:
            assert len(json.load(file)["snapshot"]["flags"]) == 11
    assert left > 0, "no kill met the writing"


NAMED = {"half": "", "half_json": "JSON", "half_chunked": "", "500": "500", "401": "token", "garbage": "HTML page", "redirect_loop": "302"}


@pytest.mark.parametrize("fault", NAMED)
def test_whatever_goes_wrong_the_last_good_serves_and_it_is_told_once(start, origin, flipt, fault):
    broken_and_well_again(start, origin, flipt, fault, NAMED[fault])


def test_a_snapshot_with_a_hole_is_refused_and_named(start, origin, flipt2):
    """As v2 sends it for a namespace of several documents; v1 has none."""
    broken_and_well_again(start, origin, flipt2, "hole", "32 characters")


def broken_and_well_again(start, origin, flipt, fault, named):
    flipt.load(everything(True))
    router = started(start, origin, flipt)
    wait_side(router, "task")
    flipt.between.break_with(fault)
    router.wait_event("flags_refresh_failed")
    seen = len(flipt.between.polls)
    for _ in range(20):
        assert echo(router) == "task"
    flipt.between.wait_polls(seen + 2)
    ready = admin(router, "/readyz")
    assert ready["ready"] and ready["flags"]["failing"] and ready["flags"]["loaded"], ready
    wait_until(lambda: named in flags_status(router)["last_error"], "the fault to be named")
    told = [event["error"] for event in router.find("flags_refresh_failed")]
    assert len(told) == len(set(told)), "told once per kind, not per attempt"
    flipt.between.break_with(None)
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    # An attempt that was broken may end after the stream is well: then that is told, and its end as well.
    wait_until(lambda: outages(router)[-1] == "flags_refresh_recovered" and not flags_status(router)["failing"], "the end to be told")
    assert outages(router)[0] == "flags_refresh_failed"


def outages(router):
    """The beginnings and ends that the log has, in order."""
    return [event["event"] for event in router.events if event.get("event") in ("flags_refresh_failed", "flags_refresh_recovered")]


def test_a_stream_that_is_a_page_ends_and_the_poll_alone_says_how_the_flags_are(start, origin, flipt2):
    """A proxy that lets polls pass and answers streams with its own page: that is no outage, however often it is tried."""
    flipt2.load(everything(True))
    flipt2.between.streams_page = True
    router = started(start, origin, flipt2)
    wait_side(router, "task")
    assert "HTML page" in router.wait_event("flags_stream_ended")["why"]
    pages = flipt2.between.pages
    wait_until(lambda: flipt2.between.pages >= pages + 2, "more attempts")
    assert router.find("flags_refresh_failed") == [] and len(router.find("flags_stream_ended")) == 1
    flipt2.between.streams_page = False
    wait_streaming(router)
    flipt2.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


def test_a_hang_before_the_headers_is_told_and_left(start, origin, flipt):
    flipt.load(everything(True))
    router = started(start, origin, flipt, timeout="500ms")
    wait_side(router, "task")
    flipt.between.break_with("hang")
    wait_until(lambda: flags_status(router)["failing"], "the hang to be told")
    assert echo(router) == "task"
    flipt.between.break_with(None)
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


def test_a_slow_server_that_answers_is_no_failure(start, origin, flipt):
    flipt.load(everything(True))
    flipt.between.break_with("hang")
    router = started(start, origin, flipt)
    assert not flags_status(router)["loaded"] and echo(router) == "legacy", "nobody waits for the first snapshot"
    flipt.between.break_with("slow")
    wait_side(router, "task")
    wait_well(router)
    told = len(router.find("flags_refresh_failed"))  # of the hang
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    assert len(router.find("flags_refresh_failed")) == told and not flags_status(router)["failing"]


def test_attempts_come_ever_more_rarely_and_at_random_times(start, origin, flipt):
    flipt.load(everything(True))
    router = started(start, origin, flipt, stream=False)
    wait_side(router, "task")
    flipt.between.break_with("500")
    router.wait_event("flags_refresh_failed")
    seen = len(flipt.between.polls)  # the first that failed, perhaps the second
    flipt.between.wait_polls(seen + 4)
    times = [p.at for p in flipt.between.polls[seen - 1:seen + 4]]
    pauses = [b - a for a, b in zip(times, times[1:])]
    # The n-th is 0.5 s × 2^n, or up to half of it less; timers are never early, and 5 ms are for the clock's grain and the way.
    assert all(pause > 0.25 * 2 ** n - 0.005 for n, pause in enumerate(pauses)), pauses
    told = [event["error"] for event in router.find("flags_refresh_failed")]
    assert len(told) == len(set(told)), "told once per kind, not per attempt"


def test_a_namespace_that_is_gone_keeps_the_last_good_until_it_is_back(start, origin, flipt):
    flipt.load(everything(True))
    router = started(start, origin, flipt, stream=False)
    wait_side(router, "task")
    flipt.api.delete_namespace()
    if flipt.api.serves_lost_namespaces():
        assert router.wait_event("flags_vanished")["first"] == FLAG
    else:
        wait_until(lambda: "404" in flags_status(router)["last_error"], "the loss to be told")
    assert echo(router) == "task"
    flipt.api.create_namespace()
    flipt.load(everything(False))
    wait_side(router, "legacy")
    wait_well(router)


def test_a_suddenly_empty_namespace_keeps_what_operations_use(start, origin, flipt):
    flipt.load(everything(True))
    router = started(start, origin, flipt)
    wait_side(router, "task")
    flipt.load(c.features())
    event = router.wait_event("flags_vanished")
    assert (event["count"], event["first"]) == (1, FLAG)
    assert echo(router) == "task"
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")


def test_a_poll_that_the_stream_has_overtaken_brings_nothing_back(start, origin, flipt2):
    """It was sent before a change, and its answer comes after the change that followed: minutes of the wrong state, it was."""
    flipt2.load(everything(True))
    router = started(start, origin, flipt2)
    wait_side(router, "task")
    flipt2.between.wait_begun(1)
    held = flipt2.between.held_poll = HeldPoll()
    router.signal(signal.SIGHUP)
    assert held.arrived.wait(60)
    flipt2.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    held.go.set()
    assert held.fetched.wait(60)
    flipt2.set_flag(c.boolean(FLAG, True))
    wait_side(router, "task")
    seen = len(flipt2.between.polls)
    held.release.set()
    flipt2.between.wait_polls(seen + 1)
    assert [echo(router) for _ in range(5)] == ["task"] * 5


def test_a_lost_flag_keeps_its_last_good_definition_also_on_disk(start, origin, flipt):
    other = "prompt_helpers_enabled"
    flipt.load(c.features(c.boolean(FLAG, True), c.boolean(other, True)))
    settings = config(origin, flipt)
    router, _ = start.with_worker(settings)
    wait_side(router, "task")
    flipt.delete_flag(FLAG)
    assert router.wait_event("flags_vanished")["first"] == FLAG
    assert echo(router) == "task"
    flipt.set_flag(c.boolean(other, False))  # the rest takes effect meanwhile

    def saved():
        with open(saved_snapshot(router), encoding="utf-8") as file:
            return {f["key"]: f["enabled"] for f in json.load(file)["snapshot"]["flags"]}
    wait_until(lambda: saved() == {FLAG: True, other: False}, "both to be on disk")
    assert router.stop() == 0
    again = start.router(settings, folder=router.folder)
    again.wait_event("flags_vanished")
    assert echo(again) == "task"
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(again, "legacy")


def test_no_request_fails_or_waits_while_things_go_wrong(start, origin, flipt):
    """Requests flow all the time, through every fault, and through absence."""
    flipt.load(everything(True))
    router = started(start, origin, flipt, timeout="2s")
    wait_side(router, "task")
    waits = []  # the middle one of each fault: who waits for Flipt waits 2 s, and so would all
    with Traffic(router) as traffic:
        for fault in FAULTS:
            if fault == "hole" and flipt.version == 1:
                continue
            seen, answered = len(flipt.between.polls), len(traffic.took)
            flipt.between.break_with(fault)
            wait_until(lambda at=answered: len(traffic.took) > at + 80 or traffic.wrong, "80 answers")
            waits.append(sorted(traffic.took[answered:answered + 80])[40:41])
            if fault == "slow":
                flipt.between.wait_polls(seen + 1)
            else:
                wait_until(lambda: flags_status(router)["failing"], "%s to be told" % fault)
            flipt.between.break_with(None)
            wait_well(router)
        flipt.between.stop()
        wait_until(lambda: flags_status(router)["failing"], "the absence to be told")
        flipt.between.start()
        wait_well(router)
    assert traffic.wrong == []
    assert all(middle and middle[0] < 1.5 for middle in waits), waits


class Traffic:
    """Callers that ask all the time: how long each answer took, and what was wrong with some."""

    def __init__(self, router, callers=4):
        self.router, self.took, self.wrong, self.ending = router, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=("u%d" % n,)) for n in range(callers)]

    def ask(self, user):
        while not self.ending.is_set() and not self.wrong:
            began = time.monotonic()
            try:
                side = echo(self.router, user)
            except Exception as why:  # whatever it is: the test tells
                side = why
            self.took.append(time.monotonic() - began)
            if side != "task":
                self.wrong.append(side)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()


def test_explain_reads_what_the_router_saved(start, origin, flipt):
    flipt.load(c.features(c.variants(FLAG, **{"50": 50, "0": 50}), segments=[c.everybody()]))
    router = started(start, origin, flipt)
    wait_loaded(router)
    digest = flags_status(router)["digest"]
    wait_until(lambda: os.path.exists(saved_snapshot(router)), "the snapshot to be saved")
    sides = set()
    for user in ("user-%d" % n for n in range(12)):
        told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                         "--user", user)
        side = echo(router, user)
        sides.add(side)
        assert "side       %s\n" % side in told.stdout and "digest     %s\n" % digest in told.stdout, told.stdout + told.stderr
        assert ("v1 rules" if flipt.version == 1 else ", v2.") in told.stdout and "bucket" in told.stdout
    assert sides == {"task", "legacy"}


# --- one odd flag, and whose rules -------------------------------------------------------------------------------------

def test_one_odd_flag_of_a_snapshot_freezes_no_other(start, origin, flipt):
    """65 segments: Flipt takes them."""
    keys = ["many%d" % n for n in range(65)]
    odd = {**c.boolean("odd", True), "rollouts": [{"segment": {"keys": keys, "operator": "OR_SEGMENT_OPERATOR", "value": True}}]}
    segments = [{"key": key, "name": key, "match_type": "ANY_MATCH_TYPE", "constraints": []} for key in keys]
    flipt.load(c.features(c.boolean(FLAG, True), odd, segments=segments))
    router = started(start, origin, flipt)
    wait_side(router, "task")
    flipt.set_flag(c.boolean(FLAG, False))
    wait_side(router, "legacy")
    assert not flags_status(router)["failing"] and flags_status(router)["broken"] == []
    told = start.run("migration-router", "check", router.config_path, "--flags")
    assert told.returncode == 0 and "too many segments" in told.stdout, told.stdout + told.stderr


@pytest.mark.parametrize("release,share", (("2.8.0", 20), ("2.9.0", 100), ("2.11.0", 100)))
def test_shares_act_as_the_servers_version_does(start, origin, serve, release, share):
    flipt = serve(2)
    if not flipt.standin:
        pytest.skip("a real server has its own version")
    flipt.standin.release[2] = release
    flag = c.variants(FLAG, on=20)
    flipt.load(c.features(flag, segments=[c.everybody()]))
    router = started(start, origin, flipt)
    wait_loaded(router)
    wait_until(lambda: flags_status(router).get("version") == release, "the server's version")
    sides = [echo(router, "user-%d" % n) for n in range(60)]
    assert sides.count("task") == 60 if share == 100 else 3 <= sides.count("task") <= 25, sides
