"""migration-status --drain over what real routers recorded: every number is what SQLite says, and silence is never taken for peace."""
import contextlib
import json
import os
import shutil
import sqlite3
import time

import pytest

import configuration as c
from http_text import wait_until
from raw import ask, request
from test_pins import RUNNING, World

FLAG = "task_abstraction_enabled"
DAY_US = 86400 * 10**6


def drain(start, router, *arguments):
    told = start.run("migration-status", "--db", router.outcomes_path, "--drain", *arguments)
    assert not told.stderr or told.returncode in (2, 3), told.stderr
    return told.returncode, told.stdout + told.stderr


def drained(start, router, *arguments):
    told = start.run("migration-status", "--db", router.outcomes_path, "--json", "--drain", *arguments)
    report = json.loads(told.stdout)
    assert told.returncode == {"drained": 0, "used": 1, "not enough data": 3}[report["verdict"]]
    return report


def when(us):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(us // 10**6)) + ".%03dZ" % (us // 1000 % 1000)


def change(router, *statements):
    with contextlib.closing(sqlite3.connect(router.outcomes_path, timeout=10)) as db, db:
        for sql in statements:
            db.execute(*((sql,) if isinstance(sql, str) else sql))


def shift(router, days):
    """What was recorded becomes older than it is; a router was there since, and before."""
    change(router, ("UPDATE rollups SET minute = minute - ?", (days * 1440,)),
           ("UPDATE last_seen SET time_us = time_us - ?", (days * DAY_US,)),
           ("UPDATE unmapped SET day = day - ?, last_us = last_us - ?, last_found_us = last_found_us - ?",
            (days, days * DAY_US, days * DAY_US)),
           ("UPDATE outcomes SET time_us = time_us - ?", (days * DAY_US,)))


def present_for(router, days):
    change(router, ("UPDATE presence SET began_us = began_us - ?", (days * DAY_US,)))


def add(path="/add", **sections):
    return c.operation("POST " + path, {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}, identity=c.IDENTITY,
                       **sections)


def both_sides(start, operations=None, **backends):
    origin = start.origin()
    settings = c.router({"prompt": c.service(origin, operations or {"answer": add()})}, backends=c.embedded(tasks=None, **backends))
    router, worker = start.with_worker(settings, c.features(c.boolean(FLAG, False)))
    return router, worker, origin


def call(router, n, path="/add", organization="acme", body=b'{"a": 1, "b": 1}'):
    return [ask(router.port, request("POST", path, [("X-Organization-Id", organization)], body)).status for _ in range(n)]


def to_tasks(router):
    router.write_flags(c.features(c.boolean(FLAG, True)))
    router.wait_event("flags_published", count=2)


# --- the verdict ---------------------------------------------------------------------------------------------------------

def test_every_number_is_what_sqlite_says(start):
    router, _, _ = both_sides(start)
    assert set(call(router, 7)) == {200} and set(call(router, 3, organization="umbrella")) == {200}
    router.wait_outcomes(10)
    present_for(router, 20)
    last = router.query("SELECT o.time_us, a.* FROM attempts a JOIN outcomes o ON o.id = a.id WHERE side = 'legacy'"
                        " ORDER BY time_us DESC LIMIT 1")[0]
    report = drained(start, router)
    service, = report["services"]
    operation, = service["operations"]
    assert report["verdict"] == "used" and service["uses"] == operation["uses"] == 10
    assert operation["reasons"] == {row["reason"]: row["n"] for row in
                                    router.query("SELECT reason, count(*) AS n FROM attempts GROUP BY reason")}
    told = operation["last"]
    assert told["organization"] == last["organization"] == "umbrella" and told["exact"]
    assert (told["time"], told["reason"], told["role"], told["result"]) == (when(last["time_us"]), last["reason"], last["role"], last["result"])
    code, text = drain(start, router, "--service", "prompt")
    assert code == 1 and text.startswith("legacy prompt is still used: 10 times, last ")
    assert "by organization umbrella" in " ".join(text.split())
    assert max(map(len, text.split("\n"))) <= 80, text


def test_nothing_has_used_legacy_for_14_days(start):
    router, _, _ = both_sides(start)
    assert set(call(router, 5)) == {200}
    router.wait_outcomes(5)
    shift(router, 15)
    present_for(router, 20)
    to_tasks(router)
    assert set(call(router, 4)) == {200}
    router.wait_outcomes(4, "side = 'task'")
    code, text = drain(start, router)
    assert code == 0 and text.startswith("nothing has used legacy prompt for 14 days\n"), text
    operation, = drained(start, router)["services"][0]["operations"]
    assert operation["uses"] == 0 and operation["last"]["organization"] == "acme" and operation["uses_of_other_side"] == 4
    code, text = drain(start, router, "--since", "16d")
    assert code == 1 and "still used: 5 times, last 15 days ago" in text, text


def test_records_that_do_not_reach_back_are_said(start):
    router, _, _ = both_sides(start)
    to_tasks(router)
    assert set(call(router, 4)) == {200}
    router.wait_outcomes(4)
    present_for(router, 3)
    code, text = drain(start, router)
    assert code == 3 and "records reach back only 3 days, 14 days are required" in " ".join(text.split()), text
    assert drain(start, router, "--since", "2d")[0] == 0
    shift(router, 4)  # the records of the sums do not count for presence: nothing passed in two days
    code, text = drain(start, router, "--since", "2d")
    assert code == 3 and "no call of it has passed the router" in " ".join(text.split()), text
    assert drain(start, router, "--since", "2d", "--idle-ok")[0] == 0


def test_silence_while_no_router_ran_is_no_peace(start):
    router, _, _ = both_sides(start)
    to_tasks(router)
    assert set(call(router, 4)) == {200}
    router.wait_outcomes(4)
    now = int(time.time() * 10**6)
    router.stop()
    change(router, "DELETE FROM presence", ("INSERT INTO presence VALUES (?, ?), (?, ?)",
                                            (now - 20 * DAY_US, now - 5 * DAY_US, now - 5 * DAY_US + 2 * 3600 * 10**6, now)))
    code, text = drain(start, router)
    assert code == 3 and "for 2 hours of this span no router recorded" in " ".join(text.split()), text
    assert drain(start, router, "--max-gap", "3h")[0] == 0
    report = drained(start, router)
    assert report["records"]["gap_seconds"] == 7200 and len(report["records"]["gaps"]) == 1


def test_a_router_that_has_gone_is_missed(start):
    router, _, _ = both_sides(start)
    to_tasks(router)
    assert set(call(router, 4)) == {200}
    router.wait_outcomes(4)
    router.stop()
    change(router, "UPDATE presence SET began_us = began_us - %d, seen_us = seen_us - %d" % (20 * DAY_US, 7200 * 10**6))
    assert drain(start, router)[0] == 3


def test_an_idle_router_is_present(start):
    """It says so by itself, with nothing to record."""
    router = start.router(c.passing(start.origin()))
    router.wait_event("ready")
    first, = wait_until(lambda: router.query("SELECT * FROM presence"), "presence")
    assert not router.query("SELECT * FROM attempts")
    router.stop()
    again = start.router(router.config, folder=router.folder)
    ask(again.port, request())
    again.wait_outcomes(1)
    rows = again.query("SELECT * FROM presence")  # a restart is no gap
    assert len(rows) == 1 and rows[0]["began_us"] == first["began_us"] and rows[0]["seen_us"] > first["seen_us"]


def test_dropped_outcomes_keep_the_verdict_from_peace(start):
    router, _, _ = both_sides(start)
    to_tasks(router)
    assert set(call(router, 4)) == {200}
    router.wait_outcomes(4)
    present_for(router, 20)
    assert drain(start, router)[0] == 0
    change(router, "INSERT INTO drops VALUES (%d, 3)" % (time.time() // 60))
    code, text = drain(start, router)
    assert code == 3 and "3 outcomes were dropped in this span" in " ".join(text.split()), text


def test_what_the_router_refused_itself_is_no_use_of_legacy(start):
    origin = start.origin()
    settings = c.router({"prompt": c.service(origin, {"answer": add(auth="bearer")})}, backends=c.embedded(tasks=None), tokens="tokens.txt")
    folder = start.folder()
    (folder / "tokens.txt").write_text(c.sha256("a token that nobody has") + "\n")
    router = start.router(settings, c.features(c.boolean(FLAG, True)), folder=folder)
    assert set(call(router, 3)) == {401}
    router.wait_outcomes(3)
    present_for(router, 20)
    assert drained(start, router)["verdict"] != "used"


# --- what falls back -----------------------------------------------------------------------------------------------------

def test_what_falls_back_still_uses_legacy(start):
    """A task that fails, where the operation may be run twice, is left to legacy."""
    operation = add()
    operation["task"]["idempotent"] = True
    router, _, _ = both_sides(start, {"answer": operation})
    to_tasks(router)
    assert set(call(router, 2)) == {200}
    assert set(call(router, 3, body=b'{"a": "x", "b": 1}')) == {200}
    rows = router.wait_outcomes(2 + 3 * 2)
    present_for(router, 20)
    assert len([row for row in rows if (row["side"], row["role"]) == ("legacy", "fallback")]) == 3
    report = drained(start, router)
    operation, = report["services"][0]["operations"]
    assert report["verdict"] == "used" and operation["uses"] == 3
    assert (operation["fallbacks"], operation["fallback_reasons"], operation["task_gave_up"]) == (3, {"flag": 3}, {"failure": 3})
    assert operation["last"]["role"] == "fallback" and "fell back" in report["sentence"]


# --- unmapped ------------------------------------------------------------------------------------------------------------

def test_unmapped_calls_are_told_as_patterns_without_identities(start):
    router, _, origin = both_sides(start)
    to_tasks(router)
    assert set(call(router, 1)) == {200}
    secret = ("alice", "4711", "bob%40example.org", "f47ac10b-58cc-4372-a567-0e02b2c3d479")
    for name in secret:
        ask(router.port, request("GET", "/api/v1/users/%s/settings?token=hush" % name))
    origin.answers(404)
    ask(router.port, request("GET", "/wp-login.php"))
    router.wait_outcomes(6)
    present_for(router, 20)
    service, = drained(start, router)["services"]
    assert [(p["method"], p["pattern"], p["count"], p["not_found"]) for p in service["unmapped"]] == [
        ("GET", "/wp-login.php", 1, 1), ("GET", "/api/v1/users/{id}/settings", 4, 0)]
    assert service["verdict"] == "used"
    last = router.query("SELECT max(o.time_us) AS us FROM outcomes o JOIN attempts a ON a.id = o.id WHERE a.http_status = 200"
                        " AND operation = '(unmapped)'")[0]["us"]
    assert service["unmapped"][1]["last"] == when(last)
    told = json.dumps(router.query("SELECT * FROM unmapped"))
    assert not any(name in told for name in (*secret, "hush"))


def test_unmapped_calls_that_legacy_does_not_know_are_no_use(start):
    router, _, origin = both_sides(start)
    to_tasks(router)
    assert set(call(router, 1)) == {200}
    origin.answers(404)
    ask(router.port, request("GET", "/.env"))
    ask(router.port, request("GET", "/robots.txt"))
    router.wait_outcomes(3)
    present_for(router, 20)
    code, text = drain(start, router)
    assert code == 0 and "/robots.txt: 1, last " in text and "always 404" in text, text
    assert " ".join(text.split()).startswith("nothing has used legacy prompt for 14 days, except for 2 calls to unmapped paths that it answered with 404")


def test_patterns_are_bounded_and_the_others_counted(start):
    """Whoever makes up paths fills no disk; what is called often stays to be seen."""
    router = start.router(c.passing(start.origin()))
    letters = "abcdefghijklmnopqrst"
    paths = ["/%s%s" % (a, b) for a in letters for b in letters][:300]
    for _ in range(3):
        ask(router.port, request("GET", "/frequent"))
    for path in paths:
        ask(router.port, request("GET", path))
    router.wait_outcomes(303)
    rows = router.query("SELECT * FROM unmapped")
    assert len(rows) == 201 and sum(row["count"] for row in rows) == 303
    assert [row["count"] for row in rows if row["pattern"] == "/frequent"] == [3]
    assert [row["count"] for row in rows if row["pattern"] == "(other)"] == [101]


def test_many_names_at_one_place_are_one_pattern(start):
    router = start.router(c.passing(start.origin()))
    names = ["anna", "bert", "carl", "dora", "emil", "finn", "gert", "hanna", "ina", "jana", "karl", "lena", "mona", "nora", "olga", "paul",
             "quin", "rosa"]
    for name in names:
        ask(router.port, request("GET", "/greet/%s/now" % name))
    router.wait_outcomes(len(names))
    rows = router.query("SELECT pattern, count FROM unmapped")
    assert [(row["pattern"], row["count"]) for row in rows] == [("/greet/{name}/now", len(names))]


# --- the task side, before a rollback --------------------------------------------------------------------------------------

def test_what_is_pinned_to_the_task_side_is_told_while_the_router_runs(start):
    world = World(start).serve(100)
    assert world.run("one") == RUNNING and world.run("two") == RUNNING
    world.router.wait_outcomes(2)
    present_for(world.router, 20)
    shift(world.router, 15)
    report = drained(start, world.router, "task")
    assert report["verdict"] == "used" and report["services"][0]["uses"] == 0
    held, = report["ledger"]["entries"]
    assert (held["what"], held["backend"], held["count"]) == ("pins of group container", "embedded", 2)
    with contextlib.closing(sqlite3.connect(os.path.join(world.router.folder, "data", "ledger.db"))) as db:
        assert db.execute("SELECT count(*) FROM entries WHERE \"group\" = 'container'").fetchone() == (2,)
    assert drained(start, world.router)["ledger"] is None  # legacy has no entries
    assert drained(start, world.router, "task", "--group", "container")["ledger"]["entries"] == [held]
    assert drained(start, world.router, "task", "--group", "of-another-service", "--idle-ok")["verdict"] == "drained"
    assert world.call("DELETE", "remove", {"container_name": "one"}).status == 200
    world.router.wait_outcomes(3)
    report = drained(start, world.router, "task", "--since", "1h")
    assert report["services"][0]["uses"] == 1 and report["services"][0]["last"]["reason"] == "pinned"


def test_a_keyed_call_that_has_not_ended_needs_the_task_side(start):
    router, _, _ = both_sides(start)
    assert set(call(router, 2)) == {200}
    router.wait_outcomes(2)
    present_for(router, 20)
    assert drain(start, router, "task")[0] == 0
    with contextlib.closing(sqlite3.connect(os.path.join(router.folder, "data", "ledger.db"), timeout=10)) as db, db:
        for key, side, phase in (("running", 0, 1), ("ended", 0, 2), ("legacys", 1, 1)):
            db.execute("INSERT INTO claims VALUES (?, 'scope', 'f', 't', ?, ?, 'embedded', 'id', ?, ?, 0, 0, NULL, NULL, 0)",
                       (key, side, phase, int(time.time() * 10**6), DAY_US))
    report = drained(start, router, "task")
    held, = report["ledger"]["entries"]
    assert report["verdict"] == "used" and (held["what"], held["count"]) == ("calls with an Idempotency-Key whose task has not ended", 1)


def test_a_ledger_that_cannot_be_read_is_no_empty_one(start, tmp_path):
    router, _, _ = both_sides(start)
    assert set(call(router, 2)) == {200}
    router.wait_outcomes(2)
    present_for(router, 20)
    code, text = drain(start, router, "task")
    assert code == 0 and text.startswith("nothing has used task prompt for 14 days\n"), text
    code, text = drain(start, router, "task", "--ledger", str(tmp_path / "none.db"))
    assert code == 3 and "none.db" in text, text
    alone = tmp_path / "outcomes.db"
    router.stop()
    code, text = drain(start, router, "task")  # such as one of before state was in a Redis
    assert code == 3 and "no running router uses" in text, text
    shutil.copy(router.outcomes_path, alone)
    told = start.run("migration-status", "--db", alone, "--drain", "task")
    assert told.returncode == 3 and "--ledger" in told.stdout, told.stdout


# --- arguments, other versions -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", (["prompt"], ["--gate"], ["--csv"], ["--until", "1h"], ["--org", "acme"], ["--ledger", "x"], ["legacy", "--group", "x"], ["--max-gap", "soon"],
                                       ["--since", "yesterday"]))
def test_what_does_not_fit_is_usage(start, arguments):
    told = start.run("migration-status", "--drain", *arguments)
    assert told.returncode == 2 and told.stderr.startswith("migration-status: ") and not told.stdout


def test_nothing_to_read_is_not_enough_data(start):
    told = start.run("migration-status", "--db", "/nonexistent/outcomes.db", "--drain")
    assert told.returncode == 3 and "/nonexistent/outcomes.db" in told.stderr


def test_a_service_that_nobody_knows_is_not_drained(start):
    router, _, _ = both_sides(start)
    assert set(call(router, 1)) == {200}
    router.wait_outcomes(1)
    present_for(router, 20)
    code, text = drain(start, router, "--service", "promt")
    assert code == 3 and "nothing was ever recorded of service promt" in " ".join(text.split()), text


def older(router):
    """As a router of before has left the file."""
    change(router, "DROP TABLE presence", "DROP TABLE last_seen", "DROP TABLE unmapped")


def test_a_file_of_an_older_router_is_read_and_taken_over(start):
    router, _, _ = both_sides(start)
    assert set(call(router, 5)) == {200}
    router.wait_outcomes(5)
    router.stop()
    older(router)
    report = drained(start, router)
    assert report["verdict"] == "used" and report["services"][0]["uses"] == 5 and not report["services"][0]["last"]["exact"]
    again = start.router(router.config, c.features(c.boolean(FLAG, True)), folder=router.folder)
    start.worker(again)
    assert set(call(again, 1)) == {200}
    again.wait_outcomes(6)
    assert again.query("SELECT count(*) AS n FROM last_seen")[0]["n"] == again.query("SELECT count(*) AS n FROM series")[0]["n"]
    assert drained(start, again)["services"][0]["operations"][0]["last"]["time"] is not None


def test_what_an_older_router_records_beside_a_newer_one_counts(start):
    """It writes sums and no last_seen."""
    router, _, _ = both_sides(start)
    to_tasks(router)
    assert set(call(router, 2)) == {200}
    router.wait_outcomes(2)
    present_for(router, 20)
    assert drain(start, router)[0] == 0
    router.stop()
    minute = int(time.time() // 60) - 90
    change(router, "INSERT INTO series (id, service, operation, side, backend, role, reason, result, answered) VALUES"
                   " (77, 'prompt', 'answer', 'legacy', '', 'primary', 'flag', 'success', 1)",
           "INSERT INTO rollups VALUES (%d, 77, 3, 10, x'')" % minute)
    report = drained(start, router)
    assert report["verdict"] == "used" and report["services"][0]["uses"] == 3 and not report["services"][0]["last"]["exact"]


# --- several routers -----------------------------------------------------------------------------------------------------

def several(start, *sources, arguments=(), side="legacy"):
    told = start.run("migration-status", *[x for s in sources for x in s], "--drain", side, "--json", *arguments)
    return told.returncode, json.loads(told.stdout) if told.stdout else None, told.stderr


def by_file(router):
    return "--db", router.outcomes_path


def by_router(router):
    return "--router", "http://127.0.0.1:%d" % router.admin_port


def test_several_routers_are_drained_when_each_of_them_is_and_however_they_are_asked(start):
    one, _, _ = both_sides(start)
    other, _, _ = both_sides(start)
    for router in (one, other):
        assert set(call(router, 5)) == {200}
        router.wait_outcomes(5)
        shift(router, 15)
        present_for(router, 20)
        to_tasks(router)
        assert set(call(router, 4)) == {200}
        router.wait_outcomes(4, "side = 'task'")
    for sources in ((by_file(one), by_file(other)), (by_router(one), by_router(other)), (by_router(one), by_file(other)), (by_router(one),)):
        code, report, wrong = several(start, *sources)
        assert code == 0 and report["sentence"] == "nothing has used legacy prompt for 14 days", (report, wrong)
        operation, = report["services"][0]["operations"]
        assert (operation["uses"], operation["uses_of_other_side"]) == (0, 4 * len(sources))
    code, report, _ = several(start, by_file(one), by_router(other), arguments=("--since", "16d"))
    operation, = report["services"][0]["operations"]
    assert code == 1 and operation["uses"] == 10 and operation["reasons"] == {"flag_off": 10}, "added up"
    last = max(r.query("SELECT max(time_us) AS t FROM last_seen")[0]["t"] for r in (one, other) for _ in (0,))
    assert operation["last"]["time"] <= when(last)
    assert ask(other.port, request("GET", "/elsewhere", [("X-Organization-Id", "umbrella")])).status == 200
    other.wait_outcomes(1, "operation = '(unmapped)'")
    code, report, _ = several(start, by_router(one), by_router(other))
    assert code == 1 and "still used: 1 time" in report["sentence"], "one use at one of them"
    assert [(u["method"], u["pattern"], u["count"]) for u in report["services"][0]["unmapped"]] == [("GET", "/elsewhere", 1)]
    assert several(start, by_router(one), by_file(one))[2].count("is listed twice") == 1


def test_a_router_that_cannot_be_read_or_was_not_there_means_no_verdict_of_unused(start):
    one, _, _ = both_sides(start)
    other, _, _ = both_sides(start)
    for router in (one, other):
        to_tasks(router)
        assert set(call(router, 4)) == {200}
        router.wait_outcomes(4)
        present_for(router, 20)
    assert several(start, by_file(one), by_router(other))[0] == 0
    change(other, "UPDATE presence SET began_us = began_us + %d" % (17 * DAY_US))
    code, report, _ = several(start, by_file(one), by_router(other))
    assert code == 3 and by_router(other)[1] + ": records reach back only 3 days" in report["sentence"], report
    present_for(other, 17)
    change(other, ("INSERT INTO drops VALUES (?, 2)", (int(time.time()) // 60 - 60,)))
    code, report, _ = several(start, by_file(one), by_file(other))
    assert code == 3 and "2 outcomes were dropped" in report["sentence"] and report["records"]["dropped"] == 2
    change(other, "DELETE FROM drops")
    assert several(start, by_file(one), by_file(other))[0] == 0
    other.kill()
    code, report, wrong = several(start, by_file(one), by_router(other))
    assert code == 3 and report is None and by_router(other)[1] in wrong, "never the sum of those that are left"
    code, report, wrong = several(start, by_file(one), ("--db", "/nowhere/outcomes.db"))
    assert code == 3 and report is None and "/nowhere/outcomes.db" in wrong
    code, report, _ = several(start, by_file(one), by_file(other), arguments=("--since", "7d"))
    assert code == 0
    for arguments in (("--ledger", "x"), ("--group", "g", *by_router(one))):
        assert several(start, by_file(one), by_file(other), arguments=arguments, side="task")[0] == 2


def test_what_is_left_on_the_task_side_is_everybodys(start):
    world = World(start).serve(100)
    assert world.run("x") == RUNNING
    other, _, _ = both_sides(start)
    code, report, wrong = several(start, by_router(world.router), by_router(other), side="task")
    assert report, wrong
    held = report["ledger"]
    assert code == 1 and [(h["what"], h["count"]) for h in held["entries"]] == [("pins of group container", 1)], wrong
    assert held["error"] is None
    mixed = several(start, by_router(world.router), by_file(other), side="task")
    assert mixed[1]["ledger"]["entries"] == held["entries"]
    refused = ask(other.admin_port, request("GET", "/_admin/drain.json?side=both"))
    assert refused.status == 400 and ask(other.admin_port, request("GET", "/_admin/drain.json?sid=task")).status == 400
