/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The firewall's part of tbnode-netctl's documents. */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/tool.h"

static int load_networks(const json_t *site, const char *key, FwNetwork *ret, size_t *ret_n, TbError **err)
{
        _cleanup_strv_ char **v = NULL;

        int r = tb_json_get_strv(site, key, &v, err);
        if (r <= 0)
                return r;
        if (tb_strv_length(v) > FW_SITE_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "site: %s: more than %d entries", key, FW_SITE_MAX);
        for (size_t i = 0; v && v[i]; i++) {
                r = fw_network_parse(v[i], ret + i, err);
                if (r < 0)
                        return r;
                *ret_n = i + 1;
        }
        return 0;
}

static int load_port(const json_t *o, const char *key, uint16_t *ret, TbError **err)
{
        uint64_t port = 0;

        int r = tb_json_get_u64(o, key, &port, err);
        if (r <= 0)
                return r;
        if (port > UINT16_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "%s: at most 65535 is possible", key);
        *ret = (uint16_t) port;
        return 0;
}

int tool_site_load(const json_t *document, FwSite *site, TbError **err)
{
        static const char *const keys[] = {"gateways", "servers", "dns", "ntp", "networks", "masquerade",
                "rules", "log", "agent", "agent_port", NULL};
        const char *rules = NULL, *agent = NULL;
        json_t *o = NULL;

        int r = tb_json_get_object(document, "site", &o, err);
        if (r <= 0)
                return r;
        r = tool_check_keys(o, keys, "site", err);
        if (r >= 0)
                r = load_networks(o, "gateways", site->gateways, &site->n_gateways, err);
        if (r >= 0)
                r = load_networks(o, "servers", site->servers, &site->n_servers, err);
        if (r >= 0)
                r = load_networks(o, "dns", site->dns, &site->n_dns, err);
        if (r >= 0)
                r = load_networks(o, "ntp", site->ntp, &site->n_ntp, err);
        if (r >= 0)
                r = load_networks(o, "networks", site->networks, &site->n_networks, err);
        if (r >= 0)
                r = load_networks(o, "masquerade", site->masquerade, &site->n_masquerade, err);
        if (r >= 0)
                r = tb_json_get_bool(o, "log", &site->log, err);
        if (r >= 0)
                r = tb_json_get_string(o, "rules", &rules, err);
        if (r >= 0 && rules)
                r = fw_rules_parse(rules, FW_ORIGIN_SITE, &site->rules, err);
        if (r >= 0)
                r = tb_json_get_string(o, "agent", &agent, err);
        if (r >= 0 && agent)
                r = fw_network_parse(agent, &site->agent, err);
        return r < 0 ? r : load_port(o, "agent_port", &site->agent_port, err);
}

int tool_node_load_firewall(const json_t *o, NetctlNode *node, FwRules *rules, TbError **err)
{
        const char *style = NULL;

        int r = tb_json_get_string(o, "style", &style, err);
        if (r >= 0 && style)
                r = fw_firewall_parse(style, &node->style, rules, err);
        if (r >= 0)
                r = load_port(o, "group", &node->group, err);
        if (r >= 0)
                r = load_port(o, "ssh_port", &node->ssh_port, err);
        if (r >= 0)
                r = tb_json_get_bool(o, "agent", &node->agent, err);
        node->rules = rules;
        return r < 0 ? r : 0;
}

int tool_interface_load_firewall(const json_t *o, NetctlInterface *i, TbError **err)
{
        _cleanup_strv_ char **ipv6 = NULL;
        const char *ipv4 = NULL;

        int r = tb_json_get_bool(o, "filtered", &i->filtered, err);
        if (r >= 0)
                r = tb_json_get_bool(o, "pinned", &i->pinned, err);
        if (r >= 0)
                r = tb_json_get_string(o, "ipv4", &ipv4, err);
        if (r >= 0 && ipv4 && inet_pton(AF_INET, ipv4, &i->ipv4) != 1)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad ipv4 address");
        if (r >= 0)
                r = tb_json_get_strv(o, "ipv6", &ipv6, err);
        if (r < 0)
                return r;
        for (size_t k = 0; ipv6 && ipv6[k]; k++)
                if (k >= FW_IPV6_MAX || inet_pton(AF_INET6, ipv6[k], i->ipv6 + i->n_ipv6++) != 1)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "bad ipv6 address, or more than %d", FW_IPV6_MAX);
        return 0;
}
