"""A Flipt server for tests, and the client that drives it or a real one through Flipt's own API.

    server = StandIn(version=2); flipt = Flipt(server.url, 2); flipt.load(features)      # a features dict (configuration.py)

No package registry ships a Flipt server, so the stand-in answers as v2 and v1 did when they were recorded; test_flipt_replay holds it
to the recordings. What the client does works on a real server as well. Faults are flipt_between's.
"""
import copy
import hashlib
import http.client
import json
import random
import threading
import urllib.parse
import uuid
import zlib

from listening import Answering, Listening

TIMES = {"createdAt": "2026-11-21T00:15:10.746961Z", "updatedAt": "2026-11-21T00:15:10.746961Z"}


# --- the client --------------------------------------------------------------------------------------------------------

class Refused(Exception):
    def __init__(self, status, body):
        super().__init__("%d %s" % (status, body[:300]))
        self.status = status


def quoted(key):
    return urllib.parse.quote(key, safe="")


class Flipt:
    """Flipt's management API: what tests change, on the stand-in as on a real server."""

    def __init__(self, url, version, token=None, namespace="default"):
        self.url, self.version, self.token, self.namespace = url, version, token, namespace
        self.spaces = "/api/v2/environments/default/namespaces" if version == 2 else "/api/v1/namespaces"
        self.v2 = "%s/%s/resources" % (self.spaces, namespace)
        self.v1 = "%s/%s" % (self.spaces, namespace)

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

    def create_namespace(self):
        self.call("POST", self.spaces, {"key": self.namespace, "name": self.namespace})

    def delete_namespace(self):
        """With all that is in it."""
        if self.version == 1:
            self.load({"flags": []})
        self.call("DELETE", "%s/%s" % (self.spaces, self.namespace))

    def serves_lost_namespaces(self):
        """v1 over a database serves an empty snapshot of a namespace that is not there, over files 404. The recorded one had files."""
        if self.version == 2:
            return False
        return (self.call("GET", "/meta/info", statuses=(200, 404)) or {}).get("storage", {}).get("type") == "database"

    def load(self, features):
        """The namespace holds exactly these flags and segments afterwards."""
        (self._load_v2 if self.version == 2 else self._load_v1)(features)

    def set_flag(self, flag):
        """Replaces one flag, given in the shape of the features file, leaving the others alone."""
        if self.version == 2:
            self._put_v2("flipt.core.Flag", flag_payload(flag))
        else:
            self.call("DELETE", self.v1 + "/flags/" + quoted(flag["key"]), statuses=(200, 404))
            self._create_flag_v1(flag_payload(flag))

    def set_segment(self, segment):
        """Adds a segment, or (v2) replaces it."""
        segment = segment_payload(segment)
        if self.version == 2:
            self._put_v2("flipt.core.Segment", segment)
            return
        self.call("POST", self.v1 + "/segments", {k: segment[k] for k in ("key", "name", "matchType")})
        for constraint in segment["constraints"]:
            self.call("POST", "%s/segments/%s/constraints" % (self.v1, quoted(segment["key"])), constraint)

    def delete_flag(self, key):
        if self.version == 2:
            self._delete_v2("flipt.core.Flag", key)
        else:
            self.call("DELETE", self.v1 + "/flags/" + quoted(key), statuses=(200, 404))

    # v2. Without a revision: others may change other namespaces meanwhile.
    def _put_v2(self, kind, payload):
        body = {"key": payload["key"], "payload": {"@type": kind, **payload}}
        try:
            self.call("PUT", self.v2, body)
        except Refused as why:
            if why.status != 404:
                raise
            self.call("POST", self.v2, body)

    def _delete_v2(self, kind, key):
        self.call("DELETE", "%s/%s/%s" % (self.v2, kind, quoted(key)))

    def _load_v2(self, features):
        for segment in features.get("segments", ()):
            self.set_segment(segment)
        for flag in features["flags"]:
            self._put_v2("flipt.core.Flag", flag_payload(flag))
        for kind, part in (("flipt.core.Flag", "flags"), ("flipt.core.Segment", "segments")):
            wanted = {item["key"] for item in features.get(part, ())}
            for resource in self.call("GET", "%s/%s" % (self.v2, kind))["resources"]:
                if resource["key"] not in wanted:
                    self._delete_v2(kind, resource["key"])

    # v1
    def _load_v1(self, features):
        for flag in self.call("GET", self.v1 + "/flags")["flags"]:
            self.delete_flag(flag["key"])
        for segment in self.call("GET", self.v1 + "/segments")["segments"]:
            self.call("DELETE", self.v1 + "/segments/" + quoted(segment["key"]))
        for segment in features.get("segments", ()):
            self.set_segment(segment)
        for flag in features["flags"]:
            self._create_flag_v1(flag_payload(flag))

    def _create_flag_v1(self, flag):
        self.call("POST", self.v1 + "/flags", {k: flag[k] for k in ("key", "name", "type", "enabled", "description")})
        of = "%s/flags/%s" % (self.v1, quoted(flag["key"]))
        ids = {}
        for variant in flag["variants"]:
            body = {"key": variant["key"], "name": variant["name"]}
            if "attachment" in variant:
                body["attachment"] = json.dumps(variant["attachment"])
            ids[variant["key"]] = self.call("POST", of + "/variants", body)["id"]
        if "defaultVariant" in flag:
            body = {k: flag[k] for k in ("name", "enabled", "description")}
            self.call("PUT", of, {**body, "defaultVariantId": ids[flag["defaultVariant"]]})
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
        keys = of["segments"] if "segments" in of else of.get("keys") or [of["key"]]
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
    default = [v["key"] for v in flag.get("variants", ()) if v.get("default")]
    return {"key": flag["key"], "type": flag["type"], "name": flag.get("name") or flag["key"],
            "description": flag.get("description", ""), "enabled": flag["enabled"], "variants": variants, "rules": rules,
            "rollouts": rollouts, **({"defaultVariant": default[0]} if default else {})}


def segment_payload(segment):
    constraints = [{"type": c["type"], "property": c["property"], "operator": c["operator"], "value": c.get("value", ""),
                    "description": ""} for c in segment.get("constraints", ())]
    return {"key": segment["key"], "matchType": segment.get("match_type") or segment.get("matchType", "ALL_MATCH_TYPE"),
            "name": segment.get("name") or segment["key"], "description": "", "constraints": constraints}


# --- the stand-in ------------------------------------------------------------------------------------------------------

def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def spaced(value):
    """JSON with Flipt's habit of putting blanks where it likes: nobody may compare bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(random.choice([",", ", "]), random.choice([":", ":  "])))


class StandIn(Listening):
    """A server of one environment, and of namespaces of one document. `version` may be changed while it runs (an upgrade)."""

    def __init__(self, version=2, token=None):
        self.version, self.token = version, token
        self.release = {1: "1.61.1", 2: "2.11.0"}  # by version; what the server says of itself
        self.storage = "local"  # of v1
        self.scheme = "Bearer"  # of Authorization; the other is JWT
        self.service_account = None  # the Kubernetes token that is exchanged for self.token
        self.logins = 0
        self.odd_flags = []     # of other people, in every snapshot before the others
        self.odd_segments = []  # likewise, v2's resources
        self.digest = None      # of all snapshots, as servers do that take the last file's for a namespace of several
        self.namespaces = {}
        self.create_namespace("default", "default", protected=True)
        self.revision = hashlib.sha1(b"0").hexdigest()
        self.changed = threading.Condition()
        super().__init__(Handler)

    def stop(self):
        super().stop()
        with self.changed:
            self.changed.notify_all()

    def create_namespace(self, key, name, description="", protected=False):
        self.namespaces[key] = {"name": name, "description": description, "protected": protected, "flags": {}, "segments": {},
                                "modified": False}

    def touch(self):
        """Something has changed: streams look again."""
        with self.changed:
            self.revision = hashlib.sha1(uuid.uuid4().bytes).hexdigest()
            self.changed.notify_all()

    def snapshot(self, namespace):
        """(digest, document) or None."""
        space = self.namespaces.get(namespace)
        if space is None:
            return None
        content = json.dumps([self.version, namespace, space], sort_keys=True).encode()
        digest = self.digest or hashlib.sha1(content).hexdigest()
        document = {"namespace": {"key": namespace}, "flags": [self.snapshot_flag(space, f) for f in space["flags"].values()]}
        document["flags"] = self.odd_flags + document["flags"]
        if self.version == 2:
            document["digest"] = digest
        return digest, document

    def snapshot_flag(self, space, flag):
        v1 = self.version == 1
        names = {"name": flag["name"], "description": flag["description"]} if v1 else {"name": "", "description": ""}
        shown = {"key": flag["key"], **names, "enabled": flag["enabled"], "type": flag["type"], **TIMES,
                 "rules": self.snapshot_rules(space, flag),
                 "rollouts": [self.snapshot_rollout(space, rank, r) for rank, r in enumerate(flag["rollouts"], 1)]}
        for variant in flag["variants"]:
            if variant["key"] == flag.get("defaultVariant"):
                shown["defaultVariant"] = {"id": variant["id"] if v1 else "%s/%s" % (flag["key"], variant["key"]),
                                           "key": variant["key"], "attachment": attachment_of(variant, "" if v1 else "null")}
        return shown

    def snapshot_rules(self, space, flag):
        v1 = self.version == 1
        variants, rules = {v["key"]: v for v in flag["variants"]}, []
        for rank, rule in enumerate(flag["rules"], 1):
            # v2's are new in each snapshot.
            rule_id = rule["id"] if v1 else str(uuid.uuid5(uuid.UUID(rule["id"]), self.revision))

            def distribution(d):
                variant = variants.get(d["variant"], {})
                ids = {"id": "", "ruleId": "", "variantId": variant["id"]} if v1 else {"ruleId": rule_id}
                return {**ids, "variantKey": d["variant"], "variantAttachment": attachment_of(variant, "" if v1 else "null"),
                        "rollout": d["rollout"]}
            shown = {"id": rule_id, "segments": self.snapshot_segments(space, rule["segments"]), "rank": rank,
                     "segmentOperator": rule["segmentOperator"], "distributions": [distribution(d) for d in rule["distributions"]]}
            # v1 joins rules with their segments: one over N segments comes N times, one over none not at all.
            rules.extend([shown] * (len(rule["segments"]) if v1 else 1))
        return rules

    def snapshot_rollout(self, space, rank, rollout):
        if "threshold" in rollout:
            return {"type": rollout["type"], "rank": rank, "threshold": rollout["threshold"]}
        of = rollout["segment"]
        return {"type": rollout["type"], "rank": rank,
                "segment": {"value": of["value"], "segmentOperator": of["segmentOperator"],
                            "segments": self.snapshot_segments(space, of["segments"])}}

    def snapshot_segments(self, space, keys):
        unused = {"id": ""} if self.version == 1 else {}
        return [{"key": key, "name": "", "description": "", "matchType": s["matchType"].replace("MATCH", "SEGMENT_MATCH"),
                 "constraints": [{**unused, "type": c["type"].replace("_COMPARISON", "_CONSTRAINT_COMPARISON"),
                                  "property": c["property"], "operator": c["operator"], "value": c["value"]}
                                 for c in s["constraints"]]}
                for key, s in ((key, space["segments"][key]) for key in keys if key in space["segments"])]


def attachment_of(variant, without=""):
    return compact(variant["attachment"]) if "attachment" in variant else without


def full_flag(flag):
    """With all that the server fills in. Rules, rollouts, variants and distributions have ids inside; v1 shows them, v2 does not."""
    flag = {"description": "", "enabled": False, "variants": [], "rules": [], "rollouts": [], **copy.deepcopy(flag)}
    for rollout in flag["rollouts"]:
        rollout.setdefault("description", "")
    for part in ("variants", "rules", "rollouts"):
        for item in flag[part]:
            item.setdefault("id", str(uuid.uuid4()))
            for d in item.get("distributions", ()):
                d.setdefault("id", str(uuid.uuid4()))
    return flag


def without_ids(value):
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k != "id"}
    return [without_ids(v) for v in value] if isinstance(value, list) else value


class Wrong(Exception):
    """An error answer: HTTP status, gRPC code (None: plain text), message, fields."""

    def __init__(self, status, code, message, *fields):
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields


NO_PATH = Wrong(404, None, "404 page not found\n", ("X-Content-Type-Options", "nosniff"))
NO_ACCESS = Wrong(401, 16, "request was not authenticated", ("Www-Authenticate", "request was not authenticated"))


def not_there(kind, namespace, key):
    return "%s %s/%s: %s %s/%s not found" % (2 * (kind.rsplit(".", 1)[1].lower(), namespace, key))


def no_environment(key):
    return Wrong(404, 5, 'failed to get environment "%s" from context: environment: "%s" not found' % (key, key))


class Handler(Answering):
    def respond(self):
        self.parts = [urllib.parse.unquote(p) for p in self.url.path.strip("/").split("/")]
        try:
            self.body = json.loads(self.data) if self.data else None
            self.route()
        except Wrong as w:
            if w.code is None:
                self.answer(w.status, w.message, "text/plain; charset=utf-8", w.fields)
            else:
                self.answer(w.status, spaced({"code": w.code, "message": w.message, "details": []}), fields=w.fields)

    def route(self):
        s, p = self.owner, self.parts
        if p == ["health"]:
            self.answer(200, '{"status":"SERVING"}')
            return
        v2 = s.version == 2
        if p == ["meta", "info"] and s.release[s.version]:
            self.answer(200, spaced({"build": {"version": s.release[2]}} if v2 else
                                    {"version": s.release[1], "storage": {"type": s.storage}}))
            return
        known = {"auth": bool(s.service_account), "client": v2, "internal": True, "evaluate": True}.get(p[0], p[:2] == ["api", "v2"] if v2 else p[:2] == ["api", "v1"])
        if not known:
            if v2 and p[:2] == ["api", "v1"] and p[-1] == "flags":
                raise no_environment("")  # what is left of v1's path
            raise Wrong(404, 5, "Not Found") if v2 else NO_PATH
        stream = p[-1] == "stream" and p[0] == "client"
        if p[0] == "auth" and s.service_account:
            if self.body.get("serviceAccountToken") != s.service_account:
                raise NO_ACCESS
            s.logins += 1
            self.answer(200, spaced({"clientToken": s.token, "authentication": {"method": "METHOD_KUBERNETES"}}))
            return
        if s.token and self.headers.get("Authorization") != "%s %s" % (s.scheme, s.token):
            self.refuse(NO_ACCESS, stream)
        elif p[0] == "evaluate":
            with s.changed:
                answer = self.evaluate(p[2])
            self.answer(200, spaced(answer))
        elif p[0] in ("client", "internal"):
            namespace = p[5] if len(p) > 5 else ""
            environment = self.headers.get("X-Flipt-Environment", "default")
            if v2 and environment != "default":  # what the path says is not looked at
                self.refuse(no_environment(environment), stream)
            else:
                self.stream(namespace) if stream else self.poll(namespace)
        else:
            with s.changed:
                answer = self.resources() if v2 else self.management()
            self.answer(200, spaced(answer))

    def refuse(self, wrong, stream):
        """A stream tells its errors as one of its messages."""
        if not stream:
            raise wrong
        self.begin_chunks(wrong.status)
        self.chunk(json.dumps({"error": {"code": wrong.code, "message": wrong.message, "details": []}}) + "\n")
        self.chunk("")

    # --- evaluation ---

    def evaluate(self, kind):
        """As far as tests use it: constraints eq, shares and thresholds (docs/protocols/flipt.md, "Evaluation")."""
        b = self.body
        space = self.owner.namespaces.get(b["namespaceKey"], {"flags": {}})
        flag = space["flags"].get(b["flagKey"])
        if flag is None:
            raise Wrong(404, 5, 'flag "%s/%s" not found' % (b["namespaceKey"], b["flagKey"]))
        if (kind == "boolean") != (flag["type"] == "BOOLEAN_FLAG_TYPE"):
            raise Wrong(400, 3, "flag type mismatch")

        def matches(of):
            found = [all(b["context"].get(c["property"], "") == c["value"] for c in space["segments"][k]["constraints"])
                     for k in of["segments"]]
            return all(found) if of["segmentOperator"] == "AND_SEGMENT_OPERATOR" else any(found)
        if kind == "boolean":
            bucket = zlib.crc32((b["entityId"] + flag["key"]).encode()) % 100
            for r in flag["rollouts"]:
                if "threshold" in r and bucket < r["threshold"]["percentage"]:
                    return {"enabled": r["threshold"]["value"]}
                if "segment" in r and matches(r["segment"]):
                    return {"enabled": r["segment"]["value"]}
            return {"enabled": flag["enabled"]}
        rule = next((r for r in flag["rules"] if matches(r)), None) if flag["enabled"] else None
        bucket, limit = zlib.crc32((flag["key"] + b["entityId"]).encode()) % 1000, 0
        for d in rule["distributions"] if rule else ():
            limit += round(d["rollout"] * 10)
            if bucket < limit:
                return {"match": True, "variantKey": d["variant"], "variantAttachment": ""}
        return {"match": False, "variantKey": flag.get("defaultVariant") or "", "variantAttachment": ""}

    # --- snapshots ---

    def poll(self, namespace):
        s = self.owner
        with s.changed:
            found = s.snapshot(namespace)
        if found is None:
            raise Wrong(404, 5, 'evaluation snapshot for namespace "%s" not found' % namespace if s.version == 2
                        else 'getting flags: namespace "%s" not found' % namespace)
        digest, document = found
        # A v1 namespace has none until its first change.
        etag = [("Etag", digest)] if s.version == 2 or s.namespaces[namespace]["modified"] else []
        if self.headers.get("If-None-Match") == digest:
            self.answer(304, "", fields=etag)
        else:
            self.answer(200, spaced(document), fields=etag)

    def stream(self, namespace):
        """One line at once and one per change; no headers before the first, nothing while nothing changes, nor while there is no
        such namespace."""
        s, server, sent = self.owner, self.owner.server, None
        self.close_connection = True
        while not s.closing and s.server is server and not self.peer_is_gone():
            with s.changed:
                found = s.snapshot(namespace)
                if s.version != 2 or found is None or found[0] == sent:
                    s.changed.wait(0.2)  # the peer's end is looked for, too
                    continue
            if sent is None:
                self.begin_chunks()
            self.chunk(json.dumps({"result": found[1]}, separators=(",", ":")) + "\n")
            sent = found[0]

    # --- v2: environments, namespaces, resources ---

    def revision_is_right(self, revision):
        """What is not 40 hex digits, or only zeros, counts as none: the change is forced."""
        s = self.owner
        real = revision and len(revision) == 40 and set(revision) <= set("0123456789abcdef") and set(revision) != {"0"}
        return not real or revision == s.revision

    def conflict(self, kind, revision):
        return Wrong(409, 10, 'resource type "%s": expected head revision "%s" has changed (now "%s")'
                     % (kind, revision, self.owner.revision))

    def query(self, name):
        return urllib.parse.parse_qs(self.url.query).get(name, [""])[0]

    def resources(self):
        """/api/v2/environments[/E/namespaces[/N[/resources[/TYPE[/KEY]]]]]"""
        s, p = self.owner, self.parts
        if p[2:] == ["environments"]:
            return {"environments": [{"key": "default", "name": "default", "default": True, "configuration": {"ref": "main"}}]}
        if len(p) < 5 or p[2] != "environments" or p[3] != "default" or p[4] != "namespaces":
            raise Wrong(404, 5, "Not Found")
        if len(p) < 7:
            return self.namespaces_v2(p[5:])
        if p[6] != "resources":
            raise Wrong(404, 5, "Not Found")
        return self.resources_v2(p[5], s.namespaces.get(p[5], {"flags": {}, "segments": {}}), p[7:])

    def namespaces_v2(self, rest):
        s = self.owner

        def shown(key):
            return {"key": key, **{k: s.namespaces[key][k] for k in ("name", "description", "protected")}}
        if self.command == "GET" and not rest:
            return {"items": [shown(key) for key in s.namespaces], "revision": s.revision}
        revision = self.query("revision") if rest else self.body.get("revision")
        if not self.revision_is_right(revision):
            raise Wrong(409, 10, 'expected head revision "%s" has changed (now "%s")' % (revision, s.revision))
        if rest:
            s.namespaces.pop(rest[0], None)
            s.touch()
            return {"revision": s.revision}
        s.create_namespace(self.body["key"], self.body["name"])
        s.touch()
        return {"namespace": {"key": self.body["key"], "name": self.body["name"]}, "revision": s.revision}

    def resources_v2(self, namespace, space, rest):
        s = self.owner
        if self.command in ("PUT", "POST"):
            return self.put_resource(space, namespace)
        parts = {"flipt.core.Flag": "flags", "flipt.core.Segment": "segments"}
        if not rest or rest[0] not in parts:
            raise Wrong(404, 5, "resource type not found")
        kind, there = rest[0], space[parts[rest[0]]]

        def resource(item):
            return {"namespaceKey": namespace, "key": item["key"], "payload": {"@type": kind, **without_ids(item)}}
        if len(rest) == 1:
            odd = s.odd_segments if kind == "flipt.core.Segment" else []
            return {"resources": [resource(item) for item in [*odd, *there.values()]], "revision": s.revision}
        if self.command == "DELETE":
            if not self.revision_is_right(self.query("revision")):
                raise self.conflict(kind, self.query("revision"))
            there.pop(rest[1], None)
            s.touch()
            return {"revision": s.revision}
        if rest[1] not in there:
            raise Wrong(404, 5, "getting " + not_there(kind, namespace, rest[1]))
        return {"resource": resource(there[rest[1]]), "revision": s.revision}

    @staticmethod
    def check_segments(space, namespace, flag):
        name = "flag %s/%s" % (namespace, flag["key"])
        used = [("rule", n, key) for n, rule in enumerate(flag["rules"], 1) for key in rule["segments"]]
        used += [("rollout", n, key) for n, r in enumerate(flag["rollouts"], 1) if "segment" in r for key in r["segment"]["segments"]]
        for what, n, key in used:
            if key not in space["segments"]:
                raise Wrong(400, 3, 'resource type "flipt.core.Flag": putting %s: %s %s %d references unknown segment "%s"'
                            % (name, name, what, n, key))

    def put_resource(self, space, namespace):
        s, body = self.owner, self.body
        payload = dict(body["payload"])
        kind = payload.pop("@type", None)
        if kind is None:
            raise Wrong(400, 3, "Any JSON doesn't have '@type'")
        if not self.revision_is_right(body.get("revision")):
            raise self.conflict(kind, body["revision"])
        whole = full_flag(payload) if kind == "flipt.core.Flag" else payload
        there = space["flags" if kind == "flipt.core.Flag" else "segments"]
        what = 'resource type "%s": %s resource "%s/%s/%s"' % (kind, "update" if self.command == "PUT" else "create", kind,
                                                              namespace, body["key"])
        if self.command == "PUT" and body["key"] not in there:
            raise Wrong(404, 5, "%s: getting %s" % (what, not_there(kind, namespace, body["key"])))
        if self.command == "POST" and body["key"] in there:
            raise Wrong(409, 6, what)
        if kind == "flipt.core.Flag":
            self.check_segments(space, namespace, whole)
        there[body["key"]] = whole
        s.touch()
        return {"resource": {"namespaceKey": namespace, "key": body["key"], "payload": {"@type": kind, **without_ids(whole)}},
                "revision": s.revision}

    # --- v1: flags, rules, distributions, rollouts ---

    def management(self):
        """/api/v1/namespaces[/N[/flags…|/segments…]]"""
        s, p = self.owner, self.parts
        if len(p) < 3 or p[2] != "namespaces":
            raise Wrong(404, 5, "Not Found")
        if len(p) < 5:
            return self.namespaces_v1(p[3:])
        if p[3] not in s.namespaces:
            raise Wrong(404, 5, 'namespace "%s" not found' % p[3])
        self.namespace, space, rest = p[3], s.namespaces[p[3]], p[4:]
        answer = self.segments_v1(space, rest[1:]) if rest[0] == "segments" else self.flags_v1(space, rest[1:])
        if self.command != "GET":
            space["modified"] = True
            s.touch()
        return answer

    def namespaces_v1(self, rest):
        s = self.owner
        if self.command == "DELETE":
            space = s.namespaces.get(rest[0])
            if space and space["flags"]:
                raise Wrong(400, 3, 'namespace "%s" cannot be deleted; flags must be deleted first' % rest[0])
            s.namespaces.pop(rest[0], None)
            return {}
        if self.command == "POST":
            s.create_namespace(self.body["key"], self.body["name"])
        shown = [{"key": key, "name": n["name"], "description": n["description"], "protected": n["protected"], **TIMES}
                 for key, n in s.namespaces.items()]
        if self.command == "POST":
            return shown[-1]
        return {"namespaces": shown, "nextPageToken": "", "totalCount": len(shown)}

    def segments_v1(self, space, rest):
        there, body = space["segments"], self.body

        def shown(segment):
            constraints = [{**c, "segmentKey": segment["key"], "namespaceKey": self.namespace, **TIMES}
                           for c in segment["constraints"]]
            return {**segment, "namespaceKey": self.namespace, "constraints": constraints, **TIMES}
        if not rest:
            if self.command == "POST":
                there[body["key"]] = {"description": "", **body, "constraints": []}
                return shown(there[body["key"]])
            return {"segments": [shown(s) for s in there.values()], "nextPageToken": "", "totalCount": len(there)}
        if self.command == "DELETE":
            del there[rest[0]]
            return {}
        there[rest[0]]["constraints"].append({"id": str(uuid.uuid4()), "description": "", **body})
        return shown(there[rest[0]])["constraints"][-1]

    def flags_v1(self, space, rest):
        there, body, command = space["flags"], self.body, self.command
        if not rest:
            if command == "POST":
                there[body["key"]] = full_flag(body)
                return self.shown_v1(there[body["key"]])
            return {"flags": [self.shown_v1(f) for f in there.values()], "nextPageToken": "", "totalCount": len(there)}
        if rest[0] not in there:
            raise Wrong(404, 5, 'flag "%s/%s" not found' % (self.namespace, rest[0]))
        flag = there[rest[0]]
        if len(rest) == 1:
            if command == "DELETE":
                del there[rest[0]]
                return {}
            if command == "PUT":
                if not body.get("name"):
                    raise Wrong(400, 3, "invalid field name: must not be empty")
                flag.update(name=body["name"], enabled=body.get("enabled", False), description=body.get("description", ""))
                if "defaultVariantId" in body:
                    flag["defaultVariant"] = next(v["key"] for v in flag["variants"] if v["id"] == body["defaultVariantId"])
            return self.shown_v1(flag)
        return {"variants": self.variants_v1, "rules": self.rules_v1, "rollouts": self.rollouts_v1}[rest[1]](flag, rest[2:])

    def shown_v1(self, flag):
        shown = {"key": flag["key"], "name": flag["name"], "description": flag["description"], "enabled": flag["enabled"],
                 "variants": [self.shown_variant(flag, v) for v in flag["variants"]], "namespaceKey": self.namespace,
                 "type": flag["type"], **TIMES}
        if flag.get("defaultVariant"):
            shown["defaultVariant"] = next(v for v in shown["variants"] if v["key"] == flag["defaultVariant"])
        return shown

    def shown_variant(self, flag, variant):
        return {**variant, "flagKey": flag["key"], "namespaceKey": self.namespace, "attachment": attachment_of(variant), **TIMES}

    def variants_v1(self, flag, _):
        variant = {"id": str(uuid.uuid4()), "key": self.body["key"], "name": self.body.get("name", ""), "description": ""}
        if self.body.get("attachment"):
            variant["attachment"] = json.loads(self.body["attachment"])
        flag["variants"].append(variant)
        return self.shown_variant(flag, variant)

    def rules_v1(self, flag, rest):
        ids = {v["id"]: v["key"] for v in flag["variants"]}
        keys = {v: k for k, v in ids.items()}

        def shown(rank, rule):
            one = len(rule["segments"]) == 1
            return {"id": rule["id"], "flagKey": flag["key"], "segmentKey": rule["segments"][0] if one else "",
                    "distributions": [{"id": d["id"], "ruleId": rule["id"], "variantId": keys[d["variant"]],
                                       "rollout": d["rollout"], **TIMES}
                                      for d in rule["distributions"]],
                    "rank": rank, **TIMES, "namespaceKey": self.namespace,
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
                "rollout": distribution["rollout"], **TIMES}

    def rollouts_v1(self, flag, rest):
        body = self.body

        def shown(rank, r):
            common = {"id": r["id"], "namespaceKey": self.namespace, "flagKey": flag["key"], "type": r["type"], "rank": rank,
                      "description": r.get("description", ""), **TIMES}
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
            one = body["segment"].get("segmentKey")
            keys = [one] if one else body["segment"]["segmentKeys"]
            rollout.update(type="SEGMENT_ROLLOUT_TYPE",
                           segment={"value": body["segment"]["value"], "segments": keys,
                                    "segmentOperator": body["segment"].get("segmentOperator", "OR_SEGMENT_OPERATOR")})
        return shown(rank, rollout)


__all__ = ["Flipt", "StandIn", "Refused"]
