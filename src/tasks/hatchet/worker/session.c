#include "tasks/hatchet/worker/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#define CALL_MS 10000
#define GRACE_MS 1000
#define BEAT_MS 5000 /* one heartbeat */
#define FIRST_BEAT_MS 200
#define RETRY_FIRST_MS 200
#define RETRY_MOST_MS 3000
#define PASSES_MAX 3	/* over what could not be declared, before the rest begins */
#define FAREWELL_MS 300 /* for what is on its way when the engine has been told */
#define PAUSE_TRIES 3
#define STREAM_MAX (64u << 20) /* bytes of one action: a task's input and its parents' results */
#define SILENT_BEATS 2	       /* without an answer: the connection is dead */

enum session_state { SESSION_DECLARES, SESSION_REGISTERS, SESSION_LISTENS, SESSION_LEAVES, SESSION_CLOSED };

struct hatchet_session {
	struct hatchet_session_options o;
	enum session_state state;
	char worker_id[HATCHET_WORKER_ID_MAX];
	struct grpc_call *call;	  /* declares, registers, unsubscribes */
	struct grpc_call *stream; /* while it listens */
	struct grpc_call *beating;
	struct http_call *pausing;
	struct loop_timer *retry, *beat;
	struct loop_work closed;
	unsigned failures; /* in a row */
	/* declaring */
	size_t at, declared;
	unsigned pass;
	bool again; /* something is to be tried in another pass */
	bool *done; /* by workflow */
	/* listening */
	int64_t listens_since_ms;
	unsigned silent; /* heartbeats without an answer, in a row */
	bool ending, paused;
	unsigned pause_tries;
};

static void session_go_on(struct hatchet_session *s);
static void session_leave(struct hatchet_session *s);

/* --- what it stands on ---------------------------------------------------------------------------------- */

static void session_say(struct hatchet_session *s, bool listens, const char *why)
{
	s->o.state(s->o.arg, s, listens, why);
}

static void session_later(struct hatchet_session *s, const char *why)
{
	s->failures++;
	log_debug("session_failed", LOG_INT("state", s->state), LOG_STR("error", why));
	session_say(s, false, why);
	loop_timer_start(s->retry, backoff_ms(RETRY_FIRST_MS, RETRY_MOST_MS, s->failures));
}

static void session_on_retry(void *arg)
{
	session_go_on(arg);
}

/* Of the calls of this kind only registering has something in its answer. */
static void session_on_reply(void *arg, struct span message)
{
	struct hatchet_session *s = arg;
	if (s->state == SESSION_REGISTERS)
		hatchet_wire_read_register(message, s->worker_id);
}

static int session_call(struct hatchet_session *s, const char *path, const struct buf *message,
			void (*done)(void *arg, const struct grpc_status *r))
{
	const struct grpc_request r = {
		.path = path, .message = buf_span(message), .deadline_ms = CALL_MS, .grace_ms = GRACE_MS};
	const struct grpc_events events = {.arg = s, .message = session_on_reply, .done = done};
	return message->error ? message->error : grpc_start(s->o.engine, &r, &events, &s->call, NULL);
}

/* --- declaring ------------------------------------------------------------------------------------------ */

/* About this one message: others may do better. */
static bool session_is_odd(enum grpc_code status)
{
	return status == GRPC_INVALID_ARGUMENT || status == GRPC_INTERNAL || status == GRPC_UNKNOWN ||
	       status == GRPC_FAILED_PRECONDITION || status == GRPC_OUT_OF_RANGE ||
	       status == GRPC_ALREADY_EXISTS;
}

static void session_left_out(struct hatchet_session *s, struct hatchet_workflow *w, const char *why)
{
	w->refused = true;
	s->done[s->at] = true;
	log_error("task_not_declared", LOG_STR("workflow", w->name), LOG_STR("reason", why),
		  LOG_STR("effect", "this worker does not take it, until it is restarted or reloaded"));
}

static void session_on_declared(void *arg, const struct grpc_status *r)
{
	struct hatchet_session *s = arg;
	struct hatchet_workflow *w = &s->o.catalog->workflows[s->at];
	s->call = NULL;
	if (r->code == GRPC_OK) {
		s->done[s->at] = true;
		s->declared++;
		s->failures = 0;
	} else if (!session_is_odd(r->code)) {
		session_later(s, r->message);
		return;
	} else if (r->code == GRPC_INVALID_ARGUMENT || (s->pass >= PASSES_MAX && s->declared)) {
		session_left_out(s, w, r->message);
	} else {
		s->again = true; /* its database may be away */
	}
	s->at++;
	session_go_on(s);
}

/* True: it is over. */
static bool session_declare(struct hatchet_session *s)
{
	const struct hatchet_catalog *c = s->o.catalog;
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1u << 20);
	while (s->at < c->n_workflows && s->done[s->at])
		s->at++;
	if (s->at == c->n_workflows) {
		bool again = s->again;
		s->at = 0;
		s->pass++;
		s->again = false;
		if (again)
			session_later(s, "the engine does not take all tasks");
		return !again;
	}
	const struct hatchet_workflow *w = &c->workflows[s->at];
	const struct hatchet_declared d = {.name = w->name, .tasks = w->tasks, .n_tasks = w->n_tasks};
	hatchet_wire_put_workflow(&message, &d);
	if (session_call(s, HATCHET_PUT_WORKFLOW, &message, session_on_declared) < 0)
		session_later(s, "the call could not be made");
	return false;
}

/* --- registering ---------------------------------------------------------------------------------------- */

static void session_on_registered(void *arg, const struct grpc_status *r)
{
	struct hatchet_session *s = arg;
	s->call = NULL;
	if (r->code != GRPC_OK || !s->worker_id[0]) {
		session_later(s, r->code != GRPC_OK ? r->message : "it gave the worker no id");
		return;
	}
	log_info("worker_registered", LOG_STR("worker_id", s->worker_id), LOG_STR("name", s->o.name));
	s->failures = 0;
	s->state = SESSION_LISTENS;
	session_go_on(s);
}

static void session_register(struct hatchet_session *s)
{
	const struct hatchet_catalog *c = s->o.catalog;
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(4u << 20);
	const char **actions = calloc(c->n_entries ? c->n_entries : 1, sizeof(*actions));
	size_t n = 0;
	for (size_t i = 0; actions && i < c->n_entries; i++)
		if (!c->workflows[c->entries[i].workflow].refused)
			actions[n++] = c->entries[i].action;
	if (actions)
		hatchet_wire_put_register(&message, s->o.name, actions, n, s->o.slots);
	if (!actions || session_call(s, HATCHET_REGISTER, &message, session_on_registered) < 0)
		session_later(s, "the call could not be made");
	free(actions);
}

/* --- listening ------------------------------------------------------------------------------------------ */

static void session_register_anew(struct hatchet_session *s)
{
	log_warn("worker_forgotten", LOG_STR("worker_id", s->worker_id),
		 LOG_STR("effect", "it registers anew"));
	s->stream = grpc_cancel(s->stream);
	loop_timer_stop(s->beat);
	s->worker_id[0] = '\0';
	s->state = SESSION_REGISTERS;
	session_go_on(s);
}

static void session_on_message(void *arg, struct span message)
{
	struct hatchet_session *s = arg;
	struct hatchet_action a;
	s->failures = 0;
	if (hatchet_wire_read_action(message, &a) < 0)
		log_error("action_not_read", LOG_STR("worker_id", s->worker_id));
	else
		s->o.action(s->o.arg, s, &a);
}

static void session_on_stream_end(void *arg, const struct grpc_status *r)
{
	struct hatchet_session *s = arg;
	s->stream = NULL;
	if (s->state != SESSION_LISTENS)
		return;
	if (r->code == GRPC_NOT_FOUND && !s->ending)
		session_register_anew(s);
	else
		session_later(s, r->code == GRPC_OK ? "the engine has ended the stream" : r->message);
}

static void session_listen(struct hatchet_session *s)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1024);
	const struct grpc_events events = {
		.arg = s, .message = session_on_message, .done = session_on_stream_end};
	int r = hatchet_wire_put_listen(&message, s->worker_id);
	const struct grpc_request request = {
		.path = HATCHET_LISTEN, .message = buf_span(&message), .max_message = STREAM_MAX};
	if (r == 0)
		r = grpc_start(s->o.engine, &request, &events, &s->stream, NULL);
	if (r < 0) {
		s->stream = NULL;
		session_later(s, "the call could not be made");
		return;
	}
	s->listens_since_ms = clock_mono_ms();
	loop_timer_start(s->beat, FIRST_BEAT_MS);
}

/* It is open to our side only. */
static void session_listen_again(struct hatchet_session *s, const char *why)
{
	if (s->state != SESSION_LISTENS || !s->stream)
		return;
	s->stream = grpc_cancel(s->stream);
	session_later(s, why);
}

/* --- heartbeats ----------------------------------------------------------------------------------------- */

static void session_on_beaten(void *arg, const struct grpc_status *r)
{
	struct hatchet_session *s = arg;
	s->beating = NULL;
	s->silent = r->code == GRPC_UNAVAILABLE || r->code == GRPC_DEADLINE_EXCEEDED ? s->silent + 1 : 0;
	if (r->code == GRPC_OK && s->stream) {
		s->failures = 0;
		session_say(s, true, "");
	} else if (r->code == GRPC_NOT_FOUND && s->state == SESSION_LISTENS) {
		session_register_anew(s);
	} else if (r->code == GRPC_FAILED_PRECONDITION &&
		   clock_mono_ms() - s->listens_since_ms > HATCHET_HEARTBEAT_MS / 2) {
		session_listen_again(s, r->message);
	} else if (s->silent >= SILENT_BEATS) {
		session_listen_again(s, r->message);
	}
}

static void session_on_nothing(void *arg, struct span message)
{
	(void)arg, (void)message;
}

static void session_on_beat(void *arg)
{
	struct hatchet_session *s = arg;
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1024);
	const struct grpc_events events = {
		.arg = s, .message = session_on_nothing, .done = session_on_beaten};
	loop_timer_start(s->beat, HATCHET_HEARTBEAT_MS);
	if (s->beating || !s->worker_id[0])
		return;
	hatchet_wire_put_heartbeat(&message, s->worker_id, clock_wall_us());
	const struct grpc_request request = {.path = HATCHET_HEARTBEAT,
					     .message = buf_span(&message),
					     .deadline_ms = BEAT_MS,
					     .may_resend = true};
	if (message.error || grpc_start(s->o.engine, &request, &events, &s->beating, NULL) < 0)
		s->beating = NULL;
}

/* --- leaving -------------------------------------------------------------------------------------------- */

static void session_on_closed(struct loop_work *work)
{
	struct hatchet_session *s =
		(struct hatchet_session *)((char *)work - offsetof(struct hatchet_session, closed));
	s->o.closed(s->o.arg, s);
}

static void session_close(struct hatchet_session *s)
{
	s->state = SESSION_CLOSED;
	s->call = grpc_cancel(s->call);
	s->stream = grpc_cancel(s->stream);
	s->beating = grpc_cancel(s->beating);
	s->pausing = http_cancel(s->pausing);
	loop_timer_stop(s->retry);
	loop_timer_stop(s->beat);
	loop_defer(s->o.loop, &s->closed);
}

static size_t session_held(const struct hatchet_session *s)
{
	return s->worker_id[0] ? s->o.held(s->o.arg, s->worker_id) : 0;
}

static void session_on_unsubscribed(void *arg, const struct grpc_status *r)
{
	struct hatchet_session *s = arg;
	(void)r;
	s->call = NULL;
	loop_timer_start(s->retry, FAREWELL_MS);
}

/* What the engine would still send is not sent, and goes to another worker. */
static void session_leave(struct hatchet_session *s)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1024);
	if (s->state != SESSION_LISTENS || !s->stream) {
		session_close(s);
		return;
	}
	s->state = SESSION_LEAVES;
	hatchet_wire_put_listen(&message, s->worker_id); /* the same fields */
	if (session_call(s, HATCHET_UNSUBSCRIBE, &message, session_on_unsubscribed) < 0)
		loop_timer_start(s->retry, FAREWELL_MS);
}

void hatchet_session_look(struct hatchet_session *s)
{
	if (!s->ending || session_held(s) > 0)
		return;
	if (s->state == SESSION_LEAVES && !s->call && !loop_timer_active(s->retry))
		session_close(s);
	else if (s->state != SESSION_LEAVES && s->state != SESSION_CLOSED)
		session_leave(s);
}

/* --- pausing -------------------------------------------------------------------------------------------- */

static void session_pause(struct hatchet_session *s);

static void session_on_paused(void *arg, const struct http_reply *r)
{
	struct hatchet_session *s = arg;
	s->pausing = NULL;
	s->paused = r->failure == HTTP_OK && r->status == 200;
	if (s->paused)
		return;
	if (++s->pause_tries < PAUSE_TRIES)
		session_pause(s);
	else
		log_warn("worker_not_paused", LOG_STR("worker_id", s->worker_id),
			 LOG_INT("status", r->status), LOG_STR("error", r->detail ? r->detail : ""),
			 LOG_STR("effect", "the engine goes on giving it tasks while it drains"));
}

static void session_pause(struct hatchet_session *s)
{
	const struct hatchet_settings *settings = s->o.settings;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(8192);
	const struct http_field fields[] = {{SPAN_LIT("Authorization"), span_of(settings->authorization)},
					    {SPAN_LIT("Accept"), SPAN_LIT("application/json")},
					    {SPAN_LIT("Content-Type"), SPAN_LIT("application/json")}};
	const struct http_events events = {.arg = s, .done = session_on_paused};
	buf_printf(&url, "%s/api/v1/workers/", settings->url);
	buf_put_segment(&url, span_of(s->worker_id));
	const struct http_call_request request = {.method = "PATCH",
						  .url = buf_span(&url).ptr,
						  .fields = fields,
						  .n_fields = 3,
						  .body = SPAN_LIT("{\"isPaused\":true}"),
						  .timeout_ms = CALL_MS,
						  .max_body = 1u << 20,
						  .may_resend = true};
	if (url.error || http_start(s->o.rest, &request, &events, &s->pausing, NULL) < 0)
		s->pausing = NULL;
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static void session_go_on(struct hatchet_session *s)
{
	if (s->state == SESSION_DECLARES && session_declare(s))
		s->state = SESSION_REGISTERS;
	if (s->state == SESSION_REGISTERS && !s->call)
		session_register(s);
	else if (s->state == SESSION_LISTENS && !s->stream)
		session_listen(s);
	else if (s->state == SESSION_LEAVES)
		hatchet_session_look(s);
}

void hatchet_session_end(struct hatchet_session *s)
{
	if (s->ending)
		return;
	s->ending = true;
	if (session_held(s) > 0)
		session_pause(s);
	hatchet_session_look(s);
}

struct hatchet_catalog *hatchet_session_catalog(const struct hatchet_session *s)
{
	return s->o.catalog;
}

const char *hatchet_session_worker_id(const struct hatchet_session *s)
{
	return s->worker_id;
}

int hatchet_session_new(const struct hatchet_session_options *o, struct hatchet_session **ret, struct err *e)
{
	struct hatchet_session *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->o = *o;
	hatchet_catalog_ref(s->o.catalog);
	s->closed.fn = session_on_closed;
	s->done = calloc(o->catalog->n_workflows ? o->catalog->n_workflows : 1, sizeof(*s->done));
	int r = s->done ? loop_timer_new(o->loop, session_on_retry, s, &s->retry) : -ENOMEM;
	if (r == 0)
		r = loop_timer_new(o->loop, session_on_beat, s, &s->beat);
	if (r < 0) {
		hatchet_session_free(s);
		return err_set(e, r, "out of memory");
	}
	loop_timer_start(s->retry, 0);
	*ret = s;
	return 0;
}

struct hatchet_session *hatchet_session_free(struct hatchet_session *s)
{
	if (!s)
		return NULL;
	grpc_cancel(s->call);
	grpc_cancel(s->stream);
	grpc_cancel(s->beating);
	http_cancel(s->pausing);
	loop_timer_free(s->retry);
	loop_timer_free(s->beat);
	loop_defer_cancel(s->o.loop, &s->closed);
	hatchet_catalog_free(s->o.catalog);
	free(s->done);
	free(s);
	return NULL;
}
