#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "outcomes/report.h"
#include "standing/standing_internal.h"

#define DAY_US 86400000000LL
#define QUOTED_MAX 300

const char *standing_level_text(enum standing_level l)
{
	static const char *const texts[STANDING_LEVELS] = {"empty", "ok", "watch", "stop"};
	return (unsigned)l < STANDING_LEVELS ? texts[l] : "?";
}

void standing_find(struct standing_finding *worst, const struct standing_finding *f)
{
	if (f->level > worst->level || (f->level == worst->level && f->rank < worst->rank))
		*worst = *f;
}

const char *standing_time(int64_t us, int64_t now_us, char out[STANDING_TIME_MAX])
{
	char text[CLOCK_TEXT_MAX];
	if (us <= 0) {
		snprintf(out, STANDING_TIME_MAX, "the start");
		return out;
	}
	clock_format(us, text);
	if (us / DAY_US == now_us / DAY_US)
		snprintf(out, STANDING_TIME_MAX, "%.5s UTC", text + 11);
	else
		snprintf(out, STANDING_TIME_MAX, "%.10s %.5s UTC", text, text + 11);
	return out;
}

const char *standing_count(uint64_t n, char out[STANDING_NUMBER_MAX])
{
	char digits[24];
	size_t at = 0;
	int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			out[at++] = ',';
		out[at++] = digits[i];
	}
	out[at] = '\0';
	return out;
}

const char *standing_percent(double percent, char out[STANDING_NUMBER_MAX])
{
	double shown = report_percent(percent / 100);
	if (percent < 0)
		snprintf(out, STANDING_NUMBER_MAX, "nothing");
	else if (shown == floor(shown))
		snprintf(out, STANDING_NUMBER_MAX, "%.0f %%", shown);
	else
		snprintf(out, STANDING_NUMBER_MAX, "%.1f %%", shown);
	return out;
}

/* --- commands to copy ----------------------------------------------------------------------------------- */

static bool is_bare(const char *word)
{
	return *word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				     "_-./:,=@%+") == strlen(word);
}

void standing_quote(const char *word, char *out, size_t size)
{
	size_t at = 0;
	if (is_bare(word)) {
		snprintf(out, size, "%s", word);
		return;
	}
	out[at++] = '\'';
	for (; *word && at + 6 < size; word++) {
		if (*word == '\'') {
			memcpy(out + at, "'\\''", 4);
			at += 4;
		} else {
			out[at++] = *word;
		}
	}
	out[at++] = '\'';
	out[at] = '\0';
}

void standing_rollout_command(const struct standing_facts *f, const char *verb, const char *flag,
			      char out[STANDING_TEXT_MAX])
{
	char config[QUOTED_MAX], quoted[QUOTED_MAX];
	standing_quote(flag, quoted, sizeof(quoted));
	if (!f || !f->config[0]) {
		snprintf(out, STANDING_TEXT_MAX, "migration-rollout %s %s", verb, quoted);
		return;
	}
	standing_quote(f->config, config, sizeof(config));
	snprintf(out, STANDING_TEXT_MAX, "migration-rollout --config %.280s %s %.140s", config, verb, quoted);
}

void standing_check_command(const struct standing_facts *f, const char *options, char out[STANDING_TEXT_MAX])
{
	char config[QUOTED_MAX];
	standing_quote(f && f->config[0] ? f->config : "config/router.yml", config, sizeof(config));
	snprintf(out, STANDING_TEXT_MAX, "migration-router check%s %s", options, config);
}
