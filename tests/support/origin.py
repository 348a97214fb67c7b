"""A legacy service that follows a script, on raw sockets.

    origin.answers(200, [("Content-Type", "text/plain")], b"hello")      the same for every request from now on
    origin.next(reset)                                                   once, before that
    origin.next(lambda x: x.send(b"HTTP/1.1 200 OK\\r\\n…"))              anything

Every request is recorded byte for byte in `origin.requests` when its head has come; `body` follows. A script is a function of
the Exchange; by default the body is read before it runs (`early` marks the scripts that do not want that).
"""
import contextlib
import hashlib
import socket
import threading

from http_text import PATIENCE, Cut, Head, Reader, reset as reset_socket, wait_until

KEEP = 1 << 20  # bytes of a body that are kept; of longer ones only length and SHA-256


class Request:
    def __init__(self, head: Head, connection):
        self.head = head
        self.method, self.target, self.version = head.first.split(" ", 1)[0], \
            head.first.split(" ", 1)[1].rsplit(" ", 1)[0], head.first.rsplit(" ", 1)[1]
        self.connection = connection  # number of the connection, from 0
        self.body = b""
        self.length = 0
        self.sha256 = None
        self.complete = False  # the whole body has come
        self.gone = threading.Event()  # the router closed or reset the connection before the answer was complete


class Exchange:
    def __init__(self, origin, sock, reader, request):
        self.origin, self.sock, self.reader, self.request = origin, sock, reader, request
        self.keep = True

    def read_body(self):
        r, head = self.request, self.request.head
        if r.complete:
            return r.body
        digest, kept = hashlib.sha256(), bytearray()
        pieces = self.reader.chunks() if head.chunked else self.reader.pieces(head.length or 0)
        for piece in pieces:
            digest.update(piece)
            r.length += len(piece)
            if len(kept) < KEEP:
                kept += piece
        r.body, r.sha256, r.complete = bytes(kept[:KEEP]), digest.hexdigest(), True
        self.origin.noticed()
        return r.body

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, status=200, fields=(), body=b"", reason="Whatever"):
        head = "HTTP/1.1 %d %s\r\n" % (status, reason) + "".join("%s: %s\r\n" % f for f in fields)
        names = [n.lower() for n, _ in fields]
        if "content-length" not in names and "transfer-encoding" not in names and status not in (204, 304):
            head += "Content-Length: %d\r\n" % len(body)
        self.send(head.encode("latin-1") + b"\r\n" + (b"" if self.request.method == "HEAD" else body))

    def close(self):
        self.keep = False

    def reset(self):
        self.keep = False
        reset_socket(self.sock)

    def wait_gone(self, patience=PATIENCE):
        """Waits until the router has closed or reset this connection."""
        self.sock.settimeout(patience)
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        self.request.gone.set()
        self.keep = False


def early(script):
    """Marks a script that runs as soon as the head has come."""
    script.early = True
    return script


def answer_ok(x):
    x.answer(200, [("Content-Type", "text/plain")], b"ok")


class Origin:
    def __init__(self, host="127.0.0.1", port=0, tls=None):
        self.tls = tls  # an ssl.SSLContext
        self.requests = []
        self.connections = 0
        self.closing = False
        self.changed = threading.Condition()
        self.upcoming = []
        self.default = answer_ok
        self.socks = set()
        self.listener = socket.create_server((host, port), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = "http://%s:%d" % (host, self.port)
        threading.Thread(target=self._accept, daemon=True).start()

    # --- the script ---

    def always(self, script):
        self.default = script

    def answers(self, status=200, fields=(), body=b"", reason="Whatever"):
        self.default = lambda x: x.answer(status, fields, body, reason)

    def next(self, *scripts):
        with self.changed:
            self.upcoming.extend(scripts)

    def clear(self):
        """Forgets what came and what was scripted, for the next test; kept connections are closed."""
        self.drop_connections()
        with self.changed:
            self.requests, self.upcoming, self.default = [], [], answer_ok

    # --- what came ---

    def noticed(self):
        with self.changed:
            self.changed.notify_all()

    def wait_requests(self, n=1, complete=False, patience=PATIENCE):
        """The first n requests, once they have come."""
        def there():
            return sum(1 for r in self.requests if r.complete or not complete) >= n
        with self.changed:
            assert self.changed.wait_for(there, patience), "%d of %d requests reached the origin" % (len(self.requests), n)
            return self.requests[:n]

    @property
    def request(self):
        return self.wait_requests(1)[-1]

    def drop_connections(self):
        """Closes every connection, kept ones too, as a restart would."""
        with self.changed:
            socks, self.socks = self.socks, set()
        for sock in socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.closing = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # or the thread that accepts would keep it open
        self.listener.close()
        self.drop_connections()

    # --- inside ---

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                number, self.connections = self.connections, self.connections + 1
                self.socks.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            reader = Reader(sock)
            while self._serve_one(sock, reader, number):
                pass
        except (OSError, ValueError, AssertionError):
            pass
        finally:
            with self.changed:
                self.socks.discard(sock)
            try:
                sock.close()
            except OSError:
                pass

    def _serve_one(self, sock, reader, number):
        try:
            head = reader.head()
        except Cut:
            return False
        request = Request(head, number)
        with self.changed:
            self.requests.append(request)
            script = self.upcoming.pop(0) if self.upcoming else self.default
            self.changed.notify_all()
        exchange = Exchange(self, sock, reader, request)
        try:
            if not getattr(script, "early", False):
                if head.get("Expect", "").lower() == "100-continue":
                    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                exchange.read_body()
            script(exchange)
        except (Cut, OSError):
            request.gone.set()
            self.noticed()
            return False
        return exchange.keep


# --- scripts that several tests share ---

def reset(x):
    x.reset()


def close_silently(x):
    x.close()


def hold(event, then=lambda x: x.answer()):
    """Answers only once the event is set."""
    def script(x):
        assert event.wait(PATIENCE)
        then(x)
    return script


@early
def wait_for_the_end(x):
    """Never answers; notices when the router goes away."""
    x.wait_gone()


__all__ = ["Origin", "Exchange", "Request", "early", "reset", "close_silently", "hold", "wait_for_the_end", "wait_until"]
