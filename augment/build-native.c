/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "augment/build-native.h"
#include "augment/dockerfile.h"
#include "augment/facts.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* The member of `obj`, made when it is absent or null. Borrowed. */
static int ensure_member(json_t *obj, const char *key, bool array, json_t **ret, TbError **err)
{
        json_t *value = json_object_get(obj, key);
        int r;

        if (!value || json_is_null(value)) {
                value = array ? json_array() : json_object();
                if (!value)
                        return tb_error_oom(err);
                r = tb_json_set_new(obj, key, value, err);
                if (r < 0)
                        return r;
        }
        *ret = value;
        return 0;
}

static int set_list(json_t *obj, const char *key, char *const *v, TbError **err)
{
        json_t *list = v ? tb_json_from_strv(v) : json_array();

        return list ? tb_json_set_new(obj, key, list, err) : tb_error_oom(err);
}

static int apply_layer(ImageConfig *config, const PayloadLayer *layer, TbError **err)
{
        json_t *rootfs, *diff_ids;
        int r;

        if ((r = ensure_member(config->document, "rootfs", false, &rootfs, err)) < 0 ||
                (r = ensure_member(rootfs, "diff_ids", true, &diff_ids, err)) < 0)
                return r;
        return json_array_append_new(diff_ids, json_string(layer->diff_id.text)) < 0 ? tb_error_oom(err) : 0;
}

static int apply_labels(json_t *config, char *const *args, TbError **err)
{
        json_t *labels;
        int r;

        r = ensure_member(config, "Labels", false, &labels, err);
        for (size_t i = 0; r >= 0 && args[i] && args[i + 1]; i += 2)
                r = tb_json_set_string(labels, args[i], args[i + 1], err);
        return r;
}

static int apply_step(ImageConfig *config, const RecipeStep *step, TbError **err)
{
        json_t *obj;
        int r;

        r = image_config_ensure(config, &obj, err);
        if (r < 0)
                return r;
        switch (step->op) {
        case RECIPE_ADD:
                return apply_layer(config, step->layer, err);
        case RECIPE_USER:
                return tb_json_set_string(obj, "User", step->args[0], err);
        case RECIPE_RUN:
                return tb_error_set(err, TB_ERROR_BUG, -EOPNOTSUPP,
                        "a RUN instruction needs an engine; the native builder was given one");
        case RECIPE_LABEL:
                return apply_labels(obj, step->args, err);
        case RECIPE_ENTRYPOINT:
                return set_list(obj, "Entrypoint", step->args, err);
        case RECIPE_CMD:
                return set_list(obj, "Cmd", step->args, err);
        case _RECIPE_OP_MAX:
        case _RECIPE_OP_INVALID:
        default:
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "unknown recipe step %d", (int) step->op);
        }
}

/* The instruction in one line, as `docker history` shows it: continuation lines are joined. */
static int history_text(const RecipeStep *step, char **ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(IMAGE_CONFIG_MAX);
        char *text, *out;
        int r;

        r = dockerfile_render_step(step, &b, err);
        if (r < 0)
                return r;
        text = tb_buffer_steal(&b, NULL);
        if (!text)
                return tb_error_oom(err);
        out = text;
        for (const char *in = text; *in;) {
                if (in[0] == '\\' && in[1] == '\n') {
                        in += 2;
                        in += strspn(in, " ");
                } else {
                        *out++ = *in++;
                }
        }
        *out = 0;
        *ret = text;
        return 0;
}

/* One entry per instruction, as every builder writes them; only ADD has a layer. A base without history gets none: a
 * part of it would not match the layers (image-spec config.md, "history"). */
static int apply_history(ImageConfig *config, const RecipeStep *step, TbError **err)
{
        json_t *history = json_object_get(config->document, "history");
        const char *created = json_string_value(json_object_get(config->document, "created"));
        _cleanup_free_ char *text = NULL;
        json_t *entry;
        int r;

        if (!json_is_array(history) || (json_array_size(history) == 0 && config->n_diff_ids > 0))
                return 0;
        r = history_text(step, &text, err);
        if (r < 0)
                return r;
        entry = json_object();
        if (!entry || json_array_append_new(history, entry) < 0)
                return tb_error_oom(err);
        if ((created && (r = tb_json_set_string(entry, "created", created, err)) < 0) ||
                (r = tb_json_set_string(entry, "created_by", text, err)) < 0 ||
                (r = tb_json_set_string(entry, "comment", IMAGE_NATIVE_COMMENT TBNODE_VERSION, err)) < 0)
                return r;
        return step->op == RECIPE_ADD ? 0 : tb_json_set_bool(entry, "empty_layer", true, err);
}

static bool is_dropped(const Recipe *recipe, size_t layer)
{
        return layer < recipe->n_base_layers && recipe->dropped[layer];
}

/* What an earlier augmentation wrote into the history goes with its layers: what it said without one, too. */
static int drop_history(ImageConfig *config, const Recipe *recipe, TbError **err)
{
        json_t *old = json_object_get(config->document, "history"), *kept, *entry;
        size_t n_layers = 0, layer = 0, i;

        if (!json_is_array(old))
                return 0;
        json_array_foreach (old, i, entry)
                n_layers += !json_is_true(json_object_get(entry, "empty_layer"));
        /* It does not tell which entry made which layer. */
        if (n_layers != config->n_diff_ids)
                return 0;
        kept = json_array();
        if (!kept)
                return tb_error_oom(err);
        json_array_foreach (old, i, entry) {
                const char *comment = json_string_value(json_object_get(entry, "comment"));
                bool empty = json_is_true(json_object_get(entry, "empty_layer"));
                bool drop = empty ? comment && tb_startswith(comment, IMAGE_NATIVE_COMMENT)
                                  : is_dropped(recipe, layer);

                layer += !empty;
                if (!drop && json_array_append(kept, entry) < 0) {
                        json_decref(kept);
                        return tb_error_oom(err);
                }
        }
        return tb_json_set_new(config->document, "history", kept, err);
}

static int drop_layers(json_t *list, const Recipe *recipe, TbError **err)
{
        for (size_t i = json_array_size(list); i-- > 0;)
                if (is_dropped(recipe, i) && json_array_remove(list, i) < 0)
                        return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "no layer %zu to leave out", i);
        return 0;
}

int native_apply_config(ImageConfig *config, const Recipe *recipe, TbError **err)
{
        json_t *rootfs = json_object_get(config->document, "rootfs");
        int r = 0;

        if (recipe->augmented &&
                ((r = drop_history(config, recipe, err)) < 0 ||
                        (r = drop_layers(json_object_get(rootfs, "diff_ids"), recipe, err)) < 0))
                return r;
        for (size_t i = 0; r >= 0 && i < recipe->n_steps; i++) {
                r = apply_step(config, &recipe->steps[i], err);
                if (r >= 0)
                        r = apply_history(config, &recipe->steps[i], err);
        }
        return r;
}

static int make_descriptor(
        const char *media_type, const TbDigest *digest, uint64_t size, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *d = json_object();
        int r;

        if (!d)
                return tb_error_oom(err);
        if ((r = tb_json_set_string(d, "mediaType", media_type, err)) < 0 ||
                (r = tb_json_set_string(d, "digest", digest->text, err)) < 0 ||
                (r = tb_json_set_u64(d, "size", size, err)) < 0)
                return r;
        *ret = TAKE_PTR(d);
        return 0;
}

/* name, value, name, value, ..., NULL */
static int add_annotations(json_t *manifest, char *const *pairs, TbError **err)
{
        json_t *annotations;
        int r;

        r = ensure_member(manifest, "annotations", false, &annotations, err);
        for (; r >= 0 && pairs[0] && pairs[1]; pairs += 2)
                r = tb_json_set_string(annotations, pairs[0], pairs[1], err);
        return r;
}

static int annotate(json_t *manifest, const Recipe *recipe, TbError **err)
{
        int r = 0;

        /* Annotations and labels say the same: the labels are in the recipe. */
        for (size_t i = 0; r >= 0 && i < recipe->n_steps; i++)
                if (recipe->steps[i].op == RECIPE_LABEL)
                        r = add_annotations(manifest, recipe->steps[i].args, err);
        return r;
}

int native_make_manifest(const RegistryManifest *base, const Recipe *recipe, const TbDigest *config_digest,
        uint64_t config_size, char **ret, size_t *ret_size, TbError **err)
{
        bool oci = base->kind == REGISTRY_OCI_MANIFEST;
        _cleanup_json_ json_t *m = NULL;
        json_t *descriptor = NULL, *layers;
        int r;

        if (registry_manifest_is_index(base))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "an index has no layers to append to");
        m = json_deep_copy(base->json);
        if (!m)
                return tb_error_oom(err);
        /* With its subject the image would show up as an attachment of another one. */
        (void) json_object_del(m, "subject");
        if ((r = tb_json_set_string(m, "mediaType", registry_manifest_kind_to_media_type(base->kind), err)) <
                        0 ||
                (r = make_descriptor(
                         base->config.media_type, config_digest, config_size, &descriptor, err)) < 0 ||
                (r = tb_json_set_new(m, "config", descriptor, err)) < 0 ||
                (r = ensure_member(m, "layers", true, &layers, err)) < 0 ||
                (r = drop_layers(layers, recipe, err)) < 0)
                return r;
        for (size_t i = 0; i < recipe->n_steps; i++) {
                const PayloadLayer *layer = recipe->steps[i].layer;

                if (recipe->steps[i].op != RECIPE_ADD)
                        continue;
                r = make_descriptor(oci ? REGISTRY_TYPE_OCI_LAYER : REGISTRY_TYPE_DOCKER_LAYER,
                        &layer->digest, layer->size, &descriptor, err);
                if (r < 0)
                        return r;
                if (json_array_append_new(layers, descriptor) < 0)
                        return tb_error_oom(err);
        }
        if (oci && (r = annotate(m, recipe, err)) < 0)
                return r;
        return tb_json_dump(m, false, ret, ret_size, err);
}

static int index_entry(const json_t *old, const NativeIndexEntry *entry, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *e = json_deep_copy(old);
        int r;

        if (!e)
                return tb_error_oom(err);
        /* They would be those of the image that was there. */
        (void) json_object_del(e, "data");
        (void) json_object_del(e, "urls");
        if ((r = tb_json_set_string(e, "digest", entry->digest.text, err)) < 0 ||
                (r = tb_json_set_u64(e, "size", entry->size, err)) < 0)
                return r;
        *ret = TAKE_PTR(e);
        return 0;
}

static bool index_is_unchanged(const RegistryManifest *base, const NativeIndexEntry *entries)
{
        for (size_t i = 0; i < base->n_entries; i++)
                if (!entries[i].kept || !tb_digest_equal(&entries[i].digest, &base->entries[i].digest))
                        return false;
        return true;
}

int native_make_index(const RegistryManifest *base, const NativeIndexEntry *entries,
        char *const *annotations, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_json_ json_t *m = NULL;
        const json_t *old = json_object_get(base->json, "manifests");
        json_t *list;
        int r;

        if (index_is_unchanged(base, entries)) {
                *ret = strndup(base->data, base->size);
                *ret_size = base->size;
                return *ret ? 0 : tb_error_oom(err);
        }
        m = json_deep_copy(base->json);
        list = json_array();
        if (!m || !list) {
                json_decref(list);
                return tb_error_oom(err);
        }
        (void) json_object_del(m, "subject");
        if ((r = tb_json_set_new(m, "manifests", list, err)) < 0 ||
                (r = tb_json_set_string(
                         m, "mediaType", registry_manifest_kind_to_media_type(base->kind), err)) < 0)
                return r;
        for (size_t i = 0; i < base->n_entries; i++) {
                json_t *entry;

                if (!entries[i].kept)
                        continue;
                r = index_entry(json_array_get(old, i), &entries[i], &entry, err);
                if (r < 0)
                        return r;
                if (json_array_append_new(list, entry) < 0)
                        return tb_error_oom(err);
        }
        if (base->kind == REGISTRY_OCI_INDEX && annotations &&
                (r = add_annotations(m, annotations, err)) < 0)
                return r;
        return tb_json_dump(m, false, ret, ret_size, err);
}
