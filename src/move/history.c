#include "move/history.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"

#define LINE_MAX_BYTES 65536
#define FILE_MAX_BYTES (256u << 20)

int history_path(const struct config *c, const char *journal, char **ret, struct err *e)
{
	const char *beside = c->outcomes.path, *slash = strrchr(beside, '/');
	int folder = slash ? (int)(slash + 1 - beside) : 0;
	int r = journal ? asprintf(ret, "%s", journal) : asprintf(ret, "%.*srollouts.jsonl", folder, beside);
	if (r >= 0)
		return 0;
	*ret = NULL;
	return err_set(e, -ENOMEM, "out of memory");
}

static int open_journal(const char *path, struct err *e)
{
	int r = file_make_parent(path, 0700, e);
	if (r < 0)
		return r;
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
	return fd < 0 ? err_set(e, -errno, "%s: %s", path, strerror(errno)) : fd;
}

int history_writable(const char *path, struct err *e)
{
	int fd = open_journal(path, e);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* The person behind sudo, on which machine. */
static void who(char out[256])
{
	char host[128] = "?";
	const struct passwd *user = getpwuid(getuid());
	const char *sudo = getenv("SUDO_USER");
	gethostname(host, sizeof(host) - 1);
	if (sudo || user)
		snprintf(out, 256, "%s@%s", sudo ? sudo : user->pw_name, host);
	else
		snprintf(out, 256, "uid %u@%s", getuid(), host);
}

static void put_text(struct buf *line, const char *key, const char *text)
{
	buf_printf(line, ",\"%s\":", key);
	json_quote(line, span_of(text));
}

static void put_changes(struct buf *line, const struct rollout_plan *plan)
{
	static const char *const what[] = {"enabled", "share", "threshold", "segment value"};
	buf_puts(line, ",\"changes\":[");
	for (size_t i = 0; i < plan->n; i++) {
		const struct rollout_change *c = &plan->changes[i];
		buf_printf(line, "%s{\"what\":\"%s\"", i ? "," : "", what[c->what]);
		if (c->what != ROLLOUT_ENABLED)
			buf_printf(line, ",\"rule\":%zu", c->rule + 1);
		if (c->what == ROLLOUT_SHARE)
			put_text(line, "variant", c->variant);
		buf_printf(line, ",\"from\":%.6g,\"to\":%.6g}", c->from, c->to);
	}
	buf_puts(line, "]");
}

int history_write(const char *path, const struct rollout_record *record, struct err *e)
{
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(LINE_MAX_BYTES);
	char when[CLOCK_TEXT_MAX], name[256] = "";
	clock_format(clock_wall_us(), when);
	if (!record->who)
		who(name);
	buf_printf(&line, "{\"when\":\"%s\"", when);
	put_text(&line, "who", record->who ? record->who : name);
	put_text(&line, "command", record->command);
	put_text(&line, "flag", record->flag);
	if (record->segment)
		put_text(&line, "segment", record->segment);
	if (record->percent >= 0)
		buf_printf(&line, ",\"percent\":%.6g", record->percent);
	buf_printf(&line, ",\"from\":%.4g,\"to\":%.4g", record->from, record->to);
	if (record->plan)
		put_changes(&line, record->plan);
	if (record->step)
		put_text(&line, "step", record->step);
	if (record->message)
		put_text(&line, "message", record->message);
	if (record->evidence.ptr)
		buf_printf(&line, ",\"evidence\":%.*s", SPAN_ARG(record->evidence));
	put_text(&line, "source", record->source);
	put_text(&line, "result", record->result);
	buf_puts(&line, "}\n");
	if (line.error)
		return err_set(e, line.error, "%s: the record is too large", path);
	CLEANUP(closep) int fd = open_journal(path, e);
	if (fd < 0)
		return fd;
	/* One write, so that two at a time do not mix. */
	ssize_t n = write(fd, line.ptr, line.len);
	if (n == (ssize_t)line.len)
		return 0;
	return err_set(e, -EIO, "%s: %s", path, n < 0 ? strerror(errno) : "the disk is full");
}

/* --- showing -------------------------------------------------------------------------------------------- */

static const char *text_of(const struct json_node *entry, const char *key)
{
	const char *text = json_string(json_get(entry, key));
	return text ? text : "";
}

/* What each operation's figures said then. */
static void show_evidence(const struct json_node *evidence)
{
	const struct json_node *operations = json_get(evidence, "operations");
	for (size_t i = 0; i < json_count(operations); i++) {
		const struct json_node *one = json_at(operations, i);
		printf("%21s%s: %s\n", "", text_of(one, "verdict"), text_of(one, "why"));
	}
}

static void show_entry(const struct json_node *entry)
{
	double percent, from, to;
	const char *segment = text_of(entry, "segment");
	printf("%.19s  %-20s  %s %s", text_of(entry, "when"), text_of(entry, "who"),
	       text_of(entry, "command"), text_of(entry, "flag"));
	if (json_number(json_get(entry, "percent"), &percent))
		printf(" %g", percent);
	if (*segment)
		printf(" --segment %s", segment);
	if (json_number(json_get(entry, "from"), &from) && json_number(json_get(entry, "to"), &to))
		printf(": %g %% → %g %% %s", from, to, *segment ? "of the segment" : "of everybody");
	if (*text_of(entry, "step"))
		printf(" (step %s)", text_of(entry, "step"));
	printf("  [%s]\n%21s%s\n", text_of(entry, "result"), "", text_of(entry, "source"));
	if (*text_of(entry, "message"))
		printf("%21s\"%s\"\n", "", text_of(entry, "message"));
	show_evidence(json_get(entry, "evidence"));
}

/* --- how long a step has held --------------------------------------------------------------------------- */

/* The step on which a record left the flag; "" if that is unknown. */
static void history_step_of(const struct json_node *entry, char out[256])
{
	const char *command = text_of(entry, "command"), *segment = text_of(entry, "segment"),
		   *step = text_of(entry, "step"), *result = text_of(entry, "result");
	double percent = -1;
	out[0] = '\0';
	if (strcmp(result, "done") != 0 && strcmp(result, "seen") != 0)
		return;
	json_number(json_get(entry, "percent"), &percent);
	if (*step)
		snprintf(out, 256, "%s", step);
	else if (strcmp(command, "rollback") == 0)
		snprintf(out, 256, "0 %%");
	else if (strcmp(command, "set") == 0 && *segment && percent == 100)
		snprintf(out, 256, "%s", segment);
	else if (strcmp(command, "set") == 0 && !*segment)
		snprintf(out, 256, "%g %%", percent);
}

/* "2026-01-31T08:15:00.123Z" */
static int64_t history_time_of(const struct json_node *entry)
{
	struct tm tm = {.tm_isdst = 0};
	const char *rest = strptime(text_of(entry, "when"), "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t ms = rest && *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
	return rest ? (int64_t)timegm(&tm) * 1000000 + ms * 1000 : 0;
}

static void history_follow(const struct json_node *entry, const char *step, char stands[256],
			   struct history_reached *ret)
{
	char left[256];
	history_step_of(entry, left);
	if (strcmp(text_of(entry, "command"), "advance") == 0 && *left)
		ret->advanced_us = history_time_of(entry);
	if (*left && strcmp(left, stands) == 0)
		return; /* it was there already */
	memcpy(stands, left, sizeof(left));
	ret->since_us = strcmp(left, step) == 0 ? history_time_of(entry) : 0;
}

int history_reached(const char *path, const char *flag, const char *step, struct history_reached *ret,
		    struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FILE_MAX_BYTES + 65536);
	char stands[256] = "";
	*ret = (struct history_reached){0};
	int r = file_read(path, FILE_MAX_BYTES, &text, e);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (struct span rest = buf_span(&text); rest.len;) {
		const char *end = memchr(rest.ptr, '\n', rest.len);
		struct span line = {rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len};
		struct json_doc *doc = NULL;
		if (line.len && json_doc_parse(line, &doc, NULL) == 0 &&
		    strcmp(text_of(json_root(doc), "flag"), flag) == 0)
			history_follow(json_root(doc), step, stands, ret);
		json_doc_free(doc);
		rest = end ? (struct span){end + 1, rest.len - line.len - 1} : SPAN_NONE;
	}
	return 0;
}

int history_lock(const char *path, struct err *e)
{
	int fd = open_journal(path, e);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	int r = errno == EWOULDBLOCK
			? err_set(e, -EBUSY, "another advance is under way (it has %s locked)", path)
			: err_set(e, -errno, "%s: %s", path, strerror(errno));
	close(fd);
	return r;
}

/* --- showing, line by line ------------------------------------------------------------------------------ */

/* A line that was cut (disk full) or is not ours is shown as it is. */
static void show_line(struct span line, const char *flag, bool json)
{
	struct json_doc *doc = NULL;
	bool good = json_doc_parse(line, &doc, NULL) == 0 && json_node_type(json_root(doc)) == JSON_OBJECT;
	if (!flag || (good && strcmp(text_of(json_root(doc), "flag"), flag) == 0)) {
		if (good && !json)
			show_entry(json_root(doc));
		else
			printf("%.*s\n", SPAN_ARG(line));
	}
	json_doc_free(doc);
}

int history_show(const char *path, const char *flag, bool json, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FILE_MAX_BYTES + 65536);
	int r = file_read(path, FILE_MAX_BYTES, &text, e);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!text.len) {
		fprintf(stderr, "%s: no changes made with this program yet\n", path);
		return 0;
	}
	if (!json)
		printf("when (UTC)           who                   what\n");
	for (struct span rest = buf_span(&text); rest.len;) {
		const char *end = memchr(rest.ptr, '\n', rest.len);
		size_t n = end ? (size_t)(end - rest.ptr) : rest.len;
		if (n)
			show_line((struct span){rest.ptr, n}, flag, json);
		n += end ? 1 : 0;
		rest.ptr += n;
		rest.len -= n;
	}
	if (!json)
		printf("\nIn %s. Changes made in Flipt's UI or with an editor are not included.\n", path);
	return 0;
}
