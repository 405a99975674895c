/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/shape-rule.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

void link_shape_done(LinkShape *l)
{
        free(l->rules);
        *l = (LinkShape){};
}

bool link_shape_has_up(const LinkShape *l)
{
        if (!shape_is_empty(&l->base.up))
                return true;
        for (size_t i = 0; i < l->n_rules; i++)
                if (l->rules[i].up_action != SHAPE_RULE_NONE)
                        return true;
        return false;
}

bool link_shape_has_down(const LinkShape *l)
{
        if (!shape_is_empty(&l->base.down))
                return true;
        for (size_t i = 0; i < l->n_rules; i++)
                if (l->rules[i].down_action != SHAPE_RULE_NONE)
                        return true;
        return false;
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

static int larger_first(long a, long b)
{
        return a > b ? -1 : a < b;
}

static int compare_address(const ShapeAddress *a, const ShapeAddress *b)
{
        if (a->family != b->family)
                return a->family < b->family ? -1 : 1;
        return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

/* How wide a port condition is; none is wider than any. */
static long width(bool has, uint16_t first, uint16_t last)
{
        return has ? last - first : 65536;
}

int shape_match_family(const ShapeMatch *m)
{
        return m->to.family != AF_UNSPEC ? m->to.family : m->from.family;
}

int shape_match_compare(const ShapeMatch *a, const ShapeMatch *b)
{
        int r = larger_first(a->to.prefix, b->to.prefix);

        if (r == 0)
                r = larger_first(a->from.prefix, b->from.prefix);
        if (r == 0)
                r = larger_first(shape_match_family(a) != AF_UNSPEC, shape_match_family(b) != AF_UNSPEC);
        if (r == 0)
                r = larger_first(a->has_protocol, b->has_protocol);
        if (r == 0)
                r = -larger_first(width(a->has_port, a->port, a->port_last),
                        width(b->has_port, b->port, b->port_last));
        if (r == 0)
                r = -larger_first(width(a->has_sport, a->sport, a->sport_last),
                        width(b->has_sport, b->sport, b->sport_last));
        if (r == 0)
                r = -larger_first(a->has_port ? a->port : 0, b->has_port ? b->port : 0);
        if (r == 0)
                r = -larger_first(a->has_sport ? a->sport : 0, b->has_sport ? b->sport : 0);
        /* From here on no packet can match both. */
        if (r == 0)
                r = -larger_first(a->has_protocol ? a->protocol : 0, b->has_protocol ? b->protocol : 0);
        if (r == 0)
                r = compare_address(&a->to, &b->to);
        return r != 0 ? r : compare_address(&a->from, &b->from);
}

/* ---- Wholes ------------------------------------------------------------------------------------------------------ */

static int validate_rule(const ShapeRule *r, TbError **err)
{
        char match[SHAPE_MATCH_TEXT_MAX];

        int k = shape_validate(&r->up, "up", err);
        if (k >= 0)
                k = shape_validate(&r->down, "down", err);
        if (k < 0)
                tb_error_prefix(err, "rule '%s'", shape_match_print(&r->match, match));
        return k;
}

void link_shape_for_peer(const LinkShape *l, struct in_addr peer, ShapePair *ret)
{
        bool up = false, down = false;

        *ret = l->base;
        for (size_t i = 0; i < l->n_rules; i++) {
                const ShapeRule *r = l->rules + i;
                const ShapeMatch *m = &r->match;
                uint32_t net, mask = m->to.prefix > 0 ? UINT32_MAX << (32 - m->to.prefix) : 0;
                memcpy(&net, m->to.bytes, sizeof(net));
                if (m->from.family != AF_UNSPEC || m->has_protocol || m->has_port || m->has_sport ||
                        m->to.family == AF_INET6 ||
                        (m->to.family == AF_INET && ((ntohl(net) ^ ntohl(peer.s_addr)) & mask) != 0))
                        continue;
                if (!up && r->up_action == SHAPE_RULE_SHAPE) {
                        ret->up = r->up;
                        up = true;
                }
                if (!down && r->down_action == SHAPE_RULE_SHAPE) {
                        ret->down = r->down;
                        down = true;
                }
        }
}

int link_shape_copy(const LinkShape *l, LinkShape *ret, TbError **err)
{
        LinkShape out = {.base = l->base, .n_rules = l->n_rules};

        if (l->n_rules > 0) {
                out.rules = reallocarray(NULL, l->n_rules, sizeof(*out.rules));
                if (!out.rules)
                        return tb_error_oom(err);
                memcpy(out.rules, l->rules, l->n_rules * sizeof(*out.rules));
        }
        *ret = out;
        return 0;
}

bool link_shape_equal(const LinkShape *a, const LinkShape *b)
{
        if (!shape_equal(&a->base.up, &b->base.up) || !shape_equal(&a->base.down, &b->base.down) ||
                a->n_rules != b->n_rules)
                return false;
        for (size_t i = 0; i < a->n_rules; i++) {
                const ShapeRule *x = a->rules + i, *y = b->rules + i;
                if (shape_match_compare(&x->match, &y->match) != 0 || x->up_action != y->up_action ||
                        x->down_action != y->down_action || !shape_equal(&x->up, &y->up) ||
                        !shape_equal(&x->down, &y->down))
                        return false;
        }
        return true;
}

static void merge_direction(const Shape *base, ShapeRuleAction base_action, const Shape *change,
        ShapeRuleAction action, Shape *ret, ShapeRuleAction *ret_action)
{
        static const Shape empty;

        switch (action) {
        case SHAPE_RULE_SHAPE:
                shape_merge(base_action == SHAPE_RULE_SHAPE ? base : &empty, change, ret);
                *ret_action = SHAPE_RULE_SHAPE;
                break;
        case SHAPE_RULE_PASS:
                *ret = empty;
                *ret_action = SHAPE_RULE_SHAPE;
                break;
        case SHAPE_RULE_DEFAULT:
                *ret = empty;
                *ret_action = SHAPE_RULE_NONE;
                break;
        case SHAPE_RULE_NONE:
        default:
                *ret = *base;
                *ret_action = base_action;
                break;
        }
}

static void merge_rule(const ShapeRule *base, const ShapeRule *change, ShapeRule *ret)
{
        ShapeRule out = {.match = change->match};

        merge_direction(&base->up, base->up_action, &change->up, change->up_action, &out.up, &out.up_action);
        merge_direction(&base->down, base->down_action, &change->down, change->down_action, &out.down,
                &out.down_action);
        *ret = out;
}

int link_shape_merge(
        const LinkShape *base, const LinkShape *change, bool replace_rules, LinkShape *ret, TbError **err)
{
        static const ShapeRule nothing;
        _cleanup_link_shape_ LinkShape out = {};
        size_t n_base = replace_rules ? 0 : base->n_rules, i = 0, k = 0;

        shape_merge(&base->base.up, &change->base.up, &out.base.up);
        shape_merge(&base->base.down, &change->base.down, &out.base.down);
        out.rules = calloc(n_base + change->n_rules + 1, sizeof(*out.rules));
        if (!out.rules)
                return tb_error_oom(err);
        /* Both are sorted. */
        while (i < n_base || k < change->n_rules) {
                int c = i == n_base ? 1
                        : k == change->n_rules
                        ? -1
                        : shape_match_compare(&base->rules[i].match, &change->rules[k].match);
                ShapeRule *r = out.rules + out.n_rules;
                if (c < 0)
                        *r = base->rules[i++];
                else {
                        merge_rule(c == 0 ? base->rules + i : &nothing, change->rules + k, r);
                        i += c == 0;
                        k++;
                }
                if (r->up_action != SHAPE_RULE_NONE || r->down_action != SHAPE_RULE_NONE)
                        out.n_rules++;
        }
        if (out.n_rules > SHAPE_RULES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "bad shape: %zu rules at one interface; at most %u are possible", out.n_rules,
                        SHAPE_RULES_MAX);
        int r = shape_validate(&out.base.up, "up", err);
        if (r >= 0)
                r = shape_validate(&out.base.down, "down", err);
        for (size_t n = 0; r >= 0 && n < out.n_rules; n++)
                r = validate_rule(out.rules + n, err);
        if (r < 0)
                return r;
        *ret = out;
        out = (LinkShape){};
        return 0;
}

int link_shape_parse_complete(const char *text, LinkShape *ret, TbError **err)
{
        static const LinkShape nothing;
        _cleanup_link_shape_ LinkShape change = {};

        int r = link_shape_parse(text, &change, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < change.n_rules; i++)
                if (change.rules[i].up_action == SHAPE_RULE_DEFAULT ||
                        change.rules[i].down_action == SHAPE_RULE_DEFAULT) {
                        char match[SHAPE_MATCH_TEXT_MAX];
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "bad shape: rule '%s default' takes a rule away where there is none yet",
                                shape_match_print(&change.rules[i].match, match));
                }
        return link_shape_merge(&nothing, &change, true, ret, err);
}
