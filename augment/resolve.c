/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <systemd/sd-event.h>

#include "augment/record.h"
#include "augment/resolve.h"
#include "common/cleanup.h"
#include "common/strv.h"

struct BaseResolve {
        RegistryClient *client, *anonymous;
        const AugmentRequest *request;
        const RegistryRef *source;
        const AugmentNames *names;
        RegistryOp *ask, *record;
        sd_event_source *patience;
        bool as_user;     /* the registry is asked with credentials */
        bool record_done; /* there is none that can be used, or it may not be */
        bool read;        /* the manifest, not its digest alone */
        RegistryManifest *manifest;
        TbError *why; /* why the registry's answer cannot be had */
        BaseResolveFn done;
        void *userdata;
};

static int start_ask(BaseResolve *b, TbError **err);

/* Ends it; nothing of it may be touched afterwards. */
static void finish(BaseResolve *b, const BaseAnswer *answer, const TbError *err)
{
        b->ask = registry_op_free(b->ask);
        b->record = registry_op_free(b->record);
        b->patience = sd_event_source_disable_unref(b->patience);
        b->done(b, answer, err, b->userdata);
}

static void fail(BaseResolve *b, const TbError *err)
{
        _cleanup_error_ TbError *copy = tb_error_copy(err); /* it may belong to an operation */

        finish(b, NULL, copy);
}

/* Nobody there, or nobody who has time for us. Refusals and bad certificates are answers. */
static bool is_unreachable(int r)
{
        switch (r) {
        case -ECONNREFUSED:
        case -ECONNRESET:
        case -ECONNABORTED:
        case -EPIPE:
        case -ETIMEDOUT:
        case -EHOSTUNREACH:
        case -ENETUNREACH:
        case -EHOSTDOWN:
        case -ENETDOWN:
        case -EADDRNOTAVAIL:
        case -EAGAIN:
        case -EREMOTEIO:
                return true;
        default:
                return false;
        }
}

static bool may_use_record(const BaseResolve *b)
{
        return !b->record_done && !b->record && !b->request->update && !b->names->base_is_local &&
                b->source->tag && !tb_digest_is_set(&b->source->digest);
}

static void on_record(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_error_ TbError *error = NULL;
        BaseResolve *b = userdata;
        BaseAnswer answer = {.from = AUGMENT_FROM_CACHE};
        BaseRecord record;

        if (result >= 0)
                m = registry_op_steal_manifest(op);
        b->record = registry_op_free(b->record);
        b->record_done = true;
        if (m && base_record_parse(m, &record) > 0 && !record.private) {
                answer.digest = record.digest;
                answer.kind = record.kind;
                if (b->why || b->ask)
                        (void) snprintf(answer.notice, sizeof(answer.notice),
                                "using the cached base of %s:%s as it was at %s: %s", b->source->repository,
                                b->source->tag, record.since,
                                b->why ? tb_error_message(b->why) : "its registry does not answer in time");
                finish(b, &answer, NULL);
                return;
        }
        if (b->why)
                fail(b, b->why);
        else if (!b->ask && start_ask(b, &error) < 0)
                finish(b, NULL, error);
}

static int start_record(BaseResolve *b, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        r = base_record_ref(b->names, b->source, &ref, err);
        return r < 0 ? r : registry_get_manifest_start(b->client, ref, on_record, b, &b->record, err);
}

static int on_patience(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *error = NULL;
        BaseResolve *b = userdata;

        if (may_use_record(b) && start_record(b, &error) < 0)
                b->record_done = true; /* the registry may answer yet */
        return 0;
}

/* What can't be read has a digest all the same: the worker says what is wrong with it. */
static void on_read(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = NULL;
        BaseResolve *b = userdata;

        if (result >= 0) {
                b->manifest = registry_op_steal_manifest(op);
                finish(b,
                        &(BaseAnswer){
                                .digest = b->manifest->digest,
                                .kind = augment_source_kind(
                                        registry_manifest_kind_to_media_type(b->manifest->kind)),
                                .from = AUGMENT_FROM_REGISTRY,
                        },
                        NULL);
                return;
        }
        if (is_unreachable(result)) {
                fail(b, err);
                return;
        }
        b->read = false;
        b->ask = registry_op_free(b->ask);
        if (start_ask(b, &error) < 0)
                finish(b, NULL, error);
}

static void on_asked(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = NULL;
        BaseResolve *b = userdata;

        if (result > 0) {
                const BaseAnswer answer = {
                        .digest = registry_op_descriptor(op)->digest,
                        .kind = augment_source_kind(registry_op_descriptor(op)->media_type),
                        .from = AUGMENT_FROM_REGISTRY,
                        .private = b->as_user && b->anonymous && !b->names->base_is_local,
                };
                finish(b, &answer, NULL);
                return;
        }
        if (!b->as_user && (result == 0 || result == -EACCES)) {
                b->as_user = true;
                b->ask = registry_op_free(b->ask);
                if (start_ask(b, &error) < 0)
                        finish(b, NULL, error);
                return;
        }
        if (result == 0) {
                (void) tb_error_set(&error, TB_ERROR_REMOTE, -ENOENT,
                        "registry %s has no such image; check the name and the tag", b->source->host);
                finish(b, NULL, error);
                return;
        }
        if (is_unreachable(result) && (b->record || may_use_record(b))) {
                b->why = tb_error_copy(err);
                b->ask = registry_op_free(b->ask);
                if (!b->record && start_record(b, &error) < 0)
                        fail(b, b->why);
                return;
        }
        fail(b, err);
}

static int start_ask(BaseResolve *b, TbError **err)
{
        RegistryClient *client = b->as_user ? b->client : b->anonymous;

        if (!b->patience && may_use_record(b) &&
                sd_event_add_time_relative(registry_client_event(b->client), &b->patience, CLOCK_MONOTONIC,
                        LOOKUP_PATIENCE_USEC, 0, on_patience, b) < 0)
                b->patience = NULL; /* then without */
        if (b->read)
                return registry_get_manifest_start(client, b->source, on_read, b, &b->ask, err);
        return registry_resolve_start(client, b->source, on_asked, b, &b->ask, err);
}

int base_resolve_start(RegistryClient *client, RegistryClient *anonymous, const AugmentRequest *request,
        const RegistryRef *source, const AugmentNames *names, bool read, BaseResolveFn done, void *userdata,
        BaseResolve **ret, TbError **err)
{
        _cleanup_(base_resolve_freep) BaseResolve *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return tb_error_oom(err);
        *b = (BaseResolve){
                .client = client,
                .anonymous = anonymous,
                .request = request,
                .source = source,
                .names = names,
                .as_user = !anonymous || names->base_is_local || request->private,
                .read = read && names->base_is_local,
                .done = done,
                .userdata = userdata,
        };
        r = request->policy == AUGMENT_POLICY_CACHED && may_use_record(b) ? start_record(b, err)
                                                                          : start_ask(b, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b);
        return 0;
}

RegistryManifest *base_resolve_steal_manifest(BaseResolve *b)
{
        return TAKE_PTR(b->manifest);
}

BaseResolve *base_resolve_free(BaseResolve *b)
{
        if (!b)
                return NULL;
        registry_manifest_free(b->manifest);
        registry_op_free(b->ask);
        registry_op_free(b->record);
        sd_event_source_disable_unref(b->patience);
        tb_error_free(b->why);
        free(b);
        return NULL;
}
