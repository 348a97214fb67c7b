#!/usr/bin/env python3
"""The shape of the code (docs/architecture.md), checked by reading the sources:

- dependencies point one way: a room (the first folder below src/) includes only rooms below it;
- a task backend is its folder, known to nobody but the table that src/tasks/meson.build makes;
- a third-party header appears in exactly one .c file (libcurl in two) and in none of our headers;
- every header compiles alone, with gcc and with clang;

Prints "ok - rule" or "not ok - rule" with the places; exit code 1 when a rule is broken.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SRC = os.path.join(ROOT, "src")

# A room, and the rooms that it may include beside itself.
ROOMS = {
    "base": set(),
    "flags": {"base"},
    "rollout": {"flags", "base"},  # percentages as a document
    "legacy": {"base"},
    "tasks": {"base"},
    "outcomes": {"base"},
    "ledger": {"base"},
    "operation": {"tasks", "flags", "base"},  # what an operation is; pure
    "config": {"operation", "tasks", "flags", "base"},
    "router": {"config", "operation", "ledger", "outcomes", "tasks", "legacy", "rollout", "flags", "base"},
    "programs": {"router", "config", "operation", "ledger", "outcomes", "tasks", "legacy", "rollout", "flags", "base"},  # compose the parts: the application of the router above all
}

# Third-party header: the .c files that may include it.
THIRD_PARTY = {
    r"uv\.h": {"base/loop.c"},
    r"yaml\.h": {"base/yaml.c"},
    r"(cjson/)?cJSON\.h": {"base/json.c"},
    r"sodium(/.*|\.h)": {"base/crypto.c"},
    r"curl/.*": {"base/http_client.c", "legacy/connection.c"},
    r"hiredis(/.*|\.h)": {"base/redis.c"},
    r"sqlite3\.h": {"base/db.c"},
    r"microhttpd\.h": {"router/http/listener.c"},
    r"zlib\.h": {"base/checksum.c"},
}

# The C library and the kernel; whatever is neither these, third-party, nor ours is named by the test.
SYSTEM = re.compile(r"(assert|ctype|dirent|errno|fcntl|float|fnmatch|getopt|glob|grp|inttypes|libgen|limits|locale|math|netdb|poll"
                    r"|pthread|pwd|sched|setjmp|signal|spawn|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib"
                    r"|stdnoreturn|string|strings|syslog|termios|threads|time|ucontext|unistd|wchar|wctype|malloc|endian"
                    r"|arpa/.*|net/.*|netinet/.*|sys/.*|linux/.*|asm/.*)(\.h)?$")
SYSTEM_HEADERS_OF_CPU = re.compile(r"(immintrin|emmintrin|arm_neon)\.h$")


def sources(extension):
    return sorted(os.path.relpath(p, SRC) for p in glob.glob(os.path.join(SRC, "**", "*" + extension), recursive=True))


def text_of(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as file:
        return file.read()


def includes(path):
    for number, line in enumerate(text_of(path).split("\n"), 1):
        found = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if found:
            yield number, found.group(1) == "<", found.group(2)


def room_of(path):
    return path.split("/")[0]


def direction():
    for path in sources(".c") + sources(".h"):
        room = room_of(path)
        if room not in ROOMS:
            yield "src/%s: %s is no room that this test knows" % (path, room)
            continue
        for number, angled, header in includes(path):
            if not angled and room_of(header) not in ROOMS[room] | {room}:
                yield "src/%s:%d: includes %s" % (path, number, header)
            if not angled and not os.path.exists(os.path.join(SRC, header)):
                yield "src/%s:%d: %s is not below src/" % (path, number, header)


def third_party():
    for path in sources(".c") + sources(".h"):
        for number, angled, header in includes(path):
            if not angled or SYSTEM.match(header) or SYSTEM_HEADERS_OF_CPU.match(header):
                continue
            places = [where for pattern, where in THIRD_PARTY.items() if re.fullmatch(pattern, header)]
            if not places:
                yield "src/%s:%d: <%s> is neither the C library's nor a known library's" % (path, number, header)
            elif path not in places[0]:
                yield "src/%s:%d: <%s> belongs into %s" % (path, number, header, " or ".join(sorted(places[0])))


def backends_stay_apart():
    """Nobody includes a header of a backend but the files in its folder."""
    folders = re.findall(r"^subdir\('(\w+)'\)$", text_of("tasks/meson.build"), re.M)
    backends = [f for f in folders if "task_backends +=" in text_of("tasks/%s/meson.build" % f)]
    if len(backends) < 2:
        yield "src/tasks/meson.build: the folders of the backends are not found"
    for path in sources(".c") + sources(".h"):
        for number, angled, header in includes(path):
            for backend in backends:
                own = "tasks/%s/" % backend
                if not angled and header.startswith(own) and not path.startswith(own):
                    yield "src/%s:%d: includes %s" % (path, number, header)


def programs_stay_apart():
    """The router's own application is the only one that sees every part."""
    for path in sources(".c"):
        seen = {room_of(header) for _, angled, header in includes(path) if not angled}
        if {"flags", "legacy", "tasks", "router"} <= seen and not path.startswith(("programs/router/app", "router/")):
            yield "src/%s: sees every part; only programs/router/app*.c do" % path


def alone(compiler):
    def rule():
        for header in sources(".h"):
            command = [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I" + SRC, "-fsyntax-only",
                       "-x", "c", "-"]
            text = '#include "%s"\n#include "%s"\nint alone;\n' % (header, header)
            run = subprocess.run(command, input=text, capture_output=True, text=True)
            if run.returncode:
                yield "src/%s: %s" % (header, run.stderr.strip())
    return rule


def main():
    rules = [("dependencies point one way", direction),
             ("each library's header is in its one .c file and in no header", third_party),
             ("a task backend is known to its own files", backends_stay_apart),
             ("only the router's application sees every part", programs_stay_apart)]
    rules += [("every header compiles alone (%s)" % c, alone(c)) for c in ("gcc", "clang") if shutil.which(c)]
    broken = 0
    for name, rule in rules:
        places = list(rule())
        broken += bool(places)
        print("%s - %s" % ("not ok" if places else "ok", name))
        for place in places:
            print("  " + place)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
