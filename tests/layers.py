#!/usr/bin/env python3
"""The shape of the code (design, "Shape of the code"), checked by reading #include lines:

- dependencies point one way: main, cli -> app -> router -> {flags, legacy, tasks, metrics} -> base;
- a task backend is known to its own files, and to the table in src/tasks/meson.build;
- a third-party header appears in exactly one .c file (libcurl in two) and in none of our headers;
- every header compiles alone, with gcc and with clang.

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

# Layer: what it may include beside itself.
LAYERS = {
    "base": {"base"},
    "flags": {"flags", "base"},
    "legacy": {"legacy", "base"},
    "tasks": {"tasks", "base"},
    "metrics": {"metrics", "base"},
    "router": {"router", "flags", "legacy", "tasks", "metrics", "base"},
    "app": {"app", "router", "flags", "legacy", "tasks", "metrics", "base"},
    # The programs beside the router compose parts themselves, as app does for the router.
    "cli": {"cli", "app", "router", "flags", "legacy", "tasks", "metrics", "base"},
    "main": {"main", "cli", "app", "router", "flags", "legacy", "tasks", "metrics", "base"},
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
    r"microhttpd\.h": {"router/listener.c"},
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


def includes(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            found = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            if found:
                yield number, found.group(1) == "<", found.group(2)


def layer_of(path):
    """Its folder; of a file in src/ itself its name up to the first "_" (app_status.c is a part of app)."""
    return path.split("/")[0] if "/" in path else re.split(r"[._]", path)[0]


def direction():
    for path in sources(".c") + sources(".h"):
        if layer_of(path) not in LAYERS:
            yield "src/%s: %s is no layer that this test knows" % (path, layer_of(path))
            continue
        for number, angled, header in includes(path):
            if not angled and layer_of(header) not in LAYERS[layer_of(path)]:
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
    """Nobody includes a header of a backend but files that begin with its name."""
    with open(os.path.join(SRC, "tasks", "meson.build"), encoding="utf-8") as file:
        backends = re.findall(r"^  '(\w+)': \{$", file.read(), re.M)
    if len(backends) < 2:
        yield "src/tasks/meson.build: the rows of the backends are not found"
    for path in sources(".c") + sources(".h"):
        for number, angled, header in includes(path):
            for backend in backends:
                own = "tasks/" + backend
                if not angled and header.startswith(own) and not path.startswith(own):
                    yield "src/%s:%d: includes %s" % (path, number, header)


def programs_stay_apart():
    """app.c is the only file that sees every part."""
    for path in sources(".c"):
        seen = {layer_of(header) for _, angled, header in includes(path) if not angled}
        if {"flags", "legacy", "tasks", "metrics", "router"} <= seen and layer_of(path) not in ("app", "router"):
            yield "src/%s: sees every part; only app.c does" % path


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
             ("only app.c sees every part", programs_stay_apart)]
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
