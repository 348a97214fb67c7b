"""Makes the programs under test stand still now and then, as a loaded machine does: TEST_STALLS=0.2:0.7 (seconds, from and to).

For finding tests that depend on speed; what such a run finds is a test to mend, or a fault that only a busy machine shows."""
import contextlib
import os
import random
import signal
import threading
import time

PROGRAMS = ("migration-", "task-backend-w", "redis-server")  # as the kernel cuts their names
PAUSE = 0.6  # seconds between two stalls, at most


def descendants(pid):
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, thread), encoding="ascii") as file:
                for child in map(int, file.read().split()):
                    yield child
                    yield from descendants(child)


def runs(pid):
    """Not one that a test has stopped, which would be let go before its time."""
    with contextlib.suppress(OSError), open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(")")
        return name.startswith(PROGRAMS) and rest.split()[0] not in "TtZ"
    return False


def stall(pids, seconds):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)


def begin(span):
    least, most = map(float, span.split(":"))

    def go_on():
        while True:
            time.sleep(random.uniform(0, PAUSE))
            there = [pid for pid in descendants(os.getpid()) if runs(pid)]
            if there:
                stall(random.sample(there, random.randint(1, len(there))), random.uniform(least, most))
    threading.Thread(target=go_on, daemon=True).start()
