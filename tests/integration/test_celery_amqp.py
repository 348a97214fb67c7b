"""Celery as it is mostly installed: RabbitMQ as broker, results by reply queue (rpc://) or in PostgreSQL. All parts are real."""
import concurrent.futures
import json
import pickle

import kombu
import pytest

from celery_rabbitmq import RabbitMQ
from celery_router import TASKS, call, celery_config, readyz, start_router
from celery_worker import Worker, application
from http_text import PATIENCE, wait_until
from lossy import Lossy
from postgresql import PostgreSQL
from programs import need_backend

need_backend("celery")
@pytest.fixture(scope="module")
def rabbit(tmp_path_factory):
    server = RabbitMQ(tmp_path_factory.mktemp("rabbit"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def worker(rabbit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    one = Worker(folder, rabbit.url(), "rpc://")
    one.runs = lambda line: (folder / "runs").read_text().split("\n").count(line)
    yield one
    one.stop()


@pytest.fixture
def router(start, rabbit, worker):
    return start_router(start, start.origin(), rabbit.url(), "rpc://")


def test_a_task_over_rabbitmq_answers_its_caller(router):
    answer = call(router, "add_numbers", 2, 3)
    assert (answer.status_code, answer.text) == (200, "5")
    row = router.wait_outcomes()[0]
    assert (row["side"], row["backend"], row["result"]) == ("task", "celery", "success")
    body = call(router, "everything", 9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}).json()
    assert body == {"args": [9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}], "kwargs": {}}


def test_failures_over_rabbitmq_say_why(router):
    answer = call(router, "fail", "bad input")
    assert (answer.status_code, answer.json()["detail"]) == (500, "bad input")
    assert "not registered" in call(router, "unheard_of").json()["detail"]
    assert call(router, "not_json_number").status_code == 502
    assert call(router, "progress", 0.2).json() == "done"


# --- what becomes of a message ----------------------------------------------------------------------------------------------

def test_a_message_is_the_one_that_celery_sends(start, rabbit):
    """But for ids and times, and `expiration`, with which RabbitMQ would drop it and nobody would ever know."""
    app = application(rabbit.url(), "rpc://")
    with app.connection_for_write() as connection:
        queue = kombu.Queue("spy", kombu.Exchange("spy", type="direct"), "spy", channel=connection.default_channel)
        queue.declare()
        app.send_task("add", [1, 2], {}, queue=queue, expires=60, priority=3)
        theirs = message_of(queue)
        task = {"name": "add", "queue": "spy", "args": {"$ref": "body:/args"}, "timeout": "1s", "expires": "60s", "priority": 3}
        router = start_router(start, start.origin(), rabbit.url(), "rpc://", tasks={"add": task})
        call(router, "add", 1, 2)
        ours = message_of(queue)
    assert theirs["properties"].pop("expiration") == "60000"
    assert theirs["headers"].pop("ignore_result") is None and ours["headers"].pop("ignore_result") is False
    for message in (theirs, ours):
        one = message["headers"].pop("id")
        assert one == message["properties"].pop("correlation_id") == message["headers"].pop("root_id")
        assert message["properties"].pop("reply_to") and message["headers"].pop("origin") and message["headers"].pop("expires")
    assert ours == theirs


def message_of(queue):
    got = wait_until(lambda: queue.get(no_ack=True), "a message")
    properties = {name: value for name, value in got.properties.items() if name != "application_headers"}
    return {"properties": properties, "headers": dict(got.headers), "body": json.loads(got.body), "exchange": got.delivery_info["exchange"],
            "type": got.content_type, "encoding": got.content_encoding}


def test_a_message_that_no_queue_takes_is_refused_and_legacy_serves(start, rabbit, worker):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
    tasks = {"add_numbers": {**TASKS["add_numbers"], "queue": "nobody.consumes.this"}}
    router = start_router(start, origin, rabbit.url(), "rpc://", tasks=tasks)
    assert call(router, "add_numbers", 1, 2).text == '"legacy"'
    assert [r["side"] for r in router.wait_outcomes(2)].count("legacy") == 1
    assert "nobody.consumes.this" not in rabbit.ctl("-q", "list_queues", "name")


def test_a_message_whose_confirm_is_lost_is_unknown_and_not_sent_again(start, rabbit, worker):
    way = Lossy(rabbit.port)
    router = start_router(start, start.origin(), rabbit.url(way.port), "rpc://", tasks={"count": {**TASKS["everything"], "name": "count"}})
    assert call(router, "count", "before").status_code == 200
    way.lose_reply_to(b"argsrepr")
    answer = call(router, "count", "lost")
    assert answer.status_code == 504, answer.text
    assert call(router, "count", "after").text == '"after"'
    assert way.lost == 1 and worker.runs("lost") == 1
    way.close()


def test_a_server_that_was_restarted_is_found_again(start, rabbit, worker):
    way = Lossy(rabbit.port)
    router = start_router(start, start.origin(), rabbit.url(way.port), "rpc://")
    assert call(router, "add_numbers", 1, 2).text == "3"
    way.close()
    wait_until(lambda: not readyz(router)["reachable"], "the router to know")
    way.open()
    wait_until(lambda: readyz(router)["reachable"], "the router to know")
    assert call(router, "add_numbers", 1, 2).text == "3"
    way.close()


def test_a_blocked_connection_is_refused_at_once_and_said(start, rabbit, worker):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
    router = start_router(start, origin, rabbit.url(), "rpc://")
    assert call(router, "add_numbers", 1, 2).text == "3"
    rabbit.ctl("set_vm_memory_high_watermark", "0")
    try:
        wait_until(lambda: call(router, "add_numbers", 1, 2).text == '"legacy"', "legacy to serve")
        assert "takes no messages now" in wait_until(lambda: readyz(router)["detail"], "the reason")
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: call(router, "add_numbers", 1, 2).text == "3", "the task to serve again")


@pytest.mark.heavy
def test_a_message_above_the_servers_limit_is_refused(start, rabbit, worker):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
    limit = "application:set_env(rabbit, max_message_size, %d), persistent_term:put(max_message_size, %d)."
    rabbit.ctl("eval", limit % (2000000, 2000000))
    try:
        router = start_router(start, origin, rabbit.url(), "rpc://")
        assert call(router, "give_size", "x" * 1500000).text == "1500000"
        assert call(router, "give_size", "x" * 2500000).text == '"legacy"'
        assert call(router, "add_numbers", 1, 2).text == "3"
    finally:
        rabbit.ctl("eval", limit % (134217728, 134217728))


def test_health_tells_queue_consumers_and_backlog(start, rabbit, worker):
    rabbit.ctl("eval", 'rabbit_amqqueue:declare({resource, <<"/">>, queue, <<"unheard">>}, true, false, [], none, <<"test">>).')
    router = start_router(start, start.origin(), rabbit.url(), "rpc://", queue="unheard")
    found = wait_until(lambda: (lambda r: r if r["reachable"] else None)(readyz(router)), "the server")
    assert not found["worker"] and 'no worker consumes the queue "unheard"' in found["detail"]
    with worker.app.connection_for_write() as connection:
        for _ in range(3):
            connection.default_channel.basic_publish(connection.default_channel.prepare_message(b"{}"), exchange="", routing_key="unheard")
    wait_until(lambda: readyz(router)["backlog"] == 3, "three messages")
    router = start_router(start, start.origin(), rabbit.url(), "rpc://")
    found = wait_until(lambda: (lambda r: r if r["worker"] else None)(readyz(router)), "the worker")
    assert (found["reachable"], found["backlog"]) == (True, 0)


def test_check_asks_the_workers_over_rabbitmq(start, rabbit, worker):
    """And says what there is none of."""
    path = start.folder() / "router.yml"
    for where, code, rows in ((rabbit.url(), 1, {"add_numbers": ["yes", "yes", "yes", "-"], "unheard_of": ["yes", "no", "yes"]}),
                              ("amqp://guest:guest@127.0.0.1:1//", 1, {"add_numbers": ["no", "?", "?"]})):
        path.write_text(json.dumps(celery_config("http://127.0.0.1:9", where, "rpc://", {name: TASKS[name] for name in ("add_numbers", "unheard_of")})))
        ended = start.run("migration-router", "check", str(path), "--backends")
        found = {line.split()[0][2:]: line.split(None, 6)[3:] for line in ended.stdout.splitlines() if line.startswith("s.")}
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert {name: found[name][:len(row)] for name, row in rows.items()} == rows, ended.stdout


@pytest.mark.parametrize("url, said", [("amqp://guest:wrong-secret@127.0.0.1:%d//", "refused the login"), ("amqp://guest:guest@127.0.0.1:%d/nope", "virtual host")])
def test_a_refused_login_is_said_without_the_password(start, rabbit, url, said):
    router = start_router(start, start.origin(), url % rabbit.port, "rpc://")
    found = wait_until(lambda: (lambda b: b if b["detail"] != "not asked yet" else None)(readyz(router)), "the broker to have been asked")
    assert not found["reachable"] and said in found["detail"] and "wrong-secret" not in found["detail"]
    assert "wrong-secret" not in str(router.log())


# --- results in PostgreSQL --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def database():
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg2")
    server = PostgreSQL()
    yield server
    server.end()


@pytest.fixture(scope="module")
def storing(rabbit, database, tmp_path_factory):
    """A worker of another queue, whose results go into the table."""
    folder = tmp_path_factory.mktemp("storing")
    one = Worker(folder, rabbit.url(), database.url(), queues="storing")
    yield one
    one.stop()


def start_storing(start, rabbit, database, port=None, **settings):
    return start_router(start, start.origin(), rabbit.url(), database.url(port), queue="storing", **settings)


def test_results_come_from_the_table(start, rabbit, database, storing):
    router = start_storing(start, rabbit, database)
    assert call(router, "add_numbers", 2, 3).text == "5"
    body = call(router, "everything", 9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}).json()
    assert body == {"args": [9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}], "kwargs": {}}
    answer = call(router, "fail", "bad input")
    assert (answer.status_code, answer.json()["detail"]) == (500, "bad input")
    assert call(router, "not_json_number").status_code == 502
    assert call(router, "progress", 0.2).json() == "done"


@pytest.mark.heavy
def test_one_query_asks_for_all_that_is_awaited(start, rabbit, database, storing):
    router = start_storing(start, rabbit, database, result_poll_interval="500ms")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        before = database.statements()
        answers = list(pool.map(lambda n: call(router, "simulate_work", 2).status_code, range(40)))
        assert answers == [200] * 40
    assert database.statements() - before < 60, "40 tasks of 2 s, 8 at a time, polled twice a second"


def test_a_database_that_was_away_is_found_again(start, rabbit, database, storing):
    way = Lossy(database.port)
    router = start_storing(start, rabbit, database, port=way.port)
    assert call(router, "add_numbers", 1, 2).text == "3"
    way.close()
    wait_until(lambda: "PostgreSQL at 127.0.0.1" in readyz(router)["detail"] and not readyz(router)["reachable"], "the router to know")
    way.open()
    wait_until(lambda: readyz(router)["reachable"], "the router to know")
    assert call(router, "add_numbers", 1, 2).text == "3"
    way.close()


def test_a_pickle_of_older_workers_is_read_and_never_run(start, rabbit, database, storing):
    """What Celery before 5.7 stores, put there as its worker would; one that would run something has an end that cannot be read."""
    router = start_storing(start, rabbit, database)
    assert call(router, "add_numbers", 1, 2).text == "3"
    tasks = {"give": {"name": "echo", "queue": "nobody.stores", "args": {"$ref": "body:/args"}, "timeout": "30s"}}
    rabbit.ctl("eval", 'rabbit_amqqueue:declare({resource, <<"/">>, queue, <<"nobody.stores">>}, true, false, [], none, <<"test">>).')
    router = start_router(start, start.origin(), rabbit.url(), database.url(), tasks=tasks)

    class Evil:
        def __reduce__(self):
            return (print, ("run",))
    queue = kombu.Queue("nobody.stores", no_declare=True)
    for value, status, text in (({"a": [1, None, True, 2.5, -7, 2 ** 70, "\xe4"], "b": (1, 2)}, 200,
                                 '{"a": [1, null, true, 2.5, -7, 1180591620717411303424, "\xe4"], "b": [1, 2]}'), (Evil(), 502, "cannot be read")):
        with concurrent.futures.ThreadPoolExecutor(1) as pool, storing.app.connection_for_write() as connection:
            answer = pool.submit(call, router, "give", 1)
            message = wait_until(lambda: queue(connection.default_channel).get(no_ack=True), "the message")
            database.sql("INSERT INTO celery_taskmeta (id, task_id, status, result, date_done) VALUES (nextval('task_id_sequence'), '%s', "
                         "'SUCCESS', '\\x%s', now())" % (message.headers["id"], pickle.dumps(value).hex()))
            got = answer.result(PATIENCE)
        assert got.status_code == status and text in got.text, got.text
