"""A stand-in for a Hatchet engine with a worker: it answers in the shapes that were recorded from the real one (tests/fixtures/hatchet),
keeps runs and their states, and can be slow, wrong, cut off, gone and back again."""
import base64
import copy
import datetime
import glob
import json
import math
import os
import re
import socket
import threading
import time
import traceback
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures", "hatchet")
TENANT = "707d0855-80ab-4e1f-a156-f1c4546cbf52"
UNSET = "0001-01-01T00:00:00Z"


def recorded(number):
    with open(glob.glob(os.path.join(FIXTURES, "%03d-*.json" % number))[0], encoding="utf-8") as file:
        return json.load(file)


def token(server_url, tenant=TENANT, expires_in=3600, grpc="127.0.0.1:7077"):
    """As the engine makes them, but for the signature."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    claims = {"sub": tenant, "exp": int(time.time()) + expires_in, "iat": int(time.time()), "token_id": str(uuid.uuid4())}
    if server_url:
        claims.update(server_url=server_url, iss=server_url, aud=server_url,
                      grpc_broadcast_address=grpc)
    return ".".join((part({"alg": "ES256", "kid": "k"}), part(claims), "c2lnbmF0dXJl"))


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(text):
    """As the engine's interface reads JSON, inputs and outputs alike: every number is a double."""
    def number(digits):
        n = float(digits)
        if math.isinf(n):
            raise ValueError("cannot unmarshal number %s into Go value of type float64" % digits)
        return int(n) if n.is_integer() and abs(n) < 1e21 else n
    return json.loads(text, parse_int=number, parse_float=number)


class Run:
    def __init__(self, workflow, body):
        self.id, self.workflow = str(uuid.uuid4()), workflow
        self.input, self.metadata = body.get("input"), body.get("additionalMetadata") or {}
        self.status, self.output, self.error, self.event = "QUEUED", {}, "", None
        self.attempt, self.created, self.started, self.finished = 1, now(), UNSET, UNSET
        self.visible_at = 0.0


class Failed(Exception):
    """A worker's exception; told as the SDK tells it, with the traceback of a recording, or that of its cause."""

    def told(self):
        message, cause = str(self).replace("\n", "\\\n"), self.__cause__
        recording = recorded(75)["response_body"]["run"]["errorMessage"]
        if not cause:
            return recording.replace("always fails", message)
        trace = "".join(traceback.format_exception(cause))
        return "%s: %s\n%s%s" % (type(cause).__name__, message, trace, recording[recording.index("\n\n{"):])


class TimedOut(Exception):
    pass


class Cancelled(Exception):
    pass


class Engine(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, workflows=None, slots=1000):
        """workflows: name → function of (run) that returns its task's output; a dict with several tasks is a DAG. slots: what its
        worker runs at a time."""
        self.workflows = dict(workflows or {})
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.runs, self.requests, self.connections = {}, [], set()
        self.worker, self.ready = True, True
        self.n_slots, self.slots = slots, threading.Semaphore(slots)
        self.killed = 0          # workers
        self.retries = {}        # workflow → declared retries
        self.invisible_s = 0.02  # for so long a run is unknown after it was taken
        self.faults = []         # (method, pattern of the path, what): each is used once
        self.port = None
        self._start()

    def _start(self):
        super().__init__(("127.0.0.1", self.port or 0), Handler)
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.gone = False

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def token(self, **how):
        return token(self.url, **how)

    def stop(self):
        """Gone, with every connection; runs are kept as in its database."""
        self.gone = True
        self.shutdown()
        self.thread.join()
        self.server_close()
        with self.lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def start(self):
        self._start()

    def fault(self, method, pattern, what, times=1):
        """what: "cut" (executed, the connection closes unanswered), "drop" (closed before it is executed), or (status, body)."""
        with self.lock:
            self.faults += [(method, pattern, what)] * times

    def take_fault(self, method, path):
        with self.lock:
            for i, (m, pattern, what) in enumerate(self.faults):
                if m == method and re.search(pattern, path):
                    return self.faults.pop(i)[2]
        return None

    def of(self, workflow):
        with self.lock:
            return [r for r in self.runs.values() if r.workflow == workflow]

    def wait_run(self, workflow, status=None, patience=20):
        with self.changed:
            def there():
                return next((r for r in self.runs.values() if r.workflow == workflow and status in (None, r.status)), None)
            assert self.changed.wait_for(there, patience), "no run of %s %s" % (workflow, status or "")
            return there()

    def asked(self, method, pattern):
        with self.lock:
            return [r for r in self.requests if r[0] == method and re.search(pattern, r[1])]

    # --- the engine's side -------------------------------------------------------------------------------------------------

    def trigger(self, body):
        run = Run(body["workflowName"], body)
        run.visible_at = time.monotonic() + self.invisible_s
        if run.workflow in self.workflows:  # otherwise a phantom: an id, and 404 for ever after
            with self.changed:
                self.runs[run.id] = run
                self.changed.notify_all()
            if self.worker:
                self.execute(run)
        return run

    def execute(self, run):
        threading.Thread(target=self._execute, args=(run, self.killed), daemon=True).start()

    def begin_worker(self):
        with self.lock:
            self.worker = True
            waiting = [r for r in self.runs.values() if r.status == "QUEUED"]
        for run in waiting:
            self.execute(run)

    def kill_worker(self):
        """What it runs is never heard of again: the engine goes on to say RUNNING."""
        with self.lock:
            self.worker = False
            self.killed += 1
            self.slots = threading.Semaphore(self.n_slots)

    def set(self, run, status, **fields):
        with self.changed:
            if run.status == "CANCELLED":
                return
            run.status = status
            for key, value in fields.items():
                setattr(run, key, value)
            self.changed.notify_all()

    def _execute(self, run, worker):
        with self.slots:
            with self.lock:
                if run.status == "CANCELLED" or worker != self.killed:
                    return
                self.set(run, "RUNNING", started=now())

            def end(status, **fields):
                if worker == self.killed:
                    self.set(run, status, finished=now(), **fields)
            try:
                output = self.workflows[run.workflow](run)
                end("COMPLETED", output=output if output is not None else {})
            except TimedOut as why:
                end("FAILED", event=("TIMED_OUT", str(why)))
            except Cancelled:
                end("CANCELLED")
            except Failed as why:
                self._fail(run, why.told(), end)

    def _fail(self, run, told, end):
        if run.attempt <= self.retries.get(run.workflow, 0):
            # The state between two tries of a standalone task.
            self.set(run, "FAILED", error=told)
            again = threading.Timer(0.3, self._again, (run,))
            again.daemon = True
            again.start()
        else:
            end("FAILED", error=told)

    def _again(self, run):
        run.attempt += 1
        self._execute(run, self.killed)

    def find(self, run_id):
        with self.lock:
            run = self.runs.get(run_id)
            return run if run and time.monotonic() >= run.visible_at else None

    def describe(self, run):
        """GET of a run, in the shape of the recorded echo-task (or DAG)."""
        body = copy.deepcopy(recorded(35)["response_body"])
        body["run"].update(additionalMetadata=run.metadata, status=run.status, output=run.output, errorMessage=run.error,
                           createdAt=run.created, startedAt=run.started, finishedAt=run.finished, input={"input": run.input})
        body["run"]["metadata"].update(id=run.id, createdAt=run.created)
        name = run.workflow[:-len("_workflow")] if run.workflow.endswith("_workflow") else run.workflow
        task, declared = body["tasks"][0], body["workflowConfig"]["Tasks"][0]
        dag = callable(self.workflows[run.workflow]) and getattr(self.workflows[run.workflow], "steps", None)
        body["tasks"], body["workflowConfig"] = [], {"Name": run.workflow, "Tasks": []}
        for step in dag or [name]:
            one = copy.deepcopy(task)
            output = run.output.get(step, {}) if dag and isinstance(run.output, dict) else run.output
            one.update(actionId="%s:%s" % (run.workflow, step), status=run.status, output=output, errorMessage=run.error,
                       attempt=run.attempt, retryCount=run.attempt - 1, taskExternalId=str(uuid.uuid4()) if dag else run.id,
                       startedAt=run.started, finishedAt=run.finished, input={"input": run.input})
            body["tasks"].insert(0, one)  # the engine lists the last first
            body["workflowConfig"]["Tasks"].append(dict(declared, Action=one["actionId"], ReadableId=step,
                                                        Retries=self.retries.get(run.workflow, 0)))
        if dag and run.status == "COMPLETED":
            body["run"]["output"] = run.output[dag[-1]]
        return body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass
        with self.server.lock:
            self.server.connections.discard(self.connection)

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass

    def answer(self, status, body=None):
        raw = b"" if body is None else json.dumps(read(json.dumps(body)), ensure_ascii=False, sort_keys=True).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        self.serve(b"")

    def do_PATCH(self):
        self.do_POST()

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def serve(self, raw):
        server = self.server
        if server.gone:
            self.close_connection = True
            return
        with server.lock:
            server.requests.append((self.command, self.path, raw))
        fault = server.take_fault(self.command, self.path)
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, tuple):
            self.answer(*fault)
            return
        if callable(fault):
            fault()
        status, body = self.route(raw)
        if fault == "cut":
            self.close_connection = True
            return
        self.answer(status, body)

    def route(self, raw):
        server, url = self.server, urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/api/ready":
            return (200, None) if server.ready else (500, recorded(157)["response_body"])
        given = self.headers.get("Authorization") or ""
        if not given.startswith("Bearer ") or not self.accepted(given[7:]):
            return 403, recorded(43)["response_body"]
        if not server.ready:
            return 500, recorded(161)["response_body"]
        stable, tenant = "/api/v1/stable/tenants/%s" % TENANT, "/api/v1/tenants/%s" % TENANT
        if self.command == "POST" and url.path == stable + "/workflow-runs/trigger":
            return self.trigger(raw)
        if self.command == "POST" and url.path == stable + "/tasks/cancel":
            return self.cancel(json.loads(raw))
        if self.command == "GET" and url.path == stable + "/workflow-runs":
            return 200, self.runs(query)
        if self.command == "GET" and url.path == tenant + "/workflows":
            return 200, self.names(query)
        if self.command == "GET" and url.path == tenant + "/worker":
            return 200, self.workers(query)
        if self.command == "GET" and url.path == tenant + "/step-run-queue-metrics":
            return 200, self.metrics()
        found = re.fullmatch(r"/api/v1/workers/([^/]+)", url.path)
        if self.command == "PATCH" and found:
            server.pause(found.group(1), json.loads(raw)["isPaused"])
            return 200, {}
        found = re.fullmatch(r"/api/v1/stable/(workflow-runs|tasks)/([^/]+)(/status|/task-events)?", url.path)
        if self.command == "GET" and found:
            return self.one(found.group(2), found.group(3), query)
        return 403, None

    @staticmethod
    def accepted(text):
        try:
            claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        except (ValueError, IndexError):
            return False
        return claims["sub"] == TENANT and claims["exp"] > time.time() and text.endswith("c2lnbmF0dXJl")

    def trigger(self, raw):
        if self.headers.get("Content-Type") != "application/json":
            return 415, {"message": "Unsupported Media Type"}
        try:
            body = read(raw)
        except ValueError:
            return 400, recorded(49)["response_body"]
        if not isinstance(body.get("input"), dict):
            return 400, {"message": "Unmarshal type error: expected=map[string]interface {}, field=input"}
        if body.get("priority", 1) not in (1, 2, 3):
            return 400, recorded(57)["response_body"]
        assert body["return_only_id"] is True, "without it the answer takes seconds"
        answer = copy.deepcopy(recorded(30)["response_body"])
        answer["run"]["metadata"]["id"] = self.server.trigger(body).id
        return 200, answer

    def cancel(self, body):
        for run_id in body["externalIds"]:
            try:
                uuid.UUID(run_id)
            except ValueError:
                return 400, {"message": "invalid UUID length: %d" % len(run_id)}
            run = self.server.find(run_id)
            if run and run.status in ("QUEUED", "RUNNING"):
                self.server.set(run, "CANCELLED", finished=now())
        return 200, {"ids": body["externalIds"]}

    def runs(self, query):
        body = copy.deepcopy(recorded(38)["response_body"])
        row, body["rows"] = body["rows"][0], []
        if "since" in query:
            with self.server.lock:
                for run in self.server.runs.values():
                    wanted = [w.split(":", 1) for w in query.get("additional_metadata", [])]
                    if time.monotonic() >= run.visible_at and all(run.metadata.get(k) == v for k, v in wanted):
                        body["rows"].append(dict(row, additionalMetadata=run.metadata, status=run.status, taskExternalId=run.id,
                                                 workflowRunExternalId=run.id, workflowName=run.workflow, children=[]))
        return body

    def names(self, query):
        body = copy.deepcopy(recorded(17)["response_body"])
        row, body["rows"] = body["rows"][0], []
        found = sorted(n for n in self.server.workflows if query["name"][0] in n)
        limit, offset = int(query.get("limit", ["50"])[0]), int(query.get("offset", ["0"])[0])
        body["rows"] = [dict(row, name=n) for n in found[offset:offset + limit]]
        body["pagination"]["num_pages"] = -(-len(found) // limit)
        return body

    def workers(self, query):
        body = copy.deepcopy(recorded(18)["response_body"])
        actions = self.server.actions() if hasattr(self.server, "actions") else []
        for name, work in self.server.workflows.items() if not actions else []:
            steps = getattr(work, "steps", None) or [name[:-len("_workflow")] if name.endswith("_workflow") else name]
            actions += ["%s:%s" % (name, step) for step in steps]
        body["rows"][0].update(actions=actions, status="ACTIVE" if self.server.worker else "INACTIVE")
        body["rows"] = [r for r in body["rows"] if r["status"] in query.get("statuses", [r["status"]])]
        return body

    def metrics(self):
        queues = {}
        with self.server.lock:
            for run in self.server.runs.values():
                if run.status == "QUEUED":
                    queues[run.workflow] = queues.get(run.workflow, 0) + 1
        return {"queues": queues}

    def one(self, run_id, what, query):
        try:
            uuid.UUID(run_id)
        except ValueError:
            return 400, {"message": "invalid workflow run id"}
        run = self.server.find(run_id)
        if not run:
            return 404, recorded(64)["response_body"]
        if what == "/status":
            return 200, run.status
        if what == "/task-events":
            body = copy.deepcopy(recorded(141)["response_body"])
            row = body["rows"][0]
            if hasattr(self.server, "history") and "limit" in query:
                return 200, dict(body, rows=[dict(row, **e) for e in self.server.history(run)])
            body["rows"] = [dict(row, eventType=run.event[0], message=run.event[1])] \
                if run.event and "limit" in query else []
            return 200, body
        return 200, self.server.describe(run)


__all__ = ["Engine", "Failed", "TimedOut", "Cancelled", "token", "recorded", "read", "now", "TENANT", "FIXTURES"]
