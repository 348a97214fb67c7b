"""A PostgreSQL server of a test's own: free port, files in a folder of its own, ended by its pid."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest

from http_text import PATIENCE, wait_until
from programs import free_port


def programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL server (Debian: postgresql)")
    return os.path.dirname(found[-1])


class PostgreSQL:
    """It refuses to run as root, who takes the user of Debian's package instead."""

    def __init__(self):
        self.bin = programs()
        self.folder = tempfile.mkdtemp(prefix="postgresql-")
        self.port = free_port()
        self.user = {}
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        subprocess.run([self.program("initdb"), "-D", self.data(), "-A", "trust", "--no-sync", "-U", "celery", "-E", "UTF8", "--locale", "C"],
                       check=True, cwd="/", capture_output=True, **self.user)
        self.process = None
        self.start()

    def program(self, name):
        return os.path.join(self.bin, name)

    def data(self):
        return os.path.join(self.folder, "data")

    def start(self):
        with open(os.path.join(self.folder, "output"), "ab") as output:
            self.process = subprocess.Popen(
                [self.program("postgres"), "-D", self.data(), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "log_statement=all",
                 "-c", "unix_socket_directories=" + self.folder], cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self.user)
        wait_until(self.answers, "postgres to answer")

    def answers(self):
        assert self.process.poll() is None, "postgres ended with %s" % self.process.poll()
        return subprocess.run([self.program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], cwd="/", check=False).returncode == 0

    def url(self, port=None):
        """As Python's side has it: with its driver's name."""
        return "db+postgresql+psycopg2://celery@127.0.0.1:%d/postgres" % (port or self.port)

    def sql(self, text):
        return subprocess.run([self.program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "celery", "-Atq", "-c", text, "postgres"],
                              cwd="/", check=True, capture_output=True, timeout=PATIENCE).stdout.decode().rstrip("\n")

    def statements(self):
        """Of routers that read results, so far."""
        with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as file:
            return sum("ANY($1::text[])" in line for line in file)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": whoever is connected is sent away
        self.process.wait(PATIENCE)

    def end(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
