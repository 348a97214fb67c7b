#include "programs/router/explain/explain.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/text.h"
#include "flags/flags.h"
#include "flags/print.h"
#include "flags/source/features_folder.h"
#include "flags/source/last_good.h"
#include "flags/source/saved_snapshot.h"
#include "guard/guard_verdict.h"
#include "operation/identity.h"
#include "programs/router/explain/explain_decision.h"

#define EXTRA_MAX 16

struct arguments {
	const char *config, *service, *operation, *user, *organization;
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

/* What a request could not say either. */
static bool usable_identity(const char *option, const char *text)
{
	if (text && (strlen(text) > IDENTITY_MAX || !text_is_plain(span_of(text)))) {
		fprintf(stderr,
			"%s: an id has at most %d bytes, of UTF-8 without control characters: a request with "
			"this one has no identity\n",
			option, IDENTITY_MAX);
		return false;
	}
	return true;
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"service", required_argument, NULL, 's'},
						{"operation", required_argument, NULL, 'o'},
						{"user", required_argument, NULL, 'u'},
						{"org", required_argument, NULL, 'g'},
						{"context", required_argument, NULL, 'x'},
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
			a->organization = optarg;
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
		fprintf(stderr, "explain: --service and --operation are needed (--config defaults to "
				"config/router.yml)\n");
		return -1;
	}
	return usable_identity("--user", a->user) && usable_identity("--org", a->organization) ? 0 : -1;
}

static struct span given(const char *text)
{
	return text && *text ? span_of(text) : SPAN_NONE;
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

/* The last good snapshot of a Flipt server, as the router saved it: what it serves by right now, unless it
 * could not write. */
static int load_saved(const struct config *c, enum saved_kind kind, struct flag_snapshot **ret,
		      int64_t *ret_saved_us, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	struct span snapshot;
	bool flipt = kind == SAVED_FLIPT;
	struct saved_from from = {kind, flipt ? c->flags.namespace_key : NULL,
				  flipt ? c->flags.environment : NULL};
	return saved_snapshot_read(c->flags.snapshot_file, &from, &text, &snapshot, ret, ret_saved_us, e);
}

/* A flag that the file has lost is served by its last good definition: so does the router (last_good.h). */
static int carry_lost(const struct config *c, const struct operation *op, struct flag_snapshot **s,
		      struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(buf_releasep) struct buf whole = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct last_good good;
	struct err ignored;
	int64_t saved_us;
	int r = 0;
	if (last_good_init(&good, SAVED_FILE, c->flags.snapshot_file, NULL, NULL) == 0 &&
	    last_good_use(&good, op->flags, op->n_flags) == 0 &&
	    last_good_load(&good, &saved_us, &ignored) == 0 && last_good_lacks(&good, *s) &&
	    (r = flag_snapshot_print(*s, &text)) == 0)
		r = last_good_complete(&good, *s, buf_span(&text), &whole, s, e);
	for (size_t i = 0; r == 0 && i < good.next.n && i < FLAG_CARRIED_NAMED; i++)
		printf("           note: %s has vanished from the file; its last good definition serves "
		       "(%s)\n",
		       good.next.names[i], c->flags.snapshot_file);
	last_good_release(&good);
	return r;
}

static int load_features(const struct config *c, const struct operation *op, struct flag_snapshot **ret,
			 int64_t *ret_saved_us, struct err *e)
{
	CLEANUP(features_release) struct features_text text = {.whole = BUF_INIT(0)};
	struct stat st;
	int r = features_read(c->flags.file, c->flags.rules, &text, e);
	if (r == 0)
		r = features_parse(c->flags.file, &text, c->flags.namespace_key, c->flags.rules, ret, e);
	if (r == 0 && stat(c->flags.file, &st) == 0)
		*ret_saved_us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
	if (r == 0)
		return carry_lost(c, op, ret, e);
	printf("           note: the file cannot be used: %s; its last good version serves\n", e->text);
	return load_saved(c, SAVED_FILE, ret, ret_saved_us, e);
}

/* "3 d 4 h", "12 min", "5 s". */
static const char *age_text(int64_t since_us, char out[48])
{
	long long s = (clock_wall_us() - since_us) / 1000000;
	if (s < 0)
		s = 0;
	if (s >= 86400)
		snprintf(out, 48, "%lld d %lld h", s / 86400, s % 86400 / 3600);
	else if (s >= 3600)
		snprintf(out, 48, "%lld h %lld min", s / 3600, s % 3600 / 60);
	else if (s >= 60)
		snprintf(out, 48, "%lld min %lld s", s / 60, s % 60);
	else
		snprintf(out, 48, "%lld s", s);
	return out;
}

static const struct flag_snapshot *load_flags(const struct config *c, const struct operation *op)
{
	bool flipt = c->flags.kind == FLAG_SOURCE_FLIPT;
	const char *path = flipt ? c->flags.snapshot_file : c->flags.file;
	struct flag_snapshot *s = NULL;
	int64_t saved_us = 0;
	struct err e;
	int r = flipt ? load_saved(c, SAVED_FLIPT, &s, &saved_us, &e)
		      : load_features(c, op, &s, &saved_us, &e);
	if (r < 0) {
		printf("flags      none: %s\n", e.text);
		return NULL;
	}
	char when[CLOCK_TEXT_MAX], age[48];
	printf("flags      %s%s, %s rules\n", flipt ? "last good snapshot of Flipt, " : "", path,
	       flag_rules_text(flag_snapshot_rules(s)));
	printf("digest     %s\n", flag_snapshot_digest(s));
	if (saved_us) {
		clock_format(saved_us, when);
		printf("age        %s (changed %s)\n", age_text(saved_us, age), when);
	}
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		printf("           warning: %s\n", flag_snapshot_warning(s, i));
	return s;
}

/* What the guard holds, as far as this machine's outcomes tell. NULL: nothing. */
static const struct guard_holds *read_holds(const struct config *c, const struct operation *op)
{
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *v = NULL;
	struct err e = {""};
	int r = guard_verdicts_read(c->outcomes.path, op->service.ptr, op->name.ptr, &v, &e);
	if (r < 0 && r != -ENOENT && r != -ENODATA)
		printf("  note: cannot determine whether the guard holds it: %s\n", e.text);
	if (r < 0 || v->n == 0 || !v->operations[0].held)
		return NULL;
	struct guard_hold hold = {.keeps = v->operations[0].keeps};
	struct guard_holds *holds = guard_holds_new();
	span_copy(op->service, hold.service, sizeof(hold.service));
	span_copy(op->name, hold.operation, sizeof(hold.operation));
	if (holds && guard_holds_put(holds, &hold) < 0)
		puts("  note: the guard holds it, which is left out: out of memory");
	return holds;
}

static void explain(const struct config *c, const struct operation *op, const struct arguments *a)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1u << 20);
	const struct flag_snapshot *flags = load_flags(c, op);
	struct decide_input in = {
		.config = c,
		.operation = op,
		.flags = flags,
		.user = given(a->user),
		.organization = given(a->organization),
		.extra = a->extra,
		.n_extra = a->n_extra,
		.holds = read_holds(c, op),
	};
	explain_decision(&in, &out);
	if (out.len)
		fwrite(out.ptr, 1, out.len, stdout);
	guard_holds_unref(in.holds);
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
