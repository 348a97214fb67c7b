"""Many Celery workers as one thread plays them: for what does not fit on a test's machine as real ones."""
import base64
import json
import threading
import uuid


class Choir:
    """Each has a connection of its own, so that Redis counts it; all register the same tasks on the default queue."""

    def __init__(self, server, n, tasks):
        self.client = server.client()
        self.ears = [server.client().pubsub(ignore_subscribe_messages=True) for _ in range(n)]
        self.answers = {"registered": tasks, "active_queues": [{"name": "celery"}], "ping": {"ok": "pong"}, "conf": {}, "report": {"ok": ""}}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._sing, daemon=True)

    def __enter__(self):
        for ear in self.ears:
            ear.subscribe("/0.celery.pidbox")
            ear.get_message(timeout=10)  # the confirmation, which is passed over
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()
        for ear in self.ears:
            ear.close()

    def _sing(self):
        while not self.ending.is_set():
            heard = self.ears[0].get_message(timeout=0.1)
            if heard:
                self._answer(json.loads(base64.b64decode(json.loads(heard["data"])["body"])))

    def _answer(self, question):
        to = question["reply_to"]
        # The default exchange takes the routing key for the queue's name.
        key = "%s.%s" % (to["routing_key"], to["exchange"]) if to["exchange"] else to["routing_key"]
        pipe = self.client.pipeline(transaction=False)
        for n in range(len(self.ears)):
            body = json.dumps({"w%d@choir" % n: self.answers[question["method"]]})
            pipe.lpush(key, json.dumps(
                {"body": base64.b64encode(body.encode()).decode(), "content-encoding": "utf-8", "content-type": "application/json",
                 "headers": {"ticket": question["ticket"], "clock": 1},
                 "properties": {"body_encoding": "base64", "delivery_tag": str(uuid.uuid4())}}))
        pipe.execute()
