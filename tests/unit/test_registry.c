/* A registry of several files: folders, duplicates with both places, what is left out, core tasks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "support/scratch.h"
#include "tasks/worker/registry.h"
#include "tasks/worker/registry_files.h"

struct set {
	char folder[SCRATCH_MAX], tasks_d[SCRATCH_MAX];
	struct buf problems;
	struct registry *registry;
};

static const char *environment(const char *name)
{
	(void)name;
	return NULL;
}

static int set_up(void **state)
{
	static struct set s;
	s = (struct set){.problems = BUF_INIT(1 << 20)};
	scratch_make(s.folder);
	scratch_path(s.folder, "tasks.d", s.tasks_d);
	mkdir(s.tasks_d, 0700);
	*state = &s;
	return 0;
}

static int tear_down(void **state)
{
	struct set *s = *state;
	registry_free(s->registry);
	buf_release(&s->problems);
	scratch_remove(s->folder);
	return 0;
}

static void put(struct set *s, const char *name, const char *text)
{
	char path[SCRATCH_MAX];
	struct err e = {""};
	scratch_path(s->tasks_d, name, path);
	assert_int_equal(file_replace(path, span_of(text), 0600, &e), 0);
}

static int load_from(struct set *s, struct registry_source source)
{
	s->registry = registry_free(s->registry);
	buf_clear(&s->problems);
	return registry_load(&source, environment, &s->problems, &s->registry);
}

static int load(struct set *s)
{
	return load_from(s, (struct registry_source){.paths = s->tasks_d});
}

static bool knows(const struct set *s, const char *name)
{
	return registry_task(s->registry, span_of(name)) != NULL;
}

/* "<folder>/…" of the sentence is the folder of the test. */
static void expect_problem(const struct set *s, const char *file, const char *rest)
{
	char line[2 * SCRATCH_MAX];
	snprintf(line, sizeof(line), "%s/%s%s", s->tasks_d, file, rest);
	if (!s->problems.len || !strstr(s->problems.ptr, line))
		fail_msg("missing: %s\nin: %s", line, s->problems.len ? s->problems.ptr : "nothing");
}

static void expect_text(const struct set *s, const char *text)
{
	if (!s->problems.len || !strstr(s->problems.ptr, text))
		fail_msg("missing: %s\nin: %s", text, s->problems.len ? s->problems.ptr : "nothing");
}

/* --- which files ---------------------------------------------------------------------------------------- */

static void a_folder_is_its_yml_files_in_the_order_of_their_names(void **state)
{
	struct set *s = *state;
	put(s, "20-b.yml", "tasks: [{name: b, builtin: echo}]\n");
	put(s, "10-a.yml", "tasks: [{name: a, builtin: echo}]\nworkflows: [{name: w, steps: [{task: b}]}]\n");
	put(s, "30-c.yml", "workflows: [{name: v, steps: [{task: a}]}]\n");
	put(s, ".hidden.yml", "tasks: [{name: hidden, builtin: echo}]\n");
	put(s, "b.yml.bak", "tasks: [{name: a, builtin: echo}]\n");
	put(s, "README", "not YAML: [\n");
	assert_int_equal(load(s), 0);
	assert_int_equal(s->problems.len, 0);
	const size_t core = n_core_tasks;
	assert_int_equal(registry_count(s->registry), core + 2);
	assert_true(span_is(registry_task_at(s->registry, core)->name, "a"));
	assert_true(span_is(registry_task_at(s->registry, core + 1)->name, "b"));
	assert_non_null(registry_workflow(s->registry, SPAN_LIT("w")));
	assert_non_null(registry_workflow(s->registry, SPAN_LIT("v")));
	assert_int_equal(registry_task_at(s->registry, core + 1)->place.line, 1);
}

static void a_yaml_file_that_is_not_read_is_told(void **state)
{
	struct set *s = *state;
	put(s, "a.yml", "tasks: [{name: a, builtin: echo}]\n");
	put(s, "b.yaml", "tasks: [{name: b, builtin: echo}]\n");
	assert_int_equal(load(s), 0);
	assert_false(knows(s, "b"));
	expect_text(s, "warning: ");
	expect_problem(s, "b.yaml", ": is not read; names end in .yml\n");
}

static void a_list_names_files_and_folders(void **state)
{
	struct set *s = *state;
	char paths[4 * SCRATCH_MAX], other[SCRATCH_MAX];
	struct err e = {""};
	scratch_path(s->folder, "other.txt", other);
	file_replace(other, SPAN_LIT("tasks: [{name: other, builtin: echo}]\n"), 0600, &e);
	put(s, "a.yml", "tasks: [{name: a, builtin: echo}]\n");
	snprintf(paths, sizeof(paths), "%s\n%s/*.yml", other, s->tasks_d);
	assert_int_equal(load_from(s, (struct registry_source){.paths = paths}), 0);
	assert_true(knows(s, "other") && knows(s, "a"));
	/* The same file by two ways would be everything twice. */
	snprintf(paths, sizeof(paths), "%s/\n%s/a.yml", s->tasks_d, s->tasks_d);
	assert_int_equal(load_from(s, (struct registry_source){.paths = paths}), -EBADMSG);
	expect_problem(s, "a.yml", ": is listed twice; it is ");
}

static void a_folder_without_files_is_no_end_of_all_tasks(void **state)
{
	struct set *s = *state;
	char gone[SCRATCH_MAX];
	assert_int_equal(load(s), -EBADMSG);
	expect_text(s, "tasks.d: has no *.yml\n");
	assert_true(load_from(s, (struct registry_source){.paths = s->tasks_d, .skip_broken = true}) < 0);
	scratch_path(s->folder, "gone", gone);
	assert_int_equal(load_from(s, (struct registry_source){.paths = gone}), -ENOENT);
	assert_int_equal(load_from(s, (struct registry_source){.paths = gone, .skip_broken = true}), -ENOENT);
}

/* --- duplicates and what is broken ---------------------------------------------------------------------- */

static void what_is_declared_twice_is_told_with_both_places(void **state)
{
	struct set *s = *state;
	char first[SCRATCH_MAX + 64];
	put(s, "a.yml",
	    "tasks:\n  - {name: one, builtin: echo}\nworkflows:\n  - {name: w, steps: [{task: one}]}\n");
	put(s, "b.yml",
	    "tasks:\n  - {name: two, builtin: echo}\n  - {name: one, builtin: echo}\nworkflows:\n"
	    "  - {name: w, steps: [{task: two}]}\n");
	assert_int_equal(load(s), -EBADMSG);
	snprintf(first, sizeof(first), ":3: tasks[1].name: \"one\" is declared twice; first at %s/a.yml:2\n",
		 s->tasks_d);
	expect_problem(s, "b.yml", first);
	snprintf(first, sizeof(first),
		 ":5: workflows[0].name: \"w\" is declared twice; first at %s/a.yml:4\n", s->tasks_d);
	expect_problem(s, "b.yml", first);
}

static void what_is_wrong_is_left_out_where_that_is_wanted(void **state)
{
	struct set *s = *state;
	const char *lines = NULL;
	put(s, "a.yml",
	    "tasks:\n  - {name: one, builtin: echo, queue: first}\n  - {name: bad, builtin: ecko}\n"
	    "workflows:\n  - {name: w, steps: [{task: bad}]}\n  - {name: v, steps: [{task: one}]}\n");
	put(s, "b.yml",
	    "tasks:\n  - {name: one, builtin: echo, queue: second}\n  - {name: two, builtin: echo}\n");
	put(s, "c.yml", "tasks: [\n");
	assert_int_equal(load_from(s, (struct registry_source){.paths = s->tasks_d, .skip_broken = true}), 0);
	assert_true(knows(s, "one") && knows(s, "two") && !knows(s, "bad"));
	assert_true(span_is(registry_task(s->registry, SPAN_LIT("one"))->queue, "first"));
	/* A workflow that needs what is left out is left out, too. */
	assert_null(registry_workflow(s->registry, SPAN_LIT("w")));
	assert_non_null(registry_workflow(s->registry, SPAN_LIT("v")));
	assert_int_equal(registry_skipped(s->registry, &lines), 4);
	assert_string_equal(lines, s->problems.ptr);
	expect_problem(s, "a.yml", ":3: tasks[1].builtin: ");
	expect_problem(s, "a.yml", ":5: workflows[0].steps[0].task: unknown task \"bad\"");
	expect_problem(s, "b.yml", ":2: tasks[0].name: \"one\" is declared twice; first at ");
	expect_problem(s, "c.yml", ":");
	/* Nothing is served of what is not whole, otherwise. */
	assert_int_equal(load(s), -EBADMSG);
	assert_null(s->registry);
}

/* --- core tasks ----------------------------------------------------------------------------------------- */

static void core_tasks_are_there_and_a_file_decides_how_one_is_run(void **state)
{
	struct set *s = *state;
	put(s, "a.yml", "tasks: [{name: echo, builtin: echo, queue: own}]\n");
	assert_int_equal(load(s), 0);
	assert_int_equal(registry_count(s->registry), n_core_tasks);
	assert_true(span_is(registry_task(s->registry, SPAN_LIT("echo"))->queue, "own"));
	assert_int_equal(load_from(s, (struct registry_source){.paths = s->tasks_d, .without_core = true}),
			 0);
	assert_int_equal(registry_count(s->registry), 1);
	assert_int_equal(load_from(s, (struct registry_source){.paths = NULL}), 0);
	assert_int_equal(registry_count(s->registry), n_core_tasks);
}

static void a_core_task_does_not_stand_in_for_a_broken_one_of_its_name(void **state)
{
	struct set *s = *state;
	put(s, "a.yml", "tasks:\n  - {name: echo, exec: {argv: none}}\n  - {name: a, builtin: echo}\n");
	assert_int_equal(load_from(s, (struct registry_source){.paths = s->tasks_d, .skip_broken = true}), 0);
	assert_false(knows(s, "echo"));
	assert_true(knows(s, "a") && knows(s, "add_numbers"));
}

static void the_shipped_folder_is_valid_beside_the_shipped_file(void **state)
{
	struct set *s = *state;
	char paths[2048];
	const char *root = getenv("SOURCE_ROOT");
	snprintf(paths, sizeof(paths), "%s/config/tasks.yml\n%s/config/tasks.d", root, root);
	int r = load_from(s, (struct registry_source){.paths = paths});
	assert_string_equal(s->problems.len ? s->problems.ptr : "", "");
	assert_int_equal(r, 0);
	assert_true(knows(s, "count-words"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_folder_is_its_yml_files_in_the_order_of_their_names),
		TEST(a_yaml_file_that_is_not_read_is_told),
		TEST(a_list_names_files_and_folders),
		TEST(a_folder_without_files_is_no_end_of_all_tasks),
		TEST(what_is_declared_twice_is_told_with_both_places),
		TEST(what_is_wrong_is_left_out_where_that_is_wanted),
		TEST(core_tasks_are_there_and_a_file_decides_how_one_is_run),
		TEST(a_core_task_does_not_stand_in_for_a_broken_one_of_its_name),
		TEST(the_shipped_folder_is_valid_beside_the_shipped_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
