#!/usr/bin/env python3
"""The shape of the code (docs/architecture.md), checked by reading the sources:

- dependencies point one way: a room (the first folder below src/) includes only rooms below it;
- a task backend is its folder, known to nobody but the table that src/tasks/meson.build makes;
- a third-party header appears in exactly one .c file (libcurl in three) and in none of our headers;
- no folder holds more than 20 .c files, but base;
- files do not call each other in a circle, but for those that are listed here with the reason;
- pages name files and functions that are there;
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

# A room, and the rooms that it may include beside itself.
ROOMS = {
    "base": set(),
    "flags": {"base"},
    "rollout": {"flags", "base"},  # percentages as a document
    "legacy": {"base"},
    "tasks": {"base"},
    "library": {"tasks", "base"},  # libtaskq: the task abstraction for other programs
    "traces": {"base"},  # W3C trace context, spans and their export
    "outcomes": {"base"},
    "ledger": {"base"},
    "guard": {"outcomes", "ledger", "base"},  # whether the task side is worse, judged from outcomes
    "standing": {"guard", "outcomes", "base"},  # where a migration stands now, in one sentence; pure
    "compare": {"base"},  # where two answers differ; pure
    "pairs": {"compare", "outcomes", "base"},  # both sides' answers, compared and counted
    "operation": {"tasks", "flags", "compare", "base"},  # what an operation is; pure
    "config": {"traces", "operation", "pairs", "outcomes", "tasks", "flags", "compare", "base"},
    "page": {"operation", "pairs", "standing", "guard", "outcomes", "compare", "base"},  # the pages of the admin listener, as HTML
    "router": {"page", "config", "traces", "operation", "ledger", "pairs", "compare", "guard", "outcomes", "tasks", "legacy", "flags", "base"},
    # changes to percentages: planned, written, verified, recorded
    "move": {"router", "page", "config", "operation", "pairs", "guard", "outcomes", "rollout", "flags", "base"},
    "programs": {"move", "page", "router", "traces", "config", "operation", "ledger", "pairs", "compare", "standing", "guard", "outcomes", "tasks", "legacy", "rollout", "flags", "base"},  # compose the parts
}

FILES_PER_FOLDER = 20
LARGE_FOLDERS = {
    "base": "many small things that know nothing of each other",
}

# Files that call each other in a circle, and why they do. A new file in a circle fails, and so does a line that is no longer true.
CIRCLES = {
    ("tasks/queue/store_flow.c", "tasks/queue/store_lease.c"):
        "what ends a step moves its workflow on, which ends or cancels others",
    ("legacy/call.c", "legacy/call_receive.c", "legacy/call_send.c"):
        "one state machine, in a file for each direction",
    ("base/redis.c", "base/redis_sentinel.c"):
        "a client asks its Sentinels over clients of the same kind",
}

# Third-party header: the .c files that may include it.
THIRD_PARTY = {
    r"uv\.h": {"base/loop.c"},
    r"yaml\.h": {"base/yaml.c"},
    r"(cjson/)?cJSON\.h": {"base/json.c"},
    r"sodium(/.*|\.h)": {"base/crypto.c"},
    r"curl/.*": {"base/curl_loop.c", "base/http_client.c", "legacy/connection.c"},
    r"hiredis(/.*|\.h)": {"base/redis.c", "base/redis_tls.c"},
    r"openssl/.*": {"base/redis_tls.c"},
    r"(rabbitmq-c/)?(amqp|ssl_socket|tcp_socket|amqp_ssl_socket|amqp_tcp_socket)\.h": {"base/rabbit_link.c"},
    r"libpq-fe\.h": {"base/postgres.c"},
    r"sqlite3\.h": {"base/db.c"},
    r"microhttpd\.h": {"router/http/listener.c"},
    # What protobuf-c makes of worker/temporal_api.proto, at build time.
    r"temporal_api\.pb-c\.h": {"tasks/temporal/worker/%s.c" % name for name in ("activity_tasks", "api", "calls", "decide", "polls", "workflow_tasks")},
    r"zlib\.h": {"base/checksum.c", "base/gzip.c"},
    r"protobuf-c/.*": set(),  # generated code includes it
}

# The C library and the kernel; whatever is neither these, third-party, nor ours is named by the test.
SYSTEM = re.compile(r"(assert|ctype|dirent|errno|fcntl|float|fnmatch|getopt|glob|grp|inttypes|langinfo|libgen|limits|locale|math|netdb|poll"
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
            if header.endswith(".pb-c.h"):  # made of a .proto by the build
                continue
            if not angled and not os.path.exists(os.path.join(SRC, header)):
                yield "src/%s:%d: %s is not below src/" % (path, number, header)


def rooms_in_order():
    seen = set()
    for room, below in ROOMS.items():
        if below - seen:
            yield "%s uses %s, which stands behind it in the list" % (room, ", ".join(sorted(below - seen)))
        seen.add(room)


def folder_sizes():
    folders = {}
    for path in sources(".c"):
        folders.setdefault(os.path.dirname(path), []).append(path)
    for folder, files in sorted(folders.items()):
        if len(files) > FILES_PER_FOLDER and folder not in LARGE_FOLDERS:
            yield "src/%s holds %d .c files, more than %d" % (folder, len(files), FILES_PER_FOLDER)
    for folder in LARGE_FOLDERS:
        if len(folders.get(folder, [])) <= FILES_PER_FOLDER:
            yield "src/%s needs no exception: it holds %d .c files" % (folder, len(folders.get(folder, [])))


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


def bare(path):
    """The source without comments, texts and includes, and without the names of members."""
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^\s*#\s*include[^\n]*', " ", text_of(path), flags=re.S | re.M)
    return re.sub(r"(?:->|\.)\s*\w+|\b(?:struct|enum|union) \w+", " ", text)


def definitions(text):
    """What other files can call: functions (the parameters' list is followed by a body) and data with an initial value."""
    for found in re.finditer(r"^(?!static\b|typedef\b|extern\b|return\b|else\b)[A-Za-z_][\w \t*]*?\b(\w+)\((?:[^;{}()]|\([^()]*\))*\)\s*\{", text, re.M):
        yield found.group(1)
    for found in re.finditer(r"^(?:const |unsigned |char |int )[\w \t*]*?\b(\w+)(?:\[\w*\])* = ", text, re.M):
        yield found.group(1)


def calls():
    """File -> {file that it calls: one name}."""
    texts = {path: bare(path) for path in sources(".c")}
    owners = {}
    for path, text in texts.items():
        for name in definitions(text):
            if name != "main":
                owners[name] = path
    graph = {path: {} for path in texts}
    for path, text in texts.items():
        for name in set(re.findall(r"\b\w+\b", text)):
            if owners.get(name, path) != path and not re.search(r"^static [^;{}]*\b%s\(" % name, text, re.M):
                graph[path].setdefault(owners[name], name)
    return graph


def circles_of(graph):
    """The strongly connected components of more than one file (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(path):
        index[path] = low[path] = len(index)
        stack.append(path)
        for callee in graph[path]:
            if callee not in index:
                visit(callee)
            if callee in stack:
                low[path] = min(low[path], low[callee])
        if low[path] == index[path]:
            at = stack.index(path)
            found.append(stack[at:])
            del stack[at:]

    for path in sorted(graph):
        if path not in index:
            visit(path)
    return [sorted(circle) for circle in found if len(circle) > 1]


def circles():
    graph = calls()
    if sum(len(callees) for callees in graph.values()) < 2 * len(graph):
        yield "the calls between files are not found"
    allowed = [set(files) for files in CIRCLES]
    for circle in circles_of(graph):
        if set(circle) not in allowed:
            arrows = ["%s calls %s (%s)" % (a, b, graph[a][b]) for a in circle for b in graph[a] if b in circle]
            yield "src/: a circle that is not listed: %s" % "; ".join(arrows)
        else:
            allowed.remove(set(circle))
    for files in allowed:
        yield "tests/layers.py: no longer a circle: %s" % ", ".join(sorted(files))


def pages_name_what_is_there():
    """Files below src/ that pages name, and the functions of docs/architecture.md (written `name()`)."""
    code = "\n".join(text_of(path) for path in sources(".c") + sources(".h"))
    with open(os.path.join(ROOT, "config", "router.yml"), encoding="utf-8") as file:
        words = code + file.read()
    pages = sorted(glob.glob(os.path.join(ROOT, "*.md")) + glob.glob(os.path.join(ROOT, "docs", "**", "*.md"), recursive=True))
    named = 0
    for page in pages:
        map_of_code = os.path.basename(page) == "architecture.md"
        with open(page, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                files = re.findall(r"\bsrc/([\w/]+\.[ch])\b", line)
                if map_of_code:
                    files += re.findall(r"`([\w]+/[\w/]+\.[ch])`", line)
                for path in files:
                    named += 1
                    if not os.path.exists(os.path.join(SRC, path)):
                        yield "%s:%d: src/%s is not there" % (os.path.relpath(page, ROOT), number, path)
                said = re.findall(r"`(\w+_\w+)`", line) if os.path.basename(page) in ("operating.md", "troubleshooting.md") else ()
                for name in said:  # keys, log events, reasons, metrics
                    if not re.search(r"\b%s\b" % name, words):
                        yield "%s:%d: nothing is called %s" % (os.path.relpath(page, ROOT), number, name)
                for name in re.findall(r"`(\w+)\(\)`", line) if map_of_code else ():
                    if not re.search(r"^[\w \t*]*\b%s\(" % name, code, re.M):
                        yield "%s:%d: there is no function %s" % (os.path.relpath(page, ROOT), number, name)
    if named < 30:
        yield "docs: the files that pages name are not found"


def without_texts(source):
    """The source with its comments and what stands in quotes blanked; lines stay where they are."""
    blank = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    source = re.sub(r"/\*.*?\*/", blank, source, flags=re.S)
    return re.sub(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)+\'', blank, source)


def nested_choice(statement):
    """Whether a ?: stands within another one, be it in a call's arguments."""
    depth, open_at = 0, []
    for c in statement:
        if c in "([":
            depth += 1
        elif c in ")]":
            open_at = [at for at in open_at if at < depth]
            depth -= 1
        elif c == ",":
            open_at = [at for at in open_at if at < depth]
        elif c == "?":
            if open_at:
                return True
            open_at.append(depth)
    return False


def plain_statements():
    for path in sources(".c") + sources(".h"):
        with open(os.path.join(SRC, path), encoding="utf-8") as file:
            source = without_texts(file.read())
        at = 0
        for end in re.finditer(r"[;{}]", source):
            statement = source[at:end.start()]
            line = source[:end.start()].count("\n") + 1
            if nested_choice(statement):
                yield "src/%s:%d: a ?: within a ?:" % (path, line)
            if re.search(r"\breturn\s+\(?\*?\w[\w.>-]*\s=\s", statement) or re.search(r"\breturn\b[^=]*[^=!<>]=[^=].*,", statement, re.S) and not re.search(r"=\s*\(", statement):
                yield "src/%s:%d: return assigns on the way" % (path, line)
            at = end.end()


def width():
    for folder in ("src", "tests", "scripts"):
        for path in sorted(glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True)):
            with open(path, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if len(line.rstrip("\n").expandtabs(8)) > 110:
                        yield "%s:%d: wider than 110 columns" % (os.path.relpath(path, ROOT), number)


def dividers():
    for folder in ("src", "tests"):
        for path in sorted(glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True)):
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if re.match(r"\s\* ?-{8,}", line) and "|" not in line:
                        yield "%s:%d: a divider that goes over two lines" % (os.path.relpath(path, ROOT), number)


CLANG_FORMAT = "14"  # Debian 12's; others lay some lines out differently


def formatter():
    """clang-format of that version, or None: then this is not checked."""
    for name in ("clang-format-" + CLANG_FORMAT, "clang-format"):
        if shutil.which(name):
            said = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            if " version %s." % CLANG_FORMAT in said:
                return name
    return None


def formatted():
    files = sorted(p for folder in ("src", "tests", "scripts")
                   for p in glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True))
    run = subprocess.run([formatter(), "--dry-run", *files], capture_output=True, text=True)
    seen = set()
    for place in re.findall(r"^(\S+?:\d+):\d+: warning: code should be clang-formatted", run.stderr, re.M):
        if place.split(":")[0] not in seen:
            seen.add(place.split(":")[0])
            yield "%s: not as clang-format (.clang-format) writes it" % os.path.relpath(place, ROOT)
    if run.returncode or (run.stderr and not seen):
        yield "clang-format: " + run.stderr.strip()[:300]


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
             ("the rooms are listed from the ground up", rooms_in_order),
             ("no folder is over its size", folder_sizes),
             ("no circles between files but those listed", circles),
             ("each library's header is in its one .c file and in no header", third_party),
             ("a task backend is known to its own files", backends_stay_apart),
             ("pages name files and functions that are there", pages_name_what_is_there),
             ("only the router's application sees every part", programs_stay_apart),
             ("lines have at most 110 columns", width),
             ("dividers are one line", dividers),
             ("statements do one thing", plain_statements)]
    if formatter():
        rules.append(("sources are as clang-format writes them", formatted))
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
