"""A Temporal development server, Python workers, and a connection between that can lose replies; ended by their pids."""
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import requests

from http_text import PATIENCE, wait_until
from programs import free_port

HERE = os.path.dirname(os.path.abspath(__file__))


def find():
    """The program (scripts/test builds it into the cache folder), and why there is none."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    built = glob.glob(os.path.join(cache, "migration-router", "temporal-v*", "temporal"))
    program = os.environ.get("TEMPORAL_CLI") or shutil.which("temporal") or (built[0] if built else None)
    return program, os.environ.get("TEMPORAL_MISSING") or "no Temporal server: scripts/test builds it"


class Ended:
    """A process whose output goes to a file."""

    def __init__(self, log_path):
        self.log_path, self.process = log_path, None

    def run(self, command, **how):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **how)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()


class Server(Ended):
    """With a file a server that was killed comes back with what it had."""

    def __init__(self, folder, file=None):
        super().__init__(os.path.join(str(folder), "temporal.log"))
        self.folder, self.file = str(folder), file
        self.port, self.http_port, self.metrics_port = free_port(), free_port(), free_port()
        self.start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.http_port

    def start(self):
        self.run([find()[0], "--disable-config-file", "--disable-config-env", "--env-file", os.path.join(self.folder, "env.yaml"),
                  "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port), "--http-port",
                  str(self.http_port), "--metrics-port", str(self.metrics_port), "--log-level", "error"]
                 + (["--db-filename", os.path.join(self.folder, self.file), "--sqlite-pragma", "journal_mode=WAL",
                     # The end of the process loses nothing by it, that of the machine would.
                     "--sqlite-pragma", "synchronous=OFF"] if self.file else []),
                 cwd=self.folder, env=dict(os.environ, HOME=self.folder))
        wait_until(self.answers, "the Temporal server to answer")

    def answers(self):
        assert self.process.poll() is None, "the Temporal server ended:\n" + self.log()
        try:
            return requests.get(self.url + "/api/v1/namespaces/default", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def describe(self, task_id):
        answer = requests.get("%s/api/v1/namespaces/default/workflows/%s" % (self.url, task_id), timeout=PATIENCE)
        return answer.json()["workflowExecutionInfo"] if answer.status_code == 200 else None

    def workflows(self):
        answer = requests.get(self.url + "/api/v1/namespaces/default/workflows", timeout=PATIENCE)
        return answer.json().get("executions", [])

    def histories(self, n):
        """Of the latest: what happened to each, and when."""
        told = []
        for each in self.workflows()[:n]:
            history = requests.get("%s/api/v1/namespaces/default/workflows/%s/history" % (self.url, each["execution"]["workflowId"]),
                                   timeout=PATIENCE).json()["history"]["events"]
            told.append("%s %s: %s" % (each["type"]["name"], each["execution"]["workflowId"], ", ".join(
                "%s %s" % (event["eventTime"][11:23], event["eventType"][len("EVENT_TYPE_"):]) for event in history)))
        return "; ".join(told)


class Worker(Ended):
    def __init__(self, folder, server, queue="tests", places=8):
        super().__init__(os.path.join(str(folder), "worker-%d.log" % free_port()))
        self.runs_path = os.path.join(str(folder), "runs")
        self.run([sys.executable, os.path.join(HERE, "temporal_worker.py"), server.address, queue, str(places)],
                 env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", RUNS_FOLDER=str(folder)))
        wait_until(self.is_ready, "the Temporal worker to be ready")

    def is_ready(self):
        assert self.process.poll() is None, "the worker ended:\n" + self.log()
        return "ready" in self.log()

    def runs(self, value):
        try:
            with open(self.runs_path, encoding="utf-8") as file:
                return file.read().split("\n").count(value)
        except FileNotFoundError:
            return 0


class Proxy:
    """Passes HTTP to the server, one connection per request; the replies to the first `lose` POSTs are thrown away after the server
    gave them. With a TLS context it is the TLS end."""

    def __init__(self, to_port, lose=0, tls=None, to_host="127.0.0.1"):
        self.to, self.lose, self.tls = (to_host, to_port), lose, tls
        self.lost = self.requests = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            client.settimeout(PATIENCE)
            with (self.tls.wrap_socket(client, server_side=True) if self.tls else client) as inside:
                request = self.read_request(inside)
                if request:
                    self.answer(inside, request)
        except OSError:
            client.close()

    def read_request(self, inside):
        request = b""
        while b"\r\n\r\n" not in request:
            piece = inside.recv(65536)
            if not piece:
                return None
            request += piece
        head, _, body = request.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = sum(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            piece = inside.recv(65536)
            if not piece:
                return None
            body += piece
        return b"\r\n".join(lines + [b"Connection: close"]) + b"\r\n\r\n" + body

    def answer(self, inside, request):
        with socket.create_connection(self.to, PATIENCE) as outside:
            outside.sendall(request)
            reply = b""
            while piece := outside.recv(65536):
                reply += piece
        with self.lock:
            self.requests += 1
            lose = request.startswith(b"POST") and self.lost < self.lose
            self.lost += lose
        if not lose:
            inside.sendall(reply)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
