"""The stand-in for Flipt speaks as the real servers did when they were recorded, and so does a real server where one is given.

tests/fixtures/flipt/vN/*.jsonl: one exchange per line. `writes` begins with an empty namespace (v1) or with features_small.json (v2); `reads`
and `auth` need nothing. What a recording cannot repeat is compared by its form: times, revisions and digests; ids stand for each other
one to one. JSON spacing and the order of sets do not count.
"""
import http.client
import json
import os
import re
import subprocess
import urllib.parse

import pytest

from flipt import Refused, StandIn
from flipt_server import REAL_URL, REAL_VERSION
from programs import ROOT, program
from test_flipt import VERSIONS

FIXTURES = os.path.join(ROOT, "tests", "fixtures", "flipt")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
OPAQUE = re.compile(r"(%s|\b[0-9a-f]{40}\b|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)" % UUID)


def exchanges(version, name):
    with open(os.path.join(FIXTURES, "v%d" % version, name + ".jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fixture(version, name):
    with open(os.path.join(FIXTURES, "v%d" % version, name), encoding="utf-8") as file:
        return json.load(file)


def parsed(text):
    """A container in JSON, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, (dict, list)) else None


def in_order(value):
    """A list of strings, as operators on sets have them, sorted; anything else as it is."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


class Replay:
    """Says what was said then to `url`, in the namespace that is there now, and compares the answers."""

    def __init__(self, url, namespace="default", token=None):
        self.url, self.namespace, self.token = urllib.parse.urlsplit(url), namespace, token
        self.now = {}  # what stands for an id or a revision of the recording

    def ask(self, method, path, body, headers):
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        connection.request(method, self.url.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        result = answer.status, answer.headers, answer.read().decode()
        connection.close()
        return result

    def run(self, exchange):
        def today(text):
            return text and OPAQUE.sub(lambda m: self.now.get(m.group(), m.group()), text)
        path = today(exchange["path"]).replace("/namespaces/default", "/namespaces/" + self.namespace)
        path = path.replace("/namespace/default", "/namespace/" + self.namespace)
        headers = dict(exchange["request_headers"])
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = "Bearer " + self.token
        body = today(exchange["request_body"])
        status, fields, text = self.ask(exchange["method"], path, body.encode() if body is not None else None, headers)
        if status == 409 != exchange["status"]:
            self.catch_up(exchange, text)
            self.run(exchange)
            return
        what = "%s %s (%s)" % (exchange["method"], path, exchange["name"])
        assert status == exchange["status"], "%s: %d %s" % (what, status, text)
        for name, value in exchange["response_headers"].items():
            self.compare_text(value, fields.get(name), "%s: %s" % (what, name))
        then = exchange["response_body"]
        if parsed(then) is None:
            assert text == then, what
        else:
            self.compare(json.loads(then), json.loads(text), what)

    def catch_up(self, exchange, text):
        """Others change other namespaces of a real server, and the revision is of all: their last one stands for what was sent."""
        then = OPAQUE.search(json.loads(exchange["request_body"])["revision"] if exchange["request_body"] else exchange["path"])
        self.now[then.group()] = re.search(r'now "([0-9a-f]{40})"', text).group(1)

    def compare(self, then, now, where):
        assert type(then) is type(now) or {type(then), type(now)} == {int, float}, "%s: %r, then %r" % (where, now, then)
        if isinstance(then, dict):
            assert set(then) == set(now), "%s: members %s, then %s" % (where, sorted(now), sorted(then))
            for key in then:
                self.compare(then[key], now[key], "%s/%s" % (where, key))
        elif isinstance(then, list):
            if where.endswith("/items"):  # namespaces: others have theirs
                now = [item for item in now if item["key"] in [known["key"] for known in then]]
            assert len(then) == len(now), "%s: %r, then %r" % (where, now, then)
            if where.rsplit("/", 1)[-1] in ("flags", "segments", "resources") and then and isinstance(then[0], dict):
                then, now = (sorted(items, key=lambda item: item["key"]) for items in (then, now))
            for n, (a, b) in enumerate(zip(then, now)):
                self.compare(a, b, "%s/%d" % (where, n))
        elif isinstance(then, str) and parsed(then) is not None:
            assert parsed(now) is not None, "%s: %r, then %r" % (where, now, then)
            self.compare(in_order(parsed(then)), in_order(parsed(now)), where)
        elif isinstance(then, str):
            self.compare_text(then, now, where)
        elif isinstance(then, bool) or then is None:
            assert then is now, "%s: %r, then %r" % (where, now, then)
        else:  # an attachment goes through doubles
            assert float(then) == float(now), "%s: %r, then %r" % (where, now, then)

    def compare_text(self, then, now, where):
        if where.endswith(("/namespaceKey", "/namespace/key")) and then == "default":
            assert now == self.namespace, where
            return
        a, b = OPAQUE.split(then), OPAQUE.split(now or "")
        plain = [part.replace("default/", self.namespace + "/") for part in a[::2]]
        assert plain == b[::2], "%s: %r, then %r" % (where, now, then)
        for old, new in zip(a[1::2], b[1::2]):
            assert len(old) == len(new) or "T" in old, "%s: %r, then %r" % (where, now, then)
            if len(old) == 36:
                assert self.now.setdefault(old, new) == new, "%s: %s is another id now" % (where, old)
            elif len(old) == 40:
                self.now[old] = new


@pytest.fixture(params=VERSIONS)
def server(request, serve):
    return serve(request.param)


def replay_on(server):
    return Replay(server.url, server.namespace, server.token)


def test_what_is_changed_answers_as_recorded(server):
    if server.version == 2:
        server.load(fixture(2, "features_small.json"))
    replay = replay_on(server)
    for exchange in exchanges(server.version, "writes"):
        if server.standin is None and exchange["path"] in ("/api/v2/environments", "/api/v2/environments/default/namespaces"):
            continue  # a real server has others, and describes them
        server.between.read_only = exchange["name"] == "readonly_put"
        replay.run(exchange)


def test_what_is_not_there_answers_as_recorded(server):
    replay = replay_on(server)
    for exchange in exchanges(server.version, "reads"):
        if exchange["name"] == "snap_v1_unknown_ns" and server.api.serves_lost_namespaces():
            continue
        replay.run(exchange)


@pytest.mark.parametrize("version", VERSIONS)
def test_access_answers_as_recorded(version):
    """A real server is asked only where it wants a token."""
    token = os.environ.get("FLIPT_CLIENT_TOKEN") if version == REAL_VERSION else None
    standin = None if token else StandIn(version, "test-client-token")
    replay = Replay(REAL_URL if token else standin.url)
    for exchange in exchanges(version, "auth"):
        if token and exchange["status"] == 200 and "namespaces/default" in exchange["path"] + "/":
            continue  # a real server has what it has
        if token and exchange["request_headers"].get("Authorization") == "Bearer test-client-token":
            exchange["request_headers"]["Authorization"] = "Bearer " + token
        replay.run(exchange)
    if standin:
        standin.stop()


def test_a_stream_tells_as_recorded(serve):
    server = serve(2)
    with open(os.path.join(FIXTURES, "v2", "stream_json.raw"), encoding="utf-8") as file:
        head, _, rest = file.read().partition("\n\n")
    messages = [json.loads(line) for line in rest.splitlines() if line.startswith("{")]
    features = fixture(2, "features_small.json")
    server.load(features)
    connection = http.client.HTTPConnection("127.0.0.1", server.between.port, timeout=30)
    connection.request("GET", "/client/v2/environments/default/namespaces/%s/stream" % server.namespace,
                       headers={"Authorization": "Bearer " + server.token} if server.token else {})
    answer = connection.getresponse()
    for line in head.splitlines()[1:]:
        name, _, value = line.partition(": ")
        assert name == "Date" or answer.headers[name] == value
    replay_on(server).compare(messages[0], json.loads(answer.readline()), "the first message")
    flag = next(f for f in features["flags"] if f["key"] == "hatchet_backend_enabled")
    flag["rollouts"][1]["threshold"]["percentage"] = 40
    server.set_flag(flag)
    replay_on(server).compare(messages[1], json.loads(answer.readline()), "after a change")
    connection.close()


# --- the whole corpus ---------------------------------------------------------------------------------------------------

def features_of(snapshot):
    """A features dict that leads to this snapshot."""
    segments, none = {}, ("", "null") if "digest" in snapshot else ("",)  # v2 says null where there is no attachment

    def keys(rule):
        for s in rule["segments"]:
            constraints = [{**c, "type": c["type"].replace("_CONSTRAINT", "")} for c in s["constraints"]]
            segments[s["key"]] = {"key": s["key"], "matchType": s["matchType"].replace("_SEGMENT", ""), "constraints": constraints}
        return {"segments": [s["key"] for s in rule["segments"]], "segmentOperator": rule["segmentOperator"]}

    def flag(of):
        variants, rules = {}, {}
        default = of.get("defaultVariant")
        told = [(d["variantKey"], d["variantAttachment"]) for r in of["rules"] for d in r["distributions"]]
        for key, attachment in told + ([(default["key"], default["attachment"])] if default else []):
            variants[key] = {"key": key, "name": key}
            if attachment not in none:
                variants[key]["attachment"] = json.loads(attachment)
        if default:
            variants[default["key"]]["default"] = True
        for r in of["rules"]:  # v1 has a rule as many times as it has segments
            rules[r["id"]] = {**keys(r), "distributions": [{"variant": d["variantKey"], "rollout": d["rollout"]}
                                                           for d in r["distributions"]]}
        rollouts = [{"segment": {**keys(r["segment"]), "value": r["segment"]["value"]}} if "segment" in r
                    else {"threshold": r["threshold"]} for r in of["rollouts"]]
        return {"key": of["key"], "name": of["name"] or of["key"], "description": of["description"], "type": of["type"],
                "enabled": of["enabled"], "variants": list(variants.values()), "rules": list(rules.values()), "rollouts": rollouts}
    flags = [flag(f) for f in snapshot["flags"]]
    return {"flags": flags, "segments": list(segments.values())}


def load_what_is_accepted(server, features):
    """The keys of the flags that are there then: a real server refuses through its API some of what it serves from a file."""
    refused, accepted = set(), set()
    for segment in features["segments"]:
        try:
            server.api.set_segment(segment)
        except Refused:
            refused.add(segment["key"])
    for flag in features["flags"]:
        used = [key for r in flag["rules"] + [r["segment"] for r in flag["rollouts"] if "segment" in r] for key in r["segments"]]
        try:
            if not refused.intersection(used):
                server.set_flag(flag)
                accepted.add(flag["key"])
        except Refused:
            server.delete_flag(flag["key"])  # v1 may have taken a part of it
    return accepted


def answers_of(server, lines):
    """What the server says now to these lines of the corpus, in the corpus' words."""
    for at in range(0, len(lines), 200):
        asked = [{"namespaceKey": server.namespace, "flagKey": line["flag"], "entityId": line["entity_id"],
                  "context": line["context"]} for line in lines[at:at + 200]]
        said = server.api.call("POST", "/evaluate/v1/batch", {"requests": asked})["responses"]
        for one in said:
            v, b = one.get("variantResponse"), one.get("booleanResponse")
            if v:
                yield {"match": v["match"], "variant_key": v["variantKey"], "reason": v["reason"],
                       "segment_keys": v["segmentKeys"], "attachment": v["variantAttachment"]}
            else:
                yield {"enabled": b["enabled"], "reason": b["reason"], "segment_keys": b["segmentKeys"]}


def comparable(result):
    """Attachments as what they mean; their numbers go through doubles on the way."""
    attachment = result.get("attachment")
    if attachment and parsed(attachment) is not None:
        attachment = json.loads(attachment, parse_int=float)
    return {**result, "segment_keys": sorted(result["segment_keys"]), "attachment": attachment}


@pytest.mark.timeout(900)
def test_the_corpus_has_the_recorded_snapshot_and_evaluates_as_recorded(server, start, tmp_path):
    """Loaded through the API, the corpus' flags lead to the snapshot that was recorded; evaluated in process from that, to what real servers
    said then; and to what a real one says now."""
    recorded = fixture(server.version, "snapshot.json")
    accepted = load_what_is_accepted(server, features_of(recorded))
    headers = {"X-Flipt-Accept-Server-Version": "1.47.0", **({"Authorization": "Bearer " + server.token} if server.token else {})}
    replay = replay_on(server)
    status, _, text = replay.ask("GET", "/internal/v1/evaluation/snapshot/namespace/" + server.namespace, None, headers)
    assert status == 200
    now = {flag["key"]: flag for flag in json.loads(text)["flags"]}
    assert set(now) == accepted
    if server.standin:
        replay.compare(recorded, json.loads(text), "snapshot")
        same = accepted
    else:  # which also writes some sets in its own way
        same = {f["key"] for f in recorded["flags"] if f["key"] in accepted and is_same(replay, f, now[f["key"]])}
        assert len(same) > len(recorded["flags"]) / 2

    lines = [line for line in exchanges(server.version, "evaluations") if line["flag"] in accepted]
    path = tmp_path / "snapshot.json"
    path.write_text(text, encoding="utf-8")
    told = subprocess.run([program("migration-router"), "evaluate", "--snapshot", str(path), *(["--v1"] if server.version == 1 else [])],
                          input="".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), capture_output=True,
                          text=True, timeout=60, check=True, encoding="utf-8")
    ours = [json.loads(line)["result"] for line in told.stdout.rstrip("\n").split("\n")]
    said_now = list(answers_of(server, lines)) if server.standin is None else [line["result"] for line in lines]
    assert len(ours) == len(said_now) == len(lines)
    for line, mine, theirs in zip(lines, ours, said_now):
        if server.version == 1 and line["flag"] == "v_no_segments":
            continue  # a rule over no segments: v1 leaves it out of its snapshot, but evaluates it
        assert comparable(mine) == comparable(theirs), line
        assert line["flag"] not in same or comparable(mine) == comparable(line["result"]), line


def is_same(replay, then, now):
    try:
        replay.compare(then, now, then["key"])
    except AssertionError:
        return False
    return True
