#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/span.h"

int err_set(struct err *e, int code, const char *format, ...)
{
	if (!e)
		return code;
	va_list ap;
	va_start(ap, format);
	vsnprintf(e->text, sizeof(e->text), format, ap);
	va_end(ap);
	return code;
}

int err_prefix(struct err *e, int code, const char *format, ...)
{
	if (!e)
		return code;
	char old[ERR_TEXT_MAX];
	memcpy(old, e->text, sizeof(old));
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(e->text, sizeof(e->text), format, ap);
	va_end(ap);
	/* What does not fit is cut at the end: the front says what and where. */
	struct span rest[] = {SPAN_LIT(": "), span_of(old)};
	size_t at = n < 0 ? 0 : (size_t)n;
	for (size_t i = 0; i < 2 && at < sizeof(e->text) - 1; i++) {
		span_copy(rest[i], e->text + at, sizeof(e->text) - at);
		at += strlen(e->text + at);
	}
	return code;
}
