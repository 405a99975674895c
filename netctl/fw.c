/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

static const char *const style_table[] = {
        [FW_NONE] = "none",
        [FW_OPEN] = "open",
        [FW_BASIC] = "basic",
        [FW_CLOSED] = "closed",
};
static_assert(ELEMENTSOF(style_table) == _FW_STYLE_MAX, "one name per style");

const char *fw_style_to_string(FwStyle s)
{
        return s >= 0 && s < _FW_STYLE_MAX ? style_table[s] : NULL;
}

FwStyle fw_style_from_string(const char *s)
{
        for (int i = 0; i < _FW_STYLE_MAX; i++)
                if (tb_streq(s, style_table[i]))
                        return (FwStyle) i;
        return _FW_STYLE_INVALID;
}

int fw_network_parse(const char *s, FwNetwork *ret, TbError **err)
{
        char address[INET_ADDRSTRLEN];
        const char *slash = strchr(s, '/');
        size_t n = slash ? (size_t) (slash - s) : strlen(s);
        uint32_t prefix = 32;
        FwNetwork w = {};
        _cleanup_free_ char *shown = tb_escape(s, 40);
        const char *why = "is not an IPv4 address or network";

        if (n >= sizeof(address))
                goto bad;
        memcpy(address, s, n);
        address[n] = '\0';
        if (inet_pton(AF_INET, address, &w.address) != 1)
                goto bad;
        if (slash && tb_parse_u32(slash + 1, 0, 32, &prefix, NULL) < 0)
                goto bad;
        uint32_t mask = prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
        if (ntohl(w.address.s_addr) & ~mask) {
                why = "has bits set behind its prefix";
                goto bad;
        }
        w.prefix = (uint8_t) prefix;
        *ret = w;
        return 0;
bad:
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "'%s' %s; write for example 10.1.0.0/16",
                shown ? shown : "?", why);
}
