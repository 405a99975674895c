/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/strv.h"

#define TREE_PREFIX "TBNODE."
#define KEY_BITS 128

typedef enum KeyType {
        KEY_NAME,
        KEY_ADDRESS,
        KEY_PORT
} KeyType;

static const struct {
        char letter;
        KeyType type;
        bool out; /* looks at where the packet goes, else where it came from */
        bool physdev;
} kinds[_TREE_MAX] = {
        [TREE_SOURCE] = {'s', KEY_ADDRESS, false, false},
        [TREE_DESTINATION] = {'d', KEY_ADDRESS, true, false},
        [TREE_FROM_PORT] = {'i', KEY_NAME, false, true},
        [TREE_FROM_DEVICE] = {'r', KEY_NAME, false, false},
        [TREE_TO_PORT] = {'o', KEY_NAME, true, true},
        [TREE_TO_DEVICE] = {'w', KEY_NAME, true, false},
        [TREE_HOST_PORT] = {'h', KEY_NAME, false, true},
        [TREE_HOST_DEVICE] = {'q', KEY_NAME, false, false},
        [TREE_SSH] = {'p', KEY_PORT, true, false},
};

/* A chain still to be written: leaves [v, v + n). */
typedef struct Pending {
        char name[XT_FUNCTION_MAXNAMELEN];
        const Leaf *v;
        size_t n;
} Pending;

typedef struct Builder {
        const XtFamily *family;
        TreeKind kind;
        const char *otherwise;
        Pending *todo;
        size_t n_todo, allocated;
} Builder;

void tree_root_name(TreeKind kind, char ret[static XT_FUNCTION_MAXNAMELEN])
{
        (void) snprintf(ret, XT_FUNCTION_MAXNAMELEN, TREE_PREFIX "%c", kinds[kind].letter);
}

bool tree_chain_kind(const char *chain, TreeKind *ret)
{
        const char *s = tb_startswith(chain, TREE_PREFIX);

        for (TreeKind k = 0; s && k < _TREE_MAX; k++)
                if (s[0] == kinds[k].letter && (s[1] == '\0' || s[1] == '.')) {
                        *ret = k;
                        return true;
                }
        return false;
}

void tree_leaf_decode(TreeKind kind, const XtFamily *family, const void *entry, Leaf *ret)
{
        XtKeys keys;

        memset(ret, 0, sizeof(*ret));
        xt_entry_keys(family, entry, &keys);
        ret->kind = kind;
        switch (kinds[kind].type) {
        case KEY_NAME:
                memcpy(ret->key, kinds[kind].out ? keys.out : keys.in, IFNAMSIZ);
                break;
        case KEY_ADDRESS:
                memcpy(ret->key, kinds[kind].out ? keys.destination : keys.source, sizeof(ret->key));
                memcpy(ret->device, kinds[kind].out ? keys.out : keys.in, IFNAMSIZ);
                ret->physdev = keys.physdev;
                break;
        case KEY_PORT:
                ret->key[0] = (uint8_t) (keys.port >> 8);
                ret->key[1] = (uint8_t) keys.port;
                break;
        }
}

/* The way alone; `order` decides which of two that are the same stays. */
static int compare_way(const Leaf *a, const Leaf *b)
{
        int k;

        if (a->kind != b->kind)
                return a->kind < b->kind ? -1 : 1;
        k = memcmp(a->key, b->key, sizeof(a->key));
        if (k == 0)
                k = strcmp(a->device, b->device);
        return k != 0 ? k : (int) a->physdev - (int) b->physdev;
}

static int compare_leaf(const void *a, const void *b)
{
        const Leaf *x = a, *y = b;
        int k = compare_way(x, y);

        return k != 0 ? k : x->order < y->order ? -1 : x->order > y->order;
}

static int compare_key(const void *a, const void *b)
{
        return compare_way(a, b);
}

bool leaves_have(const Leaves *l, const Leaf *leaf)
{
        const Leaf *found = l->n > 0 ? bsearch(leaf, l->v, l->n, sizeof(*l->v), compare_key) : NULL;

        return found && tb_streq(found->target, leaf->target);
}

void leaves_sort(Leaves *l)
{
        size_t k = 0;

        for (size_t i = 0; i < l->n; i++)
                l->v[i].order = i;
        if (l->n > 1)
                qsort(l->v, l->n, sizeof(*l->v), compare_leaf);
        for (size_t i = 0; i < l->n; i++)
                if (k == 0 || compare_way(l->v + k - 1, l->v + i) != 0)
                        l->v[k++] = l->v[i];
        l->n = k;
}

static int push(Builder *b, const char *name, const Leaf *v, size_t n)
{
        if (b->n_todo == b->allocated) {
                size_t want = b->allocated > 0 ? b->allocated * 2 : 32;
                Pending *p = reallocarray(b->todo, want, sizeof(*p));
                if (!p)
                        return -ENOMEM;
                b->todo = p;
                b->allocated = want;
        }
        Pending *p = b->todo + b->n_todo++;
        (void) snprintf(p->name, sizeof(p->name), "%s", name);
        p->v = v;
        p->n = n;
        return 0;
}

static void match_device(Draft *d, TreeKind kind, bool physdev, const char *name, bool prefix)
{
        if (kinds[kind].out)
                (physdev ? draft_physdev_out : draft_out)(d, name, prefix);
        else
                (physdev ? draft_physdev_in : draft_in)(d, name, prefix);
}

static void match_address(Draft *d, TreeKind kind, const uint8_t *value, const uint8_t *mask)
{
        (kinds[kind].out ? draft_destination_masked : draft_source_masked)(d, value, mask);
}

static uint16_t key_port(const uint8_t *key)
{
        return (uint16_t) (key[0] << 8 | key[1]);
}

static void add_leaf(const Builder *b, const Leaf *leaf, Rules *r)
{
        static const uint8_t all[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                0xff, 0xff, 0xff, 0xff, 0xff};
        Draft d;

        draft_begin(&d, b->family);
        switch (kinds[b->kind].type) {
        case KEY_NAME:
                match_device(&d, b->kind, kinds[b->kind].physdev, (const char *) leaf->key, false);
                break;
        case KEY_ADDRESS:
                match_address(&d, b->kind, leaf->key, all);
                if (leaf->device[0])
                        match_device(&d, b->kind, leaf->physdev, leaf->device, false);
                else
                        draft_not_bridged(
                                &d); /* routed by the host into a bridge: the port is not known yet */
                break;
        case KEY_PORT:
                draft_ports(&d, IPPROTO_TCP, (FwPorts){},
                        (FwPorts){.first = key_port(leaf->key), .last = key_port(leaf->key)});
                break;
        }
        draft_end_goto(&d, leaf->target, r);
}

static bool bit_is_set(const uint8_t *key, unsigned bit)
{
        return (key[bit / 8] & (0x80U >> (bit % 8))) != 0;
}

/* KEY_BITS: none. */
static unsigned first_difference(const uint8_t *a, const uint8_t *b)
{
        unsigned bit = 0;

        while (bit < KEY_BITS && bit_is_set(a, bit) == bit_is_set(b, bit))
                bit++;
        return bit;
}

/* FNV-1a of the place: 48 bits for some thousand chains. */
static void branch_name(TreeKind kind, const uint8_t prefix[static 16], unsigned bit, char *ret)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (unsigned i = 0; i < 16; i++)
                h = (h ^ prefix[i]) * UINT64_C(0x100000001b3);
        h = (h ^ bit) * UINT64_C(0x100000001b3);
        (void) snprintf(ret, XT_FUNCTION_MAXNAMELEN, TREE_PREFIX "%c.%012llx", kinds[kind].letter,
                (unsigned long long) (h >> 16));
}

/* Sends keys with this bit set (all of them have the same bits before it) to another chain. */
static int add_branch(Builder *b, const Leaf *v, size_t n, unsigned bit, Rules *r)
{
        char name[XT_FUNCTION_MAXNAMELEN];
        uint8_t prefix[16] = {}, mask[16] = {};
        Draft d;

        for (unsigned i = 0; i <= bit; i++)
                if (bit_is_set(v->key, i))
                        prefix[i / 8] = (uint8_t) (prefix[i / 8] | (0x80U >> (i % 8)));
        mask[bit / 8] = (uint8_t) (0x80U >> (bit % 8));
        branch_name(b->kind, prefix, bit, name);
        draft_begin(&d, b->family);
        if (kinds[b->kind].type == KEY_PORT)
                draft_ports(&d, IPPROTO_TCP, (FwPorts){},
                        (FwPorts){.first = key_port(prefix), .last = UINT16_MAX});
        else
                match_address(&d, b->kind, mask, mask);
        draft_end_goto(&d, name, r);
        return push(b, name, v, n);
}

static int build_bits(Builder *b, const Leaf *v, size_t n, Rules *r)
{
        while (n > FW_TREE_BUCKET) {
                unsigned bit = first_difference(v[0].key, v[n - 1].key);
                size_t mid = 0;

                if (bit ==
                        KEY_BITS) /* one address on many veths: somebody's mistake, but no reason to fail */
                        break;
                while (!bit_is_set(v[mid].key, bit))
                        mid++;
                int k = add_branch(b, v + mid, n - mid, bit, r);
                if (k < 0)
                        return k;
                n = mid;
        }
        for (size_t i = 0; i < n; i++)
                add_leaf(b, v + i, r);
        return 0;
}

static int build_names(Builder *b, const Leaf *v, size_t n, Rules *r)
{
        const char *first = (const char *) v[0].key, *last = (const char *) v[n - 1].key;
        size_t common = 0;

        while (first[common] && first[common] == last[common])
                common++;
        for (size_t i = 0, end; i < n; i = end) {
                char prefix[IFNAMSIZ] = "", name[XT_FUNCTION_MAXNAMELEN];
                Draft d;

                for (end = i + 1; end < n && v[end].key[common] == v[i].key[common]; end++)
                        ;
                if (n <= FW_TREE_BUCKET || end == i + 1) {
                        for (size_t k = i; k < end; k++)
                                add_leaf(b, v + k, r);
                        continue;
                }
                memcpy(prefix, v[i].key, common + 1);
                (void) snprintf(name, sizeof(name), TREE_PREFIX "%c.%s", kinds[b->kind].letter, prefix);
                draft_begin(&d, b->family);
                match_device(&d, b->kind, kinds[b->kind].physdev, prefix, true);
                draft_end_goto(&d, name, r);
                int k = push(b, name, v + i, end - i);
                if (k < 0)
                        return k;
        }
        return 0;
}

int tree_build(
        const XtFamily *f, const Leaf *leaves, size_t n, const char *otherwise, Chains *ret, TbError **err)
{
        Builder b = {.family = f, .kind = leaves->kind, .otherwise = otherwise};
        char root[XT_FUNCTION_MAXNAMELEN];

        tree_root_name(b.kind, root);
        int r = push(&b, root, leaves, n);
        while (r >= 0 && b.n_todo > 0) {
                Pending p = b.todo[--b.n_todo];
                Chain *c = chains_add(ret, p.name);

                if (!c) {
                        r = -ENOMEM;
                        break;
                }
                r = kinds[b.kind].type == KEY_NAME ? build_names(&b, p.v, p.n, &c->rules)
                                                   : build_bits(&b, p.v, p.n, &c->rules);
                if (otherwise) {
                        Draft d;
                        draft_begin(&d, f);
                        draft_end_goto(&d, otherwise, &c->rules);
                }
        }
        free(b.todo);
        return r < 0 ? tb_error_oom(err) : 0;
}
