"""A minute of chaos (support/chaos.py): whatever fails around two routers, nothing is executed twice, lost, or sent to the wrong side."""
import os

import pytest

import chaos

SEED = os.environ.get("CHAOS_SEED", "20261128")


@pytest.mark.heavy
def test_a_minute_of_chaos_breaks_no_promise(tmp_path):
    world, broken = chaos.run(tmp_path, SEED, 60)
    told = "\n".join(chaos.report(world, broken, 60, SEED))
    assert broken == [], told
    # It is no proof when nothing happened.
    assert {t.side for t in world.told} >= {"legacy", "task"}, told
    assert sum(world.faults.values()) >= 20 and len(world.faults) >= 8, told
    assert sum(t.kind == "look" and t.side == "task" for t in world.told) >= 5, told
    # Nor when a broken promise would not be seen.
    answered = next(t for t in world.told if t.status == 200 and t.kind == "plain")
    world.legacy.done.append(answered.number)
    looked = next(t for t in world.told if t.kind == "look" and t.side)
    world.told.append(looked._replace(side="nobody"))
    found = "\n".join([*world.repeated(world.executed()), *world.wrong_sides()])
    assert "request %d was executed 2 times" % answered.number in found
    assert "which began on %s" % looked.name[2] in found
