/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What all operations share: results, the end, and waiting for it. */

#include <stdlib.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"

void *registry_op_new(RegistryClient *c, size_t size, void (*destroy)(RegistryOp *), RegistryDoneFn done,
        void *userdata, TbError **err)
{
        RegistryOp *op = calloc(1, size);

        if (!op) {
                (void) tb_error_oom(err);
                return NULL;
        }
        op->client = c;
        op->destroy = destroy;
        op->done_fn = done;
        op->userdata = userdata;
        return op;
}

RegistryOp *registry_op_free(RegistryOp *op)
{
        if (!op)
                return NULL;
        if (op->destroy)
                op->destroy(op);
        tb_error_free(op->error);
        registry_descriptor_done(&op->descriptor);
        registry_manifest_free(op->manifest);
        registry_copy_result_done(&op->copy);
        registry_names_free(op->names);
        tb_buffer_done(&op->blob);
        free(op);
        return NULL;
}

void registry_op_finish(RegistryOp *op, int result, TbError *err)
{
        op->done = true;
        op->result = result;
        op->error = err;
        if (op->done_fn)
                op->done_fn(op, result, err, op->userdata); /* may free it */
}

void registry_op_fail(RegistryOp *op, const TbError *err)
{
        TbError *copy = NULL;

        if (err)
                copy = tb_error_copy(err);
        else
                (void) tb_error_oom(&copy);
        registry_op_finish(op, copy->code < 0 ? copy->code : -EIO, copy);
}

bool registry_op_is_done(const RegistryOp *op)
{
        return op->done;
}

int registry_op_result(const RegistryOp *op, const TbError **ret_error)
{
        if (!op->done)
                return -EINPROGRESS;
        if (op->result < 0 && ret_error)
                *ret_error = op->error;
        return op->result;
}

const RegistryDescriptor *registry_op_descriptor(const RegistryOp *op)
{
        return &op->descriptor;
}

RegistryManifest *registry_op_steal_manifest(RegistryOp *op)
{
        return TAKE_PTR(op->manifest);
}

char **registry_op_steal_names(RegistryOp *op)
{
        return TAKE_PTR(op->names);
}

char *registry_op_steal_blob(RegistryOp *op, size_t *ret_size)
{
        return tb_buffer_steal(&op->blob, ret_size);
}

const RegistryCopyResult *registry_op_copy_result(const RegistryOp *op)
{
        return &op->copy;
}

void registry_copy_result_done(RegistryCopyResult *r)
{
        registry_descriptor_done(&r->manifest);
}

static int run_once(RegistryClient *c, TbError **err)
{
        int r = sd_event_run(c->event, UINT64_MAX);

        if (r == -ESTALE || sd_event_get_state(c->event) == SD_EVENT_FINISHED)
                return tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "stopped by request");
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "the event loop failed");
        return 0;
}

/* The calls that close uploads are bounded in time and tries. */
void registry_client_settle(RegistryClient *c)
{
        while (c->closing)
                if (run_once(c, NULL) < 0)
                        break;
}

int registry_op_wait(RegistryOp *op, TbError **err)
{
        int r;

        while (!op->done && !op->client->cancelled) {
                r = run_once(op->client, err);
                if (r < 0)
                        return r;
        }
        if (!op->done) {
                op->client->cancelled = false;
                if (op->destroy)
                        op->destroy(op); /* gives up its uploads, whose sessions get closed below */
                op->destroy = NULL;
                op->result = tb_error_set(&op->error, TB_ERROR_CANCELLED, -ECANCELED, "cancelled");
                op->done = true;
        }
        /* Nobody runs the loop after us. */
        registry_client_settle(op->client);
        if (op->result < 0)
                return tb_error_move(err, &op->error);
        return op->result;
}
