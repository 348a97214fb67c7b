#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "library/taskq_internal.h"

int taskq_wrong(struct taskq_error *error, int code, const char *format, ...)
{
	va_list ap;
	if (!error)
		return code;
	error->code = code;
	va_start(ap, format);
	vsnprintf(error->text, sizeof(error->text), format, ap);
	va_end(ap);
	return code;
}

const char *taskq_version(void)
{
	return PROJECT_VERSION;
}
