"""Configurations and flags for tests, as dicts (written as JSON, which is YAML)."""
from programs import free_port


def service(origin_or_url, operations=None, **more):
    url = getattr(origin_or_url, "url", origin_or_url)
    return {"listen": "127.0.0.1:0", "legacy": {"url": url}, "operations": operations or {}, **more}


def router(services, **more):
    return {"services": services, "admin": {"listen": "127.0.0.1:%d" % free_port()},
            "outcomes": {"path": "data/outcomes.db"}, "threads": 2, **more}


def passing(origin, **service_settings):
    """Everything is passed to the origin; no operation is declared."""
    return router({"echo": service(origin, **service_settings)})


def limits(**settings):
    """Settings of a service, wherever the configuration keeps them."""
    return settings


def global_limits(**settings):
    return settings
