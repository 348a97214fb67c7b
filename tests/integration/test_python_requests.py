"""The callers' own library: Python requests with sessions, retries, uploads and large bodies."""
import hashlib
import json

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

import configuration
from origin import close_silently, reset


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


def url(router, path="/"):
    return "http://127.0.0.1:%d%s" % (router.port, path)


def test_session_keeps_its_connection(router, origin, session):
    for n in range(10):
        answer = session.post(url(router, "/answer-prompt"), json={"n": n}, headers={"X-Request-ID": "r-%d" % n}, timeout=30)
        assert answer.text == "ok"
    assert [json.loads(r.body) for r in origin.wait_requests(10, complete=True)] == [{"n": n} for n in range(10)]
    assert [r.head.get("X-Request-ID") for r in origin.requests] == ["r-%d" % n for n in range(10)]


def test_retries_are_the_callers_own(router, origin):
    """3 tries with the same X-Request-ID, as the callers do it: legacy sees exactly as many requests as the caller sends."""
    origin.next(reset, close_silently)
    origin.answers(200, [], b"third time")
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(total=3, backoff_factor=0.01, allowed_methods=None,
                                                               status_forcelist=[502])))
        answer = session.post(url(router), json={"a": 1}, headers={"X-Request-ID": "same"}, timeout=30)
    assert answer.content == b"third time"
    assert [r.head.get("X-Request-ID") for r in origin.requests] == ["same"] * 3


def test_multipart_upload(router, origin, session):
    content = bytes(range(256)) * 4096
    answer = session.post(url(router, "/process"), files={"file": ("a.pdf", content, "application/pdf")}, data={"k": "v"},
                          headers={"Authorization": "Bearer key"}, timeout=60)
    assert answer.status_code == 200
    got = origin.wait_requests(1, complete=True)[0]
    assert got.length == int(got.head.get("Content-Length")) > len(content)
    assert got.sha256 == hashlib.sha256(answer.request.body).hexdigest()


def test_generator_body_is_chunked(router, origin, session):
    answer = session.post(url(router), data=(b"piece %d " % n for n in range(1000)), timeout=60)
    assert answer.status_code == 200
    got = origin.wait_requests(1, complete=True)[0]
    assert got.head.chunked and got.body == b"".join(b"piece %d " % n for n in range(1000))


def test_delete_with_a_body(router, origin, session):
    answer = session.delete(url(router, "/v1/api/container/remove"), json={"container_name": "x"}, timeout=30)
    assert answer.status_code == 200
    assert json.loads(origin.wait_requests(1, complete=True)[0].body) == {"container_name": "x"}


@pytest.mark.heavy
def test_a_hundred_megabytes(router, origin, session):
    body = hashlib.sha256(b"seed").digest() * (100 << 15)
    origin.always(lambda x: x.answer(200, [], body))
    answer = session.post(url(router, "/process"), data=body, timeout=120)
    assert hashlib.sha256(answer.content).hexdigest() == hashlib.sha256(body).hexdigest()
    got = origin.wait_requests(1, complete=True)[0]
    assert (got.length, got.sha256) == (len(body), hashlib.sha256(body).hexdigest())


def test_legacy_error_reads_as_ever(router, origin, session):
    error = {"error": "no such tool", "name": "NotFound", "code": 404, "payload": None}
    origin.answers(404, [("Content-Type", "application/json")], json.dumps(error).encode())
    answer = session.post(url(router), json={}, timeout=30)
    assert answer.status_code == 404 and answer.json() == error


def test_legacy_away_is_an_http_error(start, session):
    from programs import free_port
    router = start.router(configuration.passing("http://127.0.0.1:%d" % free_port()))
    answer = session.post(url(router), json={}, timeout=30)
    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
