/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Names of places: registries, OCI layouts, docker-archives, as containers-transports(5) writes them. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define NAME_MAX_BYTES 4096U

static const char *const prefixes[_REGISTRY_PLACE_KIND_MAX] = {
        [REGISTRY_PLACE_REGISTRY] = "docker://",
        [REGISTRY_PLACE_OCI_LAYOUT] = "oci:",
        [REGISTRY_PLACE_DOCKER_ARCHIVE] = "docker-archive:",
};

RegistryPlace *registry_place_free(RegistryPlace *place)
{
        if (!place)
                return NULL;
        registry_ref_free(place->ref);
        free(place->path);
        free(place->tag);
        free(place);
        return NULL;
}

/* ref.name is free text for image-spec (annotations.md suggests a grammar): what we write and look for must be fit for a
 * line of text. */
static int check_layout_tag(const char *tag, TbError **err)
{
        _cleanup_free_ char *shown = NULL;

        if (*tag && tb_utf8_is_valid(tag)) {
                const char *p = tag;

                while (*p && (unsigned char) *p > 0x20 && *p != 0x7f)
                        p++;
                if (!*p)
                        return 0;
        }
        shown = tb_escape(tag, 80);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "\"%s\" cannot be the name of an image in an OCI layout: no spaces, not empty",
                shown ? shown : "?");
}

static int parse_archive_name(const char *name, RegistryRef **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        r = registry_ref_parse(name, &ref, err);
        if (r < 0)
                return r;
        if (tb_digest_is_set(&ref->digest))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "docker-archive: an archive names its images by tag, not by digest; write NAME:TAG");
        *ret = TAKE_PTR(ref);
        return 0;
}

/* "PATH[:REST]" */
static int parse_files(RegistryPlace *place, const char *s, TbError **err)
{
        size_t n = strcspn(s, ":");
        const char *rest = s[n] ? s + n + 1 : NULL;

        if (n == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s a path is missing: %s%s",
                        prefixes[place->kind], prefixes[place->kind],
                        place->kind == REGISTRY_PLACE_OCI_LAYOUT ? "DIR[:TAG]" : "FILE[:NAME]");
        place->path = strndup(s, n);
        if (!place->path)
                return tb_error_oom(err);
        if (!rest)
                return 0;
        if (place->kind == REGISTRY_PLACE_DOCKER_ARCHIVE)
                return parse_archive_name(rest, &place->ref, err);
        place->tag = strdup(rest);
        if (!place->tag)
                return tb_error_oom(err);
        return check_layout_tag(rest, err);
}

int registry_place_parse(const char *s, RegistryPlace **ret, TbError **err)
{
        _cleanup_(registry_place_freep) RegistryPlace *place = calloc(1, sizeof(*place));
        const char *rest;
        int r;

        if (!place)
                return tb_error_oom(err);
        if (strnlen(s, NAME_MAX_BYTES) == NAME_MAX_BYTES)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the name of an image is too long");
        if ((rest = tb_startswith(s, prefixes[REGISTRY_PLACE_OCI_LAYOUT])))
                place->kind = REGISTRY_PLACE_OCI_LAYOUT;
        else if ((rest = tb_startswith(s, prefixes[REGISTRY_PLACE_DOCKER_ARCHIVE])))
                place->kind = REGISTRY_PLACE_DOCKER_ARCHIVE;
        else {
                rest = tb_startswith(s, prefixes[REGISTRY_PLACE_REGISTRY]);
                place->kind = REGISTRY_PLACE_REGISTRY;
        }
        if (place->kind == REGISTRY_PLACE_REGISTRY)
                r = registry_ref_parse(rest ? rest : s, &place->ref, err);
        else
                r = parse_files(place, rest, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(place);
        return 0;
}

int registry_place_new_registry(const RegistryRef *ref, RegistryPlace **ret, TbError **err)
{
        _cleanup_(registry_place_freep) RegistryPlace *place = calloc(1, sizeof(*place));
        int r;

        if (!place)
                return tb_error_oom(err);
        place->kind = REGISTRY_PLACE_REGISTRY;
        r = registry_ref_new(ref->host, ref->repository, ref->tag, &ref->digest, &place->ref, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(place);
        return 0;
}

char *registry_place_to_string(const RegistryPlace *place)
{
        _cleanup_free_ char *name = NULL;

        if (place->ref && !(name = registry_ref_to_string(place->ref)))
                return NULL;
        if (place->kind == REGISTRY_PLACE_REGISTRY)
                return TAKE_PTR(name);
        return tb_asprintf("%s%s%s%s", prefixes[place->kind], place->path, name || place->tag ? ":" : "",
                name                 ? name
                        : place->tag ? place->tag
                                     : "");
}
