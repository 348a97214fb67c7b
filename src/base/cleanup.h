/*
 * Cleanup attributes: a local that is released when it goes out of scope, and `steal` to hand it over.
 *
 * DEFINE_CLEANUP(struct buf *, buf_free) makes `buf_freep`, to be used as `CLEANUP(buf_freep) struct buf *b =
 * NULL;`
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

#define DEFINE_CLEANUP(type, f) \
	static inline void f##p(type *p) \
	{ \
		if (*p) \
			f(*p); \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define steal(p) \
	__extension__({ \
		__typeof__(p) stolen_ = (p); \
		(p) = NULL; \
		stolen_; \
	})

static inline int steal_fd(int *fd)
{
	int stolen = *fd;
	*fd = -1;
	return stolen;
}

#endif
