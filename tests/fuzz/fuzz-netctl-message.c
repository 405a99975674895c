/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/observe.h"
#include "tests/fuzz/fuzz.h"

/* One rtnetlink message, its header included: every decoder on it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct nlmsghdr h;
        IngressState ingress = {};
        Link link;
        Qdisc qdisc;
        HtbClass class;
        uint32_t ifindex, handle, veth;
        char id[TC_ALIAS_MAX];

        if (size < sizeof(h) || size > UINT16_MAX)
                return 0;
        _cleanup_free_ uint8_t *copy = malloc(size);
        if (!copy)
                return 0;
        memcpy(copy, data, size);
        memcpy(&h, copy, sizeof(h));
        h.nlmsg_len = (uint32_t) size; /* rtnl.c hands on nothing that is longer than what was received */
        static const uint16_t types[] = {RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWTCLASS, RTM_NEWTFILTER};
        for (size_t i = 0; i < ELEMENTSOF(types); i++) {
                h.nlmsg_type = types[i];
                memcpy(copy, &h, sizeof(h));
                const struct nlmsghdr *m = (const void *) copy;
                if (link_decode(m, &link))
                        (void) ifb_parse_alias(link.alias, id, &veth);
                (void) qdisc_decode(m, &qdisc);
                (void) class_decode(m, &ifindex, &handle, &class);
                ingress_decode_filter(m, &ingress);
        }
        return 0;
}
