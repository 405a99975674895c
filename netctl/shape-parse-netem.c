/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SPEC: the items of netem. */

#include <assert.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/shape-parser.h"

int parse_delay(Parser *p, TbError **err)
{
        uint64_t v;
        uint32_t corr;

        int r = parser_need(p, "delay", "a time such as 20ms", err);
        if (r < 0)
                return r;
        r = parse_time_word(p, "delay", SHAPE_DELAY_MAX, "an hour", &v, err);
        if (r >= 0)
                r = PUT(p, SHAPE_DELAY, "delay", delay_ns, v, err);
        if (r >= 0)
                r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;

        r = parse_time_word(p, "jitter", SHAPE_JITTER_MAX, "the kernel's 2.147483647s", &v, err);
        if (r >= 0)
                r = PUT(p, SHAPE_JITTER, "jitter", jitter_ns, v, err);
        if (r >= 0)
                r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;

        r = tb_parse_percent(p->word, &corr, err);
        if (r < 0)
                return parser_prefix(r, err, "delay correlation");
        r = PUT(p, SHAPE_DELAY_CORRELATION, "delay correlation", delay_correlation, corr, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_name(Parser *p, const char *keyword, ShapeName *ret, TbError **err)
{
        int r = parser_need(
                p, keyword, "one of uniform, normal, pareto, paretonormal, or a table's name", err);
        if (r < 0)
                return r;
        if (!shape_name_set(ret, p->word))
                return parser_fail(p->word, err,
                        "distributions are uniform, normal, pareto, paretonormal, and tables by a name of "
                        "at most "
                        "31 letters, digits, '_', '-', '.'");
        return parser_next(p, err);
}

int parse_distribution(Parser *p, TbError **err)
{
        ShapeName v;

        int r = parse_name(p, "distribution", &v, err);
        return r < 0 ? r : PUT(p, SHAPE_DISTRIBUTION, "distribution", distribution, v, err);
}

int parse_gap(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parse_number(p, "gap", "a number of packets", SHAPE_GAP_MAX, &v, err);
        return r < 0 ? r : PUT(p, SHAPE_GAP, "gap", gap, v, err);
}

int parse_seed(Parser *p, TbError **err)
{
        uint64_t v;

        int r = parser_need(p, "seed", "a number", err);
        if (r < 0)
                return r;
        r = tb_parse_u64(p->word, 0, UINT64_MAX, &v, err);
        if (r < 0)
                return parser_prefix(r, err, "seed");
        r = PUT(p, SHAPE_SEED, "seed", seed, v, err);
        return r < 0 ? r : parser_next(p, err);
}

/* PERCENT [CORRELATION]; the first number is the current word. The members lie side by side in Shape. */
static int parse_chance(Parser *p, const char *keyword, ShapeField f, size_t member, TbError **err)
{
        uint32_t v;

        int r = parse_percent_word(p, keyword, &v, err);
        if (r >= 0)
                r = parser_put(p, f, keyword, member, &v, sizeof(v), err);
        if (r < 0 || !parser_at_number(p))
                return r;
        r = parse_percent_word(p, keyword, &v, err);
        if (r < 0)
                return r;
        return parser_put(p, f + 1, keyword, member + sizeof(v), &v, sizeof(v), err);
}
static_assert(SHAPE_LOSS_CORRELATION == SHAPE_LOSS + 1 &&
                SHAPE_DUPLICATE_CORRELATION == SHAPE_DUPLICATE + 1 &&
                SHAPE_CORRUPT_CORRELATION == SHAPE_CORRUPT + 1 &&
                SHAPE_REORDER_CORRELATION == SHAPE_REORDER + 1 &&
                offsetof(Shape, loss_correlation) == offsetof(Shape, loss) + 4 &&
                offsetof(Shape, duplicate_correlation) == offsetof(Shape, duplicate) + 4 &&
                offsetof(Shape, corrupt_correlation) == offsetof(Shape, corrupt) + 4 &&
                offsetof(Shape, reorder_correlation) == offsetof(Shape, reorder) + 4,
        "each chance has its correlation behind it");

static int parse_chance_item(Parser *p, const char *keyword, ShapeField f, size_t member, TbError **err)
{
        int r = parser_need(p, keyword, "a probability such as 1%", err);
        return r < 0 ? r : parse_chance(p, keyword, f, member, err);
}

/* 1 to n percentages into v; what is not given keeps its default, of which the second depends on the first. */
static int parse_percents(Parser *p, const char *keyword, uint32_t *v, size_t n, TbError **err)
{
        int r = parser_need(p, keyword, "a probability such as 1%", err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n && (i == 0 || parser_at_number(p)); i++) {
                r = parse_percent_word(p, keyword, v + i, err);
                if (r < 0)
                        return r;
                if (i == 0 && v[0] == 0 && !parser_at_number(p)) { /* none of it */
                        memset(v, 0, n * sizeof(*v));
                        return 0;
                }
                if (i == 0)
                        v[1] = UINT32_MAX - v[0];
        }
        return 0;
}

int parse_loss(Parser *p, TbError **err)
{
        int r = parser_need(p, "loss", "a probability such as 1%, 'state' or 'gemodel'", err);
        if (r < 0)
                return r;
        if (tb_streq(p->word, "state")) {
                uint32_t v[_SHAPE_STATE_MAX] = {[SHAPE_P23] = UINT32_MAX};
                r = parse_percents(p, "loss state", v, _SHAPE_STATE_MAX, err);
                return r < 0 ? r : PUT(p, SHAPE_LOSS_STATE, "loss", loss_state, v, err);
        }
        if (tb_streq(p->word, "gemodel")) {
                uint32_t v[_SHAPE_GE_MAX] = {[SHAPE_GE_1H] = UINT32_MAX};
                r = parse_percents(p, "loss gemodel", v, _SHAPE_GE_MAX, err);
                return r < 0 ? r : PUT(p, SHAPE_LOSS_GEMODEL, "loss", loss_gemodel, v, err);
        }
        if (tb_streq(p->word, "random")) {
                r = parser_need(p, "loss random", "a probability such as 1%", err);
                if (r < 0)
                        return r;
        }
        return parse_chance(p, "loss", SHAPE_LOSS, offsetof(Shape, loss), err);
}

/* ["packets" N] ["bytes" N]: a slot is named as a whole. */
static int parse_slot_limits(Parser *p, TbError **err)
{
        uint32_t packets = 0, bytes = 0;
        int r = 0;

        while (r >= 0 && p->have && (tb_streq(p->word, "packets") || tb_streq(p->word, "bytes")))
                r = p->word[0] == 'p'
                        ? parse_number(p, "packets", "a number", INT32_MAX, &packets, err)
                        : parse_bytes(p, "bytes", "a number of bytes", 1, INT32_MAX, &bytes, err);
        if (r >= 0)
                r = PUT(p, SHAPE_SLOT_PACKETS, "slot packets", slot_packets, packets, err);
        return r < 0 ? r : PUT(p, SHAPE_SLOT_BYTES, "slot bytes", slot_bytes, bytes, err);
}

static int parse_slot_time(
        Parser *p, const char *keyword, uint64_t max, const char *max_text, uint64_t *ret, TbError **err)
{
        int r = parse_time_word(p, keyword, max, max_text, ret, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_slot_distribution(Parser *p, TbError **err)
{
        typeof(((Shape *) NULL)->slot_distribution) v = {};

        int r = parse_name(p, "slot distribution", &v.name, err);
        if (r >= 0 && !parser_at_number(p))
                return parser_fail(
                        p->have ? p->word : "", err, "'slot distribution NAME' needs DELAY and JITTER");
        if (r >= 0)
                r = parse_slot_time(p, "slot delay", SHAPE_DELAY_MAX, "an hour", &v.delay_ns, err);
        if (r >= 0 && !parser_at_number(p))
                return parser_fail(
                        p->have ? p->word : "", err, "'slot distribution NAME DELAY' needs JITTER");
        if (r >= 0)
                r = parse_slot_time(
                        p, "slot jitter", SHAPE_JITTER_MAX, "the kernel's 2.147483647s", &v.jitter_ns, err);
        if (r >= 0 && v.jitter_ns == 0)
                return parser_fail(
                        "0", err, "the jitter of 'slot distribution' must not be 0; 'slot TIME' has none");
        if (r >= 0)
                r = PUT(p, SHAPE_SLOT_DISTRIBUTION, "slot", slot_distribution, v, err);
        return r < 0 ? r : parse_slot_limits(p, err);
}

int parse_slot(Parser *p, TbError **err)
{
        uint64_t v[2];

        int r = parser_need(p, "slot", "a time such as 800us, or 'distribution'", err);
        if (r < 0)
                return r;
        if (tb_streq(p->word, "distribution"))
                return parse_slot_distribution(p, err);
        r = parse_slot_time(p, "slot", SHAPE_DELAY_MAX, "an hour", &v[0], err);
        v[1] = v[0];
        if (r >= 0 && parser_at_number(p))
                r = parse_slot_time(p, "slot", SHAPE_DELAY_MAX, "an hour", &v[1], err);
        if (r >= 0)
                r = PUT(p, SHAPE_SLOT, "slot", slot, v, err);
        return r < 0 ? r : parse_slot_limits(p, err);
}
int parse_duplicate(Parser *p, TbError **err)
{
        return parse_chance_item(p, "duplicate", SHAPE_DUPLICATE, offsetof(Shape, duplicate), err);
}

int parse_corrupt(Parser *p, TbError **err)
{
        return parse_chance_item(p, "corrupt", SHAPE_CORRUPT, offsetof(Shape, corrupt), err);
}

int parse_reorder(Parser *p, TbError **err)
{
        return parse_chance_item(p, "reorder", SHAPE_REORDER, offsetof(Shape, reorder), err);
}
