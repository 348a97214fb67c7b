"""Sample traffic: what the callers of the old services send, from many users of many organizations, through the router.

Callers know nothing of the router: the same calls, headers and retries as ever. Ends with a table and exit code 1 when a
caller got anything but what it may expect.
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import random
import signal
import sys
import threading
import time
import urllib.parse
import uuid
import zlib

PLATFORM_KEY = "sample-platform-key"
POLLS, POLL_SECONDS = 40, 0.25
local = threading.local()



class Callers:
    def __init__(self, services, pdf, seed):
        self.services = services
        self.pdf = pdf
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.seen = collections.defaultdict(collections.Counter)
        self.took = collections.defaultdict(list)
        self.failures = []

    def send(self, service, method, target, who, body=None, kind="application/json", expect=(200,), label=None):
        user, organization = who
        headers = {"Authorization": "Bearer " + PLATFORM_KEY, "X-Request-ID": str(uuid.uuid4()), "X-User-Id": user,
                   "X-Organization-Id": organization, "Accept-Encoding": "identity", "User-Agent": "sample-traffic"}
        if body is not None:
            headers["Content-Type"] = kind
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        label = label or "%s %s %s" % (service, method, target.split("?")[0])
        started = time.monotonic()
        try:
            status, content = self.exchange(service, method, target, body, headers)
        except (OSError, http.client.HTTPException) as why:
            self.fail(label, "%s: %s" % (type(why).__name__, why))
            return None
        with self.lock:
            self.seen[label][status] += 1
            self.took[label].append(time.monotonic() - started)
        if status not in expect:
            self.fail(label, "%d %s" % (status, content[:300].decode("utf-8", "replace").strip()))
            return None
        return content

    def exchange(self, service, method, target, body, headers):
        """One request on this thread's kept connection to the service."""
        connections = local.__dict__.setdefault("connections", {})
        fresh = service not in connections
        if fresh:
            url = urllib.parse.urlsplit(self.services[service])
            connections[service] = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
        connection = connections[service]
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connections.pop(service).close()
            raise
        return answer.status, content

    def fail(self, label, why):
        with self.lock:
            self.failures.append("%s: %s" % (label, why))

    # --- the calls ---

    def prompt(self, who, operation, extra):
        run = str(uuid.uuid4())
        body = {"run_id": run, "tool_id": "tool-7", "execution_id": str(uuid.uuid4()), "log_events_id": run,
                "file_hash": "9b74c9897bac770ffc029102a200c5de", "file_name": "invoice.pdf",
                "tool_settings": {"chunk_size": 0, "temperature": 0.0}, "custom_data": {"source": "sample"}, **extra}
        self.send("prompt", "POST", operation, who, body)

    def document(self, who):
        boundary = "sample-" + uuid.uuid4().hex
        body = b"".join([
            b'--%s\r\nContent-Disposition: form-data; name="file"; filename="invoice.pdf"\r\n' % boundary.encode(),
            b"Content-Type: application/pdf\r\n\r\n", self.pdf, b"\r\n--%s--\r\n" % boundary.encode()])
        text = self.send("structure", "POST", "/process", who, body, "multipart/form-data; boundary=" + boundary)
        if text is not None and b"Invoice 2024-117" not in text:
            self.fail("structure POST /process", "the text of the document is not in the answer: %r" % text[:200])

    def container(self, who):
        name = "container-" + uuid.uuid4().hex[:12]
        call = {"image_name": "sample/tool", "image_tag": "1.0", "organization_id": who[1], "workflow_id": str(uuid.uuid4()),
                "execution_id": str(uuid.uuid4()), "file_execution_id": str(uuid.uuid4()), "container_name": name,
                "settings": {"lang": "en"}, "envs": {}, "messaging_channel": "channel-1"}
        if self.send("runner", "POST", "/v1/api/container/run", who, call) is None:
            return
        for _ in range(POLLS):
            answer = self.send("runner", "GET", "/v1/api/container/run-status?container_name=" + name, who)
            if answer is None or json.loads(answer)["status"] != "RUNNING":
                break
            time.sleep(POLL_SECONDS)
        self.send("runner", "DELETE", "/v1/api/container/remove", who, {"container_name": name})

    def unified(self, who, document):
        answer = self.send("unified", "POST", "/api/v2/process-document", who, {"input_data": document})
        if answer is not None and json.loads(answer).get("backend_used") not in ("task_abstraction", "legacy_services"):
            self.fail("unified POST /api/v2/process-document", "no backend_used: %r" % answer[:200])

    def one(self, number, who, document):
        outputs = [{"name": "total", "prompt": "What is the total?"}, {"name": "date", "prompt": "Which date?"}]
        calls = [
            ("prompt", lambda: self.prompt(who, "/answer-prompt", {"outputs": outputs})),
            ("prompt", lambda: self.prompt(who, "/single-pass-extraction", {"outputs": outputs})),
            ("prompt", lambda: self.prompt(who, "/extract", {"file_path": "invoice.pdf"})),
            ("prompt", lambda: self.prompt(who, "/answer-prompt", {"outputs": outputs})),
            ("prompt", lambda: self.prompt(who, "/index", {})),
            ("prompt", lambda: self.prompt(who, "/summarize", {"context": "Total: 1229.80, payable within 30 days"})),
            ("structure", lambda: self.document(who)),
            ("runner", lambda: self.send("runner", "GET",
                                         "/v1/api/container/properties?image_name=sample/tool&image_tag=1.0", who)),
            ("prompt", lambda: self.prompt(who, "/answer-prompt", {"outputs": outputs})),
            ("prompt", lambda: self.send("prompt", "GET", "/health", who)),
            ("prompt", lambda: self.send("prompt", "GET", "/no-such-call", who, expect=(404,))),
        ]
        calls = [call for service, call in calls if service in self.services]
        if number % 40 == 7 and "runner" in self.services:
            self.container(who)
        elif number % 8 == 3 and "unified" in self.services:
            self.unified(who, document)
        else:
            calls[number % len(calls)]()

    def without_end(self, users, document, pace):
        """`pace` calls a second, more or less, until somebody ends this program. What fails is printed as it does."""
        number = 0
        while True:
            self.one(number, self.random.choice(users), document)
            number += 1
            for failure in self.failures:
                print("FAILED " + failure, flush=True)
            for kept in (self.failures, self.seen, self.took):
                kept.clear()
            time.sleep(self.random.uniform(0.5, 1.5) / pace)

    def report(self, out):
        print("%-48s %6s  %-22s %9s" % ("what callers saw", "calls", "status", "median"), file=out)
        for label in sorted(self.seen):
            statuses = " ".join("%d×%d" % (status, n) for status, n in sorted(self.seen[label].items()))
            took = sorted(self.took[label])
            print("%-48s %6d  %-22s %6.1f ms" % (label, len(took), statuses, took[len(took) // 2] * 1000), file=out)
        print("%d calls" % sum(len(took) for took in self.took.values()), file=out)
        for failure in self.failures[:20]:
            print("FAILED " + failure, file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", action="append", default=[], metavar="NAME=URL", help="runner, prompt, structure, unified")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--organizations", type=int, default=40)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--pace", type=float, metavar="CALLS", help="so many a second, without end, instead of --requests at once")
    parser.add_argument("--pdf", help="what structure gets")
    parser.add_argument("--document", default="{}", help="input_data of the unified endpoint, JSON")
    arguments = parser.parse_args()
    services = dict(s.split("=", 1) for s in arguments.service)
    if "structure" in services and not arguments.pdf:
        parser.error("structure needs --pdf")
    pdf = b""
    if arguments.pdf:
        with open(arguments.pdf, "rb") as file:
            pdf = file.read()
    callers = Callers(services, pdf, seed=1)
    # Every user belongs to one organization; large ones have more users.
    users = [(user, "org-%02d" % int(arguments.organizations * (zlib.crc32(user.encode()) % 1000 / 1000) ** 2))
             for user in ("user-%03d" % n for n in range(arguments.users))]  # as demo_history.c has them
    document = json.loads(arguments.document)
    if arguments.pace:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        callers.without_end(users, document, arguments.pace)
    with concurrent.futures.ThreadPoolExecutor(arguments.threads) as pool:
        tasks = [pool.submit(callers.one, n, callers.random.choice(users), document) for n in range(arguments.requests)]
        for task in tasks:
            task.result()
    callers.report(sys.stdout)
    return 1 if callers.failures else 0


if __name__ == "__main__":
    sys.exit(main())
