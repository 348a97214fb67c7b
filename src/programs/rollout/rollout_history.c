#include "programs/rollout/rollout_history.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
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
	char when[CLOCK_TEXT_MAX], name[256];
	clock_format(clock_wall_us(), when);
	who(name);
	buf_printf(&line, "{\"when\":\"%s\"", when);
	put_text(&line, "who", name);
	put_text(&line, "command", record->command);
	put_text(&line, "flag", record->flag);
	if (record->segment)
		put_text(&line, "segment", record->segment);
	if (record->percent >= 0)
		buf_printf(&line, ",\"percent\":%.6g", record->percent);
	buf_printf(&line, ",\"from\":%.4g,\"to\":%.4g", record->from, record->to);
	put_changes(&line, record->plan);
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
	printf("  [%s]\n%21s%s\n", text_of(entry, "result"), "", text_of(entry, "source"));
}

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
		fprintf(stderr, "%s records no changes made with this program\n", path);
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
