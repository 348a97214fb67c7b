/*
 * What every source of flag snapshots (features file, Flipt) reports: to its owner, and about itself for
 * /readyz.
 */
#ifndef FLAGS_SOURCE_FLAG_SOURCE_H
#define FLAGS_SOURCE_FLAG_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "flags/flags.h"
#include "flags/source/flipt_credential.h"

enum flag_source_kind { FLAG_SOURCE_FILE, FLAG_SOURCE_FLIPT };

/* As configured (`flags:`); each kind of source uses its own fields. Texts are copied by the receiver. */
struct flag_source_options {
	enum flag_source_kind kind;
	const char *file;	   /* features file, or a folder of them */
	const char *url;	   /* http(s)://host[:port][/prefix] */
	const char *namespace_key; /* which documents of the file count, or the server's; NULL: default */
	const char *environment;   /* the server's; NULL: default */
	const char *ca_file;	   /* or NULL */
	const char *snapshot_file; /* last good state on disk, or NULL */
	enum flag_rules rules;	   /* of a file, and of a v2 server that does not report its version */
	bool rules_given;	   /* false: a default, overridden by the last good snapshot's rules */
	enum flipt_auth auth;
	const char *token; /* or NULL; where there is a file, as it was when the configuration was read */
	const char *token_file; /* where it is read from, reread when it changes, or NULL */
	unsigned poll_ms;
	/* how long the server may be silent within an answer; the whole answer may take three times as
	 * long */
	unsigned timeout_ms;
	unsigned stream_idle_ms; /* a stream that is silent for this long is reopened */
	bool stream;
};

/* Whether both options name the same source. Another token in the same file is not another source:
 * it is read again. */
bool flag_source_same(const struct flag_source_options *a, const struct flag_source_options *b);

struct flag_source_events {
	/* A new good snapshot; the callee takes its own reference. On the source's loop. */
	void (*publish)(void *arg, const struct flag_snapshot *snapshot);
	/* The newest state could not be fetched or used, and why (file, line, key); once per state. May be
	 * NULL. */
	void (*failed)(void *arg, const char *why);
	void *arg;
};
/* Neither may stop the source. */

#define FLAG_CARRIED_NAMED 8

/* Flags in use that the source no longer has: their last good definition stays in use. */
struct flag_carried {
	size_t n;
	char names[FLAG_CARRIED_NAMED][128]; /* the first of them */
};

struct flag_source_status {
	const char *kind; /* "file", "flipt" (version not known yet), "flipt v1", "flipt v2" */
	char where[256];  /* path, or URL without credentials */
	int64_t good_us;  /* wall clock of the last time the state in use was confirmed; 0 = never */
	char digest[80];  /* the source's own */
	char content[80]; /* of its content (flag_snapshot_content); "" where the digest is of the content */
	char version[32]; /* of the server; "" when not known */
	bool failing;	  /* the newest state could not be fetched or used */
	bool streaming;	  /* changes are pushed */
	char last_error[512];
	struct flag_carried carried;
	/* what is in use could not be written to disk: a restart would start with older flags */
	bool unsaved;
};

#endif
