/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The Netctl object: life, helpers, identity of nodes. The work is in netctl-apply.c and netctl-remove.c. */

#include "netctl/netctl-internal.h"

#include <fcntl.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/netns.h"

int netctl_new(const NetctlOptions *options, Netctl **ret, TbError **err)
{
        _cleanup_(netctl_freep) Netctl *n = calloc(1, sizeof(*n));

        if (!n)
                return tb_error_oom(err);
        n->host_fd = -EBADF;
        n->options = options ? *options : (NetctlOptions){.enable_bridge_nf = true};
        n->host_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (n->host_fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot open the host's network namespace");
        int r = rtnl_new(&n->rtnl, err);
        if (r < 0)
                return r;
        if (geteuid() != 0 && !netctl_may_write(n))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPERM,
                        "not permitted to change network interfaces; run as root (CAP_NET_ADMIN)");
        netns_take_own_id(n->rtnl, n->host_fd);
        *ret = TAKE_PTR(n);
        return 0;
}

Netctl *netctl_free(Netctl *n)
{
        if (!n)
                return NULL;
        rtnl_free(n->rtnl);
        tb_close(n->host_fd);
        free(n);
        return NULL;
}

bool netctl_may_write(Netctl *n)
{
        _cleanup_nlw_ NlWriter w = {};
        RtnlResult result = {};

        /* Deleting a device that can't exist: the permission is checked first. */
        ifb_encode_delete(&w, INT32_MAX);
        return rtnl_batch(n->rtnl, &w, &result, NULL, NULL) >= 0 && result.code != -EPERM;
}

int netctl_capabilities(Netctl *n, const Capabilities **ret, TbError **err)
{
        if (!n->have_caps) {
                int r = capabilities_probe(&n->caps, err);
                if (r < 0)
                        return r;
                n->have_caps = true;
        }
        *ret = &n->caps;
        return 0;
}

bool netctl_has_netem(Netctl *n)
{
        if (n->have_caps)
                return n->caps.has[CAPABILITY_NETEM];
        if (!n->asked_netem) {
                n->has_netem = capability_has_netem(n->rtnl);
                n->asked_netem = true;
        }
        return n->has_netem;
}

int node_check_id(const char *id, TbError **err)
{
        size_t n = id ? strlen(id) : 0;
        bool ok = n > 0 && n <= NETCTL_ID_MAX;

        for (size_t i = 0; ok && i < n; i++)
                ok = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'z') ||
                        (id[i] >= 'A' && id[i] <= 'Z');
        if (!ok) {
                _cleanup_free_ char *shown = tb_escape(id ? id : "", 80);
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL,
                        "bad node id '%s': 1 to %d letters and digits are allowed", shown ? shown : "?",
                        NETCTL_ID_MAX);
        }
        return 0;
}

void netctl_node_status_done(NetctlNodeStatus *s)
{
        tb_error_free(s->error);
        for (size_t k = 0; k < s->n_interfaces; k++) {
                free(s->interfaces[k].network);
                free(s->interfaces[k].host_netns);
                free(s->interfaces[k].up.rules);
                free(s->interfaces[k].down.rules);
        }
        free(s->interfaces);
        *s = (NetctlNodeStatus){};
}

void netctl_report_done(NetctlReport *r)
{
        for (size_t i = 0; i < r->n_nodes; i++)
                netctl_node_status_done(r->nodes + i);
        free(r->nodes);
        *r = (NetctlReport){};
}
