#include "cli/explain.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "flags/flags.h"
#include "router/decide.h"

#define EXTRA_MAX 16

struct arguments {
	const char *config, *service, *operation, *user, *organisation;
	struct flag_context extra[EXTRA_MAX];
	size_t n_extra;
};

static const char *environment(const char *name)
{
	return getenv(name);
}

static int add_context(struct arguments *a, const char *pair)
{
	const char *equals = strchr(pair, '=');
	if (!equals || equals == pair) {
		fprintf(stderr, "--context: \"%s\" is not KEY=VALUE\n", pair);
		return -1;
	}
	if (a->n_extra == EXTRA_MAX) {
		fprintf(stderr, "--context: more than %d\n", EXTRA_MAX);
		return -1;
	}
	a->extra[a->n_extra++] = (struct flag_context){{pair, (size_t)(equals - pair)}, span_of(equals + 1)};
	return 0;
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},   {"service", required_argument, NULL, 's'},
		{"operation", required_argument, NULL, 'o'}, {"user", required_argument, NULL, 'u'},
		{"org", required_argument, NULL, 'g'},	     {"context", required_argument, NULL, 'x'},
		{0}};
	int o;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			a->config = optarg;
			break;
		case 's':
			a->service = optarg;
			break;
		case 'o':
			a->operation = optarg;
			break;
		case 'u':
			a->user = optarg;
			break;
		case 'g':
			a->organisation = optarg;
			break;
		case 'x':
			if (add_context(a, optarg) < 0)
				return -1;
			break;
		default:
			return -1;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "unknown argument \"%s\"\n", argv[optind]);
		return -1;
	}
	if (!a->service || !a->operation) {
		fprintf(stderr, "explain: --service and --operation are needed (--config defaults to config/router.yml)\n");
		return -1;
	}
	return 0;
}

static void print_step(void *arg, unsigned depth, const char *sentence)
{
	(void)arg;
	printf("  %*s%s\n", (int)depth * 2, "", sentence);
}

static struct span given(const char *text)
{
	return text && *text ? span_of(text) : SPAN_NONE;
}

/* As identity_find does: the first part of the operation's list that is there. */
static struct span entity_of(const struct operation *op, struct span user, struct span organisation)
{
	for (size_t i = 0; i < op->identity.n_entity; i++) {
		struct span part = op->identity.entity[i] == IDENTITY_USER ? user : organisation;
		if (part.ptr)
			return part;
	}
	return SPAN_NONE;
}

static void list_services(const struct config *c)
{
	fprintf(stderr, "known:");
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++)
			fprintf(stderr, " %.*s.%.*s", SPAN_ARG(c->services[i].name),
				SPAN_ARG(c->services[i].operations[j].name));
	fprintf(stderr, "\n");
}

static const struct flag_snapshot *load_flags(const struct config *c)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *s = NULL;
	struct err e;
	const char *path = c->flags.kind == FLAG_SOURCE_FLIPT ? c->flags.snapshot_file : c->flags.file;
	enum flag_rules rules = c->flags.v1_rules ? FLAG_RULES_V1 : FLAG_RULES_V2;
	int r = file_read(path, FLAG_MAX_DOCUMENT - 1, &text, &e);
	if (r == 0)
		r = c->flags.kind == FLAG_SOURCE_FLIPT ? flag_snapshot_parse_json(path, buf_span(&text), rules, &s, &e)
						       : flag_snapshot_parse_features(path, buf_span(&text), rules, &s, &e);
	if (r < 0) {
		printf("flags      none: %s\n", e.text);
		return NULL;
	}
	printf("flags      %s, digest %s\n", path, flag_snapshot_digest(s));
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		printf("           warning: %s\n", flag_snapshot_warning(s, i));
	return s;
}

static void explain(const struct config *c, const struct operation *op, const struct arguments *a)
{
	const struct flag_snapshot *flags = load_flags(c);
	struct decide_input in = {
		.config = c,
		.operation = op,
		.flags = flags,
		.user = given(a->user),
		.organisation = given(a->organisation),
		.extra = a->extra,
		.n_extra = a->n_extra,
	};
	in.entity = entity_of(op, in.user, in.organisation);
	printf("operation  %.*s.%.*s  %.*s %.*s\n", SPAN_ARG(op->service), SPAN_ARG(op->name), SPAN_ARG(op->method),
	       SPAN_ARG(op->path));
	printf("entity     %.*s\n\n", SPAN_ARG(in.entity.ptr ? in.entity : SPAN_LIT("none (" DECIDE_ANONYMOUS ")")));
	struct flag_trace trace = {.step = print_step};
	struct decision d;
	decide(&in, &d, &trace);
	printf("\nside       %s\n", outcome_side_text(d.side));
	if (d.backend.len)
		printf("backend    %.*s%s\n", SPAN_ARG(d.backend), d.side == OUTCOME_LEGACY ? " (shadow)" : "");
	if (d.shadow > 0)
		printf("shadow     %g\n", d.shadow);
	if (d.variant.len)
		printf("variant    %.*s\n", SPAN_ARG(d.variant));
	printf("reason     %s\n", outcome_reason_text(d.reason));
	flag_snapshot_unref(flags);
}

int explain_command(int argc, char **argv)
{
	struct arguments a = {.config = "config/router.yml"};
	if (parse(argc, argv, &a) < 0)
		return 2;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *c = NULL;
	if (config_load(a.config, environment, &problems, &c) < 0) {
		fputs(problems.len ? problems.ptr : "the configuration could not be read\n", stderr);
		return 2;
	}
	const struct service *s = config_service(c, span_of(a.service));
	const struct operation *op = s ? service_operation(s, span_of(a.operation)) : NULL;
	if (op) {
		explain(c, op, &a);
	} else {
		fprintf(stderr, "there is no operation %s.%s in %s\n", a.service, a.operation, a.config);
		list_services(c);
	}
	config_unref(c);
	return op ? 0 : 2;
}
