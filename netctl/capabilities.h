/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "netctl/rtnl.h"

/* What the kernel of this host can do, found out by doing it inside a throw-away network namespace of a
 * forked child: the host's own namespace is never touched (modules may get loaded, as by any tc or iptables
 * call). */

typedef enum Capability {
        CAPABILITY_VETH,
        CAPABILITY_IFB,
        CAPABILITY_BRIDGE,
        CAPABILITY_HTB,
        CAPABILITY_TBF,
        CAPABILITY_NETEM,
        CAPABILITY_NETEM_LOSS, /* its models: state, gemodel */
        CAPABILITY_NETEM_ECN,
        CAPABILITY_NETEM_DISTRIBUTION,
        CAPABILITY_NETEM_SLOT,              /* Linux 4.16 */
        CAPABILITY_NETEM_SLOT_DISTRIBUTION, /* Linux 4.19 */
        CAPABILITY_NETEM_SEED,              /* TCA_NETEM_PRNG_SEED is understood (Linux 6.6) */
        CAPABILITY_PFIFO,
        CAPABILITY_BFIFO,
        CAPABILITY_RED,
        CAPABILITY_BLACKHOLE,
        CAPABILITY_INGRESS,
        CAPABILITY_U32,
        CAPABILITY_MIRRED,
        CAPABILITY_IPTABLES_FILTER, /* legacy tables, as libiptc uses them */
        CAPABILITY_IPTABLES_NAT,
        CAPABILITY_IP6TABLES_FILTER,
        CAPABILITY_NF_TABLES,
        CAPABILITY_NF_TABLES_BRIDGE, /* family bridge: the guard */
        CAPABILITY_NF_TABLES_ARP,    /* family arp: the guard of interfaces without a bridge */
        CAPABILITY_NF_TABLES_INET,   /* family inet with nat, as the nftables back end uses it */
        CAPABILITY_NFT_BRIDGE_META,  /* the name of a port's bridge can be matched */
        CAPABILITY_BR_NETFILTER,     /* bridged packets can be handed to iptables */
        CAPABILITY_XT_PHYSDEV,
        CAPABILITY_XT_CONNTRACK,
        _CAPABILITY_MAX,
} Capability;

typedef struct Capabilities {
        bool has[_CAPABILITY_MAX];
        int error[_CAPABILITY_MAX]; /* negative errno of the attempt; 0 where has[] */
} Capabilities;

/* "netem", "iptables-filter", ... as in `doctor` and `tbnode-netctl caps`. */
const char *capability_to_string(Capability c);
/* The kernel module ("sch_netem"). */
const char *capability_module(Capability c);
/* What is lost without it and what to do, one line ("delay, jitter, loss ...; install linux-image-amd64
 * ..."). */
const char *capability_advice(Capability c);

/* Forks, unshares, tries, reports through a pipe; takes some ms, at most 10 s (then TB_ERROR_SYSTEM
 * -ETIMEDOUT). TB_ERROR_ENVIRONMENT -EPERM: not allowed to make a network namespace. */
int capabilities_probe(Capabilities *ret, TbError **err) _warn_unused_;

/* CAPABILITY_NETEM alone, in this namespace, with one message and without a trace: a netem without parameters is asked for at the
 * loopback device's root. A kernel without netem doesn't know the kind; netem itself refuses (netem_init() wants its
 * options), and a qdisc is made before it takes anything's place. Loads the module, as using it would. */
bool capability_has_netem(Rtnl *r);
