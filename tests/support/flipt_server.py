"""The Flipt server of a test, in a namespace of its own: the stand-in, or the real one that FLIPT_URL and FLIPT_VERSION (1 or 2, and
FLIPT_CLIENT_TOKEN where it asks for one) name. Tests of the other version run against the stand-in then.

    server = Server(2); server.load(features); …source {"url": server.url, "namespace": server.namespace}…; server.stop()
"""
import os
import tempfile
import uuid

from flipt import Flipt, StandIn
from flipt_between import Between

REAL_URL = os.environ.get("FLIPT_URL")
REAL_VERSION = int(os.environ.get("FLIPT_VERSION", "2")) if REAL_URL else None


class Server:
    """Routers reach it by `url`, through `between`, which records and breaks; tests change it by load, set_flag, delete_flag and `api`."""

    def __init__(self, version, shown_token=None, tls=None, namespace=None):
        """`shown_token`: what routers must show, whatever the server itself asks for."""
        real = version == REAL_VERSION
        self.standin = None if real else StandIn(version)
        self.version = version
        own_token = os.environ.get("FLIPT_CLIENT_TOKEN") if real else None
        target = REAL_URL if real else self.standin.url
        self.api = Flipt(target, version, own_token, namespace or "test-" + uuid.uuid4().hex[:12])
        self.api.create_namespace()
        self.namespace = self.api.namespace
        self.between = Between(target, own_token, shown_token, tls)
        self.between.disturb = self.disturb
        self.url = self.between.url
        self.token = shown_token or own_token
        self.token_file = None
        if self.token:
            self.token_file = tempfile.NamedTemporaryFile("w", prefix="token-")
            self.token_file.write(self.token)
            self.token_file.flush()
        self.load, self.set_flag, self.delete_flag = self.api.load, self.api.set_flag, self.api.delete_flag

    def source(self):
        """For the section `flags` of a configuration."""
        token = {"token_file": self.token_file.name} if self.token_file else {}
        return {"source": "flipt", "url": self.url, "namespace": self.namespace, **token}

    def disturb(self):
        """A change that concerns nobody, but moves the revision."""
        self.api.set_segment({"key": "disturbance-" + uuid.uuid4().hex[:8]})

    def stop(self):
        """Leaves a real server as it was."""
        self.between.stop()
        if self.token_file:
            self.token_file.close()
        try:
            self.api.delete_namespace()
        finally:
            if self.standin:
                self.standin.stop()


__all__ = ["Server", "REAL_URL", "REAL_VERSION"]
