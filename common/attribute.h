/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the declarations of public headers are written with. This file, error.h and digest.h are installed with the
 * registry client's library: nothing in them may need another header of ours. */

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _warn_unused_ __attribute__((warn_unused_result))

/* Defines static inline void fnp(type *p), for use with _cleanup_(). `fn` must accept NULL. */
#define TB_DEFINE_CLEANUP(type, fn)       \
        static inline void fn##p(type *p) \
        {                                 \
                if (*p)                   \
                        (void) fn(*p);    \
        }

/* Around the declarations, for callers in C++. */
#ifdef __cplusplus
#define TB_BEGIN_DECLS extern "C" {
#define TB_END_DECLS }
#else
#define TB_BEGIN_DECLS
#define TB_END_DECLS
#endif
