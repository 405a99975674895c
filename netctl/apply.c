/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/apply.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "common/cleanup.h"

#define DELETE_GROUP 0x74620000U /* or the next one that is nobody's */
/* Messages and what becomes of them need 300 bytes for each. */
#define OPS_AT_A_TIME 2048U

static void begin_tc(NlWriter *w, uint16_t type, uint16_t flags, uint32_t device, uint32_t handle,
        uint32_t parent, uint32_t info)
{
        struct tcmsg m = {
                .tcm_family = AF_UNSPEC,
                .tcm_ifindex = (int) device,
                .tcm_handle = handle,
                .tcm_parent = parent,
                .tcm_info = info,
        };
        nlw_begin(w, type, flags, &m, sizeof(m));
}

static uint32_t class_handle(const Op *op)
{
        return TC_HANDLE_ROOT | (op->minor > 0 ? op->minor : TC_CLASS_DEFAULT);
}

static uint32_t program_info(int generation)
{
        return TC_H_MAKE((TC_PROGRAM_PREF + (uint32_t) generation) << 16, htons(ETH_P_ALL));
}

static void encode_leaf(NlWriter *w, const Op *op)
{
        const LeafVtable *v = leaf_vtable(op->leaf->kind);
        /* Without CREATE the kernel changes what is there; REPLACE with another handle grafts a new one in its place. */
        uint16_t flags = op->kind == OP_LEAF_ADD ? NLM_F_CREATE | NLM_F_EXCL
                : op->kind == OP_LEAF_REPLACE    ? NLM_F_CREATE | NLM_F_REPLACE
                                                 : 0;

        begin_tc(w, RTM_NEWQDISC, flags, op->device, op->leaf->major << 16, class_handle(op), 0);
        nlw_put_string(w, TCA_KIND, v->kind);
        v->encode(w, op->leaf);
        nlw_end(w);
}

static void encode_link(NlWriter *w, const Op *op)
{
        struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int) op->device};

        if (op->kind == OP_LINK_UP)
                i.ifi_flags = i.ifi_change = IFF_UP;
        nlw_begin(w, RTM_SETLINK, 0, &i, sizeof(i));
        if (op->kind == OP_LINK_MASTER)
                nlw_put_u32(w, IFLA_MASTER, op->master);
        nlw_end(w);
}

void op_encode(NlWriter *w, const Op *op)
{
        switch (op->kind) {
        case OP_IFB_CREATE:
                ifb_encode_create(w, op->ifb);
                break;
        case OP_IFB_SETUP:
                ifb_encode_setup(w, op->ifb);
                break;
        case OP_IFB_DELETE:
                ifb_encode_delete(w, op->device);
                break;
        case OP_LINK_UP:
        case OP_LINK_MASTER:
                encode_link(w, op);
                break;
        case OP_ROOT_ADD:
                begin_tc(w, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, op->device, TC_HANDLE_ROOT, TC_H_ROOT,
                        0);
                htb_encode_root(w);
                nlw_end(w);
                break;
        case OP_ROOT_DELETE:
                begin_tc(w, RTM_DELQDISC, 0, op->device, TC_HANDLE_ROOT, TC_H_ROOT, 0);
                nlw_end(w);
                break;
        case OP_CLASS_ADD:
        case OP_CLASS_CHANGE:
                begin_tc(w, RTM_NEWTCLASS, op->kind == OP_CLASS_ADD ? NLM_F_CREATE | NLM_F_EXCL : 0,
                        op->device, class_handle(op), TC_HANDLE_ROOT, 0);
                htb_encode_class(w, &op->htb_class);
                nlw_end(w);
                break;
        case OP_CLASS_DELETE:
                begin_tc(w, RTM_DELTCLASS, 0, op->device, class_handle(op), TC_HANDLE_ROOT, 0);
                nlw_end(w);
                break;
        case OP_LEAF_ADD:
        case OP_LEAF_CHANGE:
        case OP_LEAF_RESET:
        case OP_LEAF_REPLACE:
                encode_leaf(w, op);
                break;
        case OP_INGRESS_ADD:
                begin_tc(w, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, op->device, TC_H_MAKE(TC_H_INGRESS, 0),
                        TC_H_INGRESS, 0);
                nlw_put_string(w, TCA_KIND, "ingress");
                nlw_end(w);
                break;
        case OP_FOREIGN_ROOT_DELETE:
                begin_tc(w, RTM_DELQDISC, 0, op->device, 0, TC_H_ROOT, 0);
                nlw_end(w);
                break;
        case OP_FOREIGN_INGRESS_DELETE: /* clsact has the same place */
                begin_tc(w, RTM_DELQDISC, 0, op->device, 0, TC_H_INGRESS, 0);
                nlw_end(w);
                break;
        case OP_STRANGER_DELETE:
                /* Handle 0: the whole preference, whatever its protocol. */
                begin_tc(
                        w, RTM_DELTFILTER, 0, op->device, 0, TC_HANDLE_ROOT, TC_H_MAKE(op->handle << 16, 0));
                nlw_end(w);
                break;
        case OP_INGRESS_DELETE:
                begin_tc(w, RTM_DELQDISC, 0, op->device, TC_H_MAKE(TC_H_INGRESS, 0), TC_H_INGRESS, 0);
                nlw_end(w);
                break;
        case OP_FILTER_ADD:
                begin_tc(w, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, op->device, 0,
                        TC_H_MAKE(TC_H_INGRESS, 0), TC_H_MAKE(TC_FILTER_PREF << 16, htons(ETH_P_ALL)));
                ingress_encode_filter(w, op->redirect);
                nlw_end(w);
                break;
        case OP_PROGRAM_ADD:
                begin_tc(w, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, op->device, op->handle,
                        TC_HANDLE_ROOT, program_info(op->generation));
                program_encode(w, &op->program);
                nlw_end(w);
                break;
        case OP_PROGRAMS_DELETE:
                /* Handle 0: the whole preference. */
                begin_tc(w, RTM_DELTFILTER, 0, op->device, 0, TC_HANDLE_ROOT, program_info(op->generation));
                nlw_end(w);
                break;
        case _OP_KIND_MAX:
        default:
                break;
        }
}

/* The kernel module behind an operation, for "not there" errors. */
static const char *op_module(const Op *op)
{
        switch (op->kind) {
        case OP_IFB_CREATE:
                return "ifb";
        case OP_ROOT_ADD:
        case OP_CLASS_ADD:
        case OP_CLASS_CHANGE:
                return "sch_htb";
        case OP_LEAF_ADD:
        case OP_LEAF_CHANGE:
        case OP_LEAF_RESET:
        case OP_LEAF_REPLACE:
                return leaf_vtable(op->leaf->kind)->module;
        case OP_INGRESS_ADD:
                return "sch_ingress";
        case OP_FILTER_ADD:
                return "cls_u32, act_mirred";
        case OP_PROGRAM_ADD:
                return "cls_bpf";
        case OP_IFB_SETUP:
        case OP_IFB_DELETE:
        case OP_LINK_UP:
        case OP_LINK_MASTER:
        case OP_ROOT_DELETE:
        case OP_CLASS_DELETE:
        case OP_INGRESS_DELETE:
        case OP_PROGRAMS_DELETE:
        case OP_FOREIGN_ROOT_DELETE:
        case OP_FOREIGN_INGRESS_DELETE:
        case OP_STRANGER_DELETE:
        case _OP_KIND_MAX:
        default:
                return NULL;
        }
}

/* What of a shape needs the module of this operation, as the rest of a sentence. */
static const char *op_needed_for(const Op *op)
{
        if (op->kind < OP_LEAF_ADD || op->kind > OP_LEAF_REPLACE)
                return "";
        if (op->leaf->kind == LEAF_NETEM)
                return ", which delay, jitter, loss, duplicate, corrupt, reorder and slot need";
        if (op->leaf->kind == LEAF_RED)
                return ", which 'queue red' needs";
        return "";
}

static bool is_delete(OpKind k)
{
        return k == OP_IFB_DELETE || k == OP_ROOT_DELETE || k == OP_INGRESS_DELETE || k == OP_CLASS_DELETE ||
                k == OP_PROGRAMS_DELETE || k == OP_FOREIGN_ROOT_DELETE || k == OP_FOREIGN_INGRESS_DELETE ||
                k == OP_STRANGER_DELETE;
}

int op_error(const Op *op, const RtnlResult *result, TbError **err)
{
        int code = result->code;
        const char *what = op_to_string(op->kind), *module = op_module(op);

        if (code == 0)
                return 0;
        if (is_delete(op->kind) && (code == -ENODEV || code == -ENOENT || code == -EINVAL))
                return 0; /* gone already: EINVAL is what a missing root or ingress gives */
        if (code == -ENODEV)
                return tb_error_set(err, TB_ERROR_SYSTEM, code,
                        "cannot %s: the interface (index %u) is gone; the container has probably ended",
                        what, op->device);
        if (module && (code == -ENOENT || code == -EOPNOTSUPP))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, code,
                        "cannot %s: this kernel has no %s%s%s%s; boot a kernel with module %s (Debian: "
                        "install "
                        "linux-image-amd64 and reboot)",
                        what, module, op_needed_for(op), result->text[0] ? ": kernel says: " : "",
                        result->text, module);
        if (code == -EPERM)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, code,
                        "cannot %s: not permitted; run as root (CAP_NET_ADMIN)", what);
        return tb_error_set(err, TB_ERROR_SYSTEM, code, "cannot %s on interface index %u: %s%s%s", what,
                op->device, strerror(-code), result->text[0] ? ": kernel says: " : "", result->text);
}

/*
 * Deleting a device waits until nobody in the kernel looks at it any more: 20 ms, in which we stand still, each time; a thousand
 * ifbs took as many times as long. The devices of a group are deleted together, with one such wait. So those that go are put into a
 * group of which nobody is a member, and the batch ends with its deletion. 0: there are not several, or one is made in the
 * same batch (whose index may be that of one that goes).
 */
static uint32_t group_to_delete(const Plan *plan, const Links *links)
{
        uint32_t group = DELETE_GROUP;
        size_t n = 0;

        for (size_t i = 0; i < plan->n; i++)
                if (plan->ops[i].kind == OP_IFB_CREATE)
                        return 0;
                else
                        n += plan->ops[i].kind == OP_IFB_DELETE;
        if (n < 2 || !links)
                return 0;
        for (size_t i = 0; i < links->n; i++)
                if (links->v[i].group >= UINT32_MAX - 1) /* there is no number behind it */
                        return 0;
                else if (links->v[i].group >= group)
                        group = links->v[i].group + 1;
        return group;
}

static int delete_one_by_one(
        Rtnl *r, const Plan *plan, RtnlResult *results, ApplyCounts *counts, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        size_t n = 0;

        for (size_t i = 0; i < plan->n; i++)
                if (plan->ops[i].kind == OP_IFB_DELETE)
                        op_encode(&w, plan->ops + i);
        _cleanup_free_ RtnlResult *found = calloc(w.n_messages + 1, sizeof(*found));
        if (!found)
                return tb_error_oom(err);
        counts->writes += w.n_messages;
        int k = rtnl_batch(r, &w, found, &counts->sends, err);
        for (size_t i = 0; i < plan->n && k >= 0; i++)
                if (plan->ops[i].kind == OP_IFB_DELETE)
                        results[i] = found[n++];
        return k;
}

/* Operations that are all of a plan (with a group) or a part of it. */
static int apply_part(
        Rtnl *r, const Plan *plan, uint32_t group, TbError **errors, ApplyCounts *counts, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};

        _cleanup_free_ RtnlResult *results = calloc(plan->n + 1, sizeof(*results));
        if (!results)
                return tb_error_oom(err);
        for (size_t i = 0; i < plan->n; i++)
                if (group > 0 && plan->ops[i].kind == OP_IFB_DELETE)
                        ifb_encode_group(&w, plan->ops[i].device, group);
                else
                        op_encode(&w, plan->ops + i);
        if (group > 0)
                ifb_encode_delete_group(&w, group);
        counts->writes += w.n_messages;
        int k = rtnl_batch(r, &w, results, &counts->sends, err);
        /* ENODEV: all of them were gone already. */
        if (k >= 0 && group > 0 && results[plan->n].code < 0 && results[plan->n].code != -ENODEV)
                k = delete_one_by_one(r, plan, results, counts, err);
        if (k < 0)
                return k;
        for (size_t i = 0; i < plan->n; i++) {
                const Op *op = plan->ops + i;
                if (!errors[op->owner])
                        (void) op_error(op, results + i, errors + op->owner);
        }
        return 0;
}

int apply_plan(
        Rtnl *r, const Links *links, const Plan *plan, TbError **errors, ApplyCounts *counts, TbError **err)
{
        const uint32_t group = group_to_delete(plan, links);
        int k = 0;

        if (group > 0)
                return apply_part(r, plan, group, errors, counts, err);
        for (size_t at = 0; at < plan->n && k >= 0; at += OPS_AT_A_TIME) {
                const Plan part = {.ops = plan->ops + at, .n = MIN2(plan->n - at, (size_t) OPS_AT_A_TIME)};
                k = apply_part(r, &part, 0, errors, counts, err);
        }
        return k;
}
