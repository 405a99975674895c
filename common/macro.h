/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Small language helpers that every file may use: attributes, ownership transfer, array sizes. */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attribute.h"

#define _unused_ __attribute__((unused))
#define _fallthrough_ __attribute__((fallthrough))

#define ELEMENTSOF(a) (sizeof(a) / sizeof((a)[0]))
#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

#define MIN2(a, b)                      \
        ({                              \
                __typeof__(a) _a = (a); \
                __typeof__(b) _b = (b); \
                _a < _b ? _a : _b;      \
        })
#define MAX2(a, b)                      \
        ({                              \
                __typeof__(a) _a = (a); \
                __typeof__(b) _b = (b); \
                _a > _b ? _a : _b;      \
        })

/* Ownership moves are visible: the source is emptied by the expression that takes its value. */
#define TAKE_PTR(p)                        \
        ({                                 \
                __typeof__(p) *_pp = &(p); \
                __typeof__(p) _v = *_pp;   \
                *_pp = NULL;               \
                _v;                        \
        })
#define TAKE_FD(fd)                \
        ({                         \
                int *_fdp = &(fd); \
                int _fd = *_fdp;   \
                *_fdp = -EBADF;    \
                _fd;               \
        })
