#include "tasks/celery/celery_pickle.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define LONG_MAX_BYTES 1800 /* 4,300 digits, Python's own limit for texts */

enum pickle_kind {
	PICKLE_NONE,
	PICKLE_TRUE,
	PICKLE_FALSE,
	PICKLE_INT,
	PICKLE_LONG, /* text: little-endian, two's complement */
	PICKLE_FLOAT,
	PICKLE_TEXT,
	PICKLE_LIST, /* and tuples */
	PICKLE_DICT, /* items: key, value, … */
	PICKLE_MARK
};

struct pickle_node {
	enum pickle_kind kind;
	union {
		int64_t number;
		double real;
		struct span text;
		struct {
			struct pickle_node **items;
			size_t n, room;
		} list;
	} u;
};

struct nodes {
	struct pickle_node **items;
	size_t n, room;
};

struct unpickler {
	const unsigned char *at, *end;
	struct nodes stack, memo, all;
};

/* --- nodes ---------------------------------------------------------------------------------------------- */

static int push(struct pickle_node ***items, size_t *n, size_t *room, struct pickle_node *node)
{
	if (*n == *room) {
		size_t more = *room ? *room * 2 : 16;
		struct pickle_node **grown = more <= 4 * CELERY_PICKLE_NODES
						     ? realloc(*items, more * sizeof(struct pickle_node *))
						     : NULL;
		if (!grown)
			return -ENOMEM;
		*items = grown;
		*room = more;
	}
	(*items)[(*n)++] = node;
	return 0;
}

static int push_to(struct nodes *to, struct pickle_node *node)
{
	return push(&to->items, &to->n, &to->room, node);
}

/* Made, and put on the stack. */
static int make(struct unpickler *u, struct pickle_node node)
{
	struct pickle_node *made = u->all.n < CELERY_PICKLE_NODES ? malloc(sizeof(*made)) : NULL;
	if (!made)
		return -ENOMEM;
	*made = node;
	if (push_to(&u->all, made) < 0) {
		free(made);
		return -ENOMEM;
	}
	return push_to(&u->stack, made);
}

static struct pickle_node *top(const struct unpickler *u)
{
	return u->stack.n ? u->stack.items[u->stack.n - 1] : NULL;
}

/* Where what follows the last mark begins on the stack; 0: there is none. */
static size_t after_mark(const struct unpickler *u)
{
	size_t i = u->stack.n;
	while (i && u->stack.items[i - 1]->kind != PICKLE_MARK)
		i--;
	return i;
}

/* What is on the stack from `from` on, into the container before it. */
static int put_into(struct unpickler *u, size_t from, size_t into, enum pickle_kind kind)
{
	struct pickle_node *to = into ? u->stack.items[into - 1] : NULL;
	size_t n = u->stack.n - from;
	if (!to || to->kind != kind || from > u->stack.n || (kind == PICKLE_DICT && n % 2))
		return -EINVAL;
	int r = 0;
	for (size_t i = from; r == 0 && i < u->stack.n; i++) {
		struct pickle_node *item = u->stack.items[i];
		r = item->kind == PICKLE_MARK
			    ? -EINVAL
			    : push(&to->u.list.items, &to->u.list.n, &to->u.list.room, item);
	}
	u->stack.n = into;
	return r;
}

/* A tuple of what is on the stack from `from` on, in its place (and that of the mark before it). */
static int make_tuple(struct unpickler *u, size_t from, size_t mark)
{
	struct pickle_node tuple = {.kind = PICKLE_LIST};
	int r = from > u->stack.n ? -EINVAL : 0;
	for (size_t i = from; r == 0 && i < u->stack.n; i++)
		r = u->stack.items[i]->kind == PICKLE_MARK ? -EINVAL
							   : push(&tuple.u.list.items, &tuple.u.list.n,
								  &tuple.u.list.room, u->stack.items[i]);
	if (r == 0) {
		u->stack.n = from - mark;
		r = make(u, tuple);
		if (r == 0)
			return 0;
	}
	free(tuple.u.list.items);
	return r;
}

/* --- instructions --------------------------------------------------------------------------------------- */

/* A little-endian number of `n` bytes; -1: they are not there, or it is above 2^63. */
static int64_t read_number(struct unpickler *u, size_t n)
{
	uint64_t value = 0;
	if ((size_t)(u->end - u->at) < n)
		return -1;
	for (size_t i = n; i-- > 0;)
		value = value << 8 | u->at[i];
	u->at += n;
	return value > INT64_MAX ? -1 : (int64_t)value;
}

static int read_bytes(struct unpickler *u, size_t size_bytes, struct span *ret)
{
	int64_t n = read_number(u, size_bytes);
	if (n < 0 || n > u->end - u->at)
		return -EINVAL;
	*ret = (struct span){(const char *)u->at, (size_t)n};
	u->at += n;
	return 0;
}

static int make_text(struct unpickler *u, size_t size_bytes)
{
	struct pickle_node node = {.kind = PICKLE_TEXT};
	int r = read_bytes(u, size_bytes, &node.u.text);
	return r < 0 ? r : make(u, node);
}

static int make_long(struct unpickler *u, size_t size_bytes)
{
	struct pickle_node node = {.kind = PICKLE_LONG};
	int r = read_bytes(u, size_bytes, &node.u.text);
	if (r == 0 && node.u.text.len > LONG_MAX_BYTES)
		r = -EINVAL;
	return r < 0 ? r : make(u, node);
}

static int make_int(struct unpickler *u, size_t size_bytes)
{
	int64_t n = read_number(u, size_bytes);
	if (n < 0)
		return -EINVAL;
	if (size_bytes == 4)
		n = (int32_t)(uint32_t)n;
	return make(u, (struct pickle_node){.kind = PICKLE_INT, .u.number = n});
}

static int make_float(struct unpickler *u)
{
	struct pickle_node node = {.kind = PICKLE_FLOAT};
	uint64_t bits = 0;
	if (u->end - u->at < 8)
		return -EINVAL;
	for (int i = 0; i < 8; i++)
		bits = bits << 8 | *u->at++;
	memcpy(&node.u.real, &bits, sizeof(bits));
	return make(u, node);
}

static int remember(struct unpickler *u, int64_t index)
{
	struct pickle_node *node = top(u);
	if (!node || node->kind == PICKLE_MARK || index < 0 || index > CELERY_PICKLE_NODES)
		return -EINVAL;
	int r = 0;
	while (r == 0 && u->memo.n <= (size_t)index)
		r = push_to(&u->memo, NULL);
	if (r == 0)
		u->memo.items[index] = node;
	return r;
}

static int recall(struct unpickler *u, int64_t index)
{
	struct pickle_node *node = index >= 0 && (size_t)index < u->memo.n ? u->memo.items[index] : NULL;
	return node ? push_to(&u->stack, node) : -EINVAL;
}

static int skip(struct unpickler *u, size_t n)
{
	if ((size_t)(u->end - u->at) < n)
		return -EINVAL;
	u->at += n;
	return 0;
}

static int make_kind(struct unpickler *u, enum pickle_kind kind)
{
	return make(u, (struct pickle_node){.kind = kind});
}

static int fill(struct unpickler *u, enum pickle_kind kind)
{
	size_t from = after_mark(u);
	return from < 2 ? -EINVAL : put_into(u, from, from - 1, kind);
}

static int last_tuple(struct unpickler *u, size_t n)
{
	return u->stack.n < n ? -EINVAL : make_tuple(u, u->stack.n - n, 0);
}

static int marked_tuple(struct unpickler *u)
{
	size_t from = after_mark(u);
	return from == 0 ? -EINVAL : make_tuple(u, from, 1);
}

static int one_item(struct unpickler *u, size_t n, enum pickle_kind kind)
{
	return u->stack.n <= n ? -EINVAL : put_into(u, u->stack.n - n, u->stack.n - n, kind);
}

static int containers(struct unpickler *u, unsigned char op)
{
	switch (op) {
	case ']':
		return make_kind(u, PICKLE_LIST);
	case '}':
		return make_kind(u, PICKLE_DICT);
	case ')':
		return make_kind(u, PICKLE_LIST);
	case '(':
		return make_kind(u, PICKLE_MARK);
	case 'a':
		return one_item(u, 1, PICKLE_LIST);
	case 's':
		return one_item(u, 2, PICKLE_DICT);
	case 'e':
		return fill(u, PICKLE_LIST);
	case 'u':
		return fill(u, PICKLE_DICT);
	case 't':
		return marked_tuple(u);
	case 0x85:
		return last_tuple(u, 1);
	case 0x86:
		return last_tuple(u, 2);
	case 0x87:
		return last_tuple(u, 3);
	default:
		return -EINVAL; /* what would look up, call or build, and what is not known */
	}
}

static int instruction(struct unpickler *u, unsigned char op)
{
	switch (op) {
	case 0x80: /* protocol */
		return skip(u, 1);
	case 0x95: /* frame */
		return skip(u, 8);
	case 'N':
		return make_kind(u, PICKLE_NONE);
	case 0x88:
		return make_kind(u, PICKLE_TRUE);
	case 0x89:
		return make_kind(u, PICKLE_FALSE);
	case 'J':
		return make_int(u, 4);
	case 'K':
		return make_int(u, 1);
	case 'M':
		return make_int(u, 2);
	case 0x8a:
		return make_long(u, 1);
	case 0x8b:
		return make_long(u, 4);
	case 'G':
		return make_float(u);
	case 0x8c:
		return make_text(u, 1);
	case 'X':
		return make_text(u, 4);
	case 0x8d:
		return make_text(u, 8);
	case 'q':
		return remember(u, read_number(u, 1));
	case 'r':
		return remember(u, read_number(u, 4));
	case 0x94:
		return remember(u, (int64_t)u->memo.n);
	case 'h':
		return recall(u, read_number(u, 1));
	case 'j':
		return recall(u, read_number(u, 4));
	default:
		return containers(u, op);
	}
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

/* As repr() has it: the shortest digits that give the same number. */
static int put_float(double value, struct buf *out)
{
	char text[64];
	double size = fabs(value);
	if (!isfinite(value))
		return -EINVAL;
	bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
	for (int digits = plain ? 1 : 0; digits < 25; digits++) {
		snprintf(text, sizeof(text), plain ? "%.*f" : "%.*e", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	return buf_puts(out, text);
}

static int put_long(struct span bytes, struct buf *out)
{
	unsigned char number[LONG_MAX_BYTES];
	char digits[LONG_MAX_BYTES * 5 / 2 + 2];
	size_t n = bytes.len, at = sizeof(digits);
	if (n == 0)
		return buf_putc(out, '0');
	memcpy(number, bytes.ptr, n);
	bool negative = number[n - 1] & 0x80;
	for (size_t i = 0, carry = 1; negative && i < n; i++) {
		carry += (unsigned char)~number[i];
		number[i] = (unsigned char)carry;
		carry >>= 8;
	}
	do {
		unsigned rest = 0;
		for (size_t i = n; i-- > 0;) {
			rest = rest << 8 | number[i];
			number[i] = (unsigned char)(rest / 10);
			rest %= 10;
		}
		digits[--at] = (char)('0' + rest);
		while (n && number[n - 1] == 0)
			n--;
	} while (n);
	if (negative)
		buf_putc(out, '-');
	return buf_append(out, digits + at, sizeof(digits) - at);
}

static int put_scalar(const struct pickle_node *node, struct buf *out)
{
	switch (node->kind) {
	case PICKLE_NONE:
		return buf_puts(out, "null");
	case PICKLE_TRUE:
		return buf_puts(out, "true");
	case PICKLE_FALSE:
		return buf_puts(out, "false");
	case PICKLE_INT:
		return buf_printf(out, "%lld", (long long)node->u.number);
	case PICKLE_LONG:
		return put_long(node->u.text, out);
	case PICKLE_FLOAT:
		return put_float(node->u.real, out);
	default:
		return -EINVAL;
	}
}

/* Python's json makes texts of the other scalars. */
static int put_key(const struct pickle_node *node, struct buf *out)
{
	if (node->kind == PICKLE_TEXT)
		return json_quote(out, node->u.text);
	buf_putc(out, '"');
	int r = put_scalar(node, out);
	buf_putc(out, '"');
	return r;
}

static int put_value(const struct pickle_node *node, int level, struct buf *out)
{
	bool dict = node->kind == PICKLE_DICT;
	if (node->kind == PICKLE_TEXT)
		return json_quote(out, node->u.text);
	if (!dict && node->kind != PICKLE_LIST)
		return put_scalar(node, out);
	int r = level < CELERY_PICKLE_LEVELS ? 0 : -EINVAL;
	if (r == 0)
		r = buf_puts(out, dict ? "{" : "[");
	for (size_t i = 0; r == 0 && i < node->u.list.n; i++) {
		if (i)
			buf_puts(out, dict && i % 2 ? ": " : ", ");
		r = dict && i % 2 == 0 ? put_key(node->u.list.items[i], out)
				       : put_value(node->u.list.items[i], level + 1, out);
		if (r == 0)
			r = out->error;
	}
	if (r == 0)
		r = buf_puts(out, dict ? "}" : "]");
	return r;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

bool celery_is_pickle(struct span bytes)
{
	return bytes.len >= 2 && (unsigned char)bytes.ptr[0] == 0x80;
}

static void unpickler_release(struct unpickler *u)
{
	for (size_t i = 0; i < u->all.n; i++) {
		struct pickle_node *node = u->all.items[i];
		if (node->kind == PICKLE_LIST || node->kind == PICKLE_DICT)
			free(node->u.list.items);
		free(node);
	}
	free(u->all.items);
	free(u->stack.items);
	free(u->memo.items);
}

int celery_pickle_to_json(struct span bytes, struct buf *out)
{
	struct unpickler u = {.at = (const unsigned char *)bytes.ptr,
			      .end = (const unsigned char *)bytes.ptr + bytes.len};
	int r = celery_is_pickle(bytes) ? 0 : -EINVAL;
	bool stopped = false;
	while (r == 0 && !stopped) {
		if (u.at == u.end)
			r = -EINVAL;
		else if (!(stopped = *u.at == '.'))
			r = instruction(&u, *u.at++);
	}
	if (r == 0 && (u.stack.n != 1 || top(&u)->kind == PICKLE_MARK))
		r = -EINVAL;
	if (r == 0)
		r = put_value(top(&u), 0, out);
	if (r == 0)
		r = out->error;
	unpickler_release(&u);
	return r;
}
