/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"

/* Parsers of the keys that describe the site's network and the firewall; userdata is the Config. */

int config_parse_gateways(const char *value, void *config, TbError **err);
int config_parse_servers(const char *value, void *config, TbError **err);
int config_parse_dns(const char *value, void *config, TbError **err);
int config_parse_ntp(const char *value, void *config, TbError **err);
int config_parse_networks(const char *value, void *config, TbError **err);
int config_parse_masquerade(const char *value, void *config, TbError **err);
int config_parse_firewall_rules(const char *value, void *config, TbError **err);
int config_parse_firewall_log(const char *value, void *config, TbError **err);
int config_parse_firewall_check(const char *value, void *config, TbError **err);
int config_parse_ssh_ports(const char *value, void *config, TbError **err);
