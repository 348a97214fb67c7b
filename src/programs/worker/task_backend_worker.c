/*
 * task-backend-worker: runs tasks of a backend. Arguments, environment, signals and exit codes; the work
 * is that of the backend's engine (tasks/worker/engine.h).
 *
 * Exit codes: 0 fine · 1 it failed, or is not healthy · 2 usage or configuration.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/service_manager.h"
#include "base/loop.h"
#include "base/plain_output.h"
#include "config/config.h"
#include "tasks/backends.h"
#include "tasks/queue/store.h"
#include "programs/worker/worker_health.h"
#include "programs/worker/worker_registry.h"
#include "programs/worker/worker_settings.h"
#include "tasks/worker/engine.h"
#include "tasks/worker/registry.h"
#include "tasks/worker/spawn.h"

#define DEFAULT_DATABASE "tasks.db"
#define DEFAULT_CONCURRENCY 4
#define DEFAULT_SHUTDOWN_MS 30000
#define SEEN_MS 20000

enum mode { MODE_RUN, MODE_HEALTH, MODE_LIST, MODE_DRY };

struct worker_program {
	enum mode mode;
	char *backend, *config, *database, *name, *health_address;
	char *queue_text; /* the list, cut up in place */
	const char *queues_of_environment;
	bool stage_is_set, production; /* ENVIRONMENT: set; prod or production */
	char *queue_list;	       /* the same, whole */
	const char *queues[WORKER_MAX_QUEUES];
	size_t n_queues;
	unsigned concurrency;
	int64_t drain_ms, lease_ms;
	struct worker_registry registry;
	struct loop *loop;
	struct loop_watch *signals;
	int signal_fd;
	const struct worker_engine *engine;
	struct worker_settings settings; /* of the backend */
	void *worker;			 /* the engine's */
	struct worker_health *health;
};

static const char usage[] =
	"usage: task-backend-worker [options]\n"
	"  --backend NAME            embedded (default), celery, temporal, hatchet; or\n"
	"                            TASK_QUEUE_BACKEND, TASK_BACKEND_TYPE\n"
	"  --config FILE             router.yml: the backend's settings, and where the tasks are\n"
	"  --database FILE           embedded: the queue's file (else the configuration's, else tasks.db)\n"
	"  --tasks FILE|FOLDER       tasks beside the core tasks; of a folder its *.yml; may be repeated\n"
	"  --fail-fast true|false    false: leave out what is wrong in them instead of refusing all (default "
	"true)\n"
	"  --core-tasks true|false   false: only the core tasks that the files declare (default true)\n"
	"  --queues A,B              queues to serve; required if ENVIRONMENT is prod or production; if it "
	"is "
	"set to something else,\n"
	"                            TASK_QUEUES works, too; else \"default\"\n"
	"  --concurrency N           concurrent tasks (default 4), or TASK_WORKER_CONCURRENCY\n"
	"  --name, --worker-name NAME  or TASK_WORKER_NAME; else worker-<host>-<queues>\n"
	"  --shutdown-timeout TIME   how long running tasks may continue after SIGTERM (default 30s), or "
	"SHUTDOWN_TIMEOUT\n"
	"  --lease TIME              embedded: a worker not heard from for this long is lost (default 15s)\n"
	"  --health-check            exit 0 if the queue is usable and a worker is alive\n"
	"  --health-port PORT        serve /health and /metrics on 127.0.0.1:PORT (or ADDRESS:PORT, *:PORT)\n"
	"  --list-tasks              list the tasks this worker can run\n"
	"  --dry-run                 check everything, run nothing\n"
	"  --log-format FORMAT       logfmt or console (default), json or structured\n"
	"  --log-level LEVEL         debug, info (default), warn or warning, error or critical; in any case\n"
	"  --version, --help\n";

static int wrong_usage(const char *what, const char *value)
{
	fprintf(stderr, "task-backend-worker: %s: %s\n%s", what, value, usage);
	return 2;
}

static const char *program_environment(const char *name)
{
	const char *v = getenv(name);
	return v && *v ? v : NULL;
}

static int set_text(char **to, const char *from)
{
	if (!from)
		return 0;
	free(*to);
	*to = strdup(from);
	return *to ? 0 : -ENOMEM;
}

static bool program_parse_count(const char *text, unsigned *ret)
{
	char *end;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (errno || *end || end == text || v < 1 || v > WORKER_MAX_CONCURRENCY)
		return false;
	*ret = (unsigned)v;
	return true;
}

/* --- environment and arguments -------------------------------------------------------------------------- */

static int read_environment(struct worker_program *p)
{
	const char *backend = program_environment("TASK_QUEUE_BACKEND"),
		   *stage = program_environment("ENVIRONMENT");
	const char *concurrency = program_environment("TASK_WORKER_CONCURRENCY"),
		   *drain = program_environment("SHUTDOWN_TIMEOUT");
	set_text(&p->backend, backend ? backend : program_environment("TASK_BACKEND_TYPE"));
	set_text(&p->name, program_environment("TASK_WORKER_NAME"));
	p->production = stage && (strcasecmp(stage, "prod") == 0 || strcasecmp(stage, "production") == 0);
	p->queues_of_environment = program_environment("TASK_QUEUES");
	p->stage_is_set = stage != NULL;
	if (concurrency && !program_parse_count(concurrency, &p->concurrency))
		return wrong_usage("TASK_WORKER_CONCURRENCY", "must be a number from 1 to 1024");
	if (drain && clock_parse_duration(drain, &p->drain_ms) < 0)
		return wrong_usage("SHUTDOWN_TIMEOUT", "must be a duration, like 30s");
	return 0;
}

enum worker_option {
	OPTION_BACKEND = 256,
	OPTION_CONFIG,
	OPTION_DATABASE,
	OPTION_TASKS,
	OPTION_FAIL_FAST,
	OPTION_CORE,
	OPTION_QUEUES,
	OPTION_CONCURRENCY,
	OPTION_NAME,
	OPTION_SHUTDOWN,
	OPTION_LEASE,
	OPTION_HEALTH,
	OPTION_HEALTH_PORT,
	OPTION_LIST,
	OPTION_DRY,
	OPTION_LOG_FORMAT,
	OPTION_LOG_LEVEL,
	OPTION_VERSION,
	OPTION_HELP
};

static const struct option options[] = {
	{"backend", required_argument, NULL, OPTION_BACKEND},
	{"config", required_argument, NULL, OPTION_CONFIG},
	{"database", required_argument, NULL, OPTION_DATABASE},
	{"tasks", required_argument, NULL, OPTION_TASKS},
	{"fail-fast", required_argument, NULL, OPTION_FAIL_FAST},
	{"core-tasks", required_argument, NULL, OPTION_CORE},
	{"queues", required_argument, NULL, OPTION_QUEUES},
	{"concurrency", required_argument, NULL, OPTION_CONCURRENCY},
	{"name", required_argument, NULL, OPTION_NAME},
	{"worker-name", required_argument, NULL, OPTION_NAME},
	{"shutdown-timeout", required_argument, NULL, OPTION_SHUTDOWN},
	{"lease", required_argument, NULL, OPTION_LEASE},
	{"health-check", no_argument, NULL, OPTION_HEALTH},
	{"health-port", required_argument, NULL, OPTION_HEALTH_PORT},
	{"list-tasks", no_argument, NULL, OPTION_LIST},
	{"dry-run", no_argument, NULL, OPTION_DRY},
	{"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"version", no_argument, NULL, OPTION_VERSION},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

struct log_options {
	enum log_level level;
	enum log_format format;
};

/* 0, or the exit code + 1 when that is all. */
static int program_take_option(struct worker_program *p, int id, struct log_options *log)
{
	switch (id) {
	case OPTION_BACKEND:
		return set_text(&p->backend, optarg);
	case OPTION_CONFIG:
		return set_text(&p->config, optarg);
	case OPTION_DATABASE:
		return set_text(&p->database, optarg);
	case OPTION_TASKS:
		return worker_registry_add_path(&p->registry, optarg);
	case OPTION_FAIL_FAST:
		return worker_registry_set_fail_fast(&p->registry, optarg)
			       ? 0
			       : 1 + wrong_usage("--fail-fast", "must be true or false");
	case OPTION_CORE:
		return worker_registry_set_core(&p->registry, optarg)
			       ? 0
			       : 1 + wrong_usage("--core-tasks", "must be true or false");
	case OPTION_QUEUES:
		return set_text(&p->queue_text, optarg);
	case OPTION_NAME:
		return set_text(&p->name, optarg);
	case OPTION_CONCURRENCY:
		return program_parse_count(optarg, &p->concurrency)
			       ? 0
			       : 1 + wrong_usage("--concurrency", "must be from 1 to 1024");
	case OPTION_SHUTDOWN:
		return clock_parse_duration(optarg, &p->drain_ms) == 0
			       ? 0
			       : 1 + wrong_usage("--shutdown-timeout", optarg);
	case OPTION_LEASE:
		return clock_parse_duration(optarg, &p->lease_ms) == 0 && p->lease_ms >= 300 &&
				       p->lease_ms <= 86400000
			       ? 0
			       : 1 + wrong_usage("--lease", "must be from 300ms to 24h");
	case OPTION_HEALTH_PORT:
		return set_text(&p->health_address, optarg);
	case OPTION_HEALTH:
		p->mode = MODE_HEALTH;
		return 0;
	case OPTION_LIST:
		p->mode = MODE_LIST;
		return 0;
	case OPTION_DRY:
		p->mode = MODE_DRY;
		return 0;
	case OPTION_LOG_FORMAT:
		return log_format_parse(optarg, &log->format) == 0 ? 0
								   : 1 + wrong_usage("--log-format", optarg);
	case OPTION_LOG_LEVEL:
		return log_level_parse(optarg, &log->level) == 0 ? 0 : 1 + wrong_usage("--log-level", optarg);
	case OPTION_VERSION:
		puts("task-backend-worker " PROJECT_VERSION);
		return 1;
	case OPTION_HELP:
		fputs(usage, stdout);
		return 1;
	default:
		fputs(usage, stderr);
		return 1 + 2;
	}
}

static int read_arguments(struct worker_program *p, int argc, char **argv)
{
	struct log_options log = {LOG_INFO, LOG_LOGFMT};
	int id;
	while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
		int r = program_take_option(p, id, &log);
		if (r)
			return r;
	}
	if (optind < argc)
		return 1 + wrong_usage("unknown argument", argv[optind]);
	log_setup(log.level, log.format);
	return 0;
}

/* --- settings that stand in files ----------------------------------------------------------------------- */

static const char *getenv_const(const char *name)
{
	return getenv(name);
}

static void setting(const struct backend_config *b, const char *key, char **to)
{
	for (size_t i = 0; i < b->n_settings && !*to; i++)
		if (span_is(b->settings[i].key, key))
			*to = span_dup(b->settings[i].value);
}

static int worker_settings_of_config(struct worker_program *p, const struct config *c)
{
	const struct backend_config *b = config_backend(c, span_of(p->backend));
	const struct worker_engine *engine = worker_engine_find(span_of(p->backend));
	if (!engine || !engine->of_options || !b)
		return 0;
	int r = worker_registry_take(&p->registry, b);
	return r < 0 ? r : worker_settings_take(&p->settings, c, b);
}

/* What the command line does not say, from router.yml. */
static int read_config(struct worker_program *p)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1 << 20);
	struct config *c = NULL;
	if (!p->config)
		return 0;
	int r = config_load(p->config, getenv_const, &problems, &c);
	if (problems.len)
		fputs(problems.ptr, stderr);
	if (r < 0)
		return 2;
	if (!p->backend)
		p->backend = span_dup(c->default_backend);
	const struct backend_config *b = config_backend(c, SPAN_LIT("embedded"));
	bool embedded = !p->backend || strcmp(p->backend, "embedded") == 0;
	if (b && embedded) {
		setting(b, "database", &p->database);
		r = worker_registry_take(&p->registry, b);
	}
	/* As the router does. */
	if (r == 0 && p->backend)
		r = worker_settings_of_config(p, c);
	if (!p->database && asprintf(&p->database, "%s/tasks.db", c->data_dir) < 0)
		p->database = NULL;
	config_unref(c);
	return r < 0 ? 2 : 0;
}

/* Which queues production serves is said where it is started, not in an environment that it may share. */
static int choose_queues(struct worker_program *p)
{
	bool needed = p->mode == MODE_RUN || p->mode == MODE_DRY;
	if (p->queues_of_environment && !p->production && p->stage_is_set)
		return p->queue_text ? 0 : set_text(&p->queue_text, p->queues_of_environment);
	if (p->queues_of_environment && needed && !p->queue_text)
		return wrong_usage(
			"TASK_QUEUES",
			p->stage_is_set
				? "is ignored in production (ENVIRONMENT); use --queues"
				: "is only used if ENVIRONMENT is set to something other than production");
	if (p->queues_of_environment && needed)
		fputs("task-backend-worker: warning: TASK_QUEUES is ignored in production; --queues "
		      "applies\n",
		      stderr);
	if (p->production && needed && !p->queue_text)
		return wrong_usage("--queues", "is required in production (ENVIRONMENT)");
	const char *queue = p->settings.queue;
	if (!queue && p->engine->queue && p->settings.options)
		queue = p->engine->queue(p->settings.options);
	if (!queue)
		queue = p->engine->default_queue;
	return p->queue_text ? 0 : set_text(&p->queue_text, queue);
}

static const char *trim(char *text)
{
	text += strspn(text, " ");
	for (char *end = text + strlen(text); end > text && end[-1] == ' ';)
		*--end = '\0';
	return text;
}

static const char *queue_mistake(const struct worker_program *p, const char *queue)
{
	if (!*queue)
		return "a queue without a name";
	if (strpbrk(queue, " \t\r\n"))
		return "a blank in a queue name; queues are separated by commas";
	if (strlen(queue) >= TASK_NAME_MAX)
		return "a queue name that is too long";
	for (size_t i = 0; i < p->n_queues; i++)
		if (strcmp(p->queues[i], queue) == 0)
			return "a queue is listed twice";
	return p->n_queues == WORKER_MAX_QUEUES ? "more than 64 queues" : NULL;
}

static int read_queues(struct worker_program *p)
{
	const char *whose = p->queue_text ? "--queues" : "TASK_QUEUES";
	int r = choose_queues(p);
	if (r)
		return r < 0 ? 1 : r;
	p->queue_list = strdup(p->queue_text);
	char *rest = p->queue_text;
	for (char *one = strsep(&rest, ","); one; one = strsep(&rest, ",")) {
		const char *queue = trim(one), *mistake = queue_mistake(p, queue);
		if (mistake)
			return wrong_usage(whose, mistake);
		p->queues[p->n_queues++] = queue;
	}
	return 0;
}

static int make_name(struct worker_program *p)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(WORKER_MAX_QUEUES * TASK_NAME_MAX + 512);
	char host[256] = "localhost";
	gethostname(host, sizeof(host) - 1);
	buf_printf(&name, "worker-%s", host);
	for (size_t i = 0; i < p->n_queues; i++)
		buf_printf(&name, "-%s", p->queues[i]);
	p->name = buf_steal(&name);
	return p->name ? 0 : 1;
}

static int no_engine(const char *backend)
{
	CLEANUP(buf_releasep) struct buf names = BUF_INIT(1024);
	char text[512];
	worker_engine_names(&names);
	snprintf(text, sizeof(text), "this program serves no %s queues, only: %s", backend,
		 names.ptr ? names.ptr : "none");
	return wrong_usage("--backend", text);
}

static int program_complete(struct worker_program *p)
{
	struct err e;
	if (!p->backend)
		set_text(&p->backend, "embedded");
	if (!task_backend_find(span_of(p->backend)) && task_backend_not_found(span_of(p->backend), &e) < 0)
		return wrong_usage("--backend", e.text);
	p->engine = worker_engine_find(span_of(p->backend));
	if (!p->engine)
		return no_engine(p->backend);
	if (p->engine->of_options && p->mode != MODE_LIST &&
	    worker_settings_complete(&p->settings, p->backend) < 0)
		return 2;
	if (p->engine->check && p->mode != MODE_LIST && p->engine->check(p->settings.options, &e) < 0) {
		fprintf(stderr, "task-backend-worker: %s\n", e.text);
		return 2;
	}
	if (!p->database && !p->engine->of_options)
		set_text(&p->database, DEFAULT_DATABASE);
	int r = read_queues(p);
	if (r)
		return r;
	if (!p->name && make_name(p))
		return 1;
	return worker_registry_load(&p->registry) < 0 ? 2 : 0;
}

/* --- modes ---------------------------------------------------------------------------------------------- */

static int health_check(const struct worker_program *p)
{
	CLEANUP(store_closep) struct store *s = NULL;
	struct store_options o = {.path = p->database};
	struct err e = {""};
	int64_t workers = 0, backlog = 0;
	if (p->engine->of_options)
		return worker_settings_health(&p->settings);
	int r = access(p->database, F_OK) < 0 ? err_set(&e, -errno, "%s: %s", p->database, strerror(errno))
					      : store_open(&o, &s, &e);
	if (r == 0)
		r = store_workers(s, SEEN_MS, &workers, &e);
	if (r == 0)
		r = store_backlog(s, &backlog, &e);
	if (r < 0) {
		printf("unhealthy: %s\n", e.text);
		return 1;
	}
	printf("%s: workers=%lld backlog=%lld\n", workers ? "healthy" : "unhealthy: no worker is alive",
	       (long long)workers, (long long)backlog);
	return workers ? 0 : 1;
}

static int dry_run(const struct worker_program *p)
{
	printf("%s: backend=%s", p->name, p->backend);
	if (!p->engine->of_options)
		printf(" database=%s", p->database);
	printf(" concurrency=%u shutdown_timeout=%lldms queues=", p->concurrency, (long long)p->drain_ms);
	for (size_t i = 0; i < p->n_queues; i++)
		printf("%s%s", i ? "," : "", p->queues[i]);
	putchar('\n');
	worker_registry_list(&p->registry);
	return 0;
}

/* --- running -------------------------------------------------------------------------------------------- */

static void program_on_stopped(void *arg)
{
	struct worker_program *p = arg;
	loop_stop(p->loop);
}

/* SIGHUP: the tasks are read again. With a mistake in them those that were known stay. */
static bool program_reload(struct worker_program *p)
{
	struct registry *fresh = worker_registry_read(&p->registry);
	if (!fresh)
		return false;
	p->engine->set_registry(p->worker, fresh);
	worker_registry_put(&p->registry, fresh);
	return true;
}

static void program_on_signal(void *arg, unsigned events)
{
	struct worker_program *p = arg;
	struct signalfd_siginfo info;
	(void)events;
	while (read(p->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			service_manager_reloading();
			service_manager_reloaded(!program_reload(p));
		} else if (info.ssi_signo == SIGUSR1) {
			log_toggle_debug();
		} else {
			service_manager_stopping();
			worker_health_drains(p->health);
			p->engine->stop(p->worker);
		}
	}
}

static void hold_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
	sigprocmask(SIG_BLOCK, set, NULL);
}

static int watch_signals(struct worker_program *p)
{
	sigset_t set;
	hold_signals(&set);
	signal(SIGPIPE, SIG_IGN);
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return p->signal_fd < 0
		       ? -errno
		       : loop_watch_new(p->loop, p->signal_fd, LOOP_READ, program_on_signal, p, &p->signals);
}

static void program_counts(void *arg, struct worker_counts *ret)
{
	const struct worker_program *p = arg;
	p->engine->counts(p->worker, ret);
}

static int open_health(struct worker_program *p, struct err *e)
{
	const struct worker_health_options o = {.address = p->health_address,
						.name = p->name,
						.backend = p->engine->name,
						.concurrency = p->concurrency,
						.counts = program_counts,
						.registry = &p->registry,
						.arg = p};
	int r = p->health_address ? worker_health_start(p->loop, &o, &p->health, e) : 0;
	if (r == 0 && p->health)
		log_info("health_listening", LOG_INT("port", worker_health_port(p->health)));
	return r;
}

static int run(struct worker_program *p)
{
	struct err e = {""};
	struct watchdog *watchdog = NULL;
	struct worker_options o = {.database = p->database,
				   .backend = p->settings.options,
				   .registry = p->registry.now,
				   .name = p->name,
				   .queues = p->queues,
				   .n_queues = p->n_queues,
				   .concurrency = p->concurrency,
				   .lease_ms = (unsigned)p->lease_ms,
				   .drain_ms = (unsigned)p->drain_ms,
				   .stopped = program_on_stopped,
				   .arg = p};
	spawn_raise_descriptor_limit();
	int r = loop_new(&p->loop);
	if (r == 0)
		r = watch_signals(p);
	if (r == 0)
		r = p->engine->make(p->loop, &o, &p->worker, &e);
	if (r == 0)
		r = open_health(p, &e);
	if (r == 0) {
		log_info("worker_ready", LOG_STR("name", p->name), LOG_STR("backend", p->backend),
			 LOG_STR("queues", p->queue_list),
			 LOG_STR("database", p->database ? p->database : "-"),
			 LOG_INT("concurrency", p->concurrency),
			 LOG_INT("tasks",
				 registry_count(p->registry.now) - registry_count_core(p->registry.now)),
			 LOG_INT("core_tasks", registry_count_core(p->registry.now)));
		worker_registry_tell(&p->registry);
		service_manager_ready();
		if (watchdog_new(p->loop, NULL, NULL, &watchdog) < 0)
			log_error("watchdog_missing", LOG_STR("error", "out of memory"));
		loop_run(p->loop);
		watchdog_free(watchdog);
		log_info("worker_stopped", LOG_STR("name", p->name));
	} else {
		log_error("worker_failed", LOG_STR("error", e.text[0] ? e.text : strerror(-r)));
	}
	worker_health_stop(p->health);
	p->engine->release(p->worker);
	loop_watch_free(p->signals);
	if (p->signal_fd >= 0)
		close(p->signal_fd);
	loop_free(p->loop);
	return r < 0 ? 1 : 0;
}

static int execute(struct worker_program *p, int argc, char **argv)
{
	int r = read_environment(p);
	if (r)
		return r;
	r = read_arguments(p, argc, argv);
	if (r)
		return r < 0 ? 1 : r - 1;
	r = read_config(p);
	if (r == 0)
		r = program_complete(p);
	if (r)
		return r;
	switch (p->mode) {
	case MODE_HEALTH:
		return health_check(p);
	case MODE_LIST:
		worker_registry_list(&p->registry);
		return 0;
	case MODE_DRY:
		return dry_run(p);
	case MODE_RUN:
		break;
	}
	return run(p);
}

int main(int argc, char **argv)
{
	struct worker_program p = {
		.concurrency = DEFAULT_CONCURRENCY, .drain_ms = DEFAULT_SHUTDOWN_MS, .signal_fd = -1};
	plain_output_begin();
	log_setup(LOG_INFO, LOG_LOGFMT);
	if (crypto_setup() < 0)
		return 1;
	int r = execute(&p, argc, argv);
	worker_settings_release(&p.settings);
	worker_registry_release(&p.registry);
	free(p.backend);
	free(p.config);
	free(p.database);
	free(p.name);
	free(p.health_address);
	free(p.queue_text);
	free(p.queue_list);
	return r;
}
