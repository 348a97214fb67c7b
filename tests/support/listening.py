"""An HTTP server for tests: a thread per connection, and gone for a while on command.

    class Hello(Answering):
        def respond(self): self.answer(200, "hello", "text/plain")
    server = Listening(Hello); server.url; server.stop(); server.start()            # the second time on the same port
"""
import socket
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listening:
    def __init__(self, handler, tls=None):
        """`handler`: a subclass of Answering, whose `owner` this becomes. `tls`: an SSLContext, or None."""
        self.handler, self.tls, self.port = type("Bound", (handler,), {"owner": self}), tls, 0
        self.start()

    def start(self):
        """Listens, again on the same port after stop()."""
        self.closing = False
        self.socks = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.request_queue_size = 128
        self.server.server_bind()
        self.server.server_activate()
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = "%s://localhost:%d" % ("https" if self.tls else "http", self.port)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self):
        """Refuses connections, and cuts those there are."""
        if self.closing:
            return
        self.closing = True
        self.server.shutdown()
        self.server.server_close()
        self.drop()
        self.thread.join()

    def drop(self):
        for sock in list(self.socks):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Answering(BaseHTTPRequestHandler):
    """One connection. `respond` answers the request in command, path (as sent), url (parsed), headers and data."""
    protocol_version = "HTTP/1.1"
    owner = None

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.owner.socks.add(self.connection)

    def finish(self):
        self.owner.socks.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the peer, stop() or drop() closed the connection

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.url = urllib.parse.urlsplit(self.path)
        self.respond()

    do_PUT = do_POST = do_DELETE = do_GET

    def respond(self):
        raise NotImplementedError

    def answer(self, status, text, kind="application/json", fields=()):
        data = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if status != 304:
            self.wfile.write(data)

    def begin_chunks(self, status=200, fields=()):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, text):
        """A piece of an answer in chunks; an empty one ends it."""
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def peer_is_gone(self):
        try:
            return not self.owner.tls and self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


__all__ = ["Listening", "Answering"]
