/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SPEC, the text form of shapes: reading (printing is in shape-text.c). */

#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/shape-parser.h"

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int parser_next(Parser *p, TbError **err)
{
        p->have = false;
        while (is_space(*p->next))
                p->next++;
        if (*p->next == '\0')
                return 0;

        size_t n = 0;
        while (p->next[n] != '\0' && !is_space(p->next[n]))
                n++;
        if (n > SHAPE_WORD_MAX) {
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

int parser_fail(const char *word, TbError **err, const char *advice)
{
        _cleanup_free_ char *shown = tb_escape(word, SHAPE_WORD_MAX);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape: unexpected '%s'; %s",
                shown ? shown : "?", advice);
}

bool parser_at_number(const Parser *p)
{
        return p->have && ((p->word[0] >= '0' && p->word[0] <= '9') || p->word[0] == '.');
}

int parser_need(Parser *p, const char *keyword, const char *what, TbError **err)
{
        int r = parser_next(p, err);
        if (r < 0)
                return r;
        if (!p->have)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "bad shape: '%s' needs %s behind it", keyword, what);
        return 0;
}

int parser_mark(Parser *p, ShapeField f, const char *keyword, TbError **err)
{
        uint64_t bit = UINT64_C(1) << f, alternatives = shape_alternatives(f);

        for (int i = 0; i < 2; i++) {
                Shape *s = i == 0 ? &p->pair.up : &p->pair.down;
                if (!(p->direction & (i == 0 ? DIRECTION_UP : DIRECTION_DOWN)))
                        continue;
                uint64_t there = s->set & alternatives;
                if (there != 0 && (p->direction == DIRECTION_BOTH || (there & ~p->common[i])))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "bad shape: '%s' is given twice for direction %s", keyword,
                                i == 0 ? "up" : "down");
                s->set = (s->set & ~alternatives) | bit;
                p->common[i] =
                        p->direction == DIRECTION_BOTH ? p->common[i] | bit : p->common[i] & ~alternatives;
        }
        return 0;
}

int parser_put(Parser *p, ShapeField f, const char *keyword, size_t member, const void *value, size_t size,
        TbError **err)
{
        int r = parser_mark(p, f, keyword, err);
        if (r < 0)
                return r;
        if (p->direction & DIRECTION_UP)
                memcpy((char *) &p->pair.up + member, value, size);
        if (p->direction & DIRECTION_DOWN)
                memcpy((char *) &p->pair.down + member, value, size);
        return 0;
}
int parser_prefix(int r, TbError **err, const char *keyword)
{
        tb_error_prefix(err, "bad shape: %s", keyword);
        return r;
}

int parse_time_word(
        Parser *p, const char *keyword, uint64_t max, const char *max_text, uint64_t *ret, TbError **err)
{
        int r = tb_parse_time(p->word, ret, err);
        if (r < 0)
                return parser_prefix(r, err, keyword);
        if (*ret > max) {
                _cleanup_free_ char *shown = tb_escape(p->word, SHAPE_WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "bad shape: %s '%s' is longer than %s",
                        keyword, shown ? shown : "?", max_text);
        }
        return 0;
}

int parse_bytes(Parser *p, const char *keyword, const char *example, uint32_t min, uint32_t max,
        uint32_t *ret, TbError **err)
{
        uint64_t v;

        int r = parser_need(p, keyword, example, err);
        if (r < 0)
                return r;
        r = tb_parse_size(p->word, &v, err);
        if (r < 0)
                return parser_prefix(r, err, keyword);
        if (v != 0 && (v < min || v > max)) {
                _cleanup_free_ char *shown = tb_escape(p->word, SHAPE_WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "bad shape: %s '%s' is not between %u and %u bytes", keyword, shown ? shown : "?",
                        min, max);
        }
        *ret = (uint32_t) v;
        return parser_next(p, err);
}

int parse_percent_word(Parser *p, const char *keyword, uint32_t *ret, TbError **err)
{
        int r = tb_parse_percent(p->word, ret, err);
        return r < 0 ? parser_prefix(r, err, keyword) : parser_next(p, err);
}

int parse_number(
        Parser *p, const char *keyword, const char *example, uint32_t max, uint32_t *ret, TbError **err)
{
        int r = parser_need(p, keyword, example, err);
        if (r < 0)
                return r;
        r = tb_parse_u32(p->word, 0, max, ret, err);
        return r < 0 ? parser_prefix(r, err, keyword) : parser_next(p, err);
}

int parse_switch(Parser *p, const char *keyword, ShapeField f, size_t member, TbError **err)
{
        uint32_t v = 1;

        int r = parser_next(p, err);
        if (r >= 0 && p->have && (tb_streq(p->word, "off") || tb_streq(p->word, "on"))) {
                v = tb_streq(p->word, "on");
                r = parser_next(p, err);
        }
        return r < 0 ? r : parser_put(p, f, keyword, member, &v, sizeof(v), err);
}

static int parse_direction(Parser *p, TbError **err)
{
        p->direction = p->word[0] == 'u' ? DIRECTION_UP : DIRECTION_DOWN;
        return parser_next(p, err);
}

static int parse_ecn(Parser *p, TbError **err)
{
        return parse_switch(p, "ecn", SHAPE_ECN, offsetof(Shape, ecn), err);
}

static const struct {
        const char *word;
        int (*parse)(Parser *p, TbError **err);
} items[] = {
        {"up", parse_direction},
        {"down", parse_direction},
        {"rate", parse_rate},
        {"overhead", parse_overhead},
        {"mpu", parse_mpu},
        {"linklayer", parse_linklayer},
        {"burst", parse_burst},
        {"quantum", parse_quantum},
        {"delay", parse_delay},
        {"distribution", parse_distribution},
        {"loss", parse_loss},
        {"ecn", parse_ecn},
        {"duplicate", parse_duplicate},
        {"corrupt", parse_corrupt},
        {"reorder", parse_reorder},
        {"gap", parse_gap},
        {"slot", parse_slot},
        {"limit", parse_limit},
        {"queue", parse_queue},
        {"seed", parse_seed},
        {"link", parse_link},
        {"offload", parse_offload},
};

/* Reads one item; the current word is its keyword, afterwards it is the word behind the item. */
static int parse_item(Parser *p, TbError **err)
{
        for (size_t i = 0; i < ELEMENTSOF(items); i++)
                if (tb_streq(p->word, items[i].word))
                        return items[i].parse(p, err);
        return parser_fail(p->word, err,
                "words are up, down, rate, overhead, mpu, linklayer, burst, quantum, delay, distribution, "
                "loss, "
                "ecn, duplicate, corrupt, reorder, gap, slot, limit, queue, seed, link, offload");
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
