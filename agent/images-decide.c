/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What of an inventory may go: pure. */

#include <string.h>

#include "agent/images.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* Objects as sets of names. */
static int put(json_t *set, const char *name, TbError **err)
{
        return !name || json_object_set_new(set, name, json_true()) >= 0 ? 0 : tb_error_oom(err);
}

static int put_prefix(json_t *set, const char *digest, TbError **err)
{
        const char *hex = digest ? tb_startswith(digest, "sha256:") : NULL;
        char prefix[41] = "";

        if (!hex || strlen(hex) < 40)
                return 0;
        memcpy(prefix, hex, 40);
        return put(set, prefix, err);
}

static const char *text(const json_t *item, const char *key)
{
        return json_string_value(json_object_get(item, key));
}

static bool is_image(const json_t *item)
{
        return tb_streq(text(item, "kind"), "mirror") || tb_streq(text(item, "kind"), "augmented");
}

static char *key_of(const json_t *item, const char *digest)
{
        return tb_asprintf("%s@%s", text(item, "repository") ?: "", digest ?: "");
}

static bool is_kept(const json_t *kept, const json_t *item)
{
        _cleanup_free_ char *key = key_of(item, text(item, "digest"));

        return !key || json_object_get(kept, key);
}

static int keep(json_t *kept, const json_t *item, const char *digest, TbError **err)
{
        _cleanup_free_ char *key = key_of(item, digest);

        return key ? put(kept, key, err) : tb_error_oom(err);
}

/* What is used, and what indexes that are used consist of. */
static int keep_used(const json_t *items, json_t *kept, int64_t since, TbError **err)
{
        json_t *item, *child;
        size_t i, k;
        int r;

        json_array_foreach (items, i, item) {
                if (!is_image(item) ||
                        (json_integer_value(json_object_get(item, "last")) <= since &&
                                json_array_size(json_object_get(item, "in_use")) == 0))
                        continue;
                r = keep(kept, item, text(item, "digest"), err);
                if (r < 0)
                        return r;
                json_array_foreach (json_object_get(item, "children"), k, child) {
                        r = keep(kept, item, json_string_value(child), err);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* What images that stay are made from. */
static int keep_bases(const json_t *items, json_t *kept, TbError **err)
{
        _cleanup_json_ json_t *bases = json_object();
        json_t *item;
        size_t i;
        int r;

        if (!bases)
                return tb_error_oom(err);
        json_array_foreach (items, i, item)
                if (is_kept(kept, item) && (r = put(bases, text(item, "base"), err)) < 0)
                        return r;
        json_array_foreach (items, i, item)
                if (text(item, "digest") && json_object_get(bases, text(item, "digest")) &&
                        (r = keep(kept, item, text(item, "digest"), err)) < 0)
                        return r;
        return 0;
}

/* Facts stay with the image that they are about, records with any mirror in their repository. */
static int keep_notes(const json_t *items, json_t *kept, TbError **err)
{
        _cleanup_json_ json_t *about = json_object(), *repositories = json_object();
        json_t *item, *tag;
        size_t i, k;
        int r;

        if (!about || !repositories)
                return tb_error_oom(err);
        json_array_foreach (items, i, item) {
                if (!is_image(item) || !is_kept(kept, item))
                        continue;
                if ((r = put_prefix(about, text(item, "digest"), err)) < 0 ||
                        (r = put_prefix(about, text(item, "base"), err)) < 0 ||
                        (r = put(repositories, text(item, "repository"), err)) < 0)
                        return r;
        }
        json_array_foreach (items, i, item) {
                bool stays = tb_streq(text(item, "kind"), "record") && text(item, "repository") &&
                        json_object_get(repositories, text(item, "repository"));

                json_array_foreach (json_object_get(item, "tags"), k, tag) {
                        const char *hex =
                                json_string_value(tag) ? tb_startswith(json_string_value(tag), "f-") : NULL;

                        stays = stays ||
                                (tb_streq(text(item, "kind"), "facts") && hex &&
                                        json_object_get(about, hex));
                }
                if (stays && (r = keep(kept, item, text(item, "digest"), err)) < 0)
                        return r;
        }
        return 0;
}

int images_decide(json_t *items, int64_t now, int64_t keep_sec, TbError **err)
{
        _cleanup_json_ json_t *kept = json_object();
        json_t *item;
        size_t i;
        int r;

        if (!kept)
                return tb_error_oom(err);
        if ((r = keep_used(items, kept, now - keep_sec, err)) < 0 ||
                (r = keep_bases(items, kept, err)) < 0 || (r = keep_notes(items, kept, err)) < 0)
                return r;
        json_array_foreach (items, i, item)
                if (json_is_object(item) && !is_kept(kept, item) &&
                        json_object_set_new(item, "remove", json_true()) < 0)
                        return tb_error_oom(err);
        return 0;
}
