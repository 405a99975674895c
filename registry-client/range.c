/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Range headers of both directions. They are numbers that decide which bytes are where: nothing is guessed. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define NUMBER_MAX 20U

/* Digits only, at *p, which moves behind them. */
static bool read_number(const char **p, uint64_t *ret)
{
        size_t n = strspn(*p, "0123456789");
        char text[NUMBER_MAX + 1];

        if (n == 0 || n > NUMBER_MAX)
                return false;
        memcpy(text, *p, n);
        text[n] = 0;
        if (tb_parse_u64(text, 0, INT64_MAX, ret, NULL) < 0)
                return false;
        *p += n;
        return true;
}

bool registry_content_range_parse(const char *header, RegistryContentRange *ret)
{
        RegistryContentRange r = {.total = UINT64_MAX};
        const char *p = header;

        if (strncasecmp(p, "bytes", 5) != 0 || (p[5] != ' ' && p[5] != '\t'))
                return false;
        p += 5;
        p += strspn(p, " \t");
        if (!read_number(&p, &r.first) || *p++ != '-' || !read_number(&p, &r.last) || *p++ != '/')
                return false;
        if (*p == '*')
                p++;
        else if (!read_number(&p, &r.total))
                return false;
        p += strspn(p, " \t");
        if (*p || r.last < r.first || (r.total != UINT64_MAX && r.last >= r.total))
                return false;
        *ret = r;
        return true;
}

int registry_upload_range_parse(const char *header, uint64_t *ret_count)
{
        const char *p = header;
        uint64_t first, last;

        p += strspn(p, " \t");
        /* The specification has no unit here; some servers write one, as in RFC 9110. */
        if (strncasecmp(p, "bytes=", 6) == 0 || strncasecmp(p, "bytes ", 6) == 0)
                p += 6;
        if (!read_number(&p, &first) || *p++ != '-' || !read_number(&p, &last))
                return -EPROTO;
        p += strspn(p, " \t");
        if (*p || first != 0)
                return -EPROTO;
        if (last == 0)
                return -EAGAIN;
        *ret_count = last + 1;
        return 0;
}
