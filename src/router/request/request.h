/*
 * Request: the life of one caller's request, from its head to its outcome.
 *
 * Why:       one state machine decides once, runs at most one authoritative execution (rule 3), answers once,
 *            and leaves one outcome per attempt. The two sides are legacy_side.c and task_side.c.
 * Threads:   everything on the plane's loop.
 *
 * State      what it waits for                        leaves by
 * HEAD       nothing yet                              request_head: answer, INSPECT, LEGACY or task
 * INSPECT    the body, into memory (bounded)          body end or bound → LEGACY, PIN, SUBMIT, or ANSWERED:
 *                                                     413, 503
 * ASK        the ledger's word on the call's key      → the step that asked continues; what cannot be
 *            determined is known to be so within its time limit (ledger.h)
 * CLAIM      who has the idempotency key (ledger), or → PIN, SUBMIT, LEGACY, INSPECT (the other side has
 *            what came of it (its backend)            it), or ANSWERED: again, 409, 422, 429, 503
 * HELD       the word of the backend's breaker        → PIN, SUBMIT, or LEGACY (nothing was submitted)
 * PIN        the ledger: the entry is durable         → SUBMIT, or LEGACY when it cannot be written
 * SUBMIT     the backend's word on the submission     accepted → WAIT; refused → LEGACY (fallback); unknown →
 *                                                     ANSWERED
 * WAIT       the task's result, or the time limit     → ANSWERED, or LEGACY when idempotent and failed
 * LEGACY     the legacy service's answer              → ANSWERED, or COLLECT when the answer is mapped
 * COLLECT    the legacy answer's whole body (bounded) → ANSWERED
 * ANSWERED   the listener to finish the exchange      finished
 * GONE       operations that cannot be taken back     the last reference is dropped
 *
 * Ownership: references: one of the exchange, one per operation in flight that will call back (submission,
 *            ledger).
 */
#ifndef ROUTER_REQUEST_REQUEST_H
#define ROUTER_REQUEST_REQUEST_H

#include <sys/queue.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/log.h"
#include "ledger/claims.h"
#include "operation/auth.h"
#include "operation/identity.h"
#include "operation/template.h"
#include "router/decide.h"
#include "router/plane_internal.h"
#include "router/request/spans.h"
#include "router/shadow/pairing.h"

enum request_state {
	REQUEST_HEAD,
	REQUEST_INSPECT,
	REQUEST_ASK,
	REQUEST_HELD,
	REQUEST_CLAIM,
	REQUEST_PIN,
	REQUEST_SUBMIT,
	REQUEST_WAIT,
	REQUEST_LEGACY,
	REQUEST_COLLECT,
	REQUEST_ANSWERED,
	REQUEST_GONE,
};

/* What its backend's breaker and limit say (hold.h). */
enum hold_word {
	HOLD_GO,
	HOLD_SHUT, /* the breaker is open */
	HOLD_FULL, /* as many as may be are in flight */
};

/* What the endpoint that checks credentials says of them (auth_ask.h). */
enum auth_word {
	AUTH_WORD_UNKNOWN, /* not asked, or not answered yet */
	AUTH_WORD_YES,
	AUTH_WORD_NO,	  /* 401 or 403: auth_denied */
	AUTH_WORD_FAILED, /* it could not be asked */
};
#define AUTH_CHALLENGE_MAX 1024
struct auth_denied {
	int status;
	/* WWW-Authenticate, each ended by a NUL; an empty one ends them */
	char challenge[AUTH_CHALLENGE_MAX];
};

/* Of a request that brings an Idempotency-Key to an operation that looks at it (request_key.c). */
struct request_key {
	struct idempotency_key_text text;
	struct claim claim; /* what is asked for; once told, what is there */
	bool mine;	    /* the claim is this request's */
	bool again;	    /* it was another attempt's before, of which it is not known what came of it */
	bool on_task;	    /* it is the task side's, whatever the flags say */
	bool on_legacy;	    /* it is legacy's, and the ledger knows it as far as it shall */
	bool keeps;	    /* the next answer is the end of its task */
	void (*serve_by_task)(struct request *r); /* request.c */
};

struct request {
	struct plane *plane;
	struct service_runtime *service;   /* reference; its configuration lives as long */
	struct exchange *x;		   /* NULL once finished */
	const struct http_request *http;   /* NULL once finished */
	const struct flag_snapshot *flags; /* reference, or NULL */
	struct shadow *shadow;		   /* that is not submitted yet, or NULL */
	struct pairing *pairing;	   /* reference: legacy's answer is compared; or NULL */
	LIST_ENTRY(request) in_plane;	   /* in the plane's list of living (or of free) ones */
	unsigned refs;
	enum request_state state;

	const struct operation *op; /* NULL: unmapped */
	struct route_match match;
	struct identity identity;
	struct identity_context *context; /* where the operation takes some from the request; else NULL */
	struct decision decision;
	struct request_spans spans;
	struct span request_id; /* X-Request-ID as received or made; until finished */
	char made_id[CRYPTO_UUID];
	char uuid[CRYPTO_UUID]; /* made when first asked for */

	/* What the ledger was asked, and said (request_ask.c). */
	struct asked *asked;
	bool asking;			 /* a question is in progress */
	void (*step)(struct request *r); /* that continues then */
	enum outcome_role legacy_role;	 /* of the attempt that waits for it */
	int64_t pin_version;		 /* of the entry of its key, once found or put */
	char turn[CRYPTO_ID_HEX];	 /* of a start that has asked for its key's (ledger.h), else "" */

	/* The body as far as it was looked into. */
	struct buf body;
	struct inspect_claim claim; /* of the planes' common budget for bodies */
	bool reading, body_complete, body_paused, body_too_large;
	const struct legacy_answer *early;	 /* of the call: its rest is waited for, see legacy_side.c */
	struct organization_place *organization; /* its place in flight, where those are limited */
	/* the peer's count of bodies in progress, while this is one */
	atomic_uint *upload;
	enum { BODY_FOR_IDENTITY, BODY_FOR_TASK, BODY_FOR_LEGACY } body_for; /* why it is looked into */

	/* The current attempt, for its outcome. */
	int64_t began_us, began_mono_us;
	int64_t head_mono_us; /* of the request: when its head was complete */
	enum outcome_side side;
	enum outcome_role role;
	bool attempting;
	enum outcome_result result; /* once known */
	int status;		    /* of the answer */
	struct span backend;
	/* what went wrong, for operators (request_explain); "" */
	char error[OUTCOME_ERROR_MAX];

	/* legacy side */
	struct legacy_call *call;
	size_t body_sent;	       /* of `body`, or of `input` when mapped */
	bool mapped;		       /* legacy gets the body that its template makes of ours */
	bool call_ended, call_written; /* request completely handed over; anything handed over */
	bool answer_ended;
	uint64_t body_seen;	  /* bytes of the body taken from the client so far, for max_body */
	struct loop_timer *timer; /* 100-continue on the legacy side; the time limit on the task side */
	struct buf answer;	  /* COLLECT: the body so far */

	/* task side */
	struct task_wait *wait;
	struct task_client *client;
	struct breaker *breaker;  /* of the backend, once it was asked (hold.h) */
	struct breaker_pass pass; /* its word on this submission */
	struct hold_line *line;	  /* in which it waits for that, with those */
	TAILQ_ENTRY(request) held;
	void (*on_word)(struct request *r, enum hold_word word);
	struct plane_backend *place; /* in flight there, as one of its limit */
	uint8_t tried;		     /* backends, by their bits in env->backends */
	char task_id[TASK_ID_MAX];
	char polled_name[TASK_NAME_MAX]; /* of the task whose state is asked for; "": the backend has it */
	struct buf input;	/* rendered args and kwargs, until submitted; or the body mapped for legacy */
	bool pinned_now;	/* this request put the ledger entry */
	struct buf pin_key;	/* of that entry: it may have to go when the caller has left */
	struct buf kept_result; /* of the task, while the ledger forgets the entry that it ends */
	bool async;		/* Prefer: respond-async */
	size_t args_length;	/* of input; kwargs follow */
	/* Is told the answer once it is given; NULL: nobody. */
	void (*on_answer)(struct request *r, const struct http_field *fields, size_t n, struct span body);
	char owner[CRYPTO_SHA256_HEX];
	enum auth_word auth_word;
	struct auth_denied *auth_denied;
	enum idempotency_key key_word;
	struct request_key *key; /* where that is IDEMPOTENCY_KEY_FOUND */
};

extern const struct listener_handler request_handler; /* arg: struct plane_listener * */

/* --- for the two sides ---------------------------------------------------------------------------------- */
/* request_life.c. NULL: memory is out. */
struct request *request_new(struct plane_listener *pl, struct exchange *x, const struct http_request *h);
struct request *request_ref(struct request *r);
struct request *request_unref(struct request *r);
/* At the plane's end: frees the ones whose callbacks will not come any more, and the ones kept for re-use. */
void request_free_all(struct plane *p);

/* Begins an attempt; its outcome is recorded by request_record (early) or when the exchange is finished. */
void request_begin(struct request *r, enum outcome_side side, enum outcome_role role, struct span backend);
/* Records the current attempt and ends it. */
void request_record(struct request *r, enum outcome_result result, int status, bool answered);
/* What went wrong with the current attempt, for its outcome and logs; the first one that is told stays.
 * `kind` may be NULL, as the words that stand before it. */
void request_explain(struct request *r, const char *kind, struct span why);

/* Fills in what an outcome says of the request and its decision. */
void request_describe(const struct request *r, struct outcome *o);

/* The fields that legacy gets of this request; they borrow from it, `peer` (request_peer) and `scratch`.
 * `whole`: its body is here. 0 or as forward_request. */
int request_forward_fields(struct request *r, const char *peer, bool whole, struct buf *scratch,
			   struct http_field *fields, size_t size, size_t *ret_n);

/* request_answer.c */
/* What a task's end is worth when it is answered with this status (0: the task's own). */
enum outcome_result request_result_of_task(enum task_status task, int status);
/* What legacy's answer with this status is worth. */
enum outcome_result request_result_of_status(int status);
/* Router's own error: the operation's template, else problem+json. The current attempt gets `result`. Title
 * and detail are for callers: no addresses, paths, or what others said. */
void request_fail(struct request *r, enum outcome_result result, int status, const char *title,
		  const char *detail);
/* The same with what a task said of its failure. */
void request_fail_span(struct request *r, enum outcome_result result, int status, const char *title,
		       struct span detail);
/* Same with more fields (WWW-Authenticate, Retry-After). */
void request_fail_with(struct request *r, enum outcome_result result, int status, const char *title,
		       const char *detail, const struct http_field *extra, size_t n_extra);
/* request_fail with a Retry-After. */
void request_refuse_for_now(struct request *r, enum outcome_result result, int status, const char *title,
			    const char *detail);
/* Refuses a call that may not go to legacy, because it is the task side's or because that cannot be known
 * (rule 4). */
void request_refuse_pinned(struct request *r, enum outcome_result result, int status, const char *title,
			   const char *detail);
/* In place of an answer of which the listener said EXCHANGE_E_HEAD_TOO_LARGE: 502, and recorded as that. */
void request_head_too_large(struct request *r);
/* A whole answer. */
void request_answer(struct request *r, enum outcome_result result, int status,
		    const struct http_field *fields, size_t n, struct span body);
/* A whole answer by a response template, with more fields after its own. */
void request_answer_rendered(struct request *r, enum outcome_result result,
			     const struct rendered_response *rendered, const struct http_field *extra,
			     size_t n_extra, struct span body);
/* Everything that a template may ask of this request; borrows from r. */
void request_template_source(struct request *r, struct template_source *ret);
#define PIN_KEY_ROOM 1024 /* more than LEDGER_KEY_MAX: a key that does not fit has no entry */
/* The ledger's key of this request, by its operation's pin_key. */
enum pin_key {
	PIN_KEY_NONE, /* it has none, or one that no entry can have */
	PIN_KEY_FOUND,
	PIN_KEY_MALFORMED, /* the body is not JSON */
	/* another reader may find another one: given twice, cut at a NUL, … (pin_key.c) */
	PIN_KEY_AMBIGUOUS,
	PIN_KEY_UNREADABLE, /* it could not be looked for: the body is not here, or memory is out */
};
enum pin_key request_pin_key(const struct request *r, struct buf *key); /* pin_key.c */
void request_drop_body(struct request *r); /* frees the held body and gives its budget back */

/* request_ask.c: the ledger may have to be waited for. Steps ask, and are run again once it has answered:
 * what they do before request_waits() must bear that. */
/* What it says of the key, from memory where this request has asked already. While that is in progress:
 * unknown, which means nothing yet. */
enum ledger_answer request_ask(struct request *r, struct span group, struct span key,
			       struct ledger_entry *ret);
/* Whether any key of the group may have an entry. */
bool request_may_have(struct request *r, struct span group);
/* true: a question is in progress, and `step` is called with its answer. */
bool request_waits(struct request *r, void (*step)(struct request *r));
void request_forget_answers(struct request *r); /* to ask anew */

/* pin_key.c: the turn of a start at its key (ledger/ledger.h) */
/* Its token, made when first asked for. */
const char *request_turn(struct request *r);
/* Its start is over: others may start the key. */
void request_leave_turn(struct request *r);

/* request_pin.c */
/* 409: another start of its key is under way, on another side. */
void request_refuse_turn(struct request *r);
/* Whether it is a follow-up call, which is pinned one way or the other; one that starts or is none is not. */
bool request_follows(const struct operation *op);
/* Of one that no operation matches: whether a server that tidies paths up would read a follow-up call that
 * may have an entry. */
bool request_may_follow(struct request *r);
bool request_has_pin(const struct operation *op);
bool request_pin_in_body(const struct operation *op);
enum pin_key request_pin_key_of(const struct request *r);
/* What the ledger says of a follow-up call; `entry` where that is WISH_TASK. */
enum decide_wish request_pin_of(struct request *r, struct ledger_entry *entry);
/* Legacy serves: a key that this operation starts belongs to legacy from here on, whatever the ledger
 * says. */
void request_start_legacy(struct request *r, enum outcome_role role);
/* The sentences of what cannot be distinguished from each other, or at all. */
#define SIDE_IN_BODY "The body is not valid JSON, and only it tells which side this call belongs to."
#define SIDE_UNKNOWN "Which side this call belongs to cannot be determined right now; nothing was executed."

/* 401 or 400 by what its credentials lack; false when they are accepted. */
bool task_side_refuse_stranger(struct request *r, struct auth_fingerprint *ret);

/* request_key.c: Idempotency-Key (design) */
/* Looks for the key, where the operation does; -ENOMEM. */
int request_key_find(struct request *r, void (*serve_by_task)(struct request *r));
/* Legacy is about to serve: calls `go_on` once the ledger knows it, or has the task side serve, or
 * refuses. */
void request_key_claim_legacy(struct request *r, void (*go_on)(struct request *r));
/* The task side is about to submit to r->backend: calls `go_on` when this request is the one that shall.
 * Otherwise it is answered, by `answer` where its task has ended, or goes to legacy. Ends r->pass, but before
 * go_on. */
struct request_key_task {
	void (*go_on)(struct request *r);
	void (*to_legacy)(struct request *r);
	void (*answer)(struct request *r, const struct task_result *t); /* as that of its own task */
};
void request_key_claim_task(struct request *r, const struct request_key_task *fns);
/* What became of a submission; also when the caller has left. */
void request_key_submitted(struct request *r, enum task_submit_status status);
/* Nothing was submitted, and legacy does not serve either: another attempt may. */
void request_key_release(struct request *r);

/* request_log.c */
#define REQUEST_ADDRESS 46					       /* INET6_ADDRSTRLEN */
void request_peer(const struct request *r, char out[REQUEST_ADDRESS]); /* "-" when there is none */
/* The nearest address that no trusted proxy has, as far as those say; "-" when there is none. */
void request_client(const struct request *r, char out[REQUEST_ADDRESS]);
void request_log(const struct request *r, enum outcome_result result, int status, int64_t latency_us,
		 bool answered);
/* Whether this name was not among those seen. Beyond their limit all count as seen: flags come from
 * outside. */
bool request_first_time(atomic_uint_fast64_t *seen, size_t n, struct span name);
/* One step of a request's story, at level debug: `event` with the request's id and the microseconds since its
 * head. The texts are the log's, never the caller's. */
void request_trace_write(const struct request *r, const char *event, const struct log_field *more, size_t n);
#define request_trace(r, event, ...) \
	do { \
		if (log_enabled(LOG_DEBUG)) { \
			const struct log_field more_[] = {__VA_ARGS__}; \
			request_trace_write(r, event, more_, sizeof(more_) / sizeof(more_[0])); \
		} \
	} while (0)

/* legacy_side.c */
void legacy_side_start(struct request *r, enum outcome_role role);
size_t legacy_side_body(struct request *r, const char *bytes, size_t n);
void legacy_side_body_end(struct request *r);
void legacy_side_cancel(struct request *r);

/* task_side.c */
/* Whether the decision needs the body that has not been read. */
bool task_side_needs_body(const struct request *r);
void task_side_start(struct request *r);
void task_side_gone(struct request *r); /* the client went away */

#define TASK_UNREADABLE_SENTENCE "The task has ended, but its result cannot be read."
/* task_poll.c: /_migration/tasks/{id} */
void task_poll_start(struct request *r);

#endif
