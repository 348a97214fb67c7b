#include "base/rabbit_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* Since 0.12 the headers have a folder of their own, and warn outside of it. */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

#include "base/buf.h"
#include "base/json.h"

#define FRAME_MAX 131072
#define FRAME_LEAST 16384 /* what our headers need */
#define CA_DEFAULT "/etc/ssl/certs/ca-certificates.crt"
#define LEVELS_MAX 8 /* of headers */
#define PREFETCH 200

enum { CHANNEL_TASKS = 1, CHANNEL_CONTROL, CHANNEL_QUESTIONS, CHANNEL_REPLIES, N_CHANNELS };

/* A message on its way in: its method, then the header, then the body in pieces. */
struct rabbit_incoming {
	bool returned, header_due, body_due;
	size_t left;
	uint64_t tag;
	bool too_large;
	char correlation_id[256], routing_key[256], ticket[64], reason[128];
	struct buf body;
};

struct rabbit_link {
	amqp_connection_state_t state;
	size_t max_body;
	int32_t reply_expires_ms;
	char reply_queue[128];
	uint64_t tags[RABBIT_LANES];
	struct rabbit_incoming in[N_CHANNELS];
	char where[RABBIT_WHERE_MAX];
	char text[256]; /* of the event that was told last */
};

/* --- words ---------------------------------------------------------------------------------------------- */

static struct span span_of_bytes(amqp_bytes_t b)
{
	return (struct span){b.bytes ? b.bytes : "", b.len};
}

static amqp_bytes_t bytes_of(struct span s)
{
	return (amqp_bytes_t){.len = s.len, .bytes = (void *)(uintptr_t)s.ptr};
}

static int link_lost(const struct rabbit_link *l, int status, struct err *e)
{
	return err_set(e, -EIO, "RabbitMQ at %s: %s", l->where, amqp_error_string2(status));
}

static unsigned exception_code(const amqp_rpc_reply_t *r, struct span *text)
{
	*text = SPAN_LIT("closed by the server");
	if (r->reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || !r->reply.decoded)
		return 0;
	if (r->reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
		const amqp_channel_close_t *m = r->reply.decoded;
		*text = span_of_bytes(m->reply_text);
		return m->reply_code;
	}
	if (r->reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
		const amqp_connection_close_t *m = r->reply.decoded;
		*text = span_of_bytes(m->reply_text);
		return m->reply_code;
	}
	return 0;
}

static int reply_error(const struct rabbit_link *l, const amqp_rpc_reply_t *r, struct err *e)
{
	struct span text;
	if (r->reply_type == AMQP_RESPONSE_NORMAL)
		return 0;
	if (r->reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
		return link_lost(l, r->library_error, e);
	exception_code(r, &text);
	return err_set(e, -EIO, "RabbitMQ at %s: %.*s", l->where, SPAN_ARG(text));
}

static int last_error(const struct rabbit_link *l, struct err *e)
{
	amqp_rpc_reply_t r = amqp_get_rpc_reply(l->state);
	return reply_error(l, &r, e);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static struct timeval interval(unsigned ms)
{
	return (struct timeval){.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
}

static int open_tls(struct rabbit_link *l, const struct rabbit_server *s, amqp_socket_t **ret, struct err *e)
{
	const char *ca = s->ca ? s->ca : CA_DEFAULT;
	amqp_socket_t *socket = amqp_ssl_socket_new(l->state);
	if (!socket)
		return err_set(e, -ENOMEM, "RabbitMQ at %s: TLS cannot be set up", l->where);
	amqp_ssl_socket_set_verify_peer(socket, !s->unverified);
	amqp_ssl_socket_set_verify_hostname(socket, !s->unverified);
	if (!s->unverified && amqp_ssl_socket_set_cacert(socket, ca) != AMQP_STATUS_OK)
		return err_set(e, -EIO, "RabbitMQ at %s: the certificates in %s cannot be read", l->where,
			       ca);
	if (s->cert && amqp_ssl_socket_set_key(socket, s->cert, s->key) != AMQP_STATUS_OK)
		return err_set(e, -EIO, "RabbitMQ at %s: the certificate %s and its key cannot be read",
			       l->where, s->cert);
	*ret = socket;
	return 0;
}

static int open_socket(struct rabbit_link *l, const struct rabbit_link_options *o, struct err *e)
{
	const struct rabbit_server *s = o->server;
	struct timeval limit = interval(o->connect_timeout_ms), commands = interval(o->command_timeout_ms);
	amqp_socket_t *socket = NULL;
	int r = s->tls ? open_tls(l, s, &socket, e) : 0;
	if (r < 0)
		return r;
	if (!s->tls && !(socket = amqp_tcp_socket_new(l->state)))
		return err_set(e, -ENOMEM, "out of memory");
	amqp_set_handshake_timeout(l->state, &limit);
	amqp_set_rpc_timeout(l->state, &commands);
	errno = 0;
	int status = amqp_socket_open_noblock(socket, s->host, (int)s->port, &limit);
	if (status == AMQP_STATUS_SOCKET_ERROR && errno)
		return err_set(e, -EIO, "RabbitMQ at %s: %s", l->where, strerror(errno));
	return status == AMQP_STATUS_OK ? 0 : link_lost(l, status, e);
}

/* The server names the user in what it says of a login: our own words. */
static int login_error(const struct rabbit_link *l, const amqp_rpc_reply_t *r, struct err *e)
{
	struct span text;
	unsigned code = exception_code(r, &text);
	if (code == AMQP_ACCESS_REFUSED)
		return err_set(e, -EACCES, "RabbitMQ at %s refused the login: user or password", l->where);
	if (code == AMQP_NOT_ALLOWED)
		return err_set(e, -EACCES,
			       "RabbitMQ at %s: the virtual host is not there, or not this user's", l->where);
	if (r->reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
	    (r->library_error == AMQP_STATUS_CONNECTION_CLOSED ||
	     r->library_error == AMQP_STATUS_SOCKET_ERROR))
		return err_set(e, -EIO,
			       "RabbitMQ at %s closed the connection during the login (user, password or "
			       "virtual host, or TLS expected)",
			       l->where);
	return reply_error(l, r, e);
}

static int login(struct rabbit_link *l, const struct rabbit_link_options *o, struct err *e)
{
	static const char *const names[] = {"connection.blocked", "consumer_cancel_notify", "basic.nack",
					    "publisher_confirms"};
	const struct rabbit_server *s = o->server;
	amqp_table_entry_t abilities[4], properties[2];
	for (size_t i = 0; i < 4; i++) {
		abilities[i].key = amqp_cstring_bytes(names[i]);
		abilities[i].value.kind = AMQP_FIELD_KIND_BOOLEAN;
		abilities[i].value.value.boolean = 1;
	}
	properties[0].key = amqp_cstring_bytes("capabilities");
	properties[0].value.kind = AMQP_FIELD_KIND_TABLE;
	properties[0].value.value.table = (amqp_table_t){.num_entries = 4, .entries = abilities};
	properties[1].key = amqp_cstring_bytes("connection_name");
	properties[1].value.kind = AMQP_FIELD_KIND_UTF8;
	properties[1].value.value.bytes = amqp_cstring_bytes("migration-router");
	const amqp_table_t told = {.num_entries = 2, .entries = properties};
	amqp_rpc_reply_t r = amqp_login_with_properties(l->state, s->vhost, 0, FRAME_MAX, (int)o->heartbeat_s,
							&told, AMQP_SASL_METHOD_PLAIN, s->user, s->password);
	if (r.reply_type != AMQP_RESPONSE_NORMAL)
		return login_error(l, &r, e);
	if (amqp_get_frame_max(l->state) < FRAME_LEAST)
		return err_set(e, -EIO, "RabbitMQ at %s: frame_max is below %d", l->where, FRAME_LEAST);
	return 0;
}

static int open_channel(struct rabbit_link *l, amqp_channel_t channel, struct err *e)
{
	if (!amqp_channel_open(l->state, channel))
		return last_error(l, e);
	if (channel != CHANNEL_TASKS && channel != CHANNEL_CONTROL)
		return 0;
	l->tags[channel - 1] = 0;
	return amqp_confirm_select(l->state, channel) ? 0 : last_error(l, e);
}

/* The server has closed it: that is confirmed, and it is opened anew. */
static int reopen_channel(struct rabbit_link *l, amqp_channel_t channel, struct err *e)
{
	amqp_channel_close_ok_t ok = {.dummy = 0};
	l->in[channel].header_due = l->in[channel].body_due = false;
	int status = amqp_send_method(l->state, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
	return status == AMQP_STATUS_OK ? open_channel(l, channel, e) : link_lost(l, status, e);
}

/* After a question that was denied: > 0 with the server's words in *why, or lost. */
static int denied(struct rabbit_link *l, amqp_channel_t channel, struct err *why, struct err *e)
{
	struct span text;
	amqp_rpc_reply_t r = amqp_get_rpc_reply(l->state);
	unsigned code = exception_code(&r, &text);
	if (r.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || r.reply.id != AMQP_CHANNEL_CLOSE_METHOD)
		return reply_error(l, &r, e);
	err_set(why, 0, "RabbitMQ at %s: %.*s", l->where, SPAN_ARG(text));
	int reopened = reopen_channel(l, channel, e);
	return reopened < 0 ? reopened : (int)code;
}

/* It outlives a connection that is lost, so that what comes meanwhile is there after the next login. */
int rabbit_link_hear(struct rabbit_link *l, struct err *deaf, struct err *e)
{
	amqp_bytes_t name = amqp_cstring_bytes(l->reply_queue);
	amqp_table_entry_t expires = {
		.key = amqp_cstring_bytes("x-expires"),
		.value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = l->reply_expires_ms}};
	amqp_table_t arguments = {.num_entries = 1, .entries = &expires};
	bool well = amqp_queue_declare(l->state, CHANNEL_REPLIES, name, 0, 1, 0, 0, arguments) &&
		    amqp_basic_qos(l->state, CHANNEL_REPLIES, 0, PREFETCH, 0) &&
		    amqp_basic_consume(l->state, CHANNEL_REPLIES, name, amqp_empty_bytes, 0, 0, 0,
				       amqp_empty_table);
	if (well)
		return 0;
	int r = denied(l, CHANNEL_REPLIES, deaf, e);
	return r < 0 ? r : 0;
}

int rabbit_link_open(const struct rabbit_link_options *o, struct rabbit_link **ret, struct err *deaf,
		     struct err *e)
{
	struct rabbit_link *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	rabbit_where(o->server, l->where);
	l->max_body = o->max_body;
	l->reply_expires_ms = (int32_t)o->reply_expires_ms;
	span_copy(span_of(o->reply_queue), l->reply_queue, sizeof(l->reply_queue));
	l->state = amqp_new_connection();
	int r = l->state ? open_socket(l, o, e) : err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = login(l, o, e);
	for (amqp_channel_t channel = 1; r == 0 && channel < N_CHANNELS; channel++)
		r = open_channel(l, channel, e);
	err_set(deaf, 0, "%s", "");
	if (r == 0)
		r = rabbit_link_hear(l, deaf, e);
	if (r < 0) {
		rabbit_link_close(l);
		return r;
	}
	*ret = l;
	return 0;
}

/* Without taking leave, which would wait for an answer: the server sees the end of the connection. */
void rabbit_link_close(struct rabbit_link *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < N_CHANNELS; i++)
		buf_release(&l->in[i].body);
	if (l->state)
		amqp_destroy_connection(l->state);
	free(l);
}

int rabbit_link_fd(const struct rabbit_link *l)
{
	return amqp_get_sockfd(l->state);
}

/* --- what comes ----------------------------------------------------------------------------------------- */

static enum rabbit_lane lane_of(amqp_channel_t channel)
{
	return channel == CHANNEL_TASKS ? RABBIT_TASKS : RABBIT_CONTROL;
}

static void keep_text(struct rabbit_link *l, struct span text, struct rabbit_event *ev)
{
	span_copy(text, l->text, sizeof(l->text));
	ev->text = span_of(l->text);
}

static int on_connection_method(struct rabbit_link *l, const amqp_method_t *m, struct rabbit_event *ev,
				struct err *e)
{
	if (m->id == AMQP_CONNECTION_BLOCKED_METHOD) {
		const amqp_connection_blocked_t *b = m->decoded;
		ev->kind = RABBIT_BLOCKED;
		keep_text(l, span_of_bytes(b->reason), ev);
	} else if (m->id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
		ev->kind = RABBIT_UNBLOCKED;
	} else if (m->id == AMQP_CONNECTION_CLOSE_METHOD) {
		const amqp_connection_close_t *c = m->decoded;
		return err_set(e, -EIO, "RabbitMQ at %s closed the connection: %.*s", l->where,
			       SPAN_ARG(span_of_bytes(c->reply_text)));
	}
	return 0;
}

static int on_closed(struct rabbit_link *l, amqp_channel_t channel, const amqp_channel_close_t *c,
		     struct rabbit_event *ev, struct err *e)
{
	keep_text(l, span_of_bytes(c->reply_text), ev);
	ev->code = c->reply_code;
	ev->kind = channel == CHANNEL_REPLIES ? RABBIT_DEAF : RABBIT_CLOSED;
	ev->lane = lane_of(channel);
	return reopen_channel(l, channel, e);
}

static int on_method(struct rabbit_link *l, amqp_channel_t channel, const amqp_method_t *m,
		     struct rabbit_event *ev, struct err *e)
{
	struct rabbit_incoming *in = &l->in[channel];
	ev->lane = lane_of(channel);
	if (m->id == AMQP_BASIC_ACK_METHOD) {
		const amqp_basic_ack_t *a = m->decoded;
		ev->kind = RABBIT_ACKED;
		ev->tag = a->delivery_tag;
		ev->multiple = a->multiple;
	} else if (m->id == AMQP_BASIC_NACK_METHOD) {
		const amqp_basic_nack_t *a = m->decoded;
		ev->kind = RABBIT_NACKED;
		ev->tag = a->delivery_tag;
		ev->multiple = a->multiple;
	} else if (m->id == AMQP_BASIC_RETURN_METHOD) {
		const amqp_basic_return_t *a = m->decoded;
		in->returned = in->header_due = true;
		span_copy(span_of_bytes(a->reply_text), in->reason, sizeof(in->reason));
		span_copy(span_of_bytes(a->routing_key), in->routing_key, sizeof(in->routing_key));
	} else if (m->id == AMQP_BASIC_DELIVER_METHOD) {
		const amqp_basic_deliver_t *a = m->decoded;
		in->returned = false;
		in->header_due = true;
		in->tag = a->delivery_tag;
	} else if (m->id == AMQP_BASIC_CANCEL_METHOD) {
		ev->kind = RABBIT_DEAF;
		keep_text(l, SPAN_LIT("the queue of replies was deleted"), ev);
	} else if (m->id == AMQP_CHANNEL_CLOSE_METHOD) {
		return on_closed(l, channel, m->decoded, ev, e);
	}
	return 0;
}

static void keep_property(const amqp_basic_properties_t *p, struct rabbit_incoming *in)
{
	in->correlation_id[0] = in->ticket[0] = '\0';
	if (p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG)
		span_copy(span_of_bytes(p->correlation_id), in->correlation_id, sizeof(in->correlation_id));
	for (int i = 0; p->_flags & AMQP_BASIC_HEADERS_FLAG && i < p->headers.num_entries; i++) {
		const amqp_table_entry_t *h = &p->headers.entries[i];
		if (span_is(span_of_bytes(h->key), "ticket") && h->value.kind == AMQP_FIELD_KIND_UTF8)
			span_copy(span_of_bytes(h->value.value.bytes), in->ticket, sizeof(in->ticket));
	}
}

/* The message is whole. */
static int on_whole(struct rabbit_link *l, amqp_channel_t channel, struct rabbit_event *ev, struct err *e)
{
	struct rabbit_incoming *in = &l->in[channel];
	in->header_due = in->body_due = false;
	*ev = (struct rabbit_event){.kind = in->returned ? RABBIT_RETURNED : RABBIT_ARRIVED,
				    .lane = lane_of(channel),
				    .too_large = in->too_large,
				    .text = span_of(in->reason),
				    .correlation_id = span_of(in->correlation_id),
				    .routing_key = span_of(in->routing_key),
				    .ticket = span_of(in->ticket),
				    .body = in->too_large ? SPAN_NONE : buf_span(&in->body)};
	amqp_maybe_release_buffers_on_channel(l->state, channel);
	if (in->returned)
		return 0;
	int status = amqp_basic_ack(l->state, channel, in->tag, 0);
	return status == AMQP_STATUS_OK ? 0 : link_lost(l, status, e);
}

static int on_frame(struct rabbit_link *l, const amqp_frame_t *f, struct rabbit_event *ev, struct err *e)
{
	if (f->channel >= N_CHANNELS)
		return err_set(e, -EPROTO, "RabbitMQ at %s: unexpected channel", l->where);
	struct rabbit_incoming *in = &l->in[f->channel];
	if (f->frame_type == AMQP_FRAME_METHOD)
		return f->channel ? on_method(l, f->channel, &f->payload.method, ev, e)
				  : on_connection_method(l, &f->payload.method, ev, e);
	if (f->frame_type == AMQP_FRAME_HEADER && in->header_due) {
		keep_property(f->payload.properties.decoded, in);
		in->left = (size_t)f->payload.properties.body_size;
		in->too_large = in->left > l->max_body;
		in->header_due = false;
		in->body_due = true;
		/* What one large message needed is not kept for the small ones that follow. */
		buf_release(&in->body);
		in->body = BUF_INIT(l->max_body);
	} else if (f->frame_type == AMQP_FRAME_BODY && in->body_due) {
		size_t n = f->payload.body_fragment.len;
		if (n > in->left)
			return err_set(e, -EPROTO, "RabbitMQ at %s: a body is longer than told", l->where);
		in->left -= n;
		if (!in->too_large && !in->returned &&
		    buf_append(&in->body, f->payload.body_fragment.bytes, n) < 0)
			in->too_large = true;
	} else {
		return 0;
	}
	return in->left == 0 ? on_whole(l, f->channel, ev, e) : 0;
}

int rabbit_link_next(struct rabbit_link *l, struct rabbit_event *ret, struct err *e)
{
	*ret = (struct rabbit_event){.kind = RABBIT_NOTHING};
	for (int r = 0; r == 0 && ret->kind == RABBIT_NOTHING;) {
		struct timeval now = {0, 0};
		amqp_frame_t frame;
		int status = amqp_simple_wait_frame_noblock(l->state, &frame, &now);
		if (status == AMQP_STATUS_TIMEOUT) {
			amqp_maybe_release_buffers(l->state);
			return 0;
		}
		if (status != AMQP_STATUS_OK)
			return link_lost(l, status, e);
		r = on_frame(l, &frame, ret, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- what goes ------------------------------------------------------------------------------------------ */

static int table_of(struct span object, amqp_pool_t *pool, int level, amqp_table_t *ret);

static int array_of(struct span value, amqp_pool_t *pool, int level, amqp_array_t *ret);

/* As py-amqp encodes what json.loads gives; texts stay what they are. */
static int value_of(struct span value, amqp_pool_t *pool, int level, amqp_field_value_t *ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FRAME_MAX);
	char number[40], *end;
	switch (json_type_of(value)) {
	case JSON_STRING:
		if (json_unescape(value, &text) < 0)
			return -EINVAL;
		ret->kind = AMQP_FIELD_KIND_UTF8;
		amqp_pool_alloc_bytes(pool, text.len ? text.len : 1, &ret->value.bytes);
		if (!ret->value.bytes.bytes)
			return -ENOMEM;
		memcpy(ret->value.bytes.bytes, text.len ? text.ptr : "", text.len);
		ret->value.bytes.len = text.len;
		return 0;
	case JSON_NUMBER:
		span_copy(value, number, sizeof(number));
		ret->kind = AMQP_FIELD_KIND_I64;
		errno = 0;
		ret->value.i64 = strtoll(number, &end, 10);
		if (*end || errno) {
			ret->kind = AMQP_FIELD_KIND_F64;
			ret->value.f64 = strtod(number, NULL);
		}
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		ret->kind = AMQP_FIELD_KIND_BOOLEAN;
		ret->value.boolean = json_type_of(value) == JSON_TRUE;
		return 0;
	case JSON_ARRAY:
		ret->kind = AMQP_FIELD_KIND_ARRAY;
		return array_of(value, pool, level + 1, &ret->value.array);
	case JSON_OBJECT:
		ret->kind = AMQP_FIELD_KIND_TABLE;
		return table_of(value, pool, level + 1, &ret->value.table);
	default:
		ret->kind = AMQP_FIELD_KIND_VOID;
		return 0;
	}
}

static size_t count_of(struct span value)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	for (json_iter_init(&it, value); json_iter_next(&it, &key, &item);)
		n++;
	return n;
}

static int array_of(struct span value, amqp_pool_t *pool, int level, amqp_array_t *ret)
{
	struct json_iter it;
	struct span key, item;
	size_t n = count_of(value);
	int r = level > LEVELS_MAX || n > 1000 ? -EINVAL : 0;
	*ret = (amqp_array_t){.entries = amqp_pool_alloc(pool, (n + 1) * sizeof(amqp_field_value_t))};
	if (!ret->entries)
		return -ENOMEM;
	for (json_iter_init(&it, value); r == 0 && json_iter_next(&it, &key, &item);)
		r = value_of(item, pool, level, &ret->entries[ret->num_entries++]);
	return r;
}

static int table_of(struct span object, amqp_pool_t *pool, int level, amqp_table_t *ret)
{
	struct json_iter it;
	struct span key, item;
	size_t n = count_of(object);
	int r = level > LEVELS_MAX || n > 1000 ? -EINVAL : 0;
	*ret = (amqp_table_t){.entries = amqp_pool_alloc(pool, (n + 1) * sizeof(amqp_table_entry_t))};
	if (!ret->entries)
		return -ENOMEM;
	for (json_iter_init(&it, object); r == 0 && json_iter_next(&it, &key, &item);) {
		amqp_field_value_t name;
		amqp_table_entry_t *entry = &ret->entries[ret->num_entries++];
		r = value_of(key, pool, level, &name);
		if (r == 0)
			r = value_of(item, pool, level, &entry->value);
		entry->key = r == 0 ? name.value.bytes : amqp_empty_bytes;
	}
	return r;
}

static int publish(struct rabbit_link *l, enum rabbit_lane lane, const struct rabbit_message *m,
		   amqp_pool_t *pool, struct err *e)
{
	amqp_basic_properties_t p = {
		._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG |
			  AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
		.content_type = amqp_cstring_bytes("application/json"),
		.content_encoding = amqp_cstring_bytes("utf-8"),
		.delivery_mode = m->persistent ? AMQP_DELIVERY_PERSISTENT : AMQP_DELIVERY_NONPERSISTENT,
		.correlation_id = bytes_of(m->correlation_id),
		.reply_to = bytes_of(m->reply_to),
		.priority = (uint8_t)m->priority};
	p._flags |= m->correlation_id.len ? AMQP_BASIC_CORRELATION_ID_FLAG : 0;
	p._flags |= m->reply_to.len ? AMQP_BASIC_REPLY_TO_FLAG : 0;
	p._flags |= m->priority >= 0 ? AMQP_BASIC_PRIORITY_FLAG : 0;
	if (table_of(m->headers, pool, 0, &p.headers) < 0)
		return err_set(e, 1, "the message's headers cannot be written");
	amqp_channel_t channel = lane == RABBIT_TASKS ? CHANNEL_TASKS : CHANNEL_CONTROL;
	int status = amqp_basic_publish(l->state, channel, bytes_of(m->exchange), bytes_of(m->routing_key), 1,
					0, &p, bytes_of(m->body));
	return status == AMQP_STATUS_OK ? 0 : link_lost(l, status, e);
}

int rabbit_link_publish(struct rabbit_link *l, enum rabbit_lane lane, const struct rabbit_message *m,
			uint64_t *tag, struct err *e)
{
	amqp_pool_t pool;
	init_amqp_pool(&pool, 4096);
	int r = publish(l, lane, m, &pool, e);
	empty_amqp_pool(&pool);
	*tag = r == 0 ? ++l->tags[lane] : 0;
	return r;
}

/* --- questions ------------------------------------------------------------------------------------------ */

int rabbit_link_look(struct rabbit_link *l, const char *queue, struct rabbit_queue *ret, struct err *e)
{
	*ret = (struct rabbit_queue){.there = false};
	amqp_queue_declare_ok_t *ok = amqp_queue_declare(
		l->state, CHANNEL_QUESTIONS, amqp_cstring_bytes(queue), 1, 0, 0, 0, amqp_empty_table);
	if (ok) {
		*ret = (struct rabbit_queue){
			.there = true, .messages = ok->message_count, .consumers = ok->consumer_count};
		amqp_maybe_release_buffers_on_channel(l->state, CHANNEL_QUESTIONS);
		return 0;
	}
	int r = denied(l, CHANNEL_QUESTIONS, &ret->why, e);
	if (r == AMQP_NOT_FOUND)
		err_set(&ret->why, 0, "RabbitMQ at %s has no queue \"%s\": no worker has declared it",
			l->where, queue);
	return r < 0 ? r : 0;
}

int rabbit_link_has_exchange(struct rabbit_link *l, const char *exchange, bool *ret, struct err *e)
{
	struct err why;
	*ret = amqp_exchange_declare(l->state, CHANNEL_QUESTIONS, amqp_cstring_bytes(exchange),
				     amqp_cstring_bytes("fanout"), 1, 0, 0, 0, amqp_empty_table) != NULL;
	if (*ret)
		return 0;
	int r = denied(l, CHANNEL_QUESTIONS, &why, e);
	return r < 0 ? r : 0;
}
