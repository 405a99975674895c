/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Content digests "sha256:<64 lower-case hex>" (OCI image-spec, descriptor.md "Digests"). */

TB_BEGIN_DECLS

#define TB_DIGEST_TEXT_MAX (7 + 64 + 1)

typedef struct TbDigest {
        char text[TB_DIGEST_TEXT_MAX]; /* "sha256:..." or "" when unset */
} TbDigest;

static inline bool tb_digest_is_set(const TbDigest *d)
{
        return d->text[0] != 0;
}
bool tb_digest_equal(const TbDigest *a, const TbDigest *b);
/* The 64 hex digits. */
static inline const char *tb_digest_hex(const TbDigest *d)
{
        return d->text + 7;
}

/* Strict: "sha256:" and exactly 64 lower-case hex digits. -EINVAL; -EOPNOTSUPP for another well-formed
 * algorithm. */
int tb_digest_parse(const char *s, TbDigest *ret, TbError **err) _warn_unused_;
int tb_digest_of(const void *data, size_t size, TbDigest *ret, TbError **err) _warn_unused_;

/* A running SHA-256. */
typedef struct TbHasher TbHasher;
int tb_hasher_new(TbHasher **ret, TbError **err) _warn_unused_;
int tb_hasher_update(TbHasher *h, const void *data, size_t size, TbError **err) _warn_unused_;
/* Another one that has seen the same bytes. */
int tb_hasher_copy(const TbHasher *h, TbHasher **ret, TbError **err) _warn_unused_;
/* Gives the digest; the hasher can only be freed afterwards. */
int tb_hasher_final(TbHasher *h, TbDigest *ret, TbError **err) _warn_unused_;
TbHasher *tb_hasher_free(TbHasher *h);
TB_DEFINE_CLEANUP(TbHasher *, tb_hasher_free)

TB_END_DECLS
