/*
 * Clearing of large memory: zeroes only what is not zero already. In place of libc's memset, for the whole
 * process, with the same effect.
 *
 * Why:   libmicrohttpd clears all of a connection's memory (limits.max_head decides: 68 KiB) after each
 *        request, and half of it before each answer, of which a usual head has touched three pages. That
 *        was 16 % of a proxied request's processor time, and made all of it resident: 0.7 GiB of 10,000
 *        kept-alive connections. A page that was never written reads as the kernel's one page of zeros,
 *        which lies in the first cache, and is not ours to pay for.
 * How:   the linker takes a program's own memset before libc's, for the libraries too. What is small, or not
 *        zero, goes on to libc's by its other name.
 * Not:   with sanitizers, which have a memset of their own.
 */
#undef _FORTIFY_SOURCE /* whose memset is another */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED) && !defined(__SANITIZE_ADDRESS__) && \
	!defined(__SANITIZE_THREAD__)

#define PAGE 4096
#define LARGE (4 * PAGE)

/* libc's; by a name of ours, since the compiler makes a call of memset of one that it knows. */
void *clear_libc(void *to, int c, size_t n, size_t room) __asm__("__memset_chk");

typedef uint64_t wide __attribute__((vector_size(32), may_alias));

#ifdef __x86_64__
__attribute__((target_clones("avx2", "default")))
#endif
static bool
clear_is_zero(const wide *page)
{
	wide a = page[0], b = page[1], c = page[2], d = page[3];
	for (size_t i = 4; i < PAGE / sizeof(wide); i += 4) {
		a |= page[i];
		b |= page[i + 1];
		c |= page[i + 2];
		d |= page[i + 3];
	}
	a |= b | c | d;
	return (a[0] | a[1] | a[2] | a[3]) == 0;
}

static __attribute__((noinline)) void *clear_pages(void *to, size_t n)
{
	unsigned char *at = to, *end = at + n;
	size_t odd = -(uintptr_t)at % PAGE;
	clear_libc(at, 0, odd, SIZE_MAX);
	for (at += odd; (size_t)(end - at) >= PAGE; at += PAGE)
		if (!clear_is_zero((const wide *)(const void *)at))
			clear_libc(at, 0, PAGE, SIZE_MAX);
	clear_libc(at, 0, (size_t)(end - at), SIZE_MAX);
	return to;
}

__attribute__((used)) void *memset(void *to, int c, size_t n)
{
	return n < LARGE || c != 0 ? clear_libc(to, c, n, SIZE_MAX) : clear_pages(to, n);
}

#endif
