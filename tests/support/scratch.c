#include "support/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void failed(const char *what)
{
	perror(what);
	abort();
}

void scratch_make(char folder[static SCRATCH_MAX])
{
	static const char name[] = "/scratch-XXXXXX";
	const char *where = getenv("TMPDIR");
	if (!where || where[0] != '/') {
		if (!getcwd(folder, SCRATCH_MAX - sizeof(name)))
			failed("getcwd");
	} else if (snprintf(folder, SCRATCH_MAX, "%s", where) >= (int)(SCRATCH_MAX - sizeof(name))) {
		failed("TMPDIR is too long");
	}
	strcat(folder, name);
	if (!mkdtemp(folder))
		failed(folder);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

void scratch_remove(const char *folder)
{
	if (nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS) < 0)
		failed(folder);
}

void scratch_path(const char *folder, const char *name, char path[static SCRATCH_MAX])
{
	if (snprintf(path, SCRATCH_MAX, "%s/%s", folder, name) >= SCRATCH_MAX)
		failed(name);
}
