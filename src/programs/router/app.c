#include "programs/router/app.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "legacy/legacy.h"
#include "operation/listen_address.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"
#include "programs/router/app_registration.h"
#include "programs/router/moving/app_setback.h"
#include "programs/router/app_standing.h"
#include "programs/router/app_takeover.h"
#include "programs/router/metrics/metrics.h"
#include "router/http/guesses.h"
#include "router/http/listener.h"
#include "router/plane.h"

#define DRAIN_TICK_MS 20
#define IMPATIENT_MS 2000 /* before the deadline, for what idle connections send just when they are closed */
#define ADMIN_DRAIN_MS 1500
#define FAIL_FAST_MS 15000 /* how long startup waits for the backends */

/* --- flags ---------------------------------------------------------------------------------------------- */

static void tell_broken_flags(const struct app *a)
{
	struct app_broken_flags broken;
	app_broken_flags(a, &broken);
	for (size_t i = 0; i < broken.n; i++) {
		const struct flag *f = flag_find(a->flags, broken.keys[i]);
		log_error("flag_broken", LOG_STR("flag", flag_key(f)), LOG_STR("why", flag_broken(f)),
			  LOG_STR("served_by", "legacy"));
	}
}

/* Said when they change, not with each snapshot: a percentage is changed more often than a mistake is
 * mended. */
static void warn_of_flags(struct app *a, const struct flag_snapshot *snapshot)
{
	CLEANUP(buf_releasep) struct buf all = BUF_INIT(1u << 20);
	char digest[CRYPTO_SHA256_HEX];
	for (size_t i = 0; i < flag_snapshot_warnings(snapshot); i++)
		buf_printf(&all, "%s\n", flag_snapshot_warning(snapshot, i));
	crypto_sha256_hex(buf_span(&all), digest);
	if (strcmp(digest, a->warned) == 0)
		return;
	memcpy(a->warned, digest, sizeof(digest));
	app_log_problems("flags_warning", &all);
	tell_broken_flags(a);
}

static void publish_flags(void *arg, const struct flag_snapshot *snapshot)
{
	struct app *a = arg;
	const struct flag_snapshot *old = a->flags;
	a->flags = flag_snapshot_ref(snapshot);
	a->flag_snapshots++;
	app_guard_expect(a, a->config, snapshot);
	for (size_t i = 0; i < a->n_planes; i++)
		plane_set_flags(a->planes[i], snapshot);
	retired_add(a->retired, old);
	log_info("flags_published", LOG_STR("digest", flag_snapshot_digest(snapshot)),
		 LOG_INT("flags", flag_snapshot_count(snapshot)));
	warn_of_flags(a, snapshot);
	app_standing_look(a);
}

static void flags_failed(void *arg, const char *why)
{
	struct app *a = arg;
	a->flag_failures++;
	log_warn("flags_refresh_failed", LOG_STR("error", why), LOG_BOOL("last_good", a->flags != NULL));
	app_standing_look(a);
}

static void use_flags(struct app *a)
{
	struct app_used_flags u = app_flags_in_use(a->config);
	int r = a->flipt ? flipt_source_use(a->flipt, u.keys, u.n)
			 : features_source_use(a->features, u.keys, u.n);
	if (r < 0)
		log_error("flags_in_use_unknown", LOG_STR("error", "out of memory"));
}

static int start_flags(struct app *a, struct err *e)
{
	struct flag_source_events events = {.publish = publish_flags, .failed = flags_failed, .arg = a};
	const struct config *c = a->config;
	if (retired_new(a->loop, &a->retired) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (c->flags.kind == FLAG_SOURCE_FILE) {
		struct app_used_flags u = app_flags_in_use(c);
		return features_source_start(a->loop, &c->flags, u.keys, u.n, &events, &a->features, e);
	}
	int r = flipt_source_start(a->loop, &c->flags, &events, &a->flipt, e);
	if (r == 0)
		use_flags(a);
	return r;
}

/* --- reload and drain ----------------------------------------------------------------------------------- */

static bool peers_same(const struct config *a, const struct config *b)
{
	bool same = a->n_routers == b->n_routers;
	for (size_t i = 0; same && i < a->n_routers; i++)
		same = text_eq(a->routers[i].url, b->routers[i].url) &&
		       text_eq(a->routers[i].name, b->routers[i].name) &&
		       text_eq(a->routers[i].token_file, b->routers[i].token_file) &&
		       text_eq(a->routers[i].ca_file, b->routers[i].ca_file);
	return same;
}

/* What is bound at the start and stays until a restart; said aloud rather than silently ignored. */
static void warn_of_fixed_parts(const struct app *a, const struct config *new)
{
	/* not the last one: what waits for a restart is said at every reload */
	const struct config *old = a->started;
	const struct {
		const char *key;
		bool changed;
	} parts[] = {
		{"threads", old->threads != new->threads},
		{"data_dir", !text_eq(old->data_dir, new->data_dir)},
		{"limits.max_head", old->max_head != new->max_head},
		{"outcomes", !recorder_options_same(&old->outcomes, &new->outcomes)},
		{"state", !text_eq(old->state.url, new->state.url) ||
				  !text_eq(old->state.prefix, new->state.prefix) ||
				  old->state.timeout_ms != new->state.timeout_ms},
		{"compare", !pairs_options_same(&old->pairs, &new->pairs)},
		{"routers", !peers_same(old, new)},
		{"traces", !traces_options_same(&old->traces, &new->traces)},
		{"admin.listen", !text_eq(old->admin.listen, new->admin.listen)},
		{"flags", !flag_source_same(&old->flags, &new->flags)},
		{"backends", app_backends_changed(a, new)},
	};
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i].changed)
			log_warn("reload_needs_restart", LOG_STR("key", parts[i].key));
}

void app_log_problems(const char *event, const struct buf *problems)
{
	struct span rest = buf_span(problems);
	while (rest.len) {
		const char *end = memchr(rest.ptr, '\n', rest.len);
		size_t n = end ? (size_t)(end - rest.ptr) : rest.len;
		log_warn(event, LOG_SPAN("problem", ((struct span){rest.ptr, n})));
		n += end ? 1 : 0;
		rest.ptr += n;
		rest.len -= n;
	}
}

/* Anew at each reload: rotation renames the old file. */
static int open_access_log(struct app *a, const struct config *c)
{
	struct err e;
	int r = 0;
	if (c->access_log != ACCESS_LOG_OFF)
		r = access_log_open(a->env.access_log, c->access_log_file, &e);
	if (r < 0)
		log_warn("access_log_failing", LOG_STR("error", e.text));
	return r;
}

static bool listens_at(const struct config *c, const char *address)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (strcmp(c->services[i].listen, address) == 0)
			return true;
	return false;
}

/* As at a start: an address that someone else has is a mistake, not a share of his connections
 * (SO_REUSEPORT). */
static int app_check_addresses(const struct app *a, const struct config *new, struct buf *problems)
{
	int worst = 0;
	for (size_t i = 0; i < new->n_services; i++) {
		struct err e;
		if (listens_at(a->config, new->services[i].listen))
			continue;
		int r = plane_address_free(new->services[i].listen, &e);
		if (r < 0)
			buf_printf(problems, "%s: services.%.*s.listen: %s\n", new->path,
				   SPAN_ARG(new->services[i].name), e.text);
		worst = r < 0 ? r : worst;
	}
	return worst;
}

/* Listeners must neither be reopened by a process that ends, nor closed while they are being handed
 * over. */
static bool must_not_reload(const struct app *a)
{
	pid_t by = takeover_under_way(a);
	char text[64] = "this process is shutting down";
	if (by)
		snprintf(text, sizeof(text), "process %ld is taking over", (long)by);
	if (!by && !a->draining)
		return false;
	log_warn("reload_refused", LOG_STR("problem", text));
	return true;
}

/* Whether the new configuration is in force. */
static bool app_reload(struct app *a)
{
	if (must_not_reload(a))
		return false;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *new = NULL;
	int r = config_load(a->config->path, app_getenv, &problems, &new);
	if (r == 0)
		r = app_backends_check(a, new, &problems);
	if (r == 0)
		r = app_check_addresses(a, new, &problems);
	app_log_problems(r < 0 ? "reload_refused" : "config_warning", &problems);
	if (r < 0) {
		config_unref(new);
		return false;
	}
	for (size_t i = 0; i < new->n_services; i++)
		if (!plane_env_service(&a->env, new->services[i].name)) {
			log_error("reload_refused", LOG_STR("problem", "too many services since the start"));
			config_unref(new);
			return false;
		}
	warn_of_fixed_parts(a, new);
	open_access_log(a, new);
	app_guard_expect(a, new, a->flags);
	for (size_t i = 0; i < a->n_planes; i++)
		plane_set_config(a->planes[i], new);
	config_unref(a->config);
	a->config = new;
	app_backends_configure(a);
	if (a->admin)
		admin_set_config(a->admin, new);
	app_setback_review(a);
	use_flags(a);
	if (a->flipt)
		flipt_source_refresh(a->flipt);
	else
		features_source_reload(a->features);
	log_info("reloaded", LOG_STR("config", a->config->path));
	app_standing_tell(a, EVENT_RELOAD, "the configuration was read again", a->config->path);
	app_standing_look(a);
	return true;
}

static unsigned running(const struct app *a)
{
	unsigned n = 0;
	for (size_t i = 0; i < a->n_planes; i++)
		n += plane_exchanges(a->planes[i]) + plane_unheard(a->planes[i]);
	return n;
}

static void app_close_idle(struct app *a)
{
	a->patient = false;
	for (size_t i = 0; i < a->n_planes; i++)
		plane_quiesce(a->planes[i], false);
}

static bool settling(const struct app *a)
{
	for (size_t i = 0; i < a->n_planes; i++)
		if (plane_settling(a->planes[i]))
			return true;
	return false;
}

/* While it is patient: whoever has a connection learns it with the next answer. A moment before the deadline
 * the idle ones are closed. */
static bool waits_for_idle(struct app *a, unsigned left)
{
	if (!a->patient)
		return false;
	bool admin = a->admin && admin_drain(a->admin, true);
	bool waits = left > 0 || admin;
	if (waits && clock_mono_ms() >= a->drain_until_ms - IMPATIENT_MS)
		app_close_idle(a);
	return waits;
}

static void drain_tick(void *arg)
{
	struct app *a = arg;
	bool unsettled = settling(a); /* first: a request that it hid is counted by then */
	unsigned left = running(a);
	bool ended = left == 0 && !unsettled;
	if (waits_for_idle(a, left)) {
		loop_timer_start(a->drain, DRAIN_TICK_MS);
		return;
	}
	/* The admin listener last: whoever asks how the drain goes gets an answer. It holds up the end for
	 * a moment only. */
	int64_t now = clock_mono_ms();
	if (ended && !a->admin_until_ms)
		a->admin_until_ms = now + ADMIN_DRAIN_MS;
	if (ended && now < a->admin_until_ms && now < a->drain_until_ms && a->admin &&
	    admin_drain(a->admin, false)) {
		loop_timer_start(a->drain, DRAIN_TICK_MS);
		return;
	}
	if (!ended && clock_mono_ms() < a->drain_until_ms) {
		loop_timer_start(a->drain, DRAIN_TICK_MS);
		return;
	}
	a->cut = left;
	loop_stop(a->loop);
}

static void begin_drain(struct app *a, bool patient)
{
	if (a->patient) { /* a signal after a takeover: it is not to wait for idle connections any more */
		app_close_idle(a);
		return;
	}
	if (a->draining) {
		a->drain_until_ms = 0; /* a second signal: at once */
		return;
	}
	a->draining = true;
	a->patient = patient;
	takeover_leave(a);
	if (!patient)
		service_manager_stopping();
	a->drain_until_ms = clock_mono_ms() + a->config->drain_timeout_ms;
	log_info("draining", LOG_INT("running", running(a)),
		 LOG_INT("deadline_ms", a->config->drain_timeout_ms));
	for (size_t i = 0; i < a->n_planes; i++)
		plane_quiesce(a->planes[i], patient);
	if (patient && a->admin) /* who asks for readiness is to be answered by the new one */
		admin_drain(a->admin, true);
	/* Not at once: the planes must have seen it, or what they are about to accept would be missed. */
	loop_timer_start(a->drain, DRAIN_TICK_MS);
}

static void app_on_signal(void *arg, unsigned events)
{
	struct app *a = arg;
	(void)events;
	struct signalfd_siginfo info;
	while (read(a->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			service_manager_reloading();
			service_manager_reloaded(!app_reload(a));
		} else if (info.ssi_signo == SIGUSR1) {
			log_toggle_debug();
		} else {
			begin_drain(a, false);
		}
	}
}

static int start_signals(struct app *a, struct err *e)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	a->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->signals < 0)
		return err_set(e, -errno, "signalfd: %s", strerror(errno));
	int r = loop_timer_new(a->loop, drain_tick, a, &a->drain);
	if (r == 0)
		r = loop_watch_new(a->loop, a->signals, LOOP_READ, app_on_signal, a, &a->signal_watch);
	return r < 0 ? err_set(e, r, "signals: %s", strerror(-r)) : 0;
}

/* --- start ---------------------------------------------------------------------------------------------- */

static void raise_descriptor_limit(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int start_stores(struct app *a, struct err *e)
{
	const struct config *c = a->config;
	if (access_log_start(&a->env.access_log, e) < 0)
		return -ENOMEM;
	if (open_access_log(a, c) < 0)
		return err_set(e, -EIO, "the access log cannot be written");
	if (c->traces.endpoint) {
		int started = traces_start(&c->traces, &a->env.traces, e);
		if (started < 0)
			return err_prefix(e, started, "traces");
	}
	struct recorder_options outcomes = c->outcomes;
	a->outcomes_path = strdup(c->outcomes.path);
	if (!a->outcomes_path)
		return err_set(e, -ENOMEM, "out of memory");
	int r = app_guard_start(a, &outcomes.taps[0], e);
	if (r == 0)
		r = pairs_start(&c->pairs, &a->pairs, e);
	if (r < 0)
		return r;
	a->env.pairs = a->pairs;
	pairs_tap(a->pairs, &outcomes.taps[1]);
	r = app_standing_start(a, &outcomes.taps[2], &outcomes.taps[3], e);
	if (r < 0)
		return r;
	r = recorder_start(&outcomes, &a->recorder, e);
	if (r < 0)
		return err_prefix(e, r, "outcomes");
	a->env.recorder = a->recorder;
	CLEANUP(freep) char *ledger = NULL;
	if (asprintf(&ledger, "%s/ledger.db", c->data_dir) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	const struct ledger_options ledger_options = {.file = ledger,
						      .redis = c->state.url,
						      .prefix = c->state.prefix,
						      .timeout_ms = c->state.timeout_ms};
	r = ledger_start(&ledger_options, &a->ledger, e);
	if (r < 0)
		return err_prefix(e, r, c->state.url ? "state" : "ledger");
	a->env.ledger = a->ledger;
	r = claims_start(&ledger_options, &a->env.claims, e);
	if (r < 0)
		return err_prefix(e, r, "ledger");
	app_backends_configure(a);
	return app_backends_start(a, e);
}

static int start_planes(struct app *a, struct err *e)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	size_t n = 1;
	if (a->config->threads)
		n = a->config->threads;
	else if (cores > 0)
		n = (size_t)cores;
	if (n > PLANE_MAX)
		n = PLANE_MAX;
	for (size_t i = 0; i < a->config->n_services; i++)
		plane_env_service(&a->env, a->config->services[i].name);
	while (a->n_planes < n) {
		int r = plane_start(&a->env, (unsigned)a->n_planes, a->config, a->flags,
				    &a->planes[a->n_planes], e);
		if (r < 0)
			return r;
		a->n_planes++;
	}
	return 0;
}

static const struct registration_entry *first_that_must_not_lack(const struct app *a)
{
	for (size_t i = 0; i < registration_count(a->registration); i++) {
		const struct registration_entry *entry = registration_at(a->registration, i);
		const struct backend_config *b = config_backend(a->config, entry->backend);
		if (entry->needed && b && b->fail_fast && registration_lacks(entry))
			return entry;
	}
	return NULL;
}

/* Only who asked for fail_fast waits for the backends at start; each entry that lacks something is logged
 * by the round. */
static int check_registration(struct app *a, struct err *e)
{
	int r = app_clients_start(a, e);
	if (r == 0)
		r = registration_new(a, a->config, &a->registration, e);
	bool wanted = false;
	for (size_t i = 0; i < a->config->n_backends; i++)
		wanted |= a->config->backends[i].fail_fast;
	if (r < 0 || !wanted)
		return r;
	registration_ask_now(a->registration, FAIL_FAST_MS);
	const struct registration_entry *entry = first_that_must_not_lack(a);
	if (a->draining)
		return err_set(e, -EINTR, "asked to stop while starting");
	if (entry)
		return err_set(e, -ENOTCONN, "fail_fast: %.*s.%.*s on %.*s: %s",
			       SPAN_ARG(entry->operation->service), SPAN_ARG(entry->operation->name),
			       SPAN_ARG(entry->backend), entry->now.missing);
	return 0;
}

static void app_on_taken_over(struct app *a)
{
	app_standing_quiet(a);
	begin_drain(a, true);
}

static int app_start(struct app *a, bool take_over, struct err *e)
{
	int r = loop_new(&a->loop);
	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	if ((r = takeover_lock(a, take_over, app_on_taken_over, e)) < 0)
		return r;
	if ((r = guesses_new(&a->env.guesses)) < 0 || (r = organizations_new(&a->env.organizations)) < 0 ||
	    (r = metrics_new(&a->metrics)) < 0)
		return err_set(e, r, "out of memory");
	if ((r = legacy_setup()) < 0)
		return err_set(e, r, "libcurl could not be set up");
	if ((r = start_signals(a, e)) < 0 || (r = listener_self_test(e)) < 0 ||
	    (r = start_stores(a, e)) < 0 || (r = check_registration(a, e)) < 0 ||
	    (r = start_flags(a, e)) < 0 || (r = start_planes(a, e)) < 0)
		return r;
	r = app_status_start(a, e);
	if (r == 0)
		r = takeover_serve(a, e);
	if (r == 0)
		app_standing_begin(a);
	return r;
}

/* For the service manager: each plane is asked, and must have answered by the next time. */
static bool planes_answer(void *arg)
{
	struct app *a = arg;
	bool all = true;
	for (size_t i = 0; i < a->n_planes; i++) {
		if (plane_answers(a->planes[i]))
			continue;
		if (all)
			log_error("plane_hangs", LOG_INT("plane", i),
				  LOG_STR("effect", "the watchdog is not notified"));
		all = false;
	}
	return all;
}

#define STOP_SECONDS 20 /* the recorder may take five, the task store a few */

/* The reverse of start; takes whatever start got to. */
static void app_stop(struct app *a)
{
	/* a thread that does not end must not keep the process: supervisors wait for it */
	alarm(STOP_SECONDS);
	app_standing_end(a);
	app_status_stop(a);
	for (size_t i = 0; i < a->n_planes; i++)
		plane_halt(a->planes[i]);
	a->ledger = ledger_stop(a->ledger);
	a->env.claims = claims_stop(a->env.claims);
	for (size_t i = 0; i < a->n_planes; i++)
		plane_free(a->planes[i]);
	a->env.traces = traces_stop(a->env.traces);
	a->env.access_log = access_log_stop(a->env.access_log);
	app_backends_free(a);
	pairs_halt(a->pairs); /* what came out is still recorded */
	a->recorder = recorder_stop(a->recorder);
	app_standing_free(a);
	a->pairs = pairs_free(a->pairs);
	app_guard_stop(a);
	features_source_stop(a->features);
	flipt_source_stop(a->flipt);
	a->metrics = metrics_free(a->metrics);
	free(a->outcomes_path);
	flag_snapshot_unref(a->flags);
	retired_free(a->retired);
	takeover_stop(a);
	watchdog_free(a->watchdog);
	loop_timer_free(a->drain);
	loop_watch_free(a->signal_watch);
	if (a->signals >= 0)
		close(a->signals);
	loop_free(a->loop);
	if (a->lock >= 0) /* last: nothing of the folder is in use any more */
		close(a->lock);
	guesses_free(a->env.guesses);
	organizations_free(a->env.organizations);
	config_unref(a->started);
	config_unref(a->config);
}

int app_serve(const char *config_path, bool take_over)
{
	struct app a = {.signals = -1, .lock = -1, .started_us = clock_wall_us()};
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *config = NULL;
	int r = config_load(config_path, app_getenv, &problems, &config);
	if (r < 0) {
		fprintf(stderr, "%s", problems.len ? problems.ptr : "the configuration could not be read\n");
		return 2;
	}
	app_log_problems("config_warning", &problems);
	a.config = config;
	a.started = config_ref(config);
	buf_clear(&problems);
	if (app_backends_make(&a, &problems) < 0) {
		fprintf(stderr, "%s",
			problems.len ? problems.ptr : "the backends' settings could not be read\n");
		app_stop(&a);
		return 2;
	}
	raise_descriptor_limit();
	listen_address_inherit();
	struct err e;
	r = app_start(&a, take_over, &e);
	if (r < 0) {
		takeover_failed(&a, &e);
		log_error("start_failed", LOG_STR("error", e.text));
		app_stop(&a);
		return 1;
	}
	listen_address_warn_of_unused();
	log_info("ready", LOG_STR("version", PROJECT_VERSION), LOG_INT("threads", a.n_planes));
	service_manager_ready();
	if (watchdog_new(a.loop, planes_answer, &a, &a.watchdog) < 0)
		log_error("watchdog_missing", LOG_STR("error", "out of memory"));
	loop_run(a.loop);
	unsigned cut = a.cut;
	app_stop(&a);
	log_info("stopped", LOG_INT("cut", cut));
	return 0;
}
