/* What is said of each attempt: a line in the access log, and one at level debug. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/log.h"
#include "router/request.h"

static void put_peer(const struct request *r, char out[INET6_ADDRSTRLEN])
{
	const struct sockaddr *peer = r->http ? r->http->peer : NULL;
	strcpy(out, "-");
	if (peer && peer->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, out, INET6_ADDRSTRLEN);
	else if (peer && peer->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, out, INET6_ADDRSTRLEN);
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

void request_log(const struct request *r, enum outcome_result result, int status, int64_t latency_us, bool answered)
{
	enum access_log_mode mode = r->service->config->access_log;
	bool wanted = r->plane->env->access_log && (mode == ACCESS_LOG_ALL || (mode == ACCESS_LOG_ERRORS && is_error(result)));
	if (!wanted && !log_enabled(LOG_DEBUG))
		return;
	char peer[INET6_ADDRSTRLEN], line[LOG_LINE_MAX];
	put_peer(r, peer);
	const struct log_field fields[] = {
		LOG_SPAN("service", r->service->service->name),
		LOG_SPAN("operation", r->op ? r->op->name : SPAN_LIT("(unmapped)")),
		LOG_STR("client", r->came_from[0] ? r->came_from : peer),
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
		LOG_STR("error", r->error),
	};
	const size_t n = sizeof(fields) / sizeof(fields[0]);
	if (log_enabled(LOG_DEBUG))
		log_write(LOG_DEBUG, "request", fields, n);
	if (wanted)
		access_log_write(r->plane->env->access_log, (struct span){line, log_line(LOG_INFO, "access", fields, n, line)});
}
