/*
 * migration-rollout: reads and changes percentages, in the features file or through Flipt's API (v2, v1).
 *
 * Exit codes: 0 done (or nothing to do), 1 failed or refused, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/json.h"
#include "flags/flags.h"
#include "flags/rollout.h"
#include "router/config.h"

#define CONFLICTS_MAX 5
#define LINES_MAX 64
#define ADMIN_MAX 16
#define WAIT_MS 30000
#define TIMEOUT_MS 15000

struct place {
	const struct config *config;
	struct loop *loop;
	struct http_client *http;
	bool flipt;
	int version; /* of Flipt */
	const char *flag;
	struct buf text;     /* the document that is edited: features file, v2 resource payload, v1 flag put together */
	struct buf revision; /* v2 */
	struct buf flags;    /* what is evaluated: features file or snapshot */
};

struct arguments {
	const char *config, *segment, *journal, *command, *flag;
	const char *admin[ADMIN_MAX];
	size_t n_admin;
	double percent;
	bool yes, dry_run, wait;
};

static const char usage_text[] =
	"Usage: migration-rollout [OPTION]... COMMAND\n"
	"Percentages of flags, in the features file or in Flipt: whichever the router's configuration names.\n"
	"\n"
	"  get [FLAG]               what each rule says, and what an operation of several flags comes to\n"
	"  set FLAG PERCENT         for everybody, or with --segment for those of a segment\n"
	"  enable FLAG, disable FLAG\n"
	"  rollback FLAG            everybody to legacy\n"
	"  plan FLAG PERCENT        who of the recorded identities would move\n"
	"  history                  what was changed with this program\n"
	"\n"
	"  --config FILE            the router's configuration (config/router.yml)\n"
	"  --segment S              the rule of this segment\n"
	"  --dry-run                shows the change and writes nothing\n"
	"  --yes                    does not ask before more than doubling a percentage\n"
	"  --wait --admin URL...    returns when these routers have the change\n"
	"  --journal FILE           where changes are recorded (rollouts.jsonl beside the outcomes)\n"
	"  --help, --version\n";

static const char *environment(const char *name)
{
	return getenv(name);
}

/* --- HTTP, one call after the other -------------------------------------------------------------------------------- */

struct asked {
	struct loop *loop;
	struct buf *body;
	int status;
	struct err *e;
};

static void on_answer(void *arg, const struct http_reply *r)
{
	struct asked *a = arg;
	if (r->failure != HTTP_OK)
		err_set(a->e, -EIO, "%s", r->detail);
	else
		a->status = r->status;
	if (a->status && a->body)
		buf_append_span(a->body, r->body);
	loop_stop(a->loop);
}

/* The status, or <0. `path` is joined to `base`. */
static int ask(struct place *p, const char *base, const char *method, const char *path, struct span body, struct buf *answer,
	       struct err *e)
{
	CLEANUP(freep) char *url = NULL, *bearer = NULL;
	const struct config *c = p->config;
	struct http_field fields[3] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
				       {SPAN_LIT("X-Flipt-Accept-Server-Version"), SPAN_LIT("1.47.0")}};
	size_t n = 2, length = strlen(base);
	while (length && base[length - 1] == '/')
		length--;
	if (asprintf(&url, "%.*s%s", (int)length, base, path) < 0 ||
	    (base == c->flags.url && c->flags.token && asprintf(&bearer, "Bearer %s", c->flags.token) < 0))
		return err_set(e, -ENOMEM, "out of memory");
	if (bearer)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), span_of(bearer)};
	struct asked a = {.loop = p->loop, .body = answer, .e = e};
	struct http_request q = {.method = method, .url = url, .fields = fields, .n_fields = n, .body = body,
				 .timeout_ms = TIMEOUT_MS, .max_body = 64u << 20, .may_resend = strcmp(method, "GET") == 0};
	struct http_events events = {.arg = &a, .done = on_answer};
	struct http_call *call;
	int r = http_start(p->http, &q, &events, &call, e);
	if (r == 0)
		r = loop_run(p->loop);
	return r < 0 ? r : a.status ? a.status : -EIO;
}

/* A status that is not 200 becomes a sentence with Flipt's own message. */
static int expect(int status, const char *what, const struct buf *answer, struct err *e)
{
	struct span message;
	if (status == 200 || status < 0)
		return status < 0 ? status : 0;
	if (!json_pointer(buf_span(answer), SPAN_LIT("/message"), &message))
		message = SPAN_LIT("");
	return err_set(e, status == 404 ? -ENOENT : -EIO, "%s: Flipt answers %d %.*s", what, status, SPAN_ARG(message));
}

static int call_flipt(struct place *p, const char *method, const char *path, struct span body, struct buf *answer, struct err *e)
{
	buf_clear(answer);
	return expect(ask(p, p->config->flags.url, method, path, body, answer, e), path, answer, e);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static int find_version(struct place *p, struct err *e)
{
	CLEANUP(buf_releasep) struct buf answer = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(freep) char *path = NULL;
	const struct config *c = p->config;
	if (asprintf(&path, "/client/v2/environments/%s/namespaces/%s/snapshot", c->flags.environment, c->flags.namespace_key) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	int status = ask(p, c->flags.url, "GET", path, SPAN_NONE, &answer, e);
	struct span ignored;
	p->version = status == 404 && !json_pointer(buf_span(&answer), SPAN_LIT("/code"), &ignored) ? 1 : 2;
	if (p->version == 1) {
		free(path);
		if (asprintf(&path, "/internal/v1/evaluation/snapshot/namespace/%s", c->flags.namespace_key) < 0) {
			path = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		buf_clear(&answer);
		status = ask(p, c->flags.url, "GET", path, SPAN_NONE, &answer, e);
	}
	int r = expect(status, path, &answer, e);
	buf_clear(&p->flags);
	return r < 0 ? r : buf_append_span(&p->flags, buf_span(&answer));
}

static int read_v2(struct place *p, struct err *e)
{
	CLEANUP(buf_releasep) struct buf answer = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(freep) char *path = NULL;
	struct span payload, revision;
	if (asprintf(&path, "/api/v2/environments/%s/namespaces/%s/resources/flipt.core.Flag/%s", p->config->flags.environment,
		     p->config->flags.namespace_key, p->flag) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	int r = call_flipt(p, "GET", path, SPAN_NONE, &answer, e);
	if (r < 0)
		return r;
	if (!json_pointer(buf_span(&answer), SPAN_LIT("/resource/payload"), &payload) ||
	    !json_pointer(buf_span(&answer), SPAN_LIT("/revision"), &revision) || revision.len <= 2)
		return err_set(e, -EBADMSG, "%s: no payload or no revision in the answer", path);
	buf_append_span(&p->text, payload);
	return buf_append_span(&p->revision, revision);
}

/* v1 has no document of a flag: one is put together, with variant keys in place of ids beside the ids. */
static int add_rules_v1(struct buf *out, struct span rules, struct span variants)
{
	struct json_iter it, inner, of;
	struct span key, rule, list, item, id, vid, name;
	bool first = true;
	json_iter_init(&it, rules);
	while (json_iter_next(&it, &key, &rule)) {
		bool comma = false;
		buf_puts(out, first ? "{" : ",{");
		first = false;
		for (json_iter_init(&inner, rule); json_iter_next(&inner, &key, &item);) {
			if (span_is(key, "\"distributions\""))
				continue;
			buf_printf(out, "%s%.*s: %.*s", comma ? ", " : "", SPAN_ARG(key), SPAN_ARG(item));
			comma = true;
		}
		buf_puts(out, ", \"distributions\": [");
		comma = false;
		if (json_pointer(rule, SPAN_LIT("/distributions"), &list))
			for (json_iter_init(&inner, list); json_iter_next(&inner, &key, &item);) {
				struct span variant = SPAN_LIT("\"\""), v;
				json_pointer(item, SPAN_LIT("/variantId"), &id);
				for (json_iter_init(&of, variants); json_iter_next(&of, &key, &v);)
					if (json_pointer(v, SPAN_LIT("/id"), &vid) && span_eq(vid, id) &&
					    json_pointer(v, SPAN_LIT("/key"), &name))
						variant = name;
				buf_printf(out, "%s{\"variant\": %.*s, ", comma ? ", " : "", SPAN_ARG(variant));
				buf_append(out, item.ptr + 1, item.len - 1);
				comma = true;
			}
		buf_puts(out, "]}");
	}
	return out->error;
}

static int read_v1(struct place *p, struct err *e)
{
	CLEANUP(buf_releasep) struct buf flag = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(buf_releasep) struct buf rules = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(buf_releasep) struct buf rollouts = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(freep) char *path = NULL, *of_rules = NULL, *of_rollouts = NULL;
	struct span variants, list;
	if (asprintf(&path, "/api/v1/namespaces/%s/flags/%s", p->config->flags.namespace_key, p->flag) < 0 ||
	    asprintf(&of_rules, "%s/rules", path) < 0 || asprintf(&of_rollouts, "%s/rollouts", path) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	int r = call_flipt(p, "GET", path, SPAN_NONE, &flag, e);
	if (r == 0)
		r = call_flipt(p, "GET", of_rules, SPAN_NONE, &rules, e);
	if (r == 0)
		r = call_flipt(p, "GET", of_rollouts, SPAN_NONE, &rollouts, e);
	if (r < 0)
		return r;
	struct span whole = buf_span(&flag);
	while (whole.len && whole.ptr[whole.len - 1] != '}')
		whole.len--;
	if (!whole.len || !json_pointer(whole, SPAN_LIT("/variants"), &variants))
		return err_set(e, -EBADMSG, "%s: not a flag", path);
	buf_append(&p->text, whole.ptr, whole.len - 1);
	buf_puts(&p->text, ", \"rules\": [");
	if (json_pointer(buf_span(&rules), SPAN_LIT("/rules"), &list))
		add_rules_v1(&p->text, list, variants);
	buf_puts(&p->text, "], \"rollouts\": ");
	buf_append_span(&p->text, json_pointer(buf_span(&rollouts), SPAN_LIT("/rules"), &list) ? list : SPAN_LIT("[]"));
	buf_puts(&p->text, "}");
	return p->text.error ? err_set(e, p->text.error, "the flag is too large") : 0;
}

/* What is to be evaluated, and (with a flag) the document to be edited. */
static int read_place(struct place *p, struct err *e)
{
	buf_clear(&p->text);
	buf_clear(&p->revision);
	buf_clear(&p->flags);
	if (!p->flipt) {
		int r = file_read(p->config->flags.file, FLAG_MAX_DOCUMENT, &p->flags, e);
		return r < 0 ? r : buf_append_span(&p->text, buf_span(&p->flags));
	}
	int r = find_version(p, e);
	if (r < 0 || !p->flag)
		return r;
	return p->version == 2 ? read_v2(p, e) : read_v1(p, e);
}

static int parse_flags(const struct place *p, struct span text, struct flag_snapshot **ret, struct err *e)
{
	bool v1 = p->flipt ? p->version == 1 : p->config->flags.v1_rules;
	enum flag_rules rules = v1 ? FLAG_RULES_V1 : FLAG_RULES_V2;
	return p->flipt ? flag_snapshot_parse_json("snapshot", text, rules, ret, e)
			: flag_snapshot_parse_features(p->config->flags.file, text, rules, ret, e);
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static int write_file(struct place *p, struct span text, struct err *e)
{
	CLEANUP(freep) char *target = realpath(p->config->flags.file, NULL); /* a symbolic link stays one */
	struct flag_snapshot *s = NULL;
	struct stat st;
	int r = parse_flags(p, text, &s, e);
	flag_snapshot_unref(s);
	if (r < 0)
		return r;
	if (!target || stat(target, &st) < 0)
		return err_set(e, -errno, "%s: %s", p->config->flags.file, strerror(errno));
	return file_replace(target, text, st.st_mode & 0777, e);
}

/* 1 on a conflict: read again. */
static int write_v2(struct place *p, struct span text, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(buf_releasep) struct buf answer = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(freep) char *path = NULL;
	if (asprintf(&path, "/api/v2/environments/%s/namespaces/%s/resources", p->config->flags.environment,
		     p->config->flags.namespace_key) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	buf_puts(&body, "{\"key\":");
	json_quote(&body, span_of(p->flag));
	buf_puts(&body, ",\"payload\":");
	buf_append_span(&body, text);
	buf_printf(&body, ",\"revision\":%s}", p->revision.ptr);
	int status = body.error ? body.error : ask(p, p->config->flags.url, "PUT", path, buf_span(&body), &answer, e);
	int r = expect(status, path, &answer, e);
	return status == 409 ? 1 : r;
}

static int write_v1_change(struct place *p, const struct rollout_document *d, const struct rollout_change *c, struct err *e)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(4096);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
	CLEANUP(buf_releasep) struct buf answer = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct span id = rollout_member(d, c, false, "id"), share = rollout_member(d, c, true, "id"), value;
	buf_printf(&path, "/api/v1/namespaces/%s/flags/%s", p->config->flags.namespace_key, p->flag);
	if (c->what == ROLLOUT_ENABLED) {
		static const char *const kept[] = {"/name", "/description"};
		buf_printf(&body, "{\"enabled\":%s", c->to > 0 ? "true" : "false");
		for (size_t i = 0; i < 2; i++)
			if (json_pointer(buf_span(&p->text), span_of(kept[i]), &value))
				buf_printf(&body, ",\"%s\":%.*s", kept[i] + 1, SPAN_ARG(value));
		buf_puts(&body, "}");
	} else if (c->what == ROLLOUT_SHARE) {
		struct span variant = rollout_member(d, c, true, "variantId");
		buf_printf(&path, "/rules/%.*s/distributions/%.*s", SPAN_ARG(id), SPAN_ARG(share));
		buf_printf(&body, "{\"variantId\":\"%.*s\",\"rollout\":%.6g}", SPAN_ARG(variant), c->to);
	} else {
		char pointer[64];
		snprintf(pointer, sizeof(pointer), "/rollouts/%zu/%s", c->rule,
			 c->what == ROLLOUT_THRESHOLD ? "threshold" : "segment");
		buf_printf(&path, "/rollouts/%.*s", SPAN_ARG(id));
		if (c->what == ROLLOUT_THRESHOLD) {
			buf_printf(&body, "{\"threshold\":{\"percentage\":%.6g,\"value\":true}}", c->to);
		} else if (json_pointer(buf_span(&p->text), span_of(pointer), &value)) {
			/* Of duplicate members the last counts: the segment as it is, with its value said again. */
			buf_printf(&body, "{\"segment\":%.*s,\"value\":%s}}", (int)value.len - 1, value.ptr,
				   c->to > 0 ? "true" : "false");
		}
	}
	if (path.error || body.error)
		return err_set(e, -EFBIG, "the change is too large");
	return call_flipt(p, "PUT", path.ptr, buf_span(&body), &answer, e);
}

static int write_place(struct place *p, const struct rollout_document *d, const struct rollout_plan *plan, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	int r = 0;
	if (p->flipt && p->version == 1) {
		for (size_t i = 0; i < plan->n && r == 0; i++)
			r = write_v1_change(p, d, &plan->changes[i], e);
		return r;
	}
	r = rollout_apply(d, plan, &text, e);
	if (r < 0)
		return r;
	return p->flipt ? write_v2(p, buf_span(&text), e) : write_file(p, buf_span(&text), e);
}

/* --- journal ------------------------------------------------------------------------------------------------------- */

static int journal_path(const struct place *p, const struct arguments *a, char **ret)
{
	const char *beside = p->config->outcomes.path, *slash = strrchr(beside, '/');
	if (a->journal)
		return (*ret = strdup(a->journal)) ? 0 : -ENOMEM;
	return asprintf(ret, "%.*srollouts.jsonl", slash ? (int)(slash + 1 - beside) : 0, beside) < 0 ? -ENOMEM : 0;
}

static void record(const struct place *p, const struct arguments *a, const struct rollout_plan *plan)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(65536);
	char when[CLOCK_TEXT_MAX];
	const struct passwd *user = getpwuid(getuid());
	const char *sudo = getenv("SUDO_USER"), *fields[][2] = {
		{"who", sudo ? sudo : user ? user->pw_name : "?"}, {"command", a->command}, {"flag", a->flag},
		{"segment", a->segment ? a->segment : ""}};
	clock_format(clock_wall_us(), when);
	buf_printf(&line, "{\"when\":\"%s\"", when);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		buf_printf(&line, ",\"%s\":", fields[i][0]);
		json_quote(&line, span_of(fields[i][1]));
	}
	buf_printf(&line, ",\"from\":%.6g,\"to\":%.6g}\n", plan->from, plan->to);
	FILE *file = NULL;
	struct err e = {""};
	if (journal_path(p, a, &path) == 0 && file_make_parent(path, 0700, &e) == 0)
		file = fopen(path, "ae");
	if (!file || fputs(line.ptr, file) < 0)
		fprintf(stderr, "the change was made, but not recorded in %s: %s\n", path ? path : "?", strerror(errno));
	if (file)
		fclose(file);
}

static int history(const struct place *p, const struct arguments *a)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct err e;
	if (journal_path(p, a, &path) < 0)
		return 1;
	int r = file_read(path, FLAG_MAX_DOCUMENT / 2, &text, &e);
	if (r < 0) {
		fprintf(stderr, "%s\n", e.text);
		return r == -ENOENT ? 0 : 1;
	}
	return fputs(text.ptr, stdout) < 0;
}

/* --- get ----------------------------------------------------------------------------------------------------------- */

/* For everybody: the first rule or rollout that is about everybody decides. */
static double effective(const struct rollout_document *d)
{
	struct rollout_line lines[LINES_MAX];
	size_t n = rollout_lines(d, lines, LINES_MAX);
	bool boolean = rollout_is_boolean(d);
	if (!boolean && !rollout_enabled(d))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (lines[i].everybody)
			return boolean && rollout_enabled(d) ? 100 : lines[i].percent;
	return boolean && rollout_enabled(d) ? 100 : 0;
}

static int show_flag(const struct place *p, const char *key, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_line lines[LINES_MAX];
	int r = rollout_open(p->flipt ? "snapshot" : p->config->flags.file, buf_span(&p->flags), key, &d, e);
	if (r < 0)
		return r;
	size_t n = rollout_lines(d, lines, LINES_MAX);
	printf("%s: %s, %s, effectively %g %%\n", key, rollout_is_boolean(d) ? "boolean" : "variant",
	       rollout_enabled(d) ? "enabled" : "disabled", effective(d));
	for (size_t i = 0; i < n; i++)
		printf("  %zu. %s: %g %%\n", i + 1, lines[i].who, lines[i].percent);
	return 0;
}

static void show_products(const struct place *p)
{
	const struct config *c = p->config;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			double product = 100;
			for (size_t k = 0; k < op->n_flags; k++) {
				CLEANUP(rollout_closep) struct rollout_document *d = NULL;
				CLEANUP(freep) char *key = span_dup(op->flags[k]);
				bool there = key && rollout_open("flags", buf_span(&p->flags), key, &d, NULL) == 0;
				product *= there ? effective(d) / 100 : 0;
			}
			if (op->n_flags > 1)
				printf("%.*s.%.*s: %zu flags, together about %.3g %%\n", SPAN_ARG(op->service), SPAN_ARG(op->name),
				       op->n_flags, product);
		}
}

static int get(struct place *p, const struct arguments *a, struct err *e)
{
	p->flag = NULL;
	int r = read_place(p, e);
	if (r == 0 && a->flag)
		return show_flag(p, a->flag, e);
	struct flag_snapshot *s = NULL;
	if (r == 0)
		r = parse_flags(p, buf_span(&p->flags), &s, e);
	for (size_t i = 0; r == 0 && i < flag_snapshot_count(s); i++)
		r = show_flag(p, flag_key(flag_snapshot_at(s, i)), e);
	flag_snapshot_unref(s);
	if (r == 0)
		show_products(p);
	return r;
}

/* --- plan ---------------------------------------------------------------------------------------------------------- */

static bool says_task(const struct flag_snapshot *s, const char *key, struct span user, struct span organisation)
{
	static const char *const legacy[] = {"0", "off", "legacy", "disabled", "control", "false", "shadow", ""};
	const struct flag_context context[] = {{SPAN_LIT("user_id"), user}, {SPAN_LIT("organization_id"), organisation}};
	const struct flag *f = flag_find(s, span_of(key));
	struct flag_result r;
	if (!f)
		return false;
	flag_evaluate(s, f, user.len ? user : organisation, context, 2, &r, NULL);
	if (r.type == FLAG_BOOLEAN)
		return r.enabled;
	bool task = r.match;
	for (size_t i = 0; i < sizeof(legacy) / sizeof(legacy[0]); i++)
		task = task && !span_is(r.variant, legacy[i]);
	return task;
}

static struct span or_empty(struct span s)
{
	return s.ptr ? s : SPAN_LIT("");
}

static int count_moves(const struct place *p, const char *key, const struct flag_snapshot *old, const struct flag_snapshot *new,
		       struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *rows = NULL;
	struct db_options o = {.path = p->config->outcomes.path, .read_only = true, .busy_timeout_ms = 5000};
	size_t to_task = 0, to_legacy = 0, seen = 0, organisations = 0, most = 0, here = 0;
	char last[256] = "", largest[256] = "";
	int r = db_open(&o, &db, e);
	if (r == 0)
		r = db_prepare(db, "SELECT DISTINCT organisation, user FROM outcomes WHERE user IS NOT NULL OR organisation IS NOT NULL"
			       " ORDER BY organisation, user LIMIT 1000000", &rows, e);
	while (r == 0 && (r = db_step(rows, e)) == 1) {
		char organisation[256];
		struct span org = or_empty(db_column_text(rows, 0)), user = or_empty(db_column_text(rows, 1));
		bool was = says_task(old, key, user, org), is = says_task(new, key, user, org);
		span_copy(org, organisation, sizeof(organisation));
		seen++;
		to_task += !was && is;
		to_legacy += was && !is;
		if (strcmp(last, organisation) != 0)
			here = 0;
		if (was != is && ++here == 1 && *organisation)
			organisations++;
		if (here > most && *organisation) {
			most = here;
			memcpy(largest, organisation, sizeof(largest));
		}
		memcpy(last, organisation, sizeof(last));
		r = 0;
	}
	if (r < 0)
		return r;
	printf("of %zu recorded identities %zu would move to task and %zu back to legacy; %zu organisations are touched", seen,
	       to_task, to_legacy, organisations);
	printf(most ? ", most of all %s (%zu)\n" : "\n", largest, most);
	return 0;
}

static int plan(struct place *p, const struct arguments *a, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct rollout_plan change;
	struct flag_snapshot *old = NULL, *new = NULL;
	p->flag = NULL;
	int r = read_place(p, e);
	if (r == 0)
		r = rollout_open("flags", buf_span(&p->flags), a->flag, &d, e);
	if (r == 0)
		r = rollout_set(d, a->segment, a->percent, &change, e);
	if (r == 0)
		r = rollout_apply(d, &change, &text, e);
	if (r == 0)
		r = parse_flags(p, buf_span(&p->flags), &old, e);
	if (r == 0)
		r = parse_flags(p, buf_span(&text), &new, e);
	if (r == 0) {
		printf("%s: %g %% → %g %%\n", a->flag, change.from, change.to);
		r = count_moves(p, a->flag, old, new, e);
	}
	flag_snapshot_unref(old);
	flag_snapshot_unref(new);
	return r;
}

/* --- change -------------------------------------------------------------------------------------------------------- */

static int plan_change(const struct rollout_document *d, const struct arguments *a, struct rollout_plan *ret, struct err *e)
{
	if (strcmp(a->command, "set") == 0)
		return rollout_set(d, a->segment, a->percent, ret, e);
	if (strcmp(a->command, "rollback") == 0)
		return rollout_back(d, ret, e);
	return rollout_enable(d, strcmp(a->command, "enable") == 0, ret, e);
}

static void show_change(const struct rollout_plan *plan)
{
	static const char *const what[] = {"enabled", "share", "threshold", "value of the segment"};
	for (size_t i = 0; i < plan->n; i++) {
		const struct rollout_change *c = &plan->changes[i];
		if (c->what == ROLLOUT_ENABLED)
			printf("  enabled: %s → %s\n", c->from > 0 ? "true" : "false", c->to > 0 ? "true" : "false");
		else
			printf("  rule %zu, %s%s%s: %g → %g\n", c->rule + 1, what[c->what], *c->variant ? " of variant " : "", c->variant,
			       c->from, c->to);
	}
}

/* More than doubling is asked for; a pipeline must say --yes. */
static bool agreed(const struct arguments *a, const struct rollout_plan *plan)
{
	char answer[16] = "";
	if (a->yes || plan->to <= plan->from * 2 || strcmp(a->command, "set") != 0)
		return true;
	if (!isatty(STDIN_FILENO)) {
		fprintf(stderr, "%g %% → %g %% more than doubles: say --yes\n", plan->from, plan->to);
		return false;
	}
	printf("%g %% → %g %% more than doubles. Go on? [y/N] ", plan->from, plan->to);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static void digest_of(struct place *p, const char *admin, char digest[80])
{
	CLEANUP(buf_releasep) struct buf answer = BUF_INIT(1u << 20);
	struct span value;
	struct err e;
	digest[0] = '\0';
	if (ask(p, admin, "GET", "/_admin/flags", SPAN_NONE, &answer, &e) == 200 &&
	    json_pointer(buf_span(&answer), SPAN_LIT("/digest"), &value) && value.len > 2)
		span_copy((struct span){value.ptr + 1, value.len - 2}, digest, 80);
}

static int wait_routers(struct place *p, const struct arguments *a, char before[][80], int64_t since_ms, struct err *e)
{
	for (size_t i = 0; i < a->n_admin; i++) {
		char now[80] = "";
		while (digest_of(p, a->admin[i], now), !*now || strcmp(now, before[i]) == 0) {
			if (clock_mono_ms() - since_ms > WAIT_MS)
				return err_set(e, -ETIMEDOUT, "%s: the change was made, but this router has not taken it in %d s",
					       a->admin[i], WAIT_MS / 1000);
			usleep(10000);
		}
		printf("%s: in effect after %lld ms, digest %s\n", a->admin[i], (long long)(clock_mono_ms() - since_ms), now);
	}
	return 0;
}

/* Reads back what was written, and whether it still evaluates. */
static int verify(struct place *p, const struct arguments *a, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_plan left;
	struct flag_snapshot *s = NULL;
	int r = read_place(p, e);
	if (r == 0)
		r = rollout_open("written", buf_span(&p->text), a->flag, &d, e);
	if (r == 0)
		r = plan_change(d, a, &left, e);
	if (r == 0 && left.n)
		r = err_set(e, -EIO, "written, but what is read back differs");
	if (r == 0)
		r = parse_flags(p, buf_span(&p->flags), &s, e);
	if (r == 0 && !flag_find(s, span_of(a->flag)))
		r = err_set(e, -EIO, "written, but the flag is not in the snapshot");
	flag_snapshot_unref(s);
	return r;
}

static int change(struct place *p, const struct arguments *a, struct err *e)
{
	static char before[ADMIN_MAX][80];
	struct rollout_plan plan = {0};
	int64_t since = 0;
	int r = 1;
	for (size_t i = 0; i < a->n_admin && a->wait; i++)
		digest_of(p, a->admin[i], before[i]);
	for (int tries = 0; r == 1 && tries < CONFLICTS_MAX; tries++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		p->flag = a->flag;
		r = read_place(p, e);
		if (r == 0)
			r = rollout_open(p->flipt ? "flag" : p->config->flags.file, buf_span(&p->text), a->flag, &d, e);
		if (r == 0)
			r = plan_change(d, a, &plan, e);
		if (r < 0)
			return r;
		if (tries == 0) {
			printf("%s: %g %% → %g %%%s\n", a->flag, plan.from, plan.to, plan.n ? "" : " (nothing to change)");
			show_change(&plan);
			fflush(stdout);
			if (a->dry_run || plan.n == 0)
				return 0;
			if (!agreed(a, &plan))
				return err_set(e, -ECANCELED, "nothing was changed");
		}
		since = clock_mono_ms();
		r = plan.n ? write_place(p, d, &plan, e) : 0;
	}
	if (r != 0)
		return r < 0 ? r : err_set(e, -EBUSY, "somebody else keeps changing the namespace: given up after %d tries",
					   CONFLICTS_MAX);
	record(p, a, &plan);
	r = verify(p, a, e);
	return r == 0 && a->wait ? wait_routers(p, a, before, since, e) : r;
}

/* --- arguments ----------------------------------------------------------------------------------------------------- */

static bool parse_command(int argc, char **argv, struct arguments *a)
{
	int n = argc - optind;
	char *end = NULL;
	if (n < 1)
		return false;
	a->command = argv[optind];
	a->flag = n > 1 ? argv[optind + 1] : NULL;
	if (strcmp(a->command, "history") == 0)
		return n == 1;
	if (strcmp(a->command, "get") == 0)
		return n <= 2;
	if (strcmp(a->command, "enable") == 0 || strcmp(a->command, "disable") == 0 || strcmp(a->command, "rollback") == 0)
		return n == 2;
	if ((strcmp(a->command, "set") != 0 && strcmp(a->command, "plan") != 0) || n != 3)
		return false;
	a->percent = strtod(argv[optind + 2], &end);
	return end != argv[optind + 2] && (*end == '\0' || strcmp(end, "%") == 0);
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},  {"segment", required_argument, NULL, 's'},
		{"journal", required_argument, NULL, 'j'}, {"admin", required_argument, NULL, 'a'},
		{"yes", no_argument, NULL, 'y'},	   {"dry-run", no_argument, NULL, 'n'},
		{"wait", no_argument, NULL, 'w'},	   {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},	   {0}};
	int o;
	while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (o) {
		case 'c': a->config = optarg; break;
		case 's': a->segment = optarg; break;
		case 'j': a->journal = optarg; break;
		case 'y': a->yes = true; break;
		case 'n': a->dry_run = true; break;
		case 'w': a->wait = true; break;
		case 'a':
			if (a->n_admin == ADMIN_MAX)
				return 2;
			a->admin[a->n_admin++] = optarg;
			break;
		case 'h': fputs(usage_text, stdout); exit(0);
		case 'v': puts("migration-rollout " PROJECT_VERSION); exit(0);
		default: return 2;
		}
	}
	return parse_command(argc, argv, a) && (!a->wait || a->n_admin) ? 0 : 2;
}

static int run(struct place *p, const struct arguments *a)
{
	struct err e = {""};
	struct http_client_options ho = {.ca_file = p->config->flags.ca_file};
	int r = 0;
	if (strcmp(a->command, "history") == 0)
		return history(p, a);
	p->flipt = p->config->flags.kind == FLAG_SOURCE_FLIPT;
	r = loop_new(&p->loop);
	if (r == 0)
		r = http_client_new(p->loop, &ho, &p->http, &e);
	if (r == 0)
		r = strcmp(a->command, "get") == 0 ? get(p, a, &e) : strcmp(a->command, "plan") == 0 ? plan(p, a, &e) : change(p, a, &e);
	http_client_free(p->http);
	loop_free(p->loop);
	if (r < 0)
		fprintf(stderr, "migration-rollout: %s\n", e.text);
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct arguments a = {.config = "config/router.yml"};
	if (parse(argc, argv, &a) != 0) {
		fputs(usage_text, stderr);
		return 2;
	}
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *c = NULL;
	if (config_load(a.config, environment, &problems, &c) < 0) {
		fputs(problems.len ? problems.ptr : "the configuration could not be read\n", stderr);
		return 2;
	}
	struct place p = {.config = c, .text = BUF_INIT(FLAG_MAX_DOCUMENT + 65536), .revision = BUF_INIT(4096),
			  .flags = BUF_INIT(FLAG_MAX_DOCUMENT + 65536)};
	int r = run(&p, &a);
	buf_release(&p.text);
	buf_release(&p.revision);
	buf_release(&p.flags);
	config_unref(c);
	return r;
}
