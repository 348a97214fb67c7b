"""A client on a raw socket: what a test writes is what is sent, what it reads is what came."""
import socket

from http_text import PATIENCE, Cut, Reader, reset


class Response:
    def __init__(self, head, body, interim=()):
        self.head, self.body, self.interim = head, body, list(interim)
        self.status = int(head.first.split(" ")[1])
        self.reason = head.first.split(" ", 2)[2] if head.first.count(" ") > 1 else ""

    def __getattr__(self, name):  # fields, get, all, names of the head
        return getattr(self.head, name)


class Client:
    def __init__(self, port, host="127.0.0.1", patience=PATIENCE):
        self.sock = socket.create_connection((host, port), timeout=patience)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, data, method=None):
        """Sends one request and reads its answer."""
        self.send(data)
        return self.read(method or data.split(b" ", 1)[0].decode("latin-1"))

    def read(self, method="GET"):
        interim = []
        while True:
            head = self.reader.head()
            if not 100 <= int(head.first.split(" ")[1]) <= 199:
                return Response(head, self.read_body(head, method), interim)
            interim.append(head)

    def read_head(self):
        return self.reader.head()

    def read_body(self, head, method):
        status = int(head.first.split(" ")[1])
        if method == "HEAD" or status in (204, 304):
            return b""
        if head.chunked:
            return b"".join(self.reader.chunks())
        if head.length is not None:
            return self.reader.take(head.length)
        return self.reader.rest()

    def closed(self):
        """Waits for the end of the stream and returns the bytes that came before it; a reset is an end too."""
        return self.reader.rest()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)

    def close(self):
        self.sock.close()


def ask(port, data, method=None):
    """One request on a connection of its own."""
    with Client(port) as client:
        return client.ask(data, method)


def request(method="GET", target="/", fields=(), body=None, host="service.test"):
    """Bytes of an ordinary request."""
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: " + host] + ["%s: %s" % f for f in fields]
    if body is not None and not any(n.lower() == "transfer-encoding" for n, _ in fields):
        lines.append("Content-Length: %d" % len(body))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


__all__ = ["Client", "Response", "Cut", "ask", "request"]
