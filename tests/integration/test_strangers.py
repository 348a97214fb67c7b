"""What all callers share is charged for what was sent, not for what was announced, and never to others."""
import contextlib
import json

import pytest

import configuration as c
from http_text import wait_until
from raw import Client, ask, request

TOKEN = "of-a-friend"
MIB = 1 << 20
ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
BODY = json.dumps({"message": "hi", "organization_id": "org-1"}).encode()


def config(start, auth="none", limits=None, **sections):
    return c.router({"app": c.service(start.origin(), {"echo": c.operation(
        "POST /echo", ECHO, auth=auth, **({"tokens": "tokens.txt"} if auth != "none" else {}), identity={"organization": ["body:/organization_id"]})}, **sections)},
        backends=c.embedded(tasks=None), **({"limits": limits} if limits else {}))


def serve(start, *arguments, percentage=None, **how):
    flag = c.boolean("task_abstraction_enabled", percentage is None, percentage=percentage)
    tokens = start.folder()
    with open(str(tokens / "tokens.txt"), "w", encoding="utf-8") as file:
        file.write(c.sha256(TOKEN) + "\n")
    router = start.router(config(start, *arguments, **how), c.features(flag), folder=str(tokens))
    start.worker(router)
    return router


def post(fields=(), body=BODY, length=None):
    return request("POST", "/echo", [*fields, ("Content-Length", str(len(body) if length is None else length))]) + body


def held(router):
    line = next(x for x in ask(router.admin_port, request("GET", "/metrics")).body.decode().splitlines()
                if x.startswith("migration_inspect_bytes "))
    return int(line.split()[1])


@contextlib.contextmanager
def stalled(router, n, data):
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            stack.enter_context(Client(router.port)).send(data)
        yield


def test_announcing_costs_nobody_anything(start):
    """16 × 16 MiB, the whole of the default max_inspect_memory."""
    router = serve(start)
    with stalled(router, 16, post(body=b"", length=16 * MIB)):
        wait_until(lambda: b'migration_in_flight{service="app"} 16' in ask(router.admin_port, request("GET", "/metrics")).body,
                   "the announcements to be seen")
        assert held(router) == 0
        assert ask(router.port, post()).body == b'"Echo: hi"'


def test_what_one_peer_holds_leaves_room_for_others(start):
    router = serve(start, limits={"max_inspect_body": MIB, "max_inspect_memory": 4 * MIB})
    gateway = [("X-Forwarded-For", "192.0.2.1")]
    with stalled(router, 8, post(gateway, body=b"x" * (MIB - 1), length=MIB)):
        wait_until(lambda: held(router) >= MIB * 3 // 2, "the peer to have its part")
        assert held(router) <= 2 * MIB
        assert ask(router.port, post([("X-Forwarded-For", "192.0.2.2")])).body == b'"Echo: hi"'
    wait_until(lambda: held(router) == 0, "all to be given back")


@pytest.mark.parametrize("fields, status", [((), 401), ((("Authorization", "Bearer no"),), 401),
                                            ((("Authorization", "Bearer a"), ("Authorization", "Bearer b")), 400)])
def test_credentials_are_asked_for_before_a_body_is_held(start, fields, status):
    router = serve(start, "bearer")
    with Client(router.port) as client:
        client.send(post(fields, body=b"", length=MIB))  # and nothing more
        assert client.read("POST").status == status
    assert held(router) == 0
    assert ask(router.port, post([("Authorization", "Bearer " + TOKEN)])).body == b'"Echo: hi"'


def test_where_the_body_decides_strangers_hold_a_quarter(start):
    """Whether legacy would serve lies in the body, and legacy may take callers without credentials."""
    router = serve(start, "bearer", percentage=99, limits={"max_inspect_body": MIB // 4, "max_inspect_memory": 4 * MIB})
    with contextlib.ExitStack() as stack:
        for n in range(12):
            stack.enter_context(stalled(router, 1, post([("X-Forwarded-For", "192.0.2.%d" % n)], body=b"x" * (MIB // 4 - 1), length=MIB // 4)))
        wait_until(lambda: held(router) >= MIB * 3 // 4, "the strangers to have their part")
        assert held(router) <= MIB
        assert ask(router.port, post([("Authorization", "Bearer " + TOKEN)])).body == b'"Echo: hi"'


def test_bodies_that_do_not_come_take_half_of_the_places(start):
    origin = start.origin()
    router = start.router(c.passing(origin, limits={"max_in_flight": 8}))
    announced = [("Content-Length", "10")]
    with stalled(router, 4, request("POST", "/", announced)):
        wait_until(lambda: b'migration_in_flight{service="echo"} 4' in ask(router.admin_port, request("GET", "/metrics")).body,
                   "the announcements to be seen")
        with Client(router.port) as one_more:
            one_more.send(request("POST", "/", announced))
            refused = one_more.read("POST")
        assert refused.status == 503 and int(refused.get("Retry-After")) > 0
        assert ask(router.port, request()).status == 200  # without a body there is nothing to wait for
        assert ask(router.port, request("POST", "/", [("X-Forwarded-For", "192.0.2.7")], b"x" * 10)).status == 200
    wait_until(lambda: ask(router.port, request("POST", "/", body=b"x")).status == 200, "places to be free again")
