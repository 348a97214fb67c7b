"""The workers' side of the stand-in for a Hatchet engine: a real gRPC server (grpcio) that answers as recorded from the real one
(tests/fixtures/hatchet/dispatcher.json), and gives the runs of the REST stand-in to the workers that have registered.

Its rules are those measured in docs/protocols/hatchet.md; what takes the engine 30 s is done at once by reassign()."""
import json
import os
import queue
import struct
import threading
import time
import uuid
from concurrent import futures

import grpc

from hatchet import FIXTURES, TENANT, Engine, now, read, token

START, CANCEL = 0, 1
STARTED, COMPLETED, FAILED, CANCELLED = 1, 2, 3, 5
LARGEST = 4 << 20


# --- messages: protobuf's wire format, as much of it as is used --------------------------------------------------------------

def varint(n):
    out = bytearray()
    n &= (1 << 64) - 1
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


def take_varint(raw, at):
    n = shift = 0
    while True:
        n |= (raw[at] & 127) << shift
        shift += 7
        at += 1
        if raw[at - 1] < 128:
            return n, at


def decode(raw):
    """number → the values in their order: integers, or bytes."""
    out, at = {}, 0
    while at < len(raw):
        key, at = take_varint(raw, at)
        if key & 7 == 0:
            value, at = take_varint(raw, at)
        elif key & 7 == 2:
            size, at = take_varint(raw, at)
            value, at = raw[at:at + size], at + size
        else:
            assert key & 7 == 5, key
            value, at = struct.unpack("<f", raw[at:at + 4])[0], at + 4
        out.setdefault(key >> 3, []).append(value)
    return out


def encode(fields):
    out = b""
    for number, values in fields.items():
        for value in values:
            if isinstance(value, int):
                out += varint(number << 3) + varint(value)
            else:
                value = value.encode() if isinstance(value, str) else value
                out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def one(fields, number, default=""):
    value = fields.get(number, [default])[-1]
    return value.decode() if isinstance(value, bytes) else value


with open(os.path.join(FIXTURES, "dispatcher.json"), encoding="utf-8") as recording:
    RECORDED = json.load(recording)


def recorded_action(kind):
    """The first START or CANCEL that the engine sent."""
    for exchange in RECORDED:
        for raw in exchange.get("messages", []):
            fields = decode(bytes.fromhex(raw))
            if one(fields, 10, START) == kind:
                return fields
    raise AssertionError(kind)


def recorded_refusal(method, status):
    return next(e["details"] for e in RECORDED if e.get("method", "").endswith(method) and e["status"] == status)


# --- the engine ------------------------------------------------------------------------------------------------------------

class Registered:
    def __init__(self, fields):
        self.id, self.name = str(uuid.uuid4()), one(fields, 1)
        self.actions = [a.decode() for a in fields.get(2, [])]
        self.slots = one(decode(fields[9][0]), 2)
        self.streams, self.held = [], {}  # held: run id → retry_count
        self.paused, self.subscribed, self.beats = False, True, 0

    @property
    def active(self):
        return bool(self.streams)


class WorkerEngine(Engine):
    """The REST stand-in, whose runs are executed by workers over gRPC. `declared`: workflow → its tasks."""

    def __init__(self):
        self.declared, self.registered, self.events, self.refusals = {}, {}, [], []
        self.grpc_port, self.grpc_server = None, None
        self.stopping = threading.Event()
        super().__init__({})
        self.open()

    @property
    def worker(self):
        return any(w.active for w in self.registered.values())

    @worker.setter
    def worker(self, _):
        """The stand-in's own is not used."""

    def token(self, **how):
        return token(self.url, grpc="127.0.0.1:%d" % self.grpc_port, **how)

    def open(self):
        self.stopping.clear()
        self.grpc_server = grpc.server(futures.ThreadPoolExecutor(64), handlers=(Methods(self),), options=[
            ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", LARGEST)])
        self.grpc_port = self.grpc_server.add_insecure_port("127.0.0.1:%d" % (self.grpc_port or 0))
        self.grpc_server.start()

    def close(self):
        """Its gRPC side is gone, as when the engine is restarted; what it knows is kept."""
        self.stopping.set()
        self.grpc_server.stop(0).wait()
        with self.lock:
            for worker in self.registered.values():
                worker.streams = []

    def stop(self):
        self.close()
        super().stop()

    def start(self):
        super().start()
        self.open()

    def refuse(self, method, status, details="not now", times=1):
        """The next calls of it are answered with this."""
        with self.lock:
            self.refusals += [(method, status, details)] * times

    def told(self, run_id=None, kind=None):
        with self.lock:
            return [e for e in self.events if run_id in (None, e["run"]) and kind in (None, e["kind"])]

    def wait_told(self, run_id, kind, patience=60):
        with self.changed:
            assert self.changed.wait_for(lambda: self.told(run_id, kind), patience), (run_id, kind, self.events[-20:])
        return self.told(run_id, kind)[-1]

    def wait_workers(self, n=1, patience=60):
        """So many are there, and each has said so."""
        def there():
            return [w for w in self.registered.values() if w.active and w.beats]
        with self.changed:
            assert self.changed.wait_for(lambda: len(there()) >= n, patience), [vars(w) for w in self.registered.values()]
            return there()

    # --- assigning -----------------------------------------------------------------------------------------------------

    def execute(self, run):
        with self.changed:
            self.assign()

    def action_of(self, run):
        return self.declared[run.workflow][0]["action"]

    def assign(self):
        """What waits, to whom can take it."""
        for run in self.runs.values():
            if not hasattr(run, "events"):
                run.events, run.retry, run.owner = [], 0, None
            if run.status != "QUEUED" or run.owner:
                continue
            for worker in self.registered.values():
                if worker.active and not worker.paused and self.action_of(run) in worker.actions and len(worker.held) < worker.slots:
                    self.give(run, worker)
                    break

    def give(self, run, worker):
        run.events.append(("ASSIGNED", run.retry))
        run.owner, worker.held[run.id] = worker, run.retry
        if worker.subscribed:
            run.events.append(("SENT_TO_WORKER", run.retry))
            self.send(run, worker, START)
            return
        run.events.append(("FAILED", run.retry))  # it could not be sent
        self.take_back(run)

    def send(self, run, worker, kind):
        fields = dict(recorded_action(kind))
        fields.update({2: [run.id], 6: [run.id], 8: [run.id], 9: [self.action_of(run)], 10: [kind], 13: [run.retry],
                       12: [self.declared[run.workflow][0]["name"]], 14: [json.dumps(run.metadata)]})
        if kind == START:
            recorded_payload = json.loads(one(recorded_action(START), 11))
            fields[11] = [json.dumps(dict(recorded_payload, input=read(json.dumps(run.input))), sort_keys=True)]
        worker.streams[0].put(encode(fields))

    def take_back(self, run):
        run.owner.held.pop(run.id, None)
        run.owner, run.retry, run.attempt = None, run.retry + 1, run.retry + 2
        run.status = "QUEUED"

    def reassign(self, worker):
        """It has not been heard of for 30 s."""
        with self.changed:
            for run_id in list(worker.held):
                run = self.runs[run_id]
                run.events.append(("REASSIGNED", run.retry))
                self.take_back(run)
            self.assign()

    def replay(self, run):
        """By hand, of a run that has ended."""
        with self.changed:
            run.events.append(("RETRIED_BY_USER", run.retry))
            run.owner, run.retry, run.attempt = None, run.retry + 1, run.retry + 2
            run.status = "QUEUED"
            self.assign()

    def set(self, run, status, **fields):
        with self.changed:
            owner, cancelled = getattr(run, "owner", None), status == "CANCELLED" and run.status in ("QUEUED", "RUNNING")
            super().set(run, status, **fields)
            if cancelled and owner and owner.streams:
                self.send(run, owner, CANCEL)

    # --- what workers say ------------------------------------------------------------------------------------------------

    def put_workflow(self, fields):
        name = one(fields, 1)
        tasks = []
        for raw in fields.get(6, []):
            task = decode(raw)
            tasks.append({"name": one(task, 1), "action": one(task, 2), "timeout": one(task, 3), "retries": one(task, 6, 0),
                          "parents": [p.decode() for p in task.get(5, [])]})
        if any(c not in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_" for c in name):
            return grpc.StatusCode.INVALID_ARGUMENT, recorded_refusal("PutWorkflow", "INVALID_ARGUMENT")
        if not tasks or any(t["action"].lower() != t["action"] for t in tasks):
            return grpc.StatusCode.INTERNAL, "An internal error occurred."
        with self.changed:
            self.declared[name], self.workflows[name] = tasks, tasks
            self.retries[name] = tasks[0]["retries"]
            self.changed.notify_all()
        return encode({1: [str(uuid.uuid4())], 2: [str(uuid.uuid4())]})

    def register(self, fields):
        worker = Registered(fields)
        if "@" in worker.name:
            return grpc.StatusCode.INVALID_ARGUMENT, recorded_refusal("Register", "INVALID_ARGUMENT")
        with self.changed:
            self.registered[worker.id] = worker
        return encode({1: [TENANT], 2: [worker.id], 3: [worker.name]})

    def heartbeat(self, fields):
        with self.changed:
            worker = self.registered.get(one(fields, 1))
            if not worker:
                return grpc.StatusCode.NOT_FOUND, "worker not found: " + one(fields, 1)
            if not worker.active:
                return grpc.StatusCode.FAILED_PRECONDITION, "Heartbeat rejected: worker stream is not active: " + worker.id
            worker.beats += 1
            self.assign()
            self.changed.notify_all()
        return b""

    def unsubscribe(self, fields):
        with self.changed:
            self.registered[one(fields, 1)].subscribed = False
            self.changed.notify_all()
        return encode({1: [TENANT], 2: [one(fields, 1)]})

    def event(self, fields):
        run = self.runs.get(one(fields, 5))  # its own queries know at once what REST shows a little later
        if not run:
            return grpc.StatusCode.INVALID_ARGUMENT, "invalid task external run id %s: no rows in result set" % one(fields, 5)
        assert 10 in fields, "without a retry count it counts for any attempt"
        said = {"run": run.id, "worker": one(fields, 1), "kind": one(fields, 8), "payload": one(fields, 9), "retry": one(fields, 10),
                "final": bool(one(fields, 11, 0)), "at": time.monotonic()}
        with self.changed:
            self.events.append(said)
            if said["retry"] == run.retry:
                self.heard(run, said)
            self.assign()
            self.changed.notify_all()
        return encode({1: [TENANT], 2: [said["worker"]]})

    def heard(self, run, said):
        owner = getattr(run, "owner", None)
        if said["kind"] == STARTED:
            run.events.append(("STARTED", run.retry))
            if run.status == "QUEUED":
                run.status, run.started = "RUNNING", now()
            return
        if owner:
            owner.held.pop(run.id, None)
            run.owner = None
        if said["kind"] == COMPLETED and run.status != "COMPLETED":  # also what was cancelled, or had failed
            output = json.loads(said["payload"])
            run.output = read(said["payload"]) if isinstance(output, dict) else {}
            run.status, run.finished = "COMPLETED", now()
            run.events.append(("FINISHED", run.retry))
        elif said["kind"] == FAILED and run.status != "COMPLETED":
            run.events.append(("FAILED", run.retry))
            run.error, run.status = said["payload"], "FAILED"
            if not said["final"] and run.retry < self.retries.get(run.workflow, 0):
                run.retry, run.attempt, run.status = run.retry + 1, run.attempt + 1, "QUEUED"
            else:
                run.finished = now()

    # --- what REST tells of it ---------------------------------------------------------------------------------------------

    def history(self, run):
        """The newest first."""
        return [{"eventType": kind, "retryCount": retry, "attempt": retry + 1, "message": "", "errorMessage": ""}
                for kind, retry in reversed(getattr(run, "events", []))]

    def pause(self, worker_id, paused):
        with self.changed:
            self.registered[worker_id].paused = paused
            self.assign()
            self.changed.notify_all()

    def actions(self):
        return sorted({a for w in self.registered.values() if w.active for a in w.actions})


class Methods(grpc.GenericRpcHandler):
    def __init__(self, engine):
        self.engine = engine

    def service(self, details):
        engine, method = self.engine, details.method.rpartition("/")[2]
        calls = {"/v1.AdminService/PutWorkflow": engine.put_workflow, "/Dispatcher/Register": engine.register,
                 "/Dispatcher/Heartbeat": engine.heartbeat, "/Dispatcher/SendStepActionEvent": engine.event,
                 "/Dispatcher/Unsubscribe": engine.unsubscribe}
        bearer = dict(details.invocation_metadata).get("authorization", "")

        def turned_away(context):
            with engine.lock:
                for i, (name, status, why) in enumerate(engine.refusals):
                    if name == method:
                        del engine.refusals[i]
                        context.abort(getattr(grpc.StatusCode, status), why)
            if not bearer.startswith("Bearer ") or bearer[7:].count(".") != 2:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, recorded_refusal("Heartbeat", "UNAUTHENTICATED"))

        def unary(request, context):
            turned_away(context)
            answer = calls[details.method](decode(request))
            if isinstance(answer, tuple):
                context.abort(*answer)
            return answer

        def listen(request, context):
            turned_away(context)
            yield from self.listen(one(decode(request), 1), context)

        if details.method == "/Dispatcher/ListenV2":
            return grpc.unary_stream_rpc_method_handler(listen)
        return grpc.unary_unary_rpc_method_handler(unary) if details.method in calls else None

    def listen(self, worker_id, context):
        engine, mine = self.engine, queue.Queue()
        with engine.changed:
            worker = engine.registered.get(worker_id)
            if not worker:
                context.abort(grpc.StatusCode.NOT_FOUND, "not found")
            worker.streams.append(mine)
            worker.subscribed = True
            engine.assign()
            engine.changed.notify_all()
        context.add_callback(lambda: mine.put(None))
        try:
            while not engine.stopping.is_set():
                message = mine.get()
                if message is None:
                    return
                yield message
        finally:
            with engine.changed:
                if mine in worker.streams:
                    worker.streams.remove(mine)
                engine.changed.notify_all()


__all__ = ["WorkerEngine", "Registered", "RECORDED", "STARTED", "COMPLETED", "FAILED", "CANCELLED", "decode", "encode", "one"]
