/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/layer-scan.h"
#include "augment/tar-stream.h"
#include "common/cleanup.h"
#include "common/decompress.h"
#include "common/strv.h"

#define RATIO_FREE (UINT64_C(256) << 20)
/* What is looked at of a file whose name says nothing. */
#define SNIFF_SIZE 512U
#define SNIFF_FILE_MAX (64U * 1024)

const LayerLimits layer_limits_default = {
        .unpacked_max = UINT64_C(64) << 30,
        .files_max = 600000,
        .names_max = 24U << 20,
        .ratio_max = 500,
};

typedef enum KeepState {
        KEEP_NOTHING, /* the data of this entry passes by */
        KEEP_SNIFF,   /* its beginning is collected to decide */
        KEEP_ALL,     /* all of it is collected */
} KeepState;

struct LayerScan {
        LayerLimits limits;
        uint64_t packed;
        TbDecompressor *decompressor;
        TbHasher *hasher;
        TarStream *tar;
        FileTree *tree;

        KeepState keep;
        uint32_t node;   /* of the entry whose data comes */
        uint64_t wanted; /* its size */
        char *kept;
        size_t n_kept;
};

static int on_unpacked(const void *data, size_t size, void *userdata, TbError **err)
{
        LayerScan *s = userdata;
        uint64_t unpacked = tb_decompressor_output(s->decompressor);
        int r;

        if (unpacked > RATIO_FREE && unpacked / s->limits.ratio_max > s->packed)
                return tb_error_set(err, TB_ERROR_REMOTE, -EFBIG,
                        "it unpacks to more than %u times its size, which no real layer does",
                        s->limits.ratio_max);
        r = tb_hasher_update(s->hasher, data, size, err);
        return r < 0 ? r : tar_stream_feed(s->tar, data, size, err);
}

/* Files whose names say that they describe the image. */
static bool name_is_wanted(const char *name)
{
        static const char *const names[] = {"os-release", "lsb-release", "redhat-release", "centos-release",
                "fedora-release", "system-release", "alpine-release", "debian_version", "SuSE-release",
                "arch-release", "gentoo-release", "passwd", "group"};

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                /* "initrd-release"-like prefixes and Nix's "<hash>-os-release" end in it. */
                const char *found =
                        strlen(name) >= strlen(names[i]) ? name + strlen(name) - strlen(names[i]) : NULL;

                if (found && tb_streq(found, names[i]) && (found == name || found[-1] == '-'))
                        return true;
        }
        return false;
}

static bool beginning_is_wanted(const char *data, size_t size)
{
        static const char *const begins[] = {"ID=", "NAME=", "PRETTY_NAME=", "DISTRIB_ID=", "root:"};

        for (size_t i = 0; i < ELEMENTSOF(begins); i++)
                if (size >= strlen(begins[i]) && memcmp(data, begins[i], strlen(begins[i])) == 0)
                        return true;
        return memmem(data, size, "\nID=", 4) != NULL;
}

static int on_entry(const TarEntry *e, void *userdata, TbError **err)
{
        static const FileType types[_TAR_TYPE_MAX] = {
                [TAR_FILE] = FILE_REGULAR,
                [TAR_DIRECTORY] = FILE_DIRECTORY,
                [TAR_SYMLINK] = FILE_SYMLINK,
                [TAR_HARDLINK] = FILE_REGULAR,
                [TAR_CHARACTER_DEVICE] = FILE_DEVICE,
                [TAR_BLOCK_DEVICE] = FILE_DEVICE,
                [TAR_FIFO] = FILE_DEVICE,
        };
        LayerScan *s = userdata;
        int r;

        r = file_tree_add(
                s->tree, e->path, types[e->type], e->link, e->type == TAR_HARDLINK, e->mode, &s->node, err);
        if (r < 0)
                return r;
        s->keep = KEEP_NOTHING;
        s->n_kept = 0;
        s->wanted = e->size;
        if (e->type != TAR_FILE || s->node == FILE_TREE_ROOT || e->size == 0)
                return 0;
        if (e->size <= LAYER_KEEP_MAX && name_is_wanted(file_tree_name(s->tree, s->node)))
                s->keep = KEEP_ALL;
        else if (e->size <= SNIFF_FILE_MAX)
                s->keep = KEEP_SNIFF;
        return 0;
}

static void sniff(LayerScan *s)
{
        if (s->n_kept < SNIFF_SIZE && s->n_kept < s->wanted)
                return;
        s->keep = beginning_is_wanted(s->kept, s->n_kept < SNIFF_SIZE ? s->n_kept : SNIFF_SIZE)
                ? KEEP_ALL
                : KEEP_NOTHING;
}

static int on_data(const void *data, size_t size, void *userdata, TbError **err)
{
        LayerScan *s = userdata;

        if (s->keep == KEEP_NOTHING)
                return 0;
        /* The tar reader gives exactly `wanted` bytes, and that is no more than LAYER_KEEP_MAX. */
        memcpy(s->kept + s->n_kept, data, size);
        s->n_kept += size;
        if (s->keep == KEEP_SNIFF)
                sniff(s);
        if (s->keep == KEEP_ALL && s->n_kept == s->wanted)
                return file_tree_set_data(s->tree, s->node, s->kept, s->n_kept, err);
        return 0;
}

int layer_scan_new(const LayerLimits *limits, LayerScan **ret, TbError **err)
{
        _cleanup_(layer_scan_freep) LayerScan *s = calloc(1, sizeof(*s));
        TarStreamHooks hooks = {.entry = on_entry, .data = on_data, .userdata = s};
        int r;

        if (!s)
                return tb_error_oom(err);
        s->limits = limits ? *limits : layer_limits_default;
        s->kept = malloc(LAYER_KEEP_MAX);
        if (!s->kept)
                return tb_error_oom(err);
        if ((r = file_tree_new(s->limits.files_max, s->limits.names_max, &s->tree, err)) < 0 ||
                (r = tar_stream_new(&hooks, &s->tar, err)) < 0 || (r = tb_hasher_new(&s->hasher, err)) < 0 ||
                (r = tb_decompressor_new(s->limits.unpacked_max, on_unpacked, s, &s->decompressor, err)) < 0)
                return r;
        file_tree_set_budget(s->tree, s->limits.budget);
        *ret = TAKE_PTR(s);
        return 0;
}

int layer_scan_feed(LayerScan *s, const void *data, size_t size, TbError **err)
{
        s->packed += size;
        return tb_decompressor_feed(s->decompressor, data, size, err);
}

int layer_scan_finish(LayerScan *s, const TbDigest *diff_id, TbError **err)
{
        TbDigest seen;
        int r;

        if ((r = tb_decompressor_finish(s->decompressor, err)) < 0 ||
                (r = tar_stream_finish(s->tar, err)) < 0 || (r = tb_hasher_final(s->hasher, &seen, err)) < 0)
                return r;
        if (diff_id && tb_digest_is_set(diff_id) && !tb_digest_equal(diff_id, &seen))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "it unpacks to %s, but the image's configuration says %s", seen.text, diff_id->text);
        return 0;
}

const FileTree *layer_scan_tree(const LayerScan *s)
{
        return s->tree;
}

FileTree *layer_scan_use_up(LayerScan *s)
{
        return s->tree;
}

uint64_t layer_scan_unpacked(const LayerScan *s)
{
        return tb_decompressor_output(s->decompressor);
}

LayerScan *layer_scan_free(LayerScan *s)
{
        if (!s)
                return NULL;
        tb_decompressor_free(s->decompressor);
        tb_hasher_free(s->hasher);
        tar_stream_free(s->tar);
        file_tree_free(s->tree);
        free(s->kept);
        free(s);
        return NULL;
}
