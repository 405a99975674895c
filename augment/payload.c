/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/payload.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define PAYLOAD_JSON_MAX (1024u * 1024)
#define PAYLOAD_LAYER_MAX (256ull * 1024 * 1024)

const char *augment_payload_dir(void)
{
        const char *dir = secure_getenv("TBNODE_PAYLOAD_DIR");

        return dir && dir[0] ? dir : TBNODE_DATADIR "/payload";
}

/* Every key that is there must be one of `known`. */
static int check_keys(const json_t *obj, const char *what, const char *const *known, TbError **err)
{
        const char *key;
        json_t *value;

        if (!json_is_object(obj))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL, "%s is not an object", what);
        json_object_foreach ((json_t *) obj, key, value)
                if (!tb_strv_contains((char *const *) known, key)) {
                        _cleanup_free_ char *shown = tb_escape(key, 64);

                        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL,
                                "%s has the unknown field \"%s\"", what, shown ? shown : "?");
                }
        return 0;
}

static int need_string(const json_t *obj, const char *key, const char **ret, TbError **err)
{
        int r = tb_json_get_string(obj, key, ret, err);

        if (r < 0)
                return r;
        if (r == 0 || (*ret)[0] == 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL, "\"%s\" is missing", key);
        return 0;
}

static int need_digest(const json_t *obj, const char *key, TbDigest *ret, TbError **err)
{
        const char *s;
        int r = need_string(obj, key, &s, err);

        if (r < 0)
                return r;
        r = tb_digest_parse(s, ret, err);
        if (r < 0)
                tb_error_prefix(err, "\"%s\"", key);
        return r;
}

/* The name also stands in Dockerfiles and tar archives: plain characters only. */
static bool is_plain_name(const char *s)
{
        return s[0] != '.' && s[0] != '-' && strlen(s) <= 64 &&
                strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(s);
}

static int parse_layer(const json_t *obj, const char *dir, PayloadLayer *l, TbError **err)
{
        static const char *const known[] = {"level", "file", "digest", "diff_id", "size", NULL};
        const char *level, *file;
        int r;

        if ((r = check_keys(obj, "a layer", known, err)) < 0 ||
                (r = need_string(obj, "level", &level, err)) < 0 ||
                (r = need_string(obj, "file", &file, err)) < 0 ||
                (r = need_digest(obj, "digest", &l->digest, err)) < 0 ||
                (r = need_digest(obj, "diff_id", &l->diff_id, err)) < 0 ||
                (r = tb_json_get_u64(obj, "size", &l->size, err)) < 0)
                return r;
        if (r == 0 || l->size == 0 || l->size > PAYLOAD_LAYER_MAX)
                return tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -EINVAL, "\"size\" is missing or out of bounds");
        l->level = augment_level_from_string(level);
        if (l->level <= AUGMENT_LEVEL_NONE)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL, "\"level\" is not one of a payload");
        if (!is_plain_name(file))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL, "\"file\" is not a plain file name");
        l->file = strdup(file);
        l->path = tb_asprintf("%s/%s", dir, file);
        return l->file && l->path ? 0 : tb_error_oom(err);
}

static int parse_components(const json_t *document, TbError **err)
{
        static const char *const known[] = {"name", "version", "source", "license", NULL};
        json_t *components = NULL, *value;
        const char *ignored;
        size_t i;
        int r;

        r = tb_json_get_array(document, "components", &components, err);
        if (r < 0)
                return r;
        json_array_foreach (components, i, value) {
                r = check_keys(value, "a component", known, err);
                for (size_t k = 0; r >= 0 && known[k]; k++)
                        r = need_string(value, known[k], &ignored, err);
                if (r < 0) {
                        tb_error_prefix(err, "components[%zu]", i);
                        return r;
                }
        }
        return 0;
}

static int parse_payload(
        const json_t *document, const char *dir, const char *arch, Payload *p, TbError **err)
{
        static const char *const known[] = {"version", "arch", "layers", "components", NULL};
        const char *version, *for_arch;
        json_t *layers = NULL, *value;
        size_t i;
        int r;

        if ((r = check_keys(document, "the document", known, err)) < 0 ||
                (r = need_string(document, "version", &version, err)) < 0 ||
                (r = need_string(document, "arch", &for_arch, err)) < 0 ||
                (r = parse_components(document, err)) < 0 ||
                (r = tb_json_get_array(document, "layers", &layers, err)) < 0)
                return r;
        if (!tb_streq(for_arch, arch))
                return tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -EINVAL, "it is for another architecture than %s", arch);
        if (json_array_size(layers) == 0 || json_array_size(layers) >= _AUGMENT_LEVEL_MAX)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL, "it must list 1 to %d layers",
                        _AUGMENT_LEVEL_MAX - 1);
        p->version = strdup(version);
        p->arch = strdup(arch);
        p->layers = calloc(json_array_size(layers), sizeof(*p->layers));
        if (!p->version || !p->arch || !p->layers)
                return tb_error_oom(err);
        json_array_foreach (layers, i, value) {
                p->n_layers++;
                r = parse_layer(value, dir, &p->layers[i], err);
                if (r < 0) {
                        tb_error_prefix(err, "layers[%zu]", i);
                        return r;
                }
                for (size_t k = 0; k < i; k++)
                        if (p->layers[k].level == p->layers[i].level)
                                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EINVAL,
                                        "layers[%zu]: level %s comes twice", i,
                                        augment_level_to_string(p->layers[i].level));
        }
        return 0;
}

int payload_load(const char *dir, const char *arch, Payload **ret, TbError **err)
{
        _cleanup_free_ char *own_dir = NULL, *path = NULL;
        _cleanup_payload_ Payload *p = NULL;
        _cleanup_json_ json_t *document = NULL;
        int r;

        if (!dir)
                dir = augment_payload_dir();
        /* `arch` came from a platform: it must not lead out of the directory. */
        if (!is_plain_name(arch))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "not an architecture name");
        own_dir = tb_asprintf("%s/%s", dir, arch);
        path = own_dir ? tb_asprintf("%s/payload.json", own_dir) : NULL;
        p = calloc(1, sizeof(*p));
        if (!path || !p)
                return tb_error_oom(err);
        if (access(path, F_OK) < 0 && errno == ENOENT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EOPNOTSUPP,
                        "there is no payload for %s images: %s does not exist; install it, or choose "
                        "another "
                        "--platform",
                        arch, path);
        r = tb_json_load_file(path, PAYLOAD_JSON_MAX, &document, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot load the payload's description");
                return r;
        }
        r = parse_payload(document, own_dir, arch, p, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", path);
                return r;
        }
        *ret = TAKE_PTR(p);
        return 0;
}

Payload *payload_free(Payload *p)
{
        if (!p)
                return NULL;
        for (size_t i = 0; i < p->n_layers; i++) {
                free(p->layers[i].path);
                free(p->layers[i].file);
        }
        free(p->layers);
        free(p->version);
        free(p->arch);
        free(p);
        return NULL;
}

PayloadLayer *payload_find(Payload *p, AugmentLevel level)
{
        for (size_t i = 0; i < p->n_layers; i++)
                if (p->layers[i].level == level)
                        return &p->layers[i];
        return NULL;
}

int payload_layers(Payload *p, AugmentLevel level, PayloadLayers *ret, TbError **err)
{
        PayloadLayers layers = {};

        /* Above core there are the distribution's packages, no software of ours. */
        for (int l = AUGMENT_LEVEL_BASIC; l <= (int) level && l <= AUGMENT_LEVEL_CORE; l++) {
                layers.layer[layers.n] = payload_find(p, (AugmentLevel) l);
                if (!layers.layer[layers.n])
                        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                                "the installed payload for %s has no layer for level %s; build it with "
                                "-Dpayload=true",
                                p->arch, augment_level_to_string((AugmentLevel) l));
                layers.n++;
        }
        *ret = layers;
        return 0;
}

int payload_digest(Payload *p, AugmentLevel level, TbDigest *ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(4096);
        PayloadLayers layers;
        int r;

        r = payload_layers(p, level, &layers, err);
        if (r < 0)
                return r;
        if (layers.n < 2) {
                *ret = layers.n == 1 ? layers.layer[0]->digest : (TbDigest){};
                return 0;
        }
        for (size_t i = 0; i < layers.n; i++) {
                r = tb_buffer_printf(&b, err, "%s\n", layers.layer[i]->digest.text);
                if (r < 0)
                        return r;
        }
        return tb_digest_of(b.data, b.size, ret, err);
}

int payload_layer_verify(PayloadLayer *l, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *hasher = NULL;
        _cleanup_free_ char *buffer = NULL;
        _cleanup_close_ int fd = -EBADF;
        uint64_t size = 0;
        TbDigest digest;
        int r;

        if (l->verified)
                return 0;
        fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, -errno, "cannot open the payload layer %s", l->path);
        buffer = malloc(65536);
        if (!buffer)
                return tb_error_oom(err);
        r = tb_hasher_new(&hasher, err);
        if (r < 0)
                return r;
        while (size <= l->size) {
                ssize_t n = read(fd, buffer, 65536);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                                "cannot read the payload layer %s", l->path);
                if (n == 0)
                        break;
                size += (uint64_t) n;
                r = tb_hasher_update(hasher, buffer, (size_t) n, err);
                if (r < 0)
                        return r;
        }
        r = tb_hasher_final(hasher, &digest, err);
        if (r < 0)
                return r;
        if (size != l->size || !tb_digest_equal(&digest, &l->digest))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EBADMSG,
                        "the payload layer %s is not the one that payload.json describes; install the "
                        "payload again",
                        l->path);
        l->verified = true;
        return 0;
}
