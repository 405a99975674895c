/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/labels.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define PREFIX "tbnode."
#define COMPOSE "com.docker.compose."

static const char *const on_exit_table[_NODE_ON_EXIT_MAX] = {
        [NODE_ON_EXIT_STAY] = "stay",
        [NODE_ON_EXIT_STOP] = "stop",
        [NODE_ON_EXIT_RESTART] = "restart",
};
static_assert(ELEMENTSOF(on_exit_table) == _NODE_ON_EXIT_MAX, "an on-exit policy has no name");

const char *node_on_exit_to_string(NodeOnExit v)
{
        return v >= 0 && v < _NODE_ON_EXIT_MAX ? on_exit_table[v] : NULL;
}

NodeOnExit node_on_exit_from_string(const char *s)
{
        for (NodeOnExit v = 0; v < _NODE_ON_EXIT_MAX; v++)
                if (tb_streq(on_exit_table[v], s))
                        return v;
        return _NODE_ON_EXIT_INVALID;
}

void node_labels_done(NodeLabels *l)
{
        free(l->experiment);
        free(l->project);
        free(l->node);
        free(l->firewall);
        free(l->ssh_keys);
        for (size_t i = 0; i < l->n_shapes; i++) {
                free(l->shapes[i].network);
                free(l->shapes[i].spec);
        }
        free(l->shapes);
        *l = (NodeLabels){};
}

bool node_labels_is_managed(const json_t *labels)
{
        const char *key;
        json_t *value;

        json_object_foreach ((json_t *) labels, key, value)
                if (tb_startswith(key, PREFIX))
                        return true;
        return false;
}

const char *node_labels_shape(const NodeLabels *l, const char *network)
{
        const char *common = NULL, *by_compose = NULL,
                   *brief = l->project ? tb_startswith(network, l->project) : NULL;

        for (size_t i = 0; i < l->n_shapes; i++) {
                if (!l->shapes[i].network)
                        common = l->shapes[i].spec;
                else if (tb_streq(l->shapes[i].network, network))
                        return l->shapes[i].spec;
                else if (brief && brief[0] == '_' && tb_streq(l->shapes[i].network, brief + 1))
                        by_compose = l->shapes[i].spec;
        }
        return by_compose ?: common;
}

int node_name_check(const char *what, const char *name, TbError **err)
{
        static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
        size_t n = strlen(name);
        _cleanup_free_ char *shown = NULL;

        if (n > 0 && n <= LABEL_NAME_MAX && strchr(first, name[0]) && strspn(name, rest) == n)
                return 0;
        shown = tb_escape(name, 80);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "%s '%s' is not valid: a letter or digit, then at most %u letters, digits, '-', '_' or '.'",
                what, shown ?: "", LABEL_NAME_MAX - 1);
}

static int set_copy(char **field, const char *value, TbError **err)
{
        *field = strdup(value);
        return *field ? 0 : tb_error_oom(err);
}

static int add_shape(NodeLabels *l, const char *network, const char *spec, TbError **err)
{
        NetworkShape *grown;

        if (network && network[0] == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "label tbnode.shape. names no network; write tbnode.shape.NETWORK");
        if (l->n_shapes >= LABELS_NETWORKS_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "more than %u tbnode.shape labels",
                        LABELS_NETWORKS_MAX);
        grown = reallocarray(l->shapes, l->n_shapes + 1, sizeof(*grown));
        if (!grown)
                return tb_error_oom(err);
        l->shapes = grown;
        l->shapes[l->n_shapes] = (NetworkShape){};
        l->n_shapes++;
        if (network) {
                int r = set_copy(&l->shapes[l->n_shapes - 1].network, network, err);
                if (r < 0)
                        return r;
        }
        return set_copy(&l->shapes[l->n_shapes - 1].spec, spec, err);
}

/* Which of the lines are keys is the server's to judge. */
int node_labels_check_keys(const char *value, TbError **err)
{
        if (strlen(value) > LABEL_KEYS_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "more than %u bytes of keys", LABEL_KEYS_MAX);
        for (const char *c = value; *c; c++)
                if ((unsigned char) *c < 0x20 && *c != '\t' && *c != '\n')
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "control characters; write public keys, one a line");
        if (value[strspn(value, " \t\n")] == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "no key; write public keys, one a line");
        return 0;
}

static int take_keys(NodeLabels *l, const char *value, TbError **err)
{
        int r;

        if (value[0] == 0) /* `tbnode run` says so where the image has the label */
                return 0;
        r = node_labels_check_keys(value, err);
        return r < 0 ? r : set_copy(&l->ssh_keys, value, err);
}

static size_t value_max(const char *key)
{
        if (tb_startswith(key, PREFIX "shape"))
                return LABEL_SHAPE_MAX;
        return tb_streq(key, PREFIX "ssh-keys") ? LABEL_KEYS_MAX : LABEL_VALUE_MAX;
}

static int label_read(NodeLabels *l, const char *key, const char *value, TbError **err)
{
        const char *name = tb_startswith(key, PREFIX), *network;
        int r;

        if (tb_streq(name, "shape"))
                return add_shape(l, NULL, value, err);
        network = tb_startswith(name, "shape.");
        if (network)
                return add_shape(l, network, value, err);
        if (tb_streq(name, "firewall"))
                return set_copy(&l->firewall, value, err);
        if (tb_streq(name, "experiment") || tb_streq(name, "node")) {
                r = node_name_check(name, value, err);
                if (r < 0)
                        return r;
                return set_copy(name[0] == 'e' ? &l->experiment : &l->node, value, err);
        }
        if (tb_streq(name, "tmcd")) {
                bool yes;

                r = tb_parse_bool(value, &yes, err);
                if (r >= 0)
                        l->tmcd = yes;
                return r;
        }
        if (tb_streq(name, "on-exit")) {
                l->on_exit = node_on_exit_from_string(value);
                if (l->on_exit >= 0)
                        return 0;
                l->on_exit = NODE_ON_EXIT_STAY;
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "use stay, stop or restart");
        }
        if (tb_streq(name, "owner")) {
                r = tb_parse_u32(value, 0, UINT32_MAX - 1, &l->owner, err);
                l->has_owner = r >= 0;
                return r;
        }
        if (tb_streq(name, "ssh-keys"))
                return take_keys(l, value, err);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "there is no such label; known are tbnode.shape, tbnode.shape.NETWORK, tbnode.firewall, "
                "tbnode.tmcd, tbnode.experiment, tbnode.node, tbnode.on-exit, tbnode.owner and "
                "tbnode.ssh-keys");
}

static int label_take(NodeLabels *l, const char *key, const json_t *j, TbError **err)
{
        _cleanup_free_ char *shown_key = tb_escape(key, 100), *shown_value = NULL;
        const char *value = json_string_value(j);
        TbError *cause = NULL;
        int r;

        if (!shown_key)
                return tb_error_oom(err);
        if (!value || json_string_length(j) > value_max(key))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "label %s: its value is %s", shown_key,
                        value ? "too long" : "no string");
        r = label_read(l, key, value, &cause);
        if (r >= 0)
                return 0;
        shown_value = tb_escape(value, 100);
        (void) tb_error_prefix(&cause, "label %s=%s", shown_key, shown_value ?: "");
        return tb_error_move(err, &cause);
}

static const char *compose_label(const json_t *labels, const char *name)
{
        return json_string_value(json_object_get(labels, name));
}

/* Names that are not ours to judge: one that can't be a node's is left out, and the container's name counts. */
static int take_compose(NodeLabels *l, const json_t *labels, TbError **err)
{
        const char *project = compose_label(labels, COMPOSE "project"),
                   *service = compose_label(labels, COMPOSE "service"),
                   *text = compose_label(labels, COMPOSE "container-number"),
                   *oneoff = compose_label(labels, COMPOSE "oneoff");
        _cleanup_free_ char *name = NULL;
        uint32_t number;

        /* Images that compose built have the project's name, too; only its containers have numbers. */
        if (!project || !text)
                return 0;
        l->project = strdup(project);
        if (!l->project)
                return tb_error_oom(err);
        if (!l->experiment && node_name_check("project", project, NULL) >= 0) {
                l->experiment = strdup(project);
                if (!l->experiment)
                        return tb_error_oom(err);
                l->implied = true;
        }
        /* `docker-compose run` numbers its containers with those of the service, from 1 on. */
        if (oneoff && strcasecmp(oneoff, "true") == 0) {
                free(TAKE_PTR(l->node));
                return 0;
        }
        if (!service || !text || tb_parse_u32(text, 1, UINT32_MAX, &number, NULL) < 0 ||
                (l->node && number == 1))
                return 0;
        name = tb_asprintf("%s-%u", l->node ?: service, number);
        if (!name)
                return tb_error_oom(err);
        free(TAKE_PTR(l->node));
        if (node_name_check("node", name, NULL) >= 0)
                l->node = TAKE_PTR(name);
        return 0;
}

int node_labels_parse(const json_t *labels, NodeLabels *ret, TbError **err)
{
        _cleanup_node_labels_ NodeLabels l = {.tmcd = -1};
        const char *key;
        json_t *value;
        int r;

        json_object_foreach ((json_t *) labels, key, value) {
                if (!tb_startswith(key, PREFIX))
                        continue;
                r = label_take(&l, key, value, err);
                if (r < 0)
                        return r;
        }
        r = take_compose(&l, labels, err);
        if (r < 0)
                return r;
        *ret = l;
        l = (NodeLabels){};
        return 0;
}
