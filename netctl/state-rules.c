/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Rules of one direction <-> classes and programs. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/plan.h"
#include "netctl/state.h"

TcRule *tree_find_rule(const TcTree *t, uint16_t minor)
{
        size_t low = 0, high = t->n_rules;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (t->rules[middle].minor == minor)
                        return t->rules + middle;
                if (t->rules[middle].minor < minor)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

int tree_name_rules(TcTree *t, Arena *arena)
{
        for (int g = TC_GENERATIONS; g-- > 0;) {
                ClassifyRule *carried;
                size_t n;
                int r = classify_decode(t->programs + g, arena, &carried, &n);
                if (r == -ENOMEM)
                        return r;
                for (size_t i = 0; r >= 0 && i < n; i++) {
                        TcRule *rule = tree_find_rule(t, carried[i].minor);
                        if (rule)
                                rule->match = &carried[i].match;
                }
        }
        return 0;
}

/* A class that a rule can have; others are somebody's, and go. */
static bool is_slot(uint16_t minor)
{
        return minor >= TC_CLASS_RULES && minor < TC_CLASS_RULES + SHAPE_RULES_MAX;
}

/* Which class each match has in the kernel. */
typedef struct Known {
        const TcRule **v; /* sorted by match */
        size_t n;
} Known;

static int compare_known(const void *a, const void *b)
{
        const TcRule *x = *(const TcRule *const *) a, *y = *(const TcRule *const *) b;

        return shape_match_compare(x->match, y->match);
}

static int known_load(const TcTree *actual, Known *ret, TbError **err)
{
        Known k = {.v = reallocarray(NULL, actual->n_rules + 1, sizeof(*k.v))};

        if (!k.v)
                return tb_error_oom(err);
        for (size_t i = 0; i < actual->n_rules; i++)
                if (actual->rules[i].match && actual->rules[i].has_class && is_slot(actual->rules[i].minor))
                        k.v[k.n++] = actual->rules + i;
        if (k.n > 1)
                qsort(k.v, k.n, sizeof(*k.v), compare_known);
        *ret = k;
        return 0;
}

static const TcRule *known_find(const Known *k, const ShapeMatch *match)
{
        size_t low = 0, high = k->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int c = shape_match_compare(k->v[middle]->match, match);
                if (c == 0)
                        return k->v[middle];
                if (c < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

/* Classes: free ones first; when there are no more, those that nobody will have any longer. */
typedef struct Slots {
        bool used[SHAPE_RULES_MAX], kept[SHAPE_RULES_MAX];
        unsigned next;
        bool reuse;
} Slots;

static uint16_t slots_take(Slots *s)
{
        for (;;) {
                if (s->next == SHAPE_RULES_MAX) {
                        s->next = 0;
                        s->reuse = true;
                }
                unsigned i = s->next++;
                if (s->reuse ? s->kept[i] : s->used[i])
                        continue;
                s->used[i] = s->kept[i] = true;
                return (uint16_t) (TC_CLASS_RULES + i);
        }
}

static void rule_from_shape(
        const Shape *s, uint32_t mtu, const TcRule *actual, bool have_netem, uint16_t minor, TcRule *ret)
{
        *ret = (TcRule){.minor = minor, .has_class = true};
        htb_class_for_shape(s, mtu, &ret->htb_class);
        leaf_from_shape(s, mtu, actual ? &actual->leaf : NULL, have_netem, minor, &ret->leaf);
}

static int compare_minor(const void *a, const void *b)
{
        return (int) ((const TcRule *) a)->minor - (int) ((const TcRule *) b)->minor;
}

/* Gives each rule its class; classes[i] is what rule i has in the kernel already. */
static void fill_rules(const ShapeRule *rules, const ClassifyRule *targets, size_t n, bool up, uint32_t mtu,
        const TcTree *actual, bool have_netem, TcTree *tree)
{
        for (size_t i = 0; i < n; i++) {
                const TcRule *there = actual ? tree_find_rule(actual, targets[i].minor) : NULL;
                const ShapeRule *r = rules + i;
                TcRule *out = tree->rules + i;
                rule_from_shape(up ? &r->up : &r->down, mtu, there && there->has_class ? there : NULL,
                        have_netem, targets[i].minor, out);
                out->match = &targets[i].match;
        }
        tree->n_rules = n;
        if (n > 1)
                qsort(tree->rules, n, sizeof(*tree->rules), compare_minor);
}

/* Does a class do exactly what the shape asks for? */
static bool does_the_same(
        const Shape *s, const HtbClass *class, uint32_t mtu, bool have_netem, const TcRule *there)
{
        const LeafVtable *v = leaf_vtable(there->leaf.kind);
        Leaf leaf;

        if (!v || !htb_class_equal(class, &there->htb_class))
                return false;
        leaf_from_shape(s, mtu, &there->leaf, have_netem, there->minor, &leaf);
        return leaf.kind == there->leaf.kind && leaf.major == there->leaf.major &&
                v->equal(&leaf, &there->leaf);
}

/*
 * Somebody has deleted or damaged the programs, and with them the note of whose which class is. A class that nobody is
 * known to have and that does what a rule wants is as good as the one it had, and most often it is that one: both lists are in
 * the order in which they were made. So the queues stay as they are, and only the programs are written again.
 */
static void adopt(const ShapeRule *rules, size_t n, bool up, uint32_t mtu, const TcTree *actual,
        bool have_netem, Slots *slots, ClassifyRule *targets)
{
        size_t from = 0;

        for (size_t i = 0; i < n && actual->n_rules > 0; i++) {
                const Shape *s = up ? &rules[i].up : &rules[i].down;
                HtbClass class;
                if (targets[i].minor != 0)
                        continue;
                htb_class_for_shape(s, mtu, &class);
                for (size_t k = 0; k < actual->n_rules; k++) {
                        const TcRule *there = actual->rules + (from + k) % actual->n_rules;
                        if (there->match || !there->has_class || !is_slot(there->minor) ||
                                slots->kept[there->minor - TC_CLASS_RULES] ||
                                !does_the_same(s, &class, mtu, have_netem, there))
                                continue;
                        targets[i].minor = there->minor;
                        slots->kept[there->minor - TC_CLASS_RULES] = true;
                        from += k + 1;
                        break;
                }
        }
}

static int assign(const ShapeRule *rules, size_t n, bool up, uint32_t mtu, const TcTree *actual,
        bool have_netem, ClassifyRule *targets, TbError **err)
{
        static const TcTree nothing;
        _cleanup_free_ const TcRule **list = NULL;
        _cleanup_free_ Slots *slots = calloc(1, sizeof(*slots));
        Known known = {};

        int r = known_load(actual ? actual : &nothing, &known, err);
        list = known.v;
        if (r < 0)
                return r;
        if (!slots)
                return tb_error_oom(err);
        for (size_t i = 0; actual && i < actual->n_rules; i++)
                if (is_slot(actual->rules[i].minor))
                        slots->used[actual->rules[i].minor - TC_CLASS_RULES] = true;
        for (size_t i = 0; i < n; i++) {
                const TcRule *there = known_find(&known, &rules[i].match);
                targets[i] = (ClassifyRule){.match = rules[i].match};
                if (there) {
                        targets[i].minor = there->minor;
                        slots->kept[there->minor - TC_CLASS_RULES] = true;
                }
        }
        if (actual)
                adopt(rules, n, up, mtu, actual, have_netem, slots, targets);
        for (size_t i = 0; i < n; i++)
                if (targets[i].minor == 0)
                        targets[i].minor = slots_take(slots);
        return 0;
}

int tree_add_rules(const ShapeRule *rules, size_t n, bool up, uint32_t mtu, const TcTree *actual,
        bool have_netem, Arena *arena, TcTree *tree, TbError **err)
{
        static const TcTree nothing;
        const TcTree *there = actual && actual->owner == TC_OURS ? actual : &nothing;
        Programs programs;
        int generation = 0;

        /* Those of this direction. */
        _cleanup_free_ ShapeRule *mine = reallocarray(NULL, n + 1, sizeof(*mine));
        if (!mine)
                return tb_error_oom(err);
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
                if ((up ? rules[i].up_action : rules[i].down_action) == SHAPE_RULE_SHAPE)
                        mine[count++] = rules[i];
        if (count == 0)
                return 0;

        ClassifyRule *targets = arena_alloc(arena, count, sizeof(*targets));
        tree->rules = arena_alloc(arena, count, sizeof(*tree->rules));
        if (!targets || !tree->rules)
                return tb_error_oom(err);
        int r = assign(mine, count, up, mtu, there, have_netem, targets, err);
        if (r < 0)
                return r;
        r = classify_compile(targets, count, !up, TC_MAJOR_ROOT, arena, &programs, err);
        if (r < 0)
                return r;
        fill_rules(mine, targets, count, up, mtu, there, have_netem, tree);

        if (programs_equal(&programs, there->programs + 1) ||
                (there->programs[0].n > 0 && !programs_equal(&programs, there->programs)))
                generation = 1;
        tree->programs[generation] = programs;
        return 0;
}
