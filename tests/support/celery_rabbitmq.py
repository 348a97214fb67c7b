"""A RabbitMQ server of a test's own: free ports, files in the test's folder, its own epmd, ended by their pids."""
import os
import shutil
import signal
import socket
import subprocess

import pytest

from http_text import PATIENCE, wait_until
from programs import free_port

# Debian's /usr/sbin/rabbitmq-server changes to another user first.
HOME = "/usr/lib/rabbitmq/bin"
SERVER = os.path.join(HOME, "rabbitmq-server")


def need():
    if not os.path.exists(SERVER) or not shutil.which("epmd"):
        pytest.skip("no rabbitmq-server (Debian: rabbitmq-server)")


class RabbitMQ:
    def __init__(self, folder):
        need()
        self.folder = os.path.join(str(folder), "rabbitmq")
        os.makedirs(self.folder, exist_ok=True)
        self.port, self.epmd_port = free_port(), free_port()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8", "RABBITMQ_NODENAME": "test%d@localhost" % self.port,
            "RABBITMQ_MNESIA_BASE": os.path.join(self.folder, "mnesia"), "RABBITMQ_LOG_BASE": os.path.join(self.folder, "log"),
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.folder, "plugins"), "RABBITMQ_CONFIG_FILE": os.path.join(self.folder, "none"),
            "RABBITMQ_SERVER_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none", "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1"}
        with open(os.path.join(self.folder, "plugins"), "w", encoding="utf-8") as file:
            file.write("[].")
        # Not left to the server, which would start one that nobody ends.
        self.epmd = self.run(["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"])
        self.process = None
        self.start()

    def run(self, argv):
        with open(os.path.join(self.folder, "output"), "ab") as output:
            return subprocess.Popen(argv, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                    start_new_session=True)

    def start(self):
        self.process = self.run([SERVER])
        wait_until(self.answers, "rabbitmq-server to answer", 2 * PATIENCE)

    def answers(self):
        assert self.process.poll() is None, "rabbitmq-server ended with %s" % self.process.poll()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.settimeout(5)
                s.sendall(b"AMQP\0\0\x09\x01")
                return s.recv(1) != b""
        except OSError:
            return False

    def url(self, port=None, vhost=""):
        return "amqp://guest:guest@127.0.0.1:%d/%s" % (port or self.port, vhost)

    def ctl(self, *arguments):
        return subprocess.run([os.path.join(HOME, "rabbitmqctl"), *arguments], env=self.environment, cwd=self.folder, check=True,
                              capture_output=True, timeout=PATIENCE).stdout.decode()

    def kill(self):
        """The virtual machine, which is the leader's only child of any weight."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self):
        """Orderly: what is durable is on disk."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(PATIENCE)

    def end(self):
        self.kill()
        self.epmd.kill()
        self.epmd.wait(PATIENCE)
