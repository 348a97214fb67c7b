"""Sample runner: starts "containers" that run for a while, and tells how they are. Nothing is really started."""
import os
import threading
import time

from service import Problem, serve

RUN_SECONDS = float(os.environ.get("SAMPLE_RUN_SECONDS", "2"))  # how long a container runs before it has exited
NEEDED = ("image_name", "image_tag", "organization_id", "workflow_id", "execution_id", "file_execution_id", "container_name")
ICON = (b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16">'
        b'<rect x="2" y="2" width="12" height="12" fill="#456"/></svg>')

lock = threading.Lock()
containers = {}  # name -> when it was started; RUNNING until RUN_SECONDS later, then EXITED, until it is removed


def run(request):
    call = request.json()
    missing = [name for name in NEEDED if not call.get(name)]
    if missing:
        raise Problem(400, "Missing in the request: %s" % ", ".join(missing))
    with lock:
        containers.setdefault(call["container_name"], time.monotonic())
    return {"type": "RESULT", "result": None, "status": "RUNNING"}


def run_status(request):
    with lock:
        started = containers.get(named_container(request.query))
    if started is None:
        return {"status": "NOT_FOUND"}
    return {"status": "RUNNING" if time.monotonic() - started < RUN_SECONDS else "EXITED"}


def remove(request):
    with lock:
        return {"status": "SUCCESS" if containers.pop(named_container(request.json()), None) else "NOT_FOUND"}


def named_container(values):
    if not values.get("container_name"):
        raise Problem(400, "Missing in the request: container_name")
    return values["container_name"]


def image(request):
    if not request.query.get("image_name"):
        raise Problem(400, "Missing in the request: image_name")
    return {"image_name": request.query["image_name"], "image_tag": request.query.get("image_tag", "latest")}


def properties(request):
    return {**image(request), "schemaVersion": "0.0.1", "displayName": "Sample tool", "functionName": "sample",
            "restrictions": {"maxFileSize": "100MB", "allowedFileTypes": ["application/pdf"]}}


def spec(request):
    return {**image(request), "title": "Sample tool", "type": "object", "required": [], "properties": {}}


def variables(request):
    return {**image(request), "title": "Variables of the tool", "type": "object", "properties": {}}


def icon(request):
    image(request)
    return "image/svg+xml", ICON


if __name__ == "__main__":
    serve({
        ("POST", "/v1/api/container/run"): run,
        ("GET", "/v1/api/container/run-status"): run_status,
        ("DELETE", "/v1/api/container/remove"): remove,
        ("GET", "/v1/api/container/properties"): properties,
        ("GET", "/v1/api/container/spec"): spec,
        ("GET", "/v1/api/container/variables"): variables,
        ("GET", "/v1/api/container/icon"): icon,
        ("GET", "/v1/api/health"): lambda request: "OK",
    }, "sample-runner")
