/*
 * migration-rollout: reads and changes percentages, in the features file or through Flipt's API (v2, v1).
 * Arguments and exit codes; the commands are in rollout_*.c.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/plain_output.h"
#include "base/text.h"
#include "programs/rollout/rollout_command.h"
#include "move/history.h"

#define WAIT_S 30
#define WAIT_MAX_S 3600

static const char usage_text[] =
	"Usage: migration-rollout [OPTION]... COMMAND\n"
	"Reads and changes percentages of flags, in the features file or in Flipt, as the router's\n"
	"configuration says.\n"
	"\n"
	"  get [FLAG]               what each rule says, and the result for operations with several flags\n"
	"  plan FLAG PERCENT        who of the recorded identities would move\n"
	"  set FLAG PERCENT         for everybody, or with --segment for its members\n"
	"  enable FLAG, disable FLAG\n"
	"  rollback FLAG            everybody to legacy, at once and without asking\n"
	"  advance FLAG             the next step of its rollout, if its requirements are met\n"
	"  stage [FLAG]             each operation's stage: off, shadow, rolling, complete, drained\n"
	"  history [FLAG]           changes made with this program: what, when and by whom\n"
	"\n"
	"  --config FILE            the router's configuration (config/router.yml)\n"
	"  --segment S              the rule of this segment\n"
	"  --dry-run                show the change, write nothing\n"
	"  --yes                    do not ask before more than doubling a share\n"
	"  --wait --admin URL...    return once these routers have the change\n"
	"  --timeout SECONDS        how long --wait waits (30)\n"
	"  --admin-token-file FILE  for routers whose admin address requires a token\n"
	"  --journal FILE           where changes are recorded (rollouts.jsonl next to the outcomes)\n"
	"  --message TEXT           reason for the change, for the history\n"
	"  --watch                  advance: wait until the step can be taken\n"
	"  --json                   history as recorded; stage as JSON\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 failed or refused and nothing was changed, 2 wrong arguments or "
	"configuration,\n"
	"3 something was changed, but the result is not as requested; advance also 4 not yet,\n"
	"5 a breach is in the way.\n";

static const char *environment(const char *name)
{
	return getenv(name);
}

static int usage(const char *format, const char *what)
{
	fprintf(stderr, "migration-rollout: ");
	fprintf(stderr, format, what);
	fprintf(stderr, "\nTry 'migration-rollout --help'.\n");
	return MOVE_USAGE;
}

/* --- arguments ------------------------------------------------------------------------------------------ */

/* Digits, perhaps a point and more of them, perhaps a percent sign: no exponents, signs or blanks. */
static bool parse_percent(const char *text, double *ret)
{
	size_t whole = strspn(text, "0123456789"), fraction = 0, length = strlen(text);
	if (text[whole] == '.')
		fraction = 1 + strspn(text + whole + 1, "0123456789");
	size_t end = whole + fraction;
	if (!whole || fraction == 1 || (end != length && strcmp(text + end, "%") != 0))
		return false;
	*ret = strtod(text, NULL);
	return *ret <= 100;
}

static int parse_command(int argc, char **argv, struct rollout_arguments *a)
{
	static const struct {
		const char *name;
		int least, most;
		bool percent, change;
	} commands[] = {{"get", 0, 1, false, false},	 {"history", 0, 1, false, false},
			{"plan", 2, 2, true, false},	 {"set", 2, 2, true, true},
			{"enable", 1, 1, false, true},	 {"disable", 1, 1, false, true},
			{"rollback", 1, 1, false, true}, {"advance", 1, 1, false, true},
			{"stage", 0, 1, false, false}};
	int n = argc - optind - 1;
	if (n < 0)
		return usage("a command is missing", "");
	a->move.command = argv[optind];
	a->move.flag = n > 0 ? argv[optind + 1] : NULL;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(a->move.command, commands[i].name) != 0)
			continue;
		if (n < commands[i].least)
			return usage(commands[i].percent ? "%s needs a flag and a percentage"
							 : "%s needs a flag",
				     a->move.command);
		if (n > commands[i].most)
			return usage("unexpected argument \"%s\"", argv[optind + 1 + commands[i].most]);
		if (commands[i].percent && !parse_percent(argv[optind + 2], &a->move.percent))
			return usage("\"%s\" is not a percentage from 0 to 100", argv[optind + 2]);
		if (a->move.segment && !commands[i].percent)
			return usage("--segment is for set and plan, not for %s", a->move.command);
		if (a->wait && !commands[i].change)
			return usage("--wait is for changes, not for %s", a->move.command);
		if (a->move.message && !commands[i].change)
			return usage("--message is for changes, not for %s", a->move.command);
		if (a->watch && strcmp(a->move.command, "advance") != 0)
			return usage("--watch is for advance, not for %s", a->move.command);
		return 0;
	}
	return usage("unknown command \"%s\"", a->move.command);
}

static bool parse_seconds(const char *text, unsigned *ret)
{
	size_t n = strspn(text, "0123456789");
	unsigned long value = n && n < 6 && !text[n] ? strtoul(text, NULL, 10) : 0;
	*ret = (unsigned)value;
	return value > 0 && value <= WAIT_MAX_S;
}

enum option_id {
	CONFIG = 256,
	SEGMENT,
	JOURNAL,
	ADMIN,
	ADMIN_TOKEN_FILE,
	TIMEOUT,
	YES,
	DRY_RUN,
	WAIT,
	AS_JSON,
	WATCH,
	MESSAGE,
	HELP,
	VERSION
};

static const struct option options[] = {
	{"config", required_argument, NULL, CONFIG},
	{"segment", required_argument, NULL, SEGMENT},
	{"journal", required_argument, NULL, JOURNAL},
	{"admin", required_argument, NULL, ADMIN},
	{"admin-token-file", required_argument, NULL, ADMIN_TOKEN_FILE},
	{"timeout", required_argument, NULL, TIMEOUT},
	{"yes", no_argument, NULL, YES},
	{"dry-run", no_argument, NULL, DRY_RUN},
	{"wait", no_argument, NULL, WAIT},
	{"json", no_argument, NULL, AS_JSON},
	{"watch", no_argument, NULL, WATCH},
	{"message", required_argument, NULL, MESSAGE},
	{"help", no_argument, NULL, HELP},
	{"version", no_argument, NULL, VERSION},
	{0},
};

static int take_option(int id, struct rollout_arguments *a)
{
	switch (id) {
	case CONFIG:
		a->move.config = optarg;
		break;
	case SEGMENT:
		a->move.segment = optarg;
		break;
	case JOURNAL:
		a->move.journal = optarg;
		break;
	case ADMIN_TOKEN_FILE:
		a->admin_token_file = optarg;
		break;
	case YES:
		a->move.yes = true;
		break;
	case DRY_RUN:
		a->move.dry_run = true;
		break;
	case WAIT:
		a->wait = true;
		break;
	case AS_JSON:
		a->json = true;
		break;
	case WATCH:
		a->watch = true;
		break;
	case MESSAGE:
		if (!*optarg || strlen(optarg) > MOVE_MESSAGE_MAX || !text_is_plain(span_of(optarg)))
			return usage("--message must be one line of at most 1000 bytes%s", "");
		a->move.message = optarg;
		break;
	case ADMIN:
		if (a->n_admin == ADMIN_MAX)
			return usage("--admin %s: too many routers", optarg);
		a->admin[a->n_admin++] = optarg;
		break;
	case TIMEOUT:
		if (!parse_seconds(optarg, &a->timeout_s))
			return usage("--timeout: \"%s\" is not a number of seconds from 1 to 3600", optarg);
		break;
	case HELP:
		fputs(usage_text, stdout);
		exit(MOVE_DONE);
	case VERSION:
		puts("migration-rollout " PROJECT_VERSION);
		exit(MOVE_DONE);
	default:
		fputs("Try 'migration-rollout --help'.\n", stderr);
		return MOVE_USAGE;
	}
	return 0;
}

static int parse(int argc, char **argv, struct rollout_arguments *a)
{
	int o, r = 0;
	while (r == 0 && (o = getopt_long(argc, argv, "", options, NULL)) != -1)
		r = take_option(o, a);
	if (r == 0)
		r = parse_command(argc, argv, a);
	if (r == 0 && a->wait && !a->n_admin)
		r = usage("--wait needs the admin address of each router: %s", "--admin URL");
	return r;
}

/* --- running -------------------------------------------------------------------------------------------- */

static int run_history(const struct config *c, const struct rollout_arguments *a, struct err *e)
{
	CLEANUP(freep) char *path = NULL;
	int r = history_path(c, a->move.journal, &path, e);
	return r < 0 ? r : history_show(path, a->move.flag, a->json, e);
}

static void on_said(void *arg, enum move_tone tone, const char *text)
{
	(void)arg;
	if (tone == MOVE_SAYS) {
		fputs(text, stdout);
		return;
	}
	fflush(stdout);
	fprintf(stderr, "%s%s", tone == MOVE_ALARMS ? "migration-rollout: " : "", text);
}

static int on_asked(void *arg, const char *question)
{
	const struct rollout_arguments *a = arg;
	char answer[16] = "";
	if (!isatty(STDIN_FILENO) || a->watch)
		return -1;
	printf("%s Continue? [y/N] ", question);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int run(const struct config *c, struct rollout_arguments *a, struct err *e)
{
	CLEANUP(place_closep) struct rollout_place *p = NULL;
	if (strcmp(a->move.command, "history") == 0)
		return run_history(c, a, e);
	const struct place_options o = {.voice = {.arg = a, .say = on_said, .ask = on_asked}};
	int r = place_open(c, &o, &p, e);
	if (r < 0)
		return r;
	if (strcmp(a->move.command, "get") == 0)
		return command_get(p, a, e);
	if (strcmp(a->move.command, "stage") == 0)
		return command_stage(p, a, e);
	return strcmp(a->move.command, "plan") == 0 ? move_plan(p, &a->move, e) : command_change(p, a, e);
}

static bool is_change(const char *command)
{
	return strcmp(command, "get") != 0 && strcmp(command, "plan") != 0 &&
	       strcmp(command, "history") != 0 && strcmp(command, "stage") != 0;
}

/* A rollback asks no operation: it needs to know where the flags lie, and nothing else of a configuration
 * that is broken. */
static bool load_in_emergency(const struct rollout_arguments *a, struct buf *problems, struct config **ret)
{
	CLEANUP(buf_releasep) struct buf again = BUF_INIT(1u << 20);
	bool off = strcmp(a->move.command, "rollback") == 0 || strcmp(a->move.command, "disable") == 0;
	if (!off || config_load_flags(a->move.config, environment, &again, ret) < 0)
		return false;
	fprintf(stderr, "warning: the configuration has mistakes; only where the flags are matters now:\n%s",
		problems->len ? problems->ptr : "");
	return true;
}

int main(int argc, char **argv)
{
	static const char usual_config[] = "config/router.yml";
	struct rollout_arguments a = {.move = {.config = usual_config, .percent = -1}, .timeout_s = WAIT_S};
	struct err e = {""};
	plain_output_begin();
	signal(SIGPIPE, SIG_IGN); /* a reader of ours that is gone must not leave a change half made */
	if (parse(argc, argv, &a) != 0)
		return MOVE_USAGE;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *c = NULL;
	if (config_load(a.move.config, environment, &problems, &c) < 0 &&
	    !load_in_emergency(&a, &problems, &c)) {
		fputs(problems.len ? problems.ptr : "the configuration could not be read\n", stderr);
		if (a.move.config == usual_config)
			fputs("Name the router's configuration with --config FILE.\n", stderr);
		return MOVE_USAGE;
	}
	int r = run(c, &a, &e);
	config_unref(c);
	if (r >= 0)
		return r;
	fflush(stdout);
	fprintf(stderr, "migration-rollout: %s\n%s", e.text,
		is_change(a.move.command) ? "Nothing was changed.\n" : "");
	return MOVE_REFUSED;
}
