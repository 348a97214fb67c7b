#include "base/arena.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>

#define BLOCK_BYTES (64u << 10)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	alignas(max_align_t) char bytes[];
};

void arena_release(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *b = a->blocks;
		a->blocks = b->next;
		free(b);
	}
	a->used = 0;
}

static struct arena_block *block_for(struct arena *a, size_t n)
{
	if (a->blocks && a->blocks->size - a->blocks->used >= n)
		return a->blocks;
	size_t size = n > BLOCK_BYTES ? n : BLOCK_BYTES;
	struct arena_block *b = calloc(1, sizeof(*b) + size);
	if (!b)
		return NULL;
	b->size = size;
	b->next = a->blocks;
	a->blocks = b;
	return b;
}

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
	size_t n;
	if (__builtin_mul_overflow(count, size, &n) || n > a->max - a->used)
		return NULL;
	n = (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	if (n > a->max - a->used)
		return NULL;
	struct arena_block *b = block_for(a, n);
	if (!b)
		return NULL;
	void *p = b->bytes + b->used;
	b->used += n;
	a->used += n;
	return p;
}

int arena_copy(struct arena *a, struct span text, struct span *ret)
{
	char *p = arena_alloc(a, text.len + 1, 1);
	if (!p)
		return -ENOMEM;
	if (text.len)
		memcpy(p, text.ptr, text.len);
	*ret = (struct span){p, text.len};
	return 0;
}
