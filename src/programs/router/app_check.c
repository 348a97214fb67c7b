/*
 * migration-router check FILE: the configuration, the settings of its backends, and on demand the backends
 * themselves, before anyone depends on them.
 */
#include "programs/router/app_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "programs/router/app_registration.h"

#define CHECK_MS 20000

static const char *answer_text(enum task_answer a)
{
	if (a == TASK_ANSWER_YES)
		return "yes";
	return a == TASK_ANSWER_NO ? "no" : "?";
}

/* --- the table ------------------------------------------------------------------------------------------ */

/* Whether it is asked about. */
static bool app_check_wants(const struct app_check *how, const struct registration_entry *entry)
{
	return (!how->service || span_is(entry->operation->service, how->service)) &&
	       (!how->backend || span_is(entry->backend, how->backend));
}

static int name_width(const struct registration *r, const struct app_check *how)
{
	size_t width = strlen("OPERATION");
	for (size_t i = 0; i < registration_count(r); i++) {
		const struct operation *op = registration_at(r, i)->operation;
		if (!app_check_wants(how, registration_at(r, i)))
			continue;
		size_t n = op->service.len + 1 + op->name.len;
		width = n > width ? n : width;
	}
	return (int)width;
}

static void print_entry(const struct registration_entry *entry, int width)
{
	char name[256];
	snprintf(name, sizeof(name), "%.*s.%.*s", SPAN_ARG(entry->operation->service),
		 SPAN_ARG(entry->operation->name));
	printf("%-*s  %-8.*s  %-9s  %-9s  %-5s  %-6s  %s\n", width, name, SPAN_ARG(entry->backend), entry->by,
	       entry->now.reachable ? "yes" : "no", answer_text(entry->now.known),
	       answer_text(entry->now.worker), entry->now.missing[0] ? entry->now.missing : "-");
}

static int print_table(const struct registration *r, const struct app_check *how)
{
	int width = name_width(r, how);
	size_t lacking = 0, wanted = 0;
	for (size_t i = 0; i < registration_count(r); i++)
		wanted += app_check_wants(how, registration_at(r, i));
	if (wanted == 0)
		printf("no operation has a task%s\n", how->service || how->backend ? " there" : "");
	else
		printf("%-*s  %-8s  %-9s  %-9s  %-5s  %-6s  %s\n", width, "OPERATION", "BACKEND", "BY",
		       "REACHABLE", "KNOWN", "WORKER", "MISSING");
	for (size_t i = 0; i < registration_count(r); i++) {
		const struct registration_entry *entry = registration_at(r, i);
		if (!app_check_wants(how, entry))
			continue;
		/* who names a backend asks before a flag leads there */
		lacking += (entry->needed || how->backend) && registration_lacks(entry);
		print_entry(entry, width);
	}
	if (lacking)
		printf("%zu missing\n", lacking);
	return lacking ? 1 : 0;
}

static int check_backends(struct app *a, const struct app_check *how)
{
	struct err e = {""};
	int r = app_clients_start(a, &e);
	if (r == 0)
		r = registration_new(a, a->config, &a->registration, &e);
	if (r < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	registration_ask_now(a->registration, CHECK_MS);
	return print_table(a->registration, how);
}

/* --- the application, as far as it is needed ------------------------------------------------------------ */

static void app_check_stop(struct app *a)
{
	for (size_t i = 0; i < a->env.n_backends; i++)
		a->health[i].client = task_client_free(a->health[i].client);
	if (a->loop)
		loop_run_posted(a->loop);
	a->registration = registration_free(a->registration);
	app_backends_free(a);
	loop_free(a->loop);
	config_unref(a->config);
}

static void print_fine(const struct config *c)
{
	size_t operations = 0, mapped = 0;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			operations++;
			mapped += c->services[i].operations[j].has_task;
		}
	printf("%s: ok: %zu services, %zu operations, %zu of them mapped to tasks\n", c->path, c->n_services,
	       operations, mapped);
}

static int ask_backends(struct app *a, const struct app_check *how)
{
	struct err e = {""};
	if (loop_new(&a->loop) < 0) {
		fprintf(stderr, "no event loop\n");
		return 1;
	}
	if (app_backends_start(a, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	int code = how->backends ? check_backends(a, how) : 0;
	if (how->test) {
		int tested = app_check_test(a, how);
		code = code > tested ? code : tested;
	}
	return code;
}

/* A service or backend that is not there would be one that lacks nothing. */
static int app_check_names(const struct app_check *how, const struct config *c, struct buf *problems)
{
	struct err e;
	if (how->service && !config_service(c, span_of(how->service)))
		buf_printf(problems, "--service: no service \"%s\" is declared\n", how->service);
	else if (how->backend && !config_backend(c, span_of(how->backend))) {
		config_backend_not_found(c, span_of(how->backend), &e);
		buf_printf(problems, "--backend: %s\n", e.text);
	} else
		return 0;
	return 2;
}

int app_check(const struct app_check *how)
{
	struct app a = {.signals = -1, .only_looking = true};
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *config = NULL;
	log_setup(LOG_ERROR, LOG_LOGFMT); /* what is missing is printed, not logged */
	int code = config_load(how->config_path, app_getenv, &problems, &config) < 0 ? 2 : 0;
	a.config = config;
	if (code == 0)
		code = app_check_names(how, config, &problems);
	if (code == 0 && app_backends_make(&a, &problems) < 0)
		code = 2;
	if (problems.len)
		fputs(problems.ptr, stderr);
	if (code == 0 && (how->backends || how->test))
		code = ask_backends(&a, how);
	else if (code == 0)
		print_fine(config);
	app_check_stop(&a);
	return code;
}
