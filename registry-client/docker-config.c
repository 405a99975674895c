/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Docker's config.json: the `auths` object (docker/cli, cli/config/configfile/file.go)
 *
 * A key is a host, with or without scheme and "/v1/": "https://index.docker.io/v1/" is the Hub (and a "docker.io" key
 * is not: Docker ignores it too). A value has "auth" = base64(user:password), or "username"/"password", or a
 * "registrytoken". Entries whose secret lives in a helper (empty value with credsStore, or a host of credHelpers) and
 * those with only an identity token are kept as `unreadable`, so that a refusal can say what is the matter.
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

char *registry_secret_free(char *s)
{
        if (s) {
                explicit_bzero(s, strlen(s));
                free(s);
        }
        return NULL;
}

RegistryCredentials *registry_credentials_free(RegistryCredentials *list)
{
        while (list) {
                RegistryCredentials *next = list->next;

                free(list->host);
                registry_secret_free(list->user);
                registry_secret_free(list->password);
                registry_secret_free(list->registry_token);
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

/* "https://index.docker.io/v1/" -> "docker.io", "HOST:5000" -> "host:5000". 0 = not a key for a whole registry. */
static int host_of_key(const char *key, char **ret, TbError **err)
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
        if (!registry_host_is_valid(host) || tb_streq(host, "docker.io")) {
                free(host);
                return 0;
        }
        if (tb_streq(host, "index.docker.io")) {
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
        c->password = strdup(colon + 1);
        return c->user && c->password ? 0 : tb_error_oom(err);
}

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
        if (token && *token) {
                for (const char *p = token; *p; p++)
                        if (*p <= ' ' || *p > '~')
                                return tb_error_set(
                                        err, TB_ERROR_CONFIG, -EINVAL, "registrytoken is not a token");
                c->registry_token = strdup(token);
                return c->registry_token ? 0 : tb_error_oom(err);
        }
        if (identity && *identity) { /* its "auth" holds only a placeholder user */
                c->unreadable = true;
                return 0;
        }
        if (auth && *auth)
                return decode_auth(auth, c, err);
        if (user && *user && password) {
                c->user = strdup(user);
                c->password = strdup(password);
                return c->user && c->password ? 0 : tb_error_oom(err);
        }
        c->unreadable = true; /* an empty entry: the secret is in the credsStore */
        return 0;
}

static int add_entry(RegistryCredentials **list, const char *key, const json_t *value, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *c = NULL;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        r = host_of_key(key, &c->host, err);
        if (r <= 0)
                return r;
        if (value) {
                r = parse_entry(value, c, err);
                if (r < 0)
                        return r;
        } else
                c->unreadable = true;
        c->next = *list;
        *list = TAKE_PTR(c);
        return 0;
}

static int add_object(RegistryCredentials **list, json_t *object, bool with_values, TbError **err)
{
        const char *key;
        json_t *value;

        if (json_object_size(object) > ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "more than %u entries", ENTRIES_MAX);
        json_object_foreach (object, key, value) {
                int r = add_entry(list, key, with_values ? value : NULL, err);

                if (r < 0) {
                        _cleanup_free_ char *shown = tb_escape(key, 100);

                        tb_error_prefix(err, "entry \"%s\"", shown ? shown : "?");
                        return r;
                }
        }
        return 0;
}

int registry_docker_config_parse(
        const char *data, size_t size, const char *what, RegistryCredentials **ret, TbError **err)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *list = NULL;
        _cleanup_json_ json_t *j = NULL;
        json_t *auths = NULL, *helpers = NULL;
        int r;

        r = tb_json_parse(data, size, CONFIG_MAX, what, &j, err);
        if (r < 0)
                return r;
        if ((r = tb_json_get_object(j, "auths", &auths, err)) < 0 ||
                (r = tb_json_get_object(j, "credHelpers", &helpers, err)) < 0 ||
                (auths && (r = add_object(&list, auths, true, err)) < 0) ||
                (helpers && (r = add_object(&list, helpers, false, err)) < 0)) {
                tb_error_prefix(err, "%s", what);
                return r;
        }
        *ret = TAKE_PTR(list);
        return 0;
}
