"""scripts/run as its reader meets it: what it prints is true, a little traffic goes on, and what is made up says so."""
import http.client
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from http_text import PATIENCE, wait_until
from programs import BUILD, ROOT, environment, program

pytestmark = pytest.mark.heavy  # the samples are what takes the time


class Run:
    """scripts/sample/demo.py on free ports, in a folder of its own; what it prints, until it serves."""

    def __init__(self, folder, *arguments):
        self.folder = str(folder)
        self.popen = subprocess.Popen([sys.executable, "-u", os.path.join(ROOT, "scripts", "sample", "demo.py"), *arguments],
                                      env=environment({"DEMO_BUILD": BUILD, "DEMO_FOLDER": self.folder}), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""
        while "/readyz" not in self.said:
            line = self.popen.stdout.readline()
            assert line, self.said
            self.said += line

    def call(self, port, path, user=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None,
                           {"X-User-Id": user, "Authorization": "Bearer sample-platform-key", "Content-Type": "application/json"} if user else {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def status(self, *arguments):
        told = subprocess.run([program("migration-status"), "--db", os.path.join(self.folder, "data", "outcomes.db"), "--json", *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return json.loads(told.stdout)

    def stop(self):
        self.popen.send_signal(signal.SIGINT)
        rest = self.popen.communicate(timeout=PATIENCE)[0]
        assert self.popen.returncode == 0, self.said + rest
        return rest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    one = Run(tmp_path_factory.mktemp("run"), "--demo-history")
    yield one
    assert "stopped" in one.stop()


def test_the_users_that_it_names_are_where_it_says(run):
    port = re.search(r"serving: .*prompt (\d+),", run.said).group(1)
    named = {side: re.search(r"by %s for ([^;\n(]+)" % words, run.said).group(1).split(", ")
             for side, words in (("task", "the task side"), ("legacy", "legacy"))}
    for side, users in named.items():
        assert len(users) == 3
        for user in users:
            status, text = run.call(port, "/answer-prompt", user.strip(), {"run_id": "r", "outputs": [{"name": "total"}]})
            assert (status, json.loads(text)["metadata"]["served_by"]) == (200, side), (user, text)


def test_a_little_traffic_goes_on(run):
    def seen():
        told = run.status("--since", "1h")
        return told["total_executions"] + told["left_out"]
    before = seen()
    wait_until(lambda: seen() > before + 5, "traffic")
    with open(os.path.join(run.folder, "log", "traffic.log"), encoding="utf-8") as file:
        assert "FAILED" not in file.read()


def test_what_is_made_up_says_so_and_what_is_real_does_not(run):
    assert run.status()["demo_history"]["until"] and run.status("--since", "6d")["demo_history"]
    assert run.status()["total_executions"] > 10000
    since = run.status()["demo_history"]["until"]
    later = run.status("--since", re.sub(r":\d\d\.\d+Z", ":59Z", since))
    assert "demo_history" not in later and 0 < later["total_executions"] < 10000


def test_its_operations_are_at_different_stages(run):
    told = subprocess.run([program("migration-rollout"), "--config", os.path.join(run.folder, "config", "router.yml"), "stage", "--json"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert {"rolling", "complete", "shadow", "off"} <= set(re.findall(r'"stage": ?"(\w+)"', told.stdout)), told.stdout


def test_real_outcomes_and_made_up_ones_are_not_mixed(run):
    maker = os.path.join(BUILD, "scripts", "sample", "demo-history")
    refused = subprocess.run([maker, os.path.join(run.folder, "data", "outcomes.db")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert refused.returncode == 2 and "exists" in refused.stderr
