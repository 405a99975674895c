/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Docker's config.json (docker/cli, cli/config/configfile/file.go)
 *
 *         auths        host -> "auth" = base64(user:password), or "username" and "password", "identitytoken" (a refresh
 *                      token), "registrytoken" (a bearer token). Empty entries stand for what a helper keeps.
 *         credHelpers  host -> NAME: docker-credential-NAME knows the credentials of this host
 *         credsStore   NAME: docker-credential-NAME knows those of all other hosts
 *
 * A key is a host, with or without scheme and "/v1/": "https://index.docker.io/v1/" is the Hub (in auths, a "docker.io"
 * key is not: Docker ignores it too). When several keys mean one host, the plain one counts, then the first.
 */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define CONFIG_MAX (1024U * 1024)
#define ENTRIES_MAX 1024U
#define AUTH_MAX (64U * 1024)

RegistryCredentials *registry_credentials_free(RegistryCredentials *list)
{
        while (list) {
                RegistryCredentials *next = list->next;

                free(list->host);
                registry_secret_free(list->user);
                registry_secret_drop(list->password);
                registry_secret_drop(list->identity_token);
                registry_secret_drop(list->registry_token);
                free(list);
                list = next;
        }
        return NULL;
}

RegistryDockerConfig *registry_docker_config_free(RegistryDockerConfig *list)
{
        while (list) {
                RegistryDockerConfig *next = list->next;

                registry_credentials_free(list->auths);
                while (list->helpers) {
                        RegistryHelperEntry *h = list->helpers;

                        list->helpers = h->next;
                        free(h->host);
                        free(h->name);
                        free(h);
                }
                free(list->store);
                free(list);
                list = next;
        }
        return NULL;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *registry_base64_encode(const void *data, size_t size)
{
        const unsigned char *in = data;
        char *out = malloc((size + 2) / 3 * 4 + 1), *p = out;

        if (!out)
                return NULL;
        for (; size > 0; in += 3) {
                uint32_t v = (uint32_t) in[0] << 16 | (size > 1 ? (uint32_t) in[1] << 8 : 0) |
                        (size > 2 ? in[2] : 0);

                *p++ = alphabet[v >> 18];
                *p++ = alphabet[v >> 12 & 63];
                *p++ = size > 1 ? alphabet[v >> 6 & 63] : '=';
                *p++ = size > 2 ? alphabet[v & 63] : '=';
                if (size <= 3)
                        break;
                size -= 3;
        }
        *p = 0;
        return out;
}

int registry_base64_decode(const char *s, char **ret, size_t *ret_size, TbError **err)
{
        size_t n = strlen(s), out_n = 0;
        uint32_t v = 0;
        unsigned bits = 0;
        char *out;

        while (n > 0 && s[n - 1] == '=')
                n--;
        if (n % 4 == 1 || strlen(s) - n > 2)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "not base64");
        out = malloc(n / 4 * 3 + 4);
        if (!out)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                const char *c = strchr(alphabet, s[i]);

                if (!c || !s[i]) {
                        explicit_bzero(out, out_n);
                        free(out);
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "not base64");
                }
                v = v << 6 | (uint32_t) (c - alphabet);
                bits += 6;
                if (bits >= 8) {
                        bits -= 8;
                        out[out_n++] = (char) (v >> bits & 255);
                }
        }
        out[out_n] = 0;
        *ret = out;
        *ret_size = out_n;
        return 0;
}

/* "https://index.docker.io/v1/" -> "docker.io", "HOST:5000" -> "host:5000". 0 = not a key for a whole registry. *ret_rank:
 * lower ones count more. */
static int host_of_key(const char *key, bool hub_by_name, char **ret, unsigned *ret_rank, TbError **err)
{
        static const char *const paths[] = {"", "/", "/v1", "/v1/", "/v2", "/v2/"};
        const char *p = key, *rest;
        char *host;
        bool known = false;

        if (strncasecmp(p, "https://", 8) == 0)
                p += 8;
        else if (strncasecmp(p, "http://", 7) == 0)
                p += 7;
        rest = p + strcspn(p, "/");
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                known = known || tb_streq(rest, paths[i]);
        if (!known)
                return 0; /* podman's per-namespace keys */
        host = strndup(p, (size_t) (rest - p));
        if (!host)
                return tb_error_oom(err);
        for (char *c = host; *c; c++)
                if (*c >= 'A' && *c <= 'Z')
                        *c = (char) (*c - 'A' + 'a');
        *ret_rank = p == key && !*rest ? 0 : 1;
        if (!registry_host_is_valid(host) || (tb_streq(host, "docker.io") && !hub_by_name)) {
                free(host);
                return 0;
        }
        if (tb_streq(host, "index.docker.io")) {
                *ret_rank = tb_streq(key, REGISTRY_HUB_KEY) ? 0 : 1;
                free(host);
                host = strdup("docker.io");
                if (!host)
                        return tb_error_oom(err);
        }
        *ret = host;
        return 1;
}

static int decode_auth(const char *auth, RegistryCredentials *c, TbError **err)
{
        _cleanup_secret_ char *text = NULL;
        char *colon;
        size_t n;
        int r;

        if (strlen(auth) > AUTH_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EMSGSIZE, "auth is larger than %u bytes", AUTH_MAX);
        r = registry_base64_decode(auth, &text, &n, err);
        if (r < 0) {
                tb_error_prefix(err, "auth");
                return r;
        }
        while (n > 0 && text[n - 1] == 0) /* Docker trims them too */
                n--;
        if (memchr(text, 0, n)) {
                explicit_bzero(text, n);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "auth has a NUL byte inside");
        }
        colon = strchr(text, ':');
        if (!colon || colon == text)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "auth is not base64 of user:password");
        c->user = strndup(text, (size_t) (colon - text));
        c->password = registry_secret_keep(colon + 1);
        return c->user && c->password ? 0 : tb_error_oom(err);
}

/* A bearer or refresh token as it is: fit for a header line and a form. */
static int keep_token(const char *what, const char *token, char **ret, TbError **err)
{
        char *kept;

        if (strlen(token) > AUTH_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EMSGSIZE, "%s is larger than %u bytes", what, AUTH_MAX);
        for (const char *p = token; *p; p++)
                if (*p <= ' ' || *p > '~')
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s is not a token", what);
        kept = registry_secret_keep(token);
        if (!kept)
                return tb_error_oom(err);
        *ret = kept;
        return 0;
}

/* 1 = has something, 0 = an empty entry: the secret is in a store. */
static int parse_entry(const json_t *value, RegistryCredentials *c, TbError **err)
{
        const char *auth = NULL, *user = NULL, *password = NULL, *token = NULL, *identity = NULL;
        int r;

        if ((r = tb_json_get_string(value, "auth", &auth, err)) < 0 ||
                (r = tb_json_get_string(value, "username", &user, err)) < 0 ||
                (r = tb_json_get_string(value, "password", &password, err)) < 0 ||
                (r = tb_json_get_string(value, "registrytoken", &token, err)) < 0 ||
                (r = tb_json_get_string(value, "identitytoken", &identity, err)) < 0)
                return r;
        if (token && *token)
                r = keep_token("registrytoken", token, &c->registry_token, err);
        else if (identity && *identity) /* its "auth" holds only a placeholder user */
                r = keep_token("identitytoken", identity, &c->identity_token, err);
        else if (auth && *auth)
                r = decode_auth(auth, c, err);
        else if (user && *user && password) {
                c->user = strdup(user);
                c->password = registry_secret_keep(password);
                r = c->user && c->password ? 0 : tb_error_oom(err);
        } else
                return 0;
        return r < 0 ? r : 1;
}

static int add_auth(RegistryDockerConfig *config, const char *key, const json_t *value, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *c = NULL;
        RegistryCredentials **p;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        r = host_of_key(key, false, &c->host, &c->rank, err);
        if (r <= 0)
                return r;
        r = parse_entry(value, c, err);
        if (r <= 0)
                return r;
        for (p = &config->auths; *p && (*p)->rank <= c->rank; p = &(*p)->next)
                ;
        c->next = *p;
        *p = TAKE_PTR(c);
        return 0;
}

/* It becomes part of a file name that is executed. */
bool registry_helper_name_is_valid(const char *name)
{
        size_t n = strlen(name);

        return n > 0 && n <= 64 &&
                strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static int check_helper_name(const char *name, TbError **err)
{
        _cleanup_free_ char *shown = NULL;

        if (registry_helper_name_is_valid(name))
                return 0;
        shown = tb_escape(name, 80);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "\"%s\" is no name of a credential helper: 1-64 of A-Z a-z 0-9 \".\" \"_\" \"-\"",
                shown ? shown : "?");
}

static int add_helper(RegistryDockerConfig *config, const char *key, const json_t *value, TbError **err)
{
        const char *name = json_string_value(value);
        RegistryHelperEntry *h, **p;
        unsigned rank;
        int r;

        if (!name)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "the name of a credential helper is not a string");
        r = check_helper_name(name, err);
        if (r < 0)
                return r;
        h = calloc(1, sizeof(*h));
        if (!h)
                return tb_error_oom(err);
        r = host_of_key(key, true, &h->host, &rank, err);
        if (r > 0) {
                h->name = strdup(name);
                if (!h->name)
                        r = tb_error_oom(err);
        }
        if (r <= 0) {
                free(h->host);
                free(h);
                return r;
        }
        for (p = &config->helpers; *p; p = &(*p)->next)
                ;
        *p = h;
        return 0;
}

static int add_object(RegistryDockerConfig *config, json_t *object,
        int (*add)(RegistryDockerConfig *, const char *, const json_t *, TbError **), TbError **err)
{
        const char *key;
        json_t *value;

        if (json_object_size(object) > ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "more than %u entries", ENTRIES_MAX);
        json_object_foreach (object, key, value) {
                int r = add(config, key, value, err);

                if (r < 0) {
                        _cleanup_free_ char *shown = tb_escape(key, 100);

                        tb_error_prefix(err, "entry \"%s\"", shown ? shown : "?");
                        return r;
                }
        }
        return 0;
}

static int parse_document(RegistryDockerConfig *config, const json_t *j, TbError **err)
{
        json_t *auths = NULL, *helpers = NULL;
        const char *store = NULL;
        int r;

        if ((r = tb_json_get_object(j, "auths", &auths, err)) < 0 ||
                (r = tb_json_get_object(j, "credHelpers", &helpers, err)) < 0 ||
                (r = tb_json_get_string(j, "credsStore", &store, err)) < 0 ||
                (auths && (r = add_object(config, auths, add_auth, err)) < 0) ||
                (helpers && (r = add_object(config, helpers, add_helper, err)) < 0))
                return r;
        if (!store || !*store)
                return 0;
        r = check_helper_name(store, err);
        if (r < 0) {
                tb_error_prefix(err, "credsStore");
                return r;
        }
        config->store = strdup(store);
        return config->store ? 0 : tb_error_oom(err);
}

int registry_docker_config_parse(
        const char *data, size_t size, const char *what, RegistryDockerConfig **ret, TbError **err)
{
        _cleanup_(registry_docker_config_freep) RegistryDockerConfig *config = NULL;
        _cleanup_(registry_json_wipep) json_t *j = NULL;
        int r;

        r = tb_json_parse_secret(data, size, CONFIG_MAX, what, &j, err);
        if (r < 0)
                return r;
        config = calloc(1, sizeof(*config));
        if (!config)
                return tb_error_oom(err);
        r = parse_document(config, j, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", what);
                return r;
        }
        *ret = TAKE_PTR(config);
        return 0;
}

const RegistryCredentials *registry_docker_config_find(
        const RegistryDockerConfig *config, const char *host, const char **ret_helper)
{
        *ret_helper = NULL;
        for (const RegistryHelperEntry *h = config->helpers; h && !*ret_helper; h = h->next)
                if (strcasecmp(h->host, host) == 0)
                        *ret_helper = h->name;
        if (!*ret_helper)
                *ret_helper = config->store;
        for (const RegistryCredentials *c = config->auths; c; c = c->next)
                if (strcasecmp(c->host, host) == 0)
                        return c;
        return NULL;
}
