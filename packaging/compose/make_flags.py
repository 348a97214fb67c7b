"""Makes the flags of a features file in a Flipt 2 server, for compose.yaml. What exists there already is left as it is.

    make_flags.py http://flipt:8080 flags.yml
"""
import json
import sys
import urllib.error
import urllib.request

import yaml


def call(url, body=None):
    """The answer, or None for 404."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as why:
        if why.code == 404:
            return None
        raise SystemExit("%s: %s %s" % (url, why, why.read(500).decode("utf-8", "replace"))) from None


def rollout_of(rollout):
    if "threshold" in rollout:
        return {"type": "THRESHOLD_ROLLOUT_TYPE", "threshold": rollout["threshold"]}
    of = rollout["segment"]
    return {"type": "SEGMENT_ROLLOUT_TYPE",
            "segment": {"value": of["value"], "segments": [of["key"]], "segmentOperator": "OR_SEGMENT_OPERATOR"}}


def flag_of(flag):
    rules = [{"segments": [rule["segment"]], "segmentOperator": "OR_SEGMENT_OPERATOR", "distributions": rule["distributions"]}
             for rule in flag.get("rules", ())]
    return {"key": flag["key"], "type": flag["type"], "name": flag["name"], "description": "", "enabled": flag["enabled"],
            "variants": flag.get("variants", []), "rules": rules,
            "rollouts": [rollout_of(rollout) for rollout in flag.get("rollouts", ())]}


def segment_of(segment):
    return {"key": segment["key"], "name": segment["name"], "description": "", "matchType": segment["match_type"],
            "constraints": segment.get("constraints", [])}


def main():
    server, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        features = yaml.safe_load(file)
    resources = "%s/api/v2/environments/default/namespaces/%s/resources" % (server, features["namespace"])
    made = [("flipt.core.Segment", segment_of(segment)) for segment in features.get("segments", ())]
    made += [("flipt.core.Flag", flag_of(flag)) for flag in features["flags"]]
    for kind, payload in made:
        there = call("%s/%s/%s" % (resources, kind, payload["key"])) is not None
        if not there:
            call(resources, {"key": payload["key"], "payload": {"@type": kind, **payload}})
        print("%s %s: %s" % (kind.rsplit(".", 1)[1].lower(), payload["key"], "is there" if there else "made"))


if __name__ == "__main__":
    main()
