/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between file-tree.c (one tree) and file-tree-apply.c (layer over layer). */

#include <assert.h>

#include "augment/file-tree.h"

#define FILE_TREE_NONE UINT32_MAX /* no node */

typedef struct FileNode {
        uint32_t parent;
        uint32_t name; /* offset in `text` */
        uint32_t ref;  /* symlink: offset of the target; regular: number of its data + 1; else 0 */
        uint16_t mode;
        uint8_t type;
        bool implied : 1; /* a directory that no entry named */
        bool opaque : 1;  /* a directory that hides what lower layers have in it */
        bool removed : 1; /* nothing finds it any more */
} FileNode;

/* Nodes and text lie in blocks of a size that malloc gives back to the system when they are freed (worker-main.c): when a tree
 * is put over another one, what was read of it goes at once, so that an image is never there twice. No string crosses
 * blocks. A node's text never lies before that of an earlier one. */
#define FILE_BLOCK_SIZE (256U * 1024)
#define FILE_BLOCK_NODES (FILE_BLOCK_SIZE / sizeof(FileNode))
static_assert(sizeof(FileNode) == 16, "as many fit into a block as file-tree.h says");

typedef struct FileData {
        char *data;
        size_t size;
} FileData;

struct FileTree {
        FileNode **node_blocks; /* NULL where it is gone */
        uint32_t n_node_blocks, n_nodes, max_nodes;
        char **text_blocks; /* names and targets, each with its NUL */
        uint32_t n_text_blocks, n_text, max_text;
        uint32_t *slots; /* node + 1 by (parent, name); open addressing */
        uint32_t n_slots, n_used;
        uint64_t seed; /* colliding names can't be computed beforehand */
        FileData *data;
        uint32_t n_data;
        size_t data_bytes;
        FileBudget *budget; /* NULL = none */
};

#define FILE_NODE(_t, _i) ((_t)->node_blocks[(_i) / FILE_BLOCK_NODES][(_i) % FILE_BLOCK_NODES])

static inline const char *file_text(const FileTree *t, uint32_t offset)
{
        return t->text_blocks[offset / FILE_BLOCK_SIZE] + offset % FILE_BLOCK_SIZE;
}

/* The node's number, or FILE_TREE_NONE. */
uint32_t file_tree_lookup(const FileTree *t, uint32_t parent, const char *name, size_t size);
int file_tree_new_node(FileTree *t, uint32_t parent, const char *name, size_t size, FileType type,
        uint32_t mode, uint32_t *ret, TbError **err) _warn_unused_;
/* Nothing finds it any more; its number stays used. */
void file_tree_remove_node(FileTree *t, uint32_t node);
/* What is not needed once all nodes before `node` were read for the last time. FILE_TREE_NONE = nothing. */
void file_tree_drop_before(FileTree *t, uint32_t node);
/* What the tree holds, as a budget counts it. */
uint32_t file_tree_use(const FileTree *t);
/* *ret: where the text begins. */
int file_tree_add_text(FileTree *t, const char *s, size_t size, uint32_t *ret, TbError **err) _warn_unused_;
int file_tree_add_data(FileTree *t, const void *data, size_t size, TbError **err) _warn_unused_;
