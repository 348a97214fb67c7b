/*
 * JSON documents: cJSON behind an opaque type.
 *
 * cJSON takes more than RFC 8259 allows and less than it allows; both are fixed before it sees the text.
 * What is not valid is refused by our scanner. What is valid but beyond cJSON is replaced in a copy: \u0000
 * (it would end a C string early, and make two keys equal) and lone surrogates become \uFFFD, numbers of more
 * than 63 characters their nearest double.
 */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define CJSON_NUMBER_MAX 63

/* --- preparing the text --------------------------------------------------------------------------------- */
static long json_hex4(const char *p)
{
	char digits[5] = {p[0], p[1], p[2], p[3], '\0'};
	return strtol(digits, NULL, 16);
}

/* p is on a valid \uXXXX; returns the place after it, and after its pair. */
static char *mend_escape(char *p)
{
	long unit = json_hex4(p + 2);
	bool high = unit >= 0xD800 && unit <= 0xDBFF;
	if (high && p[6] == '\\' && p[7] == 'u') {
		long low = json_hex4(p + 8);
		if (low >= 0xDC00 && low <= 0xDFFF)
			return p + 12;
	}
	if (unit == 0 || (unit >= 0xD800 && unit <= 0xDFFF))
		memcpy(p + 2, "FFFD", 4);
	return p + 6;
}

/* p is on the opening quote; returns the place after the closing one. */
static char *mend_string(char *p)
{
	for (p++; *p != '"';) {
		if (*p != '\\')
			p++;
		else if (p[1] == 'u')
			p = mend_escape(p);
		else
			p += 2;
	}
	return p + 1;
}

static char *mend_number(char *p)
{
	size_t n = strspn(p, "-+.0123456789eE");
	if (n > CJSON_NUMBER_MAX) {
		char after = p[n], text[32];
		p[n] = '\0';
		double value = strtod(p, NULL);
		p[n] = after;
		int length = snprintf(text, sizeof(text), "%.17g", value);
		if (isinf(value))
			length = snprintf(text, sizeof(text), "%s1e999", value < 0 ? "-" : "");
		memset(p, ' ', n);
		memcpy(p, text, (size_t)length);
	}
	return p + n;
}

/* Walks over valid, NUL-terminated text; returns how many values it holds, and how deep they lie. */
static size_t mend_text(char *p, size_t *ret_depth)
{
	size_t values = 1, depth = 0;
	*ret_depth = 0;
	while (*p) {
		if (*p == '"') {
			p = mend_string(p);
		} else if (*p == '-' || (*p >= '0' && *p <= '9')) {
			p = mend_number(p);
		} else {
			/* An empty container is counted one too high, which a limit does not mind. */
			values += *p == ',' || *p == '[' || *p == '{';
			depth += *p == '[' || *p == '{';
			depth -= *p == ']' || *p == '}';
			*ret_depth = depth > *ret_depth ? depth : *ret_depth;
			p++;
		}
	}
	return values;
}

/* --- documents ------------------------------------------------------------------------------------------ */
struct json_doc {
	cJSON *root;
};

static const cJSON *inner(const struct json_node *n)
{
	return (const cJSON *)n;
}

static const struct json_node *outer(const cJSON *n)
{
	return (const struct json_node *)n;
}

int json_doc_parse(struct span text, struct json_doc **ret, struct err *e)
{
	int r = json_validate(text, e);
	if (r < 0)
		return r;
	CLEANUP(freep) char *copy = span_dup(text);
	CLEANUP(freep) struct json_doc *doc = malloc(sizeof(*doc));
	if (!copy || !doc)
		return err_set(e, -ENOMEM, "JSON: out of memory");
	size_t depth;
	if (mend_text(copy, &depth) > JSON_DOC_MAX_VALUES)
		return err_set(e, -EFBIG, "JSON: more than %d values", JSON_DOC_MAX_VALUES);
	/* cJSON's recursion, on parsing and on freeing, is bounded. */
	if (depth > JSON_DOC_MAX_DEPTH)
		return err_set(e, -EBADMSG, "JSON: nested too deeply, more than %d levels",
			       JSON_DOC_MAX_DEPTH);
	doc->root = cJSON_ParseWithLength(copy, text.len);
	if (!doc->root)
		return err_set(e, -ENOMEM, "JSON: out of memory");
	*ret = steal(doc);
	return 0;
}

struct json_doc *json_doc_free(struct json_doc *doc)
{
	if (doc) {
		cJSON_Delete(doc->root);
		free(doc);
	}
	return NULL;
}

const struct json_node *json_root(const struct json_doc *doc)
{
	return doc ? outer(doc->root) : NULL;
}

/* cJSON's own lookup gives the first of duplicate keys; here, as in the span half, the last one wins. */
const struct json_node *json_get(const struct json_node *object, const char *key)
{
	const cJSON *found = NULL;
	if (!cJSON_IsObject(inner(object)))
		return NULL;
	for (const cJSON *c = inner(object)->child; c; c = c->next)
		if (strcmp(c->string, key) == 0)
			found = c;
	return outer(found);
}

const struct json_node *json_first(const struct json_node *array_or_object)
{
	return array_or_object ? outer(inner(array_or_object)->child) : NULL;
}

const struct json_node *json_next(const struct json_node *item)
{
	return item ? outer(inner(item)->next) : NULL;
}

const struct json_node *json_at(const struct json_node *array, size_t index)
{
	const struct json_node *item = cJSON_IsArray(inner(array)) ? json_first(array) : NULL;
	while (item && index-- > 0)
		item = json_next(item);
	return item;
}

size_t json_count(const struct json_node *array_or_object)
{
	size_t n = 0;
	for (const struct json_node *c = json_first(array_or_object); c; c = json_next(c))
		n++;
	return n;
}

const char *json_key(const struct json_node *member)
{
	return member ? inner(member)->string : NULL;
}

enum json_type json_node_type(const struct json_node *node)
{
	const cJSON *n = inner(node);
	if (cJSON_IsObject(n))
		return JSON_OBJECT;
	if (cJSON_IsArray(n))
		return JSON_ARRAY;
	if (cJSON_IsString(n))
		return JSON_STRING;
	if (cJSON_IsNumber(n))
		return JSON_NUMBER;
	if (cJSON_IsTrue(n))
		return JSON_TRUE;
	return cJSON_IsFalse(n) ? JSON_FALSE : JSON_NULL;
}

const char *json_string(const struct json_node *node)
{
	return cJSON_IsString(inner(node)) ? inner(node)->valuestring : NULL;
}

bool json_number(const struct json_node *node, double *ret)
{
	if (!cJSON_IsNumber(inner(node)) || !isfinite(inner(node)->valuedouble))
		return false;
	*ret = inner(node)->valuedouble;
	return true;
}

bool json_bool(const struct json_node *node, bool *ret)
{
	if (!cJSON_IsBool(inner(node)))
		return false;
	*ret = cJSON_IsTrue(inner(node));
	return true;
}

int json_print(const struct json_node *node, struct buf *out)
{
	if (!node)
		return buf_puts(out, "null");
	char *text = cJSON_PrintUnformatted(inner(node));
	if (!text) {
		if (!out->error)
			out->error = -ENOMEM;
		return -ENOMEM;
	}
	int r = buf_puts(out, text);
	cJSON_free(text);
	return r;
}
