"""migration-rollout through Flipt, v2 and v1: what it writes, in which order, and what it says when a write goes wrong.

Against the stand-in, and against a real server where one is named (flipt_server.py).
"""
import json
import re
import signal
import threading

import pytest

import configuration as c
from http_text import wait_until
from terminal import Terminal
from test_flipt import FLAG, config, echo, flags_status, flipt, flipt1, flipt2, origin, wait_loaded, wait_side  # noqa: F401  (fixtures)

STEPS = (1, 5, 25, 50, 100, 50, 0)


def variant_flag(task, legacy):
    return c.variants(FLAG, **{"0": legacy, "100": task})


def everybody(*flags):
    return c.features(*flags, segments=[c.everybody()])


def beta(kind="flag"):
    """A rule of everybody, and before it one of an organization's."""
    flag = variant_flag(10, 90)
    flag["rules"].insert(0, {"segment": "beta", "distributions": [{"variant": "0", "rollout": 100}, {"variant": "100", "rollout": 0}]})
    return c.features(flag, segments=[c.everybody(), acme()])


def acme():
    return {"key": "beta", "name": "beta", "match_type": "ALL_MATCH_TYPE", "constraints": [
        {"type": "STRING_COMPARISON_TYPE", "property": "organization_id", "operator": "eq", "value": "acme"}]}


class Place:
    """The configuration of a router that follows this server, without the router."""

    def __init__(self, start, origin, flipt, **flags):
        self.start = start
        self.folder = start.folder()
        self.config_path = self.folder / "router.yml"
        settings = config(origin, flipt, **flags)
        self.config_path.write_text(json.dumps(settings))

    def run(self, *arguments, **how):
        return self.start.run("migration-rollout", "--config", self.config_path, *arguments, **how)

    def done(self, *arguments):
        told = self.run(*arguments)
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    def history(self):
        return [json.loads(line) for line in self.done("history", "--json").splitlines()]


@pytest.fixture
def place(start, origin, flipt):
    return Place(start, origin, flipt)


def admin_of(router):
    return "http://127.0.0.1:%d" % router.admin_port


# --- changes -----------------------------------------------------------------------------------------------------------

def test_a_percentage_and_the_router_that_follows(start, origin, flipt):
    flipt.load(everybody(variant_flag(0, 100)))
    router, _ = start.with_worker(config(origin, flipt))
    wait_loaded(router)
    place = Place(start, origin, flipt)
    said = place.done("set", FLAG, "100", "--yes", "--wait", "--admin", admin_of(router))
    assert re.search(r"%s: in effect after \d+ ms$" % admin_of(router), said, re.M), said
    assert echo(router) == "task"
    assert "1. everybody: 100 %" in place.done("get", FLAG)
    place.done("set", FLAG, "25.5")
    assert "1. everybody: 25.5 %  (0: 74.5 %, 100: 25.5 %)" in place.done("get", FLAG)
    place.done("rollback", FLAG, "--wait", "--admin", admin_of(router))
    assert echo(router) == "legacy"
    assert "disabled: 0 % of everybody" in place.done("get", FLAG)
    assert "0 % → 25.5 % of everybody more than doubles" in place.run("enable", FLAG).stderr
    place.done("enable", FLAG, "--yes")
    place.done("disable", FLAG)
    assert [(x["command"], x["from"], x["to"]) for x in place.history()] == [
        ("set", 0, 100), ("set", 100, 25.5), ("rollback", 25.5, 0), ("enable", 0, 25.5), ("disable", 25.5, 0)]
    assert all(x["result"] == "done" and flipt.namespace in x["source"] for x in place.history())


def test_a_router_is_waited_for_by_content_where_digests_are_shared(start, origin, flipt):
    """Flipt's digest is the same before and after: it says nothing of who has the change."""
    if not flipt.standin:
        pytest.skip("a real server has its own digests")
    flipt.load(everybody(variant_flag(0, 100)))
    flipt.standin.release = {1: "1.59.1", 2: "2.10.0"}
    flipt.standin.digest = "0123456789" * 4
    router, _ = start.with_worker(config(origin, flipt, poll="1h", stream=False))
    wait_loaded(router)
    place = Place(start, origin, flipt)
    how = ("--yes", "--wait", "--admin", admin_of(router), "--timeout")
    told = place.run("set", FLAG, "100", *how, "1")
    assert told.returncode == 3 and "still has the flags from before" in told.stderr and echo(router) == "legacy"
    router.signal(signal.SIGHUP)
    wait_side(router, "task")
    said = place.done("set", FLAG, "100", *how, "10")
    assert "nothing to change" in said


def test_a_boolean_flag_with_a_segment(place, flipt):
    flag = c.boolean(FLAG, False, percentage=5)
    flag["rollouts"].insert(0, {"segment": {"key": "beta", "value": False}})
    flag["description"] = "kept"
    flag["rollouts"][0]["description"] = "kept, too"
    flipt.load(c.features(flag, segments=[acme()]))
    before = flag_of(flipt)
    place.done("set", FLAG, "100", "--segment", "beta", "--yes")
    place.done("set", FLAG, "50", "--yes")
    assert "1. beta: 100 %  (true)" in place.done("get", FLAG) and "2. everybody: 50 %  (true for 50 %)" in place.done("get", FLAG)
    place.done("set", FLAG, "0", "--segment", "beta")
    place.done("set", FLAG, "5")
    assert flag_of(flipt) == before  # nothing was lost on the way
    place.done("set", FLAG, "100", "--segment", "beta", "--yes")
    place.done("enable", FLAG, "--yes")
    place.done("rollback", FLAG)
    said = place.done("get", FLAG)
    assert "disabled: 0 % of everybody" in said and "(false)" in said and "true for 0 %" in said
    assert flag_of(flipt)["description"] == "kept"


def test_a_rule_of_a_segment(place, flipt):
    flipt.load(beta())
    before = flag_of(flipt)
    said = place.done("set", FLAG, "50", "--segment", "beta", "--yes")
    assert "10 % of everybody to tasks and 50 % of the segment's members" in said
    assert "1. beta: 50 %" in place.done("get", FLAG) and "2. everybody: 10 %" in place.done("get", FLAG)
    assert 'no rule targets the segment "vip"; rules target: beta; everybody' in place.run(
        "set", FLAG, "5", "--segment", "vip").stderr
    place.done("set", FLAG, "0", "--segment", "beta")
    assert flag_of(flipt) == before


def flag_of(flipt):
    """All that Flipt's API says of the flag, without times."""
    if flipt.version == 2:
        answer = flipt.api.call("GET", "%s/flipt.core.Flag/%s" % (flipt.api.v2, FLAG))["resource"]["payload"]
    else:
        path = "%s/flags/%s" % (flipt.api.v1, FLAG)
        answer = [flipt.api.call("GET", path + below) for below in ("", "/rules", "/rollouts")]
        answer = {**answer[0], "of rules": answer[1], "of rollouts": answer[2]}
    return without_times(answer)


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("createdAt", "updatedAt")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_several_variants_and_a_default_one(place, flipt):
    flag = c.variants(FLAG, blue=5, green=15, off=60, legacy=20)
    flag["variants"][2]["default"] = True
    flag["variants"][0]["attachment"] = {"note": 'a<b>&c "q" é', "list": [1, 2.5, None]}
    flipt.load(everybody(flag))
    before = flag_of(flipt)
    place.done("set", FLAG, "40")
    assert "(blue: 10 %, green: 30 %, off: 45 %, legacy: 15 %)" in place.done("get", FLAG)
    place.done("disable", FLAG)
    place.done("enable", FLAG, "--yes")
    place.done("set", FLAG, "20")
    assert flag_of(flipt) == before


def test_nobody_moves_the_wrong_way_through_all_steps(start, origin, flipt):
    """Up and down, asked of the server itself (or of the stand-in), after each value that is written."""
    flipt.load(everybody(variant_flag(0, 100)))
    place = Place(start, origin, flipt)
    users = ["user-%d" % n for n in range(300)]

    def tasks():
        request = [{"flagKey": FLAG, "namespaceKey": flipt.namespace, "entityId": u, "context": {}} for u in users]
        return {r["entityId"] for r in request if flipt.api.call("POST", "/evaluate/v1/variant", r)["variantKey"] == "100"}
    was, percent = set(), 0
    for step in STEPS:
        growing = step > percent
        if flipt.version == 1:  # between its two calls
            flipt.between.writes_left = 1
            told = place.run("set", FLAG, str(step), "--yes")
            assert told.returncode == 3, told.stderr
            flipt.between.writes_left = None
            between = tasks()
            assert was <= between if growing else between <= was
        place.done("set", FLAG, str(step), "--yes")
        now = tasks()
        assert was <= now if growing else now <= was
        assert abs(len(now) - 3 * step) <= 30
        was, percent = now, step


def test_plan_against_flipt(start, origin, flipt):
    flipt.load(everybody(variant_flag(0, 100)))
    router, _ = start.with_worker(config(origin, flipt))
    wait_loaded(router)
    for n in range(20):
        echo(router, "user-%d" % n)
    router.wait_outcomes(20)
    told = start.run("migration-rollout", "--config", router.config_path, "plan", FLAG, "100")
    assert "20 users: 20 would move to tasks, 0 back to legacy" in told.stdout, told.stdout + told.stderr
    told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "100", "--yes")
    assert told.returncode == 0 and "of the last 20 requests on record 100.0 % would go to tasks" in told.stdout
    told = start.run("migration-rollout", "--config", router.config_path, "plan", FLAG, "0")
    assert "20 users: 0 would move to tasks, 20 back to legacy" in told.stdout


def test_odd_keys_are_kept_apart_in_paths(place, flipt):
    key = "odd-key_1,x"
    flipt.load(c.features(c.boolean(key, False, percentage=5), c.boolean("other", False, percentage=5)))
    told = place.run("set", key, "10", "--yes")
    assert told.returncode == 3 and "no operation uses the flag" in told.stderr  # which is the only complaint
    said = place.done("get")
    assert "%s: boolean flag, disabled: 10 %%" % key in said and "other: boolean flag, disabled: 5 %" in said
    assert place.run("set", "a/../%s?x" % key, "20").returncode == 1


# --- writes that go wrong ----------------------------------------------------------------------------------------------

def test_somebody_else_changes_at_the_same_time(place, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    between = flipt.between
    if flipt.version == 1:
        assert place.run("set", FLAG, "20").returncode == 0
        assert [w.body["rollout"] for w in between.writes] == [20, 80]  # what grows first: nobody is without a variant in between
        between.writes.clear()
        assert place.run("set", FLAG, "5").returncode == 0
        assert [w.body["rollout"] for w in between.writes] == [95, 5]
        return
    between.conflicts = 2
    place.done("set", FLAG, "20")
    assert between.writes[-1].body["revision"]
    between.conflicts = 100
    told = place.run("set", FLAG, "21")
    assert told.returncode == 1 and "gave up" in told.stderr and "Nothing was changed." in told.stderr
    between.conflicts = 0
    assert "1. everybody: 20 %" in place.done("get", FLAG)


def test_what_changes_while_the_question_stands_is_asked_about_again(place, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    terminal = Terminal("migration-rollout", "--config", place.config_path, "set", FLAG, "50")
    terminal.expect("10 % → 50 % of everybody more than doubles. Continue? [y/N] ")
    place.done("set", FLAG, "5")
    terminal.type("y\n")
    terminal.expect("5 % → 50 % of everybody more than doubles. Continue? [y/N] ")
    terminal.type("n\n")
    code, said = terminal.end()
    assert code == 1 and "Nothing was changed." in said
    assert "1. everybody: 5 %" in place.done("get", FLAG)


def test_a_read_only_server(place, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    flipt.between.read_only = True
    told = place.run("set", FLAG, "11")
    assert told.returncode == 1 and "read-only" in told.stderr and "Nothing was changed." in told.stderr
    assert "no changes made" in place.run("history").stderr


def test_a_half_done_write_says_what_stands_and_how_to_finish(start, origin, flipt1):
    """v2 takes a flag as a whole."""
    flipt1.load(everybody(variant_flag(25, 75)))
    place = Place(start, origin, flipt1)
    flipt1.between.writes_left = 1
    told = place.run("set", FLAG, "50")
    assert told.returncode == 3, told.stderr
    assert "HALF DONE: 1 of 2 values were written, then: " in told.stderr and "the disk is full" in told.stderr
    assert 'Written:\n  rule 1, variant "100": 25 % → 50 %\nNot written:\n  rule 1, variant "0": 75 % → 50 %\n' in told.stdout
    assert "Right now, 25 % of everybody go to tasks." in told.stdout
    finish = told.stderr.split("To finish, run the same again:\n  migration-rollout ")[1].split()
    assert place.history()[0]["result"].startswith("HALF DONE: 1 of 2 values")
    assert "HALF DONE" in place.done("history")
    flipt1.between.writes_left = None
    told = start.run("migration-rollout", *finish)
    assert told.returncode == 0, told.stderr
    assert "everybody: 50 %  (0: 50 %, 100: 50 %)" in place.done("get", FLAG)


def test_a_rollback_goes_on_where_a_write_fails_midway(start, origin, flipt):
    flag = c.boolean(FLAG, True, percentage=5)
    flipt.load(c.features(flag))
    place = Place(start, origin, flipt)
    if flipt.version == 1:
        flipt.between.fail_at = 2  # the first of its calls is made, the second fails once
    else:
        flipt.between.cut_at = 1
    told = place.run("rollback", FLAG)
    assert told.returncode == 0 and "Trying again." in told.stderr, told.stdout + told.stderr
    assert "disabled: 0 % of everybody" in place.done("get", FLAG)
    assert [x["result"][:7] for x in place.history()] == ["NOT YET", "done"]


def test_a_signal_in_the_middle_of_a_write_leaves_a_record(start, origin, flipt):
    """The write is let go once the signal has been sent: it is finished and recorded first."""
    flipt.load(everybody(variant_flag(10, 90)))
    place = Place(start, origin, flipt)
    flipt.between.hold = threading.Event()
    changing = start.process("migration-rollout", "--config", place.config_path, "set", FLAG, "20")
    wait_until(lambda: flipt.between.writes and flipt.between.writes[-1].method == "PUT", "the write to be under way")
    changing.signal(signal.SIGTERM)
    flipt.between.hold.set()
    assert changing.wait() == -signal.SIGTERM
    assert place.history()[0]["result"] == "done"
    assert "1. everybody: 20 %" in place.done("get", FLAG)


def test_a_write_whose_answer_is_lost_is_looked_for(place, flipt):
    flipt.load(c.features(c.boolean(FLAG, False, percentage=5)))
    flipt.between.cut_writes = True
    told = place.run("set", FLAG, "10")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "The change was sent and may have been made: checking." in told.stderr
    assert "now sends 10 % of everybody to tasks" in told.stdout and place.history()[0]["result"] == "done"


def test_the_change_is_waited_for_where_flipt_gives_it_out_late(start, origin, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    place = Place(start, origin, flipt)
    flipt.between.lag = 5
    assert "now sends 20 % of everybody to tasks" in place.done("set", FLAG, "20")
    assert flipt.between.stale[0] == 0 and len(flipt.between.polls) >= 6


def test_a_server_that_evaluates_otherwise_is_complained_of(place, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    flipt.between.lies = True
    told = place.run("set", FLAG, "20")
    assert told.returncode == 3 and 'Flipt itself says "made-up-0" "lie"' in told.stderr, told.stderr
    assert [x["result"][:12] for x in place.history()] == ["done", "NOT AS ASKED"]


def test_a_rollback_waits_for_a_slow_server(place, flipt):
    flipt.load(c.features(c.boolean(FLAG, True, percentage=5)))
    flipt.between.delay = 3.5
    told = place.run("rollback", FLAG, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "still waiting for an answer from http://" in told.stderr
    assert "disabled: 0 % of everybody" in place.done("get", FLAG)


def test_what_v2_would_take_though_it_is_invalid_is_not_written(start, origin, flipt2):
    flipt2.load(everybody(variant_flag(10, 90)))
    place = Place(start, origin, flipt2)
    flag = variant_flag(10, 90)
    flag["rules"].append({"segment": "everybody", "distributions": [{"variant": "nope", "rollout": 100}]})
    flipt2.set_flag(flag)
    flipt2.between.writes.clear()
    told = place.run("set", FLAG, "20")
    assert told.returncode == 1 and "nope" in told.stderr and "Nothing was changed." in told.stderr, told.stdout + told.stderr
    assert not flipt2.between.writes


# --- emergencies -------------------------------------------------------------------------------------------------------

def odd_flag(**parts):
    return {"key": "of-somebody-else", "name": "", "description": "", "enabled": True, "type": "BOOLEAN_FLAG_TYPE", "rules": [],
            "rollouts": [], **parts}


ODD = {
    "rollout without a kind": [odd_flag(rollouts=[{"rank": 1}])],
    "type of a newer Flipt": [odd_flag(type="JSON_FLAG_TYPE")],
    "percentage of text": [odd_flag(rollouts=[{"rank": 1, "threshold": {"percentage": "NaN", "value": True}}])],
    "percentage beyond": [odd_flag(rollouts=[{"rank": 1, "threshold": {"percentage": 1e39, "value": True}}])],
    "65 segments": [odd_flag(type="VARIANT_FLAG_TYPE", rules=[{"segments": [
        {"key": "s%d" % i, "matchType": "ALL_SEGMENT_MATCH_TYPE", "constraints": []} for i in range(65)], "distributions": []}])],
    "no key": [{"type": "BOOLEAN_FLAG_TYPE", "enabled": True}],
    "one key twice": [odd_flag(), odd_flag()],
    "no object": ["a flag?"],
}
ODD_SEGMENTS = [{"key": "odd", "matchType": "SOME_MATCH_TYPE", "name": "", "constraints": [
    {"type": "JSON_COMPARISON_TYPE", "property": "", "operator": "like", "value": ""}]}]
TO_LEGACY = (("rollback", FLAG), ("set", FLAG, "0"))


@pytest.mark.parametrize("command", TO_LEGACY, ids=("rollback", "set 0"))
@pytest.mark.parametrize("odd", ODD)
def test_an_emergency_is_not_stopped_by_other_peoples_flags(place, flipt, odd, command):
    if not flipt.standin:
        pytest.skip("a real server's flags are its own")
    flipt.load(everybody(variant_flag(40, 60)))
    flipt.standin.odd_flags, flipt.standin.odd_segments = ODD[odd], ODD_SEGMENTS
    told = place.run(*command)
    assert told.returncode == 0, told.stdout + told.stderr
    flipt.standin.odd_flags = []
    assert place.done("get", FLAG).split("%s: variant flag, " % FLAG)[1].startswith(
        "disabled: 0 %" if command[0] == "rollback" else "enabled: 0 %")
    assert place.history()[-1]["result"] == "done"


@pytest.mark.parametrize("command", TO_LEGACY, ids=("rollback", "set 0"))
@pytest.mark.parametrize("fault", ("500", "garbage", "half", "half_json", "401", "redirect_loop"))
def test_an_emergency_needs_no_snapshot(place, flipt, fault, command):
    """What serves routers is broken; where flags are changed it is not."""
    flipt.load(everybody(variant_flag(40, 60)))
    flipt.between.break_with(fault)
    told = place.run(*command)
    assert told.returncode == 0 and "cannot be evaluated" in told.stderr, told.stdout + told.stderr
    flipt.between.break_with(None)
    assert ": 0 % of everybody" in place.done("get", FLAG)
    refused = place.run("set", FLAG, "20", "--yes")
    assert refused.returncode == 0, refused.stderr
    flipt.between.break_with(fault)
    refused = place.run("set", FLAG, "30", "--yes")
    assert refused.returncode == 1 and "Nothing was changed." in refused.stderr  # what is no emergency is checked


def test_an_emergency_does_not_wait_for_a_token(place, flipt):
    flipt.load(everybody(variant_flag(40, 60)))
    told = place.run("rollback", FLAG, "--wait", "--admin", "http://127.0.0.1:1", "--admin-token-file", "/nonexistent")
    assert told.returncode == 3 and "cannot wait for" in told.stderr, told.stderr
    assert "disabled: 0 % of everybody" in place.done("get", FLAG)


def test_a_rollback_does_not_ask_what_a_variant_means(start, origin, flipt):
    """Two operations take it differently: a percentage is ambiguous, but off is off."""
    flipt.load(everybody(variant_flag(40, 60)))
    place = Place(start, origin, flipt)
    settings = json.loads(place.config_path.read_text())
    operations = settings["services"]["app"]["operations"]
    operations["other"] = {**operations["echo"], "match": "POST /other", "variants": {"100": "legacy"}}
    place.config_path.write_text(json.dumps(settings))
    assert "is ambiguous" in place.run("set", FLAG, "50", "--yes").stderr
    place.done("rollback", FLAG)
    assert "disabled: 0 % of everybody" in place.done("get", FLAG)


# --- wrong inputs ------------------------------------------------------------------------------------------------------

def test_flags_namespaces_tokens_and_servers_that_are_not_there(start, origin, flipt):
    flipt.load(everybody(variant_flag(10, 90)))
    place = Place(start, origin, flipt)

    def refused(place, *arguments):
        told = place.run(*arguments)
        assert told.returncode == 1 and "Nothing was changed." in told.stderr, told.stdout + told.stderr
        return told.stderr
    assert "similar: %s" % FLAG in refused(place, "set", FLAG[:-1], "20")
    says = refused(Place(start, origin, flipt, namespace="nowhere"), "set", FLAG, "20")
    assert "Flipt has no environment default, namespace nowhere" in says
    if flipt.version == 2:
        says = refused(Place(start, origin, flipt, environment="nowhere"), "set", FLAG, "20")
        assert "Flipt has no environment nowhere" in says
    gone = Place(start, origin, flipt, url="http://127.0.0.1:%d" % c.free_port())
    assert "Flipt: Failed to connect" in refused(gone, "rollback", FLAG)
    other = Place(start, origin, flipt, url=origin.url)
    origin.answers(200, [], b"hello")
    assert refused(other, "set", FLAG, "20")
    flipt.between.shown_token = "secret"
    assert "the client token is missing or lacks permission (FLIPT_CLIENT_TOKEN" in refused(place, "set", FLAG, "20")
    assert "1. everybody: 10 %" in place_with_token(start, origin, flipt)


def place_with_token(start, origin, flipt):
    place = Place(start, origin, flipt)
    told = place.run("get", FLAG, env={"FLIPT_CLIENT_TOKEN": "secret"})
    assert told.returncode == 0, told.stderr
    return told.stdout
