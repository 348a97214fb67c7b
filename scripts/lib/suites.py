"""The test suites: builds them, runs them, counts them. Called by scripts/test with the tests' Python.

Every suite is a generator of results; a result is (name, "passed" | "failed" | "skipped", detail). What is counted is the
smallest thing that has a name: a case of a cmocka program, a rule of layers.py, a fuzz target, a pytest function.
"""
import concurrent.futures
import glob
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FUZZ_SECONDS = int(os.environ.get("FUZZ_SECONDS", "5"))
# Tests at once: three quarters of their time is waiting.
PROCESSES = min(4 * (os.cpu_count() or 1), 12)
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:suppressions=" + os.path.join(ROOT, "tests", "tsan.supp"),
}
BUILDS = {
    "gcc": ["-Dwerror=true"],
    "asan": ["-Db_sanitize=address,undefined", "-Db_lundef=false"],
    # Backends left out: hatchet stays, so that there is one beside embedded.
    "few": ["-Dwerror=true", "-Dbackends=hatchet", "-Dbuildtype=plain"],
    "tsan": ["-Db_sanitize=thread", "-Db_lundef=false"],
    # The fuzz targets are clang's; libFuzzer's own driver is linked only into them (tests/fuzz/meson.build).
    "clang": ["-Dwerror=true", "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"],
}
built = {}


class CannotBuild(Exception):
    pass


def build(kind, targets=()):
    """Builds build-test-KIND, or only these targets of it, once per run and returns its folder."""
    if kind not in built:
        environment = dict(os.environ, BUILD_TARGETS=" ".join(targets))
        if kind == "clang":
            environment["CC"] = "clang"
        script = '. "$1/scripts/lib/common.sh"; shift; build "$@"'
        command = ["bash", "-c", script, "build", ROOT, "test-" + kind, kind] + BUILDS[kind]
        built[kind] = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode == 0
    if not built[kind]:
        raise CannotBuild("the %s build fails" % kind)
    return os.path.join(ROOT, "build-test-" + kind)


def tail(text, lines=40):
    return "\n".join(text.rstrip().split("\n")[-lines:])


# --- unit tests: meson runs the programs, each says its cases in TAP ---------------------------------------------------

def cases_of(record):
    """The cases of one program from its record in testlog.json."""
    if record["result"] == "SKIP":
        yield record["name"], "skipped", tail(record.get("stdout", "") + record.get("stderr", ""), 1) or "exit code 77"
        return
    output = record.get("stdout", "")
    failed = False
    for ok, case, skip in re.findall(r"^(not ok|ok) \d+ - ([^#\n]*?)\s*(# SKIP[^\n]*)?$", output, re.M):
        name = "%s: %s" % (record["name"], case)
        failed |= ok == "not ok"
        yield name, "failed" if ok == "not ok" else "skipped" if skip else "passed", \
            said_of(output) + "\n" + tail(record.get("stderr", "")) if ok == "not ok" else skip
    if record["result"] != "OK" and not failed:  # crashed, timed out, or a sanitizer spoke at the end
        yield record["name"], "failed", record["result"] + "\n" + tail(output + record.get("stderr", ""))
    elif record["result"] == "OK" and not re.search(r"^(not )?ok \d+", output, re.M):
        yield record["name"], "passed", ""  # a program without cases counts as one


def said_of(output):
    """What TAP says besides the cases that are well."""
    return tail("\n".join(line for line in output.split("\n") if not re.match(r"ok |1\.\.", line)))


def meson_tests(kind, prefix=(), suite=None, only=()):
    """All unit tests, or those named: of these alone is built what they need."""
    names = [re.sub(r"^test_|\.c$", "", os.path.basename(name)) for name in only]
    for name in names:
        if not os.path.exists(os.path.join(ROOT, "tests", "unit", "test_%s.c" % name)):
            yield name, "failed", "there is no tests/unit/test_%s.c" % name
            return
    folder = build(kind, ["build.ninja"] if names else [])  # then meson builds what these tests need
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", **SANITIZER_ENVIRONMENT)
    command = [*prefix, "meson", "test", "-C", folder, *([] if names else ["--no-rebuild"]), "--quiet", "--timeout-multiplier",
               "1" if kind == "gcc" else "4", "--num-processes", str(PROCESSES), *(["--suite", suite] if suite else []), *names]
    log = os.path.join(folder, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.unlink(log)
    run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if not os.path.exists(log):
        errors = [line for line in (run.stdout + run.stderr).split("\n") if re.search(r"error|warning|undefined", line)]
        yield "meson test", "failed", "\n".join(errors[:20]) or tail(run.stdout + run.stderr)
        return
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            yield from cases_of(json.loads(line))


def unit(*only):
    yield from meson_tests("gcc", only=only)


def asan(*only):
    yield from meson_tests("asan", only=only)


def tsan(*only):
    # TSan's shadow memory and some kernels' address randomisation do not get along.
    fixed_addresses = ["setarch", "-R"]
    possible = subprocess.run(fixed_addresses + ["true"], capture_output=True).returncode == 0
    yield from meson_tests("tsan", fixed_addresses if possible else [], only=only)


def clang():
    build("clang")
    yield "clang finds nothing to warn about", "passed", ""


# --- fuzz targets: the committed corpus is replayed, then a few seconds of new inputs ----------------------------------

def fuzz(*only):
    folder = os.path.join(build("clang"), "tests", "fuzz")
    targets = sorted(t for t in glob.glob(os.path.join(folder, "fuzz_*")) if os.access(t, os.X_OK) and os.path.isfile(t))
    if not targets:
        yield "fuzz", "failed", "no fuzz target was built in " + folder
    targets = [t for t in targets if not only or os.path.basename(t)[len("fuzz_"):] in only]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for results in pool.map(lambda target: list(fuzz_target(target, folder)), targets):
            yield from results


def fuzz_target(target, folder):
    environment = dict(os.environ, **SANITIZER_ENVIRONMENT)
    name = os.path.basename(target)[len("fuzz_"):]
    seeds = [d for d in (os.path.join(ROOT, "tests", "fuzz", kind, name) for kind in ("corpus", "regressions"))
             if os.path.isdir(d)]
    inputs = sorted(f for d in seeds for f in glob.glob(os.path.join(d, "*")))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if inputs:
            yield fuzz_result(name + ": replay of %d inputs" % len(inputs), [target] + inputs, environment, scratch)
        found = os.path.join(scratch, "found")
        os.mkdir(found)
        command = [target, "-max_total_time=%d" % FUZZ_SECONDS, "-timeout=10", "-rss_limit_mb=2048",
                   "-print_final_stats=0", "-verbosity=0", "-artifact_prefix=" + folder + "/", found] + seeds
        yield fuzz_result(name + ": %d s of new inputs" % FUZZ_SECONDS, command, environment, scratch)


def fuzz_result(name, command, environment, scratch):
    run = subprocess.run(command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                         errors="replace")
    return name, "passed" if run.returncode == 0 else "failed", tail(run.stdout + run.stderr)


# --- layers and integration: Python ------------------------------------------------------------------------------------

def layers():
    run = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "layers.py")], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True)
    for ok, rule in re.findall(r"^(ok|not ok) - (.*)$", run.stdout, re.M):
        yield rule, "passed" if ok == "ok" else "failed", run.stdout + run.stderr if ok != "ok" else ""
    if run.returncode not in (0, 1):
        yield "layers.py", "failed", tail(run.stdout + run.stderr)


def pytest(kind, *arguments, files=("",)):
    folder = build(kind)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        report = os.path.join(scratch, "report.xml")
        environment = dict(os.environ, MIGRATION_ROUTER_BUILD=folder, PYTHONDONTWRITEBYTECODE="1", **SANITIZER_ENVIRONMENT)
        command = [sys.executable, "-m", "pytest", *(os.path.join(ROOT, "tests", "integration", f) for f in files), "-q", "--junit-xml",
                   report, "-p", "no:cacheprovider", "--basetemp", os.path.join(scratch, "tmp"), "--numprocesses", str(PROCESSES),
                   "--dist", "loadgroup", *arguments]
        run = subprocess.run(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             errors="replace")
        if not os.path.exists(report):
            yield "pytest", "failed", tail(run.stdout + run.stderr)
            return
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        if not cases:  # no test has such a name
            yield "pytest", "failed", tail(run.stdout + run.stderr, 10)
        for case in cases:
            name = "%s::%s" % (case.get("classname", "").split(".")[-1], case.get("name").split("@")[0])
            for child in case:
                if child.tag in ("failure", "error"):
                    yield name, "failed", tail(child.text or child.get("message", ""), 80)
                    break
                if child.tag == "skipped":
                    yield name, "skipped", child.get("message", "")
                    break
            else:
                yield name, "passed", ""


def selected(only):
    """pytest's words for NAME (a file: contract, test_contract.py), NAME::TEST, or a part of tests' names."""
    files, words = [], []
    for name in only:
        file, _, test = name.partition("::")
        file = "test_" + re.sub(r"^test_|\.py$", "", os.path.basename(file))
        if os.path.exists(os.path.join(ROOT, "tests", "integration", file + ".py")):
            files.append(file + ".py" + ("::" + test if test else ""))
            words.append("(%s)" % " and ".join(filter(None, (file, test))))
        else:
            words.append(name)
    if len(files) == len(only):
        return {"files": files or ("",)}, []
    return {}, ["-k", " or ".join(words)]


def integration(*only):
    files, words = selected(only)
    yield from pytest("gcc", *words, **files)


def integration_asan(*only):
    files, words = selected(only)
    yield from pytest("asan", "-m", "not heavy", *words, **files)


def left_out():
    """A build without some of the backends: its unit tests, and what it says of those that it has not."""
    yield from meson_tests("few", suite="unit")
    yield from pytest("few", files=("test_left_out.py", "test_new_backend.py"))


RELEASES = {"12": "bookworm", "13": "trixie"}


def other_release():
    """The unit tests with the libraries of the other Debian release, in a bare root folder (scripts/test-in)."""
    here = platform.freedesktop_os_release() if hasattr(platform, "freedesktop_os_release") else {}
    name = RELEASES["12" if here.get("VERSION_ID") == "13" else "13"]
    run = subprocess.run([os.path.join(ROOT, "scripts", "test-in"), name, "unit"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, errors="replace")
    count = re.search(r"^unit +(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", run.stdout, re.M)
    if run.returncode == 3 and not count:
        yield name, "skipped", tail(run.stderr, 1)
        return
    if not count:
        yield name, "failed", tail(run.stdout + run.stderr)
        return
    for result, n in zip(("passed", "failed", "skipped"), count.groups("0")):
        for _ in range(int(n)):
            yield name, result, tail(run.stdout) if result == "failed" else "see scripts/test-in %s unit" % name


SUITES = [
    ("layers", layers), ("unit", unit), ("asan", asan), ("tsan", tsan), ("clang", clang), ("fuzz", fuzz), ("left-out", left_out),
    ("integration", integration), ("integration-asan", integration_asan), ("other-release", other_release),
]


def run_suite(name, suite, only=()):
    started = time.monotonic()
    count = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        for case, result, detail in suite(*only):
            count[result] += 1
            if result == "failed":
                print("FAILED %s: %s" % (name, case))
                print("    " + (detail or "").strip().replace("\n", "\n    "))
            elif result == "skipped":
                print("skipped %s: %s: %s" % (name, case, detail))
    except CannotBuild as why:
        count["failed"] += 1
        print("FAILED %s: %s" % (name, why))
    except Exception as why:  # whatever goes wrong with one suite: the others run, and the last line is printed
        count["failed"] += 1
        print("FAILED %s: %s: %s" % (name, type(why).__name__, why))
    print("%-17s %s (%.0f s)" % (name, in_words(count), time.monotonic() - started))
    return count


def in_words(count):
    words = "%d passed, %d failed" % (count["passed"], count["failed"])
    return words + (", %d skipped" % count["skipped"] if count["skipped"] else "")


def in_suites(arguments):
    """Each word that is no suite is a test of the suite named before it: [("unit", ["text", "db"]), …]; None: that is wrong."""
    known = dict(SUITES)
    asked = []
    for word in arguments:
        if word in known:
            asked.append((word, []))
        elif not asked:
            print("scripts/test: there is no suite %s; available: %s" % (word, " ".join(known)))
            return None
        elif known[asked[-1][0]].__code__.co_flags & inspect.CO_VARARGS:
            asked[-1][1].append(word)
        else:
            print("scripts/test: %s is neither a suite nor something that %s could run alone" % (word, asked[-1][0]))
            return None
    return asked or [(name, []) for name in known]


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(name for name, _ in SUITES))
        return 0
    asked = in_suites(arguments)
    if asked is None:
        return 2
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for name, only in asked:
        for result, n in run_suite(name, dict(SUITES)[name], only).items():
            total[result] += n
    print(in_words(total))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
