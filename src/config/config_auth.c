/* `auth:` and `tokens:`: who may ask for what the task side does, and for what the admin listener tells. */
#include "config/config_reader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "base/file.h"
#include "operation/auth.h"

#define TOKENS_MAX_FILE (1u << 20)

struct tokens {
	const struct place *place;
	const char *path;
	struct auth *auth;
	size_t capacity;
};

/* The line is not repeated: someone may have put a token itself there. */
static void add_hash(struct tokens *t, struct span line, unsigned number)
{
	const char *comment = line.len ? memchr(line.ptr, '#', line.len) : NULL;
	if (comment)
		line.len = (size_t)(comment - line.ptr);
	line = span_trim(line);
	if (line.len == 0)
		return;
	if (t->auth->n_hashes > AUTH_MAX_HASHES) /* which is said once */
		return;
	if (crypto_sha256_read(line, t->auth->hashes[t->auth->n_hashes]))
		t->auth->n_hashes++;
	else
		place_mistake(t->place, "%s:%u: expected the SHA-256 of a token in 64 hex digits", t->path,
			      number);
}

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

static void parse_tokens(struct tokens *t, struct span text)
{
	unsigned before = t->place->reader->mistakes, number = 0;
	size_t room = count_lines(text) < AUTH_MAX_HASHES ? count_lines(text) : AUTH_MAX_HASHES;
	t->auth->hashes = place_memory(t->place->reader, (room + 1) * sizeof(*t->auth->hashes));
	if (!t->auth->hashes)
		return;
	while (text.len) {
		const char *end = memchr(text.ptr, '\n', text.len);
		size_t length = end ? (size_t)(end - text.ptr) : text.len;
		struct span line = {text.ptr, length && text.ptr[length - 1] == '\r' ? length - 1 : length};
		add_hash(t, line, ++number);
		text.ptr += length + (end != NULL);
		text.len -= length + (end != NULL);
	}
	if (t->auth->n_hashes > AUTH_MAX_HASHES)
		place_mistake(t->place, "%s: more than %d hashes", t->path, AUTH_MAX_HASHES);
	qsort(t->auth->hashes, t->auth->n_hashes, sizeof(*t->auth->hashes), by_text);
	if (t->auth->n_hashes == 0 && t->place->reader->mistakes == before)
		place_mistake(t->place, "%s contains no hashes; every request would be rejected", t->path);
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
	parse_tokens(&(struct tokens){.place = p, .path = path, .auth = ret}, buf_span(&text));
}

void read_auth(const struct place *auth, const struct place *tokens, struct auth *ret)
{
	static const char *const kinds[] = {"none", "bearer"};
	size_t which;
	if (!value_choice(auth, kinds, 2, &which))
		return;
	ret->kind = which == 0 ? AUTH_NONE : AUTH_BEARER;
	if (ret->kind == AUTH_NONE)
		return;
	if (!tokens->node)
		place_mistake(auth,
			      "bearer needs \"tokens\": a file of SHA-256 hashes, here or on a level above");
	else
		read_tokens(tokens, ret);
}
