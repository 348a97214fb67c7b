/* Of the process: what it is, what it uses, and whether it serves. Names as Prometheus' own libraries have
 * them. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "programs/router/app_internal.h"
#include "programs/router/metrics/metrics.h"
#include "router/http/acceptor.h"

/* Fields of /proc/self/stat, counted from the state, which is 0: the name before it may hold anything. */
enum {
	STAT_UTIME = 11,
	STAT_STIME = 12,
	STAT_THREADS = 17,
	STAT_START = 19,
	STAT_VSIZE = 20,
	STAT_RSS = 21,
	STAT_FIELDS
};

static bool read_stat(double values[STAT_FIELDS])
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	if (file_read("/proc/self/stat", 4096, &text, NULL) < 0 || !text.len)
		return false;
	const char *at = strrchr(text.ptr, ')');
	for (int i = 0; i < STAT_FIELDS; i++) {
		at = at ? strchr(at, ' ') : NULL;
		if (!at)
			return false;
		values[i] = strtod(++at, NULL);
	}
	return true;
}

static double boot_time(void)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(2u << 20);
	if (file_read("/proc/stat", 1u << 20, &text, NULL) < 0 || !text.len)
		return NAN;
	const char *at = strstr(text.ptr, "\nbtime ");
	return at ? strtod(at + strlen("\nbtime "), NULL) : NAN;
}

static double count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	double n = 0;
	if (!d)
		return NAN;
	for (const struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1; /* its own */
}

static void put_one(struct metric_text *out, const char *name, enum metric_type type, double value,
		    const char *help)
{
	metric_begin(out, name, type, help);
	metric_value(out, value, METRIC_NO_LABELS);
}

static void put_resources(struct metric_text *out)
{
	double stat[STAT_FIELDS];
	struct rlimit l;
	double ticks = (double)sysconf(_SC_CLK_TCK), page = (double)sysconf(_SC_PAGESIZE);
	if (!read_stat(stat))
		for (int i = 0; i < STAT_FIELDS; i++)
			stat[i] = NAN;
	bool limited = getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur != RLIM_INFINITY;
	put_one(out, "process_cpu_seconds_total", METRIC_COUNTER,
		(stat[STAT_UTIME] + stat[STAT_STIME]) / ticks, "Processor time, user and system.");
	put_one(out, "process_resident_memory_bytes", METRIC_GAUGE, stat[STAT_RSS] * page,
		"Memory that is resident.");
	put_one(out, "process_virtual_memory_bytes", METRIC_GAUGE, stat[STAT_VSIZE], "Address space.");
	put_one(out, "process_threads", METRIC_GAUGE, stat[STAT_THREADS], "Threads.");
	put_one(out, "process_open_fds", METRIC_GAUGE, count_descriptors(), "Descriptors in use.");
	put_one(out, "process_max_fds", METRIC_GAUGE, limited ? (double)l.rlim_cur : INFINITY,
		"Descriptors that may be in use.");
	put_one(out, "process_start_time_seconds", METRIC_GAUGE, boot_time() + stat[STAT_START] / ticks,
		"When the process began, since 1970.");
}

void metrics_put_process(const struct app *a, struct metric_text *out)
{
	metric_begin(out, "migration_build_info", METRIC_INFO, "What runs here.");
	metric_count(
		out, 1,
		METRIC_LABELS({"version", SPAN_LIT(PROJECT_VERSION)}, {"compiler", SPAN_LIT(__VERSION__)}));
	put_one(out, "migration_accept_failing", METRIC_GAUGE, acceptor_outage(),
		"1 while connections cannot be accepted: out of descriptors or memory.");
	put_one(out, "migration_draining", METRIC_GAUGE, a->draining,
		"1 from the moment that the process takes no new requests.");
	put_one(out, "migration_planes", METRIC_GAUGE, (double)a->n_planes, "Threads that serve requests.");
	put_resources(out);
}
