"""Limits: heads, bodies, connections, requests in flight."""
import contextlib
import threading

import pytest

import configuration
from http_text import Cut, chunked, wait_until
from origin import early, hold
from raw import Client, ask, request


def test_head_too_large(start):
    origin = start.origin()
    config = configuration.passing(origin)
    config["limits"] = {"max_head": 8192}
    router = start.router(config)
    assert ask(router.port, request("GET", "/", [("X-A", "y" * 6000)])).status == 200
    assert ask(router.port, request("GET", "/", [("X-A", "y" * 9000)])).status == 431
    assert ask(router.port, request("GET", "/" + "y" * 9000)).status in (414, 431)
    assert ask(router.port, request("GET", "/", [("X-%d" % n, "") for n in range(300)])).status == 431
    assert len(origin.requests) == 1


def test_a_large_answer_head_reaches_the_caller_whatever_its_request_was(start):
    """8 KB of cookies in, 12 × 1,000 bytes of Set-Cookie out, of a POST that was executed."""
    origin = start.origin()
    cookies = [("Set-Cookie", "c%d=%s" % (n, "v" * 1000)) for n in range(12)]
    origin.answers(200, cookies, b"done")
    router = start.router(configuration.passing(origin))
    answer = ask(router.port, request("POST", "/", [("Cookie", "a=" + "b" * 8000), ("X-Request-ID", "large")], body=b"{}"))
    assert (answer.status, answer.body) == (200, b"done")
    assert [f for f in answer.fields if f[0] == "Set-Cookie"] == cookies
    assert router.wait_outcomes(1, "request_id = 'large'")[0]["result"] == "success"


def test_an_answer_head_above_the_limit_is_recorded_as_what_the_caller_got(start):
    origin = start.origin()
    origin.answers(200, [("X-%d" % n, "v" * 900) for n in range(10)], b"done")
    config = configuration.passing(origin)
    config["limits"] = {"max_head": 8192}
    router = start.router(config)
    answer = ask(router.port, request("POST", "/", [("X-Request-ID", "above")], body=b"{}"))
    assert answer.status == 502 and answer.get("Content-Type") == "application/problem+json"
    row = router.wait_outcomes(1, "request_id = 'above'")[0]
    assert (row["http_status"], row["result"]) == (502, "failure")


@pytest.mark.parametrize("cookie", ['theme="', "; ".join("c%d=%d" % (n, n) for n in range(250)), '"', "=;=;,"])
def test_cookies_are_passed_on_unread(start, cookie):
    origin = start.origin()
    router = start.router(configuration.passing(origin))
    assert ask(router.port, request("GET", "/", [("Cookie", cookie)])).status == 200
    assert origin.request.head.all("Cookie") == [cookie]


@pytest.mark.heavy
@pytest.mark.parametrize("status", [401, 413])
def test_an_early_answer_to_a_large_upload_is_seen(start, status):
    """Legacy answers without reading: the caller sends all of its 100 MB and sees the status, as it would directly."""
    origin = start.origin()

    def early(exchange):
        exchange.answer(status, [("Connection", "close")], b"no")
        exchange.close()
    early.early = True
    origin.always(early)
    router = start.router(configuration.passing(origin))
    with Client(router.port) as client:
        client.send(request("POST", "/upload", [("Content-Length", str(100 << 20)), ("X-Request-ID", "early")]))
        for _ in range(100):
            client.send(b"x" * (1 << 20))
        answer = client.read("POST")
    assert (answer.status, answer.body) == (status, b"no")
    row = router.wait_outcomes(1, "request_id = 'early'")[0]
    assert (row["http_status"], row["result"], row["answered"]) == (status, "rejected", 1)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_early_answer_in_pieces_is_seen_before_the_body_is_sent(start, framing):
    """The caller sends the rest of its body only after it has seen the answer, which is 30,000 bytes in two pieces."""
    origin = start.origin()

    @early
    def script(exchange):
        if framing == "length":
            exchange.send(b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n")
            exchange.send(b"a" * 10000)
            exchange.send(b"b" * 20000)
        else:
            exchange.send(b"HTTP/1.1 413 X\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            exchange.send(b"2710\r\n" + b"a" * 10000 + b"\r\n")
            exchange.send(b"4e20\r\n" + b"b" * 20000 + b"\r\n0\r\n\r\n")
        exchange.close()
    origin.always(script)
    router = start.router(configuration.passing(origin, client={"drain_timeout": "10m"}))
    with Client(router.port) as client:
        client.send(request("POST", "/upload", [("Content-Length", "1000000"), ("X-Request-ID", "early")]) + b"x" * 10)
        answer = client.read("POST")
        assert (answer.status, answer.body) == (413, b"a" * 10000 + b"b" * 20000)
        assert answer.get("Connection") == "close"
    row = router.wait_outcomes(1, "request_id = 'early'")[0]
    assert (row["http_status"], row["result"], row["answered"]) == (413, "rejected", 1)


def test_declared_body_too_large(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin, limits={"max_body": 1000}))
    assert ask(router.port, request("POST", "/", body=b"x" * 1000)).status == 200
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Content-Length", "1001")]))
        assert client.read("POST").status == 413
    assert len(origin.requests) == 1
    assert router.wait_outcomes(1, "http_status = 413")[0]["result"] == "rejected"


def test_chunked_body_too_large(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin, limits={"max_body": 1000}))
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]) + chunked(*[b"x" * 300] * 4))
        assert client.read("POST").status == 413
    assert not any(r.complete for r in origin.requests)


def test_requests_in_flight(start):
    origin, go = start.origin(), threading.Event()
    origin.always(hold(go))
    router = start.router(configuration.passing(origin, limits={"max_in_flight": 3}))
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(Client(router.port)) for _ in range(3)]
        for client in waiting:
            client.send(request())
        origin.wait_requests(3)
        refused = ask(router.port, request("POST", "/", body=b"x"))
        assert refused.status == 503 and int(refused.get("Retry-After")) > 0
        go.set()
        assert [c.read().status for c in waiting] == [200, 200, 200]
    assert ask(router.port, request()).status == 200
    assert len(origin.requests) == 4


def test_connections(start):
    origin = start.origin()
    config = configuration.passing(origin, limits={"max_connections": 10})
    config["threads"] = 1
    router = start.router(config)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Client(router.port)) for _ in range(10)]
        for client in kept:
            assert client.ask(request()).status == 200
        with Client(router.port) as one_more:
            one_more.send(request())
            try:
                answer = one_more.read()
                assert answer.status == 503 and int(answer.get("Retry-After")) > 0
                assert one_more.closed() == b""
            except Cut:
                pytest.fail("the connection above the limit was closed without a 503")
        assert kept[0].ask(request()).status == 200
    # once the others are gone there is room again
    wait_until(lambda: ask(router.port, request()).status == 200, "room for a new connection")
