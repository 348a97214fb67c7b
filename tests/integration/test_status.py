"""migration-status over what a real router recorded."""
import json
import re

import configuration as c
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
    assert told.stdout.startswith("=== Migration Dashboard ===\nTotal Executions: 40\nlegacy_services: 75.0%\ntask_abstraction: 25.0%\n\n"
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


def test_nothing_recorded_is_no_hundred_percent(start):
    router = start.router(c.passing(start.origin()))
    ask(router.port, request())
    router.wait_outcomes(1)
    told = start.run("migration-status", "--db", router.outcomes_path, "--service", "no-such-service")
    assert "task_abstraction: 100.0%" not in told.stdout


def test_a_missing_file_is_an_error_with_its_name(start):
    told = start.run("migration-status", "--db", "/nonexistent/outcomes.db")
    assert told.returncode == 1 and "/nonexistent/outcomes.db" in told.stderr
