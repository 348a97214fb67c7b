"""Which side serves: by the flags file, its change while running, its breakage, and the override."""
import json
import os
import re

import pytest

import configuration as c
from http_text import wait_until
from programs import write_atomically
from raw import Client, ask, request

SECRET = "let-me-choose"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}


def config(origin, **sections):
    operations = {
        "echo": c.operation("POST /echo", ECHO, identity=c.IDENTITY),
        "plain": {"match": "GET /plain/{thing}"},
    }
    sections.setdefault("override", {"enabled": True, "secret_sha256": c.sha256(SECRET)})
    return c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None), **sections)


@pytest.fixture
def origin(start):
    return start.origin()


def echo(router, user="u1", **fields):
    named = [("X-User-Id", user)] if user else []
    named += [(n.replace("_", "-"), v) for n, v in fields.items()]
    return ask(router.port, request("POST", "/echo", named, b'{"message": "hi"}'))


def served_by(answer):
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


def test_without_flags_everything_is_legacys(start, origin):
    router = start.router(config(origin))
    assert served_by(echo(router)) == "legacy"
    assert router.wait_outcomes(1)[0]["reason"] in ("flag_missing", "flag_unavailable")


def test_environment_defaults_count_where_a_flag_is_missing(start, origin):
    router, _ = start.with_worker(config(origin), env={"TASK_ABSTRACTION_ENABLED": "true"})
    assert served_by(echo(router)) == "task"
    assert router.wait_outcomes(1)[0]["reason"] == "env_default"


def test_the_flag_decides_and_the_outcome_says_so(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", True)))
    assert served_by(echo(router)) == "task"
    row = router.wait_outcomes(1)[0]
    assert (row["side"], row["reason"], row["backend"], row["role"], row["result"]) == ("task", "flag", "embedded", "primary", "success")
    assert (row["service"], row["operation"], row["user"], row["answered"]) == ("app", "echo", "u1", 1)


def test_what_matches_no_operation_is_passed_on_unmapped(start, origin):
    router = start.router(config(origin), c.features(c.boolean("task_abstraction_enabled", True)))
    assert ask(router.port, request("POST", "/elsewhere?x=1", body=b"{}")).body == b"ok"
    row = router.wait_outcomes(1)[0]
    assert (row["operation"], row["reason"], row["side"]) == ("(unmapped)", "unmapped", "legacy")


def test_an_operation_without_a_task_is_recorded_by_its_name(start, origin):
    router = start.router(config(origin), c.features())
    assert ask(router.port, request("GET", "/plain/a%20b?c")).body == b"ok"
    row = router.wait_outcomes(1)[0]
    assert (row["operation"], row["reason"], row["side"]) == ("plain", "no_task", "legacy")


def test_what_is_refused_before_it_is_decided_says_so(start, origin):
    settings = config(origin)
    settings["services"]["app"]["limits"] = {"max_body": 10}
    router = start.router(settings, c.features(c.boolean("task_abstraction_enabled", True)))
    assert echo(router).status == 413
    row = router.wait_outcomes(1)[0]
    assert (row["operation"], row["reason"], row["result"]) == ("echo", "refused", "rejected")


def test_a_flag_that_is_off_is_not_called_disabled(start, origin):
    router = start.router(config(origin), c.features(c.boolean("task_abstraction_enabled", False)))
    assert served_by(echo(router)) == "legacy"
    assert router.wait_outcomes(1)[0]["reason"] == "flag_off"
    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                          "--user", "u1")
    assert "reason     flag_off\nwhy        the boolean flag is false" in explained.stdout, explained.stdout


def test_a_change_of_the_file_takes_effect_without_a_request_noticing(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", False)))
    assert served_by(echo(router)) == "legacy"
    for enabled, side in ((True, "task"), (False, "legacy"), (True, "task")):
        router.write_flags(c.features(c.boolean("task_abstraction_enabled", enabled)))
        wait_until(lambda: served_by(echo(router)) == side, "the change to %s to take effect" % side)
    assert {row["result"] for row in router.query("SELECT * FROM attempts")} <= {"success"}


@pytest.mark.parametrize("how", ["rename", "in place", "symlink"])
def test_every_way_to_change_the_file_is_seen(start, origin, how):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", False)))
    assert served_by(echo(router)) == "legacy"
    text = json.dumps(c.features(c.boolean("task_abstraction_enabled", True)))
    if how == "rename":
        write_atomically(router.flags_path, text)
    elif how == "in place":
        with open(router.flags_path, "w", encoding="utf-8") as file:
            file.write(text)
    else:

        with open(router.flags_path + ".2", "w", encoding="utf-8") as file:
            file.write(text)
        os.symlink("flags.yml.2", router.flags_path + ".link")
        os.rename(router.flags_path + ".link", router.flags_path)
    wait_until(lambda: served_by(echo(router)) == "task", "the change by %s to be seen" % how)


def test_a_broken_file_keeps_the_last_good_and_is_named_with_its_line(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", True)))
    assert served_by(echo(router)) == "task"
    write_atomically(router.flags_path, "flags:\n- key: task_abstraction_enabled\n  type: [broken\n")
    wait_until(lambda: any("flags.yml:3" in line or "flags.yml:4" in line for line in router.lines), "the mistake to be logged with its line")
    assert served_by(echo(router)) == "task"
    router.write_flags(c.features(c.boolean("task_abstraction_enabled", False)))
    wait_until(lambda: served_by(echo(router)) == "legacy", "the mended file to take effect")


def test_no_identity_under_a_percentage_is_legacys(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", False, percentage=50)))
    for _ in range(8):
        assert served_by(echo(router, user=None)) == "legacy"
    assert {row["reason"] for row in router.wait_outcomes(8)} == {"no_identity"}


def test_a_hundred_percent_needs_no_identity(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", False, percentage=100)))
    assert served_by(echo(router, user=None)) == "task"


def test_a_percentage_is_sticky_and_about_right(start, origin):
    features = c.features(c.variants("task_abstraction_enabled", **{"25": 25, "0": 75}), segments=[c.everybody()])
    router, _ = start.with_worker(config(origin), features)
    first = {user: served_by(echo(router, user)) for user in ("user-%d" % n for n in range(200))}
    again = {user: served_by(echo(router, user)) for user in first}
    assert first == again
    assert 25 <= sum(side == "task" for side in first.values()) <= 75


def test_identity_headers_count_only_from_trusted_proxies(start, origin):
    router = start.router(config(origin, trusted_proxies=["10.0.0.0/8"]),
                          c.features(c.boolean("task_abstraction_enabled", False, percentage=50)))
    echo(router, user="someone")
    row = router.wait_outcomes(1)[0]
    assert (row["reason"], row["user"]) == ("no_identity", None) or (row["reason"], row["user"]) == ("no_identity", "")


def test_a_body_too_large_to_look_into_is_legacys(start, origin):
    router, _ = start.with_worker(config(origin, limits={"max_inspect_body": 1000, "max_inspect_memory": 100000}),
                                  c.features(c.boolean("task_abstraction_enabled", True)))
    body = json.dumps({"message": "x" * 5000}).encode()
    assert ask(router.port, request("POST", "/echo", [("X-User-Id", "u")], body)).body == b"ok"
    assert origin.wait_requests(1, complete=True)[0].body == body
    chunks = b"".join(b"%x\r\n%s\r\n" % (100, body[i:i + 100]) for i in range(0, 5000, 100)) + b"0\r\n\r\n"
    head = request("POST", "/echo", [("X-User-Id", "u"), ("Transfer-Encoding", "chunked")])
    assert ask(router.port, head + chunks).body == b"ok"
    assert origin.wait_requests(2, complete=True)[1].body == body[:5000]
    assert [row["reason"] for row in router.wait_outcomes(2)] == ["body_too_large"] * 2


def test_an_expectation_is_answered_where_the_body_must_be_looked_into(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", True)))
    with Client(router.port) as client:
        body = b'{"message": "hi"}'
        client.send(request("POST", "/echo", [("X-User-Id", "u"), ("Expect", "100-continue"), ("Content-Length", str(len(body)))]))
        assert client.read_head().first.split(" ")[1] == "100"
        client.send(body)
        assert client.read("POST").body == b'"Echo: hi"'
    assert origin.requests == []


# --- override ----------------------------------------------------------------------------------------------------------

def test_the_override_chooses_the_side_for_those_who_know_the_secret(start, origin):
    router, _ = start.with_worker(config(origin), c.features(c.boolean("task_abstraction_enabled", False)))
    assert served_by(echo(router, X_Migration_Override="task", X_Migration_Override_Secret=SECRET)) == "task"
    assert served_by(echo(router, X_Migration_Override="task", X_Migration_Override_Secret="wrong")) == "legacy"
    assert served_by(echo(router, X_Migration_Override="task")) == "legacy"
    assert [row["reason"] == "override" for row in router.wait_outcomes(3)] == [True, False, False]
    for got in origin.requests:
        assert not any(name.lower().startswith("x-migration-override") for name in got.head.names())


def test_the_override_is_off_by_default(start, origin):
    router = start.router(config(origin, override={"enabled": False}), c.features(c.boolean("task_abstraction_enabled", False)))
    assert served_by(echo(router, X_Migration_Override="task", X_Migration_Override_Secret=SECRET)) == "legacy"
    assert not any(name.lower().startswith("x-migration-override") for name in origin.request.head.names())


# --- backends that flags name ------------------------------------------------------------------------------------------

def to_backend(variant, attachment=None):
    """Everybody gets this variant."""
    flag = c.variants("task_abstraction_enabled", **{variant: 100})
    if attachment:
        flag["variants"][0]["attachment"] = attachment
    return c.features(flag, segments=[c.everybody()])


def said_at_the_end(router):
    """Every backend_unknown that the router has logged in its life."""
    assert router.stop() == 0
    return router.find("backend_unknown")


@pytest.mark.parametrize("variant, attachment, said", [
    ("celery", None, 'no backend "celery" is declared under backends (declared: embedded)'),
    ("100", {"backend": "ingest"}, 'there is no backend "ingest"; available: embedded, celery, temporal, hatchet, router'),
    ("on", {"backend": "ingest", "shadow": 1}, 'there is no backend "ingest"')])
def test_a_flag_that_names_no_backend_is_legacys_and_told_once(start, origin, variant, attachment, said):
    router, _ = start.with_worker(config(origin), to_backend(variant, attachment))
    assert {served_by(echo(router, "u%d" % n)) for n in range(20)} == {"legacy"}
    rows = router.wait_outcomes(20)
    assert {(r["side"], r["reason"], r["variant"], r["result"]) for r in rows} == {("legacy", "backend_unknown", variant, "success")}
    assert len(rows) == len(origin.requests) == 20, "no shadow either"
    told = said_at_the_end(router)
    assert len(told) == 1 and said in told[0]["error"] and told[0]["level"] == "error"
    assert (told[0]["service"], told[0]["operation"], told[0]["variant"]) == ("app", "echo", variant)


def test_another_name_of_no_backend_is_told_too(start, origin):
    router, _ = start.with_worker(config(origin), to_backend("100", {"backend": "ingest"}))
    assert served_by(echo(router)) == "legacy"
    router.write_flags(to_backend("100", {"backend": "inject"}))
    wait_until(lambda: served_by(echo(router)) == "legacy" and len(router.find("backend_unknown")) == 2, "the other name to be told")
    router.write_flags(to_backend("100", {"backend": "embedded"}))
    wait_until(lambda: served_by(echo(router)) == "task", "the right name to be served")
    assert ["ingest" in e["error"] for e in said_at_the_end(router)] == [True, False]


def test_names_of_no_backend_without_end_do_not_fill_the_log(start, origin):
    names = {"v%d" % n: 2.5 for n in range(40)}
    flag = c.variants("task_abstraction_enabled", **names)
    for variant in flag["variants"]:
        variant["attachment"] = {"backend": "none-" + variant["key"]}
    router, _ = start.with_worker(config(origin), c.features(flag, segments=[c.everybody()]))
    assert {served_by(echo(router, "user-%d" % n)) for n in range(300)} == {"legacy"}
    assert len({r["variant"] for r in router.wait_outcomes(300)}) > 20
    assert len(said_at_the_end(router)) == 16


# --- explain -----------------------------------------------------------------------------------------------------------

def test_explain_says_what_the_router_does(start, origin):
    features = c.features(c.variants("task_abstraction_enabled", **{"50": 50, "0": 50}), segments=[c.everybody()])
    router, _ = start.with_worker(config(origin), features)
    sides = set()
    for user in ("user-%d" % n for n in range(20)):
        side = served_by(echo(router, user))
        sides.add(side)
        told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                         "--user", user)
        assert told.returncode == 0, told.stderr
        assert re.search(r"^side +%s$" % side, told.stdout, re.M), told.stdout
        assert re.search(r"^reason +flag$", told.stdout, re.M), told.stdout
    assert sides == {"task", "legacy"}


def test_explain_lists_the_backends_that_there_are(start, origin):
    router = start.router(config(origin), to_backend("100", {"backend": "ingest"}))
    told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                     "--user", "u1").stdout
    assert 'there is no backend "ingest"; available: embedded, celery, temporal, hatchet, router: legacy' in told
    assert re.search(r"^reason +backend_unknown$", told, re.M), told


def test_explain_shows_what_several_flags_leave(start, origin):
    half = {"50": 50, "0": 50}
    features = c.features(c.variants("task_abstraction_enabled", **half), c.variants("second", **half), segments=[c.everybody()])
    changed = config(origin)
    changed["services"]["app"]["operations"]["echo"]["flags"] = ["task_abstraction_enabled", "second"]
    router, _ = start.with_worker(changed, features)
    told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                     "--user", "u1").stdout
    both, one, other = (float(share) for share in re.search(
        r"^share +([\d.]+) % .* task_abstraction_enabled alone ([\d.]+) %, second alone ([\d.]+) %$", told, re.M).groups())
    assert 22 < both < 28 and 47 < one < 53 and 47 < other < 53, told
