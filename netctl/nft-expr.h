/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Before anything that includes linux/if.h: the other way round they clash. */
#include <net/if.h>
#include <netinet/in.h>

#include <linux/netfilter/nf_tables.h>

#include "netctl/nlmsg.h"

/*
 * Expressions of nf_tables rules, appended to a writer that holds nothing but expressions. In the sequences that nft(8) makes
 * itself, so that it can print them. Registers: NFT_REG_1 (16 bytes) for one value; NFT_REG32_00 and up (4 bytes each) where
 * values stand side by side as the key of a map.
 */

void nfe_meta(NlWriter *w, uint32_t key, uint32_t reg);
void nfe_meta_set(NlWriter *w, uint32_t key, uint32_t reg);
/* base: NFT_PAYLOAD_LL_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER. */
void nfe_payload(NlWriter *w, uint32_t base, uint32_t offset, uint32_t size, uint32_t reg);
void nfe_cmp(NlWriter *w, uint32_t op, uint32_t reg, const void *data, size_t size);
/* reg = (reg & mask) ^ xor */
void nfe_bitwise(NlWriter *w, uint32_t reg, size_t size, const void *mask, const void * xor);
void nfe_ct_state(NlWriter *w, uint32_t reg);
/* Goes on if the key is in the set (not in it, `inverted`). */
void nfe_lookup(NlWriter *w, const char *set, uint32_t reg, bool inverted);
/* Goes on if the key is in the map, with its value in `to`; NFT_REG_VERDICT: does what the map says. */
void nfe_map(NlWriter *w, const char *map, uint32_t reg, uint32_t to);
void nfe_immediate(NlWriter *w, uint32_t reg, const void *data, size_t size);
/* NF_ACCEPT, NF_DROP, NFT_RETURN; NFT_JUMP and NFT_GOTO with a chain. */
void nfe_verdict(NlWriter *w, int code, const char *chain);
void nfe_counter(NlWriter *w);
/* Goes on at most so often. */
void nfe_limit(NlWriter *w, uint64_t per_minute, uint32_t burst);
void nfe_log(NlWriter *w, const char *prefix);
/* DNAT of IPv4 to the address and port in these registers. */
void nfe_dnat(NlWriter *w, uint32_t address, uint32_t port);
void nfe_masquerade(NlWriter *w);
/* Loads the type (RTN_*) of the destination address. */
void nfe_destination_type(NlWriter *w, uint32_t reg);

/* Common beginnings. */
void nfe_meta_u8(NlWriter *w, uint32_t key, uint8_t value); /* meta KEY == value */
void nfe_ether_type(NlWriter *w, uint16_t type); /* ether type == type, as it stands in the frame */
void nfe_port(NlWriter *w, uint32_t offset, uint16_t first,
        uint16_t last); /* transport header, 0 source, 2 destination */
