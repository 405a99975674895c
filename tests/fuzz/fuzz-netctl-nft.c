/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Before anything of linux/: the other way round they clash. */
#include <netinet/in.h>

#include <linux/netfilter.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/nft-table.h"
#include "netctl/nft-watch.h"
#include "tests/fuzz/fuzz.h"

/* A datagram of nf_tables: to who looks at a table, and to who watches for changes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_nft_table_ NftTable t = {};
        _cleanup_nft_seen_ NftSeen s = {};
        bool touched = false;
        const struct nlmsghdr *h;
        size_t rules = 0;

        if (size == 0 || size > UINT16_MAX)
                return 0;
        _cleanup_free_ uint8_t *copy = malloc(size);
        if (!copy)
                return 0;
        memcpy(copy, data, size);
        nft_table_init(&t, NFPROTO_INET, "tbnode");
        nft_add_set(&t, "ports", NFT_TYPE_IFINDEX, 4, NFT_DATA_VERDICT, 0);
        nft_add_set(&t, "group", NFT_TYPE_IFINDEX, 4, NFT_TYPE_MARK, 4);
        nft_add_base_chain(&t, "forward", "filter", NF_INET_FORWARD, 0);
        for (NlIter i = nl_iter(copy, size); (h = nl_next_message(&i));) {
                (void) nft_watch_take(&touched, h);
                if (nft_seen_take(&s, &t, size % 2, h) < 0)
                        return 0;
                nft_seen_sort(&s);
        }
        s.present = true;
        for (size_t i = 0; i < s.n_chains; i++) {
                char owner[NFT_OWNER_MAX];
                fuzz_assert(s.chains[i].first + s.chains[i].n <= s.n_rules);
                fuzz_assert(memchr(s.chains[i].name, '\0', NFT_NAME_MAX));
                rules += s.chains[i].n;
                nft_chain_owner(s.chains[i].name, owner);
                (void) nft_owner_is_as(&t, &s, owner);
        }
        fuzz_assert(rules == s.n_rules);
        for (size_t i = 0; i < s.n_elements; i++)
                fuzz_assert(
                        s.elements[i].key_size <= NFT_KEY_MAX && s.elements[i].data_size <= NFT_DATA_MAX);
        (void) nft_owner_is_as(&t, &s, "");
        return 0;
}
