"""migration-rollout on the features file and on Flipt v2 and v1: what it writes, refuses, records and waits for."""
import json


import configuration as c
from http_text import wait_until
from test_flipt import FLAG, config, echo, flags_status, flipt, origin  # noqa: F401  (fixtures)

OPERATIONS = {"echo": c.operation("POST /echo", {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}, identity=c.IDENTITY)}


def variant_flag(task, legacy):
    return c.features(c.variants(FLAG, **{"0": legacy, "100": task}), segments=[c.everybody()])


def rollout(start, router, *arguments):
    return start.run("migration-rollout", "--config", router.config_path, *arguments)


def shares(told):
    return [line.split(": ")[-1] for line in told.stdout.splitlines() if "everybody: " in line]


def test_the_file_changes_and_the_router_follows(start, origin):
    settings = c.router({"app": c.service(origin, OPERATIONS)}, backends=c.embedded(tasks=None))
    router, _ = start.with_worker(settings, variant_flag(0, 100))
    assert echo(router) == "legacy"
    told = rollout(start, router, "set", FLAG, "100", "--yes", "--wait", "--admin", "http://127.0.0.1:%d" % router.admin_port)
    assert told.returncode == 0 and "in effect after" in told.stdout, told.stdout + told.stderr
    assert echo(router) == "task"
    assert rollout(start, router, "rollback", FLAG).returncode == 0
    wait_until(lambda: echo(router) == "legacy", "the rollback to take effect")
    lines = [json.loads(line) for line in rollout(start, router, "history").stdout.splitlines()]
    assert [(x["command"], x["flag"], x["from"], x["to"]) for x in lines] == [("set", FLAG, 0, 100), ("rollback", FLAG, 100, 0)]
    assert all(x["who"] and x["when"] for x in lines)


def test_more_than_doubling_and_too_fine_are_refused(start, origin):
    settings = c.router({"app": c.service(origin, OPERATIONS)}, backends=c.embedded(tasks=None))
    router, _ = start.with_worker(settings, variant_flag(10, 90))
    with open(router.flags_path, encoding="utf-8") as file:
        before = file.read()
    for arguments, says in ((("set", FLAG, "21"), "--yes"), (("set", FLAG, "10.05"), "finer"), (("set", "nope", "5"), "no flag"),
                            (("set", FLAG, "101"), "0 to 100")):
        told = rollout(start, router, *arguments)
        assert told.returncode == 1 and says in told.stderr, told.stderr
    assert rollout(start, router, "set", FLAG, "20", "--dry-run").returncode == 0
    with open(router.flags_path, encoding="utf-8") as file:
        assert file.read() == before


def test_plan_counts_who_would_move(start, origin):
    settings = c.router({"app": c.service(origin, OPERATIONS)}, backends=c.embedded(tasks=None))
    router, _ = start.with_worker(settings, variant_flag(0, 100))
    for n in range(40):
        echo(router, "user-%d" % n)
    router.wait_outcomes(40)
    told = rollout(start, router, "plan", FLAG, "100")
    assert "of 40 recorded identities 40 would move to task and 0 back to legacy" in told.stdout, told.stdout + told.stderr


def test_through_flipt(start, origin, flipt):
    flipt.load(variant_flag(0, 100))
    router, _ = start.with_worker(config(origin, flipt))
    wait_until(lambda: flags_status(router)["loaded"], "the first snapshot")
    told = rollout(start, router, "set", FLAG, "100", "--yes", "--wait", "--admin", "http://127.0.0.1:%d" % router.admin_port)
    assert told.returncode == 0, told.stdout + told.stderr
    wait_until(lambda: echo(router) == "task", "the change to take effect")
    assert shares(rollout(start, router, "get", FLAG)) == ["100 %"]
    assert rollout(start, router, "set", FLAG, "25").returncode == 0
    assert shares(rollout(start, router, "get", FLAG)) == ["25 %"]
    assert rollout(start, router, "rollback", FLAG).returncode == 0
    wait_until(lambda: echo(router) == "legacy", "the rollback to take effect")
    assert rollout(start, router, "enable", FLAG).returncode == 0
    assert shares(rollout(start, router, "get", FLAG)) == ["25 %"]


def test_a_boolean_flag_through_flipt(start, origin, flipt):
    flipt.load(c.features(c.boolean(FLAG, False, percentage=5)))
    router, _ = start.with_worker(config(origin, flipt))
    told = rollout(start, router, "set", FLAG, "100", "--yes")
    assert told.returncode == 0, told.stderr
    wait_until(lambda: echo(router) == "task", "the change to take effect")
    assert rollout(start, router, "rollback", FLAG).returncode == 0
    wait_until(lambda: echo(router) == "legacy", "the rollback to take effect")


def test_conflicts_are_tried_again_and_given_up(start, origin, flipt):
    flipt.load(variant_flag(10, 90))
    router, _ = start.with_worker(config(origin, flipt))
    between = flipt.between
    if flipt.version == 1:
        between.writes.clear()
        assert rollout(start, router, "set", FLAG, "20").returncode == 0
        assert [w[2]["rollout"] for w in between.writes] == [20, 80]  # what grows first: nobody is without a variant in between
        between.writes.clear()
        assert rollout(start, router, "set", FLAG, "5").returncode == 0
        assert [w[2]["rollout"] for w in between.writes] == [95, 5]
        between.read_only = True
        told = rollout(start, router, "set", FLAG, "6")
        assert told.returncode == 1 and "read-only" in told.stderr
        return
    between.conflicts = 2
    assert rollout(start, router, "set", FLAG, "20").returncode == 0
    assert between.writes[-1][2]["revision"]
    between.conflicts = 100
    told = rollout(start, router, "set", FLAG, "21")
    assert told.returncode == 1 and "given up" in told.stderr
    between.conflicts = 0
    assert shares(rollout(start, router, "get", FLAG)) == ["20 %"]


