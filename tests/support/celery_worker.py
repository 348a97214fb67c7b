"""Real Celery workers, ended by their pid (their pool's processes are of their group)."""
import json
import os
import signal
import subprocess
import sys
import uuid

import redis
from celery import Celery

from http_text import PATIENCE, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))


def application(broker, results=None):
    """A Python producer of the same broker."""
    return Celery("producer", broker=broker, backend=results or broker)


class Worker:
    """`conf` is Celery's configuration in the worker; `without` names tasks that it has not registered."""
    started = []

    def __init__(self, folder, broker, results=None, queues="celery", pool="threads", concurrency=8, arguments=(), conf=None,
                 without=()):
        self.name, self.broker = "w%s@test" % uuid.uuid4().hex[:8], broker
        self.log_path = os.path.join(str(folder), self.name + ".log")
        self.app = application(broker, results)
        environment = dict(os.environ, CELERY_BROKER_URL=broker, CELERY_RESULT_BACKEND=results or broker, PYTHONPATH=HERE,
                           RUNS_FOLDER=str(folder), PYTHONDONTWRITEBYTECODE="1", CELERY_APP_CONF=json.dumps(conf or {}),
                           CELERY_APP_WITHOUT=" ".join(without), C_FORCE_ROOT="yes")  # pickle, as root in a container
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-n", self.name, "-Q", queues, "-P", pool,
                   "-c", str(concurrency), "--without-gossip", "--without-mingle", "-l", "info", *arguments]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=str(folder), env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        Worker.started.append(self)
        wait_until(self.is_ready, "the Celery worker to be ready", PATIENCE * 3)
        wait_until(self.is_heard, "the Celery worker to listen to remote control")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def is_ready(self):
        assert self.process.poll() is None, "the worker ended:\n" + self.log()
        return " ready." in self.log()

    def is_heard(self):
        """It says that it is ready before the broker has its subscription: until then nobody is told of a revocation, or answers."""
        if not self.broker.startswith("redis"):
            try:
                return bool(self.app.control.ping(destination=[self.name], timeout=1))
            except OSError:  # a connection from before the broker was restarted
                return False
        there = sum(w.broker == self.broker and w.process.poll() is None for w in Worker.started)
        try:
            return self.subscriptions() >= there
        except redis.ConnectionError:  # a broker that is just being restarted has nobody's subscription
            return False

    def subscriptions(self):
        with redis.Redis.from_url(self.broker) as client:
            patterns = sum(int(c["psub"]) > 0 for c in client.client_list())
            return patterns + sum(n for _, n in client.pubsub_numsub(*client.pubsub_channels("*.pidbox")))

    def pause(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self):
        """With its pool, as when the machine is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
                return
            except subprocess.TimeoutExpired:
                pass
        self.kill()
