/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>

#include "augment/pending.h"
#include "common/cleanup.h"

int augment_pending_add(AugmentPending *p, RegistryOp *op, char *text, const char *what, TbError **err)
{
        if (p->n == AUGMENT_PENDING_MAX) {
                registry_op_free(op);
                free(text);
                return tb_error_set(err, TB_ERROR_BUG, -E2BIG, "%s: too much is under way", what);
        }
        p->items[p->n].op = op;
        p->items[p->n].text = text;
        p->items[p->n++].what = what;
        return 0;
}

int augment_pending_manifest(AugmentPending *p, RegistryClient *client, const RegistryRef *ref,
        const char *media_type, char *text, size_t size, const char *what, TbError **err)
{
        _cleanup_free_ char *owned = text;
        RegistryOp *op;
        int r;

        r = registry_put_manifest_start(client, ref, media_type, owned, size, NULL, NULL, &op, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", what);
                return r;
        }
        return augment_pending_add(p, op, TAKE_PTR(owned), what, err);
}

int augment_pending_wait(AugmentPending *p, TbError **err)
{
        _cleanup_error_ TbError *first = NULL;

        for (size_t i = 0; i < p->n; i++) {
                _cleanup_error_ TbError *e = NULL;

                if (registry_op_wait(p->items[i].op, &e) < 0 && !first) {
                        tb_error_prefix(&e, "%s", p->items[i].what);
                        first = TAKE_PTR(e);
                }
        }
        augment_pending_done(p);
        return first ? tb_error_move(err, &first) : 0;
}

void augment_pending_done(AugmentPending *p)
{
        for (size_t i = 0; i < p->n; i++) {
                registry_op_free(p->items[i].op);
                free(p->items[i].text);
        }
        *p = (AugmentPending){};
}
