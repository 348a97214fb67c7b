"""A program at a terminal: it asks, the test answers."""
import os
import pty
import select
import time

from http_text import PATIENCE
from programs import program


class Terminal:
    """`name` run with a terminal as standard input and output; `expect` waits for what it says, `type` answers."""

    def __init__(self, name, *arguments):
        path = program(name)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(path, [path, *map(str, arguments)])
        self.text = ""

    def expect(self, text, patience=PATIENCE):
        """All that was said up to `text`, which is then done with."""
        until = time.monotonic() + patience
        while text not in self.text:
            assert self._read(until - time.monotonic()), "%r was never said, but:\n%s" % (text, self.text)
        said, self.text = self.text.split(text, 1)
        return said + text

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self, patience=PATIENCE):
        """(exit code, all that was still said)."""
        until = time.monotonic() + patience
        while self._read(until - time.monotonic()):
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.text

    def _read(self, seconds):
        if seconds <= 0 or not select.select([self.fd], [], [], seconds)[0]:
            os.kill(self.pid, 9)
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the program has ended
            return False
        self.text += data.decode()
        return bool(data)
