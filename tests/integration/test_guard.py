"""The guard: a task side that is worse is held within a second, and nothing else is (docs/design.md, "The guard")."""
import hashlib
import hmac
import http.server
import json
import os
import threading
import time

import pytest

import configuration as c
from http_text import wait_until
from programs import free_port
from raw import ask, request

BAD, GOOD = b'{"a": "x", "b": {}}', b'{"a": 1, "b": 2}'  # add_numbers fails for the first


class World:
    """Two operations of which a percentage goes to an embedded worker; who asks with BAD fails there, and with X-Fail on legacy."""

    def __init__(self, start, percentage=50, guard="hold", worker=True, ready="submit", **top):
        self.start, self.origin = start, start.origin()
        self.origin.always(lambda x: x.answer(500 if x.request.head.get("X-Fail") else 200, (), b"legacy"))
        self.folder = str(start.folder())
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": n, "builtin": n} for n in ("echo", "add_numbers")]}, file)
        numbers = {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}], "timeout": "20s"}
        follow = {"group": "g", "key": "query:name"}
        operations = {
            "add": c.operation("POST /add", numbers),
            "begin": c.operation("POST /begin", numbers, pin={**follow, "role": "start"}),
            "look": c.operation("GET /look", {"name": "echo", "kwargs": {"message": "hi"}, "timeout": "20s"},
                                pin={**follow, "role": "follow"}),
        }
        self.config = c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(when_not_ready=ready),
                               identity={"user": ["header:X-User-Id"]}, guard=guard, **top)
        self.router = start.router(self.config, self.flags(percentage), folder=self.folder)
        if worker:
            self.worker = start.worker(self.router)
        self.users = 0

    @staticmethod
    def flags(percentage):
        return c.features(c.boolean("task_abstraction_enabled", False, percentage))

    def post(self, user, body=GOOD, path="/add", fail=False):
        fields = [("X-User-Id", user)] + ([("X-Fail", "1")] if fail else [])
        return ask(self.router.port, request("POST", path, fields, body))

    def somebody(self, body=GOOD, **how):
        """A request of somebody who was not here before."""
        self.users += 1
        return self.post("user-%d" % self.users, body, **how)

    def admin(self, target, method="GET", fields=(), host="service.test"):
        return ask(self.router.admin_port, request(method, target, fields, b"" if method == "POST" else None, host))

    def verdict(self, operation="add"):
        def told():  # not before outcomes.db has been read
            return json.loads(self.admin("/_admin/gate?service=app&operation=" + operation).body).get("operations")
        return wait_until(told, "a verdict")[0]

    def break_it(self, patience=60, path="/add"):
        """BAD requests of ever new users until the guard has said breach; when the last failed that came before."""
        last = None
        for _ in range(patience):
            if self.router.find("guard_breach"):
                return last
            if self.somebody(BAD, path=path).status != 200:
                last = time.time()
        self.router.wait_event("guard_breach")  # the last ones are not in the file yet
        return last

    def wait_held(self, operation="add", held=True):
        return wait_until(lambda: (lambda v: v if v["held"] == held else None)(self.verdict(operation)), "held: %s" % held)

    def everybody_is_legacys(self, n=30, body=BAD):
        for _ in range(n):
            answer = self.somebody(body)
            assert answer.status == 200 and answer.body == b"legacy", answer.body

    def somebody_is_not(self, n=60):
        return any(self.somebody(BAD).status != 200 for _ in range(n))


def seconds(event):
    import datetime
    return datetime.datetime.fromisoformat(event["ts"].replace("Z", "+00:00")).timestamp()


def test_a_failing_task_side_is_held_within_a_second_of_the_evidence(start):
    w = World(start)
    last = w.break_it()
    event = w.router.wait_event("guard_breach", service="app", operation="add", held="True")
    assert abs(seconds(event) - last) < 1
    epoch = w.router.query("SELECT * FROM guard_epochs WHERE operation = 'add' ORDER BY epoch DESC")[0]
    newest = w.router.query("SELECT max(time) AS t FROM attempts WHERE operation = 'add' AND side = 'task'")[0]["t"]
    assert epoch["held_us"] > 0 and newest
    w.everybody_is_legacys()
    rows = w.router.wait_outcomes(5, "reason = 'guard' AND operation = 'add'")
    assert all(r["side"] == "legacy" and r["result"] == "success" for r in rows)
    told = w.verdict()
    assert told["verdict"] == "breach" and told["kinds"]["failure"]["verdict"] == "breach"
    assert told["kinds"]["failure"]["bad_entities"]["task"] >= 7 and told["kinds"]["failure"]["bad_entities"]["legacy"] == 0


def test_the_hold_is_shown_wherever_one_looks(start):
    w = World(start)
    assert w.admin("/_admin/gate").status == 425
    w.break_it()
    w.wait_held()
    answer = w.admin("/_admin/gate?operation=app.add")
    assert answer.status == 503 and json.loads(answer.body)["verdict"] == "breach"
    ready = json.loads(w.admin("/readyz").body)
    assert ready["status"] == "degraded" and ready["guard"]["operations"][0]["held"] is True
    assert any("guard" in what for what in ready["missing"])
    metrics = w.admin("/metrics").body.decode()
    assert 'migration_guard_held{service="app",operation="add"} 1' in metrics
    assert 'migration_guard_verdict{service="app",operation="add",verdict="breach"} 1' in metrics
    assert 'migration_guard_held{service="app",operation="look"} 0' in metrics
    text = start.run("migration-status", "--db", w.router.outcomes_path)
    assert "app.add: breach: the task side is worse: failure" in text.stdout and "held at legacy" in text.stdout
    told = json.loads(start.run("migration-status", "--db", w.router.outcomes_path, "--json").stdout)
    assert told["guard"][0]["verdict"] == "breach" and told["guard"][0]["held"] is True
    assert json.loads(w.admin("/_admin/report.json").body)["guard"][0]["held"] is True
    assert start.run("migration-status", "--db", w.router.outcomes_path, "--gate").returncode == 1
    assert w.admin("/_admin/gate?operation=look").status == 425
    on_task = next(r["user"] for r in w.router.query("SELECT user FROM attempts WHERE side = 'task' AND operation = 'add'"))
    told = start.run("migration-router", "explain", "--config", w.router.config_path, "--service", "app", "--operation", "add", "--user", on_task)
    assert "the guard holds this operation's task side" in told.stdout and "reason     guard" in told.stdout
    assert w.admin("/_admin/gate?operation=nothing").status == 404


def test_the_same_failures_on_both_sides_are_not_held(start):
    w = World(start)
    for n in range(150):
        w.somebody(BAD if n % 3 else GOOD, fail=bool(n % 3))  # two of three fail, wherever they are
    told = w.verdict()
    assert told["verdict"] in ("not_enough_data", "safe") and not told["held"]
    bad = told["kinds"]["failure"]["bad_entities"]
    assert bad["legacy"] > 20 and bad["task"] > 20
    assert not w.router.find("guard_breach") and w.somebody_is_not()


def test_one_busy_customer_decides_for_nobody(start):
    w = World(start)
    answers = [w.post("busy-%d" % (n % 2), BAD).status for n in range(120)]
    assert not w.router.find("guard_breach"), answers
    assert w.verdict()["kinds"]["failure"]["bad_entities"]["task"] <= 2


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_keeps_the_hold(start, end):
    w = World(start)
    w.break_it()
    w.wait_held()
    getattr(w.router, end)()
    w.router = start.router(w.config, folder=w.folder)
    w.everybody_is_legacys()  # from the first one on
    assert w.verdict()["epoch"] == 1 and w.verdict()["held"]


def test_a_takeover_keeps_the_hold_and_learns_of_it(start):
    from programs import Router
    w = World(start)
    w.break_it()
    w.wait_held()
    old, w.config["services"]["app"]["listen"] = w.router, "127.0.0.1:%d" % w.router.port
    w.router = Router(w.folder, w.config, arguments=["--takeover"])
    start.processes.append(w.router)
    assert old.wait() == 0
    w.everybody_is_legacys()
    assert w.verdict()["epoch"] == 1 and w.verdict()["held"]


def test_a_new_split_releases(start):
    w = World(start)
    w.break_it()
    w.wait_held()
    w.router.write_flags(w.flags(40))
    w.router.wait_event("guard_released", operation="add", because="the split changed")
    told = w.wait_held(held=False)
    assert told["epoch"] == 2 and told["verdict"] == "not_enough_data"
    assert told["kinds"]["failure"]["bad_entities"] == {"legacy": 0, "task": 0}
    assert w.somebody_is_not()


def test_a_change_of_another_flag_releases_nothing(start):
    w = World(start)
    w.break_it()
    w.wait_held()
    flags = w.flags(50)
    flags["flags"].append(c.boolean("another", True))
    w.router.write_flags(flags)
    w.router.wait_event("flags_published", count=2)
    w.everybody_is_legacys()
    assert w.verdict()["epoch"] == 1


def test_pinned_follow_up_calls_still_go_to_the_task_side(start):
    w = World(start)
    names = []
    while not names:  # one that began on the task side
        user = "first-%d" % w.users
        w.users += 1
        if w.post(user, GOOD, path="/begin?name=" + user).body != b"legacy":
            names.append((user, user))
    w.break_it(path="/begin?name=other")
    w.wait_held("begin")
    user, name = names[0]
    answer = ask(w.router.port, request("GET", "/look?name=" + name, [("X-User-Id", user)]))
    assert answer.status == 200 and answer.body != b"legacy"
    assert w.router.wait_outcomes(1, "operation = 'look'")[0]["reason"] == "pinned"
    for n in range(20):
        assert w.post("new-%d" % n, GOOD, path="/begin?name=new-%d" % n).body == b"legacy"


def test_release_by_hand_is_a_post_and_needs_what_the_admin_listener_needs(start):
    w = World(start)
    target = "/_admin/guard/release?operation=add&by=ann%0Aforged"
    w.break_it()
    w.wait_held()
    assert w.admin(target).status == 405
    assert w.admin(target, "POST", [("Origin", "http://elsewhere.test")]).status == 403
    assert w.admin(target, "POST", [("Sec-Fetch-Site", "cross-site")]).status == 403
    assert w.admin(target, "POST", [("Origin", "http://localhost:1")]).status == 403, "another program of this machine"
    assert w.admin(target + "&operation=look", "POST").status == 400
    assert b"unknown parameter" in w.admin(target + "&bogus=1", "POST").body
    assert w.admin("/_admin/gate?operatoin=add").status == 400, "it would judge all of them"
    assert w.admin("/_admin/report.json?since=1h&since=2h").status == 400
    assert w.admin("/_admin/guard/release", "POST").status == 400
    assert w.admin("/_admin/guard/release?operation=nothing", "POST").status == 404
    assert w.verdict()["held"] and w.verdict()["epoch"] == 1
    own = "localhost:%d" % w.router.admin_port
    assert w.admin(target, "POST", [("Origin", "http://" + own)], own).status == 202
    told = w.wait_held(held=False)
    assert told["epoch"] == 2 and told["began_because"].startswith("released manually: ann")
    assert "\n" not in told["began_because"]
    assert w.somebody_is_not()


def test_a_release_asks_for_the_token(start):
    reads, token, folder = "r" * 32, "t" * 32, start.folder()
    (folder / "tokens").write_text(c.sha256(reads) + "\n")
    (folder / "writers").write_text(c.sha256(token) + " ann\n")
    w = World(start, admin={"listen": "127.0.0.1:%d" % free_port(), "hosts": ["service.test"], "auth": "bearer",
                            "tokens": str(folder / "tokens"), "writers": str(folder / "writers")})
    assert w.admin("/_admin/guard/release?operation=add", "POST").status == 401
    assert w.admin("/_admin/gate?operation=add").status == 401
    assert w.admin("/_admin/gate?operation=add", fields=[("Authorization", "Bearer " + reads)]).status in (200, 425)
    assert w.admin("/_admin/guard/release?operation=add", "POST", [("Authorization", "Bearer " + reads)]).status == 403
    assert w.admin("/_admin/guard/release?operation=add", "POST", [("Authorization", "Bearer " + token)]).status in (202, 425)


def test_watch_only_watches(start):
    w = World(start, guard={"on_breach": "watch"})
    w.break_it()
    assert w.router.wait_event("guard_breach")["held"] in (False, "False", "false")
    assert w.somebody_is_not()
    told = w.verdict()
    assert told["verdict"] == "breach" and not told["held"]
    w.config["guard"] = "hold"  # told to act after all
    w.router.write_config(w.config)
    w.router.signal(1)
    w.wait_held()
    w.everybody_is_legacys()


def test_an_operation_may_say_it_otherwise(start):
    w = World(start, guard="hold")
    w.config["services"]["app"]["operations"]["begin"]["guard"] = "watch"
    w.router.write_config(w.config)
    w.router.signal(1)
    wait_until(lambda: w.verdict("begin")["mode"] == "watch", "the new configuration")
    assert w.verdict()["mode"] == "hold" and w.verdict("begin")["epoch"] == 1  # what a breach does is no new question
    w.break_it(path="/begin?name=n")
    assert not w.verdict("begin")["held"]


def test_a_share_that_is_not_what_it_says_is_named(start):
    w = World(start, worker=False, ready="legacy")  # nobody runs the tasks, so that legacy serves all
    wait_until(lambda: json.loads(w.admin("/readyz").body).get("not_ready"), "a backend that is not ready")
    for _ in range(60):
        assert w.somebody().status == 200
    wait_until(lambda: w.router.find("guard_share_mismatch", operation="add") or (w.somebody() and None), "a mismatch")
    told = w.verdict()
    assert told["verdict"] == "share_mismatch" and "backend_not_ready" in told["share"]["reason"]
    assert told["share"]["expected"] == 0.5 and told["share"]["seen"] < 0.1
    assert w.admin("/_admin/gate?operation=add").status == 425
    assert start.run("migration-status", "--db", w.router.outcomes_path, "--gate").returncode == 3


def test_a_safe_operation_passes_the_gate(start):
    w = World(start, guard={"on_breach": "hold", "negligible": 20, "slow": "off"})
    assert w.admin("/_admin/gate?operation=add").status == 425
    for _ in range(120):
        w.somebody()
    wait_until(lambda: w.admin("/_admin/gate?operation=add").status == 200, "safe")
    answer = json.loads(w.admin("/_admin/gate?operation=add").body)
    assert answer["verdict"] == "safe"
    wait_until(lambda: start.run("migration-status", "--db", w.router.outcomes_path, "--gate").returncode == 0, "the worker to be noticed")
    w.router.wait_event("guard_safe", operation="add")


class Hook:
    """Somebody who is told: refuses the first, and keeps what came."""

    def __init__(self):
        hook = self
        self.came, self.changed = [], threading.Condition()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with hook.changed:
                    hook.came.append((dict(self.headers), body))
                    hook.changed.notify_all()
                    self.send_response(503 if len(hook.came) == 1 else 204)
                self.end_headers()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/hook" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.came) >= n, 30), self.came
            return self.came[:n]


def test_the_webhook_is_signed_and_tried_again(start):
    hook, secret = Hook(), "s" * 32
    folder = str(start.folder())
    path = os.path.join(folder, "secret")
    with open(path, "w", encoding="ascii") as file:
        file.write(secret + "\n")
    w = World(start, guard={"on_breach": "hold", "webhook": {"url": hook.url, "secret_file": path}})
    w.break_it()
    first, second = hook.wait(2)
    assert first[1] == second[1]
    for headers, body in (first, second):
        signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert headers["X-Migration-Signature"] == "sha256=" + signed
    told = json.loads(first[1])
    assert told["event"] == "breach" and len(told["id"]) == 64
    assert told["guard"]["operation"] == "add" and told["guard"]["held"] is True
    assert w.router.wait_event("webhook_delivered")["attempts"] in (2, "2")
    assert secret not in w.router.log()
    hook.server.shutdown()


def test_evidence_survives_a_kill_and_nobody_counts_twice(start):
    w = World(start, percentage=25)
    failed = 0
    while failed < 3:
        failed += w.somebody(BAD).status != 200
    before = wait_until(lambda: (lambda v: v if v["kinds"]["failure"]["bad_entities"]["task"] == 3 else None)(w.verdict()), "three")
    w.router.kill()
    w.router = start.router(w.config, folder=w.folder)
    after = w.verdict()
    assert after["kinds"]["failure"] == before["kinds"]["failure"] and after["entities"] == before["entities"]
    for n in range(1, w.users + 1):
        w.post("user-%d" % n, BAD)
    w.router.wait_outcomes(2 * w.users, "operation = 'add'")
    assert w.verdict()["kinds"]["failure"]["bad_entities"]["task"] == 3


def test_an_unreadable_database_holds_what_a_percentage_decided_and_nothing_else(start):
    w = World(start)
    w.break_it()
    w.wait_held()
    w.router.stop()
    for name in os.listdir(os.path.join(w.folder, "data")):
        if name.startswith("outcomes.db-"):
            os.unlink(os.path.join(w.folder, "data", name))
    with open(w.router.outcomes_path, "wb") as file:
        file.write(b"no database at all" * 1000)
    w.router = start.router(w.config, folder=w.folder)
    w.router.wait_event("guard_unknown")
    assert w.router.find("guard_held") == [], "nobody knows that"
    w.everybody_is_legacys()
    w.router.write_flags(c.features(c.boolean("task_abstraction_enabled", True)))  # at 100 % legacy may be gone
    w.router.wait_event("flags_published", count=2)
    wait_until(lambda: w.somebody(BAD).status != 200, "the task side")


@pytest.mark.parametrize("guard,sentence", [
    ("sometimes", "guard: expected"),
    ({"on_breach": "hold", "alpha": 50}, "guard.alpha: expected a percentage from 0.0001 to 20, not \"50\""),
    ({"harm": 1.05}, "guard.harm: harm 1.05 must exceed what is tolerated"),
    ({"webhook": {"url": "http://127.0.0.1:1/"}}, "guard.webhook.secret_file: missing"),
    ({"on_break": "hold"}, "on_break"),
])
def test_mistakes_in_the_configuration_are_named(start, guard, sentence):
    folder = start.folder()
    config = c.router({"app": c.service("http://127.0.0.1:1", {"add": c.operation("POST /add", {"name": "add"})})}, backends=c.embedded(None),
                      guard=guard)
    (folder / "flags.yml").write_text(json.dumps(c.features()))
    (folder / "router.yml").write_text(json.dumps(config))
    result = start.run("migration-router", "check", str(folder / "router.yml"))
    assert result.returncode != 0 and sentence in result.stdout + result.stderr, result.stdout + result.stderr
