"""docs/task-states.md names for every native state the tests that meet it, and leaves none out that the code knows."""
import os
import re

import pytest

from programs import ROOT

FILES = {"contract": "integration/test_contract.py", "celery": "integration/test_celery.py",
         "celery_texts": "integration/test_celery_texts.py"}


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def rows():
    """(backend, native state, its tests) of the table."""
    table = read("docs", "task-states.md").split("## Native state → status")[1].split("\n## ")[0]
    for line in table.split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] not in ("backend", "---"):
            yield cells[0], cells[1], cells[4]


@pytest.mark.parametrize("backend, state, tests", rows(), ids=lambda cell: cell[:40])
def test_a_state_is_met_by_tests_that_exist(backend, state, tests):
    named = [(part.split(":")[0].strip(), name) for part in tests.split(";") for name in re.findall("`(\\w+)`", part)]
    assert named, "no test meets %s of %s" % (state, backend)
    for where, name in named:
        source = read("tests", *FILES.get(where, "unit/test_%s.c" % where).split("/"))
        assert re.search(r"^(def|static void) %s\(" % name, source, re.M), "%s has no test %s" % (where, name)


# Where the code names the states of an engine.
KNOWN = [("celery", "celery_meta.c", r'"\\"([A-Z]+)\\""'), ("celery", "celery_meta.c", '"(\\w+LimitExceeded|NotRegistered)"'),
         ("temporal", "temporal_wire.c", '"EVENT_TYPE_WORKFLOW_EXECUTION_([A-Z_]+)"'),
         ("temporal", "temporal_wire.c", '"WORKFLOW_EXECUTION_STATUS_([A-Z_]+)"'),
         ("hatchet", "hatchet_run.c", r'\{"([A-Z_]+)", TASK_'), ("hatchet", "hatchet_run.c", '"([A-Z_]+TIMED_OUT|TIMED_OUT)"')]


@pytest.mark.parametrize("backend, source, pattern", KNOWN)
def test_every_state_that_the_code_knows_is_on_the_page(backend, source, pattern):
    found = set(re.findall(pattern, read("src", "tasks", backend, source)))
    told = " ".join(state for of, state, _ in rows() if of == backend)
    assert found and not [state for state in found if "`%s`" % state not in told]
