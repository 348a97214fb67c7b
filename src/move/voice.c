/* What is said to whoever listens, and whether that one wants to go on. */
#include <stdarg.h>
#include <unistd.h>

#include "base/buf.h"
#include "move/place.h"

#define SAID_MAX 65536
#define TICK_MS 100

void place_say(const struct rollout_place *p, enum move_tone tone, const char *format, ...)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(SAID_MAX);
	va_list ap;
	if (!p->voice.say)
		return;
	va_start(ap, format);
	buf_vprintf(&text, format, ap);
	va_end(ap);
	if (text.len)
		p->voice.say(p->voice.arg, tone, text.ptr);
}

bool place_stopped(const struct rollout_place *p)
{
	return p->voice.stopped && p->voice.stopped(p->voice.arg);
}

bool place_pause(const struct rollout_place *p, unsigned ms)
{
	for (unsigned n; ms && !place_stopped(p); ms -= n) {
		n = ms < TICK_MS ? ms : TICK_MS;
		usleep(1000 * n);
	}
	return !place_stopped(p);
}
