#include "base/base64.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct span bytes, struct buf *out)
{
	const unsigned char *b = (const unsigned char *)bytes.ptr;
	for (size_t i = 0; i < bytes.len; i += 3) {
		size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
		unsigned v = (unsigned)b[i] << 16 | (n > 1 ? (unsigned)b[i + 1] << 8 : 0) |
			     (n > 2 ? b[i + 2] : 0u);
		char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63],
				n > 1 ? alphabet[v >> 6 & 63] : '=', n > 2 ? alphabet[v & 63] : '='};
		buf_append(out, four, 4);
	}
	return out->error;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

int base64_decode(struct span text, struct buf *out)
{
	unsigned v = 0, n = 0, padding = 0;
	int r = buf_reserve(out, text.len / 4 * 3 + 3);
	for (size_t i = 0; r == 0 && i < text.len; i++) {
		char c = text.ptr[i];
		if (c == '\r' || c == '\n')
			continue;
		int d = c == '=' ? 0 : base64_digit(c);
		if (d < 0 || (padding && c != '=') || (c == '=' && n % 4 < 2))
			return -EINVAL;
		padding += c == '=';
		v = v << 6 | (unsigned)d;
		if (++n % 4 == 0) {
			char three[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
			r = buf_append(out, three, 3 - padding);
			v = 0;
		}
		if (padding > 2)
			return -EINVAL;
	}
	/* Nothing may follow the padding, and nothing may be left over. */
	if (r < 0)
		return r;
	return n % 4 == 0 ? 0 : -EINVAL;
}
