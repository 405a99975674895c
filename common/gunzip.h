/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/*
 * gzip (RFC 1952) with any number of members, in pieces
 *
 * The deflate data is unpacked by ISA-L (igzip), which takes half of zlib's time: unpacking is most of what looking at a
 * layer costs. The wrapper is read here, by zlib's rules, because ISA-L is laxer: the header's reserved flags must be
 * zero and its checksum right, each member's checksum and length must match, and what follows a member is another one.
 *
 * Input is hostile. Memory is one object of constant size; a stream on which nothing moves any more is broken.
 */

typedef struct TbGunzip TbGunzip;

int tb_gunzip_new(TbGunzip **ret, TbError **err) _warn_unused_;
/* Unpacks from *data into `out`; moves *data and *size over what was used, *ret_size = bytes written. When less than
 * `out_size` was written, all input has been used up. -EBADMSG: broken; then the object can only be freed. */
int tb_gunzip_step(TbGunzip *g, const unsigned char **data, size_t *size, unsigned char *out,
        size_t out_size, size_t *ret_size, TbError **err) _warn_unused_;
/* A member has begun and is not over. */
bool tb_gunzip_is_inside(const TbGunzip *g);
TbGunzip *tb_gunzip_free(TbGunzip *g);
TB_DEFINE_CLEANUP(TbGunzip *, tb_gunzip_free)
