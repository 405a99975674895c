/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a node's firewall shall be, of label, override and what it is: agent/node.h. */

#include <stdlib.h>
#include <string.h>

#include "agent/manager.h"
#include "agent/node-firewall.h"
#include "agent/outside-ssh.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/strv.h"

const char *node_firewall_text(const Node *n)
{
        return n->firewall_override ?: n->labels.firewall;
}

int node_firewall_parse(const Node *n, FwStyle *ret_style, FwRules *ret, TbError **err)
{
        const char *text = node_firewall_text(n);

        *ret_style = FW_NONE;
        return text ? fw_firewall_parse(text, ret_style, ret, err) : 0;
}

FwStyle node_firewall(const Node *n)
{
        _cleanup_fw_rules_ FwRules rules = {};
        FwStyle style;

        return node_firewall_parse(n, &style, &rules, NULL) < 0 ? _FW_STYLE_INVALID : style;
}

int node_check_firewall(const Node *n, TbError **err)
{
        _cleanup_fw_rules_ FwRules rules = {};
        _cleanup_free_ char *shown = NULL;
        FwStyle style;
        int r;

        if (!n->labels.firewall)
                return 0;
        r = fw_firewall_parse(n->labels.firewall, &style, &rules, err);
        if (r >= 0)
                return 0;
        shown = tb_escape(n->labels.firewall, 80);
        (void) tb_error_prefix(err, "label tbnode.firewall=%s", shown ?: "");
        return r;
}

int node_set_firewall_override(Node *n, const char *text, TbError **err)
{
        _cleanup_fw_rules_ FwRules rules = {};
        FwStyle style;
        char *printed;
        int r;

        r = fw_firewall_parse(text, &style, &rules, err);
        if (r < 0)
                return r;
        printed = fw_firewall_print(style, &rules);
        if (!printed)
                return tb_error_oom(err);
        free(n->firewall_override);
        n->firewall_override = printed;
        return 0;
}

/* FNV-1a, folded: the same name has the same number on every start unless another one was there first. */
static uint16_t group_of(const char *name)
{
        uint32_t h = UINT32_C(0x811c9dc5);

        for (; *name; name++)
                h = (h ^ (unsigned char) *name) * UINT32_C(0x01000193);
        return (uint16_t) (h >> 16 ^ h);
}

static const FirewallGroup *find_group(const Manager *m, const char *name, uint16_t number)
{
        for (size_t i = 0; i < m->n_groups; i++)
                if (name ? tb_streq(m->groups[i].experiment, name) : m->groups[i].number == number)
                        return m->groups + i;
        return NULL;
}

int node_firewall_group(const Node *n, uint16_t *ret, TbError **err)
{
        const char *name = n->labels.experiment ?: "";
        Manager *m = n->manager;
        const FirewallGroup *known = find_group(m, name, 0);
        FirewallGroup *grown;
        uint16_t number = group_of(name);

        if (known) {
                *ret = known->number;
                return 0;
        }
        if (m->n_groups >= FIREWALL_GROUPS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -E2BIG,
                        "more than %u experiments since tbnoded was started; restart it",
                        FIREWALL_GROUPS_MAX);
        while (number == 0 || find_group(m, NULL, number))
                number++;
        grown = reallocarray(m->groups, m->n_groups + 1, sizeof(*grown));
        if (!grown)
                return tb_error_oom(err);
        m->groups = grown;
        grown[m->n_groups] = (FirewallGroup){.experiment = strdup(name), .number = number};
        if (!grown[m->n_groups].experiment)
                return tb_error_oom(err);
        m->n_groups++;
        *ret = number;
        return 0;
}

void firewall_groups_done(Manager *m)
{
        for (size_t i = 0; i < m->n_groups; i++)
                free(m->groups[i].experiment);
        free(m->groups);
        m->groups = NULL;
        m->n_groups = 0;
}

static bool port_is_taken(const Manager *m, uint16_t port)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->ssh_port == port)
                        return true;
        return m->saved_nodes && state_file_has_port(m, port);
}

int node_ensure_ssh_port(Node *n, TbError **err)
{
        const ConfigPorts *range = &n->manager->config.ssh_ports;
        int r;

        if (range->last == 0)
                n->ssh_port = 0;
        if (range->last == 0 || (n->ssh_port >= range->first && n->ssh_port <= range->last))
                return 0;
        for (uint32_t p = range->first; p <= range->last; p++) {
                if (port_is_taken(n->manager, (uint16_t) p))
                        continue;
                n->ssh_port = (uint16_t) p;
                r = state_file_save(n->manager, err);
                if (r < 0)
                        n->ssh_port = 0;
                return r;
        }
        return tb_error_set(err, TB_ERROR_RESOURCE, -EADDRNOTAVAIL,
                "all ports of ssh-ports=%u-%u are given to nodes; make the range larger", range->first,
                range->last);
}

/* A stock Emulab client talks TMCD to the host; nodes that are part of an experiment get to it unless their label says no. */
static bool needs_agent(const Node *n)
{
        return n->labels.tmcd >= 0 ? n->labels.tmcd > 0 : n->labels.experiment != NULL && !n->labels.implied;
}

int node_declare_firewall(Node *n, NetctlNode *ret, FwRules *ret_rules, TbError **err)
{
        int r;

        r = node_firewall_parse(n, &ret->style, ret_rules, err);
        if (r < 0 || ret->style == FW_NONE)
                return r;
        ret->rules = ret_rules;
        ret->agent = needs_agent(n);
        r = node_firewall_group(n, &ret->group, err);
        if (r >= 0)
                r = node_ensure_ssh_port(n, err);
        /* Not translated where the agent itself listens. */
        ret->ssh_port = outside_ssh_is_declared(n) ? 0 : n->ssh_port;
        return r;
}
