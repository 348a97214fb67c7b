"""A Flipt server for tests, and the client that drives it or a real one through Flipt's own API.

    server = StandIn(version=2); flipt = Flipt(server.url, 2); flipt.load(features)      # a features dict (configuration.py)

No package registry ships a Flipt server, so the stand-in answers in the shapes recorded from v2 and v1 (../shared/protocols/flipt.md),
and can be wrong on command: `server.fault` is one of FAULTS. What the client does works on a real
server as well.
"""
import copy
import hashlib
import http.client
import json
import random
import socket
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("hang", "half", "half_json", "half_chunked", "500", "garbage", "hole", "gone", "empty", "redirect_loop")
TIME = "2026-11-21T00:15:10.746961Z"


# --- the client --------------------------------------------------------------------------------------------------------

class Refused(Exception):
    def __init__(self, status, body):
        super().__init__("%d %s" % (status, body[:300]))
        self.status = status


class Flipt:
    """Flipt's management API: what tests change, on the stand-in as on a real server."""

    def __init__(self, url, version, token=None, namespace="default"):
        self.url, self.version, self.token, self.namespace = url, version, token, namespace
        self.v2 = "/api/v2/environments/default/namespaces/%s/resources" % namespace
        self.v1 = "/api/v1/namespaces/%s" % namespace

    def call(self, method, path, body=None, statuses=(200,)):
        where = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        connection.request(method, where.path.rstrip("/") + path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status not in statuses:
            raise Refused(answer.status, text)
        return json.loads(text) if text.strip() and answer.status == 200 else None

    def load(self, features):
        """The namespace holds exactly these flags and segments afterwards."""
        (self._load_v2 if self.version == 2 else self._load_v1)(features)

    def set_flag(self, flag):
        """Replaces one flag, given in the shape of the features file, leaving the others alone."""
        if self.version == 2:
            self._put_v2("flipt.core.Flag", flag_payload(flag))
        else:
            self.call("DELETE", self.v1 + "/flags/" + flag["key"], statuses=(200, 404))
            self._create_flag_v1(flag_payload(flag))

    def delete_flag(self, key):
        if self.version == 2:
            self._delete_v2("flipt.core.Flag", key)
        else:
            self.call("DELETE", self.v1 + "/flags/" + key, statuses=(200, 404))

    # v2
    def _list_v2(self, kind):
        return self.call("GET", "%s/%s" % (self.v2, kind))

    def _put_v2(self, kind, payload):
        there = self._list_v2(kind)
        known = any(r["key"] == payload["key"] for r in there["resources"])
        self.call("PUT" if known else "POST", self.v2,
                  {"key": payload["key"], "payload": {"@type": kind, **payload}, "revision": there["revision"]})

    def _delete_v2(self, kind, key):
        self.call("DELETE", "%s/%s/%s?revision=%s" % (self.v2, kind, key, self._list_v2(kind)["revision"]))

    def _load_v2(self, features):
        for segment in features.get("segments", ()):
            self._put_v2("flipt.core.Segment", segment_payload(segment))
        for flag in features["flags"]:
            self._put_v2("flipt.core.Flag", flag_payload(flag))
        for kind, part in (("flipt.core.Flag", "flags"), ("flipt.core.Segment", "segments")):
            wanted = {item["key"] for item in features.get(part, ())}
            for resource in self._list_v2(kind)["resources"]:
                if resource["key"] not in wanted:
                    self._delete_v2(kind, resource["key"])

    # v1
    def _load_v1(self, features):
        for flag in self.call("GET", self.v1 + "/flags")["flags"]:
            self.call("DELETE", self.v1 + "/flags/" + flag["key"])
        for segment in self.call("GET", self.v1 + "/segments")["segments"]:
            self.call("DELETE", self.v1 + "/segments/" + segment["key"])
        for segment in map(segment_payload, features.get("segments", ())):
            self.call("POST", self.v1 + "/segments", {k: segment[k] for k in ("key", "name", "matchType")})
            for constraint in segment["constraints"]:
                self.call("POST", "%s/segments/%s/constraints" % (self.v1, segment["key"]), constraint)
        for flag in features["flags"]:
            self._create_flag_v1(flag_payload(flag))

    def _create_flag_v1(self, flag):
        self.call("POST", self.v1 + "/flags", {k: flag[k] for k in ("key", "name", "type", "enabled", "description")})
        of = "%s/flags/%s" % (self.v1, flag["key"])
        ids = {}
        for variant in flag["variants"]:
            body = {"key": variant["key"], "name": variant["name"]}
            if "attachment" in variant:
                body["attachment"] = json.dumps(variant["attachment"])
            ids[variant["key"]] = self.call("POST", of + "/variants", body)["id"]
        for rank, rule in enumerate(flag["rules"], 1):
            made = self.call("POST", of + "/rules", {"segmentKeys": rule["segments"], "rank": rank,
                                                     "segmentOperator": rule["segmentOperator"]})
            for d in rule["distributions"]:
                self.call("POST", "%s/rules/%s/distributions" % (of, made["id"]),
                          {"variantId": ids[d["variant"]], "rollout": d["rollout"]})
        for rank, rollout in enumerate(flag["rollouts"], 1):
            body = {"rank": rank}
            if "threshold" in rollout:
                body["threshold"] = rollout["threshold"]
            else:
                body["segment"] = {"segmentKeys": rollout["segment"]["segments"], "value": rollout["segment"]["value"],
                                   "segmentOperator": rollout["segment"]["segmentOperator"]}
            self.call("POST", of + "/rollouts", body)


def flag_payload(flag):
    """A flag of a features file as v2's resource."""
    def segments(of):
        of = {"key": of} if isinstance(of, str) else of
        keys = of.get("segments") or of.get("keys") or [of["key"]]
        return {"segmentOperator": of.get("operator") or of.get("segmentOperator") or "OR_SEGMENT_OPERATOR", "segments": keys}
    rules = [{**segments(r["segment"] if "segment" in r else r), "distributions": copy.deepcopy(r.get("distributions", []))}
             for r in flag.get("rules", ())]
    rollouts = []
    for r in flag.get("rollouts", ()):
        if "threshold" in r:
            rollouts.append({"type": "THRESHOLD_ROLLOUT_TYPE", "description": "", "threshold": dict(r["threshold"])})
        else:
            rollouts.append({"type": "SEGMENT_ROLLOUT_TYPE", "description": "",
                             "segment": {"value": r["segment"]["value"], **segments(r["segment"])}})
    variants = [{"key": v["key"], "name": v.get("name", ""), "description": "",
                 **({"attachment": v["attachment"]} if "attachment" in v else {})} for v in flag.get("variants", ())]
    return {"key": flag["key"], "type": flag["type"], "name": flag.get("name") or flag["key"],
            "description": flag.get("description", ""), "enabled": flag["enabled"], "variants": variants, "rules": rules,
            "rollouts": rollouts}


def segment_payload(segment):
    constraints = [{"type": c["type"], "property": c["property"], "operator": c["operator"], "value": c.get("value", ""),
                    "description": ""} for c in segment.get("constraints", ())]
    return {"key": segment["key"], "matchType": segment.get("match_type") or segment.get("matchType", "ALL_MATCH_TYPE"),
            "name": segment.get("name") or segment["key"], "description": "", "constraints": constraints}


# --- the stand-in ------------------------------------------------------------------------------------------------------

def spaced(value):
    """JSON with Flipt's habit of putting blanks where it likes: nobody may compare bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(random.choice([",", ", "]), random.choice([":", ":  "])))


class StandIn:
    """A server of one environment and some namespaces. `version` may be changed while it runs (an upgrade)."""

    def __init__(self, version=2, token=None, tls=None):
        self.version, self.token, self.tls = version, token, tls
        self.namespaces = {"default": {"flags": {}, "segments": {}}}
        self.fault = None       # of snapshots and streams
        self.streams_fail = False
        self.read_only = False
        self.conflicts = 0      # so many PUTs meet a newer revision
        self.writes = []        # (method, path, body) of every change, in order
        self.polls = []         # headers of every snapshot request
        self.streams = 0        # open ones
        self.revision = hashlib.sha1(b"0").hexdigest()
        self.changed = threading.Condition()
        self.released = threading.Event()
        self.port = 0
        self.start()

    def start(self):
        """Listens, again on the same port after stop()."""
        self.closing = False
        self.socks = set()
        self.released.clear()
        handler = type("Handler", (Handler,), {"standin": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.request_queue_size = 128
        self.server.server_bind()
        self.server.server_activate()
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = "%s://localhost:%d" % ("https" if self.tls else "http", self.port)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self):
        """Refuses connections, and cuts those there are."""
        if self.closing:
            return
        self.closing = True
        self.released.set()
        with self.changed:
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.drop()
        self.thread.join()

    def drop(self):
        for sock in list(self.socks):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def break_with(self, fault):
        """From now on snapshots and streams are wrong in this way; streams that are open end."""
        assert fault is None or fault in FAULTS
        self.released.set()
        self.released = threading.Event()
        with self.changed:
            self.fault = fault
            self.changed.notify_all()
        if fault:
            self.drop()

    # --- state ---

    def touch(self):
        with self.changed:
            self.revision = hashlib.sha1(self.revision.encode() + spaced(self.namespaces).encode()).hexdigest()
            self.changed.notify_all()

    def wait_stream(self, n=1, patience=30):
        with self.changed:
            assert self.changed.wait_for(lambda: self.streams >= n, patience), "%d streams are open" % self.streams

    def wait_polls(self, n, patience=30):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.polls) >= n, patience), "%d polls came" % len(self.polls)

    def snapshot(self, namespace):
        """(digest, document) or None."""
        space = self.namespaces.get(namespace)
        if space is None or self.fault == "gone":
            return None
        flags = [] if self.fault == "empty" else [self.snapshot_flag(space, f) for f in space["flags"].values()]
        document = {"namespace": {"key": namespace}, "flags": flags}
        digest = hashlib.sha1(b"%d" % self.version + json.dumps(document, sort_keys=True).encode()).hexdigest()
        if self.fault == "hole":
            digest = digest[:32]
        if self.version == 2:
            document["digest"] = digest
        return digest, document

    def snapshot_flag(self, space, flag):
        def segments(keys):
            shown = []
            for key in keys:
                s = space["segments"].get(key)
                if s is None or self.fault == "hole":
                    continue
                shown.append({"key": key, "name": "", "description": "",
                              "matchType": s["matchType"].replace("MATCH", "SEGMENT_MATCH"),
                              "constraints": [{"type": c["type"].replace("_COMPARISON", "_CONSTRAINT_COMPARISON"),
                                               "property": c["property"], "operator": c["operator"], "value": c["value"]}
                                              for c in s["constraints"]]})
            return shown
        rules = []
        for rank, rule in enumerate(flag["rules"], 1):
            attached = {v["key"]: json.dumps(v["attachment"]) if "attachment" in v else "null" for v in flag["variants"]}
            rules.append({"id": rule["id"], "segments": segments(rule["segments"]), "rank": rank,
                          "segmentOperator": rule["segmentOperator"],
                          "distributions": [{"ruleId": rule["id"], "variantKey": d["variant"],
                                             "variantAttachment": attached.get(d["variant"], "null"), "rollout": d["rollout"]}
                                            for d in rule["distributions"]]})
        rollouts = []
        for rank, r in enumerate(flag["rollouts"], 1):
            if "threshold" in r:
                rollouts.append({"type": r["type"], "rank": rank, "threshold": r["threshold"]})
            else:
                rollouts.append({"type": r["type"], "rank": rank,
                                 "segment": {"value": r["segment"]["value"], "segmentOperator": r["segment"]["segmentOperator"],
                                             "segments": segments(r["segment"]["segments"])}})
        return {"key": flag["key"], "name": "", "description": "", "enabled": flag["enabled"], "type": flag["type"],
                "createdAt": TIME, "updatedAt": TIME, "rules": rules, "rollouts": rollouts}


def with_ids(flag):
    """Rules, rollouts, variants and distributions have ids inside; v1 shows them, v2 does not."""
    for part in ("variants", "rules", "rollouts"):
        for item in flag.setdefault(part, []):
            item.setdefault("id", str(uuid.uuid4()))
            for d in item.get("distributions", ()):
                d.setdefault("id", str(uuid.uuid4()))
    return flag


def without_ids(value):
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k != "id"}
    return [without_ids(v) for v in value] if isinstance(value, list) else value


class Wrong(Exception):
    """An error answer: HTTP status, gRPC code, message."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


NO_PATH = Wrong(404, None, "404 page not found\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin = None

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.standin.socks.add(self.connection)

    def finish(self):
        self.standin.socks.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the peer, or stop(), closed the connection

    def log_message(self, *_):
        pass

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        self.url = urllib.parse.urlsplit(self.path)
        self.parts = [urllib.parse.unquote(p) for p in self.url.path.strip("/").split("/")]
        try:
            self.route()
        except Wrong as w:
            if w.code is None:
                self.answer(w.status, w.message, "text/plain; charset=utf-8")
            else:
                self.answer(w.status, spaced({"code": w.code, "message": w.message, "details": []}))

    do_PUT = do_POST = do_DELETE = do_GET

    def answer(self, status, text, kind="application/json", fields=()):
        data = text.encode()
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if status != 304:
            self.wfile.write(data)

    def route(self):
        s, p = self.standin, self.parts
        if p == ["health"]:
            self.answer(200, '{"status":"SERVING"}')
            return
        v2 = s.version == 2
        known = {"client": v2, "internal": True}.get(p[0], p[:2] == ["api", "v1"] or (v2 and p[:2] == ["api", "v2"]))
        if not known:
            raise NO_PATH
        if s.token and self.headers.get("Authorization") != "Bearer " + s.token:
            raise Wrong(401, 16, "request was not authenticated")
        if p[0] in ("client", "internal"):
            stream = p[-1] == "stream"
            namespace = p[5] if p[0] == "client" else p[5] if len(p) > 5 else ""
            environment = self.headers.get("X-Flipt-Environment", "default")
            if environment != "default":
                raise Wrong(404, 5, 'environment: "%s" not found' % environment)
            self.stream(namespace) if stream else self.poll(namespace)
        elif p[1] == "v2":
            with s.changed:
                answer = self.resources()
            self.answer(200, spaced(answer))
        else:
            with s.changed:
                answer = self.management()
            self.answer(200, spaced(answer))

    # --- snapshots ---

    def poll(self, namespace):
        s = self.standin
        with s.changed:
            s.polls.append(dict(self.headers))
            s.changed.notify_all()
            fault, released, found = s.fault, s.released, s.snapshot(namespace)
        if fault == "hang":
            released.wait()
            self.close_connection = True
            return
        if fault == "500":
            raise Wrong(500, 13, "internal error")
        if fault == "redirect_loop":
            self.answer(302, "", fields=[("Location", self.path)])
            return
        if found is None:
            raise Wrong(404, 5, 'evaluation snapshot for namespace "%s" not found' % namespace)
        digest, document = found
        if self.headers.get("If-None-Match") == digest and not fault:
            self.answer(304, "", fields=[("Etag", digest)])
            return
        text = spaced(document)
        etag = [("Etag", digest)] if document["flags"] or s.version == 2 else []  # an empty v1 namespace has none
        if fault == "half":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode()[:len(text) // 2])
            self.close_connection = True
        elif fault == "half_chunked":
            self.begin_chunks(etag)
            self.chunk(text[:len(text) // 2])
            self.close_connection = True
        elif fault in ("half_json", "garbage"):
            self.answer(200, text[:len(text) // 2] if fault == "half_json" else "<html>hello</html>", fields=etag)
        else:
            self.answer(200, text, fields=etag)

    def begin_chunks(self, fields=()):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def stream(self, namespace):
        """One line at once and one per change; no headers before the first, nothing while nothing changes."""
        s = self.standin
        if s.version != 2:
            raise NO_PATH
        if s.streams_fail or s.fault in ("500", "garbage", "redirect_loop"):
            raise Wrong(500, 13, "internal error")
        self.close_connection = True
        released, closing, sent, begun = s.released, s.server, None, False
        if s.fault == "hang":
            released.wait()
            return
        try:
            while not s.closing and s.server is closing and released is s.released:
                with s.changed:
                    fault, found = s.fault, s.snapshot(namespace)
                if found is None:
                    if not begun:
                        raise Wrong(404, 5, 'evaluation snapshot for namespace "%s" not found' % namespace)
                    return
                digest, document = found
                if digest != sent:
                    if not begun:
                        self.begin_chunks()
                    text = json.dumps({"result": document}, separators=(",", ":")) + "\n"
                    if fault and fault.startswith("half"):
                        self.chunk(text[:len(text) // 2])
                        return
                    self.chunk(text)
                    sent = digest
                    if not begun:
                        begun = True
                        with s.changed:
                            s.streams += 1
                            s.changed.notify_all()
                with s.changed:
                    s.changed.wait_for(lambda: s.closing or released is not s.released or s.snapshot(namespace) is None
                                       or s.snapshot(namespace)[0] != sent or self.gone(), 0.5)
                if self.gone():
                    return
        finally:
            if begun:
                with s.changed:
                    s.streams -= 1
                    s.changed.notify_all()

    def gone(self):
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"" if not self.standin.tls else False
        except BlockingIOError:
            return False
        except OSError:
            return True

    # --- v2: resources ---

    def resources(self):
        """/api/v2/environments/E/namespaces/N/resources[/TYPE[/KEY]]"""
        s, p = self.standin, self.parts
        if len(p) < 7 or p[4] != "namespaces" or p[6] != "resources" or p[3] != "default" or p[5] not in s.namespaces:
            raise Wrong(404, 5, "not found")
        space = s.namespaces[p[5]]
        if self.command in ("PUT", "POST"):
            return self.put_resource(space, p[5])
        parts = {"flipt.core.Flag": "flags", "flipt.core.Segment": "segments"}
        if len(p) < 8 or p[7] not in parts:
            raise Wrong(404, 5, "resource type not found")
        there = space[parts[p[7]]]

        def resource(item):
            return {"namespaceKey": p[5], "key": item["key"], "payload": {"@type": p[7], **without_ids(item)}}
        if len(p) == 8:
            return {"resources": [resource(item) for item in there.values()], "revision": s.revision}
        if p[8] not in there:
            raise Wrong(404, 5, "getting flag %s/%s: flag %s/%s not found" % (p[5], p[8], p[5], p[8]))
        if self.command == "DELETE":
            del there[p[8]]
            s.writes.append(("DELETE", self.path, None))
            s.touch()
            return {"revision": s.revision}
        return {"resource": resource(there[p[8]]), "revision": s.revision}

    def put_resource(self, space, namespace):
        s, body = self.standin, self.body
        payload = dict(body["payload"])
        kind = payload.pop("@type", None)
        if kind not in ("flipt.core.Flag", "flipt.core.Segment"):
            raise Wrong(400, 3, "invalid payload")
        if s.conflicts:
            s.conflicts -= 1
            s.touch()
        if body.get("revision") and body["revision"] != s.revision:
            raise Wrong(409, 10, 'resource type "%s": expected head revision "%s" has changed (now "%s")'
                        % (kind, body["revision"], s.revision))
        if kind == "flipt.core.Flag":
            payload = with_ids(payload)
        space["flags" if kind == "flipt.core.Flag" else "segments"][body["key"]] = payload
        s.writes.append((self.command, self.path, body))
        s.touch()
        return {"resource": {"namespaceKey": namespace, "key": body["key"], "payload": {"@type": kind, **without_ids(payload)}},
                "revision": s.revision}

    # --- v1: flags, rules, distributions, rollouts ---

    def management(self):
        """/api/v1/namespaces/N/…"""
        s, p = self.standin, self.parts
        if len(p) < 5 or p[2] != "namespaces" or p[3] not in s.namespaces:
            raise Wrong(404, 5, 'namespace "%s" not found' % (p[3] if len(p) > 3 else ""))
        space, rest, write = s.namespaces[p[3]], p[4:], self.command != "GET"
        if write and (s.read_only or s.version == 2):
            raise Wrong(500, 13, "modification is not allowed in read-only mode")
        if write:
            s.writes.append((self.command, self.path, self.body))
        answer = self.segments_v1(space, rest[1:]) if rest[0] == "segments" else self.flags_v1(space, rest[1:])
        if write:
            s.touch()
        return answer

    def segments_v1(self, space, rest):
        there, body = space["segments"], self.body
        if not rest:
            if self.command == "POST":
                there[body["key"]] = {**body, "constraints": []}
                return there[body["key"]]
            return {"segments": list(there.values()), "nextPageToken": "", "totalCount": len(there)}
        if self.command == "DELETE":
            del there[rest[0]]
            return {}
        there[rest[0]]["constraints"].append(body)
        return body

    def flags_v1(self, space, rest):
        there, body, command = space["flags"], self.body, self.command
        if not rest:
            if command == "POST":
                there[body["key"]] = {**body, "variants": [], "rules": [], "rollouts": []}
                return self.shown_v1(there[body["key"]])
            return {"flags": [self.shown_v1(f) for f in there.values()], "nextPageToken": "", "totalCount": len(there)}
        if rest[0] not in there:
            raise Wrong(404, 5, 'flag "default/%s" not found' % rest[0])
        flag = there[rest[0]]
        if len(rest) == 1:
            if command == "DELETE":
                del there[rest[0]]
                return {}
            if command == "PUT":
                if not body.get("name"):
                    raise Wrong(400, 3, "invalid field name: must not be empty")
                flag.update(name=body["name"], enabled=body.get("enabled", False), description=body.get("description", ""))
            return self.shown_v1(flag)
        return {"variants": self.variants_v1, "rules": self.rules_v1, "rollouts": self.rollouts_v1}[rest[1]](flag, rest[2:])

    @staticmethod
    def shown_v1(flag):
        variants = [{**v, "flagKey": flag["key"], "namespaceKey": "default", "createdAt": TIME, "updatedAt": TIME,
                     "attachment": json.dumps(v["attachment"]) if "attachment" in v else ""} for v in flag["variants"]]
        return {"key": flag["key"], "name": flag["name"], "description": flag.get("description", ""), "enabled": flag["enabled"],
                "createdAt": TIME, "updatedAt": TIME, "variants": variants, "namespaceKey": "default", "type": flag["type"]}

    def variants_v1(self, flag, _):
        variant = {"id": str(uuid.uuid4()), "key": self.body["key"], "name": self.body.get("name", "")}
        if self.body.get("attachment"):
            variant["attachment"] = json.loads(self.body["attachment"])
        flag["variants"].append(variant)
        return variant

    def rules_v1(self, flag, rest):
        ids = {v["id"]: v["key"] for v in flag["variants"]}
        keys = {v: k for k, v in ids.items()}

        def shown(rank, rule):
            one = len(rule["segments"]) == 1
            return {"id": rule["id"], "flagKey": flag["key"], "segmentKey": rule["segments"][0] if one else "",
                    "distributions": [{"id": d["id"], "ruleId": rule["id"], "variantId": keys[d["variant"]],
                                       "rollout": d["rollout"], "createdAt": TIME, "updatedAt": TIME}
                                      for d in rule["distributions"]],
                    "rank": rank, "createdAt": TIME, "updatedAt": TIME, "namespaceKey": "default",
                    "segmentKeys": [] if one else rule["segments"], "segmentOperator": rule["segmentOperator"]}
        if not rest and self.command == "GET":
            return {"rules": [shown(rank, r) for rank, r in enumerate(flag["rules"], 1)], "nextPageToken": "",
                    "totalCount": len(flag["rules"])}
        if not rest:
            rule = {"id": str(uuid.uuid4()), "segments": self.body["segmentKeys"], "distributions": [],
                    "segmentOperator": self.body.get("segmentOperator", "OR_SEGMENT_OPERATOR")}
            flag["rules"].append(rule)
            return shown(len(flag["rules"]), rule)
        rule = next((r for r in flag["rules"] if r["id"] == rest[0]), None)
        if rule is None or rest[1:2] != ["distributions"]:
            raise Wrong(404, 5, "rule not found")
        if not 0 <= self.body.get("rollout", 0) <= 100:
            raise Wrong(400, 3, "invalid field rollout: must be less than or equal to '100'")
        if len(rest) == 2:
            distribution = {"id": str(uuid.uuid4())}
            rule["distributions"].append(distribution)
        else:
            distribution = next((d for d in rule["distributions"] if d["id"] == rest[2]), None)
            if distribution is None:
                raise Wrong(404, 5, "distribution not found")
        distribution.update(variant=ids[self.body["variantId"]], rollout=self.body.get("rollout", 0))
        return {"id": distribution["id"], "ruleId": rule["id"], "variantId": self.body["variantId"],
                "rollout": distribution["rollout"], "createdAt": TIME, "updatedAt": TIME}

    def rollouts_v1(self, flag, rest):
        body = self.body

        def shown(rank, r):
            common = {"id": r["id"], "namespaceKey": "default", "flagKey": flag["key"], "type": r["type"], "rank": rank,
                      "description": r.get("description", ""), "createdAt": TIME, "updatedAt": TIME}
            if "threshold" in r:
                return {**common, "threshold": r["threshold"]}
            one = len(r["segment"]["segments"]) == 1
            return {**common, "segment": {"segmentKey": r["segment"]["segments"][0] if one else "", "value": r["segment"]["value"],
                                          "segmentKeys": [] if one else r["segment"]["segments"],
                                          "segmentOperator": r["segment"]["segmentOperator"]}}
        if not rest and self.command == "GET":
            return {"rules": [shown(rank, r) for rank, r in enumerate(flag["rollouts"], 1)], "nextPageToken": "",
                    "totalCount": len(flag["rollouts"])}
        if rest:
            rank, rollout = next(((n, r) for n, r in enumerate(flag["rollouts"], 1) if r["id"] == rest[0]), (0, None))
            if rollout is None:
                raise Wrong(404, 5, "rollout not found")
        else:
            rollout = {"id": str(uuid.uuid4())}
            flag["rollouts"].append(rollout)
            rank = len(flag["rollouts"])
        rollout["description"] = body.get("description", "")
        if "threshold" in body:
            rollout.update(type="THRESHOLD_ROLLOUT_TYPE", threshold=dict(body["threshold"]))
        else:
            keys = body["segment"].get("segmentKeys") or [body["segment"]["segmentKey"]]
            rollout.update(type="SEGMENT_ROLLOUT_TYPE",
                           segment={"value": body["segment"]["value"], "segments": keys,
                                    "segmentOperator": body["segment"].get("segmentOperator", "OR_SEGMENT_OPERATOR")})
        return shown(rank, rollout)


__all__ = ["Flipt", "StandIn", "FAULTS", "Refused"]
