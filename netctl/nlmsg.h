/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/error.h"

/*
 * Netlink messages as bytes: a writer that puts many messages behind each other into one buffer, and bounded readers of
 * attributes. (libnl builds one heap object per message and has no notion of a batch; its netem and htb objects lack most
 * of what we need: reference/shaping.md 6.1.)
 */

/* Sticky error: after the first failure nothing more is written and nlw_finish() reports it. */
typedef struct NlWriter {
        uint8_t *data;
        size_t size, allocated;
        size_t message; /* offset of the message being written */
        size_t *offsets;
        size_t n_messages, n_offsets_allocated;
        int error;
} NlWriter;

void nlw_done(NlWriter *w);
#define _cleanup_nlw_ _cleanup_(nlw_done)

/* `header` is the family header (struct tcmsg, ifinfomsg, ...). Sequence numbers are given when sent. */
void nlw_begin(NlWriter *w, uint16_t type, uint16_t flags, const void *header, size_t header_size);
void nlw_put(NlWriter *w, uint16_t type, const void *data, size_t size);
void nlw_put_u8(NlWriter *w, uint16_t type, uint8_t v);
void nlw_put_u32(NlWriter *w, uint16_t type, uint32_t v);
void nlw_put_u64(NlWriter *w, uint16_t type, uint64_t v);
void nlw_put_string(NlWriter *w, uint16_t type, const char *s);
size_t nlw_nest(NlWriter *w, uint16_t type);
void nlw_nest_end(NlWriter *w, size_t nest);
/* Bytes inside the open nest that are no attribute (netem's struct tc_netem_qopt), padded to 4. */
void nlw_raw(NlWriter *w, const void *data, size_t size);
void nlw_end(NlWriter *w);
int nlw_finish(const NlWriter *w, TbError **err) _warn_unused_;

/* An attribute with its payload, checked to lie inside its parent. */
typedef struct NlAttr {
        uint16_t type;
        const uint8_t *data;
        size_t size;
} NlAttr;

typedef struct NlIter {
        const uint8_t *p;
        size_t left;
} NlIter;

static inline NlIter nl_iter(const void *data, size_t size)
{
        return (NlIter){.p = data, .left = size};
}
static inline NlIter nl_iter_nested(const NlAttr *a)
{
        return nl_iter(a->data, a->size);
}
/* False at the end or at the first malformed attribute: what is behind it is not looked at. */
bool nl_iter_next(NlIter *i, NlAttr *ret);

/* The next message of a datagram (aligned to 4), or NULL at its end and at the first that does not lie inside it. To be used in place of
 * NLMSG_NEXT(), which takes more away than is left when the last message's length is no multiple of 4. */
const struct nlmsghdr *nl_next_message(NlIter *i);

/* Attributes behind a family header of `header_size`; empty when the message is too short for the header. */
NlIter nl_message_attributes(const struct nlmsghdr *h, size_t header_size);
/* The family header, or NULL when the message is too short. */
const void *nl_message_header(const struct nlmsghdr *h, size_t header_size);

/* Unaligned, size-checked reads; false (and *ret untouched) when the payload is shorter. */
bool nl_attr_u32(const NlAttr *a, uint32_t *ret);
bool nl_attr_u64(const NlAttr *a, uint64_t *ret);
/* Copies a struct; a shorter payload (older kernel) leaves the rest zero, a longer one is cut. False when empty. */
bool nl_attr_struct(const NlAttr *a, void *ret, size_t size);
/* Copies a string of at most size - 1 bytes, always terminated. */
void nl_attr_string(const NlAttr *a, char *ret, size_t size);
