/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* cls_bpf with classic programs (net/sched/cls_bpf.c): the program's answer is the class, 0 asks the next filter. */

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "common/strv.h"
#include "netctl/tc.h"

void program_encode(NlWriter *w, const Program *p)
{
        uint16_t n = p->n;

        nlw_put_string(w, TCA_KIND, "bpf");
        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_put(w, TCA_BPF_OPS_LEN, &n, sizeof(n));
        nlw_put(w, TCA_BPF_OPS, p->ops, n * sizeof(*p->ops));
        nlw_nest_end(w, nest);
}

static bool find_ops(const NlAttr *options, NlAttr *ret)
{
        NlIter i = nl_iter_nested(options);

        for (NlAttr a; nl_iter_next(&i, &a);)
                if (a.type == TCA_BPF_OPS && a.size > 0 && a.size % sizeof(struct sock_filter) == 0 &&
                        a.size / sizeof(struct sock_filter) <= BPF_MAXINSNS) {
                        *ret = a;
                        return true;
                }
        return false;
}

void program_decode_stranger(const struct nlmsghdr *h, TcTree *tree)
{
        const struct tcmsg *t = nl_message_header(h, sizeof(*t));
        uint16_t pref = t ? (uint16_t) (TC_H_MAJ(t->tcm_info) >> 16) : 0;

        if (h->nlmsg_type != RTM_NEWTFILTER || pref == 0 ||
                (pref >= TC_PROGRAM_PREF && pref < TC_PROGRAM_PREF + TC_GENERATIONS))
                return;
        for (unsigned i = 0; i < tree->n_strangers; i++)
                if (tree->strangers[i] == pref)
                        return;
        if (tree->n_strangers < TC_STRANGERS_MAX)
                tree->strangers[tree->n_strangers++] = pref;
}

int program_decode(const struct nlmsghdr *h, Arena *arena, TcTree *tree)
{
        const struct tcmsg *t = nl_message_header(h, sizeof(*t));
        bool bpf = false, found = false;
        NlAttr ops = {};

        if (!t || h->nlmsg_type != RTM_NEWTFILTER || TC_H_MIN(t->tcm_info) != htons(ETH_P_ALL))
                return 0;
        uint32_t generation = (TC_H_MAJ(t->tcm_info) >> 16) - TC_PROGRAM_PREF;
        if (generation >= TC_GENERATIONS || t->tcm_handle == 0 || t->tcm_handle > CLASSIFY_ALL_MAX)
                return 0;
        NlIter i = nl_message_attributes(h, sizeof(*t));
        for (NlAttr a; nl_iter_next(&i, &a);) {
                char kind[IFNAMSIZ];
                if (a.type == TCA_KIND) {
                        nl_attr_string(&a, kind, sizeof(kind));
                        bpf = tb_streq(kind, "bpf");
                } else if (a.type == TCA_OPTIONS && bpf)
                        found = find_ops(&a, &ops);
        }
        if (!found)
                return 0;
        Programs *p = tree->programs + generation;
        if (!p->v) {
                p->v = arena_alloc(arena, CLASSIFY_ALL_MAX, sizeof(*p->v));
                if (!p->v)
                        return -ENOMEM;
        }
        Program *program = p->v + t->tcm_handle - 1;
        program->ops = arena_alloc(arena, 1, ops.size);
        if (!program->ops)
                return -ENOMEM;
        memcpy(program->ops, ops.data, ops.size);
        program->n = (uint16_t) (ops.size / sizeof(*program->ops));
        p->n = MAX2(p->n, (size_t) t->tcm_handle);
        return 0;
}
