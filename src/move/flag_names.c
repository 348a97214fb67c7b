#include "move/flag_names.h"

#include <stdio.h>
#include <string.h>

#include "flags/asked.h"

#define KEY_MAX 128 /* longer keys are not compared */
#define NEAR_MAX 5
#define LISTED_MAX 10

/* Levenshtein's distance. */
static size_t names_distance(const char *a, const char *b)
{
	size_t row[KEY_MAX + 1], n = strlen(b);
	if (strlen(a) > KEY_MAX || n > KEY_MAX)
		return KEY_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			best = best < row[j] + 1 ? best : row[j] + 1;
			row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
		}
	}
	return row[n];
}

bool flag_names_near(const char *key, const char *wanted)
{
	char begin[KEY_MAX + 1];
	size_t n = strlen(wanted), far = n / 4 > 2 ? n / 4 : 2;
	snprintf(begin, sizeof(begin), "%.*s", (int)(n < KEY_MAX ? n : KEY_MAX), key);
	return names_distance(key, wanted) <= far || (n > 4 && names_distance(begin, wanted) <= far) ||
	       (n > 2 && strstr(key, wanted));
}

void flag_names_suggest(const struct flag_snapshot *s, const char *wanted, struct buf *out)
{
	size_t listed = 0, n = flag_snapshot_count(s);
	for (size_t i = 0; i < n && listed < NEAR_MAX; i++)
		if (flag_names_near(flag_key(flag_snapshot_at(s, i)), wanted))
			buf_printf(out, "%s%s",
				   listed++ ? ", " : "; similar: ", flag_key(flag_snapshot_at(s, i)));
	for (size_t i = 0; i < n && !listed && i < LISTED_MAX; i++)
		buf_printf(out, "%s%s%s", i ? ", " : "; available: ", flag_key(flag_snapshot_at(s, i)),
			   i + 1 == LISTED_MAX && n > LISTED_MAX ? ", …" : "");
	if (!n)
		buf_puts(out, "; there are no flags at all");
}

/* --- properties ----------------------------------------------------------------------------------------- */

struct unasked {
	const struct operation *op;
	struct buf *out;
};

static bool names_given(const struct operation *op, struct span property)
{
	if (span_is(property, "user_id"))
		return op->identity.n_user > 0;
	if (span_is(property, "organization_id"))
		return op->identity.n_organization > 0;
	for (size_t i = 0; i < op->n_context; i++)
		if (span_eq(op->context[i].key, property))
			return true;
	return span_is(property, "service") || span_is(property, "operation");
}

static bool names_listed(struct span list, struct span name)
{
	while (list.len) {
		const char *end = memmem(list.ptr, list.len, ", ", 2);
		size_t n = end ? (size_t)(end - list.ptr) : list.len;
		if (span_eq((struct span){list.ptr, n}, name))
			return true;
		list = end ? (struct span){end + 2, list.len - n - 2} : SPAN_NONE;
	}
	return false;
}

static void names_add(void *arg, const struct flag_asked *asked)
{
	struct unasked *u = arg;
	if (!asked->property.ptr || names_given(u->op, asked->property) ||
	    names_listed(buf_span(u->out), asked->property))
		return;
	buf_printf(u->out, "%s%.*s", u->out->len ? ", " : "", SPAN_ARG(asked->property));
}

void flag_names_unasked(const struct operation *op, const struct flag *f, struct buf *out)
{
	struct unasked u = {op, out};
	flag_each_asked(f, names_add, &u);
}
