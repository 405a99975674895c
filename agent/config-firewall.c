/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "agent/config-firewall.h"
#include "agent/config.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define CHECK_MIN_NS (UINT64_C(1) * 1000000000)
#define CHECK_MAX_NS (UINT64_C(86400) * 1000000000)

/* Addresses and networks, separated by commas or white space; a key given again adds to it. */
static int parse_list(const char *value, FwNetwork *v, size_t *n, TbError **err)
{
        while (*(value += strspn(value, ", \t"))) {
                char word[FW_NETWORK_TEXT_MAX];
                size_t size = strcspn(value, ", \t");
                int r;

                if (*n == FW_SITE_MAX)
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -E2BIG, "more than %d networks", FW_SITE_MAX);
                if (size >= sizeof(word))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "a word is too long for an address; write for example 10.1.0.0/16,10.2.0.1");
                memcpy(word, value, size);
                word[size] = '\0';
                r = fw_network_parse(word, v + *n, err);
                if (r < 0)
                        return r;
                (*n)++;
                value += size;
        }
        return 0;
}

int config_parse_gateways(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        return parse_list(value, s->gateways, &s->n_gateways, err);
}

int config_parse_servers(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        return parse_list(value, s->servers, &s->n_servers, err);
}

int config_parse_dns(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        return parse_list(value, s->dns, &s->n_dns, err);
}

int config_parse_ntp(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        return parse_list(value, s->ntp, &s->n_ntp, err);
}

int config_parse_networks(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        return parse_list(value, s->networks, &s->n_networks, err);
}

int config_parse_masquerade(const char *value, void *config, TbError **err)
{
        FwSite *s = &((Config *) config)->site;

        int r = parse_list(value, s->masquerade, &s->n_masquerade, err);
        for (size_t i = 0; r >= 0 && i < s->n_masquerade; i++)
                if (s->masquerade[i].family != AF_INET)
                        r = tb_error_set(
                                err, TB_ERROR_CONFIG, -EAFNOSUPPORT, "only IPv4 networks are masqueraded");
        return r;
}

int config_parse_firewall_rules(const char *value, void *config, TbError **err)
{
        _cleanup_fw_rules_ FwRules rules = {};
        FwSite *s = &((Config *) config)->site;

        int r = fw_rules_parse(value, FW_ORIGIN_SITE, &rules, err);
        for (size_t i = 0; i < rules.n && r >= 0; i++)
                r = s->rules.n < FW_RULES_MAX
                        ? fw_rules_add(&s->rules, rules.v + i, err)
                        : tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "more than %d rules", FW_RULES_MAX);
        return r;
}

int config_parse_firewall_log(const char *value, void *config, TbError **err)
{
        return tb_parse_bool(value, &((Config *) config)->site.log, err);
}

int config_parse_firewall_check(const char *value, void *config, TbError **err)
{
        uint64_t ns = 0;

        if (!tb_streq(value, "off")) {
                if (value[0] == 0 || strchr("0123456789.", value[strlen(value) - 1]))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "a time with a unit (60s) or off is expected");
                int r = tb_parse_time(value, &ns, err);
                if (r < 0)
                        return r;
                if (ns < CHECK_MIN_NS || ns > CHECK_MAX_NS)
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -ERANGE, "a time between 1s and 86400s is expected");
        }
        ((Config *) config)->firewall_check_usec = ns / 1000;
        return 0;
}

int config_parse_ssh_ports(const char *value, void *config, TbError **err)
{
        ConfigPorts *p = &((Config *) config)->ssh_ports;
        const char *dash = strchr(value, '-');
        _cleanup_free_ char *first = dash ? strndup(value, (size_t) (dash - value)) : NULL;
        uint32_t from, to;

        if (tb_streq(value, "off")) {
                *p = (ConfigPorts){};
                return 0;
        }
        if (!first || tb_parse_u32(first, 1, UINT16_MAX, &from, NULL) < 0 ||
                tb_parse_u32(dash + 1, from, UINT16_MAX, &to, NULL) < 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "a range of ports like 20000-20999 or off is expected");
        *p = (ConfigPorts){.first = (uint16_t) from, .last = (uint16_t) to};
        return 0;
}
