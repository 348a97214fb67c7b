/*
 * The side tables and triggers of store_flow.c, made where they are not: without a version, as worker_knows.
 */
#include "tasks/queue/store_internal.h"

static const char flow_tables[] =
	"CREATE TABLE IF NOT EXISTS flow (seq INTEGER PRIMARY KEY, definition TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS flow_due (seq INTEGER PRIMARY KEY);"
	"CREATE TRIGGER IF NOT EXISTS flow_step_ended AFTER UPDATE OF state ON task"
	" WHEN NEW.parent < 0 AND NEW.state >= 2 AND OLD.state < 2 BEGIN"
	" INSERT OR IGNORE INTO flow_due (seq) VALUES (-NEW.parent); END;"
	"CREATE TRIGGER IF NOT EXISTS flow_ended AFTER UPDATE OF state ON task"
	" WHEN NEW.workflow = 1 AND NEW.state >= 2 AND OLD.state < 2"
	" AND EXISTS (SELECT 1 FROM flow WHERE seq = NEW.seq) BEGIN"
	" INSERT OR IGNORE INTO flow_due (seq) VALUES (NEW.seq); END;"
	"CREATE TRIGGER IF NOT EXISTS flow_cancelled AFTER UPDATE OF cancel ON task"
	" WHEN NEW.workflow = 1 AND NEW.cancel = 1 AND OLD.cancel = 0"
	" AND EXISTS (SELECT 1 FROM flow WHERE seq = NEW.seq) BEGIN"
	" INSERT OR IGNORE INTO flow_due (seq) VALUES (NEW.seq); END;"
	"CREATE TRIGGER IF NOT EXISTS flow_gone AFTER DELETE ON task WHEN OLD.workflow = 1 BEGIN"
	" DELETE FROM flow WHERE seq = OLD.seq; DELETE FROM flow_due WHERE seq = OLD.seq;"
	" DELETE FROM input WHERE seq IN (SELECT seq FROM task WHERE parent = -OLD.seq);"
	" DELETE FROM output WHERE seq IN (SELECT seq FROM task WHERE parent = -OLD.seq);"
	" DELETE FROM task WHERE parent = -OLD.seq; END";

int store_flow_tables(struct store *s, struct err *e)
{
	int64_t n = 0;
	int r = db_query_int64(s->db, "SELECT count(*) FROM sqlite_master WHERE name = 'flow_gone'", &n, e);
	if (r < 0 || n > 0)
		return r;
	r = db_begin(s->db, e);
	if (r == 0)
		r = db_exec(s->db, flow_tables, e);
	if (r == 0)
		r = db_commit(s->db, e);
	if (r < 0)
		db_rollback(s->db);
	return r;
}
