"""Fixtures: real programs on free ports, scripted origins; whatever a test starts is ended, and must have ended well."""
import collections
import os
import ssl
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))

import configuration  # noqa: E402
import stalls  # noqa: E402
from flipt_server import Server  # noqa: E402
from origin import Origin  # noqa: E402
from programs import Process, Router, environment, program  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "heavy: large bodies and loads; not run under sanitizers")
    if os.environ.get("TEST_STALLS"):
        stalls.begin(os.environ["TEST_STALLS"])


def pytest_collection_modifyitems(items):
    """What one worker of xdist runs in a row: a file, or what a file does with one engine or version of Flipt."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        kinds = [str(getattr(parameters[name], "label", None) or getattr(parameters[name], "name", parameters[name]))
                 for name in ("shared", "flipt") if name in parameters]
        item.add_marker(pytest.mark.xdist_group("-".join([item.path.stem, *kinds])))


class Started:
    """Starts routers and other programs; the fixture ends them and checks how they ended."""

    def __init__(self, tmp_path_factory):
        self.folders = tmp_path_factory
        self.processes, self.origins = [], []

    def origin(self):
        self.origins.append(Origin())
        return self.origins[-1]

    def origin_at(self, host, port=0):
        self.origins.append(Origin(host, port))
        return self.origins[-1]

    def tls_origin(self, tls):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self.origins.append(Origin(tls=context))
        return self.origins[-1]

    def folder(self):
        return self.folders.mktemp("router")

    def router(self, config, flags=None, folder=None, env=None, name="migration-router", within=()):
        process = Router(folder or self.folder(), config, flags, env, name, within)
        self.processes.append(process)
        return process

    def with_worker(self, config, flags=None, tasks=None, env=None, **worker):
        """A router and a worker of its embedded backend; both are ready."""
        router = self.router(config, flags, env=env)
        return router, self.worker(router, **worker)

    def worker(self, router, *arguments, env=None, within=()):
        process = Process("task-backend-worker", "--backend", "embedded", "--config", router.config_path, "--log-format", "json",
                          *arguments, cwd=router.folder, env=env, within=within)
        self.processes.append(process)
        process.wait_event("worker_ready")
        return process

    def run(self, name, *arguments, env=None, timeout=60, user=None):
        """Runs a command to its end."""
        return subprocess.run([program(name), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, env=environment(env),
                              **({"user": user, "group": user, "extra_groups": []} if user is not None else {}))

    def process(self, name, *arguments, **how):
        process = Process(name, *arguments, **how)
        self.processes.append(process)
        return process

    def end(self):
        for process in reversed(self.processes):
            ended_before = process.popen.poll() is not None
            code = process.stop()
            process.check_sanitizers()
            assert ended_before or code == 0, "%s ended with %s:\n%s" % (process.name, code, process.log())
        for origin in self.origins:
            origin.stop()


Tls = collections.namedtuple("Tls", "authority certificate key")


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """An authority of its own, and a certificate for localhost signed by it."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority",
            "-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "extensions").write_text(  # what RFC 5280 asks for: Python 3.13 looks
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extensions", "-out", "server.pem")
    return Tls(str(folder / "ca.pem"), str(folder / "server.pem"), str(folder / "server.key"))


@pytest.fixture
def start(tmp_path_factory):
    started = Started(tmp_path_factory)
    yield started
    started.end()


@pytest.fixture
def serve():
    """serve(version, …) makes a Flipt server for this test (flipt_server.Server), which is removed in the end."""
    servers = []

    def make(*arguments, **how):
        servers.append(Server(*arguments, **how))
        return servers[-1]
    yield make
    for server in reversed(servers):
        server.stop()


@pytest.fixture(scope="module")
def module_pair(tmp_path_factory):
    started = Started(tmp_path_factory)
    origin = started.origin()
    config = configuration.passing(origin)
    config["limits"] = {"max_head": 65536}  # the smuggling tests send clean heads of 30 kB, too
    router = started.router(config)
    yield router, origin
    started.end()


@pytest.fixture
def pair(module_pair):
    """A router that passes everything to one origin, shared by the tests of a module; the origin's script starts afresh."""
    router, origin = module_pair
    origin.clear()
    yield router, origin
    assert router.popen.poll() is None, "the router is gone:\n" + router.log()


@pytest.fixture
def origin(pair):
    return pair[1]


@pytest.fixture
def router(pair):
    return pair[0]


# --- Celery --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def own_redis(tmp_path):
    """A server that a test may stop, start and pause."""
    from celery_redis import Redis  # here, since not every machine has what it needs
    server = Redis(tmp_path)
    yield server
    server.go_on()
    server.stop()


@pytest.fixture
def workers(tmp_path):
    """Real Celery workers, ended with the test."""
    from celery_worker import Worker
    started = []

    def start_worker(*arguments, **how):
        started.append(Worker(tmp_path, *arguments, **how))
        return started[-1]
    yield start_worker
    for worker in started:
        worker.stop()
