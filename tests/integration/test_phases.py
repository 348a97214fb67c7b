"""migration-rollout advance and stage: one step at a time, never past a breach, not before the hold, with the evidence in the history."""
import datetime
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time

import pytest

import configuration as c
from http_text import wait_until
from programs import ROOT, environment, program
from raw import ask, request
from terminal import Terminal
from test_flipt import FLAG as FLIPT_FLAG
from test_flipt import config as flipt_config
from test_flipt import flipt, origin  # noqa: F401  (fixtures)
from test_rollout_file import Place, everybody, segment, variant_flag

FLAG = "task_abstraction_enabled"
STEPS = [0, "beta", 5, 50, 100]


def flags(task=0, beta=0, key=FLAG):
    flag = variant_flag(task, 100 - task, key)
    flag["rules"].insert(0, {"segment": "beta", "distributions": [{"variant": "100", "rollout": beta},
                                                                  {"variant": "0", "rollout": 100 - beta}]})
    return everybody(flag, segments=[segment("beta", "organization_id", "acme")])


def rollout(steps=STEPS, flag=FLAG, **settings):
    return {flag: {"steps": steps, "hold": "0s", "require": "nothing", **settings}}


def place_of(start, steps=STEPS, task=0, beta=0, **settings):
    return Place(start, flags(task, beta), rollout=rollout(steps, **settings))


class Running(Place):
    """A place with a router and a worker, so that there is evidence; by fixed limits, unless it has a guard."""

    def __init__(self, start, task, beta=0, steps=STEPS, operations=None, guard="off", **settings):
        self.start, self.origin = start, start.origin()
        add = c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}, identity=c.IDENTITY)
        config = c.router({"app": c.service(self.origin, operations or {"add": add})}, backends=c.embedded(tasks=None),
                          guard=guard, rollout=rollout(steps, **settings))
        self.router, self.worker = start.with_worker(config, flags(task, beta))
        self.folder, self.flags, self.config = self.router.folder, self.router.flags_path, self.router.config_path
        self.router.wait_worker()

    def call(self, n, good=True, organization="umbrella"):
        """Of a different user each; those that the task side serves fail unless `good`."""
        body = b'{"a": 1, "b": 1}' if good else b'{"a": "x", "b": 1}'
        before = len(self.router.query("SELECT id FROM outcomes"))
        for i in range(n):
            ask(self.router.port, request("POST", "/add", [("X-User-Id", "u%d-%d" % (before, i)), ("X-Organization-Id", organization)], body))
        self.router.wait_outcomes(before + n)


def journal(place):
    path = os.path.join(place.folder, "data", "rollouts.jsonl")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def backdate(place, **ago):
    """What the history says happened so much earlier."""
    lines = journal(place)
    for line in lines:
        when = datetime.datetime.strptime(line["when"], "%Y-%m-%dT%H:%M:%S.%fZ") - datetime.timedelta(**ago)
        line["when"] = when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    with open(os.path.join(place.folder, "data", "rollouts.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def refused(place, *arguments, code):
    before = place.read()
    told = place.run("advance", FLAG, *arguments)
    assert told.returncode == code, told.stdout + told.stderr
    assert place.read() == before
    return told.stdout + told.stderr


# --- steps ---------------------------------------------------------------------------------------------------------------

def test_each_advance_is_exactly_one_step_and_the_history_says_why(start):
    place = Running(start, 0)
    for step, line in enumerate(("1. beta: 100 %", "2. everybody: 5 %", "2. everybody: 50 %", "2. everybody: 100 %")):
        place.done("advance", FLAG, "--message", "ticket %d" % step)
        assert line in place.done("get", FLAG)
    assert "is on 100 %, its last step" in place.done("advance", FLAG)
    made = [line for line in journal(place) if line["command"] == "advance"]
    assert [line["step"] for line in made] == ["beta", "5 %", "50 %", "100 %"]
    assert [line["message"] for line in made] == ["ticket %d" % i for i in range(4)]
    assert all("@" in line["who"] and line["result"] == "done" for line in made)
    evidence, = made[-1]["evidence"]["operations"]
    assert (evidence["service"], evidence["operation"]) == ("app", "add") and evidence["verdict"] and evidence["why"]
    table = place.done("history", FLAG)
    assert '"ticket 3"' in table and "(step 100 %)" in table and evidence["why"] in table


def test_a_step_is_not_left_before_it_has_held(start):
    place = Running(start, 5, 100, hold="1h")
    told = refused(place, code=4)
    assert "5 % has held for" in told and "of 1 hour" in told  # noted just now: nothing says how long it has stood
    seen, = journal(place)
    assert (seen["command"], seen["step"], seen["result"]) == ("observe", "5 %", "seen")
    backdate(place, minutes=59)
    assert "has held for 59 minutes of 1 hour" in refused(place, code=4)
    backdate(place, minutes=2)
    place.done("advance", FLAG)
    assert "2. everybody: 50 %" in place.done("get", FLAG)
    assert "50 % has held for" in refused(place, code=4)


def test_a_breach_of_the_guard_stops_advance(start):
    place = Running(start, 50, 100, guard="hold")
    place.call(40, good=False)
    place.router.wait_event("guard_breach", operation="add")
    assert "the task side is worse: failure" in refused(place, code=5)
    place.router.write_flags(flags(5, 100))  # another split: its breach is over
    place.router.wait_event("guard_released", operation="add")
    wait_until(lambda: place.run("advance", FLAG).returncode == 0, "a step")


def test_what_was_changed_in_between_holds_anew(start):
    place = Running(start, 5, 100, hold="1h")
    refused(place, code=4)
    backdate(place, hours=3)
    place.done("set", FLAG, "50", "--yes")
    place.done("set", FLAG, "5")
    assert "5 % has held for" in refused(place, code=4)
    place.done("rollback", FLAG)
    assert "is disabled: enable it first" in refused(place, code=1)


def test_the_step_0_asks_for_nothing_unless_it_says_so(start):
    place = Running(start, 0, hold="1h", require="safe")
    place.done("advance", FLAG)
    place.call(1)
    assert "beta has held for" in refused(place, code=4)
    place = Place(start, flags(), rollout={FLAG: {"steps": [{"percent": 0, "hold": "1h"}, 5]}})
    assert "0 % has held for" in refused(place, code=4)


def test_between_steps_it_stands_nowhere(start):
    place = place_of(start, task=17)
    told = refused(place, code=1)
    assert "17 % of everybody" in told and "none of its steps (0 %, beta, 5 %, 50 %, 100 %)" in told
    place.done("set", FLAG, "5")
    assert "none of its steps" in refused(place, code=1)  # the segment's step was left out
    place.done("set", FLAG, "100", "--segment", "beta", "--yes")
    place = place_of(start, steps=[0, 5, 50], task=5)
    assert "50 %" in place.run("advance", FLAG, "--dry-run").stdout


def test_a_dry_run_writes_nothing(start):
    place = place_of(start)
    before = place.read()
    assert "beta" in place.done("advance", FLAG, "--dry-run")
    assert place.read() == before and not os.path.exists(os.path.join(place.folder, "data"))


# --- what is required ------------------------------------------------------------------------------------------------------

def test_never_past_a_breach_whatever_is_required_or_said(start):
    place = Running(start, 50, 100)
    place.call(120, good=False)
    told = refused(place, "--yes", code=5)
    assert "breach: app.add: task_abstraction succeeds in 0.000% of" in told, told
    assert "breach: " in refused(place, "--watch", code=5)
    assert not [line for line in journal(place) if line["command"] == "advance"]


def test_safe_wants_enough_data(start):
    place = Running(start, 50, 100, require=["safe"])
    told = refused(place, code=4)
    assert "not yet: " in told
    place.call(120)
    place.done("advance", FLAG)
    assert journal(place)[-1]["evidence"]["operations"][0]["verdict"] in ("healthy", "safe")


def test_what_cannot_be_read_is_not_gone_past(start):
    place = place_of(start, task=5, beta=100)
    told = refused(place, "--yes", code=4)
    assert "outcomes.db" in told, told


def test_a_person_is_asked_where_the_step_wants_one(start):
    place = Running(start, 5, 100, require="manual")
    assert "confirmation by a person is required: --yes" in refused(place, code=4)
    terminal = Terminal("migration-rollout", "--config", place.config, "advance", FLAG)
    terminal.expect("Continue? [y/N] ")
    terminal.type("n\n")
    assert terminal.end()[0] == 4
    terminal = Terminal("migration-rollout", "--config", place.config, "advance", FLAG)
    terminal.expect("Continue? [y/N] ")
    terminal.type("y\n")
    assert terminal.end()[0] == 0
    assert "2. everybody: 50 %" in place.done("get", FLAG)
    place.done("advance", FLAG, "--yes")
    assert "2. everybody: 100 %" in place.done("get", FLAG)


def test_what_was_changed_while_a_person_thought_is_not_overwritten(start):
    place = Running(start, 5, 100, require="manual")
    terminal = Terminal("migration-rollout", "--config", place.config, "advance", FLAG)
    terminal.expect("Continue? [y/N] ")
    everything = json.dumps(flags(100, 100))
    place.write(everything)
    terminal.type("y\n")
    code, said = terminal.end()
    assert code == 1 and "was changed by someone else in the meantime" in said, said
    assert place.read() == everything and not [line for line in journal(place) if line["command"] == "advance"]


def test_one_broken_operation_stops_the_flag_of_all(start):
    def add(path):
        return c.operation("POST " + path, {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}, identity=c.IDENTITY)
    place = Running(start, 50, 100, operations={"add": add("/add"), "other": add("/other")})
    place.call(120)
    place.done("advance", FLAG, "--dry-run")
    for i in range(120):
        ask(place.router.port, request("POST", "/other", [("X-User-Id", "o%d" % i)], b'{"a": "x", "b": 1}'))
    place.router.wait_outcomes(240)
    assert "breach: app.other: " in refused(place, "--yes", code=5)


def tables(room, name):
    """What the room's store makes of its tables, so that a file can be as another router has left it."""
    with open(os.path.join(ROOT, "src", room, name), encoding="utf-8") as file:
        text = file.read()
    return "".join(re.findall(r'"(.*?)"', text[text.index('"CREATE TABLE'):].split("\n\n", 1)[0]))


def write(place, room, name, sql, *values):
    db = sqlite3.connect(place.router.outcomes_path, timeout=10)
    with db:
        db.executescript(tables(room, name))
        db.execute(sql, values)
    db.close()


def compared(place, pairs, differing):
    """As if so many pairs had been compared in this hour."""
    write(place, "pairs", "pairs_store.c",
          "INSERT OR REPLACE INTO compare_counts (hour, service, operation, pair, compared, differing) VALUES (?, 'app', 'add', 'sides', ?, ?)",
          int(time.time() // 3600), pairs, differing)


def test_the_guards_breach_and_hold_stop_every_step(start):
    place = Running(start, 50, 100, guard="hold")
    place.call(60, good=False)
    place.router.wait_event("guard_breach", service="app", operation="add")
    told = refused(place, "--yes", code=5)
    assert "app.add: breach: the task side is worse: failure" in told and "held at legacy" in told, told
    operation, = json.loads(place.done("stage", "--json"))["operations"]
    assert operation["verdict"] == "breach" and "held at legacy" in operation["why"]
    place.done("set", FLAG, "5")  # a new epoch: the evidence is not this step's, and nobody is held
    wait_until(lambda: place.router.query("SELECT 1 FROM guard_epochs WHERE epoch = 2 AND held_us = 0"), "the next epoch")
    assert "advance" not in [line["command"] for line in journal(place)]
    place.done("advance", FLAG)


def test_safe_is_the_guards_word_of_this_step(start):
    place = Running(start, 50, 100, steps=[0, "beta", 50, 60, 100], require="safe", guard={"on_breach": "hold", "negligible": 50})
    assert "app.add: not enough data" in refused(place, "--yes", code=4)
    for _ in range(20):
        place.call(60)
        if place.run("advance", FLAG, "--dry-run").returncode == 0:
            break
    place.done("advance", FLAG)
    made = journal(place)[-1]
    assert made["step"] == "60 %" and made["evidence"]["operations"][0]["judge"] == "guard"
    assert made["evidence"]["operations"][0]["verdict"] == "safe"
    told = refused(place, "--yes", code=4)  # what was safe at 50 % says nothing of 60 %
    assert "the guard has no evidence for this step yet" in told or "not enough data" in told, told


def guarded(place, held, mode="hold"):
    """As if the guard had begun an epoch, of another split."""
    now = int(time.time() * 10**6)
    write(place, "guard", "guard_store.c",
          "INSERT OR REPLACE INTO guard_epochs VALUES (1, 'app', 'add', 1, 12345, ?, ?, ?, ?, 0, 'not_enough_data', 'the split changed', 0, 0, x'')",
          mode, now, now, now if held else 0)


def test_what_the_guard_holds_is_not_advanced_from_any_step(start):
    place = Running(start, 0)
    place.call(1)
    guarded(place, held=True)
    assert "breach: app.add: " in refused(place, "--yes", code=5) and "held at legacy" in refused(place, code=5)
    guarded(place, held=True, mode="off")
    place.done("advance", FLAG)


def test_the_evidence_of_another_split_is_not_this_steps(start):
    place = Running(start, 50, 100, require="safe")
    place.call(120)
    guarded(place, held=False)
    assert "the guard has no evidence for this step yet" in refused(place, "--yes", code=4)


def test_differences_that_nobody_has_counted_are_not_few(start):
    place = Running(start, 5, 100, differences_below=1)
    assert "differences below 1 % are required, but nothing has been compared" in refused(place, "--yes", code=4)
    compared(place, 100, 0)  # few pairs prove little
    assert "up to 3.7 % of the answers may differ (0 of 100 did), below 1 % is required" in refused(place, code=4)
    compared(place, 1000, 20)
    assert "(20 of 1000 did)" in refused(place, code=4)
    compared(place, 1000, 2)
    place.done("advance", FLAG)
    assert [journal(place)[-1]["evidence"][key] for key in ("compared", "differing")] == [1000, 2]


# --- waiting, killing, racing -----------------------------------------------------------------------------------------------

def watching(place, *arguments):
    return subprocess.Popen([program("migration-rollout"), "--config", place.config, "advance", FLAG, "--watch", *arguments],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def test_watching_goes_one_step_when_the_hold_is_over(start):
    place = Running(start, 5, 100, hold="3s")
    began = time.monotonic()
    watcher = watching(place)
    said, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0 and time.monotonic() - began >= 3, said
    assert "not yet: 5 % has held for" in said and "from 5 % to 50 %" in said
    assert "2. everybody: 50 %" in place.done("get", FLAG)


def test_watching_ends_with_a_breach(start):
    place = Running(start, 50, 100, hold="1h")
    watcher = watching(place)
    wait_until(lambda: journal(place), "the step to be noted")
    place.call(120, good=False)
    said, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 5 and "breach: " in said
    assert "2. everybody: 50 %" in place.done("get", FLAG)


@pytest.mark.parametrize("attempt", range(3))
def test_two_advances_at_once_give_one_step(start, attempt):
    """Those that overlap; on a busy machine one may begin when another has ended, and then makes the step after its."""
    place = place_of(start, steps=[0, 1, 2, 3, 4, 5, 100])
    place.write(json.dumps(flags()))
    both = [subprocess.Popen([program("migration-rollout"), "--config", place.config, "advance", FLAG], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) for _ in range(4)]
    told = [one.communicate(timeout=60) for one in both]
    made = [one.returncode for one in both].count(0)
    assert made >= 1 and all(one.returncode in (0, 1) for one in both), told
    assert "%d. everybody: %d %%" % (made + 1, made) in place.done("get", FLAG)
    assert [line["step"] for line in journal(place) if line["command"] == "advance"] == ["%d %%" % n for n in range(1, made + 1)]


def test_killed_midway_either_step_is_whole(start):
    place = place_of(start)
    first = place.read()
    place.done("advance", FLAG)
    second = place.read()
    seen = set()
    for i in range(30):
        place.write(first)
        one = subprocess.Popen([program("migration-rollout"), "--config", place.config, "advance", FLAG], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        time.sleep(random.random() * 0.08)
        one.send_signal(signal.SIGKILL)
        one.wait(60)
        now = place.read()
        assert now in (first, second)
        seen.add(now)
    assert place.run("advance", FLAG).returncode in (0, 4)


# --- stages -----------------------------------------------------------------------------------------------------------------

def stage(place):
    operation, = json.loads(place.done("stage", "--json"))["operations"]
    return operation


def test_stages_from_off_to_drained(start):
    place = Running(start, 0)
    assert stage(place)["stage"] == "off" and stage(place)["flags"][0]["step"] == 1
    place.call(3)
    place.done("advance", FLAG)
    assert (stage(place)["stage"], stage(place)["percent"], stage(place)["segments"]) == ("rolling", 0, True)
    place.done("set", FLAG, "50", "--yes")
    assert (stage(place)["stage"], stage(place)["percent"] > 45, stage(place)["flags"][0]["step"]) == ("rolling", True, 4)
    place.done("advance", FLAG)
    assert (stage(place)["stage"], stage(place)["percent"]) == ("complete", 100)
    said = place.done("stage")
    assert "app.add: complete, 100 % of everybody" in said and "legacy was last used" in said, said
    wait_until(lambda: place.router.find("flags_published") and len(place.router.find("flags_published")) >= 3, "the flags")
    place.call(2)
    place.router.stop()
    db = sqlite3.connect(place.router.outcomes_path)
    with db:
        day = 86400 * 10**6
        legacy = "(SELECT id FROM series WHERE side = 'legacy')"
        db.execute("UPDATE rollups SET minute = minute - 30 * 1440 WHERE series IN " + legacy)
        db.execute("UPDATE last_seen SET time_us = time_us - ? WHERE series IN " + legacy, (30 * day,))
        db.execute("UPDATE presence SET began_us = began_us - ?", (40 * day,))
    db.close()
    assert stage(place)["stage"] == "drained"
    assert "app.add: drained" in place.done("stage", FLAG)


def test_shadow_is_a_stage_of_its_own(start):
    flag = c.variants(FLAG, **{"shadow": 100, "100": 0})
    place = Place(start, everybody(flag), rollout=rollout([0, 100]))
    assert (stage(place)["stage"], stage(place)["shadow_percent"]) == ("shadow", 100)


# --- through Flipt ------------------------------------------------------------------------------------------------------------

def test_steps_through_flipt(start, origin, flipt):  # noqa: F811
    flag = variant_flag(0, 100, FLIPT_FLAG)
    flag["rules"].insert(0, {"segment": "beta", "distributions": [{"variant": "100", "rollout": 0}, {"variant": "0", "rollout": 100}]})
    flipt.load(everybody(flag, segments=[segment("beta", "organization_id", "acme")]))
    settings = flipt_config(origin, flipt)
    settings["rollout"] = rollout(["beta", 5, 100], FLIPT_FLAG)
    router, _ = start.with_worker(settings)

    def run(*arguments):
        return start.run("migration-rollout", "--config", router.config_path, *arguments)
    ask(router.port, request("GET", "/x"))
    router.wait_outcomes(1)
    for line in ("1. beta: 100 %", "2. everybody: 5 %", "2. everybody: 100 %"):
        told = run("advance", FLIPT_FLAG)
        assert told.returncode == 0, told.stdout + told.stderr
        assert line in run("get", FLIPT_FLAG).stdout
    assert "its last step" in run("advance", FLIPT_FLAG).stdout


# --- configuration and arguments ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("features, steps, sentence", (
    (flags(), [0, "gamma", 5], "step gamma: no rule of %s targets this segment alone" % FLAG),
    (c.features(c.boolean(FLAG, False, percentage=0)), [0, 2.5, 100], "step 2.5 %: boolean flags work in whole percents"),
))
def test_steps_that_the_flag_can_never_show_are_told_before_the_first(start, features, steps, sentence):
    place = Place(start, features, rollout=rollout(steps))
    assert sentence in refused(place, code=1)


@pytest.mark.parametrize("section, sentence", (
    ({FLAG: {"steps": [5, 5]}}, "5 % is not above the previous step (5 %)"),
    ({FLAG: {"steps": [100, "beta"]}}, 'the segment "beta" comes after 100 %'),
    ({FLAG: {"steps": ["beta", "beta", 5]}}, 'the segment "beta" is listed twice'),
    ({FLAG: {"steps": [0, 101]}}, "expected a percentage from 0 to 100"),
    ({FLAG: {"steps": [0, 0.25]}}, "expected a percentage from 0 to 100"),
    ({FLAG: {"steps": [0, {"percent": 5, "segment": "beta"}]}}, 'a step has either "percent" or "segment"'),
    ({FLAG: {"steps": [0, {"percent": 5, "holds": "1h"}]}}, "holds"),
    ({FLAG: {"steps": [0, 5], "require": ["saef"]}}, "safe"),
    ({FLAG: {"steps": [0]}}, "missing: such as"),
    ({"another_flag": {"steps": [0, 5]}}, 'no operation uses the flag "another_flag"'),
))
def test_mistakes_are_told_with_their_key(start, section, sentence):
    place = Place(start, flags(), rollout=section)
    told = place.run("advance", FLAG)
    assert told.returncode == 2 and sentence in told.stderr and "rollout" in told.stderr, told.stderr
    checked = start.run("migration-router", "check", str(place.config))
    assert checked.returncode != 0 and sentence in checked.stdout + checked.stderr


@pytest.mark.parametrize("steps", ([0, 101], [101], [0, 5, 101, 50], [0, {"percent": 5, "segment": "beta"}], ["beta", {"segment": "a b\n"}]))
def test_a_wrong_step_is_one_mistake(start, steps):
    """What follows of it (too few steps, none above the one before) is not told as another."""
    place = Place(start, flags(), rollout={FLAG: {"steps": steps}})
    told = start.run("migration-router", "check", str(place.config))
    assert told.returncode != 0 and (told.stdout + told.stderr).count("steps") == 1, told.stdout + told.stderr


@pytest.mark.parametrize("arguments", (["advance"], ["advance", FLAG, "5"], ["get", "--message", "x"], ["set", FLAG, "5", "--watch"],
                                       ["stage", "a", "b"], ["advance", FLAG, "--message", "a\nb"], ["advance", FLAG, "--message", ""]))
def test_what_does_not_fit_is_usage(start, arguments):
    assert place_of(start).run(*arguments).returncode == 2


def test_a_flag_without_steps_is_told_so(start):
    place = Place(start, flags())
    assert "has no steps" in refused(place, code=1)
