/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * From what the kernel has to what it shall have, in one transaction.
 *
 * The order of messages inside it: what others refer to is made first (table, sets, chains) and goes last. Nothing of it can be
 * seen by a packet before all of it is done.
 */

/* Before anything of linux/: the other way round they clash. */
#include <netinet/in.h>

#include <linux/netfilter.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/nft-table.h"

#define NEST(type) ((uint16_t) (NLA_F_NESTED | (type)))
#define ELEMENTS_PER_MESSAGE 128

static int compare_names(const void *a, const void *b)
{
        return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The names of the table's chains in order; NULL when out of memory. */
static const char **sorted_names(const NftTable *t)
{
        const char **v = calloc(t->n_chains + 1, sizeof(*v));

        for (size_t i = 0; v && i < t->n_chains; i++)
                v[i] = t->chains[i].name;
        if (v)
                qsort(v, t->n_chains, sizeof(*v), compare_names);
        return v;
}

static bool has_chain(const NftTable *t, const char *name)
{
        for (size_t i = 0; i < t->n_chains; i++)
                if (tb_streq(t->chains[i].name, name))
                        return true;
        return false;
}

bool nft_chain_is_as(const NftTable *t, const NftChain *want, const NftSeen *s, const NftSeenChain *seen)
{
        if (!seen || !seen->read || seen->n != want->n || seen->base != (want->type != NULL))
                return false;
        if (seen->base && (seen->hook != want->hook || seen->priority != want->priority))
                return false;
        for (size_t i = 0; i < want->n; i++)
                if (!tb_streq(t->rules[want->first + i].comment, s->rules[seen->first + i].comment))
                        return false;
        return true;
}

/* One table on its way. */
typedef struct Plan {
        const NftTable *table;
        const NftSeen *seen;
        NftScope *scope;
        NlWriter *w;
        bool fresh;                    /* the table is made anew: nothing that was seen counts */
        char (*dropped)[NFT_NAME_MAX]; /* chains that go */
        size_t n_dropped;
} Plan;

static void plan_done(Plan *p)
{
        free(p->dropped);
}

static void begin(Plan *p, uint16_t type, uint16_t flags)
{
        nft_begin(p->w, type, flags, p->table->family);
}

static void changed(Plan *p, const char *owner)
{
        ssize_t i = owner[0] ? nft_scope_find(p->scope, owner) : -1;

        if (i >= 0)
                p->scope->changed[i] = true;
}

/* Shall what is there of this owner be as the table says (or go)? Else it is none of this call's business. */
static bool in_scope(const NftScope *s, const char *owner)
{
        char key[NFT_OWNER_MAX] = "";

        if (!owner[0] || nft_scope_find(s, owner) >= 0)
                return true;
        if (!s->sweep)
                return false;
        memcpy(key, owner, strnlen(owner, sizeof(key) - 1));
        NftScope kept = {.ids = s->keep, .n = s->n_keep};
        return nft_scope_find(&kept, key) < 0;
}

static void put_comment(NlWriter *w, uint16_t type, const char *text)
{
        uint8_t data[2 + NFT_COMMENT_MAX] = {};
        size_t n = strnlen(text, NFT_COMMENT_MAX - 1) + 1;

        data[1] = (uint8_t) n;
        memcpy(data + 2, text, n);
        nlw_put(w, type, data, 2 + n);
}

static void make_table(Plan *p)
{
        begin(p, NFT_MSG_NEWTABLE, NLM_F_CREATE);
        nlw_put_string(p->w, NFTA_TABLE_NAME, p->table->name);
        nlw_end(p->w);
}

static void drop_table(Plan *p)
{
        begin(p, NFT_MSG_DELTABLE, 0);
        nlw_put_string(p->w, NFTA_TABLE_NAME, p->table->name);
        nlw_end(p->w);
}

/* How libnftnl notes the byte order of a set's keys (0) and values (1) for nft(8): type, length, 1 for the host's. */
static void put_byte_order(NlWriter *w, const NftSet *s)
{
        static const uint32_t host_order = 1;
        uint8_t data[12];
        size_t n = 0;

        for (uint8_t what = 0; what < 2; what++) {
                uint32_t type = what == 0 ? s->key_type : s->data_type;
                if (type != NFT_TYPE_MARK && type != NFT_TYPE_IFINDEX && type != NFT_TYPE_IFNAME)
                        continue;
                data[n] = what;
                data[n + 1] = sizeof(host_order);
                memcpy(data + n + 2, &host_order, sizeof(host_order));
                n += 2 + sizeof(host_order);
        }
        if (n > 0)
                nlw_put(w, NFTA_SET_USERDATA, data, n);
}

static void make_set(Plan *p, size_t i)
{
        const NftSet *s = p->table->sets + i;
        uint32_t flags = s->data_type ? NFT_SET_MAP : 0;

        begin(p, NFT_MSG_NEWSET, NLM_F_CREATE);
        nlw_put_string(p->w, NFTA_SET_TABLE, p->table->name);
        nlw_put_string(p->w, NFTA_SET_NAME, s->name);
        nft_put_be32(p->w, NFTA_SET_FLAGS, flags);
        nft_put_be32(p->w, NFTA_SET_KEY_TYPE, s->key_type);
        nft_put_be32(p->w, NFTA_SET_KEY_LEN, s->key_size);
        if (s->data_type) {
                nft_put_be32(p->w, NFTA_SET_DATA_TYPE, s->data_type);
                nft_put_be32(p->w, NFTA_SET_DATA_LEN, s->data_size);
        }
        nft_put_be32(p->w, NFTA_SET_ID, (uint32_t) i + 1);
        put_byte_order(p->w, s);
        nlw_end(p->w);
}

static void make_chain(Plan *p, const NftChain *c)
{
        begin(p, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
        nlw_put_string(p->w, NFTA_CHAIN_TABLE, p->table->name);
        nlw_put_string(p->w, NFTA_CHAIN_NAME, c->name);
        if (c->type) {
                size_t hook = nlw_nest(p->w, NEST(NFTA_CHAIN_HOOK));
                nft_put_be32(p->w, NFTA_HOOK_HOOKNUM, c->hook);
                nft_put_be32(p->w, NFTA_HOOK_PRIORITY, (uint32_t) c->priority);
                nlw_nest_end(p->w, hook);
                nft_put_be32(p->w, NFTA_CHAIN_POLICY, NF_ACCEPT);
                nlw_put_string(p->w, NFTA_CHAIN_TYPE, c->type);
        }
        nlw_end(p->w);
}

/* Rules of a chain, all of them; the chain itself. */
static void drop_from_chain(Plan *p, const char *name, bool itself)
{
        begin(p, itself ? NFT_MSG_DELCHAIN : NFT_MSG_DELRULE, 0);
        nlw_put_string(p->w, itself ? NFTA_CHAIN_TABLE : NFTA_RULE_TABLE, p->table->name);
        nlw_put_string(p->w, itself ? NFTA_CHAIN_NAME : NFTA_RULE_CHAIN, name);
        nlw_end(p->w);
}

static void make_rules(Plan *p, const NftChain *c)
{
        for (size_t i = 0; i < c->n; i++) {
                const NftRule *r = p->table->rules + c->first + i;
                begin(p, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
                nlw_put_string(p->w, NFTA_RULE_TABLE, p->table->name);
                nlw_put_string(p->w, NFTA_RULE_CHAIN, c->name);
                nlw_put(p->w, NLA_F_NESTED | NFTA_RULE_EXPRESSIONS, p->table->expressions.data + r->at,
                        r->size);
                put_comment(p->w, NFTA_RULE_USERDATA, r->comment);
                nlw_end(p->w);
        }
}

/* Elements in as few messages as one may. */
typedef struct Elements {
        size_t list, n;
        uint32_t set;
        uint16_t type;
} Elements;

static void elements_end(Plan *p, Elements *e)
{
        if (e->n == 0)
                return;
        nlw_nest_end(p->w, e->list);
        nlw_end(p->w);
        e->n = 0;
}

static void put_element(Plan *p, Elements *list, uint16_t type, const NftElement *e)
{
        NlWriter *w = p->w;

        if (list->n > 0 && (list->set != e->set || list->n == ELEMENTS_PER_MESSAGE))
                elements_end(p, list);
        if (list->n == 0) {
                begin(p, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
                nlw_put_string(w, NFTA_SET_ELEM_LIST_TABLE, p->table->name);
                nlw_put_string(w, NFTA_SET_ELEM_LIST_SET, p->table->sets[e->set].name);
                list->list = nlw_nest(w, NEST(NFTA_SET_ELEM_LIST_ELEMENTS));
                list->set = e->set;
        }
        list->n++;
        size_t nest = nlw_nest(w, NEST(NFTA_LIST_ELEM));
        size_t key = nlw_nest(w, NEST(NFTA_SET_ELEM_KEY));
        nlw_put(w, NFTA_DATA_VALUE, e->key, e->key_size);
        nlw_nest_end(w, key);
        if (type == NFT_MSG_NEWSETELEM && p->table->sets[e->set].data_type) {
                size_t data = nlw_nest(w, NEST(NFTA_SET_ELEM_DATA));
                if (e->chain[0]) {
                        size_t verdict = nlw_nest(w, NEST(NFTA_DATA_VERDICT));
                        nft_put_be32(w, NFTA_VERDICT_CODE, (uint32_t) NFT_JUMP);
                        nlw_put_string(w, NFTA_VERDICT_CHAIN, e->chain);
                        nlw_nest_end(w, verdict);
                } else
                        nlw_put(w, NFTA_DATA_VALUE, e->data, e->data_size);
                nlw_nest_end(w, data);
        }
        if (type == NFT_MSG_NEWSETELEM && e->owner[0])
                put_comment(w, NFTA_SET_ELEM_USERDATA, e->owner);
        nlw_nest_end(w, nest);
}

static bool same_element(const NftElement *a, const NftElement *b)
{
        return a->key_size == b->key_size && tb_streq(a->owner, b->owner) && tb_streq(a->chain, b->chain) &&
                a->data_size == b->data_size && memcmp(a->data, b->data, sizeof(a->data)) == 0;
}

/* Both sides sorted: `gone` writes what is to be taken away, else what is to be added. */
static void plan_elements(Plan *p, const NftElement *want, size_t n_want, bool gone)
{
        const NftElement *have = p->seen->elements;
        size_t n_have = p->fresh ? 0 : p->seen->n_elements, i = 0, k = 0;
        Elements list = {};

        while (i < n_want || k < n_have) {
                int c = i == n_want ? 1 : k == n_have ? -1 : nft_element_compare(want + i, have + k);
                bool drop = false, add = c < 0;
                if (c == 0 && !same_element(want + i, have + k))
                        drop = add = true;
                else if (c > 0)
                        drop = in_scope(p->scope, have[k].owner);
                if (drop) {
                        changed(p, have[k].owner);
                        if (gone)
                                put_element(p, &list, NFT_MSG_DELSETELEM, have + k);
                }
                if (add) {
                        changed(p, want[i].owner);
                        if (!gone)
                                put_element(p, &list, NFT_MSG_NEWSETELEM, want + i);
                }
                i += c <= 0;
                k += c >= 0;
        }
        elements_end(p, &list);
}

bool nft_table_is_needed(const NftTable *t)
{
        bool needed = t->permanent;

        for (size_t i = 0; i < t->n_chains; i++)
                needed |= strchr(t->chains[i].name, '-') != NULL;
        for (size_t i = 0; i < t->n_elements; i++)
                needed |= t->elements[i].owner[0] != '\0';
        return needed;
}

/* Chains that are there and shall not be; is anything of a node left in the table afterwards? */
static int find_dropped(Plan *p, bool *ret_left, TbError **err)
{
        const NftSeen *s = p->seen;
        bool left = nft_table_is_needed(p->table);

        _cleanup_free_ const char **names = sorted_names(p->table);
        p->dropped = calloc(s->n_chains + 1, sizeof(*p->dropped));
        if (!p->dropped || !names)
                return tb_error_oom(err);
        for (size_t i = 0; i < s->n_chains; i++) {
                char owner[NFT_OWNER_MAX];
                const char *name = s->chains[i].name;
                nft_chain_owner(name, owner);
                if (!in_scope(p->scope, owner))
                        left = true;
                else if (p->table->n_chains == 0 ||
                        !bsearch(&name, names, p->table->n_chains, sizeof(*names), compare_names)) {
                        memcpy(p->dropped[p->n_dropped++], s->chains[i].name, NFT_NAME_MAX);
                        changed(p, owner);
                        p->scope->removed += owner[0] && nft_scope_find(p->scope, owner) < 0;
                }
        }
        for (size_t i = 0; i < s->n_elements; i++)
                left |= s->elements[i].owner[0] && !in_scope(p->scope, s->elements[i].owner);
        *ret_left = left;
        return 0;
}

/* Wanted elements in order, each key once. */
static NftElement *sorted_elements(const NftTable *t, size_t *ret_n)
{
        NftElement *v = calloc(t->n_elements + 1, sizeof(*v));
        size_t n = 0;

        if (!v)
                return NULL;
        if (t->n_elements > 0)
                memcpy(v, t->elements, t->n_elements * sizeof(*v));
        qsort(v, t->n_elements, sizeof(*v), nft_element_compare);
        for (size_t i = 0; i < t->n_elements; i++)
                if (n == 0 || nft_element_compare(v + n - 1, v + i) != 0)
                        v[n++] = v[i];
        *ret_n = n;
        return v;
}

static void plan_content(Plan *p, const NftElement *elements, size_t n_elements)
{
        const NftTable *t = p->table;
        _cleanup_free_ bool *rules = calloc(t->n_chains + 1, sizeof(bool));

        if (!rules) {
                p->w->error = -ENOMEM;
                return;
        }
        for (size_t i = 0; i < t->n_sets; i++)
                if (p->fresh || !p->seen->has_set[i])
                        make_set(p, i);
        for (size_t i = 0; i < t->n_chains; i++) {
                const NftChain *c = t->chains + i;
                const NftSeenChain *seen = p->fresh ? NULL : nft_seen_chain(p->seen, c->name);
                char owner[NFT_OWNER_MAX];
                if (seen && nft_chain_is_as(t, c, p->seen, seen))
                        continue;
                nft_chain_owner(c->name, owner);
                changed(p, owner);
                rules[i] = true;
                bool misplaced = seen &&
                        (seen->base != (c->type != NULL) ||
                                (seen->base && (seen->hook != c->hook || seen->priority != c->priority)));
                if (seen)
                        drop_from_chain(p, c->name, false);
                if (misplaced)
                        drop_from_chain(p, c->name, true);
                if (!seen || misplaced)
                        make_chain(p, c);
        }
        plan_elements(p, elements, n_elements, true);
        for (size_t i = 0; i < p->n_dropped && !p->fresh; i++)
                drop_from_chain(p, p->dropped[i], false);
        for (size_t i = 0; i < p->n_dropped && !p->fresh; i++)
                drop_from_chain(p, p->dropped[i], true);
        for (size_t i = 0; i < t->n_chains; i++)
                if (rules[i])
                        make_rules(p, t->chains + i);
        plan_elements(p, elements, n_elements, false);
}

static int plan_table(const NftTable *t, const NftSeen *seen, NftScope *scope, NlWriter *w, TbError **err)
{
        _cleanup_(plan_done) Plan p = {.table = t,
                .seen = seen,
                .scope = scope,
                .w = w,
                .fresh = !seen->present || seen->wrong_sets};
        size_t n = 0;
        bool left = false;

        int r = find_dropped(&p, &left, err);
        if (r < 0)
                return r;
        if (!left) {
                if (seen->present)
                        drop_table(&p);
                return 0;
        }
        _cleanup_free_ NftElement *elements = sorted_elements(t, &n);
        if (!elements)
                return tb_error_oom(err);
        if (seen->present && p.fresh)
                drop_table(&p);
        if (p.fresh)
                make_table(&p);
        plan_content(&p, elements, n);
        return 0;
}

static int sync_once(Nft *nft, const NftTable *const *tables, size_t n_tables, NftScope *scope,
        unsigned long *commits, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        uint32_t generation;

        int r = nft_generation(nft, &generation, err);
        if (r < 0)
                return r;
        memset(scope->changed, 0, scope->n * sizeof(bool));
        scope->removed = 0;
        for (size_t i = 0; i < n_tables; i++) {
                _cleanup_nft_seen_ NftSeen seen = {};
                r = nft_see(nft, tables[i], scope, &seen, err);
                if (r >= 0)
                        r = plan_table(tables[i], &seen, scope, &w, err);
                if (r < 0)
                        return r;
        }
        r = nft_commit(nft, generation, &w, err);
        if (r >= 0 && w.n_messages > 0)
                (*commits)++;
        return r;
}

int nft_sync(Nft *nft, const NftTable *const *tables, size_t n_tables, NftScope *scope,
        unsigned long *commits, TbError **err)
{
        for (size_t i = 0; i < n_tables; i++)
                if (tables[i]->error == -ENOMEM)
                        return tb_error_oom(err);
                else if (tables[i]->error < 0)
                        return tb_error_set_errno(err, TB_ERROR_BUG, tables[i]->error,
                                "cannot encode the rules of table %s", tables[i]->name);
        for (int try = 1;; try++) {
                _cleanup_error_ TbError *e = NULL;
                int r = sync_once(nft, tables, n_tables, scope, commits, &e);
                if (r >= 0)
                        return 0;
                if (r != -EINTR && r != -ERESTART)
                        return tb_error_move(err, &e);
                if (try == NFT_SYNC_TRIES) {
                        (void) tb_error_set(err, TB_ERROR_SYSTEM, -EAGAIN,
                                "nf_tables changed under every one of %d attempts to write it", try);
                        tb_error_set_retryable(err);
                        return -EAGAIN;
                }
        }
}

bool nft_owner_is_as(const NftTable *t, const NftSeen *s, const char *owner)
{
        char name[NFT_OWNER_MAX];
        size_t n = 0;

        if (!s->present || s->wrong_sets)
                return false;
        for (size_t i = 0; i < t->n_chains; i++) {
                nft_chain_owner(t->chains[i].name, name);
                if (tb_streq(name, owner) &&
                        !nft_chain_is_as(t, t->chains + i, s, nft_seen_chain(s, t->chains[i].name)))
                        return false;
        }
        for (size_t i = 0; i < s->n_chains; i++) {
                nft_chain_owner(s->chains[i].name, name);
                if (tb_streq(name, owner) && !has_chain(t, s->chains[i].name))
                        return false;
        }
        for (size_t i = 0; i < t->n_elements; i++) {
                if (!tb_streq(t->elements[i].owner, owner))
                        continue;
                const NftElement *e = s->n_elements == 0
                        ? NULL
                        : bsearch(t->elements + i, s->elements, s->n_elements, sizeof(*s->elements),
                                  nft_element_compare);
                if (!e || !same_element(t->elements + i, e))
                        return false;
                n++;
        }
        for (size_t i = 0; i < s->n_elements; i++)
                n -= tb_streq(s->elements[i].owner, owner);
        return n == 0;
}
