/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guard and the kernel. */

#include <stdio.h>

#include "common/cleanup.h"
#include "netctl/fw-guard.h"

int fw_guard_scope(
        const FwNode *nodes, size_t n, bool sweep, char *const *keep, NftScope *ret, TbError **err)
{
        _cleanup_nft_scope_ NftScope scope = {};

        int r = nft_scope_init(&scope, n, err);
        if (r >= 0 && sweep)
                r = nft_scope_keep(&scope, keep, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++)
                (void) snprintf(scope.ids[i], sizeof(scope.ids[i]), "%s", nodes[i].id);
        nft_scope_sort(&scope);
        *ret = scope;
        scope = (NftScope){};
        return 0;
}

void fw_guard_note(const FwNode *nodes, size_t n, const NftScope *scope, FwOutcome *ret)
{
        for (size_t i = 0; i < n; i++) {
                ssize_t k = nft_scope_find(scope, nodes[i].id);
                if (ret->changed && k >= 0)
                        ret->changed[i] |= scope->changed[k];
                if (ret->present)
                        ret->present[i] = nodes[i].style != FW_NONE;
        }
}

void fw_guard_seen_done(FwGuardSeen *s)
{
        for (size_t i = 0; i < FW_GUARD_TABLES; i++)
                nft_seen_done(s->v + i);
}

int fw_guard_see(Nft *nft, const NftTable *const tables[static FW_GUARD_TABLES], const NftScope *scope,
        FwGuardSeen *ret, TbError **err)
{
        _cleanup_fw_guard_seen_ FwGuardSeen seen = {};

        for (size_t i = 0; i < FW_GUARD_TABLES; i++) {
                int r = nft_see_again(nft, tables[i], scope, seen.v + i, err);
                if (r < 0)
                        return r;
        }
        *ret = seen;
        seen = (FwGuardSeen){};
        return 0;
}

bool fw_guard_is_as(
        const NftTable *const tables[static FW_GUARD_TABLES], const FwGuardSeen *seen, const char *owner)
{
        for (size_t i = 0; i < FW_GUARD_TABLES; i++)
                /* A table that holds nothing is not made. */
                if ((seen->v[i].present || nft_table_is_needed(tables[i])) &&
                        !nft_owner_is_as(tables[i], seen->v + i, owner))
                        return false;
        return true;
}

bool fw_guard_read(const FwGuardSeen *seen, const char *id, FwCounters *counters)
{
        static const char *const suffixes[] = {"drop", "apart"};
        uint64_t *const sums[] = {&counters->dropped_identity, &counters->dropped_isolation};
        bool present = false;

        for (size_t i = 0; i < ELEMENTSOF(suffixes) * FW_GUARD_TABLES; i++) {
                const NftSeen *table = seen->v + i / ELEMENTSOF(suffixes);
                const size_t what = i % ELEMENTSOF(suffixes);
                char name[NFT_NAME_MAX];
                fw_guard_chain(id, suffixes[what], name);
                const NftSeenChain *c = nft_seen_chain(table, name);
                if (!c)
                        continue;
                present = true;
                for (size_t k = 0; k < c->n; k++)
                        *sums[what] += table->rules[c->first + k].packets;
        }
        return present;
}

int fw_guard_read_nodes(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err)
{
        _cleanup_nft_table_ NftTable bridge = {}, inet = {}, arp = {};
        const NftTable *const tables[] = {&bridge, &inet, &arp};
        _cleanup_fw_guard_seen_ FwGuardSeen seen = {};
        _cleanup_nft_scope_ NftScope scope = {};
        _cleanup_nft_ Nft *nft = NULL;

        int r = nft_open(&nft, err);
        if (r <= 0)
                return r;
        r = fw_guard_scope(nodes, n, false, NULL, &scope, err);
        if (r < 0)
                return r;
        fw_guard_build(site ? site->guard : NULL, nodes, n, &bridge, &inet, &arp);
        r = fw_guard_see(nft, tables, &scope, &seen, err);
        bool base = r >= 0 && fw_guard_is_as(tables, &seen, "");
        for (size_t i = 0; i < n && r >= 0; i++) {
                char owner[NFT_OWNER_MAX];
                (void) snprintf(owner, sizeof(owner), "%s", nodes[i].id);
                (void) fw_guard_read(&seen, nodes[i].id, &ret[i].counters);
                if (ret[i].intact && !(base && fw_guard_is_as(tables, &seen, owner))) {
                        ret[i].intact = false;
                        ret[i].style = _FW_STYLE_INVALID;
                }
        }
        return r;
}

int fw_guard_apply(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
        FwOutcome *ret, TbError **err)
{
        _cleanup_nft_table_ NftTable bridge = {}, inet = {}, arp = {};
        _cleanup_nft_scope_ NftScope scope = {};
        _cleanup_nft_ Nft *nft = NULL;

        int r = nft_open(&nft, err);
        if (r <= 0)
                return r;
        r = fw_guard_scope(nodes, n, sweep, keep, &scope, err);
        if (r < 0)
                return r;
        fw_guard_build(site ? site->guard : NULL, nodes, n, &bridge, &inet, &arp);
        const NftTable *all[] = {&bridge, &inet, &arp};
        r = nft_sync(nft, all, ELEMENTSOF(all), &scope, &ret->commits, err);
        if (r < 0)
                return r;
        ret->removed += scope.removed;
        for (size_t i = 0; i < n; i++) {
                ssize_t k = nft_scope_find(&scope, nodes[i].id);
                if (ret->changed && k >= 0)
                        ret->changed[i] |= scope.changed[k];
        }
        return 0;
}
