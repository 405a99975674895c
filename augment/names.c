/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* distribution refuses longer names (reference: NameTotalLengthMax). */
#define REPOSITORY_MAX 255u
#define TAG_MAX 128u

/* One component of a repository name: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, distribution-spec. */
static bool is_component(const char *s)
{
        static const char alnum[] = "abcdefghijklmnopqrstuvwxyz0123456789";
        size_t n;

        for (;;) {
                n = strspn(s, alnum);
                if (n == 0)
                        return false;
                s += n;
                if (*s == 0)
                        return true;
                if (*s == '-')
                        s += strspn(s, "-");
                else if (s[0] == '_' && s[1] == '_')
                        s += 2;
                else if (*s == '_' || *s == '.')
                        s++;
                else
                        return false;
        }
}

char *augment_host_component(const char *host)
{
        _cleanup_free_ char *plain = strdup(host);
        TbDigest digest;
        size_t used = 0;

        if (!plain)
                return NULL;
        for (char *p = plain; *p; p++)
                if (*p == ':')
                        *p = '_';
        if (is_component(plain))
                return TAKE_PTR(plain);

        for (const char *p = host; *p; p++)
                if ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9'))
                        plain[used++] = *p;
        plain[used] = 0;
        if (tb_digest_of(host, strlen(host), &digest, NULL) < 0)
                return NULL;
        return tb_asprintf("%s%s%.8s", plain, used > 0 ? "-" : "", tb_digest_hex(&digest));
}

void augment_names_done(AugmentNames *n)
{
        free(n->registry_host);
        free(n->mirror_repository);
        free(n->mirror_tag);
        free(n->target_repository);
        free(n->target_tag);
        *n = (AugmentNames){};
}

static int make_repository(const AugmentRequest *request, const char *kind, const char *host,
        const char *repository, char **ret, TbError **err)
{
        _cleanup_free_ char *name = NULL;

        name = tb_asprintf("%s%s%s%s/%s%s%s", request->project ? "projects/" : "",
                request->project ? request->project : "", request->project ? "/" : "", kind, host,
                host[0] ? "/" : "", repository);
        if (!name)
                return tb_error_oom(err);
        if (strlen(name) > REPOSITORY_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENAMETOOLONG,
                        "the image's name is too long for the testbed's registry (%zu bytes of %u)",
                        strlen(name), REPOSITORY_MAX);
        *ret = TAKE_PTR(name);
        return 0;
}

/* What the command line has copied from elsewhere lies in mirror/<transport>/<user>/<name>, of everybody or of a project;
 * the last three are its name. No host is called like a transport. */
static const char *local_name(const char *repository)
{
        static const char *const transports[] = {
                "oci/", "docker-archive/", "docker-daemon/", "dockerfile/", NULL};
        const char *rest = tb_startswith(repository, "projects/");

        if (rest)
                repository = strchr(rest, '/') ? strchr(rest, '/') + 1 : rest;
        rest = tb_startswith(repository, "mirror/");
        for (const char *const *t = transports; rest && *t; t++)
                if (tb_startswith(rest, *t))
                        return rest;
        return NULL;
}

int augment_names_make(
        const AugmentRequest *request, const RegistryRef *ref, AugmentNames *ret, TbError **err)
{
        _cleanup_augment_names_ AugmentNames n = {};
        _cleanup_free_ char *host = augment_host_component(ref->host);
        const char *local, *level = augment_level_to_string(request->level);
        bool plain_http;
        int r;

        if (!host)
                return tb_error_oom(err);
        r = augment_registry_parse(request->registry, &n.registry_host, &plain_http, err);
        if (r < 0)
                return r;
        n.base_is_local = tb_streq(n.registry_host, ref->host);
        if (n.base_is_local) {
                n.mirror_repository = strdup(ref->repository);
                if (!n.mirror_repository)
                        return tb_error_oom(err);
        } else {
                r = make_repository(request, "mirror", host, ref->repository, &n.mirror_repository, err);
                if (r < 0)
                        return r;
        }
        if (ref->tag && !(n.mirror_tag = strdup(ref->tag)))
                return tb_error_oom(err);

        if (request->level == AUGMENT_LEVEL_NONE) {
                n.target_repository = strdup(n.mirror_repository);
                n.target_tag = n.mirror_tag ? strdup(n.mirror_tag) : NULL;
                if (!n.target_repository || (n.mirror_tag && !n.target_tag))
                        return tb_error_oom(err);
        } else {
                local = n.base_is_local ? local_name(ref->repository) : NULL;
                r = make_repository(request, "augmented", local ? "" : host, local ? local : ref->repository,
                        &n.target_repository, err);
                if (r < 0)
                        return r;
                if (ref->tag && strlen(ref->tag) + 1 + strlen(level) <= TAG_MAX) {
                        n.target_tag = tb_asprintf("%s-%s", ref->tag, level);
                        if (!n.target_tag)
                                return tb_error_oom(err);
                }
        }
        *ret = n;
        n = (AugmentNames){};
        return 0;
}

static int add_platform(char **tag, const char *platform, TbError **err)
{
        char *longer;

        if (!*tag)
                return 0;
        longer = tb_asprintf("%s-%s", *tag, platform);
        if (!longer)
                return tb_error_oom(err);
        for (char *p = longer + strlen(*tag); *p; p++)
                if (*p == '/')
                        *p = '-';
        free(*tag);
        *tag = longer;
        if (strlen(longer) > TAG_MAX) {
                free(longer);
                *tag = NULL;
        }
        return 0;
}

int augment_names_of_platform(AugmentNames *n, const char *platform, TbError **err)
{
        int r = add_platform(&n->mirror_tag, platform, err);

        return r < 0 ? r : add_platform(&n->target_tag, platform, err);
}

char *augment_mirror_digest_tag(const TbDigest *resolved, const char *platform)
{
        char *tag = tb_asprintf("d-%.40s-%s", tb_digest_hex(resolved), platform);

        for (char *p = tag; p && *p; p++)
                if (*p == '/' || *p == ' ' || *p == ',')
                        *p = *p == ',' ? '_' : '-';
        return tag;
}

int augment_registry_parse(const char *url, char **ret_host, bool *ret_plain_http, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *host = NULL, *probe = NULL;
        const char *rest;
        bool plain = false;
        size_t n;
        int r;

        if ((rest = tb_startswith(url, "http://")))
                plain = true;
        else if (!(rest = tb_startswith(url, "https://")))
                rest = url;
        n = strlen(rest);
        if (n > 0 && rest[n - 1] == '/')
                n--;
        host = strndup(rest, n);
        if (!host)
                return tb_error_oom(err);
        if (n == 0 || strchr(host, '/') || strchr(host, '@'))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "\"%s\" is not a registry; write it as http://host:port or https://host", url);

        /* The reference grammar decides what a host is, and how it is spelled. */
        probe = tb_asprintf("%s/x:x", host);
        if (!probe)
                return tb_error_oom(err);
        r = registry_ref_parse(probe, &ref, err);
        if (r < 0) {
                tb_error_prefix(err, "registry \"%s\"", url);
                return r;
        }
        if (tb_streq(ref->host, "docker.io"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "\"%s\" is not a registry of a testbed; write it as http://host:port or "
                        "https://host",
                        url);
        *ret_host = TAKE_PTR(ref->host);
        *ret_plain_http = plain;
        return 0;
}

int augment_client_setup_anonymous(RegistryClient *client, const AugmentRequest *request, TbError **err)
{
        _cleanup_free_ char *host = NULL;
        bool plain_http;
        int r;

        r = augment_registry_parse(request->registry, &host, &plain_http, err);
        if (r < 0)
                return r;
        if (plain_http) {
                r = registry_client_set_plain_http(client, host, err);
                if (r < 0)
                        return r;
        }
        return registry_client_set_certs_dir(client, NULL, err);
}

int augment_client_setup(RegistryClient *client, const AugmentRequest *request, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        int r;

        r = augment_client_setup_anonymous(client, request, err);
        if (r < 0)
                return r;
        if (request->docker_config) {
                r = registry_client_load_docker_config(client, request->docker_config, err);
                if (r < 0)
                        return r;
        } else {
                /* Nobody named a file: one in a home that this process may not look into is as good as none. */
                r = registry_client_load_docker_config(client, NULL, &e);
                if (r < 0 && r != -EACCES)
                        return tb_error_move(err, &e);
        }
        return request->auth ? registry_client_add_docker_config(client, request->auth,
                                       strlen(request->auth), "the request's credentials", err)
                             : 0;
}
