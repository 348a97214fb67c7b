"""Image, compose.yaml and Kubernetes manifests, tried with real tools. Called by scripts/try-deployment."""
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "build-deployment")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "migration-router")
PROJECT = "migration-router-try"
HEALTHY_SECONDS = 180
LEFT_OUT = {"grafana": "no registry gives its image, and Debian has no package of it"}

# How an image is made where it cannot be pulled.
APT = "FROM debian:trixie-slim\nRUN apt-get update && apt-get install -y --no-install-recommends %s && rm -rf /var/lib/apt/lists/*\n"
STAND_INS = {
    "docker.io/library/python:3.13-slim": APT % "python3 python3-venv" + "RUN python3 -m venv /opt/python\n"
    "ENV PATH=/opt/python/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCOPY reach/ /\n",
    "docker.io/library/redis:8": APT % "redis-server" + "WORKDIR /data\nVOLUME /data\n",
    "docker.io/prom/prometheus:v3.5.0": APT % "prometheus wget" + "RUN install -d -o nobody /prometheus\nUSER nobody\n"
    "VOLUME /prometheus\nENTRYPOINT [\"prometheus\"]\n",
    "docker.io/temporalio/temporal:1.5.1": "FROM debian:trixie-slim\nCOPY temporal /usr/bin/temporal\nUSER 1000\n"
    "ENTRYPOINT [\"temporal\"]\n",
    "docker.flipt.io/flipt/flipt:v2": APT % "python3 wget" + "COPY support /support\nENTRYPOINT [\"python3\", \"-u\", \"-c\", "
    "\"import sys, signal; sys.path.insert(0, '/support'); import flipt; s = flipt.StandIn(2); s.stop(); s.port = 8080; s.start(); "
    "signal.sigwait({signal.SIGTERM, signal.SIGINT})\"]\n",
}


def say(text):
    print(text, flush=True)


def run(*command, **how):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **how)


def told(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def configure_containers():
    """vfs needs nothing of the kernel; cgroups and a daemon are not there."""
    store = os.path.join(CACHE, "containers")
    for name, text in (("storage.conf", '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "/run/migration-router-containers"\n' % store),
                       ("containers.conf", '[containers]\ncgroups = "disabled"\n[engine]\ncgroup_manager = "cgroupfs"\nruntime = "crun"\n'
                                           'events_logger = "file"\n')):
        with open(os.path.join(FOLDER, name), "w", encoding="ascii") as file:
            file.write(text)
    os.environ.update(CONTAINERS_STORAGE_CONF=os.path.join(FOLDER, "storage.conf"),
                      CONTAINERS_CONF=os.path.join(FOLDER, "containers.conf"))


# --- images ------------------------------------------------------------------------------------------------------------

def is_there(image):
    return told("buildah", "inspect", "--type", "image", image).returncode == 0


def build(tag, folder, file, log):
    with open(os.path.join(FOLDER, log), "wb") as out:
        done = subprocess.run(["buildah", "bud", "--layers", "--isolation", "chroot", "--network", "host", "--format", "docker", "-t", tag,
                               "-f", file, folder], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit("%s could not be built: build-deployment/%s" % (tag, log))


def mirror():
    listed = told("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian").stdout.split()
    return [uri for uri in listed if "security" not in uri and "updates" not in uri][:1]


def debian(release="trixie"):
    image = "docker.io/library/debian:%s-slim" % release
    if is_there(image) or told("buildah", "pull", image).returncode == 0:
        return
    say("no registry gives debian:%s-slim: made by debootstrap" % release)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = os.path.join(folder, "root")
        run("debootstrap", "--variant=minbase", release, root, *mirror(), stdout=subprocess.DEVNULL)
        run("tar", "-C", root, "--one-file-system", "-cf", os.path.join(folder, "base.tar"), ".")
        shutil.rmtree(root)
        with open(os.path.join(folder, "Containerfile"), "w", encoding="ascii") as file:
            file.write('FROM scratch\nADD base.tar /\nCMD ["bash"]\n')
        build(image, folder, os.path.join(folder, "Containerfile"), "base.log")


def stand_in(image):
    """A pulled image, or one of the same program made here."""
    if is_there(image) or told("buildah", "pull", image).returncode == 0:
        return
    name = image.split("/")[-1].split(":")[0]
    say("no registry gives %s: made of %s" % (image, "the tests' stand-in" if name == "flipt" else "Debian's packages"
                                              if name != "temporal" else "the tests' development server"))
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        os.makedirs(os.path.join(folder, "reach"))
        for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if os.path.exists(path):
                os.makedirs(os.path.dirname(folder + "/reach" + path), exist_ok=True)
                shutil.copy(path, folder + "/reach" + path)
        shutil.copytree(os.path.join(ROOT, "tests", "support"), os.path.join(folder, "support"))
        if name == "temporal":
            server = os.environ.get("TEMPORAL_CLI") or os.path.join(CACHE, "temporal-v1.5.1", "temporal")
            if not os.path.exists(server):
                raise SystemExit("there is no Temporal server: scripts/test makes one")
            shutil.copy(server, os.path.join(folder, "temporal"))
        with open(os.path.join(folder, "Containerfile"), "w", encoding="ascii") as file:
            file.write(STAND_INS[image])
        build(image, folder, os.path.join(folder, "Containerfile"), name + ".log")


def image():
    debian()
    say("building the image")
    build("migration-router", ROOT, os.path.join(ROOT, "Dockerfile"), "image.log")
    config = json.loads(told("buildah", "inspect", "--type", "image", "migration-router").stdout)["Docker"]["config"]
    assert config["User"] == "10001:10001" and config["Healthcheck"]["Test"][0] == "CMD", config


# --- compose -----------------------------------------------------------------------------------------------------------

class Compose:
    """compose.yaml for one network that has nothing but a loopback interface: every name is that, and nothing is published."""

    def __init__(self):
        with open(os.path.join(ROOT, "compose.yaml"), encoding="utf-8") as file:
            whole = yaml.safe_load(file)
        self.services = {name: s for name, s in whole["services"].items() if name not in LEFT_OUT}
        self.after = {}
        for name, s in self.services.items():
            self.after[name] = s.pop("depends_on", {})
            if "build" in s:
                s["image"] = "localhost/" + s["image"]
            for key in ("build", "ports", "init"):
                s.pop(key, None)
            s["network_mode"] = "host"
            s["extra_hosts"] = ["%s:127.0.0.1" % other for other in self.services]
            s["ulimits"] = {"nofile": 20000, "nproc": 9000}  # what podman sets of its own may be above this machine's
            s["volumes"] = [os.path.join(ROOT, v[2:]) if v.startswith("./") else v for v in s.get("volumes", ())]
        self.path = os.path.join(FOLDER, "compose.yaml")
        with open(self.path, "w", encoding="utf-8") as file:
            yaml.safe_dump({**whole, "services": self.services}, file)
        self.started = []

    def call(self, *words):
        return told(sys.executable, "-m", "podman_compose", "-p", PROJECT, "-f", self.path, *words)

    def container(self, name):
        return "%s_%s_1" % (PROJECT, name)

    def start(self, name):
        """After what it waits for; podman's own timers of health checks are systemd's, so they are asked for here."""
        if name in self.started:
            return
        for other, how in self.after[name].items():
            self.start(other)
            if how["condition"] == "service_healthy":
                self.wait_healthy(other)
            else:
                self.wait_done(other)
        if name in self.started:
            return
        self.started.append(name)
        made = self.call("up", "-d", "--no-deps", "--no-build", name)
        if made.returncode:
            raise SystemExit("%s: %s" % (name, made.stdout))
        say("  %s started" % name)

    def log(self, name):
        return told("podman", "logs", "--tail", "20", self.container(name)).stdout

    def state(self, name):
        shown = told("podman", "inspect", self.container(name))
        return json.loads(shown.stdout)[0]["State"] if shown.returncode == 0 else {}

    def wait_done(self, name):
        deadline = time.monotonic() + HEALTHY_SECONDS
        while self.state(name).get("Running"):
            if time.monotonic() > deadline:
                raise SystemExit("%s does not end:\n%s" % (name, self.log(name)))
            time.sleep(0.5)
        if self.state(name).get("ExitCode") != 0:
            raise SystemExit("%s failed:\n%s" % (name, self.log(name)))

    def is_healthy(self, name):
        return told("podman", "healthcheck", "run", self.container(name)).returncode == 0

    def wait_healthy(self, name):
        deadline = time.monotonic() + HEALTHY_SECONDS
        while not self.is_healthy(name):
            if time.monotonic() > deadline or not self.state(name).get("Running"):
                checks = ((self.state(name).get("Health") or self.state(name).get("Healthcheck") or {}).get("Log") or [{}])
                raise SystemExit("%s is not healthy: %s\n%s" % (name, checks[-1].get("Output"), self.log(name)))
            time.sleep(1)
        say("  %s healthy" % name)

    def execute(self, name, *command):
        return told("podman", "exec", self.container(name), *command).stdout

    def stop(self):
        for name in reversed(self.started):
            told("podman", "stop", "--time", "60", self.container(name))
        codes = {name: self.state(name).get("ExitCode") for name in self.started}
        self.call("down", "-v")
        return codes


def ask(port, path, token=None, body=None, user=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        fields = {"Authorization": "Bearer " + token} if token else {}
        fields.update({"X-User-Id": user} if user else {})
        fields.update({"Content-Type": "application/json"} if body is not None else {})
        connection.request("POST" if body is not None else "GET", path, None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def wait_for(what, condition, why=lambda: "", seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("not within %d s: %s %s" % (seconds, what, why()))
        time.sleep(0.5)
    say("  " + what)


def sides(calls):
    """served_by of an operation over many users."""
    served = {}
    for path, body in calls:
        served[path] = set()
        for n in range(40):
            status, text = ask(3003, path, "sample-platform-key", {"run_id": "r", **body}, "user-%d" % n)
            assert status == 200, (path, status, text)
            served[path].add(json.loads(text)["metadata"]["served_by"])
    return served


def try_all(compose):
    for name in compose.services:
        compose.start(name)
    for name, service in compose.services.items():
        if service.get("restart") != "no" and (service.get("healthcheck") or service["image"] == "migration-router") and name != "keys":
            compose.wait_healthy(name)
    token = compose.execute("router", "cat", "/run/keys/admin.token")
    assert ask(9900, "/metrics")[0] == 401 and ask(9900, "/healthz")[0] == 200
    wait_for("the router is ready, and so are its backends", lambda: json.loads(ask(9900, "/readyz", token)[1])["status"] == "ready",
             lambda: ask(9900, "/readyz", token)[1] + compose.log("temporal-worker"))
    served = sides([("/answer-prompt", {"outputs": [{"name": "total"}]}), ("/extract", {"file_path": "a.pdf"}), ("/index", {"file_hash": "9b"}),
                    ("/summarize", {"context": "two words"})])
    assert served == {"/answer-prompt": {"legacy", "task"}, "/extract": {"task"}, "/index": {"legacy", "task"}, "/summarize": {"legacy"}}, served
    say("  operations are served by the sides and backends that the flags name")
    moved = compose.execute("router", "migration-rollout", "--config", "/etc/migration-router/router.yml", "set", "indexing_as_tasks", "100",
                            "--yes", "--message", "tried")
    assert "100 %" in moved, moved
    wait_for("a percentage set by migration-rollout takes effect", lambda: sides([("/index", {"file_hash": "9b"})]) == {"/index": {"task"}})
    report = compose.execute("router", "migration-status", "--db", "/var/lib/migration-router/outcomes.db")
    assert "task_abstraction" in report, report

    def scraped(query="up"):
        answer = json.loads(ask(9090, "/api/v1/query?query=" + query)[1])["data"]["result"]
        return answer and answer[0]["value"][1] != "0"
    wait_for("Prometheus scrapes the router", scraped)
    for rules in json.loads(ask(9090, "/api/v1/rules")[1])["data"]["groups"]:
        for rule in rules["rules"]:
            assert rule["health"] != "err", rule
    who = told("podman", "exec", compose.container("router"), "id", "-u").stdout.strip()
    assert who == "10001", who
    told("podman", "restart", "--time", "60", compose.container("worker"))
    told("podman", "restart", "--time", "60", compose.container("router"))
    compose.wait_healthy("router")
    compose.wait_healthy("worker")
    assert "stopped" in told("podman", "logs", compose.container("router")).stdout
    say("  router and worker were restarted")
    # A worker that stands still is not healthy, a router neither.
    for name in ("router", "worker"):
        pid = str(compose.state(name)["Pid"])
        run("kill", "-STOP", pid)
        healthy = compose.is_healthy(name)
        run("kill", "-CONT", pid)
        assert not healthy or name == "worker", name
    calls = told("podman", "logs", compose.container("callers")).stdout
    assert "FAILED" not in calls.replace("Connection refused", "").replace("FAILED prompt", "", 0) or "refused" in calls, calls


def compose_up():
    if os.environ.get("MIGRATION_ROUTER_ALONE") != "1":
        # A network and mounts of its own; version 1 of the kernel's cgroups beside version 2 is nothing that crun takes.
        inside = ("mount --make-rprivate / && { umount -l -R /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; for c in memory pids devices; do "
                  "mkdir /sys/fs/cgroup/$c && mount -t cgroup -o $c none /sys/fs/cgroup/$c; done; } 2>/dev/null; ip link set lo up && exec \"$@\"")
        run("unshare", "--mount", "--net", "bash", "-c", inside, "inside", sys.executable, "-u", os.path.abspath(__file__), "compose",
            env={**os.environ, "MIGRATION_ROUTER_ALONE": "1"})
        return
    compose = Compose()
    compose.call("down", "-v")
    try:
        try_all(compose)
    finally:
        codes = compose.stop()
    # 143: no handler of its own, as samples may be
    assert all(codes[name] == 0 for name in ("router", "worker")), codes
    say("compose: all of it works, and ends well")


def kubernetes():
    for version in ("1.29", "1.31", "1.33"):
        done = told(sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", "-k", version,
                    os.path.join(ROOT, "packaging", "kubernetes", "migration-router.yaml"),
                    os.path.join(ROOT, "packaging", "kubernetes", "secrets.example.yaml"))
        if done.returncode or "ERROR" in done.stdout:
            raise SystemExit(done.stdout)
        say("kubernetes %s: valid" % version)


def main():
    what = sys.argv[1]
    os.makedirs(FOLDER, exist_ok=True)
    os.makedirs(CACHE, exist_ok=True)
    configure_containers()
    alone = os.environ.get("MIGRATION_ROUTER_ALONE") == "1"
    if what in ("all", "image", "compose") and not alone:
        image()
    if what in ("all", "compose"):
        if not alone:
            for name in STAND_INS:
                stand_in(name)
            build("migration-router-samples", ROOT, os.path.join(ROOT, "packaging", "compose", "samples.Dockerfile"), "samples.log")
            for name, why in LEFT_OUT.items():
                say("without %s: %s" % (name, why))
        compose_up()
    if what in ("all", "kubernetes"):
        kubernetes()


if __name__ == "__main__":
    main()
