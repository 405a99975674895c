/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * The files of a layer, or of all layers of an image, without their data
 *
 * What an image has under a name can't be told from one layer: a later one may replace or hide it, and "/bin" may be a
 * link that a third one made. So each layer is read into a tree of its own (layers come in any order, several at a
 * time), and the trees are applied to each other from the bottom up, by the rules of image-spec layer.md as moby's
 * overlay2 and containerd carry them out:
 *
 *  - A directory over a directory merges; anything else replaces what was there, with all that was below it.
 *  - A directory that an entry needs and the layer does not name is a real directory all the same. It hides a symlink
 *    of a lower layer (augment's reason for having a top-level directory of its own).
 *  - ".wh.NAME" hides NAME of lower layers, ".wh..wh..opq" all that its directory had there, wherever in the archive they
 *    stand. Other names that begin with ".wh..wh." are aufs's own and mean nothing.
 *  - An entry below a symlink of its own layer goes where that leads.
 *
 * Nodes are numbers that stay valid as long as the tree. A node takes about 24 bytes and its name; nothing but the few
 * files the caller keeps has data.
 */

typedef enum FileType {
        FILE_DIRECTORY,
        FILE_REGULAR,
        FILE_SYMLINK,
        FILE_DEVICE, /* or FIFO */
        FILE_WHITEOUT,
        _FILE_TYPE_MAX,
} FileType;

typedef struct FileTree FileTree;

/* What a node takes, with its place in the table of names. */
#define FILE_NODE_COST 24U

/* What trees hold together, in bytes: nodes, names, targets and kept data. Trees of different threads may share one. */
typedef struct FileBudget {
        uint32_t max;
        _Atomic uint32_t used;
} FileBudget;

#define FILE_TREE_ROOT 0U
/* PATH_MAX and NAME_MAX of Linux: what an engine could not unpack. */
#define FILE_PATH_MAX 4095U
#define FILE_NAME_MAX 255U

/* `nodes_max`: entries, with the directories that are implied; `bytes_max`: names and link targets. */
int file_tree_new(uint32_t nodes_max, uint32_t bytes_max, FileTree **ret, TbError **err) _warn_unused_;
FileTree *file_tree_free(FileTree *t);
/* What the tree holds and will hold counts (borrowed). Adding to it fails with -ENOBUFS when there is no more, which says nothing
 * about the layer; putting trees over each other never does. */
void file_tree_set_budget(FileTree *t, FileBudget *budget);
TB_DEFINE_CLEANUP(FileTree *, file_tree_free)

/*
 * Adds an entry of a layer; `path` as the archive has it. `link`: target of a symlink, or the path of a hard link's
 * other name (`hard`). Whiteouts are told by their names. *ret_node is the entry, FILE_TREE_ROOT for what leaves none.
 * -EBADMSG: the path is absolute, leaves the root, is there already, or lies below something that is no directory;
 * -ENAMETOOLONG; -E2BIG: a limit.
 */
int file_tree_add(FileTree *t, const char *path, FileType type, const char *link, bool hard, uint32_t mode,
        uint32_t *ret_node, TbError **err) _warn_unused_;

/* Puts `upper` over the tree. */
int file_tree_apply(FileTree *t, const FileTree *upper, TbError **err) _warn_unused_;
/* The same, but the larger of the two stays in place and the smaller one's files are put over or under it, each going from
 * where it was: what an image has is held once. Afterwards `upper` can only be freed; after a failure both. */
int file_tree_take(FileTree *t, FileTree *upper, TbError **err) _warn_unused_;

/* The node that a path leads to, through symlinks as in a chroot. 0, or -ENOENT, -ENOTDIR, -ELOOP (no error object: a
 * question, not a failure). `follow`: also a symlink at the end. */
int file_tree_find(const FileTree *t, const char *path, bool follow, uint32_t *ret);

FileType file_tree_type(const FileTree *t, uint32_t node);
/* 07777 bits. */
uint32_t file_tree_mode(const FileTree *t, uint32_t node);
/* Target of a symlink, else NULL. */
const char *file_tree_link(const FileTree *t, uint32_t node);
/* The name in its directory; "" for the root. */
const char *file_tree_name(const FileTree *t, uint32_t node);
/* The absolute path, without symlinks. The caller owns it; NULL when out of memory. */
char *file_tree_path(const FileTree *t, uint32_t node);

/* Data that the caller keeps with a regular file (copied); all names of a hard-linked file have it. -E2BIG beyond 8 MiB in
 * all. */
int file_tree_set_data(FileTree *t, uint32_t node, const void *data, size_t size, TbError **err)
        _warn_unused_;
/* NUL-terminated. NULL: none is kept. */
const char *file_tree_data(const FileTree *t, uint32_t node, size_t *ret_size);

/* Of a layer's tree: there is nothing but the directory `name` of the root and what is in it; no whiteout of others, no
 * attributes of the root. */
bool file_tree_is_only(const FileTree *t, const char *name);

/* Is it a directory without anything in it? */
bool file_tree_is_empty_directory(const FileTree *t, uint32_t node);

/* Nodes that are or were in the tree. */
uint32_t file_tree_count(const FileTree *t);
