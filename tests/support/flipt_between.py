"""The way between a router and a Flipt server (stand-in or real): records what passes, and is wrong on command.

    between = Between(server.url); …url: between.url…; between.break_with("half"); between.break_with(None)

Faults are those of the way snapshots come (FAULTS); the management API passes untouched, but for what Between says of changes.
"""
import collections
import http.client
import json
import select
import socket
import threading
import time
import urllib.parse

from listening import Answering, Listening

FAULTS = ("hang", "slow", "half", "half_json", "half_chunked", "500", "401", "garbage", "hole", "redirect_loop")

# A snapshot request: when it came (monotonic), and its fields.
Poll = collections.namedtuple("Poll", "at headers")
Write = collections.namedtuple("Write", "method path body")


class HeldPoll:
    """One poll that waits before it asks the server, and again with the answer."""

    def __init__(self):
        self.arrived, self.go, self.fetched, self.release = (threading.Event() for _ in range(4))


class Between(Listening):
    def __init__(self, target, token=None, shown_token=None, tls=None):
        """`shown_token`: what a caller must show; the target is shown `token` instead. None: tokens pass as they are."""
        self.target, self.token, self.shown_token = target, token, shown_token
        self.fault = None
        self.polls = []         # of Poll
        self.writes = []        # of Write: changes through the management API, in order
        self.begun = 0          # streams that began to answer
        self.etag = None        # of all snapshots from now on
        self.streams_fail = False
        self.streams_page = False  # a proxy's page stands for them
        self.pages = 0          # how often it did
        self.streams_hang = False  # new ones say nothing
        self.conflicts = 0      # how many changes meet another one that came a moment earlier: `disturb` makes it
        self.disturb = None
        self.read_only = False  # changes are refused as by a v1 server in this mode
        self.writes_left = None  # so many changes are taken, the others fail
        self.fail_at = 0        # the change of this number (from 1, counted anew) fails
        self.cut_at = 0         # … is made, but the connection breaks before the answer
        self.cut_writes = False  # so it does for all
        self.hold = None        # an Event that changes wait for
        self.lag = 0            # after a change so many polls still get the snapshot that was polled last
        self.stale = (0, None)
        self.held_poll = None   # a HeldPoll that the next poll becomes
        self.lies = False       # evaluation says another thing than the flags
        self.delay = 0          # seconds before the API's first answer to each method
        self.delayed = set()    # methods that had it
        self.changed = threading.Condition()
        self.released = threading.Event()
        super().__init__(Handler, tls)

    def stop(self):
        self.released.set()
        super().stop()

    def start(self):
        self.released = threading.Event()
        super().start()

    def break_with(self, fault):
        """From now on snapshots and streams are wrong in this way (None: well again); streams that are open end."""
        assert fault is None or fault in FAULTS
        self.fault = fault
        self.release()

    def lead_to(self, target, token=None):
        """Another server is there from now on."""
        self.target, self.token = target, token
        self.release()

    def release(self):
        self.released.set()
        self.released = threading.Event()

    def count(self, poll=None):
        with self.changed:
            if poll:
                self.polls.append(poll)
            else:
                self.begun += 1
            self.changed.notify_all()

    def wait_begun(self, n, patience=30):
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun >= n, patience), "%d streams began" % self.begun

    def wait_polls(self, n, patience=30):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.polls) >= n, patience), "%d polls came" % len(self.polls)


class Dribbling:
    """Writes little by little: a message takes about a second, and is whole in the end."""

    def __init__(self, file, released):
        self.file, self.released = file, released

    def write(self, data):
        size = max(1, len(data) // 40)
        for at in range(0, len(data), size):
            self.released.wait(0.025)
            self.file.write(data[at:at + size])
        return len(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


class Handler(Answering):
    def respond(self):
        b = self.owner
        self.fault, self.released, plain = b.fault, b.released, self.wfile
        if b.shown_token and self.headers.get("Authorization") != "Bearer " + b.shown_token:
            self.problem(401, 16, "request was not authenticated")
            return
        if self.url.path.startswith("/evaluate/"):
            self.evaluate()
            return
        if not self.url.path.startswith(("/client/", "/internal/")):
            self.manage()
            return
        if self.fault == "slow":
            self.wfile = Dribbling(plain, self.released)
        try:
            if self.url.path.endswith("/stream"):
                self.close_connection = True
                self.stream()
            else:
                b.count(Poll(time.monotonic(), dict(self.headers)))
                self.poll()
        finally:
            self.wfile = plain

    def problem(self, status, code, message):
        self.answer(status, json.dumps({"code": code, "message": message, "details": []}))

    # --- the target ---

    def fields(self, leave_out=()):
        """The request's fields for the target."""
        leave_out = {"host", "connection", *leave_out}
        if self.owner.shown_token:
            leave_out.add("authorization")
        fields = {n: v for n, v in self.headers.items() if n.lower() not in leave_out}
        if self.owner.shown_token and self.owner.token:
            fields["Authorization"] = "Bearer " + self.owner.token
        return fields

    def forward(self, path, leave_out=()):
        """(status, fields, body) of the target."""
        where = urllib.parse.urlsplit(self.owner.target)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        try:
            connection.request(self.command, where.path.rstrip("/") + path, self.data or None, self.fields(leave_out))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def pass_on(self, status, fields, body):
        own = ("content-type", "content-length", "transfer-encoding", "connection", "date", "server")
        kept = [(n, v) for n, v in fields.items() if n.lower() not in own]
        self.answer(status, body, fields.get("Content-Type") or "application/json", kept)

    def altered(self, document):
        """A snapshot as this fault has it: with a hole, as when it is made of several documents."""
        if self.fault == "hole":
            for flag in document["flags"]:
                for rule in flag["rules"] + [r["segment"] for r in flag["rollouts"] if "segment" in r]:
                    rule["segments"] = []
            if "digest" in document:
                document["digest"] = document["digest"][:32]
        return document

    # --- what passes ---

    def evaluate(self):
        if self.owner.lies:
            self.answer(200, '{"match": true, "variantKey": "lie", "enabled": "lie"}')
        else:
            self.pass_on(*self.forward(self.path))

    def manage(self):
        b = self.owner
        if b.delay and self.command not in b.delayed:
            b.delayed.add(self.command)
            self.released.wait(b.delay)
        if self.command != "GET":
            b.writes.append(Write(self.command, self.path, json.loads(self.data) if self.data else None))
            if b.read_only:
                self.problem(500, 13, "modification is not allowed in read-only mode")
                return
            if b.conflicts:
                b.conflicts -= 1
                b.disturb()
            if b.writes_left is not None:
                b.writes_left -= 1
                if b.writes_left < 0:
                    self.problem(500, 13, "the disk is full")
                    return
            b.fail_at -= 1
            if b.fail_at == 0:
                self.problem(500, 13, "the disk is full")
                return
            if b.hold:
                b.hold.wait()
            b.stale = (b.lag, b.stale[1])
            b.cut_at -= 1
        answer = self.forward(self.path)
        if self.command != "GET" and (b.cut_writes or b.cut_at == 0):
            self.close_connection = True
            return
        self.pass_on(*answer)

    def broken(self):
        """Whether this fault asks nobody: then it has been answered."""
        if self.fault == "hang":
            self.released.wait()
            self.close_connection = True
        elif self.fault == "500":
            self.problem(500, 13, "internal error")
        elif self.fault == "401":
            self.problem(401, 16, "request was not authenticated")
        elif self.fault == "redirect_loop":
            self.answer(302, "", fields=[("Location", self.path)])
        elif self.fault == "garbage":
            self.answer(200, "<html>hello</html>\n")
        else:
            return False
        return True

    def polled(self):
        """The snapshot, or for a while after a change still the last one."""
        b = self.owner
        left, old = b.stale
        if left:
            b.stale = (left - 1, old)
            return old
        held, b.held_poll = b.held_poll, None
        if held:
            held.arrived.set()
            held.go.wait(60)
        answer = self.forward(self.path)
        if held:
            held.fetched.set()
            held.release.wait(60)
        if answer[0] == 200:
            b.stale = (0, answer)
        return answer

    def poll(self):
        if self.broken():
            return
        if self.owner.etag:
            if self.headers.get("If-None-Match") == self.owner.etag:
                self.answer(304, "", fields=[("Etag", self.owner.etag)])
                return
            status, fields, body = self.forward(self.path, ("if-none-match",))
            fields.replace_header("Etag", self.owner.etag)
            self.pass_on(status, fields, body)
            return
        if self.fault in (None, "slow"):
            self.pass_on(*self.polled())
            return
        status, fields, body = self.forward(self.path, ("if-none-match", "accept-encoding"))
        if status != 200:
            self.pass_on(status, fields, body)
            return
        body = json.dumps(self.altered(json.loads(body)), ensure_ascii=False)
        etag = [("Etag", fields["Etag"][:32 if self.fault == "hole" else None])] if fields["Etag"] else []
        if self.fault == "half":
            data = body.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data) // 2])
            self.close_connection = True
        elif self.fault == "half_chunked":
            self.begin_chunks(fields=etag)
            self.chunk(body[:len(body) // 2])
            self.close_connection = True
        else:
            self.answer(200, body[:len(body) // 2] if self.fault == "half_json" else body, fields=etag)

    def stream(self):
        if self.owner.streams_fail:
            self.problem(500, 13, "internal error")
            return
        if self.owner.streams_page:
            self.owner.pages += 1
            self.answer(200, "<html>\n<h1>Sign in</h1>\n</html>\n")
            return
        if self.owner.streams_hang:
            while not self.released.wait(0.05) and not self.peer_is_gone():
                pass
            return
        if self.broken():
            return
        if self.fault in (None, "slow"):
            self.relay()
            return
        status, fields, body = self.forward(self.path[:-len("stream")] + "snapshot", ("if-none-match", "accept-encoding"))
        if status != 200:
            self.pass_on(status, fields, body)
            return
        text = json.dumps({"result": self.altered(json.loads(body))}, ensure_ascii=False) + "\n"
        self.begin_chunks()
        self.chunk(text[:len(text) // 2] if self.fault.startswith("half") else text)
        if self.fault == "hole":
            self.released.wait()

    def relay(self):
        """Byte for byte, until either side ends, or it is to be broken."""
        where = urllib.parse.urlsplit(self.owner.target)
        head = "".join("%s: %s\r\n" % f for f in self.fields().items())
        begun = False
        with socket.create_connection((where.hostname, where.port), timeout=30) as up:
            up.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.owner.socks.add(up)
            try:
                up.sendall(("GET %s%s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (where.path.rstrip("/"), self.path, where.netloc, head))
                           .encode("latin-1"))
                while not self.released.is_set():
                    ready, _, _ = select.select([up, self.connection], [], [], 0.05)
                    if self.connection in ready and not self.connection.recv(4096):
                        return
                    if up not in ready:
                        continue
                    data = up.recv(1 << 18)
                    if not data:
                        return
                    self.wfile.write(data)
                    if not begun and data.startswith(b"HTTP/1.1 200"):
                        begun = True
                        self.owner.count()
            finally:
                self.owner.socks.discard(up)


__all__ = ["Between", "FAULTS"]
