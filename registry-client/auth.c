/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Bearer tokens
 *
 * A token is valid for (token server, service, list of scopes, account). The cache is keyed by these; while one is
 * being fetched, calls that need the same one wait for it together instead of asking again. Expiry is counted on the
 * monotonic clock from the moment of the answer, so the server's and our wall clocks do not matter; tokens are
 * renewed a little early so that none runs out under way.
 *
 * Two ways to ask (distribution, docs/spec/auth/token.md and oauth.md): GET with Basic credentials or none, and a POST
 * form (OAuth2) with a refresh token ("identity token"), or with the password when the server has no GET. A refresh
 * token that comes back with the answer replaces the old one.
 *
 * Credentials are sent to the token server that the registry named in its challenge, over https only, unless the
 * registry itself is a plain-http one.
 */

#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define TOKENS_MAX 256U
#define CLIENT_ID "tbnode"
#define EARLY_USEC (10 * USEC_PER_SEC)

struct RegistryToken {
        RegistryToken *next;
        char *key;
        char *value; /* NULL while it is being fetched for the first time */
        uint64_t expires_usec;
        uint64_t used_usec;
        RegistryClient *client;
        RegistryHost *host;
        RegistryCall *fetch;    /* NULL = not being fetched */
        char **scopes;          /* of the fetch */
        bool posted;            /* the fetch is a POST */
        RegistryCall **waiters; /* holes are NULL */
        size_t n_waiters;
};

static void token_free(RegistryToken *t)
{
        registry_call_free(t->fetch);
        free(t->key);
        tb_strv_free(t->scopes);
        registry_secret_drop(t->value);
        free(t->waiters);
        free(t);
}

void registry_auth_free_tokens(RegistryClient *c)
{
        while (c->tokens) {
                RegistryToken *next = c->tokens->next;

                token_free(c->tokens);
                c->tokens = next;
        }
        c->n_tokens = 0;
}

int registry_auth_basic(RegistryClient *c, const RegistryHost *host, char **ret, TbError **err)
{
        const RegistryCredentials *cred = registry_client_find_credentials(c, host->name);
        _cleanup_secret_ char *pair = NULL, *encoded = NULL;
        char *out;

        if (!cred || !cred->user || !cred->password) {
                *ret = NULL;
                return 0;
        }
        pair = tb_asprintf("%s:%s", cred->user, cred->password);
        encoded = pair ? registry_base64_encode(pair, strlen(pair)) : NULL;
        out = encoded ? tb_asprintf("Basic %s", encoded) : NULL;
        if (!out)
                return tb_error_oom(err);
        *ret = out;
        return 0;
}

/* Everybody who waits by now gets the token or the error. The callbacks may free other waiters (holes) and may add new
 * ones behind (these wait for the next fetch); a token with waiters is never evicted. */
static void wake_waiters(RegistryToken *t, const TbError *err)
{
        size_t n = t->n_waiters;

        for (size_t i = 0; i < n; i++) {
                RegistryCall *call = TAKE_PTR(t->waiters[i]);

                if (call)
                        registry_call_token_ready(call, t->value, err);
        }
        t->n_waiters -= n;
        memmove(t->waiters, t->waiters + n, t->n_waiters * sizeof(*t->waiters));
}

void registry_auth_forget_call(RegistryClient *c, const RegistryCall *call)
{
        for (RegistryToken *t = c->tokens; t; t = t->next)
                for (size_t i = 0; i < t->n_waiters; i++)
                        if (t->waiters[i] == call)
                                t->waiters[i] = NULL;
}

bool registry_scope_is_covered(char *const *scopes, const char *scope)
{
        const char *actions = strrchr(scope, ':');

        if (!actions)
                return false;
        actions++;
        for (size_t i = 0; scopes && scopes[i]; i++) {
                size_t head = (size_t) (actions - scope), covered = 0, wanted = 0;
                const char *have = scopes[i] + head;

                if (strncmp(scopes[i], scope, head) != 0 || strchr(have, ':'))
                        continue;
                for (const char *a = actions; *a;) {
                        size_t n = strcspn(a, ",");

                        wanted++;
                        for (const char *h = have; *h;) {
                                size_t m = strcspn(h, ",");

                                if (m == n && strncmp(a, h, n) == 0) {
                                        covered++;
                                        break;
                                }
                                h += m + (h[m] == ',');
                        }
                        a += n + (a[n] == ',');
                }
                if (covered == wanted)
                        return true;
        }
        return false;
}

/* A rotated refresh token: the old one is worth nothing now. */
static int renew_identity(RegistryToken *t, const char *refresh_token, TbError **err)
{
        /* const for everybody who only looks them up */
        RegistryCredentials *cred = (RegistryCredentials *) (uintptr_t) registry_client_find_credentials(
                t->client, t->host->name);
        char *kept;

        if (!cred || !cred->identity_token || tb_streq(cred->identity_token, refresh_token))
                return 0;
        kept = registry_secret_keep(refresh_token);
        if (!kept)
                return tb_error_oom(err);
        registry_secret_drop(cred->identity_token);
        cred->identity_token = kept;
        return 0;
}

static int take_answer(RegistryToken *t, RegistryCall *fetch, TbError **err)
{
        _cleanup_(registry_token_answer_done) RegistryTokenAnswer a = {0};
        _cleanup_secret_ char *value = NULL;
        uint64_t early;
        const char *body;
        size_t size;
        int r;

        body = registry_call_body(fetch, &size);
        if (registry_call_status(fetch) != 200)
                return registry_status_error_full(t->host->name, registry_call_status(fetch), body, size,
                        registry_call_header(fetch, "Retry-After"), "the token server refuses", err);
        r = registry_token_parse(body, size, registry_call_header(fetch, "Date"), &a, err);
        registry_call_wipe_body(fetch);
        if (r < 0) {
                tb_error_prefix(err, "%s", t->host->name);
                return r;
        }
        if (t->posted && a.refresh_token) {
                r = renew_identity(t, a.refresh_token, err);
                if (r < 0)
                        return r;
        }
        value = tb_asprintf("Bearer %s", a.token);
        registry_secret_drop(t->value);
        t->value = value ? registry_secret_keep(value) : NULL;
        if (!t->value)
                return tb_error_oom(err);
        early = MIN2(EARLY_USEC, a.expires_sec * USEC_PER_SEC / 2);
        t->expires_usec = tb_now_us() + a.expires_sec * USEC_PER_SEC - early;
        return 0;
}

static int start_fetch(RegistryToken *t, bool post, TbError **err);

/* The server has no GET, or wants a form: RFC 6749 servers that serve registries beside other things. */
static bool should_post(const RegistryToken *t, const RegistryCall *fetch)
{
        const RegistryCredentials *cred = registry_client_find_credentials(t->client, t->host->name);
        unsigned status = registry_call_status(fetch);

        return !t->posted && (status == 404 || status == 405 || status == 501) && cred && cred->user;
}

static void on_fetched(RegistryCall *fetch, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryToken *t = userdata;
        int r;

        if (err) {
                e = tb_error_copy(err);
                tb_error_prefix(&e, "%s: cannot get a token", t->host->name);
                r = err->code;
        } else if (should_post(t, fetch)) {
                r = start_fetch(t, true, &e);
                if (r >= 0)
                        return;
        } else
                r = take_answer(t, fetch, &e);
        if (r < 0)
                t->value = registry_secret_drop(t->value);
        t->fetch = registry_call_free(t->fetch);
        wake_waiters(t, e);
}

/* The token server's URL; refuses to send secrets where they could be read. */
static int realm_url(RegistryHost *host, char **ret, TbError **err)
{
        _cleanup_free_ char *base = registry_host_url(host, "%s", ""), *url = NULL, *authority = NULL;
        int r;

        if (!base)
                return tb_error_oom(err);
        r = registry_url_resolve(base, host->challenge.realm, &url, err);
        if (r < 0) {
                tb_error_prefix(err, "%s: token server", host->name);
                return r;
        }
        authority = registry_url_authority(url);
        if (!authority)
                return tb_error_oom(err);
        if (!registry_url_is_https(url) && !host->plain_http && !registry_host_is_loopback(authority))
                return tb_error_set(err, TB_ERROR_REMOTE, -EACCES,
                        "%s: its token server %s is not https: credentials are not sent there", host->name,
                        authority);
        if (registry_host_is_private(authority) && !host->seen_private &&
                !registry_host_is_private(host->authority))
                return tb_error_set(err, TB_ERROR_REMOTE, -EACCES,
                        "%s: names the private address %s as its token server: refused", host->name,
                        authority);
        *ret = TAKE_PTR(url);
        return 0;
}

/* With the query of a GET. */
static int token_url(RegistryToken *t, const RegistryCredentials *cred, char **ret, TbError **err)
{
        const char *const params[][2] = {
                {"service", t->host->challenge.service},
                {"client_id", CLIENT_ID},
                {"account", cred ? cred->user : NULL},
        };
        _cleanup_free_ char *url = NULL;
        int r;

        r = realm_url(t->host, &url, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(params); i++) {
                char *longer;

                if (!params[i][1] || !*params[i][1])
                        continue;
                r = registry_url_add_query(url, params[i][0], params[i][1], &longer, err);
                if (r < 0)
                        return r;
                free(url);
                url = longer;
        }
        for (size_t i = 0; t->scopes && t->scopes[i]; i++) {
                char *longer;

                r = registry_url_add_query(url, "scope", t->scopes[i], &longer, err);
                if (r < 0)
                        return r;
                free(url);
                url = longer;
        }
        *ret = TAKE_PTR(url);
        return 0;
}

/* The form of a POST (oauth.md); secret. */
static int token_form(RegistryToken *t, const RegistryCredentials *cred, TbBuffer *b, TbError **err)
{
        _cleanup_free_ char *scope = tb_strv_join(t->scopes, " ");
        const bool refresh = cred->identity_token;
        const char *const params[][2] = {
                {"grant_type", refresh ? "refresh_token" : "password"},
                {"service", t->host->challenge.service ? t->host->challenge.service : ""},
                {"client_id", CLIENT_ID},
                {"scope", scope},
                {"refresh_token", cred->identity_token},
                {"username", refresh ? NULL : cred->user},
                {"password", refresh ? NULL : cred->password},
        };

        if (!scope)
                return tb_error_oom(err);
        for (size_t i = 0; i < ELEMENTSOF(params); i++) {
                int r = params[i][1] ? registry_form_add(b, params[i][0], params[i][1], err) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

static void secret_buffer_done(TbBuffer *b)
{
        if (b->data)
                explicit_bzero(b->data, b->allocated);
        tb_buffer_done(b);
}

static int start_fetch(RegistryToken *t, bool post, TbError **err)
{
        const RegistryCredentials *cred = registry_client_find_credentials(t->client, t->host->name);
        static const char *const form_headers[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
        _cleanup_(secret_buffer_done) TbBuffer form = TB_BUFFER_INIT(256U * 1024);
        _cleanup_secret_ char *basic = NULL;
        _cleanup_free_ char *url = NULL;
        RegistryCallOptions o = {
                .host = t->host,
                .method = post ? "POST" : "GET",
                .headers = post ? form_headers : NULL,
                .authorization = "",
                .timeout_usec = 30 * USEC_PER_SEC,
                .response_max = 256U * 1024,
                .done = on_fetched,
                .userdata = t,
        };
        int r;

        r = post ? realm_url(t->host, &url, err) : token_url(t, cred, &url, err);
        if (r < 0)
                return r;
        if (post) {
                r = token_form(t, cred, &form, err);
                o.body = form.data;
                o.body_size = form.size;
        } else {
                r = registry_auth_basic(t->client, t->host, &basic, err);
                o.authorization = basic ? basic : "";
        }
        if (r < 0)
                return r;
        o.url = url;
        t->posted = post;
        t->fetch = registry_call_free(t->fetch);
        return registry_call_start(t->client, &o, &t->fetch, err);
}

static int add_waiter(RegistryToken *t, RegistryCall *call, TbError **err)
{
        RegistryCall **w = reallocarray(t->waiters, t->n_waiters + 1, sizeof(*w));

        if (!w)
                return tb_error_oom(err);
        t->waiters = w;
        t->waiters[t->n_waiters++] = call;
        return 0;
}

/* Makes room: the one that was not used for the longest time and that nobody waits for. */
static void evict(RegistryClient *c)
{
        RegistryToken **oldest = NULL;

        for (RegistryToken **p = &c->tokens; *p; p = &(*p)->next)
                if (!(*p)->fetch && (*p)->n_waiters == 0 &&
                        (!oldest || (*p)->used_usec < (*oldest)->used_usec))
                        oldest = p;
        if (oldest) {
                RegistryToken *t = *oldest;

                *oldest = t->next;
                token_free(t);
                c->n_tokens--;
        }
}

static int find_token(RegistryClient *c, RegistryHost *host, char *const *scopes, const char *user,
        RegistryToken **ret, TbError **err)
{
        _cleanup_free_ char *joined = tb_strv_join(scopes, "\n"), *key = NULL;
        RegistryToken *t;

        key = joined
                ? tb_asprintf("%s\n%s\n%s\n%s\n%s", host->name, host->challenge.realm,
                          host->challenge.service ? host->challenge.service : "", user ? user : "", joined)
                : NULL;
        if (!key)
                return tb_error_oom(err);
        for (t = c->tokens; t; t = t->next)
                if (tb_streq(t->key, key)) {
                        *ret = t;
                        return 0;
                }
        if (c->n_tokens >= TOKENS_MAX)
                evict(c);
        t = calloc(1, sizeof(*t));
        if (!t)
                return tb_error_oom(err);
        t->key = TAKE_PTR(key);
        t->client = c;
        t->host = host;
        t->next = c->tokens;
        c->tokens = t;
        c->n_tokens++;
        *ret = t;
        return 0;
}

int registry_auth_get_token(RegistryClient *c, RegistryHost *host, char *const *scopes, const char *stale,
        RegistryCall *call, const char **ret, TbError **err)
{
        const RegistryCredentials *cred = registry_client_find_credentials(c, host->name);
        _cleanup_secret_ char *given = NULL;
        RegistryToken *t;
        int r;

        r = find_token(c, host, scopes, cred ? cred->user : NULL, &t, err);
        if (r < 0)
                return r;
        t->used_usec = tb_now_us();

        if (cred && cred->registry_token &&
                !t->value) { /* given as it is: nothing to fetch, never expires for us */
                given = tb_asprintf("Bearer %s", cred->registry_token);
                t->value = given ? registry_secret_keep(given) : NULL;
                if (!t->value)
                        return tb_error_oom(err);
                t->expires_usec = UINT64_MAX;
        }
        if (!t->fetch && t->value && tb_now_us() < t->expires_usec && !tb_streq(t->value, stale)) {
                *ret = t->value;
                return 1;
        }
        if (cred && cred->registry_token)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "%s: refuses the registrytoken of the docker config; renew it", host->name);
        r = add_waiter(t, call, err);
        if (r < 0)
                return r;
        if (!t->fetch) {
                tb_strv_free(t->scopes);
                t->scopes = tb_strv_copy(scopes);
                r = t->scopes || !scopes ? start_fetch(t, cred && cred->identity_token, err)
                                         : tb_error_oom(err);
                if (r < 0) {
                        t->n_waiters--;
                        return r;
                }
        }
        return 0;
}
