/*
 * bench-snapshot FILE: what a snapshot as Flipt sends it costs to parse, to hold and to free.
 *
 * Prints one line of JSON: {"flags", "bytes", "parse_ms", "free_ms", "held_bytes"}, the median of several
 * times.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "flags/flags.h"

#define TIMES 21

static int by_size(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static double median_ms(int64_t *us)
{
	qsort(us, TIMES, sizeof(*us), by_size);
	return (double)us[TIMES / 2] / 1000;
}

static size_t held(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

int main(int argc, char **argv)
{
	struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	int64_t parse_us[TIMES], free_us[TIMES];
	size_t flags = 0, bytes = 0;
	struct err e = {"usage: bench-snapshot FILE"};
	if (argc != 2 || crypto_setup() < 0 || file_read(argv[1], FLAG_MAX_DOCUMENT, &text, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 2;
	}
	for (int i = 0; i < TIMES; i++) {
		struct flag_snapshot *s;
		size_t before = held();
		int64_t begin_us = clock_mono_us();
		if (flag_snapshot_parse_json(argv[1], buf_span(&text), FLAG_RULES_V2, &s, &e) < 0) {
			fprintf(stderr, "%s\n", e.text);
			return 1;
		}
		parse_us[i] = clock_mono_us() - begin_us;
		flags = flag_snapshot_count(s);
		bytes = held() - before;
		begin_us = clock_mono_us();
		flag_snapshot_unref(s);
		free_us[i] = clock_mono_us() - begin_us;
	}
	printf("{\"flags\": %zu, \"bytes\": %zu, \"parse_ms\": %.1f, \"free_ms\": %.2f, \"held_bytes\": "
	       "%zu}\n",
	       flags, text.len, median_ms(parse_us), median_ms(free_us), bytes);
	buf_release(&text);
	return 0;
}
