"""Callers that go away, are slow, or do half of what they began."""
import threading
import time

import pytest

import configuration
from http_text import Cut, wait_until
from origin import early, hold, wait_for_the_end
from raw import Client, ask, request


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_gone_while_legacy_works(router, origin, leave):
    origin.always(wait_for_the_end)
    client = Client(router.port)
    client.send(request("POST", "/", body=b"x"))
    got = origin.wait_requests(1)[0]
    getattr(client, leave)()
    assert got.gone.wait(30), "the request at legacy was not ended"
    assert router.wait_outcomes(1, "result = 'cancelled'")


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_gone_in_the_middle_of_the_body(router, origin, leave):
    client = Client(router.port)
    client.send(request("POST", "/half", [("Content-Length", "1000")]) + b"x" * 500)
    got = origin.wait_requests(1)[0]
    getattr(client, leave)()
    assert got.gone.wait(30), "legacy still waits for the rest"
    assert not got.complete


def test_gone_in_the_middle_of_a_chunked_body(router, origin):
    client = Client(router.port)
    client.send(request("POST", "/half", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n")
    got = origin.wait_requests(1)[0]
    client.close()
    assert got.gone.wait(30)
    assert not got.complete, "an aborted body must not look complete to legacy"


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_gone_while_the_answer_streams(router, origin, leave):
    def script(x):
        x.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            x.send(b"4000\r\n" + b"z" * 0x4000 + b"\r\n")
    origin.always(script)
    client = Client(router.port)
    client.send(request())
    client.read_head()
    got = origin.wait_requests(1)[0]
    getattr(client, leave)()
    assert got.gone.wait(30), "legacy still sends"


@pytest.mark.parametrize("stage", [b"", b"G", b"GET / HT", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_gone_before_the_head_is_complete(router, origin, stage, leave):
    client = Client(router.port)
    client.send(stage)
    getattr(client, leave)()
    assert ask(router.port, request("GET", "/after")).status == 200
    assert [r.target for r in origin.requests] == ["/after"]


def test_a_half_close_alone_is_no_end_where_configured_so(start):
    origin, go = start.origin(), threading.Event()
    origin.always(hold(go, lambda x: x.answer(200, [], b"served")))
    router = start.router(configuration.passing(origin, client={"half_close_is_gone": False}))
    with Client(router.port) as client:
        client.send(request("GET", "/"))
        origin.wait_requests(1)
        client.half_close()
        go.set()
        assert client.read().body == b"served"


def test_a_half_close_alone_is_an_end_where_configured_so(start):
    origin = start.origin()
    origin.always(wait_for_the_end)
    router = start.router(configuration.passing(origin, client={"half_close_is_gone": True}))
    with Client(router.port) as client:
        client.send(request("GET", "/"))
        got = origin.wait_requests(1)[0]
        client.half_close()
        assert got.gone.wait(30)


def test_many_callers_come_and_go(start):
    """Nothing is left over: descriptors are as many as before."""
    origin = start.origin()
    router = start.router(configuration.passing(origin))
    assert ask(router.port, request()).status == 200
    before = router.descriptors()
    for n in range(150):
        client = Client(router.port)
        client.send(request("POST", "/%d" % n, [("Content-Length", "10")])[:20 + n % 100] + b"12345"[:n % 6])
        client.reset() if n % 2 else client.close()
    origin.drop_connections()
    wait_until(lambda: router.descriptors() <= before + 4, "descriptors to come back to %d" % before)
    assert ask(router.port, request("GET", "/after")).status == 200


# --- slow --------------------------------------------------------------------------------------------------------------

def test_a_head_that_never_ends_is_given_up_and_holds_nobody(start):
    origin = start.origin()
    config = configuration.passing(origin, client={"head_timeout": "3s"})
    config["threads"] = 1
    router = start.router(config)
    slow = [Client(router.port) for _ in range(20)]
    for client in slow:
        client.send(b"GET / HTTP/1.1\r\nHost: sl")
    for _ in range(20):
        assert ask(router.port, request("GET", "/quick")).status == 200
    for client in slow:
        rest = client.closed()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408")
        client.close()
    assert {r.target for r in origin.requests} == {"/quick"}


def test_an_idle_kept_connection_is_closed(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin, client={"idle_timeout": "500ms"}))
    with Client(router.port) as client:
        assert client.ask(request()).status == 200
        assert client.closed() == b""


def test_a_body_that_stalls_is_given_up(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin, client={"idle_timeout": "500ms"}, legacy={"idle_timeout": "500ms"}))
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Content-Length", "1000")]) + b"x")
        got = origin.wait_requests(1)[0]
        rest = client.closed()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408") or rest.startswith(b"HTTP/1.1 504")
    assert got.gone.wait(30)
    assert not got.complete


def test_a_slow_reader_holds_legacy_back_and_nobody_else(start):
    """Back-pressure downwards: what legacy can push is bounded while the caller does not read."""
    origin, sent = start.origin(), [0]
    total = 200 << 20

    def script(x):
        if x.request.target == "/quick":
            return x.answer(200, [], b"quick")
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            x.send(b"z" * 65536)
            sent[0] += 65536
    origin.always(script)
    config = configuration.passing(origin)
    config["threads"] = 1
    router = start.router(config)
    with Client(router.port) as slow:
        slow.send(request("GET", "/endless"))
        slow.read_head()
        before = wait_until_it_stands(lambda: sent[0])
        assert before < 64 << 20, "legacy could push %d bytes at a caller that reads nothing" % before
        assert router.memory() < 400 << 20
        for _ in range(20):
            assert ask(router.port, request("GET", "/quick")).body == b"quick"


def test_legacy_that_does_not_read_holds_the_caller_back(start):
    """Back-pressure upwards."""
    origin, done = start.origin(), threading.Event()

    @early
    def script(x):
        assert done.wait(60)
        x.read_body()
        x.answer(200, [], b"at last")
    origin.always(script)
    router = start.router(configuration.passing(origin))
    memory, sent, total = router.memory(), [0], 64 << 20
    with Client(router.port) as client:
        client.send(request("PUT", "/", [("Content-Length", str(total))]))

        def feed():
            for _ in range(total >> 16):
                client.send(b"p" * 65536)
                sent[0] += 65536
        feeding = threading.Thread(target=feed, daemon=True)
        feeding.start()
        assert wait_until_it_stands(lambda: sent[0]) < 40 << 20
        assert router.memory() - memory < 16 << 20
        done.set()
        feeding.join(60)
        assert client.read("PUT").body == b"at last"
    assert origin.requests[0].length == total


def wait_until_it_stands(value):
    """The value once it has not changed for half a second (the only way to see that nothing moves)."""
    deadline = time.monotonic() + 30
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, "it never stood still: %r" % last
        time.sleep(0.02)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


def test_a_cut_answer_is_told_by_cutting_the_connection(router, origin):
    def script(x):
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        x.close()
    origin.always(script)
    with Client(router.port) as client, pytest.raises(Cut):
        client.ask(request())
