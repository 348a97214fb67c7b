/* What is said of each attempt: a line in the access log, and one at level debug. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/log.h"
#include "router/http/forwarded.h"
#include "router/request/request.h"

static void request_log_address(const struct sockaddr *of, char out[REQUEST_ADDRESS])
{
	if (of->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)of)->sin_addr, out,
			  REQUEST_ADDRESS);
	else if (of->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)of)->sin6_addr, out,
			  REQUEST_ADDRESS);
}

void request_peer(const struct request *r, char out[REQUEST_ADDRESS])
{
	strcpy(out, "-");
	if (r->http && r->http->peer)
		request_log_address(r->http->peer, out);
}

void request_client(const struct request *r, char out[REQUEST_ADDRESS])
{
	struct sockaddr_storage client;
	request_peer(r, out);
	if (!r->http || !forwarded_client(r->service->config, r->http, &client))
		return;
	request_log_address((const struct sockaddr *)&client, out);
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
