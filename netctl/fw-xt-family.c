/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libiptc for IPv4 and for IPv6 as one interface. Its functions want char arrays of a fixed size that they may read to the
 * end, hence the copies of names. */

#include <stdio.h>

#include "netctl/fw-xt.h"

#define LABEL(name, from)        \
        xt_chainlabel name = {}; \
        (void) snprintf(name, sizeof(name), "%s", from)

#define DEFINE_FAMILY(variable, p, entry, af, names, sysctl)                                              \
        static int variable##_create(const char *chain, struct xtc_handle *h)                             \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_create_chain(label, h);                                                        \
        }                                                                                                 \
        static int variable##_flush(const char *chain, struct xtc_handle *h)                              \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_flush_entries(label, h);                                                       \
        }                                                                                                 \
        static int variable##_delete(const char *chain, struct xtc_handle *h)                             \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_delete_chain(label, h);                                                        \
        }                                                                                                 \
        static int variable##_set_policy(                                                                 \
                const char *chain, const char *policy, struct xt_counters *c, struct xtc_handle *h)       \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                LABEL(verdict, policy);                                                                   \
                return p##_set_policy(label, verdict, c, h);                                              \
        }                                                                                                 \
        static const void *variable##_first_rule(const char *chain, struct xtc_handle *h)                 \
        {                                                                                                 \
                return p##_first_rule(chain, h);                                                          \
        }                                                                                                 \
        static const void *variable##_next_rule(const void *e, struct xtc_handle *h)                      \
        {                                                                                                 \
                return p##_next_rule((const entry *) e, h);                                               \
        }                                                                                                 \
        static const char *variable##_get_target(const void *e, struct xtc_handle *h)                     \
        {                                                                                                 \
                return p##_get_target((const entry *) e, h);                                              \
        }                                                                                                 \
        static int variable##_append(const char *chain, const void *e, struct xtc_handle *h)              \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_append_entry(label, (const entry *) e, h);                                     \
        }                                                                                                 \
        static int variable##_insert(const char *chain, const void *e, unsigned at, struct xtc_handle *h) \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_insert_entry(label, (const entry *) e, at, h);                                 \
        }                                                                                                 \
        static int variable##_delete_num(const char *chain, unsigned at, struct xtc_handle *h)            \
        {                                                                                                 \
                LABEL(label, chain);                                                                      \
                return p##_delete_num_entry(label, at, h);                                                \
        }                                                                                                 \
        const XtFamily variable = {                                                                       \
                .family = af,                                                                             \
                .names_path = names,                                                                      \
                .bridge_nf = sysctl,                                                                      \
                .entry_size = sizeof(entry),                                                              \
                .init = p##_init,                                                                         \
                .free = p##_free,                                                                         \
                .commit = p##_commit,                                                                     \
                .strerror = p##_strerror,                                                                 \
                .first_chain = p##_first_chain,                                                           \
                .next_chain = p##_next_chain,                                                             \
                .is_chain = p##_is_chain,                                                                 \
                .create_chain = variable##_create,                                                        \
                .flush_chain = variable##_flush,                                                          \
                .delete_chain = variable##_delete,                                                        \
                .get_policy = p##_get_policy,                                                             \
                .set_policy = variable##_set_policy,                                                      \
                .first_rule = variable##_first_rule,                                                      \
                .next_rule = variable##_next_rule,                                                        \
                .get_target = variable##_get_target,                                                      \
                .append = variable##_append,                                                              \
                .insert = variable##_insert,                                                              \
                .delete_num = variable##_delete_num,                                                      \
        }

DEFINE_FAMILY(xt_ipv4, iptc, struct ipt_entry, AF_INET, "/proc/net/ip_tables_names",
        "/proc/sys/net/bridge/bridge-nf-call-iptables");
DEFINE_FAMILY(xt_ipv6, ip6tc, struct ip6t_entry, AF_INET6, "/proc/net/ip6_tables_names",
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables");
