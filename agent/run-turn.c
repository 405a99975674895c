/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/run-turn.h"

static size_t count(const uid_t *uids, size_t n, uid_t uid)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
                k += uids[i] == uid;
        return k;
}

size_t run_turn_choose(const uid_t *active, size_t n_active, const uid_t *waiting, size_t n_waiting)
{
        size_t best = 0, least = count(active, n_active, waiting[0]);

        for (size_t i = 1; i < n_waiting && least > 0; i++) {
                size_t k = count(active, n_active, waiting[i]);

                if (k < least) {
                        best = i;
                        least = k;
                }
        }
        return best;
}
