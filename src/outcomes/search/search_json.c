/* What was found, for programs: JSON, and CSV for spreadsheets. */
#include <inttypes.h>

#include "outcomes/report.h"
#include "outcomes/search/errors.h"
#include "outcomes/search/forms.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"

static const char *json_truth(bool b)
{
	return b ? "true" : "false";
}

static void json_put_end(struct buf *out, bool cut)
{
	buf_printf(out, "],\"complete\":%s}\n", json_truth(!cut));
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void json_put_attempt(struct buf *out, const struct attempt *a)
{
	buf_printf(out, "{\"row\":%" PRId64, a->row);
	form_json_time(out, "time", a->time_us);
	form_json_number(out, "latency_us", a->latency_us);
	form_json_text(out, "request_id", a->request_id);
	form_json_text(out, "service", a->service);
	form_json_text(out, "operation", a->operation);
	form_json_text(out, "organization", a->organization);
	form_json_text(out, "user", a->user);
	form_json_text(out, "client", a->client);
	form_json_text(out, "side", outcome_side_text(a->side));
	form_json_text(out, "backend", a->backend);
	form_json_text(out, "role", outcome_role_text(a->role));
	form_json_text(out, "reason", outcome_reason_text(a->reason));
	form_json_text(out, "variant", a->variant);
	form_json_text(out, "result", outcome_result_text(a->result));
	buf_printf(out, ",\"answered\":%s", json_truth(a->answered));
	form_json_number(out, "http_status", a->http_status);
	form_json_text(out, "task_id", a->task_id);
	form_json_text(out, "error", a->error);
	buf_putc(out, '}');
}

int requests_to_json(const struct requests *r, struct buf *out)
{
	buf_puts(out, "{\"version\":1");
	if (r->next)
		form_json_number(out, "next", r->next);
	else
		buf_puts(out, ",\"next\":null");
	buf_puts(out, ",\"requests\":[");
	for (size_t i = 0; i < r->n; i++) {
		if (i)
			buf_putc(out, ',');
		json_put_attempt(out, &r->all[i]);
	}
	json_put_end(out, r->cut);
	return out->error;
}

int requests_to_csv(const struct requests *r, struct buf *out)
{
	buf_puts(out, "time,latency_us,request_id,service,operation,organization,user,client,side,backend,"
		      "role,reason,"
		      "variant,result,answered,http_status,task_id,error\r\n");
	for (size_t i = 0; i < r->n; i++) {
		const struct attempt *a = &r->all[i];
		const char *const texts[] = {a->request_id,
					     a->service,
					     a->operation,
					     a->organization,
					     a->user,
					     a->client,
					     outcome_side_text(a->side),
					     a->backend,
					     outcome_role_text(a->role),
					     outcome_reason_text(a->reason),
					     a->variant,
					     outcome_result_text(a->result)};
		form_csv_time(out, a->time_us);
		buf_printf(out, ",%" PRId64, a->latency_us);
		for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
			buf_putc(out, ',');
			form_csv_text(out, texts[t]);
		}
		buf_printf(out, ",%s,%d,", json_truth(a->answered), a->http_status);
		form_csv_text(out, a->task_id);
		buf_putc(out, ',');
		form_csv_text(out, a->error);
		buf_puts(out, "\r\n");
	}
	return out->error;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static void json_put_group(struct buf *out, const struct error_group *g)
{
	buf_printf(out, "{\"count\":%" PRIu64, g->count);
	form_json_text(out, "service", g->service);
	form_json_text(out, "operation", g->operation);
	form_json_text(out, "side", outcome_side_text(g->side));
	form_json_text(out, "backend", g->backend);
	form_json_text(out, "role", outcome_role_text(g->role));
	form_json_text(out, "result", outcome_result_text(g->result));
	form_json_number(out, "http_status", g->http_status);
	form_json_text(out, "error", g->error);
	form_json_time(out, "first", g->first_us);
	form_json_time(out, "last", g->last_us);
	form_json_text(out, "sample_request_id", g->request_id);
	form_json_text(out, "sample_error", g->text);
	buf_putc(out, '}');
}

int errors_to_json(const struct errors *r, struct buf *out)
{
	buf_printf(out,
		   "{\"version\":1,\"total\":%" PRIu64 ",\"left_out\":%" PRIu64
		   ",\"recorded\":%s,\"errors\":[",
		   r->total, r->left_out, json_truth(r->recorded));
	for (size_t i = 0; i < r->n; i++) {
		if (i)
			buf_putc(out, ',');
		json_put_group(out, &r->all[i]);
	}
	json_put_end(out, r->cut);
	return out->error;
}

int errors_to_csv(const struct errors *r, struct buf *out)
{
	buf_puts(out, "count,service,operation,side,backend,role,result,http_status,error,first,last,"
		      "sample_request_id\r\n");
	for (size_t i = 0; i < r->n; i++) {
		const struct error_group *g = &r->all[i];
		const char *const texts[] = {g->service,
					     g->operation,
					     outcome_side_text(g->side),
					     g->backend,
					     outcome_role_text(g->role),
					     outcome_result_text(g->result)};
		buf_printf(out, "%" PRIu64, g->count);
		for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
			buf_putc(out, ',');
			form_csv_text(out, texts[t]);
		}
		buf_printf(out, ",%d,", g->http_status);
		form_csv_text(out, g->error);
		buf_putc(out, ',');
		form_csv_time(out, g->first_us);
		buf_putc(out, ',');
		form_csv_time(out, g->last_us);
		buf_putc(out, ',');
		form_csv_text(out, g->request_id);
		buf_puts(out, "\r\n");
	}
	return out->error;
}

/* --- organizations -------------------------------------------------------------------------------------- */

static void json_put_organization_side(struct buf *out, const char *name, const struct organization_sums *s)
{
	buf_printf(out, ",\"%s\":{\"requests\":%" PRIu64 ",\"counted\":%" PRIu64 ",\"errors\":%" PRIu64, name,
		   s->requests, s->counted, s->errors);
	form_json_time(out, "first", s->first_us);
	form_json_time(out, "last", s->last_us);
	buf_putc(out, '}');
}

static void json_put_organization(struct buf *out, const struct organization *o)
{
	buf_printf(out, "{\"requests\":%" PRIu64 ",\"errors\":%" PRIu64, o->requests, o->errors);
	form_json_text(out, "organization", o->name);
	form_json_text(out, "side", organization_on_text(o->on));
	form_json_time(out, "since", o->since_us);
	buf_printf(out, ",\"since_before_span\":%s", json_truth(o->before_span));
	json_put_organization_side(out, "legacy", &o->sides[OUTCOME_LEGACY]);
	json_put_organization_side(out, "task", &o->sides[OUTCOME_TASK]);
	buf_putc(out, '}');
}

int organization_list_to_json(const struct organization_list *r, struct buf *out)
{
	buf_printf(out, "{\"version\":1,\"found\":%zu,\"left_out\":%" PRIu64 ",\"organizations\":[", r->found,
		   r->left_out);
	for (size_t i = 0; i < r->n; i++) {
		if (i)
			buf_putc(out, ',');
		json_put_organization(out, &r->all[i]);
	}
	json_put_end(out, r->cut);
	return out->error;
}

int organization_list_to_csv(const struct organization_list *r, struct buf *out)
{
	buf_puts(out,
		 "organization,side,since,since_before_span,requests,errors,legacy_requests,legacy_errors,"
		 "task_requests,task_errors\r\n");
	for (size_t i = 0; i < r->n; i++) {
		const struct organization *o = &r->all[i];
		const struct organization_sums *l = &o->sides[OUTCOME_LEGACY], *t = &o->sides[OUTCOME_TASK];
		form_csv_text(out, o->name);
		buf_printf(out, ",%s,", organization_on_text(o->on));
		form_csv_time(out, o->since_us);
		buf_printf(out,
			   ",%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\r\n",
			   json_truth(o->before_span), o->requests, o->errors, l->requests, l->errors,
			   t->requests, t->errors);
	}
	return out->error;
}
