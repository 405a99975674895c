/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/json.h"
#include "netctl/link-probe.h"
#include "netctl/netctl.h"
#include "netctl/veth.h"

/*
 * What tbnode-netctl reads and prints. Nodes from a JSON document:
 *
 *   { "nodes": [ { "id": "4f5d...", "name": "n1", "pid": 1234, (or "netns": "/run/netns/x")
 *                  "style": "closed; allow tcp to port 80", "group": 1, "ssh_port": 2222, "agent": true,
 *                  "interfaces": [ { "mac": "02:42:ac:11:00:02", (or "ifname": "eth0")
 *                                    "network": "exp1", "shape": TEXT (shape-rule.h), (or "up": SPEC, "down": SPEC;
 *                                    "" = pass everything)
 *                                    "filtered": true, "pinned": true, "ipv4": "172.17.0.2", "ipv6": [] } ] } ],
 *     "site": { "gateways": ["10.0.0.0/24"], "servers": [], "dns": [], "ntp": [], "networks": [], "masquerade": [],
 *               "rules": "deny out tcp to port 25", "log": false, "agent": "10.0.0.1", "agent_port": 7777 } }
 *
 * Unknown keys are errors.
 */

typedef struct ToolNodes {
        NetctlNode *nodes;
        NetctlInterface **interfaces; /* one array per node */
        LinkShape **shapes;
        FwRules *rules; /* per node */
        int32_t *nsids; /* the same */
        size_t n;
        FwSite site;
        json_t *document; /* holds the strings */
} ToolNodes;
void tool_nodes_done(ToolNodes *t);
#define _cleanup_tool_nodes_ _cleanup_(tool_nodes_done)

int tool_nodes_load(const char *path, ToolNodes *ret, TbError **err) _warn_unused_;

/* Parts of it: tool-firewall.c */
int tool_check_keys(const json_t *object, const char *const *known, const char *what, TbError **err)
        _warn_unused_;
int tool_site_load(const json_t *document, FwSite *site, TbError **err) _warn_unused_;
int tool_node_load_firewall(const json_t *o, NetctlNode *node, FwRules *rules, TbError **err) _warn_unused_;
int tool_interface_load_firewall(const json_t *o, NetctlInterface *i, TbError **err) _warn_unused_;

/* Opens a network namespace by PID ("1234") or path. */
int tool_open_netns(const char *pid_or_path, int *ret_fd, TbError **err) _warn_unused_;
/* Reads the container's interfaces: a Netctl-independent look through fresh sockets. */
int tool_container(int netns_fd, Container *ret, Links *ret_links, TbError **err) _warn_unused_;

json_t *tool_report_json(const NetctlReport *r, uint64_t elapsed_ns);
/* For people; errors go to stderr. Returns the number of failed nodes. */
int tool_report_print(const NetctlReport *r);

/* What `probe` is told behind the two ends (tool-probe.c). */
#define TOOL_PROBE_WORDS \
        "[size BYTES] [rate RATE | interval TIME] [packets N | duration TIME] [warmup TIME] [quiet TIME]"

/* Reads these words; what they leave out: 100 packets of 98 bytes, one every 10 ms, 1 s of quiet. */
int tool_probe_parse(char *const *words, LinkProbeTrain *ret, TbError **err) _warn_unused_;
/* One end: the interface of a container by name, with its first IPv4 address. `netns_fd` is borrowed. */
int tool_probe_end(int netns_fd, const char *ifname, LinkProbeEnd *ret, TbError **err) _warn_unused_;
json_t *tool_probe_json(const LinkProbeTrain *t, const LinkProbeResult *r);
void tool_probe_print(const LinkProbeResult *r);
