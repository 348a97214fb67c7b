"""What the measurements share: programs on one core each, ended by their pid, and wrk."""
import glob
import os
import re
import shutil
import socket
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build-bench")
FOLDER = os.path.join(BUILD, "run")
SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CORES = sorted(os.sched_getaffinity(0))
CORE_TESTED, CORE_LOAD = CORES[0], CORES[-1]
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def write(name, text):
    path = os.path.join(FOLDER, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Server:
    """A program pinned to one core, with the processes that it starts; up when its port answers, or `ready` says so."""

    running = []  # in the order of their start; stop_all ends them

    def __init__(self, name, core, *command, port=None, env=None, ready=None):
        self.name, self.port = name, port
        self.log = os.path.join(FOLDER, name + ".log")
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=subprocess.STDOUT, cwd=FOLDER, env=env)
        Server.running.append(self)
        self.wait(lambda: answers(port) if ready is None else ready(self))

    def wait(self, ready, patience=60):
        deadline = time.monotonic() + patience
        while not ready():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("%s is not ready:\n%s" % (self.name, self.said()[-2000:]))
            time.sleep(0.02)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def pids(self):
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in glob.glob("/proc/%d/task/*/children" % pid):
                with open(task, encoding="ascii") as file:
                    todo += [int(child) for child in file.read().split()]
        return found

    def cpu_seconds(self):
        ticks = 0
        for pid in self.pids():
            with open("/proc/%d/stat" % pid, encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
        return ticks / TICK

    def peak(self):
        """The most bytes of the program itself that were resident at a time."""
        with open("/proc/%d/status" % self.popen.pid, encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def memory(self):
        pages = 0
        for pid in self.pids():
            with open("/proc/%d/statm" % pid, encoding="ascii") as file:
                pages += int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @classmethod
    def stop_all(cls):
        while cls.running:
            cls.running[-1].stop()

    def stop(self):
        if self in Server.running:
            Server.running.remove(self)
        self.popen.terminate()
        try:
            self.popen.wait(40)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def program(name):
    for path in glob.glob(os.path.join(BUILD, "**", name), recursive=True):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def need_program(name):
    path = program(name)
    if not path:
        raise SystemExit("%s was not built" % name)
    return path


NGINX_MAIN = """
daemon off; worker_processes 1; pid {name}.pid; error_log {name}.error.log warn;
{user}
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {name}-body; proxy_temp_path {name}-proxy; fastcgi_temp_path {name}-f;
  uwsgi_temp_path {name}-u; scgi_temp_path {name}-s; keepalive_requests 100000000; keepalive_timeout 300s;
{body}
}}
"""


def start_nginx(name, core, body, port):
    path = write(name + ".conf", NGINX_MAIN.format(name=name, body=body, user="user root;" if os.geteuid() == 0 else ""))
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", FOLDER, "-e", name + ".error.log", "-c", path]
    return Server(name, core, *command, port=port)


def start_origin():
    port = free_port()
    return start_nginx("origin", CORE_LOAD, """
  server { listen 127.0.0.1:%d backlog=4096; location / { return 200 '{"output":{"total":"sample answer 1"}}\\n'; } }
""" % port, port)


# What a script for wrk ends with: how wrk() below reads the numbers, times in µs.
WRK_DONE = """
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""


def wrk(server, script, connections, seconds):
    """Loads a server: requests per second, p50 and p99 in µs, CPU of the server per request in µs, errors."""
    before = server.cpu_seconds()
    row = wrk_url("http://127.0.0.1:%d" % server.port, script, connections, seconds)
    row["cpu"] = (server.cpu_seconds() - before) / max(row["requests"], 1) * 1e6
    return row


def wrk_url(url, script, connections, seconds):
    run = subprocess.run(["taskset", "-c", str(CORE_LOAD), "wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--timeout", "60s", "-s",
                          os.path.join(FOLDER, script), url], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", run.stdout)
    if not found:
        raise SystemExit("wrk against %s: %s%s" % (url, run.stdout, run.stderr))
    requests, duration, p50, p99, errors = map(int, found.groups())
    return {"requests": requests, "rate": requests / duration * 1e6, "p50": p50, "p99": p99, "errors": errors}


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def goal(what, value, limit, text):
    """One line that says whether a goal is met (limit None: there is none); a measurement is no test, so nothing fails by it."""
    print("%-92s %9s%s" % (what, text, "" if limit is None else "  goal met" if value <= limit else "  goal NOT met"))
