#include "base/gzip.h"

#include <errno.h>
#include <limits.h>
#include <zlib.h>

#define GZIP_PIECE 16384
#define GZIP_ANY_HEADER 32 /* gzip or zlib, whichever it is */

static int gzip_inflate(z_stream *z, struct buf *out)
{
	for (;;) {
		if (out->len == out->max)
			return -EFBIG;
		size_t room = out->max - out->len < GZIP_PIECE ? out->max - out->len : GZIP_PIECE;
		int r = buf_reserve(out, room);
		if (r < 0)
			return r;
		z->next_out = (unsigned char *)out->ptr + out->len;
		z->avail_out = (unsigned)room;
		r = inflate(z, Z_NO_FLUSH);
		out->len += room - z->avail_out;
		buf_terminate(out);
		if (r == Z_STREAM_END)
			return 0;
		if (r != Z_OK || (z->avail_in == 0 && z->avail_out > 0))
			return r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
	}
}

int gzip_decode(struct span coded, struct buf *out)
{
	z_stream z = {.next_in = (unsigned char *)coded.ptr, .avail_in = (unsigned)coded.len};
	if (coded.len > UINT_MAX)
		return -EFBIG;
	if (inflateInit2(&z, MAX_WBITS + GZIP_ANY_HEADER) != Z_OK)
		return -ENOMEM;
	int r = gzip_inflate(&z, out);
	inflateEnd(&z);
	return r;
}
