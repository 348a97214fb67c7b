"""The pages of the admin listener as programs see them: HTML, assets, streams. In a browser: test_browser.py."""
import gzip
import html.parser
import re
import signal
import socket

import configuration as c
from http_text import PATIENCE
from raw import ask, request


def page(router, path="/", *fields):
    return ask(router.admin_port, request("GET", path, list(fields)))


def stream(router):
    """An open stream, read up to its first event."""
    sock = socket.create_connection(("127.0.0.1", router.admin_port), timeout=PATIENCE)
    sock.sendall(request("GET", "/_admin/live", [("Accept", "text/event-stream")]))
    head = b""
    while b"\n\n" not in head.partition(b"\r\n\r\n")[2]:
        more = sock.recv(4096)
        assert more, head
        head += more
        if not head.startswith(b"HTTP/1.1 200"):
            break
    return sock, head


def test_the_page_needs_no_file_and_no_script(start):
    router = start.router(c.passing(start.origin()), env={"MIGRATION_DASHBOARD_DIR": "/nowhere"})
    answer = page(router)
    text = answer.body.decode()
    assert answer.status == 200 and answer.get("Content-Type") == "text/html; charset=utf-8"
    policy = answer.get("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert not re.search(r"<style|style=|\son\w+=|https?://(?!127)", text), "the policy would not let it"
    for url in re.findall(r'(?:href|src)="(/_page/[^"]+)"', text):
        plain = page(router, url)
        zipped = page(router, url, ("Accept-Encoding", "br, gzip"))
        assert plain.status == zipped.status == 200
        assert gzip.decompress(zipped.body) == plain.body and zipped.get("Content-Encoding") == "gzip"
        assert "immutable" in plain.get("Cache-Control") and plain.get("ETag") != zipped.get("ETag")
        assert page(router, url, ("If-None-Match", plain.get("ETag"))).status == 304
        assert "immutable" not in page(router, url.replace("?v=", "?v=0")[:-1]).get("Cache-Control")
    assert page(router, "/_page/nothing.css").status == 404


def test_parameters_that_are_not_understood_are_told(start):
    router = start.router(c.passing(start.origin()))
    for query in ("sinse=1h", "since=1h&since=2h", "since=yesterday", "org=%3Cscript%3E&org=1"):
        answer = page(router, "/?" + query)
        assert answer.status == 400 and b"This cannot be shown" in answer.body and b"<script>" not in answer.body


def test_streams_are_few_and_hold_up_no_end(start):
    router = start.router(c.passing(start.origin()))
    open_ones = [stream(router) for _ in range(16)]
    assert all(b"event: version\ndata: " in head for _, head in open_ones)
    refused, head = stream(router)
    assert head.startswith(b"HTTP/1.1 503 ")
    refused.close()
    assert page(router).status == 200
    assert router.stop() == 0
    for sock, _ in open_ones:
        while sock.recv(4096):
            pass
        sock.close()


def test_a_stream_says_that_there_is_something_new(start):
    router = start.router(c.passing(start.origin()))
    sock, head = stream(router)
    first = re.search(rb"data: (\w+)", head).group(1)
    assert ask(router.port, request("GET", "/x")).status == 200
    more = b""
    while b"data: " not in more:
        more += sock.recv(4096)
    assert re.search(rb"data: (\w+)", more).group(1) != first
    sock.close()


def test_a_reload_ends_streams_so_that_all_come_in_by_the_new_rules(start):
    router = start.router(c.passing(start.origin()))
    sock, _ = stream(router)
    router.signal(signal.SIGHUP)
    router.wait_event("reloaded")
    while sock.recv(4096):
        pass
    sock.close()
    again, head = stream(router)
    assert b"event: version" in head
    again.close()


class Elements(html.parser.HTMLParser):
    """What is open, what was closed in the wrong place, and all ids."""
    VOID = {"meta", "link", "input", "br", "hr", "path", "rect"}

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))


def test_pages_are_whole_whatever_strangers_send(start):
    strange = '"><script>alert(1)</script><b title=\'&'
    operation = c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, 1]}, identity=c.IDENTITY)
    router = start.router(c.router({"app": c.service(start.origin(), {"add": operation})}, backends=c.embedded(tasks=None)),
                          c.features(c.boolean("task_abstraction_enabled", False)))
    for i in range(4):
        ask(router.port, request("POST", "/add", [("X-User-Id", strange + str(i)), ("X-Organization-Id", strange), ("X-Request-Id", "r<%d>&" % i)],
                                 b'{"a": 1}'))
    router.wait_outcomes(4)
    for path in ("/", "/?since=all&org=%3C%22%26", "/errors", "/organizations", "/requests", "/requests?user=%3Ci%3E", "/differences", "/move"):
        answer = page(router, path)
        found = Elements()
        found.feed(answer.body.decode())
        assert answer.status == 200 and not found.wrong and not found.open, path
        assert b"<script>alert" not in answer.body and len(set(found.ids)) == len(found.ids), path
