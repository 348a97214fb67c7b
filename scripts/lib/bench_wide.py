"""Proxying beyond the one POST of `proxy`: larger bodies, TLS upstream, many connections, resident memory, two planes, and how cost and
start grow with what is configured. nginx has the same job beside the router in every round.
"""
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import time

import bench_programs as programs
from bench_programs import CORE_LOAD, CORE_TESTED, CORES, ROUNDS, SECONDS, WRK_DONE, Server, free_port, goal, median, need_program, start_nginx, write, wrk

PER_SERVICE = 250  # operations
KEPT = 400       # kept-alive connections of `memory`
MANY = 1000      # connections, and operations
PINS = int(os.environ.get("BENCH_PINS", "1000000"))
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "200000"))

LOAD = """
local body = string.rep("x", %d)
request = function()
  return wrk.format("POST", "%s", {["Content-Type"] = "application/octet-stream", ["X-User-Id"] = "user-1", ["X-Organization-Id"] = "org-1"}, body)
end
"""


def load(name, path, size):
    return write(name + ".lua", LOAD % (size, path) + WRK_DONE)


def folder():
    return programs.FOLDER


# --- origins and proxies -----------------------------------------------------------------------------------------------

def make_certificate():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "bench.key", "-out", "bench.pem", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                   cwd=folder(), check=True, stdin=subprocess.DEVNULL, capture_output=True)


def start_files(tls=False):
    """Answers a POST of any size with the file that its path names."""
    for name, size in (("small", 100), ("16k", 16 << 10), ("1m", 1 << 20)):
        with open(os.path.join(folder(), name), "wb") as file:
            file.write(b"y" * size)
    port = free_port()
    certificate = "ssl_certificate bench.pem; ssl_certificate_key bench.key; ssl_session_cache shared:s:1m;" if tls else ""
    return start_nginx("files-tls" if tls else "files", CORE_LOAD, """
  server {
    listen 127.0.0.1:%d backlog=4096%s; %s
    root %s; client_max_body_size 2m; client_body_buffer_size 2m; error_page 405 =200 $uri;
  }
""" % (port, " ssl" if tls else "", certificate, folder()), port)


def start_nginx_before(origin, tls=False):
    port = free_port()
    return start_nginx("nginx-tls" if tls else "nginx", CORE_TESTED, """
  upstream legacy { server 127.0.0.1:%d; keepalive 2048; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%d backlog=4096;
    client_max_body_size 2m; client_body_buffer_size 2m; proxy_request_buffering off; proxy_max_temp_file_size 0;
    location / {
      proxy_pass %s://legacy; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      %s
    }
  }
""" % (origin, port, "https" if tls else "http",
       "proxy_ssl_verify on; proxy_ssl_trusted_certificate bench.pem; proxy_ssl_name localhost; proxy_ssl_server_name on;" if tls else ""), port)


def start_router_before(origin, name="router", tls=False, threads=1, core=CORE_TESTED, change=None):
    import bench
    port = free_port()
    data = os.path.join(folder(), "data-%d" % port)
    config = bench.router_config(port, origin, data)
    config["threads"] = threads
    service = config["services"]["prompt"]
    if tls:
        service["legacy"] = {"url": "https://localhost:%d" % origin, "ca_file": os.path.join(folder(), "bench.pem")}
    flags = bench.bench_flags()
    if change:
        change(config, flags, data)
    write("bench-flags-%d.yml" % port, json.dumps(flags))
    config["flags"]["file"] = "bench-flags-%d.yml" % port
    path = write("router-%d.yml" % port, json.dumps(config))
    return Server(name, core, need_program("migration-router"), "--config", path, "--log-level", "warn", port=port)


# --- side by side ------------------------------------------------------------------------------------------------------

def side_by_side(what, servers, script, connections, seconds=SECONDS):
    """The router's CPU and p99 relative to nginx's, round by round."""
    rounds = {server.name: [] for server in servers}
    for server in servers:
        wrk(server, script, connections, 1)
    for _ in range(ROUNDS):
        for server in servers:
            rounds[server.name].append(wrk(server, script, connections, seconds))
    router, nginx = (rounds[server.name] for server in servers)
    for key, unit in (("cpu", "CPU per request"), ("p99", "p99")):
        ratios = sorted(a[key] / max(b[key], 1e-9) for a, b in zip(router, nginx))
        goal("%s, %s to nginx's (%.1f to %.1f us; %.2f to %.2f)" % (what, unit, median(router, key), median(nginx, key), ratios[0], ratios[-1]),
             statistics.median(ratios), 1.0, "%.2f x" % statistics.median(ratios))
    errors = {name: sum(row["errors"] for row in rows) for name, rows in rounds.items()}
    if any(errors.values()):
        print("%s, errors: %s" % (what, ", ".join("%s %d" % of for of in errors.items())))
    return not any(errors.values())


def bodies():
    make_certificate()
    well = True
    for tls in (False, True):
        origin = start_files(tls)
        servers = [start_router_before(origin.port, tls=tls), start_nginx_before(origin.port, tls)]
        for name, size in (("small", 100), ("16k", 16 << 10), ("1m", 1 << 20)):
            load(name, "/" + name, size)
            what = "POST of %d bytes each way%s" % (size, ", TLS upstream" if tls else "")
            well = side_by_side(what, servers, name + ".lua", 64 if size < 1 << 20 else 16) and well
        Server.stop_all()
    return well


def connections():
    origin = start_files()
    servers = [start_router_before(origin.port), start_nginx_before(origin.port)]
    load("small", "/small", 100)
    return all([side_by_side("%d connections" % n, servers, "small.lua", n) for n in (64, MANY)])


# --- memory ------------------------------------------------------------------------------------------------------------

def kept(port):
    """A kept-alive connection that has served two requests."""
    client = socket.create_connection(("127.0.0.1", port))
    for _ in range(2):
        client.sendall(b"GET /small HTTP/1.1\r\nHost: bench\r\nX-User-Id: u\r\n\r\n")
        answer = b""
        while b"yyyy" not in answer:
            answer += client.recv(65536)
    return client


def memory():
    origin = start_files()
    load("small", "/small", 100)
    for server in (start_router_before(origin.port), start_nginx_before(origin.port)):
        served, first = 0, None
        while served < REQUESTS:
            served += wrk(server, "small.lua", 64, SECONDS)["requests"]
            first = first or server.memory()
        goal("%s: resident after %d requests (%.1f MiB after the first %d s)" % (server.name, served, first / 2**20, SECONDS),
             server.memory() / 2**20, 24 if server.name == "router" else None, "%.1f MiB" % (server.memory() / 2**20))
        before = server.memory()
        clients = [kept(server.port) for _ in range(KEPT)]
        each = (server.memory() - before) / 1024 / KEPT
        goal("%s: resident per kept-alive connection that has served" % server.name, each, None, "%.1f KiB" % each)
        for client in clients:
            client.close()
    return True


# --- planes ------------------------------------------------------------------------------------------------------------

def planes():
    """The load needs cores of its own: with fewer than four this says little."""
    if len(CORES) < 4:
        print("only %d cores: load, origin and planes take time from each other; the ratio is a lower bound" % len(CORES))
    origin = start_files()
    load("small", "/small", 100)
    rates = {}
    for threads in (1, 2):
        cores = ",".join(str(core) for core in CORES[:threads])
        server = start_router_before(origin.port, "planes-%d" % threads, threads=threads, core=cores)
        wrk(server, "small.lua", 64, 1)
        rows = [wrk(server, "small.lua", 256, SECONDS) for _ in range(ROUNDS)]
        rates[threads] = median(rows, "rate")
        print("%d plane(s): %.0f requests/s, %.1f us CPU each" % (threads, rates[threads], median(rows, "cpu")))
        server.stop()
    ratio = rates[2] / rates[1]
    goal("two planes to one, requests/s", -ratio, -1.8, "%.2f x" % ratio)
    return True


# --- growth ------------------------------------------------------------------------------------------------------------

def operations(n):
    """Of as many services as it takes: one has at most 256."""
    def change(config, flags, data):
        del flags, data
        services = config["services"]
        first = services["prompt"]
        template = first["operations"]["answer_prompt"]
        for i in range(n - 1):
            service = first if i < PER_SERVICE else services.setdefault(
                "service_%d" % (i // PER_SERVICE), {"listen": "127.0.0.1:%d" % free_port(), "legacy": first["legacy"], "operations": {}})
            service["operations"]["operation_%d" % i] = dict(template, match="POST /operation/%d/{id}/run" % i)
    return change


def flags_of(n):
    def change(config, flags, data):
        del config, data
        template = flags["flags"][0]
        flags["flags"] += [dict(template, key="flag_%d" % i, name="flag_%d" % i) for i in range(n - len(flags["flags"]))]
    return change


def growth():
    """CPU per request, relative to the smallest of the same kind in the same round."""
    origin = start_files()
    load("answer", "/answer-prompt", 100)
    with open(os.path.join(folder(), "answer-prompt"), "wb") as file:
        file.write(b"y" * 100)
    # 16 services of 256 operations are the most that a configuration may have
    for kind, change, sizes in (("operations", operations, (10, 1000, 4000)), ("flags", flags_of, (10, 1000, 10000))):
        servers = [(n, start_router_before(origin.port, "%s-%d" % (kind, n), change=change(n))) for n in sizes]
        rounds = {n: [] for n, _ in servers}
        for n, server in servers:
            wrk(server, "answer.lua", 64, 1)
        for _ in range(ROUNDS):
            for n, server in servers:
                rounds[n].append(wrk(server, "answer.lua", 64, SECONDS))
        for n, server in servers:
            ratios = sorted(a["cpu"] / b["cpu"] for a, b in zip(rounds[n], rounds[10]))
            goal("%d %s: CPU per request to that with 10 (%.2f to %.2f), resident %.1f MiB" % (
                n, kind, ratios[0], ratios[-1], server.memory() / 2**20), statistics.median(ratios), 1.1, "%.2f x" % statistics.median(ratios))
            server.stop()
    return True


# --- start -------------------------------------------------------------------------------------------------------------

def first_answer_ms(command, port):
    began = time.monotonic()
    with open(os.path.join(folder(), "start.log"), "wb") as log:
        router = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder())
    try:
        while time.monotonic() - began < 60:
            try:
                kept(port).close()
                return (time.monotonic() - began) * 1000
            except OSError:
                time.sleep(0.001)
        raise SystemExit("no answer within a minute: see start.log")
    finally:
        router.terminate()
        router.wait(40)


def put_pins(path):
    """As many entries as the ledger of a long migration holds, put into a file that the router made."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
               " INSERT INTO entries (\"group\", key, backend, task_id, created_us)"
               " SELECT 'run', printf('%08x-%d', i * 2654435761 % 4294967296, i), 'embedded', 'task-' || i, ? FROM n",
               (PINS, time.time_ns() // 1000))
    db.execute("COMMIT")
    db.close()
    print("%d pins: %.0f MiB" % (PINS, os.path.getsize(path) / 2**20))


def start():
    """From exec to the first proxied answer; the file cache is warm."""
    origin = start_files()
    data = []

    def change(config, flags, folder_of_data):
        operations(MANY)(config, flags, folder_of_data)
        data.append(folder_of_data)

    server = start_router_before(origin.port, "start", change=change)
    server.stop()
    put_pins(os.path.join(data[0], "ledger.db"))
    times = [first_answer_ms(server.popen.args, server.port) for _ in range(max(ROUNDS, 5))]
    goal("start to the first answer, %d operations, %d pins (%.0f to %.0f ms)" % (MANY, PINS, min(times), max(times)),
         statistics.median(times), 200, "%.0f ms" % statistics.median(times))
    return True


BENCHES = {"bodies": bodies, "connections": connections, "memory": memory, "planes": planes, "growth": growth, "start": start}
