/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "agent/node.h"
#include "common/buffer.h"

/* A TMCD request of a node, of root in it or not: does what it asks, appends the answer (which may be empty). What is refused
 * is an error; the asker sees the end of the connection, as with tmcd. */
int tmcd_answer(Node *n, const char *data, size_t size, bool root, TbBuffer *out, TbError **err)
        _warn_unused_;
