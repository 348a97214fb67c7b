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
