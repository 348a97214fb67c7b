"""migration-status --replay: who would move under other flags is who does (design, "Replay")."""
import json
import os
import sqlite3

import configuration as c
from raw import ask, request

USERS, ORGANIZATIONS = 60, 4
KEY = "task_abstraction_enabled"


class World:
    def __init__(self, start, **sections):
        self.start, self.origin = start, start.origin()
        self.origin.always(lambda x: x.answer(200, (), b"legacy"))
        self.folder = str(start.folder())
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "echo", "builtin": "echo"}]}, file)
        echo = {"name": "echo", "kwargs": {"message": "hi"}, "timeout": "20s"}
        operations = {"say": c.operation("GET /say", echo), "tell": c.operation("GET /tell", echo, flags=["other"]),
                      "plain": {"match": "GET /plain"}}
        config = c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(), identity=c.IDENTITY, **sections)
        self.router = start.router(config, self.flags(30, 0), folder=self.folder)
        start.worker(self.router)
        self.asked = 0

    @staticmethod
    def flags(say, tell):
        return c.features(c.boolean(KEY, False, say), c.boolean("other", False, tell))

    def ask_all(self, path="/say"):
        """Which side serves each user."""
        for user in range(USERS):
            fields = [("X-User-Id", "user-%d" % user), ("X-Organization-Id", "org-%d" % (user % ORGANIZATIONS))]
            assert ask(self.router.port, request("GET", path, fields)).status == 200
        self.asked += USERS
        rows = self.router.wait_outcomes(self.asked, "role = 'primary'")[-USERS:]
        return {row["user"]: row["side"] for row in rows}

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path

    def replay(self, flags, *more):
        return self.start.run("migration-status", "--replay", flags, "--config", self.router.config_path, "--db", self.router.outcomes_path, *more)

    def told(self, flags, *more):
        told = self.replay(flags, "--json", *more)
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)["replay"]


def test_who_would_move_is_who_does_when_the_flags_are_changed(start):
    world = World(start)
    before = world.ask_all()
    world.ask_all("/tell"), world.ask_all("/plain")
    told = world.told(world.file("next.yml", world.flags(70, 100)))
    text = world.replay(world.file("next.yml", world.flags(70, 100))).stdout
    world.router.write_flags(world.flags(70, 100))
    world.router.wait_event("flags_published", 2)
    after = world.ask_all()
    moved = {user for user in before if before[user] != after[user]}
    assert 5 < len(moved) < USERS and all(after[user] == "task" for user in moved)
    say, tell = told["operations"]
    assert (say["operation"], say["identities"], say["identities_that"]["to_task"]) == ("say", USERS, len(moved))
    assert say["identities_that"]["to_legacy"] == 0 and say["requests_that"]["stay"] == USERS - len(moved)
    assert abs(say["task_percent"]["would_be"] - 100 * sum(s == "task" for s in after.values()) / USERS) < 0.001
    assert abs(say["task_percent"]["was"] - 100 * sum(s == "task" for s in before.values()) / USERS) < 0.001
    assert (tell["operation"], tell["identities_that"]["to_task"]) == ("tell", USERS)
    assert told["not_redecided"]["no_task"] == USERS, "what cannot move is no part of it"
    for organization in told["organizations"]:
        mine = {u for u in moved if int(u.split("-")[1]) % ORGANIZATIONS == int(organization["organization"].split("-")[1])}
        assert organization["requests_that"]["to_task"] == len(mine) + USERS // ORGANIZATIONS
    assert len(told["organizations"]) == ORGANIZATIONS and told["missing_flags"] == []
    assert "app.say: " in text and "of %d identities %d would move to tasks, 0 back to legacy" % (USERS, len(moved)) in text and "org-1: " in text
    back = world.told(world.file("before.yml", world.flags(30, 0)), "--operation", "say")
    assert back["identities_that"]["to_legacy"] == len(moved), "an identity that was on both sides moves if some of its requests would"
    one = world.told(world.file("next.yml", world.flags(70, 100)), "--org", "org-2", "--operation", "say")
    assert one["identities"] == USERS // ORGANIZATIONS and [o["organization"] for o in one["organizations"]] == ["org-2"]
    none = world.told(world.file("next.yml", world.flags(70, 100)), "--until", "2020-01-01")
    assert none["requests"] == 0 and none["task_percent"] is None


def test_what_cannot_be_decided_again_is_counted_and_told(start):
    segment = {"key": "big", "match_type": "ALL_MATCH_TYPE",
               "constraints": [{"type": "STRING_COMPARISON_TYPE", "property": "plan", "operator": "eq", "value": "big"}]}
    flag = c.boolean(KEY, False, 30)
    flag["rollouts"].insert(0, {"segment": {"key": "big", "value": True}})
    world = World(start, outcomes={"hash_users": True})
    world.ask_all()
    told = world.replay(world.file("next.yml", world.flags(60, 0)))
    assert "%d requests: their user is recorded as a pseudonym" % USERS in told.stdout and "cannot be re-decided" in told.stdout
    assert world.told(world.file("all.yml", world.flags(100, 0)))["identities_that"]["unknown"] == 0, "100 % hashes nobody"
    world = World(start)
    world.ask_all()
    with sqlite3.connect(world.router.outcomes_path) as db:  # of some, something else chose the side
        series = db.execute("SELECT id FROM series WHERE operation = 'say' AND side = 'legacy'").fetchone()[0]
        db.execute("INSERT INTO series SELECT 1000, service, operation, side, backend, role, 'pinned', result, answered FROM series "
                   "WHERE id = ?", (series,))
        changed = db.execute("UPDATE outcomes SET series = 1000 WHERE id IN (SELECT id FROM outcomes WHERE series = ? LIMIT 7)", (series,))
        assert changed.rowcount == 7
    path = world.file("segment.yml", c.features(flag, segments=[segment]))
    told = world.told(path)
    left = told["not_redecided"]
    assert left["not_by_flags"] == {"pinned": 7} and left["segment_not_recorded"] == told["requests_that"]["unknown"] > 5
    assert told["requests"] == USERS - 7
    text = world.replay(path).stdout
    assert 'the segment "big" asks for "plan", which is not recorded (app.say)' in text and "(pinned)" in text
    gone = world.file("gone.yml", c.features(c.boolean("else", True)))
    assert world.told(gone)["missing_flags"] == [{"flag": KEY, "why": "it is not there"}]
    assert "warning: the flag %s decides nothing" % KEY in world.replay(gone).stdout


def test_several_files_are_added_up_a_snapshot_is_flags_too_and_mistakes_are_named(start):
    world = World(start)
    world.ask_all()
    other = World(start)
    other.ask_all()
    path = world.file("next.yml", world.flags(60, 0))
    alone, both = world.told(path), world.told(path, "--db", other.router.outcomes_path)
    assert both["requests"] == 2 * USERS and both["files"] == 2
    assert both["identities"] == alone["identities"] == USERS, "the same users at two routers are counted once"
    assert both["organizations"][0]["requests"] == 2 * alone["organizations"][0]["requests"]
    saved = [os.path.join(where, f) for where, _, files in os.walk(other.folder) for f in files if "snapshot" in f]
    assert saved
    for snapshot in saved:
        assert world.told(snapshot)["identities_that"]["to_task"] == 0, "those that are in force move nobody"
    told = start.run("migration-status", "--replay", path, "--config", world.router.config_path, "--json")
    assert told.returncode == 0 and json.loads(told.stdout)["replay"]["requests"] == USERS, "where the configuration has it"
    for arguments, sentence in (((path, "--gate"), "cannot be combined with --replay: --gate"), ((path, "--csv"), "--csv"),
                                ((path, "--router", "http://127.0.0.1:1"), "--router"), ((path, "--drain"), "--drain")):
        refused = world.replay(*arguments)
        assert refused.returncode == 2 and sentence in refused.stderr, refused.stderr
    assert start.run("migration-status", "--config", "x").returncode == 2
    assert world.replay(os.path.join(world.folder, "nowhere.yml")).returncode == 1
    broken = os.path.join(world.folder, "broken.yml")
    with open(broken, "w", encoding="utf-8") as file:
        file.write("flags: [")
    refused = world.replay(broken)
    assert refused.returncode == 1 and "broken.yml" in refused.stderr
