"""What flags cost: a decision here against one asked of Flipt, the time from a change to the first request that it decides, and a large
snapshot: parsing, memory, and requests while it is swapped in.

The first two ask the server that FLIPT_URL and FLIPT_VERSION (and FLIPT_CLIENT_TOKEN) name, in a namespace of their own; without one it
is the stand-in of the tests, whose evaluation in Python says nothing of Flipt's speed.
"""
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench_programs import (CORE_LOAD, CORE_TESTED, CORES, FOLDER, ROOT, ROUNDS, SECONDS, WRK_DONE, Server, free_port, goal, median,
                            need_program, start_origin, wrk, wrk_url, write)

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import configuration  # noqa: E402
from flipt import Flipt, StandIn, flag_payload, full_flag, segment_payload  # noqa: E402

URL, VERSION = os.environ.get("FLIPT_URL"), int(os.environ.get("FLIPT_VERSION", "2"))
TOKEN = os.environ.get("FLIPT_CLIENT_TOKEN") if URL else None
SERVER = "Flipt v%d" % VERSION if URL else "the stand-in of the tests (Python)"
CHANGES = int(os.environ.get("BENCH_CHANGES", "200"))
FLAGS = 10000
SWAP_SECONDS = 0.5
FLAG = "task_abstraction_enabled"


# --- a decision --------------------------------------------------------------------------------------------------------

ASK = """
wrk.method, wrk.path = "POST", "/evaluate/v1/variant"
wrk.headers["Content-Type"] = "application/json"
%s
local n = 0
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format('{"environmentKey":"default","namespaceKey":"%s","flagKey":"%s",' ..
    '"entityId":"user-%%d","context":{"user_id":"user-%%d","organization_id":"org-1"}}', n, n))
end
"""


def decision(api):
    quickstart = os.path.join(ROOT, "tests", "fixtures", "flipt", "flags.quickstart.yml")
    run = subprocess.run(["taskset", "-c", str(CORE_TESTED), need_program("bench-decide"), quickstart], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, check=True)
    here = float(re.search(r"median_ns=(\d+)", run.stdout)[1]) / 1000
    authorization = 'wrk.headers["Authorization"] = "Bearer %s"' % TOKEN if TOKEN else ""
    write("ask.lua", ASK % (authorization, api.namespace, "by_percentage") + WRK_DONE)
    row = wrk_url(api.url, "ask.lua", 1, min(SECONDS, 5))
    if row["errors"] or not row["requests"]:
        raise SystemExit("%d of %d evaluations failed" % (row["errors"], row["requests"]))
    print("a decision in process: median %.2f us; asked of %s over one kept connection: median %d us, p99 %d us: %.0f times as long" % (
        here, SERVER, row["p50"], row["p99"], row["p50"] / here))


# --- a change and its effect -------------------------------------------------------------------------------------------

def start_router(name, flags, cores, env=None):
    """Which side decided can be seen without a worker: the task side refuses a body that is no JSON, legacy takes it."""
    port, origin = free_port(), start_origin()
    operation = configuration.operation("POST /echo", {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}, flags=[FLAG],
                                        identity=configuration.IDENTITY)
    config = configuration.router({"app": {"listen": "127.0.0.1:%d" % port, "legacy": "http://127.0.0.1:%d" % origin.port,
                                           "operations": {"echo": operation}}},
                                  data=os.path.join(FOLDER, "data-" + name), flags=flags, backends=configuration.embedded(tasks=None),
                                  threads=1)
    path = write(name + ".yml", json.dumps(config))
    router = Server(name, cores, need_program("migration-router"), "--config", path, "--log-level", "warn", port=port,
                    env=dict(os.environ, FLIPT_CLIENT_TOKEN=TOKEN or "", **(env or {})))
    router.admin = config["admin"]["listen"]
    return router


def flags_status(router):
    host, port = router.admin.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/readyz")
    text = connection.getresponse().read()
    connection.close()
    return json.loads(text)["flags"]


def wait_flags(router, what):
    """The admin listener comes up last."""
    def ready():
        try:
            return flags_status(router)[what]
        except ConnectionRefusedError:
            return False
    router.wait(ready)


def ask_side(connection):
    connection.request("POST", "/echo", body="no JSON", headers={"X-User-Id": "u1"})
    answer = connection.getresponse()
    answer.read()
    return {200: "legacy", 400: "task"}[answer.status]


def switch(api, enabled):
    """One write, acknowledged when it returns."""
    if api.version == 2:
        api.set_flag(configuration.boolean(FLAG, enabled))
    else:
        api.call("PUT", "%s/flags/%s" % (api.v1, FLAG), {"name": FLAG, "enabled": enabled})


def effects(api, router):
    """ms from the acknowledgement of each change to the answer of the first request that it decided."""
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
    took = []
    for n in range(CHANGES):
        enabled = n % 2 == 0
        switch(api, enabled)
        begin = time.perf_counter()
        while ask_side(connection) != ("task" if enabled else "legacy"):
            if time.perf_counter() - begin > 30:
                raise SystemExit("change %d has had no effect for 30 s" % n)
        took.append((time.perf_counter() - begin) * 1000)
    connection.close()
    return sorted(took)


def change_to_effect(api):
    poll = "30s" if api.version == 2 else "100ms"
    router = start_router("changes", {"source": "flipt", "url": api.url, "namespace": api.namespace, "poll": poll}, CORE_TESTED)
    wanted = "streaming" if api.version == 2 else "loaded"
    wait_flags(router, wanted)
    took = effects(api, router)
    how = "stream" if api.version == 2 else "poll of " + poll
    print("%d changes, %s, %s: from the acknowledged write to the first request decided by it: p50 %.1f ms, p99 %.1f ms, max %.1f ms" % (
        CHANGES, how, SERVER, statistics.median(took), took[len(took) * 99 // 100], took[-1]))
    if api.version == 2:
        goal("change to effect, max", took[-1], 100, "%.1f ms" % took[-1])
    router.stop()


@contextlib.contextmanager
def namespace():
    """Flipt's API on a namespace of our own, removed afterwards."""
    server = None if URL else StandIn(2)
    api = Flipt(URL or server.url, VERSION if URL else 2, TOKEN, "bench-%d" % os.getpid())
    api.create_namespace()
    try:
        yield api
    finally:
        api.delete_namespace()
        if server:
            server.stop()


# --- a large snapshot --------------------------------------------------------------------------------------------------

def large_snapshot(edition):
    """As v2 sends it; editions differ in every percentage."""
    flags = [configuration.boolean(FLAG, False)]
    for n in range(FLAGS - 1):
        key = "flag-%05d" % n
        flags.append(configuration.boolean(key, False, (n + edition) % 100) if n % 2 else configuration.variants(
            key, "segment-%d" % (n % 100), **{"25": (n + edition) % 100, "0": 100 - (n + edition) % 100}))
    segments = {"segment-%d" % n: segment_payload({
        "key": "segment-%d" % n, "name": "", "match_type": "ANY_MATCH_TYPE",
        "constraints": [{"type": "STRING_COMPARISON_TYPE", "property": "organization_id", "operator": "isoneof",
                         "value": json.dumps(["org-%d" % (n * 10 + k) for k in range(10)])}]}) for n in range(100)}
    shaper = StandIn(2)
    shaper.stop()
    shaper.namespaces["default"].update(flags={f["key"]: full_flag(flag_payload(f)) for f in flags}, segments=segments)
    return json.dumps(shaper.snapshot("default")[1]).encode()


class Streamer(ThreadingHTTPServer):
    """v2's two paths with prepared snapshots: a poll gets the first, a stream the next one each time it is told to."""
    daemon_threads = True

    def __init__(self, snapshots):
        super().__init__(("127.0.0.1", 0), Stream)
        self.snapshots, self.sent, self.told = snapshots, 0, threading.Semaphore(1)
        self.url = "http://127.0.0.1:%d" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Stream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        streaming = urllib.parse.urlsplit(self.path).path.endswith("/stream")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        first = self.server.snapshots[0]
        if not streaming:
            self.send_header("Content-Length", str(len(first)))
            self.end_headers()
            self.wfile.write(first)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while self.server.told.acquire():
            line = b'{"result":%s}\n' % self.server.snapshots[self.server.sent % len(self.server.snapshots)]
            self.server.sent += 1
            with contextlib.suppress(OSError):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def log_message(self, *_):
        pass


def parsing(snapshot):
    with open(os.path.join(FOLDER, "snapshot.json"), "wb") as file:
        file.write(snapshot)
    run = subprocess.run(["taskset", "-c", str(CORE_TESTED), need_program("bench-snapshot"), "snapshot.json"], cwd=FOLDER,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    row = json.loads(run.stdout)
    print("a snapshot of %(flags)d flags, %(mib).1f MiB of JSON: parsed in %(parse_ms).1f ms, freed in %(free_ms).2f ms, holds %(held).1f MiB"
          % dict(row, mib=row["bytes"] / 2**20, held=row["held_bytes"] / 2**20))


def swapped_while(streamer, work):
    """The result of `work`, while the stream brings another edition every SWAP_SECONDS."""
    ended = threading.Event()

    def tell():
        while not ended.wait(SWAP_SECONDS):
            streamer.told.release()
    teller = threading.Thread(target=tell)
    teller.start()
    try:
        return work()
    finally:
        ended.set()
        teller.join()


LOAD = """
wrk.method, wrk.path, wrk.body = "POST", "/echo", '{"message": "hi"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-User-Id"] = "u1"
"""


def swaps():
    """A swap is work for a processor wherever it happens: what it does beyond that shows beside the same swaps in another router."""
    editions = [large_snapshot(edition) for edition in (0, 1)]
    parsing(editions[0])
    write("swaps.lua", LOAD + WRK_DONE)
    streams = {"other": Streamer([json.dumps({"namespace": {"key": "default"}, "flags": [], "digest": "0" * 40}).encode()]),
               "router": Streamer(editions)}
    routers = {name: start_router(name, {"source": "flipt", "url": stream.url}, ",".join(map(str, CORES)))
               for name, stream in streams.items()}
    for router in routers.values():
        wait_flags(router, "streaming")
        wrk(router, "swaps.lua", 16, 1)
    router, memory = routers["router"], [r.memory() / 2**20 for r in routers.values()]
    streams["other"].snapshots = editions

    def load():
        return wrk(router, "swaps.lua", 16, min(SECONDS, 5))
    rows = {"without swaps": [], "swaps in another router": [], "swaps": []}
    for _ in range(ROUNDS):
        rows["without swaps"].append(load())
        rows["swaps in another router"].append(swapped_while(streams["other"], load))
        rows["swaps"].append(swapped_while(streams["router"], load))
    if not all(flags_status(r)["streaming"] for r in routers.values()):
        raise SystemExit("a stream broke:\n" + router.said()[-2000:])
    print("resident: %.1f MiB without flags, %.1f MiB with these, %.1f MiB after %d swaps, %.1f MiB at most" % (
        *memory, router.memory() / 2**20, streams["router"].sent, router.peak() / 2**20))
    for name, of in rows.items():
        print("requests, 16 connections, %-24s p50 %5.0f us, p99 %6.0f us, %6.0f requests/s; p99 of each round: %s" % (
            name, median(of, "p50"), median(of, "p99"), median(of, "rate"), " ".join("%d" % r["p99"] for r in of)))
    for than in ("without swaps", "swaps in another router"):
        more = statistics.median(a["p99"] / b["p99"] for a, b in zip(rows["swaps"], rows[than]))
        goal("p99 with a swap every %g s, to that of %s" % (SWAP_SECONDS, than), more, 1.1, "%.2f" % more)
    for stream in streams.values():
        stream.shutdown()


def run():
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORE_LOAD})
    try:
        with namespace() as api:
            api.load(configuration.features(configuration.boolean(FLAG, False),
                                            configuration.variants("by_percentage", **{"25": 25, "0": 75}),
                                            segments=[configuration.everybody()]))
            decision(api)
            change_to_effect(api)
        swaps()
    finally:
        os.sched_setaffinity(0, cores)
