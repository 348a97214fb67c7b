"""The unified endpoint: a workflow over a real PDF on the task side, the runner's answer wrapped on the legacy side."""
import base64
import json
import os
import subprocess
import sys

import pytest

import configuration as c
from http_text import wait_until
from origin import reset
from programs import ROOT
from raw import ask, request

TEXT = "Invoice 2024-117\nTotal: 1229.80 (net)\n"


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    path = tmp_path_factory.mktemp("pdf") / "invoice.pdf"
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "sample", "pdf.py"), str(path)], input=TEXT.encode(), check=True)
    return path.read_bytes()


def config(origin):
    operation = c.operation("POST /api/v2/process-document", {
        "workflow": "document-processing-v2", "args": [{"$ref": "body:/input_data"}], "timeout": "60s",
        "response": [
            {"when": {"ref": "task:status", "equals": "completed"},
             "body": {"workflow_id": {"$ref": "task:id"}, "status": {"$ref": "task:status"}, "results": {"$ref": "result:"},
                      "backend_used": "task_abstraction"}},
            {"status": 500, "body": {"error": {"$ref": "task:error"}, "fallback_available": True}}]},
        context={"api_version": "v2"}, unified=True,
        legacy={"method": "POST", "path": "/v1/api/container/run",
                "body": {"container_name": {"$ref": "body:/input_data/name"}, "organization_id": {"$ref": "identity:organization"}},
                "response": [{"when": {"ref": "result:/status", "exists": True},
                              "body": {"task_id": {"$ref": "body:/input_data/name"}, "status": {"$ref": "result:/status"},
                                       "results": {"$ref": "result:/result"}, "backend_used": "legacy_services"}},
                             {"status": 500, "body": {"error": {"$ref": "result:/error"}, "fallback_available": True}}]},
        error={"status": 500, "body": {"error": {"$ref": "error:detail"}, "fallback_available": True}})
    return c.router({"unified": c.service(origin, {"process": operation})}, backends=c.embedded(), identity=c.IDENTITY)


@pytest.fixture
def world(start):
    """A router with the tasks file that is shipped, its worker, the runner, and a language model that is none."""
    runner, model = start.origin(), start.origin()
    model.always(lambda x: x.answer(200, [("Content-Type", "application/json")], json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": "it says: " + json.loads(x.request.body)["messages"][-1]["content"]}}],
         "usage": {"total_tokens": len(json.loads(x.request.body)["messages"][0]["content"])}}
    ).encode()))
    folder = str(start.folder())
    os.symlink(os.path.join(ROOT, "config", "tasks.yml"), os.path.join(folder, "tasks.yml"))
    router = start.router(config(runner), c.features(c.boolean("task_abstraction_enabled", True)), folder=folder)
    os.mkdir(os.path.join(folder, "documents"))
    start.worker(router, env={"LLM_URL": model.url + "/v1", "DOCUMENTS_FOLDER": os.path.join(folder, "documents")})
    return router, runner, model


def process(router, input_data):
    answer = ask(router.port, request("POST", "/api/v2/process-document", [("X-User-Id", "u"), ("X-Organization-Id", "org-1")],
                                      json.dumps({"input_data": input_data}).encode()))
    return answer.status, json.loads(answer.body)


def legacy_for_everybody(router):
    router.write_flags(c.features(c.boolean("task_abstraction_enabled", False)))
    router.wait_event("flags_published", count=2)


def test_task_side_reads_a_real_pdf(world, pdf):
    router, runner, model = world
    status, told = process(router, {"content_base64": base64.b64encode(pdf).decode()})
    assert status == 200 and set(told) == {"workflow_id", "status", "results", "backend_used"}
    assert (told["status"], told["backend_used"]) == ("completed", "task_abstraction")
    said = told["results"]["processed_results"]["summary"]
    assert said["response"].startswith("it says: ") and "Invoice 2024-117" in said["response"] and "1229.80 (net)" in said["response"]
    assert runner.requests == [] and len(model.requests) == 1
    assert router.wait_outcomes(1)[0]["task_id"] == told["workflow_id"]


def test_the_quick_starts_workflow_asks_each_prompt_about_the_document_at_a_path(world, pdf):
    router, _, model = world
    with open(os.path.join(router.folder, "documents", "invoice.pdf"), "wb") as file:
        file.write(pdf)
    status, told = process(router, {"document_path": "invoice.pdf", "llm_adapter_id": "gpt-x", "outputs": [
        {"name": "total", "prompt": "The total?"}, {"name": "number", "prompt": "Its number"}]})
    assert status == 200, told
    results = told["results"]["processed_results"]
    assert list(told["results"]) == ["processed_results"] and list(results) == ["total", "number"]
    for name, tokens in (("total", 10), ("number", 10)):
        assert set(results[name]) == {"response", "tokens_used"} and results[name]["tokens_used"] == tokens
        assert "Invoice 2024-117" in results[name]["response"]
    asked = [json.loads(r.body) for r in model.requests]
    assert sorted(a["messages"][0]["content"] for a in asked) == ["Its number", "The total?"] and {a["model"] for a in asked} == {"gpt-x"}


def test_a_document_outside_of_its_folder_is_refused(world, pdf):
    router, _, model = world
    documents = os.path.join(router.folder, "documents")
    secret = os.path.join(router.folder, "secret.pdf")
    with open(secret, "wb") as file:
        file.write(pdf)
    os.symlink(secret, os.path.join(documents, "link.pdf"))
    os.symlink(router.folder, os.path.join(documents, "up"))
    os.mkfifo(os.path.join(documents, "pipe"))
    for path in ("../secret.pdf", secret, documents + "/../secret.pdf", "link.pdf", "up/secret.pdf", "pipe", "", "/", ".", "absent.pdf",
                 "documents", documents + "x/secret.pdf", "a\0b"):
        status, told = process(router, {"document_path": path})
        assert (status, told["error"]) == (500, 'step "extract-text": args:/0/document_path: there is no such document'), path
    status, told = process(router, {"document_path": "x.pdf", "content_base64": ""})
    assert status == 500 and "the call has both args:/0/content_base64 and args:/0/document_path" in told["error"]
    status, told = process(router, {})
    assert status == 500 and "the call has no string at args:/0/content_base64, nor at args:/0/document_path" in told["error"]
    assert model.requests == []


def test_task_side_that_fails_says_so_and_that_there_is_a_fallback(world):
    router, runner, _ = world
    status, told = process(router, {"content_base64": base64.b64encode(b"this is no PDF").decode()})
    assert status == 500 and set(told) == {"error", "fallback_available"} and told["fallback_available"] is True and told["error"]
    assert runner.requests == []


def test_legacy_side_wraps_the_runners_answer(world):
    router, runner, _ = world
    legacy_for_everybody(router)
    runner.answers(200, [("Content-Type", "application/json")], b'{"type": "RESULT", "result": {"n": 1.0}, "status": "RUNNING"}')
    answer = wait_until(lambda: (lambda a: a if a[1].get("backend_used") == "legacy_services" else None)(
        process(router, {"name": "job-7"})), "the flag's change to take effect")
    assert answer == (200, {"task_id": "job-7", "status": "RUNNING", "results": {"n": 1.0}, "backend_used": "legacy_services"})
    got = runner.requests[-1]
    assert (got.method, got.target) == ("POST", "/v1/api/container/run")
    assert json.loads(got.body) == {"container_name": "job-7", "organization_id": "org-1"}
    assert got.head.get("Content-Length") == str(len(got.body))


def test_errors_have_the_endpoints_own_shape(world):
    router, runner, _ = world
    legacy_for_everybody(router)
    runner.always(reset)
    status, told = wait_until(lambda: (lambda a: a if runner.requests else None)(process(router, {"name": "x"})), "legacy to be asked")
    assert status == 500 and set(told) == {"error", "fallback_available"} and told["fallback_available"] is True


def test_an_error_of_the_runner_is_told_in_the_endpoints_shape(world):
    router, runner, _ = world
    legacy_for_everybody(router)
    runner.answers(404, [("Content-Type", "application/json")], b'{"error": "no such image", "name": "NotFound", "code": 404, "payload": null}')
    status, told = wait_until(lambda: (lambda a: a if runner.requests else None)(process(router, {"name": "x"})), "legacy to be asked")
    assert (status, told) == (500, {"error": "no such image", "fallback_available": True})
