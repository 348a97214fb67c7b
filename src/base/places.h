/*
 * Places: reads a YAML document into structs, by tables of keys, and collects all mistakes in it. The one
 * reader of router.yml and tasks.yml.
 *
 * Why:       each section says what keys it has in a table; everything that can be wrong with a value is
 *            reported in one place, with file, line and the whole key, and reading continues so that all
 *            mistakes come at once.
 * Absent:    `key:` with no value is treated as absent: its place has no node.
 * Ownership: what is made here is in the arena that the reader was given; spans and texts that are only read
 *            point into the document. Both live as long as what is read.
 * Secrets:   values that may hold one (URLs, hashes, tokens) are never repeated in a message.
 * Threads:   one.
 */
#ifndef BASE_PLACES_H
#define BASE_PLACES_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/yaml.h"

struct place;

struct place_reader {
	const char *name;     /* of the file, for messages */
	const char *folder;   /* what relative paths are prefixed with: "" or "…/" */
	struct arena *memory; /* of what is read */
	struct buf *problems;
	/* reads a value of FIELD_OWN; false when it is wrong and that was said */
	bool (*own)(const struct place *p, void *to);
	unsigned mistakes;
	bool out_of_memory;
};

/* A value and the way to it. Lives on the stack of who reads; `up` outlives it. */
struct place {
	struct place_reader *reader; /* the first member of its owner's, where the owner knows more */
	const struct place *up;
	const struct yaml_node *node; /* NULL: the key is not there (or has no value) */
	struct span key;	      /* SPAN_NONE in a list */
	size_t index;		      /* in a list */
};

struct place place_root(struct place_reader *r, const struct yaml_node *root);
struct place place_member(const struct place *up, const char *key);
struct place place_item(const struct place *up, const struct yaml_node *node); /* of a mapping */
struct place place_element(const struct place *up, const struct yaml_node *node, size_t index);

/* One line "file:line: key: sentence". */
void place_mistake(const struct place *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void place_warning(const struct place *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Zeroed memory of the reader's arena; NULL if out of memory (and remembered). */
void *place_memory(struct place_reader *r, size_t n);
char *place_text(struct place_reader *r, struct span s);
/* A path as written, relative ones prefixed with the file's folder. */
char *place_path(struct place_reader *r, struct span path);
/* A copy with its scheme in lower case. */
char *place_url(struct place_reader *r, struct span url);

/* --- values: false when absent, or when wrong and said so ----------------------------------------------- */
bool value_text(const struct place *p, struct span *ret); /* not empty */
bool value_bool(const struct place *p, bool *ret);
bool value_unsigned(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret);
/* 4096, 16KiB, 1GB */
bool value_size(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret);
bool value_duration(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret); /* ms; 5s, 2m, 500ms */
bool value_url(const struct place *p, const char **ret); /* http or https, a base URL */
/* a path that can be read */
bool value_file(const struct place *p, const char **ret);
/* One of `names`; its index. */
bool value_choice(const struct place *p, const char *const *names, size_t n, size_t *ret);
/* A mapping (or nothing at all, which is an empty one); a mistake otherwise. */
bool value_mapping(const struct place *p);
/* A list, or a single value in place of one; calls `each` for every element. More than `max` is a mistake. */
void value_list(const struct place *p, size_t max, void (*each)(const struct place *element, void *arg),
		void *arg);
/* Letters, digits, '_', '-', '.', at most `max` bytes: names of services, operations, flags. */
bool check_name(const struct place *p, struct span name, size_t max);
/* What is wrong with a value, for messages: "…" with a limit and without line breaks, a mapping, a list. */
struct shown {
	char text[80];
};
struct shown place_shown(const struct yaml_node *n);

/* --- tables of keys ------------------------------------------------------------------------------------- */
enum field_kind {
	FIELD_SPAN,	/* struct span */
	FIELD_TEXT,	/* const char * */
	FIELD_PATH,	/* const char *, relative to the file's folder */
	FIELD_FILE,	/* the same, and it must be readable */
	FIELD_URL,	/* const char * */
	FIELD_BOOL,	/* bool */
	FIELD_UNSIGNED, /* unsigned */
	FIELD_SIZE,	/* uint64_t */
	FIELD_SIZE_T,	/* size_t */
	FIELD_DURATION, /* unsigned, milliseconds */
	FIELD_OWN,	/* what the owner of the reader reads: place_reader.own */
	FIELD_OTHER,	/* known; read by other code */
};

struct field {
	const char *key;
	enum field_kind kind;
	size_t offset;	   /* in the struct that is filled */
	uint64_t min, max; /* numbers, sizes (bytes), durations (ms) */
};

/* Reads the members of a mapping into `into`; keys that are not in the table are mistakes, but for x-… at the
 * top of the file. */
void read_fields(const struct place *p, const struct field *fields, size_t n, void *into);
#define READ_FIELDS(p, fields, into) read_fields(p, fields, sizeof(fields) / sizeof((fields)[0]), into)
/* Says that a key is none of these, and which one was perhaps meant. */
void unknown_key(const struct place *p, struct span key, const char *const *known, size_t n);

#endif
