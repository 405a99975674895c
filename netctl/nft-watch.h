/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/error.h"

/*
 * Who else writes our tables? The kernel tells every transaction on nf_tables to those who listen. Transactions of this process
 * don't count, nor do those that leave our tables alone.
 */
typedef struct NftWatch NftWatch;

/* In the network namespace that the thread is in. TB_ERROR_ENVIRONMENT -ENOENT: no nf_tables. */
int nft_watch_new(NftWatch **ret, TbError **err) _warn_unused_;
NftWatch *nft_watch_free(NftWatch *w);
TB_DEFINE_CLEANUP(NftWatch *, nft_watch_free)

/* To be polled for reading; never blocks. */
int nft_watch_fd(const NftWatch *w);
/* Takes all that has come. True: our tables may be other than we left them. (True also when the kernel had more to tell than
 * fits its queue: then nobody knows.) */
bool nft_watch_read(NftWatch *w);

struct nlmsghdr;
/* One message of what is told. *touched, at first false: a table of ours was in the transaction whose messages are coming; its end
 * takes that back, and is where somebody else's change of ours is answered with true. */
bool nft_watch_take(bool *touched, const struct nlmsghdr *h);
