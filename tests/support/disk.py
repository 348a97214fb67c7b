"""A disk of its own that can be full: a tmpfs in a mount namespace that nobody else sees and that ends with the test."""
import contextlib
import os
import subprocess

import pytest

MOUNT = 'mount -t tmpfs -o size="$2",mode=700 disk "$1" && echo mounted && exec cat'


class Disk:
    """`folder` is the mount point for programs that are started `within` it."""

    def __init__(self, folder, size="4m"):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        try:
            self.holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", self.folder, size],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            pytest.skip("there is no unshare(1)")
        if self.holder.stdout.readline() != b"mounted\n":
            self.holder.stdin.close()
            why = self.holder.stderr.read().decode().strip()
            self.holder.wait()
            pytest.skip("a disk of its own cannot be mounted here: " + why)

    def within(self, cwd):
        """What starts a program there, with the pid of the program."""
        # Its root, too: a mount namespace alone leads out of a root folder that the tests were started in.
        return ["nsenter", "--target=%d" % self.holder.pid, "--mount", "--root", "sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]

    def path(self, name):
        """Of a file on it, for who is outside."""
        return "/proc/%d/root%s" % (self.holder.pid, os.path.join(self.folder, name))

    def fill(self):
        """Until not a byte more can be written."""
        with open(self.path("filler"), "ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        assert file.write(b"x" * size) == size or size > 1

    def free(self):
        os.unlink(self.path("filler"))

    def end(self):
        self.holder.stdin.close()
        self.holder.wait()
