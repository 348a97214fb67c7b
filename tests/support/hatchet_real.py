"""A real Hatchet engine that somebody else has set up (HATCHET_CLIENT_TOKEN says where), and the worker of hatchet_worker.py in front of it."""
import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid

from http_text import PATIENCE, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = os.environ.get("HATCHET_CLIENT_TOKEN") or os.environ.get("HATCHET_TOKEN")
ROUTERS_KEY = "task_id"  # of the metadata of what routers submit


def claims():
    part = TOKEN.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Server:
    """The engine: not started and not ended here."""

    def __init__(self):
        self.environment = {k: v for k, v in os.environ.items() if k.startswith("HATCHET_")}
        self.url = (os.environ.get("HATCHET_SERVER_URL") or os.environ.get("HATCHET_CLIENT_SERVER_URL") or claims()["server_url"]).rstrip("/")
        self.tenant = claims()["sub"]

    def get(self, path):
        question = urllib.request.Request(self.url + path, headers={"Authorization": "Bearer " + TOKEN})
        with urllib.request.urlopen(question, timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path, body):
        question = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                          {"Authorization": "Bearer " + TOKEN, "Content-Type": "application/json"})
        with urllib.request.urlopen(question, timeout=PATIENCE) as answer:
            return json.load(answer)

    def run(self, run_id):
        return self.get("/api/v1/stable/workflow-runs/" + run_id)

    def runs(self, key, value):
        """Runs of the last hour with this in their metadata."""
        return self.get("/api/v1/stable/tenants/%s/workflow-runs?since=%s&only_tasks=false&additional_metadata=%s:%s"
                        % (self.tenant, hour_ago(), key, value))["rows"]

    def cancel_unfinished(self):
        """What routers submitted in the last hour and nobody has finished; the engine would hand it to the next worker."""
        rows = self.get("/api/v1/stable/tenants/%s/workflow-runs?since=%s&only_tasks=false&limit=100&statuses=QUEUED&statuses=RUNNING"
                        % (self.tenant, hour_ago()))["rows"]
        ids = [row["metadata"]["id"] for row in rows if ROUTERS_KEY in (row.get("additionalMetadata") or {})]
        if ids:
            self.post("/api/v1/stable/tenants/%s/tasks/cancel" % self.tenant, {"externalIds": ids})

    def active_workers(self):
        return self.get("/api/v1/tenants/%s/worker?statuses=ACTIVE" % self.tenant)["rows"]


def hour_ago():
    import datetime
    return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Worker:
    """Registered when it is made; its name is its own, so that one that is still on its way out is not taken for it."""

    def __init__(self, folder, server, slots=50):
        self.server, self.name = server, "router-test-%s" % uuid.uuid4().hex[:8]
        self.log_path = os.path.join(str(folder), self.name + ".log")
        environment = dict(os.environ, HATCHET_CLIENT_TOKEN=TOKEN, PYTHONDONTWRITEBYTECODE="1", RUNS_FOLDER=str(folder))
        if server.url.startswith("http://"):  # an engine without TLS is rarely one whose gRPC has it
            environment.setdefault("HATCHET_CLIENT_TLS_STRATEGY", "none")
        with open(self.log_path, "wb") as log:
            # A group of its own: the SDK starts processes beside itself.
            self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "hatchet_worker.py"), self.name, str(slots)],
                                            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.registered, "the Hatchet worker to be registered", PATIENCE * 2)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def registered(self):
        assert self.process.poll() is None, "the worker has ended:\n" + self.log()
        return any(w["name"] == self.name and w.get("actions") for w in self.server.active_workers())

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE)

    def stop(self):
        """It waits for what it runs; what is left of it afterwards is ended with it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.kill()


__all__ = ["Server", "Worker", "TOKEN"]
