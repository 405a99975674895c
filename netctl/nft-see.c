/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the kernel has of a table of ours. */

#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/strv.h"
#include "netctl/nft-table.h"

void nft_seen_done(NftSeen *s)
{
        free(s->chains);
        free(s->rules);
        free(s->elements);
        free(s->has_set);
        *s = (NftSeen){};
}

void nft_chain_owner(const char *chain, char ret[static NFT_OWNER_MAX])
{
        const char *dash = chain[0] == 'n' ? strchr(chain, '-') : NULL;
        size_t n = dash ? (size_t) (dash - chain - 1) : 0;

        if (n >= NFT_OWNER_MAX)
                n = 0;
        memcpy(ret, chain + 1, n);
        ret[n] = '\0';
}

static void *grow(void **array, size_t *n, size_t *allocated, size_t size)
{
        if (*n == *allocated) {
                size_t want = *allocated > 0 ? *allocated * 2 : 64;
                void *p = reallocarray(*array, want, size);
                if (!p)
                        return NULL;
                *array = p;
                *allocated = want;
        }
        void *p = (uint8_t *) *array + (*n)++ * size;
        memset(p, 0, size);
        return p;
}

typedef struct Reader {
        const NftTable *table;
        NftSeen *seen;
        size_t set; /* whose elements are read */
} Reader;

static bool is_table(const Reader *r, const NlAttr *a)
{
        char name[NFT_NAME_MAX];

        nl_attr_string(a, name, sizeof(name));
        return tb_streq(name, r->table->name);
}

/* The comment in user data as libnftnl lays it out: type 0, length, text with its end. */
static void read_comment(const NlAttr *a, char *ret, size_t size)
{
        ret[0] = '\0';
        for (size_t at = 0; at + 2 <= a->size;) {
                size_t n = a->data[at + 1];
                if (at + 2 + n > a->size)
                        return;
                if (a->data[at] == 0) {
                        NlAttr text = {.data = a->data + at + 2, .size = n};
                        nl_attr_string(&text, ret, size);
                        return;
                }
                at += 2 + n;
        }
}

static int take_chain(const struct nlmsghdr *h, void *userdata)
{
        Reader *r = userdata;
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        NlAttr a;
        NftSeenChain c = {};
        bool ours = false;

        while (nl_iter_next(&i, &a)) {
                if (a.type == NFTA_CHAIN_TABLE)
                        ours = is_table(r, &a);
                else if (a.type == NFTA_CHAIN_NAME)
                        nl_attr_string(&a, c.name, sizeof(c.name));
                else if (a.type == NFTA_CHAIN_HOOK) {
                        NlIter k = nl_iter_nested(&a);
                        NlAttr b;
                        c.base = true;
                        while (nl_iter_next(&k, &b))
                                if (b.type == NFTA_HOOK_HOOKNUM)
                                        c.hook = nft_get_be32(&b);
                                else if (b.type == NFTA_HOOK_PRIORITY)
                                        c.priority = (int32_t) nft_get_be32(&b);
                }
        }
        if (!ours)
                return 0;
        NftSeen *s = r->seen;
        NftSeenChain *p = grow((void **) &s->chains, &s->n_chains, &s->chains_allocated, sizeof(*p));
        if (!p)
                return -ENOMEM;
        *p = c;
        return 0;
}

static int compare_chains(const void *a, const void *b)
{
        return strcmp(((const NftSeenChain *) a)->name, ((const NftSeenChain *) b)->name);
}

static NftSeenChain *find_seen_chain(const NftSeen *s, const char *name)
{
        NftSeenChain key = {};

        (void) snprintf(key.name, sizeof(key.name), "%s", name);
        return s->n_chains > 0 ? bsearch(&key, s->chains, s->n_chains, sizeof(key), compare_chains) : NULL;
}

const NftSeenChain *nft_seen_chain(const NftSeen *s, const char *name)
{
        return find_seen_chain(s, name);
}

static void read_counter(const NlAttr *expressions, NftSeenRule *rule)
{
        NlIter i = nl_iter_nested(expressions);
        NlAttr e, a, b;

        while (nl_iter_next(&i, &e)) {
                NlIter k = nl_iter_nested(&e);
                bool counter = false;
                while (nl_iter_next(&k, &a)) {
                        char name[16];
                        if (a.type == NFTA_EXPR_NAME) {
                                nl_attr_string(&a, name, sizeof(name));
                                counter = tb_streq(name, "counter");
                        } else if (a.type == NFTA_EXPR_DATA && counter) {
                                NlIter d = nl_iter_nested(&a);
                                while (nl_iter_next(&d, &b))
                                        if (b.type == NFTA_COUNTER_PACKETS)
                                                rule->packets = nft_get_be64(&b);
                                        else if (b.type == NFTA_COUNTER_BYTES)
                                                rule->bytes = nft_get_be64(&b);
                        }
                }
        }
}

static int take_rule(const struct nlmsghdr *h, void *userdata)
{
        Reader *r = userdata;
        NftSeen *s = r->seen;
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        NlAttr a;
        NftSeenRule rule = {};
        char chain[NFT_NAME_MAX] = "";
        bool ours = false;

        while (nl_iter_next(&i, &a)) {
                if (a.type == NFTA_RULE_TABLE)
                        ours = is_table(r, &a);
                else if (a.type == NFTA_RULE_CHAIN)
                        nl_attr_string(&a, chain, sizeof(chain));
                else if (a.type == NFTA_RULE_USERDATA)
                        read_comment(&a, rule.comment, sizeof(rule.comment));
                else if (a.type == NFTA_RULE_EXPRESSIONS)
                        read_counter(&a, &rule);
        }
        NftSeenChain *c = ours ? find_seen_chain(s, chain) : NULL;
        if (!c)
                return 0;
        NftSeenRule *p = grow((void **) &s->rules, &s->n_rules, &s->rules_allocated, sizeof(*p));
        if (!p)
                return -ENOMEM;
        *p = rule;
        if (c->n == 0)
                c->first = s->n_rules - 1;
        c->n++;
        return 0;
}

static int take_set(const struct nlmsghdr *h, void *userdata)
{
        Reader *r = userdata;
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        NlAttr a;
        NftSet s = {};
        char name[NFT_NAME_MAX] = "";
        bool ours = false;

        while (nl_iter_next(&i, &a)) {
                if (a.type == NFTA_SET_TABLE)
                        ours = is_table(r, &a);
                else if (a.type == NFTA_SET_NAME)
                        nl_attr_string(&a, name, sizeof(name));
                else if (a.type == NFTA_SET_KEY_TYPE)
                        s.key_type = nft_get_be32(&a);
                else if (a.type == NFTA_SET_KEY_LEN)
                        s.key_size = nft_get_be32(&a);
                else if (a.type == NFTA_SET_DATA_TYPE)
                        s.data_type = nft_get_be32(&a);
                else if (a.type == NFTA_SET_DATA_LEN)
                        s.data_size = nft_get_be32(&a);
        }
        if (!ours)
                return 0;
        for (size_t k = 0; k < r->table->n_sets; k++) {
                const NftSet *want = r->table->sets + k;
                if (!tb_streq(want->name, name))
                        continue;
                r->seen->has_set[k] = true;
                if (want->key_type != s.key_type || want->key_size != s.key_size ||
                        want->data_type != s.data_type ||
                        (want->data_type != NFT_DATA_VERDICT && want->data_size != s.data_size))
                        r->seen->wrong_sets = true;
        }
        return 0;
}

static void read_data(const NlAttr *data, NftElement *e)
{
        NlIter i = nl_iter_nested(data);
        NlAttr a, b;

        while (nl_iter_next(&i, &a)) {
                if (a.type == NFTA_DATA_VALUE && a.size <= sizeof(e->data)) {
                        memcpy(e->data, a.data, a.size);
                        e->data_size = (uint32_t) a.size;
                } else if (a.type == NFTA_DATA_VERDICT) {
                        NlIter k = nl_iter_nested(&a);
                        while (nl_iter_next(&k, &b))
                                if (b.type == NFTA_VERDICT_CHAIN)
                                        nl_attr_string(&b, e->chain, sizeof(e->chain));
                }
        }
}

static int take_element(NftSeen *s, const NlAttr *element, size_t set)
{
        NlIter i = nl_iter_nested(element);
        NlAttr a, b;
        NftElement *e = grow((void **) &s->elements, &s->n_elements, &s->elements_allocated, sizeof(*e));

        if (!e)
                return -ENOMEM;
        e->set = (uint32_t) set;
        while (nl_iter_next(&i, &a)) {
                NlIter k = nl_iter_nested(&a);
                if (a.type == NFTA_SET_ELEM_KEY && nl_iter_next(&k, &b) && b.size <= sizeof(e->key)) {
                        memcpy(e->key, b.data, b.size);
                        e->key_size = (uint32_t) b.size;
                } else if (a.type == NFTA_SET_ELEM_DATA)
                        read_data(&a, e);
                else if (a.type == NFTA_SET_ELEM_USERDATA)
                        read_comment(&a, e->owner, sizeof(e->owner));
        }
        return 0;
}

static int take_elements(const struct nlmsghdr *h, void *userdata)
{
        Reader *r = userdata;
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        NlAttr a, e;

        while (nl_iter_next(&i, &a)) {
                if (a.type != NFTA_SET_ELEM_LIST_ELEMENTS)
                        continue;
                NlIter k = nl_iter_nested(&a);
                while (nl_iter_next(&k, &e)) {
                        int code = take_element(r->seen, &e, r->set);
                        if (code < 0)
                                return code;
                }
        }
        return 0;
}

static int take_table(const struct nlmsghdr *h, void *userdata)
{
        ((Reader *) userdata)->seen->present = true;
        return 0;
}

/* By what it is about; anything else is not looked at. */
static int take(const struct nlmsghdr *h, void *userdata)
{
        switch (h->nlmsg_type) {
        case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN:
                return take_chain(h, userdata);
        case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE:
                return take_rule(h, userdata);
        case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSET:
                return take_set(h, userdata);
        case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM:
                return take_elements(h, userdata);
        default:
                return 0;
        }
}

int nft_seen_take(NftSeen *s, const NftTable *table, size_t set, const struct nlmsghdr *h)
{
        Reader r = {.table = table, .seen = s, .set = set};

        if (!s->has_set)
                s->has_set = calloc(table->n_sets + 1, sizeof(bool));
        return s->has_set ? take(h, &r) : -ENOMEM;
}

void nft_seen_sort(NftSeen *s)
{
        if (s->n_chains > 0)
                qsort(s->chains, s->n_chains, sizeof(*s->chains), compare_chains);
        if (s->n_elements > 0)
                qsort(s->elements, s->n_elements, sizeof(*s->elements), nft_element_compare);
}

static int see_rules(Nft *nft, Reader *r, const char *chain, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};

        nft_begin(&w, NFT_MSG_GETRULE, 0, r->table->family);
        nlw_put_string(&w, NFTA_RULE_TABLE, r->table->name);
        if (chain)
                nlw_put_string(&w, NFTA_RULE_CHAIN, chain);
        nlw_end(&w);
        return nft_dump(nft, &w, take, r, err);
}

/* More chains than this are read with the whole table. */
#define CHAINS_ONE_BY_ONE 64

static bool chain_in_scope(const NftScope *scope, const char *chain)
{
        char owner[NFT_OWNER_MAX];

        nft_chain_owner(chain, owner);
        return !owner[0] || nft_scope_find(scope, owner) >= 0;
}

static int see_chains(Nft *nft, Reader *r, const NftScope *scope, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        NftSeen *s = r->seen;
        size_t wanted = 0;

        nft_begin(&w, NFT_MSG_GETCHAIN, 0, r->table->family);
        nlw_end(&w);
        int code = nft_dump(nft, &w, take, r, err);
        if (code < 0)
                return code;
        nft_seen_sort(s);
        for (size_t i = 0; i < s->n_chains; i++)
                wanted += chain_in_scope(scope, s->chains[i].name);
        for (size_t i = 0; i < s->n_chains && wanted <= CHAINS_ONE_BY_ONE; i++) {
                if (!chain_in_scope(scope, s->chains[i].name))
                        continue;
                s->chains[i].read = true;
                code = see_rules(nft, r, s->chains[i].name, err);
                if (code < 0)
                        return code;
        }
        if (wanted <= CHAINS_ONE_BY_ONE)
                return 0;
        for (size_t i = 0; i < s->n_chains; i++)
                s->chains[i].read = true;
        return see_rules(nft, r, NULL, err);
}

static int see_sets(Nft *nft, Reader *r, TbError **err)
{
        _cleanup_nlw_ NlWriter sets = {};
        NftSeen *s = r->seen;

        s->has_set = calloc(r->table->n_sets + 1, sizeof(bool));
        if (!s->has_set)
                return tb_error_oom(err);
        nft_begin(&sets, NFT_MSG_GETSET, 0, r->table->family);
        nlw_put_string(&sets, NFTA_SET_TABLE, r->table->name);
        nlw_end(&sets);
        int code = nft_dump(nft, &sets, take, r, err);
        for (r->set = 0; code >= 0 && r->set < r->table->n_sets; r->set++) {
                _cleanup_nlw_ NlWriter w = {};
                if (!s->has_set[r->set])
                        continue;
                nft_begin(&w, NFT_MSG_GETSETELEM, 0, r->table->family);
                nlw_put_string(&w, NFTA_SET_ELEM_LIST_TABLE, r->table->name);
                nlw_put_string(&w, NFTA_SET_ELEM_LIST_SET, r->table->sets[r->set].name);
                nlw_end(&w);
                code = nft_dump(nft, &w, take, r, err);
        }
        nft_seen_sort(s);
        return code;
}

int nft_table_present(Nft *nft, const NftTable *table, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        NftSeen seen = {};
        Reader reader = {.table = table, .seen = &seen};

        nft_begin(&w, NFT_MSG_GETTABLE, 0, table->family);
        nlw_put_string(&w, NFTA_TABLE_NAME, table->name);
        nlw_end(&w);
        int code = nft_get(nft, &w, take_table, &reader, err);
        return code == -ENOENT ? 0 : code < 0 ? code : 1;
}

int nft_see(Nft *nft, const NftTable *table, const NftScope *scope, NftSeen *ret, TbError **err)
{
        _cleanup_nft_seen_ NftSeen seen = {};
        Reader reader = {.table = table, .seen = &seen};

        int code = nft_table_present(nft, table, err);
        if (code < 0)
                return code;
        seen.present = code > 0;
        if (seen.present)
                code = see_chains(nft, &reader, scope, err);
        if (code >= 0 && seen.present)
                code = see_sets(nft, &reader, err);
        if (code < 0)
                return code;
        *ret = seen;
        seen = (NftSeen){};
        return 0;
}

int nft_see_again(Nft *nft, const NftTable *table, const NftScope *scope, NftSeen *ret, TbError **err)
{
        for (int try = 1;; try++) {
                _cleanup_error_ TbError *e = NULL;
                int r = nft_see(nft, table, scope, ret, &e);
                if (r >= 0)
                        return 0;
                if (r != -EINTR || try == NFT_SYNC_TRIES)
                        return tb_error_move(err, &e);
        }
}
