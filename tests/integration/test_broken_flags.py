"""One odd flag in a file: it is set aside and told, every other flag changes, and a rollback is stopped by nothing."""
import http.client
import json
import os

import pytest

import configuration as c
from http_text import wait_until
from programs import write_atomically
from raw import ask, request

FLAG = "task_abstraction_enabled"
ODD = "other_teams_flag"
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
EVERYBODY_TO_TASK = {"TASK_ABSTRACTION_ENABLED": "true"}  # where the flag is nowhere

BARE = {"key": ODD, "name": ODD, "type": "BOOLEAN_FLAG_TYPE", "enabled": True}
MANY = ["many%d" % n for n in range(65)]
NEIGHBORS = {
    "rollout without a type": {**BARE, "rollouts": [{"description": "?"}]},
    "a newer Flipt's rollout": {**BARE, "rollouts": [{"schedule": {"from": "2027-01-01", "value": True}}]},
    "a newer Flipt's type": {**BARE, "type": "JSON_FLAG_TYPE"},
    "65 segments": {**BARE, "rollouts": [{"segment": {"keys": MANY, "operator": "OR_SEGMENT_OPERATOR", "value": True}}]},
    "percentage NaN": {**BARE, "rollouts": [{"threshold": {"percentage": "NaN", "value": True}}]},
    "no key": {key: value for key, value in BARE.items() if key != "key"},
    "key of another kind": {**BARE, "key": ["a"]},
    "a key misspelt": {**BARE, "rolouts": []},
    "an odd segment": {**BARE, "rollouts": [{"segment": {"key": "odd", "value": True}}]},
    "no mapping": "flag",
}
SEGMENTS = [c.everybody(), {"key": "odd", "constraints": [{"type": "SEMVER_COMPARISON_TYPE", "property": "v", "operator": "eq", "value": "1"}]},
            {"name": "without a key"}, 7] + [{"key": key} for key in MANY]


def document(neighbor, **shares):
    twins = [dict(BARE, key="twin"), dict(BARE, key="twin")]
    return json.dumps(c.features(neighbor, c.variants(FLAG, **shares), *twins, segments=SEGMENTS), indent=1)


def config(origin, flag=None):
    operation = c.operation("POST /echo", ECHO, identity=c.IDENTITY, **({"flags": [flag]} if flag else {}))
    return c.router({"app": c.service(origin, {"echo": operation})}, backends=c.embedded(tasks=None))


def echo(router, user="u1"):
    answer = ask(router.port, request("POST", "/echo", [("X-User-Id", user)], b'{"message": "hi"}'))
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


def get(router, path):
    connection = http.client.HTTPConnection("127.0.0.1", router.admin_port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


@pytest.mark.parametrize("neighbor", NEIGHBORS)
def test_one_odd_flag_freezes_no_other_and_stops_no_rollback(start, neighbor):
    router, _ = start.with_worker(config(start.origin()), json.loads(document(NEIGHBORS[neighbor], off=0, on=100)))
    assert echo(router) == "task"
    told = start.run("migration-rollout", "--config", router.config_path, "rollback", FLAG, "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    wait_until(lambda: echo(router) == "legacy", "everybody on legacy")
    again = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "0", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    write_atomically(os.path.join(router.folder, "flags.yml"), document(NEIGHBORS[neighbor], off=0, on=100))
    wait_until(lambda: echo(router) == "task", "everybody on task")


@pytest.mark.parametrize("at_start", (True, False), ids=("from the start", "while it runs"))
def test_who_asks_for_a_broken_flag_is_served_by_legacy_and_everybody_is_told_why(start, at_start):
    """Never by the environment's default, which is for flags that are nowhere."""
    whole, broken = c.features(c.variants(FLAG, off=0, on=100), segments=[c.everybody()]), c.variants(FLAG, off=0, on=100)
    broken["rules"][0]["distributions"][0]["rollout"] = "all"
    odd = c.features(broken, c.boolean("other", True), segments=[c.everybody()])
    router, _ = start.with_worker(config(start.origin()), odd if at_start else whole, env=EVERYBODY_TO_TASK)
    if not at_start:
        assert echo(router) == "task"
        write_atomically(os.path.join(router.folder, "flags.yml"), json.dumps(odd, indent=1))
    event = router.wait_event("flag_broken")
    assert event["flag"] == FLAG and "rollout: must be a number" in event["why"] and "flags.yml:" in event["why"]
    assert echo(router) == "legacy"
    assert router.wait_outcomes(1 if at_start else 2)[-1]["reason"] == "flag_broken"
    status = json.loads(get(router, "/readyz"))
    assert status["status"] == "degraded" and status["ready"] and status["flags"]["broken"] == [FLAG]
    assert "migration_flags_broken 1\n" in get(router, "/metrics")
    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "echo",
                          "--user", "u1")
    assert "is set aside" in explained.stdout and "flag_broken" in explained.stdout, explained.stdout + explained.stderr


def test_a_change_of_a_broken_flag_is_refused_but_its_rollback_is_not(start):
    broken = c.variants(FLAG, off=0, on=100)
    broken["colour"] = "red"
    router, _ = start.with_worker(config(start.origin()), c.features(broken, segments=[c.everybody()]))
    told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "50", "--yes")
    assert told.returncode == 1 and "colour: unknown key" in told.stderr and "flags.yml:" in told.stderr, told.stdout + told.stderr
    back = start.run("migration-rollout", "--config", router.config_path, "rollback", FLAG, "--yes")
    assert back.returncode == 0, back.stdout + back.stderr


MISTAKES = {
    "type: BOOLEAN": ({"key": FLAG, "type": "BOOLEAN", "enabled": True}, 'type: "BOOLEAN" is not known'),
    "rolouts": ({**c.boolean(FLAG, True), "rolouts": []}, "rolouts: unknown key"),
    "rules on a boolean": ({**c.boolean(FLAG, True), "rules": [{"segment": "everybody"}]}, "rules: a boolean flag has rollouts"),
    "rollouts without a type": ({"key": FLAG, "rollouts": [{"threshold": {"percentage": 5}}]}, "rollouts: only a flag with"),
    "a flag of others": (c.boolean(FLAG, True), "rollout 1: needs a segment or a threshold"),
    "misspelt": (c.boolean(FLAG[:-1], True), 'asks for the flag "%s", which' % FLAG),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_check_reads_the_features_file_as_serving_does(start, what):
    flag, sentence = MISTAKES[what]
    others = [{**BARE, "rollouts": [{}]}] if what == "a flag of others" else []
    folder = start.folder()
    (folder / "router.yml").write_text(json.dumps(config(start.origin())))
    (folder / "flags.yml").write_text(json.dumps(c.features(flag, *others, segments=[c.everybody()]), indent=1))
    told = start.run("migration-router", "check", folder / "router.yml")
    assert told.returncode == 1 and sentence in told.stderr, told.stdout + told.stderr
    if what == "misspelt":
        assert "similar: " + FLAG[:-1] in told.stderr
    else:
        assert "flags.yml:" in told.stderr
    assert start.run("migration-router", "check", folder / "router.yml", "--flags").returncode == 1
    (folder / "flags.yml").write_text(json.dumps(c.features(c.boolean(FLAG, True)), indent=1))
    told = start.run("migration-router", "check", folder / "router.yml")
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_change_is_made_in_the_document_that_routers_read(start):
    """Another namespace of the same file has a flag of that key."""
    def document(namespace, on):
        return "namespace: %s\n" % namespace + \
            "flags:\n- key: %s\n  enabled: true\n  variants: [{key: 'off'}, {key: 'on'}]\n" % FLAG + \
            "  rules:\n  - segment: everybody\n    distributions: [{variant: 'off', rollout: %d}, {variant: 'on', rollout: %d}]\n" \
            % (100 - on, on) + "segments: [{key: everybody}]\n"
    folder = start.folder()
    (folder / "router.yml").write_text(json.dumps(config(start.origin())))
    text = "---\n".join((document("other", 100), document("default", 100), document("third", 100)))
    (folder / "flags.yml").write_text(text)
    told = start.run("migration-rollout", "--config", folder / "router.yml", "rollback", FLAG, "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert (folder / "flags.yml").read_text().split("---\n")[::2] == text.split("---\n")[::2]
    assert "enabled: false" in (folder / "flags.yml").read_text().split("---\n")[1]
    assert start.run("migration-rollout", "--config", folder / "router.yml", "get", FLAG).returncode == 0


IN_RAW = {
    "a tag": b"description: !secret x",
    "a tag of a mapping": b"metadata: !set {a: b}",
    "an alias of nothing": b"description: *nothing",
    "an alias of itself": b"metadata: &a [*a]",
    "too deep": b"metadata: {a: " + 70 * b"[" + 70 * b"]" + b"}",
    "a key that is no scalar": b"metadata: {[a, b]: 1}",
    "a block key": b"metadata:\n    ? {a: b}\n    : 1",
    "a NUL": b'description: "a\\0b"',
    "Latin-1": b"description: caf\xe9 au lait",
    "half a character": b"description: \xe2\x82",
    "a control character": b"description: a\x01b",
    "a key twice": b"description: a\n  description: b",
    "a merge of nothing": b"<<: 1",
}


def raw(element, on):
    def flag(key, more):
        return b"- key: %s\n  enabled: true\n  %s\n  variants: [{key: 'off'}, {key: 'on'}]\n  rules:\n  - segment: everybody\n" \
            b"    distributions: [{variant: 'off', rollout: %d}, {variant: 'on', rollout: %d}]\n" % (key.encode(), more, 100 - on, on)
    return b"# caf\xe9\nflags:\n" + flag("before", b"name: b") + flag(ODD, element) + flag(FLAG, b"name: f") + b"segments: [{key: everybody}]\n"


def write_bytes(path, data):
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


@pytest.mark.parametrize("odd", IN_RAW)
def test_what_is_odd_for_yaml_stays_with_its_flag_and_stops_no_rollback(start, odd):
    router, _ = start.with_worker(config(start.origin()), c.features(c.variants(FLAG, off=100, on=0), segments=[c.everybody()]))
    path = os.path.join(router.folder, "flags.yml")
    assert echo(router) == "legacy"
    write_bytes(path, raw(IN_RAW[odd], 100))
    wait_until(lambda: echo(router) == "task", "the change to count")
    told = start.run("migration-router", "check", router.config_path)
    assert told.returncode == 1 and "flags.yml:" in told.stderr, told.stdout + told.stderr
    told = start.run("migration-rollout", "--config", router.config_path, "rollback", FLAG, "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    wait_until(lambda: echo(router) == "legacy", "everybody on legacy")
    with open(path, "rb") as file:
        before, after = raw(IN_RAW[odd], 100).splitlines(), file.read().splitlines()
    assert [b for a, b in zip(before, after) if a != b] == [b"  enabled: false"] and len(before) == len(after)
    assert not json.loads(get(router, "/readyz"))["flags"]["failing"]


def test_segments_that_are_no_list_are_nobodys_and_a_rollback_is_read(start):
    router, _ = start.with_worker(config(start.origin()), c.features(c.variants(FLAG, off=0, on=100), segments=[c.everybody()]),
                                  env=EVERYBODY_TO_TASK)
    assert echo(router) == "task"
    path = os.path.join(router.folder, "flags.yml")
    write_bytes(path, raw(b"name: n", 100).replace(b"segments: [{key: everybody}]", b"segments: {a: b}"))
    router.wait_event("flag_broken")
    wait_until(lambda: echo(router) == "legacy", "the flag to be set aside")
    told = start.run("migration-rollout", "--config", router.config_path, "rollback", FLAG, "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    told = start.run("migration-router", "check", router.config_path)
    assert told.returncode == 1 and "segments: must be a list" in told.stderr, told.stderr
    assert echo(router) == "legacy" and not json.loads(get(router, "/readyz"))["flags"]["failing"]


UNREADABLE = {"a bracket": b"  name: [\n", "no list": b"flags: {a: b}\n"}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_rollback_that_no_router_would_read_is_not_written(start, what):
    folder = start.folder()
    (folder / "router.yml").write_text(json.dumps(config(start.origin())))
    text = raw(b"name: n", 100) + UNREADABLE[what]
    (folder / "flags.yml").write_bytes(text)
    told = start.run("migration-rollout", "--config", folder / "router.yml", "rollback", FLAG, "--yes")
    assert told.returncode == 1 and "Nothing was changed." in told.stderr, told.stdout + told.stderr
    assert "flags.yml:" in told.stderr and "last good flags" in told.stderr, told.stderr
    assert (folder / "flags.yml").read_bytes() == text
