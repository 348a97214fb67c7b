"""Operation: check, reload, health, logs."""
import json
import os
import signal

import configuration as c
from http_text import wait_until
from programs import Process, free_port
from raw import Client, ask, request


# --- check -------------------------------------------------------------------------------------------------------------

def test_check_names_every_mistake_at_once_with_file_line_and_key(start):
    path = os.path.join(start.folder(), "broken.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("services:\n  app:\n    listen: nowhere\n    legacy: ftp://x\n    unknown_key: 1\nthreads: many\nsurprise: true\n")
    told = start.run("migration-router", "check", path)
    assert told.returncode != 0
    said = told.stdout + told.stderr
    for line, key in ((3, "listen"), (4, "legacy"), (5, "unknown_key"), (6, "threads"), (7, "surprise")):
        assert any("%s:%d:" % (path, line) in s and key in s for s in said.splitlines()), (line, key, said)


def test_check_refuses_silence_about_authentication(start):
    config = c.router({"app": c.service("http://127.0.0.1:1", {
        "echo": {"match": "POST /echo", "flags": ["f"], "task": {"name": "echo"}}})}, backends=c.embedded(tasks=None))
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    told = start.run("migration-router", "check", path)
    assert told.returncode != 0 and "auth" in told.stdout + told.stderr
    config["services"]["app"]["operations"]["echo"]["auth"] = "none"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    assert start.run("migration-router", "check", path).returncode == 0


def test_a_configuration_with_a_mistake_is_not_served(start):
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("services: {}\n")
    told = start.run("migration-router", "--config", path)
    assert told.returncode == 2 and "services" in told.stderr


def test_an_address_in_use_is_named(start):
    origin = start.origin()
    config = c.passing(origin)
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % origin.port
    config["services"]["echo"]["legacy"] = {"url": "http://127.0.0.1:%d" % free_port()}
    path = os.path.join(start.folder(), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    told = start.run("migration-router", "--config", path)
    assert told.returncode == 1 and str(origin.port) in told.stderr


# --- reload ------------------------------------------------------------------------------------------------------------

def test_sighup_takes_the_new_configuration_while_requests_run(start):
    first, second = start.origin(), start.origin()
    first.answers(200, [], b"first")
    second.answers(200, [], b"second")
    config = c.passing(first)
    config["services"]["echo"]["listen"] = "127.0.0.1:%d" % free_port()
    router = start.router(config)
    with Client(router.port) as client:
        assert client.ask(request()).body == b"first"
        config["services"]["echo"]["legacy"]["url"] = second.url
        router.write_config(config)
        router.signal(signal.SIGHUP)
        router.wait_event("reloaded")
        wait_until(lambda: client.ask(request()).body == b"second", "the kept connection to be served by the new configuration")


def test_sighup_with_a_broken_configuration_keeps_the_old(start):
    origin = start.origin()
    router = start.router(c.passing(origin))
    with open(router.config_path, "w", encoding="utf-8") as file:
        file.write("services:\n  echo: {listen: 1}\n")
    router.signal(signal.SIGHUP)
    wait_until(lambda: any("router.yml:2" in e["problem"] for e in router.find("reload_refused")), "the line of the mistake")
    assert ask(router.port, request()).status == 200


def test_sighup_checks_the_settings_of_backends_that_are_new(start):
    config = {**c.passing(start.origin()), "backends": c.embedded(None)}
    router = start.router(config)
    config["backends"]["embedded"]["tasks"] = "nowhere.yml"
    router.write_config(config)
    router.signal(signal.SIGHUP)
    wait_until(lambda: any("nowhere.yml: No such file" in e["problem"] for e in router.find("reload_refused")), "the mistake to be named")
    with open(os.path.join(router.folder, "nowhere.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "echo", "builtin": "echo"}]}, file)
    router.signal(signal.SIGHUP)
    router.wait_event("reload_needs_restart", key="backends")
    router.wait_event("reloaded")


# --- health ------------------------------------------------------------------------------------------------------------

def test_health_and_readiness(start):
    router = start.router(c.passing(start.origin()))
    assert ask(router.admin_port, request("GET", "/healthz")).status == 200
    wait_until(lambda: ask(router.admin_port, request("GET", "/readyz")).status == 200, "readiness")
    ready = ask(router.admin_port, request("GET", "/readyz"))
    assert ready.get("Content-Type") == "application/json" and isinstance(json.loads(ready.body), dict)


def test_an_absent_legacy_service_alone_does_not_take_the_router_out(start):
    router = start.router(c.passing("http://127.0.0.1:%d" % free_port()))
    assert ask(router.port, request()).status == 502
    assert ask(router.admin_port, request("GET", "/readyz")).status == 200


def test_metrics_are_prometheus_text(start):
    router = start.router(c.passing(start.origin()))
    for _ in range(3):
        ask(router.port, request())
    answer = ask(router.admin_port, request("GET", "/metrics"))
    assert answer.status == 200 and answer.get("Content-Type").startswith("text/plain; version=0.0.4")
    for line in answer.body.decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name and not float(value) < 0  # NaN: a share of no requests
    assert b'service="echo"' in answer.body


def test_the_admin_listener_is_not_a_service_listener(start):
    origin = start.origin()
    router = start.router(c.passing(origin))
    assert ask(router.port, request("GET", "/healthz")).body == b"ok"  # legacy's, not the router's
    assert ask(router.port, request("GET", "/_migration/tasks/0")).status == 404
    assert [r.target for r in origin.requests] == ["/healthz"], "paths under /_migration/ are reserved"


# --- logs --------------------------------------------------------------------------------------------------------------

def test_no_secret_is_logged(start):
    config = c.passing(start.origin())
    config["override"] = {"enabled": True, "secret_sha256": c.sha256("override-secret-1")}
    folder = start.folder()
    router = start.router(config, folder=folder)
    fields = [("Authorization", "Bearer token-secret-2"), ("Cookie", "session=cookie-secret-3"),
              ("X-Migration-Override", "task"), ("X-Migration-Override-Secret", "override-secret-1")]
    ask(router.port, request("POST", "/?key=x", fields, b'{"password": "body-secret-4"}'))
    router.wait_outcomes(1)
    router.stop()
    log = router.log()
    for secret in ("token-secret-2", "cookie-secret-3", "override-secret-1", "body-secret-4"):
        assert secret not in log
    for root, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), "rb") as file:
                content = file.read()
            for secret in (b"token-secret-2", b"cookie-secret-3", b"override-secret-1", b"body-secret-4"):
                assert secret not in content, name


def test_logs_are_logfmt_by_default(start):
    folder = start.folder()
    path = os.path.join(folder, "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(c.passing(start.origin()), file)
    process = Process("migration-router", "--config", path, cwd=folder)
    start.processes.append(process)
    wait_until(lambda: any(" event=ready" in line for line in process.lines), "a line of logfmt")
    assert all(line.startswith("ts=") and " level=" in line for line in process.lines)
