/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The tree of manifests of a copy: fetched from the root down, pushed from the leaves up
 *
 * A parent stands before its children in `nodes`; `depth` is the longest way from the root, so that pushing level by
 * level, deepest first, pushes each manifest after everything it names. Number, depth and sum of sizes are bounded.
 */

#include <stdlib.h>

#include "common/cleanup.h"
#include "registry-client/copy.h"

#define NODES_MAX 1024U
#define MANIFESTS_BYTES_MAX (64U * 1024 * 1024)

/* ---- CHILDREN ---- */

static int add_node(CopyOp *c, const TbDigest *digest, unsigned depth, TbError **err)
{
        CopyNode **v, *n;

        for (size_t i = 0; i < c->n_nodes; i++)
                if (tb_digest_equal(&c->nodes[i]->digest, digest)) {
                        /* Named twice, at different levels: its own children must stay below it. */
                        if (c->nodes[i]->depth < depth && !c->nodes[i]->manifest)
                                c->nodes[i]->depth = depth;
                        else if (c->nodes[i]->depth < depth &&
                                !registry_manifest_is_index(c->nodes[i]->manifest))
                                c->nodes[i]->depth = depth;
                        else if (c->nodes[i]->depth < depth)
                                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                                        "%s: one index is named at several levels", c->source_name);
                        return 0;
                }
        if (c->n_nodes >= NODES_MAX || depth > COPY_DEPTH_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: more than %u manifests, or nested deeper than %u", c->source_name, NODES_MAX,
                        COPY_DEPTH_MAX);
        v = reallocarray(c->nodes, c->n_nodes + 1, sizeof(*v));
        if (!v)
                return tb_error_oom(err);
        c->nodes = v;
        n = calloc(1, sizeof(*n));
        if (!n)
                return tb_error_oom(err);
        n->copy = c;
        n->digest = *digest;
        n->depth = depth;
        c->nodes[c->n_nodes++] = n;
        return 0;
}

/* The node got its manifest (taken): its children become nodes. */
static int fill_node(CopyOp *c, CopyNode *n, RegistryManifest *m, TbError **err)
{
        int r;

        n->manifest = m;
        c->n_fetched++;
        c->manifests_bytes += m->size;
        c->op.copy.bytes_downloaded += m->size;
        if (c->manifests_bytes > MANIFESTS_BYTES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: its manifests are larger than %u bytes", c->source_name, MANIFESTS_BYTES_MAX);
        for (size_t i = 0; i < m->n_entries; i++) {
                if (registry_manifest_kind_from_media_type(m->entries[i].media_type) < 0)
                        continue;
                r = add_node(c, &m->entries[i].digest, n->depth + 1, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int fetch_children(CopyOp *c, TbError **err);

static void on_child(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopyNode *n = userdata;
        CopyOp *c = n->copy;
        RegistryManifest *m;

        if (err) {
                copy_fail(c, err);
                return;
        }
        m = registry_op_steal_manifest(op);
        n->op = registry_op_free(n->op);
        c->n_active--;
        if (fill_node(c, n, m, &e) < 0 || fetch_children(c, &e) < 0)
                copy_fail(c, e);
}

static int fetch_children(CopyOp *c, TbError **err)
{
        int r;

        for (size_t i = 0; i < c->n_nodes && c->n_active < c->parallel; i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
                CopyNode *n = c->nodes[i];

                if (n->manifest || n->op)
                        continue;
                if (c->from)
                        r = copy_local_get(c->op.client, c->from, &n->digest, on_child, n, &n->op, err);
                else if ((r = registry_ref_with(c->source, NULL, &n->digest, &ref, err)) >= 0)
                        r = registry_get_manifest_start(c->op.client, ref, on_child, n, &n->op, err);
                if (r < 0)
                        return r;
                c->n_active++;
        }
        if (c->n_active > 0)
                return 0;
        return copy_enter_blobs(c, err);
}

int copy_enter_children(CopyOp *c, RegistryManifest *root, TbError **err)
{
        int r;

        c->phase = COPY_CHILDREN;
        r = add_node(c, &root->digest, 0, err);
        if (r < 0) {
                registry_manifest_free(root);
                return r;
        }
        r = fill_node(c, c->nodes[0], root, err);
        return r < 0 ? r : fetch_children(c, err);
}

/* ---- MANIFESTS ---- */

static int push_manifests(CopyOp *c, TbError **err);

static void on_pushed(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopyNode *n = userdata;
        CopyOp *c = n->copy;

        if (err) {
                copy_fail(c, err);
                return;
        }
        n->op = registry_op_free(n->op);
        n->pushed = true;
        c->n_active--;
        c->op.copy.bytes_uploaded += n->manifest->size;
        if (n->depth == 0)
                copy_succeed(c);
        else if (push_manifests(c, &e) < 0)
                copy_fail(c, e);
}

static int push_node(CopyOp *c, CopyNode *n, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        const RegistryManifest *m = n->manifest;
        int r;

        if (c->to) {
                r = copy_local_put(c->op.client, c->to, m, n->depth == 0, on_pushed, n, &n->op, err);
                if (r >= 0)
                        c->n_active++;
                return r;
        }
        r = registry_ref_with(c->target, n->depth == 0 ? c->target->tag : NULL,
                n->depth == 0 ? &c->target->digest : &n->digest, &ref, err);
        if (r < 0)
                return r;
        r = registry_put_manifest_start(c->op.client, ref, registry_manifest_kind_to_media_type(m->kind),
                m->data, m->size, on_pushed, n, &n->op, err);
        if (r >= 0)
                c->n_active++;
        return r;
}

/* Starts what may go now: nodes of the deepest level that is not complete. */
static int push_manifests(CopyOp *c, TbError **err)
{
        unsigned deepest = 0;
        int r;

        for (size_t i = 0; i < c->n_nodes; i++)
                if (!c->nodes[i]->pushed)
                        deepest = MAX2(deepest, c->nodes[i]->depth);
        for (size_t i = 0; i < c->n_nodes && c->n_active < c->parallel; i++) {
                CopyNode *n = c->nodes[i];

                if (n->pushed || n->op || n->depth != deepest)
                        continue;
                r = push_node(c, n, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int copy_enter_manifests(CopyOp *c, TbError **err)
{
        c->phase = COPY_MANIFESTS;
        return push_manifests(c, err);
}
