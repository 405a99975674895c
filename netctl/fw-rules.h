/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Before anything that includes linux/if.h: the other way round they clash. */
#include <net/if.h>

#include <libiptc/libiptc.h>

#include "netctl/fw-backend.h"

/*
 * Rules of a node in the kernel's own form (struct ipt_entry + matches + target, linux/netfilter_ipv4/ip_tables.h), in
 * the way libiptc takes them: a standard target whose name is the verdict or the chain.
 */

typedef struct Rule {
        uint8_t *data; /* struct ipt_entry, aligned */
        size_t size;
        const char *target; /* inside data */
} Rule;

typedef struct Rules {
        Rule *v;
        size_t n, allocated;
        int error; /* sticky -ENOMEM */
} Rules;
void rules_done(Rules *r);

/* What a node needs in each place. */
typedef struct NodeRules {
        char in_chain[XT_FUNCTION_MAXNAMELEN], out_chain[XT_FUNCTION_MAXNAMELEN];
        Rules in, out;
        Rules forward, input; /* dispatch rules, all with in_chain or out_chain as target */
        bool has_in, has_out;
        bool bridged; /* works only with bridge-nf-call-iptables */
} NodeRules;
void node_rules_done(NodeRules *r);

#define FW_CHAIN_FORWARD FW_CHAIN_PREFIX "FORWARD"
#define FW_CHAIN_INPUT FW_CHAIN_PREFIX "INPUT"

void fw_chain_names(
        const char *id, char in[static XT_FUNCTION_MAXNAMELEN], char out[static XT_FUNCTION_MAXNAMELEN]);
/* The short id of a node's chain; false for the base chains and for what is not ours. */
bool fw_chain_id(const char *chain, char ret[static FW_ID_LENGTH + 1]);

/* -ENOMEM only. */
int node_rules_compile(const FwSite *site, const FwNode *node, NodeRules *ret, TbError **err) _warn_unused_;

/* A rule that only jumps. */
void rules_add_jump(Rules *r, const char *target);

/* Same packets, same matches (counters aside)? `target` is iptc_get_target() of `e`. */
bool rule_equal(const Rule *a, const struct ipt_entry *e, const char *target);
