#include "flags/source/flipt_credential.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

const char *flipt_token_mistake(struct span token)
{
	static const char *const schemes[] = {"bearer ", "jwt ", "token "};
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t n = strlen(schemes[i]);
		if (token.len > n && span_is_nocase((struct span){token.ptr, n}, schemes[i]))
			return "must be the token alone, without a scheme in front of it";
	}
	for (size_t i = 0; i < token.len; i++)
		if ((unsigned char)token.ptr[i] <= 0x20 || (unsigned char)token.ptr[i] >= 0x7f)
			return "has blanks, control or non-ASCII characters, which tokens do not contain";
	return NULL;
}

/* Forgotten is also the memory that it lay in. */
static void credential_forget(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

static bool credential_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

bool flipt_credential_refresh(struct flipt_credential *c, bool anyway)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLIPT_TOKEN_MAX + (128u << 10));
	struct stat now;
	if (!c->file || stat(c->file, &now) != 0 || (!anyway && credential_same_file(&now, &c->seen)))
		return false;
	if (file_read(c->file, FLIPT_TOKEN_MAX, &text, NULL) < 0)
		return false;
	c->seen = now;
	struct span token = span_strip(buf_span(&text));
	/* One that is being written is empty for a moment: the old one stays. */
	if (!token.len || flipt_token_mistake(token) || (c->token && span_is(token, c->token)))
		return false;
	char *copy = span_dup(token);
	if (!copy)
		return false;
	credential_forget(&c->token);
	flipt_credential_log_out(c);
	c->token = copy;
	return true;
}

int flipt_credential_init(struct flipt_credential *c, enum flipt_auth auth, const char *token,
			  const char *file)
{
	*c = (struct flipt_credential){.auth = auth};
	c->token = token && *token ? strdup(token) : NULL;
	c->file = file ? strdup(file) : NULL;
	if ((token && *token && !c->token) || (file && !c->file))
		return -ENOMEM;
	flipt_credential_refresh(c, true);
	return 0;
}

void flipt_credential_release(struct flipt_credential *c)
{
	credential_forget(&c->token);
	credential_forget(&c->client_token);
	free(c->file);
	c->file = NULL;
}

bool flipt_credential_wants_login(const struct flipt_credential *c)
{
	return c->auth == FLIPT_KUBERNETES && c->token && !c->client_token;
}

int flipt_credential_login_body(const struct flipt_credential *c, struct buf *out)
{
	buf_puts(out, "{\"serviceAccountToken\":");
	json_quote(out, span_of(c->token));
	return buf_puts(out, "}");
}

bool flipt_credential_logged_in(struct flipt_credential *c, struct span answer)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(FLIPT_TOKEN_MAX);
	struct span value;
	if (json_pointers(answer, &SPAN_LIT("/clientToken"), 1, &value, NULL) != 0 || !value.ptr ||
	    json_type_of(value) != JSON_STRING || json_unescape(value, &token) < 0 || !token.len ||
	    flipt_token_mistake(buf_span(&token)))
		return false;
	credential_forget(&c->client_token);
	c->client_token = span_dup(buf_span(&token));
	return c->client_token != NULL;
}

void flipt_credential_log_out(struct flipt_credential *c)
{
	credential_forget(&c->client_token);
}

int flipt_credential_header(const struct flipt_credential *c, struct buf *out)
{
	const char *token = c->auth == FLIPT_KUBERNETES ? c->client_token : c->token;
	if (!token)
		return 0;
	return buf_printf(out, "%s %s", c->auth == FLIPT_JWT ? "JWT" : "Bearer", token);
}
