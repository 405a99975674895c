/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/*
 * What the engine says about a container: GET /containers/<id>/json, checked and bounded. The engine's answer is
 * outside input like any other.
 */

#define CONTAINER_ID_LEN 64
#define FACTS_ENDPOINTS_MAX 256U

typedef struct Endpoint {
        char *network; /* Docker's name of the network */
        char *network_id;
        bool has_mac; /* false while the container is not running */
        struct ether_addr mac;
        struct in_addr address; /* 0 = none */
        struct in_addr gateway; /* 0 = none */
        unsigned prefix;
        bool has_ipv6;
        struct in6_addr ipv6; /* besides the link-local one */
} Endpoint;

typedef struct ContainerFacts {
        char id[CONTAINER_ID_LEN + 1];
        char *name;  /* without the leading slash */
        char *image; /* as given at create */
        bool running;
        bool paused;
        pid_t pid; /* 0 = not running */
        int exit_code;
        char *node_dir;     /* what is mounted on /tbnode/run, NULL = nothing */
        char *network_mode; /* "bridge", "host", "none", "container:<id>", a network's name */
        Endpoint *endpoints;
        size_t n_endpoints;
        json_t *labels; /* object or NULL; owned */
} ContainerFacts;

void container_facts_done(ContainerFacts *f);
#define _cleanup_container_facts_ _cleanup_(container_facts_done)

/* -EPROTO: not what the engine's API documents. */
int container_facts_parse(const json_t *inspect, ContainerFacts *ret, TbError **err) _warn_unused_;

/* The host directory that a list of mounts (`Mounts` of an inspect or a list) binds to `target`; borrowed, NULL = none. */
const char *container_mount_source(const json_t *mounts, const char *target);

/* 64 lower-case hex digits. */
bool container_id_is_valid(const char *s);

const Endpoint *container_facts_endpoint(const ContainerFacts *f, const char *network);

/*
 * Who a container's process is. A pid alone is reused; with its start time (clock ticks since boot, proc(5),
 * /proc/PID/stat field 22) and the inode of its network namespace it names one run of one container.
 */
typedef struct ProcessIdentity {
        pid_t pid; /* 0 = none */
        uint64_t start_time;
        ino_t netns;
} ProcessIdentity;

/* -ESRCH: there is no such process (any more). */
int process_identity_read(pid_t pid, ProcessIdentity *ret, TbError **err) _warn_unused_;
bool process_identity_equal(const ProcessIdentity *a, const ProcessIdentity *b);
/* It has ended, or there was none. Not when it only cannot be looked at, for want of a descriptor or memory. */
bool process_identity_is_over(const ProcessIdentity *id);

/* Docker calls the bridge of a network "br-" and the beginning of its id, unless its options say otherwise, and that of its first
 * network docker0. "": nothing is known of it. */
void endpoint_bridge(const Endpoint *e, char ret[static IFNAMSIZ]);
