/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/nft-table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"

/* ---- Building ---------------------------------------------------------------------------------------------------- */

void nft_table_init(NftTable *t, uint8_t family, const char *name)
{
        *t = (NftTable){.family = family, .name = name};
}

void nft_table_done(NftTable *t)
{
        nlw_done(&t->expressions);
        free(t->rules);
        free(t->chains);
        free(t->sets);
        free(t->elements);
        *t = (NftTable){};
}

/* Room for one more; NULL once anything went wrong. */
static void *append(NftTable *t, void **array, size_t *n, size_t *allocated, size_t size)
{
        if (t->error < 0)
                return NULL;
        if (*n == *allocated) {
                size_t want = *allocated > 0 ? *allocated * 2 : 32;
                void *p = reallocarray(*array, want, size);
                if (!p) {
                        t->error = -ENOMEM;
                        return NULL;
                }
                *array = p;
                *allocated = want;
        }
        void *p = (uint8_t *) *array + *n * size;
        memset(p, 0, size);
        (*n)++;
        return p;
}

void nft_add_set(NftTable *t, const char *name, uint32_t key_type, uint32_t key_size, uint32_t data_type,
        uint32_t data_size)
{
        NftSet *s = append(t, (void **) &t->sets, &t->n_sets, &t->sets_allocated, sizeof(*s));

        if (s)
                *s = (NftSet){name, key_type, key_size, data_type, data_size};
}

static NftChain *add_chain(NftTable *t, const char *name)
{
        NftChain *c = append(t, (void **) &t->chains, &t->n_chains, &t->chains_allocated, sizeof(*c));

        if (c) {
                (void) snprintf(c->name, sizeof(c->name), "%s", name);
                c->first = t->n_rules;
        }
        return c;
}

void nft_add_base_chain(NftTable *t, const char *name, const char *type, uint32_t hook, int32_t priority)
{
        NftChain *c = add_chain(t, name);

        if (c) {
                c->type = type;
                c->hook = hook;
                c->priority = priority;
        }
}

void nft_add_chain(NftTable *t, const char *name)
{
        (void) add_chain(t, name);
}

NlWriter *nft_rule(NftTable *t)
{
        NftRule *r = append(t, (void **) &t->rules, &t->n_rules, &t->rules_allocated, sizeof(*r));

        if (r) {
                r->at = t->expressions.size;
                t->chains[t->n_chains - 1].n++;
        }
        return &t->expressions;
}

/* FNV-1a: tells rules apart, protects against nobody. */
static uint64_t digest(const uint8_t *p, size_t n)
{
        uint64_t h = UINT64_C(14695981039346656037);

        for (size_t i = 0; i < n; i++)
                h = (h ^ p[i]) * UINT64_C(1099511628211);
        return h;
}

void nft_rule_end(NftTable *t, const char *comment, ...)
{
        char text[NFT_COMMENT_MAX - 20];
        va_list ap;

        if (t->expressions.error < 0)
                t->error = t->expressions.error;
        if (t->error < 0)
                return;
        NftRule *r = t->rules + t->n_rules - 1;
        r->size = t->expressions.size - r->at;
        va_start(ap, comment);
        (void) vsnprintf(text, sizeof(text), comment, ap);
        va_end(ap);
        (void) snprintf(r->comment, sizeof(r->comment), "%s #%016llx", text,
                (unsigned long long) digest(t->expressions.data + r->at, r->size));
}

int nft_element_compare(const void *a, const void *b)
{
        const NftElement *x = a, *y = b;

        if (x->set != y->set)
                return x->set < y->set ? -1 : 1;
        return memcmp(x->key, y->key, sizeof(x->key));
}

void nft_add_element(NftTable *t, const char *set, const char *owner, const void *key, size_t key_size,
        const void *data, size_t data_size, const char *chain)
{
        NftElement *e =
                append(t, (void **) &t->elements, &t->n_elements, &t->elements_allocated, sizeof(*e));
        size_t i = 0;

        if (!e)
                return;
        while (i < t->n_sets && !tb_streq(t->sets[i].name, set))
                i++;
        if (i == t->n_sets || key_size > sizeof(e->key) || data_size > sizeof(e->data)) {
                t->error = -EINVAL;
                return;
        }
        e->set = (uint32_t) i;
        e->key_size = (uint32_t) key_size;
        e->data_size = (uint32_t) data_size;
        memcpy(e->key, key, key_size);
        if (data_size > 0)
                memcpy(e->data, data, data_size);
        (void) snprintf(e->chain, sizeof(e->chain), "%s", chain ? chain : "");
        (void) snprintf(e->owner, sizeof(e->owner), "%s", owner ? owner : "");
}

/* ---- Scope ------------------------------------------------------------------------------------------------------- */

int nft_scope_init(NftScope *s, size_t n, TbError **err)
{
        *s = (NftScope){.n = n};
        s->ids = calloc(n + 1, sizeof(*s->ids));
        s->changed = calloc(n + 1, sizeof(bool));
        if (s->ids && s->changed)
                return 0;
        nft_scope_done(s);
        return tb_error_oom(err);
}

static int compare_ids(const void *a, const void *b)
{
        return strncmp(a, b, NFT_OWNER_MAX);
}

int nft_scope_keep(NftScope *s, char *const *keep, TbError **err)
{
        s->sweep = true;
        s->n_keep = keep ? tb_strv_length(keep) : 0;
        s->keep = calloc(s->n_keep + 1, sizeof(*s->keep));
        if (!s->keep)
                return tb_error_oom(err);
        for (size_t i = 0; i < s->n_keep; i++)
                (void) snprintf(s->keep[i], sizeof(s->keep[i]), "%s", keep[i]);
        qsort(s->keep, s->n_keep, sizeof(*s->keep), compare_ids);
        return 0;
}

void nft_scope_sort(NftScope *s)
{
        qsort(s->ids, s->n, sizeof(*s->ids), compare_ids);
}

void nft_scope_done(NftScope *s)
{
        free(s->ids);
        free(s->changed);
        free(s->keep);
        *s = (NftScope){};
}

ssize_t nft_scope_find(const NftScope *s, const char *id)
{
        char key[NFT_OWNER_MAX] = "";
        const char(*p)[NFT_OWNER_MAX];

        (void) snprintf(key, sizeof(key), "%s", id);
        p = s->n > 0 ? bsearch(key, s->ids, s->n, sizeof(*s->ids), compare_ids) : NULL;
        return p ? p - (const char(*)[NFT_OWNER_MAX]) s->ids : -1;
}
