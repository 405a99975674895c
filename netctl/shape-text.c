/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SPEC, the text form of shapes: reading and printing. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/shape.h"

#define WORD_MAX 64

typedef enum Direction {
        DIRECTION_UP = 1 << 0,
        DIRECTION_DOWN = 1 << 1,
        DIRECTION_BOTH = DIRECTION_UP | DIRECTION_DOWN,
} Direction;

typedef struct Parser {
        const char *next; /* not yet read */
        char word[WORD_MAX + 1];
        bool have; /* `word` holds the current word */
        Direction direction;
        uint32_t common
                [2]; /* fields of up, down that an item for both directions set: these may be overridden */
        ShapePair pair;
} Parser;

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Steps to the next word; p->have tells whether there was one. */
static int parser_next(Parser *p, TbError **err)
{
        p->have = false;
        while (is_space(*p->next))
                p->next++;
        if (*p->next == '\0')
                return 0;

        size_t n = 0;
        while (p->next[n] != '\0' && !is_space(p->next[n]))
                n++;
        if (n > WORD_MAX) {
                _cleanup_free_ char *shown = tb_escape(p->next, 32);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape: word '%s...' is too long",
                        shown ? shown : "?");
        }
        memcpy(p->word, p->next, n);
        p->word[n] = '\0';
        p->next += n;
        p->have = true;
        return 1;
}

static int parser_fail(const char *word, TbError **err, const char *advice)
{
        _cleanup_free_ char *shown = tb_escape(word, WORD_MAX);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape: unexpected '%s'; %s",
                shown ? shown : "?", advice);
}

/* Does the current word look like a number with a unit? (Keywords start with a letter.) */
static bool parser_at_number(const Parser *p)
{
        return p->have && ((p->word[0] >= '0' && p->word[0] <= '9') || p->word[0] == '.');
}

static int parser_need(Parser *p, const char *keyword, const char *what, TbError **err)
{
        int r = parser_next(p, err);
        if (r < 0)
                return r;
        if (!p->have)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "bad shape: '%s' needs %s behind it", keyword, what);
        return 0;
}

/* Where the value of field f lives, for the kinds of values there are. */
static uint32_t *shape_u32(Shape *s, ShapeField f)
{
        static const size_t offsets[_SHAPE_FIELD_MAX] = {
                [SHAPE_DELAY_CORRELATION] = offsetof(Shape, delay_correlation),
                [SHAPE_LOSS] = offsetof(Shape, loss),
                [SHAPE_LOSS_CORRELATION] = offsetof(Shape, loss_correlation),
                [SHAPE_DUPLICATE] = offsetof(Shape, duplicate),
                [SHAPE_DUPLICATE_CORRELATION] = offsetof(Shape, duplicate_correlation),
                [SHAPE_CORRUPT] = offsetof(Shape, corrupt),
                [SHAPE_CORRUPT_CORRELATION] = offsetof(Shape, corrupt_correlation),
                [SHAPE_REORDER] = offsetof(Shape, reorder),
                [SHAPE_REORDER_CORRELATION] = offsetof(Shape, reorder_correlation),
                [SHAPE_GAP] = offsetof(Shape, gap),
                [SHAPE_LIMIT] = offsetof(Shape, limit),
        };
        return (uint32_t *) ((char *) s + offsets[f]);
}

static uint64_t *shape_u64(Shape *s, ShapeField f)
{
        static const size_t offsets[_SHAPE_FIELD_MAX] = {
                [SHAPE_RATE] = offsetof(Shape, rate_bps),
                [SHAPE_DELAY] = offsetof(Shape, delay_ns),
                [SHAPE_JITTER] = offsetof(Shape, jitter_ns),
                [SHAPE_SEED] = offsetof(Shape, seed),
        };
        return (uint64_t *) ((char *) s + offsets[f]);
}

/* Marks f in the directions that hold. Twice is a mistake somebody made, but for one direction's own value over that of
 * both. */
static int parser_mark(Parser *p, ShapeField f, const char *keyword, TbError **err)
{
        for (int i = 0; i < 2; i++) {
                Shape *s = i == 0 ? &p->pair.up : &p->pair.down;
                if (!(p->direction & (i == 0 ? DIRECTION_UP : DIRECTION_DOWN)))
                        continue;
                uint32_t bit = UINT32_C(1) << f;
                bool override = p->direction != DIRECTION_BOTH && (p->common[i] & bit);
                if (shape_has(s, f) && !override)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "bad shape: '%s' is given twice for direction %s", keyword,
                                i == 0 ? "up" : "down");
                s->set |= bit;
                p->common[i] = p->direction == DIRECTION_BOTH ? p->common[i] | bit : p->common[i] & ~bit;
        }
        return 0;
}

static int parser_put_u32(Parser *p, ShapeField f, const char *keyword, uint32_t v, TbError **err)
{
        int r = parser_mark(p, f, keyword, err);
        if (r < 0)
                return r;
        if (p->direction & DIRECTION_UP)
                *shape_u32(&p->pair.up, f) = v;
        if (p->direction & DIRECTION_DOWN)
                *shape_u32(&p->pair.down, f) = v;
        return 0;
}

static int parser_put_u64(Parser *p, ShapeField f, const char *keyword, uint64_t v, TbError **err)
{
        int r = parser_mark(p, f, keyword, err);
        if (r < 0)
                return r;
        if (p->direction & DIRECTION_UP)
                *shape_u64(&p->pair.up, f) = v;
        if (p->direction & DIRECTION_DOWN)
                *shape_u64(&p->pair.down, f) = v;
        return 0;
}

static int word_prefix(int r, TbError **err, const char *keyword)
{
        tb_error_prefix(err, "bad shape: %s", keyword);
        return r;
}

static int parse_rate(Parser *p, TbError **err)
{
        uint64_t v;

        int r = parser_need(p, "rate", "a rate such as 10mbit", err);
        if (r < 0)
                return r;
        r = tb_parse_rate(p->word, &v, err);
        if (r < 0)
                return word_prefix(r, err, "rate");
        if (v != 0 && (v < SHAPE_RATE_MIN || v > SHAPE_RATE_MAX)) {
                _cleanup_free_ char *shown = tb_escape(p->word, WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "bad shape: rate '%s' is not between 1kbit and 40gbit", shown ? shown : "?");
        }
        r = parser_put_u64(p, SHAPE_RATE, "rate", v, err);
        return r < 0 ? r : parser_next(p, err);
}

/* PERCENT [CORRELATION] of loss, duplicate, corrupt, reorder; the first word is the current one. */
static int parse_probability(Parser *p, const char *keyword, ShapeField what, ShapeField corr, TbError **err)
{
        uint32_t v;

        int r = tb_parse_percent(p->word, &v, err);
        if (r < 0)
                return word_prefix(r, err, keyword);
        r = parser_put_u32(p, what, keyword, v, err);
        if (r < 0)
                return r;
        r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;
        r = tb_parse_percent(p->word, &v, err);
        if (r < 0)
                return word_prefix(r, err, keyword);
        r = parser_put_u32(p, corr, keyword, v, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_time_word(
        Parser *p, const char *keyword, uint64_t max, const char *max_text, uint64_t *ret, TbError **err)
{
        int r = tb_parse_time(p->word, ret, err);
        if (r < 0)
                return word_prefix(r, err, keyword);
        if (*ret > max) {
                _cleanup_free_ char *shown = tb_escape(p->word, WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "bad shape: %s '%s' is longer than %s",
                        keyword, shown ? shown : "?", max_text);
        }
        return 0;
}

static int parse_delay(Parser *p, TbError **err)
{
        uint64_t v;
        uint32_t corr;

        int r = parser_need(p, "delay", "a time such as 20ms", err);
        if (r < 0)
                return r;
        r = parse_time_word(p, "delay", SHAPE_DELAY_MAX, "an hour", &v, err);
        if (r < 0)
                return r;
        r = parser_put_u64(p, SHAPE_DELAY, "delay", v, err);
        if (r < 0)
                return r;
        r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;

        r = parse_time_word(p, "jitter", SHAPE_JITTER_MAX, "the kernel's 2.147483647s", &v, err);
        if (r < 0)
                return r;
        r = parser_put_u64(p, SHAPE_JITTER, "jitter", v, err);
        if (r < 0)
                return r;
        r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;

        r = tb_parse_percent(p->word, &corr, err);
        if (r < 0)
                return word_prefix(r, err, "delay correlation");
        r = parser_put_u32(p, SHAPE_DELAY_CORRELATION, "delay correlation", corr, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_distribution(Parser *p, TbError **err)
{
        int r = parser_need(p, "distribution", "one of uniform, normal, pareto, paretonormal", err);
        if (r < 0)
                return r;
        ShapeDistribution d = shape_distribution_from_string(p->word);
        if (d < 0)
                return parser_fail(p->word, err, "distributions are uniform, normal, pareto, paretonormal");
        r = parser_mark(p, SHAPE_DISTRIBUTION, "distribution", err);
        if (r < 0)
                return r;
        if (p->direction & DIRECTION_UP)
                p->pair.up.distribution = d;
        if (p->direction & DIRECTION_DOWN)
                p->pair.down.distribution = d;
        return parser_next(p, err);
}

static int parse_number(
        Parser *p, const char *keyword, const char *example, ShapeField f, uint32_t max, TbError **err)
{
        uint32_t v;

        int r = parser_need(p, keyword, example, err);
        if (r < 0)
                return r;
        r = tb_parse_u32(p->word, 0, max, &v, err);
        if (r < 0)
                return word_prefix(r, err, keyword);
        r = parser_put_u32(p, f, keyword, v, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_seed(Parser *p, TbError **err)
{
        uint64_t v;

        int r = parser_need(p, "seed", "a number", err);
        if (r < 0)
                return r;
        r = tb_parse_u64(p->word, 0, UINT64_MAX, &v, err);
        if (r < 0)
                return word_prefix(r, err, "seed");
        r = parser_put_u64(p, SHAPE_SEED, "seed", v, err);
        return r < 0 ? r : parser_next(p, err);
}

static int parse_chance(Parser *p, const char *keyword, ShapeField what, ShapeField corr, TbError **err)
{
        int r = parser_need(p, keyword, "a probability such as 1%", err);
        if (r < 0)
                return r;
        if (what == SHAPE_LOSS && tb_streq(p->word, "random")) {
                r = parser_need(p, "loss random", "a probability such as 1%", err);
                if (r < 0)
                        return r;
        }
        return parse_probability(p, keyword, what, corr, err);
}

/* Reads one item; the current word is its keyword, afterwards it is the word behind the item. */
static int parse_item(Parser *p, TbError **err)
{
        if (tb_streq(p->word, "up") || tb_streq(p->word, "down")) {
                p->direction = p->word[0] == 'u' ? DIRECTION_UP : DIRECTION_DOWN;
                return parser_next(p, err);
        }
        if (tb_streq(p->word, "rate"))
                return parse_rate(p, err);
        if (tb_streq(p->word, "delay"))
                return parse_delay(p, err);
        if (tb_streq(p->word, "distribution"))
                return parse_distribution(p, err);
        if (tb_streq(p->word, "loss"))
                return parse_chance(p, "loss", SHAPE_LOSS, SHAPE_LOSS_CORRELATION, err);
        if (tb_streq(p->word, "duplicate"))
                return parse_chance(p, "duplicate", SHAPE_DUPLICATE, SHAPE_DUPLICATE_CORRELATION, err);
        if (tb_streq(p->word, "corrupt"))
                return parse_chance(p, "corrupt", SHAPE_CORRUPT, SHAPE_CORRUPT_CORRELATION, err);
        if (tb_streq(p->word, "reorder"))
                return parse_chance(p, "reorder", SHAPE_REORDER, SHAPE_REORDER_CORRELATION, err);
        if (tb_streq(p->word, "gap"))
                return parse_number(p, "gap", "a number of packets", SHAPE_GAP, SHAPE_GAP_MAX, err);
        if (tb_streq(p->word, "limit"))
                return parse_number(p, "limit", "a number of packets", SHAPE_LIMIT, SHAPE_LIMIT_MAX, err);
        if (tb_streq(p->word, "seed"))
                return parse_seed(p, err);
        return parser_fail(p->word, err,
                "words are up, down, rate, delay, distribution, loss, duplicate, corrupt, reorder, gap, "
                "limit, "
                "seed");
}

int shape_spec_parse(const char *spec, ShapePair *ret, TbError **err)
{
        Parser p = {.next = spec, .direction = DIRECTION_BOTH};

        if (strnlen(spec, SHAPE_SPEC_MAX + 1) > SHAPE_SPEC_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "bad shape: longer than %d bytes", SHAPE_SPEC_MAX);
        int r = parser_next(&p, err);
        if (r < 0)
                return r;
        while (p.have) {
                r = parse_item(&p, err);
                if (r < 0)
                        return r;
        }
        if (shape_is_empty(&p.pair.up) && shape_is_empty(&p.pair.down))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "bad shape: nothing in it; write for example 'rate 10mbit delay 20ms'");
        *ret = p.pair;
        return 0;
}

int shape_spec_parse_complete(const char *spec, ShapePair *ret, TbError **err)
{
        static const Shape nothing;
        ShapePair change, out;

        int r = shape_spec_parse(spec, &change, err);
        if (r < 0)
                return r;
        shape_merge(&nothing, &change.up, &out.up);
        shape_merge(&nothing, &change.down, &out.down);
        r = shape_validate(&out.up, "up", err);
        if (r < 0)
                return r;
        r = shape_validate(&out.down, "down", err);
        if (r < 0)
                return r;
        *ret = out;
        return 0;
}

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

static void text_add_chance(Text *t, const Shape *s, const char *keyword, ShapeField f, uint32_t v,
        ShapeField corr_field, uint32_t corr)
{
        char buf[TB_UNIT_TEXT_MAX];

        if (!shape_has(s, f))
                return;
        text_add(t, keyword);
        text_add(t, tb_format_percent(buf, v));
        if (shape_has(s, corr_field))
                text_add(t, tb_format_percent(buf, corr));
}

static void text_add_shape(Text *t, const Shape *s)
{
        char buf[TB_UNIT_TEXT_MAX];

        if (shape_has(s, SHAPE_RATE)) {
                text_add(t, "rate");
                text_add(t, tb_format_rate(buf, s->rate_bps));
        }
        if (shape_has(s, SHAPE_DELAY)) {
                text_add(t, "delay");
                text_add(t, tb_format_time(buf, s->delay_ns));
                if (shape_has(s, SHAPE_JITTER)) {
                        text_add(t, tb_format_time(buf, s->jitter_ns));
                        if (shape_has(s, SHAPE_DELAY_CORRELATION))
                                text_add(t, tb_format_percent(buf, s->delay_correlation));
                }
        }
        if (shape_has(s, SHAPE_DISTRIBUTION)) {
                text_add(t, "distribution");
                text_add(t, shape_distribution_to_string(s->distribution));
        }
        text_add_chance(t, s, "loss", SHAPE_LOSS, s->loss, SHAPE_LOSS_CORRELATION, s->loss_correlation);
        text_add_chance(t, s, "duplicate", SHAPE_DUPLICATE, s->duplicate, SHAPE_DUPLICATE_CORRELATION,
                s->duplicate_correlation);
        text_add_chance(t, s, "corrupt", SHAPE_CORRUPT, s->corrupt, SHAPE_CORRUPT_CORRELATION,
                s->corrupt_correlation);
        text_add_chance(t, s, "reorder", SHAPE_REORDER, s->reorder, SHAPE_REORDER_CORRELATION,
                s->reorder_correlation);
        if (shape_has(s, SHAPE_GAP)) {
                text_add(t, "gap");
                text_add_number(t, s->gap);
        }
        if (shape_has(s, SHAPE_LIMIT)) {
                text_add(t, "limit");
                text_add_number(t, s->limit);
        }
        if (shape_has(s, SHAPE_SEED)) {
                text_add(t, "seed");
                text_add_number(t, s->seed);
        }
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
