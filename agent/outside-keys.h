/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/buffer.h"
#include "common/error.h"

/*
 * The host keys of nodes that are served from outside (outside-ssh.h)
 *
 * A node's keys are derived from one secret of the host, <state-dir>/ssh-host-secret, and the container's id: they are the node's as
 * long as the container is there, over restarts of everything; nothing needs to be kept for a node or removed with it; and no id
 * comes twice.
 */

#define OUTSIDE_SECRET_SIZE 32U
#define OUTSIDE_KEY_MAX 512U

/* The host's secret, made when there is none yet. */
int outside_secret_read(const char *state_dir, unsigned char ret[static OUTSIDE_SECRET_SIZE], TbError **err)
        _warn_unused_;

/* A node's key as dropbear has it in files (svr -r): ssh-ed25519, ecdsa-sha2-nistp256. Appended. */
int outside_key_ed25519(const unsigned char secret[static OUTSIDE_SECRET_SIZE], const char *id,
        TbBuffer *ret, TbError **err) _warn_unused_;
int outside_key_ecdsa(const unsigned char secret[static OUTSIDE_SECRET_SIZE], const char *id, TbBuffer *ret,
        TbError **err) _warn_unused_;
