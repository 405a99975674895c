/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "augment/file-tree-internal.h"
#include "common/cleanup.h"
#include "common/strv.h"

#define SYMLINKS_MAX 40 /* path_resolution(7) */
#define DATA_MAX (8U << 20)
#define SLOT_FREE 0U
#define SLOT_DELETED UINT32_MAX
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

/* ---- Storage ---- */

static int limit_reached(const char *what, uint32_t max, TbError **err)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -E2BIG, "it has more than %u %s", max, what);
}

/* A block more in a table of them. */
static int add_block(void ***blocks, uint32_t *n, TbError **err)
{
        void **all = reallocarray(*blocks, (size_t) *n + 1, sizeof(*all));

        if (!all)
                return tb_error_oom(err);
        *blocks = all;
        all[*n] = malloc(FILE_BLOCK_SIZE);
        if (!all[*n])
                return tb_error_oom(err);
        (*n)++;
        return 0;
}

static int take_budget(FileTree *t, uint32_t bytes, TbError **err)
{
        FileBudget *b = t->budget;

        if (!b || atomic_fetch_add(&b->used, bytes) + bytes <= b->max)
                return 0;
        return tb_error_set(err, TB_ERROR_REMOTE, -ENOBUFS,
                "it and the layers below it have so many files that their names and attributes take more "
                "than %u "
                "MiB",
                b->max >> 20);
}

uint32_t file_tree_use(const FileTree *t)
{
        return t->n_nodes * FILE_NODE_COST + t->n_text + (uint32_t) t->data_bytes;
}

void file_tree_set_budget(FileTree *t, FileBudget *budget)
{
        if (t->budget)
                atomic_fetch_sub(&t->budget->used, file_tree_use(t));
        t->budget = budget;
        if (budget)
                atomic_fetch_add(&budget->used, file_tree_use(t));
}

int file_tree_add_text(FileTree *t, const char *s, size_t size, uint32_t *ret, TbError **err)
{
        uint32_t at = t->n_text;
        char *text;
        int r;

        if (at % FILE_BLOCK_SIZE + size + 1 > FILE_BLOCK_SIZE)
                at += FILE_BLOCK_SIZE - at % FILE_BLOCK_SIZE;
        if (size + 1 > FILE_BLOCK_SIZE || at > t->max_text || size >= t->max_text - at)
                return limit_reached("bytes of file names", t->max_text, err);
        if (at / FILE_BLOCK_SIZE == t->n_text_blocks &&
                (r = add_block((void ***) &t->text_blocks, &t->n_text_blocks, err)) < 0)
                return r;
        r = take_budget(t, at + (uint32_t) size + 1 - t->n_text, err);
        text = t->text_blocks[at / FILE_BLOCK_SIZE] + at % FILE_BLOCK_SIZE;
        memcpy(text, s, size);
        text[size] = 0;
        t->n_text = at + (uint32_t) size + 1; /* also what was too much counts, until the tree goes */
        *ret = at;
        return r;
}

void file_tree_drop_before(FileTree *t, uint32_t node)
{
        uint32_t text;

        if (node % FILE_BLOCK_NODES != 0 || node == 0 || node >= t->n_nodes)
                return;
        free(t->node_blocks[node / FILE_BLOCK_NODES - 1]);
        t->node_blocks[node / FILE_BLOCK_NODES - 1] = NULL;
        text = FILE_NODE(t, node).name / FILE_BLOCK_SIZE;
        while (text > 0 && t->text_blocks[text - 1]) {
                free(t->text_blocks[--text]);
                t->text_blocks[text] = NULL;
        }
}

static uint64_t hash_name(const FileTree *t, uint32_t parent, const char *name, size_t size)
{
        uint64_t h = t->seed ^ ((uint64_t) parent + 1) * 0x9e3779b97f4a7c15U;

        for (size_t i = 0; i < size; i++) {
                h ^= (unsigned char) name[i];
                h *= 0xff51afd7ed558ccdU;
                h ^= h >> 29;
        }
        return h ^ (t->seed >> 7);
}

static uint32_t *find_slot(const FileTree *t, uint32_t parent, const char *name, size_t size)
{
        uint32_t *free_slot = NULL;

        for (uint64_t i = hash_name(t, parent, name, size);; i++) {
                uint32_t *slot = &t->slots[i & (t->n_slots - 1)];
                const FileNode *n;

                if (*slot == SLOT_FREE)
                        return free_slot ? free_slot : slot;
                if (*slot == SLOT_DELETED) {
                        free_slot = free_slot ? free_slot : slot;
                        continue;
                }
                n = &FILE_NODE(t, *slot - 1);
                if (n->parent == parent && strncmp(file_text(t, n->name), name, size) == 0 &&
                        file_text(t, n->name)[size] == 0)
                        return slot;
        }
}

static int grow_slots(FileTree *t, TbError **err)
{
        uint32_t *old = t->slots, n_old = t->n_slots;

        if (old && t->n_used < n_old / 3 * 2)
                return 0;
        t->n_slots = n_old ? n_old * 2 : 1024;
        t->slots = calloc(t->n_slots, sizeof(*t->slots));
        if (!t->slots) {
                t->slots = old;
                t->n_slots = n_old;
                return tb_error_oom(err);
        }
        t->n_used = 0;
        for (uint32_t i = 0; i < n_old; i++)
                if (old[i] != SLOT_FREE && old[i] != SLOT_DELETED) {
                        const FileNode *n = &FILE_NODE(t, old[i] - 1);
                        const char *name = file_text(t, n->name);

                        *find_slot(t, n->parent, name, strlen(name)) = old[i];
                        t->n_used++;
                }
        free(old);
        return 0;
}

uint32_t file_tree_lookup(const FileTree *t, uint32_t parent, const char *name, size_t size)
{
        uint32_t slot = *find_slot(t, parent, name, size);

        return slot == SLOT_FREE || slot == SLOT_DELETED ? FILE_TREE_NONE : slot - 1;
}

int file_tree_new_node(FileTree *t, uint32_t parent, const char *name, size_t size, FileType type,
        uint32_t mode, uint32_t *ret, TbError **err)
{
        uint32_t offset, *slot;
        int r;

        if (t->n_nodes >= t->max_nodes)
                return limit_reached("files", t->max_nodes, err);
        if (t->n_nodes / FILE_BLOCK_NODES == t->n_node_blocks &&
                (r = add_block((void ***) &t->node_blocks, &t->n_node_blocks, err)) < 0)
                return r;
        if ((r = grow_slots(t, err)) < 0 || (r = file_tree_add_text(t, name, size, &offset, err)) < 0)
                return r;
        FILE_NODE(t, t->n_nodes) = (FileNode){
                .parent = parent,
                .name = offset,
                .mode = (uint16_t) (mode & 07777),
                .type = (uint8_t) type,
        };
        *ret = t->n_nodes++;
        r = take_budget(t, FILE_NODE_COST, err);
        if (r < 0)
                return r;
        /* The root has no name and nothing finds it by one. */
        if (*ret == FILE_TREE_ROOT)
                return 0;
        slot = find_slot(t, parent, name, size);
        if (*slot == SLOT_FREE)
                t->n_used++;
        *slot = *ret + 1;
        return 0;
}

void file_tree_remove_node(FileTree *t, uint32_t node)
{
        const FileNode *n = &FILE_NODE(t, node);
        const char *name = file_text(t, n->name);
        uint32_t *slot = find_slot(t, n->parent, name, strlen(name));

        if (*slot == node + 1)
                *slot = SLOT_DELETED;
        FILE_NODE(t, node).removed = true;
}

int file_tree_new(uint32_t nodes_max, uint32_t bytes_max, FileTree **ret, TbError **err)
{
        _cleanup_(file_tree_freep) FileTree *t = calloc(1, sizeof(*t));
        uint32_t root;
        int r;

        if (!t)
                return tb_error_oom(err);
        /* The highest numbers have a meaning of their own; sizes double without overflow. */
        t->max_nodes = nodes_max < 1U << 30 ? nodes_max : 1U << 30;
        t->max_text = bytes_max < 1U << 30 ? bytes_max : 1U << 30;
        if (getrandom(&t->seed, sizeof(t->seed), GRND_NONBLOCK) != (ssize_t) sizeof(t->seed))
                t->seed = (uint64_t) (uintptr_t) t;
        r = file_tree_new_node(t, FILE_TREE_ROOT, "", 0, FILE_DIRECTORY, 0755, &root, err);
        if (r < 0)
                return r;
        FILE_NODE(t, root).implied = true;
        *ret = TAKE_PTR(t);
        return 0;
}

FileTree *file_tree_free(FileTree *t)
{
        if (!t)
                return NULL;
        for (uint32_t i = 0; i < t->n_data; i++)
                free(t->data[i].data);
        free(t->data);
        file_tree_set_budget(t, NULL);
        free(t->slots);
        for (uint32_t i = 0; i < t->n_text_blocks; i++)
                free(t->text_blocks[i]);
        free(t->text_blocks);
        for (uint32_t i = 0; i < t->n_node_blocks; i++)
                free(t->node_blocks[i]);
        free(t->node_blocks);
        free(t);
        return NULL;
}

/* ---- Lookup ---- */

/* Moves *path over the next component; false at the end. */
static bool next_component(const char **path, const char **ret, size_t *ret_size)
{
        *path += strspn(*path, "/");
        *ret = *path;
        *ret_size = strcspn(*path, "/");
        *path += *ret_size;
        return *ret_size > 0;
}

int file_tree_find(const FileTree *t, const char *path, bool follow, uint32_t *ret)
{
        char rest[2 * (FILE_PATH_MAX + 1)], expanded[sizeof(rest)];
        const char *p = rest, *name;
        uint32_t at = FILE_TREE_ROOT;
        size_t size;
        int links = 0;

        if (strlen(path) > FILE_PATH_MAX)
                return -ENAMETOOLONG;
        memcpy(rest, path, strlen(path) + 1);

        while (next_component(&p, &name, &size)) {
                const char *target;
                uint32_t child;
                int n;

                if (FILE_NODE(t, at).type != FILE_DIRECTORY)
                        return -ENOTDIR;
                if (size == 1 && name[0] == '.')
                        continue;
                if (size == 2 && name[0] == '.' && name[1] == '.') {
                        at = FILE_NODE(t, at).parent;
                        continue;
                }
                child = file_tree_lookup(t, at, name, size);
                if (child == FILE_TREE_NONE || FILE_NODE(t, child).type == FILE_WHITEOUT)
                        return -ENOENT;
                if (FILE_NODE(t, child).type != FILE_SYMLINK || (!follow && p[strspn(p, "/")] == 0)) {
                        at = child;
                        continue;
                }
                if (++links > SYMLINKS_MAX)
                        return -ELOOP;
                target = file_text(t, FILE_NODE(t, child).ref);
                if (target[0] == '/')
                        at = FILE_TREE_ROOT;
                n = snprintf(expanded, sizeof(expanded), "%s/%s", target, p);
                if (n < 0 || (size_t) n >= sizeof(expanded))
                        return -ENAMETOOLONG;
                memcpy(rest, expanded, (size_t) n + 1);
                p = rest;
        }
        *ret = at;
        return 0;
}

FileType file_tree_type(const FileTree *t, uint32_t node)
{
        return (FileType) FILE_NODE(t, node).type;
}

uint32_t file_tree_mode(const FileTree *t, uint32_t node)
{
        return FILE_NODE(t, node).mode;
}

const char *file_tree_link(const FileTree *t, uint32_t node)
{
        return FILE_NODE(t, node).type == FILE_SYMLINK ? file_text(t, FILE_NODE(t, node).ref) : NULL;
}

const char *file_tree_name(const FileTree *t, uint32_t node)
{
        return file_text(t, FILE_NODE(t, node).name);
}

char *file_tree_path(const FileTree *t, uint32_t node)
{
        size_t size = 1;
        char *out, *p;

        if (node == FILE_TREE_ROOT)
                return strdup("/");
        for (uint32_t i = node; i != FILE_TREE_ROOT; i = FILE_NODE(t, i).parent)
                size += 1 + strlen(file_tree_name(t, i));
        out = malloc(size);
        if (!out)
                return NULL;
        p = out + size - 1;
        *p = 0;
        for (uint32_t i = node; i != FILE_TREE_ROOT; i = FILE_NODE(t, i).parent) {
                size_t n = strlen(file_tree_name(t, i));

                p -= n;
                memcpy(p, file_tree_name(t, i), n);
                *--p = '/';
        }
        return out;
}

bool file_tree_is_only(const FileTree *t, const char *name)
{
        const FileNode *root = &FILE_NODE(t, FILE_TREE_ROOT);
        bool found = false;

        if (root->opaque || !root->implied)
                return false;
        for (uint32_t i = 1; i < t->n_nodes; i++) {
                if (FILE_NODE(t, i).parent != FILE_TREE_ROOT)
                        continue;
                if (FILE_NODE(t, i).type != FILE_DIRECTORY ||
                        !tb_streq(file_text(t, FILE_NODE(t, i).name), name))
                        return false;
                found = true;
        }
        return found;
}

bool file_tree_is_empty_directory(const FileTree *t, uint32_t node)
{
        if (FILE_NODE(t, node).type != FILE_DIRECTORY)
                return false;
        for (uint32_t i = 1; i < t->n_nodes; i++)
                if (FILE_NODE(t, i).parent == node && FILE_NODE(t, i).type != FILE_WHITEOUT)
                        return false;
        return true;
}

uint32_t file_tree_count(const FileTree *t)
{
        return t->n_nodes;
}

/* ---- Data ---- */

int file_tree_add_data(FileTree *t, const void *data, size_t size, TbError **err)
{
        FileData *all;
        char *copy;

        if (size > DATA_MAX - t->data_bytes)
                return tb_error_set(err, TB_ERROR_REMOTE, -E2BIG,
                        "its files that describe it are larger than %u MiB", DATA_MAX >> 20);
        all = reallocarray(t->data, (size_t) t->n_data + 1, sizeof(*all));
        if (!all)
                return tb_error_oom(err);
        t->data = all;
        copy = malloc(size + 1);
        if (!copy)
                return tb_error_oom(err);
        if (size > 0)
                memcpy(copy, data, size);
        copy[size] = 0;
        t->data[t->n_data++] = (FileData){.data = copy, .size = size};
        t->data_bytes += size;
        return take_budget(t, (uint32_t) size, err);
}

int file_tree_set_data(FileTree *t, uint32_t node, const void *data, size_t size, TbError **err)
{
        int r = file_tree_add_data(t, data, size, err);

        if (r < 0)
                return r;
        FILE_NODE(t, node).ref = t->n_data;
        return 0;
}

const char *file_tree_data(const FileTree *t, uint32_t node, size_t *ret_size)
{
        const FileNode *n = &FILE_NODE(t, node);

        if (n->type != FILE_REGULAR || n->ref == 0)
                return NULL;
        if (ret_size)
                *ret_size = t->data[n->ref - 1].size;
        return t->data[n->ref - 1].data;
}

/* ---- A layer's entries ---- */

static int refuse(const char *path, const char *why, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(path, 256);

        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "its entry \"%s\" %s", shown ? shown : "?", why);
}

/*
 * The path without "." and "..", relative to the root: Go's filepath.Clean(), after which moby and containerd refuse what
 * begins with "..". An absolute one is put below the root by some readers and on the host by others: refused.
 */
static int clean_path(const char *path, char out[static FILE_PATH_MAX + 1], TbError **err)
{
        const char *p = path, *name;
        size_t size, used = 0;

        if (path[0] == '/')
                return refuse(path, "has an absolute path, which an image layer must not have", err);
        if (strlen(path) > FILE_PATH_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -ENAMETOOLONG,
                        "it has an entry with a path of more than %u bytes", FILE_PATH_MAX);
        out[0] = 0;
        while (next_component(&p, &name, &size)) {
                if (size == 1 && name[0] == '.')
                        continue;
                if (size == 2 && name[0] == '.' && name[1] == '.') {
                        if (used == 0)
                                return refuse(path, "leads out of the image", err);
                        while (used > 0 && out[--used] != '/')
                                ;
                        out[used] = 0;
                        continue;
                }
                if (size > FILE_NAME_MAX)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ENAMETOOLONG,
                                "it has an entry with a name of more than %u bytes", FILE_NAME_MAX);
                if (used > 0)
                        out[used++] = '/';
                memcpy(out + used, name, size);
                used += size;
                out[used] = 0;
        }
        return 0;
}

/* The directory of a cleaned path's last component, which *ret_name is set to; made where it is missing. */
static int find_parent(
        FileTree *t, const char *path, char *clean, uint32_t *ret, const char **ret_name, TbError **err)
{
        const char *slash = strrchr(clean, '/'), *p = clean, *name;
        uint32_t at = FILE_TREE_ROOT;
        size_t size;
        int r;

        *ret_name = slash ? slash + 1 : clean;
        while (next_component(&p, &name, &size) && name != *ret_name) {
                uint32_t child = file_tree_lookup(t, at, name, size);

                if (child == FILE_TREE_NONE) {
                        r = file_tree_new_node(t, at, name, size, FILE_DIRECTORY, 0755, &child, err);
                        if (r < 0)
                                return r;
                        FILE_NODE(t, child).implied = true;
                } else if (FILE_NODE(t, child).type == FILE_SYMLINK) {
                        _cleanup_free_ char *own = file_tree_path(t, child);

                        if (!own)
                                return tb_error_oom(err);
                        if (strlen(own) > FILE_PATH_MAX || file_tree_find(t, own, true, &child) < 0)
                                return refuse(
                                        path, "lies below a symlink that leads nowhere in its layer", err);
                } else if (FILE_NODE(t, child).type == FILE_WHITEOUT) {
                        FILE_NODE(t, child).type = FILE_DIRECTORY;
                        FILE_NODE(t, child).opaque = FILE_NODE(t, child).implied = true;
                }
                if (FILE_NODE(t, child).type != FILE_DIRECTORY)
                        return refuse(path, "lies below something that is no directory", err);
                at = child;
        }
        *ret = at;
        return 0;
}

static int add_whiteout(FileTree *t, const char *path, uint32_t parent, const char *name, TbError **err)
{
        const char *hidden = name + strlen(WHITEOUT);
        uint32_t node;

        if (tb_streq(name, WHITEOUT_OPAQUE)) {
                FILE_NODE(t, parent).opaque = true;
                return 0;
        }
        if (tb_startswith(name, WHITEOUT_META))
                return 0;
        if (!hidden[0] || tb_streq(hidden, ".") || tb_streq(hidden, ".."))
                return refuse(path, "is a whiteout of nothing", err);
        node = file_tree_lookup(t, parent, hidden, strlen(hidden));
        if (node == FILE_TREE_NONE)
                return file_tree_new_node(t, parent, hidden, strlen(hidden), FILE_WHITEOUT, 0, &node, err);
        /* The layer's own entry stays; as a directory it doesn't merge with the hidden one. */
        if (FILE_NODE(t, node).type == FILE_DIRECTORY)
                FILE_NODE(t, node).opaque = true;
        return 0;
}

/* What an existing entry of the same name allows: 1 = it becomes the new one, 0 = a directory again. */
static int check_existing(FileTree *t, const char *path, uint32_t node, FileType type, TbError **err)
{
        FileNode *n = &FILE_NODE(t, node);

        if (n->type == FILE_WHITEOUT) {
                n->type = (uint8_t) type;
                n->opaque = type == FILE_DIRECTORY;
                return 1;
        }
        if (n->type == FILE_DIRECTORY && type == FILE_DIRECTORY)
                return 0;
        return refuse(path, "is there twice", err);
}

static int set_link(FileTree *t, const char *path, uint32_t node, const char *link, bool hard, TbError **err)
{
        char clean[FILE_PATH_MAX + 1];
        uint32_t target, offset;
        int r;

        if (!hard) {
                if (strlen(link) > FILE_PATH_MAX)
                        return refuse(path, "has a target that is too long", err);
                r = file_tree_add_text(t, link, strlen(link), &offset, err);
                if (r < 0)
                        return r;
                FILE_NODE(t, node).ref = offset;
                return 0;
        }
        /* Some writers give the absolute path in the image. */
        r = clean_path(link + strspn(link, "/"), clean, err);
        if (r < 0)
                return r;
        /* A link to a file of a lower layer is something an engine may be unable to make: no data is known. */
        if (file_tree_find(t, clean, false, &target) < 0 || target == node)
                return 0;
        if (FILE_NODE(t, target).type == FILE_DIRECTORY)
                return refuse(path, "is a hard link to a directory", err);
        if (FILE_NODE(t, target).type == FILE_SYMLINK) { /* a text of its own: see FILE_BLOCK_SIZE */
                char copy[FILE_PATH_MAX + 1];

                (void) snprintf(copy, sizeof(copy), "%s", file_tree_link(t, target));
                r = file_tree_add_text(t, copy, strlen(copy), &offset, err);
                if (r < 0)
                        return r;
                FILE_NODE(t, node).type = FILE_SYMLINK;
                FILE_NODE(t, node).mode = FILE_NODE(t, target).mode;
                FILE_NODE(t, node).ref = offset;
                return 0;
        }
        FILE_NODE(t, node).type = FILE_NODE(t, target).type;
        FILE_NODE(t, node).mode = FILE_NODE(t, target).mode;
        FILE_NODE(t, node).ref = FILE_NODE(t, target).ref;
        return 0;
}

int file_tree_add(FileTree *t, const char *path, FileType type, const char *link, bool hard, uint32_t mode,
        uint32_t *ret_node, TbError **err)
{
        char clean[FILE_PATH_MAX + 1];
        const char *name;
        uint32_t parent, node;
        int r;

        r = clean_path(path, clean, err);
        if (r < 0)
                return r;
        if (!clean[0]) {
                if (type != FILE_DIRECTORY)
                        return refuse(path, "is the root and no directory", err);
                FILE_NODE(t, FILE_TREE_ROOT).mode = (uint16_t) (mode & 07777);
                FILE_NODE(t, FILE_TREE_ROOT).implied = false;
                *ret_node = FILE_TREE_ROOT;
                return 0;
        }
        r = find_parent(t, path, clean, &parent, &name, err);
        if (r < 0)
                return r;
        if (tb_startswith(name, WHITEOUT)) {
                *ret_node = FILE_TREE_ROOT;
                return add_whiteout(t, path, parent, name, err);
        }
        node = file_tree_lookup(t, parent, name, strlen(name));
        if (node == FILE_TREE_NONE) {
                r = file_tree_new_node(t, parent, name, strlen(name), type, mode, &node, err);
                if (r < 0)
                        return r;
        } else {
                r = check_existing(t, path, node, type, err);
                if (r < 0)
                        return r;
                FILE_NODE(t, node).mode = (uint16_t) (mode & 07777);
                FILE_NODE(t, node).implied = false;
        }
        if (type == FILE_SYMLINK || hard) {
                r = set_link(t, path, node, link, hard, err);
                if (r < 0)
                        return r;
        }
        *ret_node = node;
        return 0;
}
