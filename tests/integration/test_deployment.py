"""The examples of deployment fit the programs and each other. That they run is tried by scripts/try-deployment, with the real tools."""
import contextlib
import http.client
import os
import re
import shutil
import subprocess

import pytest

import configuration as c
from celery_redis import Redis
from http_text import PATIENCE, wait_until
from programs import BUILD, ROOT, environment, free_port, need_backend, program, write_atomically
from raw import ask, request

yaml = pytest.importorskip("yaml")
KEPT_FOR_FILES = 20  # seconds that the stores may take after drain_timeout


def documents(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return [d for d in yaml.safe_load_all(file) if d]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def check(folder, files, **variables):
    """`migration-router check` of files by name, the secrets in `folder`."""
    for name, text in files.items():
        (folder / name).write_text(re.sub(r"/run/(secrets/migration-router|keys)/", str(folder) + "/", text), encoding="utf-8")
    for name in ("admin.sha256", "platform-keys.sha256", "tokens.sha256"):
        (folder / name).write_text(c.sha256("a token") + "\n", encoding="ascii")
    (folder / "flipt.token").write_text("token", encoding="ascii")
    return subprocess.run([program("migration-router"), "check", str(folder / "router.yml")], env=environment(variables),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def look(port, path):
    """(status, body), or (None, "") while nobody is there."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return None, ""


def sample(name):
    with open(os.path.join(ROOT, "packaging", "compose", name), encoding="utf-8") as file:
        return file.read()


def test_the_image_is_built_of_all_that_the_build_needs():
    with open(os.path.join(ROOT, ".dockerignore"), encoding="utf-8") as file:
        sent = {line[1:].strip() for line in file if line.startswith("!")}
    with open(os.path.join(ROOT, "meson.build"), encoding="utf-8") as file:
        text = file.read()
    needed = set(re.findall(r"subdir\('([^'/]+)[^']*'\)", text)) | set(re.findall(r"'([a-z]+)/[\w.-]+'", text))
    assert {n for n in needed if os.path.exists(os.path.join(ROOT, n))} - {"tests", "scripts"} <= sent, (needed, sent)
    assert "scripts/bench.d" in sent and "debian" in sent


# --- meson install -----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder below which all of it lies, as below /usr/local."""
    meson = shutil.which("meson")
    if not meson or not os.path.exists(os.path.join(BUILD, "build.ninja")):
        pytest.skip("no meson, or no build folder of it")
    root = tmp_path_factory.mktemp("installed")
    subprocess.run([meson, "install", "-C", BUILD, "--no-rebuild", "--destdir", str(root)], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return root / "usr" / "local"


def test_an_installation_has_all_that_the_package_has(installed):
    programs = ["migration-router", "migration-status", "migration-rollout", "task-backend-worker"]
    there = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    expected = {"bin/" + name for name in programs} | {"share/man/man1/%s.1" % name for name in programs} | {"share/man/man5/migration-router.yml.5"}
    expected |= {"lib/systemd/system/" + unit for unit in ("migration-router.service", "migration-router.socket", "task-backend-worker.service")}
    expected |= {"lib/sysusers.d/migration-router.conf"}
    expected |= {"share/migration-router/dashboards/" + name for name in ("grafana.json", "alerts.yml")}
    expected |= {"share/doc/migration-router/examples/%s.yml" % name for name in ("router", "tasks", "flags", "unstract")}
    if not any("bash-completion" in path for path in there):
        assert "asan" in BUILD or "tsan" in BUILD  # they are made by running the programs
    else:
        expected |= {"share/bash-completion/completions/" + name for name in programs}
        expected |= {"share/zsh/site-functions/_" + name for name in programs}
        expected |= {"share/fish/vendor_completions.d/%s.fish" % name for name in programs}
    expected.add("share/doc/migration-router/examples/tasks.d/documents.yml")
    library = {path for path in there if "taskq" in path}  # not in the package (debian/rules); test_library.py looks at it
    assert {"include/taskq.h", "share/man/man3/taskq_open.3"} < library
    there -= library
    assert there == expected, (sorted(there - expected), sorted(expected - there))


def test_systemd_finds_no_fault_with_the_installed_units(installed, tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("there is no systemd-analyze")
    units = []
    for unit in sorted((installed / "lib" / "systemd" / "system").iterdir()):
        text = unit.read_text(encoding="utf-8")
        assert "@" not in re.sub(r"(?m)^#.*|@(system-service|privileged)|User=.*", "", text), "something was not replaced"
        (tmp_path / unit.name).write_text(text.replace("/usr/local/bin", str(installed / "bin")), encoding="utf-8")
        units.append(str(tmp_path / unit.name))
    told = subprocess.run([analyze, "verify", "--man=no", *units], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    ours = [line for line in (told.stdout + told.stderr).splitlines() if "migration-router" in line or "task-backend-worker" in line]
    assert told.returncode == 0 and not ours, ours


# --- compose.yaml ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def compose():
    return documents("compose.yaml")[0]


def test_composes_router_has_a_configuration_without_mistakes(tmp_path):
    told = check(tmp_path, {name: sample(name) for name in ("router.yml", "tasks.yml")})
    assert told.returncode == 0, told.stdout + told.stderr
    assert "warning" not in told.stdout + told.stderr


def test_compose_mounts_and_builds_what_is_there(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert os.path.exists(os.path.join(ROOT, source)) if source.startswith(".") else source in compose["volumes"], (name, volume)
        if isinstance(service.get("build"), dict):
            assert os.path.exists(os.path.join(ROOT, service["build"]["dockerfile"]))
        for other in service.get("depends_on", ()):
            assert other in compose["services"], (name, other)


def test_compose_waits_only_for_what_can_become_healthy(compose):
    """The router's image has a health check of its own; other images get theirs here."""
    for name, service in compose["services"].items():
        for other, how in service.get("depends_on", {}).items():
            on = compose["services"][other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in on or on["image"] == "migration-router", (name, other)
            else:
                assert how["condition"] == "service_completed_successfully" and on.get("restart", "no") == "no", (name, other)


def test_compose_publishes_on_the_loopback_address_only(compose):
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_containers_have_time_to_drain(compose):
    drain = seconds(yaml.safe_load(sample("router.yml"))["drain_timeout"])
    assert seconds(compose["services"]["router"]["stop_grace_period"]) >= drain + KEPT_FOR_FILES
    assert seconds(compose["services"]["worker"]["stop_grace_period"]) > 30  # --shutdown-timeout


def test_composes_operations_have_their_flags_and_its_backends_their_workers(compose):
    config, flags = yaml.safe_load(sample("router.yml")), yaml.safe_load(sample("flags.yml"))
    made = {flag["key"] for flag in flags["flags"]}
    operations = config["services"]["prompt"]["operations"].values()
    assert {flag for o in operations for flag in o.get("flags", ())} == made
    assert {o["task"].get("backend", config["backend"]) for o in operations if "task" in o} == set(config["backends"])
    queue = config["backends"]["temporal"]["task_queue"]
    assert queue in compose["services"]["temporal-worker"]["command"]
    celery = compose["services"]["celery-worker"]["environment"]
    assert config["backends"]["celery"] == {"broker_url": celery["CELERY_BROKER_URL"], "result_backend": celery["CELERY_RESULT_BACKEND"]}


# --- kubernetes --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def manifests():
    return {(d["kind"], d["metadata"]["name"]): d for d in documents("packaging", "kubernetes", "migration-router.yaml")}


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["StatefulSet", "migration-router"]["spec"]["template"]


def test_the_kubernetes_routers_have_a_configuration_without_mistakes(manifests, tmp_path):
    secrets = {d["metadata"]["name"]: d["stringData"] for d in documents("packaging", "kubernetes", "secrets.example.yaml")}
    files = manifests["ConfigMap", "migration-router"]["data"]
    told = check(tmp_path, files, **secrets["migration-router-urls"])
    assert told.returncode == 0, told.stdout + told.stderr
    assert "warning" not in told.stdout + told.stderr
    mounted = set(re.findall(r"/run/secrets/migration-router/([\w.-]+)", files["router.yml"]))
    assert mounted == set(secrets["migration-router"])


def test_replicas_share_their_state_and_use_no_queue_of_one_machine(manifests):
    config = yaml.safe_load(manifests["ConfigMap", "migration-router"]["data"]["router.yml"])
    assert config["state"]["prefix"] and "embedded" not in {config["backend"], *config["backends"]}
    assert manifests["StatefulSet", "migration-router"]["spec"]["replicas"] > 1


def test_a_pod_ends_after_its_callers_have_left_and_its_requests_have_ended(manifests, pod):
    config = yaml.safe_load(manifests["ConfigMap", "migration-router"]["data"]["router.yml"])
    container = pod["spec"]["containers"][0]
    command, away = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep" and int(away) >= 5
    assert pod["spec"]["terminationGracePeriodSeconds"] >= int(away) + seconds(config["drain_timeout"]) + KEPT_FOR_FILES
    worker = manifests["Deployment", "task-backend-worker"]["spec"]["template"]["spec"]
    arguments = worker["containers"][0]["args"]
    assert worker["terminationGracePeriodSeconds"] > seconds(arguments[arguments.index("--shutdown-timeout") + 1])


@pytest.mark.parametrize("owner", [("StatefulSet", "migration-router"), ("Deployment", "task-backend-worker")])
def test_a_pod_has_no_rights_that_it_does_not_need(manifests, owner):
    spec = manifests[owner]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
    with open(os.path.join(ROOT, "Dockerfile"), encoding="utf-8") as file:
        assert "USER %d:%d" % (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) in file.read()
    for container in spec["containers"] + spec.get("initContainers", []):
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and confined["capabilities"] == {"drop": ["ALL"]}
        assert confined["allowPrivilegeEscalation"] is False


def test_selectors_and_ports_of_the_kubernetes_example_meet(manifests, pod):
    labels = pod["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    config = yaml.safe_load(manifests["ConfigMap", "migration-router"]["data"]["router.yml"])
    listening = {"admin": config["admin"]["listen"], **{name: s["listen"] for name, s in config["services"].items()}}
    assert {name: "*:%d" % port for name, port in ports.items()} == listening
    worker = manifests["Deployment", "task-backend-worker"]["spec"]["template"]["metadata"]["labels"].items()
    for (kind, name), d in manifests.items():
        spec = d.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= (worker if name == "task-backend-worker" else labels), (kind, name)
        if kind == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= set(ports)
    called = {port["port"] for rule in manifests["NetworkPolicy", "migration-router"]["spec"]["ingress"] for port in rule["ports"]}
    assert called == set(ports)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod["spec"]["containers"][0][probe]["httpGet"]["port"] == "admin"


def test_the_kubernetes_worker_runs_what_the_routers_submit(start, manifests):
    """Its own words, with a real Redis; addresses are of this machine, flags of a file, and the executor is the origin."""
    need_backend("celery")
    folder, origin = start.folder(), start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"from the executor"')
    files = manifests["ConfigMap", "migration-router"]["data"]
    config, ports = yaml.safe_load(files["router.yml"]), [free_port(), free_port()]
    config.update(data="data", admin={"listen": "127.0.0.1:%d" % ports[0]}, flags={"source": "file", "file": "flags.yml"})
    config["services"]["prompt"].update(listen="127.0.0.1:0", legacy="http://127.0.0.1:9")
    operation = config["services"]["prompt"]["operations"]["answer_prompt"]
    config["tokens"] = os.path.join(str(folder), "tokens.sha256")
    write_atomically(config["tokens"], c.sha256("a-key") + "\n")
    tasks = files["tasks.yml"].replace("http://executor.migration.svc:8090", origin.url)
    write_atomically(os.path.join(str(folder), "tasks.yml"), tasks)
    redis = Redis(folder, "--appendonly", "yes", "--maxmemory-policy", "noeviction")
    try:
        urls = {"MIGRATION_STATE_URL": redis.url(2), "CELERY_BROKER_URL": redis.url(0), "CELERY_RESULT_BACKEND": redis.url(1)}
        router = start.router(config, c.features(*(c.boolean(key, True) for key in operation["flags"])), folder=str(folder), env=urls)
        container = manifests["Deployment", "task-backend-worker"]["spec"]["template"]["spec"]["containers"][0]
        arguments = [router.config_path if word.endswith("router.yml") else os.path.join(str(folder), "tasks.yml") if word.endswith("tasks.yml")
                     else "127.0.0.1:%d" % ports[1] if word == "*:9901" else word for word in container["args"]]
        start.process(container["command"][0], *arguments, cwd=str(folder), env=urls)
        wait_until(lambda: look(ports[1], "/health")[0] == 200, "the worker to be ready")
        wait_until(lambda: all(word in look(ports[0], "/readyz")[1] for word in ('"worker":true', '"not_ready":[]')), "the router to know its worker")
        body = b'{"run_id": "r"}'
        told = ask(router.port, request("POST", "/answer-prompt", [("X-User-Id", "ann"), ("Authorization", "Bearer a-key"),
                                                                    ("Content-Type", "application/json")], body))
        assert (told.status, told.body) == (200, b'"from the executor"'), (told.body, look(ports[0], "/readyz"))
    finally:
        started, start.processes = start.processes, []
        for process in reversed(started):
            assert process.stop() == 0
            process.check_sanitizers()
        redis.stop()
