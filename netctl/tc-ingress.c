/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What sends a node's packets through its ifb: ingress qdisc, u32 filter with one key of mask 0 for protocol ETH_P_ALL
 * (pitfall P12: `protocol ip` lets ARP and IPv6 by), action mirred egress redirect.
 */

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

#include "common/strv.h"
#include "netctl/tc.h"

/* A selector with room for its one key (the kernel's struct ends in an array of them). */
#define MATCH_ALL_SIZE (sizeof(struct tc_u32_sel) + sizeof(struct tc_u32_key))

void ingress_encode_filter(NlWriter *w, uint32_t ifindex)
{
        struct tc_u32_sel sel = {.flags = TC_U32_TERMINAL, .nkeys = 1};
        uint8_t match[MATCH_ALL_SIZE] = {};
        struct tc_mirred mirred = {.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = ifindex};

        memcpy(match, &sel, sizeof(sel)); /* and a key of zeros: mask 0 */
        nlw_put_string(w, TCA_KIND, "u32");
        size_t options = nlw_nest(w, TCA_OPTIONS);
        nlw_put(w, TCA_U32_SEL, match, sizeof(match));
        size_t actions = nlw_nest(w, TCA_U32_ACT);
        size_t action = nlw_nest(w, 1);
        nlw_put_string(w, TCA_ACT_KIND, "mirred");
        size_t parameters = nlw_nest(w, TCA_ACT_OPTIONS);
        nlw_put(w, TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
        nlw_nest_end(w, parameters);
        nlw_nest_end(w, action);
        nlw_nest_end(w, actions);
        nlw_nest_end(w, options);
}

/* TCA_ACT_OPTIONS of a mirred action: redirects to where? */
static bool decode_mirred(const NlAttr *options, uint32_t *ret_ifindex)
{
        NlIter i = nl_iter_nested(options);
        struct tc_mirred m;

        for (NlAttr a; nl_iter_next(&i, &a);)
                if (a.type == TCA_MIRRED_PARMS && nl_attr_struct(&a, &m, sizeof(m)) &&
                        m.eaction == TCA_EGRESS_REDIR) {
                        *ret_ifindex = m.ifindex;
                        return true;
                }
        return false;
}

/* TCA_U32_ACT: exactly one action, a redirect. */
static bool decode_actions(const NlAttr *list, uint32_t *ret_ifindex)
{
        NlIter i = nl_iter_nested(list);
        unsigned n = 0;
        bool ok = false;

        for (NlAttr action; nl_iter_next(&i, &action); n++) {
                NlIter j = nl_iter_nested(&action);
                bool mirred = false;
                for (NlAttr a; nl_iter_next(&j, &a);) {
                        char kind[IFNAMSIZ];
                        if (a.type == TCA_ACT_KIND) {
                                nl_attr_string(&a, kind, sizeof(kind));
                                mirred = tb_streq(kind, "mirred");
                        } else if (a.type == TCA_ACT_OPTIONS && mirred)
                                ok = decode_mirred(&a, ret_ifindex);
                }
        }
        return ok && n == 1;
}

static bool is_match_all(const NlAttr *a)
{
        struct tc_u32_sel sel;
        struct tc_u32_key key;

        if (a->size < MATCH_ALL_SIZE)
                return false;
        memcpy(&sel, a->data, sizeof(sel));
        memcpy(&key, a->data + sizeof(sel), sizeof(key));
        return sel.nkeys == 1 && key.mask == 0;
}

void ingress_decode_filter(const struct nlmsghdr *h, IngressState *ret)
{
        const struct tcmsg *t = nl_message_header(h, sizeof(*t));
        bool u32 = false, has_sel = false, match_all = false, redirects = false;
        uint32_t ifindex = 0;

        if (!t)
                return;
        bool ours =
                TC_H_MAJ(t->tcm_info) >> 16 == TC_FILTER_PREF && TC_H_MIN(t->tcm_info) == htons(ETH_P_ALL);
        NlIter i = nl_message_attributes(h, sizeof(*t));
        for (NlAttr a; nl_iter_next(&i, &a);) {
                char kind[IFNAMSIZ];
                if (a.type == TCA_KIND) {
                        nl_attr_string(&a, kind, sizeof(kind));
                        u32 = tb_streq(kind, "u32");
                } else if (a.type == TCA_OPTIONS && u32) {
                        NlIter j = nl_iter_nested(&a);
                        for (NlAttr b; nl_iter_next(&j, &b);) {
                                if (b.type == TCA_U32_SEL) {
                                        has_sel = true;
                                        match_all = is_match_all(&b);
                                } else if (b.type == TCA_U32_ACT)
                                        redirects = decode_actions(&b, &ifindex);
                        }
                }
        }
        /* The kernel lists each u32 priority and hash table as an entry of its own, without a selector. */
        if (u32 && !has_sel && (ours || t->tcm_handle == 0 || TC_U32_NODE(t->tcm_handle) == 0))
                return;
        if (u32 && ours && match_all && redirects && !ret->filtered) {
                ret->filtered = true;
                ret->redirect = ifindex;
        } else
                ret->n_foreign++;
}
