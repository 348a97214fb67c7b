"""The drop-in endpoint: what the legacy service receives and what the caller receives, byte for byte (design, rule 6)."""
import gzip
import re
import threading

import pytest

import configuration
from http_text import chunked
from origin import early
from raw import Client, ask, request

# Where these stand may change, and Via and X-Request-ID are added (README, "Known differences").
MOVABLE = {"host", "content-length", "transfer-encoding", "connection", "via", "x-request-id", "date"}


def kept(fields):
    return [(n, v) for n, v in fields if n.lower() not in MOVABLE]


# --- request -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("target", [
    "/", "/a//b/../c/./d", "/%7e%41%2F%2f?x=%20+%zz&&y=1&x=2", "/path?a?b=c", "/a?", "/;p=1;q/x:y@z!$&'()*,~", "/a#b",
    "/\xc3\xbc\xff", "/" + "long/" * 1600, "/?" + "q" * 6000, "//double", "/a%00b%0d%0a",
])
def test_raw_target_reaches_legacy_unchanged(router, origin, target):
    assert ask(router.port, request("GET", target)).status == 200
    assert origin.request.target == target


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH", "get", "X"])
def test_any_method(router, origin, method):
    assert ask(router.port, request(method, "/m"), method).status == 200
    assert origin.request.method == method


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "GET", "QUERY"])
def test_any_method_may_have_a_body(router, origin, method):
    assert ask(router.port, request(method, "/m", body=b"some bytes")).status == 200
    assert origin.wait_requests(1, complete=True)[0].body == b"some bytes"


def test_options_asterisk(router, origin):
    assert ask(router.port, request("OPTIONS", "*")).status == 200
    assert origin.request.target == "*"


def test_request_fields_keep_names_values_order_and_duplicates(router, origin):
    fields = [("X-A", "1"), ("x-a", "2"), ("COOKIE", "a=b; c=d"), ("Accept", "*/*"), ("X-A", "3, 4"), ("Cookie", "e"),
              ("Authorization", "Bearer t0ken"), ("X-High", "gr\xfc\xdfe"), ("User-Agent", "x/1 (y; z)"), ("X-Empty", ""),
              ("Accept-Encoding", "gzip, deflate"), ("x!#$%&'*+-.^_`|~9", "token")]
    assert ask(router.port, request("GET", "/", fields)).status == 200
    assert kept(origin.request.head.fields) == fields


def test_host_is_the_callers(router, origin):
    ask(router.port, request("GET", "/", host="prompt.internal:3003"))
    assert origin.request.head.all("Host") == ["prompt.internal:3003"]


def test_many_fields(router, origin):
    fields = [("X-Number-%d" % n, "v" * (n % 50)) for n in range(100)]
    assert ask(router.port, request("GET", "/", fields)).status == 200
    assert kept(origin.request.head.fields) == fields


# --- answer ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [200, 201, 202, 206, 299, 300, 301, 302, 307, 400, 401, 403, 404, 409, 418, 422, 429, 451,
                                    500, 501, 502, 503, 504, 599])
def test_status_and_error_bodies_are_legacys(router, origin, status):
    origin.answers(status, [("Content-Type", "application/json"), ("X-Legacy", "yes")], b'{"error": "it\'s legacy\'s"}')
    answer = ask(router.port, request("POST", "/", body=b"{}"))
    assert (answer.status, answer.body) == (status, b'{"error": "it\'s legacy\'s"}')
    assert answer.all("X-Legacy") == ["yes"]


def test_answer_fields_keep_names_values_order_and_duplicates(router, origin):
    fields = [("Set-Cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("Server", "gunicorn"), ("X-B", "x, y"), ("ETag", '"q"'),
              ("Set-Cookie", "c=3"), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"), ("X-High", "\xe9"),
              ("WWW-Authenticate", 'Basic realm="a, b"'), ("Location", "http://127.0.0.1:5002/x?y=%20")]
    origin.answers(200, [("Date", "Tue, 15 Nov 1994 08:12:31 GMT")] + fields, b"x")
    answer = ask(router.port, request())
    assert kept(answer.fields) == fields
    assert answer.all("Date") == ["Tue, 15 Nov 1994 08:12:31 GMT"]


def test_gzip_is_not_touched(router, origin):
    packed = gzip.compress(b"text " * 1000, mtime=0)
    origin.answers(200, [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], packed)
    answer = ask(router.port, request("GET", "/", [("Accept-Encoding", "gzip")]))
    assert answer.body == packed
    assert answer.all("Content-Encoding") == ["gzip"]


@pytest.mark.parametrize("fields", [[("Content-Length", "1234")], [], [("Content-Length", "0")]], ids=["length", "none", "zero"])
def test_head(router, origin, fields):
    origin.always(lambda x: x.send(b"HTTP/1.1 200 OK\r\nX: y\r\n" + b"".join(b"%s: %s\r\n" % (n.encode(), v.encode())
                                                                          for n, v in fields) + b"\r\n"))
    with Client(router.port) as client:
        answer = client.ask(request("HEAD", "/"))
        assert answer.status == 200
        assert answer.all("Content-Length") == [v for _, v in fields]
        for _ in range(3):  # the connection is kept, with nothing but the next answer behind
            assert answer.all("Connection") == []
            answer = client.ask(request("HEAD", "/"))
            assert (answer.status, answer.all("Content-Length")) == (200, [v for _, v in fields])
        origin.answers(200, [], b"next")
        assert client.ask(request()).body == b"next"


@pytest.mark.parametrize("status, fields", [
    (204, ""), (204, "ETag: \"a\"\r\n"), (304, ""), (304, "ETag: \"a\"\r\n"), (304, "Content-Length: 77\r\n"),
], ids=["204", "204-etag", "304", "304-etag", "304-length"])
def test_answers_without_a_body(router, origin, status, fields):
    origin.always(lambda x: x.send(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, fields.encode())))
    with Client(router.port) as client:
        answer = client.ask(request())
        assert (answer.status, answer.body) == (status, b"")
        assert answer.all("ETag") == (['"a"'] if "ETag" in fields else [])
        # A length that is told must be true (RFC 9110 §8.6): legacy's or none, never one made up.
        assert answer.all("Content-Length") in ([], ["77"] if "77" in fields else [])
        for _ in range(3):
            assert answer.all("Connection") == []
            answer = client.ask(request())
            assert (answer.status, answer.body) == (status, b"")
        origin.answers(200, [], b"next")
        assert client.ask(request("POST", "/", body=b"x" * 100000)).body == b"next"


# --- bodies ------------------------------------------------------------------------------------------------------------

SIZES = [0, 1, 100, 16383, 16384, 16385, 65536, 1 << 20, (5 << 20) + 3]


def pattern(n):
    return (b"0123456789abcdef" * (n // 16 + 1))[:n]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_request_bodies(router, origin, size, framing):
    body = pattern(size)
    if framing == "length":
        answer = ask(router.port, request("POST", "/up", body=body))
    else:
        pieces = [body[i:i + 70000] for i in range(0, size, 70000)]
        head = request("POST", "/up", [("Transfer-Encoding", "chunked")])
        answer = ask(router.port, head + chunked(*pieces))
    assert answer.status == 200
    got = origin.wait_requests(1, complete=True)[0]
    assert got.length == size and got.body == body[:len(got.body)]
    assert got.head.chunked == (framing == "chunked")
    assert (got.head.length is not None) == (framing == "length")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked", "close", "http1.0"])
def test_answer_bodies(router, origin, size, framing):
    body = pattern(size)

    def script(x):
        if framing == "length":
            x.answer(200, [], body)
        elif framing == "chunked":
            x.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            x.send(chunked(*[body[i:i + 9999] for i in range(0, size, 9999)]))
        else:
            x.send(b"HTTP/1.%d 200 OK\r\nConnection: close\r\n\r\n" % (framing == "close") + body)
            x.close()
    origin.always(script)
    answer = ask(router.port, request())
    assert answer.body == body
    if framing == "length":
        assert answer.all("Content-Length") == [str(size)]
    else:
        assert answer.head.chunked


@pytest.mark.parametrize("length", ["0", None], ids=["zero", "none"])
def test_post_without_a_body(router, origin, length):
    assert ask(router.port, request("POST", "/", [("Content-Length", length)] if length else [])).status == 200
    got = origin.request
    assert got.head.all("Content-Length") == ([length] if length else [])
    assert got.head.all("Transfer-Encoding") == []


def test_an_answer_is_passed_on_piece_by_piece(router, origin):
    """Server-sent events and progress lines: a piece does not wait for the next."""
    go = threading.Event()

    def script(x):
        x.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go.wait(30)
        x.send(b"6\r\nsecond\r\n0\r\n\r\n")
    origin.always(script)
    with Client(router.port) as client:
        client.send(request())
        head = client.read_head()
        chunks = client.reader.chunks()
        got = b""
        while got != b"first":
            got += next(chunks)
        go.set()
        assert b"".join(chunks) == b"second"
        assert head.get("Content-Type") == "text/event-stream"


# --- fields that belong to one hop, and those that are added -----------------------------------------------------------

def test_hop_by_hop_fields_do_not_pass_upwards(router, origin):
    fields = [("Connection", "close, X-Private , x-other"), ("X-Private", "1"), ("X-Other", "2"), ("Keep-Alive", "timeout=5"),
              ("Proxy-Connection", "keep-alive"), ("TE", "trailers"), ("Upgrade", "h2c"), ("X-Stays", "3")]
    assert ask(router.port, request("GET", "/", fields)).status == 200
    names = [n.lower() for n in origin.request.head.names()]
    assert not {"x-private", "x-other", "keep-alive", "proxy-connection", "te", "upgrade"} & set(names)
    assert "x-stays" in names
    assert "x-private" not in (origin.request.head.get("Connection") or "").lower()


def test_hop_by_hop_fields_do_not_pass_downwards(router, origin):
    origin.always(lambda x: x.answer(200, [("Connection", "X-Secret, keep-alive"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"),
                                           ("Proxy-Connection", "x"), ("X-Stays", "2")], b"b"))
    answer = ask(router.port, request())
    names = {n.lower() for n in answer.names()}
    assert not {"x-secret", "keep-alive", "proxy-connection"} & names
    assert "x-stays" in names and answer.body == b"b"


def test_a_connection_field_cannot_take_away_what_frames_the_message(router, origin):
    answer = ask(router.port, request("POST", "/", [("Connection", "Content-Length, Host")], body=b"12345"))
    assert answer.status == 200
    got = origin.wait_requests(1, complete=True)[0]
    assert got.body == b"12345" and got.head.all("Host") == ["service.test"]


def test_via_is_added_behind_those_that_are_there(router, origin):
    origin.answers(200, [("Via", "1.0 legacy-proxy")], b"")
    answer = ask(router.port, request("GET", "/", [("Via", "1.0 front")]))
    for head, first in ((origin.request.head, "1.0 front"), (answer.head, "1.0 legacy-proxy")):
        assert re.fullmatch(re.escape(first) + r", 1\.1 migration-router( .*)?", ", ".join(head.all("Via")))


def test_a_request_that_comes_round_again_is_noticed(router, origin):
    ask(router.port, request())
    ours = origin.request.head.get("Via")
    answer = ask(router.port, request("GET", "/", [("Via", ours)]))
    assert answer.status == 508
    assert answer.get("Content-Type") == "application/problem+json"
    assert len(origin.requests) == 1


def test_request_id_is_passed_on(router, origin):
    answer = ask(router.port, request("GET", "/", [("X-Request-ID", "abc-123")]))
    assert answer.status == 200
    assert origin.request.head.all("X-Request-ID") == ["abc-123"]


def test_request_id_is_made_when_absent(router, origin):
    for _ in range(2):
        ask(router.port, request())
    first, second = (r.head.all("X-Request-ID") for r in origin.wait_requests(2))
    assert len(first) == len(second) == 1 and first != second
    assert re.fullmatch(r"[0-9A-Za-z-]{16,64}", first[0])


def test_traceparent_is_passed_on(router, origin):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ask(router.port, request("GET", "/", [("traceparent", trace), ("tracestate", "a=b")]))
    assert origin.request.head.all("traceparent") == [trace] and origin.request.head.all("tracestate") == ["a=b"]


# --- 100-continue ------------------------------------------------------------------------------------------------------

def test_expectation_is_forwarded_and_answered_by_legacy(router, origin):
    @early
    def script(x):
        assert x.request.head.get("Expect").lower() == "100-continue"
        x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        x.read_body()
        x.answer(200, [], b"got it")
    origin.always(script)
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")]))
        assert client.read_head().first.split(" ")[1] == "100"
        client.send(b"12345")
        assert client.read("POST").body == b"got it"
    assert origin.wait_requests(1, complete=True)[0].body == b"12345"


def test_legacy_may_refuse_before_the_body_is_sent(router, origin):
    @early
    def script(x):
        x.answer(417, [("Connection", "close")], b"no")
        x.close()
    origin.always(script)
    with Client(router.port) as client:
        client.send(request("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")]))
        answer = client.read("POST")
        assert (answer.status, answer.body) == (417, b"no")
        assert answer.interim == []


# --- connections -------------------------------------------------------------------------------------------------------

def test_connections_are_kept_on_both_sides(start):
    origin = start.origin()
    config = configuration.passing(origin)
    config["threads"] = 1
    router = start.router(config)
    with Client(router.port) as client:
        for n in range(5):
            assert client.ask(request("POST", "/%d" % n, body=b"x")).status == 200
    assert {r.connection for r in origin.requests} == {0}


def test_pipelined_requests_are_answered_in_order(router, origin):
    origin.always(lambda x: x.answer(200, [], x.request.target.encode()))
    with Client(router.port) as client:
        client.send(b"".join(request("GET", "/%d" % n) for n in range(5)) + request("POST", "/5", body=b"abc"))
        assert [client.read().body for _ in range(6)] == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/5"]


def test_http_1_0_caller(router, origin):
    origin.always(lambda x: x.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", b"def")))
    with Client(router.port) as client:
        client.send(b"GET /old HTTP/1.0\r\nHost: service.test\r\n\r\n")
        head = client.read_head()
        assert head.get("Transfer-Encoding") is None
        assert client.closed() == b"abcdef"


def test_interim_answers_of_legacy_are_dropped(router, origin):
    origin.always(lambda x: x.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    answer = ask(router.port, request())
    assert (answer.status, answer.body, answer.interim) == (200, b"ok", [])


@pytest.mark.parametrize("head", [b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n"])
def test_connect_is_refused(router, origin, head):
    with Client(router.port) as client:
        client.send(head)
        assert int(client.read_head().first.split(" ")[1]) in (400, 405, 501)
    assert origin.requests == []


# --- large -------------------------------------------------------------------------------------------------------------

@pytest.mark.heavy
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_hundred_megabytes_pass_with_bounded_memory(router, origin, way):
    size, piece = 100 << 20, pattern(1 << 20)
    before = router.memory()
    if way == "up":
        with Client(router.port) as client:
            client.send(request("PUT", "/big", [("Content-Length", str(size))]))
            for _ in range(size >> 20):
                client.send(piece)
            assert client.read("PUT").status == 200
        assert origin.wait_requests(1, complete=True)[0].length == size
    else:
        def script(x):
            x.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size >> 20):
                x.send(piece)
        origin.always(script)
        with Client(router.port) as client:
            client.send(request())
            head = client.read_head()
            assert sum(len(p) for p in client.reader.pieces(head.length)) == size
    assert router.memory() - before < 16 << 20
