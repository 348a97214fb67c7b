#include "support/outcome_place.h"

#include <string.h>

int open_place(void **state)
{
	static struct place p;
	memset(&p, 0, sizeof(p));
	scratch_make(p.folder);
	scratch_path(p.folder, "outcomes.db", p.file);
	*state = &p;
	return series_table_new(&p.series) || outcome_store_open(p.file, p.series, &p.store, NULL);
}

int close_place(void **state)
{
	struct place *p = *state;
	p->store = outcome_store_close(p->store);
	p->series = series_table_free(p->series);
	scratch_remove(p->folder);
	return 0;
}
