/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between file-tree.c (one tree) and file-tree-apply.c (layer over layer). */

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
} FileNode;

typedef struct FileData {
        char *data;
        size_t size;
} FileData;

struct FileTree {
        FileNode *nodes;
        uint32_t n_nodes, a_nodes, max_nodes;
        char *text; /* names and targets, each with its NUL */
        uint32_t n_text, a_text, max_text;
        uint32_t *slots; /* node + 1 by (parent, name); open addressing */
        uint32_t n_slots, n_used;
        uint64_t seed; /* colliding names can't be computed beforehand */
        FileData *data;
        uint32_t n_data;
        size_t data_bytes;
};

/* The node's number, or FILE_TREE_NONE. */
uint32_t file_tree_lookup(const FileTree *t, uint32_t parent, const char *name, size_t size);
int file_tree_new_node(FileTree *t, uint32_t parent, const char *name, size_t size, FileType type,
        uint32_t mode, uint32_t *ret, TbError **err) _warn_unused_;
/* Nothing finds it any more; its number stays used. */
void file_tree_remove_node(FileTree *t, uint32_t node);
/* *ret: where the text begins. */
int file_tree_add_text(FileTree *t, const char *s, size_t size, uint32_t *ret, TbError **err) _warn_unused_;
int file_tree_add_data(FileTree *t, const void *data, size_t size, TbError **err) _warn_unused_;
