"""What the sample services share: an HTTP/1.1 server with keep-alive on the standard library, JSON, errors in the old shape.

These programs stand in for the deployed Flask services, so that scripts/run has something to migrate from; they keep
to the old services' calls, answers and errors, and are no part of the product.
"""
import argparse
import gzip
import json
import os
import signal
import socket
import sys
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 512 << 20
GZIP_FROM = 1024  # bytes of an answer


class Problem(Exception):
    """An error that the caller sees as {"error", "name", "code", "payload"} with the same HTTP status."""

    def __init__(self, code, error, name=None, payload=None):
        super().__init__(error)
        self.code = code
        self.name = name or {400: "BadRequest", 401: "Unauthorized", 404: "NotFound", 405: "MethodNotAllowed",
                             413: "RequestEntityTooLarge", 415: "UnsupportedMediaType"}.get(code, "APIError")
        self.payload = payload

    def body(self):
        return {"error": str(self), "name": self.name, "code": self.code, "payload": self.payload}


class Request:
    def __init__(self, method, target, headers, body):
        self.method = method
        url = urllib.parse.urlsplit(target)
        self.path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.headers = headers
        self.body = body

    def json(self):
        try:
            value = json.loads(self.body)
        except ValueError as why:
            raise Problem(400, "The request's body is no JSON: %s" % why) from None
        if not isinstance(value, dict):
            raise Problem(400, "The request's body is no JSON object")
        return value

    def require_bearer(self):
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(401, "Platform key is missing: Authorization: Bearer <platform key>")

    def form(self):
        """Fields of a multipart/form-data or urlencoded body: {name: (filename or None, content type, bytes)}."""
        kind = self.headers.get_content_type()
        if kind == "application/x-www-form-urlencoded":
            pairs = urllib.parse.parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)
            return {name: (None, "text/plain", value.encode()) for name, value in pairs}
        boundary = self.headers.get_param("boundary")
        if kind != "multipart/form-data" or not boundary:
            raise Problem(415, "Expected multipart/form-data or a form, got %s" % kind)
        return parse_multipart(self.body, boundary.encode())


def parse_multipart(body, boundary):
    fields = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        if part.startswith(b"--"):
            return fields
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            break
        name = filename = None
        kind = "text/plain"
        for line in head.decode("utf-8", "replace").split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == "content-disposition":
                for item in value.split(";")[1:]:
                    k, _, v = item.strip().partition("=")
                    name = v.strip('"') if k == "name" else name
                    filename = v.strip('"') if k == "filename" else filename
            elif key.lower() == "content-type":
                kind = value.strip()
        if name is not None:
            fields[name] = (filename, kind, content)
    raise Problem(400, "The multipart body has no end")


def handler_for(routes, title):
    """routes: {(method, path): function(Request) -> dict | str | (content type, bytes)}"""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = title
        timeout = 75  # an idle kept connection
        disable_nagle_algorithm = True

        def serve(self):
            body = self.read_body()
            if body is None:
                return
            request = Request(self.command, self.path, self.headers, body)
            try:
                status, answer = 200, self.route(request)
            except Problem as problem:
                status, answer = problem.code, problem.body()
            except Exception as why:  # as Flask does: an error of ours is a 500 in the same shape
                status, answer = 500, Problem(500, "%s: %s" % (type(why).__name__, why), "InternalServerError").body()
            self.answer(status, answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = serve

        def route(self, request):
            method = "GET" if request.method == "HEAD" else request.method
            function = routes.get((method, request.path))
            if function is not None:
                return function(request)
            if any(path == request.path for _, path in routes):
                raise Problem(405, "The method is not allowed for the requested URL.")
            raise Problem(404, "The requested URL was not found on the server.")

        def read_body(self):
            if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
                return self.read_chunks()
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_BODY:
                self.close_connection = True
                self.answer(413, Problem(413, "The body is larger than %d bytes" % MAX_BODY).body())
                return None
            return self.rfile.read(length)

        def read_chunks(self):
            body = bytearray()
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return bytes(body)
                body += self.rfile.read(size)
                self.rfile.readline()

        def answer(self, status, answer):
            if isinstance(answer, dict):
                kind, content = "application/json", json.dumps(answer).encode() + b"\n"
            elif isinstance(answer, str):
                kind, content = "text/html; charset=utf-8", answer.encode()
            else:
                kind, content = answer
            packed = len(content) >= GZIP_FROM and "gzip" in (self.headers.get("Accept-Encoding") or "")
            if packed:
                content = gzip.compress(content, mtime=0)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("X-Request-ID", self.headers.get("X-Request-ID") or str(uuid.uuid4()))
            if packed:
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Vary", "Accept-Encoding")
            self.send_header("Content-Length", str(len(content)))
            self._headers_buffer.append(b"\r\n")
            head = b"".join(self._headers_buffer)
            self._headers_buffer = []
            self.wfile.write(head if self.command == "HEAD" else head + content)

        def log_message(self, *_):
            pass  # one line a request would drown what matters

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, socket.timeout)):
            super().handle_error(request, client_address)


def serve(routes, title):
    """Serves until SIGTERM or SIGINT; says on standard output where, once it does."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 takes a free one")
    host, _, port = parser.parse_args().listen.rpartition(":")
    server = Server((host, int(port)), handler_for(routes, title))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print("%s listens on %s:%d" % (title, host, server.server_address[1]), flush=True)
    server.serve_forever(poll_interval=0.1)
    sys.stdout.flush()
    os._exit(0)  # threads of kept connections would hold the process for their idle time
