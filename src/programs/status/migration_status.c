/*
 * migration-status: what outcomes.db says, for people, scripts and pipelines. Reads only.
 *
 * Exit codes: 0 fine (with --gate: healthy), 1 it could not be read (with --gate: breached), 2 usage, 3 with
 * --gate: not enough data, or nothing that could be read: a pipeline must never take a missing file for a
 * healthy or a broken rollout. With --drain: 0 drained, 1 still used, 2 usage, 3 not enough data.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/plain_output.h"
#include "base/text.h"
#include "base/url.h"
#include "operation/identity.h"
#include "outcomes/report.h"
#include "outcomes/search/requests.h"
#include "outcomes/when.h"
#include "programs/status/differences_command.h"
#include "programs/status/drain_command.h"
#include "guard/gate.h"
#include "programs/status/guard_lines.h"
#include "programs/status/headline.h"
#include "programs/status/replay_command.h"
#include "programs/status/screen.h"
#include "programs/status/search_command.h"
#include "programs/status/status_sources.h"

#define EXIT_USAGE 2
#define OUTPUT_MAX (64u << 20)
#define WATCH_DEFAULT_S 2

enum format { TEXT, JSON, CSV };

struct status_arguments {
	struct report_options report; /* without a path */
	struct status_sources sources;
	struct drain_arguments draining;
	struct differences_arguments comparing;
	struct replay_arguments replaying;
	struct search_arguments searching;
	struct gate_options limits;
	const char *since, *until;
	enum format format;
	struct screen screen; /* as it is now */
	uint64_t given;	      /* options with a value, by their number: each counts once */
	bool gate, drain, no_guard, differences;
	unsigned watch_s;
};

static const char usage_text[] =
	"Usage: migration-status [OPTION]...\n"
	"Reports what migration-router recorded: which side served how much, and how well.\n"
	"\n"
	"  --db PATH             the outcomes database (default: $MIGRATION_OUTCOMES_DB, else "
	"data/outcomes.db); several\n"
	"                        are added up\n"
	"  --router URL          a running router, queried at its admin listener; several, and with --db, "
	"are "
	"added up\n"
	"    --router-token-file FILE  its token (default: $MIGRATION_ROUTER_TOKEN)\n"
	"  --since WHEN          only attempts begun at or after WHEN: 15m, 24h, 7d ago, or "
	"2026-01-31T08:00:00Z "
	"(with --gate: 15m)\n"
	"  --until WHEN          only attempts begun before WHEN\n"
	"  --service NAME        only this service\n"
	"  --operation NAME      only this operation\n"
	"  --org ID              only this organization (reads rows, so only as far back as they are kept)\n"
	"  --json, --csv         machine-readable output\n"
	"  --watch [SECONDS]     repeat the report (every 2 seconds)\n"
	"  --gate                exit 0 if the task side is healthy, 1 if the guard or a limit is breached, "
	"3 "
	"without enough\n"
	"                        data; each operation is judged by itself\n"
	"    --no-guard          only the limits below, not the guard's verdict\n"
	"    --min-success P     minimum success rate in percent (99)\n"
	"    --max-regression P  points it may be below the legacy side's (not compared unless given)\n"
	"    --max-rejected P    points its rejected share may be above the legacy side's (5)\n"
	"    --max-slowdown X    how many times legacy's p95 its own may be, if also more than 1 s "
	"above (2; 0: any)\n"
	"    --max-latency D     maximum p95: 500ms, 2s (not checked unless given)\n"
	"    --min-executions N  attempts needed for a verdict, per operation and side (20)\n"
	"  --drain [legacy|task] whether the side (legacy) is still in use, by whom, and what is left there, "
	"over the last\n"
	"                        14 days or --since; exit 0 if not in use, 1 if in use, 3 if unknown\n"
	"    --max-gap D         how long of that may have gone without a recording router (1h)\n"
	"    --idle-ok           a service with no traffic through the router also counts as not used\n"
	"    --ledger FILE       where pins are (ledger.db next to the outcomes)\n"
	"    --group G           only pins of this group (may be repeated; all)\n"
	"  --differences         where the answers of both sides differ, the most frequent places first, "
	"and\n"
	"                        whether more than two answers of legacy do; with --operation also samples\n"
	"    --path P            only this place and what is beneath it, and the answers: "
	"body:/items/*/price\n"
	"  --replay FLAGS        who would move under other flags (a features file or folder, or a "
	"snapshot), of the\n"
	"                        identities on record (--since 7d), by operation and organization\n"
	"    --config FILE       the router's configuration (config/router.yml)\n"
	"  --requests            single attempts, newest first; with --side, --result, --status, --user, "
	"--backend, "
	"--task,\n"
	"                        --error\n"
	"    --limit N           so many (50), also of --errors and --organizations\n"
	"    --before N          those before this one, as the list of before says\n"
	"  --request ID          one request, and all its attempts; exit 3 if it is not recorded\n"
	"  --errors              what goes wrong, over the last day or --since, the most frequent first\n"
	"  --organizations [PART]  which side serves them, since when, and what fails, over the last day or "
	"--since\n"
	"  --help, --version\n";

/* What was given may be a URL with a password, and goes to a terminal, into the logs of a pipeline. */
static int status_usage(const char *format, const char *what)
{
	CLEANUP(buf_releasep) struct buf masked = BUF_INIT(TEXT_MASKED_MAX);
	char shown[512];
	bool good = text_put_masked(&masked, span_of(what)) == 0;
	text_copy(good ? buf_span(&masked) : SPAN_LIT("..."), shown, sizeof(shown));
	fprintf(stderr, "migration-status: ");
	fprintf(stderr, format, shown);
	fprintf(stderr, "\nTry 'migration-status --help'.\n");
	return EXIT_USAGE;
}

/* --- arguments ------------------------------------------------------------------------------------------ */

static bool parse_number(const char *text, double least, double most, double *ret)
{
	char *end;
	errno = 0;
	*ret = strtod(text, &end);
	return end != text && *end == '\0' && !errno && *ret >= least && *ret <= most;
}

static bool status_parse_count(const char *text, uint64_t *ret)
{
	char *end;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && !errno;
}

/* "500ms", "2s", "1.5s", "3m". */
static bool parse_latency(const char *text, int64_t *ret)
{
	char *end;
	errno = 0;
	double value = strtod(text, &end);
	double unit = 0;
	if (strcmp(end, "ms") == 0)
		unit = 1e3;
	else if (strcmp(end, "s") == 0)
		unit = 1e6;
	if (strcmp(end, "m") == 0)
		unit = 60e6;
	*ret = (int64_t)(value * unit);
	return *text >= '0' && *text <= '9' && end != text && !errno && unit > 0 && value > 0 &&
	       value * unit < 1e15;
}

/* "--watch 5" and "--watch=5" and "--watch". */
static bool parse_watch(char **argv, const char *value, struct status_arguments *a)
{
	double seconds = WATCH_DEFAULT_S;
	if (!value && argv[optind] && argv[optind][0] >= '0' && argv[optind][0] <= '9')
		value = argv[optind++];
	if (value && !parse_number(value, 1, 86400, &seconds))
		return false;
	a->watch_s = (unsigned)seconds;
	return true;
}

/* "--drain task" and "--drain=task" and "--drain". */
static bool parse_drain(char **argv, const char *value, struct status_arguments *a)
{
	if (!value && argv[optind] && argv[optind][0] != '-')
		value = argv[optind++];
	int side = value ? outcome_side_parse(span_of(value)) : OUTCOME_LEGACY;
	a->drain = true;
	a->draining.options.side = side < 0 ? OUTCOME_LEGACY : (enum outcome_side)side;
	return side >= 0;
}

static bool parse_max_gap(const char *text, struct status_arguments *a)
{
	int64_t ms;
	if (clock_parse_duration(text, &ms) < 0 || ms < 0 || ms > INT64_MAX / 1000)
		return false;
	a->draining.options.max_gap_us = ms * 1000;
	return true;
}

enum status_option {
	DB = 256,
	ROUTER,
	ROUTER_TOKEN_FILE,
	SINCE,
	UNTIL,
	SERVICE,
	OPERATION,
	ORG,
	AS_JSON,
	AS_CSV,
	WATCH,
	GATE,
	MIN_SUCCESS,
	MAX_REGRESSION,
	MAX_REJECTED,
	MAX_SLOWDOWN,
	MAX_LATENCY,
	MIN_EXECUTIONS,
	NO_GUARD,
	DRAIN,
	MAX_GAP,
	IDLE_OK,
	GROUP,
	LEDGER,
	DIFFERENCES,
	DIFFERENCES_PATH,
	REPLAY,
	REPLAY_CONFIG,
	REQUESTS,
	REQUEST,
	ERRORS,
	ORGANIZATIONS,
	OF_SIDE,
	OF_RESULT,
	OF_STATUS,
	OF_USER,
	OF_BACKEND,
	OF_TASK,
	OF_ERROR,
	LIMIT,
	BEFORE,
	HELP,
	VERSION
};

static const struct option options[] = {
	{"db", required_argument, NULL, DB},
	{"router", required_argument, NULL, ROUTER},
	{"router-token-file", required_argument, NULL, ROUTER_TOKEN_FILE},
	{"since", required_argument, NULL, SINCE},
	{"until", required_argument, NULL, UNTIL},
	{"service", required_argument, NULL, SERVICE},
	{"operation", required_argument, NULL, OPERATION},
	{"org", required_argument, NULL, ORG},
	{"json", no_argument, NULL, AS_JSON},
	{"csv", no_argument, NULL, AS_CSV},
	{"watch", optional_argument, NULL, WATCH},
	{"gate", no_argument, NULL, GATE},
	{"min-success", required_argument, NULL, MIN_SUCCESS},
	{"max-regression", required_argument, NULL, MAX_REGRESSION},
	{"max-rejected", required_argument, NULL, MAX_REJECTED},
	{"max-slowdown", required_argument, NULL, MAX_SLOWDOWN},
	{"max-latency", required_argument, NULL, MAX_LATENCY},
	{"min-executions", required_argument, NULL, MIN_EXECUTIONS},
	{"no-guard", no_argument, NULL, NO_GUARD},
	{"drain", optional_argument, NULL, DRAIN},
	{"max-gap", required_argument, NULL, MAX_GAP},
	{"idle-ok", no_argument, NULL, IDLE_OK},
	{"group", required_argument, NULL, GROUP},
	{"ledger", required_argument, NULL, LEDGER},
	{"differences", no_argument, NULL, DIFFERENCES},
	{"path", required_argument, NULL, DIFFERENCES_PATH},
	{"replay", required_argument, NULL, REPLAY},
	{"config", required_argument, NULL, REPLAY_CONFIG},
	{"requests", no_argument, NULL, REQUESTS},
	{"request", required_argument, NULL, REQUEST},
	{"errors", no_argument, NULL, ERRORS},
	{"organizations", optional_argument, NULL, ORGANIZATIONS},
	{"side", required_argument, NULL, OF_SIDE},
	{"result", required_argument, NULL, OF_RESULT},
	{"status", required_argument, NULL, OF_STATUS},
	{"user", required_argument, NULL, OF_USER},
	{"backend", required_argument, NULL, OF_BACKEND},
	{"task", required_argument, NULL, OF_TASK},
	{"error", required_argument, NULL, OF_ERROR},
	{"limit", required_argument, NULL, LIMIT},
	{"before", required_argument, NULL, BEFORE},
	{"help", no_argument, NULL, HELP},
	{"version", no_argument, NULL, VERSION},
	{0},
};

/* A limit without --gate would be ignored in silence, so it switches the gate on. */
static bool take_limit(int id, struct status_arguments *a)
{
	a->gate = true;
	if (id == NO_GUARD) {
		a->no_guard = true;
		return true;
	}
	if (id == MIN_SUCCESS)
		return parse_number(optarg, 0, 100, &a->limits.min_success);
	if (id == MAX_REGRESSION)
		return parse_number(optarg, 0, 100, &a->limits.max_regression);
	if (id == MAX_REJECTED)
		return parse_number(optarg, 0, 100, &a->limits.max_rejected);
	if (id == MAX_SLOWDOWN)
		return parse_number(optarg, 0, 1e6, &a->limits.max_slowdown);
	if (id == MAX_LATENCY)
		return parse_latency(optarg, &a->limits.max_latency_us);
	return id == MIN_EXECUTIONS && status_parse_count(optarg, &a->limits.min_executions);
}

/* Likewise. */
static bool take_drain_option(int id, struct status_arguments *a)
{
	a->drain = true;
	if (id == MAX_GAP)
		return parse_max_gap(optarg, a);
	if (id == GROUP) {
		if (a->draining.n_groups == DRAIN_GROUPS_MAX)
			return false;
		a->draining.groups[a->draining.n_groups++] = optarg;
	} else if (id == IDLE_OK) {
		a->draining.options.idle_ok = true;
	} else {
		a->draining.ledger = optarg;
	}
	return true;
}

static bool take_what(struct search_arguments *s, enum search_what what)
{
	bool other = s->what != SEARCH_NOTHING && s->what != what;
	s->what = what;
	return !other;
}

static bool take_count(uint64_t most, uint64_t *ret)
{
	return status_parse_count(optarg, ret) && *ret >= 1 && *ret <= most;
}

static bool take_search_number(int id, struct search_arguments *s)
{
	uint64_t n;
	if (!take_count(id == OF_STATUS ? 999 : INT64_MAX, &n))
		return false;
	if (id == OF_STATUS)
		s->filter.status = (int)n;
	else if (id == BEFORE)
		s->before = (int64_t)n;
	else
		s->limit = (size_t)n;
	return id != LIMIT || n <= REQUESTS_MAX;
}

static bool take_search_word(int id, struct search_arguments *s)
{
	struct search_filter *f = &s->filter;
	const char **const texts[] = {[OF_USER - OF_USER] = &f->user,
				      [OF_BACKEND - OF_USER] = &f->backend,
				      [OF_TASK - OF_USER] = &f->task_id,
				      [OF_ERROR - OF_USER] = &f->error};
	if (id == OF_SIDE) {
		f->side = outcome_side_parse(span_of(optarg));
		return f->side >= 0;
	}
	if (id == OF_RESULT) {
		f->result = outcome_result_parse(span_of(optarg));
		return f->result >= 0;
	}
	*texts[id - OF_USER] = optarg;
	return *optarg && strlen(optarg) <= IDENTITY_MAX;
}

static bool take_search_option(int id, char **argv, struct search_arguments *s)
{
	switch (id) {
	case REQUESTS:
		return take_what(s, SEARCH_REQUESTS);
	case REQUEST:
		s->filter.request_id = optarg;
		return *optarg && take_what(s, SEARCH_REQUEST);
	case ERRORS:
		return take_what(s, SEARCH_ERRORS);
	case ORGANIZATIONS:
		if (!optarg && argv[optind] && argv[optind][0] != '-')
			optarg = argv[optind++];
		s->search = optarg;
		return take_what(s, SEARCH_ORGANIZATIONS);
	case OF_STATUS:
	case LIMIT:
	case BEFORE:
		return take_search_number(id, s);
	default:
		return take_search_word(id, s);
	}
}

static bool status_take_option(int id, char **argv, struct status_arguments *a)
{
	int64_t ignored;
	switch (id) {
	case DB:
		return *optarg && status_sources_add(&a->sources, optarg, false);
	case ROUTER:
		return !url_mistake(span_of(optarg), URL_BASE) &&
		       status_sources_add(&a->sources, optarg, true);
	case ROUTER_TOKEN_FILE:
		a->sources.token_file = optarg;
		return *optarg;
	case SINCE:
		a->since = optarg;
		return when_parse(optarg, clock_wall_us(), &ignored);
	case UNTIL:
		a->until = optarg;
		return when_parse(optarg, clock_wall_us(), &ignored);
	case SERVICE:
		a->report.service = optarg;
		return true;
	case OPERATION:
		a->report.operation = optarg;
		return true;
	case ORG:
		a->report.organization = optarg;
		return strlen(optarg) <= IDENTITY_MAX; /* no request can say more */
	case AS_JSON:
		a->format = JSON;
		return true;
	case AS_CSV:
		a->format = CSV;
		return true;
	case WATCH:
		return parse_watch(argv, optarg, a);
	case GATE:
		a->gate = true;
		return true;
	case DRAIN:
		return parse_drain(argv, optarg, a);
	case REPLAY:
		a->replaying.flags = optarg;
		return *optarg;
	case REPLAY_CONFIG:
		a->replaying.config = optarg;
		return *optarg;
	case DIFFERENCES:
		a->differences = true;
		return true;
	case DIFFERENCES_PATH: /* likewise */
		a->differences = true;
		a->comparing.path = optarg;
		return differences_path_check(optarg) == NULL;
	default:
		if (id >= REQUESTS && id <= BEFORE)
			return take_search_option(id, argv, &a->searching);
		return id >= MAX_GAP && id <= LEDGER ? take_drain_option(id, a) : take_limit(id, a);
	}
}

static bool has_routers(const struct status_sources *s)
{
	bool any = false;
	for (size_t i = 0; i < s->n; i++)
		any |= s->all[i].router;
	return any;
}

/* What would be ignored in silence. */
static int check_drain(const struct status_arguments *a)
{
	const struct {
		bool given;
		const char *name;
	} others[] = {{a->gate, "--gate and its limits"},
		      {a->format == CSV, "--csv"},
		      {a->until != NULL, "--until"},
		      {a->report.organization != NULL, "--org"},
		      {a->draining.ledger && (a->sources.n > 1 || has_routers(&a->sources)),
		       "--ledger and several --db, or --router"},
		      {a->draining.n_groups && has_routers(&a->sources), "--group and --router"}};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].given)
			return status_usage("cannot be combined with --drain: %s", others[i].name);
	if (a->draining.options.side == OUTCOME_LEGACY && (a->draining.ledger || a->draining.n_groups))
		return status_usage("only with --drain task: %s", "--ledger, --group");
	return -1;
}

static int check_differences(const struct status_arguments *a)
{
	const struct {
		bool given;
		const char *name;
	} others[] = {{a->gate, "--gate and its limits"},
		      {a->drain, "--drain"},
		      {a->format == CSV, "--csv"},
		      {has_routers(&a->sources), "--router"},
		      {a->report.organization != NULL, "--org"}};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].given)
			return status_usage("cannot be combined with --differences: %s", others[i].name);
	return -1;
}

static int check_replay(const struct status_arguments *a)
{
	const struct {
		bool given;
		const char *name;
	} others[] = {{a->gate, "--gate and its limits"}, {a->drain, "--drain"},
		      {a->differences, "--differences"},  {a->watch_s > 0, "--watch"},
		      {a->format == CSV, "--csv"},	  {has_routers(&a->sources), "--router"}};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].given)
			return status_usage("cannot be combined with --replay: %s", others[i].name);
	return -1;
}

_Static_assert(VERSION - DB < 64, "an option is a bit");

/* The last of two values would count, in silence. Sources and groups add up. */
static bool is_given_twice(int id, struct status_arguments *a)
{
	uint64_t bit = UINT64_C(1) << (id - DB);
	bool adds_up = id == DB || id == ROUTER || id == GROUP;
	bool twice = optarg && !adds_up && (a->given & bit);
	a->given |= bit;
	return twice;
}

/* What only rows tell is refused where no rows are asked for. */
static int check_search(const struct status_arguments *a)
{
	const struct search_arguments *s = &a->searching;
	const struct search_filter *f = &s->filter;
	const bool any = s->what != SEARCH_NOTHING,
		   of_rows = s->what == SEARCH_REQUESTS || s->what == SEARCH_ERRORS;
	const struct {
		bool given;
		const char *format, *name;
	} mistakes[] = {
		{any && a->gate, "cannot be combined with it: %s", "--gate and its limits"},
		{any && a->drain, "cannot be combined with it: %s", "--drain"},
		{any && a->differences, "cannot be combined with it: %s", "--differences"},
		{any && a->replaying.flags, "cannot be combined with it: %s", "--replay"},
		{!of_rows && (f->side >= 0 || f->result >= 0 || f->status || f->user || f->backend ||
			      f->task_id || f->error),
		 "only with --requests or --errors: %s",
		 "--side, --result, --status, --user, --backend, --task, --error"},
		{s->what != SEARCH_REQUESTS && s->before, "only with --requests: %s", "--before"},
		{s->before && a->sources.n > 1, "a row is one of a single --db or --router: %s", "--before"},
		{!any && s->limit, "only with --requests, --errors or --organizations: %s", "--limit"},
		{s->what == SEARCH_REQUEST && (a->since || a->until || a->report.service ||
					       a->report.operation || a->report.organization || s->limit),
		 "a request is named by its id alone: %s", "no other filter"},
	};
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
		if (mistakes[i].given)
			return status_usage(mistakes[i].format, mistakes[i].name);
	return -1;
}

/* -1 = continue, else the exit code. */
static int parse_arguments(int argc, char **argv, struct status_arguments *a)
{
	const char *of_environment = getenv("MIGRATION_OUTCOMES_DB");
	*a = (struct status_arguments){
		.limits = GATE_DEFAULTS,
		.searching.filter = SEARCH_FILTER_ALL,
		.draining.options = {.side = OUTCOME_LEGACY, .max_gap_us = DRAIN_MAX_GAP_US}};
	opterr = 0;
	for (int id, at; at = optind, (id = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
		if (id == HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (id == VERSION) {
			puts("migration-status " PROJECT_VERSION);
			return 0;
		}
		if (id == '?')
			return status_usage("unknown option: %s", argv[at]);
		if (id == ':')
			return status_usage("%s needs a value", argv[at]);
		if (is_given_twice(id, a))
			return status_usage("is given twice: %s", argv[at]);
		if (!status_take_option(id, argv, a))
			return status_usage("invalid value: %s", optarg ? optarg : argv[at]);
	}
	if (optind < argc)
		return status_usage("unexpected argument: %s", argv[optind]);
	if (a->replaying.config && !a->replaying.flags)
		return status_usage("only with --replay: %s", "--config");
	if (a->replaying.flags && a->sources.n == 0 && !(of_environment && *of_environment))
		return check_replay(a); /* the configuration says where they are */
	if (a->sources.n == 0)
		status_sources_add(&a->sources,
				   of_environment && *of_environment ? of_environment : "data/outcomes.db",
				   false);
	if (a->sources.token_file && !has_routers(&a->sources))
		return status_usage("only with --router: %s", "--router-token-file");
	int code = check_search(a);
	if (code >= 0 || a->searching.what != SEARCH_NOTHING)
		return code;
	if (a->replaying.flags)
		return check_replay(a);
	if (a->differences)
		return check_differences(a);
	return a->drain ? check_drain(a) : -1;
}

/* --- output --------------------------------------------------------------------------------------------- */

struct findings {
	enum format format;
	struct buf *out; /* lines for people, or JSON objects */
};

static void add_finding(void *arg, const struct gate_finding *f)
{
	struct findings *findings = arg;
	struct buf *out = findings->out;
	if (findings->format != JSON) {
		buf_printf(out, "  %-15s  %s%s%s: %s\n", gate_verdict_text(f->verdict), f->service,
			   *f->service ? "." : "", f->operation, f->why);
		return;
	}
	const struct {
		const char *name, *text;
	} members[] = {{"service", f->service},
		       {"operation", f->operation},
		       {"verdict", gate_verdict_text(f->verdict)},
		       {"why", f->why}};
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		if (i == 0 && out->len)
			buf_putc(out, ',');
		buf_printf(out, "%c\"%s\":", i ? ',' : '{', members[i].name);
		json_quote(out, span_of(members[i].text));
	}
	buf_puts(out, "}");
}

static void add_gate(const struct status_arguments *a, enum gate_verdict verdict, const char *why,
		     const struct buf *findings, struct buf *out)
{
	if (a->format == TEXT) {
		/* Its last line is the verdict, as scripts expect. */
		buf_printf(out, "\n%.*sGate: %s: %s\n", SPAN_ARG(buf_span(findings)),
			   gate_verdict_text(verdict), why);
	} else if (a->format == JSON) {
		while (out->len && out->ptr[out->len - 1] != '}') /* opens the report's object again */
			out->len--;
		out->len--;
		buf_puts(out, ",\"gate\":{\"verdict\":");
		json_quote(out, span_of(gate_verdict_text(verdict)));
		buf_puts(out, ",\"why\":");
		json_quote(out, span_of(why));
		buf_printf(out, ",\"operations\":[%.*s]}}\n", SPAN_ARG(buf_span(findings)));
	} else {
		fprintf(stderr, "%.*sGate: %s: %s\n", SPAN_ARG(buf_span(findings)),
			gate_verdict_text(verdict), why);
	}
}

/* What legacy did before the span, for operations of which everybody has moved. NULL: not needed, or not
 * to be had. */
static struct report *make_baseline(const struct status_arguments *a, const struct report *r)
{
	struct report *baseline = NULL;
	struct report_options o = a->report;
	if (!o.since_us || !gate_needs_baseline(&a->limits, r))
		return NULL;
	o.until_us = o.since_us;
	o.since_us -= GATE_BASELINE_US;
	struct err ignored;
	status_sources_report(&a->sources, &o, &baseline, NULL, &ignored);
	return baseline;
}

/* Figures of good minutes are no reason to go on when something burns now. */
static enum gate_verdict heed_standing(const struct status_arguments *a, const struct headlines *h,
				       enum gate_verdict verdict, char why[GATE_TEXT_MAX])
{
	char stop[STANDING_TEXT_MAX];
	if (verdict != GATE_HEALTHY || !headlines_stop(h, a->report.service, a->report.operation, stop))
		return verdict;
	snprintf(why, GATE_TEXT_MAX, "%.350s", stop);
	return GATE_NOT_ENOUGH_DATA;
}

static enum gate_verdict status_judge(const struct status_arguments *a, const struct headlines *h,
				      const struct report *r, const struct guard_verdicts *guard,
				      struct buf *out)
{
	CLEANUP(report_freep) struct report *baseline = make_baseline(a, r);
	CLEANUP(buf_releasep) struct buf lines = BUF_INIT(OUTPUT_MAX);
	struct findings findings = {a->format, &lines};
	char why[GATE_TEXT_MAX];
	enum gate_verdict verdict = gate_check(&a->limits, r, baseline, add_finding, &findings, why);
	if (!a->no_guard)
		verdict = guard_lines_judge(guard, verdict, why);
	verdict = heed_standing(a, h, verdict, why);
	add_gate(a, verdict, why, &lines, out);
	return verdict;
}

static int format_report(const struct status_arguments *a, const struct headlines *h, const struct report *r,
			 const struct guard_verdicts *guard, struct buf *out)
{
	if (a->format == JSON) {
		int code = report_to_json(r, out);
		if (code == 0)
			code = guard_verdicts_into_json(guard, out);
		return code < 0 ? code : headlines_into_json(h, out);
	}
	if (a->format == CSV)
		return report_to_csv(r, out);
	headlines_put_sentence(h, out);
	buf_putc(out, '\n');
	report_head_to_text(r, out);
	headlines_put_rest(h, a->screen.columns, out);
	int code = report_rest_to_text(r, a->screen.columns, out);
	return code < 0 ? code : guard_lines_put(guard, out);
}

static int read_report(const struct status_arguments *a, struct report **ret, struct guard_verdicts **guard,
		       struct err *e)
{
	int r = status_sources_report(&a->sources, &a->report, ret, guard, e);
	if (r < 0)
		return r;
	if (a->report.organization) /* it is of operations */
		(*guard)->n = 0;
	guard_verdicts_keep_telling(*guard);
	return 0;
}

/* `h`: the first line is its sentence; NULL: there is none. */
static int status_print(const struct status_arguments *a, const struct headlines *h, const struct buf *out,
			int code)
{
	bool judged = a->gate || a->drain;
	if (out->error) {
		fprintf(stderr, "migration-status: the report does not fit into memory\n");
		return judged ? GATE_NOT_ENOUGH_DATA : EXIT_FAILURE;
	}
	if (a->format == TEXT)
		screen_put(&a->screen, h ? headlines_level(h) : STANDING_OK, h != NULL, a->watch_s > 0, out);
	else if (out->len)
		fwrite(out->ptr, 1, out->len, stdout);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "migration-status: standard output: %s\n", strerror(errno));
		return judged ? GATE_NOT_ENOUGH_DATA : EXIT_FAILURE;
	}
	return code;
}

static int show_drain(struct status_arguments *a)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	struct drain_arguments *d = &a->draining;
	d->options.service = a->report.service;
	d->options.operation = a->report.operation;
	d->options.now_us = clock_wall_us();
	d->options.since_us = d->options.now_us - DRAIN_SINCE_US;
	if (a->since)
		when_parse(a->since, d->options.now_us, &d->options.since_us);
	d->json = a->format == JSON;
	d->columns = a->screen.columns;
	return status_print(a, NULL, &out, drain_command(d, &a->sources, &out));
}

static struct differences_options differences_of(const struct status_arguments *a)
{
	struct differences_options o = {.since_us = a->report.since_us,
					.until_us = a->report.until_us,
					.service = a->report.service,
					.operation = a->report.operation};
	for (size_t i = 0; i < a->sources.n && o.n_paths < DIFFERENCES_FILES_MAX; i++)
		o.paths[o.n_paths++] = a->sources.all[i].name;
	return o;
}

static int show_differences(struct status_arguments *a)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	struct differences_arguments d = a->comparing;
	if (a->since)
		when_parse(a->since, clock_wall_us(), &a->report.since_us);
	if (a->until)
		when_parse(a->until, clock_wall_us(), &a->report.until_us);
	d.options = differences_of(a);
	d.json = a->format == JSON;
	int code = differences_command(&d, &out);
	return code ? code : status_print(a, NULL, &out, 0);
}

/* What cannot be read is the news: watched, it is not left to a screen that shows the last good state. */
static int status_trouble(const struct status_arguments *a, const struct headlines *h, const struct err *e)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	fprintf(stderr, "migration-status: %s\n", e->text);
	if (a->watch_s && a->format == TEXT && headlines_put_sentence(h, &out) == 0 &&
	    buf_printf(&out, "\nThe report cannot be read: %s\n", e->text) == 0)
		status_print(a, h, &out, 0);
	return a->gate ? GATE_NOT_ENOUGH_DATA : EXIT_FAILURE;
}

static void headlines_end(struct headlines **h)
{
	if (*h)
		headlines_release(*h);
	free(*h);
}

static int show_replay(struct status_arguments *a)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	struct replay_arguments *r = &a->replaying;
	if (a->since)
		when_parse(a->since, clock_wall_us(), &r->since_us);
	if (a->until)
		when_parse(a->until, clock_wall_us(), &r->until_us);
	r->service = a->report.service;
	r->operation = a->report.operation;
	r->organization = a->report.organization;
	r->json = a->format == JSON;
	int code = replay_command(r, &a->sources, &out);
	return status_print(a, NULL, &out, code);
}

static int show_search(struct status_arguments *a)
{
	static const enum search_format formats[] = {
		[TEXT] = SEARCH_TEXT, [JSON] = SEARCH_JSON, [CSV] = SEARCH_CSV};
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	struct search_arguments s = a->searching;
	s.filter.service = a->report.service;
	s.filter.operation = a->report.operation;
	s.filter.organization = a->report.organization;
	if (s.what == SEARCH_ERRORS || s.what == SEARCH_ORGANIZATIONS)
		s.filter.since_us = clock_wall_us() - SEARCH_SPAN_US;
	if (a->since)
		when_parse(a->since, clock_wall_us(), &s.filter.since_us);
	if (a->until)
		when_parse(a->until, clock_wall_us(), &s.filter.until_us);
	s.sources = &a->sources;
	s.format = formats[a->format];
	s.columns = a->screen.columns;
	int code = search_command(&s, &out);
	return code == EXIT_FAILURE ? code : status_print(a, NULL, &out, code);
}

static int status_show(struct status_arguments *a)
{
	screen_look(&a->screen);
	if (a->replaying.flags)
		return show_replay(a);
	if (a->searching.what != SEARCH_NOTHING)
		return show_search(a);
	if (a->drain)
		return show_drain(a);
	if (a->differences)
		return show_differences(a);
	CLEANUP(report_freep) struct report *r = NULL;
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *guard = NULL;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUTPUT_MAX);
	CLEANUP(headlines_end) struct headlines *h = calloc(1, sizeof(*h));
	struct err e = {""};
	int code = 0;
	if (!h) {
		fprintf(stderr, "migration-status: out of memory\n");
		return a->gate ? GATE_NOT_ENOUGH_DATA : EXIT_FAILURE;
	}
	headlines_read(&a->sources, h);
	if (a->since)
		/* anew each time: "15m" is meant from now, also while watching */
		when_parse(a->since, clock_wall_us(), &a->report.since_us);
	else if (a->gate) /* what was long ago says nothing of the step that was taken last */
		a->report.since_us = clock_wall_us() - GATE_SPAN_US;
	if (a->until)
		when_parse(a->until, clock_wall_us(), &a->report.until_us);
	if (read_report(a, &r, &guard, &e) < 0)
		return status_trouble(a, h, &e);
	int formatted = format_report(a, h, r, guard, &out);
	struct differences_options compared = differences_of(a);
	if (formatted == 0 && a->format != CSV && !a->report.organization && !has_routers(&a->sources))
		differences_add_to_report(&compared, a->format == JSON, &out);
	if (formatted == 0 && a->gate)
		code = (int)status_judge(a, h, r, guard, &out);
	return status_print(a, h, &out, code);
}

int main(int argc, char **argv)
{
	struct status_arguments a;
	plain_output_begin();
	setlocale(LC_CTYPE, "");
	int code = parse_arguments(argc, argv, &a);
	if (code >= 0)
		return code;
	code = status_show(&a);
	while (a.watch_s && !ferror(stdout)) {
		struct timespec pause = {.tv_sec = a.watch_s};
		nanosleep(&pause, NULL);
		code = status_show(&a);
	}
	return code;
}
