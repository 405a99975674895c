/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"
#include "registry-client/registry.h"

/*
 * What a worker gets to know of credentials: those for the hosts of its job, and nothing else of the file that they are in
 *
 * A docker configuration may name helpers (docker-credential-NAME), which a worker can't run: it runs no programs. So they are
 * run by the agent, as the registry client does it for itself (registry-client/helper.c: bounded in time and output). What
 * fails there is logged, and the job goes on without: most images are public, and for those that are not the lookup has told
 * why already.
 */

typedef struct JobCredentials JobCredentials;

/* `config`: a config.json with entries of `auths` alone, a secret; borrowed. NULL = there are none. The object may be freed from
 * here. */
typedef void (*JobCredentialsFn)(JobCredentials *c, const char *config, void *userdata);

/* `client` has the configuration loaded and outlives this. `second` may be NULL, or the same as `host`. The callback comes from
 * the loop only. */
int job_credentials_start(RegistryClient *client, const char *host, const char *second,
        JobCredentialsFn done, void *userdata, JobCredentials **ret, TbError **err) _warn_unused_;
/* Cancels when still running. */
JobCredentials *job_credentials_free(JobCredentials *c);
TB_DEFINE_CLEANUP(JobCredentials *, job_credentials_free)
