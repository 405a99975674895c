/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Mounting many blobs at once
 *
 * One POST per blob, WINDOW at a time. Only when a registry answers with an upload session instead (it cannot mount, or
 * the source lacks the blob) is the session closed and the target asked (HEAD) whether it has the blob anyway.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define WINDOW 8U

typedef struct MountOp MountOp;

typedef struct MountSlot {
        MountOp *op;
        size_t index; /* which blob */
        RegistryUpload *upload;
        RegistryCall *head;
} MountSlot;

struct MountOp {
        RegistryOp op;
        const RegistryRef *target; /* these four are the caller's */
        const char *source;
        const RegistryDescriptor *blobs;
        RegistryMountResult *results;
        size_t n, next, active;
        MountSlot slots[WINDOW];
};

static const char *const mount_results[_REGISTRY_MOUNT_RESULT_MAX] = {
        [REGISTRY_MOUNT_MOUNTED] = "mounted",
        [REGISTRY_MOUNT_EXISTS] = "exists",
        [REGISTRY_MOUNT_NEEDS_UPLOAD] = "needs-upload",
};

const char *registry_mount_result_to_string(RegistryMountResult r)
{
        return r < _REGISTRY_MOUNT_RESULT_MAX ? mount_results[r] : NULL;
}

static void mount_destroy(RegistryOp *op)
{
        MountOp *o = (MountOp *) op;

        for (size_t i = 0; i < WINDOW; i++) {
                registry_upload_free(o->slots[i].upload);
                registry_call_free(o->slots[i].head);
        }
}

static int slot_fill(MountSlot *slot, TbError **err);

static void slot_done(MountSlot *slot, RegistryMountResult result)
{
        MountOp *o = slot->op;
        _cleanup_error_ TbError *e = NULL;

        o->results[slot->index] = result;
        slot->upload = registry_upload_free(slot->upload);
        slot->head = registry_call_free(slot->head);
        o->active--;
        if (slot_fill(slot, &e) < 0)
                registry_op_fail(&o->op, e);
        else if (o->active == 0)
                registry_op_finish(&o->op, 0, NULL);
}

static void on_head(RegistryCall *call, const TbError *err, void *userdata)
{
        MountSlot *slot = userdata;
        _cleanup_error_ TbError *e = NULL;
        int r = -EIO;

        if (!err)
                r = registry_blob_head_result(call, &slot->op->blobs[slot->index].digest, NULL, &e);
        if (r < 0)
                registry_op_fail(&slot->op->op, err ? err : e);
        else
                slot_done(slot, r > 0 ? REGISTRY_MOUNT_EXISTS : REGISTRY_MOUNT_NEEDS_UPLOAD);
}

static int slot_look(MountSlot *slot, TbError **err)
{
        MountOp *o = slot->op;

        return registry_blob_head(
                o->op.client, o->target, &o->blobs[slot->index].digest, on_head, slot, &slot->head, err);
}

static void on_upload_event(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata)
{
        MountSlot *slot = userdata;
        _cleanup_error_ TbError *e = NULL;

        switch (event) {
        case REGISTRY_UPLOAD_MOUNTED:
        case REGISTRY_UPLOAD_DONE:
                slot_done(slot, REGISTRY_MOUNT_MOUNTED);
                return;
        case REGISTRY_UPLOAD_OPENED:
                slot->upload = registry_upload_free(slot->upload); /* closes the session */
                if (slot_look(slot, &e) < 0)
                        registry_op_fail(&slot->op->op, e);
                return;
        case REGISTRY_UPLOAD_FAILED:
                registry_op_fail(&slot->op->op, err);
                return;
        }
}

/* Starts the next blob that needs an exchange in this slot; none left: the slot stays idle. */
static int slot_fill(MountSlot *slot, TbError **err)
{
        MountOp *o = slot->op;
        RegistryUploadOptions options = {
                .repository = o->target,
                .mount_from = o->source,
                .event = on_upload_event,
                .userdata = slot,
        };
        int r;

        while (o->next < o->n && o->blobs[o->next].foreign)
                o->results[o->next++] = REGISTRY_MOUNT_EXISTS;
        if (o->next >= o->n)
                return 0;
        slot->index = o->next++;
        options.digest = o->blobs[slot->index].digest;
        if (o->source)
                r = registry_upload_start(o->op.client, &options, &slot->upload, err);
        else
                r = slot_look(slot, err);
        if (r >= 0)
                o->active++;
        return r;
}

int registry_mount_blobs_start(RegistryClient *c, const RegistryRef *target, const char *source_repository,
        const RegistryDescriptor *blobs, size_t n, RegistryMountResult *results, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(MountOp), mount_destroy, done, userdata, err);
        MountOp *o = (MountOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        o->target = target;
        o->source = source_repository;
        o->blobs = blobs;
        o->n = n;
        o->results = results;
        for (size_t i = 0; i < WINDOW; i++) {
                o->slots[i].op = o;
                r = slot_fill(&o->slots[i], err);
                if (r < 0)
                        return r;
        }
        if (o->active == 0)
                op->done = true;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_mount_blobs(RegistryClient *c, const RegistryRef *target, const char *source_repository,
        const RegistryDescriptor *blobs, size_t n, RegistryMountResult *results, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        r = registry_mount_blobs_start(
                c, target, source_repository, blobs, n, results, NULL, NULL, &op, err);
        return r < 0 ? r : registry_op_wait(op, err);
}
