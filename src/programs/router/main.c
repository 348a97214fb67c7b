/*
 * migration-router: arguments, sub-commands, exit codes.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/plain_output.h"
#include "programs/router/app.h"
#include "programs/router/check_flags.h"
#include "programs/router/evaluate.h"
#include "programs/router/explain/explain.h"
#include "programs/router/graph.h"
#include "tasks/backends.h"

#define EXIT_USAGE 2

static const char usage[] =
	"migration-router sits in front of legacy services and decides per request "
	"which side serves it.\n"
	"\n"
	"  migration-router [serve] --config FILE [--takeover] [--log-level LEVEL] "
	"[--log-format logfmt|json]\n"
	"  migration-router check FILE [--validate | [--backends] [--service S] [--backend B]] [--flags] "
	"[--test SERVICE.OPERATION "
	"[--body JSON|@FILE] [--user U] [--org G]]\n"
	"  migration-router explain --config FILE --service S --operation O [--user U] "
	"[--org G] [--context K=V]…\n"
	"  migration-router evaluate (--features F | --snapshot F) [--rules "
	"v1|v2.0|v2.9|v2.11] < requests.jsonl > results.jsonl\n"
	"  migration-router graph WORKFLOW [--tasks FILE]\n"
	"  migration-router --version | --help\n"
	"\n"
	"Exit status: 0 success, 1 failed while running, 2 wrong arguments or configuration. See "
	"migration-router(1).\n";

static void print_version(void)
{
	CLEANUP(buf_releasep) struct buf names = BUF_INIT(1024);
	task_backend_names(&names);
	printf("migration-router " PROJECT_VERSION "\nbackends: %s\n", names.ptr ? names.ptr : "none");
}

static int main_check(int argc, char **argv)
{
	static const struct option options[] = {
		{"backends", no_argument, NULL, 'b'},	   {"test", required_argument, NULL, 't'},
		{"body", required_argument, NULL, 'd'},	   {"user", required_argument, NULL, 'u'},
		{"org", required_argument, NULL, 'g'},	   {"flags", no_argument, NULL, 'f'},
		{"service", required_argument, NULL, 's'}, {"backend", required_argument, NULL, 'k'},
		{"validate", no_argument, NULL, 'v'},	   {0}};
	struct app_check how = {0};
	bool validate = false;
	bool flags = false;
	int o;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'b')
			how.backends = true;
		else if (o == 'f')
			flags = true;
		else if (o == 't')
			how.test = optarg;
		else if (o == 's')
			how.service = optarg;
		else if (o == 'k')
			how.backend = optarg;
		else if (o == 'v')
			validate = true;
		else if (o == 'd')
			how.body = optarg;
		else if (o == 'u')
			how.user = optarg;
		else if (o == 'g')
			how.organization = optarg;
		else
			return EXIT_USAGE;
	}
	/* Which of them is a question to backends; --validate asks none. */
	bool asks = how.backends || how.service || how.backend;
	if (optind != argc - 1 || (!how.test && (how.body || how.user || how.organization)) ||
	    (validate && (asks || how.test))) {
		fprintf(stderr, "usage: migration-router check FILE [--validate | [--backends] [--service S] "
				"[--backend B]] [--flags] [--test "
				"SERVICE.OPERATION [--body JSON|@FILE]"
				" [--user U] [--org G]]\n");
		return EXIT_USAGE;
	}
	how.config_path = argv[optind];
	how.backends = asks;
	int code = app_check(&how);
	if (code == EXIT_USAGE)
		return code;
	fflush(stdout);
	int of_flags = flags ? check_flags(how.config_path) : check_flags_file(how.config_path);
	return code > of_flags ? code : of_flags;
}

static int serve(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"log-level", required_argument, NULL, 'l'},
						{"log-format", required_argument, NULL, 'f'},
						{"takeover", no_argument, NULL, 't'},
						{"help", no_argument, NULL, 'h'},
						{"version", no_argument, NULL, 'v'},
						{0}};
	const char *config = NULL;
	enum log_level level = LOG_INFO;
	enum log_format format = LOG_LOGFMT;
	bool take_over = false;
	int o;
	while ((o = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			config = optarg;
			break;
		case 'l':
			if (log_level_parse(optarg, &level) < 0) {
				fprintf(stderr, "--log-level: \"%s\" is none of debug, info, warn, error\n",
					optarg);
				return EXIT_USAGE;
			}
			break;
		case 'f':
			if (log_format_parse(optarg, &format) < 0) {
				fprintf(stderr, "--log-format: \"%s\" is neither logfmt nor json\n", optarg);
				return EXIT_USAGE;
			}
			break;
		case 't':
			take_over = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'v':
			print_version();
			return 0;
		default:
			return EXIT_USAGE;
		}
	}
	if (!config || optind < argc) {
		if (optind < argc)
			fprintf(stderr, "unknown argument \"%s\"\n", argv[optind]);
		else
			fprintf(stderr, "--config FILE is missing\n");
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	log_setup(level, format);
	return app_serve(config, take_over);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"check", main_check},
			{"explain", explain_command},
			{"evaluate", evaluate_command},
			{"graph", graph_command},
			{"serve", serve}};
	plain_output_begin();

	if (crypto_setup() < 0) {
		fprintf(stderr, "no source of randomness\n");
		return 1;
	}
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	return serve(argc, argv);
}
