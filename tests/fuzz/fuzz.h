/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The libFuzzer entry point; main.c calls it for each corpus file. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken property is a crash, for libFuzzer as for the corpus test. */
#define fuzz_assert(expr)                 \
        do {                              \
                if (!(expr))              \
                        __builtin_trap(); \
        } while (0)
