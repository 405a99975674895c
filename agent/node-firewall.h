/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/node.h"

/* A node's firewall as declared. */

/* "STYLE; RULES" in force: the override, else the label; NULL: none. */
const char *node_firewall_text(const Node *n);
int node_firewall_parse(const Node *n, FwStyle *ret_style, FwRules *ret, TbError **err) _warn_unused_;
/* Does the label parse? -EINVAL, kind CONFIG, naming it. */
int node_check_firewall(const Node *n, TbError **err) _warn_unused_;

/* "STYLE; RULES" that wins over the label; on failure the old one stays. */
int node_set_firewall_override(Node *n, const char *text, TbError **err) _warn_unused_;

/* The number of the node's experiment (never 0). All nodes without an experiment have the same one. */
int node_firewall_group(const Node *n, uint16_t *ret, TbError **err) _warn_unused_;
void firewall_groups_done(Manager *m);
#define FIREWALL_GROUPS_MAX 32768U

/* Gives the node a host port of `ssh-ports` when it has none; it keeps that one as long as the container is there. */
int node_ensure_ssh_port(Node *n, TbError **err) _warn_unused_;

/* Fills in style, rules, group, ports. `ret_rules` holds the rules. */
int node_declare_firewall(Node *n, NetctlNode *ret, FwRules *ret_rules, TbError **err) _warn_unused_;
