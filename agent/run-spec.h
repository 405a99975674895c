/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/config.h"
#include "agent/labels.h"
#include "agent/run-limits.h"
#include "augment/augment.h"
#include "common/error.h"

/*
 * What `tbnode run` asks for: POST /v1/nodes. Everything is checked here, before anything is made: names, SPEC, style,
 * ports, keys. Unknown members are refused.
 */

#define RUN_LIST_MAX 256U

typedef struct RunSpec {
        AugmentRequest augment; /* image, level, builder, platform, project, update */
        char *node;             /* never NULL after parsing: made up from the image when not given */
        char *experiment;
        char *container; /* "<experiment>.<node>" or "<node>": unique on the host */
        char **networks; /* experiment networks, in the order of the interfaces */
        char *shape;
        char *firewall;
        NodeOnExit on_exit;
        uint32_t owner;  /* user to whom it belongs; 0: nobody says so */
        char **ssh_keys; /* lines of authorized_keys */
        char **env;
        char **volumes;
        char **publish;
        char *user;
        char *workdir;
        char *entrypoint;
        char **cmd;
        RunLimits limits;
        json_t *declare;   /* checked; NULL = nothing is declared */
        bool level_raised; /* to the one that has the client */
} RunSpec;

void run_spec_done(RunSpec *s);
#define _cleanup_run_spec_ _cleanup_(run_spec_done)

int run_spec_parse(const json_t *body, const Config *config, RunSpec *ret, TbError **err) _warn_unused_;

/* The body of POST /containers/create. `image`: the reference to run; `inspect`: the engine's description of it;
 * `node_dir`: host directory for /tbnode/run, NULL = none. The caller owns *ret. */
int run_spec_container(const RunSpec *s, const char *image, const json_t *inspect,
        const char *control_network, const char *node_dir, const char *programs, json_t **ret, TbError **err)
        _warn_unused_;
/* Does the image's entrypoint start with /tbnode/init (is it an augmented one)? */
bool run_image_is_augmented(const json_t *inspect);

/* Who main is, by Docker's rules: --user, else the image's User; NULL = root, and nobody said so. Borrowed. */
const char *run_spec_user(const RunSpec *s, const json_t *inspect);
/* The part of the body above that is about the user of an augmented image: root starts the node, its health check goes
 * back to the user. */
int run_spec_add_user(const RunSpec *s, const json_t *inspect, json_t *body, TbError **err) _warn_unused_;
/* The text of node.conf (augment/client/README.md). -EINVAL, -ENAMETOOLONG: a user that can't be written there. The caller
 * frees *ret. */
int run_spec_node_conf(const RunSpec *s, const json_t *inspect, char **ret, TbError **err) _warn_unused_;
/* The text of authorized_keys. NULL when out of memory. */
char *run_spec_authorized_keys(const RunSpec *s);
/* One line each, so that nobody smuggles in a second one; which are keys is the server's to judge. -EINVAL. */
int run_spec_check_keys(char *const *keys, TbError **err) _warn_unused_;
