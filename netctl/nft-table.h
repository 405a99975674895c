/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/nft-expr.h"
#include "netctl/nft.h"

/*
 * A table of ours as it shall be, and the way there from what the kernel has.
 *
 * The kernel is the only memory. Everything that belongs to a node carries its id: a chain in its name (`n<id>-out`: nft(8) reads no name that begins with a digit), an element
 * of a set or map in its comment. What has none (base chains, sets) belongs to the table. Each rule's comment ends in a digest of
 * its expressions: so whether a chain is as it should be is seen by comparing comments, in order, and nft(8) shows them.
 *
 * nft_sync() looks at the kernel, and writes the difference in one transaction for all tables, on the condition that nobody
 * has written in between: else it looks again. It compares and changes only what belongs to the tables and to the nodes that
 * it was given; what of other nodes is there stays, and is not even read when the call is for few.
 */

#define NFT_OWNER_MAX 13 /* FW_ID_LENGTH and the end */
#define NFT_NAME_MAX 32
#define NFT_KEY_MAX 40
#define NFT_DATA_MAX 16
#define NFT_COMMENT_MAX 112
#define NFT_SYNC_TRIES 64 /* somebody else is writing all the time: each try is a few milliseconds */

/* Types of keys as nft(8) numbers them (datatype.h), for its listings; side by side: 6 bits each. */
#define NFT_TYPE_IPV4 7U
#define NFT_TYPE_IPV6 8U
#define NFT_TYPE_ETHER 9U
#define NFT_TYPE_PORT 13U
#define NFT_TYPE_MARK 19U
#define NFT_TYPE_IFINDEX 20U
#define NFT_TYPE_IFNAME 41U
#define NFT_TYPE_PAIR(a, b) ((a) << 6 | (b))
#define NFT_TYPE_TRIPLE(a, b, c) ((a) << 12 | (b) << 6 | (c))

typedef struct NftRule {
        size_t at, size; /* in NftTable.expressions */
        char comment[NFT_COMMENT_MAX];
} NftRule;

typedef struct NftChain {
        char name[NFT_NAME_MAX];
        const char *type; /* of a base chain: "filter", "nat"; else NULL */
        uint32_t hook;
        int32_t priority;
        size_t first, n; /* rules */
} NftChain;

typedef struct NftSet {
        const char *name;
        uint32_t key_type, key_size;
        uint32_t data_type, data_size; /* of a map; NFT_DATA_VERDICT, 0: verdicts; 0, 0: a set */
} NftSet;

typedef struct NftElement {
        uint32_t set; /* index */
        uint32_t key_size, data_size;
        uint8_t key[NFT_KEY_MAX], data[NFT_DATA_MAX];
        char chain[NFT_NAME_MAX];  /* a verdict: jump there */
        char owner[NFT_OWNER_MAX]; /* "": the table's own */
} NftElement;

typedef struct NftTable {
        uint8_t family;
        const char *name;
        bool permanent; /* stays when it holds nothing of a node */
        NlWriter expressions;
        NftRule *rules;
        NftChain *chains;
        NftSet *sets;
        NftElement *elements;
        size_t n_rules, n_chains, n_sets, n_elements;
        size_t rules_allocated, chains_allocated, sets_allocated, elements_allocated;
        int error; /* sticky */
} NftTable;

/* Building. Errors are sticky: nft_sync() reports them. Names and types of sets are borrowed. */
void nft_table_init(NftTable *t, uint8_t family, const char *name);
void nft_table_done(NftTable *t);
#define _cleanup_nft_table_ _cleanup_(nft_table_done)
void nft_add_set(NftTable *t, const char *name, uint32_t key_type, uint32_t key_size, uint32_t data_type,
        uint32_t data_size);
void nft_add_base_chain(NftTable *t, const char *name, const char *type, uint32_t hook, int32_t priority);
void nft_add_chain(NftTable *t, const char *name);
/* A rule at the end of the chain added last: what is written between the two. */
NlWriter *nft_rule(NftTable *t);
void nft_rule_end(NftTable *t, const char *comment, ...) _printf_(2, 3);
/* `data` or `chain` for maps. A key that is there already (as two interfaces with one address would have) is not added. */
void nft_add_element(NftTable *t, const char *set, const char *owner, const void *key, size_t key_size,
        const void *data, size_t data_size, const char *chain);

/* Whose objects a call is about: sorted short ids. */
typedef struct NftScope {
        char (*ids)[NFT_OWNER_MAX];
        bool *changed; /* per id: something of it was written */
        size_t n;
        bool sweep; /* also everything of owners that are not in `keep` */
        char (*keep)[NFT_OWNER_MAX];
        size_t n_keep;
        unsigned long removed; /* chains of swept owners */
} NftScope;
int nft_scope_init(NftScope *s, size_t n, TbError **err)
        _warn_unused_; /* ids[] to be filled in by the caller */
int nft_scope_keep(NftScope *s, char *const *keep, TbError **err) _warn_unused_;
void nft_scope_sort(NftScope *s);
void nft_scope_done(NftScope *s);
#define _cleanup_nft_scope_ _cleanup_(nft_scope_done)
/* The index of an id, or -1. */
ssize_t nft_scope_find(const NftScope *s, const char *id);

/* All or nothing, for all tables; *commits is increased when something was written. */
int nft_sync(Nft *nft, const NftTable *const *tables, size_t n_tables, NftScope *scope,
        unsigned long *commits, TbError **err) _warn_unused_;

/* A rule as the kernel has it. */
typedef struct NftSeenRule {
        char comment[NFT_COMMENT_MAX];
        uint64_t packets, bytes;
} NftSeenRule;
typedef struct NftSeenChain {
        char name[NFT_NAME_MAX];
        bool base;
        uint32_t hook;
        int32_t priority;
        size_t first, n;
        bool read; /* its rules were read; else n is 0 */
} NftSeenChain;
/* The kernel's side of a table. */
typedef struct NftSeen {
        bool present, wrong_sets;
        NftSeenChain *chains; /* by name */
        NftSeenRule *rules;
        NftElement *elements; /* by set and key */
        bool *has_set;        /* per set of the table that was asked for */
        size_t n_chains, n_rules, n_elements;
        size_t chains_allocated, rules_allocated, elements_allocated;
} NftSeen;
void nft_seen_done(NftSeen *s);
#define _cleanup_nft_seen_ _cleanup_(nft_seen_done)
/* One message of the kernel into it: chains, then (sorted) their rules, the sets, and the elements of set number `set`. Negative only when
 * out of memory. */
int nft_seen_take(NftSeen *s, const NftTable *table, size_t set, const struct nlmsghdr *h) _warn_unused_;
/* Chains by name, elements by set and key, as those who search want them. */
void nft_seen_sort(NftSeen *s);
/* Reads what of `table` concerns the scope. */
int nft_see(Nft *nft, const NftTable *table, const NftScope *scope, NftSeen *ret, TbError **err)
        _warn_unused_;
/* 1: there is such a table. */
int nft_table_present(Nft *nft, const NftTable *table, TbError **err) _warn_unused_;
/* Until nobody writes meanwhile. */
int nft_see_again(Nft *nft, const NftTable *table, const NftScope *scope, NftSeen *ret, TbError **err)
        _warn_unused_;
const NftSeenChain *nft_seen_chain(const NftSeen *s, const char *name);
/* Is the chain there, with exactly these rules? */
bool nft_chain_is_as(const NftTable *t, const NftChain *want, const NftSeen *s, const NftSeenChain *seen);
/* Shall it be there? One that holds nothing of a node is not, unless it is permanent. */
bool nft_table_is_needed(const NftTable *t);
/* Is everything of this owner there as it should be, and nothing else? */
bool nft_owner_is_as(const NftTable *t, const NftSeen *s, const char *owner);
/* The owner in a chain's name; "" if there is none. */
void nft_chain_owner(const char *chain, char ret[static NFT_OWNER_MAX]);
int nft_element_compare(const void *a, const void *b);
