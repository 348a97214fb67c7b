#include "config/config_reader.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/size.h"
#include "operation/listen_address.h"

#define SHOWN_MAX 60 /* characters of a wrong value that a message repeats */

/* --- places --------------------------------------------------------------------------------------------- */

/* `key:` with nothing behind it is as good as no key. */
static const struct yaml_node *something(const struct yaml_node *n)
{
	return n && !yaml_is_null(n) ? n : NULL;
}

struct place place_root(struct config_reader *r, const struct yaml_node *root)
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

void environment_mistake(struct config_reader *r, const char *variable, const char *format, ...)
{
	buf_printf(r->problems, "environment: %s: ", variable);
	va_list ap;
	va_start(ap, format);
	buf_vprintf(r->problems, format, ap);
	va_end(ap);
	buf_putc(r->problems, '\n');
	r->mistakes++;
}

const char *environment_get(struct config_reader *r, const char *variable)
{
	const char *value = r->getenv_fn ? r->getenv_fn(variable) : NULL;
	return value && *value ? value : NULL;
}

/* --- texts ---------------------------------------------------------------------------------------------- */

char *config_text(struct config_reader *r, struct span s)
{
	char *copy = config_memory(r, s.len + 1);
	if (copy && s.len)
		memcpy(copy, s.ptr, s.len);
	return copy;
}

char *config_path(struct config_reader *r, struct span path)
{
	size_t folder = path.len && path.ptr[0] == '/' ? 0 : strlen(r->folder);
	char *copy = config_memory(r, folder + path.len + 1);
	if (!copy)
		return NULL;
	memcpy(copy, r->folder, folder);
	if (path.len)
		memcpy(copy + folder, path.ptr, path.len);
	return copy;
}

/* What was found instead, for messages: "…" with a limit, and without line breaks. */
struct shown {
	char text[SHOWN_MAX + 16];
};

static struct shown reader_shown(const struct yaml_node *n)
{
	struct shown s;
	if (n->kind == YAML_MAPPING || n->kind == YAML_SEQUENCE) {
		snprintf(s.text, sizeof(s.text), "%s", n->kind == YAML_MAPPING ? "a mapping" : "a list");
		return s;
	}
	char cut[SHOWN_MAX + 1];
	span_copy(n->text, cut, sizeof(cut));
	for (char *c = cut; *c; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	snprintf(s.text, sizeof(s.text), "\"%s%s\"", cut, strlen(cut) < n->text.len ? "…" : "");
	return s;
}

/* --- values --------------------------------------------------------------------------------------------- */

bool value_text(const struct place *p, struct span *ret)
{
	struct span s;
	if (!p->node)
		return false;
	if (!yaml_string(p->node, &s) || s.len == 0) {
		place_mistake(p, "expected a string, not %s", reader_shown(p->node).text);
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
	place_mistake(p, "expected true or false, not %s", reader_shown(p->node).text);
	return false;
}

bool value_unsigned(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	int64_t v;
	if (!p->node)
		return false;
	if (!yaml_int(p->node, &v) || v < 0 || (uint64_t)v < min || (uint64_t)v > max) {
		place_mistake(p, "expected a whole number from %llu to %llu, not %s", (unsigned long long)min,
			      (unsigned long long)max, reader_shown(p->node).text);
		return false;
	}
	*ret = (uint64_t)v;
	return true;
}

bool value_size(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	struct span s;
	uint64_t v;
	if (!p->node)
		return false;
	if (!yaml_string(p->node, &s) || memchr(s.ptr, '\0', s.len) || size_parse(s.ptr, &v) < 0 || v < min ||
	    v > max) {
		char low[SIZE_TEXT_MAX], high[SIZE_TEXT_MAX];
		size_format(min, low);
		size_format(max, high);
		place_mistake(p, "expected a size from %s to %s (bytes, or with KiB, MiB, GiB), not %s", low,
			      high, reader_shown(p->node).text);
		return false;
	}
	*ret = v;
	return true;
}

bool value_duration(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret)
{
	struct span s;
	int64_t v;
	if (!p->node)
		return false;
	if (!yaml_string(p->node, &s) || clock_parse_duration(s.ptr, &v) != 0 || (uint64_t)v < min ||
	    (uint64_t)v > max) {
		char low[CLOCK_TEXT_MAX], high[CLOCK_TEXT_MAX];
		clock_format_duration((int64_t)min, low);
		clock_format_duration((int64_t)max, high);
		place_mistake(p, "expected a duration from %s to %s (500ms, 5s, 2m, 1h, 7d), not %s", low,
			      high, reader_shown(p->node).text);
		return false;
	}
	*ret = (uint64_t)v;
	return true;
}

static bool port_valid(struct span s)
{
	unsigned port = 0;
	if (s.len == 0 || s.len > 5)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] < '0' || s.ptr[i] > '9')
			return false;
		port = port * 10 + (unsigned)(s.ptr[i] - '0');
	}
	return port > 0 && port <= 65535;
}

/* Cuts "host:port" at its last colon; an IPv6 host stands in brackets. False when there is no port. */
static bool split_port(struct span s, struct span *ret_host, struct span *ret_port)
{
	size_t colon = s.len;
	while (colon > 0 && s.ptr[colon - 1] != ':' && s.ptr[colon - 1] != ']')
		colon--;
	if (colon == 0 || s.ptr[colon - 1] != ':')
		return false;
	*ret_host = (struct span){s.ptr, colon - 1};
	*ret_port = (struct span){s.ptr + colon, s.len - colon};
	return true;
}

bool value_listen(const struct place *p, const char **ret)
{
	struct span s;
	union listen_address address;
	if (!value_text(p, &s))
		return false;
	if (listen_address_parse(s.ptr, &address, NULL) != 0) {
		place_mistake(p,
			      "expected address:port, such as 127.0.0.1:5002, [::1]:5002 or *:5002, not %s",
			      reader_shown(p->node).text);
		return false;
	}
	*ret = s.ptr;
	return true;
}

bool listen_is_loopback(const char *listen)
{
	union listen_address a;
	if (listen_address_parse(listen, &a, NULL) != 0)
		return false;
	return a.any.sa_family == AF_INET ? ntohl(a.v4.sin_addr.s_addr) >> 24 == 127
					  : IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
}

static bool bracketed_address(struct span host)
{
	char copy[INET6_ADDRSTRLEN];
	unsigned char address[16];
	if (host.len < 3 || host.ptr[host.len - 1] != ']' || host.len - 2 >= sizeof(copy))
		return false;
	span_copy((struct span){host.ptr + 1, host.len - 2}, copy, sizeof(copy));
	return inet_pton(AF_INET6, copy, address) == 1;
}

/* Host names, IPv4 and bracketed IPv6. */
static bool url_host_valid(struct span host)
{
	if (host.len && host.ptr[0] == '[')
		return bracketed_address(host);
	for (size_t i = 0; i < host.len; i++) {
		char c = host.ptr[i];
		bool good = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
			    c == '.' || c == '_';
		if (!good)
			return false;
	}
	return host.len > 0 && host.len <= 253;
}

/* Schemes are written in any case (RFC 3986 §3.1). */
static bool has_scheme(struct span url, const char *scheme)
{
	size_t n = strlen(scheme);
	return url.len >= n && span_is_nocase((struct span){url.ptr, n}, scheme);
}

char *config_url(struct config_reader *r, struct span url)
{
	char *copy = config_text(r, url);
	for (char *c = copy; c && *c && *c != ':'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	return copy;
}

const char *url_mistake(struct span url)
{
	bool tls = has_scheme(url, "https://");
	if (!tls && !has_scheme(url, "http://"))
		return "expected a URL that begins with http:// or https://";
	struct span rest = {url.ptr + (tls ? 8 : 7), url.len - (tls ? 8 : 7)};
	for (size_t i = 0; i < rest.len; i++)
		if ((unsigned char)rest.ptr[i] <= 0x20 || (unsigned char)rest.ptr[i] >= 0x7F)
			return "a URL has no blanks, control or non-ASCII characters";
	if (memchr(rest.ptr, '?', rest.len) || memchr(rest.ptr, '#', rest.len))
		return "a base URL has no \"?\" and no \"#\"";
	const char *slash = rest.len ? memchr(rest.ptr, '/', rest.len) : NULL;
	struct span host = {rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len}, port;
	if (host.len && memchr(host.ptr, '@', host.len))
		return "user names and passwords are not allowed in this URL";
	if (split_port(host, &host, &port) && !port_valid(port))
		return "the port must be a number from 1 to 65535";
	return url_host_valid(host) ? NULL : "the host of the URL is missing or no host name";
}

bool value_url(const struct place *p, const char **ret)
{
	struct span s;
	if (!value_text(p, &s))
		return false;
	const char *wrong = url_mistake(s);
	if (wrong) {
		place_mistake(p, "%s", wrong);
		return false;
	}
	*ret = config_url(p->reader, s);
	return *ret != NULL;
}

bool value_file(const struct place *p, const char **ret)
{
	struct span s;
	if (!value_text(p, &s))
		return false;
	char *path = config_path(p->reader, s);
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
	place_mistake(p, "expected %s, not %s", list.ptr, reader_shown(p->node).text);
	return false;
}

bool value_mapping(const struct place *p)
{
	if (!p->node || p->node->kind == YAML_MAPPING)
		return true;
	place_mistake(p, "expected a mapping, not %s", reader_shown(p->node).text);
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

bool sha256_hex_valid(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')))
			return false;
	}
	return text.len == 64;
}

#define FIELDS_MAX 64 /* in one table */

/* --- tables of keys ------------------------------------------------------------------------------------- */

/* Edits (insert, delete, replace) from one short word to the other; SIZE_MAX when one is too long to be a
 * key. */
static size_t edits(struct span a, const char *b)
{
	size_t row[65], m = strlen(b);
	if (a.len > 64 || m > 64)
		return SIZE_MAX;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.len; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t replaced = diagonal + (a.ptr[i - 1] != b[j - 1]);
			diagonal = row[j];
			size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			row[j] = least < replaced ? least : replaced;
		}
	}
	return row[m];
}

static const char *nearest(struct span key, const char *const *known, size_t n)
{
	const char *best = NULL;
	size_t least = SIZE_MAX;
	for (size_t i = 0; i < n; i++) {
		size_t e = edits(key, known[i]);
		if (e < least) {
			least = e;
			best = known[i];
		}
	}
	return best && least <= 1 + strlen(best) / 4 ? best : NULL;
}

void unknown_key(const struct place *p, struct span key, const char *const *known, size_t n)
{
	const char *near = nearest(key, known, n);
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
			*(const char **)to = config_path(p->reader, s);
		break;
	case FIELD_FILE:
		value_file(p, (const char **)to);
		break;
	case FIELD_LISTEN:
		value_listen(p, (const char **)to);
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
