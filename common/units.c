/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

/*
 * Numbers with units
 *
 * A text is I.F with f digits behind the point, a unit is a fraction num/den of the base unit. The result is
 *
 *         (I + F / 10^f) * num / den
 *
 * rounded once, at the end, in 128-bit integers: I < 2^64, F < 10^24 < 2^80, num < 2^44, den <= 100. The integer part
 * is I * num / den (< 2^108); what it leaves and the fraction's share stay below 2^125 after doubling. So nothing can
 * overflow, and no floating point decides whether 0.1 + 0.2 is 0.3.
 */

#define FRACTION_DIGITS_MAX 24u

typedef unsigned __int128 u128;

typedef struct Unit {
        const char *suffix;
        uint64_t num, den;
} Unit;

typedef struct Decimal {
        uint64_t integer;
        u128 fraction; /* F */
        u128 scale;    /* 10^f */
} Decimal;

/* What to say when a text is refused. */
typedef struct Subject {
        const char *noun, *example;
} Subject;

#define KI (UINT64_C(1) << 10)
#define MI (UINT64_C(1) << 20)
#define GI (UINT64_C(1) << 30)
#define TI (UINT64_C(1) << 40)
#define K UINT64_C(1000)
#define M (K * K)
#define G (K * M)
#define T (K * G)

/* tc(8), "UNITS", RATES: bits with "bit", bytes with "bps". */
static const Unit rate_units[] = {
        {"", 1, 1},
        {"bit", 1, 1},
        {"kbit", K, 1},
        {"mbit", M, 1},
        {"gbit", G, 1},
        {"tbit", T, 1},
        {"kibit", KI, 1},
        {"mibit", MI, 1},
        {"gibit", GI, 1},
        {"tibit", TI, 1},
        {"bps", 8, 1},
        {"kbps", 8 * K, 1},
        {"mbps", 8 * M, 1},
        {"gbps", 8 * G, 1},
        {"tbps", 8 * T, 1},
        {"kibps", 8 * KI, 1},
        {"mibps", 8 * MI, 1},
        {"gibps", 8 * GI, 1},
        {"tibps", 8 * TI, 1},
};

/* tc(8), "UNITS", TIMES: a bare number is microseconds. */
static const Unit time_units[] = {
        {"", K, 1},
        {"s", G, 1},
        {"sec", G, 1},
        {"secs", G, 1},
        {"ms", M, 1},
        {"msec", M, 1},
        {"msecs", M, 1},
        {"us", K, 1},
        {"usec", K, 1},
        {"usecs", K, 1},
        {"ns", 1, 1},
        {"nsec", 1, 1},
        {"nsecs", 1, 1},
};

/* tc(8), "UNITS", SIZES: powers of 1024, also for the bits. */
static const Unit size_units[] = {
        {"", 1, 1},
        {"b", 1, 1},
        {"k", KI, 1},
        {"kb", KI, 1},
        {"m", MI, 1},
        {"mb", MI, 1},
        {"g", GI, 1},
        {"gb", GI, 1},
        {"kbit", KI, 8},
        {"mbit", MI, 8},
        {"gbit", GI, 8},
};

static const Unit percent_units[] = {
        {"", UINT32_MAX, 1},
        {"%", UINT32_MAX, 100},
};

static int refuse(TbError **err, int code, const char *s, const Subject *subject, const char *why)
{
        _cleanup_free_ char *shown = tb_escape(s, 60);

        return tb_error_set(err, TB_ERROR_CONFIG, code, "\"%s\" is not a valid %s: %s; write for example %s",
                shown ?: "?", subject->noun, why, subject->example);
}

/* Reads I[.F]; *ret_end is where the unit begins. 0, -EINVAL or -ERANGE. */
static int parse_decimal(const char *s, Decimal *ret, const char **ret_end)
{
        Decimal d = {.scale = 1};
        const char *p = s;
        bool digits = false;

        for (; isdigit((unsigned char) *p); p++) {
                if (__builtin_mul_overflow(d.integer, 10, &d.integer) ||
                        __builtin_add_overflow(d.integer, (uint64_t) (*p - '0'), &d.integer))
                        return -ERANGE;
                digits = true;
        }
        if (*p == '.') {
                size_t n = strspn(p + 1, "0123456789"), used = n;

                if (n == 0)
                        return -EINVAL;
                while (used > 0 && p[used] == '0')
                        used--;
                if (used > FRACTION_DIGITS_MAX)
                        return -EINVAL;
                for (size_t i = 1; i <= used; i++) {
                        d.fraction = d.fraction * 10 + (unsigned) (p[i] - '0');
                        d.scale *= 10;
                }
                p += 1 + n;
                digits = true;
        }
        if (!digits)
                return -EINVAL;
        *ret = d;
        *ret_end = p;
        return 0;
}

/* 0, -ERANGE (too big) or -EDOM (not zero, but rounds to it). */
static int scale_decimal(const Decimal *d, const Unit *unit, uint64_t max, uint64_t *ret)
{
        u128 product = (u128) d->integer * unit->num;
        u128 whole = product / unit->den, rest = product % unit->den;
        u128 numerator = rest * d->scale + d->fraction * unit->num,
             denominator = (u128) unit->den * d->scale;

        whole += (2 * numerator + denominator) / (2 * denominator);
        if (whole > max)
                return -ERANGE;
        if (whole == 0 && (d->integer > 0 || d->fraction > 0))
                return -EDOM;
        *ret = (uint64_t) whole;
        return 0;
}

static int parse_with_unit(const char *s, const Unit *units, size_t n_units, uint64_t max,
        const Subject *subject, uint64_t *ret, TbError **err)
{
        const Unit *unit = NULL;
        const char *suffix;
        Decimal d;
        int r;

        r = parse_decimal(s, &d, &suffix);
        if (r < 0)
                return refuse(err, r, s, subject,
                        r == -ERANGE ? "it is too big" : "it does not start with a plain decimal number");

        for (size_t i = 0; i < n_units; i++)
                if (strcasecmp(units[i].suffix, suffix) == 0)
                        unit = &units[i];
        if (!unit)
                return refuse(err, -EINVAL, s, subject, "unknown unit");

        r = scale_decimal(&d, unit, max, ret);
        if (r < 0)
                return refuse(err, -ERANGE, s, subject,
                        r == -EDOM ? "it is too small to be told from zero" : "it is too big");
        return 0;
}

int tb_parse_rate(const char *s, uint64_t *ret_bps, TbError **err)
{
        static const Subject subject = {"rate", "10mbit, 1.5gbit or 500kbit"};

        return parse_with_unit(s, rate_units, ELEMENTSOF(rate_units), UINT64_MAX, &subject, ret_bps, err);
}

int tb_parse_time(const char *s, uint64_t *ret_ns, TbError **err)
{
        static const Subject subject = {"time", "20ms, 0.5s or 400us"};

        return parse_with_unit(s, time_units, ELEMENTSOF(time_units), UINT64_MAX, &subject, ret_ns, err);
}

int tb_parse_size(const char *s, uint64_t *ret_bytes, TbError **err)
{
        static const Subject subject = {"size", "1500, 64k or 2mb"};

        return parse_with_unit(s, size_units, ELEMENTSOF(size_units), UINT64_MAX, &subject, ret_bytes, err);
}

int tb_parse_percent(const char *s, uint32_t *ret_p32, TbError **err)
{
        static const Subject subject = {"probability", "5%, 0.1% or 0.001"};
        uint64_t v;
        int r;

        r = parse_with_unit(s, percent_units, ELEMENTSOF(percent_units), UINT32_MAX, &subject, &v, err);
        if (r < 0)
                return r;
        *ret_p32 = (uint32_t) v;
        return 0;
}

int tb_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        bool overflow = false;
        uint64_t v = 0;
        const char *p;

        for (p = s; isdigit((unsigned char) *p); p++)
                overflow = overflow || __builtin_mul_overflow(v, 10, &v) ||
                        __builtin_add_overflow(v, (uint64_t) (*p - '0'), &v);
        if (p != s && *p == 0 && !overflow && v >= min && v <= max) {
                *ret = v;
                return 0;
        }

        shown = tb_escape(s, 60);
        return tb_error_set(err, TB_ERROR_CONFIG, p == s || *p ? -EINVAL : -ERANGE,
                "\"%s\" is not a whole number from %llu to %llu", shown ?: "?", (unsigned long long) min,
                (unsigned long long) max);
}

int tb_parse_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret, TbError **err)
{
        uint64_t v;
        int r;

        r = tb_parse_u64(s, min, max, &v, err);
        if (r < 0)
                return r;
        *ret = (uint32_t) v;
        return 0;
}

int tb_parse_bool(const char *s, bool *ret, TbError **err)
{
        static const char *const yes[] = {"yes", "true", "on", "1"};
        static const char *const no[] = {"no", "false", "off", "0"};
        _cleanup_free_ char *shown = NULL;

        static_assert(ELEMENTSOF(yes) == ELEMENTSOF(no), "each word has its opposite");
        for (size_t i = 0; i < ELEMENTSOF(yes); i++) {
                bool v = strcasecmp(s, yes[i]) == 0;

                if (v || strcasecmp(s, no[i]) == 0) {
                        *ret = v;
                        return 0;
                }
        }
        shown = tb_escape(s, 60);
        return tb_error_set(
                err, TB_ERROR_CONFIG, -EINVAL, "\"%s\" is neither \"yes\" nor \"no\"", shown ?: "?");
}

/* In the biggest of the units (given in falling order, the last one is 1) that divides it. */
static const char *format_exact(char buf[static TB_UNIT_TEXT_MAX], uint64_t v, const Unit *units, size_t n)
{
        size_t i = 0;

        if (v == 0)
                i = n - 1;
        while (i < n - 1 && v % units[i].num != 0)
                i++;
        (void) snprintf(
                buf, TB_UNIT_TEXT_MAX, "%llu%s", (unsigned long long) (v / units[i].num), units[i].suffix);
        return buf;
}

const char *tb_format_rate(char buf[static TB_UNIT_TEXT_MAX], uint64_t bps)
{
        static const Unit units[] = {
                {"tbit", T, 1},
                {"gbit", G, 1},
                {"mbit", M, 1},
                {"kbit", K, 1},
                {"bit", 1, 1},
        };

        return format_exact(buf, bps, units, ELEMENTSOF(units));
}

const char *tb_format_time(char buf[static TB_UNIT_TEXT_MAX], uint64_t ns)
{
        static const Unit units[] = {
                {"s", G, 1},
                {"ms", M, 1},
                {"us", K, 1},
                {"ns", 1, 1},
        };

        return format_exact(buf, ns, units, ELEMENTSOF(units));
}

const char *tb_format_percent(char buf[static TB_UNIT_TEXT_MAX], uint32_t p32)
{
        uint64_t power = 1, hundredths = 0;
        int digits;

        /* One step is 2.3e-8 percent, so that 8 digits always tell two of them apart. */
        for (digits = 0; digits <= 8; digits++, power *= 10) {
                u128 denominator = (u128) 100 * power;
                u128 candidate = ((u128) p32 * denominator * 2 + UINT32_MAX) / (2 * (u128) UINT32_MAX);
                u128 back = (candidate * UINT32_MAX * 2 + denominator) / (2 * denominator);

                hundredths = (uint64_t) candidate;
                if (back == p32)
                        break;
        }
        if (digits == 0)
                (void) snprintf(buf, TB_UNIT_TEXT_MAX, "%llu%%", (unsigned long long) hundredths);
        else
                (void) snprintf(buf, TB_UNIT_TEXT_MAX, "%llu.%0*llu%%",
                        (unsigned long long) (hundredths / power), digits,
                        (unsigned long long) (hundredths % power));
        return buf;
}

const char *tb_format_bytes(char buf[static TB_UNIT_TEXT_MAX], uint64_t bytes)
{
        static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
        uint64_t unit = 1, rounded;
        size_t i = 0;

        if (bytes < 1000) {
                (void) snprintf(buf, TB_UNIT_TEXT_MAX, "%llu B", (unsigned long long) bytes);
                return buf;
        }

        /* The next unit as soon as two decimals would show 1000.00. */
        do {
                unit *= 1000;
                i++;
                rounded = (uint64_t) (((u128) bytes * 200 + unit) / (2 * (u128) unit));
        } while (rounded >= 100000 && i + 1 < ELEMENTSOF(names));
        (void) snprintf(buf, TB_UNIT_TEXT_MAX, "%llu.%02llu %s", (unsigned long long) (rounded / 100),
                (unsigned long long) (rounded % 100), names[i]);
        return buf;
}

uint64_t tb_now_ns(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this clock */
        return (uint64_t) ts.tv_sec * G + (uint64_t) ts.tv_nsec;
}

uint64_t tb_now_us(void)
{
        return tb_now_ns() / K;
}
