/* The flags that the configuration names, and what is known of where they come from. */
#include "programs/router/app_internal.h"

static void add_used(struct app_used_flags *u, struct span key)
{
	size_t at = 0;
	while (at < u->n && !span_eq(u->keys[at], key))
		at++;
	if (at == u->n && at < sizeof(u->keys) / sizeof(u->keys[0]))
		u->keys[u->n++] = key;
}

/* Every flag that some decision asks for: its source must not lose one of them unnoticed. */
struct app_used_flags app_flags_in_use(const struct config *c)
{
	struct app_used_flags u = {.n = 0};
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags; k++)
				add_used(&u, op->flags[k]);
		}
	if (c->hatchet_flag.len && config_backend(c, SPAN_LIT("hatchet")))
		add_used(&u, c->hatchet_flag);
	return u;
}

void app_broken_flags(const struct app *a, struct app_broken_flags *ret)
{
	struct app_used_flags u = app_flags_in_use(a->config);
	ret->n = 0;
	for (size_t i = 0; i < u.n && a->flags; i++) {
		const struct flag *f = flag_find(a->flags, u.keys[i]);
		if (f && flag_broken(f))
			ret->keys[ret->n++] = u.keys[i];
	}
}

void app_flags_status(const struct app *a, struct flag_source_status *ret)
{
	if (a->flipt)
		flipt_source_status(a->flipt, ret);
	else
		features_source_status(a->features, ret);
}

bool app_has_flags(const struct app *a)
{
	return a->flags || app_flags_in_use(a->config).n == 0;
}
