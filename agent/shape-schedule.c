/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "agent/shape-schedule.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

static uint64_t clock_us(clockid_t id)
{
        struct timespec t = {};

        (void) clock_gettime(id, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

uint64_t shape_now_us(void)
{
        return clock_us(CLOCK_BOOTTIME);
}

void shape_clock_now(ShapeClock *ret)
{
        sd_id128_t id;

        *ret = (ShapeClock){.boot_us = shape_now_us(), .real_us = clock_us(CLOCK_REALTIME)};
        if (sd_id128_get_boot(&id) >= 0)
                (void) sd_id128_to_string(id, ret->boot);
}

static int parse_us(const char *what, const char *text, uint64_t min, uint64_t max, const char *range,
        uint64_t *ret, TbError **err)
{
        uint64_t ns = 0;

        int r = tb_parse_time(text, &ns, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", what);
                return r;
        }
        if (ns / 1000 < min || ns / 1000 > max) {
                _cleanup_free_ char *shown = tb_escape(text, 32);
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "%s '%s' is not between %s", what,
                        shown ?: "", range);
        }
        *ret = ns / 1000;
        return 0;
}

int shape_for_parse(const char *text, uint64_t *ret_us, TbError **err)
{
        return parse_us("for", text, SHAPE_FOR_MIN_US, SHAPE_FOR_MAX_US, "100ms and 30 days", ret_us, err);
}

int shape_flap_parse(const char *text, uint64_t now, ShapeFlap *ret, TbError **err)
{
        char words[3][32] = {}, more[2];
        ShapeFlap f = {.start_us = now};

        int n = sscanf(text, "%31s %31s %31s %1s", words[0], words[1], words[2], more);
        if (n < 2 || n > 3)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "flap: how long the link is down and how long it is up are expected, like '2s 5s', "
                        "and "
                        "perhaps how often");
        int r = parse_us(
                "flap", words[0], SHAPE_FLAP_MIN_US, SHAPE_FLAP_MAX_US, "100ms and a day", &f.down_us, err);
        if (r >= 0)
                r = parse_us("flap", words[1], SHAPE_FLAP_MIN_US, SHAPE_FLAP_MAX_US, "100ms and a day",
                        &f.up_us, err);
        if (r >= 0 && n == 3)
                r = tb_parse_u32(words[2], 1, SHAPE_FLAP_COUNT_MAX, &f.count, err);
        if (r < 0)
                return r;
        *ret = f;
        return 0;
}

/* Which period `now` is in, and how far in it; false when there is none (any more, or yet). */
static bool flap_phase(const ShapeFlap *f, uint64_t now, uint64_t *ret_period, uint64_t *ret_in)
{
        if (f->down_us == 0 || now < f->start_us)
                return false;
        uint64_t period = f->down_us + f->up_us, elapsed = now - f->start_us;
        if (f->count > 0 && elapsed / period >= f->count)
                return false;
        *ret_period = elapsed / period;
        *ret_in = elapsed % period;
        return true;
}

bool shape_flap_is_down(const ShapeFlap *f, uint64_t now)
{
        uint64_t period, in;

        return flap_phase(f, now, &period, &in) && in < f->down_us;
}

uint64_t shape_flap_next(const ShapeFlap *f, uint64_t now)
{
        uint64_t period, in;

        if (f->down_us > 0 && now < f->start_us)
                return f->start_us;
        if (!flap_phase(f, now, &period, &in))
                return UINT64_MAX;
        uint64_t begin = now - in;
        if (in < f->down_us)
                return begin + f->down_us;
        /* The last time up needs no edge at its end. */
        return f->count > 0 && period + 1 == f->count ? UINT64_MAX : begin + f->down_us + f->up_us;
}

json_t *shape_instant_to_json(uint64_t boot_us, const ShapeClock *now)
{
        /* Signed: an instant may lie before this boot. */
        int64_t from_now = (int64_t) (boot_us - now->boot_us);

        return json_pack("{s:s, s:I, s:I}", "boot", now->boot, "boottime_us", (json_int_t) boot_us,
                "realtime_us", (json_int_t) ((int64_t) now->real_us + from_now));
}

int shape_instant_from_json(const json_t *j, const ShapeClock *now, uint64_t *ret_us, TbError **err)
{
        const char *boot = NULL;
        uint64_t boot_us = 0, real_us = 0;

        int r = tb_json_get_string(j, "boot", &boot, err);
        if (r >= 0)
                r = tb_json_get_u64(j, "boottime_us", &boot_us, err);
        if (r >= 0)
                r = tb_json_get_u64(j, "realtime_us", &real_us, err);
        if (r < 0)
                return r;
        if (boot && tb_streq(boot, now->boot)) {
                *ret_us = boot_us;
                return 0;
        }
        /* Another boot: what is left by the wall clock. */
        if (real_us >= now->real_us)
                *ret_us = now->boot_us + MIN2(real_us - now->real_us, SHAPE_FOR_MAX_US);
        else
                *ret_us =
                        now->boot_us > now->real_us - real_us ? now->boot_us - (now->real_us - real_us) : 1;
        return 0;
}
