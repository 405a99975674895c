/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "augment/record.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define RECORD_TAG "org.tbnode.base.tag"
#define RECORD_DIGEST "org.tbnode.base.digest"
#define RECORD_KIND "org.tbnode.base.kind"
#define RECORD_ACCESS "org.tbnode.base.access"
#define RECORD_SINCE "org.opencontainers.image.created"

int base_record_ref(const AugmentNames *names, const RegistryRef *source, RegistryRef **ret, TbError **err)
{
        char tag[2 + 40 + 1];
        TbDigest hash;
        int r;

        r = tb_digest_of(source->tag, strlen(source->tag), &hash, err);
        if (r < 0)
                return r;
        (void) snprintf(tag, sizeof(tag), "n-%.40s", tb_digest_hex(&hash));
        return registry_ref_new(names->registry_host, names->mirror_repository, tag, NULL, ret, err);
}

static const char *const kind_names[_AUGMENT_SOURCE_KIND_MAX] = {
        [AUGMENT_SOURCE_UNKNOWN] = "unknown",
        [AUGMENT_SOURCE_IMAGE] = "image",
        [AUGMENT_SOURCE_INDEX] = "index",
};

int base_record_render(
        const RegistryRef *source, const BaseRecord *record, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        char since[32];
        time_t now = time(NULL);
        struct tm tm;
        TbDigest empty;
        int r;

        if (!gmtime_r(&now, &tm) || strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                return tb_error_set(err, TB_ERROR_SYSTEM, -ERANGE, "the clock is not set");
        r = tb_digest_of("{}", 2, &empty, err);
        if (r < 0)
                return r;
        j = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[], s:{s:s, s:s, s:s, s:s, s:s}}",
                "schemaVersion", 2, "mediaType", REGISTRY_TYPE_OCI_MANIFEST, "artifactType",
                BASE_RECORD_TYPE, "config", "mediaType", REGISTRY_TYPE_OCI_EMPTY, "digest", empty.text,
                "size", 2, "layers", "annotations", RECORD_TAG, source->tag, RECORD_DIGEST,
                record->digest.text, RECORD_KIND, kind_names[record->kind], RECORD_ACCESS,
                record->private ? "private" : "public", RECORD_SINCE, since);
        return j ? tb_json_dump(j, true, ret, ret_size, err) : tb_error_oom(err);
}

int base_record_parse(const RegistryManifest *m, BaseRecord *ret)
{
        const char *digest = NULL, *access = NULL, *since = NULL, *kind = NULL;
        json_t *annotations = NULL;
        BaseRecord b = {};

        if (!tb_streq(m->artifact_type, BASE_RECORD_TYPE) ||
                tb_json_get_object(m->json, "annotations", &annotations, NULL) <= 0 ||
                tb_json_get_string(annotations, RECORD_DIGEST, &digest, NULL) <= 0 ||
                tb_json_get_string(annotations, RECORD_ACCESS, &access, NULL) <= 0 ||
                tb_json_get_string(annotations, RECORD_SINCE, &since, NULL) <= 0 ||
                tb_json_get_string(annotations, RECORD_KIND, &kind, NULL) <= 0 ||
                tb_digest_parse(digest, &b.digest, NULL) < 0 || strlen(since) >= sizeof(b.since) ||
                strspn(since, "0123456789-:TZ") != strlen(since))
                return 0;
        for (AugmentSourceKind k = 0; k < _AUGMENT_SOURCE_KIND_MAX; k++)
                if (tb_streq(kind_names[k], kind))
                        b.kind = k;
        b.private = !tb_streq(access, "public");
        memcpy(b.since, since, strlen(since));
        *ret = b;
        return 1;
}

int base_record_store(RegistryClient *client, const AugmentNames *names, const RegistryRef *source,
        const BaseRecord *record, AugmentPending *pending, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        char *text;
        size_t size;
        int r;

        if ((r = base_record_ref(names, source, &ref, err)) < 0 ||
                (r = base_record_render(source, record, &text, &size, err)) < 0)
                return r;
        return augment_pending_manifest(pending, client, ref, REGISTRY_TYPE_OCI_MANIFEST, text, size,
                "cannot note what the base's tag is", err);
}
