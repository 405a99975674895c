/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whose credentials are used
 *
 *         explicit ones                registry_client_set_credentials(), registry_client_set_token()
 *         per config file, last first: its credHelpers[host], else its credsStore; what that does not know: its auths
 *
 * Helpers are run when a host has asked for credentials (401), once; what they gave is kept, and asked for again when
 * the registry refuses it and REFRESH_USEC have passed (ECR's passwords last half a day). While one runs, the calls that
 * need its answer wait. A helper that fails is no reason to give up: most images are public. The operation goes on
 * without credentials, and only a refusal then tells of the helper (RegistryHost.helper_error).
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define REFRESH_USEC (60 * USEC_PER_SEC)

/* ---- given ones ---- */

static int add_explicit(RegistryClient *c, const char *host, RegistryCredentials **ret, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *n = NULL;
        RegistryHost *h;
        int r;

        r = registry_client_get_host(c, host, &h, err);
        if (r < 0)
                return r;
        n = calloc(1, sizeof(*n));
        if (!n)
                return tb_error_oom(err);
        n->host = strdup(h->name);
        if (!n->host)
                return tb_error_oom(err);
        *ret = TAKE_PTR(n);
        return 0;
}

static void put_explicit(RegistryClient *c, RegistryCredentials **n)
{
        (*n)->next = c->explicit_credentials;
        c->explicit_credentials = TAKE_PTR(*n);
}

int registry_client_set_credentials(
        RegistryClient *c, const char *host, const char *user, const char *password, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *n = NULL;
        int r;

        r = add_explicit(c, host, &n, err);
        if (r < 0)
                return r;
        if (!*user || strchr(user, ':')) /* RFC 7617: a user-id has no colon */
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s: the user name must not be empty and must not contain \":\"", n->host);
        n->user = strdup(user);
        n->password = registry_secret_keep(password);
        if (!n->user || !n->password)
                return tb_error_oom(err);
        put_explicit(c, &n);
        return 0;
}

int registry_client_set_token(RegistryClient *c, const char *host, const char *identity_token,
        const char *registry_token, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *n = NULL;
        const char *token = identity_token ? identity_token : registry_token;
        int r;

        r = add_explicit(c, host, &n, err);
        if (r < 0)
                return r;
        if (!token || !*token || (identity_token && registry_token))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "%s: exactly one token must be given", n->host);
        for (const char *p = token; *p; p++)
                if (*p <= ' ' || *p > '~')
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "%s: the token has characters that no token may have", n->host);
        *(identity_token ? &n->identity_token : &n->registry_token) = registry_secret_keep(token);
        if (!n->identity_token && !n->registry_token)
                return tb_error_oom(err);
        put_explicit(c, &n);
        return 0;
}

int registry_client_load_docker_config(RegistryClient *c, const char *path, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *own_path = NULL;
        _cleanup_secret_ char *data = NULL;
        RegistryDockerConfig *config;
        const char *dir;
        size_t size;
        int r;

        if (!path) {
                dir = getenv("DOCKER_CONFIG");
                if (dir && *dir)
                        own_path = tb_asprintf("%s/config.json", dir);
                else {
                        dir = getenv("HOME");
                        if (!dir || !*dir)
                                return 0;
                        own_path = tb_asprintf("%s/.docker/config.json", dir);
                }
                if (!own_path)
                        return tb_error_oom(err);
        }
        r = tb_file_read(path ? path : own_path, 1024U * 1024, &data, &size, &e);
        if (r == -ENOENT && !path)
                return 0;
        if (r < 0) {
                tb_error_move(err, &e);
                return r;
        }
        r = registry_docker_config_parse(data, size, path ? path : own_path, &config, err);
        if (r < 0)
                return r;
        config->next = c->configs; /* later files win: in front */
        c->configs = config;
        return 0;
}

int registry_client_set_helper_path(RegistryClient *c, const char *path, TbError **err)
{
        char *copy = path ? strdup(path) : NULL;

        if (path && !copy)
                return tb_error_oom(err);
        free(c->helper_path);
        c->helper_path = copy;
        return 0;
}

void registry_client_set_helper_timeout(RegistryClient *c, uint64_t usec)
{
        c->helper_timeout_usec = usec;
}

/* ---- finding ---- */

static RegistryHost *host_by_name(const RegistryClient *c, const char *host)
{
        for (RegistryHost *h = c->hosts; h; h = h->next)
                if (strcasecmp(h->name, host) == 0)
                        return h;
        return NULL;
}

static const RegistryCredentials *find_explicit(const RegistryClient *c, const char *host)
{
        for (const RegistryCredentials *i = c->explicit_credentials; i; i = i->next)
                if (strcasecmp(i->host, host) == 0)
                        return i;
        return NULL;
}

const RegistryCredentials *registry_client_find_credentials(const RegistryClient *c, const char *host)
{
        const RegistryCredentials *given = find_explicit(c, host);
        const RegistryHost *h = host_by_name(c, host);

        for (const RegistryDockerConfig *f = c->configs; f && !given; f = f->next) {
                const char *helper;

                given = registry_docker_config_find(f, host, &helper);
                if (helper && h && h->helper_credentials)
                        return h->helper_credentials;
        }
        return given;
}

/* The helper that has to be asked about a host before anything else counts, or NULL. */
static const char *find_helper(const RegistryClient *c, const char *host)
{
        if (find_explicit(c, host))
                return NULL;
        for (const RegistryDockerConfig *f = c->configs; f; f = f->next) {
                const char *helper;
                const RegistryCredentials *own = registry_docker_config_find(f, host, &helper);

                if (helper)
                        return helper;
                if (own)
                        break;
        }
        return NULL;
}

bool registry_credentials_recent(const RegistryClient *c, const char *host, const RegistryCredentials **ret,
        const TbError **ret_error)
{
        const RegistryHost *h = host_by_name(c, host);

        if (!h || h->helper_run || h->helper_asked_usec == 0 ||
                tb_now_us() - h->helper_asked_usec >= REFRESH_USEC)
                return false;
        *ret = h->helper_credentials;
        *ret_error = h->helper_error;
        return true;
}

/* ---- asking a helper ---- */

static void wake(RegistryHost *h)
{
        /* Who is woken may free others (holes) and may start new calls, but none of those waits: the answer is there. */
        for (size_t i = 0; i < h->n_helper_waiters; i++) {
                RegistryCall *call = TAKE_PTR(h->helper_waiters[i]);

                if (call)
                        registry_call_credentials_ready(call);
        }
        h->n_helper_waiters = 0;
}

static void take_answer(RegistryHost *h, const RegistryHelperAnswer *answer, const TbError *err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *n = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r = 0;

        h->helper_credentials = registry_credentials_free(h->helper_credentials);
        h->helper_error = tb_error_free(h->helper_error);
        if (err) {
                h->helper_error = tb_error_copy(err);
                return;
        }
        if (answer->not_found)
                return;
        n = calloc(1, sizeof(*n));
        if (n)
                n->host = strdup(h->name);
        if (!n || !n->host)
                r = tb_error_oom(&e);
        if (r >= 0)
                r = registry_helper_answer_parse(answer->output, answer->output_size, n, &e);
        if (r < 0)
                h->helper_error = TAKE_PTR(e);
        else
                h->helper_credentials = TAKE_PTR(n);
}

static void on_helper_done(
        RegistryHelperRun *run, const RegistryHelperAnswer *answer, const TbError *err, void *userdata)
{
        RegistryHost *h = userdata;

        take_answer(h, answer, err);
        h->helper_run = registry_helper_free(h->helper_run);
        wake(h);
}

static int add_waiter(RegistryHost *h, RegistryCall *call, TbError **err)
{
        RegistryCall **w = reallocarray(h->helper_waiters, h->n_helper_waiters + 1, sizeof(*w));

        if (!w)
                return tb_error_oom(err);
        h->helper_waiters = w;
        h->helper_waiters[h->n_helper_waiters++] = call;
        return 0;
}

int registry_credentials_prepare(
        RegistryClient *c, RegistryHost *h, RegistryCall *call, bool refused, TbError **err)
{
        const char *helper = find_helper(c, h->name);
        _cleanup_error_ TbError *e = NULL;
        int r;

        if (!helper)
                return 1;
        if (!h->helper_run) {
                if (h->helper_asked_usec > 0 &&
                        (!refused || tb_now_us() - h->helper_asked_usec < REFRESH_USEC))
                        return 1;
                h->helper_asked_usec = tb_now_us();
                r = registry_helper_start(c->event, c->helper_path, c->helper_timeout_usec, helper, "get",
                        registry_helper_server(h->name), on_helper_done, h, &h->helper_run, &e);
                if (r < 0) {
                        take_answer(h, NULL, e);
                        return 1;
                }
        }
        r = add_waiter(h, call, err);
        return r < 0 ? r : 0;
}

void registry_credentials_forget_call(RegistryClient *c, const RegistryCall *call)
{
        for (RegistryHost *h = c->hosts; h; h = h->next)
                for (size_t i = 0; i < h->n_helper_waiters; i++)
                        if (h->helper_waiters[i] == call)
                                h->helper_waiters[i] = NULL;
}

void registry_credentials_host_done(RegistryHost *h)
{
        registry_helper_free(h->helper_run);
        registry_credentials_free(h->helper_credentials);
        tb_error_free(h->helper_error);
        free(h->helper_waiters);
}
