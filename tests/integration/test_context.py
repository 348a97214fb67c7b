"""Context of flags from the request, and what says which properties nobody gives; check --flags."""
import json
import os

import pytest

import configuration as c
from raw import ask, request

FLAG = "task_abstraction_enabled"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
BODY = b'{"message": "hi", "customer": {"country": "NO", "seats": 12}}'


def constraint(prop, value, kind="STRING"):
    return {"type": kind + "_COMPARISON_TYPE", "property": prop, "operator": "eq", "value": value}


def features(*constraints):
    """True for whom all of these hold."""
    segment = {"key": "chosen", "name": "chosen", "match_type": "ALL_MATCH_TYPE", "constraints": list(constraints)}
    flag = {"key": FLAG, "name": FLAG, "type": "BOOLEAN_FLAG_TYPE", "enabled": False,
            "rollouts": [{"segment": {"key": "chosen", "value": True}}]}
    return c.features(flag, segments=[segment])


def config(origin, context, match="POST /echo", **sections):
    sections.setdefault("identity", c.IDENTITY)
    operation = c.operation(match, ECHO, **({"context": context} if context else {}), identity=sections.pop("identity"))
    return c.router({"app": c.service(origin, {"echo": operation})}, backends=c.embedded(tasks=None), **sections)


def side(router, *fields, target="/echo", body=BODY):
    answer = ask(router.port, request("POST", target, list(fields), body))
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


@pytest.mark.parametrize("source, given, target", [
    ("header:X-Plan", [("X-Plan", "gold")], "/echo"),
    ("cookie:plan", [("Cookie", "theme=dark; plan=gold")], "/echo"),
    ("query:plan", [], "/echo?plan=gold"),
    (["header:X-Plan", "query:plan"], [], "/echo?plan=gold"),
])
def test_a_property_comes_from_where_the_operation_says(start, source, given, target):
    router, _ = start.with_worker(config(start.origin(), {"plan": source}), features(constraint("plan", "gold")))
    assert side(router, *given, target=target) == "task"
    assert side(router) == "legacy"
    assert side(router, ("X-Plan", "silver"), ("Cookie", "plan=silver"), target="/echo?plan=silver") == "legacy"


def test_properties_of_the_body_and_the_path(start):
    settings = config(start.origin(), {"country": "body:/customer/country", "seats": "body:/customer/seats", "tenant_id": "path:tenant"},
                      match="POST /{tenant}/echo")
    flags = features(constraint("country", "NO"), constraint("seats", "12", "NUMBER"), constraint("tenant_id", "t 1"))
    router, _ = start.with_worker(settings, flags)
    assert side(router, target="/t%201/echo") == "task"
    assert side(router, target="/t2/echo") == "legacy"
    assert side(router, target="/t%201/echo", body=b'{"message": "hi", "customer": {"country": "SE", "seats": 12}}') == "legacy"


@pytest.mark.parametrize("source, given", [("header:X-Plan", ("X-Plan", "gold")), ("cookie:plan", ("Cookie", "plan=gold"))])
def test_what_anybody_could_say_counts_only_from_trusted_proxies(start, source, given):
    settings = config(start.origin(), {"plan": source}, trusted_proxies=["10.9.9.9"])
    router, _ = start.with_worker(settings, features(constraint("plan", "gold")))
    assert side(router, given) == "legacy"


def test_a_text_that_looks_like_a_source_can_be_meant_as_it_stands(start):
    settings = config(start.origin(), {"plan": "literal:header:X-Plan", "other": "gold"})
    router, _ = start.with_worker(settings, features(constraint("plan", "header:X-Plan"), constraint("other", "gold")))
    assert side(router, ("X-Plan", "gold")) == "task"


@pytest.mark.parametrize("context, says", [
    ({"plan": "header:"}, "not the name of a header field"), ({"plan": "header:Cookie"}, "carries credentials"),
    ({"plan": "body:plan"}, "JSON pointer"), ({"plan": "path:nobody"}, "no parameter {nobody}"),
    ({"plan": "cookie:a b"}, "not the name of a cookie"), ({"plan": ["gold"]}, "expected header:NAME"),
    ({"user_id": "header:X-User"}, "sets this entry itself"), ({"plan": ["query:a"] * 5}, ""),
])
def test_a_source_that_is_none_is_a_mistake(start, context, says):
    path = start.folder() / "router.yml"
    path.write_text(json.dumps(config(start.origin(), context)))
    told = start.run("migration-router", "check", path)
    assert told.returncode == 2 and "context" in told.stderr and says in told.stderr, told.stderr


def test_an_identity_comes_from_a_cookie(start):
    settings = config(start.origin(), None, identity={"user": ["cookie:uid"]})
    router, _ = start.with_worker(settings, features(constraint("user_id", "u1")))
    assert side(router, ("Cookie", 'theme=dark; uid="u1"')) == "task"
    assert side(router, ("Cookie", "uid=u1; uid=u2")) == "legacy"
    assert [row["user"] or "" for row in router.wait_outcomes(2)] == ["u1", ""]


# --- what nobody gives ---------------------------------------------------------------------------------------------------

def test_properties_that_nobody_gives_are_named(start):
    flags = features(constraint("plan", "gold"), constraint("email", "a@b"), constraint("user_id", "u1"), constraint("api_version", "v1"))
    router = start.router(config(start.origin(), {"plan": "header:X-Plan", "api_version": "v1"}), flags)
    checked = start.run("migration-router", "check", router.config_path, "--flags")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "note: %s asks for email, which app.echo does not provide" % FLAG in checked.stdout
    plain = start.run("migration-router", "check", router.config_path)
    assert plain.returncode == 0 and "warning: %s asks for email, which app.echo does not provide" % FLAG in plain.stderr, plain.stderr
    got = start.run("migration-rollout", "--config", router.config_path, "get", FLAG)
    assert "note: asks for email, which app.echo does not provide" in got.stdout
    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                          "--user", "u1")
    assert "%s asks for email, which this operation does not provide" % FLAG in explained.stdout
    assert "plan comes from the request; set it with --context plan=VALUE" in explained.stdout
    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                          "--user", "u1", "--context", "plan=gold", "--context", "email=a@b")
    assert "side       task" in explained.stdout and "plan is taken" not in explained.stdout


# --- check --flags -------------------------------------------------------------------------------------------------------

def written(start, settings, flags):
    folder = start.folder()
    (folder / "router.yml").write_text(json.dumps(settings))
    (folder / "flags.yml").write_text(json.dumps(flags))
    return folder / "router.yml"


def test_check_names_flags_in_use_that_the_file_does_not_have(start):
    path = written(start, config(start.origin(), None), c.features(c.boolean(FLAG + "s", True), c.boolean("other", True)))
    told = start.run("migration-router", "check", path, "--flags", env={"TASK_ABSTRACTION_ENABLED": "true"})
    assert told.returncode == 1, told.stdout + told.stderr
    assert "MISSING  %s  (app.echo): without it the environment's default, task for everybody, applies; similar: %ss" % (FLAG, FLAG) \
        in told.stdout and "1 missing" in told.stdout
    path = written(start, config(start.origin(), None), c.features(c.boolean(FLAG, True)))
    told = start.run("migration-router", "check", path, "--flags")
    assert told.returncode == 0 and "there    %s  (app.echo)" % FLAG in told.stdout
    (path.parent / "flags.yml").write_text(json.dumps(c.features({**c.boolean(FLAG, True), "rollouts": [{}]})))
    told = start.run("migration-router", "check", path, "--flags")
    assert told.returncode != 0 and "BROKEN   %s  (app.echo)" % FLAG in told.stdout + told.stderr, told.stdout + told.stderr
    os.unlink(path.parent / "flags.yml")
    assert start.run("migration-router", "check", path, "--flags").returncode == 1
    assert start.run("migration-router", "check", path).returncode == 0


@pytest.mark.parametrize("version", (2, 1))
def test_check_asks_the_live_server(start, serve, version):
    flipt = serve(version)
    flipt.load(c.features(c.boolean(FLAG[:-1], True)))
    path = written(start, config(start.origin(), None, flags=flipt.source()), c.features())
    told = start.run("migration-router", "check", path, "--flags")
    assert told.returncode == 1 and "MISSING  %s" % FLAG in told.stdout and "similar: %s" % FLAG[:-1] in told.stdout, told.stdout
    flipt.load(c.features(c.boolean(FLAG, True)))
    told = start.run("migration-router", "check", path, "--flags")
    assert told.returncode == 0 and "there    " + FLAG in told.stdout, told.stdout + told.stderr
    flipt.between.break_with("500")
    told = start.run("migration-router", "check", path, "--flags")
    assert told.returncode == 1 and "flags: " in told.stderr
