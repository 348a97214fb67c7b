"""Configurations and flags for tests, as dicts (written as JSON, which is YAML)."""
import hashlib

from programs import free_port

IDENTITY = {"user": ["header:X-User-Id"], "organization": ["header:X-Organization-Id", "body:/organization_id"]}


def service(origin_or_url, operations=None, legacy=None, **sections):
    url = getattr(origin_or_url, "url", origin_or_url)
    whole = {"listen": "127.0.0.1:0", "legacy": {"url": url, **(legacy or {})}, **sections}
    if operations:
        whole["operations"] = operations
    return whole


def router(services, **sections):
    # The data folder, flags.yml and tokens.txt lie beside the file, in the router's own folder.
    return {"services": services, "admin": {"listen": "127.0.0.1:%d" % free_port(), "hosts": ["service.test"]}, "threads": 2, "drain_timeout": "10s",
            **sections}


def passing(origin, **sections):
    """Everything is passed to the origin; no operation is declared. `legacy`, `limits`, `client` are the service's."""
    return router({"echo": service(origin, **sections)})


def embedded(tasks="tasks.yml", when_not_ready="submit"):
    """Most tests are about what becomes of a submitted task, with or without a worker; test_readiness.py is about the default."""
    return {"embedded": {"database": "data/tasks.db", "when_not_ready": when_not_ready, **({"tasks": tasks} if tasks else {})}}


def operation(match, task, flags=("task_abstraction_enabled",), auth="none", **sections):
    return {"match": match, "flags": list(flags), "auth": auth, "task": task, **sections}


# --- flags: a Flipt features file --------------------------------------------------------------------------------------

def features(*flags, segments=()):
    return {"namespace": "default", "flags": list(flags), "segments": list(segments)}


def boolean(key, enabled, percentage=None):
    """A boolean flag: on or off for everybody, or true for this percentage and `enabled` for the others."""
    flag = {"key": key, "name": key, "type": "BOOLEAN_FLAG_TYPE", "enabled": enabled}
    if percentage is not None:
        flag["rollouts"] = [{"threshold": {"percentage": percentage, "value": True}}]
    return flag


def variants(key, segment="everybody", **percentages):
    """A variant flag that distributes everybody over these variants, in this order."""
    return {"key": key, "name": key, "type": "VARIANT_FLAG_TYPE", "enabled": True,
            "variants": [{"key": name, "name": name} for name in percentages],
            "rules": [{"segment": segment, "distributions": [{"variant": name, "rollout": share}
                                                             for name, share in percentages.items()]}]}


def everybody():
    return {"key": "everybody", "name": "everybody", "match_type": "ALL_MATCH_TYPE"}


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()
