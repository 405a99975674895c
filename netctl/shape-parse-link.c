/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SPEC: the items of the shaper and its queue. */

#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/shape-parser.h"

int parse_overhead(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parse_bytes(p, "overhead", "bytes per frame", 1, SHAPE_OVERHEAD_MAX, &v, err);
        return r < 0 ? r : PUT(p, SHAPE_OVERHEAD, "overhead", overhead, v, err);
}

int parse_mpu(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parse_bytes(p, "mpu", "bytes per frame", 1, SHAPE_MPU_MAX, &v, err);
        return r < 0 ? r : PUT(p, SHAPE_MPU, "mpu", mpu, v, err);
}

int parse_burst(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parse_bytes(p, "burst", "a size such as 32kb", SHAPE_BYTES_MIN, SHAPE_BYTES_MAX, &v, err);
        return r < 0 ? r : PUT(p, SHAPE_BURST, "burst", burst, v, err);
}

int parse_quantum(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parse_bytes(p, "quantum", "a size such as 3000b", 1000, 200000, &v, err);
        return r < 0 ? r : PUT(p, SHAPE_QUANTUM, "quantum", quantum, v, err);
}

int parse_linklayer(Parser *p, TbError **err)
{
        uint32_t v;

        int r = parser_need(p, "linklayer", "one of ethernet, atm, adsl", err);
        if (r < 0)
                return r;
        if (tb_streq(p->word, "ethernet"))
                v = SHAPE_ETHERNET;
        else if (tb_streq(p->word, "atm") || tb_streq(p->word, "adsl"))
                v = SHAPE_ATM;
        else
                return parser_fail(p->word, err, "link layers are ethernet, atm and adsl");
        r = PUT(p, SHAPE_LINKLAYER, "linklayer", linklayer, v, err);
        return r < 0 ? r : parser_next(p, err);
}

/* netem's numbers behind a rate: packet overhead, cell size, cell overhead. Cells other than ATM's are none that HTB knows. */
static int parse_cells(Parser *p, TbError **err)
{
        const uint32_t atm = SHAPE_ATM;
        uint32_t v;

        int r = tb_parse_u32(p->word, 0, SHAPE_OVERHEAD_MAX, &v, err);
        if (r < 0)
                return parser_prefix(r, err, "rate (packet overhead)");
        r = PUT(p, SHAPE_OVERHEAD, "overhead", overhead, v, err);
        if (r < 0)
                return r;
        r = parser_next(p, err);
        if (r < 0 || !parser_at_number(p))
                return r;
        bool fits = tb_streq(p->word, "48");
        if (fits) {
                r = parser_need(p, "rate", "a cell overhead of 5", err);
                if (r < 0)
                        return r;
                fits = tb_streq(p->word, "5");
        }
        if (!fits)
                return parser_fail(p->word, err,
                        "the cells that the shaper can count are those of ATM: 'rate RATE OVERHEAD 48 5'");
        r = PUT(p, SHAPE_LINKLAYER, "linklayer", linklayer, atm, err);
        return r < 0 ? r : parser_next(p, err);
}

int parse_rate(Parser *p, TbError **err)
{
        static const ShapeField dependents[] = {
                SHAPE_OVERHEAD, SHAPE_MPU, SHAPE_LINKLAYER, SHAPE_BURST, SHAPE_QUANTUM};
        uint64_t v;

        int r = parser_need(p, "rate", "a rate such as 10mbit", err);
        if (r < 0)
                return r;
        r = tb_parse_rate(p->word, &v, err);
        if (r < 0)
                return parser_prefix(r, err, "rate");
        if (v != 0 && (v < SHAPE_RATE_MIN || v > SHAPE_RATE_MAX)) {
                _cleanup_free_ char *shown = tb_escape(p->word, SHAPE_WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "bad shape: rate '%s' is not between 1kbit and 40gbit", shown ? shown : "?");
        }
        r = PUT(p, SHAPE_RATE, "rate", rate_bps, v, err);
        /* What says how a rate is kept goes with it; the values are zero already. */
        for (size_t i = 0; r >= 0 && v == 0 && i < ELEMENTSOF(dependents); i++)
                r = parser_mark(p, dependents[i], "rate 0", err);
        if (r >= 0)
                r = parser_next(p, err);
        return r < 0 || !parser_at_number(p) ? r : parse_cells(p, err);
}

/* Plain digits are packets, with a unit it is bytes. */
int parse_limit(Parser *p, TbError **err)
{
        uint32_t v = 0;

        int r = parser_need(p, "limit", "a number of packets, or bytes such as 64kb", err);
        if (r < 0)
                return r;
        if (strspn(p->word, "0123456789") == strlen(p->word) || p->word[0] == '-') {
                r = tb_parse_u32(p->word, 0, SHAPE_LIMIT_MAX, &v, err);
                if (r < 0)
                        return parser_prefix(r, err, "limit");
                r = PUT(p, SHAPE_LIMIT, "limit", limit, v, err);
                return r < 0 ? r : parser_next(p, err);
        }
        uint64_t bytes;
        r = tb_parse_size(p->word, &bytes, err);
        if (r < 0)
                return parser_prefix(r, err, "limit");
        if (bytes != 0 && (bytes < SHAPE_BYTES_MIN || bytes > SHAPE_BYTES_MAX))
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "bad shape: limit is not between %u bytes (a full frame) and 1gb", SHAPE_BYTES_MIN);
        v = (uint32_t) bytes;
        r = PUT(p, SHAPE_LIMIT_BYTES, "limit", limit_bytes, v, err);
        return r < 0 ? r : parser_next(p, err);
}

/* One of the words behind "queue red"; 1: it was one. */
static int parse_red_word(Parser *p, TbError **err)
{
        uint32_t v = 0;
        int r;

        if (!p->have)
                return 0;
        if (tb_streq(p->word, "min")) {
                r = parse_bytes(p, "min", "a size such as 15kb", 1, SHAPE_RED_BYTES_MAX, &v, err);
                if (r >= 0)
                        r = PUT(p, SHAPE_RED_MIN, "min", red_min, v, err);
        } else if (tb_streq(p->word, "max")) {
                r = parse_bytes(p, "max", "a size such as 45kb", 1, SHAPE_RED_BYTES_MAX, &v, err);
                if (r >= 0)
                        r = PUT(p, SHAPE_RED_MAX, "max", red_max, v, err);
        } else if (tb_streq(p->word, "probability")) {
                r = parser_need(p, "probability", "a probability such as 2%", err);
                if (r >= 0)
                        r = parse_percent_word(p, "probability", &v, err);
                if (r >= 0)
                        r = PUT(p, SHAPE_RED_PROBABILITY, "probability", red_probability, v, err);
        } else if (tb_streq(p->word, "harddrop"))
                r = parse_switch(p, "harddrop", SHAPE_RED_HARDDROP, offsetof(Shape, red_harddrop), err);
        else if (tb_streq(p->word, "adaptive"))
                r = parse_switch(p, "adaptive", SHAPE_RED_ADAPTIVE, offsetof(Shape, red_adaptive), err);
        else
                return 0;
        return r < 0 ? r : 1;
}

int parse_queue(Parser *p, TbError **err)
{
        static const ShapeField dependents[] = {
                SHAPE_RED_MIN, SHAPE_RED_MAX, SHAPE_RED_PROBABILITY, SHAPE_RED_HARDDROP, SHAPE_RED_ADAPTIVE};
        uint32_t v;

        int r = parser_need(p, "queue", "one of fifo, red", err);
        if (r < 0)
                return r;
        if (!tb_streq(p->word, "fifo") && !tb_streq(p->word, "red"))
                return parser_fail(p->word, err, "queues are fifo and red");
        v = p->word[0] == 'r' ? SHAPE_RED : SHAPE_FIFO;
        r = PUT(p, SHAPE_QUEUE, "queue", queue, v, err);
        if (r >= 0)
                r = parser_next(p, err);
        if (v == SHAPE_FIFO) { /* all of it goes; the values are zero already */
                for (size_t i = 0; r >= 0 && i < ELEMENTSOF(dependents); i++)
                        r = parser_mark(p, dependents[i], "queue fifo", err);
                return r;
        }
        while (r >= 0) {
                r = parse_red_word(p, err);
                if (r == 0)
                        break;
        }
        return r;
}

int parse_link(Parser *p, TbError **err)
{
        uint32_t v;

        int r = parser_need(p, "link", "down or up", err);
        if (r < 0)
                return r;
        if (!tb_streq(p->word, "down") && !tb_streq(p->word, "up"))
                return parser_fail(p->word, err, "a link is down or up");
        v = p->word[0] == 'd';
        r = PUT(p, SHAPE_LINK, "link", link_down, v, err);
        return r < 0 ? r : parser_next(p, err);
}

int parse_offload(Parser *p, TbError **err)
{
        uint32_t v;

        int r = parser_need(p, "offload", "one of on, off, auto", err);
        if (r < 0)
                return r;
        if (tb_streq(p->word, "on"))
                v = SHAPE_OFFLOAD_ON;
        else if (tb_streq(p->word, "off"))
                v = SHAPE_OFFLOAD_OFF;
        else if (tb_streq(p->word, "auto"))
                v = SHAPE_OFFLOAD_AUTO;
        else
                return parser_fail(p->word, err, "offload is on, off or auto");
        r = PUT(p, SHAPE_OFFLOAD, "offload", offload, v, err);
        return r < 0 ? r : parser_next(p, err);
}
