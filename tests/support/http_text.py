"""HTTP/1.1 messages as bytes, for both ends of a test: nothing is tidied up, so that a test can see every byte."""
import socket
import time

PATIENCE = 60.0  # seconds: the deadline of anything that should happen; reached only when a test fails


class Cut(Exception):
    """The peer closed or reset before the message was complete. `got` is what had come."""

    def __init__(self, got, how):
        super().__init__("%s after %r" % (how, bytes(got[-200:])))
        self.got = bytes(got)
        self.how = how


class Head:
    """First line and fields of a message, with its exact bytes."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw[:-4].split(b"\r\n")
        self.first = lines[0].decode("latin-1")
        self.fields = [tuple(part.decode("latin-1") for part in (n, v[1:] if v[:1] == b" " else v))
                       for n, _, v in (line.partition(b":") for line in lines[1:])]

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def names(self):
        return [n for n, _ in self.fields]

    @property
    def chunked(self):
        return (self.get("Transfer-Encoding") or "").lower() == "chunked"

    @property
    def length(self):
        return int(self.get("Content-Length")) if self.get("Content-Length") is not None else None


class Reader:
    """Reads messages from a socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray()

    def fill(self):
        """One piece more; False at the end of the stream. A reset counts as an end that `Cut.how` tells apart."""
        piece = self.sock.recv(1 << 18)
        self.buffer += piece
        return bool(piece)

    def fill_or_cut(self):
        try:
            more = self.fill()
        except ConnectionError as why:
            raise Cut(self.buffer, type(why).__name__) from None
        if not more:
            raise Cut(self.buffer, "end of stream")

    def until(self, mark):
        at = self.buffer.find(mark)
        while at < 0:
            seen = max(0, len(self.buffer) - len(mark) + 1)
            self.fill_or_cut()
            at = self.buffer.find(mark, seen)
        return self.take(at + len(mark))

    def take(self, n):
        while len(self.buffer) < n:
            self.fill_or_cut()
        out = bytes(self.buffer[:n])
        del self.buffer[:n]
        return out

    def head(self):
        return Head(self.until(b"\r\n\r\n"))

    def pieces(self, n):
        """n bytes in pieces as they come, without keeping them."""
        while n:
            if not self.buffer:
                self.fill_or_cut()
            piece = self.take(min(n, len(self.buffer)))
            n -= len(piece)
            yield piece

    def chunks(self):
        while True:
            line = self.until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while self.until(b"\r\n") != b"\r\n":
                    pass  # trailers
                return
            yield from self.pieces(size)
            ending = self.take(2)
            assert ending == b"\r\n", "a chunk must end with CRLF, not %r" % ending

    def rest(self):
        """Everything until the end of the stream."""
        while True:
            try:
                if not self.fill():
                    break
            except ConnectionError:
                break
        return self.take(len(self.buffer))


def chunked(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def reset(sock):
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()


def wait_until(condition, what, patience=PATIENCE):
    """Polls a condition that nothing announces, with a deadline; returns what it gave."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited %g s for: %s" % (patience, what)
        time.sleep(0.01)
