#include "support/outcome_place.h"

#include <stdlib.h>

int open_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	if (!p)
		return -1;
	scratch_make(p->folder);
	scratch_path(p->folder, "outcomes.db", p->file);
	*state = p;
	return series_table_new(&p->series) || outcome_store_open(p->file, p->series, &p->store, NULL);
}

int close_place(void **state)
{
	struct place *p = *state;
	p->store = outcome_store_close(p->store);
	p->series = series_table_free(p->series);
	scratch_remove(p->folder);
	free(p);
	return 0;
}
