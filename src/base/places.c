#include "base/places.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/nearest.h"
#include "base/size.h"
#include "base/text.h"
#include "base/url.h"

#define FIELDS_MAX 64 /* in one table */

/* --- places --------------------------------------------------------------------------------------------- */

/* `key:` with no value is treated as absent. */
static const struct yaml_node *something(const struct yaml_node *n)
{
	return n && !yaml_is_null(n) ? n : NULL;
}

struct place place_root(struct place_reader *r, const struct yaml_node *root)
{
	return (struct place){.reader = r, .node = something(root)};
}

struct place place_member(const struct place *up, const char *key)
{
	return (struct place){up->reader, up, something(yaml_get(up->node, key)), span_of(key), 0};
}

struct place place_item(const struct place *up, const struct yaml_node *node)
{
	return (struct place){up->reader, up, something(node), node->key->text, 0};
}

struct place place_element(const struct place *up, const struct yaml_node *node, size_t index)
{
	return (struct place){up->reader, up, something(node), SPAN_NONE, index};
}

/* Where a person looks: the line of the key; of what should hold it when it is not there. */
static unsigned place_line(const struct place *p)
{
	for (; p; p = p->up)
		if (p->node)
			return p->node->key ? p->node->key->line : p->node->line;
	return 1;
}

static void append_key(const struct place *p, struct buf *out)
{
	if (!p->up)
		return;
	append_key(p->up, out);
	if (!p->key.ptr)
		buf_printf(out, "[%zu]", p->index);
	else
		buf_printf(out, "%s%.*s", p->up->up ? "." : "", p->key.len > 100 ? 100 : (int)p->key.len,
			   p->key.ptr);
}

static void say(const struct place *p, const char *prefix, const char *format, va_list ap)
{
	struct buf *out = p->reader->problems;
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(16u << 10);
	buf_printf(&line, "%s%s:%u: ", prefix, p->reader->name, place_line(p));
	append_key(p, &line);
	if (p->up)
		buf_puts(&line, ": ");
	buf_vprintf(&line, format, ap);
	buf_putc(&line, '\n');
	/* What several operations inherit is read for each of them, and said once. */
	if (line.len && !(out->len && memmem(out->ptr, out->len, line.ptr, line.len)))
		buf_append_span(out, buf_span(&line));
}

void place_mistake(const struct place *p, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say(p, "", format, ap);
	va_end(ap);
	p->reader->mistakes++;
}

void place_warning(const struct place *p, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say(p, "warning: ", format, ap);
	va_end(ap);
}

/* --- texts ---------------------------------------------------------------------------------------------- */

void *place_memory(struct place_reader *r, size_t n)
{
	void *p = arena_alloc(r->memory, 1, n);
	if (!p)
		r->out_of_memory = true;
	return p;
}

char *place_text(struct place_reader *r, struct span s)
{
	char *copy = place_memory(r, s.len + 1);
	if (copy && s.len)
		memcpy(copy, s.ptr, s.len);
	return copy;
}

char *place_path(struct place_reader *r, struct span path)
{
	size_t folder = path.len && path.ptr[0] == '/' ? 0 : strlen(r->folder);
	char *copy = place_memory(r, folder + path.len + 1);
	if (!copy)
		return NULL;
	memcpy(copy, r->folder, folder);
	if (path.len)
		memcpy(copy + folder, path.ptr, path.len);
	return copy;
}

char *place_url(struct place_reader *r, struct span url)
{
	char *copy = place_text(r, url);
	if (copy)
		url_lower_scheme(copy);
	return copy;
}

struct shown place_shown(const struct yaml_node *n)
{
	struct shown s;
	if (n->kind == YAML_SCALAR)
		text_shown(n->text, s.text);
	else
		snprintf(s.text, sizeof(s.text), "%s", n->kind == YAML_MAPPING ? "a mapping" : "a list");
	return s;
}

/* --- values --------------------------------------------------------------------------------------------- */

bool value_text(const struct place *p, struct span *ret)
{
	struct span s;
	if (!p->node)
		return false;
	if (!yaml_string(p->node, &s) || s.len == 0) {
		place_mistake(p, "expected a string, not %s", place_shown(p->node).text);
		return false;
	}
	*ret = s;
	return true;
}

bool value_bool(const struct place *p, bool *ret)
{
	if (!p->node)
		return false;
	if (yaml_bool(p->node, ret))
		return true;
	place_mistake(p, "expected true or false, not %s", place_shown(p->node).text);
	return false;
}

bool value_unsigned(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	int64_t v;
	if (!p->node)
		return false;
	if (!yaml_int(p->node, &v) || v < 0 || (uint64_t)v < min || (uint64_t)v > max) {
		place_mistake(p, "expected a whole number from %llu to %llu, not %s", (unsigned long long)min,
			      (unsigned long long)max, place_shown(p->node).text);
		return false;
	}
	*ret = (uint64_t)v;
	return true;
}

bool value_size(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	struct span s;
	char range[SIZE_RANGE_MAX];
	if (!p->node)
		return false;
	if (yaml_string(p->node, &s) && size_within(s, min, max, ret))
		return true;
	size_range(min, max, range);
	place_mistake(p, "expected %s, not %s", range, place_shown(p->node).text);
	return false;
}

bool value_duration(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	struct span s;
	char range[CLOCK_RANGE_MAX];
	if (!p->node)
		return false;
	if (yaml_string(p->node, &s) && clock_duration_within(s, min, max, ret))
		return true;
	clock_duration_range(min, max, range);
	place_mistake(p, "expected %s, not %s", range, place_shown(p->node).text);
	return false;
}

bool value_url(const struct place *p, const char **ret)
{
	struct span s;
	if (!value_text(p, &s))
		return false;
	const char *wrong = url_mistake(s, URL_BASE);
	if (wrong) {
		place_mistake(p, "%s", wrong);
		return false;
	}
	*ret = place_url(p->reader, s);
	return *ret != NULL;
}

bool value_file(const struct place *p, const char **ret)
{
	struct span s;
	if (!value_text(p, &s))
		return false;
	char *path = place_path(p->reader, s);
	if (path && access(path, R_OK) != 0) {
		place_mistake(p, "%s: %s", path, strerror(errno));
		return false;
	}
	*ret = path;
	return path != NULL;
}

bool value_choice(const struct place *p, const char *const *names, size_t n, size_t *ret)
{
	struct span s;
	if (!value_text(p, &s))
		return false;
	for (size_t i = 0; i < n; i++)
		if (span_is(s, names[i])) {
			*ret = i;
			return true;
		}
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_puts(&list, i + 1 == n ? " or " : ", ");
		buf_puts(&list, names[i]);
	}
	const char *near = nearest_word(s, names, n);
	place_mistake(p, "expected %s, not %s%s%s%s", list.ptr, place_shown(p->node).text,
		      near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return false;
}

bool value_mapping(const struct place *p)
{
	if (!p->node || p->node->kind == YAML_MAPPING)
		return true;
	place_mistake(p, "expected a mapping, not %s", place_shown(p->node).text);
	return false;
}

void value_list(const struct place *p, size_t max, void (*each)(const struct place *element, void *arg),
		void *arg)
{
	if (!p->node)
		return;
	if (p->node->kind != YAML_SEQUENCE) {
		each(p, arg);
		return;
	}
	if (p->node->count > max) {
		place_mistake(p, "at most %zu, not %zu", max, p->node->count);
		return;
	}
	size_t i = 0;
	for (const struct yaml_node *n = p->node->first; n; n = n->next, i++) {
		struct place element = place_element(p, n, i);
		if (element.node)
			each(&element, arg);
		else
			place_mistake(&element, "empty");
	}
}

bool check_name(const struct place *p, struct span name, size_t max)
{
	bool good = name.len > 0;
	for (size_t i = 0; i < name.len && good; i++) {
		char c = name.ptr[i];
		good = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
		       c == '-' || c == '.';
	}
	if (!good)
		place_mistake(p, "a name consists of letters, digits, \"_\", \"-\" and \".\"");
	else if (name.len > max)
		place_mistake(p, "a name has at most %zu characters, this one %zu", max, name.len);
	return good && name.len <= max;
}

/* --- tables of keys ------------------------------------------------------------------------------------- */

void unknown_key(const struct place *p, struct span key, const char *const *known, size_t n)
{
	const char *near = nearest_word(key, known, n);
	if (near) {
		place_mistake(p, "unknown key; did you mean \"%s\"?", near);
		return;
	}
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(4096);
	for (size_t i = 0; i < n; i++)
		buf_printf(&list, "%s%s", i ? ", " : "", known[i]);
	place_mistake(p, "unknown key; known here: %s", list.ptr);
}

static void unknown_field(const struct place *p, struct span key, const struct field *fields, size_t n)
{
	const char *known[FIELDS_MAX];
	size_t i = 0;
	for (; i < n && i < FIELDS_MAX; i++)
		known[i] = fields[i].key;
	unknown_key(p, key, known, i);
}

static void read_number(const struct place *p, const struct field *f, char *to)
{
	uint64_t v;
	bool good = false;
	if (f->kind == FIELD_UNSIGNED)
		good = value_unsigned(p, f->min, f->max, &v);
	else if (f->kind == FIELD_DURATION)
		good = value_duration(p, f->min, f->max, &v);
	else
		good = value_size(p, f->min, f->max, &v);
	if (!good)
		return;
	if (f->kind == FIELD_SIZE)
		*(uint64_t *)to = v;
	else if (f->kind == FIELD_SIZE_T)
		*(size_t *)to = (size_t)v;
	else
		*(unsigned *)to = (unsigned)v;
}

static void read_field(const struct place *p, const struct field *f, void *into)
{
	char *to = (char *)into + f->offset;
	struct span s;
	switch (f->kind) {
	case FIELD_SPAN:
		value_text(p, (struct span *)to);
		break;
	case FIELD_TEXT:
		if (value_text(p, &s))
			*(const char **)to = s.ptr;
		break;
	case FIELD_PATH:
		if (value_text(p, &s))
			*(const char **)to = place_path(p->reader, s);
		break;
	case FIELD_FILE:
		value_file(p, (const char **)to);
		break;
	case FIELD_URL:
		value_url(p, (const char **)to);
		break;
	case FIELD_BOOL:
		value_bool(p, (bool *)to);
		break;
	case FIELD_UNSIGNED:
	case FIELD_SIZE:
	case FIELD_SIZE_T:
	case FIELD_DURATION:
		read_number(p, f, to);
		break;
	case FIELD_OWN:
		p->reader->own(p, to);
		break;
	case FIELD_OTHER:
		break;
	}
}

/* In the top level, x-… holds what anchors point to, and is for people. */
static bool is_extension(const struct place *p)
{
	return !p->up->up && span_starts(p->key, SPAN_LIT("x-"));
}

void read_fields(const struct place *p, const struct field *fields, size_t n, void *into)
{
	if (!value_mapping(p) || !p->node)
		return;
	for (const struct yaml_node *m = p->node->first; m; m = m->next) {
		struct place member = place_item(p, m);
		size_t i = 0;
		while (i < n && !span_is(m->key->text, fields[i].key))
			i++;
		if (i < n) {
			read_field(&member, &fields[i], into);
		} else if (!is_extension(&member)) {
			/* The line of the unknown key itself, also when it has no value. */
			member.node = m;
			unknown_field(&member, m->key->text, fields, n);
		}
	}
}
