/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SPEC, the text form of shapes: printing (reading is in shape-parse.c). */

#include <stdio.h>
#include <string.h>

#include "common/strv.h"
#include "common/units.h"
#include "netctl/shape.h"

/* A text of bounded length: every field has a bounded print, their sum is below SHAPE_TEXT_MAX / 2. */
typedef struct Text {
        char *buf;
        size_t used;
} Text;

static void text_add(Text *t, const char *word)
{
        size_t n = strlen(word), space = t->used > 0 ? 1 : 0;

        if (t->used + space + n >= SHAPE_TEXT_MAX)
                return;
        if (space)
                t->buf[t->used++] = ' ';
        memcpy(t->buf + t->used, word, n + 1);
        t->used += n;
}

static void text_add_number(Text *t, uint64_t v)
{
        char buf[24];

        (void) snprintf(buf, sizeof(buf), "%llu", (unsigned long long) v);
        text_add(t, buf);
}

static void text_add_word_number(Text *t, const Shape *s, const char *keyword, ShapeField f, uint64_t v)
{
        if (shape_has(s, f)) {
                text_add(t, keyword);
                text_add_number(t, v);
        }
}

/* A size with its unit, which tells bytes from packets. */
static void text_add_size(Text *t, const Shape *s, const char *keyword, ShapeField f, uint32_t v)
{
        char buf[24];

        if (!shape_has(s, f))
                return;
        if (keyword)
                text_add(t, keyword);
        if (v % (1024 * 1024) == 0)
                (void) snprintf(buf, sizeof(buf), "%umb", v / (1024 * 1024));
        else if (v % 1024 == 0)
                (void) snprintf(buf, sizeof(buf), "%ukb", v / 1024);
        else
                (void) snprintf(buf, sizeof(buf), "%ub", v);
        text_add(t, buf);
}

static void text_add_percents(Text *t, const uint32_t *v, size_t n)
{
        char buf[TB_UNIT_TEXT_MAX];

        for (size_t i = 0; i < n; i++)
                text_add(t, tb_format_percent(buf, v[i]));
}

static void text_add_chance(Text *t, const Shape *s, const char *keyword, ShapeField f, uint32_t v,
        ShapeField corr_field, uint32_t corr)
{
        if (!shape_has(s, f))
                return;
        text_add(t, keyword);
        text_add_percents(t, &v, 1);
        if (shape_has(s, corr_field))
                text_add_percents(t, &corr, 1);
}

static void text_add_word(Text *t, const Shape *s, const char *word, ShapeField f)
{
        if (shape_has(s, f))
                text_add(t, word);
}

static void text_add_rate(Text *t, const Shape *s)
{
        char buf[TB_UNIT_TEXT_MAX];

        if (shape_has(s, SHAPE_RATE)) {
                text_add(t, "rate");
                text_add(t, tb_format_rate(buf, s->rate_bps));
        }
        text_add_word_number(t, s, "overhead", SHAPE_OVERHEAD, s->overhead);
        text_add_word_number(t, s, "mpu", SHAPE_MPU, s->mpu);
        text_add_word(t, s, "linklayer atm", SHAPE_LINKLAYER);
        text_add_size(t, s, "burst", SHAPE_BURST, s->burst);
        text_add_size(t, s, "quantum", SHAPE_QUANTUM, s->quantum);
}

static void text_add_delay(Text *t, const Shape *s)
{
        char buf[TB_UNIT_TEXT_MAX];

        if (shape_has(s, SHAPE_DELAY)) {
                text_add(t, "delay");
                text_add(t, tb_format_time(buf, s->delay_ns));
                if (shape_has(s, SHAPE_JITTER)) {
                        text_add(t, tb_format_time(buf, s->jitter_ns));
                        if (shape_has(s, SHAPE_DELAY_CORRELATION))
                                text_add_percents(t, &s->delay_correlation, 1);
                }
        }
        if (shape_has(s, SHAPE_DISTRIBUTION)) {
                text_add(t, "distribution");
                text_add(t, s->distribution.text);
        }
}

static void text_add_loss(Text *t, const Shape *s)
{
        text_add_chance(t, s, "loss", SHAPE_LOSS, s->loss, SHAPE_LOSS_CORRELATION, s->loss_correlation);
        if (shape_has(s, SHAPE_LOSS_STATE)) {
                text_add(t, "loss state");
                text_add_percents(t, s->loss_state, _SHAPE_STATE_MAX);
        }
        if (shape_has(s, SHAPE_LOSS_GEMODEL)) {
                text_add(t, "loss gemodel");
                text_add_percents(t, s->loss_gemodel, _SHAPE_GE_MAX);
        }
}

static void text_add_slot(Text *t, const Shape *s)
{
        char buf[TB_UNIT_TEXT_MAX];

        if (shape_has(s, SHAPE_SLOT)) {
                text_add(t, "slot");
                text_add(t, tb_format_time(buf, s->slot[0]));
                text_add(t, tb_format_time(buf, s->slot[1]));
        }
        if (shape_has(s, SHAPE_SLOT_DISTRIBUTION)) {
                text_add(t, "slot distribution");
                text_add(t, s->slot_distribution.name.text[0] ? s->slot_distribution.name.text : "uniform");
                text_add(t, tb_format_time(buf, s->slot_distribution.delay_ns));
                text_add(t, tb_format_time(buf, s->slot_distribution.jitter_ns));
        }
        text_add_word_number(t, s, "packets", SHAPE_SLOT_PACKETS, s->slot_packets);
        text_add_word_number(t, s, "bytes", SHAPE_SLOT_BYTES, s->slot_bytes);
}

static void text_add_queue(Text *t, const Shape *s)
{
        if (shape_has(s, SHAPE_QUEUE)) {
                text_add(t, "queue red");
                text_add_size(t, s, "min", SHAPE_RED_MIN, s->red_min);
                text_add_size(t, s, "max", SHAPE_RED_MAX, s->red_max);
                text_add_chance(
                        t, s, "probability", SHAPE_RED_PROBABILITY, s->red_probability, _SHAPE_FIELD_MAX, 0);
                text_add_word(t, s, "harddrop", SHAPE_RED_HARDDROP);
                text_add_word(t, s, "adaptive", SHAPE_RED_ADAPTIVE);
        }
        text_add_word(t, s, "ecn", SHAPE_ECN);
}

static void text_add_shape(Text *t, const Shape *s)
{
        text_add_word(t, s, "link down", SHAPE_LINK);
        text_add_rate(t, s);
        text_add_delay(t, s);
        text_add_loss(t, s);
        text_add_chance(t, s, "duplicate", SHAPE_DUPLICATE, s->duplicate, SHAPE_DUPLICATE_CORRELATION,
                s->duplicate_correlation);
        text_add_chance(t, s, "corrupt", SHAPE_CORRUPT, s->corrupt, SHAPE_CORRUPT_CORRELATION,
                s->corrupt_correlation);
        text_add_chance(t, s, "reorder", SHAPE_REORDER, s->reorder, SHAPE_REORDER_CORRELATION,
                s->reorder_correlation);
        text_add_word_number(t, s, "gap", SHAPE_GAP, s->gap);
        text_add_slot(t, s);
        text_add_queue(t, s);
        text_add_word_number(t, s, "limit", SHAPE_LIMIT, s->limit);
        text_add_size(t, s, "limit", SHAPE_LIMIT_BYTES, s->limit_bytes);
        text_add_word_number(t, s, "seed", SHAPE_SEED, s->seed);
        if (shape_has(s, SHAPE_OFFLOAD))
                text_add(t, s->offload == SHAPE_OFFLOAD_ON ? "offload on" : "offload off");
}

const char *shape_print(const Shape *s, char buf[static SHAPE_TEXT_MAX])
{
        Text t = {.buf = buf};

        buf[0] = '\0';
        text_add_shape(&t, s);
        return buf;
}

const char *shape_pair_print(const ShapePair *p, char buf[static SHAPE_TEXT_MAX])
{
        Text t = {.buf = buf};

        buf[0] = '\0';
        if (shape_equal(&p->up, &p->down)) {
                text_add_shape(&t, &p->up);
                return buf;
        }
        if (!shape_is_empty(&p->up)) {
                text_add(&t, "up");
                text_add_shape(&t, &p->up);
        }
        if (!shape_is_empty(&p->down)) {
                text_add(&t, "down");
                text_add_shape(&t, &p->down);
        }
        return buf;
}
