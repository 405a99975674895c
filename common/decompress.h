/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Decompression of a stream that is pushed in, in pieces of any size
 *
 * Image layers are gzip (RFC 1952, any number of members), zstd (RFC 8878, any number of frames) or not compressed at
 * all. What they are is read from their first bytes, not from a media type: so do the engines (moby pkg/archive
 * DetectCompression, containerd archive/compression), and a reader that believed the media type would see other files
 * than they do.
 *
 * Input is hostile: output is bounded by the caller, memory is one window (32 KiB for gzip, at most 8 MiB for zstd) and one
 * buffer, and whatever follows the last member or frame is an error, as it is for the engines.
 */

TB_BEGIN_DECLS

typedef enum TbCompression {
        TB_COMPRESSION_NONE,
        TB_COMPRESSION_GZIP,
        TB_COMPRESSION_ZSTD,
        _TB_COMPRESSION_MAX,
        _TB_COMPRESSION_INVALID = -EINVAL,
} TbCompression;

/* "none", "gzip", "zstd". */
const char *tb_compression_to_string(TbCompression c);

/* Gets what comes out, in order; never 0 bytes. A negative errno, with *err set, ends the work. */
typedef int (*TbDecompressFn)(const void *data, size_t size, void *userdata, TbError **err);

typedef struct TbDecompressor TbDecompressor;

/* `output_max`: bytes of output after which the stream is refused (-EFBIG); UINT64_MAX = no bound. */
int tb_decompressor_new(uint64_t output_max, TbDecompressFn fn, void *userdata, TbDecompressor **ret,
        TbError **err) _warn_unused_;
/* The next bytes. -EBADMSG: not what it claims to be; -EOPNOTSUPP: bzip2 or xz; -EFBIG; what `fn` returned. After an
 * error the object can only be freed. */
int tb_decompressor_feed(TbDecompressor *d, const void *data, size_t size, TbError **err) _warn_unused_;
/* The input is over. -EBADMSG when the stream isn't. */
int tb_decompressor_finish(TbDecompressor *d, TbError **err) _warn_unused_;
/* What the stream is; NONE until four bytes of it were seen. */
TbCompression tb_decompressor_compression(const TbDecompressor *d);
/* Bytes given to `fn` so far. */
uint64_t tb_decompressor_output(const TbDecompressor *d);
TbDecompressor *tb_decompressor_free(TbDecompressor *d);
TB_DEFINE_CLEANUP(TbDecompressor *, tb_decompressor_free)

TB_END_DECLS
