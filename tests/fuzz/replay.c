/*
 * Runs a fuzz target on the files of the folders given, without libFuzzer, so that every compiler's test run
 * covers what fuzzing once found. An empty or missing folder is no error; the count is printed.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>

#include "base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(64u << 20);
	struct err e;
	if (file_read(path, 64u << 20, &b, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return -1;
	}
	/* Exactly as long as the content, so that a sanitizer sees a read behind it. */
	uint8_t *copy = malloc(b.len ? b.len : 1);
	if (!copy)
		return -1;
	memcpy(copy, b.ptr, b.len);
	LLVMFuzzerTestOneInput(copy, b.len);
	free(copy);
	return 0;
}

static int run_folder(const char *folder)
{
	int count = 0;
	DIR *dir = opendir(folder);
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		char path[4096];
		if (entry->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path))
			continue;
		if (run_file(path) < 0)
			return -1;
		count++;
	}
	if (dir)
		closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	int total = 0;
	for (int i = 1; i < argc; i++) {
		int n = run_folder(argv[i]);
		if (n < 0)
			return 1;
		total += n;
	}
	printf("%d inputs\n", total);
	return 0;
}
