/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/access.h"
#include "agent/manager.h"
#include "common/error.h"

/*
 * What the agent counted and what the kernel counts for it, in Prometheus' text format
 * (prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4). The names are in docs/reference.md.
 *
 * Series of nodes are those that `caller` may see. The kernel is read once for all of them.
 */
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* The caller frees *ret. */
int metrics_text(Manager *m, const Caller *caller, char **ret, size_t *ret_size, TbError **err)
        _warn_unused_;

/* `metrics=[ADDRESS:]PORT`: the same over TCP, for everybody who can connect. Without such a line *ret is NULL. */
typedef struct MetricsListener MetricsListener;
int metrics_listener_new(Manager *m, MetricsListener **ret, TbError **err) _warn_unused_;
MetricsListener *metrics_listener_free(MetricsListener *l);
