/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Keeping credentials where docker(1) looks for them (docker/cli, cli/config/configfile and cli/config/credentials)
 *
 * credHelpers[host], else credsStore name a helper: the secret goes there, and the file only remembers under `auths` that
 * there is one ({}). Without either it goes into the file, as base64 of user:password.
 *
 * The file belongs to others as well: every member that we do not know stays, in its order; a file that cannot be
 * understood is not touched. It is replaced atomically, readable for its owner only, and under a lock on its directory
 * (flock), so that two of us at a time lose nothing. A symbolic link stays one: what it names is replaced.
 */

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define CONFIG_MAX (1024U * 1024)

typedef struct Store {
        char *path; /* the file itself, behind symbolic links */
        int lock;
        json_t *json;
        const char *key; /* of the host in it */
} Store;

static void store_done(Store *s)
{
        free(s->path);
        tb_close(s->lock);
        if (s->json)
                registry_json_wipe(s->json);
}

/* Where the file is, or would be. */
static int find_path(const char *config_path, char **ret, TbError **err)
{
        _cleanup_free_ char *path = NULL;
        const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
        char *real;

        if (config_path)
                path = strdup(config_path);
        else if (dir && *dir)
                path = tb_asprintf("%s/config.json", dir);
        else if (home && *home)
                path = tb_asprintf("%s/.docker/config.json", home);
        else
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                        "there is no place for credentials: neither HOME nor DOCKER_CONFIG is set");
        if (!path)
                return tb_error_oom(err);
        real = realpath(path, NULL);
        if (!real && errno != ENOENT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot find %s", path);
        *ret = real ? real : TAKE_PTR(path);
        return 0;
}

static int lock_directory(Store *s, TbError **err)
{
        _cleanup_free_ char *copy = strdup(s->path);
        const char *dir;
        int r;

        if (!copy)
                return tb_error_oom(err);
        dir = dirname(copy);
        r = tb_mkdir_p(dir, 0700, err);
        if (r < 0)
                return r;
        s->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->lock < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot open %s", dir);
        do
                r = flock(s->lock, LOCK_EX);
        while (r < 0 && errno == EINTR);
        return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot lock %s", dir) : 0;
}

static int store_open(const char *config_path, const char *host, Store *s, TbError **err)
{
        _cleanup_secret_ char *data = NULL;
        _cleanup_error_ TbError *e = NULL;
        size_t size;
        int r;

        s->key = registry_helper_server(host);
        r = find_path(config_path, &s->path, err);
        if (r < 0)
                return r;
        r = lock_directory(s, err);
        if (r < 0)
                return r;
        r = tb_file_read(s->path, CONFIG_MAX, &data, &size, &e);
        if (r == -ENOENT || (r >= 0 && size == 0)) {
                s->json = json_object();
                return s->json ? 0 : tb_error_oom(err);
        }
        if (r < 0)
                return tb_error_move(err, &e);
        r = tb_json_parse(data, size, CONFIG_MAX, s->path, &s->json, err);
        if (r < 0)
                return r;
        if (!json_is_object(s->json))
                return tb_error_set(err, TB_ERROR_CONFIG, -EBADMSG,
                        "%s: expected an object; this is no docker configuration, and it was left alone",
                        s->path);
        return 0;
}

static int store_write(const Store *s, TbError **err)
{
        _cleanup_secret_ char *text = json_dumps(s->json, JSON_INDENT(8) | JSON_ENSURE_ASCII);

        if (!text)
                return tb_error_oom(err);
        return tb_file_write_atomic(s->path, text, strlen(text), 0600, err);
}

/* The helper that keeps this host's secret: 1 = *ret (borrowed), 0 = none. */
static int store_helper(const Store *s, const char *host, const char **ret, TbError **err)
{
        json_t *helpers = NULL;
        const char *name = NULL;
        int r;

        if ((r = tb_json_get_object(s->json, "credHelpers", &helpers, err)) < 0 ||
                (helpers &&
                        ((r = tb_json_get_string(helpers, host, &name, err)) < 0 ||
                                (!name && (r = tb_json_get_string(helpers, s->key, &name, err)) < 0))) ||
                (!name && (r = tb_json_get_string(s->json, "credsStore", &name, err)) < 0)) {
                tb_error_prefix(err, "%s", s->path);
                return r;
        }
        if (!name || !*name)
                return 0;
        if (!registry_helper_name_is_valid(name))
                return tb_error_set(err, TB_ERROR_CONFIG, -EBADMSG,
                        "%s: the name of its credential helper is not one", s->path);
        *ret = name;
        return 1;
}

/* ---- helpers ---- */

typedef struct HelperOp {
        RegistryOp op;
        RegistryHelperRun *run;
        const char *verb;
} HelperOp;

static void helper_destroy(RegistryOp *op)
{
        registry_helper_free(((HelperOp *) op)->run);
}

static void on_helper_done(
        RegistryHelperRun *run, const RegistryHelperAnswer *answer, const TbError *err, void *userdata)
{
        HelperOp *o = userdata;

        if (err)
                registry_op_fail(&o->op, err);
        else
                registry_op_finish(&o->op, answer->not_found ? 0 : 1, NULL);
}

/* 1 = done, 0 = it has nothing for this host. */
static int run_helper(
        RegistryClient *c, const char *name, const char *verb, const char *input, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(HelperOp), helper_destroy, NULL, NULL, err);
        HelperOp *o = (HelperOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        r = registry_helper_start(c->event, c->helper_path, c->helper_timeout_usec, name, verb, input,
                on_helper_done, o, &o->run, err);
        return r < 0 ? r : registry_op_wait(op, err);
}

static int save_with_helper(RegistryClient *c, const Store *s, const char *helper, const char *user,
        const char *password, TbError **err)
{
        json_t *j = json_pack("{s:s, s:s, s:s}", "ServerURL", s->key, "Username", user, "Secret", password);
        _cleanup_secret_ char *input = j ? json_dumps(j, JSON_COMPACT) : NULL;
        int r;

        if (j)
                registry_json_wipe(j);
        if (!input)
                return tb_error_oom(err);
        r = run_helper(c, helper, "store", input, err);
        return r == 0 ? tb_error_set(err, TB_ERROR_ENVIRONMENT, -EIO,
                                "docker-credential-%s would not store the credentials", helper)
                      : r;
}

/* ---- the file ---- */

/* The spellings of a host that docker and others have used as keys. */
static bool key_is(const char *key, const char *host)
{
        static const char *const tails[] = {"", "/", "/v1", "/v1/", "/v2", "/v2/"};
        const char *rest = tb_startswith(key, "https://");

        if (!rest)
                rest = tb_startswith(key, "http://");
        rest = tb_startswith(rest ? rest : key, host);
        for (size_t i = 0; rest && i < ELEMENTSOF(tails); i++)
                if (tb_streq(rest, tails[i]))
                        return true;
        return false;
}

/* auths[key] = entry (taken), in place of all spellings; NULL removes them. 1 = there was one. */
static int set_entry(Store *s, const char *host, json_t *entry, TbError **err)
{
        json_t *auths = json_object_get(s->json, "auths"), *value;
        const char *key;
        void *next;
        int r = 0, was = 0;

        if (auths && !json_is_object(auths)) {
                json_decref(entry);
                return tb_error_set(err, TB_ERROR_CONFIG, -EBADMSG,
                        "%s: auths: expected an object; left alone", s->path);
        }
        json_object_foreach_safe(auths, next, key,
                value) if (key_is(key, tb_streq(host, "docker.io") ? "index.docker.io" : host))
        {
                was = 1;
                if (!entry || !tb_streq(key, s->key))
                        (void) json_object_del(auths, key);
        }
        if (!entry)
                return was;
        if (!auths)
                r = json_object_set_new(s->json, "auths", json_pack("{s:o}", s->key, entry));
        else
                r = json_object_set_new(auths, s->key, entry);
        return r < 0 ? tb_error_oom(err) : was;
}

static json_t *auth_entry(const char *user, const char *password)
{
        _cleanup_secret_ char *plain = tb_asprintf("%s:%s", user, password);
        _cleanup_secret_ char *coded = plain ? registry_base64_encode(plain, strlen(plain)) : NULL;

        return coded ? json_pack("{s:s}", "auth", coded) : NULL;
}

static char *where(const Store *s, const char *helper)
{
        return helper ? tb_asprintf("docker-credential-%s", helper) : strdup(s->path);
}

int registry_store_credentials(RegistryClient *c, const char *config_path, const char *host,
        const char *user, const char *password, char **ret_where, TbError **err)
{
        _cleanup_(store_done) Store s = {.lock = -EBADF};
        _cleanup_free_ char *text = NULL;
        const char *helper = NULL;
        json_t *entry;
        int r;

        r = registry_client_set_credentials(
                c, host, user, password, err); /* checks them, and uses them from now on */
        if (r < 0 || (r = store_open(config_path, host, &s, err)) < 0 ||
                (r = store_helper(&s, host, &helper, err)) < 0)
                return r;
        if (helper) {
                r = save_with_helper(c, &s, helper, user, password, err);
                if (r < 0)
                        return r;
        }
        entry = helper ? json_object() : auth_entry(user, password);
        if (!entry)
                return tb_error_oom(err);
        text = where(&s, helper);
        if (!text) {
                json_decref(entry);
                return tb_error_oom(err);
        }
        if ((r = set_entry(&s, host, entry, err)) < 0 || (r = store_write(&s, err)) < 0)
                return r;
        if (ret_where)
                *ret_where = TAKE_PTR(text);
        return 0;
}

int registry_erase_credentials(
        RegistryClient *c, const char *config_path, const char *host, char **ret_where, TbError **err)
{
        _cleanup_(store_done) Store s = {.lock = -EBADF};
        _cleanup_free_ char *text = NULL;
        const char *helper = NULL;
        int r, had = 0;

        if ((r = store_open(config_path, host, &s, err)) < 0 ||
                (r = store_helper(&s, host, &helper, err)) < 0)
                return r;
        text = where(&s, helper);
        if (!text)
                return tb_error_oom(err);
        if (helper) {
                had = run_helper(c, helper, "erase", s.key, err);
                if (had < 0)
                        return had;
        }
        r = set_entry(&s, host, NULL, err);
        if (r > 0) { /* a file that knew nothing stays as it is */
                int k = store_write(&s, err);

                if (k < 0)
                        return k;
        }
        if (r < 0)
                return r;
        if (ret_where)
                *ret_where = TAKE_PTR(text);
        return r > 0;
}
