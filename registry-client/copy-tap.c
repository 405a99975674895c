/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a copy's tap is told about one layer: begin, data (unpacked when it wants that), end. */

#include "common/cleanup.h"
#include "common/decompress.h"
#include "registry-client/copy.h"

void copy_tap_restart(CopyTap *t)
{
        t->begun = false;
        t->decompressor = tb_decompressor_free(t->decompressor);
}

static int tell(const CopyTap *t, int r, TbError **err)
{
        if (r >= 0)
                return 0;
        if (err && !*err)
                (void) tb_error_set_errno(err, TB_ERROR_BUG, r, "the copy's tap failed without saying why");
        return r == -EAGAIN ? -EIO : r; /* would read as "pause" */
}

static int on_plain(const void *data, size_t size, void *userdata, TbError **err)
{
        const CopyTap *t = userdata;

        return t->tap->data(t->layer, data, size, t->tap->userdata, err);
}

static int begin(CopyTap *t, TbError **err)
{
        int r = 0;

        if (t->begun)
                return 0;
        t->begun = true;
        if (t->tap->begin)
                r = tell(t, t->tap->begin(t->layer, t->tap->userdata, err), err);
        if (r >= 0 && t->tap->unpacked && t->tap->data)
                r = tb_decompressor_new(REGISTRY_LAYER_PLAIN_MAX, on_plain, t, &t->decompressor, err);
        return r;
}

int copy_tap_data(CopyTap *t, const void *data, size_t size, TbError **err)
{
        int r;

        if (!t->tap)
                return 0;
        r = begin(t, err);
        if (r < 0 || !t->tap->data)
                return r;
        if (t->decompressor)
                return tell(t, tb_decompressor_feed(t->decompressor, data, size, err), err);
        return tell(t, t->tap->data(t->layer, data, size, t->tap->userdata, err), err);
}

int copy_tap_end(CopyTap *t, RegistryCopyHow how, TbError **err)
{
        int r = 0;

        if (!t->tap)
                return 0;
        if (how == REGISTRY_COPY_STREAMED) {
                r = begin(t, err); /* an empty layer had no data to begin with */
                if (r >= 0 && t->decompressor)
                        r = tell(t, tb_decompressor_finish(t->decompressor, err), err);
        }
        if (r >= 0 && t->tap->end)
                r = tell(t, t->tap->end(t->layer, how, t->tap->userdata, err), err);
        return r;
}
