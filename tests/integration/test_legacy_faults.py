"""Legacy services that fail: the caller learns it, nothing is executed twice, nothing shortened looks whole."""
import json
import socket
import threading

import pytest

import configuration
from http_text import Cut, chunked
from origin import close_silently, early, hold, reset
from programs import free_port
from raw import Client, ask, request


def fast(origin, **more):
    """Short time limits towards legacy, one thread: kept connections are met again."""
    config = configuration.passing(origin, **more)
    config["threads"] = 1
    return config


def problem(answer, status):
    assert answer.status == status, answer.body
    assert answer.get("Content-Type") == "application/problem+json"
    told = json.loads(answer.body)
    assert told["status"] == status and told["title"]
    return told


# --- nothing comes -----------------------------------------------------------------------------------------------------

def test_refused(start):
    router = start.router(fast("http://127.0.0.1:%d" % free_port()))
    problem(ask(router.port, request("POST", "/", body=b"{}")), 502)
    assert router.wait_outcomes(1)[0]["result"] == "failure"


def test_unknown_name(start):
    router = start.router(fast("http://legacy.invalid:80"))
    problem(ask(router.port, request()), 502)


def test_reset_before_an_answer(router, origin):
    origin.always(reset)
    problem(ask(router.port, request("POST", "/", body=b"{}")), 502)
    assert len(origin.requests) == 1


def test_closed_before_an_answer(router, origin):
    origin.always(close_silently)
    problem(ask(router.port, request("POST", "/", body=b"{}")), 502)
    assert len(origin.requests) == 1


def test_silence(start):
    origin, never = start.origin(), threading.Event()
    origin.always(hold(never))
    router = start.router(configuration.passing(origin, legacy={"response_timeout": "300ms"}))
    problem(ask(router.port, request("POST", "/", body=b"{}")), 504)
    assert router.wait_outcomes(1)[0]["result"] == "timeout"
    origin.wait_requests(1)
    assert len(origin.requests) == 1
    never.set()


def test_an_answer_that_stalls_in_the_middle_is_cut(start):
    origin, never = start.origin(), threading.Event()

    def script(x):
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        never.wait(30)
    origin.always(script)
    router = start.router(configuration.passing(origin, legacy={"idle_timeout": "300ms"}))
    with Client(router.port) as client, pytest.raises(Cut):
        client.ask(request())
    never.set()
    assert router.wait_outcomes(1)[0]["result"] in ("timeout", "failure")


# --- kept connections that have died -----------------------------------------------------------------------------------

def dying_after_first(origin):
    """The first request of a connection is answered; the second is read, executed, and then the connection dies."""
    seen = set()

    def script(x):
        if x.request.connection not in seen:
            seen.add(x.request.connection)
            x.answer(200, [], b"first")
        else:
            x.reset()
    origin.always(script)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("body", [b"", b"x" * 100], ids=["empty", "body"])
def test_what_is_not_safe_is_never_sent_twice(start, method, body):
    origin = start.origin()
    dying_after_first(origin)
    router = start.router(fast(origin))
    with Client(router.port) as client:
        assert client.ask(request("GET", "/warm")).body == b"first"
        problem(client.ask(request(method, "/once", body=body)), 502)
    assert [r.target for r in origin.requests] == ["/warm", "/once"]
    assert origin.requests[1].connection == 0, "the kept connection was to be used"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_are_tried_once_more(start, method):
    origin = start.origin()
    dying_after_first(origin)
    router = start.router(fast(origin))
    with Client(router.port) as client:
        assert client.ask(request("GET", "/warm")).status == 200
        assert client.ask(request(method, "/again"), method).status == 200
    assert [(r.target, r.connection) for r in origin.requests] == [("/warm", 0), ("/again", 0), ("/again", 1)]


def test_a_get_is_tried_once_more_only(start):
    origin = start.origin()
    origin.next(lambda x: x.answer())
    origin.always(reset)
    router = start.router(fast(origin))
    with Client(router.port) as client:
        assert client.ask(request("GET", "/warm")).status == 200
        problem(client.ask(request("GET", "/again")), 502)
    assert [r.target for r in origin.requests] == ["/warm", "/again", "/again"]


def test_a_kept_connection_that_legacy_closed_in_time_is_not_used(start):
    origin = start.origin()
    router = start.router(fast(origin))
    with Client(router.port) as client:
        for n in range(20):
            assert client.ask(request("POST", "/%d" % n, body=b"x")).status in (200, 502)
            origin.drop_connections()
    targets = [r.target for r in origin.requests]
    assert len(targets) == len(set(targets)), "a POST was sent twice"


# --- answers that are wrong --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n12345",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345XX5\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n0\r\n\r\n",
], ids=["length", "between-chunks", "within-chunk", "in-last-chunk", "no-crlf-after-chunk", "size-is-no-number"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_truncated_answer_never_looks_whole(router, origin, text, how):
    def script(x):
        x.send(text)
        x.reset() if how == "reset" else x.close()
    origin.always(script)
    with Client(router.port) as client:
        try:
            answer = client.ask(request())
        except Cut:
            pass
        else:
            problem(answer, 502)
    assert router.wait_outcomes(1, "result = 'failure'")


@pytest.mark.parametrize("text", [
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n123456",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad name: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * (2 << 20) + b"\r\n\r\n",
], ids=lambda text: repr(text[9:50]))
def test_what_is_not_http_is_a_bad_gateway(router, origin, text):
    def script(x):
        x.send(text)
        x.close()
    origin.always(script)
    problem(ask(router.port, request("POST", "/", body=b"{}")), 502)
    assert len(origin.requests) == 1


def test_bytes_after_an_answer_are_never_the_next_callers(start):
    """A legacy service that sends more than it announced: the rest must not become somebody else's answer."""
    origin = start.origin()
    origin.next(lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"))
    origin.always(lambda x: x.answer(200, [], b"second"))
    router = start.router(fast(origin))
    with Client(router.port) as client:
        assert client.ask(request("GET", "/1")).body == b"first"
        assert client.ask(request("GET", "/2")).body == b"second"


def test_unasked_bytes_on_a_kept_connection(start):
    origin, said = start.origin(), threading.Event()

    def script(x):
        x.answer(200, [], b"first")
        x.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        said.set()
    origin.next(script)
    origin.always(lambda x: x.answer(200, [], b"second"))
    router = start.router(fast(origin))
    with Client(router.port) as client:
        assert client.ask(request("GET", "/1")).body == b"first"
        assert said.wait(30)
        assert client.ask(request("POST", "/2", body=b"x")).status in (200, 502)
        assert client.ask(request("GET", "/3")).body == b"second"


# --- early answers -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("close", [True, False], ids=["closing", "keeping"])
def test_an_answer_before_the_body_was_read(router, origin, close):
    @early
    def script(x):
        x.answer(413, [("Connection", "close")] if close else [], b"too large")
        if close:
            x.sock.shutdown(socket.SHUT_WR)
            x.wait_gone()
        else:
            x.read_body()
    origin.always(script)
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Content-Length", str(8 << 20))]))
        piece = b"p" * 65536

        def feed():
            try:
                for _ in range(128):
                    client.send(piece)
            except OSError:
                pass  # the router may close once it has answered
        feeding = threading.Thread(target=feed)
        feeding.start()
        answer = client.read("POST")
        feeding.join(30)
    assert (answer.status, answer.body) == (413, b"too large")
    assert len(origin.requests) == 1


def test_other_requests_are_served_while_legacy_hangs(start):
    origin, release = start.origin(), threading.Event()
    origin.always(lambda x: hold(release)(x) if x.request.target == "/slow" else x.answer(200, [], b"fast"))
    router = start.router(fast(origin))
    with Client(router.port) as slow:
        slow.send(request("GET", "/slow"))
        origin.wait_requests(1)
        for _ in range(20):
            assert ask(router.port, request("GET", "/fast")).body == b"fast"
        release.set()
        assert slow.read().status == 200


def test_legacy_over_tls_with_its_own_authority(start, tls):
    origin = start.tls_origin(tls)
    config = configuration.passing("https://localhost:%d" % origin.port)
    config["services"]["echo"]["legacy"]["ca_file"] = tls.authority
    router = start.router(config)
    for n in range(3):
        answer = ask(router.port, request("POST", "/%d" % n, body=b"z" * 200000))
        assert (answer.status, answer.body) == (200, b"ok")
    assert [r.length for r in origin.requests] == [200000] * 3


def test_legacy_with_a_certificate_that_is_not_trusted(start, tls):
    origin = start.tls_origin(tls)
    router = start.router(configuration.passing("https://localhost:%d" % origin.port))
    problem(ask(router.port, request()), 502)
    assert origin.requests == []
