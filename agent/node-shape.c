/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/log-node.h"
#include "agent/manager.h"
#include "agent/node.h"
#include "agent/reconcile.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

void shape_override_done(ShapeOverride *o)
{
        free(o->network);
        link_shape_done(&o->shape);
        link_shape_done(&o->before);
        *o = (ShapeOverride){};
}

const ShapeOverride *node_override(const Node *n, const char *network)
{
        for (size_t i = 0; i < n->n_overrides; i++)
                if (tb_streq(n->overrides[i].network, network))
                        return &n->overrides[i];
        return NULL;
}

static ShapeOverride *find(Node *n, const char *network)
{
        return (ShapeOverride *) node_override(n, network);
}

static bool is_over(const ShapeOverride *o, uint64_t now)
{
        return o->until_us != 0 && now >= o->until_us;
}

static void take_link_down(LinkShape *l)
{
        const Shape down = {.set = UINT64_C(1) << SHAPE_LINK, .link_down = 1};
        Shape up_out, down_out;

        shape_merge(&l->base.up, &down, &up_out);
        shape_merge(&l->base.down, &down, &down_out);
        l->base = (ShapePair){.up = up_out, .down = down_out};
}

void parsed_shapes_done(ParsedShape *parsed, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                free(parsed[i].spec);
                link_shape_done(&parsed[i].shape);
        }
        free(parsed);
}

/* Every batch asks for the shapes of all nodes (segmentation.h); a label has up to 16 kB and is parsed once. */
static int parse_label(Node *n, const char *spec, LinkShape *ret, TbError **err)
{
        _cleanup_link_shape_ LinkShape shape = {};

        for (size_t i = 0; i < n->n_parsed; i++)
                if (tb_streq(n->parsed[i].spec, spec))
                        return link_shape_copy(&n->parsed[i].shape, ret, err);
        int r = link_shape_parse_complete(spec, &shape, err);
        if (r >= 0)
                r = link_shape_copy(&shape, ret, err);
        if (r < 0)
                return r;
        if (n->n_parsed == NODE_OVERRIDES_MAX) {
                parsed_shapes_done(n->parsed, n->n_parsed);
                n->parsed = NULL;
                n->n_parsed = 0;
        }
        char *text = strdup(spec);
        ParsedShape *grown = text ? reallocarray(n->parsed, n->n_parsed + 1, sizeof(*grown)) : NULL;
        if (grown) {
                n->parsed = grown;
                n->parsed[n->n_parsed++] = (ParsedShape){.spec = text, .shape = shape};
                shape = (LinkShape){};
        } else
                free(text); /* it is parsed again, then */
        return 0;
}

/* Without the state of a flap: what changes are made to. */
static int declared_shape(const Node *n, const char *network, uint64_t now, LinkShape *ret, TbError **err)
{
        const ShapeOverride *o = node_override(n, network);

        if (o)
                return link_shape_copy(is_over(o, now) ? &o->before : &o->shape, ret, err);
        const char *spec = node_labels_shape(&n->labels, network);
        if (spec)
                return parse_label((Node *) n, spec, ret, err);
        *ret = (LinkShape){};
        return 0;
}

int node_shape(const Node *n, const char *network, LinkShape *ret, TbError **err)
{
        const ShapeOverride *o = node_override(n, network);
        uint64_t now = shape_now_us();

        int r = declared_shape(n, network, now, ret, err);
        if (r >= 0 && o && !is_over(o, now) && shape_flap_is_down(&o->flap, now))
                take_link_down(ret);
        return r;
}

bool node_network_is_shaped(const Node *n, const char *network)
{
        if (!tb_streq(network, n->manager->config.control_network) || node_override(n, network))
                return true;
        for (size_t i = 0; i < n->labels.n_shapes; i++)
                if (tb_streq(n->labels.shapes[i].network, network))
                        return true;
        return false;
}

/* ---- Changes ------------------------------------------------------------------------------------------------------ */

/* Exchanges the override for a network with *o; afterwards *o has no network when there was none. */
static int override_exchange(Node *n, const char *network, ShapeOverride *o, TbError **err)
{
        ShapeOverride *there = find(n, network);

        if (there) {
                ShapeOverride old = *there;
                *there = *o;
                *o = old;
                return 0;
        }
        if (n->n_overrides >= NODE_OVERRIDES_MAX)
                return tb_error_set(
                        err, TB_ERROR_RESOURCE, -E2BIG, "more than %d shaped networks", NODE_OVERRIDES_MAX);
        ShapeOverride *grown = reallocarray(n->overrides, n->n_overrides + 1, sizeof(*grown));
        if (!grown)
                return tb_error_oom(err);
        n->overrides = grown;
        n->overrides[n->n_overrides++] = *o;
        *o = (ShapeOverride){};
        return 0;
}

void node_override_undo(Node *n, const char *network, ShapeOverride *before)
{
        ShapeOverride *there = find(n, network);

        if (!there)
                return;
        ShapeOverride failed = *there;
        if (before->network) {
                *there = *before;
                *before = (ShapeOverride){};
        } else
                *there = n->overrides[--n->n_overrides];
        shape_override_done(&failed);
        shape_timer_arm(n->manager);
}

static bool names_link(const LinkShape *change)
{
        return shape_has(&change->base.up, SHAPE_LINK) || shape_has(&change->base.down, SHAPE_LINK);
}

/* What holds after the change, and whether it speaks of the link's state. */
static int merge_change(
        const LinkShape *base, const ShapeChange *change, LinkShape *ret, bool *ret_link, TbError **err)
{
        static const LinkShape nothing;
        _cleanup_link_shape_ LinkShape parsed = {};

        *ret_link = change->clear;
        if (change->clear)
                return link_shape_copy(&nothing, ret, err);
        const char *text = change->rules ?: change->spec;
        if (!text)
                return link_shape_copy(base, ret, err);
        int r = 0;
        if (!change->rules || text[strspn(text, "; \t\n")] != '\0') /* blank: no rules any more */
                r = link_shape_parse(text, &parsed, err);
        if (r < 0)
                return r;
        *ret_link = names_link(&parsed);
        return link_shape_merge(base, &parsed, change->rules != NULL, ret, err);
}

int node_override_change(
        Node *n, const char *network, const ShapeChange *change, ShapeOverride *ret_before, TbError **err)
{
        _cleanup_shape_override_ ShapeOverride next = {};
        _cleanup_link_shape_ LinkShape base = {};
        const ShapeOverride *o = node_override(n, network);
        uint64_t now = shape_now_us(), duration = 0;
        bool temporary = o && o->until_us != 0 && !is_over(o, now), link = false;

        int r = declared_shape(n, network, now, &base, err);
        if (r >= 0)
                r = merge_change(&base, change, &next.shape, &link, err);
        if (r >= 0 && change->for_time)
                r = shape_for_parse(change->for_time, &duration, err);
        if (r >= 0 && change->flap)
                r = shape_flap_parse(change->flap, now, &next.flap, err);
        else if (o && !is_over(o, now) && !link)
                next.flap = o->flap;
        if (r >= 0 && duration > 0) {
                next.until_us = now + duration;
                r = link_shape_copy(temporary ? &o->before : &base, &next.before, err);
        }
        if (r < 0)
                return r;
        next.network = strdup(network);
        if (!next.network)
                return tb_error_oom(err);
        bool flaps = next.flap.down_us > 0;
        next.keep_up =
                (o && o->keep_up) || flaps || link_shape_has_up(&base) || link_shape_has_up(&next.shape);
        next.keep_down = (o && o->keep_down) || flaps || link_shape_has_down(&base) ||
                link_shape_has_down(&next.shape);
        r = override_exchange(n, network, &next, err);
        if (r < 0)
                return r;
        *ret_before = next;
        next = (ShapeOverride){};
        shape_timer_arm(n->manager);
        return 0;
}

/* ---- State file --------------------------------------------------------------------------------------------------- */

static int put_shape(json_t *j, const char *key, const LinkShape *l, TbError **err)
{
        _cleanup_free_ char *text = link_shape_print(l);

        return text ? tb_json_set_string(j, key, text, err) : tb_error_oom(err);
}

int shape_override_to_json(const ShapeOverride *o, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *j = json_object(), *keep = json_array();
        ShapeClock now;

        shape_clock_now(&now);
        if (!j || !keep || (o->keep_up && json_array_append_new(keep, json_string("up")) < 0) ||
                (o->keep_down && json_array_append_new(keep, json_string("down")) < 0) ||
                json_object_set(j, "keep", keep) < 0)
                return tb_error_oom(err);
        int r = put_shape(j, "spec", &o->shape, err);
        if (r >= 0 && o->until_us != 0) {
                r = put_shape(j, "before", &o->before, err);
                if (r >= 0 && json_object_set_new(j, "until", shape_instant_to_json(o->until_us, &now)) < 0)
                        r = tb_error_oom(err);
        }
        if (r >= 0 && o->flap.down_us > 0 &&
                json_object_set_new(j, "flap",
                        json_pack("{s:o, s:I, s:I, s:I}", "start",
                                shape_instant_to_json(o->flap.start_us, &now), "down_us",
                                (json_int_t) o->flap.down_us, "up_us", (json_int_t) o->flap.up_us, "count",
                                (json_int_t) o->flap.count)) < 0)
                r = tb_error_oom(err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(j);
        return 0;
}

static int get_shape(const json_t *j, const char *key, LinkShape *ret, TbError **err)
{
        const char *text = "";

        int r = tb_json_get_string(j, key, &text, err);
        if (r < 0 || text[0] == '\0') {
                *ret = (LinkShape){};
                return r < 0 ? r : 0;
        }
        return link_shape_parse_complete(text, ret, err);
}

static int flap_from_json(const json_t *j, const ShapeClock *now, ShapeFlap *ret, TbError **err)
{
        uint64_t count = 0;
        json_t *start = NULL;

        int r = tb_json_get_object(j, "start", &start, err);
        if (r >= 0)
                r = shape_instant_from_json(start, now, &ret->start_us, err);
        if (r >= 0)
                r = tb_json_get_u64(j, "down_us", &ret->down_us, err);
        if (r >= 0)
                r = tb_json_get_u64(j, "up_us", &ret->up_us, err);
        if (r >= 0)
                r = tb_json_get_u64(j, "count", &count, err);
        if (r < 0)
                return r;
        if (ret->down_us > SHAPE_FLAP_MAX_US || ret->up_us < SHAPE_FLAP_MIN_US ||
                ret->up_us > SHAPE_FLAP_MAX_US || count > SHAPE_FLAP_COUNT_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "flap is out of range");
        ret->count = (uint32_t) count;
        return 0;
}

int node_override_from_json(Node *n, const char *network, const json_t *j, TbError **err)
{
        _cleanup_shape_override_ ShapeOverride o = {};
        _cleanup_strv_ char **keep = NULL;
        json_t *until = NULL, *flap = NULL;
        ShapeClock now;

        shape_clock_now(&now);
        int r = get_shape(j, "spec", &o.shape, err);
        if (r >= 0)
                r = tb_json_get_strv(j, "keep", &keep, err);
        if (r >= 0)
                r = tb_json_get_object(j, "until", &until, err);
        if (r > 0) {
                r = shape_instant_from_json(until, &now, &o.until_us, err);
                if (r >= 0)
                        r = get_shape(j, "before", &o.before, err);
        }
        if (r >= 0)
                r = tb_json_get_object(j, "flap", &flap, err);
        if (r > 0)
                r = flap_from_json(flap, &now, &o.flap, err);
        if (r < 0)
                return r;
        o.keep_up = tb_strv_contains(keep, "up");
        o.keep_down = tb_strv_contains(keep, "down");
        o.network = strdup(network);
        if (!o.network)
                return tb_error_oom(err);
        return override_exchange(n, network, &o, err);
}

bool shape_override_describe(const ShapeOverride *o, json_t *j)
{
        uint64_t now = shape_now_us();
        json_t *temporary = json_null(), *flap = json_null();

        if (o && o->until_us != 0 && !is_over(o, now)) {
                _cleanup_free_ char *before = link_shape_print(&o->before);
                if (!before)
                        return false;
                temporary = json_pack("{s:I, s:s}", "remaining_ms",
                        (json_int_t) ((o->until_us - now) / 1000), "before", before);
        }
        if (o && o->flap.down_us > 0 && !is_over(o, now))
                flap = json_pack("{s:I, s:I, s:I, s:s}", "down_ms", (json_int_t) (o->flap.down_us / 1000),
                        "up_ms", (json_int_t) (o->flap.up_us / 1000), "count", (json_int_t) o->flap.count,
                        "link", shape_flap_is_down(&o->flap, now) ? "down" : "up");
        bool ok = json_object_set_new(j, "temporary", temporary) >= 0;
        return json_object_set_new(j, "flap", flap) >= 0 && ok;
}

/* ---- The timer ---------------------------------------------------------------------------------------------------- */

/* A change whose time is over: what was before holds, for good. */
static void revert(ShapeOverride *o)
{
        link_shape_done(&o->shape);
        o->shape = o->before;
        o->before = (LinkShape){};
        o->until_us = 0;
        o->flap = (ShapeFlap){};
}

/* Works off what was due since the last look; tells whether the kernel has to follow. */
static bool node_due(Node *n, uint64_t since, uint64_t now, bool *ret_reverted)
{
        bool due = false;

        for (size_t i = 0; i < n->n_overrides; i++) {
                ShapeOverride *o = &n->overrides[i];
                if (is_over(o, now)) {
                        revert(o);
                        due = *ret_reverted = true;
                        event_log_add(n->manager->log, "shape-expired",
                                json_pack("{s:s, s:s, s:s}", "node", node_display_name(n), "id", n->id,
                                        "network", o->network));
                } else if (shape_flap_next(&o->flap, since) <= now)
                        due = true;
        }
        return due;
}

/* Writes all that are due, with one batch. */
static void follow_schedule(Manager *m, Node *const *nodes, size_t n)
{
        _cleanup_free_ TbError **errors = calloc(n + 1, sizeof(*errors));
        _cleanup_error_ TbError *err = NULL;

        int r = errors ? reconcile_now_many(m, nodes, n, false, errors, &err) : tb_error_oom(&err);
        for (size_t i = 0; i < n; i++) {
                const TbError *e = r < 0 ? err : errors[i];
                if (e) {
                        log_node(nodes[i], LOG_ERR,
                                "cannot follow the schedule of its shape, trying again: %s",
                                tb_error_message(e));
                        node_event(nodes[i], NODE_EVENT_CHANGED, NULL);
                }
                if (errors)
                        tb_error_free(errors[i]);
        }
}

static int on_shape_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        Manager *m = userdata;
        _cleanup_free_ Node **due = calloc(m->n_nodes + 1, sizeof(*due));
        uint64_t now = shape_now_us(), since = m->shape_seen_us;
        bool reverted = false;
        size_t n_due = 0;

        (void) s;
        (void) usec;
        m->shape_seen_us = now;
        for (size_t i = 0; i < m->n_nodes; i++) {
                Node *n = m->nodes[i];
                if (!node_due(n, since, now, &reverted) || n->state != NODE_CONFIGURED)
                        continue; /* one that is about to be configured will be so as of then */
                if (due)
                        due[n_due++] = n;
                else
                        node_event(n, NODE_EVENT_CHANGED, NULL);
        }
        if (n_due > 0)
                follow_schedule(m, due, n_due);
        if (reverted) {
                _cleanup_error_ TbError *err = NULL;
                if (state_file_save(m, &err) < 0) /* what is over stays over: the instant is in the file */
                        log_error("%s", tb_error_message(err));
        }
        shape_timer_arm(m);
        return 0;
}

void shape_timer_arm(Manager *m)
{
        uint64_t next = UINT64_MAX;
        int r = 0;

        if (m->shape_seen_us == 0)
                m->shape_seen_us = shape_now_us();
        for (size_t i = 0; i < m->n_nodes; i++)
                for (size_t k = 0; k < m->nodes[i]->n_overrides; k++) {
                        const ShapeOverride *o = &m->nodes[i]->overrides[k];
                        next = MIN2(next, shape_flap_next(&o->flap, m->shape_seen_us));
                        if (o->until_us != 0)
                                next = MIN2(next, o->until_us);
                }
        if (next == UINT64_MAX) {
                m->shape_timer = sd_event_source_disable_unref(m->shape_timer);
                return;
        }
        if (!m->shape_timer)
                r = sd_event_add_time(
                        m->event, &m->shape_timer, CLOCK_BOOTTIME, next, 1000, on_shape_timer, m);
        else {
                r = sd_event_source_set_time(m->shape_timer, next);
                if (r >= 0)
                        r = sd_event_source_set_enabled(m->shape_timer, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                log_error("cannot set a timer for shapes: %s", strerror(-r));
}
