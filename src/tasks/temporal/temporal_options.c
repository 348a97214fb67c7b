#include "tasks/temporal/temporal_options.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

#define API_KEY_MAX 16384
#define DEFAULT_TIMEOUT_MS 3600000u
/* A server holds a poll for one second less than it is given, and complains in its log below 20 s. */
#define DEFAULT_POLL_MS 21000u
#define DEFAULT_PORT "7233"

/* --- one setting ---------------------------------------------------------------------------------------- */

static bool visible(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7f)
			return false;
	return s.len > 0;
}

/* host, host:port, [v6]:port or a bare v6 address; a port here is gRPC's, as `port` is. */
static int set_host(void *field, struct span value, struct err *e)
{
	CLEANUP(buf_releasep) struct buf host = BUF_INIT(512);
	const char *colon = value.len ? memchr(value.ptr, ':', value.len) : NULL;
	const char *bracket = value.len && value.ptr[0] == '[' ? memchr(value.ptr, ']', value.len) : NULL;
	bool bare_v6 =
		!bracket && colon && memchr(colon + 1, ':', (size_t)(value.ptr + value.len - colon - 1));
	if (!visible(value) || (colon == value.ptr && !bare_v6) || memchr(value.ptr, '/', value.len) ||
	    memchr(value.ptr, '@', value.len) || (value.ptr[0] == '[' && !bracket))
		return err_set(e, -EINVAL, "expected host or host:port");
	if (bare_v6)
		buf_printf(&host, "[%.*s]", SPAN_ARG(value));
	else if (bracket)
		buf_append(&host, value.ptr, (size_t)(bracket + 1 - value.ptr));
	else
		buf_append(&host, value.ptr, colon ? (size_t)(colon - value.ptr) : value.len);
	return host.error ? err_set(e, -EINVAL, "the name is too long")
			  : task_setting_text(field, buf_span(&host), e);
}

static bool is_port(struct span value)
{
	char text[8], *end;
	span_copy(value, text, sizeof(text));
	long port = strtol(text, &end, 10);
	return value.len > 0 && value.len < sizeof(text) && !*end && port >= 1 && port <= 65535;
}

static int set_port(void *field, struct span value, struct err *e)
{
	if (!is_port(value))
		return err_set(e, -EINVAL, "expected a port, 1 to 65535");
	return task_setting_text(field, value, e);
}

/* host:port of gRPC, also behind http:// or https://, which then says whether it is over TLS. */
static int set_address(void *field, struct span value, struct err *e)
{
	static const struct span plain = {"http://", 7}, tls = {"https://", 8};
	struct temporal_options *o =
		(struct temporal_options *)((char *)field - offsetof(struct temporal_options, address));
	bool is_tls = span_starts(value, tls), is_plain = span_starts(value, plain);
	size_t skip = is_tls ? tls.len : 0;
	skip = is_plain ? plain.len : skip;
	value = (struct span){value.ptr + skip, value.len - skip};
	const char *colon = value.len ? memrchr(value.ptr, ':', value.len) : NULL;
	if (!visible(value) || !colon || colon == value.ptr || memchr(value.ptr, '/', value.len) ||
	    memchr(value.ptr, '@', value.len) ||
	    !is_port((struct span){colon + 1, value.len - (size_t)(colon + 1 - value.ptr)}))
		return err_set(e, -EINVAL, "expected host:port, of the server's gRPC");
	o->address_says_tls = is_tls || is_plain;
	o->address_tls = is_tls;
	return task_setting_text(field, value, e);
}

static int set_api_key(void *field, struct span value, struct err *e)
{
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(API_KEY_MAX);
	if (!visible(value))
		return err_set(e, -EINVAL, "expected a key without blanks");
	buf_printf(&line, "Bearer %.*s", SPAN_ARG(value));
	return line.error ? err_set(e, -EINVAL, "the key is too long")
			  : task_setting_text(field, buf_span(&line), e);
}

static int set_api_key_file(void *field, struct span value, struct err *e)
{
	CLEANUP(freep) char *path = span_dup(value);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(256u << 10);
	if (!path)
		return err_set(e, -ENOMEM, "out of memory");
	int r = file_read(path, API_KEY_MAX, &text, e);
	if (r < 0)
		return r;
	return set_api_key(field, span_strip(buf_span(&text)), e);
}

static int set_file(void *field, struct span value, struct err *e)
{
	const char *const *path = field;
	int r = task_setting_text(field, value, e);
	if (r == 0 && access(*path, R_OK) < 0)
		return err_set(e, -errno, "%s: %s", *path, strerror(errno));
	return r;
}

static int set_timeout(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1000, 24 * 86400000u, e);
}

static int set_poll_timeout(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 3000, 60000, e);
}

static int set_heartbeat(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1000, 3600000, e);
}

static int temporal_options_set_name(void *field, struct span value, struct err *e)
{
	if (value.len == 0 || value.len > 1000 || memchr(value.ptr, '/', value.len))
		return err_set(e, -EINVAL, "expected a name of up to 1000 characters, without /");
	return task_setting_text(field, value, e);
}

#define FIELD(name) .offset = offsetof(struct temporal_options, name)
const struct task_setting temporal_settings[] = {
	{.key = "http_url", .set = task_setting_url, FIELD(http_url), .variables = {"TEMPORAL_HTTP_URL"}},
	{.key = "host", .set = set_host, FIELD(host), .variables = {"TEMPORAL_HOST"}},
	{.key = "port", .set = set_port, FIELD(port), .variables = {"TEMPORAL_PORT"}},
	{.key = "address", .set = set_address, FIELD(address), .variables = {"TEMPORAL_ADDRESS"}},
	{.key = "namespace",
	 .set = temporal_options_set_name,
	 FIELD(namespace_name),
	 .variables = {"TEMPORAL_NAMESPACE"}},
	{.key = "task_queue",
	 .set = temporal_options_set_name,
	 FIELD(task_queue),
	 .variables = {"TEMPORAL_TASK_QUEUE"}},
	{.key = "api_key", .set = set_api_key, FIELD(authorization), .variables = {"TEMPORAL_API_KEY"}},
	{.key = "api_key_file", .path = true, .set = set_api_key_file, FIELD(authorization)},
	{.key = "ca_file",
	 .path = true,
	 .set = set_file,
	 FIELD(ca_file),
	 .variables = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH"}},
	{.key = "client_cert_file",
	 .path = true,
	 .set = set_file,
	 FIELD(client_cert),
	 .variables = {"TEMPORAL_TLS_CLIENT_CERT_PATH"}},
	{.key = "client_key_file",
	 .path = true,
	 .set = set_file,
	 FIELD(client_key),
	 .variables = {"TEMPORAL_TLS_CLIENT_KEY_PATH"}},
	{.key = "execution_timeout", .set = set_timeout, FIELD(execution_timeout_ms)},
	{.key = "poll_timeout", .set = set_poll_timeout, FIELD(poll_timeout_ms)},
	{.key = "heartbeat_timeout", .set = set_heartbeat, FIELD(heartbeat_timeout_ms)},
	{.key = NULL},
};

/* --- all of them ---------------------------------------------------------------------------------------- */

/* Of gRPC: what is said, or the host; the usual one on this machine where nothing is said at all. With
 * http_url alone it is not known: that may be another host or another port. */
static int default_address(struct temporal_options *o, struct err *e)
{
	CLEANUP(buf_releasep) struct buf address = BUF_INIT(1024);
	if (!o->address_says_tls)
		o->address_tls =
			o->http_url ? strncmp(o->http_url, "https://", 8) == 0 : o->ca_file || o->client_cert;
	if (o->address || (o->http_url && !o->host))
		return 0;
	buf_printf(&address, "%s:%s", o->host ? o->host : "127.0.0.1", o->port ? o->port : DEFAULT_PORT);
	return address.error ? err_set(e, address.error, "out of memory")
			     : task_setting_text(&o->address, buf_span(&address), e);
}

static int defaults(struct temporal_options *o, struct err *e)
{
	int r = 0;
	if (!o->namespace_name)
		r = task_setting_text(&o->namespace_name, SPAN_LIT("default"), e);
	if (r == 0 && !o->task_queue)
		r = task_setting_text(&o->task_queue, SPAN_LIT(TEMPORAL_DEFAULT_QUEUE), e);
	if (!o->execution_timeout_ms)
		o->execution_timeout_ms = DEFAULT_TIMEOUT_MS;
	if (!o->poll_timeout_ms)
		o->poll_timeout_ms = DEFAULT_POLL_MS;
	if (r == 0)
		r = default_address(o, e);
	if (r == 0 && !o->http_url) {
		CLEANUP(buf_releasep) struct buf url = BUF_INIT(1024);
		const char *scheme = o->address && o->address_tls && o->address_says_tls ? "https" : "http";
		buf_printf(&url, "%s://%s:7243", scheme, o->host ? o->host : "127.0.0.1");
		o->http_url_is_guessed = true;
		r = url.error ? err_set(e, url.error, "out of memory")
			      : task_setting_text(&o->http_url, buf_span(&url), e);
	}
	return r;
}

int temporal_options_check(struct task_options *options, const struct task_backend_setup *setup,
			   struct err *e)
{
	struct temporal_options *o = (struct temporal_options *)options;
	int r = defaults(o, e);
	(void)setup;
	if (r < 0)
		return r;
	bool tls = strncmp(o->http_url, "https://", 8) == 0;
	if (!tls && (o->ca_file || o->client_cert || o->client_key))
		return err_set(e, -EINVAL,
			       "ca_file, client_cert_file and client_key_file need an http_url that begins "
			       "with https://");
	if (!o->client_cert != !o->client_key)
		return err_set(e, -EINVAL, "client_cert_file and client_key_file go together");
	CLEANUP(buf_releasep) struct buf base = BUF_INIT(16384);
	buf_printf(&base, "%s/api/v1/namespaces/", o->http_url);
	buf_put_segment(&base, span_of(o->namespace_name));
	if (base.error)
		return err_set(e, base.error, "the address is too long");
	free(o->base);
	o->base = buf_steal(&base);
	return o->base ? 0 : err_set(e, -ENOMEM, "out of memory");
}

void temporal_options_release(struct task_options *options)
{
	struct temporal_options *o = (struct temporal_options *)options;
	free(o->http_url);
	free(o->host);
	free(o->port);
	free(o->address);
	free(o->namespace_name);
	free(o->task_queue);
	free(o->authorization);
	free(o->ca_file);
	free(o->client_cert);
	free(o->client_key);
	free(o->base);
}
