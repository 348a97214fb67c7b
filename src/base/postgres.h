/*
 * One connection to PostgreSQL, as the thread that owns it sees it. Over libpq, whose calls block: each
 * within the time limit given.
 *
 * Threads:   one.
 * Errors:    sentences name host and port, never user or password.
 */
#ifndef BASE_POSTGRES_H
#define BASE_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

struct postgres;
struct postgres_rows;

/* Whether libpq takes the URL (postgresql://…); its own words can hold parts of it: none are given. */
int postgres_check_url(const char *url, struct err *e);
/* Host and port for people, of a URL that was checked. */
void postgres_where(const char *url, char *out, size_t size);

/* TLS and the rest as the URL says (sslmode, sslrootcert, …). */
int postgres_open(const char *url, unsigned timeout_ms, struct postgres **ret, struct err *e);
void postgres_close(struct postgres *p); /* NULL is allowed */
int postgres_fd(const struct postgres *p);

#define POSTGRES_NO_TABLE 2

/* A query with one parameter, an array of texts: each of `ids` ends with a NUL. Columns come as texts, bytea
 * decoded. > 0: the server refused the query, with its reason (POSTGRES_NO_TABLE: a table is not
 * there); negative: the connection is of no use any more. */
int postgres_query_texts(struct postgres *p, const char *sql, struct span ids, unsigned timeout_ms,
			 struct postgres_rows **ret, struct err *e);
size_t postgres_row_count(const struct postgres_rows *r);
/* SPAN_NONE: NULL, or no such column. Good until postgres_rows_free. */
struct span postgres_value(const struct postgres_rows *r, size_t row, size_t column);
void postgres_rows_free(struct postgres_rows *r);

#endif
