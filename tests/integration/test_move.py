"""Moving through the router: plan, confirm, apply, release; who may, and who may not (docs/design.md, "Moving")."""
import contextlib
import fcntl
import html
import json
import os
import re
import threading
import time
import urllib.parse

import pytest

import configuration as c
from conftest import Started
from http_text import Cut, wait_until
from raw import ask, request
from test_flipt import flipt1, flipt2  # noqa: F401  (fixtures)

FLAG = "task_abstraction_enabled"
READ, WRITE, OTHER = "a-token-that-reads", "a-token-that-writes", "another-token-that-writes"


def flags(percentage=25):
    return c.features(c.boolean(FLAG, False, percentage))


class World:
    """An operation of which a percentage goes to tasks, and an admin listener with a reader and two writers."""

    def __init__(self, start, auth="bearer", writers=True, percentage=25, admin=None, source=None, **top):
        self.start, self.origin = start, start.origin()
        self.origin.always(lambda x: x.answer(200, (), b"legacy"))
        self.folder = str(start.folder())
        self.write("read.txt", c.sha256(READ) + "\n")
        self.write("writers.txt", "# who may move\n%s  alice\n%s bob@example.test\n" % (c.sha256(WRITE), c.sha256(OTHER)))
        operations = {"add": c.operation("POST /add", {"name": "echo", "kwargs": {"message": "hi"}, "timeout": "20s"})}
        self.config = c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(tasks=None),
                               identity={"user": ["header:X-User-Id"]}, **top)
        self.config["admin"].update({"auth": auth, **({"tokens": "read.txt"} if auth == "bearer" else {}),
                                     **({"writers": "writers.txt"} if writers else {}), **(admin or {})})
        if source:
            self.config["flags"] = source
        self.router = start.router(self.config, None if source else flags(percentage), folder=self.folder)
        self.port = self.router.admin_port
        self.host = "127.0.0.1:%d" % self.port

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def ask(self, method, target, fields=(), body=None, host=None):
        return ask(self.port, request(method, target, fields, body, host or self.host))

    def bearer(self, target, token=WRITE, fields=(), **values):
        return self.ask("POST", target, [("Authorization", "Bearer " + token), ("Content-Type", "application/json"), *fields],
                        json.dumps(values).encode())

    def plan(self, token=WRITE, **values):
        return json.loads(self.bearer("/_admin/move/plan", token, **values).body)["plan"]

    def post_as(self, user):
        return ask(self.router.port, request("POST", "/add", [("X-User-Id", user)], b"{}"))

    def percentage(self):
        return [line["rollouts"][0]["threshold"]["percentage"] for line in self.stored()["flags"]][0]

    def stored(self):
        with open(os.path.join(self.folder, "flags.yml"), encoding="utf-8") as file:
            return json.load(file)

    def history(self):
        told = self.start.run("migration-rollout", "--config", self.router.config_path, "history", "--json")
        return [json.loads(line) for line in told.stdout.splitlines()]


class Browser:
    """What a browser does: it keeps the cookie, says its Origin, and sends forms."""

    def __init__(self, world, token=WRITE):
        self.world, self.cookie, self.form = world, None, None
        self.signed_in = self.post("/sign-in", token=token, next="/move")
        found = self.signed_in.get("Set-Cookie")
        if found:
            self.cookie = found.split(";")[0]

    def fields(self):
        return [("Cookie", self.cookie)] if self.cookie else []

    def get(self, target, fields=()):
        return self.world.ask("GET", target, [*self.fields(), ("Accept", "text/html"), *fields])

    def post(self, target, fields=None, host=None, **values):
        own = [("Origin", "http://" + self.world.host), ("Sec-Fetch-Site", "same-origin")] if fields is None else fields
        body = urllib.parse.urlencode(values).encode()
        return self.world.ask("POST", target, [*self.fields(), ("Content-Type", "application/x-www-form-urlencoded"), *own], body, host)

    def planned(self, **values):
        form = self.form_of(text(self.get("/move")), "/_admin/move/plan", command="set")["form"]
        return self.post("/_admin/move/plan", form=form, **values)

    def form_of(self, page, action, **where):
        """The values of the first form that goes there and has these."""
        for form in re.findall(r'<form [^>]*action="%s".*?</form>' % re.escape(action), page, re.S):
            values = {n: html.unescape(v) for n, v in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)}
            if all(values.get(n) == v for n, v in where.items()):
                return values
        raise AssertionError("no form for %s %r in %s" % (action, where, page))


def text(answer):
    return answer.body.decode()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that change nothing."""
    started = Started(tmp_path_factory)
    yield World(started)
    started.end()


# --- the whole way --------------------------------------------------------------------------------------


def test_a_change_is_planned_confirmed_made_and_recorded(start):
    w = World(start)
    b = Browser(w)
    page = text(b.get("/move"))
    assert "Signed in as alice" in page and FLAG in page and "25 %" in page
    asked = b.form_of(page, "/_admin/move/plan", command="set", flag=FLAG)
    planned = b.post("/_admin/move/plan", percent="50", segment="", **asked)
    assert planned.status == 200, text(planned)
    shown = text(planned)
    assert "Nothing has been changed yet" in shown and "app.add" in shown and w.percentage() == 25
    confirm = b.form_of(shown, "/_admin/move/apply")
    assert re.search(r'<button type="submit" id="confirm">Set %s to 50 %% for everybody</button>' % FLAG, shown)
    made = b.post("/_admin/move/apply", message="looks good", **confirm)
    assert made.status == 200 and "Done" in text(made), text(made)
    assert w.percentage() == 50
    newest = w.history()[-1]
    assert (newest["who"], newest["message"], newest["percent"], newest["result"]) == ("alice", "looks good", 50, "done")
    w.router.wait_event("moved", who="alice", flag=FLAG, result="done")
    wait_until(lambda: "50 %" in text(b.get("/move")), "the page to show it")
    event = wait_until(lambda: w.router.query("SELECT who, what, why FROM events WHERE kind = 'move'"), "the event")[0]
    assert tuple(event.values()) == ("alice", "set %s to 50 %%" % FLAG, "looks good")


def test_a_program_does_the_same_with_json(start):
    w = World(start)
    plan = w.plan(command="set", flag=FLAG, percent=10)
    assert (plan["from"], plan["to"]) == (25, 10)
    assert plan["operations"] == [{"operation": "app.add", "from": 25, "to": 10, "flags": 1}]
    made = w.bearer("/_admin/move/apply", command="set", flag=FLAG, percent=10, digest=plan["digest"], message="less")
    assert made.status == 200 and json.loads(made.body)["result"] == "done" and w.percentage() == 10
    plan = w.plan(command="rollback", flag=FLAG)
    made = w.bearer("/_admin/move/apply", OTHER, command="rollback", flag=FLAG, digest=plan["digest"], message="no")
    assert made.status == 200 and w.percentage() == 0
    assert [(h["who"], h["command"]) for h in w.history()] == [("alice", "set"), ("bob@example.test", "rollback")]


def test_the_plan_names_who_moves(start):
    w = World(start, percentage=0)
    for n in range(40):
        assert w.post_as("user-%d" % n).status == 200
    w.router.wait_outcomes(40)
    told = w.plan(command="set", flag=FLAG, percent=50)["recorded"]
    done = start.run("migration-rollout", "--config", w.router.config_path, "plan", FLAG, "50").stdout
    assert told["users"]["known"] == 40 and told["to_legacy"] == 0 and 5 < told["users"]["to_task"] < 35
    assert "40 users: %d would move to tasks, 0 back to legacy" % told["users"]["to_task"] in done
    page = text(Browser(w).planned(command="set", flag=FLAG, percent="50"))
    assert "<strong>%d</strong> would move to tasks" % told["users"]["to_task"] in page and told["users"]["largest"][0]["name"] in page


@pytest.mark.parametrize("version", [1, 2])
def test_a_change_in_flipt_is_planned_and_made(start, request, version):
    flipt = request.getfixturevalue("flipt%d" % version)
    flipt.load(flags(25))
    w = World(start, source={**flipt.source(), "poll": "100ms", "stream": False})
    plan = w.plan(command="set", flag=FLAG, percent=50)
    assert plan["from"] == 25 and "http://" in plan["place"] and not flipt.between.writes
    if version == 2:
        flipt.between.conflicts = 1  # someone changes another thing in between: it is read and compared once more
    made = w.bearer("/_admin/move/apply", command="set", flag=FLAG, percent=50, digest=plan["digest"], message="go")
    assert made.status == 200, made.body
    assert w.history()[-1]["who"] == "alice"
    assert w.plan(command="set", flag=FLAG, percent=60)["from"] == 50
    flipt.load(flags(30))
    assert w.bearer("/_admin/move/apply", command="set", flag=FLAG, percent=60, digest=plan["digest"], message="go").status == 409
    flipt.between.read_only = True
    plan = w.plan(command="rollback", flag=FLAG)
    made = w.bearer("/_admin/move/apply", command="rollback", flag=FLAG, digest=plan["digest"], message="go")
    assert made.status == 503 and b"read-only" in made.body


def test_a_router_that_ends_does_not_wait_for_flipt(start, flipt2):  # noqa: F811
    flipt2.load(flags(25))
    w = World(start, source={**flipt2.source(), "poll": "100ms", "stream": False})
    plan = w.plan(command="set", flag=FLAG, percent=50)
    flipt2.between.hold = threading.Event()

    def apply():
        with contextlib.suppress(Exception):  # the router has gone
            w.bearer("/_admin/move/apply", command="set", flag=FLAG, percent=50, digest=plan["digest"], message="go")
    asking = threading.Thread(target=apply)
    asking.start()
    wait_until(lambda: flipt2.between.writes, "the write")
    began = time.monotonic()
    w.router.signal(15)
    assert w.router.wait() == 0
    assert time.monotonic() - began < 9, "it would be cut after the drain"
    assert [line["result"] for line in w.history()][-1].startswith("UNKNOWN")
    flipt2.between.hold.set()
    asking.join()


def test_advance_takes_one_step_and_says_what_is_missing(start):
    w = World(start, percentage=0, rollout={FLAG: {"steps": [0, 5, 100], "hold": "0s", "require": "nothing"}})
    plan = w.plan(command="advance", flag=FLAG)
    assert (plan["from"], plan["to"]) == (0, 5)
    made = w.bearer("/_admin/move/apply", command="advance", flag=FLAG, digest=plan["digest"], message="go")
    assert made.status == 200, made.body
    assert w.percentage() == 5 and w.history()[-1]["step"] == "5 %"


# --- what was shown is what is done ---------------------------------------------------------------------


def test_what_changed_meanwhile_is_not_done(start):
    w = World(start)
    plan = w.plan(command="set", flag=FLAG, percent=50)
    done = start.run("migration-rollout", "--config", w.router.config_path, "set", FLAG, "30")
    assert done.returncode == 0, done.stderr
    made = w.bearer("/_admin/move/apply", command="set", flag=FLAG, percent=50, digest=plan["digest"], message="x")
    assert made.status == 409 and json.loads(made.body)["result"] == "changed_meanwhile" and w.percentage() == 30
    assert len(w.history()) == 1


@pytest.mark.parametrize("other", [{"percent": 60}, {"flag": "other"}, {"command": "rollback"}])
def test_another_plans_digest_is_refused(shared, other):
    w = shared
    asked = {"command": "set", "flag": FLAG, "percent": 50}
    digest = w.plan(**asked)["digest"]
    asked.update(other)
    if asked["command"] != "set":
        del asked["percent"]
    made = w.bearer("/_admin/move/apply", digest=digest, message="x", **asked)
    assert made.status in (404, 409), made.body
    assert w.percentage() == 25 and w.history() == []


def test_an_applied_plan_cannot_be_applied_again(start):
    w = World(start)
    plan = w.plan(command="set", flag=FLAG, percent=50)
    again = dict(command="set", flag=FLAG, percent=50, digest=plan["digest"], message="x")
    assert w.bearer("/_admin/move/apply", **again).status == 200
    assert start.run("migration-rollout", "--config", w.router.config_path, "set", FLAG, "25").returncode == 0
    assert w.bearer("/_admin/move/apply", **again).status in (200, 409)
    assert w.bearer("/_admin/move/apply", **dict(again, message="")).status == 400


# --- who may not ----------------------------------------------------------------------------------------


def test_a_token_that_reads_may_not_move(shared):
    w = shared
    for target in ("/_admin/move/plan", "/_admin/move/apply", "/_admin/guard/release?operation=add"):
        answer = w.bearer(target, READ, command="set", flag=FLAG, percent=50)
        assert answer.status == 403 and b"scope write" in answer.body, (target, answer.body)
    b = Browser(w, READ)
    page = text(b.get("/move"))
    assert 'action="/_admin/move/plan"' not in page and "scope <code>write</code>" in page
    form = b.form_of(page, "/sign-out")["form"]
    assert b.post("/_admin/move/plan", form=form, command="set", flag=FLAG, percent="50").status == 403
    assert w.percentage() == 25


def test_without_writers_nobody_moves_anything_through_the_router(start):
    w = World(start, auth="none", writers=False)
    answer = w.ask("POST", "/_admin/move/plan", [("Content-Type", "application/json")], b'{"command":"rollback","flag":"%s"}' % FLAG.encode())
    assert answer.status == 403 and b"admin.writers" in answer.body
    assert "admin.writers" in text(w.ask("GET", "/move", [("Accept", "text/html")]))
    assert w.ask("GET", "/sign-in").status == 404


def test_an_open_listener_still_asks_for_a_token_to_move(start):
    w = World(start, auth="none")
    body = b'{"command":"rollback","flag":"%s"}' % FLAG.encode()
    assert w.ask("POST", "/_admin/move/plan", [("Content-Type", "application/json")], body).status == 403
    assert w.bearer("/_admin/move/plan", READ, command="rollback", flag=FLAG).status == 403
    assert w.bearer("/_admin/move/plan", WRITE, command="rollback", flag=FLAG).status == 200
    assert w.ask("POST", "/_admin/guard/release?operation=add").status == 403
    assert Browser(w).get("/move").status == 200


@pytest.mark.parametrize("target", ["/_admin/move/plan", "/_admin/move/apply", "/_admin/guard/release", "/sign-out"])
def test_a_get_changes_nothing(shared, target):
    w = shared
    b = Browser(w)
    query = "?command=rollback&flag=%s&message=x&operation=add" % FLAG
    for method in ("GET", "HEAD"):
        assert w.ask(method, target + query, [*b.fields(), ("Authorization", "Bearer " + WRITE)]).status == 405
    assert b.get("/move").status == 200 and w.percentage() == 25


def test_a_forged_form_is_refused_whatever_it_knows(shared):
    w = shared
    b = Browser(w)
    form = b.form_of(text(b.get("/move")), "/sign-out")["form"]
    values = dict(command="rollback", flag=FLAG)
    evil = "http://evil.example"
    attempts = [
        dict(fields=[("Origin", evil), ("Sec-Fetch-Site", "cross-site")], form=form),
        dict(fields=[("Origin", evil)], form=form),
        dict(fields=[("Origin", "null")], form=form),
        dict(fields=[], form=form),  # a browser says its Origin
        dict(fields=[("Origin", "http://127.0.0.1:1")], form=form),  # another port is another site
        dict(fields=[("Origin", "http://127.0.0.1:1"), ("Sec-Fetch-Site", "same-site")], form=form),
        dict(fields=[("Origin", "https://" + w.host), ("Sec-Fetch-Site", "same-origin")], form=form),
        dict(),
        dict(form=""),
        dict(form="0" * len(form)),
        dict(form=Browser(w).form_of(text(Browser(w).get("/move")), "/sign-out")["form"]),  # of another session
    ]
    for attempt in attempts:
        answer = b.post("/_admin/move/plan", **{**values, **attempt})
        assert answer.status == 403, (attempt, answer.body)
    assert b.post("/_admin/move/plan", form=form, **values).status == 200


def test_by_another_name_nobody_is_let_in(shared):
    w = shared
    b = Browser(w)
    form = b.form_of(text(b.get("/move")), "/sign-out")["form"]
    for target in ("/sign-in", "/_admin/move/plan"):
        answer = b.post(target, fields=[("Origin", "http://evil.example")], host="evil.example", form=form, command="rollback", flag=FLAG, token=WRITE)
        assert answer.status == 421


def test_a_cookie_of_a_session_that_ended_opens_nothing(start):
    w = World(start)
    b = Browser(w)
    form = b.form_of(text(b.get("/move")), "/sign-out")["form"]
    assert b.post("/sign-out", form="x").status == 403
    out = b.post("/sign-out", form=form)
    assert out.status == 303 and "Max-Age=0" in out.get("Set-Cookie")
    assert b.get("/move").status == 303 and b.get("/_admin/flags").status == 401
    assert b.post("/_admin/move/plan", form=form, command="rollback", flag=FLAG).status == 401
    assert w.ask("GET", "/move", [("Cookie", "migration_session_%d=%s" % (w.port, "0" * 64))]).status == 401


def test_a_session_ends_with_its_token(start):
    w = World(start)
    b, other = Browser(w), Browser(w, OTHER)
    w.write("writers.txt", "%s bob\n" % c.sha256(OTHER))
    w.router.signal(1)
    w.router.wait_event("reloaded")
    assert b.get("/move").status == 303
    assert "Signed in as bob" in text(other.get("/move"))
    w.write("writers.txt", "%s bob\n%s alice\n" % (c.sha256(OTHER), c.sha256(WRITE)))
    w.router.signal(1)
    w.router.wait_event("reloaded", count=2)
    assert b.get("/move").status == 303, "a session that ended stays ended"


# --- signing in -----------------------------------------------------------------------------------------


def test_the_cookie_is_for_this_router_alone_and_no_script(shared):
    w = shared
    cookie = Browser(w).signed_in.get("Set-Cookie")
    assert re.fullmatch(r"migration_session_%d=[0-9a-f]{64}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200" % w.port, cookie)
    assert WRITE not in cookie and c.sha256(WRITE) not in cookie


def test_behind_tls_the_cookie_is_secure_and_the_origin_https(start):
    w = World(start, admin={"https": True, "session": "10m"})
    own = [("Origin", "https://" + w.host), ("Sec-Fetch-Site", "same-origin")]
    b = Browser(w)
    assert b.signed_in.get("Set-Cookie").endswith("Max-Age=600; Secure")
    form = b.form_of(text(b.get("/move")), "/sign-out")["form"]
    assert b.post("/_admin/move/plan", fields=own, form=form, command="rollback", flag=FLAG).status == 200
    assert b.post("/_admin/move/plan", form=form, command="rollback", flag=FLAG).status == 403  # http://


def test_a_browser_is_sent_to_the_sign_in_and_back(shared):
    w = shared
    sent = w.ask("GET", "/move", [("Accept", "text/html")])
    assert (sent.status, sent.get("Location")) == (303, "/sign-in?next=%2Fmove")
    page = text(w.ask("GET", sent.get("Location"), [("Accept", "text/html")]))
    assert '<input type="hidden" name="next" value="/move">' in page and "app" not in page
    assert w.ask("GET", "/_admin/report.json", [("Accept", "text/html")]).status == 401
    # a link from elsewhere comes without the strict cookie: it is followed once more, from here
    again = text(w.ask("GET", "/move", [("Accept", "text/html"), ("Sec-Fetch-Site", "cross-site")]))
    assert 'http-equiv="refresh" content="0; url=/move"' in again
    assert Browser(w).signed_in.get("Location") == "/move"


@pytest.mark.parametrize("way", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/move\r\nX: y", "javascript:alert(1)", "/nothing", ""])
def test_nobody_is_sent_elsewhere_after_signing_in(shared, way):
    answer = Browser(shared).post("/sign-in", token=WRITE, next=way)
    assert (answer.status, answer.get("Location")) == (303, "/")


def test_wrong_and_odd_tokens_are_refused(start):
    w = World(start)
    b = Browser(w, "wrong")
    assert b.signed_in.status == 401 and not b.signed_in.get("Set-Cookie") and "not known" in text(b.signed_in)
    assert b.post("/sign-in", token="").status == 400
    assert b.post("/sign-in", token="x" * 4097).status == 400
    assert b.post("/sign-in", token="x" * 20000).status == 413
    assert w.ask("POST", "/sign-in", [("Content-Type", "text/plain")], b"token=x").status == 415
    assert b.post("/sign-in", fields=[("Origin", "http://evil.example")], token=WRITE).status == 403
    assert "xxxx" not in w.router.log()


def test_guesses_are_slowed_down_and_shut_out_nobody_else(start):
    w = World(start, admin={"https": True})
    b = Browser(w)

    def sign_in(token, address):
        return b.post("/sign-in", [("Origin", "https://" + w.host), ("X-Forwarded-For", address)], token=token).status
    statuses = [sign_in("guess-%d" % i, "198.51.100.7") for i in range(30)]
    assert statuses[:20] == [401] * 20 and statuses[20:] == [429] * 10
    assert sign_in(OTHER, "198.51.100.7") == 429  # not even a right one that was never seen: the answer tells nothing
    assert sign_in(WRITE, "198.51.100.7") == 303  # who was here before is let in
    assert sign_in(OTHER, "203.0.113.9") == 303
    assert b.get("/healthz").status == 200


def test_many_sign_ins_displace_only_their_own(start):
    w = World(start)
    mine, others = Browser(w), [Browser(w, OTHER) for _ in range(40)]
    assert "Signed in as alice" in text(mine.get("/move"))
    assert others[-1].get("/move").status == 200 and others[0].get("/move").status == 303


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("values, why", [
    ({"command": "drop", "flag": FLAG}, "command"), ({"command": "set", "flag": FLAG}, "percent"), ({"command": "set", "percent": 5}, "flag"),
    ({"command": "set", "flag": FLAG, "percent": 101}, "percent"), ({"command": "set", "flag": FLAG, "percent": "1e1"}, "percent"),
    ({"command": "set", "flag": "x" * 200, "percent": 1}, "flag"), ({"command": "rollback", "flag": FLAG, "percent": 1}, "percent"),
    ({"command": "rollback", "flag": FLAG, "colour": "red"}, "colour"), ({"command": "set", "flag": FLAG + "\u0007", "percent": 1}, "flag"),
])
def test_what_is_not_understood_is_refused_by_name(shared, values, why):
    answer = shared.bearer("/_admin/move/plan", **values)
    assert answer.status == 400 and why in json.loads(answer.body)["error"], answer.body


@pytest.mark.parametrize("query, body, why", [
    ("", b'{"command": "set", "flag": "%s", "percent": 10, "percent": 100}', "percent is given twice"),
    ("", b'{"command": "set", "flag": "%s", "flag": "another", "percent": 10}', "flag is given twice"),
    ("?percent=99", b'{"command": "set", "flag": "%s", "percent": 10}', "percent"),
])
def test_a_value_given_twice_changes_nothing(shared, query, body, why):
    """Which of the two was meant nobody knows."""
    answer = shared.ask("POST", "/_admin/move/plan" + query, [("Authorization", "Bearer " + WRITE), ("Content-Type", "application/json")],
                        body % FLAG.encode())
    assert answer.status == 400 and why in json.loads(answer.body)["error"], answer.body


@pytest.mark.parametrize("more", ["&token=x", "&next=/&next=/move", "&colour=red"])
def test_a_sign_in_with_more_than_it_knows_is_refused(shared, more):
    answer = shared.ask("POST", "/sign-in", [("Content-Type", "application/x-www-form-urlencoded")], ("token=%s%s" % (WRITE, more)).encode())
    assert answer.status == 400 and not answer.get("Set-Cookie"), answer.body


def test_a_flags_file_that_is_a_named_pipe_holds_up_nobody(start):
    """Whoever opens one waits for a writer: neither a plan nor the thread that serves everybody may."""
    w = World(start)
    path = os.path.join(w.folder, "flags.yml")
    os.mkfifo(path + ".pipe")
    os.rename(path + ".pipe", path)
    answer = w.bearer("/_admin/move/plan", command="set", flag=FLAG, percent=50)
    assert answer.status >= 400 and "named pipe" in json.loads(answer.body)["error"], answer.body
    w.router.wait_event("flags_refresh_failed")
    assert w.ask("GET", "/healthz").status == 200
    assert w.post_as("anyone").status == 200  # by the last good flags
    w.router.stop()


def test_a_flags_file_that_someone_has_locked_is_told_and_holds_up_no_end(start):
    w = World(start)
    plan = w.plan(command="set", flag=FLAG, percent=50)
    with open(os.path.join(w.folder, "flags.yml"), encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        values = {"command": "set", "flag": FLAG, "percent": 50, "message": "up", "digest": plan["digest"]}
        answer = w.bearer("/_admin/move/apply", **values)
        assert answer.status == 503 and "locked" in json.loads(answer.body)["error"], answer.body
        assert w.percentage() == 25

        def ask_again():
            with contextlib.suppress(Cut):  # it may end before it answers
                w.bearer("/_admin/move/apply", **values)
        asking = threading.Thread(target=ask_again, daemon=True)
        asking.start()
        w.router.stop(10)
        asking.join()


def test_a_place_that_is_gone_is_not_a_flag_that_is_not_there(start):
    w = World(start)
    os.rename(w.router.flags_path, w.router.flags_path + ".gone")
    answer = w.bearer("/_admin/move/plan", command="set", flag=FLAG, percent=50)
    assert answer.status == 503 and "flags.yml" in json.loads(answer.body)["error"], answer.body
    os.rename(w.router.flags_path + ".gone", w.router.flags_path)
    assert w.plan(command="set", flag=FLAG, percent=50)["digest"]


def test_a_change_that_the_flag_does_not_take_is_told(shared):
    w = shared
    for values, status in (({"flag": "nothing", "percent": 5}, 404), ({"flag": FLAG, "percent": 5.5}, 422)):
        answer = w.bearer("/_admin/move/plan", command="set", **values)
        assert answer.status == status and json.loads(answer.body)["error"], answer.body


@pytest.mark.parametrize("line, why", [("xyz alice", "SHA-256"), ("%s" % ("0" * 64), "name"), ("%s a b" % ("0" * 64), "name"), ("# nobody", "names nobody"),
                                       ("%s a\n%s b" % ("0" * 64, "0" * 64), "listed twice")])
def test_a_list_of_writers_with_a_mistake_is_refused(shared, line, why):
    other = os.path.join(shared.folder, "other.yml")
    shared.write("odd.txt", line + "\n")
    shared.write("other.yml", json.dumps({**shared.config, "admin": {**shared.config["admin"], "writers": "odd.txt"}}))
    told = shared.start.run("migration-router", "check", other)
    assert told.returncode != 0 and "odd.txt" in told.stdout + told.stderr and why in told.stdout + told.stderr, told.stdout + told.stderr
