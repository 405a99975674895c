/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Everything the agent reads as JSON from the engine and from clients: descriptions, labels, versions, requests; and
 * events and lists, taken by the real code with an engine that is not there. */

#include <stdlib.h>
#include <string.h>

#include "agent/docker-events.h"
#include "agent/facts.h"
#include "agent/labels.h"
#include "agent/manager.h"
#include "agent/run-spec.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "tests/fuzz/fuzz.h"

static Manager *manager_get(void)
{
        static Manager *m;
        static Config config;

        if (m)
                return m;
        tb_log_set_level(LOG_EMERG);
        fuzz_assert(config_init(&config, NULL) >= 0);
        /* Node directories of containers that are gone are removed: not those of an agent on this machine. */
        free(config.run_dir);
        config.run_dir = strdup("/nonexistent/tbnode");
        free(config.state_dir);
        config.state_dir = strdup("/nonexistent/state");
        fuzz_assert(config.run_dir && config.state_dir && manager_new(&config, &m, NULL) >= 0);
        fuzz_assert(sd_event_new(&m->event) >= 0);
        fuzz_assert(tb_http_new(m->event, &m->http, NULL) >= 0);
        fuzz_assert(tb_engine_new(m->http, "unix:///nowhere", &m->engine, NULL) >= 0);
        fuzz_assert(docker_events_new(m, &m->docker, NULL) >= 0);
        return m;
}

static void try_events(const json_t *j)
{
        Manager *m = manager_get();

        if (json_is_array(j))
                docker_events_take_list(m->docker, j);
        else
                docker_events_take(m->docker, j);
        for (size_t i = 0; i < m->n_nodes; i++) {
                const Node *n = m->nodes[i];
                _cleanup_json_ json_t *text = node_to_json(n, false);

                fuzz_assert(container_id_is_valid(n->id));
                fuzz_assert(n->state >= 0 && n->state < _NODE_STATE_MAX);
                fuzz_assert((n->state == NODE_FAILED) == (n->error != NULL) || n->state == NODE_REMOVING);
                fuzz_assert(text != NULL);
                fuzz_assert(!n->label_error || n->state == NODE_FAILED || n->state == NODE_CREATED ||
                        n->state == NODE_REMOVING || n->state == NODE_STOPPED);
        }
        while (m->n_nodes > 0)
                node_free(m->nodes[m->n_nodes - 1]);
}

static void try_run(const json_t *j)
{
        _cleanup_run_spec_ RunSpec s = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_json_ json_t *body = NULL;
        _cleanup_free_ char *conf = NULL;

        if (run_spec_parse(j, &manager_get()->config, &s, &err) < 0) {
                fuzz_assert(err && err->message[0]);
                return;
        }
        fuzz_assert(!strchr(s.container, '/') && s.container[0] != '.');
        if (run_spec_node_conf(&s, j, &conf, NULL) >= 0)
                fuzz_assert(strlen(conf) < 4096);
        if (run_spec_container(&s, "image", j, "control", "/dir", "/tree", &body, &err) >= 0)
                fuzz_assert(json_is_object(body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_container_facts_ ContainerFacts facts = {};
        _cleanup_node_labels_ NodeLabels labels = {};
        unsigned minor;

        if (tb_json_parse((const char *) data, size, 1 << 16, "input", &j, NULL) < 0)
                return 0;
        if (container_facts_parse(j, &facts, NULL) >= 0) {
                fuzz_assert(container_id_is_valid(facts.id));
                fuzz_assert(facts.n_endpoints <= FACTS_ENDPOINTS_MAX);
                for (size_t i = 0; i < facts.n_endpoints; i++)
                        fuzz_assert(facts.endpoints[i].network && facts.endpoints[i].prefix <= 32);
        }
        if (node_labels_parse(j, &labels, NULL) >= 0)
                fuzz_assert(labels.n_shapes <= LABELS_NETWORKS_MAX);
        if (tb_engine_choose_version(j, &minor, NULL) >= 0)
                fuzz_assert(minor >= TB_ENGINE_API_MIN && minor <= TB_ENGINE_API_MAX);
        try_events(j);
        try_run(j);
        return 0;
}
