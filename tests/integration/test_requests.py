"""What became of single requests: the error of each attempt on both sides, and migration-status asked for requests, errors and
organizations."""
import csv
import html
import io
import json
import os
import re
import sys

import pytest

import configuration as c
from conftest import Started
from http_text import wait_until
from raw import ask, request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECRET = "hunter2"
FAILING = "import sys; sys.exit('no document 83721 at redis://bob:%s@cache:6379')" % SECRET
SAYING = "print('{\"success\": false, \"error\": \"the model refused\"}')"
TASKS = {"tasks": [{"name": "echo", "builtin": "echo"}, {"name": "slow", "builtin": "simulate_work"},
                   {"name": "failing", "exec": {"argv": [sys.executable, "-c", FAILING]}},
                   {"name": "saying", "exec": {"argv": [sys.executable, "-c", SAYING]}}]}
BY_SUCCESS = [{"when": {"ref": "result:/success", "equals": True}, "body": {"$ref": "result:"}}, {"status": 500, "body": {"error": "no"}}]


def operations():
    return {
        "echo": c.operation("POST /echo", {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}),
        "fails": c.operation("POST /fails", {"name": "failing", "timeout": "30s"}),
        "falls": c.operation("POST /falls", {"name": "failing", "timeout": "30s", "idempotent": True}),
        "says": c.operation("POST /says", {"name": "saying", "timeout": "30s", "response": BY_SUCCESS}),
        "slow": c.operation("POST /slow", {"name": "slow", "kwargs": {"duration": 30}, "timeout": "300ms"}),
        "plain": c.operation("GET /plain", {"name": "echo"}, flags=("off",)),
    }


def config(origin, **more):
    services = {"svc": c.service(origin, operations(), identity=c.IDENTITY)}
    return c.router(services, backends=c.embedded(), **{"threads": 1, **more})  # one queue: recorded in the order of asking


FLAGS = c.features(c.boolean("task_abstraction_enabled", True), c.boolean("off", False))


def pair(start, origin, **more):
    folder = start.folder()
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump(TASKS, file)
    router = start.router(config(origin, **more), FLAGS, folder=folder)
    start.worker(router)
    return router


def send(router, method, path, number, body=b"{}"):
    fields = [("X-User-Id", "u%d" % number), ("X-Organization-Id", "org-%d" % (number % 2)), ("X-Request-ID", "request-%d" % number),
              ("Content-Type", "application/json")]
    return ask(router.port, request(method, path, fields, body=body if method == "POST" else None)).status


def status(start, router, *arguments):
    run = start.run("migration-status", "--db", router.outcomes_path, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout


def as_the_schema_says(what, text):
    """Also that the schema would see a member that is gone."""
    fastjsonschema = pytest.importorskip("fastjsonschema")
    with open(os.path.join(ROOT, "docs", "migration-status.schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    check = fastjsonschema.compile({"$schema": schema["$schema"], "definitions": schema["definitions"], "$ref": "#/definitions/" + what})
    told = json.loads(text)
    check(told)
    assert told[what]
    for gone in told[what][0]:
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check({**told, what: [{k: v for k, v in told[what][0].items() if k != gone}]})


def test_every_attempt_that_did_not_succeed_says_what_went_wrong(start):
    origin = start.origin()
    router = pair(start, origin)
    assert send(router, "POST", "/echo", 1, b'{"message": "x"}') == 200
    assert send(router, "POST", "/fails", 2) == 500
    assert send(router, "POST", "/falls", 3) == 200
    assert send(router, "POST", "/says", 4) == 500
    assert send(router, "POST", "/slow", 5) == 504
    assert send(router, "POST", "/echo", 6, b"{") == 400
    origin.answers(503)
    assert send(router, "GET", "/plain", 7) == 503
    origin.answers(404)
    assert send(router, "GET", "/plain", 8) == 404
    origin.stop()
    assert send(router, "GET", "/plain", 9) == 502
    rows = router.wait_outcomes(10)
    errors = {(row["request_id"], row["side"]): row["error"] for row in rows}
    assert errors[("request-1", "task")] is None
    assert "no document 83721" in errors[("request-2", "task")]
    assert "no document 83721" in errors[("request-3", "task")] and errors[("request-3", "legacy")] is None
    assert errors[("request-4", "task")] == "the model refused"
    assert errors[("request-5", "task")] == "Task still running"
    assert errors[("request-6", "task")] == "Malformed body"
    assert errors[("request-7", "legacy")] == "the legacy service answered 503 Service Unavailable"
    assert errors[("request-8", "legacy")] is None  # its answer, and the caller's fault
    assert errors[("request-9", "legacy")].startswith("refused: ")
    assert not any(SECRET in (error or "") for error in errors.values())

    # The same, asked of migration-status.
    groups = json.loads(status(start, router, "--errors", "--json"))
    assert groups["total"] == sum(1 for error in errors.values() if error) and groups["complete"]
    by_operation = {(g["operation"], g["side"]): g for g in groups["errors"] if g["operation"] != "plain"}
    assert by_operation[("fails", "task")]["sample_request_id"] == "request-2" and "no document # at" in by_operation[("fails", "task")]["error"]
    text = status(start, router, "--errors")
    assert max(map(len, text.splitlines())) <= 80 and "the model refused" in text
    as_the_schema_says("errors", status(start, router, "--errors", "--json"))
    as_the_schema_says("requests", status(start, router, "--requests", "--json"))
    as_the_schema_says("requests", status(start, router, "--requests", "--limit", "2", "--json"))
    as_the_schema_says("requests", status(start, router, "--request", "request-3", "--json"))
    as_the_schema_says("organizations", status(start, router, "--organizations", "--json"))
    rows = list(csv.DictReader(io.StringIO(status(start, router, "--errors", "--csv"))))
    assert sum(int(row["count"]) for row in rows) == groups["total"]

    attempts = json.loads(status(start, router, "--request", "request-3", "--json"))["requests"]
    assert [(a["side"], a["role"], a["result"], a["answered"]) for a in attempts] == [
        ("task", "primary", "failure", False), ("legacy", "fallback", "success", True)]
    assert "Attempt 2: legacy, fallback, success, answered the caller" in status(start, router, "--request", "request-3")
    missing = start.run("migration-status", "--db", router.outcomes_path, "--request", "nobody's")
    assert missing.returncode == 3 and "No such request" in missing.stdout


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """For what changes nothing."""
    started = Started(tmp_path_factory)
    yield pair(started, started.origin())
    started.end()


QUESTIONS = [("--requests",), ("--requests", "--limit", "3"), ("--requests", "--side", "task", "--result", "failure"), ("--requests", "--user", "u3"),
             ("--requests", "--org", "org-1", "--operation", "echo"), ("--request", "request-2"), ("--errors",), ("--errors", "--org", "org-0"),
             ("--errors", "--backend", "embedded", "--status", "500"), ("--organizations",), ("--organizations", "G-1"), ("--organizations", "--org", "org-0")]


def test_routers_are_asked_as_their_files_are(start):
    routers = [pair(start, start.origin()) for _ in range(2)]
    for router, numbers in zip(routers, (range(1, 7), range(2, 9))):
        for n in numbers:
            assert send(router, "POST", "/fails" if n % 3 == 2 else "/echo", n, b'{"message": "x"}') in (200, 500, 502)
        router.wait_outcomes(len(numbers))
    files = [("--db", r.outcomes_path) for r in routers]
    urls = [("--router", "http://127.0.0.1:%d" % r.admin_port) for r in routers]

    def told(sources, question, form="--json"):
        span = () if question[0] == "--request" else ("--since", "2026-01-01")
        run = start.run("migration-status", *(word for source in sources for word in source), *question, form, *span)
        assert run.returncode == 0, (question, run.stderr)
        return run.stdout
    for question in QUESTIONS:
        for form in ("--json", "--csv")[:3 - len(question)]:
            assert told(files, question, form) == told(urls, question, form) == told([files[0], urls[1]], question, form), question
        assert told(files[:1], question) == told(urls[:1], question), question
    found = json.loads(told(urls, ("--errors",)))
    assert found["total"] == sum(1 for r in routers for row in r.query("SELECT error FROM outcomes") if row["error"]) > 0
    assert len(json.loads(told(urls, ("--request", "request-3")))["requests"]) == 2, "the same id at both"
    first = json.loads(told(urls[:1], ("--requests", "--limit", "2")))
    assert json.loads(told(urls[:1], ("--requests", "--before", str(first["next"]))))["requests"]
    for twice in ([files[0], files[0]], [urls[0], urls[0]], [files[0], urls[0]]):
        run = start.run("migration-status", *(word for source in twice for word in source), "--errors")
        assert run.returncode == 1 and "is listed twice" in run.stderr and not run.stdout, "counted twice"
    routers[1].kill()
    run = start.run("migration-status", *urls[0], *urls[1], "--errors")
    assert run.returncode == 1 and urls[1][1] in run.stderr and not run.stdout, "never the sum of those that are left"


@pytest.mark.parametrize("target, why", [
    ("/_admin/requests.json?sid=task", "sid"), ("/_admin/requests.json?side=left", "side"), ("/_admin/errors.json?since=yesterday", "since"),
    ("/_admin/errors.json?result=good", "result"), ("/_admin/requests.json?status=1e3", "status"), ("/_admin/requests.json?before=0", "before"),
    ("/_admin/organizations.json?limit=10001", "limit"), ("/_admin/requests.json?user=a&user=b", "user"), ("/_admin/requests.json?user=a%00b", "user"),
    ("/_admin/requests.json?user=" + "x" * 1025, "user")])
def test_a_question_that_cannot_be_read_is_refused(refusing, target, why):
    answer = ask(refusing.admin_port, request("GET", target))
    assert answer.status == 400 and why in answer.body.decode(), answer


def test_requests_are_found_by_what_is_known_of_them(start):
    origin = start.origin()
    router = pair(start, origin, outcomes={"hash_users": True})
    for number in range(1, 7):
        assert send(router, "POST", "/echo", number, b'{"message": "x"}') == 200
    assert send(router, "GET", "/plain", 7) == 200
    router.wait_outcomes(7)

    def found(*arguments):
        return [a["request_id"] for a in json.loads(status(start, router, "--requests", "--json", *arguments))["requests"]]
    assert found() == ["request-%d" % n for n in (7, 6, 5, 4, 3, 2, 1)]
    assert found("--side", "legacy") == ["request-7"]
    assert found("--org", "org-0") == ["request-6", "request-4", "request-2"]
    assert found("--operation", "echo", "--org", "org-0", "--limit", "1") == ["request-6"]
    assert found("--user", "u3") == ["request-3"]  # recorded as a pseudonym, found by the key beside the database
    assert found("--result", "failure") == [] and found("--status", "200", "--backend", "embedded", "--limit", "2") == ["request-6", "request-5"]
    first = json.loads(status(start, router, "--requests", "--json", "--limit", "4"))
    assert found("--before", str(first["next"])) == ["request-3", "request-2", "request-1"]
    assert max(map(len, status(start, router, "--requests").splitlines())) <= 80

    organizations = json.loads(status(start, router, "--organizations", "--json"))["organizations"]
    assert [(o["organization"], o["side"], o["requests"], o["task"]["requests"]) for o in organizations] == [
        ("org-1", "legacy", 4, 3), ("org-0", "task", 3, 3)]
    assert "org-0" in status(start, router, "--organizations", "g-0") and "org-1" not in status(start, router, "--organizations=G-0")


def test_what_would_be_ignored_is_refused(start):
    for arguments, why in ((("--requests", "--gate"), "--gate"), (("--errors", "--drain"), "--drain"), (("--user", "u"), "only with --requests"),
                           (("--request", "x", "--since", "1h"), "by its id alone"), (("--requests", "--errors"), "invalid value"),
                           (("--requests", "--side", "left"), "left"), (("--requests", "--limit", "0"), "0"),
                           (("--limit", "3"), "only with"),
                           (("--errors", "--before", "7"), "--before"), (("--requests", "--before", "7", "--db", "a", "--db", "b"), "--before")):
        run = start.run("migration-status", *arguments)
        assert run.returncode == 2 and why in run.stderr, (arguments, run.stderr)
    run = start.run("migration-status", "--db", "/nowhere/outcomes.db", "--errors")
    assert run.returncode == 1 and "/nowhere/outcomes.db" in run.stderr


# --- the pages ---------------------------------------------------------------------------------------------------------

def page(router, path, code=200):
    answer = ask(router.admin_port, request("GET", path))
    assert answer.status == code, answer.body
    text = answer.body.decode()
    assert not re.search(r"<script>|<[^>]*\s(style|on\w+)=", text)  # the policy would not let it
    return text


def rows_of(text):
    """The cells of the page's tables, by the name of their column; tags are left out."""
    def plain(cell):
        return html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()
    return [{name: plain(cell) for name, cell in re.findall(r'<td(?: class="number")? data-name="([^"]+)">(.*?)</td>', row, re.S)}
            for row in re.findall(r"<tr>(<td.*?)</tr>", text, re.S)]


def links_of(text, start_of):
    return [html.unescape(link) for link in re.findall(r'href="([^"]+)"', text) if html.unescape(link).startswith(start_of)]


def test_the_page_leads_from_an_error_to_its_requests_and_on_to_the_decision(start):
    origin = start.origin()
    router = pair(start, origin)
    for number in range(1, 4):
        assert send(router, "POST", "/falls", number) == 200
    assert send(router, "POST", "/echo", 5, b'{"message": "x"}') == 200
    origin.answers(503)
    assert send(router, "GET", "/plain", 7) == 503
    router.wait_outcomes(8)
    groups = json.loads(status(start, router, "--errors", "--json"))["errors"]
    text = page(router, "/errors")
    assert [(int(row["Count"]), row["Side"].split()[0]) for row in rows_of(text)] == [(g["count"], g["side"]) for g in groups]
    assert "What goes wrong" in page(router, "/") and groups[0]["count"] == 3

    found = page(router, next(link for link in links_of(text, "/requests?") if "error=" in link and "falls" in link))
    assert sorted(row["Request"] for row in rows_of(found)) == ["request-1", "request-2", "request-3"]
    one = page(router, next(link for link in links_of(found, "/requests?") if "id=request-2" in link))
    assert "no document 83721" in one and SECRET not in one
    assert one.count('class="card attempt"') == 2 and "fallback" in one and "<code>flag</code>" in one
    said = start.run("migration-router", "explain", "--config", router.config_path, "--service", "svc", "--operation", "falls", "--user", "u2",
                     "--org", "org-0").stdout
    shown = html.unescape(re.search(r'<pre class="explain"[^>]*>(.*?)</pre>', one, re.S).group(1))
    lines = [[line for line in text.split("operation  ", 1)[1].split("\n") if line] for text in (shown, said)]
    assert lines[0] == lines[1]  # as explain prints it

    organizations = json.loads(status(start, router, "--organizations", "--json"))["organizations"]
    shown = [(row["Organization"], row["Side"], row["Requests"], row["Errors"]) for row in rows_of(page(router, "/organizations"))]
    assert shown == [(o["organization"], o["side"], str(o["requests"]), str(o["errors"])) for o in organizations]
    assert [row["Organization"] for row in rows_of(page(router, "/organizations?search=G-0"))] == ["org-0"]
    assert rows_of(page(router, "/requests?side=legacy&result=failure&org=org-1"))[0]["Request"] == "request-7"
    for path in ("/requests?side=left", "/requests?page=x", "/organizations?sort=size", "/errors?status=9"):
        assert 'class="alert"' in page(router, path)
    assert "No request of this id" in page(router, "/requests?id=nobody")


def test_what_strangers_send_is_text_on_the_page(start):
    origin = start.origin()
    router = pair(start, origin)
    evil = "<img src=x onerror=alert(1)>\"'&"
    fields = [("X-User-Id", evil), ("X-Organization-Id", evil), ("Content-Type", "application/json"), ("X-Request-ID", "ok-1")]
    assert ask(router.port, request("POST", "/fails", fields, body=b"{}")).status == 500
    router.wait_outcomes(1)
    for path in ("/requests", "/organizations", "/errors", "/requests?id=ok-1", "/", "/requests?org=%3Cimg%20src%3Dx%3E"):
        assert "<img" not in page(router, path)


def test_differences_stand_side_by_side_with_their_places_marked(start):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'{"same": 1, "list": [{"price": 5}, {"price": 6}]}')
    folder = start.folder()
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "tell", "exec": {"argv": [
            sys.executable, "-c", "print('{\"same\": 1, \"list\": [{\"price\": 5}, {\"price\": 7}]}')"]}}]}, file)
    operation = {"op": c.operation("POST /op", {"name": "tell", "timeout": "30s"}, safe_to_shadow=True, compare={})}
    whole = c.router({"app": c.service(origin, operation, identity=c.IDENTITY)}, backends=c.embedded())
    flags = c.features(c.variants("task_abstraction_enabled", shadow=100), segments=[c.everybody()])
    router = start.router(whole, flags, folder=folder)
    start.worker(router)
    assert send(router, "POST", "/op", 1) == 200
    text = wait_until(lambda: (t := page(router, "/differences")) and "body:/list/*/price" in t and t, "the pair is compared")
    assert "<mark>6</mark>" in text and "<mark>7</mark>" in text and "<mark>5</mark>" in text and "<mark>1</mark>" not in text
    assert any("id=request-1" in link for link in links_of(text, "/requests?"))
