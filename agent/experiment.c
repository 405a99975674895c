/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/experiment.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "agent/barrier.h"
#include "agent/node-client.h"
#include "agent/node-report.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

bool experiment_same(const Node *a, const Node *b)
{
        return a == b || (a->labels.experiment && tb_streq(a->labels.experiment, b->labels.experiment));
}

static bool counts(const Node *n)
{
        return !n->destroyed && (node_is_running(n) || n->state == NODE_CREATED);
}

unsigned experiment_size(const Node *n)
{
        unsigned count = 0;

        if (!n->labels.experiment)
                return counts(n);
        for (size_t i = 0; i < n->manager->n_nodes; i++)
                count += experiment_same(n, n->manager->nodes[i]) && counts(n->manager->nodes[i]);
        return count;
}

static bool is_ready(const Node *n)
{
        return n->client && json_is_true(json_object_get(n->client->status, "ready"));
}

unsigned experiment_ready(const Node *n)
{
        unsigned count = 0;

        for (size_t i = 0; i < n->manager->n_nodes; i++)
                count += experiment_same(n, n->manager->nodes[i]) && counts(n->manager->nodes[i]) &&
                        is_ready(n->manager->nodes[i]);
        return count;
}

/* Has it an address on an experiment network? */
static bool is_link(const Node *n, const Endpoint *e)
{
        return e->has_mac && e->address.s_addr != 0 &&
                !tb_streq(e->network, n->manager->config.control_network);
}

static bool add_hosts(const Node *n, json_t *hosts)
{
        bool first = true;

        if (!n->has_facts || !node_is_running(n))
                return true;
        for (size_t i = 0; i < n->facts.n_endpoints; i++) {
                const Endpoint *e = &n->facts.endpoints[i];
                _cleanup_free_ char *name = NULL;
                char address[INET_ADDRSTRLEN];
                json_t *aliases, *host;

                if (!is_link(n, e))
                        continue;
                name = tb_asprintf("%s-%s", node_display_name(n), e->network);
                aliases = first ? json_pack("[s]", node_display_name(n)) : json_array();
                host = name ? json_pack("{s:s, s:s, s:o}", "name", name, "address",
                                      inet_ntop(AF_INET, &e->address, address, sizeof(address)), "aliases",
                                      aliases)
                            : NULL;
                if (!host || json_array_append_new(hosts, host) < 0)
                        return false;
                first = false;
        }
        return true;
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(
                node_display_name(*(const Node *const *) a), node_display_name(*(const Node *const *) b));
}

/* Its nodes by name, ended by NULL: answers do not depend on what ids Docker thought of. NULL when out of memory. */
static const Node **members(const Node *n)
{
        const Node **list = calloc(n->manager->n_nodes + 1, sizeof(*list));
        size_t k = 0;

        for (size_t i = 0; list && i < n->manager->n_nodes; i++)
                if (experiment_same(n, n->manager->nodes[i]) && !n->manager->nodes[i]->destroyed)
                        list[k++] = n->manager->nodes[i];
        if (k > 1)
                qsort(list, k, sizeof(*list), compare_names);
        return list;
}

json_t *experiment_hosts(const Node *n, const json_t *declared)
{
        _cleanup_free_ const Node **list = members(n);
        _cleanup_json_ json_t *hosts = list ? json_array() : NULL;

        for (size_t i = 0; hosts && list[i]; i++)
                if (!add_hosts(list[i], hosts))
                        return NULL;
        if (!hosts || (declared && json_array_extend(hosts, (json_t *) declared) < 0))
                return NULL;
        return TAKE_PTR(hosts);
}

json_t *experiment_interfaces(const Node *n)
{
        _cleanup_json_ json_t *list = json_array();

        for (size_t i = 0; list && n->has_facts && i < n->facts.n_endpoints; i++) {
                const Endpoint *e = &n->facts.endpoints[i];
                const uint8_t *m = e->mac.ether_addr_octet;
                char address[INET_ADDRSTRLEN], mac[18];
                json_t *j;

                if (!is_link(n, e))
                        continue;
                (void) snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
                        m[4], m[5]);
                j = json_pack("{s:s, s:s, s:s, s:i}", "network", e->network, "mac", mac, "address",
                        inet_ntop(AF_INET, &e->address, address, sizeof(address)), "prefix",
                        (int) e->prefix);
                if (!j || json_array_append_new(list, j) < 0)
                        return NULL;
        }
        return TAKE_PTR(list);
}

json_t *experiment_nodes(const Node *n)
{
        _cleanup_free_ const Node **nodes = members(n);
        _cleanup_json_ json_t *list = nodes ? json_array() : NULL;

        for (size_t i = 0; list && nodes[i]; i++) {
                const Node *other = nodes[i];
                json_t *startup, *j;

                startup = other->client ? json_object_get(other->client->status, "startup") : NULL;
                j = json_pack("{s:s, s:s, s:s?, s:b, s:O?}", "node", node_display_name(other), "state",
                        node_state_to_string(other->state), "client", node_client_state(other), "ready",
                        is_ready(other), "startup", startup);
                if (!j || json_array_append_new(list, j) < 0)
                        return NULL;
        }
        return TAKE_PTR(list);
}

const Node *experiment_first(const Node *n)
{
        const Node *first = n;

        for (size_t i = 0; i < n->manager->n_nodes; i++) {
                const Node *other = n->manager->nodes[i];

                if (experiment_same(n, other) && counts(other) &&
                        strcmp(node_display_name(other), node_display_name(first)) < 0)
                        first = other;
        }
        return first;
}

/* ---- Changes ----------------------------------------------------------------------------------------------------- */

/* FNV-1a, 64 bits: two sets of names that differ are told apart; nobody gains by making them collide but for a client of
 * their own experiment that is told late. */
static uint64_t mix(uint64_t h, const void *data, size_t size)
{
        const unsigned char *p = data;

        for (size_t i = 0; i < size; i++)
                h = (h ^ p[i]) * UINT64_C(0x100000001b3);
        return h;
}

static uint64_t mix_node(uint64_t h, const Node *n)
{
        if (!n->has_facts || !node_is_running(n))
                return h;
        h = mix(h, n->id, CONTAINER_ID_LEN);
        for (size_t k = 0; k < n->facts.n_endpoints; k++) {
                const Endpoint *e = &n->facts.endpoints[k];

                if (!is_link(n, e))
                        continue;
                h = mix(h, e->network, strlen(e->network) + 1);
                h = mix(h, &e->address, sizeof(e->address));
                h = mix(h, &e->mac, sizeof(e->mac));
        }
        return h;
}

static uint64_t fingerprint(const Node *n)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        if (!n->labels.experiment)
                h = mix_node(h, n);
        else
                for (size_t i = 0; i < n->manager->n_nodes; i++)
                        if (experiment_same(n, n->manager->nodes[i]))
                                h = mix_node(h, n->manager->nodes[i]);
        h >>= 1; /* JSON numbers have 63 bits */
        return h ? h : 1;
}

/* Each experiment is looked at once: its first node in the list stands for all. */
static bool stands_for_all(const Manager *m, size_t i)
{
        for (size_t k = 0; k < i && m->nodes[i]->labels.experiment; k++)
                if (experiment_same(m->nodes[k], m->nodes[i]))
                        return false;
        return true;
}

static int on_changed(sd_event_source *s, void *userdata)
{
        Manager *m = userdata;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        if (!m->synced)
                return 0; /* half an experiment is no news */
        for (size_t i = 0; i < m->n_nodes; i++) {
                /* Alone, when it is of no experiment: of a thousand such nodes each would look at all the others. */
                size_t end = m->nodes[i]->labels.experiment ? m->n_nodes : i + 1;
                uint64_t h;

                if (!stands_for_all(m, i))
                        continue;
                h = fingerprint(m->nodes[i]);
                for (size_t k = i; k < end; k++) {
                        NodeClient *c = m->nodes[k]->client;

                        if (!c || !experiment_same(m->nodes[i], m->nodes[k]) || c->fingerprint == h)
                                continue;
                        /* Never counted, and nobody was told anything else: no news. */
                        if (c->fingerprint != 0 || node_client_is_attached(m->nodes[k]))
                                node_client_changed(m->nodes[k]);
                        c->fingerprint = h;
                        node_client_save(c);
                }
                barrier_set_population(m->barriers, m->nodes[i]->labels.experiment ?: m->nodes[i]->id,
                        experiment_size(m->nodes[i]));
        }
        return 0;
}

void experiment_changed(Manager *m)
{
        int r = 0;

        if (!m->event)
                return;
        if (m->experiment_check)
                r = sd_event_source_set_enabled(m->experiment_check, SD_EVENT_ONESHOT);
        else {
                r = sd_event_add_defer(m->event, &m->experiment_check, on_changed, m);
                if (r >= 0)
                        r = sd_event_source_set_priority(m->experiment_check, SD_EVENT_PRIORITY_IDLE);
        }
        if (r < 0 && r != -ESTALE) /* the loop has ended: so does the agent */
                log_error("cannot tell clients of changes: %s", strerror(-r));
}
