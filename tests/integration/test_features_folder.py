"""flags.file names a folder: its features files count together, as Flipt reads a folder."""
import json
import os
import signal

import pytest

import configuration as c
from http_text import wait_until
from raw import ask, request

ECHO = {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}
F, G = "f", "g"


def settings(origin, **flags):
    def operation(flag):
        return c.operation("POST /" + flag, ECHO, identity=c.IDENTITY, flags=[flag])
    config = c.router({"app": c.service(origin, {F: operation(F), G: operation(G)})}, backends=c.embedded(tasks=None))
    config["flags"] = {"file": "features", **flags}
    return config


def write(folder, path, *flags, segments=()):
    whole = os.path.join(str(folder), "features", path)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    beside = whole + ".new"
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(c.features(*flags, segments=list(segments)), file, indent=1)
    os.replace(beside, whole)
    return whole


def side(router, flag):
    answer = ask(router.port, request("POST", "/" + flag, [("X-User-Id", "u1")], b'{"message": "hi"}'))
    return {b'"Echo: hi"': "task", b"ok": "legacy"}[answer.body]


def wait_sides(router, f, g):
    wait_until(lambda: (side(router, F), side(router, G)) == (f, g), "f on %s, g on %s" % (f, g))


@pytest.fixture
def served(start):
    """A router of a folder with f (on) in one file and g (off) in another, and its worker."""
    folder = start.folder()
    write(folder, "features.yml", c.boolean(F, True))
    write(folder, "team/deep/features.yaml", c.boolean(G, False))
    router = start.router(settings(start.origin()), folder=folder)
    start.worker(router)
    wait_sides(router, "task", "legacy")
    return folder, router


def test_a_change_a_new_file_and_a_removed_one_take_effect(served):
    folder, router = served
    write(folder, "team/deep/features.yaml", c.boolean(G, True))
    wait_sides(router, "task", "task")
    write(folder, "features.yml", c.boolean(F, False))
    wait_sides(router, "legacy", "task")
    write(folder, "features.yml")
    write(folder, "new/folder/features.yml", c.boolean(F, True))
    wait_sides(router, "task", "task")
    write(folder, "new/folder/features.yml", c.boolean(F, False))
    wait_sides(router, "legacy", "task")


def test_what_is_no_features_file_counts_for_nothing(served):
    folder, router = served
    write(folder, "other.yml", c.boolean(G, True))
    write(folder, ".hidden/features.yml", c.boolean(G, True))
    write(folder, "my.features.yml", c.boolean(G, True))
    published = len(router.find("flags_published"))
    write(folder, "features.yml", c.boolean(F, False))
    router.wait_event("flags_published", count=published + 1)
    assert (side(router, F), side(router, G)) == ("legacy", "legacy")


def test_one_broken_file_leaves_the_others(served):
    folder, router = served
    broken = os.path.join(str(folder), "features", "team", "deep", "features.yaml")
    with open(broken, "w", encoding="utf-8") as file:
        file.write("flags: [{key: g, enabled: true\n")
    write(folder, "features.yml", c.boolean(F, False))
    wait_sides(router, "legacy", "legacy")
    router.wait_event("flags_vanished")
    write(folder, "features.yml", c.boolean(F, True))
    wait_sides(router, "task", "legacy")
    write(folder, "team/deep/features.yaml", c.boolean(G, True))
    wait_sides(router, "task", "task")


def test_a_flag_of_two_files_is_set_aside_and_both_are_named(start, served):
    folder, router = served
    write(folder, "x/features.yml", c.boolean(F, True))
    wait_sides(router, "legacy", "legacy")
    told = start.run("migration-router", "check", router.config_path)
    assert told.returncode == 1 and 'flag "f" is declared twice' in told.stderr, told.stderr
    assert "x/features.yml:" in told.stderr and "also in" in told.stderr
    os.unlink(os.path.join(str(folder), "features", "x", "features.yml"))
    wait_sides(router, "task", "legacy")


def test_a_config_map_is_swapped(start):
    folder = start.folder()
    top = os.path.join(str(folder), "features")
    for name, on in (("..1", True), ("..2", False)):
        write(folder, name + "/features.yml", c.boolean(F, on), c.boolean(G, on))
    os.symlink("..1", os.path.join(top, "..data"))
    os.symlink("..data/features.yml", os.path.join(top, "features.yml"))
    router = start.router(settings(start.origin()), folder=folder)
    start.worker(router)
    wait_sides(router, "task", "task")
    assert not router.find("flags_warning"), "the file counts once"
    os.symlink("..2", os.path.join(top, "..new"))
    os.replace(os.path.join(top, "..new"), os.path.join(top, "..data"))
    wait_sides(router, "legacy", "legacy")


def test_an_index_of_v1_says_which(start):
    folder = start.folder()
    write(folder, "a/flags.yml", c.boolean(F, True))
    write(folder, "b/flags.yml", c.boolean(G, True))
    write(folder, "features.yml", c.boolean(G, True))
    with open(os.path.join(str(folder), "features", ".flipt.yml"), "w", encoding="utf-8") as file:
        file.write('version: "1.0"\ninclude: ["**flags.yml"]\nexclude: ["b/*"]\n')
    router = start.router(settings(start.origin(), rules="v1"), folder=folder)
    start.worker(router)
    wait_sides(router, "task", "legacy")


def test_v1_takes_what_ends_in_features(start):
    folder = start.folder()
    write(folder, "a/one.features.yml", c.boolean(F, True))
    write(folder, "myfeatures.yaml", c.boolean(G, True))
    router = start.router(settings(start.origin(), rules="v1"), folder=folder)
    start.worker(router)
    wait_sides(router, "task", "task")


def test_rollout_changes_the_file_in_which_the_flag_stands(start, served):
    folder, router = served
    write(folder, "team/deep/features.yaml", {**c.boolean(G, False), "rollouts": [{"threshold": {"percentage": 0, "value": True}}]})
    before = open(os.path.join(str(folder), "features", "features.yml"), "rb").read()
    told = start.run("migration-rollout", "--config", router.config_path, "set", G, "100", "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "features.yaml" in open(os.path.join(str(folder), "features", "team", "deep", "features.yaml")).name
    wait_sides(router, "task", "task")
    assert open(os.path.join(str(folder), "features", "features.yml"), "rb").read() == before
    told = start.run("migration-rollout", "--config", router.config_path, "rollback", G)
    assert told.returncode == 0, told.stdout + told.stderr
    wait_sides(router, "task", "legacy")
    write(folder, "x/features.yml", c.boolean(G, False))
    told = start.run("migration-rollout", "--config", router.config_path, "set", G, "100", "--yes")
    assert told.returncode != 0 and "remove one of them" in told.stderr, told.stdout + told.stderr


def test_check_and_explain_read_a_folder_as_serving_does(start, served):
    folder, router = served
    assert start.run("migration-router", "check", router.config_path).returncode == 0
    told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", F, "--user", "u1")
    assert "side       task" in told.stdout, told.stdout + told.stderr
    write(folder, "team/deep/features.yaml", {**c.boolean(G, False), "rolouts": []})
    told = start.run("migration-router", "check", router.config_path)
    assert told.returncode == 1 and "team/deep/features.yaml:" in told.stderr and "rolouts: unknown key" in told.stderr, told.stderr
    os.rename(os.path.join(str(folder), "features"), os.path.join(str(folder), "elsewhere"))
    os.mkdir(os.path.join(str(folder), "features"))
    told = start.run("migration-router", "check", router.config_path)
    assert told.returncode == 1 and "no features files in this folder" in told.stderr, told.stderr


def test_sighup_reads_a_folder_again(served):
    folder, router = served
    write(folder, "team/deep/features.yaml", c.boolean(G, True))
    router.signal(signal.SIGHUP)
    wait_sides(router, "task", "task")
