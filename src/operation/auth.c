#include "operation/auth.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define HEX_LENGTH (CRYPTO_SHA256_HEX - 1)

/* --- credentials ---------------------------------------------------------------------------------------- */

/* "Bearer" 1*SP token68 (RFC 9110 §11.4): what follows the scheme, or SPAN_NONE for another scheme. */
static struct span bearer_token(struct span value)
{
	static const char scheme[] = "bearer";
	size_t n = sizeof(scheme) - 1;
	if (value.len < n || strncasecmp(value.ptr, scheme, n) != 0 || (value.len > n && value.ptr[n] != ' '))
		return SPAN_NONE;
	while (n < value.len && value.ptr[n] == ' ')
		n++;
	return (struct span){value.ptr + n, value.len - n};
}

static bool is_token68(struct span s)
{
	size_t i = 0;
	for (; i < s.len && s.ptr[i] != '='; i++) {
		char c = s.ptr[i];
		bool letter = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
		if (!letter && (c == '\0' || !strchr("-._~+/", c)))
			return false;
	}
	size_t characters = i;
	while (i < s.len && s.ptr[i] == '=')
		i++;
	return characters > 0 && i == s.len;
}

static bool auth_is_known(const struct auth *a, const char hash[CRYPTO_SHA256_HEX])
{
	unsigned found = 0;
	for (size_t i = 0; i < a->n_hashes; i++)
		found |= crypto_equal((struct span){a->hashes[i], HEX_LENGTH},
				      (struct span){hash, HEX_LENGTH});
	return found != 0;
}

static enum auth_found field_credential(struct span name, const struct http_field *fields, size_t n,
					struct span *ret)
{
	size_t found = 0;
	for (size_t i = 0; i < n; i++) {
		const struct http_field *f = &fields[i];
		if (f->name.len != name.len || strncasecmp(f->name.ptr, name.ptr, name.len) != 0)
			continue;
		*ret = f->value;
		found++;
	}
	if (found > 1)
		return AUTH_AMBIGUOUS;
	return found ? AUTH_FOUND : AUTH_ABSENT;
}

/* The cookie's value; twice with differing values is nobody's to choose from. */
static enum auth_found cookie_credential(struct span name, struct span cookies, struct span *ret)
{
	*ret = SPAN_NONE;
	while (cookies.len) {
		const char *end = memchr(cookies.ptr, ';', cookies.len);
		size_t length = end ? (size_t)(end - cookies.ptr) : cookies.len;
		struct span one = span_trim((struct span){cookies.ptr, length});
		length += end != NULL;
		cookies = (struct span){cookies.ptr + length, cookies.len - length};
		if (!span_starts(one, name) || one.len == name.len || one.ptr[name.len] != '=')
			continue;
		struct span value = {one.ptr + name.len + 1, one.len - name.len - 1};
		if (ret->ptr && !span_eq(*ret, value))
			return AUTH_AMBIGUOUS;
		*ret = value;
	}
	return ret->ptr ? AUTH_FOUND : AUTH_ABSENT;
}

enum auth_found auth_credential_find(const struct auth_credential *c, const struct http_field *fields,
				     size_t n, struct span *ret)
{
	struct span cookies;
	*ret = SPAN_NONE;
	if (!c->cookie)
		return field_credential(c->name, fields, n, ret);
	enum auth_found found = field_credential(SPAN_LIT("Cookie"), fields, n, &cookies);
	return found == AUTH_FOUND ? cookie_credential(c->name, cookies, ret) : found;
}

static enum auth_result ask_with(const struct auth *a, const struct http_field *fields, size_t n,
				 struct auth_fingerprint *ret)
{
	char all[AUTH_MAX_CREDENTIALS * HEX_LENGTH + 1] = "";
	bool any = false;
	for (size_t i = 0; i < a->n_credentials; i++) {
		struct span value;
		enum auth_found found = auth_credential_find(&a->credentials[i], fields, n, &value);
		if (found == AUTH_AMBIGUOUS)
			return AUTH_MALFORMED;
		/* Hashed by itself first: so its length is fixed. An absent one differs from an empty one. */
		if (found == AUTH_FOUND)
			crypto_sha256_hex(value, all + i * HEX_LENGTH);
		else
			memset(all + i * HEX_LENGTH, '-', HEX_LENGTH);
		any |= found == AUTH_FOUND;
	}
	if (any)
		crypto_sha256_hex((struct span){all, a->n_credentials * HEX_LENGTH}, ret->hex);
	return AUTH_ASK;
}

enum auth_result auth_check(const struct auth *a, const struct http_field *fields, size_t n,
			    struct auth_fingerprint *ret_fingerprint)
{
	struct span value = SPAN_NONE;
	size_t count = 0;
	ret_fingerprint->hex[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		if (!span_is_nocase(fields[i].name, "authorization"))
			continue;
		value = fields[i].value;
		count++;
	}
	if (count > 1)
		return AUTH_MALFORMED;
	if (a->kind == AUTH_CHECK)
		return ask_with(a, fields, n, ret_fingerprint);
	struct span token = count ? bearer_token(value) : SPAN_NONE;
	if (count)
		crypto_sha256_hex(token.ptr ? token : value, ret_fingerprint->hex);
	if (a->kind == AUTH_NONE)
		return AUTH_ACCEPTED;
	if (!token.ptr)
		return AUTH_MISSING;
	if (!is_token68(token))
		return AUTH_MALFORMED;
	return a->kind == AUTH_BEARER && auth_is_known(a, ret_fingerprint->hex) ? AUTH_ACCEPTED : AUTH_WRONG;
}

int auth_status(enum auth_result r)
{
	if (r == AUTH_ACCEPTED)
		return 200;
	return r == AUTH_MALFORMED ? 400 : 401;
}

struct span auth_challenge(enum auth_result r)
{
	switch (r) {
	case AUTH_MISSING:
		return SPAN_LIT("Bearer realm=\"migration-router\"");
	case AUTH_MALFORMED:
		return SPAN_LIT("Bearer realm=\"migration-router\", error=\"invalid_request\"");
	case AUTH_WRONG:
		return SPAN_LIT("Bearer realm=\"migration-router\", error=\"invalid_token\"");
	default:
		return SPAN_NONE;
	}
}

void auth_owner(const struct auth_fingerprint *f, struct span organization, char out[CRYPTO_SHA256_HEX])
{
	/* Hashed by itself first: so its length is fixed, and no organization can imitate another pair. */
	char both[2 * HEX_LENGTH + 2], hash[CRYPTO_SHA256_HEX] = "";
	if (organization.ptr)
		crypto_sha256_hex(organization, hash);
	int n = snprintf(both, sizeof(both), "%s:%s", f->hex, hash);
	crypto_sha256_hex((struct span){both, (size_t)n}, out);
}

/* --- the list of hashes --------------------------------------------------------------------------------- */
/* The next line, without comment and blanks. */
static bool auth_next_line(struct span *rest, struct span *ret)
{
	if (rest->len == 0)
		return false;
	const char *newline = memchr(rest->ptr, '\n', rest->len);
	size_t n = newline ? (size_t)(newline - rest->ptr) : rest->len;
	const char *hash = memchr(rest->ptr, '#', n);
	*ret = (struct span){rest->ptr, hash ? (size_t)(hash - rest->ptr) : n};
	if (ret->len && ret->ptr[ret->len - 1] == '\r')
		ret->len--;
	*ret = span_trim(*ret);
	n += newline != NULL;
	rest->ptr += n;
	rest->len -= n;
	return true;
}

int auth_next_hash(struct span *rest, unsigned *number, char out[CRYPTO_SHA256_HEX])
{
	struct span line;
	while (auth_next_line(rest, &line)) {
		++*number;
		if (line.len) /* never repeated in a message: it may be a token put there by mistake */
			return crypto_sha256_read(line, out) ? 1 : -EBADMSG;
	}
	return 0;
}
