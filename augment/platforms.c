/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "augment/platforms.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* Architectures that a machine has payloads for: a few. */
#define PAYLOADS_MAX 16u
#define SHOWN_MAX 20u
#define MESSAGE_MAX 2048u

void augment_platforms_done(AugmentPlatforms *p)
{
        for (size_t i = 0; i < p->n_payloads; i++)
                payload_free(p->payloads[i]);
        free(p->payloads);
        free(p->text);
        free(p->key);
        *p = (AugmentPlatforms){};
}

static void close_dir(DIR **d)
{
        if (*d)
                (void) closedir(*d);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The folders that hold a payload; none when the directory isn't there. */
static int list_architectures(const char *dir, char ***ret, TbError **err)
{
        _cleanup_(close_dir) DIR *d = opendir(dir);
        _cleanup_strv_ char **found = NULL;
        struct dirent *entry;

        if (!d && errno != ENOENT)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, -errno, "cannot read the payload directory %s", dir);
        while (d && (entry = readdir(d))) {
                _cleanup_free_ char *file = NULL;
                int r;

                if (entry->d_name[0] == '.')
                        continue;
                file = tb_asprintf("%s/%s/payload.json", dir, entry->d_name);
                if (!file)
                        return tb_error_oom(err);
                if (access(file, F_OK) < 0)
                        continue;
                if (tb_strv_length(found) == PAYLOADS_MAX)
                        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -E2BIG,
                                "there are more than %u payloads in %s", PAYLOADS_MAX, dir);
                r = tb_strv_append(&found, entry->d_name, err);
                if (r < 0)
                        return r;
        }
        if (found)
                qsort(found, tb_strv_length(found), sizeof(*found), by_name);
        *ret = TAKE_PTR(found);
        return 0;
}

static int add_payload(AugmentPlatforms *p, const AugmentRequest *request, const char *arch,
        TbBuffer *digests, TbBuffer *text, TbError **err)
{
        _cleanup_payload_ Payload *payload = NULL;
        _cleanup_error_ TbError *e = NULL;
        TbDigest digest = {};
        int r;

        r = payload_load(request->payload_dir, arch, &payload, err);
        if (r < 0)
                return r;
        r = payload_digest(payload, request->level, &digest, &e);
        if (r == -ENOENT)
                return 0; /* built for the lower levels only */
        if (r < 0)
                return tb_error_move(err, &e);
        if (tb_digest_is_set(&digest) && (r = tb_buffer_printf(digests, err, "%s\n", digest.text)) < 0)
                return r;
        r = tb_buffer_printf(text, err, "%slinux/%s", p->n_payloads > 0 ? "," : "", arch);
        if (r < 0)
                return r;
        p->payloads[p->n_payloads++] = TAKE_PTR(payload);
        return 0;
}

int augment_platforms_load(const AugmentRequest *request, AugmentPlatforms *ret, TbError **err)
{
        const char *dir = request->payload_dir ?: augment_payload_dir();
        _cleanup_buffer_ TbBuffer digests = TB_BUFFER_INIT(4096), text = TB_BUFFER_INIT(4096);
        _cleanup_augment_platforms_ AugmentPlatforms p = {};
        _cleanup_strv_ char **archs = NULL;
        int r;

        r = list_architectures(dir, &archs, err);
        if (r < 0)
                return r;
        p.payloads = calloc(PAYLOADS_MAX, sizeof(*p.payloads));
        if (!p.payloads)
                return tb_error_oom(err);
        for (char **a = archs; a && *a; a++) {
                r = add_payload(&p, request, *a, &digests, &text, err);
                if (r < 0)
                        return r;
        }
        if (p.n_payloads == 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EOPNOTSUPP,
                        "there is no payload for level %s in %s; install it",
                        augment_level_to_string(request->level), dir);
        if (digests.size > 0 && (r = tb_digest_of(digests.data, digests.size, &p.digest, err)) < 0)
                return r;
        p.text = tb_buffer_steal(&text, NULL);
        p.key = p.text ? tb_asprintf("index %s", p.text) : NULL;
        if (!p.key)
                return tb_error_oom(err);
        *ret = p;
        p = (AugmentPlatforms){};
        return 0;
}

Payload *augment_platforms_find(const AugmentPlatforms *p, const char *architecture)
{
        for (size_t i = 0; i < p->n_payloads; i++)
                if (tb_streq(p->payloads[i]->arch, architecture))
                        return p->payloads[i];
        return NULL;
}

int augment_platforms_key_tag(const AugmentPlatforms *p, const TbDigest *base, const AugmentRequest *request,
        char ret[static AUGMENT_KEY_TAG_MAX], TbError **err)
{
        AugmentRequest whole = *request; /* borrowed */

        whole.platform = p->key;
        return augment_cache_key_tag(base, &whole, &p->digest, ret, err);
}

static bool same_platform(const RegistryPlatform *a, const RegistryPlatform *b)
{
        return tb_streq(a->os, b->os) && tb_streq(a->architecture, b->architecture) &&
                (a->variant ? tb_streq(a->variant, b->variant) : !b->variant);
}

static bool is_image(const RegistryDescriptor *d)
{
        RegistryManifestKind kind = registry_manifest_kind_from_media_type(d->media_type);

        return !d->attestation && (kind == REGISTRY_DOCKER_MANIFEST || kind == REGISTRY_OCI_MANIFEST);
}

static bool usable(const AugmentPlatforms *p, const RegistryManifest *index, size_t i)
{
        const RegistryDescriptor *d = &index->entries[i];

        if (!is_image(d) || !d->platform.os || !tb_streq(d->platform.os, "linux") ||
                !augment_platforms_find(p, d->platform.architecture))
                return false;
        for (size_t k = 0; k < i; k++)
                if (index->entries[k].platform.os && !index->entries[k].attestation &&
                        same_platform(&index->entries[k].platform, &d->platform))
                        return false;
        return true;
}

static int none_usable(const AugmentPlatforms *p, const RegistryManifest *index, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(MESSAGE_MAX);
        size_t shown = 0;
        int r;

        for (size_t i = 0; i < index->n_entries; i++) {
                const RegistryDescriptor *d = &index->entries[i];
                _cleanup_free_ char *text = NULL, *safe = NULL;

                if (d->attestation || !d->platform.os)
                        continue;
                text = registry_platform_to_string(&d->platform);
                safe = text ? tb_escape(text, 40) : NULL;
                if (!safe)
                        return tb_error_oom(err);
                r = shown == SHOWN_MAX ? tb_buffer_append_str(&b, ", ...", err)
                                       : tb_buffer_printf(&b, err, "%s%s", shown > 0 ? ", " : "", safe);
                if (r < 0)
                        return r;
                if (shown++ == SHOWN_MAX)
                        break;
        }
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                "the image has no platform that there is a payload for: it has %.*s, payloads are installed "
                "for "
                "%s",
                shown > 0 ? (int) b.size : 4, shown > 0 ? b.data : "none", p->text);
}

int augment_platforms_choose(
        const AugmentPlatforms *p, const RegistryManifest *index, bool *ret, size_t *ret_n, TbError **err)
{
        size_t n = 0;

        for (size_t i = 0; i < index->n_entries; i++) {
                ret[i] = usable(p, index, i);
                n += ret[i];
        }
        /* An entry without a platform may be anything: taken when nothing else is there, for this machine. */
        for (size_t i = 0; n == 0 && i < index->n_entries; i++)
                if (is_image(&index->entries[i]) && !index->entries[i].platform.os) {
                        ret[i] = true;
                        n = 1;
                }
        if (n == 0)
                return none_usable(p, index, err);
        *ret_n = n;
        return 0;
}
