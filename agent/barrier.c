/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/barrier.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"

typedef struct Barrier Barrier;

struct BarrierWait {
        Barrier *barrier;
        BarrierWait *next;
        BarrierOpenFn fn;
        void *userdata;
};

struct Barrier {
        Barriers *all;
        Barrier *next;
        char *scope, *name;
        unsigned count; /* 0 = the population */
        unsigned population;
        unsigned entered;
        BarrierWait *waits;
};

struct Barriers {
        Barrier *list;
};

int barriers_new(Barriers **ret, TbError **err)
{
        Barriers *b = calloc(1, sizeof(*b));

        if (!b)
                return tb_error_oom(err);
        *ret = b;
        return 0;
}

static void barrier_free(Barrier *x)
{
        for (Barrier **p = &x->all->list; *p; p = &(*p)->next)
                if (*p == x) {
                        *p = x->next;
                        break;
                }
        free(x->scope);
        free(x->name);
        free(x);
}

Barriers *barriers_free(Barriers *b)
{
        if (!b)
                return NULL;
        while (b->list) {
                while (b->list->waits) {
                        BarrierWait *w = b->list->waits;

                        b->list->waits = w->next;
                        free(w);
                }
                barrier_free(b->list);
        }
        free(b);
        return NULL;
}

/* Taken out of the list first: whoever is told may think of the same name again. */
static unsigned open_barrier(Barrier *x)
{
        BarrierWait *waits = TAKE_PTR(x->waits);
        unsigned count = x->entered;

        barrier_free(x);
        while (waits) {
                BarrierWait *w = waits;

                waits = w->next;
                w->fn(count, w->userdata);
                free(w);
        }
        return count;
}

static bool is_complete(const Barrier *x)
{
        return x->entered >= (x->count > 0 ? x->count : x->population);
}

static int find_or_make(Barriers *b, const char *scope, const char *name, Barrier **ret, TbError **err)
{
        Barrier *x;

        for (x = b->list; x; x = x->next)
                if (tb_streq(x->scope, scope) && tb_streq(x->name, name)) {
                        *ret = x;
                        return 0;
                }
        x = calloc(1, sizeof(*x));
        if (!x)
                return tb_error_oom(err);
        x->all = b;
        x->next = b->list;
        b->list = x;
        x->scope = strdup(scope);
        x->name = strdup(name);
        if (!x->scope || !x->name) {
                barrier_free(x);
                return tb_error_oom(err);
        }
        *ret = x;
        return 0;
}

int barrier_enter(Barriers *b, const char *scope, const char *name, unsigned count, unsigned population,
        BarrierOpenFn fn, void *userdata, BarrierWait **ret, unsigned *ret_count, TbError **err)
{
        BarrierWait *w;
        Barrier *x;
        int r;

        r = find_or_make(b, scope, name, &x, err);
        if (r < 0)
                return r;
        if (count > 0 && x->count > 0 && count != x->count)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "barrier '%s' waits for %u, not for %u; who enters it must name the same number",
                        name, x->count, count);
        if (count > 0)
                x->count = count;
        x->population = population;
        x->entered++;
        if (is_complete(x)) {
                *ret_count = open_barrier(x);
                return 1;
        }
        w = calloc(1, sizeof(*w));
        if (!w) {
                x->entered--;
                if (!x->waits)
                        barrier_free(x);
                return tb_error_oom(err);
        }
        *w = (BarrierWait){.barrier = x, .next = x->waits, .fn = fn, .userdata = userdata};
        x->waits = w;
        *ret = w;
        return 0;
}

BarrierWait *barrier_leave(BarrierWait *w)
{
        Barrier *x;

        if (!w)
                return NULL;
        x = w->barrier;
        for (BarrierWait **p = &x->waits; *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        break;
                }
        free(w);
        x->entered--;
        if (!x->waits)
                barrier_free(x);
        return NULL;
}

void barrier_set_population(Barriers *b, const char *scope, unsigned population)
{
        Barrier *next;

        for (Barrier *x = b->list; x; x = next) {
                next = x->next;
                if (!tb_streq(x->scope, scope))
                        continue;
                x->population = population;
                if (is_complete(x))
                        (void) open_barrier(x);
        }
}
