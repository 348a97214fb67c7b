"""Rule 4 is stronger than "when in doubt, legacy": a follow-up call of which the router cannot tell whose it is goes to nobody."""
import contextlib
import json
import os
import sqlite3

import pytest

import configuration as c
from http_text import chunked, wait_until
from raw import Client, ask, request

BODY_MAX, MEMORY = 16 << 10, 32 << 10
SOURCES = {"body": "body:/name", "query": "query:name", "path": "path:name"}
ECHO = {"tasks": [{"name": "echo", "exec": {"argv": ["cat"]}}]}
ORGANIZATION = [("X-Organization-Id", "org-1")]


class World:
    """One group of pins for each place of the key; /start begins an entry, /follow follows it. The identity lies in the body."""

    def __init__(self, start):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [], b"legacy")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(ECHO, file)
        operations = {}
        for source, key in SOURCES.items():
            path = "/" + source + ("/{name}" if source == "path" else "")
            for role in ("start", "follow"):
                operations[role + "_" + source] = c.operation(
                    "POST /%s%s" % (role, path), {"name": "echo", "kwargs": {"body": {"$ref": "body:"}}, "timeout": "30s"},
                    pin={"group": source, "key": key, "role": role})
        self.config = c.router({"echo": c.service(self.origin, operations)}, backends=c.embedded(),
                               identity={"organization": ["body:/organization_id"]},
                               limits={"max_inspect_body": BODY_MAX, "max_inspect_memory": MEMORY})
        self.router = None

    def serve(self):
        self.router = self.start.router(self.config, c.features(c.boolean("task_abstraction_enabled", True)), folder=self.folder)
        self.worker = self.start.worker(self.router)

    def kill(self):
        self.router.kill()
        self.worker.kill()

    def head(self, role, source, name, more=()):
        target = "/%s/%s" % (role, source) + {"body": "", "query": "?name=" + name, "path": "/" + name}[source]
        return request("POST", target, [*ORGANIZATION, *more])

    def call(self, role, source, name, filler=0, in_chunks=False):
        body = json.dumps({"organization_id": "org-1", "name": name, "filler": "x" * filler}).encode()
        if in_chunks:
            return ask(self.router.port, self.head(role, source, name, [("Transfer-Encoding", "chunked")]) +
                       chunked(*(body[i:i + 4000] for i in range(0, len(body), 4000))))
        return ask(self.router.port, self.head(role, source, name, [("Content-Length", str(len(body)))]) + body)

    def metrics(self):
        return ask(self.router.admin_port, request("GET", "/metrics")).body

    def legacy_saw(self, name):
        return [r for r in self.origin.requests if name.encode() in r.body or name in r.target]

    def in_ledger(self, sql):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "ledger.db"))) as db, db:
            assert db.execute(sql).rowcount == len(SOURCES)


@pytest.fixture
def world(start):
    w = World(start)
    w.serve()
    for source in SOURCES:
        assert w.call("start", source, "pinned").status == 200
        assert w.call("follow", source, "pinned").status == 200
    assert w.origin.requests == []
    return w


def refused(answer, status):
    assert answer.status == status, (answer.status, answer.body)
    assert int(answer.get("Retry-After")) > 0 and json.loads(answer.body)["status"] == status
    return True


@pytest.mark.parametrize("in_chunks", (False, True))
@pytest.mark.parametrize("source", SOURCES)
def test_a_body_above_the_limit(world, source, in_chunks):
    assert refused(world.call("follow", source, "pinned", filler=BODY_MAX, in_chunks=in_chunks), 413)
    other = world.call("follow", source, "nobody", filler=BODY_MAX, in_chunks=in_chunks)
    if source == "body":  # whose it is lies in what is not looked into
        assert refused(other, 413) and not world.legacy_saw("nobody")
    else:
        assert other.body == b"legacy"
    assert not world.legacy_saw("pinned")


@pytest.mark.parametrize("source", SOURCES)
def test_the_memory_for_bodies_is_used_up(world, source):
    with contextlib.ExitStack() as stack:
        for host in range(2, 5):
            holder = stack.enter_context(Client(world.router.port))
            holder.send(world.head("start", "body", "x", [("Content-Length", str(BODY_MAX)), ("X-Forwarded-For", "192.0.2.%d" % host)]))
            holder.send(b"x" * 10000)
        wait_until(lambda: b"migration_inspect_bytes 30000\n" in world.metrics(), "the memory to be taken")
        assert refused(world.call("follow", source, "pinned", filler=4000), 503)
        other = world.call("follow", source, "nobody", filler=4000)
        assert (refused(other, 503) and not world.legacy_saw("nobody")) if source == "body" else other.body == b"legacy"
    assert not world.legacy_saw("pinned")
    wait_until(lambda: world.call("follow", source, "pinned", filler=4000).status == 200, "memory to be free again")


@pytest.mark.parametrize("source", SOURCES)
def test_the_entry_names_a_backend_that_is_not_here(world, source):
    """Another router's, or one from before the configuration was changed."""
    world.kill()
    world.in_ledger("UPDATE entries SET backend = 'celery'")
    world.serve()
    assert refused(world.call("follow", source, "pinned"), 503)
    assert world.call("follow", source, "nobody").body == b"legacy" and not world.legacy_saw("pinned")
    row = world.router.wait_outcomes(1, "operation = 'follow_%s' AND http_status = 503" % source)[0]
    assert (row["side"], row["reason"], row["result"]) == ("task", "backend_unknown", "failure")


@pytest.mark.parametrize("source", SOURCES)
def test_the_clock_is_gone(world, source):
    """To a clock that is 20 years ahead all entries are old."""
    world.kill()
    world.in_ledger("UPDATE entries SET created_us = created_us - 20 * 365 * 86400 * 1000000")
    world.serve()
    assert world.call("follow", source, "pinned").status in (200, 503)
    assert not world.legacy_saw("pinned")


def test_a_key_in_a_body_that_is_no_json(world):
    for body in (b'{"organization_id": "org-1", "name": "pinned", "n": NaN}', b"name=pinned", b'{"name": "pinned"'):
        answer = ask(world.router.port, world.head("follow", "body", "", [("Content-Length", str(len(body)))]) + body)
        assert answer.status == 400 and world.origin.requests == []
    assert ask(world.router.port, world.head("follow", "body", "", [("Content-Length", "0")])).body == b"legacy"  # no key, no entry


def test_a_name_that_is_started_anew_on_legacy_is_legacys_also_when_the_task_side_did_not_take_it(world):
    """The start is above the limit: legacy serves. What was pinned under that name before is not what is asked for later."""
    for source in ("query", "path"):
        assert world.call("start", source, "pinned", filler=BODY_MAX).body == b"legacy"
        assert world.call("follow", source, "pinned").body == b"legacy"


# --- what the ledger does not tell -----------------------------------------------------------------------------------------

def test_a_ledger_that_is_locked_at_the_start_is_no_empty_one(world):
    world.kill()
    ledger = os.path.join(world.folder, "data", "ledger.db")
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        world.serve()
        for source in SOURCES:
            assert refused(world.call("follow", source, "pinned"), 503)
            assert refused(world.call("follow", source, "nobody"), 503)
        row = world.router.wait_outcomes(1, "operation = 'follow_query' AND http_status = 503")[0]
        assert row["reason"] == "pin_unknown"
        other.execute("ROLLBACK")
    for source in SOURCES:
        wait_until(lambda s=source: world.call("follow", s, "pinned").status == 200, "the ledger to be read")
        assert world.call("follow", source, "nobody").body == b"legacy"
    assert not world.legacy_saw("pinned")


def test_a_ledger_that_is_damaged_is_no_empty_one(world):
    world.kill()
    ledger = os.path.join(world.folder, "data", "ledger.db")
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(ledger, "r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (os.path.getsize(ledger) - 4096))
    world.serve()
    for source in SOURCES:
        assert refused(world.call("follow", source, "pinned"), 503)
    assert ask(world.router.port, request("GET", "/unmapped")).body == b"legacy"
    assert not world.legacy_saw("pinned")


# --- starts ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("in_chunks", (False, True))
def test_a_start_whose_name_cannot_be_read_starts_nothing_while_names_are_pinned(world, in_chunks):
    """Legacy would have the name anew, and its follow-up calls would go on to the task side."""
    assert refused(world.call("start", "body", "pinned", filler=BODY_MAX, in_chunks=in_chunks), 413)
    assert world.call("follow", "body", "pinned").status == 200 and not world.legacy_saw("pinned")


def test_where_nothing_is_pinned_a_start_of_any_size_and_its_follow_ups_are_legacys(start):
    w = World(start)
    w.serve()
    for role in ("start", "follow"):
        assert w.call(role, "body", "large", filler=BODY_MAX).body == b"legacy"
        body = b"name=large"
        assert ask(w.router.port, w.head("follow", "body", "", [("Content-Length", str(len(body)))]) + body).body == b"legacy"


def test_a_start_that_only_python_can_read_starts_nothing_on_legacy_while_names_are_pinned(world):
    body = b'{"organization_id": "org-1", "name": "pinned", "n": NaN}'
    answer = ask(world.router.port, world.head("start", "body", "", [("Content-Length", str(len(body)))]) + body)
    assert answer.status == 400 and not world.legacy_saw("pinned")
    assert world.call("follow", "body", "pinned").status == 200


# --- names that two readers read differently -------------------------------------------------------------------------------

QUERIES = ("name=pinned&name=other", "name=other&name=pinned", "name=pinned#x", "x=#&name=pinned", "name=pinned%00", "name=pinned%00x",
           "name=pinned;x", "name=pinned;name=other", "x=1;name=pinned", "name=other&x=1;name=pinned", "n%61me=other&name=pinned",
           "name=&name=pinned", "name&name=pinned", "name=pinned%0a", "name=pinned%ff", "name=pinned&x=1;name=other")
BODIES = ('{"name": "pinned", "name": "other"}', '{"name": "other", "name": "pinned"}', '{"name": "pinned", "n\\u0061me": "other"}',
          '{"name": null, "name": "pinned"}', '{"name": "pinned\\u0000"}', '{"name": "pinned\\u0000x"}')
HARMLESS = ("name=pinned&name=pinned", "x=a&x=b&name=pinned", "name=pinned&Name=other", "name=pinned&x=%00", "name=pinned&x=1;y=2",
            "name=pinned&x=1#y", "name=%70inned", "x=name=other&name=pinned")


@pytest.mark.parametrize("role", ("start", "follow"))
def test_an_ambiguous_query_is_refused_where_a_pin_needs_it(world, role):
    for query in QUERIES:
        answer = ask(world.router.port, request("POST", "/%s/query?%s" % (role, query), ORGANIZATION, b"{}"))
        assert answer.status == 400 and "query:name" in json.loads(answer.body)["detail"], query
        answer = ask(world.router.port, request("POST", "/%s/path/pinned?%s" % (role, query), ORGANIZATION, b"{}"))
        assert answer.status == 200, query
    assert world.origin.requests == []


def test_what_all_readers_read_alike_is_served(world):
    for query in HARMLESS:
        assert ask(world.router.port, request("POST", "/follow/query?" + query, ORGANIZATION, b"{}")).status == 200, query
    assert world.origin.requests == []


@pytest.mark.parametrize("role", ("start", "follow"))
def test_an_ambiguous_body_is_refused_where_a_pin_needs_it(world, role):
    for body in BODIES:
        whole = ('{"organization_id": "org-1", ' + body[1:]).encode()
        answer = ask(world.router.port, request("POST", "/%s/body" % role, ORGANIZATION, whole))
        assert answer.status == 400 and "body:/name" in json.loads(answer.body)["detail"], body
        assert ask(world.router.port, request("POST", "/%s/path/pinned" % role, ORGANIZATION, whole)).status == 200, body
    assert world.origin.requests == []


def test_a_member_twice_with_the_same_text_is_one(world):
    body = b'{"organization_id": "org-1", "name": "pinned", "name": "pinned"}'
    assert ask(world.router.port, request("POST", "/follow/body", ORGANIZATION, body)).status == 200
    assert world.origin.requests == []


PATHS = ("/follow//path/pinned", "//follow/path/pinned", "/follow/./path/pinned", "/x/../follow/path/pinned", "/follow/path%2fpinned",
         "/follow/path/pinned/", "/follow/path/pinned;v=1", "/follow;v=1/path/pinned", "/follow/path/pinned%00", "/follow/path/pinned%23",
         "/follow/path/pinned%252f", "/follow\\path\\pinned", "/follow/path/%2570inned", "http://127.0.0.1/follow/path/pinned", "/follow/body#x")


def test_a_path_that_some_servers_read_as_a_follow_up_calls_is_refused(world):
    for path in PATHS:
        answer = ask(world.router.port, request("POST", path, ORGANIZATION, b"{}"))
        assert answer.status in (400, 503), (path, answer.status)
    assert world.origin.requests == []
    for path in ("/elsewhere//x", "/elsewhere/%2e/x;y", "/follows//path/pinned"):
        assert ask(world.router.port, request("POST", path, ORGANIZATION, b"{}")).body == b"legacy", path


def test_without_any_pin_odd_paths_are_legacys(start):
    world = World(start)
    world.serve()
    for path in PATHS:
        assert ask(world.router.port, request("POST", path, ORGANIZATION, b"{}")).body == b"legacy", path
