"""The way to the legacy services: loops, addresses, what legacy sees of a request, what is said of its failures."""
import configuration
from raw import Client, ask, request


# --- loops -------------------------------------------------------------------------------------------------------------

def passing_on(port, dropped=("host", "content-length", "connection")):
    """A service that calls another one with its caller's fields, and answers as that does."""
    def script(x):
        fields = [(n, v) for n, v in x.request.head.fields if n.lower() not in dropped]
        answer = ask(port() if callable(port) else port, request(x.request.method, x.request.target, fields))
        x.answer(answer.status, [], answer.body)
    return script


def test_a_service_may_call_the_next_with_its_callers_fields(start):
    """A and B, each behind the product: on two routers, and on one."""
    a, b = start.origin(), start.origin()
    second = start.router(configuration.passing(b))
    first = start.router(configuration.passing(a))
    a.always(passing_on(second.port))
    assert ask(first.port, request()).status == 200
    one = start.router(configuration.router({"a": configuration.service(a), "b": configuration.service(b)}))
    a.always(passing_on(one.ports["b"]))
    assert ask(one.ports["a"], request()).status == 200
    assert len(b.requests) == 2


def test_a_loop_ends_after_a_few_requests(start):
    """Over one router, over two, and where somebody drops the comments of Via."""
    middle, front = start.origin(), start.origin()
    one = start.router(configuration.passing(middle))
    middle.always(passing_on(one.port))
    assert ask(one.port, request()).status == 508
    assert len(middle.requests) == 1
    middle.clear()
    two = start.router(configuration.passing(front))
    middle.always(passing_on(two.port))
    front.always(passing_on(one.port))
    assert ask(one.port, request()).status == 508
    assert (len(middle.requests), len(front.requests)) == (1, 1)
    middle.clear()

    def without_comments(x):
        for at, (name, value) in enumerate(x.request.head.fields):
            if name.lower() in ("via", "x-migration-via"):
                x.request.head.fields[at] = (name, value.split(" (")[0])
        passing_on(one.port)(x)
    middle.always(without_comments)
    assert ask(one.port, request()).status == 508
    assert len(middle.requests) <= 10


def test_a_loop_ends_when_the_router_is_started_anew_within_it(start):
    origin = start.origin()
    config = configuration.passing(origin)
    first = start.router(config)
    assert ask(first.port, request()).status == 200
    before = origin.request.head.get("Via")
    first.stop()
    again = start.router(config)
    origin.always(passing_on(again.port))
    assert ask(again.port, request("GET", "/", [("Via", before)])).status == 508
    assert len(origin.requests) == 2


# --- answers -----------------------------------------------------------------------------------------------------------

def test_an_answer_with_both_framing_fields_is_passed_on(start):
    """As proxies made with FastAPI send it."""
    origin = start.origin()
    config = configuration.passing(origin)
    config["threads"] = 1
    router = start.router(config)

    def both(x):
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    origin.always(both)
    with Client(router.port) as client:
        for n in (1, 2):
            answer = client.ask(request("POST", "/", body=b"{}"))
            assert (answer.status, answer.body) == (200, b"hello")
            assert not (answer.all("Content-Length") and answer.all("Transfer-Encoding"))
            assert origin.connections == n
    assert router.wait_outcomes(2)[0]["result"] == "success"
