"""migration-rollout on the features file: what it says, refuses, asks, writes and records."""
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import tempfile

import pytest

import configuration as c
from http_text import wait_until
from programs import program
from raw import ask, request
from terminal import Terminal

FLAG = "task_abstraction_enabled"
OTHER = "prompt_helpers_enabled"
TASK = {"name": "echo"}
IDENTITY = {"user": ["header:X-User-Id"], "organization": ["header:X-Organization-Id"]}


class Place:
    """A folder with a configuration and flags, without a router."""

    def __init__(self, start, features=None, text=None, operations=None, folder=None, **sections):
        self.start = start
        self.folder = str(folder or start.folder())
        self.flags = os.path.join(self.folder, "flags.yml")
        self.config = os.path.join(self.folder, "router.yml")
        operations = operations or {"echo": c.operation("POST /echo", TASK, identity=IDENTITY)}
        self.configure(c.router({"app": c.service("http://127.0.0.1:1", operations)}, backends=c.embedded(tasks=None), **sections))
        self.write(text if text is not None else json.dumps(features, indent=1))

    def configure(self, config):
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump(config, file)

    def write(self, text):
        with open(self.flags, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def read(self):
        with open(self.flags, encoding="utf-8", newline="") as file:
            return file.read()

    def run(self, *arguments, env=None):
        return self.start.run("migration-rollout", "--config", self.config, *arguments, env=env)

    def done(self, *arguments):
        told = self.run(*arguments)
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    def refused(self, *arguments, code=1):
        """The sentence; and nothing is another than it was."""
        before = self.read()
        told = self.run(*arguments)
        assert told.returncode == code, told.stdout + told.stderr
        assert self.read() == before
        return told.stderr

    def history(self):
        return [json.loads(line) for line in self.done("history", "--json").splitlines()]


def asking(*flags):
    """Operations that ask these flags, each one."""
    return {"echo-%d" % i: c.operation("POST /echo/%d" % i, TASK, flags=[flag], identity=IDENTITY) for i, flag in enumerate(flags)}


def variant_flag(task, legacy, key=FLAG):
    return c.variants(key, **{"0": legacy, "100": task})


def everybody(*flags, segments=()):
    return c.features(*flags, segments=[c.everybody(), *segments])


def segment(key, prop, value, operator="eq"):
    return {"key": key, "name": key, "match_type": "ALL_MATCH_TYPE",
            "constraints": [{"type": "STRING_COMPARISON_TYPE", "property": prop, "operator": operator, "value": value}]}


def with_beta(task=10, beta=0):
    flag = variant_flag(task, 100 - task)
    flag["rules"].insert(0, {"segment": "beta", "distributions": [{"variant": "100", "rollout": beta},
                                                                  {"variant": "0", "rollout": 100 - beta}]})
    return everybody(flag, segments=[segment("beta", "organization_id", "acme")])


# --- a change ----------------------------------------------------------------------------------------------------------

def test_only_the_numbers_change_and_the_history_says_who(start):
    text = ("# \u00fc\r\nflags:\r\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, # one\r\n"
            "   rollouts: [{threshold: {percentage: 5, value: true}}]}\r\n")
    place = Place(start, text=text, operations=asking("f"))
    said = place.done("set", "f", "10")
    assert "f now sends 10 % of everybody to tasks" in said
    assert place.read() == text.replace("percentage: 5", "percentage: 10")
    place.done("rollback", "f")
    assert place.read() == text.replace("percentage: 5", "percentage: 0")
    first, second = place.history()
    assert (first["command"], first["percent"], first["from"], first["to"]) == ("set", 10, 5, 10)
    assert (second["command"], second["from"], second["to"]) == ("rollback", 10, 0)
    assert first["changes"] == [{"what": "threshold", "rule": 1, "from": 5, "to": 10}]
    for line in (first, second):
        assert line["result"] == "done" and "@" in line["who"] and line["when"].endswith("Z") and line["source"] == place.flags
    table = place.done("history", "f")
    assert "set f 10: 5 % \u2192 10 % of everybody  [done]" in table and "rollback f: 10 % \u2192 0 % of everybody" in table
    assert "set f" not in place.done("history", "another")


def test_a_dry_run_shows_and_leaves_everything(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    before = place.read()
    said = place.done("set", FLAG, "55.5", "--dry-run")
    assert 'rule 1, variant "100": 10 % \u2192 55.5 %' in said and "of everybody: 10 % \u2192 55.5 % to tasks" in said
    assert place.read() == before and not os.path.exists(os.path.join(place.folder, "data"))


def test_a_segment_is_changed_by_itself(start):
    place = Place(start, with_beta())
    said = place.done("set", FLAG, "50", "--segment", "beta", "--yes")
    assert "10 % of everybody to tasks and 50 % of the segment's members" in said
    said = place.done("get", FLAG)
    assert "1. beta: 50 %" in said and "2. everybody: 10 %" in said
    assert place.history()[0]["segment"] == "beta" and place.history()[0]["to"] == 50


def test_a_segment_of_a_boolean_flag_is_on_or_off(start):
    flag = c.boolean("f", False, percentage=5)
    flag["rollouts"].insert(0, {"segment": {"key": "beta", "value": False}})
    place = Place(start, everybody(flag, segments=[segment("beta", "organization_id", "acme")]), operations=asking("f"))
    assert "on or off" in place.refused("set", "f", "50", "--segment", "beta")
    assert "members more than doubles" in place.refused("set", "f", "100", "--segment", "beta")
    place.done("set", "f", "100", "--segment", "beta", "--yes")
    assert "1. beta: 100 %  (true)" in place.done("get", "f")
    place.done("rollback", "f")
    assert "1. beta: 0 %  (false)" in place.done("get", "f") and "f: boolean flag, disabled: 0 % of everybody" in place.done("get", "f")


def test_disable_and_enable(start):
    place = Place(start, everybody(variant_flag(10, 90), c.boolean("b", False, percentage=5)), operations=asking(FLAG, "b"))
    assert "now sends 0 % of everybody to tasks" in place.done("disable", FLAG)
    assert place.done("disable", FLAG).count("nothing to change") == 1
    said = place.done("set", FLAG, "20")  # nobody goes to tasks while it is disabled: nothing doubles
    assert "The flag is disabled: the percentage applies once it is enabled." in said
    assert "0 % \u2192 20 % of everybody more than doubles" in place.refused("enable", FLAG)
    assert "now sends 20 % of everybody to tasks" in place.done("enable", FLAG, "--yes")
    assert "5 % \u2192 100 % of everybody more than doubles" in place.refused("enable", "b")
    place.done("enable", "b", "--yes")
    said = place.done("disable", "b")
    assert "still runs its rollouts" in said and "b now sends 5 % of everybody to tasks" in said
    assert [x["command"] for x in place.history()] == ["disable", "set", "enable", "enable", "disable"]


def test_several_variants_of_a_side_grow_together(start):
    place = Place(start, everybody(c.variants(FLAG, blue=5, green=15, off=60, legacy=20)))
    place.done("set", FLAG, "40")
    assert "1. everybody: 40 %  (blue: 10 %, green: 30 %, off: 45 %, legacy: 15 %)" in place.done("get", FLAG)


def test_what_was_agreed_on_is_what_operations_mean(start):
    """`on` is legacy to one operation by its map, and `x` by its attachment: 30 % is what is left."""
    flag = c.variants(FLAG, on=20, x=20, task=10, off=50)
    flag["variants"][1]["attachment"] = {"side": "legacy"}
    flag["rules"][0]["distributions"] = [{"variant": "task", "rollout": 10}, {"variant": "on", "rollout": 20},
                                         {"variant": "x", "rollout": 20}, {"variant": "off", "rollout": 50}]
    operation = c.operation("POST /echo", TASK, identity=IDENTITY, variants={"on": "legacy"})
    place = Place(start, everybody(flag), operations={"echo": operation})
    assert "10 % of everybody" in place.done("get", FLAG)
    assert "now sends 20 % of everybody to tasks" in place.done("set", FLAG, "20")
    assert "1. everybody: 20 %  (task: 20 %, on: 17.8 %, x: 17.8 %, off: 44.4 %)" in place.done("get", FLAG)
    two = {"echo": operation, "other": c.operation("POST /other", TASK, identity=IDENTITY)}
    place = Place(start, everybody(flag), operations=two)
    says = place.refused("set", FLAG, "20", "--yes")
    assert 'variant "on" means legacy to app.echo and task to app.other' in says


def test_a_percentage_that_an_earlier_rule_overrules_is_asked_about_and_complained_of(start):
    flag = variant_flag(10, 90)
    flag["rules"].insert(0, {"segment": "known", "distributions": [{"variant": "100", "rollout": 100}]})
    known = {"key": "known", "match_type": "ALL_MATCH_TYPE", "constraints": [
        {"type": "STRING_COMPARISON_TYPE", "property": "user_id", "operator": "notempty", "value": ""}]}
    place = Place(start, everybody(flag, segments=[known]))
    assert "an earlier rule makes it 100 %, not 20 %" in place.refused("set", FLAG, "20")
    told = place.run("set", FLAG, "20", "--yes")
    assert told.returncode == 3 and "20 % was requested, but an earlier rule makes it 100 %" in told.stderr
    assert [x["result"][:12] for x in place.history()] == ["done", "NOT AS ASKED"]


def test_a_backend_that_is_not_there_is_asked_about_and_complained_of(start):
    place = Place(start, everybody(c.variants(FLAG, temporal=10, off=90)))
    says = 'app.echo is routed to the backend "temporal", which is not configured: legacy serves'
    assert says in place.refused("set", FLAG, "20")
    told = place.run("set", FLAG, "20", "--yes")
    assert told.returncode == 3 and says in told.stderr and "note: " + says in told.stdout
    place.done("rollback", FLAG)


@pytest.mark.parametrize("command", (("set", "prompt_helper_enabled", "5"), ("set", "prompt_helper_enabled", "1"),
                                     ("enable", "prompt_helper_enabled")))
def test_a_flag_that_no_operation_uses_is_asked_about_and_complained_of(start, command):
    """A slip of the keys in the flag's name must not look like a change of anybody's side."""
    flag = c.boolean("prompt_helper_enabled", False, percentage=3)
    place = Place(start, c.features(flag, c.boolean(FLAG, False)),
                  operations={"echo": c.operation("POST /echo", TASK, flags=[FLAG, OTHER], identity=IDENTITY)})
    says = 'no operation uses the flag "prompt_helper_enabled" (similar: %s)' % OTHER
    assert says in place.refused(*command)
    told = place.run(*command, "--yes")
    assert told.returncode == 3 and says in told.stderr and "note: " + says in told.stdout
    told = place.run("rollback", "prompt_helper_enabled")
    assert told.returncode == 0 and says in told.stdout  # asks nothing


def test_a_percentage_that_another_rollout_overrules_is_said_before_it_is_written(start):
    """Two thresholds: whom the second takes is known beforehand."""
    flag = {"key": FLAG, "type": "BOOLEAN_FLAG_TYPE", "enabled": False, "rollouts": [
        {"threshold": {"percentage": 50, "value": True}}, {"threshold": {"percentage": 50, "value": True}}]}
    place = Place(start, c.features(flag))
    says = "another rollout of the flag makes it 50 %, not 10 %"
    assert says in place.refused("set", FLAG, "10")
    told = place.run("set", FLAG, "10", "--yes")
    assert told.returncode == 3 and "note: " + says in told.stdout
    assert told.stdout.index("note: " + says) < told.stdout.index("now sends 50 % of")
    assert "another rollout of the flag makes it 50 %, not 0 %" in place.run("set", FLAG, "0").stdout
    place.done("rollback", FLAG)
    assert "0 % of everybody" in place.done("get", FLAG)


@pytest.mark.parametrize("broken", ({"services": {"app": {"listen": "nowhere"}}}, {"threads": "many"}, {"outcomes": {"path": []}},
                                    {"backends": {"celery": {"broker_url": 5, "rhyme": 1}}}, {"colour": "red"}, {"services": None}))
def test_a_rollback_needs_no_more_of_the_configuration_than_where_flags_lie(start, broken):
    place = Place(start, everybody(variant_flag(40, 60)))
    with open(place.config, encoding="utf-8") as file:
        place.configure({**json.load(file), **broken})
    assert place.run("set", FLAG, "10", "--yes").returncode == 2
    told = place.run("rollback", FLAG)
    assert told.returncode == 0 and "the configuration has mistakes" in told.stderr, told.stdout + told.stderr
    assert json.loads(place.read())["flags"][0]["enabled"] is False
    place.configure({"flags": {"file": []}, **broken})
    assert place.run("rollback", FLAG).returncode == 2


def test_operations_of_several_flags(start):
    operations = {"both": c.operation("POST /both", TASK, flags=(FLAG, OTHER), identity=IDENTITY),
                  "one": c.operation("POST /one", TASK, identity=IDENTITY)}
    place = Place(start, everybody(variant_flag(25, 75), c.boolean(OTHER, False, percentage=50), c.boolean("third", True)),
                  operations=operations)
    line = "app.both: %s 25 %% \u00d7 %s 50 %% = 12.5 %% of everybody" % (FLAG, OTHER)
    assert line in place.done("get") and line in place.done("get", OTHER) and line not in place.done("get", "third")
    assert "app.one" not in place.done("get")
    said = place.done("plan", OTHER, "100")
    now, then = map(float, re.search(r"app\.both: ([\d.]+) % \u2192 ([\d.]+) % to tasks  \(2 flags together\)", said).groups())
    assert 12 < now < 13 and 24 < then < 26 and "app.one" not in said


# --- the file ----------------------------------------------------------------------------------------------------------

def test_a_link_stays_a_link_and_mode_and_owner_stay(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    real = os.path.join(place.folder, "real.yml")
    os.rename(place.flags, real)
    os.symlink("real.yml", place.flags)
    os.chmod(real, 0o640)
    if os.geteuid() == 0:
        os.chown(real, 12345, 23456)
    before = os.stat(real)
    place.done("set", FLAG, "20")
    after = os.stat(real)
    assert os.path.islink(place.flags) and '"rollout": 20' in place.read()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert sorted(os.listdir(place.folder)) == ["data", "flags.yml", "real.yml", "router.yml"]


def test_an_edit_between_reading_and_writing_is_kept(start):
    """The writer waits for the lock that another one holds; when it gets it, the file is another."""
    place = Place(start, everybody(variant_flag(10, 90)))
    with open(place.flags, encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        changing = start.process("migration-rollout", "--config", place.config, "set", FLAG, "20")
        wait_until(lambda: "is locked by another program (flock): waiting" in changing.log(), "the writer to wait for the lock")
        with open(place.flags + ".new", "w", encoding="utf-8") as file:
            file.write(place.read() + "\n# somebody's note\n")
        os.rename(place.flags + ".new", place.flags)
    assert changing.wait() == 0, changing.log()
    assert '"rollout": 20' in place.read() and place.read().endswith("# somebody's note\n")


@pytest.fixture
def open_folder():
    """One that every user may look into, whatever stands above this clone."""
    with tempfile.TemporaryDirectory(prefix="migration-router-", dir="/tmp") as folder:
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_without_permission_nothing_happens(start, open_folder):
    place = Place(start, everybody(variant_flag(10, 90)), folder=open_folder)
    for path, mode in ((place.folder, 0o755), (place.config, 0o644), (place.flags, 0o644)):
        os.chmod(path, mode)
    os.makedirs(os.path.join(place.folder, "data"))
    os.chmod(os.path.join(place.folder, "data"), 0o777)
    command = shutil.copy(program("migration-rollout"), place.folder)
    told = start.run(command, "--config", place.config, "set", FLAG, "20", user=65534)
    assert told.returncode == 1 and "flags.yml: Permission denied\nNothing was changed." in told.stderr, told.stderr
    os.chown(place.flags, 65534, 65534)
    told = start.run(command, "--config", place.config, "set", FLAG, "20", user=65534)  # but the folder is not its own
    assert told.returncode == 1 and "Permission denied" in told.stderr
    os.chmod(place.folder, 0o777)
    os.chown(place.flags, 0, 0)
    os.chmod(place.flags, 0o666)  # it may write the file, but a new one would be its own
    told = start.run(command, "--config", place.config, "set", FLAG, "20", user=65534)
    assert told.returncode == 1 and "belongs to user 0 and group 0, which this user cannot preserve" in told.stderr
    assert json.loads(place.read()) == everybody(variant_flag(10, 90))


def test_a_change_that_cannot_be_recorded_is_not_made_but_a_rollback_is(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    journal = os.path.join(place.flags, "rollouts.jsonl")  # no folder can be there
    assert "the change could not be recorded" in place.refused("set", FLAG, "20", "--journal", journal)
    told = place.run("rollback", FLAG, "--journal", journal)
    assert told.returncode == 3 and "could not be recorded" in told.stderr and '"enabled": false' in place.read()
    journal = os.path.join(place.folder, "elsewhere", "j.jsonl")
    place.done("enable", FLAG, "--yes", "--journal", journal)
    assert "enable" in place.done("history", "--journal", journal)
    assert "no changes made with this program yet" in place.run("history").stderr


# --- the question ------------------------------------------------------------------------------------------------------

def test_more_than_doubling_is_asked_about(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    place.done("set", FLAG, "20")
    assert "20 % \u2192 40.1 % of everybody more than doubles: confirm with --yes" in place.refused("set", FLAG, "40.1")
    for answer, code in (("n", 1), ("", 1), ("y", 0)):
        terminal = Terminal("migration-rollout", "--config", place.config, "set", FLAG, "50")
        terminal.expect("20 % \u2192 50 % of everybody more than doubles. Continue? [y/N] ")
        terminal.type(answer + "\n")
        ended, said = terminal.end()
        assert ended == code, said
        assert ("Nothing was changed." in said) == (code == 1)
    assert '"rollout": 50' in place.read()


def test_what_changes_while_the_question_stands_is_asked_about_again(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    terminal = Terminal("migration-rollout", "--config", place.config, "set", FLAG, "50")
    terminal.expect("10 % \u2192 50 % of everybody more than doubles. Continue? [y/N] ")
    place.done("set", FLAG, "5")
    terminal.type("y\n")
    terminal.expect('variant "100": 5 % \u2192 50 %')
    terminal.expect("5 % \u2192 50 % of everybody more than doubles. Continue? [y/N] ")
    place.write(place.read() + "\n# somebody's note\n")
    terminal.type("y\n")
    code, said = terminal.end()
    assert code == 0, said
    assert '"rollout": 50' in place.read() and place.read().endswith("# somebody's note\n")


# --- wrong inputs ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, code, says", [
    (("get", "nope"), 1, 'there is no flag "nope"; available: task_abstraction_enabled, bool'),
    (("set", "task_abstracton_enabled", "5"), 1, "similar: task_abstraction_enabled"),
    (("rollback", "task_abstracton"), 1, "similar: task_abstraction_enabled"),
    (("set", FLAG, "101"), 2, '"101" is not a percentage from 0 to 100'),
    (("set", FLAG, "--", "-1"), 2, '"-1" is not a percentage from 0 to 100'),
    (("set", FLAG, "abc"), 2, '"abc" is not a percentage'),
    (("set", FLAG, "1e1"), 2, '"1e1" is not a percentage'),
    (("set", FLAG, "5."), 2, '"5." is not a percentage'),
    (("set", FLAG, ""), 2, '"" is not a percentage'),
    (("set", FLAG, "5", "6"), 2, 'unexpected argument "6"'),
    (("set", FLAG), 2, "set needs a flag and a percentage"),
    (("rollback",), 2, "rollback needs a flag"),
    ((), 2, "a command is missing"),
    (("sett", FLAG, "5"), 2, 'unknown command "sett"'),
    (("enable", FLAG, "--segment", "x"), 2, "--segment is for set and plan"),
    (("set", FLAG, "5", "--wait"), 2, "--wait needs the admin address"),
    (("set", FLAG, "5", "--timeout", "0"), 2, "is not a number of seconds"),
    (("set", FLAG, "5", "--nonsense"), 2, "--nonsense"),
    (("set", FLAG, "10.05"), 1, "the nearest are 10 and 10.1"),
    (("set", "bool", "10.5"), 1, "the nearest are 10 and 11"),
    (("set", FLAG, "5", "--segment", "vip"), 1, 'no rule targets the segment "vip"; rules target: everybody'),
    (("set", "bare", "5"), 1, "the flag has no rules"),
    (("set", "on", "5"), 1, "the flag is enabled"),
    (("set", "plain", "5"), 1, "the flag has no threshold"),
])
def test_wrong_inputs(start, arguments, code, says):
    bare = {"key": "bare", "name": "bare", "type": "VARIANT_FLAG_TYPE", "enabled": True, "variants": []}
    place = Place(start, everybody(variant_flag(10, 90), c.boolean("bool", False, percentage=5), bare,
                                   c.boolean("on", True, percentage=5), c.boolean("plain", False)))
    sentence = place.refused(*arguments, code=code)
    assert says in sentence
    assert "Try 'migration-rollout --help'" in sentence if code == 2 else True


def test_a_configuration_or_file_that_is_not_there(start):
    place = Place(start, everybody(variant_flag(10, 90)))
    told = start.run("migration-rollout", "--config", os.path.join(place.folder, "no.yml"), "get")
    assert told.returncode == 2 and "no.yml" in told.stderr
    os.unlink(place.flags)
    told = place.run("set", FLAG, "20")
    assert told.returncode == 1 and "flags.yml: No such file" in told.stderr
    place.write("flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: true, rules: [{segment: nobody, distributions: []}]}]")
    told = place.run("set", "f", "20")
    assert told.returncode == 1 and "flags.yml:1: " in told.stderr and "nobody" in told.stderr


# --- plan --------------------------------------------------------------------------------------------------------------

def call(router, path="/echo", user=None, organization=None, times=1):
    fields = [("X-User-Id", user)] * bool(user) + [("X-Organization-Id", organization)] * bool(organization)
    for _ in range(times):
        assert ask(router.port, request("POST", path, fields, b"{}")).status == 200


def recorded(start, features, calls, operations=None, **sections):
    """A router that has served these calls: (path, user, organization, how often)."""
    origin = start.origin()
    operations = operations or {"echo": c.operation("POST /echo", TASK, identity=IDENTITY)}
    settings = c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None), **sections)
    router = start.router(settings, features)
    for path, user, organization, times in calls:
        call(router, path, user, organization, times)
    if calls:
        router.wait_outcomes(sum(x[-1] for x in calls))
    return router


def plan(start, router, *arguments):
    told = start.run("migration-rollout", "--config", router.config_path, "plan", *arguments)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_plan_counts_users_and_organizations_and_names_the_largest(start):
    calls = [("/echo", "user-%d" % n, "org-%d" % (n % 4), 1 + (n == 7) * 4) for n in range(20)]
    router = recorded(start, everybody(variant_flag(0, 100)), calls)
    said = plan(start, router, FLAG, "100")
    assert "0 % \u2192 100 % of everybody" in said and "app.echo: 0.0 % \u2192 100.0 % to tasks" in said
    assert "20 users: 20 would move to tasks, 0 back to legacy\n" in said
    assert "4 organizations: 4 would move to tasks, 0 back to legacy\n" in said
    assert "the largest users: user-7 (5 of 5 requests), " in said
    assert "the largest organizations: org-3 (9 of 9 requests), " in said
    assert "24 requests would have gone to tasks instead, 0 to legacy instead" in said
    assert "Nobody would move back to legacy." in said
    assert "0 would move to tasks, 0 back" in plan(start, router, FLAG, "0")


def test_plan_says_who_would_move_back(start):
    router = recorded(start, everybody(variant_flag(0, 100)), [("/echo", "user-%d" % n, "org", 1) for n in range(10)])
    router.write_flags(everybody(variant_flag(100, 0)))
    said = plan(start, router, FLAG, "0")
    assert "10 users: 0 would move to tasks, 10 back to legacy" in said and "Some would move back to legacy." in said


def test_plan_hashes_what_each_operation_hashes(start):
    """The same organization, many users: by the operation's `entity` one moves or all."""
    operations = {"echo": c.operation("POST /echo", TASK, identity=IDENTITY),
                  "whole": c.operation("POST /whole", TASK, identity=IDENTITY, entity=["organization", "user"])}
    calls = [("/whole", "user-%d" % n, "org-0", 1) for n in range(30)] + [("/whole", "user-30", None, 1)]
    router = recorded(start, everybody(variant_flag(0, 100)), calls, operations)
    moved = set()
    for percent in ("20", "40", "60", "80"):
        said = plan(start, router, FLAG, percent)
        moved.add(next(line for line in said.splitlines() if "users:" in line).split(": ")[1].split(" ")[0])
    assert moved <= {"0", "1", "30", "31"} and len(moved) > 1, moved  # all of the organization or none, and the one without
    router = recorded(start, everybody(variant_flag(0, 100)), [("/echo", "user-%d" % n, "org-0", 1) for n in range(30)], operations)
    count = int(next(line for line in plan(start, router, FLAG, "50").splitlines() if "users:" in line).split(": ")[1].split(" ")[0])
    assert 5 < count < 25


def test_plan_asks_all_flags_of_an_operation(start):
    operations = {"echo": c.operation("POST /echo", TASK, flags=(FLAG, OTHER), identity=IDENTITY)}
    features = everybody(variant_flag(0, 100), c.boolean(OTHER, False, percentage=0))
    router = recorded(start, features, [("/echo", "user-%d" % n, "org", 1) for n in range(10)], operations)
    assert "10 users: 0 would move to tasks" in plan(start, router, FLAG, "100")
    router.write_flags(everybody(variant_flag(0, 100), c.boolean(OTHER, True)))
    assert "10 users: 10 would move to tasks" in plan(start, router, FLAG, "100")
    router.write_flags(everybody(variant_flag(0, 100), c.boolean(OTHER, True), c.boolean("unused", False)))
    said = plan(start, router, "unused", "100")
    assert "No operation of this configuration uses unused: nobody would notice." in said


def test_plan_takes_variants_as_operations_do(start):
    """`x` is legacy by its attachment and `y` by the operation's map: from those to `0` nobody moves."""
    flag = c.variants(FLAG, **{"100": 0, "x": 50, "y": 50})
    flag["variants"][1]["attachment"] = {"side": "legacy"}
    operations = {"echo": c.operation("POST /echo", TASK, identity=IDENTITY, variants={"y": "legacy"})}
    router = recorded(start, everybody(flag), [("/echo", "user-%d" % n, "org", 1) for n in range(10)], operations)
    said = plan(start, router, FLAG, "100")
    assert "0 % \u2192 100 % of everybody" in said and "10 users: 10 would move to tasks" in said


def test_plan_says_where_it_cannot_tell(start):
    """A segment asks for `plan`, which requests do not carry: it could take any of them, where its answer is another."""
    flag = variant_flag(0, 100)
    flag["rules"].insert(0, {"segment": "paying", "distributions": [{"variant": "0", "rollout": 100}]})
    flag["rules"].insert(0, {"segment": "acme", "distributions": [{"variant": "100", "rollout": 100}]})
    features = everybody(flag, segments=[segment("paying", "plan", "gold"), segment("acme", "organization_id", "acme")])
    calls = [("/echo", "user-%d" % n, "acme" if n < 4 else "other", 1) for n in range(10)]
    origin_task = {"echo": c.operation("POST /echo", TASK, identity=IDENTITY)}
    router = recorded(start, everybody(variant_flag(0, 100)), calls, origin_task)
    router.write_flags(features)
    said = plan(start, router, FLAG, "100")
    assert "10 users: 0 would move to tasks, 0 back to legacy; unknown for 6" in said, said
    assert "2 organizations: 0 would move to tasks, 0 back to legacy; unknown for 1" in said
    assert "Unknown for 6 of 10 requests:" in said
    assert '6 identities: the segment "paying" asks for "plan", which is not recorded (app.echo)' in said
    assert "This router evaluates without it: then 6 of them would move to tasks, 0 back to legacy." in said
    assert "Nobody for whom this is known would move back to legacy." in said
    assert "cannot tell" not in plan(start, router, FLAG, "0")  # nobody moves, whatever their plan is
    # An operation that says it itself leaves nothing open.
    settings = c.router({"app": c.service("http://127.0.0.1:1", {"echo": c.operation("POST /echo", TASK, identity=IDENTITY, context={
        "plan": "gold"})})}, backends=c.embedded(tasks=None))
    router.write_config(settings)
    said = plan(start, router, FLAG, "100")
    assert "10 users: 0 would move to tasks" in said and "cannot tell" not in said


def test_plan_warns_where_users_are_recorded_as_pseudonyms(start):
    operations = {"echo": c.operation("POST /echo", TASK, identity=IDENTITY),
                  "whole": c.operation("POST /whole", TASK, identity=IDENTITY, entity=["organization", "user"])}
    calls = [("/echo", "user-%d" % n, None, 1) for n in range(5)] + [("/whole", "user-%d" % n, "org-%d" % n, 1) for n in range(5)]
    router = recorded(start, everybody(variant_flag(0, 100)), calls, operations, outcomes={"hash_users": True})
    said = plan(start, router, FLAG, "50")
    assert "warning: users are recorded as pseudonyms (outcomes.hash_users)" in said
    assert "; unknown for 5" in said and "5 identities: their user is recorded as a pseudonym" in said
    assert "5 organizations: " in said and "Unknown for 5 of 10 requests:" in said
    said = plan(start, router, FLAG, "100")  # everybody: that much is certain
    assert "5 users: 5 would move to tasks, 0 back to legacy\n" in said and "Unknown for" not in said


def test_plan_of_a_segment(start):
    calls = [("/echo", "user-%d" % n, "acme" if n < 4 else "other", 1) for n in range(10)]
    router = recorded(start, with_beta(task=0, beta=0), calls)
    said = plan(start, router, FLAG, "100", "--segment", "beta")
    assert "0 % → 100 % of the segment's members" in said
    assert "10 users: 4 would move to tasks, 0 back to legacy" in said and "2 organizations: 1 would move" in said


def test_shares_that_leave_some_without_a_variant_are_pointed_out(start):
    """v1 does not scale: what is missing to 100 % gets none."""
    flag = c.variants(FLAG, **{"100": 10, "0": 70})
    flag["enabled"] = False
    place = Place(start, everybody(flag), flags={"rules": "v1"})
    told = place.run("enable", FLAG, "--yes")
    assert "the distributions add up to 80 %; under the rules of v1 the rest up to 100 % gets no variant" in told.stdout, told.stdout + told.stderr
    assert "add up" not in place.done("set", FLAG, "20")
    flag["rules"][0]["distributions"].reverse()
    place.write(json.dumps(everybody({**flag, "enabled": True})))
    assert "to task and 9.9 % back to legacy at once" in place.refused("set", FLAG, "20", "--yes")  # from 70–80 % to 80–100 %


def test_plan_without_anybody_on_record(start):
    place = Place(start, everybody(variant_flag(0, 100)))
    assert "Nobody is on record yet" in place.done("plan", FLAG, "100")


# --- waiting -----------------------------------------------------------------------------------------------------------

def test_the_router_follows_and_is_waited_for(start):
    router = recorded(start, everybody(variant_flag(0, 100)), [("/echo", "user-%d" % n, "org", 1) for n in range(4)])
    admin = "http://127.0.0.1:%d" % router.admin_port
    told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "100", "--yes", "--wait", "--admin", admin)
    assert told.returncode == 0 and admin + ": in effect after " in told.stdout, told.stdout + told.stderr
    assert "of the last 4 requests on record 100.0 % would go to tasks" in told.stdout
    wait_until(lambda: router.find("flags_published"), "the flags to be published")


def test_a_router_that_has_not_followed_is_named(start):
    router = recorded(start, everybody(variant_flag(0, 100)), [])
    admin = "http://127.0.0.1:%d" % router.admin_port
    gone = "http://127.0.0.1:%d" % c.free_port()
    told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "100", "--yes", "--wait", "--timeout", "2",
                     "--admin", gone, "--admin", admin)
    assert told.returncode == 3 and admin + ": in effect after " in told.stdout
    assert gone + ": not in effect after" in told.stderr and "does not answer" in told.stderr
    # One that follows other flags.
    other = recorded(start, everybody(variant_flag(0, 100)), [])
    admin = "http://127.0.0.1:%d" % other.admin_port
    told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "50", "--wait", "--timeout", "1", "--admin", admin)
    assert told.returncode == 3 and "still has the flags from before the change" in told.stderr


def test_a_later_change_counts_as_this_one(start):
    """The router sleeps through the change, and meets another that came after it."""
    router = recorded(start, everybody(variant_flag(0, 100)), [])
    terminal = Terminal("migration-rollout", "--config", router.config_path, "set", FLAG, "1", "--wait", "--admin",
                        "http://127.0.0.1:%d" % router.admin_port)
    terminal.expect("Continue? [y/N] ")
    router.signal(signal.SIGSTOP)
    try:
        terminal.type("y\n")
        terminal.expect("now sends 1 % of everybody to tasks")
        told = start.run("migration-rollout", "--config", router.config_path, "set", FLAG, "2")
        assert told.returncode == 0, told.stderr
    finally:
        router.signal(signal.SIGCONT)
    code, said = terminal.end()
    assert code == 0 and "(with a later change)" in said, said


def test_a_router_that_asks_for_a_token(start):
    origin = start.origin()
    operations = {"echo": c.operation("POST /echo", TASK, identity=IDENTITY)}
    settings = c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None))
    folder = start.folder()
    (folder / "tokens.txt").write_text(c.sha256("secret") + "\n")
    (folder / "token").write_text("secret\n")
    settings["admin"]["auth"] = "bearer"
    settings["tokens"] = "tokens.txt"
    router = start.router(settings, everybody(variant_flag(10, 90)), folder=folder)
    arguments = ["--config", router.config_path, "--wait", "--timeout", "2", "--admin", "http://127.0.0.1:%d" % router.admin_port]
    told = start.run("migration-rollout", *arguments, "set", FLAG, "15")
    assert told.returncode == 3 and "--admin-token-file is needed, or wrong" in told.stderr, told.stderr
    told = start.run("migration-rollout", *arguments, "--admin-token-file", folder / "token", "set", FLAG, "20")
    assert told.returncode == 0, told.stderr
