#include "base/postgres.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

struct postgres {
	PGconn *connection;
	char where[256];
};

struct postgres_rows {
	PGresult *result;
	unsigned char **decoded; /* of bytea: row × columns, made when asked for */
	size_t *lengths;
};

static uint64_t postgres_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- URLs ----------------------------------------------------------------------------------------------- */

int postgres_check_url(const char *url, struct err *e)
{
	char *why = NULL;
	PQconninfoOption *options = PQconninfoParse(url, &why);
	PQfreemem(why);
	if (!options)
		return err_set(e, -EINVAL,
			       "libpq does not take the URL: expected "
			       "db+postgresql://user:password@host:port/database, with %%XX for special "
			       "characters");
	PQconninfoFree(options);
	return 0;
}

static const char *option_of(const PQconninfoOption *options, const char *name, const char *otherwise)
{
	for (; options && options->keyword; options++)
		if (strcmp(options->keyword, name) == 0 && options->val && options->val[0])
			return options->val;
	return otherwise;
}

void postgres_where(const char *url, char *out, size_t size)
{
	PQconninfoOption *options = PQconninfoParse(url, NULL);
	snprintf(out, size, "%.150s:%.20s/%.60s",
		 option_of(options, "hostaddr", option_of(options, "host", "localhost")),
		 option_of(options, "port", "5432"), option_of(options, "dbname", ""));
	PQconninfoFree(options);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static bool wait_for(const struct postgres *p, short events, uint64_t until)
{
	struct pollfd fd = {.fd = PQsocket(p->connection), .events = events};
	uint64_t now = postgres_now_ms();
	return now < until && poll(&fd, 1, (int)(until - now)) > 0;
}

/* What libpq says of a connection holds the user's name at times ("role … does not exist"): the first reason
 * that people need, in our words. */
static int refused(const struct postgres *p, struct err *e)
{
	const char *said = PQerrorMessage(p->connection);
	const char *why = "the connection was refused or lost";
	if (PQconnectionNeedsPassword(p->connection) || strstr(said, "password") ||
	    strstr(said, "authentication"))
		why = "the login was refused: user or password";
	else if (strstr(said, "pg_hba.conf") || strstr(said, "role"))
		why = "the login was refused: this user may not connect from here";
	else if (strstr(said, "certificate") || strstr(said, "SSL"))
		why = "TLS cannot be set up (sslmode, sslrootcert)";
	else if (strstr(said, "database"))
		why = "the database is not there, or not this user's";
	else if (strstr(said, "starting up") || strstr(said, "shutting down") || strstr(said, "recovery"))
		why = "it is starting or shutting down";
	else if (strstr(said, "translate host name"))
		why = "its name cannot be resolved";
	return err_set(e, -EIO, "PostgreSQL at %s: %s", p->where, why);
}

static int connect_until(struct postgres *p, uint64_t until, struct err *e)
{
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;
	if (PQstatus(p->connection) == CONNECTION_BAD)
		return refused(p, e);
	while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
		if (!wait_for(p, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
			return err_set(e, -ETIMEDOUT, "PostgreSQL at %s: no answer within the time limit",
				       p->where);
		state = PQconnectPoll(p->connection);
	}
	return state == PGRES_POLLING_OK ? 0 : refused(p, e);
}

static void say_nothing(void *arg, const PGresult *result)
{
	(void)arg, (void)result;
}

int postgres_open(const char *url, unsigned timeout_ms, struct postgres **ret, struct err *e)
{
	static const char *const names[] = {"dbname", "application_name", "keepalives_idle", NULL};
	const char *const values[] = {url, "migration-router", "30", NULL};
	struct postgres *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	postgres_where(url, p->where, sizeof(p->where));
	p->connection = PQconnectStartParams(names, values, 1);
	int r = p->connection ? connect_until(p, postgres_now_ms() + timeout_ms, e)
			      : err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && PQsetnonblocking(p->connection, 1) < 0)
		r = err_set(e, -EIO, "PostgreSQL at %s: cannot be used", p->where);
	if (r < 0) {
		postgres_close(p);
		return r;
	}
	PQsetNoticeReceiver(p->connection, say_nothing, NULL);
	*ret = p;
	return 0;
}

void postgres_close(struct postgres *p)
{
	if (!p)
		return;
	PQfinish(p->connection);
	free(p);
}

int postgres_fd(const struct postgres *p)
{
	return PQsocket(p->connection);
}

/* --- queries -------------------------------------------------------------------------------------------- */

/* {"a","b"}: quotes and backslashes are escaped. */
static int put_array(struct span ids, struct buf *out)
{
	buf_putc(out, '{');
	for (size_t at = 0; at < ids.len;) {
		const char *id = ids.ptr + at;
		size_t n = strnlen(id, ids.len - at);
		buf_puts(out, at ? ",\"" : "\"");
		for (size_t i = 0; i < n; i++) {
			if (id[i] == '"' || id[i] == '\\')
				buf_putc(out, '\\');
			buf_putc(out, id[i]);
		}
		buf_putc(out, '"');
		at += n + 1;
	}
	return buf_putc(out, '}');
}

static int lost(const struct postgres *p, struct err *e)
{
	return err_set(e, -EIO, "PostgreSQL at %s: the connection was lost", p->where);
}

static int send_all(struct postgres *p, uint64_t until, struct err *e)
{
	for (int left; (left = PQflush(p->connection)) != 0;)
		if (left < 0 || !wait_for(p, POLLIN | POLLOUT, until) || !PQconsumeInput(p->connection))
			return lost(p, e);
	return 0;
}

/* The last result of the query; what is after it is taken in, so that the next query may begin. */
static int receive_result(struct postgres *p, uint64_t until, PGresult **ret, struct err *e)
{
	PGresult *last = NULL;
	for (;;) {
		while (PQisBusy(p->connection)) {
			if (!wait_for(p, POLLIN, until) || !PQconsumeInput(p->connection)) {
				PQclear(last);
				return lost(p, e);
			}
		}
		PGresult *one = PQgetResult(p->connection);
		if (!one)
			break;
		PQclear(last);
		last = one;
	}
	*ret = last;
	return last ? 0 : lost(p, e);
}

static int rows_of(const struct postgres *p, PGresult *result, struct postgres_rows **ret, struct err *e)
{
	size_t n = (size_t)PQntuples(result) * (size_t)PQnfields(result) + 1;
	struct postgres_rows *r = calloc(1, sizeof(*r));
	if (PQresultStatus(result) != PGRES_TUPLES_OK) {
		const char *why = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
		const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		int code = state && strcmp(state, "42P01") == 0 ? POSTGRES_NO_TABLE : 1;
		err_set(e, code, "PostgreSQL at %s: %.300s", p->where, why ? why : "the query failed");
		bool broken = PQstatus(p->connection) == CONNECTION_BAD;
		PQclear(result);
		free(r);
		return broken ? -EIO : code;
	}
	if (r) {
		r->result = result;
		r->decoded = calloc(n, sizeof(*r->decoded));
		r->lengths = calloc(n, sizeof(*r->lengths));
	} else {
		PQclear(result);
	}
	if (!r || !r->decoded || !r->lengths) {
		postgres_rows_free(r);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = r;
	return 0;
}

int postgres_query_texts(struct postgres *p, const char *sql, struct span ids, unsigned timeout_ms,
			 struct postgres_rows **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf array = BUF_INIT(16u << 20);
	uint64_t until = postgres_now_ms() + timeout_ms;
	PGresult *result;
	if (put_array(ids, &array) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	const char *const parameter = array.ptr;
	if (!PQsendQueryParams(p->connection, sql, 1, NULL, &parameter, NULL, NULL, 0))
		return lost(p, e);
	int r = send_all(p, until, e);
	if (r == 0)
		r = receive_result(p, until, &result, e);
	return r < 0 ? r : rows_of(p, result, ret, e);
}

size_t postgres_row_count(const struct postgres_rows *r)
{
	return (size_t)PQntuples(r->result);
}

struct span postgres_value(const struct postgres_rows *r, size_t row, size_t column)
{
	static const Oid bytea = 17;
	int y = (int)row, x = (int)column, columns = PQnfields(r->result);
	if (x >= columns || PQgetisnull(r->result, y, x))
		return SPAN_NONE;
	if (PQftype(r->result, x) != bytea)
		return (struct span){PQgetvalue(r->result, y, x), (size_t)PQgetlength(r->result, y, x)};
	size_t at = row * (size_t)columns + column;
	if (!r->decoded[at])
		r->decoded[at] =
			PQunescapeBytea((const unsigned char *)PQgetvalue(r->result, y, x), &r->lengths[at]);
	return r->decoded[at] ? (struct span){(const char *)r->decoded[at], r->lengths[at]} : SPAN_NONE;
}

void postgres_rows_free(struct postgres_rows *r)
{
	if (!r)
		return;
	size_t n = r->result ? (size_t)PQntuples(r->result) * (size_t)PQnfields(r->result) : 0;
	for (size_t i = 0; r->decoded && i < n; i++)
		PQfreemem(r->decoded[i]);
	free(r->decoded);
	free(r->lengths);
	PQclear(r->result);
	free(r);
}
