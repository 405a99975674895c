/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Before anything that includes linux/if.h: the other way round they clash. */
#include <net/if.h>

#include <libiptc/libip6tc.h>
#include <libiptc/libiptc.h>

#include "netctl/fw-model.h"

/*
 * Rules in the kernel's own form (struct ipt_entry or ip6t_entry, matches, target: linux/netfilter_ipv4/ip_tables.h and
 * ..._ipv6/ip6_tables.h), in the way libiptc takes them: a standard target whose name is the verdict or the chain. And
 * libiptc's functions for both families as one table of functions.
 */

typedef struct XtFamily {
        sa_family_t family;
        const char *names_path; /* which tables exist: one name per line */
        const char *bridge_nf;  /* the setting that hands it bridged packets */
        size_t entry_size;
        struct xtc_handle *(*init)(const char *table);
        void (*free)(struct xtc_handle *h);
        int (*commit)(struct xtc_handle *h);
        const char *(*strerror)(int code);
        const char *(*first_chain)(struct xtc_handle *h);
        const char *(*next_chain)(struct xtc_handle *h);
        int (*is_chain)(const char *chain, struct xtc_handle *h);
        int (*create_chain)(const char *chain, struct xtc_handle *h);
        int (*flush_chain)(const char *chain, struct xtc_handle *h);
        int (*delete_chain)(const char *chain, struct xtc_handle *h);
        const char *(*get_policy)(const char *chain, struct xt_counters *ret, struct xtc_handle *h);
        int (*set_policy)(
                const char *chain, const char *policy, struct xt_counters *c, struct xtc_handle *h);
        const void *(*first_rule)(const char *chain, struct xtc_handle *h);
        const void *(*next_rule)(const void *e, struct xtc_handle *h);
        const char *(*get_target)(const void *e, struct xtc_handle *h);
        int (*append)(const char *chain, const void *e, struct xtc_handle *h);
        int (*insert)(const char *chain, const void *e, unsigned position, struct xtc_handle *h);
        int (*delete_num)(const char *chain, unsigned position, struct xtc_handle *h);
} XtFamily;

extern const XtFamily xt_ipv4, xt_ipv6;

typedef struct Rule {
        uint8_t *data; /* the entry, aligned */
        size_t size;
        const char *target; /* inside data */
} Rule;

typedef struct Rules {
        Rule *v;
        size_t n, allocated;
        int error; /* sticky -ENOMEM */
} Rules;
void rules_done(Rules *r);

#define RULE_SIZE_MAX 1024

/* A rule under construction: draft_begin(), matches, then draft_end_*(), which appends it. */
typedef struct Draft {
        const XtFamily *family;
        size_t size;
        /* entry, matches, target; last, because entries end in an array of what follows them */
        union {
                struct ipt_entry v4;
                struct ip6t_entry v6;
                uint8_t bytes[RULE_SIZE_MAX];
        };
} Draft;

void draft_begin(Draft *d, const XtFamily *family);
void draft_source(Draft *d, const FwNetwork *n, bool invert);
void draft_destination(Draft *d, const FwNetwork *n);
/* (address & mask) == value, any mask. */
void draft_source_masked(Draft *d, const uint8_t *value, const uint8_t *mask);
void draft_destination_masked(Draft *d, const uint8_t *value, const uint8_t *mask);
void draft_not_destination(Draft *d, const FwNetwork *n);
void draft_protocol(Draft *d, uint8_t protocol);
/* Interface names, as iptables writes them: whole ones, or (`prefix`) what they begin with. */
void draft_in(Draft *d, const char *name, bool prefix);
void draft_out(Draft *d, const char *name, bool prefix);
/* Bridge ports. For draft_physdev_out() the packet must be bridged, because the port is known for no other one. */
void draft_physdev_in(Draft *d, const char *name, bool prefix);
void draft_physdev_out(Draft *d, const char *name, bool prefix);
void draft_physdev_is_in(Draft *d);
void draft_not_bridged(Draft *d);
void draft_not_mac(Draft *d, const uint8_t mac[static 6]);
void draft_ports(Draft *d, uint8_t protocol, FwPorts source, FwPorts destination);
void draft_echo(Draft *d);
void draft_states(Draft *d, uint8_t states);
void draft_mark(Draft *d, uint32_t value, uint32_t mask, bool invert);
void draft_to_host(Draft *d); /* destination type LOCAL */
void draft_limit(Draft *d);

/* ACCEPT, DROP, RETURN, or a chain. */
void draft_end(Draft *d, const char *target, Rules *r);
void draft_end_goto(Draft *d, const char *chain, Rules *r);
void draft_end_log(Draft *d, const char *prefix, Rules *r);
void draft_end_mark(Draft *d, uint32_t value, uint32_t mask, Rules *r);
void draft_end_dnat(Draft *d, struct in_addr to, uint16_t port, Rules *r);
void draft_end_masquerade(Draft *d, Rules *r);

/* What a neutral rule says; neither target nor log. Only for rules of this family or of both. */
void draft_rule(Draft *d, const FwRule *rule);
/* The reverse: the neutral rule of a kernel's entry; false when it has something that no neutral rule has. Direction and
 * origin are not set. */
bool xt_rule_decode(const XtFamily *family, const void *entry, const char *target, FwRule *ret);

/* Same packets, same verdict (counters aside)? `target` is get_target() of `entry`. */
bool rule_equal(const XtFamily *family, const Rule *a, const void *entry, const char *target);
const struct xt_counters *xt_entry_counters(const XtFamily *family, const void *entry);

/* What dispatch rules (fw-tree.h) look for, read back. A name is "" when the entry asks for none. */
typedef struct XtKeys {
        uint8_t source[16], destination[16];
        char in[IFNAMSIZ], out[IFNAMSIZ];
        bool physdev; /* the names are of bridge ports */
        uint16_t port;
} XtKeys;
void xt_entry_keys(const XtFamily *family, const void *entry, XtKeys *ret);
