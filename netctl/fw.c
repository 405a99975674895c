/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

static const char *const style_table[] = {
        [FW_NONE] = "none",
        [FW_OPEN] = "open",
        [FW_BASIC] = "basic",
        [FW_CLOSED] = "closed",
        [FW_ELABINELAB] = "elabinelab",
};
static_assert(ELEMENTSOF(style_table) == _FW_STYLE_MAX, "one name per style");

static const char *const direction_table[] = {
        [FW_IN] = "in",
        [FW_OUT] = "out",
        [FW_HOST] = "host",
};
static_assert(ELEMENTSOF(direction_table) == _FW_DIRECTION_MAX, "one name per direction");

static const char *const origin_table[] = {
        [FW_ORIGIN_STATE] = "connection",
        [FW_ORIGIN_USER] = "user",
        [FW_ORIGIN_SITE] = "site",
        [FW_ORIGIN_STYLE] = "style",
        [FW_ORIGIN_HOST] = "host",
};
static_assert(ELEMENTSOF(origin_table) == _FW_ORIGIN_MAX, "one name per origin");

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

const char *fw_direction_to_string(FwDirection d)
{
        return d >= 0 && d < _FW_DIRECTION_MAX ? direction_table[d] : NULL;
}

const char *fw_origin_to_string(FwOrigin o)
{
        return o < _FW_ORIGIN_MAX ? origin_table[o] : NULL;
}

static unsigned address_bits(sa_family_t family)
{
        return family == AF_INET6 ? 128 : 32;
}

static bool bits_behind_are_zero(const FwNetwork *n)
{
        for (unsigned i = n->prefix; i < address_bits(n->family); i++)
                if (n->bytes[i / 8] & (0x80U >> (i % 8)))
                        return false;
        return true;
}

int fw_network_parse(const char *s, FwNetwork *ret, TbError **err)
{
        char address[INET6_ADDRSTRLEN];
        const char *slash = strchr(s, '/');
        size_t n = slash ? (size_t) (slash - s) : strlen(s);
        FwNetwork w = {};
        uint32_t prefix;
        const char *why = "is not an IPv4 or IPv6 address or network";

        if (n >= sizeof(address))
                goto bad;
        memcpy(address, s, n);
        address[n] = '\0';
        w.family = strchr(address, ':') ? AF_INET6 : AF_INET;
        if (inet_pton(w.family, address, w.bytes) != 1)
                goto bad;
        prefix = address_bits(w.family);
        if (slash && tb_parse_u32(slash + 1, 0, prefix, &prefix, NULL) < 0)
                goto bad;
        w.prefix = (uint8_t) prefix;
        if (!bits_behind_are_zero(&w)) {
                why = "has bits set behind its prefix";
                goto bad;
        }
        *ret = w;
        return 0;
bad:;
        _cleanup_free_ char *shown = tb_escape(s, 60);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "'%s' %s; write for example 10.1.0.0/16",
                shown ? shown : "?", why);
}

const char *fw_network_print(const FwNetwork *n, char buf[static FW_NETWORK_TEXT_MAX])
{
        char address[INET6_ADDRSTRLEN];

        if (n->family == AF_UNSPEC || !inet_ntop(n->family, n->bytes, address, sizeof(address)))
                (void) snprintf(buf, FW_NETWORK_TEXT_MAX, "any");
        else if (n->prefix == address_bits(n->family))
                (void) snprintf(buf, FW_NETWORK_TEXT_MAX, "%s", address);
        else
                (void) snprintf(buf, FW_NETWORK_TEXT_MAX, "%s/%u", address, n->prefix);
        return buf;
}

FwNetwork fw_network_ipv4(struct in_addr address)
{
        FwNetwork n = {.family = AF_INET, .prefix = 32};

        n.ipv4 = address;
        return n;
}

FwNetwork fw_network_ipv6(const struct in6_addr *address)
{
        FwNetwork n = {.family = AF_INET6, .prefix = 128};

        n.ipv6 = *address;
        return n;
}

bool fw_network_contains(const FwNetwork *n, const FwNetwork *address)
{
        unsigned whole = n->prefix / 8, rest = n->prefix % 8;

        if (n->family == AF_UNSPEC)
                return true;
        return n->family == address->family && memcmp(n->bytes, address->bytes, whole) == 0 &&
                (rest == 0 ||
                        ((n->bytes[whole] ^ address->bytes[whole]) & (0xffU << (8 - rest)) & 0xffU) == 0);
}

void fw_rules_done(FwRules *r)
{
        free(r->v);
        *r = (FwRules){};
}

int fw_rules_add(FwRules *r, const FwRule *rule, TbError **err)
{
        if (r->n == r->allocated) {
                size_t want = r->allocated > 0 ? r->allocated * 2 : 8;
                FwRule *p = reallocarray(r->v, want, sizeof(*p));
                if (!p)
                        return tb_error_oom(err);
                r->v = p;
                r->allocated = want;
        }
        r->v[r->n++] = *rule;
        return 0;
}

int fw_rules_copy(const FwRules *from, FwRules *ret, TbError **err)
{
        _cleanup_fw_rules_ FwRules copy = {};

        for (size_t i = 0; from && i < from->n; i++) {
                int r = fw_rules_add(&copy, from->v + i, err);
                if (r < 0)
                        return r;
        }
        *ret = copy;
        copy = (FwRules){};
        return 0;
}

static bool network_equal(const FwNetwork *a, const FwNetwork *b)
{
        return a->family == b->family && a->prefix == b->prefix &&
                memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static bool ports_equal(FwPorts a, FwPorts b)
{
        return a.first == b.first && a.last == b.last;
}

static bool rule_equal(const FwRule *a, const FwRule *b)
{
        return a->verdict == b->verdict && a->family == b->family && a->protocol == b->protocol &&
                a->echo == b->echo && a->states == b->states && a->log == b->log &&
                network_equal(&a->source, &b->source) && network_equal(&a->destination, &b->destination) &&
                ports_equal(a->source_ports, b->source_ports) &&
                ports_equal(a->destination_ports, b->destination_ports);
}

bool fw_rules_equal(const FwRules *a, const FwRules *b)
{
        if (a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++)
                if (!rule_equal(a->v + i, b->v + i))
                        return false;
        return true;
}

const char *fw_log_prefix(const char *name, FwDirection direction, char buf[static FW_LOG_PREFIX_MAX])
{
        const char *word = fw_direction_to_string(direction);
        int room = FW_LOG_PREFIX_MAX - 1 - (int) strlen("tbnode  : ") - (int) strlen(word);

        (void) snprintf(buf, FW_LOG_PREFIX_MAX, "tbnode %.*s %s: ", room, name ? name : "", word);
        return buf;
}
