/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Frames of many segments (pitfall P6).
 *
 * The stack of a container hands TCP data to its veth in frames of up to 64 kB (TSO, GSO), and nothing on the way to our
 * queues cuts them: one loss then removes 45 segments, a limit of 50 packets is 3 MB, overhead is counted once. No queue of the
 * host can cut them either (HTB and netem take a frame as it is), so it has to be done where they are made: with an
 * IFLA_GSO_MAX_SEGS of 1 on the container's interface TCP makes frames of one segment, and what else is larger (UDP GSO, frames
 * that a container forwards) is cut by the kernel before it enters the veth. Reading it back is part of listing links,
 * setting it one message, and 1 is a value that nobody else sets: it says that it is ours. Containers lack the
 * CAP_NET_ADMIN to undo it.
 *
 * It costs throughput (each segment passes the stack alone), so it is done where a shape counts packets: see
 * shape_counts_packets(). Frames to the node are made by the other nodes of the network: the caller says with `per_packet`
 * when one of them needs it. Removal puts back the kernel's default.
 */

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "netctl/netctl-internal.h"

#define SEGMENTS_OURS 1U
#define SEGMENTS_DEFAULT 65535U /* GSO_MAX_SEGS of the kernel */

static bool counts(const Shape *s)
{
        return s && shape_counts_packets(s);
}

static bool says(const Shape *s, ShapeOffload offload)
{
        return s && shape_has(s, SHAPE_OFFLOAD) && s->offload == offload;
}

bool netctl_counts_packets(const NetctlInterface *x)
{
        if (says(x->up, SHAPE_OFFLOAD_OFF) || says(x->down, SHAPE_OFFLOAD_OFF))
                return true;
        if (says(x->up, SHAPE_OFFLOAD_ON) || says(x->down, SHAPE_OFFLOAD_ON))
                return false;
        if (counts(x->up) || counts(x->down))
                return true;
        for (size_t i = 0; i < x->n_rules; i++) {
                const ShapeRule *r = x->rules + i;
                if ((x->up && r->up_action == SHAPE_RULE_SHAPE && counts(&r->up)) ||
                        (x->down && r->down_action == SHAPE_RULE_SHAPE && counts(&r->down)))
                        return true;
        }
        return false;
}

/* What the container's interface shall have; what is not our business stays. */
static uint32_t desired_segments(const NetctlInterface *x, uint32_t now)
{
        bool on = says(x->up, SHAPE_OFFLOAD_ON) || says(x->down, SHAPE_OFFLOAD_ON);

        if (netctl_counts_packets(x) || (x->per_packet && !on))
                return SEGMENTS_OURS;
        return now == SEGMENTS_OURS ? SEGMENTS_DEFAULT : now;
}

static void encode(NlWriter *w, uint32_t ifindex, uint32_t segments)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int) ifindex};

        nlw_begin(w, RTM_SETLINK, 0, &i, sizeof(i));
        nlw_put_u32(w, IFLA_GSO_MAX_SEGS, segments);
        nlw_end(w);
}

/* Writes segments_wanted of the interfaces first .. last - 1, which are one node's, where they differ from what is there. */
static int write_segments(
        Rtnl *inside, Work *w, size_t first, size_t last, ApplyCounts *counts, TbError **err)
{
        _cleanup_nlw_ NlWriter messages = {};
        _cleanup_free_ RtnlResult *results = NULL;
        size_t wanted = 0, k = 0;

        for (size_t i = first; i < last; i++) {
                const Iface *x = w->ifaces + i;
                if (x->segments_wanted == x->inside.link.gso_max_segs)
                        continue;
                encode(&messages, x->inside.link.ifindex, x->segments_wanted);
                wanted++;
        }
        if (wanted == 0)
                return 0;
        results = calloc(wanted, sizeof(*results));
        if (!results)
                return tb_error_oom(err);
        counts->writes += wanted;
        int r = rtnl_batch(inside, &messages, results, &counts->sends, err);
        if (r < 0)
                return r;
        for (size_t i = first; i < last; i++) {
                Iface *x = w->ifaces + i;
                if (x->segments_wanted == x->inside.link.gso_max_segs)
                        continue;
                const RtnlResult *result = results + k++;
                if (result->code < 0)
                        return tb_error_set(err, TB_ERROR_SYSTEM, result->code,
                                "cannot set how many segments a frame from %s may have: %s",
                                x->inside.link.name, strerror(-result->code));
                x->inside.link.gso_max_segs = x->segments_wanted;
                x->change = MAX2(x->change, NETCTL_IN_PLACE);
        }
        return 0;
}

/* For the interfaces first .. last - 1 of a node; `inside` NULL: no socket of its namespace is open (any more). */
static int write_node(
        Netctl *n, Work *w, size_t first, size_t last, Rtnl *inside, ApplyCounts *counts, TbError **err)
{
        _cleanup_rtnl_ Rtnl *opened = NULL;
        bool any = false;

        for (size_t i = first; i < last; i++)
                any |= w->ifaces[i].segments_wanted != w->ifaces[i].inside.link.gso_max_segs;
        if (!any)
                return 0;
        if (!inside) {
                int r = rtnl_new_in(
                        w->nodes[w->ifaces[first].node].netns_fd, n->host_fd, false, &opened, err);
                if (r < 0)
                        return r;
        }
        return write_segments(inside ?: opened, w, first, last, counts, err);
}

int work_apply_offload(Netctl *n, Work *w, size_t node, Rtnl *inside, TbError **err)
{
        if (w->nodes[node].parts == NETCTL_FIREWALL)
                return 0;
        for (size_t i = w->first[node]; i < w->n_ifaces; i++) {
                Iface *x = w->ifaces + i;
                x->segments_before = x->inside.link.gso_max_segs;
                x->segments_wanted = desired_segments(x->want, x->segments_before);
        }
        return write_node(n, w, w->first[node], w->n_ifaces, inside, w->offload_counts, err);
}

void work_undo_offload(Netctl *n, Work *w, ApplyCounts *counts)
{
        for (size_t i = 0; i < w->n_nodes; i++) {
                _cleanup_error_ TbError *ignored = NULL;
                if (!work_goes_back(w, i))
                        continue;
                for (size_t k = w->first[i]; k < w->first[i + 1]; k++) {
                        Iface *x = w->ifaces + k;
                        x->segments_wanted =
                                x->segments_before > 0 ? x->segments_before : x->inside.link.gso_max_segs;
                }
                if (write_node(n, w, w->first[i], w->first[i + 1], NULL, counts, &ignored) < 0)
                        log_debug("cannot put segmentation back: %s", tb_error_message(ignored));
        }
}

int work_remove_offload(Netctl *n, Work *w, ApplyCounts *counts, TbError **err)
{
        int first = 0;

        for (size_t i = 0; i < w->n_nodes; i++) {
                _cleanup_error_ TbError *e = NULL;
                for (size_t k = w->first[i]; k < w->first[i + 1]; k++) {
                        Iface *x = w->ifaces + k;
                        uint32_t now = x->inside.link.gso_max_segs;
                        x->segments_wanted = now == SEGMENTS_OURS ? SEGMENTS_DEFAULT : now;
                }
                int r = write_node(n, w, w->first[i], w->first[i + 1], NULL, counts, &e);
                if (r < 0 && first == 0)
                        first = tb_error_move(err, &e);
        }
        return first;
}

bool offload_is_off(const Link *inside)
{
        return inside->gso_max_segs == SEGMENTS_OURS;
}

const char *offload_decision(const Link *inside, const NetctlInterface *x)
{
        if (!offload_is_off(inside))
                return says(x->up, SHAPE_OFFLOAD_ON) || says(x->down, SHAPE_OFFLOAD_ON)
                        ? "on, as asked: a frame of up to 64 kB counts as one packet for loss, duplicate, "
                          "corrupt, "
                          "reorder and limit"
                        : "on: rates and delays hold for frames of many segments as well";
        return "off: the node sends every segment as a frame of its own, so that each one counts";
}
