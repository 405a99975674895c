/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ifb: the device whose root shapes what a node sends. One per shaped `up` direction, one queue (pitfall P17), explicit
 * txqlen (P16). The kernel does not take an alias when a link is made, so making one is two messages.
 */

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>

#include "common/strv.h"
#include "common/units.h"
#include "netctl/tc.h"

#define ALIAS_PREFIX "tbnode:"

int ifb_identity(uint32_t veth, const char *node_id, IfbState *ret)
{
        IfbState s = {
                .present = true,
                .up = true,
                .txqlen = TC_IFB_TXQLEN,
                .ifindex = TC_IFB_INDEX_BASE + veth,
        };

        int n = snprintf(s.name, sizeof(s.name), "tbi%u", veth);
        if (n < 0 || (size_t) n >= sizeof(s.name) || veth == 0 || veth >= TC_IFB_INDEX_BASE)
                return -EINVAL;
        n = snprintf(s.alias, sizeof(s.alias), ALIAS_PREFIX "%s:%u:up", node_id, veth);
        if (n < 0 || (size_t) n >= sizeof(s.alias))
                return -EINVAL;
        *ret = s;
        return 0;
}

bool ifb_parse_alias(const char *alias, char *id, uint32_t *veth)
{
        const char *rest = tb_startswith(alias, ALIAS_PREFIX);
        char number[16];
        uint32_t v;

        if (!rest)
                return false;
        size_t n = strcspn(rest, ":");
        if (n == 0 || n >= TC_ALIAS_MAX || rest[n] != ':')
                return false;
        const char *digits = rest + n + 1;
        size_t m = strcspn(digits, ":");
        if (m == 0 || m >= sizeof(number) || !tb_streq(digits + m, ":up"))
                return false;
        memcpy(number, digits, m);
        number[m] = '\0';
        if (tb_parse_u32(number, 1, INT32_MAX, &v, NULL) < 0)
                return false;
        memcpy(id, rest, n);
        id[n] = '\0';
        *veth = v;
        return true;
}

void ifb_encode_create(NlWriter *w, const IfbState *ifb)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int) ifb->ifindex};

        nlw_begin(w, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
        nlw_put_string(w, IFLA_IFNAME, ifb->name);
        nlw_put_u32(w, IFLA_TXQLEN, ifb->txqlen);
        nlw_put_u32(w, IFLA_NUM_TX_QUEUES, 1);
        nlw_put_u32(w, IFLA_NUM_RX_QUEUES, 1);
        size_t info = nlw_nest(w, IFLA_LINKINFO);
        nlw_put_string(w, IFLA_INFO_KIND, "ifb");
        nlw_nest_end(w, info);
        nlw_end(w);
}

void ifb_encode_setup(NlWriter *w, const IfbState *ifb)
{
        struct ifinfomsg i = {
                .ifi_family = AF_UNSPEC,
                .ifi_index = (int) ifb->ifindex,
                .ifi_flags = IFF_UP,
                .ifi_change = IFF_UP,
        };

        nlw_begin(w, RTM_SETLINK, 0, &i, sizeof(i));
        nlw_put_u32(w, IFLA_TXQLEN, ifb->txqlen);
        nlw_put(w, IFLA_IFALIAS, ifb->alias, strlen(ifb->alias));
        nlw_end(w);
}

void ifb_encode_group(NlWriter *w, uint32_t ifindex, uint32_t group)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int) ifindex};

        nlw_begin(w, RTM_SETLINK, 0, &i, sizeof(i));
        nlw_put_u32(w, IFLA_GROUP, group);
        nlw_end(w);
}

void ifb_encode_delete_group(NlWriter *w, uint32_t group)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC};

        nlw_begin(w, RTM_DELLINK, 0, &i, sizeof(i));
        nlw_put_u32(w, IFLA_GROUP, group);
        nlw_end(w);
}

void ifb_encode_delete(NlWriter *w, uint32_t ifindex)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int) ifindex};

        nlw_begin(w, RTM_DELLINK, 0, &i, sizeof(i));
        nlw_end(w);
}
