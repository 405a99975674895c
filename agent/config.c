/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config-firewall.h"
#include "agent/config.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/ini.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/fw-guard.h"

#define TMCD_PORT 7777
#define SECOND UINT64_C(1000000)

static const char *const firewall_table[_AGENT_FIREWALL_MAX] = {
        [AGENT_FIREWALL_AUTO] = "auto",
        [AGENT_FIREWALL_IPTABLES] = "iptables",
        [AGENT_FIREWALL_NFTABLES] = "nftables",
};
static_assert(ELEMENTSOF(firewall_table) == _AGENT_FIREWALL_MAX, "a firewall backend has no name");

const char *agent_firewall_to_string(AgentFirewall f)
{
        return f >= 0 && f < _AGENT_FIREWALL_MAX ? firewall_table[f] : NULL;
}

AgentFirewall agent_firewall_from_string(const char *s)
{
        for (AgentFirewall f = 0; f < _AGENT_FIREWALL_MAX; f++)
                if (tb_streq(firewall_table[f], s))
                        return f;
        return _AGENT_FIREWALL_INVALID;
}

static int replace(char **field, const char *value, TbError **err)
{
        char *copy = strdup(value);

        if (!copy)
                return tb_error_oom(err);
        free(*field);
        *field = copy;
        return 0;
}

static int bad_value(const char *value, const char *expected, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(value, 64);

        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "'%s' is not %s", shown ?: "", expected);
}

static int parse_registry(const char *value, void *userdata, TbError **err)
{
        const char *host = tb_startswith(value, "http://") ?: tb_startswith(value, "https://");

        if (!host || host[0] == 0 || strchr(host, '/'))
                return bad_value(
                        value, "a registry address; write http://HOST:PORT or https://HOST[:PORT]", err);
        return replace(userdata, value, err);
}

static int parse_docker(const char *value, void *userdata, TbError **err)
{
        _cleanup_free_ char *path = NULL;
        int r;

        r = tb_engine_parse_endpoint(value, &path, err);
        if (r < 0)
                return r;
        return replace(userdata, value, err);
}

static int parse_path(const char *value, void *userdata, TbError **err)
{
        if (value[0] != '/' || strlen(value) >= 90)
                return bad_value(value, "an absolute path of less than 90 bytes", err);
        return replace(userdata, value, err);
}

/* Docker: [a-zA-Z0-9][a-zA-Z0-9_.-]*; user and group names are a subset of it on Debian. */
static int parse_name(const char *value, void *userdata, TbError **err)
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

        if (value[0] == 0 || !strchr(letters, value[0]) || strlen(value) > 128 ||
                strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") !=
                        strlen(value))
                return bad_value(
                        value, "a name (letters, digits, '_', '.', '-'; a letter or digit first)", err);
        return replace(userdata, value, err);
}

static int parse_interface(const char *value, void *userdata, TbError **err)
{
        if (!*value || strlen(value) >= IFNAMSIZ || strpbrk(value, "/ \t:"))
                return bad_value(value, "the name of a network interface", err);
        return replace(userdata, value, err);
}

static int parse_subnet(const char *value, void *userdata, TbError **err)
{
        char address[INET_ADDRSTRLEN];
        const char *slash = strchr(value, '/');
        struct in_addr in;
        uint32_t bits;

        if (!slash || (size_t) (slash - value) >= sizeof(address))
                return bad_value(value, "an IPv4 subnet like 172.30.0.0/16", err);
        memcpy(address, value, (size_t) (slash - value));
        address[slash - value] = 0;
        if (inet_pton(AF_INET, address, &in) != 1 || tb_parse_u32(slash + 1, 8, 30, &bits, NULL) < 0)
                return bad_value(value, "an IPv4 subnet like 172.30.0.0/16 (8 to 30 bits)", err);
        if (ntohl(in.s_addr) & (UINT32_MAX >> bits))
                return bad_value(value, "a subnet: bits of the host part are set", err);
        return replace(userdata, value, err);
}

static int parse_firewall(const char *value, void *userdata, TbError **err)
{
        AgentFirewall f = agent_firewall_from_string(value);

        if (f < 0)
                return bad_value(value, "a firewall backend; use auto, iptables or nftables", err);
        *(AgentFirewall *) userdata = f;
        return 0;
}

/* Names of network devices, separated by commas. */
static int parse_bridges(const char *value, void *userdata, TbError **err)
{
        _cleanup_strv_ char **names = NULL;

        for (const char *p = value; *p;) {
                char name[IFNAMSIZ];
                size_t n = strcspn(p, ",");

                if (n == 0 || n >= sizeof(name) || strcspn(p, "/ \t") < n ||
                        tb_strv_length(names) == FW_GUARD_BRIDGES_MAX)
                        return bad_value(value, "a list of at most 16 bridges like br-nodes,br-more", err);
                memcpy(name, p, n);
                name[n] = '\0';
                if (tb_strv_append(&names, name, err) < 0)
                        return -ENOMEM;
                p += n + (p[n] == ',');
        }
        tb_strv_free(*(char ***) userdata);
        *(char ***) userdata = TAKE_PTR(names);
        return 0;
}

static int parse_gate(const char *value, void *userdata, TbError **err)
{
        *(bool *) userdata = tb_streq(value, "optional");
        return *(bool *) userdata || tb_streq(value, "required")
                ? 0
                : bad_value(value, "'required' or 'optional'", err);
}

/* A program to be found in PATH, or where it is. */
static int parse_runtime(const char *value, void *userdata, TbError **err)
{
        return strchr(value, '/') ? parse_path(value, userdata, err) : parse_name(value, userdata, err);
}

static int parse_level(const char *value, void *userdata, TbError **err)
{
        AugmentLevel level = augment_level_from_string(value);

        if (level < 0)
                return bad_value(value, "a level; use none, basic, core, buildenv or full", err);
        *(AugmentLevel *) userdata = level;
        return 0;
}

static int parse_builder(const char *value, void *userdata, TbError **err)
{
        AugmentBuilder builder = augment_builder_from_string(value);

        if (builder < 0)
                return bad_value(value, "a builder; use native or docker", err);
        *(AugmentBuilder *) userdata = builder;
        return 0;
}

static int parse_policy(const char *value, void *userdata, TbError **err)
{
        AugmentPolicy policy = augment_policy_from_string(value);

        if (policy < 0)
                return bad_value(value, "a policy; use latest or cached", err);
        *(AugmentPolicy *) userdata = policy;
        return 0;
}

static int parse_jobs(const char *value, void *userdata, TbError **err)
{
        return tb_parse_u32(value, 1, 64, userdata, err);
}

static int parse_nodes(const char *value, void *userdata, TbError **err)
{
        return tb_parse_u32(value, 1, 10000, userdata, err);
}

static int parse_replace_foreign(const char *value, void *userdata, TbError **err)
{
        return tb_parse_bool(value, userdata, err);
}

static int parse_check_links(const char *value, void *userdata, TbError **err)
{
        static const char *const words[] = {"no", "latency", "full"};
        static_assert(ELEMENTSOF(words) == _CHECK_LINKS_MAX, "one word per value");

        for (CheckLinks c = 0; c < _CHECK_LINKS_MAX; c++)
                if (tb_streq(value, words[c])) {
                        *(CheckLinks *) userdata = c;
                        return 0;
                }
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "expected no, latency or full");
}

/* off | [ADDRESS:]PORT | ADDRESS */
static int parse_tmcd(const char *value, void *userdata, TbError **err)
{
        static const char expected[] = "[ADDRESS:]PORT, ADDRESS or off";
        ConfigTmcd c = {.enabled = true, .port = TMCD_PORT};
        char address[INET_ADDRSTRLEN] = "";
        const char *colon = strchr(value, ':'),
                   *port = colon     ? colon + 1
                : strchr(value, '.') ? NULL
                                     : value;
        size_t n = colon ? (size_t) (colon - value) : strlen(value);
        uint32_t number = TMCD_PORT;

        if (tb_streq(value, "off")) {
                *(ConfigTmcd *) userdata = (ConfigTmcd){};
                return 0;
        }
        if (port != value) {
                if (n >= sizeof(address))
                        return bad_value(value, expected, err);
                memcpy(address, value, n);
                if (inet_pton(AF_INET, address, &c.address) != 1 || c.address.s_addr == 0)
                        return bad_value(value, expected, err);
        }
        if (port && tb_parse_u32(port, 1, 65535, &number, NULL) < 0)
                return bad_value(value, expected, err);
        c.port = (uint16_t) number;
        *(ConfigTmcd *) userdata = c;
        return 0;
}

/* off | [ADDRESS:]PORT */
static int parse_metrics(const char *value, void *userdata, TbError **err)
{
        ConfigListener l = {.address.s_addr = htonl(INADDR_LOOPBACK)};
        const char *colon = strchr(value, ':');
        char address[INET_ADDRSTRLEN];
        uint32_t port;

        if (tb_streq(value, "off")) {
                *(ConfigListener *) userdata = (ConfigListener){};
                return 0;
        }
        if (colon) {
                size_t n = (size_t) (colon - value);

                if (n >= sizeof(address))
                        return bad_value(value, "[ADDRESS:]PORT or off", err);
                memcpy(address, value, n);
                address[n] = 0;
                if (inet_pton(AF_INET, address, &l.address) != 1)
                        return bad_value(value, "[ADDRESS:]PORT or off", err);
        }
        if (tb_parse_u32(colon ? colon + 1 : value, 1, 65535, &port, NULL) < 0)
                return bad_value(value, "[ADDRESS:]PORT or off", err);
        l.port = (uint16_t) port;
        *(ConfigListener *) userdata = l;
        return 0;
}

/* Seconds when no unit is given would surprise users of tc's units (microseconds), so a unit is required. */
static int parse_timeout(const char *value, void *userdata, TbError **err)
{
        uint64_t ns;
        int r;

        if (value[0] == 0 || strchr("0123456789.", value[strlen(value) - 1]))
                return bad_value(value, "a time with a unit, like 90s", err);
        r = tb_parse_time(value, &ns, err);
        if (r < 0)
                return r;
        if (ns < 1000 * SECOND || ns > 86400 * 1000 * SECOND)
                return bad_value(value, "a time between 1s and 86400s", err);
        *(uint64_t *) userdata = ns / 1000;
        return 0;
}

static int parse_grace(const char *value, void *userdata, TbError **err)
{
        uint64_t ns;
        int r;

        if (value[0] == 0 || strchr("0123456789.", value[strlen(value) - 1]))
                return bad_value(value, "a time with a unit, like 900s", err);
        r = tb_parse_time(value, &ns, err);
        if (r < 0)
                return r;
        if (ns > 86400 * 1000 * SECOND)
                return bad_value(value, "a time between 0s and 86400s", err);
        *(uint64_t *) userdata = ns / 1000;
        return 0;
}

static int parse_memory(const char *value, void *userdata, TbError **err)
{
        uint64_t bytes;
        int r;

        r = tb_parse_size(value, &bytes, err);
        if (r < 0)
                return r;
        if (bytes < UINT64_C(64) << 20)
                return bad_value(value, "enough memory for a worker; give at least 64mb", err);
        *(uint64_t *) userdata = bytes;
        return 0;
}

/* Every key, once: what it is called, how it is read and what the reference says about it. */
typedef struct ConfigKey {
        const char *key;
        TbIniParseFn parse;
        size_t offset;
        const char *value_name;
        const char *help;
        size_t live; /* size of its value when it may change while the agent runs, see config-reload.h */
} ConfigKey;

#define LIVE(_member) sizeof(((Config *) NULL)->_member)

static const ConfigKey config_keys[] = {
        {"registry", parse_registry, offsetof(Config, registry), "URL",
                "The testbed's registry, where mirrors and augmented images are kept (default "
                "http://127.0.0.1:5000)"},
        {"docker", parse_docker, offsetof(Config, docker), "ENDPOINT",
                "The Docker engine (default unix:///var/run/docker.sock)"},
        {"docker-config", parse_path, offsetof(Config, docker_config), "PATH",
                "Docker's config.json with credentials for registries (default /root/.docker/config.json, "
                "if any)"},
        {"control-network", parse_name, offsetof(Config, control_network), "NAME",
                "Docker network for management; every other one is an experiment link (default "
                "tbnode-control)"},
        {"control-interface", parse_interface, offsetof(Config, control_interface), "NAME",
                "Physical interface that becomes a port of the control network's bridge (default none)"},
        {"control-subnet", parse_subnet, offsetof(Config, control_subnet), "CIDR",
                "Subnet of the control network when the agent makes it (default: Docker chooses)"},
        {"firewall", parse_firewall, offsetof(Config, firewall), "auto|iptables|nftables",
                "Firewall backend (default auto: `tbnode doctor` says which, and why)"},
        {"managed-bridges", parse_bridges, offsetof(Config, managed_bridges), "NAME[,NAME...]",
                "Bridges where nothing but nodes lives: a port that is not known passes nothing (default "
                "none)"},
        {"gate", parse_gate, offsetof(Config, gate_optional), "required|optional",
                "Whether tbnode-runtime starts a labelled container that is not configured (default "
                "required: no)",
                LIVE(gate_optional)},
        {"oci-runtime", parse_runtime, offsetof(Config, oci_runtime), "NAME|PATH",
                "The runtime behind tbnode-runtime (default runc)", LIVE(oci_runtime)},
        {"level", parse_level, offsetof(Config, level), "none|basic|core",
                "How much is added to images when a request does not say (default basic)", LIVE(level)},
        {"builder", parse_builder, offsetof(Config, builder), "native|docker",
                "Who builds images when a request does not say (default native)", LIVE(builder)},
        {"policy", parse_policy, offsetof(Config, policy), "latest|cached",
                "Ask what a tag is now for every request, or not while it is mirrored (default latest)",
                LIVE(policy)},
        {"run-dir", parse_path, offsetof(Config, run_dir), "PATH",
                "Directory of sockets and the lock (default /run/tbnode)"},
        {"state-dir", parse_path, offsetof(Config, state_dir), "PATH",
                "Directory of lasting state and of the nodes' own files (default /var/lib/tbnode)"},
        {"distributions", parse_path, offsetof(Config, distributions), "PATH",
                "Directory of the tables of 'distribution NAME' (default /etc/tbnode/distributions)"},
        {"socket", parse_path, offsetof(Config, socket), "PATH",
                "API socket (default RUN-DIR/tbnoded.sock)"},
        {"socket-group", parse_name, offsetof(Config, socket_group), "GROUP",
                "Group that may use the API (default tbnode, if that group exists)"},
        {"operators-group", parse_name, offsetof(Config, operators_group), "GROUP",
                "Group that may see and change the nodes of everybody (default tbnode-operators, if it "
                "exists)",
                LIVE(operators_group)},
        {"worker-user", parse_name, offsetof(Config, worker_user), "USER",
                "User that augmentation workers run as (default tbnode-worker, if it exists, else nobody)"},
        {"augment-jobs", parse_jobs, offsetof(Config, jobs_max), "N", "Augmentations at a time (default 4)",
                LIVE(jobs_max)},
        {"augment-timeout", parse_timeout, offsetof(Config, job_timeout_usec), "TIME",
                "Longest time of one augmentation (default 1800s)", LIVE(job_timeout_usec)},
        {"augment-memory", parse_memory, offsetof(Config, job_memory), "SIZE",
                "Address space of one augmentation worker (default 4096mb)", LIVE(job_memory)},
        {"prune-grace", parse_grace, offsetof(Config, prune_grace_usec), "TIME",
                "Images that were made, used or first seen less than this ago are never pruned (default "
                "900s)",
                LIVE(prune_grace_usec)},
        {"start-timeout", parse_timeout, offsetof(Config, start_timeout_usec), "TIME",
                "How long `tbnode run` waits until the node is configured (default 60s)",
                LIVE(start_timeout_usec)},
        {"nodes-max", parse_nodes, offsetof(Config, nodes_max), "N",
                "Most nodes on this host (default 1000)", LIVE(nodes_max)},
        {"replace-foreign", parse_replace_foreign, offsetof(Config, replace_foreign), "no|yes",
                "Delete qdiscs of somebody else that are where a node's shape belongs (default no)",
                LIVE(replace_foreign)},
        {"check-links", parse_check_links, offsetof(Config, check_links), "no|latency|full",
                "Measure links when their nodes were configured, and say what is not as declared (default "
                "no)",
                LIVE(check_links)},
        {"tmcd", parse_tmcd, offsetof(Config, tmcd), "[ADDRESS:]PORT|off",
                "Where Emulab's TMCD is served to nodes (default 7777 on the control network's gateway "
                "address)"},
        {"metrics", parse_metrics, offsetof(Config, metrics), "[ADDRESS:]PORT|off",
                "Where metrics are also served over TCP, to anybody (default off; without ADDRESS on "
                "127.0.0.1)"},
        {"gateways", config_parse_gateways, 0, "NETWORK,...",
                "Routers, boss and ops of the testbed: everything from them passes styles basic and closed"},
        {"servers", config_parse_servers, 0, "NETWORK,...",
                "Servers of the testbed: everything from them passes style closed"},
        {"dns", config_parse_dns, 0, "ADDRESS,...", "Name servers that nodes of any style may ask"},
        {"ntp", config_parse_ntp, 0, "ADDRESS,...", "Time servers that nodes of any style may ask"},
        {"networks", config_parse_networks, 0, "NETWORK,...",
                "Networks inside the testbed: nodes show them their own addresses"},
        {"masquerade", config_parse_masquerade, 0, "NETWORK,...",
                "Nodes of these networks have the host's address for everybody outside `networks` (default: "
                "none)"},
        {"firewall-rules", config_parse_firewall_rules, 0, "RULES",
                "Rules for every node whose style filters, behind those of its user"},
        {"firewall-log", config_parse_firewall_log, 0, "yes|no",
                "Whether what a style denies is written to the kernel's log, with the node's name (default "
                "no)"},
        {"firewall-check", config_parse_firewall_check, 0, "TIME|off",
                "How often the rules in the kernel are looked at, besides whenever somebody changed some "
                "(default "
                "60s)"},
        {"ssh-ports", config_parse_ssh_ports, 0, "FIRST-LAST|off",
                "Ports of the host for ssh, one for each node with a firewall or tbnode.ssh-keys (default "
                "off)"},
        {"ssh-tree", parse_path, offsetof(Config, ssh_tree), "PATH",
                "What nodes with tbnode.ssh-keys have mounted on /tbnode (default " TBNODE_LIBEXECDIR
                "/node)"},
};

const char *config_key_at(size_t i, const char **ret_value_name, const char **ret_help)
{
        if (i >= ELEMENTSOF(config_keys))
                return NULL;
        *ret_value_name = config_keys[i].value_name;
        *ret_help = config_keys[i].help;
        return config_keys[i].key;
}

static_assert(ELEMENTSOF(config_keys) <= CONFIG_KEYS_MAX, "Config.given has a place for each key");

bool config_key_live(size_t i, size_t *ret_offset, size_t *ret_size)
{
        if (i >= ELEMENTSOF(config_keys))
                return false;
        *ret_offset = config_keys[i].offset;
        *ret_size = config_keys[i].live;
        return true;
}

int config_init(Config *c, TbError **err)
{
        *c = (Config){
                .firewall = AGENT_FIREWALL_AUTO,
                .level = AUGMENT_LEVEL_BASIC,
                .builder = AUGMENT_BUILDER_NATIVE,
                .jobs_max = 4,
                .job_timeout_usec = 1800 * SECOND,
                /* Other hosts tell what they use at most every 600 s, and 60 s later (usage.c). */
                .prune_grace_usec = 900 * SECOND,
                .job_memory = UINT64_C(4096) << 20,
                .start_timeout_usec = 60 * SECOND,
                .nodes_max = 1000,
                .tmcd = {.enabled = true, .port = TMCD_PORT},
                .firewall_check_usec = 60 * SECOND,
        };
        c->registry = strdup("http://127.0.0.1:5000");
        c->docker = strdup(TB_ENGINE_DEFAULT);
        c->control_network = strdup("tbnode-control");
        c->run_dir = strdup("/run/tbnode");
        c->state_dir = strdup("/var/lib/tbnode");
        c->ssh_tree = strdup(TBNODE_LIBEXECDIR "/node");
        if (!c->registry || !c->docker || !c->control_network || !c->run_dir || !c->state_dir ||
                !c->ssh_tree)
                return tb_error_oom(err);
        return 0;
}

void config_done(Config *c)
{
        free(c->path);
        for (size_t i = 0; i < CONFIG_KEYS_MAX; i++)
                free(c->given[i]);
        free(c->registry);
        free(c->docker);
        free(c->control_network);
        free(c->control_interface);
        tb_strv_free(c->managed_bridges);
        free(c->control_subnet);
        free(c->run_dir);
        free(c->ssh_tree);
        free(c->state_dir);
        free(c->distributions);
        free(c->socket);
        free(c->socket_group);
        free(c->operators_group);
        free(c->worker_user);
        free(c->docker_config);
        free(c->oci_runtime);
        fw_rules_done(&c->site.rules);
        *c = (Config){};
}

/* Keeps the text, for comparing with the file of a later time, and reads the value. */
typedef struct ConfigItem {
        Config *config;
        size_t key;
} ConfigItem;

static int parse_item(const char *value, void *userdata, TbError **err)
{
        const ConfigItem *item = userdata;
        char **given = &item->config->given[item->key];
        char *text = *given ? tb_asprintf("%s\n%s", *given, value) : strdup(value);

        if (!text)
                return tb_error_oom(err);
        free(*given);
        *given = text;
        return config_keys[item->key].parse(
                value, (char *) item->config + config_keys[item->key].offset, err);
}

static void config_items(Config *c, TbIniItem items[static ELEMENTSOF(config_keys)],
        ConfigItem values[static ELEMENTSOF(config_keys)])
{
        for (size_t i = 0; i < ELEMENTSOF(config_keys); i++) {
                values[i] = (ConfigItem){c, i};
                items[i] = (TbIniItem){
                        .key = config_keys[i].key,
                        .parse = parse_item,
                        .userdata = &values[i],
                        .help = config_keys[i].help,
                        .value_name = config_keys[i].value_name,
                };
        }
}

/* The API socket follows the run directory unless it was named. */
static int config_complete(Config *c, TbError **err)
{
        if (c->socket)
                return 0;
        c->socket = tb_asprintf("%s/tbnoded.sock", c->run_dir);
        return c->socket ? 0 : tb_error_oom(err);
}

int config_parse(Config *c, const char *name, const char *data, size_t size, TbError **err)
{
        TbIniItem items[ELEMENTSOF(config_keys)];
        ConfigItem values[ELEMENTSOF(config_keys)];
        int r;

        config_items(c, items, values);
        r = tb_ini_parse(name, data, size, items, ELEMENTSOF(items), err);
        if (r < 0)
                return r;
        return config_complete(c, err);
}

int config_load(Config *c, const char *path, TbError **err)
{
        TbIniItem items[ELEMENTSOF(config_keys)];
        ConfigItem values[ELEMENTSOF(config_keys)];
        TbError *e = NULL;
        int r;

        if (path && !tb_streq(path, c->path)) {
                r = replace(&c->path, path, err);
                if (r < 0)
                        return r;
        }
        config_items(c, items, values);
        r = tb_ini_load(path ?: AGENT_CONFIG_FILE, items, ELEMENTSOF(items), &e);
        if (r == -ENOENT && !path)
                e = tb_error_free(e);
        else if (r < 0) {
                if (e && e->code == -ENOENT)
                        (void) tb_error_prefix(&e, "no configuration");
                return tb_error_move(err, &e);
        }
        return config_complete(c, err);
}

const char *config_socket(const Config *c)
{
        return c->socket ?: AGENT_SOCKET;
}
