/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* As common/macro.h; code inside the image shares no file with code on the host, so that neither binds the other. */

#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _warn_unused_ __attribute__((warn_unused_result))

#define ELEMENTSOF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN2(a, b)                      \
        ({                              \
                __typeof__(a) _a = (a); \
                __typeof__(b) _b = (b); \
                _a < _b ? _a : _b;      \
        })
