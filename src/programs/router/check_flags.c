#include "programs/router/check_flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flags/source/features_folder.h"
#include "move/flag_names.h"
#include "move/place.h"

static const char *environment(const char *name)
{
	return getenv(name);
}

/* --- flags in use --------------------------------------------------------------------------------------- */

static bool check_asks(const struct config *c, const struct operation *op, struct span flag)
{
	for (size_t i = 0; i < op->n_flags; i++)
		if (span_eq(op->flags[i], flag))
			return true;
	return c->hatchet_flag.len && span_eq(flag, c->hatchet_flag) &&
	       config_backend(c, SPAN_LIT("hatchet"));
}

static void list_users(const struct config *c, struct span flag, struct buf *out)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			if (op->has_task && check_asks(c, op, flag))
				buf_printf(out, "%s%.*s.%.*s", out->len ? ", " : "", SPAN_ARG(op->service),
					   SPAN_ARG(op->name));
		}
}

/* What decides where the flag is nowhere. */
static const char *without(const struct config *c, struct span flag)
{
	for (size_t i = 0; i < c->n_env_defaults; i++)
		if (span_eq(c->env_defaults[i].flag, flag))
			return c->env_defaults[i].value
				       ? "the environment's default, task for everybody, applies"
				       : "the environment's default, legacy, applies";
	return "legacy serves";
}

static bool check_one(const struct config *c, const struct flag_snapshot *s, struct span flag)
{
	CLEANUP(buf_releasep) struct buf users = BUF_INIT(65536);
	CLEANUP(buf_releasep) struct buf near = BUF_INIT(65536);
	CLEANUP(freep) char *key = span_dup(flag);
	bool hatchet = c->hatchet_flag.len && span_eq(flag, c->hatchet_flag);
	list_users(c, flag, &users);
	if (!key || !users.len)
		return true;
	const struct flag *f = flag_find(s, flag);
	if (f && flag_broken(f)) {
		printf("  BROKEN   %s  (%s): legacy serves: %s\n", key, users.ptr, flag_broken(f));
		return false;
	}
	if (f) {
		printf("  there    %s  (%s)\n", key, users.ptr);
		return true;
	}
	flag_names_suggest(s, key, &near);
	printf("  %s  %s  (%s): without it %s%s\n", hatchet ? "absent " : "MISSING", key, users.ptr,
	       hatchet ? "the default backend serves" : without(c, flag), near.len ? near.ptr : "");
	return hatchet; /* which nobody needs */
}

static void say_unasked(FILE *out, const char *kind, const struct config *c, const struct flag_snapshot *s,
			const struct operation *op, struct span flag)
{
	CLEANUP(buf_releasep) struct buf properties = BUF_INIT(65536);
	const struct flag *f = flag_find(s, flag);
	if (!f || !op->has_task || !check_asks(c, op, flag))
		return;
	flag_names_unasked(op, f, &properties);
	if (properties.len)
		fprintf(out,
			"%s: %.*s asks for %s, which %.*s.%.*s does not provide: add it to the operation's "
			"\"context\"\n",
			kind, SPAN_ARG(flag), properties.ptr, SPAN_ARG(op->service), SPAN_ARG(op->name));
}

/* --- all of it ------------------------------------------------------------------------------------------ */

/* Every flag once, in the order of the configuration. */
static bool first_use(const struct config *c, size_t service, size_t operation, size_t flag)
{
	struct span key = c->services[service].operations[operation].flags[flag];
	for (size_t i = 0; i <= service; i++)
		for (size_t j = 0; j < c->services[i].n_operations && (i < service || j < operation); j++)
			for (size_t k = 0; k < c->services[i].operations[j].n_flags; k++)
				if (c->services[i].operations[j].has_task &&
				    span_eq(c->services[i].operations[j].flags[k], key))
					return false;
	return true;
}

static size_t compare_flags(const struct config *c, const struct flag_snapshot *s)
{
	size_t missing = 0;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags && op->has_task; k++)
				missing += first_use(c, i, j, k) && !check_one(c, s, op->flags[k]);
		}
	if (c->hatchet_flag.len)
		check_one(c, s, c->hatchet_flag);
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++)
			for (size_t k = 0; k < c->services[i].operations[j].n_flags; k++)
				say_unasked(stdout, "  note", c, s, &c->services[i].operations[j],
					    c->services[i].operations[j].flags[k]);
	return missing;
}

static int check_source(const struct config *c, struct err *e)
{
	CLEANUP(place_closep) struct rollout_place *p = NULL;
	struct flag_snapshot *s = NULL;
	int r = place_open(c, NULL, &p, e);
	if (r == 0)
		r = place_read(p, e);
	if (r == 0)
		r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r < 0)
		return r;
	printf("flags in %s", p->name);
	if (p->server.known)
		printf(" (Flipt %u.%u.%u)", p->server.major, p->server.minor, p->server.patch);
	printf("\n");
	size_t missing = compare_flags(c, s);
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		printf("  %s: %s\n", flag_snapshot_warning_is_mistake(s, i) ? "mistake" : "warning",
		       flag_snapshot_warning(s, i));
	/* of a server it is others who must mend them */
	bool mistakes = !p->flipt && flag_snapshot_mistakes(s);
	flag_snapshot_unref(s);
	if (missing)
		printf("%zu missing\n", missing);
	return missing || mistakes ? 1 : 0;
}

/* --- without a connection ------------------------------------------------------------------------------- */

static bool file_has(const struct config *c, const struct flag_snapshot *s, const struct operation *op,
		     struct span flag)
{
	CLEANUP(buf_releasep) struct buf near = BUF_INIT(65536);
	CLEANUP(freep) char *key = span_dup(flag);
	const struct flag *f = flag_find(s, flag);
	if (!key || (f && !flag_broken(f)))
		return true;
	if (f) {
		fprintf(stderr, "%s: %.*s.%.*s asks for the flag \"%s\", which is set aside: %s\n", c->path,
			SPAN_ARG(op->service), SPAN_ARG(op->name), key, flag_broken(f));
		return false;
	}
	flag_names_suggest(s, key, &near);
	fprintf(stderr, "%s: %.*s.%.*s asks for the flag \"%s\", which %s does not have: %s%s\n", c->path,
		SPAN_ARG(op->service), SPAN_ARG(op->name), key, c->flags.file, without(c, flag),
		near.len ? near.ptr : "");
	return false;
}

static int judge_file(const struct config *c, const struct flag_snapshot *s)
{
	bool fine = flag_snapshot_mistakes(s) == 0;
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		fprintf(stderr, "%s%s\n", flag_snapshot_warning_is_mistake(s, i) ? "" : "warning: ",
			flag_snapshot_warning(s, i));
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags && op->has_task; k++) {
				fine = file_has(c, s, op, op->flags[k]) && fine;
				say_unasked(stderr, "warning", c, s, op, op->flags[k]);
			}
		}
	return fine ? 0 : 1;
}

int check_flags_file(const char *config_path)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	CLEANUP(features_release) struct features_text text = {.whole = BUF_INIT(0)};
	struct flag_snapshot *s = NULL;
	struct config *c = NULL;
	struct err e = {""};
	int code = 0;
	if (config_load(config_path, environment, &problems, &c) < 0)
		return 2; /* which has been told */
	if (c->flags.kind == FLAG_SOURCE_FILE && access(c->flags.file, R_OK) == 0) {
		/* that it is missing has been reported, too */
		int r = features_read(c->flags.file, c->flags.rules, &text, &e);
		if (r == 0)
			r = features_parse(c->flags.file, &text, c->flags.namespace_key, c->flags.rules, &s,
					   &e);
		if (r < 0)
			fprintf(stderr, "%s\n", e.text);
		code = r < 0 ? 1 : judge_file(c, s);
	}
	flag_snapshot_unref(s);
	config_unref(c);
	return code;
}

int check_flags(const char *config_path)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *c = NULL;
	struct err e = {""};
	if (config_load(config_path, environment, &problems, &c) < 0) {
		fputs(problems.len ? problems.ptr : "the configuration could not be read\n", stderr);
		return 2;
	}
	int r = check_source(c, &e);
	if (r < 0)
		fprintf(stderr, "flags: %s\n", e.text);
	config_unref(c);
	return r < 0 ? 1 : r;
}
