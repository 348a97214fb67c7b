"""Starts the samples, a worker and the router in run/, sends sample traffic, shows the report, and keeps a little traffic going.
Called by scripts/run."""
import base64
import ctypes
import fcntl
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

SAMPLES = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(SAMPLES))
BUILD = os.environ.get("DEMO_BUILD") or os.path.join(ROOT, "build-release")
RUN = os.environ.get("DEMO_FOLDER") or os.path.join(ROOT, "run")  # of a test: on free ports
CONFIG = os.path.join(RUN, "config", "router.yml")
READY_SECONDS = 30
PACE = "3"  # calls a second, once it serves
DAYS = "7"  # of made-up history

# Address in config/*.yml: what listens there. The samples take the addresses that the old services move to.
SAMPLE_SERVICES = {"15002": "runner.py", "13003": "prompt.py", "13004": "structure.py",
                   "8089": "llm.py", "8090": "executor.py"}
ROUTER_PORTS = {"5002": "runner", "3003": "prompt", "3004": "structure", "5003": "unified", "9900": "admin"}

libc = ctypes.CDLL(None, use_errno=True)


class Stopped(Exception):
    """A signal asked for the end."""


class Children:
    """Programs that this one started: each ends with it, whatever happens."""

    def __init__(self):
        self.running = []  # (name, Popen), in the order of their start

    def start(self, name, *command, **how):
        log = open(os.path.join(RUN, "log", name + ".log"), "wb")
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                 start_new_session=True, preexec_fn=die_with_parent, **how)
        log.close()
        self.running.append((name, child))
        return child

    def check(self):
        for name, child in self.running:
            if child.poll() is not None:
                raise SystemExit("%s ended with exit code %d:\n%s" % (name, child.returncode, tail_of(name)))

    def stop(self):
        """In reverse order, so that the router drains while what it needs is still there. False when one ended badly."""
        well = True
        for name, child in reversed(self.running):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(45)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.returncode != 0:
                print("%s ended with exit code %d:\n%s" % (name, child.returncode, tail_of(name)), file=sys.stderr)
                well = False
        self.running = []
        return well


def die_with_parent():
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also when this program is killed


def tail_of(name, lines=15):
    with open(os.path.join(RUN, "log", name + ".log"), encoding="utf-8", errors="replace") as file:
        return "".join("    " + line for line in file.readlines()[-lines:])


# --- ports -------------------------------------------------------------------------------------------------------------

def is_free(port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", int(port)))
        except OSError:
            return False
        return True


def holder(port):
    """The process that listens on the port, as far as this user may see it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == int(port)}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link)[len("socket:["):-1] in inodes:
                pid = link.split("/")[2]
                with open("/proc/%s/comm" % pid, encoding="utf-8") as file:
                    return "%s (process %s)" % (file.read().strip(), pid)
        except OSError:
            continue
    return "another program"


def free_port(taken=()):
    """Below the kernel's range for outgoing connections, so that none of those takes it before it is used."""
    while True:
        port = str(random.randint(20000, 32000))
        if port not in taken and is_free(port):
            return port


def choose_ports():
    """Wanted port → the one to use: itself, or a free one where somebody else has it."""
    chosen = {}
    for port, what in {**{p: s for p, s in SAMPLE_SERVICES.items()}, **ROUTER_PORTS}.items():
        chosen[port] = port
        if "DEMO_FOLDER" in os.environ:
            chosen[port] = free_port(chosen.values())
        elif not is_free(port):
            chosen[port] = free_port(chosen.values())
            print("port %s (%s) is held by %s: using %s" % (port, what, holder(port), chosen[port]))
    return chosen


# --- files -------------------------------------------------------------------------------------------------------------

def hold_folder():
    """run/ belongs to one scripts/run at a time."""
    os.makedirs(RUN, exist_ok=True)
    lock = open(os.path.join(RUN, "lock"), "a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise SystemExit("scripts/run is running here already (process %s)" % lock.read().strip()) from None
    lock.truncate(0)
    lock.write("%d\n" % os.getpid())
    lock.flush()
    return lock


def make_folder(ports):
    for name in os.listdir(RUN):
        path = os.path.join(RUN, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif name != "lock":
            os.unlink(path)
    os.makedirs(os.path.join(RUN, "log"))
    shutil.copytree(os.path.join(ROOT, "config"), os.path.join(RUN, "config"))
    for path in glob.glob(os.path.join(RUN, "config", "*.yml")):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text = re.sub(r"((?:127\.0\.0\.1|localhost):)(\d+)\b", lambda m: m.group(1) + ports.get(m.group(2), m.group(2)), text)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    pdf = os.path.join(RUN, "invoice.pdf")
    with open(os.path.join(SAMPLES, "document.txt"), encoding="utf-8") as text:
        subprocess.run([sys.executable, os.path.join(SAMPLES, "pdf.py"), pdf], stdin=text, check=True)
    return pdf


# --- the run -----------------------------------------------------------------------------------------------------------

def program(name):
    path = os.path.join(BUILD, "src", "programs", name)
    if os.access(path, os.X_OK):
        return path
    raise SystemExit("%s was not built" % name)


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def wait_for(children, port, path, name):
    """Polls until it answers 200: readiness is nothing that announces itself."""
    deadline = time.monotonic() + READY_SECONDS
    last = "no answer"
    while time.monotonic() < deadline:
        children.check()
        try:
            status, text = get(port, path)
            if status == 200:
                return
            last = "%d %s" % (status, text.strip())
        except OSError as why:
            last = str(why)
        time.sleep(0.05)
    raise SystemExit("%s was not ready within %d s (%s):\n%s" % (name, READY_SECONDS, last, tail_of(name)))


def start_all(children, ports):
    for port, script in SAMPLE_SERVICES.items():
        name = "sample-" + script[:-3]
        children.start(name, sys.executable, os.path.join(SAMPLES, script), "--listen", "127.0.0.1:" + ports[port])
    for port, script in SAMPLE_SERVICES.items():
        wait_for(children, ports[port], "/v1/api/health" if script == "runner.py" else "/health", "sample-" + script[:-3])
    environment = {**os.environ, "LLM_URL": "http://127.0.0.1:%s/v1" % ports["8089"],
                   "EXECUTOR_URL": "http://127.0.0.1:%s/execute" % ports["8090"]}
    children.start("task-backend-worker", program("task-backend-worker"), "--backend", "embedded", "--config", CONFIG,
                   cwd=RUN, env=environment)
    children.start("migration-router", program("migration-router"), "--config", CONFIG, cwd=RUN, env=environment)
    wait_for(children, ports["9900"], "/readyz", "migration-router")
    wait_for(children, ports["9900"], "/", "migration-router")  # the dashboard


def make_history():
    """A week that never was, marked as such, in the file that the router goes on with."""
    os.makedirs(os.path.join(RUN, "data"), mode=0o700)
    maker = os.path.join(BUILD, "scripts", "sample", "demo-history")
    subprocess.run([maker, os.path.join(RUN, "data", "outcomes.db"), DAYS], stdin=subprocess.DEVNULL, check=True)
    print("made up: the %s days before now, marked as made up in run/data/outcomes.db and wherever they are shown" % DAYS)


def traffic_command(ports, pdf):
    with open(pdf, "rb") as file:
        document = json.dumps({"content_base64": base64.b64encode(file.read()).decode("ascii")})
    command = [sys.executable, "-u", os.path.join(SAMPLES, "traffic.py"), "--pdf", pdf, "--document", document]
    for port, name in ROUTER_PORTS.items():
        if name != "admin":
            command += ["--service", "%s=http://127.0.0.1:%s" % (name, ports[port])]
    return command


def send_traffic(command):
    run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
    calls = 0
    for line in run.stdout:
        print(line, end="")
        if re.fullmatch(r"\d+ calls\n", line):
            calls = int(line.split()[0])
    return run.wait() == 0, calls


def report(calls, since):
    """The report of what was just sent, once the recorder has written all of it. `since`: not of what was made up before."""
    command = [program("migration-status"), "--db", os.path.join(RUN, "data", "outcomes.db"), *(["--since", since] if since else [])]
    deadline = time.monotonic() + 10
    recorded = 0
    while recorded < calls and time.monotonic() < deadline:
        told = subprocess.run([*command, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        of = json.loads(told.stdout) if told.returncode == 0 else {}
        recorded = of.get("total_executions", 0) + of.get("left_out", 0)
        time.sleep(0.05)
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(run.stdout, end="")
    print(run.stderr, end="", file=sys.stderr)
    shares = dict(re.findall(r"^(legacy_services|task_abstraction): ([\d.]+)%$", run.stdout.split("Success Rates")[0], re.M))
    both = all(float(shares.get(side, 0)) > 0 for side in ("legacy_services", "task_abstraction"))
    if not both:
        print("the report does not have both sides in it", file=sys.stderr)
    if recorded < calls:
        print("the report has %d of all %d calls in it" % (recorded, calls), file=sys.stderr)
    return run.returncode == 0 and both and recorded >= calls


def side_of(user):
    """Which side serves this user's answer-prompt now, as the router explains it."""
    run = subprocess.run([program("migration-router"), "explain", "--config", CONFIG, "--service", "prompt", "--operation", "answer_prompt",
                          "--user", user], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    side = re.search(r"^side +(\w+)", run.stdout, re.M)
    if not side:
        raise SystemExit("migration-router explain: %s%s" % (run.stdout, run.stderr))
    return side.group(1)


def users_by_side(enough=3, tries=60):
    """{side: users}, asked until there are a few of each, or nobody of one side is found."""
    found = {"legacy": [], "task": []}
    for name in (*("alice", "bob", "carol", "dave", "erin", "frank", "grace"), *("user-%03d" % n for n in range(tries))):
        found[side_of(name)].append(name)
        if min(len(users) for users in found.values()) >= enough:
            break
    return {side: users[:enough] for side, users in found.items()}


def hints(ports):
    said = {"prompt": ports["3003"], "unified": ports["5003"], "admin": ports["9900"]}
    by_side = users_by_side()
    somebody = (by_side["task"] or by_side["legacy"])[0]
    return """
serving: runner %s, prompt %s, structure %s, unified %s; its page http://127.0.0.1:%s/; about %s calls a second go on; Ctrl-C ends it.

answer-prompt is served now by the task side for %s;
by legacy for %s (as "explain" says; its flag decides). To try:

  curl -s http://127.0.0.1:%s/answer-prompt -H 'X-User-Id: %s' \\
    -H 'Authorization: Bearer sample-platform-key' --json '{"run_id": "r1", "outputs": [{"name": "total"}]}'
  build-release/src/programs/migration-router explain --config run/config/router.yml --service prompt --operation answer_prompt --user %s
  build-release/src/programs/migration-rollout --config run/config/router.yml stage
  build-release/src/programs/migration-rollout --config run/config/router.yml plan single_pass_as_tasks 100
  ${EDITOR:-vi} run/config/flags.yml      # another percentage takes effect when it is saved
  build-release/src/programs/migration-status --db run/data/outcomes.db
  curl -s http://127.0.0.1:%s/process -H 'Authorization: Bearer sample-platform-key' -F file=@run/invoice.pdf
  curl -s http://127.0.0.1:%s/readyz
""" % (ports["5002"], said["prompt"], ports["3004"], said["unified"], said["admin"], PACE, ", ".join(by_side["task"]) or "nobody",
       ", ".join(by_side["legacy"]) or "nobody", said["prompt"], somebody, somebody, ports["3004"], said["admin"])


def stop_on_signals():
    def stop(number, _):
        raise Stopped(number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def main():
    once, history = "--once" in sys.argv[1:], "--demo-history" in sys.argv[1:]
    stop_on_signals()
    lock = hold_folder()
    children = Children()
    well = asked = False
    try:
        ports = choose_ports()
        pdf = make_folder(ports)
        if history:
            make_history()
        start_all(children, ports)
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if history else None
        command = traffic_command(ports, pdf)
        well, calls = send_traffic(command)
        print()
        well = report(calls, began) and well
        if not once:
            children.start("traffic", *command, "--pace", PACE)
            print(hints(ports))
            while True:
                children.check()
                time.sleep(0.5)
    except Stopped:
        asked = True
        well = well or not once
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        well = children.stop() and well
        lock.close()
    if asked and not once:
        print("stopped")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
