/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "augment/payload.h"
#include "common/error.h"

/*
 * The build context as a tar stream, made while it is read: the Dockerfile, then the payload layers straight from their
 * files. Its length is known beforehand and the memory it takes does not depend on the layers.
 */
typedef struct DockerContext DockerContext;

/* Verifies the layers (payload_layer_verify()) up to `level` and opens them. The text is copied. */
int docker_context_new(const char *dockerfile, Payload *payload, AugmentLevel level, DockerContext **ret,
        TbError **err) _warn_unused_;
DockerContext *docker_context_free(DockerContext *c);
TB_DEFINE_CLEANUP(DockerContext *, docker_context_free)

uint64_t docker_context_size(const DockerContext *c);
/* > 0 bytes, 0 = end, negative errno: a file shrank or can't be read. */
ssize_t docker_context_read(DockerContext *c, void *buf, size_t size);
