/* `auth:` and `tokens:`: who may ask for what the task side does, and for what the admin listener tells. */
#include "config/config_reader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "base/file.h"
#include "operation/auth.h"

#define TOKENS_MAX_FILE (1u << 20)

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static size_t count_lines(struct span text)
{
	size_t n = 1;
	for (size_t i = 0; i < text.len; i++)
		n += text.ptr[i] == '\n';
	return n;
}

static void parse_tokens(const struct place *p, const char *path, struct span text, struct auth *ret)
{
	unsigned before = p->reader->mistakes, number = 0;
	size_t lines = count_lines(text), room = lines < AUTH_MAX_HASHES ? lines : AUTH_MAX_HASHES;
	char hash[CRYPTO_SHA256_HEX];
	ret->hashes = place_memory(p->reader, room * sizeof(*ret->hashes));
	if (!ret->hashes)
		return;
	for (int r; (r = auth_next_hash(&text, &number, hash)) != 0;) {
		if (r < 0) {
			place_mistake(p, "%s:%u: expected the SHA-256 of a token in 64 hex digits", path,
				      number);
		} else if (ret->n_hashes < room) {
			memcpy(ret->hashes[ret->n_hashes++], hash, sizeof(hash));
		} else {
			place_mistake(p, "%s: more than %d hashes", path, AUTH_MAX_HASHES);
			break;
		}
	}
	qsort(ret->hashes, ret->n_hashes, sizeof(*ret->hashes), by_text);
	if (ret->n_hashes == 0 && p->reader->mistakes == before)
		place_mistake(p, "%s contains no hashes; every request would be rejected", path);
}

static void read_tokens(const struct place *p, struct auth *ret)
{
	const char *path;
	struct stat st;
	if (!value_file(p, &path))
		return;
	/* A named pipe or a device would block, or never end. */
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		place_mistake(p, "%s: not a regular file", path);
		return;
	}
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TOKENS_MAX_FILE + (128u << 10));
	struct err e = {""};
	if (file_read(path, TOKENS_MAX_FILE, &text, &e) < 0) {
		place_mistake(p, "%s", e.text);
		return;
	}
	ret->file = span_of(path);
	parse_tokens(p, path, buf_span(&text), ret);
}

static void read_kind(const struct place *kind, const struct place *tokens, struct auth *ret)
{
	static const char *const kinds[] = {"none", "bearer"};
	size_t which;
	if (!value_choice(kind, kinds, 2, &which))
		return;
	ret->kind = which == 0 ? AUTH_NONE : AUTH_BEARER;
	if (ret->kind == AUTH_NONE)
		return;
	if (!tokens->node)
		place_mistake(kind,
			      "bearer needs \"tokens\": a file of SHA-256 hashes, here or on a level above");
	else
		read_tokens(tokens, ret);
}

/* "header:Authorization", "cookie:session" */
static bool read_credential(const struct place *p, struct auth_credential *ret)
{
	static const struct span header = SPAN_INIT("header:"), cookie = SPAN_INIT("cookie:");
	struct span text;
	if (!value_text(p, &text))
		return false;
	ret->cookie = span_starts(text, cookie);
	if (!ret->cookie && !span_starts(text, header)) {
		place_mistake(p, "expected header:NAME or cookie:NAME");
		return false;
	}
	ret->name = (struct span){text.ptr + header.len, text.len - header.len};
	if (http_is_token(ret->name))
		return true;
	place_mistake(p, "this is not the name of a header field or cookie");
	return false;
}

static void add_credential(const struct place *p, void *arg)
{
	struct auth *a = arg;
	if (a->n_credentials < AUTH_MAX_CREDENTIALS && read_credential(p, &a->credentials[a->n_credentials]))
		a->n_credentials++;
}

static bool has_field(const struct auth *a, const char *name)
{
	for (size_t i = 0; i < a->n_credentials; i++)
		if (!a->credentials[i].cookie && span_is_nocase(a->credentials[i].name, name))
			return true;
	return false;
}

static void read_check(const struct place *auth, struct auth *ret)
{
	struct place credentials = place_member(auth, "credentials");
	ret->kind = AUTH_CHECK;
	value_list(&credentials, AUTH_MAX_CREDENTIALS, add_credential, ret);
	if (!credentials.node) {
		ret->credentials[0].name = SPAN_LIT("Authorization");
		ret->credentials[1].name = SPAN_LIT("Cookie");
		ret->n_credentials = 2;
	}
	for (size_t i = 0; i < ret->n_credentials; i++)
		if (ret->credentials[i].cookie && has_field(ret, "Cookie"))
			place_mistake(&credentials, "header:Cookie already covers all cookies");
}

/* {check: URL, …} or {kind: bearer, forward: header:Authorization} */
static void read_auth_mapping(const struct place *auth, const struct place *tokens, struct auth *ret)
{
	static const struct field fields[] = {
		{"check", FIELD_URL, offsetof(struct auth, url), 0, 0},
		{"kind", FIELD_OTHER, 0, 0, 0},
		{"credentials", FIELD_OTHER, 0, 0, 0},
		{"cache", FIELD_DURATION, offsetof(struct auth, cache_ms), 0, 3600000},
		{"cache_denied", FIELD_DURATION, offsetof(struct auth, cache_denied_ms), 0, 3600000},
		{"timeout", FIELD_DURATION, offsetof(struct auth, timeout_ms), 10, 60000},
		{"forward", FIELD_OTHER, 0, 0, 0},
	};
	struct place check = place_member(auth, "check"), kind = place_member(auth, "kind"),
		     forward = place_member(auth, "forward");
	ret->cache_ms = 30000;
	ret->cache_denied_ms = 5000;
	ret->timeout_ms = 5000;
	READ_FIELDS(auth, fields, ret);
	if (check.node && kind.node)
		place_mistake(&kind, "check and kind are mutually exclusive");
	else if (check.node)
		read_check(auth, ret);
	else if (kind.node)
		read_kind(&kind, tokens, ret);
	else
		place_mistake(auth, "missing: check (a URL), or kind (none or bearer)");
	if (ret->cache_denied_ms > ret->cache_ms)
		ret->cache_denied_ms = ret->cache_ms;
	if (forward.node && !read_credential(&forward, &ret->forward))
		ret->forward.name = SPAN_NONE;
}

void read_auth(const struct place *auth, const struct place *tokens, struct auth *ret)
{
	if (auth->node && auth->node->kind == YAML_MAPPING)
		read_auth_mapping(auth, tokens, ret);
	else
		read_kind(auth, tokens, ret);
}

/* --- who may change something ----------------------------------------------------------------------------
 * */

static bool is_writer_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!name.ptr[i] ||
		    !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+-",
			    name.ptr[i]))
			return false;
	return name.len > 0 && name.len < ADMIN_WRITER_NAME;
}

/* "HASH NAME", blanks around either; a comment begins with #. */
static void parse_writer(const struct place *p, const char *path, unsigned number, struct span line,
			 struct config *c)
{
	const char *comment = memchr(line.ptr, '#', line.len);
	line = span_strip((struct span){line.ptr, comment ? (size_t)(comment - line.ptr) : line.len});
	if (!line.len)
		return;
	struct admin_writer *w = &c->admin.writers[c->admin.n_writers];
	size_t n = 0;
	while (n < line.len && line.ptr[n] != ' ' && line.ptr[n] != '\t')
		n++;
	struct span name = span_strip((struct span){line.ptr + n, line.len - n});
	if (!crypto_sha256_read((struct span){line.ptr, n}, w->hash) || !is_writer_name(name)) {
		place_mistake(p,
			      "%s:%u: expected the SHA-256 of a token in 64 hex digits, a blank, and the "
			      "name of who "
			      "has it (letters, digits, . _ @ + -)",
			      path, number);
		return;
	}
	for (size_t i = 0; i < c->admin.n_writers; i++)
		if (strcmp(c->admin.writers[i].hash, w->hash) == 0) {
			place_mistake(p, "%s:%u: this token is listed twice", path, number);
			return;
		}
	span_copy(name, w->name, sizeof(w->name));
	c->admin.n_writers++;
}

static void parse_writers(const struct place *p, const char *path, struct span text, struct config *c)
{
	unsigned before = p->reader->mistakes, number = 0;
	c->admin.writers = place_memory(p->reader, ADMIN_WRITERS_MAX * sizeof(*c->admin.writers));
	while (c->admin.writers && text.len) {
		const char *end = memchr(text.ptr, '\n', text.len);
		size_t n = end ? (size_t)(end - text.ptr) : text.len;
		if (c->admin.n_writers == ADMIN_WRITERS_MAX) {
			place_mistake(p, "%s: more than %d tokens", path, ADMIN_WRITERS_MAX - 1);
			return;
		}
		parse_writer(p, path, ++number, (struct span){text.ptr, n}, c);
		n += end ? 1 : 0;
		text = (struct span){text.ptr + n, text.len - n};
	}
	if (c->admin.n_writers == 0 && p->reader->mistakes == before)
		place_mistake(p, "%s names nobody", path);
}

/* Who may write may read. */
static void let_writers_read(const struct place *p, struct config *c)
{
	struct auth *auth = &c->admin.auth;
	size_t n = auth->n_hashes;
	if (auth->kind != AUTH_BEARER)
		return;
	char(*all)[CRYPTO_SHA256_HEX] = place_memory(p->reader, (n + c->admin.n_writers) * sizeof(*all));
	if (!all)
		return;
	if (n)
		memcpy(all, auth->hashes, n * sizeof(*all));
	for (size_t i = 0; i < c->admin.n_writers; i++)
		memcpy(all[n++], c->admin.writers[i].hash, sizeof(*all));
	qsort(all, n, sizeof(*all), by_text);
	auth->hashes = all;
	auth->n_hashes = n;
}

void read_admin_writers(const struct place *p, struct config *c)
{
	const char *path;
	struct stat st;
	struct err e = {""};
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TOKENS_MAX_FILE + (128u << 10));
	if (!p->node || !value_file(p, &path))
		return;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
		place_mistake(p, "%s: not a regular file", path);
	else if (file_read(path, TOKENS_MAX_FILE, &text, &e) < 0)
		place_mistake(p, "%s", e.text);
	else
		parse_writers(p, path, buf_span(&text), c);
	let_writers_read(p, c);
}

void read_admin_auth(const struct place *auth, const struct place *tokens, struct auth *ret)
{
	read_kind(auth, tokens, ret);
}
