/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/observe.h"

#include <linux/gen_stats.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"

static void decode_stats(const NlAttr *stats2, TcStats *ret)
{
        struct gnet_stats_basic basic;
        struct gnet_stats_queue queue;
        NlIter i = nl_iter_nested(stats2);

        for (NlAttr a; nl_iter_next(&i, &a);) {
                if (a.type == TCA_STATS_BASIC && nl_attr_struct(&a, &basic, sizeof(basic))) {
                        ret->bytes = basic.bytes;
                        if (ret->packets == 0)
                                ret->packets = basic.packets;
                } else if (a.type == TCA_STATS_PKT64)
                        (void) nl_attr_u64(&a, &ret->packets);
                else if (a.type == TCA_STATS_QUEUE && nl_attr_struct(&a, &queue, sizeof(queue))) {
                        ret->drops = queue.drops;
                        ret->overlimits = queue.overlimits;
                        ret->qlen = queue.qlen;
                }
        }
}

bool qdisc_decode(const struct nlmsghdr *h, Qdisc *ret)
{
        const struct tcmsg *m = nl_message_header(h, sizeof(*m));
        NlAttr options = {};

        if (h->nlmsg_type != RTM_NEWQDISC || !m || m->tcm_ifindex <= 0)
                return false;
        Qdisc q = {.ifindex = (uint32_t) m->tcm_ifindex, .handle = m->tcm_handle, .parent = m->tcm_parent};

        NlIter i = nl_message_attributes(h, sizeof(*m));
        for (NlAttr a; nl_iter_next(&i, &a);) {
                if (a.type == TCA_KIND)
                        nl_attr_string(&a, q.kind, sizeof(q.kind));
                else if (a.type == TCA_OPTIONS)
                        options = a;
                else if (a.type == TCA_STATS2)
                        decode_stats(&a, &q.stats);
        }
        q.leaf.major = TC_H_MAJ(q.handle) >> 16;
        q.leaf.kind = leaf_kind_from_string(q.kind);
        const LeafVtable *v = leaf_vtable(q.leaf.kind);
        if (v && !v->decode(&options, &q.leaf))
                q.leaf.kind = LEAF_OTHER;
        *ret = q;
        return true;
}

bool class_decode(const struct nlmsghdr *h, uint32_t *ret_ifindex, uint32_t *ret_handle, HtbClass *ret)
{
        const struct tcmsg *m = nl_message_header(h, sizeof(*m));
        HtbClass c;
        bool htb = false, ok = false;

        if (h->nlmsg_type != RTM_NEWTCLASS || !m || m->tcm_ifindex <= 0)
                return false;
        NlIter i = nl_message_attributes(h, sizeof(*m));
        for (NlAttr a; nl_iter_next(&i, &a);) {
                char kind[IFNAMSIZ];
                if (a.type == TCA_KIND) {
                        nl_attr_string(&a, kind, sizeof(kind));
                        htb = tb_streq(kind, "htb");
                } else if (a.type == TCA_OPTIONS && htb)
                        ok = htb_decode_class(&a, &c);
        }
        if (!ok)
                return false;
        *ret_ifindex = (uint32_t) m->tcm_ifindex;
        *ret_handle = m->tcm_handle;
        *ret = c;
        return true;
}

/* Which tree a device's qdiscs belong to. */
typedef struct Device {
        uint32_t ifindex;
        IfaceState *iface;
        bool is_ifb;
} Device;

typedef struct Observation {
        Device *devices; /* sorted by ifindex */
        size_t n;
        Arena *arena;
        TcTree *tree; /* whose classes and programs are being listed */
        bool few;
} Observation;

static int compare_device(const void *a, const void *b)
{
        uint32_t x = ((const Device *) a)->ifindex, y = ((const Device *) b)->ifindex;

        return x < y ? -1 : x > y;
}

static Device *find_device(const Observation *o, uint32_t ifindex)
{
        Device key = {.ifindex = ifindex};

        return o->n > 0 ? bsearch(&key, o->devices, o->n, sizeof(*o->devices), compare_device) : NULL;
}

/* The place of a class in the tree; a new one for a class not seen yet. NULL: out of memory. */
static TcRule *find_rule(const Observation *o, TcTree *t, uint32_t handle)
{
        uint16_t minor = (uint16_t) TC_H_MIN(handle);

        /* The kernel lists leaves in the order in which they were made, that is, mostly in ours. */
        for (size_t i = t->n_rules; i > 0 && t->rules[i - 1].minor >= minor; i--)
                if (t->rules[i - 1].minor == minor)
                        return t->rules + i - 1;
        if ((t->n_rules & (t->n_rules + 1)) == 0) { /* full: 0, 1, 3, 7, ... */
                TcRule *grown = arena_alloc(o->arena, t->n_rules * 2 + 1, sizeof(*grown));
                if (!grown)
                        return NULL;
                if (t->n_rules > 0)
                        memcpy(grown, t->rules, t->n_rules * sizeof(*grown));
                t->rules = grown;
        }
        size_t at = t->n_rules++;
        for (; at > 0 && t->rules[at - 1].minor > minor; at--)
                t->rules[at] = t->rules[at - 1];
        t->rules[at] = (TcRule){.minor = minor};
        return t->rules + at;
}

/* A class of our root but the default one: a rule's, or somebody's. */
static bool is_other_class(uint32_t handle)
{
        return TC_H_MAJ(handle) == TC_HANDLE_ROOT && TC_H_MIN(handle) != 0 && handle != TC_HANDLE_CLASS;
}

static int take_qdisc(const struct nlmsghdr *h, void *userdata)
{
        const Observation *o = userdata;
        Qdisc q;

        if (!qdisc_decode(h, &q))
                return 0;
        Device *d = find_device(o, q.ifindex);
        if (!d)
                return 0;

        TcTree *t = d->is_ifb ? &d->iface->up : &d->iface->down;
        /* The kernel's own default. In a class of our root it is the only trace of what somebody made by hand: classes are listed
         * device by device, which nobody does a thousand times for what is hardly ever there. */
        if (q.handle == 0)
                return !is_other_class(q.parent) || find_rule(o, t, q.parent) ? 0 : -ENOMEM;
        if (q.parent == TC_H_ROOT) {
                t->owner = q.handle == TC_HANDLE_ROOT && tb_streq(q.kind, "htb") ? TC_OURS : TC_FOREIGN;
                (void) snprintf(t->kind, sizeof(t->kind), "%s", q.kind);
                t->stats = q.stats;
        } else if (q.parent == TC_HANDLE_CLASS)
                t->leaf = q.leaf;
        else if (is_other_class(q.parent)) {
                TcRule *rule = find_rule(o, t, q.parent);
                if (!rule)
                        return -ENOMEM;
                rule->leaf = q.leaf;
                rule->stats = q.stats;
        } else if (q.parent == TC_H_INGRESS && !d->is_ifb) {
                IngressState *s = &d->iface->ingress;
                s->owner = TC_FOREIGN; /* until its filters say otherwise */
                (void) snprintf(s->kind, sizeof(s->kind), "%s", q.kind);
        }
        return 0;
}

static int take_class(const struct nlmsghdr *h, void *userdata)
{
        const Observation *o = userdata;
        uint32_t ifindex, handle;
        HtbClass c;

        if (!class_decode(h, &ifindex, &handle, &c))
                return 0;
        if (handle == TC_HANDLE_CLASS) {
                o->tree->has_class = true;
                o->tree->htb_class = c;
        } else if (is_other_class(handle)) {
                TcRule *rule = find_rule(o, o->tree, handle);
                if (!rule)
                        return -ENOMEM;
                rule->has_class = true;
                rule->htb_class = c;
        }
        return 0;
}

static int take_program(const struct nlmsghdr *h, void *userdata)
{
        const Observation *o = userdata;
        TcTree *tree = o->tree;

        program_decode_stranger(h, tree);
        return program_decode(h, o->arena, tree);
}

static int take_filter(const struct nlmsghdr *h, void *userdata)
{
        if (h->nlmsg_type == RTM_NEWTFILTER)
                ingress_decode_filter(h, userdata);
        return 0;
}

typedef int (*DumpFn)(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err);

static int dump_device(Rtnl *r, DumpFn dump, uint16_t type, uint32_t ifindex, uint32_t parent,
        RtnlMessageFn fn, void *userdata, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        struct tcmsg m = {.tcm_family = AF_UNSPEC, .tcm_ifindex = (int) ifindex, .tcm_parent = parent};

        nlw_begin(&w, type, 0, &m, sizeof(m));
        nlw_end(&w);
        return dump(r, &w, fn, userdata, err);
}

/* An ingress qdisc is ours when our filter is its only one; or when it has none and our ifb for this veth is there (we
 * were interrupted between the two messages). */
static void judge_ingress(IfaceState *s)
{
        if (s->ingress.owner == TC_NONE || !tb_streq(s->ingress.kind, "ingress"))
                return;
        if (s->ingress.n_foreign == 0 && (s->ingress.filtered || s->ifb.present))
                s->ingress.owner = TC_OURS;
}

/*
 * The default class of every tree. The kernel lists classes device by device, which takes three times as long as asking for the
 * one class that most devices have, many at a time. NLM_F_ECHO: without it only those who listen to changes get the answer. They
 * get it, too: route-watch.h leaves out what we asked for.
 */
static int take_default_class(size_t message, const struct nlmsghdr *h, void *userdata)
{
        const Observation *o = userdata;
        uint32_t ifindex, handle;
        HtbClass c;

        if (!class_decode(h, &ifindex, &handle, &c) || handle != TC_HANDLE_CLASS)
                return 0;
        Device *d = find_device(o, ifindex);
        if (d) {
                TcTree *t = d->is_ifb ? &d->iface->up : &d->iface->down;
                t->has_class = true;
                t->htb_class = c;
        }
        return 0;
}

static int observe_default_classes(Rtnl *r, const Observation *o, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};

        for (size_t i = 0; i < o->n; i++) {
                const Device *d = o->devices + i;
                const struct tcmsg m = {.tcm_family = AF_UNSPEC,
                        .tcm_ifindex = (int) d->ifindex,
                        .tcm_parent = TC_HANDLE_ROOT,
                        .tcm_handle = TC_HANDLE_CLASS};
                if ((d->is_ifb ? &d->iface->up : &d->iface->down)->owner != TC_OURS)
                        continue;
                nlw_begin(&w, RTM_GETTCLASS, NLM_F_ECHO, &m, sizeof(m));
                nlw_end(&w);
        }
        return rtnl_get_many(r, &w, take_default_class, (void *) o, err);
}

/* Of our root: what else has classes on this device is a leaf of somebody's, and its own business. */
static int observe_classes(Rtnl *r, Observation *o, uint32_t device, TcTree *t, TbError **err)
{
        o->tree = t;
        return dump_device(r, rtnl_dump_small, RTM_GETTCLASS, device, TC_HANDLE_ROOT, take_class, o, err);
}

/* Classes of rules and their programs, where there are any: seen by a leaf, or declared (somebody may have deleted the leaf). */
static int observe_tree(
        Rtnl *r, Observation *o, uint32_t device, const IfaceState *s, TcTree *t, TbError **err)
{
        bool filters = s->ruled || s->thorough;
        int k = 0;

        if (t->owner != TC_OURS)
                return 0;
        o->tree = t;
        if (!o->few && (!t->has_class || t->n_rules > 0 || s->ruled))
                k = observe_classes(r, o, device, t, err);
        if (k < 0 || (t->n_rules == 0 && !filters))
                return k;
        k = dump_device(r, rtnl_dump, RTM_GETTFILTER, device, TC_HANDLE_ROOT, take_program, o, err);
        if (k < 0)
                return k;
        return tree_name_rules(t, o->arena) < 0 ? tb_error_oom(err) : 0;
}

static int observe_ingress(Rtnl *r, IfaceState *s, TbError **err)
{
        static const uint32_t parent = TC_H_MAKE(TC_H_INGRESS, 0);
        const IngressState unfiltered = s->ingress;
        _cleanup_error_ TbError *e = NULL;

        if (s->ingress.owner == TC_NONE)
                return 0;
        int k = dump_device(
                r, rtnl_dump_small, RTM_GETTFILTER, s->veth, parent, take_filter, &s->ingress, &e);
        if (k == -EMSGSIZE) { /* somebody's filter is longer than any of ours */
                s->ingress = unfiltered;
                k = dump_device(
                        r, rtnl_dump, RTM_GETTFILTER, s->veth, parent, take_filter, &s->ingress, err);
        } else if (k < 0)
                (void) tb_error_move(err, &e);
        if (k >= 0)
                judge_ingress(s);
        return k;
}

/* All queues of all devices. TCA_DUMP_INVISIBLE (Linux 4.12): also those that the kernel put into classes itself. */
static int observe_qdiscs(Rtnl *r, Observation *o, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        const struct tcmsg m = {.tcm_family = AF_UNSPEC};

        nlw_begin(&w, RTM_GETQDISC, 0, &m, sizeof(m));
        nlw_put(&w, TCA_DUMP_INVISIBLE, NULL, 0);
        nlw_end(&w);
        return rtnl_dump(r, &w, take_qdisc, o, err);
}

/* The queue at one place; NLM_F_ECHO as with classes. */
static void ask_qdisc(NlWriter *w, uint32_t device, uint32_t parent)
{
        const struct tcmsg m = {.tcm_family = AF_UNSPEC, .tcm_ifindex = (int) device, .tcm_parent = parent};

        nlw_begin(w, RTM_GETQDISC, NLM_F_ECHO, &m, sizeof(m));
        nlw_end(w);
}

/* Nothing there: no such device, no such class, a class without a leaf of somebody's (EINVAL: it is one that the kernel put there). */
static int take_one_qdisc(size_t message, const struct nlmsghdr *h, void *userdata)
{
        int code = rtnl_answer_error(h);

        if (code < 0)
                return code == -ENODEV || code == -ENOENT || code == -EINVAL ? 0 : code;
        return take_qdisc(h, userdata);
}

/* What a list of all queues and all default classes would say of these devices. The kernel finds the queue at a place by a hash;
 * its list of queues is one of all devices, whatever is asked for. */
static int observe_few(Rtnl *r, Observation *o, TbError **err)
{
        _cleanup_nlw_ NlWriter roots = {}, leaves = {};
        int k;

        for (size_t i = 0; i < o->n; i++) {
                ask_qdisc(&roots, o->devices[i].ifindex, TC_H_ROOT);
                if (!o->devices[i].is_ifb)
                        ask_qdisc(&roots, o->devices[i].ifindex, TC_H_INGRESS);
        }
        k = rtnl_get_many(r, &roots, take_one_qdisc, o, err);
        for (size_t i = 0; i < o->n && k >= 0; i++) {
                const Device *d = o->devices + i;
                TcTree *t = d->is_ifb ? &d->iface->up : &d->iface->down;
                if (t->owner != TC_OURS)
                        continue;
                k = observe_classes(r, o, d->ifindex, t, err);
                ask_qdisc(&leaves, d->ifindex, TC_HANDLE_CLASS);
                for (size_t c = 0; c < t->n_rules; c++)
                        ask_qdisc(&leaves, d->ifindex, TC_HANDLE_ROOT | t->rules[c].minor);
        }
        return k < 0 || leaves.n_messages == 0 ? k : rtnl_get_many(r, &leaves, take_one_qdisc, o, err);
}

static int observe_all(Rtnl *r, Observation *o, TbError **err)
{
        int k = observe_qdiscs(r, o, err);

        return k < 0 ? k : observe_default_classes(r, o, err);
}

static int observe_once(Rtnl *r, Observation *o, IfaceState *states, size_t n, TbError **err)
{
        int k = o->few ? observe_few(r, o, err) : observe_all(r, o, err);
        if (k < 0)
                return k;
        for (size_t i = 0; i < n; i++) {
                IfaceState *s = states + i;
                k = observe_tree(r, o, s->veth, s, &s->down, err);
                if (k >= 0 && s->ifb.present)
                        k = observe_tree(r, o, s->ifb.ifindex, s, &s->up, err);
                if (k >= 0)
                        k = observe_ingress(r, s, err);
                if (k < 0)
                        return k;
        }
        return 0;
}

/* The ifb that belongs to a veth by name, or what sits in its place. */
static void observe_ifb(const Links *links, const Link **by_name, uint32_t veth, IfbState *ret)
{
        char id[TC_ALIAS_MAX];
        uint32_t of;
        const Link *l = *by_name ? *by_name : links_find(links, TC_IFB_INDEX_BASE + veth);

        *ret = (IfbState){};
        if (!l)
                return;
        if (!tb_streq(l->kind, "ifb") || !ifb_parse_alias(l->alias, id, &of) || of != veth) {
                /* A device of our index without alias and without a name of its own is one that we did not finish. */
                char name[IFNAMSIZ];
                (void) snprintf(name, sizeof(name), "tbi%u", veth);
                bool unfinished = tb_streq(l->kind, "ifb") && l->alias[0] == '\0' &&
                        tb_streq(l->name, name) && l->ifindex == TC_IFB_INDEX_BASE + veth;
                if (!unfinished) {
                        ret->foreign = true;
                        (void) snprintf(ret->name, sizeof(ret->name), "%s", l->name);
                        return;
                }
        }
        ret->present = true;
        ret->up = (l->flags & IFF_UP) != 0;
        ret->ifindex = l->ifindex;
        ret->txqlen = l->txqlen;
        memcpy(ret->name, l->name, sizeof(ret->name));
        memcpy(ret->alias, l->alias, sizeof(ret->alias));
}

/* Links whose name is ours ("tbi<N>"), found in one walk. */
typedef struct Named {
        uint32_t veth;
        const Link *link;
} Named;

static int compare_named(const void *a, const void *b)
{
        uint32_t x = ((const Named *) a)->veth, y = ((const Named *) b)->veth;

        return x < y ? -1 : x > y;
}

static void observe_links(const Links *links, Named *named, IfaceState *states, size_t n)
{
        size_t count = 0;

        for (size_t i = 0; i < links->n; i++) {
                unsigned v;
                char end;
                if (sscanf(links->v[i].name, "tbi%u%c", &v, &end) == 1)
                        named[count++] = (Named){.veth = v, .link = links->v + i};
        }
        if (count > 0)
                qsort(named, count, sizeof(*named), compare_named);
        for (size_t i = 0; i < n; i++) {
                Named key = {.veth = states[i].veth};
                const Named *hit =
                        count > 0 ? bsearch(&key, named, count, sizeof(*named), compare_named) : NULL;
                const Link *by_name = hit ? hit->link : NULL;
                states[i] = (IfaceState){
                        .veth = states[i].veth, .ruled = states[i].ruled, .thorough = states[i].thorough};
                observe_ifb(links, &by_name, states[i].veth, &states[i].ifb);
        }
}

int observe(Rtnl *r, const Links *links, IfaceState *states, size_t n, bool few, Arena *arena, TbError **err)
{
        enum {
                TRIES = 5,
        };

        if (n == 0)
                return 0;
        _cleanup_free_ Device *devices = reallocarray(NULL, n * 2, sizeof(*devices));
        _cleanup_free_ Named *named = reallocarray(NULL, links->n + 1, sizeof(*named));
        if (!devices || !named)
                return tb_error_oom(err);

        for (int try = 0;; try++) {
                _cleanup_error_ TbError *e = NULL;
                Observation o = {.devices = devices, .arena = arena, .few = few};

                observe_links(links, named, states, n);
                for (size_t i = 0; i < n; i++) {
                        devices[o.n++] = (Device){.ifindex = states[i].veth, .iface = states + i};
                        if (states[i].ifb.present)
                                devices[o.n++] = (Device){
                                        .ifindex = states[i].ifb.ifindex,
                                        .iface = states + i,
                                        .is_ifb = true,
                                };
                }
                qsort(devices, o.n, sizeof(*devices), compare_device);

                int k = observe_once(r, &o, states, n, &e);
                if (k >= 0)
                        return 0;
                if (k == -EINTR && try + 1 < TRIES)
                        continue;
                tb_error_prefix(&e, "cannot read traffic control state");
                (void) tb_error_move(err, &e);
                return k;
        }
}
