#include "config/config_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* --- reading -------------------------------------------------------------------------------------------- */

static void config_set_defaults(struct config_reader *r)
{
	struct config *c = r->config;
	c->path = place_text(&r->file, span_of(r->file.name));
	c->data_dir = place_path(&r->file, SPAN_LIT("data"));
	c->hatchet_flag = SPAN_LIT("hatchet_backend_enabled");
	c->max_head = 16 << 10;
	c->max_inspect_body = 16 << 20;
	c->max_inspect_memory = 256 << 20;
	c->drain_timeout_ms = 30000;
}

static void read_top(const struct place *root)
{
	static const struct field fields[] = {
		{"services", FIELD_OTHER, 0, 0, 0},
		{"identity", FIELD_OTHER, 0, 0, 0},
		{"entity", FIELD_OTHER, 0, 0, 0},
		{"error", FIELD_OTHER, 0, 0, 0},
		{"tokens", FIELD_OTHER, 0, 0, 0},
		{"trusted_proxies", FIELD_OTHER, 0, 0, 0},
		{"backend", FIELD_OTHER, 0, 0, 0},
		{"backends", FIELD_OTHER, 0, 0, 0},
		{"fail_fast", FIELD_BOOL, offsetof(struct config, fail_fast), 0, 0},
		{"hatchet_flag", FIELD_SPAN, offsetof(struct config, hatchet_flag), 0, 0},
		{"flags", FIELD_OTHER, 0, 0, 0},
		{"outcomes", FIELD_OTHER, 0, 0, 0},
		{"rollout", FIELD_OTHER, 0, 0, 0},
		{"state", FIELD_OTHER, 0, 0, 0},
		{"admin", FIELD_OTHER, 0, 0, 0},
		{"routers", FIELD_OTHER, 0, 0, 0},
		{"override", FIELD_OTHER, 0, 0, 0},
		{"limits", FIELD_OTHER, 0, 0, 0},
		{"compare", FIELD_OTHER, 0, 0, 0},
		{"access_log", FIELD_OTHER, 0, 0, 0},
		{"guard", FIELD_OTHER, 0, 0, 0},
		{"traces", FIELD_OTHER, 0, 0, 0},
		{"access_log_file", FIELD_PATH, offsetof(struct config, access_log_file), 0, 0},
		{"data", FIELD_PATH, offsetof(struct config, data_dir), 0, 0},
		{"threads", FIELD_UNSIGNED, offsetof(struct config, threads), 0, 64},
		{"drain_timeout", FIELD_DURATION, offsetof(struct config, drain_timeout_ms), 0, 3600000},
	};
	READ_FIELDS(root, fields, config_of(root));
	const struct yaml_node *hatchet_flag = yaml_get(root->node, "hatchet_flag");
	if (yaml_is_null(hatchet_flag))
		config_of(root)->hatchet_flag = SPAN_NONE;
}

static void read_sections(const struct place *root)
{
	struct place tokens = place_member(root, "tokens");
	struct place p = place_member(root, "trusted_proxies");
	read_trusted_proxies(&p);
	read_backends(root);
	read_environment_defaults(config_reader_of(root));
	p = place_member(root, "flags");
	read_flag_source(&p);
	p = place_member(root, "outcomes");
	read_outcomes(&p);
	p = place_member(root, "state");
	read_state(&p);
	p = place_member(root, "admin");
	read_admin(&p, &tokens);
	p = place_member(root, "routers");
	read_routers(&p);
	p = place_member(root, "override");
	read_override(&p);
	p = place_member(root, "limits");
	read_limits(&p);
	p = place_member(root, "compare");
	read_compare_limits(&p);
	p = place_member(root, "access_log");
	read_access_log(&p);
	p = place_member(root, "guard");
	read_guard_webhook(&p);
	p = place_member(root, "traces");
	read_traces(&p);
	read_services(root);
	p = place_member(root, "rollout");
	read_rollouts(&p);
}

static void config_read_all(struct config_reader *r, const struct yaml_node *node)
{
	struct place root = place_root(&r->file, node);
	config_set_defaults(r);
	read_top(&root);
	if (root.node && root.node->kind != YAML_MAPPING)
		return;
	read_sections(&root);
	check_config(&root);
	if (r->file.mistakes)
		/* all mistakes are reported at once; otherwise the backends themselves are made from these
		 * values */
		judge_backends(r);
}

/* What says where flags lie; what is wrong elsewhere, or with where outcomes lie, does not matter. */
static void read_flags_only(struct config_reader *r, const struct yaml_node *node)
{
	struct place root = place_root(&r->file, node), flags = place_member(&root, "flags"),
		     outcomes = place_member(&root, "outcomes");
	struct place data = place_member(&root, "data");
	struct span folder;
	config_set_defaults(r);
	if (node && node->kind != YAML_MAPPING)
		place_mistake(&root, "expected a mapping");
	if (data.node && yaml_string(data.node, &folder))
		r->config->data_dir = place_path(&r->file, folder);
	read_outcomes(&outcomes);
	r->file.mistakes = 0;
	read_flag_source(&flags);
}

/* "conf/router.yml" → "conf/" */
static char *folder_of(const char *name)
{
	const char *slash = strrchr(name, '/');
	return span_dup((struct span){name, slash ? (size_t)(slash - name) + 1 : 0});
}

typedef void config_read(struct config_reader *r, const struct yaml_node *node);

static int parse_whole(struct config_whole *w, const char *name, struct span text, struct config_reader *r,
		       config_read *read)
{
	struct err e = {""};
	int code = yaml_parse(name, text, &w->doc, &e);
	if (code < 0) {
		buf_printf(r->file.problems, "%s\n", e.text);
		return code == -ENOMEM ? code : -EBADMSG;
	}
	read(r, yaml_root(w->doc));
	if (r->file.out_of_memory) {
		buf_printf(r->file.problems, "%s: out of memory\n", name);
		return -ENOMEM;
	}
	return r->file.mistakes ? -EBADMSG : 0;
}

static int parse_by(const char *name, struct span text, const char *(*getenv_fn)(const char *),
		    struct buf *problems, config_read *read, struct config **ret)
{
	struct config_whole *w = calloc(1, sizeof(*w));
	CLEANUP(freep) char *folder = folder_of(name);
	if (!w || !folder) {
		free(w);
		return -ENOMEM;
	}
	atomic_init(&w->refs, 1);
	w->memory = ARENA_INIT(CONFIG_MAX_MEMORY);
	struct config_reader r = {.file = {.name = name,
					   .folder = folder,
					   .memory = &w->memory,
					   .problems = problems,
					   .own = value_listen},
				  .config = &w->pub,
				  .getenv_fn = getenv_fn};
	int code = parse_whole(w, name, text, &r, read);
	if (code == 0)
		*ret = &w->pub;
	else
		config_whole_free(w);
	return code;
}

int config_parse(const char *name, struct span text, const char *(*getenv_fn)(const char *),
		 struct buf *problems, struct config **ret)
{
	return parse_by(name, text, getenv_fn, problems, config_read_all, ret);
}

static int load_by(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		   config_read *read, struct config **ret)
{
	/* file_read reads in steps: room for one more than the limit it checks itself. */
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(CONFIG_MAX_FILE + (128u << 10));
	struct err e = {""};
	int code = file_read(path, CONFIG_MAX_FILE, &text, &e);
	if (code < 0) {
		buf_printf(problems, "%s\n", e.text);
		return code;
	}
	return parse_by(path, buf_span(&text), getenv_fn, problems, read, ret);
}

int config_load(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		struct config **ret)
{
	return load_by(path, getenv_fn, problems, config_read_all, ret);
}

int config_load_flags(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		      struct config **ret)
{
	return load_by(path, getenv_fn, problems, read_flags_only, ret);
}
