"""The way to the legacy services: loops, addresses, what legacy sees of a request, what is said of its failures."""
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import configuration
from http_text import wait_until
from origin import wait_for_the_end
from programs import free_port, program
from raw import Client, ask, request


# --- loops -------------------------------------------------------------------------------------------------------------

def passing_on(port, dropped=("host", "content-length", "connection")):
    """A service that calls another one with its caller's fields, and answers as that does."""
    def script(x):
        fields = [(n, v) for n, v in x.request.head.fields if n.lower() not in dropped]
        answer = ask(port() if callable(port) else port, request(x.request.method, x.request.target, fields))
        x.answer(answer.status, [], answer.body)
    return script


def test_a_service_may_call_the_next_with_its_callers_fields(start):
    """A and B, each behind the product: on two routers, and on one."""
    a, b = start.origin(), start.origin()
    second = start.router(configuration.passing(b))
    first = start.router(configuration.passing(a))
    a.always(passing_on(second.port))
    assert ask(first.port, request()).status == 200
    one = start.router(configuration.router({"a": configuration.service(a), "b": configuration.service(b)}))
    a.always(passing_on(one.ports["b"]))
    assert ask(one.ports["a"], request()).status == 200
    assert len(b.requests) == 2


@pytest.mark.parametrize("via", (True, False))
def test_a_loop_ends_after_a_few_requests(start, via):
    """Over one router, over two, and where somebody drops the comments of Via."""
    middle, front = start.origin(), start.origin()
    legacy = {"via": via}
    one = start.router(configuration.passing(middle, legacy=legacy))
    middle.always(passing_on(one.port))
    assert ask(one.port, request()).status == 508
    assert len(middle.requests) == 1
    middle.clear()
    two = start.router(configuration.passing(front, legacy=legacy))
    middle.always(passing_on(two.port))
    front.always(passing_on(one.port))
    assert ask(one.port, request()).status == 508
    assert (len(middle.requests), len(front.requests)) == (1, 1)
    middle.clear()

    def without_comments(x):
        for at, (name, value) in enumerate(x.request.head.fields):
            if name.lower() in ("via", "x-migration-via"):
                x.request.head.fields[at] = (name, value.split(" (")[0])
        passing_on(one.port)(x)
    middle.always(without_comments)
    assert ask(one.port, request()).status == 508
    assert len(middle.requests) <= 10


def test_a_loop_ends_when_the_router_is_started_anew_within_it(start):
    origin = start.origin()
    config = configuration.passing(origin)
    first = start.router(config)
    assert ask(first.port, request()).status == 200
    before = origin.request.head.get("Via")
    first.stop()
    again = start.router(config)
    origin.always(passing_on(again.port))
    assert ask(again.port, request("GET", "/", [("Via", before)])).status == 508
    assert len(origin.requests) == 2


# --- answers -----------------------------------------------------------------------------------------------------------

def test_an_answer_with_both_framing_fields_is_passed_on(start):
    """As proxies made with FastAPI send it."""
    origin = start.origin()
    config = configuration.passing(origin)
    config["threads"] = 1
    router = start.router(config)

    def both(x):
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    origin.always(both)
    with Client(router.port) as client:
        for n in (1, 2):
            answer = client.ask(request("POST", "/", body=b"{}"))
            assert (answer.status, answer.body) == (200, b"hello")
            assert not (answer.all("Content-Length") and answer.all("Transfer-Encoding"))
            assert origin.connections == n
    assert router.wait_outcomes(2)[0]["result"] == "success"


# --- addresses ---------------------------------------------------------------------------------------------------------

class Hosts:
    """/etc/hosts of one router: a file of its own, mounted over it where only that router sees it."""

    def __init__(self, folder, **names):
        self.path = str(folder / "hosts")
        self.say(**names)
        self.program = str(folder / "router-with-hosts")
        with open(self.program, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexec unshare -m --propagation private sh -c 'mount --bind \"%s\" /etc/hosts && exec \"%s\" \"$@\"' "
                       "sh \"$@\"\n" % (self.path, program("migration-router")))
        os.chmod(self.program, 0o755)
        mounted = subprocess.run(["unshare", "-m", "--propagation", "private", "mount", "--bind", self.path, "/etc/hosts"],
                                 stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("needs to mount a file over /etc/hosts")

    def say(self, **names):
        with open(self.path, "w", encoding="utf-8") as file:  # in place: what is mounted is the file
            file.write("127.0.0.1 localhost\n" + "".join("%s %s.test\n" % (address, name)
                                                         for name, addresses in names.items() for address in addresses))


class BlackHole:
    """An address that answers nothing to a SYN: its queue of connections is full."""

    def __init__(self, address, port):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(0)
        self.socks = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((address, port))
            self.socks.append(sock)
        with socket.socket() as probe:
            probe.settimeout(0.3)
            with pytest.raises(TimeoutError):
                probe.connect((address, port))

    def close(self):
        for sock in (self.listener, *self.socks):
            sock.close()


@pytest.fixture
def black_hole():
    holes = []

    def make(*where):
        holes.append(BlackHole(*where))
        return holes[-1]
    yield make
    for hole in holes:
        hole.close()


def timed(port):
    began = time.monotonic()
    answer = ask(port, request())
    return answer.status, time.monotonic() - began


def wait_for_one_below(seconds, status, port):
    """One answer that takes less than that, where the fault would make every one take more: a busy machine slows some, not all.
    `port`: gives the port for each."""
    def one():
        got, took = timed(port())
        assert got == status
        return took < seconds
    wait_until(one, "an answer within %g s" % seconds)


def named(port, **legacy):
    config = configuration.passing("http://service.test:%d" % port, legacy={"connect_timeout": "2m", **legacy})
    config["threads"] = 1
    return config


def test_the_second_address_is_tried_while_the_first_is_silent(start, black_hole):
    origin = start.origin_at("127.0.0.3")
    black_hole("127.0.0.2", origin.port)
    hosts = Hosts(start.folder(), service=["127.0.0.2", "127.0.0.3"])
    router = start.router(named(origin.port, keep="0ms"), name=hosts.program)
    status, first = timed(router.port)  # the client's own patience is shorter than connect_timeout
    assert status == 200 and first > 0.2
    wait_for_one_below(0.2, 200, lambda: router.port)  # the address that answered is remembered


def test_the_second_address_is_tried_at_once_when_the_first_refuses(start):
    origin = start.origin_at("127.0.0.3")
    hosts = Hosts(start.folder(), service=["::1", "127.0.0.2", "127.0.0.3"])
    wait_for_one_below(0.2, 200, lambda: start.router(named(origin.port), name=hosts.program).port)  # each knows nothing yet


def test_addresses_that_all_are_silent_end_at_the_time_limit(start, black_hole):
    port = free_port()
    black_hole("127.0.0.2", port)
    black_hole("127.0.0.3", port)
    hosts = Hosts(start.folder(), service=["127.0.0.2", "127.0.0.3"])
    router = start.router(named(port, connect_timeout="700ms"), name=hosts.program)
    status, took = timed(router.port)
    assert status == 504 and took > 0.6
    wait_for_one_below(1.3, 504, lambda: router.port)  # the limit is of both together


@pytest.mark.parametrize("left", ("refusing", "silent"))
def test_a_service_that_moved_is_found_without_a_failure(start, black_hole, left):
    old = start.origin_at("127.0.0.2")
    hosts = Hosts(start.folder(), service=["127.0.0.2"])
    router = start.router(named(old.port, keep="0ms"), name=hosts.program)
    assert ask(router.port, request()).status == 200
    old.stop()
    if left == "silent":
        black_hole("127.0.0.2", old.port)
    start.origin_at("127.0.0.3", old.port)
    hosts.say(service=["127.0.0.3"])
    assert ask(router.port, request()).status == 200


def test_a_name_that_appears_is_found_at_once(start):
    origin = start.origin_at("127.0.0.3")
    hosts = Hosts(start.folder(), other=["127.0.0.3"])
    router = start.router(named(origin.port), name=hosts.program)
    assert ask(router.port, request()).status == 502
    hosts.say(service=["127.0.0.3"])
    assert ask(router.port, request()).status == 200


def test_a_name_that_cannot_be_looked_up_any_more_keeps_its_addresses(start):
    origin = start.origin_at("127.0.0.3")
    hosts = Hosts(start.folder(), service=["127.0.0.3"])
    router = start.router(named(origin.port, keep="0ms"), name=hosts.program)
    assert ask(router.port, request()).status == 200
    hosts.say()
    assert ask(router.port, request()).status == 200


class OneAtATime(http.server.BaseHTTPRequestHandler):
    """Serves one connection at a time, and waits on it while it is kept."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def test_idle_connections_do_not_starve_a_one_threaded_service(start):
    with http.server.HTTPServer(("127.0.0.1", 0), OneAtATime) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = configuration.passing("http://127.0.0.1:%d" % server.server_port, legacy={"max_kept": 0, "keep": "5m"})
        config["threads"] = 4
        router = start.router(config)
        for _ in range(24):  # over all threads; the client's patience is shorter than `keep`
            assert ask(router.port, request()).status == 200
        server.shutdown()


# --- what is said of it ------------------------------------------------------------------------------------------------

def admin(router, path):
    return ask(router.admin_port, request("GET", path, host="127.0.0.1")).body.decode()


def close_at_once(x):
    x.close()


FAULTS = {"refused": None, "dns": None, "reset": close_at_once, "timeout": wait_for_the_end,
          "malformed": lambda x: x.send(b"nonsense\r\n\r\n"), "tls": None}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_failing_upstream_is_said_once_when_it_begins(start, tls, kind):
    origin = start.tls_origin(tls) if kind == "tls" else start.origin()
    url = {"refused": "http://127.0.0.1:%d" % free_port(), "dns": "http://legacy.invalid:80",
           "tls": "https://localhost:%d" % origin.port}.get(kind, origin.url)
    if FAULTS[kind]:
        origin.always(FAULTS[kind])
    config = configuration.passing(url, legacy={"response_timeout": "200ms"} if kind == "timeout" else {})
    router = start.router(config, configuration.features())
    for _ in range(5):
        assert ask(router.port, request("POST", "/", body=b"{}")).status in (502, 504)
    said = router.wait_event("legacy_failing", service="echo")
    assert said["kind"] == kind and said["error"]
    assert len(router.find("legacy_failing")) == 1
    metrics = admin(router, "/metrics")
    assert 'migration_legacy_errors_total{service="echo",kind="%s"} 5' % kind in metrics
    reachable = kind in ("reset", "timeout", "malformed")
    assert 'migration_legacy_up{service="echo"} %d' % reachable in metrics
    ready = json.loads(admin(router, "/readyz"))
    assert ready["ready"] and (ready["status"] == "ready") == reachable
    told = ready["legacy"][0]
    assert (told["service"], told["reachable"], told["failing"], told["errors"]) == ("echo", reachable, [kind], 5)


def test_its_end_is_said_once_too(start):
    port = free_port()
    router = start.router(configuration.passing("http://127.0.0.1:%d" % port))
    for _ in range(3):
        assert ask(router.port, request()).status == 502
    router.wait_event("legacy_failing")
    start.origin_at("127.0.0.1", port)
    assert ask(router.port, request()).status == 200
    assert router.wait_event("legacy_recovered", service="echo", kind="refused")["failures"] == 3
    assert json.loads(admin(router, "/readyz"))["legacy"][0] == {"service": "echo", "reachable": True, "failing": [], "errors": 3}
    assert len(router.find("legacy_failing")) == len(router.find("legacy_recovered")) == 1


def lines_of(path, n):
    def there():
        text = path.read_bytes().decode() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        return lines if len(lines) >= n else None
    return wait_until(there, "%d lines in %s" % (n, path))


@pytest.mark.parametrize("mode", ("off", "errors", "all"))
def test_access_log(start, mode):
    origin, folder = start.origin(), start.folder()
    config = configuration.passing(origin)
    config.update(access_log=mode, access_log_file="access.log")
    router = start.router(config, folder=folder)
    assert ask(router.port, request("GET", "/fine?key=secret", [("X-Request-ID", "\x9b31m\xff")])).status == 200
    origin.always(close_at_once)
    assert ask(router.port, request("POST", "/bad", body=b"{}")).status == 502
    router.wait_outcomes(2)
    path = folder / "access.log"
    if mode == "off":
        assert not path.exists()
        return
    lines = lines_of(path, 1 if mode == "errors" else 2)
    bad = lines[-1]
    assert (bad["path"], bad["status"], bad["result"], bad["side"], bad["reason"]) == ("/bad", 502, "failure", "legacy", "unmapped")
    assert bad["client"] == "127.0.0.1" and "reset" in bad["error"] and bad["latency_us"] > 0 and bad["method"] == "POST"
    assert [line["path"] for line in lines] == (["/bad"] if mode == "errors" else ["/fine", "/bad"])
    text = path.read_bytes()
    assert b"secret" not in text
    assert all(c == "\n" or c.isprintable() for c in text.decode("utf-8"))


def test_the_access_log_is_opened_anew_at_sighup(start):
    origin, folder = start.origin(), start.folder()
    config = configuration.passing(origin)
    config.update(access_log="all", access_log_file="access.log")
    router = start.router(config, folder=folder)
    ask(router.port, request("GET", "/1"))
    lines_of(folder / "access.log", 1)
    (folder / "access.log").rename(folder / "access.log.1")
    router.signal(signal.SIGHUP)
    router.wait_event("reloaded")
    ask(router.port, request("GET", "/2"))
    assert [line["path"] for line in lines_of(folder / "access.log", 1)] == ["/2"]
    assert [line["path"] for line in lines_of(folder / "access.log.1", 1)] == ["/1"]


def test_an_access_log_that_nobody_reads_stops_nobody(start):
    """A pipe that is full: lines are dropped and counted, requests go on, and the end comes."""
    origin, folder = start.origin(), start.folder()
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        config = configuration.passing(origin)
        config.update(access_log="all", access_log_file="pipe")
        router = start.router(config, folder=folder)
        with Client(router.port) as client:
            for _ in range(60):  # each leaves 3.5 KB; pipe and memory hold 1.1 MB
                for _ in range(8):
                    client.send(request("GET", "/" + "x" * 3000))
                for _ in range(8):
                    assert client.read().status == 200
        assert router.stop() == 0
    finally:
        os.close(reader)


def debugging(folder):
    script = folder / "router-debugging"
    script.write_text("#!/bin/sh\nexec \"%s\" --log-level debug \"$@\"\n" % program("migration-router"))
    script.chmod(0o755)
    return str(script)


def test_a_request_is_told_at_level_debug(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin), name=debugging(start.folder()))
    ask(router.port, request("GET", "/here"))
    said = router.wait_event("request")
    assert (said["path"], said["status"], said["side"], said["reason"]) == ("/here", 200, "legacy", "unmapped")


# --- what legacy sees --------------------------------------------------------------------------------------------------

SPOOFED = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("x-forwarded-host", "evil.test"), ("X_Forwarded_For", "6.6.6.7"),
           ("X-Real-IP", "6.6.6.6"), ("Forwarded", "for=6.6.6.6;proto=https"), ("X-Forwarded-Ssl", "on"), ("SCRIPT_NAME", "/admin"),
           ("X_Real_IP", "6.6.6.6"), ("Forwarded-For", "6.6.6.6"), ("X-Original-Url", "/forwarded"), ("X_FORWARDED_USER", "root")]
MADE = [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "service.test"), ("X-Real-IP", "127.0.0.1")]
APPENDED = [("X-Forwarded-For", "6.6.6.6, 6.6.6.7, 127.0.0.1"), ("Forwarded", "for=6.6.6.6;proto=https, for=127.0.0.1;proto=http")]


@pytest.mark.parametrize("trusted, mode, expected", [
    (True, None, SPOOFED), (False, None, MADE),
    (True, "keep", SPOOFED), (False, "keep", SPOOFED),
    (True, "replace", MADE), (False, "replace", MADE),
    (True, "remove", []), (False, "remove", []),
    (False, "append", APPENDED + MADE[1:]),
    (True, "append", [f for f in SPOOFED[1:] if f[0] not in ("X_Forwarded_For", "Forwarded")] + APPENDED),
])
def test_what_legacy_is_told_of_those_before(start, trusted, mode, expected):
    origin = start.origin()
    config = configuration.passing(origin, **({"forwarded": mode} if mode else {}))
    if not trusted:
        config["trusted_proxies"] = ["10.0.0.0/8"]
    router = start.router(config)
    assert ask(router.port, request("GET", "/", SPOOFED)).status == 200
    about = ("forwarded", "real", "script", "original")
    got = [(n, v) for n, v in origin.request.head.fields if any(word in n.lower() for word in about)]
    assert sorted(got) == sorted(expected)


def test_the_access_log_tells_the_client_behind_trusted_proxies(start):
    origin, folder = start.origin(), start.folder()
    config = configuration.passing(origin)
    config.update(access_log="all", access_log_file="access.log", trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    router = start.router(config, folder=folder)
    for n, sent in enumerate(("6.6.6.6, 203.0.113.9:4711, 10.1.2.3", "[2001:db8::1]:80", "nonsense, 10.0.0.1", "nonsense")):
        ask(router.port, request("GET", "/", [("X-Forwarded-For", sent)]))
        line = lines_of(folder / "access.log", n + 1)[n]
        assert (line["client"], line["peer"]) == (("203.0.113.9", "2001:db8::1", "10.0.0.1", "127.0.0.1")[n], "127.0.0.1")


@pytest.mark.parametrize("host, expected", [("keep", "service.test"), ("upstream", "127.0.0.1:%d"), ("shop.test:81", "shop.test:81")])
def test_the_host_that_legacy_sees(start, host, expected):
    origin = start.origin()
    router = start.router(configuration.passing(origin, legacy={"host": host}))
    assert ask(router.port, request()).status == 200
    assert origin.request.head.all("Host") == [expected % origin.port if "%" in expected else expected]


def test_the_name_for_tls_is_that_of_the_host(start, tls):
    """The certificate is for localhost; the URL says 127.0.0.2, which it is not for."""
    origin = start.tls_origin(tls)
    url = "https://%s:%d" % ("127.0.0.1", origin.port)
    right = start.router(configuration.passing(url, legacy={"host": "localhost", "ca_file": tls.authority}))
    assert ask(right.port, request()).status == 200
    assert origin.request.head.all("Host") == ["localhost"]
    wrong = start.router(configuration.passing(url, legacy={"host": "elsewhere.test", "ca_file": tls.authority}))
    assert ask(wrong.port, request()).status == 502


@pytest.mark.parametrize("target, status", [
    ("/a/../b", 200), ("/a/b/../../c", 200), ("/..", 400), ("/../x", 400), ("/a/../../x", 400), ("/%2e%2e/x", 400), ("/.%2E/x", 400),
    ("/%2e%2e%2fx", 400), ("/a%2f..%2f..%2fx", 400), ("/..%5cx", 400), ("/..\\x", 400), ("/..;a=b/x", 400), ("/a//../../x", 400),
    ("/%252e%252e/x", 400), ("/..#x", 400), ("/..%23x", 400), ("/..%00/y", 400), ("/..%3fx/y", 400),
    ("/%c0%ae%c0%ae/x", 400), ("/..%20/x", 400), ("/a/%2e%2e/x", 400), ("/a%2fb/%2e%2e/%2e%2e/x", 400), ("/..%5c..%5cx", 400), ("/.%00./x", 400),
    ("/./../x", 400), ("/a%2fb/c", 200), ("/...", 200), ("/a..b/..c", 200), ("/x?y=/../../z", 200), ("/%zz/..", 200), ("/..%", 200),
])
def test_a_prefix_cannot_be_left(start, target, status):
    origin = start.origin()
    router = start.router(configuration.passing(origin.url + "/base/deep"))
    assert ask(router.port, request("GET", target)).status == status
    assert [r.target for r in origin.requests] == (["/base/deep" + target] if status == 200 else [])


def test_without_a_prefix_targets_pass_as_they_are(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin))
    assert ask(router.port, request("GET", "/../%2e%2e/x")).status == 200
    assert origin.request.target == "/../%2e%2e/x"


def test_via_can_be_off(start):
    origin = start.origin()
    router = start.router(configuration.passing(origin, legacy={"via": False}))
    answer = ask(router.port, request())
    assert answer.status == 200 and not answer.all("Via")
    assert not origin.request.head.all("Via") and origin.request.head.all("X-Migration-Via")


@pytest.mark.parametrize("legacy, said", [
    ({"url": "unix:/run/x.sock"}, "unix sockets are not supported"), ("http://unix:/run/x.sock", "unix sockets are not supported"),
    ({"url": "http://127.0.0.1:1", "proxy_protocol": True}, "the PROXY protocol is not supported"),
    ({"url": "http://127.0.0.1:1", "host": "a b"}, "host name"), ({"url": "http://127.0.0.1:1", "host": "http://x"}, "host name"),
])
def test_what_cannot_be_is_refused_in_so_many_words(start, legacy, said):
    path = start.folder() / "router.yml"
    path.write_text(json.dumps(configuration.router({"echo": {"listen": "127.0.0.1:0", "legacy": legacy}})))
    told = start.run("migration-router", "check", path)
    assert told.returncode == 2 and said in told.stdout + told.stderr
