/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "augment/augment.h"
#include "common/error.h"
#include "netctl/fw.h"

/*
 * Configuration of tbnoded: an ini file without sections (common/ini.h), every key in one table (config.c) that
 * parses, documents and checks it. A missing file is the default configuration when nobody named the file, an error
 * when the user did.
 */

#define AGENT_CONFIG_FILE "/etc/tbnode/tbnoded.conf"
#define AGENT_SOCKET "/run/tbnode/tbnoded.sock"
/* What dockerd's configuration calls tbnode-runtime. */
#define GATE_RUNTIME "tbnode"

typedef enum AgentFirewall {
        AGENT_FIREWALL_AUTO,     /* as netctl_firewall_choose() says */
        AGENT_FIREWALL_IPTABLES, /* legacy tables through libiptc */
        AGENT_FIREWALL_NFTABLES, /* tables of our own in nf_tables */
        _AGENT_FIREWALL_MAX,
        _AGENT_FIREWALL_INVALID = -EINVAL,
} AgentFirewall;

const char *agent_firewall_to_string(AgentFirewall f);
AgentFirewall agent_firewall_from_string(const char *s);

/* `check-links`: are links measured when their nodes were configured? */
typedef enum CheckLinks {
        CHECK_LINKS_NO,
        CHECK_LINKS_LATENCY, /* with a short train of small packets */
        CHECK_LINKS_FULL,    /* and one that fills the link for a moment */
        _CHECK_LINKS_MAX,
        _CHECK_LINKS_INVALID = -EINVAL,
} CheckLinks;

/* `tmcd`: off, or where the TMCD protocol is served. */
typedef struct ConfigTmcd {
        bool enabled;
        struct in_addr address; /* 0 = the gateway of the control network */
        uint16_t port;
} ConfigTmcd;

/* `metrics`: where anybody may read them over TCP. */
typedef struct ConfigListener {
        struct in_addr address;
        uint16_t port;
} ConfigListener;

/* `ssh-ports`: {0, 0} is off. */
typedef struct ConfigPorts {
        uint16_t first, last;
} ConfigPorts;

#define CONFIG_KEYS_MAX 64U

typedef struct Config {
        char *path; /* it was read from; NULL = the default file, if any */
        char *given
                [CONFIG_KEYS_MAX]; /* the text of each key, several joined by line breaks; NULL = not there */
        char *registry;            /* the testbed's registry: "http://127.0.0.1:5000" */
        char *docker;              /* engine endpoint: "unix:///var/run/docker.sock" */
        char *control_network;     /* Docker network that is not an experiment link */
        char *control_interface; /* physical interface that the control network is bridged to; NULL = none */
        char *control_subnet;    /* its subnet when the agent makes it, CIDR; NULL = Docker chooses */
        AgentFirewall firewall;
        char **managed_bridges; /* where a port that is not known passes nothing; NULL: none */
        bool gate_optional; /* labelled containers start although the agent is away, or they cannot be configured */
        char *oci_runtime;   /* for tbnode-runtime; NULL = runc */
        char *run_dir;       /* sockets and lock: must be a tmpfs or cleared at boot */
        char *state_dir;     /* what cannot be derived from Docker and the kernel */
        char *distributions; /* tables of delay distributions; NULL = netctl's default */
        char *socket;        /* API; NULL = <run_dir>/tbnoded.sock */
        char *socket_group;  /* group that may use the API; NULL = "tbnode" when it exists, else root only */
        char *operators_group; /* may do everything; NULL = "tbnode-operators" when it exists */
        char *worker_user;     /* NULL = "tbnode-worker" when it exists, else "nobody" */
        char *docker_config; /* credentials for registries; NULL = /root/.docker/config.json when it exists */
        AugmentLevel level;
        AugmentBuilder builder;
        AugmentPolicy policy;
        uint32_t jobs_max;           /* augmentations at a time */
        uint64_t job_timeout_usec;   /* one augmentation */
        uint64_t prune_grace_usec;   /* what is younger is never removed */
        uint64_t job_memory;         /* address space of a worker, bytes */
        uint64_t start_timeout_usec; /* `tbnode run`: from start to CONFIGURED */
        uint32_t nodes_max;
        ConfigTmcd tmcd;
        FwSite site; /* what the firewall is told of the site */
        uint64_t firewall_check_usec;
        ConfigPorts ssh_ports;
        char *ssh_tree; /* what nodes that are served from outside have as /tbnode: outside-ssh.h */
        CheckLinks check_links;
        bool replace_foreign;
        ConfigListener metrics; /* port 0: only on the API socket */
} Config;

/* Fills in the defaults. */
int config_init(Config *c, TbError **err) _warn_unused_;
void config_done(Config *c);
#define _cleanup_config_ _cleanup_(config_done)

/* `path` NULL: the default file, which may be missing. `c` must be initialised; on failure it is half-changed and can
 * only be freed. */
int config_load(Config *c, const char *path, TbError **err) _warn_unused_;
/* The same from memory; `name` stands for the file in messages. */
int config_parse(Config *c, const char *name, const char *data, size_t size, TbError **err) _warn_unused_;

/* The path of the API socket. */
const char *config_socket(const Config *c);

/* What may change while the agent runs: where the i-th key's value lies in Config, and how many bytes it has; 0 = a restart is needed.
 * False beyond the end. */
bool config_key_live(size_t i, size_t *ret_offset, size_t *ret_size);

/* The table, for the reference and its test: i-th key with the text of its help; NULL beyond the end. */
const char *config_key_at(size_t i, const char **ret_value_name, const char **ret_help);
