#include "tasks/hatchet/hatchet_token.h"

#include <errno.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/json.h"

#define TOKEN_MAX 16384

/* base64url without padding (RFC 7515 §2) to what base64_decode takes. */
static int decode_part(struct span part, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TOKEN_MAX + 4);
	for (size_t i = 0; i < part.len; i++) {
		char c = part.ptr[i];
		if (c == '+' || c == '/' || c == '=' || c == '\r' || c == '\n')
			return -EINVAL;
		if (c == '-')
			c = '+';
		else if (c == '_')
			c = '/';
		buf_putc(&text, c);
	}
	while (text.len % 4)
		buf_putc(&text, '=');
	return text.error ? text.error : base64_decode(buf_span(&text), out);
}

static bool is_uuid(const char *s)
{
	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? s[i] != '-' : !strchr("0123456789abcdefABCDEF", s[i]) || !s[i])
			return false;
	}
	return s[36] == '\0';
}

/* The middle of the three parts that dots separate. */
static bool payload_of(struct span token, struct span *ret)
{
	const char *first = memchr(token.ptr, '.', token.len), *end = token.ptr + token.len;
	const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
	if (!second || first == token.ptr || second == first + 1 || second + 1 == end ||
	    memchr(second + 1, '.', (size_t)(end - second - 1)))
		return false;
	*ret = (struct span){first + 1, (size_t)(second - first - 1)};
	return true;
}

static int read_claims(const struct json_node *claims, struct hatchet_claims *ret, struct err *e)
{
	const char *tenant = json_string(json_get(claims, "sub")),
		   *url = json_string(json_get(claims, "server_url")),
		   *grpc = json_string(json_get(claims, "grpc_broadcast_address"));
	double expires;
	if (!tenant || !is_uuid(tenant))
		return err_set(e, -EINVAL, "the token's claim sub (the tenant) is not a UUID");
	if (url && strlen(url) >= sizeof(ret->server_url))
		return err_set(e, -EINVAL, "the token's claim server_url is longer than %zu characters",
			       sizeof(ret->server_url) - 1);
	memcpy(ret->tenant, tenant, sizeof(ret->tenant));
	if (url)
		strcpy(ret->server_url, url);
	if (grpc && strlen(grpc) < sizeof(ret->grpc_address))
		strcpy(ret->grpc_address, grpc);
	if (json_number(json_get(claims, "exp"), &expires) && expires > 0 && expires < 1e15)
		ret->expires_s = (int64_t)expires;
	return 0;
}

int hatchet_token_read(struct span token, struct hatchet_claims *ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TOKEN_MAX);
	struct span payload;
	struct json_doc *claims = NULL;
	*ret = (struct hatchet_claims){0};
	if (token.len > TOKEN_MAX)
		return err_set(e, -EINVAL, "the token is longer than %d characters", TOKEN_MAX);
	if (token.len && (token.ptr[0] == '"' || token.ptr[0] == '\'' || token.ptr[token.len - 1] == '"'))
		return err_set(e, -EINVAL, "the token is in quotes; remove them");
	for (size_t i = 0; i < token.len; i++)
		if ((unsigned char)token.ptr[i] <= ' ' || (unsigned char)token.ptr[i] > '~')
			return err_set(e, -EINVAL, "the token has a blank or a control character in it");
	if (!token.len || !payload_of(token, &payload))
		return err_set(e, -EINVAL,
			       "the token is not a JWT: expected three parts with dots between them");
	if (decode_part(payload, &text) < 0 || json_doc_parse(buf_span(&text), &claims, NULL) < 0)
		return err_set(e, -EINVAL,
			       "the token is not a JWT: its second part is not JSON in base64url");
	int r = read_claims(json_root(claims), ret, e);
	json_doc_free(claims);
	return r;
}
