"""A redis-server of a test's own: free port, nothing on disk, ended by its pid."""
import os
import shutil
import signal
import subprocess

import redis

from http_text import PATIENCE, wait_until
from programs import free_port

SERVER = shutil.which("redis-server") or "/usr/bin/redis-server"


class Redis:
    def __init__(self, folder, *arguments, port=None):
        self.folder, self.arguments = str(folder), arguments
        self.port = port or free_port()
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                         *self.arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self.answers, "redis-server to answer")

    def answers(self):
        assert self.process.poll() is None, "redis-server ended with %s" % self.process.poll()
        try:
            return self.client().ping()
        except redis.exceptions.AuthenticationError:
            return True
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def client(self, db=0, **how):
        return redis.Redis(host="127.0.0.1", port=self.port, db=db, **how)

    def url(self, db=0):
        return "redis://127.0.0.1:%d/%d" % (self.port, db)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
