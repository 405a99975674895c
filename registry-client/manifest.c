/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Manifests and indexes: bytes -> RegistryManifest
 *
 * Invariants of a RegistryManifest: `digest` is that of `data`; `kind` is what both the Content-Type and the document
 * say (when they say it), and the document cannot be read as the other kind (CVE-2021-41190: one digest, two
 * meanings); every descriptor has a valid sha256 digest, a size that fits int64 and a media type.
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

static const char *const kind_types[_REGISTRY_MANIFEST_KIND_MAX] = {
        [REGISTRY_DOCKER_MANIFEST] = REGISTRY_TYPE_DOCKER_MANIFEST,
        [REGISTRY_DOCKER_LIST] = REGISTRY_TYPE_DOCKER_LIST,
        [REGISTRY_OCI_MANIFEST] = REGISTRY_TYPE_OCI_MANIFEST,
        [REGISTRY_OCI_INDEX] = REGISTRY_TYPE_OCI_INDEX,
        [REGISTRY_OCI_ARTIFACT] = REGISTRY_TYPE_OCI_ARTIFACT,
};
static_assert(ELEMENTSOF(kind_types) == _REGISTRY_MANIFEST_KIND_MAX, "a media type for each kind");

const char *registry_manifest_kind_to_media_type(RegistryManifestKind kind)
{
        return kind >= 0 && kind < _REGISTRY_MANIFEST_KIND_MAX ? kind_types[kind] : NULL;
}

/* The length of a media type without its parameters ("type/sub; charset=utf-8") and trailing blanks. */
static size_t media_type_length(const char *s)
{
        size_t n = strcspn(s, ";");

        while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
                n--;
        return n;
}

static bool media_type_is(const char *s, const char *type)
{
        size_t n = media_type_length(s);

        return n == strlen(type) && strncasecmp(s, type, n) == 0;
}

RegistryManifestKind registry_manifest_kind_from_media_type(const char *media_type)
{
        if (media_type)
                for (int k = 0; k < _REGISTRY_MANIFEST_KIND_MAX; k++)
                        if (media_type_is(media_type, kind_types[k]))
                                return (RegistryManifestKind) k;
        return _REGISTRY_MANIFEST_KIND_INVALID;
}

/* Content-Types of servers that do not know what they serve: they say nothing about the document. */
static bool media_type_is_generic(const char *s)
{
        return media_type_length(s) == 0 || media_type_is(s, "application/json") ||
                media_type_is(s, "application/octet-stream") || media_type_is(s, "text/plain");
}

int registry_descriptor_copy(const RegistryDescriptor *d, RegistryDescriptor *ret, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor copy = {
                .digest = d->digest,
                .size = d->size,
                .attestation = d->attestation,
                .foreign = d->foreign,
        };
        const RegistryPlatform *p = &d->platform;

        copy.annotations = json_incref(d->annotations);
        if ((d->media_type && !(copy.media_type = strdup(d->media_type))) ||
                (d->artifact_type && !(copy.artifact_type = strdup(d->artifact_type))) ||
                (p->os && !(copy.platform.os = strdup(p->os))) ||
                (p->architecture && !(copy.platform.architecture = strdup(p->architecture))) ||
                (p->variant && !(copy.platform.variant = strdup(p->variant))))
                return tb_error_oom(err);
        *ret = copy;
        copy = (RegistryDescriptor){0};
        return 0;
}

void registry_descriptor_done(RegistryDescriptor *d)
{
        free(d->media_type);
        free(d->artifact_type);
        json_decref(d->annotations);
        registry_platform_done(&d->platform);
        *d = (RegistryDescriptor){0};
}

static int parse_platform(const json_t *entry, RegistryDescriptor *d, TbError **err)
{
        const char *os = NULL, *architecture = NULL, *variant = NULL;
        json_t *platform = NULL;
        int r;

        r = tb_json_get_object(entry, "platform", &platform, err);
        if (r <= 0)
                return r;
        if ((r = tb_json_get_string(platform, "os", &os, err)) < 0 ||
                (r = tb_json_get_string(platform, "architecture", &architecture, err)) < 0 ||
                (r = tb_json_get_string(platform, "variant", &variant, err)) < 0)
                return r;
        if (!os || !architecture || !*os || !*architecture)
                return 0; /* artifact indexes carry empty ones: as good as none */
        d->attestation = tb_streq(os, "unknown") && tb_streq(architecture, "unknown");
        return registry_platform_init(
                &d->platform, os, architecture, variant && *variant ? variant : NULL, err);
}

static int parse_descriptor(const json_t *j, RegistryDescriptor *ret, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0};
        const char *media_type = NULL, *digest = NULL, *artifact_type = NULL;
        json_t *annotations = NULL, *urls = NULL;
        int r;

        r = tb_json_get_string(j, "mediaType", &media_type, err);
        if (r < 0)
                return r;
        if (r == 0 || !*media_type)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "mediaType is missing");
        r = tb_json_get_string(j, "digest", &digest, err);
        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "digest is missing");
        r = tb_digest_parse(digest, &d.digest, err);
        if (r < 0)
                return r;
        r = tb_json_get_u64(j, "size", &d.size, err);
        if (r < 0)
                return r;
        if (r == 0 || d.size > INT64_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "size is missing or out of range");
        d.media_type = strdup(media_type);
        if (!d.media_type)
                return tb_error_oom(err);

        r = parse_platform(j, &d, err);
        if (r < 0)
                return r;
        r = tb_json_get_object(j, "annotations", &annotations, err);
        if (r < 0)
                return r;
        if (r > 0) {
                d.attestation = d.attestation || json_object_get(annotations, "vnd.docker.reference.type");
                d.annotations = json_incref(annotations);
        }
        r = tb_json_get_string(j, "artifactType", &artifact_type, err);
        if (r < 0)
                return r;
        if (r > 0 && *artifact_type) {
                d.artifact_type = strdup(artifact_type);
                if (!d.artifact_type)
                        return tb_error_oom(err);
        }
        r = tb_json_get_array(j, "urls", &urls, err);
        if (r < 0)
                return r;
        /* Only both together exempt a layer from being in the registry (distribution, verifyManifest()). */
        d.foreign = r > 0 && json_array_size(urls) > 0 &&
                (strstr(media_type, "nondistributable") || strstr(media_type, ".foreign."));

        *ret = d;
        d = (RegistryDescriptor){0};
        return 0;
}

static int parse_descriptors(const json_t *doc, const char *key, size_t max, RegistryDescriptor **array,
        size_t *count, TbError **err)
{
        json_t *list = NULL;
        size_t n;
        int r;

        r = tb_json_get_array(doc, key, &list, err);
        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "%s is missing", key);
        n = json_array_size(list);
        if (n > max)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s has %zu entries; at most %zu are accepted", key, n, max);
        *array = calloc(MAX2(n, (size_t) 1), sizeof(**array));
        if (!*array)
                return tb_error_oom(err);
        for (; *count < n; (*count)++) {
                r = parse_descriptor(json_array_get(list, *count), *array + *count, err);
                if (r < 0) {
                        tb_error_prefix(err, "%s[%zu]", key, *count);
                        return r;
                }
        }
        return 0;
}

static bool kind_is_index(RegistryManifestKind kind)
{
        return kind == REGISTRY_OCI_INDEX || kind == REGISTRY_DOCKER_LIST;
}

/* What the document is, from what it says and what it looks like; refuses the ambiguous. */
static int find_kind(const json_t *doc, const char *content_type, RegistryManifestKind *ret, TbError **err)
{
        bool image = json_object_get(doc, "config") || json_object_get(doc, "layers");
        bool index = json_object_get(doc, "manifests"), artifact;
        const char *own = NULL;
        RegistryManifestKind kind;
        uint64_t version = 0;
        int r;

        r = tb_json_get_u64(doc, "schemaVersion", &version, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(doc, "mediaType", &own, err);
        if (r < 0)
                return r;
        /* Parameters belong to a Content-Type; inside, they would make one document two things to two readers. */
        if (own && media_type_length(own) != strlen(own))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "mediaType is no plain media type");
        /* The one document without a schemaVersion; it must name itself (image-spec 1.1-rc, artifact.md). */
        artifact = own && media_type_is(own, REGISTRY_TYPE_OCI_ARTIFACT);
        if (version == 1 || json_object_get(doc, "fsLayers"))
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "Docker schema 1 manifests are not supported; the image must be pushed again with a "
                        "current tool");
        if (version != 2 && !artifact)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "schemaVersion is not 2");
        if (content_type && media_type_is_generic(content_type))
                content_type = NULL;
        if (own && content_type && !media_type_is(content_type, own)) {
                _cleanup_free_ char *a = tb_escape(content_type, 100), *b = tb_escape(own, 100);

                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "served as \"%s\" but says it is \"%s\": refused as ambiguous", a ? a : "?",
                        b ? b : "?");
        }
        if (image && index)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "has the fields of an image and of an index: refused as ambiguous");

        if (own || content_type) {
                kind = registry_manifest_kind_from_media_type(own ? own : content_type);
                if (kind < 0) {
                        _cleanup_free_ char *a = tb_escape(own ? own : content_type, 100);

                        return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                                "media type \"%s\" is not supported", a ? a : "?");
                }
        } else if (index)
                kind = REGISTRY_OCI_INDEX;
        else
                kind = REGISTRY_OCI_MANIFEST;
        if (kind == REGISTRY_OCI_ARTIFACT     ? image || index || !artifact
                        : kind_is_index(kind) ? image
                                              : index)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "is called \"%s\" but has not its fields", kind_types[kind]);
        *ret = kind;
        return 0;
}

static int parse_subject(RegistryManifest *m, TbError **err)
{
        json_t *subject = NULL;
        int r;

        r = tb_json_get_object(m->json, "subject", &subject, err);
        if (r <= 0)
                return r;
        r = parse_descriptor(subject, &m->subject, err);
        if (r < 0)
                tb_error_prefix(err, "subject");
        return r;
}

/* image-spec manifest.md, "artifactType"; distribution-spec "Listing Referrers" for what stands in for it. */
static int parse_artifact_type(RegistryManifest *m, TbError **err)
{
        const char *type = NULL;
        int r;

        r = tb_json_get_string(m->json, "artifactType", &type, err);
        if (r < 0)
                return r;
        if ((r == 0 || !*type) && m->config.media_type &&
                !tb_streq(m->config.media_type, REGISTRY_TYPE_OCI_CONFIG) &&
                !tb_streq(m->config.media_type, REGISTRY_TYPE_DOCKER_CONFIG) &&
                !tb_streq(m->config.media_type, REGISTRY_TYPE_OCI_EMPTY))
                type = m->config.media_type;
        if (!type || !*type)
                return 0;
        m->artifact_type = strdup(type);
        return m->artifact_type ? 0 : tb_error_oom(err);
}

static int parse_blobs(RegistryManifest *m, TbError **err)
{
        json_t *blobs = NULL;
        int r;

        r = tb_json_get_array(m->json, "blobs", &blobs, err);
        if (r <= 0) /* they are optional */
                return r;
        return parse_descriptors(m->json, "blobs", REGISTRY_LAYERS_MAX, &m->layers, &m->n_layers, err);
}

static int parse_content(RegistryManifest *m, const char *media_type, TbError **err)
{
        json_t *config = NULL;
        int r;

        r = tb_json_parse(m->data, m->size, REGISTRY_MANIFEST_MAX, "manifest", &m->json, err);
        if (r < 0)
                return r;
        if (!json_is_object(m->json))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "is no JSON object");
        r = find_kind(m->json, media_type, &m->kind, err);
        if (r < 0)
                return r;
        r = parse_subject(m, err);
        if (r < 0)
                return r;
        if (registry_manifest_is_index(m) || m->kind == REGISTRY_OCI_ARTIFACT) {
                r = parse_artifact_type(m, err);
                if (r < 0)
                        return r;
                if (m->kind == REGISTRY_OCI_ARTIFACT)
                        return parse_blobs(m, err);
                return parse_descriptors(
                        m->json, "manifests", REGISTRY_INDEX_ENTRIES_MAX, &m->entries, &m->n_entries, err);
        }

        r = tb_json_get_object(m->json, "config", &config, err);
        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "config is missing");
        r = parse_descriptor(config, &m->config, err);
        if (r < 0) {
                tb_error_prefix(err, "config");
                return r;
        }
        r = parse_artifact_type(m, err);
        if (r < 0)
                return r;
        return parse_descriptors(m->json, "layers", REGISTRY_LAYERS_MAX, &m->layers, &m->n_layers, err);
}

int registry_manifest_parse(const void *data, size_t size, const char *media_type, const TbDigest *expected,
        RegistryManifest **ret, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        int r;

        if (size > REGISTRY_MANIFEST_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "manifest is larger than %u bytes",
                        REGISTRY_MANIFEST_MAX);
        m = calloc(1, sizeof(*m));
        if (!m)
                return tb_error_oom(err);
        r = tb_digest_of(data, size, &m->digest, err);
        if (r < 0)
                return r;
        if (expected && tb_digest_is_set(expected) && !tb_digest_equal(expected, &m->digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "manifest does not match its digest: asked for %s, got content with %s",
                        expected->text, m->digest.text);
        m->data = malloc(size + 1);
        if (!m->data)
                return tb_error_oom(err);
        if (size > 0)
                memcpy(m->data, data, size);
        m->data[size] = 0;
        m->size = size;

        r = parse_content(m, media_type, err);
        if (r < 0) {
                tb_error_prefix(err, "bad manifest %.19s", m->digest.text);
                return r;
        }
        *ret = TAKE_PTR(m);
        return 0;
}

static void descriptors_free(RegistryDescriptor *d, size_t n)
{
        for (size_t i = 0; i < n; i++)
                registry_descriptor_done(d + i);
        free(d);
}

RegistryManifest *registry_manifest_free(RegistryManifest *m)
{
        if (!m)
                return NULL;
        free(m->artifact_type);
        registry_descriptor_done(&m->subject);
        registry_descriptor_done(&m->config);
        descriptors_free(m->layers, m->n_layers);
        descriptors_free(m->entries, m->n_entries);
        json_decref(m->json);
        free(m->data);
        free(m);
        return NULL;
}

/* "linux/amd64, linux/arm64, ...": what an index offers, for the message. */
static char *list_platforms(const RegistryManifest *index)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        size_t shown = 0;

        for (size_t i = 0; i < index->n_entries; i++) {
                const RegistryDescriptor *d = index->entries + i;
                _cleanup_free_ char *text = NULL, *safe = NULL;

                if (d->attestation || !d->platform.os)
                        continue;
                if (shown == 20)
                        return tb_buffer_append_str(&b, ", ...", NULL) < 0 ? NULL
                                                                           : tb_buffer_steal(&b, NULL);
                text = registry_platform_to_string(&d->platform);
                safe = text ? tb_escape(text, 40) : NULL;
                if (!safe || tb_buffer_printf(&b, NULL, "%s%s", shown++ > 0 ? ", " : "", safe) < 0)
                        return NULL;
        }
        if (shown == 0 && tb_buffer_append_str(&b, "none", NULL) < 0)
                return NULL;
        return tb_buffer_steal(&b, NULL);
}

int registry_manifest_no_platform(
        const RegistryManifest *index, const RegistryPlatform *platform, TbError **err)
{
        _cleanup_free_ char *want = registry_platform_to_string(platform), *have = list_platforms(index);

        return tb_error_set(err, TB_ERROR_REMOTE, -ENOENT, "has no image for platform %s; it offers: %s",
                want ? want : "?", have ? have : "?");
}

int registry_manifest_select(const RegistryManifest *index, const RegistryPlatform *platform,
        const RegistryDescriptor **ret, TbError **err)
{
        const RegistryDescriptor *best = NULL;
        unsigned best_score = 0;

        if (!registry_manifest_is_index(index))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "cannot select a platform: not an index");

        for (size_t i = 0; i < index->n_entries; i++) {
                const RegistryDescriptor *d = index->entries + i;
                unsigned score;
                RegistryManifestKind kind = registry_manifest_kind_from_media_type(d->media_type);

                if (d->attestation || kind < 0 || kind == REGISTRY_OCI_ARTIFACT)
                        continue;
                /* An entry without a platform may be anything: taken only when nothing names ours. */
                score = d->platform.os ? registry_platform_match(&d->platform, platform) : 1;
                if (score > best_score) {
                        best = d;
                        best_score = score;
                }
        }
        if (best) {
                *ret = best;
                return 0;
        }

        return registry_manifest_no_platform(index, platform, err);
}
