"""Files of every earlier version, written by its programs (tests/fixtures/data/make.py), go on under today's: nothing that was
recorded, pinned or accepted is lost, and what is new is written beside it."""
import contextlib
import glob
import gzip
import importlib.util
import json
import os
import sqlite3

import pytest

from conftest import Started
from http_text import wait_until
from programs import ROOT, free_port, write_atomically

DATA = os.path.join(ROOT, "tests", "fixtures", "data")
VERSIONS = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(DATA, "*", "made.json")))
spec = importlib.util.spec_from_file_location("make", os.path.join(DATA, "make.py"))
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def unpack(version, folder):
    """The files in the folder `data`; what their maker says about them."""
    os.makedirs(os.path.join(folder, "data"), exist_ok=True)
    for name in ("outcomes.db", "ledger.db", "tasks.db"):
        with gzip.open(os.path.join(DATA, version, name + ".gz")) as packed, open(os.path.join(folder, "data", name), "wb") as file:
            file.write(packed.read())
    with open(os.path.join(DATA, version, "made.json"), encoding="ascii") as file:
        return json.load(file)


def columns(path):
    """{table or view: its columns}, of a file that is whole."""
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        return {name: sorted(row[1] for row in db.execute('PRAGMA table_info("%s")' % name)) for name in names}


def files(router):
    return {name: os.path.join(router.folder, "data", name) for name in ("outcomes.db", "ledger.db", "tasks.db")}


def run_over(start, version=None):
    """A router and a worker over the files of a version, all flags at 0 % now; what their maker said."""
    folder = str(start.folder())
    made = unpack(version, folder) if version else None
    config = make.configuration(0, free_port(), start.origin().url)
    write_atomically(os.path.join(folder, "tasks.yml"), json.dumps(make.TASKS))
    router = start.router(config, make.flags(0, 0), folder=folder)
    return router, start.worker(router), made


def call(router, method, target):
    return make.call(router.port, method, target, "ann")[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_every_earlier_version_go_on(start, version):
    router, _, made = run_over(start, version)

    def total():
        told = json.loads(start.run("migration-status", "--db", router.outcomes_path, "--json").stdout)
        return told["total_executions"] + told["left_out"]
    assert total() == made["attempts"]
    # The legacy service never heard of what the task side started.
    assert call(router, "GET", "/jobs?name=kept") == make.FROM_TASK
    assert call(router, "GET", "/jobs?name=another") != make.FROM_TASK
    # Accepted by the old one, run by today's worker, for the one who may look.
    done = wait_until(lambda: (lambda told: told if told.get("status") not in ("pending", "running") else None)(
        json.loads(call(router, "GET", made["pending"]))), "the task that was accepted")
    assert (done["status"], done["result"]) == ("completed", json.loads(make.FROM_TASK)), done
    router.wait_outcomes(made["attempts"] + 2)
    assert total() == made["attempts"] + 2
    sides = {row["side"]: row["n"] for row in router.query("SELECT side, count(*) AS n FROM attempts WHERE operation = 'split' GROUP BY 1")}
    assert sides == {"task": made["split"][json.loads(make.FROM_TASK)], "legacy": made["split"]["legacy"]}
    assert router.query("SELECT count(*) AS n FROM attempts WHERE organization IS NULL AND operation <> '(unmapped)'") == [{"n": 0}]


@pytest.fixture(scope="module")
def todays(tmp_path_factory):
    """The columns of files that today's programs made."""
    started = Started(tmp_path_factory)
    try:
        router, _, _ = run_over(started)
        call(router, "GET", "/jobs?name=any")
        router.wait_outcomes(1)
        paths = files(router)
    finally:
        started.end()
    return {name: columns(path) for name, path in paths.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_file_is_like_a_new_one(start, todays, version):
    router, worker, made = run_over(start, version)
    call(router, "GET", "/jobs?name=any")
    router.wait_outcomes(made["attempts"] + 1)
    assert worker.stop() == router.stop() == 0
    assert {name: columns(path) for name, path in files(router).items()} == todays
