/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/nlmsg.h"

/*
 * nf_tables over nfnetlink: one transaction for any number of messages, and bounded dumps. Messages are written with NlWriter,
 * by our own encoders (nft-expr.h), from linux/netfilter/nf_tables.h.
 *
 * Why neither libnftables nor libnftnl: libnftables takes text, reads whole tables into a cache of its own before each change,
 * and waits with select(2), which ends the process when its descriptor is 1024 or above. libnftnl would give us objects for
 * what our writer already does for tc, and no comparing. So there is one way to the kernel in netctl/, no library at run
 * time, and nothing that a distribution may lack.
 */
typedef struct Nft Nft;

/* In the network namespace that the thread is in. TB_ERROR_ENVIRONMENT -ENOENT: this kernel has no nf_tables. */
int nft_new(Nft **ret, TbError **err) _warn_unused_;
Nft *nft_free(Nft *n);
TB_DEFINE_CLEANUP(Nft *, nft_free)
/* The same, and asks whether it answers. 1: it does; 0, and NULL: this kernel has no nf_tables, which is no error. */
int nft_open(Nft **ret, TbError **err) _warn_unused_;
#define _cleanup_nft_ _cleanup_(nft_freep)

/* Begins a message of nf_tables (NFT_MSG_*) for a family (NFPROTO_*). nlw_end() ends it. */
void nft_begin(NlWriter *w, uint16_t type, uint16_t flags, uint8_t family);
/* Integers of nf_tables' attributes are in network order. */
void nft_put_be32(NlWriter *w, uint16_t type, uint32_t v);
void nft_put_be64(NlWriter *w, uint16_t type, uint64_t v);
uint32_t nft_get_be32(const NlAttr *a);
uint64_t nft_get_be64(const NlAttr *a);

/* The number of the last transaction of anybody in this namespace. */
int nft_generation(Nft *n, uint32_t *ret, TbError **err) _warn_unused_;

typedef int (*NftMessageFn)(const struct nlmsghdr *h, void *userdata);
/* Sends the one message in `w` as a dump and calls fn for every answer. What does not exist has no answers. -EINTR: something
 * changed meanwhile, what was collected is to be thrown away. */
int nft_dump(Nft *n, NlWriter *w, NftMessageFn fn, void *userdata, TbError **err) _warn_unused_;
/* Sends the one message in `w` and calls fn for its answer. 0: answered, -ENOENT without an error object: there is no such thing. */
int nft_get(Nft *n, NlWriter *w, NftMessageFn fn, void *userdata, TbError **err) _warn_unused_;

/* All messages in one transaction, which is done wholly or not, provided that `generation` is still the last one: else
 * -ERESTART without an error object, and the caller looks again. */
int nft_commit(Nft *n, uint32_t generation, const NlWriter *messages, TbError **err) _warn_unused_;

/* Was this generation made by nft_commit() of this process (one of the last ones)? For those who watch. */
bool nft_generation_is_ours(uint32_t generation);
