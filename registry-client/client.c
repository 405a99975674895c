/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The client object: hosts and their settings, credentials, counters. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define HUB_NAME "docker.io"
#define HUB_AUTHORITY \
        "registry-1.docker.io" /* where the Hub's API really is; "docker.io" itself is a web site */

#define DEFAULT_TRIES 3U
#define DEFAULT_BACKOFF_USEC USEC_PER_SEC
#define DEFAULT_STALL_SEC 60U
#define STALL_MAX_SEC 3600U
#define BACKOFF_MAX_USEC (30 * USEC_PER_SEC)

int registry_client_new(sd_event *event, RegistryClient **ret, TbError **err)
{
        _cleanup_(registry_client_freep) RegistryClient *c = NULL;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        c->tries = DEFAULT_TRIES;
        c->backoff_usec = DEFAULT_BACKOFF_USEC;
        c->stall_sec = DEFAULT_STALL_SEC;
        /* A bad proxy is the failure of what would go through it, and may still be replaced. */
        (void) !registry_proxy_from_environment(&c->proxy, &c->proxy.error);
        if (event)
                c->event = sd_event_ref(event);
        else {
                r = sd_event_new(&c->event);
                if (r < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot create an event loop");
        }
        r = tb_http_new(c->event, &c->http, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

static void host_free(RegistryHost *h)
{
        free(h->name);
        free(h->authority);
        free(h->ca_file);
        free(h->ca_pem);
        free(h->unix_socket);
        free(h->client_cert);
        free(h->client_key);
        registry_challenge_done(&h->challenge);
        registry_credentials_host_done(h);
        free(h);
}

RegistryClient *registry_client_free(RegistryClient *c)
{
        if (!c)
                return NULL;
        registry_client_stop_closing(c);
        registry_client_forget_shares(c);
        registry_auth_free_tokens(c);
        while (c->hosts) {
                RegistryHost *next = c->hosts->next;

                host_free(c->hosts);
                c->hosts = next;
        }
        registry_credentials_free(c->explicit_credentials);
        registry_docker_config_free(c->configs);
        free(c->helper_path);
        free(c->certs_dir);
        registry_proxy_done(&c->proxy);
        tb_strv_free(c->warnings);
        tb_http_free(c->http);
        sd_event_unref(c->event);
        free(c);
        return NULL;
}

sd_event *registry_client_event(RegistryClient *c)
{
        return c->event;
}

static RegistryHost *find_host(const RegistryClient *c, const char *name)
{
        for (RegistryHost *h = c->hosts; h; h = h->next)
                if (strcasecmp(h->name, name) == 0)
                        return h;
        return NULL;
}

int registry_client_get_host(RegistryClient *c, const char *name, RegistryHost **ret, TbError **err)
{
        RegistryHost *h;

        if (strcasecmp(name, "index.docker.io") == 0)
                name = HUB_NAME;
        h = find_host(c, name);
        if (h) {
                *ret = h;
                return 0;
        }
        if (!registry_host_is_valid(name)) {
                _cleanup_free_ char *shown = tb_escape(name, 80);

                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "registry host \"%s\": write HOST or HOST:PORT, without http:// and without a path",
                        shown ? shown : "?");
        }
        h = calloc(1, sizeof(*h));
        if (!h)
                return tb_error_oom(err);
        h->name = strdup(name);
        h->authority = strdup(strcasecmp(name, HUB_NAME) == 0 ? HUB_AUTHORITY : name);
        if (!h->name || !h->authority) {
                host_free(h);
                return tb_error_oom(err);
        }
        for (char *p = h->name; *p; p++)
                if (*p >= 'A' && *p <= 'Z')
                        *p = (char) (*p - 'A' + 'a');
        h->plain_http = registry_host_is_loopback(name);
        h->next = c->hosts;
        c->hosts = h;
        *ret = h;
        return 0;
}

RegistryHost *registry_client_find_authority(RegistryClient *c, const char *authority)
{
        for (RegistryHost *h = c->hosts; h; h = h->next)
                if (strcasecmp(h->authority, authority) == 0)
                        return h;
        return NULL;
}

char *registry_host_url(const RegistryHost *h, const char *path_format, ...)
{
        _cleanup_free_ char *path = NULL;
        va_list ap;
        int n;

        va_start(ap, path_format);
        n = vasprintf(&path, path_format, ap);
        va_end(ap);
        if (n < 0) {
                path = NULL;
                return NULL;
        }
        return tb_asprintf("%s://%s/v2/%s", h->plain_http ? "http" : "https", h->authority, path);
}

int registry_client_set_plain_http(RegistryClient *c, const char *host, TbError **err)
{
        RegistryHost *h;
        int r = registry_client_get_host(c, host, &h, err);

        if (r < 0)
                return r;
        h->plain_http = true;
        return 0;
}

static int replace_string(char **field, const char *value, TbError **err)
{
        char *copy = value ? strdup(value) : NULL;

        if (value && !copy)
                return tb_error_oom(err);
        free(*field);
        *field = copy;
        return 0;
}

int registry_client_set_tls(RegistryClient *c, const char *host, const RegistryTls *tls, TbError **err)
{
        RegistryHost *h;
        int r;

        if ((r = registry_client_get_host(c, host, &h, err)) < 0 ||
                (r = replace_string(&h->ca_file, tls->ca_file, err)) < 0 ||
                (r = replace_string(&h->client_cert, tls->client_cert, err)) < 0 ||
                (r = replace_string(&h->client_key, tls->client_key, err)) < 0)
                return r;
        h->insecure = tls->insecure;
        h->tls_given = true;
        free(h->ca_pem); /* what a certs directory gave */
        h->ca_pem = NULL;
        h->plain_http = false; /* who gives TLS settings wants TLS, also on a loopback name */
        return 0;
}

int registry_client_set_unix_socket(RegistryClient *c, const char *host, const char *path, TbError **err)
{
        RegistryHost *h;
        int r;

        r = registry_client_get_host(c, host, &h, err);
        if (r < 0)
                return r;
        if (path[0] != '/' || strlen(path) >= sizeof(((struct sockaddr_un *) NULL)->sun_path))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s: the path of its unix socket must be absolute and shorter than %zu bytes",
                        h->name, sizeof(((struct sockaddr_un *) NULL)->sun_path));
        r = replace_string(&h->unix_socket, path, err);
        if (r >= 0 && !h->tls_given)
                h->plain_http = true;
        return r;
}

void registry_client_set_upload_chunk(RegistryClient *c, uint64_t bytes)
{
        c->upload_chunk = bytes > 0 ? MAX2(bytes, (uint64_t) REGISTRY_CHUNK_MIN) : 0;
}

void registry_client_set_stall_timeout(RegistryClient *c, uint64_t seconds)
{
        c->stall_sec = seconds < 1 ? 1 : MIN2(seconds, (uint64_t) STALL_MAX_SEC);
}

void registry_client_set_retry(RegistryClient *c, unsigned tries, uint64_t backoff_usec)
{
        c->tries = tries < 1 ? 1 : MIN2(tries, 10U);
        c->backoff_usec = MIN2(backoff_usec, (uint64_t) BACKOFF_MAX_USEC);
}

uint64_t registry_client_backoff(const RegistryClient *c, unsigned attempt, uint64_t retry_after_usec)
{
        uint64_t usec = c->backoff_usec;
        uint16_t noise = 0;

        if (retry_after_usec > 0)
                return MIN2(retry_after_usec, REGISTRY_RETRY_AFTER_MAX_SEC * USEC_PER_SEC);
        for (unsigned i = 1; i < attempt && usec < BACKOFF_MAX_USEC; i++)
                usec *= 2;
        usec = MIN2(usec, (uint64_t) BACKOFF_MAX_USEC);
        /* 75 % ... 125 %, so that 25 hosts that failed together do not come back together. No entropy: no jitter. */
        if (getrandom(&noise, sizeof(noise), GRND_NONBLOCK) != (ssize_t) sizeof(noise))
                return usec;
        return usec - usec / 4 + usec / 2 * noise / UINT16_MAX;
}

int registry_client_set_user_agent(RegistryClient *c, const char *agent, TbError **err)
{
        for (const char *p = agent; *p; p++)
                if ((unsigned char) *p < ' ' || *p == 127)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the user agent has a control character; it goes into a header line");
        return tb_http_set_user_agent(c->http, agent, err);
}

void registry_client_set_debug(RegistryClient *c, RegistryDebugFn fn, void *userdata)
{
        c->debug = fn;
        c->debug_userdata = userdata;
}

void registry_client_debug(const RegistryClient *c, const char *fmt, ...)
{
        _cleanup_free_ char *line = NULL;
        va_list ap;
        int n;

        if (!c->debug)
                return;
        va_start(ap, fmt);
        n = vasprintf(&line, fmt, ap);
        va_end(ap);
        if (n < 0)
                line = NULL;
        else
                c->debug(line, c->debug_userdata);
}

const char *registry_client_auth_scheme(const RegistryClient *c, const char *host)
{
        const RegistryHost *h = find_host(c, host);

        if (!h || h->challenge.scheme == REGISTRY_AUTH_NONE)
                return "none";
        return h->challenge.scheme == REGISTRY_AUTH_BASIC ? "basic" : "bearer";
}

const char *registry_version(void)
{
        return TBNODE_VERSION;
}

void registry_client_cancel(RegistryClient *c)
{
        c->cancelled = true;
}

void registry_client_get_stats(const RegistryClient *c, RegistryStats *ret)
{
        *ret = c->stats;
}
