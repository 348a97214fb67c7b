/* What concerns the process and not one service: flag source, outcomes, admin listener, override, proxies,
 * limits. */
#include "config/config_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/url.h"

#define DAY_MS 86400000ull

/* A file in the data folder. */
static const char *data_path(struct config_reader *r, const char *file)
{
	const char *folder = r->config->data_dir ? r->config->data_dir : "data";
	size_t n = strlen(folder) + strlen(file) + 2;
	char *path = place_memory(&r->file, n);
	if (path)
		snprintf(path, n, "%s/%s", folder, file);
	return path;
}

/* --- flags ---------------------------------------------------------------------------------------------- */

/* What a variable says, without the line end and blanks that files and shells leave around it; it obeys
 * the rules of the file's values. */
static bool environment_text(struct config_reader *r, const char *variable, struct span *ret)
{
	const char *value = environment_get(r, variable);
	if (!value)
		return false;
	*ret = span_strip(span_of(value));
	if (!ret->len) {
		environment_mistake(r, variable, "is empty");
		return false;
	}
	for (size_t i = 0; i < ret->len; i++)
		if ((unsigned char)ret->ptr[i] < 0x20 || ret->ptr[i] == 0x7f) {
			environment_mistake(r, variable, "has control characters");
			return false;
		}
	return true;
}

static void override_url(struct config_reader *r, const char *variable, const char **url)
{
	struct span value;
	if (!environment_text(r, variable, &value))
		return;
	const char *wrong = url_mistake(value, URL_BASE);
	if (wrong)
		environment_mistake(r, variable, "%s", wrong);
	else
		*url = place_url(&r->file, value);
}

static void override_text(struct config_reader *r, const char *variable, const char **text)
{
	struct span value;
	if (environment_text(r, variable, &value))
		*text = place_text(&r->file, value);
}

/* Of a variable; its content is never shown. */
static void override_token(struct config_reader *r, const char *variable, const char **token,
			   const char **file)
{
	struct span value;
	if (!environment_text(r, variable, &value))
		return;
	const char *wrong = flipt_token_mistake(value);
	if (wrong)
		environment_mistake(r, variable, "%s", wrong);
	*token = place_text(&r->file, value);
	*file = NULL;
}

/* The file's one token; its content is never shown. */
static void read_token_file(const struct place *p, const char *path, const char **ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLIPT_TOKEN_MAX + (128u << 10));
	struct err e = {""};
	struct stat st;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		place_mistake(p, "%s: not a regular file", path);
		return;
	}
	if (file_read(path, FLIPT_TOKEN_MAX, &text, &e) < 0) {
		place_mistake(p, "%s", e.text);
		return;
	}
	struct span token = span_strip(buf_span(&text));
	const char *wrong = token.len ? flipt_token_mistake(token) : "is empty";
	if (wrong)
		place_mistake(p, "%s %s", path, wrong);
	else
		*ret = place_text(p->reader, token);
}

static void config_process_read_token(const struct place *p, struct config *c)
{
	static const char *const auths[] = {"bearer", "jwt", "kubernetes"};
	struct place auth = place_member(p, "auth"), token = place_member(p, "token_file");
	size_t which = FLIPT_BEARER;
	if (value_choice(&auth, auths, 3, &which))
		c->flags.auth = (enum flipt_auth)which;
	bool given = value_file(&token, &c->flags.token_file);
	if (!given && !token.node && c->flags.auth == FLIPT_KUBERNETES &&
	    !environment_get(config_reader_of(p), "FLIPT_CLIENT_TOKEN"))
		c->flags.token_file = place_text(p->reader, SPAN_LIT(FLIPT_SERVICE_ACCOUNT));
	if (c->flags.token_file)
		read_token_file(given ? &token : &auth, c->flags.token_file, &c->flags.token);
	override_token(config_reader_of(p), "FLIPT_CLIENT_TOKEN", &c->flags.token, &c->flags.token_file);
}

static void check_flag_file(const struct place *p, const char *path)
{
	if (path && access(path, R_OK) != 0)
		place_warning(p, "%s cannot be read right now; until it can, flags have their defaults",
			      path);
}

static void read_flag_kind(const struct place *p, struct config *c)
{
	static const char *const kinds[] = {"file", "flipt"}, *const rules[] = {"v1", "v2.0", "v2.9", "v2.11",
										"v2"};
	struct place source = place_member(p, "source"), version = place_member(p, "rules");
	size_t which;
	if (value_choice(&source, kinds, 2, &which))
		c->flags.kind = which ? FLAG_SOURCE_FLIPT : FLAG_SOURCE_FILE;
	if (value_choice(&version, rules, 5, &which))
		c->flags.rules_given = flag_rules_parse(span_of(rules[which]), &c->flags.rules);
}

void read_flag_source(const struct place *p)
{
	static const struct field fields[] = {
		{"source", FIELD_OTHER, 0, 0, 0},
		{"rules", FIELD_OTHER, 0, 0, 0},
		{"auth", FIELD_OTHER, 0, 0, 0},
		{"token_file", FIELD_OTHER, 0, 0, 0},
		{"file", FIELD_PATH, offsetof(struct flag_source_options, file), 0, 0},
		{"url", FIELD_URL, offsetof(struct flag_source_options, url), 0, 0},
		{"namespace", FIELD_TEXT, offsetof(struct flag_source_options, namespace_key), 0, 0},
		{"environment", FIELD_TEXT, offsetof(struct flag_source_options, environment), 0, 0},
		{"ca_file", FIELD_FILE, offsetof(struct flag_source_options, ca_file), 0, 0},
		{"snapshot", FIELD_PATH, offsetof(struct flag_source_options, snapshot_file), 0, 0},
		{"poll", FIELD_DURATION, offsetof(struct flag_source_options, poll_ms), 100, DAY_MS},
		{"timeout", FIELD_DURATION, offsetof(struct flag_source_options, timeout_ms), 100, 600000},
		{"stream_idle", FIELD_DURATION, offsetof(struct flag_source_options, stream_idle_ms), 100,
		 DAY_MS},
		{"stream", FIELD_BOOL, offsetof(struct flag_source_options, stream), 0, 0},
	};
	struct config_reader *r = config_reader_of(p);
	struct config *c = r->config;
	c->flags.namespace_key = "default";
	c->flags.environment = "default";
	c->flags.poll_ms = 30000;
	c->flags.timeout_ms = 10000;
	c->flags.stream_idle_ms = 600000;
	c->flags.stream = true;
	c->flags.file = place_path(&r->file, SPAN_LIT("flags.yml"));
	c->flags.snapshot_file = data_path(r, "flags.snapshot.json");
	READ_FIELDS(p, fields, &c->flags);
	read_flag_kind(p, c);
	struct place file = place_member(p, "file"), url = place_member(p, "url");
	config_process_read_token(p, c);
	if (environment_get(r, "FLIPT_SERVER_URL"))
		c->flags.kind = FLAG_SOURCE_FLIPT;
	override_url(r, "FLIPT_SERVER_URL", &c->flags.url);
	override_text(r, "FLIPT_NAMESPACE", &c->flags.namespace_key);
	override_text(r, "FLIPT_ENVIRONMENT", &c->flags.environment);
	if (c->flags.kind == FLAG_SOURCE_FILE)
		check_flag_file(&file, c->flags.file);
	else if (!c->flags.url && !url.node)
		place_mistake(
			&url,
			"missing: the source flipt needs the server's URL, here or in FLIPT_SERVER_URL");
}

/* --- outcomes, admin, override -------------------------------------------------------------------------- */

void read_outcomes(const struct place *p)
{
	static const struct field fields[] = {
		{"path", FIELD_PATH, offsetof(struct recorder_options, path), 0, 0},
		{"flush", FIELD_DURATION, offsetof(struct recorder_options, flush_ms), 1, 60000},
		{"queue_slots", FIELD_UNSIGNED, offsetof(struct recorder_options, queue_slots), 64, 1 << 22},
		{"retention_days", FIELD_UNSIGNED, offsetof(struct recorder_options, retention_days), 1,
		 36500},
		{"rollup_retention_days", FIELD_UNSIGNED,
		 offsetof(struct recorder_options, retention_rollup_days), 1, 36500},
		{"max_size", FIELD_SIZE, offsetof(struct recorder_options, max_bytes), 1 << 20, 1ull << 50},
		{"hash_users", FIELD_BOOL, offsetof(struct recorder_options, hash_users), 0, 0}};
	struct config *c = config_of(p);
	c->outcomes.path = data_path(config_reader_of(p), "outcomes.db");
	c->outcomes.flush_ms = 50;
	c->outcomes.queue_slots = 32768;
	c->outcomes.retention_days = 30;
	c->outcomes.retention_rollup_days = 400;
	c->outcomes.max_bytes = 4ull << 30;
	READ_FIELDS(p, fields, &c->outcomes);
}

#define ADMIN_HOSTS_MAX 64

static void add_admin_host(const struct place *p, void *arg)
{
	struct config *c = arg;
	struct span text;
	if (!value_text(p, &text))
		return;
	if (!text.len || strcspn(text.ptr, "/:@ ") < text.len)
		place_mistake(p, "expected a host's name without scheme and port");
	else
		c->admin.hosts[c->admin.n_hosts++] = text;
}

void read_admin(const struct place *p, const struct place *tokens)
{
	static const struct field fields[] = {
		{"listen", FIELD_LISTEN, offsetof(struct config, admin.listen), 0, 0},
		{"auth", FIELD_OTHER, 0, 0, 0},
		{"tokens", FIELD_OTHER, 0, 0, 0},
		{"hosts", FIELD_OTHER, 0, 0, 0},
		{"writers", FIELD_OTHER, 0, 0, 0},
		{"session", FIELD_DURATION, offsetof(struct config, admin.session_ms), 60000, 7 * 86400000},
		{"https", FIELD_BOOL, offsetof(struct config, admin.https), 0, 0},
	};
	struct config *c = config_of(p);
	struct place hosts = place_member(p, "hosts");
	c->admin.hosts = place_memory(p->reader, ADMIN_HOSTS_MAX * sizeof(*c->admin.hosts));
	if (c->admin.hosts)
		value_list(&hosts, ADMIN_HOSTS_MAX, add_admin_host, c);
	struct place auth = place_member(p, "auth"), own = place_member(p, "tokens"),
		     listen = place_member(p, "listen");
	struct place writers = place_member(p, "writers");
	c->admin.listen = "127.0.0.1:9900";
	c->admin.session_ms = 12 * 3600000;
	READ_FIELDS(p, fields, c);
	if (auth.node)
		read_admin_auth(&auth, own.node ? &own : tokens, &c->admin.auth);
	else if (listen_is_loopback(c->admin.listen))
		c->admin.auth.kind = AUTH_NONE;
	else
		place_mistake(&listen,
			      "reachable from other hosts: set \"auth: bearer\" or \"auth: none\" beside it");
	read_admin_writers(&writers, c);
}

void read_override(const struct place *p)
{
	static const struct field fields[] = {
		{"enabled", FIELD_BOOL, offsetof(struct config, override.enabled), 0, 0},
		{"secret_sha256", FIELD_OTHER, 0, 0, 0},
	};
	struct config *c = config_of(p);
	READ_FIELDS(p, fields, c);
	struct place secret = place_member(p, "secret_sha256");
	struct span hash;
	if (!secret.node && c->override.enabled)
		place_mistake(&secret, "missing: an override needs a secret; give its SHA-256 in hex");
	if (!secret.node || !value_text(&secret, &hash))
		return;
	char *copy = place_memory(p->reader, CRYPTO_SHA256_HEX);
	if (copy && !crypto_sha256_read(hash, copy))
		place_mistake(&secret, "expected the SHA-256 of the secret in 64 hex digits");
	c->override.secret_sha256 = copy;
}

/* --- proxies and limits --------------------------------------------------------------------------------- */

static void add_range(struct config *c, struct span text, const struct cidr *range)
{
	c->trusted_proxies.cidr[c->trusted_proxies.n_cidr] = text;
	c->trusted_proxies.ranges[c->trusted_proxies.n_cidr++] = *range;
}

static void add_proxy(const struct place *p, void *arg)
{
	struct cidr range;
	struct span text;
	struct err e = {""};
	if (!value_text(p, &text))
		return;
	if (cidr_parse(text, &range, &e) != 0)
		place_mistake(p, "%s", e.text);
	else
		add_range(arg, text, &range);
}

#define PROXIES_MAX 256

void read_trusted_proxies(const struct place *p)
{
	struct config *c = config_of(p);
	c->trusted_proxies.cidr = place_memory(p->reader, PROXIES_MAX * sizeof(*c->trusted_proxies.cidr));
	c->trusted_proxies.ranges = place_memory(p->reader, PROXIES_MAX * sizeof(*c->trusted_proxies.ranges));
	if (!c->trusted_proxies.cidr || !c->trusted_proxies.ranges)
		return;
	if (p->node) {
		value_list(p, PROXIES_MAX, add_proxy, c);
		return;
	}
	static const char *const local[] = {"127.0.0.0/8", "::1", "unix"};
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		struct cidr range;
		if (cidr_parse(span_of(local[i]), &range, NULL) == 0)
			add_range(c, span_of(local[i]), &range);
	}
}

void read_limits(const struct place *p)
{
	static const struct field fields[] = {
		{"max_head", FIELD_SIZE_T, offsetof(struct config, max_head), 1 << 10, 1 << 20},
		{"max_inspect_body", FIELD_SIZE_T, offsetof(struct config, max_inspect_body), 0, 1 << 30},
		{"max_inspect_memory", FIELD_SIZE, offsetof(struct config, max_inspect_memory), 0,
		 1ull << 44}};
	struct config *c = config_of(p);
	READ_FIELDS(p, fields, c);
	if (c->max_inspect_memory < c->max_inspect_body)
		place_mistake(p, "max_inspect_memory covers all requests together and cannot be below "
				 "max_inspect_body");
}

void read_access_log(const struct place *p)
{
	static const char *const modes[] = {"off", "errors", "all"};
	struct config *c = config_of(p);
	size_t which;
	if (value_choice(p, modes, 3, &which))
		c->access_log = (enum access_log_mode)which;
	if (c->access_log_file && c->access_log == ACCESS_LOG_OFF && !p->node)
		place_mistake(p, "missing: without \"access_log: errors\" or \"all\", access_log_file is "
				 "never written");
}
