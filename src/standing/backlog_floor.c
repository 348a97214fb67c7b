#include "standing/backlog_floor.h"

void backlog_floor_note(struct backlog_floor *f, int64_t backlog, int64_t now_ms)
{
	if (backlog < 0) {
		*f = (struct backlog_floor){.begun = false};
		return;
	}
	if (!f->begun)
		*f = (struct backlog_floor){.begun = true, .newer = backlog, .began_ms = now_ms};
	if (now_ms - f->began_ms >= BACKLOG_FLOOR_MS) {
		f->whole = true;
		f->older = f->newer;
		f->newer = backlog;
		f->began_ms = now_ms;
	}
	if (backlog < f->newer)
		f->newer = backlog;
}

int64_t backlog_floor(const struct backlog_floor *f)
{
	if (!f->whole)
		return -1;
	return f->newer < f->older ? f->newer : f->older;
}
