/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/log-time.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define NS UINT64_C(1000000000)
#define DAY_NS (86400 * NS)

uint64_t log_time_now(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t) t.tv_sec * NS + (uint64_t) t.tv_nsec;
}

const char *log_time_print(char buffer[static LOG_TIME_MAX], uint64_t ns)
{
        time_t seconds = (time_t) (ns / NS);
        struct tm t = {};
        size_t n = 0;

        if (gmtime_r(&seconds, &t))
                n = strftime(buffer, LOG_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &t);
        (void) snprintf(buffer + n, LOG_TIME_MAX - n, ".%09uZ", (unsigned) (ns % NS));
        return buffer;
}

/* `n` digits; false: there are others among them. */
static bool digits(const char *s, size_t n, unsigned *ret)
{
        unsigned v = 0;

        for (size_t i = 0; i < n; i++) {
                if (s[i] < '0' || s[i] > '9')
                        return false;
                v = v * 10 + (unsigned) (s[i] - '0');
        }
        *ret = v;
        return true;
}

/* ".123456789": ns, and the bytes it has; 0 bytes: there is none. */
static size_t fraction(const char *s, size_t size, uint64_t *ret_ns)
{
        uint64_t v = 0, unit = NS / 10;
        size_t i = 1;

        *ret_ns = 0;
        if (size < 2 || s[0] != '.' || s[1] < '0' || s[1] > '9')
                return 0;
        for (; i < size && s[i] >= '0' && s[i] <= '9'; i++) {
                v += (uint64_t) (s[i] - '0') * unit;
                unit /= 10;
        }
        *ret_ns = v;
        return i;
}

/* Seconds since 1970; false: there is no such day or time. A leap second counts as the one before. */
static bool to_seconds(unsigned year, unsigned month, unsigned day, unsigned hour, unsigned minute,
        unsigned second, int64_t *ret)
{
        struct tm t = {.tm_year = (int) year - 1900,
                .tm_mon = (int) month - 1,
                .tm_mday = (int) day,
                .tm_hour = (int) hour,
                .tm_min = (int) minute,
                .tm_sec = (int) MIN2(second, 59U)};
        time_t v;

        if (year < 1970 || year > 2500 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
                minute > 59 || second > 60)
                return false;
        v = timegm(&t); /* normalizes: February 30 becomes March */
        if (t.tm_mday != (int) day)
                return false;
        *ret = v;
        return true;
}

size_t log_time_rfc3339(const char *s, size_t size, uint64_t *ret_ns)
{
        unsigned year, month, day, hour, minute, second, off_hour = 0, off_minute = 0;
        int64_t seconds;
        uint64_t ns;
        size_t n = 19;

        if (size < 20 || !digits(s, 4, &year) || s[4] != '-' || !digits(s + 5, 2, &month) || s[7] != '-' ||
                !digits(s + 8, 2, &day) || (s[10] != 'T' && s[10] != 't' && s[10] != ' ') ||
                !digits(s + 11, 2, &hour) || s[13] != ':' || !digits(s + 14, 2, &minute) || s[16] != ':' ||
                !digits(s + 17, 2, &second) || !to_seconds(year, month, day, hour, minute, second, &seconds))
                return 0;
        n += fraction(s + n, size - n, &ns);
        if (n >= size)
                return 0;
        if (s[n] == 'Z' || s[n] == 'z')
                n++;
        else {
                if ((s[n] != '+' && s[n] != '-') || size - n < 6 || !digits(s + n + 1, 2, &off_hour) ||
                        s[n + 3] != ':' || !digits(s + n + 4, 2, &off_minute) || off_hour > 23 ||
                        off_minute > 59)
                        return 0;
                seconds += (s[n] == '+' ? -1 : 1) * (int64_t) (off_hour * 3600 + off_minute * 60);
                n += 6;
        }
        if (seconds < 0)
                return 0;
        *ret_ns = (uint64_t) seconds * NS + ns;
        return n;
}

bool log_time_syslog(const char *s, size_t size, uint64_t now_ns, uint64_t *ret_ns)
{
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        unsigned month = 0, day, hour, minute, second;
        time_t now = (time_t) (now_ns / NS);
        struct tm today;
        uint64_t ns;

        if (size < 16 || s[3] != ' ' || !digits(s + 4 + (s[4] == ' '), s[4] == ' ' ? 1 : 2, &day) ||
                s[6] != ' ' || !digits(s + 7, 2, &hour) || s[9] != ':' || !digits(s + 10, 2, &minute) ||
                s[12] != ':' || !digits(s + 13, 2, &second) || !gmtime_r(&now, &today))
                return false;
        while (month < 12 && memcmp(s, months + 3 * (size_t) month, 3) != 0)
                month++;
        if (month == 12)
                return false;
        (void) fraction(s + 15, size - 15, &ns);
        /* The newest year in which that is not in the future. Four back: February 29. */
        for (unsigned back = 0; back <= 4; back++) {
                int64_t seconds;

                if (!to_seconds((unsigned) today.tm_year + 1900 - back, month + 1, day, hour, minute, second,
                            &seconds) ||
                        (uint64_t) seconds * NS + ns > now_ns + DAY_NS)
                        continue;
                *ret_ns = (uint64_t) seconds * NS + ns;
                return true;
        }
        return false;
}

/* "1h30m": each unit at most once, from the largest on. */
static bool parse_duration(const char *s, uint64_t *ret_ns)
{
        static const struct {
                const char *suffix;
                uint64_t ns;
        } units[] = {{"d", DAY_NS}, {"h", 3600 * NS}, {"m", 60 * NS}, {"s", NS}, {"ms", NS / 1000}};
        size_t next = 0;
        uint64_t sum = 0;

        if (!*s)
                return false;
        while (*s) {
                _cleanup_free_ char *number = NULL;
                size_t n = strspn(s, "0123456789"), letters = strcspn(s + n, "0123456789"), u = next;
                uint64_t v;

                number = strndup(s, n);
                if (!number || tb_parse_u64(number, 0, UINT64_C(100000000), &v, NULL) < 0)
                        return false;
                while (u < ELEMENTSOF(units) &&
                        (strlen(units[u].suffix) != letters || memcmp(units[u].suffix, s + n, letters) != 0))
                        u++;
                if (u == ELEMENTSOF(units) || v > (UINT64_MAX / 2 - sum) / units[u].ns)
                        return false;
                sum += v * units[u].ns;
                next = u + 1;
                s += n + letters;
        }
        *ret_ns = sum;
        return true;
}

int log_time_since(const char *s, uint64_t now_ns, uint64_t *ret_ns, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        size_t size = strlen(s);
        uint64_t ns;

        if (parse_duration(s, &ns)) {
                *ret_ns = ns < now_ns ? now_ns - ns : 0;
                return 0;
        }
        if (size > 0 && log_time_rfc3339(s, size, ret_ns) == size)
                return 0;
        shown = tb_escape(s, 60);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "'%s' is no time: write how long ago (90s, 10m, 1h30m, 2d), or when, with its zone "
                "(2026-11-21T20:38:50Z, 2026-11-21T21:38:50+01:00)",
                shown ?: "");
}
