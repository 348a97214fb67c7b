"""libtaskq from an installed tree, as another program finds it: header, pkg-config, examples in C, the header as C++, exported names, man pages."""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import configuration as c
from programs import BUILD, backends_built

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "examples")
PATIENCE = 60
SANITIZED = subprocess.run(["grep", "-qa", "__asan_init", os.path.join(BUILD, "src", "library", "libtaskq.so.0")], check=False).returncode == 0
FLAGS = ["-fsanitize=address,undefined"] if SANITIZED else []


def run(*command, **how):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False, **how)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Only what the library's users need: the programs are tested elsewhere."""
    root = str(tmp_path_factory.mktemp("installed"))
    meson = shutil.which("meson") or os.path.join(os.path.dirname(sys.executable), "meson")
    run(meson, "install", "-C", BUILD, "--no-rebuild", "--quiet", "--tags", "runtime,devel,man", "--skip-subprojects", "--destdir", root)
    pc = [os.path.join(path, name) for path, _, names in os.walk(root) for name in names if name == "libtaskq.pc"]
    assert len(pc) == 1
    return Installed(root, os.path.dirname(pc[0]))


class Installed:
    def __init__(self, root, pkgconfig):
        self.root = root
        self.env = {**os.environ, "PKG_CONFIG_PATH": pkgconfig, "PKG_CONFIG_SYSROOT_DIR": root}
        self.library = os.path.dirname(pkgconfig)

    def flags(self, *what):
        return run("pkg-config", *what, "libtaskq", env=self.env).stdout.split()

    def compile(self, source, program, compiler="cc", *more):
        run(compiler, "-Wall", "-Wextra", "-Werror", *FLAGS, *more, source, "-o", program, *self.flags("--cflags", "--libs"),
            "-pthread", "-Wl,-rpath," + self.library)
        return program


def example(installed, name, folder):
    return installed.compile(os.path.join(EXAMPLES, name + ".c"), os.path.join(str(folder), name))


def ask(program, folder, *arguments, env=None):
    """Its output; it says nothing else, whatever happens in it."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("TASK", "CELERY", "TEMPORAL", "HATCHET", "ENVIRONMENT"))}
    done = run(program, *arguments, cwd=str(folder), env={**quiet, **(env or {})})
    assert done.stderr == "", done.stderr
    return done.stdout


def test_a_task_and_its_worker_in_one_program(installed, tmp_path):
    assert ask(example(installed, "basic", tmp_path), tmp_path) == 'embedded: {"hello": ["world"]}\n'


def test_a_workflow_of_a_file(installed, tmp_path):
    said = ask(example(installed, "workflow", tmp_path), tmp_path, os.path.join(EXAMPLES, "workflow.yml"))
    assert json.loads(said) == {"first": "Echo: how many words", "words": 4}


def test_one_variable_switches_the_backend(installed, tmp_path, start):
    program = example(installed, "switch", tmp_path)
    worker = start.process("task-backend-worker", "--database", tmp_path / "tasks.db", "--log-format", "json")
    worker.wait_event("worker_ready")
    expected = ["%d" % (n + 1) for n in range(5)]
    assert sorted(ask(program, tmp_path).split("\n")[:-1]) == ["embedded: " + n for n in expected]


def test_the_same_program_on_celery(installed, tmp_path, start, own_redis):
    if "celery" not in backends_built():
        pytest.skip("left out of this build: celery")
    env = {"CELERY_BROKER_URL": own_redis.url(0), "CELERY_RESULT_BACKEND": own_redis.url(1)}
    worker = start.process("task-backend-worker", "--backend", "celery", "--log-format", "json", env=env)
    worker.wait_event("worker_ready")
    said = ask(example(installed, "switch", tmp_path), tmp_path, env={"TASK_BACKEND_TYPE": "celery", **env})
    assert sorted(said.split("\n")[:-1]) == ["celery: %d" % (n + 1) for n in range(5)]
    assert ask(example(installed, "basic", tmp_path), tmp_path, env={"TASK_BACKEND_TYPE": "celery", **env}) == 'celery: {"hello": ["world"]}\n'


@pytest.mark.parametrize("standard", ["c99", "c++11"])
def test_the_header_needs_nothing_of_ours(installed, tmp_path, standard):
    cxx = standard.startswith("c++")
    compiler = shutil.which("c++" if cxx else "cc")
    if not compiler:
        pytest.skip("there is no C++ compiler")
    source = tmp_path / ("header.cpp" if cxx else "header.c")
    source.write_text('#include <taskq.h>\n#include <stdio.h>\nint main(void) { return puts(taskq_version()) < 0; }\n')
    program = installed.compile(source, tmp_path / "header", compiler, "-std=" + standard, "-pedantic")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ask(program, tmp_path))


def test_the_library_brings_no_functions_of_libc(installed):
    """base/clear.c replaces memset for our own programs; in a library it would be another program's, too."""
    def defined(path):
        symbols = [line.split() for line in run("nm", path).stdout.splitlines()]
        return {name for *_, kind, name in symbols if kind in "tTiWwV"} & {"memset", "memcpy", "malloc", "free", "clear_pages"}
    library = os.path.join(BUILD, "src", "library", "libtaskq.so.0")
    assert "clear_pages" not in defined(library) and (SANITIZED or not defined(library)), defined(library)
    if not SANITIZED:
        assert {"memset", "clear_pages"} <= defined(os.path.join(BUILD, "src", "programs", "migration-router"))


def test_nothing_but_the_prefix_is_exported_and_each_verb_has_its_page(installed):
    exported = [line.split()[-1].split("@")[0] for line in
                run("nm", "-D", "--defined-only", os.path.join(installed.library, "libtaskq.so.0")).stdout.splitlines()]
    verbs = {name for name in exported if name != "TASKQ_0"}
    assert verbs and all(name.startswith("taskq_") for name in verbs), verbs
    with open(os.path.join(ROOT, "src", "library", "taskq.h"), encoding="utf-8") as file:
        declared = set(re.findall(r"^[^/\s#*].*?\b(taskq_\w+)\((?!\*)", file.read(), re.M))
    assert verbs == {name for name in declared if not name.endswith("_fn")}
    pages = {name for _, _, names in os.walk(installed.root) for name in names}
    assert not {verb + ".3" for verb in verbs} - pages
