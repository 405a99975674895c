/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "augment/augment.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * The agent's registry client, shared by all jobs: a connection that is open and a token that still holds make a lookup
 * one round trip instead of a TLS handshake and a visit to the token server. Credentials are read when the client is
 * made; when their file has changed (docker login), the next job gets a new client and the old one goes with its last
 * job.
 */
typedef struct RegistrySession RegistrySession;

/* A reference to the current session for this request's registry and credentials; *current (the queue's own reference,
 * may be NULL) is replaced when it is out of date. */
int registry_session_get(Manager *m, RegistrySession **current, const AugmentRequest *request,
        RegistrySession **ret, TbError **err) _warn_unused_;
RegistrySession *registry_session_unref(RegistrySession *s);
TB_DEFINE_CLEANUP(RegistrySession *, registry_session_unref)

RegistryClient *registry_session_client(RegistrySession *s);
/* Without credentials: tells what everybody may have. */
RegistryClient *registry_session_anonymous(RegistrySession *s);
/* Names that took credentials: they are not asked for without them again. */
bool registry_session_is_private(const RegistrySession *s, const char *image);
void registry_session_note_private(RegistrySession *s, const char *image);
/* What registries told the client about their limits, appended to `all`; -ENOMEM. */
int registry_session_add_rate_limits(json_t *all, const RegistryClient *client) _warn_unused_;
/* Frees those that nobody needs any more; happens by itself, from the loop, and once more when the manager ends. */
void registry_sessions_drop(Manager *m);
