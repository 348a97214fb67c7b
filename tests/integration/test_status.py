"""migration-status over what a real router recorded."""
import csv
import io
import json
import os
import re
import sqlite3
import subprocess

import pytest

import configuration as c
from http_text import wait_until
from programs import environment, program
from raw import ask, request


def router_with_both_sides(start, legacy, task):
    origin = start.origin()
    operation = c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]},
                            flags=["chosen_users"], identity=c.IDENTITY)
    chosen = {"key": "chosen", "name": "chosen", "match_type": "ALL_MATCH_TYPE", "constraints": [
        {"type": "STRING_COMPARISON_TYPE", "property": "user_id", "operator": "prefix", "value": "task-"}]}
    flag = {"key": "chosen_users", "name": "chosen_users", "type": "BOOLEAN_FLAG_TYPE", "enabled": False,
            "rollouts": [{"segment": {"keys": ["chosen"], "operator": "OR_SEGMENT_OPERATOR", "value": True}}]}
    router, _ = start.with_worker(c.router({"app": c.service(origin, {"add": operation})}, backends=c.embedded(tasks=None)),
                                  c.features(flag, segments=[chosen]))
    for side, n in (("legacy", legacy), ("task", task)):
        for number in range(n):
            body = json.dumps({"a": number, "b": 1}).encode()
            answer = ask(router.port, request("POST", "/add", [("X-User-Id", "%s-%d" % (side, number))], body))
            assert answer.body == (b"ok" if side == "legacy" else b"%d" % (number + 1))
    router.wait_outcomes(legacy + task)
    return router, origin


def test_text_begins_with_the_lines_that_scripts_parse(start):
    router, origin = router_with_both_sides(start, legacy=30, task=10)
    told = start.run("migration-status", "--db", router.outcomes_path)
    assert told.returncode == 0, told.stderr
    sentence, rest = told.stdout.split("\n", 1)
    assert re.match(r"(STOP: |WATCH: )?\S", sentence) and "\033" not in told.stdout
    assert rest.startswith("=== Migration Dashboard ===\nTotal Executions: 40\nlegacy_services: 75.0%\ntask_abstraction: 25.0%\n\n"
                                  "Success Rates:\nlegacy_services: 100.0%\ntask_abstraction: 100.0%\n")
    assert re.search(r"^app add$", told.stdout, re.M)


def test_failures_count_against_their_side(start):
    router, origin = router_with_both_sides(start, legacy=18, task=10)
    origin.answers(500)
    for n in range(2):
        assert ask(router.port, request("POST", "/add", [("X-User-Id", "legacy-x%d" % n)], b'{"a": 1, "b": 1}')).status == 500
    router.wait_outcomes(30)
    told = start.run("migration-status", "--db", router.outcomes_path)
    assert "\nSuccess Rates:\nlegacy_services: 90.0%\ntask_abstraction: 100.0%\n" in told.stdout


def test_json_has_the_same_numbers(start):
    router, _ = router_with_both_sides(start, legacy=12, task=4)
    told = start.run("migration-status", "--db", router.outcomes_path, "--json")
    assert told.returncode == 0
    report = json.loads(told.stdout)
    text = json.dumps(report)
    assert '"total_executions": 16' in text or '"executions": 16' in text


def test_csv_is_read_as_csv(start):
    router, _ = router_with_both_sides(start, legacy=3, task=2)
    done = subprocess.run([program("migration-status"), "--db", router.outcomes_path, "--csv"], stdin=subprocess.DEVNULL,
                          capture_output=True, check=True, timeout=60)
    assert done.stdout.count(b"\r\n") == done.stdout.count(b"\n") and b"\\" not in done.stdout
    header, *rows = csv.reader(io.StringIO(done.stdout.decode(), newline=""))
    assert header[-1] == "p99_us" and rows
    assert all(len(row) == len(header) and (row[-1] == "" or row[-1].isdigit()) for row in rows)


def test_nothing_recorded_is_no_hundred_percent(start):
    router = start.router(c.passing(start.origin()))
    ask(router.port, request())
    router.wait_outcomes(1)
    told = start.run("migration-status", "--db", router.outcomes_path, "--service", "no-such-service")
    assert "task_abstraction: 100.0%" not in told.stdout


def test_a_missing_file_is_an_error_with_its_name(start):
    told = start.run("migration-status", "--db", "/nonexistent/outcomes.db")
    assert told.returncode == 1 and "/nonexistent/outcomes.db" in told.stderr


# --- the gate ------------------------------------------------------------------------------------------------------------

MANUAL = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "man", "migration-status.1")
FLAG = "task_abstraction_enabled"


def gate(start, router, *arguments):
    told = start.run("migration-status", "--db", router.outcomes_path, "--gate", *arguments)
    return told.returncode, told.stdout + told.stderr


def call(router, path, user, n, body=b'{"a": 1, "b": 1}'):
    return [ask(router.port, request("POST", path, [("X-User-Id", user)], body)).status for _ in range(n)]


def moved(start, operations, folder=None, env=None):
    """Of each operation 30 requests served by legacy, then everybody moves."""
    origin = start.origin()
    settings = c.router({"app": c.service(origin, operations)}, backends=c.embedded(tasks=None), override={
        "enabled": True, "secret_sha256": c.sha256("secret")})
    router, _ = start.with_worker(settings, c.features(c.boolean(FLAG, False)))
    paths = [operation["match"].split()[1] for operation in operations.values()]
    for path in paths:
        assert set(call(router, path, "u", 30)) == {200}
    router.wait_outcomes(30 * len(paths))
    router.write_flags(c.features(c.boolean(FLAG, True)))
    router.wait_event("flags_published", count=2)
    router.wait_worker()
    return router, origin


def add(path, **sections):
    return c.operation("POST " + path, {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}, identity=c.IDENTITY,
                       **sections)


def test_the_gate_sees_callers_that_are_rejected_once_they_have_moved(start):
    """60 of 60 got 401, which is no failure of a task: nobody was served."""
    origin = start.origin()
    operation = add("/add", auth="bearer")
    settings = c.router({"app": c.service(origin, {"add": operation})}, backends=c.embedded(tasks=None), tokens="tokens.txt")
    folder = start.folder()
    (folder / "tokens.txt").write_text(c.sha256("a token that nobody has") + "\n")
    router = start.router(settings, c.features(c.boolean(FLAG, False)), folder=folder)
    assert set(call(router, "/add", "u", 60)) == {200}
    router.wait_outcomes(60)
    assert gate(start, router)[0] == 3
    router.write_flags(c.features(c.boolean(FLAG, True)))
    router.wait_event("flags_published", count=2)
    assert set(call(router, "/add", "u", 60)) == {401}
    router.wait_outcomes(120)
    code, said = gate(start, router)
    assert code == 1 and "Gate: breached: app.add: task_abstraction rejects 100.0% of 60, legacy_services 0.0% of 60" in said, said
    assert gate(start, router, "--max-rejected", "100")[0] == 3  # nothing is counted then


def test_the_gate_judges_each_operation_by_itself(start):
    """A hundred good ones of the one do not make up for thirty bad ones of the other."""
    router, _ = moved(start, {"add": add("/add"), "other": add("/other")})
    assert set(call(router, "/add", "u", 300)) == {200}
    assert set(call(router, "/other", "u", 3, b'{"a": "x", "b": 1}')) == {500}
    router.wait_outcomes(60 + 303)
    code, said = gate(start, router, "--min-executions", "3")
    assert code == 1 and "Gate: breached: app.other: task_abstraction succeeds in 0.000% of 3, below 99%" in said, said
    assert re.search(r"^  healthy +app\.add: ", said, re.M), said
    assert gate(start, router, "--operation", "add")[0] == 0
    judged = json.loads(start.run("migration-status", "--db", router.outcomes_path, "--json", "--gate").stdout)["gate"]
    assert judged["verdict"] == "not enough data" and [o["operation"] for o in judged["operations"]] == ["add", "other"]


def age(router, minutes):
    """What was recorded becomes older than it is."""
    with sqlite3.connect(router.outcomes_path) as db:
        db.execute("UPDATE rollups SET minute = minute - ?", (minutes,))
        db.execute("UPDATE outcomes SET time_us = time_us - ?", (minutes * 60_000_000,))


def test_the_gate_judges_the_last_quarter_of_an_hour_unless_told(start):
    router, _ = moved(start, {"add": add("/add")})
    assert set(call(router, "/add", "u", 30, b'{"a": "x", "b": 1}')) == {500}
    router.wait_outcomes(60)
    assert gate(start, router)[0] == 1
    age(router, 30)
    assert gate(start, router)[0] == 3  # that was another time
    assert set(call(router, "/add", "u", 30)) == {200}
    router.wait_outcomes(90)
    assert gate(start, router)[0] == 0
    assert gate(start, router, "--since", "2h")[0] == 1


def test_a_limit_of_latency(start):
    router, _ = moved(start, {"add": add("/add")})
    assert set(call(router, "/add", "u", 30)) == {200}
    router.wait_outcomes(60)
    assert gate(start, router, "--max-latency", "60s")[0] == 0
    code, said = gate(start, router, "--max-latency", "0.01ms")
    assert code == 1 and "p95 is" in said, said
    assert gate(start, router, "--max-latency", "5")[0] == 2


def examples():
    with open(MANUAL, encoding="utf-8") as file:
        return [block.replace("\\-", "-") for block in re.findall(r"^\.EX\n(.*?)^\.EE", file.read(), re.S | re.M)]


@pytest.mark.parametrize("broken", (True, False))
def test_the_manuals_example_rolls_back_what_went_wrong(start, broken):
    """As it is written there, in a folder as it is installed."""
    router, _ = moved(start, {"add": add("/add")})
    body = b'{"a": "x", "b": 1}' if broken else b'{"a": 2, "b": 1}'
    assert set(call(router, "/add", "u", 30, body)) == {500 if broken else 200}
    router.wait_outcomes(60)
    os.mkdir(os.path.join(router.folder, "config"))
    with open(router.config_path, encoding="utf-8") as file:
        settings = json.load(file)
    settings["flags"] = {"file": "../flags.yml"}
    settings["data"] = "../data"
    with open(os.path.join(router.folder, "config", "router.yml"), "w", encoding="utf-8") as file:
        json.dump(settings, file)
    path = ":".join([os.path.dirname(program("migration-status")), os.environ["PATH"]])
    [example] = [e for e in examples() if "--gate" in e]
    assert "rollback" in example
    subprocess.run(["sh", "-c", example], cwd=router.folder, env={**environment(None), "PATH": path}, stdin=subprocess.DEVNULL, timeout=60)
    if broken:
        router.wait_event("flags_published", count=3)
        assert call(router, "/add", "u", 1, body) == [200]
        router.wait_outcomes(61)
        assert router.query("SELECT side FROM attempts")[-1]["side"] == "legacy"
    else:
        assert call(router, "/add", "u", 1) == [200]
        router.wait_outcomes(61)
        assert router.query("SELECT side FROM attempts")[-1]["side"] == "task"


@pytest.mark.parametrize("length", (63, 64, 100, 256))
def test_an_organization_of_any_length_is_found(start, length):
    """Ids are recorded in 63 bytes; two that begin alike are two, in the report and on the dashboard."""
    origin = start.origin()
    operation = c.operation("POST /add", {"name": "add_numbers"}, identity=c.IDENTITY)
    router = start.router(c.router({"app": c.service(origin, {"add": operation})}, backends=c.embedded(tasks=None)))
    mine, other = ("o" * (length - 1) + end for end in "ab")
    for organization in (mine, mine, other):
        ask(router.port, request("POST", "/add", [("X-Organization-Id", organization)], b"{}"))
    router.wait_outcomes(3)
    for organization, executions in ((mine, 2), (other, 1), ("o" * length, 0)):
        told = start.run("migration-status", "--db", router.outcomes_path, "--org", organization)
        assert "Total Executions: %d\n" % executions in told.stdout, told.stdout + told.stderr
        answer = ask(router.admin_port, request("GET", "/_admin/report.json?org=" + organization))
        assert json.loads(answer.body)["total_executions"] == executions
    explained = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "add",
                          "--org", mine)
    assert explained.returncode == 0 and mine in explained.stdout


def test_an_organization_that_no_request_can_name_is_a_mistake(start):
    router = start.router(c.passing(start.origin()))
    assert start.run("migration-status", "--db", router.outcomes_path, "--org", "o" * 257).returncode == 2
    assert ask(router.admin_port, request("GET", "/_admin/report.json?org=" + "o" * 257)).status == 400
    told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "s", "--operation", "o", "--org", "o" * 257)
    assert told.returncode == 2 and "256 bytes" in told.stderr
