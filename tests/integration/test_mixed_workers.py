"""Python's Celery workers and ours on one queue, killed while they work. The long run: scripts/mixed-workers."""
import pytest

from mixed_workers import Mixed
from programs import need_backend

need_backend("celery")


@pytest.mark.heavy
def test_no_task_is_lost_or_done_twice_while_workers_of_both_kinds_are_killed(tmp_path):
    mixed = Mixed(tmp_path, tasks=400, ours=1, pythons=1, seed="1")
    try:
        mixed.send()
        mixed.kill("ours")
        mixed.kill("python", again=False)
        mixed.kill("ours")
        mixed.end()
        assert not list(mixed.violations()), mixed.told()
    finally:
        mixed.stop()
