/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/nft-expr.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_nat.h>

#include "netctl/nft.h"

#define NEST(type) ((uint16_t) (NLA_F_NESTED | (type)))

typedef struct Open {
        size_t element, data;
} Open;

static Open begin(NlWriter *w, const char *name)
{
        Open o;

        o.element = nlw_nest(w, NEST(NFTA_LIST_ELEM));
        nlw_put_string(w, NFTA_EXPR_NAME, name);
        o.data = nlw_nest(w, NEST(NFTA_EXPR_DATA));
        return o;
}

static void end(NlWriter *w, Open o)
{
        nlw_nest_end(w, o.data);
        nlw_nest_end(w, o.element);
}

static void put_value(NlWriter *w, uint16_t type, const void *data, size_t size)
{
        size_t nest = nlw_nest(w, NEST(type));

        nlw_put(w, NFTA_DATA_VALUE, data, size);
        nlw_nest_end(w, nest);
}

void nfe_meta(NlWriter *w, uint32_t key, uint32_t reg)
{
        Open o = begin(w, "meta");

        nft_put_be32(w, NFTA_META_KEY, key);
        nft_put_be32(w, NFTA_META_DREG, reg);
        end(w, o);
}

void nfe_meta_set(NlWriter *w, uint32_t key, uint32_t reg)
{
        Open o = begin(w, "meta");

        nft_put_be32(w, NFTA_META_KEY, key);
        nft_put_be32(w, NFTA_META_SREG, reg);
        end(w, o);
}

void nfe_payload(NlWriter *w, uint32_t base, uint32_t offset, uint32_t size, uint32_t reg)
{
        Open o = begin(w, "payload");

        nft_put_be32(w, NFTA_PAYLOAD_DREG, reg);
        nft_put_be32(w, NFTA_PAYLOAD_BASE, base);
        nft_put_be32(w, NFTA_PAYLOAD_OFFSET, offset);
        nft_put_be32(w, NFTA_PAYLOAD_LEN, size);
        end(w, o);
}

void nfe_cmp(NlWriter *w, uint32_t op, uint32_t reg, const void *data, size_t size)
{
        Open o = begin(w, "cmp");

        nft_put_be32(w, NFTA_CMP_SREG, reg);
        nft_put_be32(w, NFTA_CMP_OP, op);
        put_value(w, NFTA_CMP_DATA, data, size);
        end(w, o);
}

void nfe_bitwise(NlWriter *w, uint32_t reg, size_t size, const void *mask, const void * xor)
{
        Open o = begin(w, "bitwise");

        nft_put_be32(w, NFTA_BITWISE_SREG, reg);
        nft_put_be32(w, NFTA_BITWISE_DREG, reg);
        nft_put_be32(w, NFTA_BITWISE_LEN, (uint32_t) size);
        put_value(w, NFTA_BITWISE_MASK, mask, size);
        put_value(w, NFTA_BITWISE_XOR, xor, size);
        end(w, o);
}

void nfe_ct_state(NlWriter *w, uint32_t reg)
{
        Open o = begin(w, "ct");

        nft_put_be32(w, NFTA_CT_KEY, NFT_CT_STATE);
        nft_put_be32(w, NFTA_CT_DREG, reg);
        end(w, o);
}

void nfe_lookup(NlWriter *w, const char *set, uint32_t reg, bool inverted)
{
        Open o = begin(w, "lookup");

        nlw_put_string(w, NFTA_LOOKUP_SET, set);
        nft_put_be32(w, NFTA_LOOKUP_SREG, reg);
        if (inverted)
                nft_put_be32(w, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
        end(w, o);
}

void nfe_map(NlWriter *w, const char *map, uint32_t reg, uint32_t to)
{
        Open o = begin(w, "lookup");

        nlw_put_string(w, NFTA_LOOKUP_SET, map);
        nft_put_be32(w, NFTA_LOOKUP_SREG, reg);
        nft_put_be32(w, NFTA_LOOKUP_DREG, to);
        end(w, o);
}

void nfe_immediate(NlWriter *w, uint32_t reg, const void *data, size_t size)
{
        Open o = begin(w, "immediate");

        nft_put_be32(w, NFTA_IMMEDIATE_DREG, reg);
        put_value(w, NFTA_IMMEDIATE_DATA, data, size);
        end(w, o);
}

void nfe_verdict(NlWriter *w, int code, const char *chain)
{
        Open o = begin(w, "immediate");

        nft_put_be32(w, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        size_t data = nlw_nest(w, NEST(NFTA_IMMEDIATE_DATA));
        size_t verdict = nlw_nest(w, NEST(NFTA_DATA_VERDICT));
        nft_put_be32(w, NFTA_VERDICT_CODE, (uint32_t) code);
        if (chain)
                nlw_put_string(w, NFTA_VERDICT_CHAIN, chain);
        nlw_nest_end(w, verdict);
        nlw_nest_end(w, data);
        end(w, o);
}

void nfe_counter(NlWriter *w)
{
        Open o = begin(w, "counter");

        nft_put_be64(w, NFTA_COUNTER_BYTES, 0);
        nft_put_be64(w, NFTA_COUNTER_PACKETS, 0);
        end(w, o);
}

void nfe_limit(NlWriter *w, uint64_t per_minute, uint32_t burst)
{
        Open o = begin(w, "limit");

        nft_put_be64(w, NFTA_LIMIT_RATE, per_minute);
        nft_put_be64(w, NFTA_LIMIT_UNIT, 60);
        nft_put_be32(w, NFTA_LIMIT_BURST, burst);
        nft_put_be32(w, NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
        nft_put_be32(w, NFTA_LIMIT_FLAGS, 0);
        end(w, o);
}

void nfe_log(NlWriter *w, const char *prefix)
{
        Open o = begin(w, "log");

        nlw_put_string(w, NFTA_LOG_PREFIX, prefix);
        nft_put_be32(w, NFTA_LOG_LEVEL, NFT_LOGLEVEL_NOTICE);
        end(w, o);
}

void nfe_dnat(NlWriter *w, uint32_t address, uint32_t port)
{
        Open o = begin(w, "nat");

        nft_put_be32(w, NFTA_NAT_TYPE, NFT_NAT_DNAT);
        nft_put_be32(w, NFTA_NAT_FAMILY, NFPROTO_IPV4);
        nft_put_be32(w, NFTA_NAT_REG_ADDR_MIN, address);
        nft_put_be32(w, NFTA_NAT_REG_PROTO_MIN, port);
        end(w, o);
}

void nfe_masquerade(NlWriter *w)
{
        end(w, begin(w, "masq"));
}

void nfe_destination_type(NlWriter *w, uint32_t reg)
{
        Open o = begin(w, "fib");

        nft_put_be32(w, NFTA_FIB_DREG, reg);
        nft_put_be32(w, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        nft_put_be32(w, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        end(w, o);
}

void nfe_meta_u8(NlWriter *w, uint32_t key, uint8_t value)
{
        nfe_meta(w, key, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &value, sizeof(value));
}

void nfe_ether_type(NlWriter *w, uint16_t type)
{
        uint16_t be = htons(type);

        nfe_payload(w, NFT_PAYLOAD_LL_HEADER, 12, sizeof(be), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &be, sizeof(be));
}

void nfe_port(NlWriter *w, uint32_t offset, uint16_t first, uint16_t last)
{
        uint16_t low = htons(first), high = htons(last);

        nfe_payload(w, NFT_PAYLOAD_TRANSPORT_HEADER, offset, sizeof(low), NFT_REG_1);
        if (first == last) {
                nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &low, sizeof(low));
                return;
        }
        nfe_cmp(w, NFT_CMP_GTE, NFT_REG_1, &low, sizeof(low));
        nfe_cmp(w, NFT_CMP_LTE, NFT_REG_1, &high, sizeof(high));
}
