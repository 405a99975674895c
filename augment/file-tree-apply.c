/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "augment/file-tree-internal.h"
#include "common/cleanup.h"

static void hide_all_of_root(FileTree *t)
{
        for (uint32_t i = 1; i < t->n_nodes; i++)
                if (FILE_NODE(t, i).parent == FILE_TREE_ROOT)
                        file_tree_remove_node(t, i);
}

/* Data n of `upper` becomes data *ret_base + n, so that hard links share it here, too. */
static int copy_data(FileTree *t, const FileTree *upper, uint32_t *ret_base, TbError **err)
{
        *ret_base = t->n_data;
        for (uint32_t i = 0; i < upper->n_data; i++) {
                int r = file_tree_add_data(t, upper->data[i].data, upper->data[i].size, err);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int apply_node(
        FileTree *t, const FileTree *upper, uint32_t i, uint32_t data_base, uint32_t *map, TbError **err)
{
        const FileNode *u = &FILE_NODE(upper, i);
        const char *name = file_text(upper, u->name);
        uint32_t parent = map[u->parent], existing = file_tree_lookup(t, parent, name, strlen(name)), node;
        int r;

        if (u->type == FILE_WHITEOUT) {
                if (existing != FILE_TREE_NONE)
                        file_tree_remove_node(t, existing);
                return 0;
        }
        if (existing != FILE_TREE_NONE && u->type == FILE_DIRECTORY &&
                FILE_NODE(t, existing).type == FILE_DIRECTORY && !u->opaque) {
                if (!u->implied)
                        FILE_NODE(t, existing).mode = u->mode;
                map[i] = existing;
                return 0;
        }
        if (existing != FILE_TREE_NONE && FILE_NODE(t, existing).type != FILE_DIRECTORY) {
                FileNode *n = &FILE_NODE(t, existing);

                /* Nothing lies below it: it becomes the new one, so that files may be replaced again and again. */
                node = existing;
                n->type = u->type;
                n->mode = u->mode;
                n->ref = 0;
                n->implied = n->opaque = false;
        } else {
                if (existing != FILE_TREE_NONE)
                        file_tree_remove_node(t, existing);
                r = file_tree_new_node(
                        t, parent, name, strlen(name), (FileType) u->type, u->mode, &node, err);
                if (r < 0)
                        return r;
        }
        map[i] = node;
        if (u->type == FILE_SYMLINK) {
                const char *target = file_text(upper, u->ref);

                return file_tree_add_text(t, target, strlen(target), &FILE_NODE(t, node).ref, err);
        }
        if (u->type == FILE_REGULAR && u->ref > 0)
                FILE_NODE(t, node).ref = data_base + u->ref;
        return 0;
}

/* `used_up`: the same as `upper` when it is read for the last time, else NULL. */
static int apply_over(FileTree *t, const FileTree *upper, FileTree *used_up, TbError **err)
{
        _cleanup_free_ uint32_t *map = calloc(upper->n_nodes, sizeof(*map));
        uint32_t data_base;
        int r;

        if (!map)
                return tb_error_oom(err);
        r = copy_data(t, upper, &data_base, err);
        if (r < 0)
                return r;
        if (FILE_NODE(upper, FILE_TREE_ROOT).opaque)
                hide_all_of_root(t);
        if (!FILE_NODE(upper, FILE_TREE_ROOT).implied)
                FILE_NODE(t, FILE_TREE_ROOT).mode = FILE_NODE(upper, FILE_TREE_ROOT).mode;
        map[FILE_TREE_ROOT] = FILE_TREE_ROOT;
        /* A node's parent has a lower number, and each name is in a directory once: one pass will do. */
        for (uint32_t i = 1; i < upper->n_nodes; i++) {
                if (used_up)
                        file_tree_drop_before(used_up, i);
                r = apply_node(t, upper, i, data_base, map, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- The other way round: the upper tree stays in place ---- */

/* Node i of `lower` under `upper`: where it is now, or FILE_TREE_NONE. `n_upper`: nodes that were the upper's. */
static int apply_node_under(FileTree *upper, uint32_t n_upper, const FileTree *lower, uint32_t i,
        uint32_t data_base, uint32_t *map, TbError **err)
{
        const FileNode *l = &FILE_NODE(lower, i);
        const char *name = file_text(lower, l->name);
        uint32_t parent = map[l->parent], node;
        int r;

        map[i] = FILE_TREE_NONE;
        /* Hidden with its directory, or removed from the lower tree before. */
        if (parent == FILE_TREE_NONE || l->type == FILE_WHITEOUT || l->removed)
                return 0;
        if (parent < n_upper && FILE_NODE(upper, parent).opaque)
                return 0;
        node = file_tree_lookup(upper, parent, name, strlen(name));
        if (node != FILE_TREE_NONE) {
                FileNode *u = &FILE_NODE(upper, node);

                if (u->type != FILE_DIRECTORY || l->type != FILE_DIRECTORY || u->opaque)
                        return 0;
                if (u->implied)
                        u->mode = l->mode;
                map[i] = node;
                return 0;
        }
        r = file_tree_new_node(upper, parent, name, strlen(name), (FileType) l->type, l->mode, &node, err);
        if (r < 0)
                return r;
        map[i] = node;
        if (l->type == FILE_SYMLINK) {
                const char *target = file_text(lower, l->ref);

                return file_tree_add_text(upper, target, strlen(target), &FILE_NODE(upper, node).ref, err);
        }
        if (l->type == FILE_REGULAR && l->ref > 0)
                FILE_NODE(upper, node).ref = data_base + l->ref;
        return 0;
}

/* Afterwards `upper` is what file_tree_apply() makes of `lower`, and of that not much is left. */
static int apply_under(FileTree *upper, FileTree *lower, TbError **err)
{
        _cleanup_free_ uint32_t *map = calloc(lower->n_nodes, sizeof(*map));
        uint32_t n_upper = upper->n_nodes, data_base;
        int r;

        if (!map)
                return tb_error_oom(err);
        r = copy_data(upper, lower, &data_base, err);
        if (r < 0)
                return r;
        if (FILE_NODE(upper, FILE_TREE_ROOT).implied)
                FILE_NODE(upper, FILE_TREE_ROOT).mode = FILE_NODE(lower, FILE_TREE_ROOT).mode;
        map[FILE_TREE_ROOT] = FILE_TREE_ROOT;
        for (uint32_t i = 1; i < lower->n_nodes; i++) {
                file_tree_drop_before(lower, i);
                r = apply_node_under(upper, n_upper, lower, i, data_base, map, err);
                if (r < 0)
                        return r;
        }
        for (uint32_t i = 1; i < n_upper; i++)
                if (FILE_NODE(upper, i).type == FILE_WHITEOUT)
                        file_tree_remove_node(upper, i);
        return 0;
}

static void drop_slots(FileTree *t)
{
        free(t->slots);
        t->slots = NULL;
        t->n_slots = t->n_used = 0;
}

static int take(FileTree *t, FileTree *upper, TbError **err)
{
        FileTree lower;
        int r;

        if (upper->n_nodes <= t->n_nodes || upper->n_text > t->max_text) {
                drop_slots(upper);
                return apply_over(t, upper, upper, err);
        }
        drop_slots(t);
        upper->max_nodes = t->max_nodes;
        upper->max_text = t->max_text;
        r = apply_under(upper, t, err);
        if (r < 0)
                return r;
        lower = *t;
        *t = *upper;
        *upper = lower;
        return 0;
}

/* ---- Without asking the budget: what comes together was counted ---- */

static FileBudget *leave_budget(FileTree *t, uint32_t *ret_use)
{
        FileBudget *b = t->budget;

        *ret_use = file_tree_use(t);
        t->budget = NULL;
        return b;
}

static void settle(FileBudget *b, uint32_t before, uint32_t now)
{
        if (b)
                atomic_fetch_add(&b->used, now - before); /* modulo 2^32 */
}

int file_tree_apply(FileTree *t, const FileTree *upper, TbError **err)
{
        uint32_t before;
        FileBudget *b = leave_budget(t, &before);
        int r = apply_over(t, upper, NULL, err);

        settle(b, before, file_tree_use(t));
        t->budget = b;
        return r;
}

int file_tree_take(FileTree *t, FileTree *upper, TbError **err)
{
        uint32_t before, of_upper;
        FileBudget *b = leave_budget(t, &before), *other = leave_budget(upper, &of_upper);
        int r = take(t, upper, err);

        settle(b, before, file_tree_use(t));
        settle(other, of_upper, 0);
        t->budget = b;
        return r;
}
