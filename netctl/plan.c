/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/strv.h"

static const struct {
        const char *name;
        NetctlChange change;
} op_table[] = {
        [OP_IFB_CREATE] = {"create ifb", NETCTL_REBUILT},
        [OP_IFB_SETUP] = {"set up ifb", NETCTL_IN_PLACE},
        [OP_IFB_DELETE] = {"delete ifb", NETCTL_REBUILT},
        [OP_LINK_UP] = {"set up the host interface", NETCTL_IN_PLACE},
        [OP_LINK_MASTER] = {"make the host interface a port of its bridge", NETCTL_IN_PLACE},
        [OP_ROOT_ADD] = {"add root htb", NETCTL_REBUILT},
        [OP_ROOT_DELETE] = {"delete root htb", NETCTL_REBUILT},
        [OP_CLASS_ADD] = {"add htb class", NETCTL_REBUILT},
        [OP_CLASS_CHANGE] = {"change htb class", NETCTL_IN_PLACE},
        [OP_CLASS_DELETE] = {"delete htb class", NETCTL_LEAF_REPLACED},
        [OP_LEAF_ADD] = {"add leaf", NETCTL_LEAF_REPLACED},
        [OP_LEAF_CHANGE] = {"change leaf", NETCTL_IN_PLACE},
        [OP_LEAF_RESET] = {"change leaf, dropping its queue", NETCTL_LEAF_REPLACED},
        [OP_LEAF_REPLACE] = {"replace leaf", NETCTL_LEAF_REPLACED},
        [OP_INGRESS_ADD] = {"add ingress qdisc", NETCTL_REBUILT},
        [OP_INGRESS_DELETE] = {"delete ingress qdisc", NETCTL_REBUILT},
        [OP_FILTER_ADD] = {"add redirect filter", NETCTL_REBUILT},
        [OP_PROGRAM_ADD] = {"add bpf filter", NETCTL_IN_PLACE},
        [OP_PROGRAMS_DELETE] = {"delete bpf filters", NETCTL_IN_PLACE},
        [OP_FOREIGN_ROOT_DELETE] = {"delete somebody else's root qdisc", NETCTL_REBUILT},
        [OP_FOREIGN_INGRESS_DELETE] = {"delete somebody else's ingress qdisc", NETCTL_REBUILT},
        [OP_STRANGER_DELETE] = {"delete somebody's filters at our root", NETCTL_IN_PLACE},
};
static_assert(ELEMENTSOF(op_table) == _OP_KIND_MAX, "one row per operation");

static const char *const change_table[] = {
        [NETCTL_UNCHANGED] = "unchanged",
        [NETCTL_IN_PLACE] = "in-place",
        [NETCTL_LEAF_REPLACED] = "leaf-replaced",
        [NETCTL_REBUILT] = "rebuilt",
};
static_assert(ELEMENTSOF(change_table) == _NETCTL_CHANGE_MAX, "one name per change");

const char *op_to_string(OpKind k)
{
        return k < _OP_KIND_MAX ? op_table[k].name : NULL;
}

NetctlChange op_change(OpKind k)
{
        return op_table[k].change;
}

const char *netctl_change_to_string(NetctlChange c)
{
        return c >= 0 && c < _NETCTL_CHANGE_MAX ? change_table[c] : NULL;
}

void plan_done(Plan *p)
{
        free(p->ops);
        *p = (Plan){};
}

/* Operations for a tree at most: root, class, leaf; class and leaf of each rule, or its deletion; programs. */
static size_t tree_ops(const TcTree *desired, const TcTree *actual)
{
        return 3 + 2 * desired->n_rules + actual->n_rules + TC_GENERATIONS * (2 + CLASSIFY_ALL_MAX);
}

static int plan_grow(Plan *p, size_t need, TbError **err)
{
        if (p->allocated - p->n >= need)
                return 0;
        size_t want = MAX2(p->allocated > 0 ? p->allocated * 2 : 64, p->n + need);
        Op *ops = reallocarray(p->ops, want, sizeof(*ops));
        if (!ops)
                return tb_error_oom(err);
        p->ops = ops;
        p->allocated = want;
        return 0;
}

/* Room for one interface's operations at once, so that planning itself cannot fail half-way. */
static int plan_reserve(Plan *p, const IfaceState *desired, const IfaceState *actual, TbError **err)
{
        /* root, class, leaf, ifb, ingress; foreign ones */
        size_t need = 12 + actual->down.n_strangers + actual->up.n_strangers;

        if (desired->down.n_rules + actual->down.n_rules + desired->up.n_rules + actual->up.n_rules > 0)
                need += tree_ops(&desired->down, &actual->down) + tree_ops(&desired->up, &actual->up);
        else
                need += 8;
        return plan_grow(p, need, err);
}

static Op *plan_add(Plan *p, OpKind kind, uint32_t device, size_t owner)
{
        assert(p->n < p->allocated);
        Op *op = p->ops + p->n++;
        *op = (Op){.kind = kind, .device = device, .owner = owner};
        return op;
}

/* Where operations go: a class of a device. */
typedef struct Place {
        uint32_t device;
        size_t owner;
        uint16_t minor;
} Place;

static Op *plan_at(Plan *p, OpKind kind, const Place *at)
{
        Op *op = plan_add(p, kind, at->device, at->owner);

        op->minor = at->minor;
        return op;
}

static void plan_leaf(const Leaf *desired, const Leaf *actual, const Place *at, Plan *p)
{
        const LeafVtable *v = leaf_vtable(desired->kind);

        if (!v)
                return;
        if (actual->kind == LEAF_NONE)
                plan_at(p, OP_LEAF_ADD, at)->leaf = desired;
        else if (actual->kind != desired->kind || actual->major != desired->major)
                plan_at(p, OP_LEAF_REPLACE, at)->leaf = desired;
        else if (!v->equal(desired, actual))
                plan_at(p, v->change_drops ? OP_LEAF_RESET : OP_LEAF_CHANGE, at)->leaf = desired;
}

static void plan_rule(const TcRule *desired, const TcRule *actual, uint32_t device, size_t owner, Plan *p)
{
        static const Leaf none;
        const Place at = {.device = device, .owner = owner, .minor = desired->minor};
        bool there = actual && actual->has_class;

        if (!there)
                plan_at(p, OP_CLASS_ADD, &at)->htb_class = desired->htb_class;
        else if (!htb_class_equal(&desired->htb_class, &actual->htb_class))
                plan_at(p, OP_CLASS_CHANGE, &at)->htb_class = desired->htb_class;
        plan_leaf(&desired->leaf, there ? &actual->leaf : &none, &at, p);
}

static void plan_generation(
        const TcTree *desired, const TcTree *actual, int generation, uint32_t device, size_t owner, Plan *p)
{
        const Programs *want = desired->programs + generation;

        if (actual->programs[generation].n > 0)
                plan_add(p, OP_PROGRAMS_DELETE, device, owner)->generation = generation;
        for (size_t i = 0; i < want->n; i++) {
                if (want->v[i].n == 0) /* a state to return to, in which one was missing */
                        continue;
                Op *op = plan_add(p, OP_PROGRAM_ADD, device, owner);
                op->generation = generation;
                op->handle = (uint32_t) i + 1;
                op->program = want->v[i];
        }
}

/* New classes, then the programs that lead to them, then away with the old programs and with what they led to. */
static void plan_rules(const TcTree *desired, const TcTree *actual, uint32_t device, size_t owner, Plan *p)
{
        for (size_t i = 0; i < desired->n_rules; i++)
                plan_rule(desired->rules + i, tree_find_rule(actual, desired->rules[i].minor), device, owner,
                        p);
        for (int wanted = 1; wanted >= 0; wanted--)
                for (int g = 0; g < TC_GENERATIONS; g++)
                        if ((desired->programs[g].n > 0) == (bool) wanted &&
                                !programs_equal(desired->programs + g, actual->programs + g))
                                plan_generation(desired, actual, g, device, owner, p);
        /* The highest first: a class that somebody put below another one mostly has the higher number, and goes before it. */
        for (size_t i = actual->n_rules; i-- > 0;)
                if (actual->rules[i].has_class && !tree_find_rule(desired, actual->rules[i].minor))
                        plan_add(p, OP_CLASS_DELETE, device, owner)->minor = actual->rules[i].minor;
}

static void plan_tree(const TcTree *desired, const TcTree *actual, uint32_t device, size_t owner, Plan *p)
{
        static const Leaf none;

        if (desired->owner != TC_OURS) { /* what was foreign before can't be put back */
                if (actual->owner == TC_OURS)
                        plan_add(p, OP_ROOT_DELETE, device, owner);
                return;
        }
        if (actual->owner == TC_FOREIGN)
                plan_add(p, OP_FOREIGN_ROOT_DELETE, device, owner);
        if (actual->owner != TC_OURS)
                plan_add(p, OP_ROOT_ADD, device, owner);
        for (unsigned i = 0; i < actual->n_strangers && desired->n_strangers == 0; i++)
                plan_add(p, OP_STRANGER_DELETE, device, owner)->handle = actual->strangers[i];
        if (!desired->has_class) /* a state to return to, not one to make: interrupted between root and class */
                return;
        const Place at = {.device = device, .owner = owner, .minor = TC_CLASS_DEFAULT};
        if (!actual->has_class)
                plan_at(p, OP_CLASS_ADD, &at)->htb_class = desired->htb_class;
        else if (!htb_class_equal(&desired->htb_class, &actual->htb_class))
                plan_at(p, OP_CLASS_CHANGE, &at)->htb_class = desired->htb_class;
        plan_leaf(&desired->leaf, actual->has_class ? &actual->leaf : &none, &at, p);
        if (desired->n_rules + actual->n_rules > 0)
                plan_rules(desired, actual, device, owner, p);
}

static void plan_up(const IfaceState *d, const IfaceState *a, size_t owner, Plan *p)
{
        static const TcTree none;

        if (!d->ifb.present) {
                if (a->ingress.owner == TC_OURS)
                        plan_add(p, OP_INGRESS_DELETE, a->veth, owner);
                if (a->ifb.present)
                        plan_add(p, OP_IFB_DELETE, a->ifb.ifindex, owner);
                return;
        }
        if (!a->ifb.present)
                plan_add(p, OP_IFB_CREATE, d->ifb.ifindex, owner)->ifb = &d->ifb;
        plan_tree(&d->up, a->ifb.present ? &a->up : &none, d->ifb.ifindex, owner, p);
        /* Up with its queues: where there is a queue already the kernel waits for all that might be using it. */
        if (!a->ifb.present || !tb_streq(d->ifb.alias, a->ifb.alias) || d->ifb.up != a->ifb.up ||
                d->ifb.txqlen != a->ifb.txqlen)
                plan_add(p, OP_IFB_SETUP, d->ifb.ifindex, owner)->ifb = &d->ifb;

        if (d->ingress.owner != TC_OURS) {
                if (a->ingress.owner == TC_OURS)
                        plan_add(p, OP_INGRESS_DELETE, a->veth, owner);
                return;
        }
        bool ingress = a->ingress.owner == TC_OURS, filtered = ingress && a->ingress.filtered;
        if (filtered && (!d->ingress.filtered || a->ingress.redirect != d->ingress.redirect)) {
                plan_add(p, OP_INGRESS_DELETE, a->veth, owner);
                ingress = filtered = false;
        }
        if (a->ingress.owner == TC_FOREIGN)
                plan_add(p, OP_FOREIGN_INGRESS_DELETE, a->veth, owner);
        if (!ingress)
                plan_add(p, OP_INGRESS_ADD, a->veth, owner);
        if (!filtered && d->ingress.filtered)
                plan_add(p, OP_FILTER_ADD, a->veth, owner)->redirect = d->ingress.redirect;
}

static int check_foreign(const IfaceState *d, const IfaceState *a, bool replace, TbError **err)
{
        static const char advice[] = "it is not ours and was not touched; remove it, allow its replacement "
                                     "(replace-foreign), or leave this interface unshaped";

        if (d->down.owner == TC_OURS && a->down.owner == TC_FOREIGN && !replace)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EEXIST,
                        "the host interface has a root qdisc '%s' of somebody else; %s", a->down.kind,
                        advice);
        if (!d->ifb.present)
                return 0;
        if (a->ingress.owner == TC_FOREIGN && d->ingress.owner == TC_OURS && !replace)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EEXIST,
                        "the host interface has a qdisc '%s' or ingress filters of somebody else; %s",
                        a->ingress.kind, advice);
        if (a->ifb.foreign)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EEXIST,
                        "interface '%s' sits where our ifb belongs; it is not ours and was not touched; "
                        "remove it or leave this interface unshaped",
                        a->ifb.name);
        if (a->ifb.present && a->up.owner == TC_FOREIGN && d->up.owner == TC_OURS && !replace)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EEXIST,
                        "ifb '%s' has a root qdisc '%s' of somebody else; %s", a->ifb.name, a->up.kind,
                        advice);
        return 0;
}

/* A rule that is added takes nothing from anybody. */
static NetctlChange change_of(const Op *op)
{
        bool rule = op->minor >= TC_CLASS_RULES && (op->kind == OP_CLASS_ADD || op->kind == OP_LEAF_ADD);

        return rule ? NETCTL_IN_PLACE : op_change(op->kind);
}

int plan_iface(const IfaceState *desired, const IfaceState *actual, bool replace_foreign, size_t owner,
        Plan *plan, NetctlChange *ret_change, TbError **err)
{
        NetctlChange worst = NETCTL_UNCHANGED;

        int r = check_foreign(desired, actual, replace_foreign, err);
        if (r < 0)
                return r;
        r = plan_reserve(plan, desired, actual, err);
        if (r < 0)
                return r;
        size_t first = plan->n;
        plan_tree(&desired->down, &actual->down, desired->veth, owner, plan);
        plan_up(desired, actual, owner, plan);
        for (size_t i = first; i < plan->n; i++)
                worst = MAX2(worst, change_of(plan->ops + i));
        *ret_change = worst;
        return 0;
}

int plan_link(
        const Link *host, uint32_t bridge, size_t owner, Plan *plan, NetctlChange *change, TbError **err)
{
        bool leave = bridge == 0 || host->master == bridge, up = host->flags & IFF_UP;

        if (up && leave)
                return 0;
        int r = plan_grow(plan, 2, err);
        if (r < 0)
                return r;
        if (!leave)
                plan_add(plan, OP_LINK_MASTER, host->ifindex, owner)->master = bridge;
        if (!up)
                plan_add(plan, OP_LINK_UP, host->ifindex, owner);
        *change = MAX2(*change, NETCTL_IN_PLACE);
        return 0;
}

static TcRule *simulate_rule(TcTree *t, uint16_t minor, Arena *arena)
{
        TcRule *rules = arena_alloc(arena, t->n_rules + 1, sizeof(*rules));
        size_t n = 0;

        if (!rules)
                return NULL;
        while (n < t->n_rules && t->rules[n].minor < minor) {
                rules[n] = t->rules[n];
                n++;
        }
        rules[n] = (TcRule){.minor = minor, .has_class = true};
        if (t->n_rules > n)
                memcpy(rules + n + 1, t->rules + n, (t->n_rules - n) * sizeof(*rules));
        t->rules = rules;
        t->n_rules++;
        return rules + n;
}

static void simulate_class(const Op *op, TcTree *t, Arena *arena)
{
        TcRule *rule = tree_find_rule(t, op->minor);

        if (op->kind == OP_CLASS_DELETE && rule) {
                size_t behind = t->n_rules - (size_t) (rule - t->rules) - 1;
                memmove(rule, rule + 1, behind * sizeof(*rule));
                t->n_rules--;
        } else if (op->kind == OP_CLASS_ADD)
                rule = simulate_rule(t, op->minor, arena);
        if (rule && (op->kind == OP_CLASS_ADD || op->kind == OP_CLASS_CHANGE))
                rule->htb_class = op->htb_class;
        else if (rule && op->kind != OP_CLASS_DELETE)
                rule->leaf = *op->leaf;
}

static void simulate_program(const Op *op, TcTree *t, Arena *arena)
{
        Programs *p = t->programs + op->generation;

        if (op->kind == OP_PROGRAMS_DELETE) {
                *p = (Programs){};
                return;
        }
        if (!p->v)
                p->v = arena_alloc(arena, CLASSIFY_ALL_MAX, sizeof(*p->v));
        if (!p->v)
                return;
        p->v[op->handle - 1] = op->program;
        p->n = MAX2(p->n, (size_t) op->handle);
}

static void simulate_tree(const Op *op, TcTree *t, Arena *arena)
{
        if (op->minor >= TC_CLASS_RULES) {
                simulate_class(op, t, arena);
                return;
        }
        switch (op->kind) {
        case OP_ROOT_ADD:
                *t = (TcTree){.owner = TC_OURS, .kind = "htb"};
                break;
        case OP_ROOT_DELETE:
        case OP_FOREIGN_ROOT_DELETE:
                *t = (TcTree){};
                break;
        case OP_CLASS_ADD:
                t->has_class = true;
                t->leaf = (Leaf){};
                _fallthrough_;
        case OP_CLASS_CHANGE:
                t->htb_class = op->htb_class;
                break;
        case OP_LEAF_ADD:
        case OP_LEAF_CHANGE:
        case OP_LEAF_RESET:
        case OP_LEAF_REPLACE:
                t->leaf = *op->leaf;
                break;
        case OP_PROGRAM_ADD:
        case OP_PROGRAMS_DELETE:
                simulate_program(op, t, arena);
                break;
        case OP_STRANGER_DELETE:
                t->n_strangers = 0;
                break;
        case OP_CLASS_DELETE:
        case OP_LINK_UP:
        case OP_LINK_MASTER:
        case OP_IFB_CREATE:
        case OP_IFB_SETUP:
        case OP_IFB_DELETE:
        case OP_INGRESS_ADD:
        case OP_INGRESS_DELETE:
        case OP_FOREIGN_INGRESS_DELETE:
        case OP_FILTER_ADD:
        case _OP_KIND_MAX:
        default:
                break;
        }
}

void plan_simulate(const Op *op, IfaceState *s, Arena *arena)
{
        switch (op->kind) {
        case OP_IFB_CREATE:
                s->ifb = *op->ifb;
                s->ifb.up = false;
                s->ifb.alias[0] = '\0';
                s->up = (TcTree){};
                break;
        case OP_IFB_SETUP:
                s->ifb = *op->ifb;
                break;
        case OP_IFB_DELETE:
                s->ifb = (IfbState){};
                s->up = (TcTree){};
                s->ingress.redirect = 0;
                break;
        case OP_INGRESS_ADD:
                s->ingress = (IngressState){.owner = TC_OURS, .kind = "ingress"};
                break;
        case OP_INGRESS_DELETE:
        case OP_FOREIGN_INGRESS_DELETE:
                s->ingress = (IngressState){};
                break;
        case OP_FILTER_ADD:
                s->ingress.filtered = true;
                s->ingress.redirect = op->redirect;
                break;
        case OP_ROOT_ADD:
        case OP_ROOT_DELETE:
        case OP_FOREIGN_ROOT_DELETE:
        case OP_STRANGER_DELETE:
        case OP_CLASS_ADD:
        case OP_CLASS_CHANGE:
        case OP_CLASS_DELETE:
        case OP_PROGRAM_ADD:
        case OP_PROGRAMS_DELETE:
        case OP_LEAF_ADD:
        case OP_LEAF_CHANGE:
        case OP_LEAF_RESET:
        case OP_LEAF_REPLACE:
                simulate_tree(op, op->device == s->veth ? &s->down : &s->up, arena);
                break;
        case OP_LINK_UP: /* the state of an interface is about queues */
        case OP_LINK_MASTER:
        case _OP_KIND_MAX:
        default:
                break;
        }
}
