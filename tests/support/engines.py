"""The task engines of the contract suite behind one face: how each is started, lost, brought back and restarted, and its worker.

Embedded, Redis with Celery, and Temporal are real. Hatchet is the stand-in made of recordings, or a real one where HATCHET_CLIENT_TOKEN
(or HATCHET_TOKEN) is set. Every worker has the tasks of core_tasks.py and PLACES places.
"""
import contextlib
import json
import os
import sqlite3
import sys
import urllib.parse

import pytest

import configuration
import core_tasks
import hatchet_real
import temporal_server
from celery_rabbitmq import RabbitMQ
from celery_redis import Redis
from hatchet import Engine as StandIn
from hatchet import Failed
from http_text import PATIENCE, wait_until
from lossy import Lossy
from postgresql import PostgreSQL
from programs import need_backend

PLACES = 4
HERE = os.path.dirname(os.path.abspath(__file__))


class Engine:
    """worker: what is running, or None. `env`: the variables that lead a router to it."""
    submission = None  # bytes that a submission has on the wire
    patience = 2 * PATIENCE  # until a worker has begun what it is to run
    holds = 0
    label = None  # what it is called beside others of its name

    def __init__(self, folder):
        need_backend(self.name)
        self.folder, self.worker, self.env = str(folder), None, {}

    def attach(self, start, router):
        """Before a worker is started: some need the router's configuration."""

    # --- what the workers did ----------------------------------------------------------------------------------------

    def lines(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def runs(self, line):
        return self.lines().count(line)

    def wait_run(self, line):
        wait_until(lambda: self.runs(line) > 0, "a worker to say: " + line, self.patience)

    @contextlib.contextmanager
    def holding(self):
        """Within it tasks `hold` go on; after it they end, also those that notice late, when the next have begun."""
        self.holds += 1
        self.say_held("hold %d" % self.holds)
        try:
            yield self.release
        finally:
            self.release()

    def release(self):
        self.say_held("")

    def say_held(self, text):
        path = os.path.join(self.folder, "held")
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".new", path)

    # --- the worker ----------------------------------------------------------------------------------------------------

    def wait_revoked(self, task_id):
        """After a cancellation that workers hear in their own time."""

    def stop_worker(self):
        self.worker.stop()
        self.worker = None

    def kill_worker(self):
        self.worker.kill()
        self.worker = None

    # --- the server ------------------------------------------------------------------------------------------------------

    def through(self):
        """A way to it that can lose replies, and the variables that lead over it."""
        lossy = Lossy(self.port)
        return lossy, self.env_of(lossy.port)

    def lose(self):
        self.server.stop()

    def find(self):
        self.server.start()

    def restart(self):
        """While tasks wait and run."""
        self.lose()
        self.find()

    def mend_worker(self):
        """What an operator's supervisor does for it after a restart of the engine."""

    def story(self):
        """For whoever reads of a failed test: what workers last did, and what the engine knows of the latest tasks."""
        return "last runs: %s" % self.lines()[-5:]

    def never_wrote_result(self, task_id):
        """Whether the engine itself has no result of a task that ran, and will have none."""
        return False

    def stop(self):
        if self.worker:
            self.kill_worker()
        self.server.stop()


def programs_of(folder):
    """The registry of a worker of ours: the core tasks, and the others as programs."""
    program = [sys.executable, "-E", "-S", os.path.join(HERE, "core_tasks.py")]
    runs = {"RUNS_FOLDER": folder}
    # A shell starts faster than Python: a thousand of these are run.
    count = {"argv": ["sh", "-c", 'read -r key; echo "$key" >>"$RUNS_FOLDER/runs"; printf %s "$key"'],
             "stdin": {"text": "args:/0"}, "stdout": "text", "env": runs}
    return {"tasks": [{"name": t.__name__, "builtin": t.__name__} for t in core_tasks.CORE] +
                     [{"name": t.__name__, "exec": {"argv": program + [t.__name__], "env": runs}}
                      for t in core_tasks.TASKS if t not in core_tasks.CORE + [core_tasks.count]] +
                     [{"name": "count", "exec": count}]}


class Embedded(Engine):
    """The queue is a file; it is lost while another process holds it for itself."""
    name = "embedded"

    def __init__(self, folder):
        super().__init__(folder)
        self.tasks = programs_of(self.folder)
        self.start = self.router = self.lock = None

    def attach(self, start, router):
        self.start, self.router = start, router

    def start_worker(self):
        self.worker = self.start.worker(self.router, "--concurrency", PLACES, "--lease", "3s")

    def lose(self):
        self.lock = sqlite3.connect(self.router.config["backends"]["embedded"]["database"], timeout=10, isolation_level=None)
        self.lock.execute("BEGIN IMMEDIATE")

    def find(self):
        self.lock.close()

    def restart(self):
        """The file needs no server; its worker is replaced by another, as in a deployment."""
        old, self.worker = self.worker, None
        self.start_worker()
        old.signal(15)

    def stop_worker(self):
        assert self.worker.stop() == 0
        self.worker = None

    def stop(self):
        """The worker belongs to the programs of the test, which are ended and looked at by it."""


class Celery(Engine):
    name = "celery"
    submission = b"LPUSH"
    connected = 0  # times of its worker before the broker went

    def __init__(self, folder):
        super().__init__(folder)
        # Kept on disk, as a broker is; without that, what waits in it is lost with it.
        self.server = Redis(folder, "--appendonly", "yes", "--appendfsync", "always")
        self.port = self.server.port
        self.env = self.env_of(self.port)

    @staticmethod
    def env_of(port):
        return {"CELERY_BROKER_URL": "redis://127.0.0.1:%d/0" % port, "CELERY_RESULT_BACKEND": "redis://127.0.0.1:%d/1" % port}

    def start_worker(self):
        from celery_worker import Worker
        self.worker = Worker(self.folder, self.server.url(0), self.server.url(1), pool="prefork", concurrency=PLACES)

    def wait_revoked(self, task_id):
        wait_until(lambda: "flagged as revoked: " + task_id in self.worker.log(), "the worker to have heard of the revocation")

    def connections(self):
        return self.worker.log().count("Connected to redis") if self.worker else 0

    def never_wrote_result(self, task_id):
        """A worker that ends with its broker (kombu 5.6) takes with it what its processes had not written yet."""
        return not self.server.client(1).exists("celery-task-meta-" + task_id)

    def lose(self):
        self.connected = self.connections()
        super().lose()

    def mend_worker(self):
        """A worker that has reserved messages ends when the broker goes away (kombu 5.6), and what it had reserved comes back after the
        visibility timeout of the broker (1 h): here at once, by kombu's own hand."""
        wait_until(lambda: self.worker.process.poll() is not None or self.connections() > self.connected,
                   "the worker to end, or to be connected again", PATIENCE * 2)
        self.worker.stop()  # one that is connected again may take nothing any more
        # Before the next worker is there: it would hold the lock for this now and then, and reserve anew what is not to come back again.
        with self.worker.app.connection_for_read() as connection:
            connection.transport_options = {"visibility_timeout": 0}
            channel = connection.default_channel
            wait_until(lambda: channel.qos.restore_visible() or not channel.client.zcard(channel.unacked_index_key),
                       "what the worker had reserved to be back in the queue")
        self.start_worker()


class CeleryInC(Celery):
    """The same broker with our worker in the place of the Python one."""
    label = "celery-c"

    def __init__(self, folder):
        super().__init__(folder)
        self.start = None
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(programs_of(self.folder), file)
        with open(os.path.join(self.folder, "worker.yml"), "w", encoding="utf-8") as file:
            json.dump(configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="celery", backends={
                "celery": {"tasks": "tasks.yml", "track_started": True}}), file)

    def attach(self, start, router):
        self.start = start

    def start_worker(self):
        self.worker = self.start.process("task-backend-worker", "--config", os.path.join(self.folder, "worker.yml"),
                                         "--concurrency", PLACES, "--log-format", "json", cwd=self.folder, env=self.env)
        self.worker.wait_event("worker_ready")

    def wait_revoked(self, task_id):
        self.worker.wait_event("tasks_revoked", task_ids=task_id)

    def connections(self):
        return 0

    def mend_worker(self):
        """It is connected again by itself."""


class CeleryOverRabbitMQ(Celery):
    """RabbitMQ as broker, results by reply queue: what a router hears of them ends with it."""
    label = "celery-amqp-rpc"
    submission = b"application/json"
    results = "rpc://"

    def __init__(self, folder):  # pylint: disable=super-init-not-called
        Engine.__init__(self, folder)
        self.server = RabbitMQ(folder)
        self.port = self.server.port
        self.env = self.env_of(self.port)

    def env_of(self, port):  # pylint: disable=arguments-differ
        return {"CELERY_BROKER_URL": self.server.url(port), "CELERY_RESULT_BACKEND": self.results}

    def start_worker(self):
        from celery_worker import Worker
        self.worker = Worker(self.folder, self.server.url(), self.results, pool="prefork", concurrency=PLACES)

    def connections(self):
        return self.worker.log().count("Connected to amqp") if self.worker else 0

    def never_wrote_result(self, task_id):
        return False

    def mend_worker(self):
        """RabbitMQ gives back by itself what a lost worker had."""
        wait_until(lambda: self.worker.process.poll() is not None or self.connections() > self.connected,
                   "the worker to end, or to be connected again", PATIENCE * 2)
        self.worker.stop()
        self.start_worker()

    def stop(self):
        if self.worker:
            self.kill_worker()
        self.server.end()


class CeleryOverPostgreSQL(CeleryOverRabbitMQ):
    """The same broker, results in a database."""
    label = "celery-amqp-postgresql"

    def __init__(self, folder):
        self.database = PostgreSQL()
        self.results = self.database.url()
        super().__init__(folder)

    def stop(self):
        super().stop()
        self.database.end()


class Temporal(Engine):
    name = "temporal"
    submission = b"POST /api/v1/namespaces/default/workflows/"

    def __init__(self, folder):
        super().__init__(folder)
        program, why = temporal_server.find()
        if not program:
            pytest.skip(why)
        self.server = temporal_server.Server(folder, file="temporal.db")
        self.port = self.server.http_port
        self.env = self.env_of(self.port)

    @staticmethod
    def env_of(port):
        return {"TEMPORAL_HTTP_URL": "http://127.0.0.1:%d" % port, "TEMPORAL_TASK_QUEUE": "contract"}

    def start_worker(self):
        self.worker = temporal_server.Worker(self.folder, self.server, "contract", places=PLACES)

    def lose(self):
        self.server.kill()

    def story(self):
        return "%s; %s; worker's log: %s" % (super().story(), self.server.histories(4), self.worker and self.worker.log()[-2000:])


class TemporalInC(Temporal):
    """The same server with our worker in the place of the Python one."""
    label = "temporal-c"

    def __init__(self, folder):
        super().__init__(folder)
        self.start = None
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(programs_of(self.folder), file)
        with open(os.path.join(self.folder, "worker.yml"), "w", encoding="utf-8") as file:
            json.dump(configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="temporal", backends={
                "temporal": {"http_url": self.server.url, "address": self.server.address, "poll_timeout": "3s"}}), file)

    def attach(self, start, router):
        self.start = start

    def start_worker(self):
        self.worker = self.start.process("task-backend-worker", "--config", os.path.join(self.folder, "worker.yml"), "--tasks",
                                         os.path.join(self.folder, "tasks.yml"), "--queues", "contract", "--concurrency", PLACES,
                                         "--log-format", "json", cwd=self.folder)
        self.worker.wait_event("worker_ready")

    def story(self):
        return "%s; %s; worker's log: %s" % (Engine.story(self), self.server.histories(4), self.worker and self.worker.log()[-2000:])


class Hatchet(Engine):
    name = "hatchet"
    submission = b"/workflow-runs/trigger"

    def __init__(self, folder):
        super().__init__(folder)
        core_tasks.RUNS = self.folder  # the stand-in's worker is in this process
        self.server = StandIn({t.__name__ + "_workflow": self.of(t) for t in core_tasks.TASKS}, slots=PLACES)
        self.server.worker = False
        self.port = self.server.port
        self.env = self.env_of(self.port)

    def env_of(self, port):
        return {"HATCHET_CLIENT_TOKEN": self.server.token(), "HATCHET_SERVER_URL": "http://127.0.0.1:%d" % port}

    @staticmethod
    def of(task):
        """As a worker of the convention hands it over."""
        def run(one):
            try:
                result = task(*one.input["args"], **one.input["kwargs"])
            except Exception as why:
                raise Failed(str(why)) from why
            return result if isinstance(result, dict) else {task.__name__: result}
        return run

    def start_worker(self):
        self.worker = self
        self.server.begin_worker()

    def stop_worker(self):
        self.kill_worker()

    def kill_worker(self):
        self.worker = None
        self.server.kill_worker()

    def stop(self):
        self.release()
        super().stop()


class RealHatchet(Engine):
    """Somebody else's: it goes away for the router only, whose way to it is closed."""
    name = "hatchet"
    patience = 4 * PATIENCE  # it asks a worker that has ended for up to a minute
    submission = Hatchet.submission

    def __init__(self, folder):
        super().__init__(folder)
        self.server = hatchet_real.Server()
        self.way, self.env = self.through()

    def env_of(self, port):
        return {**self.server.environment, "HATCHET_SERVER_URL": "http://127.0.0.1:%d" % port}

    def start_worker(self):
        self.worker = hatchet_real.Worker(self.folder, self.server, slots=PLACES)

    def through(self):
        url = urllib.parse.urlsplit(self.server.url)
        lossy = Lossy(url.port, url.hostname)
        return lossy, self.env_of(lossy.port)

    def lose(self):
        self.way.close()

    def find(self):
        self.way.open()

    def stop(self):
        if self.worker:
            self.kill_worker()
        self.way.close()
        self.server.cancel_unfinished()


# The same engine with another worker is looked at once, without sanitizers: test_celery_worker_c.py runs under them.
ENGINES = [Embedded, Celery, pytest.param(CeleryInC, marks=pytest.mark.heavy),
           *([pytest.param(kind, marks=pytest.mark.heavy) for kind in (CeleryOverRabbitMQ, CeleryOverPostgreSQL)] if os.environ.get("CONTRACT_CELERY") == "all" else []), Temporal,
           *([pytest.param(TemporalInC, marks=pytest.mark.heavy)] if os.environ.get("CONTRACT_TEMPORAL") == "all" else []), RealHatchet if hatchet_real.TOKEN else Hatchet]
