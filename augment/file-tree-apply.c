/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/file-tree-internal.h"
#include "common/cleanup.h"

static void hide_all_of_root(FileTree *t)
{
        for (uint32_t i = 1; i < t->n_nodes; i++)
                if (t->nodes[i].parent == FILE_TREE_ROOT)
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
        const FileNode *u = &upper->nodes[i];
        const char *name = upper->text + u->name;
        uint32_t parent = map[u->parent], existing = file_tree_lookup(t, parent, name, strlen(name)), node;
        int r;

        if (u->type == FILE_WHITEOUT) {
                if (existing != FILE_TREE_NONE)
                        file_tree_remove_node(t, existing);
                return 0;
        }
        if (existing != FILE_TREE_NONE && u->type == FILE_DIRECTORY &&
                t->nodes[existing].type == FILE_DIRECTORY && !u->opaque) {
                if (!u->implied)
                        t->nodes[existing].mode = u->mode;
                map[i] = existing;
                return 0;
        }
        if (existing != FILE_TREE_NONE)
                file_tree_remove_node(t, existing);
        r = file_tree_new_node(t, parent, name, strlen(name), (FileType) u->type, u->mode, &node, err);
        if (r < 0)
                return r;
        map[i] = node;
        if (u->type == FILE_SYMLINK) {
                const char *target = upper->text + u->ref;

                return file_tree_add_text(t, target, strlen(target), &t->nodes[node].ref, err);
        }
        if (u->type == FILE_REGULAR && u->ref > 0)
                t->nodes[node].ref = data_base + u->ref;
        return 0;
}

int file_tree_apply(FileTree *t, const FileTree *upper, TbError **err)
{
        _cleanup_free_ uint32_t *map = calloc(upper->n_nodes, sizeof(*map));
        uint32_t data_base;
        int r;

        if (!map)
                return tb_error_oom(err);
        r = copy_data(t, upper, &data_base, err);
        if (r < 0)
                return r;
        if (upper->nodes[FILE_TREE_ROOT].opaque)
                hide_all_of_root(t);
        if (!upper->nodes[FILE_TREE_ROOT].implied)
                t->nodes[FILE_TREE_ROOT].mode = upper->nodes[FILE_TREE_ROOT].mode;
        map[FILE_TREE_ROOT] = FILE_TREE_ROOT;
        /* A node's parent has a lower number, and each name is in a directory once: one pass will do. */
        for (uint32_t i = 1; i < upper->n_nodes; i++) {
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
        const FileNode *l = &lower->nodes[i];
        const char *name = lower->text + l->name;
        uint32_t parent = map[l->parent], node;
        int r;

        map[i] = FILE_TREE_NONE;
        /* Hidden with its directory, or removed from the lower tree before. */
        if (parent == FILE_TREE_NONE || l->type == FILE_WHITEOUT ||
                file_tree_lookup(lower, l->parent, name, strlen(name)) != i)
                return 0;
        if (parent < n_upper && upper->nodes[parent].opaque)
                return 0;
        node = file_tree_lookup(upper, parent, name, strlen(name));
        if (node != FILE_TREE_NONE) {
                FileNode *u = &upper->nodes[node];

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
                const char *target = lower->text + l->ref;

                return file_tree_add_text(upper, target, strlen(target), &upper->nodes[node].ref, err);
        }
        if (l->type == FILE_REGULAR && l->ref > 0)
                upper->nodes[node].ref = data_base + l->ref;
        return 0;
}

/* Afterwards `upper` is what file_tree_apply() makes of `lower`. */
static int apply_under(FileTree *upper, const FileTree *lower, TbError **err)
{
        _cleanup_free_ uint32_t *map = calloc(lower->n_nodes, sizeof(*map));
        uint32_t n_upper = upper->n_nodes, data_base;
        int r;

        if (!map)
                return tb_error_oom(err);
        r = copy_data(upper, lower, &data_base, err);
        if (r < 0)
                return r;
        if (upper->nodes[FILE_TREE_ROOT].implied)
                upper->nodes[FILE_TREE_ROOT].mode = lower->nodes[FILE_TREE_ROOT].mode;
        map[FILE_TREE_ROOT] = FILE_TREE_ROOT;
        for (uint32_t i = 1; i < lower->n_nodes; i++) {
                r = apply_node_under(upper, n_upper, lower, i, data_base, map, err);
                if (r < 0)
                        return r;
        }
        for (uint32_t i = 1; i < n_upper; i++)
                if (upper->nodes[i].type == FILE_WHITEOUT)
                        file_tree_remove_node(upper, i);
        return 0;
}

int file_tree_take(FileTree *t, FileTree *upper, TbError **err)
{
        uint32_t max_nodes = t->max_nodes, max_text = t->max_text;
        FileTree lower = *t;
        int r;

        if (upper->n_nodes <= t->n_nodes || upper->n_text > max_text)
                return file_tree_apply(t, upper, err);
        upper->max_nodes = max_nodes;
        upper->max_text = max_text;
        r = apply_under(upper, t, err);
        if (r < 0)
                return r;
        *t = *upper;
        *upper = lower;
        return 0;
}
