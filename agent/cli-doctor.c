/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * tbnode doctor: what this host has and lacks, each with what to do. It looks itself (so it works without the agent), and
 * asks the agent only whether it runs and which engine and registry it uses.
 */

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "agent/config.h"
#include "agent/worker-process.h"
#include "augment/payload.h"
#include "augment/sandbox.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/capabilities.h"
#include "netctl/netctl.h"
#include "registry-client/registry.h"

#define HTTP_TIMEOUT_USEC (10 * UINT64_C(1000000))

typedef enum Verdict {
        VERDICT_OK,
        VERDICT_WARN, /* works, but less than it could */
        VERDICT_FAIL, /* something that is needed is missing */
        _VERDICT_MAX,
} Verdict;

static const char *const verdict_names[_VERDICT_MAX] = {
        [VERDICT_OK] = "ok",
        [VERDICT_WARN] = "warn",
        [VERDICT_FAIL] = "FAIL",
};

typedef struct Doctor {
        Cli *cli;
        Config config;
        json_t *checks;
        size_t count[_VERDICT_MAX];
} Doctor;

static void say(Doctor *d, Verdict v, const char *check, const char *fmt, ...) _printf_(4, 5);

static void say(Doctor *d, Verdict v, const char *check, const char *fmt, ...)
{
        char text[1024];
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        d->count[v]++;
        if (!d->cli->json)
                printf("%-4s  %-18s %s\n", verdict_names[v], check, text);
        (void) json_array_append_new(d->checks,
                json_pack("{s:s, s:s, s:s}", "check", check, "verdict",
                        v == VERDICT_FAIL ? "fail" : verdict_names[v], "text", text));
}

static void say_error(Doctor *d, Verdict v, const char *check, TbError *err)
{
        say(d, v, check, "%s", tb_error_message(err));
        tb_error_free(err);
}

/* ---- Agent ------------------------------------------------------------------------------------------------------- */

static int replace(char **field, const char *value)
{
        char *copy = value ? strdup(value) : NULL;

        if (!copy)
                return -ENOMEM;
        free(*field);
        *field = copy;
        return 0;
}

static void check_agent(Doctor *d)
{
        _cleanup_json_ json_t *status = NULL;
        TbError *err = NULL;

        if (cli_call(d->cli, "GET", "/v1/status", NULL, &status, &err) < 0) {
                say_error(d, VERDICT_WARN, "agent", err);
                return;
        }
        say(d, VERDICT_OK, "agent", "tbnoded %s answers, process %lld", cli_text(status, "version", ""),
                (long long) json_integer_value(json_object_get(status, "pid")));
        /* What it uses counts, not what the file says by now. */
        if (replace(&d->config.registry, cli_text(status, "registry", NULL)) < 0 ||
                replace(&d->config.docker, cli_text(json_object_get(status, "engine"), "endpoint", NULL)) <
                        0)
                say(d, VERDICT_WARN, "agent", "its status names no registry or engine");
}

/* ---- Kernel ------------------------------------------------------------------------------------------------------ */

/* What shaping and filtering cannot do without; what is not listed only widens the range. */
static const Capability needed[] = {CAPABILITY_VETH, CAPABILITY_IFB, CAPABILITY_BRIDGE, CAPABILITY_HTB,
        CAPABILITY_PFIFO, CAPABILITY_INGRESS, CAPABILITY_U32, CAPABILITY_MIRRED, CAPABILITY_BR_NETFILTER};
static const Capability useful[] = {CAPABILITY_NETEM, CAPABILITY_NETEM_LOSS, CAPABILITY_NETEM_ECN,
        CAPABILITY_NETEM_DISTRIBUTION, CAPABILITY_NETEM_SLOT, CAPABILITY_NETEM_SLOT_DISTRIBUTION,
        CAPABILITY_NETEM_SEED, CAPABILITY_BFIFO, CAPABILITY_RED, CAPABILITY_BLACKHOLE,
        CAPABILITY_NF_TABLES_BRIDGE, CAPABILITY_NF_TABLES_ARP, CAPABILITY_NFT_BRIDGE_META};
/* What each firewall needs. */
static const Capability for_iptables[] = {CAPABILITY_IPTABLES_FILTER, CAPABILITY_IPTABLES_NAT,
        CAPABILITY_IP6TABLES_FILTER, CAPABILITY_XT_PHYSDEV, CAPABILITY_XT_CONNTRACK};
static const Capability for_nftables[] = {CAPABILITY_NF_TABLES, CAPABILITY_NF_TABLES_INET};

static void check_capability(Doctor *d, const Capabilities *caps, Capability c, Verdict missing)
{
        char check[64];

        (void) snprintf(check, sizeof(check), "kernel %s", capability_to_string(c));
        if (caps->has[c])
                say(d, VERDICT_OK, check, "%s", capability_module(c));
        else
                say(d, missing, check, "no %s (%s): %s", capability_module(c), strerror(-caps->error[c]),
                        capability_advice(c));
}

/* Which back end the agent uses, and why; what the other one lacks doesn't matter. */
static void check_firewall(Doctor *d, const Capabilities *caps)
{
        NetctlFirewall wanted = netctl_firewall_from_string(agent_firewall_to_string(d->config.firewall)), f;
        const Capability *list;
        const char *why;
        TbError *err = NULL;
        size_t n;

        if (netctl_firewall_choose(caps, wanted, &f, &why, &err) < 0) {
                say_error(d, VERDICT_FAIL, "firewall", err);
                f = wanted;
        } else
                say(d, VERDICT_OK, "firewall", "%s: %s (firewall=%s)", netctl_firewall_to_string(f), why,
                        netctl_firewall_to_string(wanted));
        list = f == NETCTL_FIREWALL_NFTABLES ? for_nftables : for_iptables;
        n = f == NETCTL_FIREWALL_NFTABLES ? ELEMENTSOF(for_nftables) : ELEMENTSOF(for_iptables);
        for (size_t i = 0; i < n; i++)
                check_capability(d, caps, list[i],
                        list[i] == CAPABILITY_IP6TABLES_FILTER ? VERDICT_WARN : VERDICT_FAIL);
}

static void check_kernel(Doctor *d)
{
        Capabilities caps;
        TbError *err = NULL;

        if (geteuid() != 0) {
                say(d, VERDICT_WARN, "kernel",
                        "not looked at: only root may try qdiscs and tables; run tbnode doctor as root");
                return;
        }
        if (capabilities_probe(&caps, &err) < 0) {
                say_error(d, VERDICT_FAIL, "kernel", err);
                return;
        }
        for (size_t i = 0; i < ELEMENTSOF(needed); i++)
                check_capability(d, &caps, needed[i], VERDICT_FAIL);
        for (size_t i = 0; i < ELEMENTSOF(useful); i++)
                check_capability(d, &caps, useful[i], VERDICT_WARN);
        check_firewall(d, &caps);
}

static const struct {
        const char *name;
        uint64_t min;
        Verdict missing;
        const char *why;
} sysctls[] = {
        {"net/ipv4/ip_forward", 1, VERDICT_WARN,
                "nodes reach nothing outside their network; sysctl -w net.ipv4.ip_forward=1 (dockerd does "
                "it, too)"},
        {"net/ipv4/neigh/default/gc_thresh3", 1024, VERDICT_WARN,
                "too few neighbours for many nodes; sysctl -w net.ipv4.neigh.default.gc_thresh3=4096"},
        {"fs/inotify/max_user_instances", 128, VERDICT_WARN,
                "containers will fail to watch files; sysctl -w fs.inotify.max_user_instances=1024"},
};

static void check_sysctls(Doctor *d)
{
        for (size_t i = 0; i < ELEMENTSOF(sysctls); i++) {
                _cleanup_free_ char *path = tb_asprintf("/proc/sys/%s", sysctls[i].name), *data = NULL;
                TbError *err = NULL;
                uint64_t value;

                if (!path || tb_file_read(path, 4096, &data, NULL, &err) < 0) {
                        say_error(d, VERDICT_WARN, sysctls[i].name, err);
                        continue;
                }
                data[strcspn(data, "\n")] = 0;
                if (tb_parse_u64(data, 0, UINT64_MAX, &value, NULL) < 0 || value < sysctls[i].min)
                        say(d, sysctls[i].missing, "sysctl", "%s is %s: %s", sysctls[i].name, data,
                                sysctls[i].why);
                else
                        say(d, VERDICT_OK, "sysctl", "%s is %s", sysctls[i].name, data);
        }
}

/* ---- Engine, registry, payload, worker --------------------------------------------------------------------------- */

/* Is the start gate in use? */
static void check_gate(Doctor *d, TbEngine *e)
{
        _cleanup_json_ json_t *info = NULL;
        TbError *err = NULL;

        if (tb_engine_perform(e,
                    &(TbEngineCall){.method = "GET", .path = "/info", .timeout_usec = HTTP_TIMEOUT_USEC},
                    NULL, &info, &err) < 0) {
                say_error(d, VERDICT_WARN, "start gate", err);
                return;
        }
        bool known = json_object_get(json_object_get(info, "Runtimes"), GATE_RUNTIME) != NULL;
        bool all = tb_streq(json_string_value(json_object_get(info, "DefaultRuntime")), GATE_RUNTIME);
        if (all)
                say(d, VERDICT_OK, "start gate", "every labelled container waits for its rules");
        else if (known)
                say(d, VERDICT_OK, "start gate",
                        "nodes of 'tbnode run' and containers with '--runtime " GATE_RUNTIME
                        "' wait for their rules; set \"default-runtime\": \"" GATE_RUNTIME
                        "\" in /etc/docker/daemon.json for all");
        else
                say(d, VERDICT_WARN, "start gate",
                        "containers start before their rules exist; add \"runtimes\": {\"" GATE_RUNTIME
                        "\": {\"path\": \"" TBNODE_LIBEXECDIR
                        "/tbnode-runtime\"}} to /etc/docker/daemon.json and reload Docker");
}

static void check_engine(Doctor *d)
{
        _cleanup_engine_ TbEngine *e = NULL;
        TbError *err = NULL;

        if (tb_engine_new(d->cli->http, d->config.docker, &e, &err) < 0 ||
                tb_engine_perform(e,
                        &(TbEngineCall){
                                .method = "GET", .path = "/_ping", .timeout_usec = HTTP_TIMEOUT_USEC},
                        NULL, NULL, &err) < 0) {
                say_error(d, VERDICT_FAIL, "engine", err);
                return;
        }
        say(d, VERDICT_OK, "engine", "Docker %s, API %s, at %s", tb_engine_version(e),
                tb_engine_api_version(e), d->config.docker);
        check_gate(d, e);
}

static void check_registry(Doctor *d)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *request = NULL;
        _cleanup_free_ char *url = tb_asprintf("%s/v2/", d->config.registry);
        TbError *err = NULL;
        unsigned status;

        if (!url ||
                tb_http_perform(d->cli->http,
                        &(TbHttpOptions){.method = "GET", .url = url, .timeout_usec = HTTP_TIMEOUT_USEC},
                        &request, &err) < 0) {
                say(d, VERDICT_FAIL, "registry", "%s; start it or set registry= in the configuration",
                        tb_error_message(err));
                tb_error_free(err);
                return;
        }
        status = tb_http_request_status(request);
        if (status == 200 || status == 401)
                say(d, VERDICT_OK, "registry", "%s speaks the registry protocol%s", d->config.registry,
                        status == 401 ? " and wants credentials" : "");
        else
                say(d, VERDICT_FAIL, "registry", "%s answers %s with status %u: this is no registry",
                        d->config.registry, "/v2/", status);
}

static void check_payload(Doctor *d)
{
        _cleanup_registry_platform_ RegistryPlatform host = {};
        _cleanup_payload_ Payload *p = NULL;
        PayloadLayers layers;
        TbError *err = NULL;

        if (registry_platform_host(&host, &err) < 0 || payload_load(NULL, host.architecture, &p, &err) < 0) {
                say_error(d, VERDICT_FAIL, "payload", err);
                return;
        }
        if (payload_layers(p, AUGMENT_LEVEL_CORE, &layers, &err) < 0) {
                say_error(d, VERDICT_WARN, "payload", err);
                err = NULL; /* say_error() took it */
                if (payload_layers(p, AUGMENT_LEVEL_BASIC, &layers, &err) < 0) {
                        say_error(d, VERDICT_FAIL, "payload", err);
                        return;
                }
        }
        for (size_t i = 0; i < layers.n; i++) {
                if (payload_layer_verify(layers.layer[i], &err) < 0) {
                        say_error(d, VERDICT_FAIL, "payload", err);
                        return;
                }
                say(d, VERDICT_OK, "payload", "level %s, version %s for %s, %s",
                        augment_level_to_string(layers.layer[i]->level), p->version, p->arch,
                        layers.layer[i]->digest.text);
        }
}

static void check_worker(Doctor *d)
{
        TbError *err = NULL;
        SandboxReport s;

        if (worker_check(augment_worker_path(), d->config.worker_user, &err) < 0)
                say_error(d, VERDICT_FAIL, "worker", err);
        else
                say(d, VERDICT_OK, "worker", "%s", augment_worker_path());
        sandbox_probe(&s);
        if (s.landlock > 0 && s.seccomp)
                say(d, VERDICT_OK, "worker sandbox", "system call filter, landlock ABI %d", s.landlock);
        else
                say(d, VERDICT_WARN, "worker sandbox",
                        "the kernel has no %s%s%s; workers run with less around them",
                        s.seccomp ? "" : "seccomp (CONFIG_SECCOMP_FILTER)",
                        s.seccomp || s.landlock > 0 ? "" : " and no ",
                        s.landlock > 0 ? "" : "landlock (boot with it in lsm=)");
}

static void check_ssh(Doctor *d)
{
        if (access("/usr/bin/ssh", X_OK) >= 0)
                say(d, VERDICT_OK, "ssh", "/usr/bin/ssh");
        else
                say(d, VERDICT_WARN, "ssh",
                        "there is no /usr/bin/ssh, which tbnode ssh needs; install openssh-client");
}

int cli_doctor(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {{"config", required_argument, NULL, 'c'}, CLI_OPTIONS, {}};
        _cleanup_json_ json_t *checks = json_array(), *j = NULL;
        Doctor d = {.cli = c, .checks = checks};
        const char *path = NULL;
        TbError *err = NULL;
        int opt, status;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 'j')
                        c->json = true;
                else if (opt == 'c')
                        path = optarg;
                else
                        return cli_getopt_other(c, opt);
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);

        if (config_init(&d.config, &err) < 0)
                return cli_fail(err);
        if (config_load(&d.config, path, &err) < 0)
                say_error(&d, VERDICT_FAIL, "configuration", err);
        else
                say(&d, VERDICT_OK, "configuration", "%s", path ?: AGENT_CONFIG_FILE);
        check_agent(&d);
        check_engine(&d);
        check_registry(&d);
        check_payload(&d);
        check_worker(&d);
        check_ssh(&d);
        check_sysctls(&d);
        check_kernel(&d);
        config_done(&d.config);

        status = d.count[VERDICT_FAIL] > 0 ? CLI_FAILED : CLI_OK;
        if (!c->json) {
                printf("\n%zu ok, %zu warn, %zu FAIL\n", d.count[VERDICT_OK], d.count[VERDICT_WARN],
                        d.count[VERDICT_FAIL]);
                return status;
        }
        j = json_pack("{s:O, s:I, s:I, s:I}", "checks", checks, "ok", (json_int_t) d.count[VERDICT_OK],
                "warn", (json_int_t) d.count[VERDICT_WARN], "fail", (json_int_t) d.count[VERDICT_FAIL]);
        if (!j || cli_print_json(j, &err) < 0)
                return cli_fail(err);
        return status;
}
