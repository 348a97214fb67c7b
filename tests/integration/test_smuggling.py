"""Request smuggling: shapes that two servers could read differently are refused, and nothing of them reaches legacy."""
import pytest

from raw import Client, ask, request

HOST = b"Host: service.test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: service.test\r\n\r\n"


def post(fields, body=b"", line=b"POST / HTTP/1.1\r\n"):
    return line + HOST + fields + b"\r\n" + body


REFUSED = {
    "length and chunked": post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunked and length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"123456"),
    "two equal lengths": post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"12345"),
    "a list of lengths": post(b"Content-Length: 5, 5\r\n", b"12345"),
    "length with a sign": post(b"Content-Length: +5\r\n", b"12345"),
    "negative length": post(b"Content-Length: -1\r\n", b"12345"),
    "length in hexadecimal": post(b"Content-Length: 0x5\r\n", b"12345"),
    "length with a blank inside": post(b"Content-Length: 1 2\r\n", b"123456789012"),
    "empty length": post(b"Content-Length:\r\n", SMUGGLED),
    "length too large": post(b"Content-Length: 99999999999999999999\r\n", b"1"),
    "coding that is not chunked": post(b"Transfer-Encoding: identity\r\n", SMUGGLED),
    "unknown coding": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunked and another": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "coding in two fields": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    "coding in quotes": post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n" + SMUGGLED),
    "coding after a tab": post(b"Transfer-Encoding:\tchunked, x\r\n", b"0\r\n\r\n" + SMUGGLED),
    "coding with a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunked in HTTP/1.0": post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED, b"POST / HTTP/1.0\r\n"),
    "blank before the colon": post(b"Content-Length : 5\r\n", b"12345"),
    "blank before the colon of the coding": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "name that is no token": post(b"X(A): b\r\n"),
    "empty name": post(b": b\r\n"),
    "no colon": post(b"NoColon\r\n"),
    "folded line": post(b"X-A: 1\r\n two\r\n"),
    "folded line with a tab": post(b"X-A: 1\r\n\ttwo\r\n"),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "first field is folded": b"GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
    "folded into an identity": post(b"X-User\r\n -Id: admin\r\n"),
    "bare LF between fields": post(b"X-A: 1\nX-B: 2\r\n"),
    "bare LF ends the head": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\n",
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "bare CR in a value": post(b"X-A: 1\rX-B: 2\r\n"),
    "NUL in a value": post(b"X-A: 1\x002\r\n"),
    "NUL in a name": post(b"X\x00A: 1\r\n"),
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in a value": post(b"X-A: 1\x012\r\n"),
    "blank in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the target": b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two equal Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "chunk size with a sign": post(b"Transfer-Encoding: chunked\r\n", b"+5\r\n12345\r\n0\r\n\r\n"),
    "chunk size in 0x": post(b"Transfer-Encoding: chunked\r\n", b"0x5\r\n12345\r\n0\r\n\r\n"),
    "negative chunk size": post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n12345\r\n0\r\n\r\n"),
    "chunk size overflow": post(b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff1\r\n12345\r\n0\r\n\r\n"),
    "no CRLF after the chunk": post(b"Transfer-Encoding: chunked\r\n", b"5\r\n12345xx0\r\n\r\n"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "unknown version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_refused(router, origin, name, pieces):
    data = REFUSED[name]
    with Client(router.port) as client:
        try:
            for piece in [data] if pieces == "whole" else [data[i:i + 1] for i in range(len(data))]:
                client.send(piece)
        except OSError:
            pass  # refused before it was complete
        came = client.closed()
    assert came == b"" or came.split(b" ")[1][:1] in (b"4", b"5"), came
    assert came.count(b"HTTP/1.1 2") == 0, "something of it was answered: %r" % came
    # A request whose framing breaks in its body may have begun to stream; it never becomes complete, nor two.
    assert not any(r.target == "/smuggled" for r in origin.requests)
    assert not any(r.complete for r in origin.requests), [r.head.raw for r in origin.requests]
    assert ask(router.port, request("GET", "/after")).status == 200


def test_refused_on_a_kept_connection_as_well(router, origin):
    """The layout check must hold for the second request of a connection, whose head lies elsewhere in the buffer."""
    with Client(router.port) as client:
        assert client.ask(request("POST", "/first", body=b"x" * 1000)).status == 200
        client.send(REFUSED["folded into an identity"])
        assert client.read("POST").status == 400
        assert client.closed() == b""
    assert [r.target for r in origin.requests] == ["/first"]


CLEAN = {
    "blanks around a value": (post(b"X-A: \t 1 2 \t\r\n"), b""),
    "no blank after the colon": (post(b"X-A:1\r\n"), b""),
    "empty value": (post(b"X-A:\r\nX-B: \r\n"), b""),
    "empty line before the request": (b"\r\n" + post(b"Content-Length: 3\r\n", b"abc"), b"abc"),
    "chunked in capitals": (post(b"Transfer-Encoding: CHUNKED\r\n", b"3\r\nabc\r\n0\r\n\r\n"), b"abc"),
    "chunk size with zeros": (post(b"Transfer-Encoding: chunked\r\n", b"0003\r\nabc\r\n0\r\n\r\n"), b"abc"),
    "trailers": (post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"), b"abc"),
    "length with zeros": (post(b"Content-Length: 0003\r\n", b"abc"), b"abc"),
    "high bytes": (post(b"X-A: \xff\xfe\r\n"), b""),
}


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_no_false_alarm(router, origin, name, pieces):
    data, body = CLEAN[name]
    with Client(router.port) as client:
        for piece in [data] if pieces == "whole" else [data[i:i + 1] for i in range(len(data))]:
            client.send(piece)
        assert client.read("POST").status == 200
    assert origin.wait_requests(1, complete=True)[0].body == body


@pytest.mark.parametrize("size", [100, 1000, 4000, 8000, 15000, 30000])
@pytest.mark.parametrize("piece", [37, 1000, 1 << 20])
def test_clean_heads_of_any_size_and_any_pieces(router, origin, size, piece):
    fields = b"".join(b"X-%d: %s \r\n" % (i, b"v" * 140) for i in range(size // 150))
    data = post(fields + b"Content-Length: 3\r\n", b"abc")
    with Client(router.port) as client:
        for _ in range(2):
            for i in range(0, len(data), piece):
                client.send(data[i:i + piece])
            assert client.read("POST").status == 200
