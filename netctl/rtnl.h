/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/nlmsg.h"

/* A blocking rtnetlink socket with bounded waits. Created in the network namespace that the thread is in. */
typedef struct Rtnl Rtnl;

int rtnl_new(Rtnl **ret, TbError **err) _warn_unused_;
/* Same, in the namespace of `netns_fd`, with the buffers of a batch or with small ones; the thread is back in its own (`home_fd`) when this returns. Failing to return
 * home is fatal for a long-lived program and reported as TB_ERROR_BUG. */
int rtnl_new_in(int netns_fd, int home_fd, bool batches, Rtnl **ret, TbError **err) _warn_unused_;
Rtnl *rtnl_free(Rtnl *r);
TB_DEFINE_CLEANUP(Rtnl *, rtnl_free)
#define _cleanup_rtnl_ _cleanup_(rtnl_freep)

/* By one of these numbers the kernel tells others who asked for a change. 0: it has none (never seen). */
#define RTNL_PORTS 2
void rtnl_ports(const Rtnl *r, uint32_t ret[static RTNL_PORTS]);

/* Runs fn(userdata) inside the namespace. Same contract about coming home. */
int rtnl_in_netns(int netns_fd, int home_fd, int (*fn)(void *userdata, TbError **err), void *userdata,
        TbError **err) _warn_unused_;

/* Outcome of one message of a batch. */
typedef struct RtnlResult {
        int code;       /* 0 or negative errno */
        char text[128]; /* the kernel's own words (extended ack), or "" */
} RtnlResult;

/*
 * Sends all messages of `w` with as few sendmsg(2) as the socket buffer allows (usually one) and collects the outcome of
 * each in results[] (one per message). The kernel executes messages in order, each on its own: no transaction. Only the
 * last message of a send asks for an acknowledgement: errors are reported for every message anyway, and the last answer
 * means that all before it are done. Returns < 0 only when the exchange itself failed (time-out: retryable).
 */
int rtnl_batch(Rtnl *r, NlWriter *w, RtnlResult *results, unsigned long *sends, TbError **err) _warn_unused_;

typedef int (*RtnlMessageFn)(const struct nlmsghdr *h, void *userdata);

/* Sends the one message in `w` as a dump and calls fn for every answer. Returns -EINTR (retryable) when the tables
 * changed while the kernel walked them: what was collected must be thrown away and the dump repeated. */
int rtnl_dump(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err) _warn_unused_;

/* The same for answers of a few kB that are asked for of many devices, one by one: an eighth of the cost. -EMSGSIZE when one
 * object has more than 8 kB: rtnl_dump() takes it. */
int rtnl_dump_small(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err) _warn_unused_;

/* Sends all messages of `w`, none of which is a dump, some thirty at a time, and calls fn with the number of the message for each that
 * has an answer of at most 8 kB; that may be an error: rtnl_answer_error(). fn returns < 0 to give up. */
typedef int (*RtnlAnswerFn)(size_t message, const struct nlmsghdr *h, void *userdata);
int rtnl_get_many(Rtnl *r, NlWriter *w, RtnlAnswerFn fn, void *userdata, TbError **err) _warn_unused_;
/* 0: it is no error. */
int rtnl_answer_error(const struct nlmsghdr *h);

/* Sends the one message in `w` and calls fn for its one answer. Kernel errors come back as TB_ERROR_SYSTEM. */
int rtnl_get(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err) _warn_unused_;
