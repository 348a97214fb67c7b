/* decide: which side, backend and reason, from flags written as Flipt's features files are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "router/decide.h"

static const char features[] = "namespace: default\n"
			       "flags:\n"
			       "- {key: on, type: BOOLEAN_FLAG_TYPE, enabled: true}\n"
			       "- {key: off, type: BOOLEAN_FLAG_TYPE, enabled: false}\n"
			       "- {key: half, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: "
			       "[{threshold: {percentage: 50, value: true}}]}\n"
			       "- {key: zero, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: "
			       "[{threshold: {percentage: 0, value: true}}]}\n"
			       "- {key: hundred, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: "
			       "[{threshold: {percentage: 100, value: true}}]}\n"
			       "- {key: hatchet_backend_enabled, type: BOOLEAN_FLAG_TYPE, enabled: false,"
			       "   rollouts: [{segment: {key: hatchet_org, value: true}}]}\n"
#define VARIANT(key, enabled, variant, attachment) \
	"- {key: " key ", type: VARIANT_FLAG_TYPE, enabled: " enabled ", variants: [{key: '" variant \
	"'" attachment "}], rules: [{segment: everybody, distributions: [{variant: '" variant \
	"', rollout: 100}]}]}\n"
	VARIANT("v0", "true", "0", "") VARIANT("v100", "true", "100", "") VARIANT(
		"v25", "true", "25", "") VARIANT("vcontrol", "true", "control",
						 "") VARIANT("vcelery", "true", "celery",
							     "") VARIANT("vtemporal", "true", "temporal", "")
		VARIANT("vshadow", "true", "shadow", "") VARIANT("vdisabled", "false", "100", "") VARIANT(
			"vown", "true", "blue",
			"") VARIANT("vattach", "true", "0",
				    ", attachment: {side: task, backend: celery}") VARIANT("vattach_shadow",
											   "true", "100",
											   ", attachment: "
											   "{shadow: 0.1}")
			VARIANT("vattach_unknown", "true", "100", ", attachment: {backend: ingest}") VARIANT(
				"vattach_shadow_unknown", "true", "100",
				", attachment: {shadow: 0.5, backend: ingest}")
				VARIANT("vattach_odd", "true", "100",
					", attachment: [1, 2]") "- {key: vnomatch, type: VARIANT_FLAG_TYPE, "
								"enabled: true, variants: [{key: '100'}],"
								"   rules: [{segment: nobody, distributions: "
								"[{variant: '100', rollout: 100}]}]}\n"
								"- {key: vhalf, type: VARIANT_FLAG_TYPE, "
								"enabled: true, variants: [{key: '0'}, {key: "
								"'50'}],"
								"   rules: [{segment: everybody, "
								"distributions: [{variant: '50', rollout: "
								"50}, {variant: '0', rollout: 50}]}]}\n"
								"segments:\n"
								"- {key: everybody, match_type: "
								"ALL_MATCH_TYPE}\n"
								"- {key: nobody, match_type: ANY_MATCH_TYPE, "
								"constraints: [{type: "
								"STRING_COMPARISON_TYPE, property: user_id,"
								"   operator: eq, value: never}]}\n"
								"- {key: hatchet_org, match_type: "
								"ANY_MATCH_TYPE, constraints: [{type: "
								"STRING_COMPARISON_TYPE,"
								"   property: organization_id, operator: eq, "
								"value: hatchet-org}]}\n";

static struct flag_snapshot *snapshot;
static struct config config;
static struct variant_map own_map[] = {
	{.variant = SPAN_INIT("blue"), .task = true, .backend = SPAN_INIT("celery")}};

static int setup(void **state)
{
	(void)state;
	struct err e;
	int r = flag_snapshot_parse_features("features", SPAN_LIT(features), FLAG_RULES_V2, &snapshot, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	config.backends[0].name = SPAN_LIT("embedded");
	config.backends[1].name = SPAN_LIT("celery");
	config.backends[2].name = SPAN_LIT("hatchet");
	config.n_backends = 3;
	config.default_backend = SPAN_LIT("embedded");
	config.hatchet_flag = SPAN_LIT("hatchet_backend_enabled");
	return r;
}

static int teardown(void **state)
{
	(void)state;
	flag_snapshot_unref(snapshot);
	return 0;
}

struct expected {
	const char *flags; /* separated by blanks */
	const char *entity;
	enum outcome_side side;
	enum outcome_reason reason;
	const char *backend;
};

static struct operation make_operation(const char *flags)
{
	struct operation op = {.name = SPAN_LIT("run"), .service = SPAN_LIT("runner"), .has_task = true};
	while (*flags) {
		size_t n = strcspn(flags, " ");
		op.flags[op.n_flags++] = (struct span){flags, n};
		flags += n + (flags[n] == ' ');
	}
	op.variants = own_map;
	op.n_variants = 1;
	return op;
}

static void the_table(void **state)
{
	(void)state;
	static const struct expected table[] = {
		{"on", "u", OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"off", "u", OUTCOME_LEGACY, REASON_FLAG_OFF, ""},
		{"v0", "u", OUTCOME_LEGACY, REASON_FLAG, ""},
		{"v100", "u", OUTCOME_TASK, REASON_FLAG, "embedded"},
		/* the key is a label, the distribution decides */
		{"v25", "u", OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"vcontrol", "u", OUTCOME_LEGACY, REASON_FLAG, ""},
		{"vcelery", "u", OUTCOME_TASK, REASON_FLAG, "celery"},
		/* not configured: a broken rule serves legacy */
		{"vtemporal", "u", OUTCOME_LEGACY, REASON_BACKEND_UNKNOWN, ""},
		{"vattach_unknown", "u", OUTCOME_LEGACY, REASON_BACKEND_UNKNOWN, ""},
		{"vattach_shadow_unknown", "u", OUTCOME_LEGACY, REASON_BACKEND_UNKNOWN, ""},
		{"vown", "u", OUTCOME_TASK, REASON_FLAG, "celery"},
		{"vattach", "u", OUTCOME_TASK, REASON_FLAG, "celery"},
		{"vattach_odd", "u", OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"vdisabled", "u", OUTCOME_LEGACY, REASON_FLAG_DISABLED, ""},
		{"vnomatch", "u", OUTCOME_LEGACY, REASON_NO_MATCH, ""},
		{"nowhere", "u", OUTCOME_LEGACY, REASON_FLAG_MISSING, ""},
		{"", "u", OUTCOME_LEGACY, REASON_FLAG_MISSING, ""},
		/* all must say task, in any order */
		{"on v100", "u", OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"on off", "u", OUTCOME_LEGACY, REASON_FLAG_OFF, ""},
		{"v0 on", "u", OUTCOME_LEGACY, REASON_FLAG, ""},
		{"vshadow v0", "u", OUTCOME_LEGACY, REASON_FLAG, ""},
		/* without identity only answers without a percentage count */
		{"half", NULL, OUTCOME_LEGACY, REASON_NO_IDENTITY, ""},
		{"vhalf", NULL, OUTCOME_LEGACY, REASON_NO_IDENTITY, ""},
		{"zero", NULL, OUTCOME_LEGACY, REASON_FLAG_OFF, ""},
		{"hundred", NULL, OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"v100", NULL, OUTCOME_TASK, REASON_FLAG, "embedded"},
		{"v100 half", NULL, OUTCOME_LEGACY, REASON_NO_IDENTITY, ""}};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct expected *t = &table[i];
		struct operation op = make_operation(t->flags);
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = span_of(t->entity),
					  .entity = span_of(t->entity)};
		struct decision d;
		decide(&in, &d, NULL);
		if (d.side != t->side || d.reason != t->reason || !span_is(d.backend, t->backend))
			fail_msg("flags \"%s\": got %s, %s, \"%.*s\"", t->flags, outcome_side_text(d.side),
				 outcome_reason_text(d.reason), SPAN_ARG(d.backend));
	}
}

/* Where no rule matches the default variant counts, as to clients of Flipt; a disabled flag is off. */
static void default_variants_count(void **state)
{
	(void)state;
	static const struct {
		const char *enabled, *variant;
		enum outcome_side side;
		enum outcome_reason reason;
		const char *backend;
	} cases[] = {{"true", "100", OUTCOME_TASK, REASON_FLAG, "embedded"},
		     {"true", "0", OUTCOME_LEGACY, REASON_FLAG, ""},
		     {"false", "100", OUTCOME_LEGACY, REASON_FLAG_DISABLED, ""},
		     {"true", "celery", OUTCOME_TASK, REASON_FLAG, "celery"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
		struct flag_snapshot *s = NULL;
		struct operation op = make_operation("f");
		buf_printf(&text,
			   "flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: %s, variants: [{key: '%s', "
			   "default: true}, {key: other}],"
			   " rules: [{segment: nobody, distributions: [{variant: other, rollout: 100}]}]}]\n"
			   "segments: [{key: nobody, match_type: ANY_MATCH_TYPE, constraints: [{type: "
			   "STRING_COMPARISON_TYPE,"
			   " property: user_id, operator: eq, value: never}]}]\n",
			   cases[i].enabled, cases[i].variant);
		assert_int_equal(
			flag_snapshot_parse_features("features", buf_span(&text), FLAG_RULES_V2, &s, NULL),
			0);
		struct decide_input in = {
			.config = &config, .operation = &op, .flags = s, .entity = SPAN_LIT("u")};
		struct decision d;
		decide(&in, &d, NULL);
		if (d.side != cases[i].side || d.reason != cases[i].reason ||
		    !span_is(d.backend, cases[i].backend))
			fail_msg("case %zu: %s, %s", i, outcome_side_text(d.side),
				 outcome_reason_text(d.reason));
		flag_snapshot_unref(s);
	}
}

static void a_shadow_serves_legacy(void **state)
{
	(void)state;
	static const struct {
		const char *flags;
		double share;
	} table[] = {{"vshadow", 1}, {"on vshadow", 1}, {"vattach_shadow", 0.1}, {"vattach_shadow on", 0.1}};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flags);
		struct decide_input in = {
			.config = &config, .operation = &op, .flags = snapshot, .entity = SPAN_LIT("u")};
		struct decision d;
		decide(&in, &d, NULL);
		assert_int_equal(d.side, OUTCOME_LEGACY);
		assert_true(d.shadow > table[i].share - 1e-9 && d.shadow < table[i].share + 1e-9);
		assert_true(span_is(d.backend, "embedded"));
	}
}

static void the_environment_counts_only_where_a_flag_is_nowhere(void **state)
{
	(void)state;
	struct config c = config;
	c.env_defaults[0].flag = SPAN_LIT("nowhere");
	c.env_defaults[0].value = true;
	c.env_defaults[1].flag = SPAN_LIT("off");
	c.env_defaults[1].value = true;
	c.n_env_defaults = 2;
	struct operation op = make_operation("nowhere");
	struct decide_input in = {.config = &c, .operation = &op, .flags = snapshot, .entity = SPAN_LIT("u")};
	struct decision d;
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_TASK);
	assert_int_equal(d.reason, REASON_ENV_DEFAULT);
	op = make_operation("off");
	decide(&in, &d, NULL);
	assert_int_equal(d.reason, REASON_FLAG_OFF);
	in.flags = NULL; /* there has never been a snapshot */
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_TASK);
	assert_int_equal(d.reason, REASON_ENV_DEFAULT);
	op = make_operation("on");
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_LEGACY);
	assert_int_equal(d.reason, REASON_FLAG_UNAVAILABLE);
}

static void hatchet_takes_over_by_its_flag(void **state)
{
	(void)state;
	struct operation op = make_operation("on");
	struct decide_input in = {.config = &config,
				  .operation = &op,
				  .flags = snapshot,
				  .entity = SPAN_LIT("u"),
				  .organization = SPAN_LIT("hatchet-org")};
	struct decision d;
	decide(&in, &d, NULL);
	assert_true(span_is(d.backend, "hatchet"));
	in.organization = SPAN_LIT("other");
	decide(&in, &d, NULL);
	assert_true(span_is(d.backend, "embedded"));
	/* a variant that names a backend is stronger */
	op = make_operation("vcelery");
	in.organization = SPAN_LIT("hatchet-org");
	decide(&in, &d, NULL);
	assert_true(span_is(d.backend, "celery"));
}

static void pins_and_overrides_win(void **state)
{
	(void)state;
	struct operation op = make_operation("off");
	struct decide_input in = {.config = &config,
				  .operation = &op,
				  .flags = snapshot,
				  .entity = SPAN_LIT("u"),
				  .override = WISH_TASK};
	struct decision d;
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_TASK);
	assert_int_equal(d.reason, REASON_OVERRIDE);
	in.pinned = WISH_LEGACY;
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_LEGACY);
	assert_int_equal(d.reason, REASON_PINNED);
	in.pinned = WISH_TASK;
	in.pinned_backend = SPAN_LIT("celery");
	decide(&in, &d, NULL);
	assert_true(span_is(d.backend, "celery"));
	assert_false(d.refused);
}

/* Legacy knows nothing of what the task side began: rule 4 is stronger than "when in doubt, legacy". */
static void what_is_or_may_be_pinned_to_the_task_side_never_goes_to_legacy(void **state)
{
	(void)state;
	struct operation op = make_operation("off");
	struct decide_input in = {.config = &config,
				  .operation = &op,
				  .flags = snapshot,
				  .entity = SPAN_LIT("u"),
				  .override = WISH_LEGACY,
				  .pinned = WISH_TASK,
				  .pinned_backend = SPAN_LIT("temporal")};
	struct decision d;
	/* another router's entry, or that of a backend which is no longer configured */
	decide(&in, &d, NULL);
	assert_true(d.refused);
	assert_int_equal(d.side, OUTCOME_TASK);
	assert_int_equal(d.reason, REASON_BACKEND_UNKNOWN);
	assert_true(span_is(d.unknown, "temporal"));
	in = (struct decide_input){.config = &config,
				   .operation = &op,
				   .flags = snapshot,
				   .override = WISH_LEGACY,
				   .pinned = WISH_UNKNOWN};
	decide(&in, &d, NULL);
	assert_true(d.refused);
	assert_int_equal(d.side, OUTCOME_TASK);
	assert_int_equal(d.reason, REASON_PIN_UNKNOWN);
}

static void what_has_no_task_is_legacy(void **state)
{
	(void)state;
	struct operation op = make_operation("on");
	op.has_task = false;
	struct decide_input in = {
		.config = &config, .operation = &op, .flags = snapshot, .override = WISH_TASK};
	struct decision d;
	decide(&in, &d, NULL);
	assert_int_equal(d.side, OUTCOME_LEGACY);
	assert_int_equal(d.reason, REASON_NO_TASK);
	in.operation = NULL;
	decide(&in, &d, NULL);
	assert_int_equal(d.reason, REASON_UNMAPPED);
}

static void the_same_identity_gets_the_same_answer(void **state)
{
	(void)state;
	struct operation op = make_operation("half vhalf");
	unsigned task = 0;
	for (int i = 0; i < 4000; i++) {
		char user[32];
		snprintf(user, sizeof(user), "user-%d", i);
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = span_of(user),
					  .entity = span_of(user)};
		struct decision a, b;
		decide(&in, &a, NULL);
		decide(&in, &b, NULL);
		assert_int_equal(a.side, b.side);
		task += a.side == OUTCOME_TASK;
	}
	/* Two flags at 50 % hash apart: about a quarter. */
	assert_true(task >= 4000 * 20 / 100 && task <= 4000 * 30 / 100);
}

/* A flag by itself says what the decision takes of it; a variant means the same however it was chosen. */
static void one_flag_by_itself(void **state)
{
	(void)state;
	static const struct {
		const char *flag;
		bool task;
		int bucket; /* 0: none */
	} table[] = {{"on", true, 0},	      {"off", false, 0},      {"v25", true, 1},
		     {"vshadow", false, 1},   {"vtemporal", true, 1}, {"vattach", true, 1},
		     {"vdisabled", false, 0}, {"hundred", true, 1},   {"nowhere", false, 0}};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flag);
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = SPAN_LIT("u"),
					  .entity = SPAN_LIT("u")};
		struct decide_vote v;
		struct decision d;
		decide_flag(&in, span_of(table[i].flag), &v);
		decide(&in, &d, NULL);
		if (v.task != table[i].task || (v.bucket >= 0) != table[i].bucket)
			fail_msg("%s: %d, bucket %d", table[i].flag, v.task, v.bucket);
		if (d.reason != REASON_BACKEND_UNKNOWN)
			assert_int_equal(d.side == OUTCOME_TASK, v.task);
	}
	struct operation op = make_operation("on");
	assert_true(decide_variant(&op, SPAN_LIT("blue"), SPAN_LIT("")).task);
	assert_false(decide_variant(&op, SPAN_LIT("blue"), SPAN_LIT("{\"side\": \"legacy\"}")).task);
	assert_false(decide_variant(&op, SPAN_LIT("control"), SPAN_LIT("")).task);
	assert_true(decide_variant(&op, SPAN_LIT("control"), SPAN_LIT("{\"side\": \"task\"}")).task);
}

/* A definite no about the operation's task on the chosen backend; pins and overrides do not ask. */
static void what_is_known_not_to_be_run_stays_with_legacy(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *service, *operation, *backend;
		enum decide_wish pinned, override;
		enum outcome_side side;
		enum outcome_reason reason;
	} table[] = {
		{"on", "runner", "run", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY,
		 REASON_BACKEND_NOT_READY},
		{"on", "runner", "run", "celery", WISH_NONE, WISH_NONE, OUTCOME_TASK, REASON_FLAG},
		{"on", "runner", "other", "embedded", WISH_NONE, WISH_NONE, OUTCOME_TASK, REASON_FLAG},
		{"on", "other", "run", "embedded", WISH_NONE, WISH_NONE, OUTCOME_TASK, REASON_FLAG},
		{"vcelery", "runner", "run", "celery", WISH_NONE, WISH_NONE, OUTCOME_LEGACY,
		 REASON_BACKEND_NOT_READY},
		{"vshadow", "runner", "run", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY,
		 REASON_BACKEND_NOT_READY},
		{"off", "runner", "run", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY, REASON_FLAG_OFF},
		{"off", "runner", "run", "embedded", WISH_TASK, WISH_NONE, OUTCOME_TASK, REASON_PINNED},
		{"off", "runner", "run", "embedded", WISH_NONE, WISH_TASK, OUTCOME_TASK, REASON_OVERRIDE},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flag);
		struct readiness *known = readiness_new();
		assert_int_equal(readiness_put(known, span_of(table[i].service), span_of(table[i].operation),
					       span_of(table[i].backend), SPAN_LIT("no worker")),
				 0);
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = SPAN_LIT("u"),
					  .entity = SPAN_LIT("u"),
					  .pinned = table[i].pinned,
					  .override = table[i].override,
					  .readiness = known};
		struct decision d;
		decide(&in, &d, NULL);
		assert_int_equal(d.side, table[i].side);
		assert_int_equal(d.reason, table[i].reason);
		assert_true(d.shadow == 0 && (d.side == OUTCOME_TASK) == (d.backend.ptr != NULL));
		readiness_unref(known);
	}
}

/* What the guard goes by: the probability of the task side before anybody looked at the hash. */
static void the_share_is_that_of_the_rules_that_decided(void **state)
{
	(void)state;
	static const struct {
		const char *flags;
		double share;
	} table[] = {
		{"half", 0.5},
		{"vhalf", 0.5},
		{"half vhalf", 0.25}, /* also where the first of them has said legacy already */
		{"vhalf half on", 0.25},
		{"on", 0},
		{"off", 0},
		{"v25", 0}, /* the key is a label */
		{"hundred", 0},
		{"zero", 0},
		{"half off", 0}, /* nothing is left to chance */
		{"off half", 0},
		{"half nowhere", 0},
		{"half vshadow", 0},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flags);
		for (int n = 0; n < 16; n++) {
			char user[32];
			snprintf(user, sizeof(user), "user-%d", n);
			struct decide_input in = {.config = &config,
						  .operation = &op,
						  .flags = snapshot,
						  .user = span_of(user),
						  .entity = span_of(user)};
			struct decision d;
			decide(&in, &d, NULL);
			assert_true(d.share == table[i].share);
			assert_int_equal(d.split, d.share > 0 ? decide_split(&op, snapshot) : 0);
			if (d.share > 0)
				assert_int_equal(d.assigned, d.side);
			in.entity = SPAN_NONE; /* a constant is not hashed */
			decide(&in, &d, NULL);
			assert_true(d.share == 0);
			in.override = WISH_TASK;
			in.entity = span_of(user);
			decide(&in, &d, NULL);
			assert_true(d.share == 0);
		}
	}
}

static void what_steps_in_leaves_the_assigned_side(void **state)
{
	(void)state;
	struct operation op = make_operation("half");
	struct readiness *known = readiness_new();
	assert_int_equal(readiness_put(known, SPAN_LIT("runner"), SPAN_LIT("run"), SPAN_LIT("embedded"),
				       SPAN_LIT("no worker")),
			 0);
	unsigned assigned = 0;
	for (int n = 0; n < 400; n++) {
		char user[32];
		snprintf(user, sizeof(user), "user-%d", n);
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .entity = span_of(user),
					  .readiness = known};
		struct decision d;
		decide(&in, &d, NULL);
		assert_int_equal(d.side, OUTCOME_LEGACY);
		assert_true(d.share == 0.5);
		assert_int_equal(d.reason == REASON_BACKEND_NOT_READY, d.assigned == OUTCOME_TASK);
		assigned += d.assigned == OUTCOME_TASK;
	}
	assert_true(assigned > 150 && assigned < 250);
	readiness_unref(known);
}

/* What has been met, where nothing is known; what is known says more. Pins and overrides do not ask. */
static void an_open_breaker_stays_with_legacy(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *shut;
		enum decide_wish pinned, override;
		enum outcome_side side;
		enum outcome_reason reason;
	} table[] = {
		{"on", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY, REASON_BREAKER_OPEN},
		{"on", "celery", WISH_NONE, WISH_NONE, OUTCOME_TASK, REASON_FLAG},
		{"vcelery", "celery", WISH_NONE, WISH_NONE, OUTCOME_LEGACY, REASON_BREAKER_OPEN},
		{"vshadow", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY, REASON_BREAKER_OPEN},
		{"off", "embedded", WISH_NONE, WISH_NONE, OUTCOME_LEGACY, REASON_FLAG_OFF},
		{"off", "embedded", WISH_TASK, WISH_NONE, OUTCOME_TASK, REASON_PINNED},
		{"off", "embedded", WISH_NONE, WISH_TASK, OUTCOME_TASK, REASON_OVERRIDE},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flag);
		const struct breaker_view view = {.shut = {span_of(table[i].shut)}, .n = 1};
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = SPAN_LIT("u"),
					  .entity = SPAN_LIT("u"),
					  .pinned = table[i].pinned,
					  .override = table[i].override,
					  .breakers = &view};
		struct decision d;
		decide(&in, &d, NULL);
		assert_int_equal(d.side, table[i].side);
		assert_int_equal(d.reason, table[i].reason);
		assert_true(d.shadow == 0 && (d.side == OUTCOME_TASK) == (d.backend.ptr != NULL));
	}
	struct readiness *known = readiness_new();
	assert_int_equal(readiness_put(known, SPAN_LIT("runner"), SPAN_LIT("run"), SPAN_LIT("embedded"),
				       SPAN_LIT("no worker")),
			 0);
	struct operation op = make_operation("on");
	const struct breaker_view view = {.shut = {SPAN_LIT("embedded")}, .n = 1};
	struct decide_input in = {.config = &config,
				  .operation = &op,
				  .flags = snapshot,
				  .readiness = known,
				  .breakers = &view};
	struct decision d;
	decide(&in, &d, NULL);
	assert_int_equal(d.reason, REASON_BACKEND_NOT_READY);
	readiness_unref(known);
}

/* The operation's others, in their order, where the first would not run the task. */
static void another_backend_stands_in(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *shut, *not_ready, *backend;
		enum outcome_reason reason;
	} table[] = {
		{"on", "", "", "celery", REASON_FLAG},
		{"on", "celery", "", "hatchet", REASON_FLAG},
		{"on", "", "celery", "hatchet", REASON_FLAG},
		{"on", "hatchet", "celery", "embedded", REASON_FLAG},
		{"vattach", "celery", "hatchet", "embedded", REASON_FLAG}, /* named by the variant */
		{"v100", "celery", "", "hatchet", REASON_FLAG},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flag);
		op.task.n_backends = 3;
		op.task.backend = op.task.backends[0] = SPAN_LIT("celery");
		op.task.backends[1] = SPAN_LIT("hatchet");
		op.task.backends[2] = SPAN_LIT("embedded");
		struct readiness *known = readiness_new();
		assert_int_equal(readiness_put(known, op.service, op.name, span_of(table[i].not_ready),
					       SPAN_LIT("no worker")),
				 0);
		const struct breaker_view view = {.shut = {span_of(table[i].shut)}, .n = 1};
		struct decide_input in = {.config = &config,
					  .operation = &op,
					  .flags = snapshot,
					  .user = SPAN_LIT("u"),
					  .entity = SPAN_LIT("u"),
					  .readiness = known,
					  .breakers = &view};
		struct decision d;
		decide(&in, &d, NULL);
		assert_int_equal(d.side, OUTCOME_TASK);
		assert_int_equal(d.reason, table[i].reason);
		assert_true(span_is(d.backend, table[i].backend));
		assert_int_equal(decide_may_use(&in, SPAN_LIT("celery")),
				 table[i].shut[0] != 'c' && table[i].not_ready[0] != 'c');
		in.pinned = WISH_TASK; /* what it began is where it began */
		in.pinned_backend = SPAN_LIT("celery");
		decide(&in, &d, NULL);
		assert_true(span_is(d.backend, "celery"));
		readiness_unref(known);
	}
	struct operation op = make_operation("on");
	op.task.n_backends = 2;
	op.task.backend = op.task.backends[0] = SPAN_LIT("celery");
	op.task.backends[1] = SPAN_LIT("hatchet");
	const struct breaker_view view = {.shut = {SPAN_LIT("celery"), SPAN_LIT("hatchet")}, .n = 2};
	struct decide_input in = {.config = &config, .operation = &op, .flags = snapshot, .breakers = &view};
	struct decision d;
	decide(&in, &d, NULL);
	assert_true(d.side == OUTCOME_LEGACY && d.reason == REASON_BREAKER_OPEN && !d.backend.ptr);
}

static struct guard_holds *held(bool unknown, double keeps)
{
	struct guard_holds *h = guard_holds_new();
	struct guard_hold hold = {
		.service = "runner", .operation = "run", .unknown = unknown, .keeps = keeps};
	assert_int_equal(guard_holds_put(h, &hold), 0);
	return h;
}

static void what_the_guard_holds_is_legacys_unless_pinned(void **state)
{
	(void)state;
	static const struct {
		const char *flags, *operation;
		bool unknown;
		enum decide_wish pinned, override;
		enum outcome_reason reason;
	} table[] = {
		{"on", "run", false, WISH_NONE, WISH_NONE, REASON_GUARD},
		{"half on", "run", false, WISH_NONE, WISH_NONE, REASON_GUARD},
		{"on", "other", false, WISH_NONE, WISH_NONE, REASON_FLAG},
		{"on", "run", false, WISH_TASK, WISH_NONE, REASON_PINNED},
		{"on", "run", false, WISH_NONE, WISH_TASK, REASON_OVERRIDE},
		/* Not known yet: what no percentage decides goes on. */
		{"on", "run", true, WISH_NONE, WISH_NONE, REASON_FLAG},
		{"hundred", "run", true, WISH_NONE, WISH_NONE, REASON_FLAG},
		{"half on", "run", true, WISH_NONE, WISH_NONE, REASON_GUARD},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct operation op = make_operation(table[i].flags);
		struct guard_holds *h = held(table[i].unknown, 0);
		op.name = span_of(table[i].operation);
		for (int n = 0; n < 20; n++) {
			char user[32];
			snprintf(user, sizeof(user), "user-%d", n);
			struct decide_input in = {.config = &config,
						  .operation = &op,
						  .flags = snapshot,
						  .entity = span_of(user),
						  .pinned = table[i].pinned,
						  .override = table[i].override,
						  .holds = h};
			struct decision d;
			decide(&in, &d, NULL);
			if (d.reason == REASON_FLAG_OFF) /* the hash said legacy */
				continue;
			assert_int_equal(d.reason, table[i].reason);
			assert_int_equal(d.side, d.reason == REASON_GUARD ? OUTCOME_LEGACY : OUTCOME_TASK);
			if (d.reason == REASON_GUARD && d.share > 0)
				assert_int_equal(d.assigned, OUTCOME_TASK);
		}
		guard_holds_unref(h);
	}
}

/* Back at the last safe percentage: the same users that it had then. */
static void a_rollback_keeps_those_who_came_first(void **state)
{
	(void)state;
	static const char text[] =
		"flags:\n"
		"- {key: b5, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: {percentage: 5, "
		"value: true}}]}\n"
		"- {key: v5, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: '0'}, {key: on}], "
		"rules: "
		"[{segment: all, distributions: [{variant: '0', rollout: 95}, {variant: on, rollout: 5}]}]}\n"
		"segments:\n- {key: all, match_type: ALL_MATCH_TYPE}\n";
	CLEANUP(buf_releasep) struct buf wide = BUF_INIT(8192);
	struct flag_snapshot *narrow = NULL, *broad = NULL;
	struct err e;
	assert_int_equal(flag_snapshot_parse_features("f", span_of(text), FLAG_RULES_V2, &narrow, &e), 0);
	for (const char *at = text; *at; at++) { /* the same flags at 40 % */
		if (strncmp(at, "percentage: 5", 13) == 0) {
			buf_puts(&wide, "percentage: 40");
			at += 12;
		} else if (strncmp(at, "rollout: 95", 11) == 0) {
			buf_puts(&wide, "rollout: 60");
			at += 10;
		} else if (strncmp(at, "rollout: 5", 10) == 0) {
			buf_puts(&wide, "rollout: 40");
			at += 9;
		} else {
			buf_putc(&wide, *at);
		}
	}
	assert_int_equal(flag_snapshot_parse_features("f", buf_span(&wide), FLAG_RULES_V2, &broad, &e), 0);
	struct guard_holds *h = held(false, 0.05);
	static const char *const flags[] = {"b5", "v5"};
	for (int f = 0; f < 2; f++) {
		struct operation op = make_operation(flags[f]);
		unsigned kept = 0;
		for (int n = 0; n < 4000; n++) {
			char user[32];
			struct decision before, after;
			snprintf(user, sizeof(user), "user-%d", n);
			struct decide_input in = {.config = &config,
						  .operation = &op,
						  .flags = narrow,
						  .entity = span_of(user)};
			decide(&in, &before, NULL);
			in.flags = broad;
			in.holds = h;
			decide(&in, &after, NULL);
			assert_int_equal(before.side, after.side);
			kept += after.side == OUTCOME_TASK;
		}
		assert_in_range(kept, 130, 270);
	}
	struct operation two = make_operation("b5 v5"); /* nobody can tell: all are held */
	for (int n = 0; n < 400; n++) {
		char user[32];
		struct decision d;
		snprintf(user, sizeof(user), "user-%d", n);
		struct decide_input in = {.config = &config,
					  .operation = &two,
					  .flags = broad,
					  .entity = span_of(user),
					  .holds = h};
		decide(&in, &d, NULL);
		assert_int_equal(d.side, OUTCOME_LEGACY);
	}
	guard_holds_unref(h);
	flag_snapshot_unref(narrow);
	flag_snapshot_unref(broad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table),
		cmocka_unit_test(what_is_known_not_to_be_run_stays_with_legacy),
		cmocka_unit_test(an_open_breaker_stays_with_legacy),
		cmocka_unit_test(another_backend_stands_in),
		cmocka_unit_test(default_variants_count),
		cmocka_unit_test(a_shadow_serves_legacy),
		cmocka_unit_test(the_environment_counts_only_where_a_flag_is_nowhere),
		cmocka_unit_test(hatchet_takes_over_by_its_flag),
		cmocka_unit_test(pins_and_overrides_win),
		cmocka_unit_test(what_is_or_may_be_pinned_to_the_task_side_never_goes_to_legacy),
		cmocka_unit_test(what_has_no_task_is_legacy),
		cmocka_unit_test(the_same_identity_gets_the_same_answer),
		cmocka_unit_test(one_flag_by_itself),
		cmocka_unit_test(the_share_is_that_of_the_rules_that_decided),
		cmocka_unit_test(what_steps_in_leaves_the_assigned_side),
		cmocka_unit_test(what_the_guard_holds_is_legacys_unless_pinned),
		cmocka_unit_test(a_rollback_keeps_those_who_came_first),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
