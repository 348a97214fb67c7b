/* What is said of each attempt: a line in the access log, and one at level debug. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/log.h"
#include "router/request/request.h"

void request_peer(const struct request *r, char out[REQUEST_ADDRESS])
{
	const struct sockaddr *peer = r->http ? r->http->peer : NULL;
	strcpy(out, "-");
	if (peer && peer->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, out,
			  REQUEST_ADDRESS);
	else if (peer && peer->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, out,
			  REQUEST_ADDRESS);
}

/* One element of X-Forwarded-For: an address, with a port or brackets or without. */
static bool request_log_address_of(struct span text, struct sockaddr_storage *ret, char out[REQUEST_ADDRESS])
{
	char copy[REQUEST_ADDRESS + 16];
	if (text.len == 0 || text.len >= sizeof(copy))
		return false;
	span_copy(text, copy, sizeof(copy));
	char *begin = copy[0] == '[' ? copy + 1 : copy, *colon = strchr(copy, ':');
	if (copy[0] == '[')
		copy[strcspn(copy, "]")] = '\0';
	else if (colon && !strchr(colon + 1, ':'))
		*colon = '\0';
	*ret = (struct sockaddr_storage){.ss_family = AF_INET};
	void *in = &((struct sockaddr_in *)(void *)ret)->sin_addr;
	if (inet_pton(AF_INET, begin, in) != 1) {
		ret->ss_family = AF_INET6;
		in = &((struct sockaddr_in6 *)(void *)ret)->sin6_addr;
		if (inet_pton(AF_INET6, begin, in) != 1)
			return false;
	}
	return inet_ntop(ret->ss_family, in, out, REQUEST_ADDRESS);
}

void request_client(const struct request *r, char out[REQUEST_ADDRESS])
{
	const struct config *c = r->service->config;
	request_peer(r, out);
	if (!r->http || !config_trusts_peer(c, r->http->peer, r->http->peer_length))
		return;
	for (size_t i = r->http->n_fields; i-- > 0;) {
		struct span rest = r->http->fields[i].value;
		if (!span_is_nocase(r->http->fields[i].name, "X-Forwarded-For"))
			continue;
		while (rest.len) {
			const char *comma = memrchr(rest.ptr, ',', rest.len);
			size_t at = comma ? (size_t)(comma - rest.ptr) + 1 : 0;
			struct sockaddr_storage address;
			char text[REQUEST_ADDRESS];
			if (!request_log_address_of(span_trim((struct span){rest.ptr + at, rest.len - at}),
						    &address, text))
				return;
			memcpy(out, text, sizeof(text));
			if (!config_trusts_peer(c, (const struct sockaddr *)&address, sizeof(address)))
				return;
			rest.len = at ? at - 1 : 0;
		}
	}
}

/* Without the query, which may hold keys. */
static struct span path_of(struct span target)
{
	const char *query = target.len ? memchr(target.ptr, '?', target.len) : NULL;
	return query ? (struct span){target.ptr, (size_t)(query - target.ptr)} : target;
}

static bool is_error(enum outcome_result result)
{
	return result != OUTCOME_SUCCESS && result != OUTCOME_REJECTED;
}

void request_trace_write(const struct request *r, const char *event, const struct log_field *more, size_t n)
{
	struct log_field fields[12] = {LOG_SPAN("request_id", r->http ? r->request_id : SPAN_NONE),
				       LOG_INT("at_us", clock_mono_us() - r->head_mono_us)};
	size_t count = 2;
	for (size_t i = 0; i < n && count < sizeof(fields) / sizeof(fields[0]); i++)
		fields[count++] = more[i];
	log_write(LOG_DEBUG, event, fields, count);
}

void request_log(const struct request *r, enum outcome_result result, int status, int64_t latency_us,
		 bool answered)
{
	enum access_log_mode mode = r->service->config->access_log;
	bool wanted = r->plane->env->access_log &&
		      (mode == ACCESS_LOG_ALL || (mode == ACCESS_LOG_ERRORS && is_error(result)));
	if (!wanted && !log_enabled(LOG_DEBUG))
		return;
	char peer[REQUEST_ADDRESS], client[REQUEST_ADDRESS], line[LOG_LINE_MAX];
	request_peer(r, peer);
	request_client(r, client);
	const struct log_field fields[] = {
		LOG_SPAN("service", r->service->service->name),
		LOG_SPAN("operation", r->op ? r->op->name : SPAN_LIT(OUTCOME_UNMAPPED)),
		LOG_STR("client", client),
		LOG_STR("peer", peer),
		LOG_SPAN("method", r->http ? r->http->method : SPAN_NONE),
		LOG_SPAN("path", path_of(r->http ? r->http->target : SPAN_NONE)),
		LOG_STR("side", outcome_side_text(r->side)),
		LOG_STR("role", outcome_role_text(r->role)),
		LOG_STR("reason", outcome_reason_text(r->decision.reason)),
		LOG_SPAN("variant", r->decision.variant),
		LOG_SPAN("backend", r->backend),
		LOG_STR("result", outcome_result_text(result)),
		LOG_INT("status", status),
		LOG_BOOL("answered", answered),
		LOG_INT("latency_us", latency_us),
		LOG_STR("task_id", r->side == OUTCOME_TASK ? r->task_id : ""),
		LOG_SPAN("request_id", r->http ? r->request_id : SPAN_NONE),
		LOG_STR("error", r->error)};
	const size_t n = sizeof(fields) / sizeof(fields[0]);
	if (log_enabled(LOG_DEBUG))
		log_write(LOG_DEBUG, "request", fields, n);
	if (wanted)
		access_log_write(r->plane->env->access_log,
				 (struct span){line, log_line(LOG_INFO, "access", fields, n, line)});
}

bool request_first_time(atomic_uint_fast64_t *seen, size_t n, struct span name)
{
	uint64_t hash = checksum_crc32(CHECKSUM_CRC32_START, name) | UINT64_C(1) << 32;
	for (size_t i = 0; i < n; i++) {
		uint64_t there = 0;
		if (atomic_compare_exchange_strong(&seen[i], &there, hash))
			return true;
		if (there == hash)
			return false;
	}
	return false;
}
