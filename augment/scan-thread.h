/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "augment/layer-scan.h"
#include "common/digest.h"
#include "common/error.h"

/*
 * A layer scan on a thread of its own
 *
 * Unpacking costs several times what moving a layer costs, and the transfers run in one loop: done there, it would stop
 * them. So the bytes go through a ring of fixed size to a thread that scans. Feeding waits while the ring is full: that
 * is the back-pressure on the transfer, and the bound of memory. The thread touches the scan and the ring, nothing else;
 * its error comes out of the next call.
 */

typedef struct ScanThread ScanThread;

/* ring_size: bytes by which the scan may lag behind, at least 2 MiB. */
int scan_thread_new(const LayerLimits *limits, size_t ring_size, ScanThread **ret, TbError **err)
        _warn_unused_;
/* What the thread found so far comes back here: the data is copied. */
int scan_thread_feed(ScanThread *t, const void *data, size_t size, TbError **err) _warn_unused_;
/* The layer is over: waits for the thread and gives the scan (layer_scan_finish() was called), which the caller owns. */
int scan_thread_finish(ScanThread *t, const TbDigest *diff_id, LayerScan **ret, TbError **err) _warn_unused_;
/* Stops the thread, wherever it is. */
ScanThread *scan_thread_free(ScanThread *t);
TB_DEFINE_CLEANUP(ScanThread *, scan_thread_free)
