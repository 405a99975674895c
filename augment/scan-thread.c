/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "augment/scan-thread.h"
#include "common/cleanup.h"

/* What the thread takes at a time, so that the feeder isn't kept waiting for all of it. */
#define TAKE_MAX (128U * 1024)
/* Waking a thread costs more than copying a piece: whoever finds the ring full sleeps until there is room for many pieces, and
 * the thread until there is as much as it takes at a time. */
#define FEED_ROOM (1U << 20)

struct ScanThread {
        pthread_t thread;
        bool started, joined;
        LayerScan *scan; /* the thread's, until it was joined */

        pthread_mutex_t mutex; /* guards all below */
        pthread_cond_t changed;
        bool thread_waits, feeder_waits;
        unsigned char *ring;
        size_t size, begin, used;
        bool over;      /* nothing more will be fed */
        bool stop;      /* the thread shall end at once */
        bool failed;    /* the thread has ended with `error` */
        TbError *error; /* NULL after it was handed out */
};

static void fail(ScanThread *t, TbError *e)
{
        (void) pthread_mutex_lock(&t->mutex);
        t->failed = true;
        t->error = e;
        (void) pthread_cond_broadcast(&t->changed);
        (void) pthread_mutex_unlock(&t->mutex);
}

/* The next contiguous piece of the ring; 0 = the end. It stays in place until it is given back. */
static size_t wait_for_piece(ScanThread *t, const unsigned char **ret)
{
        size_t n = 0;

        (void) pthread_mutex_lock(&t->mutex);
        while (t->used < TAKE_MAX && !t->over && !t->stop) {
                t->thread_waits = true;
                (void) pthread_cond_wait(&t->changed, &t->mutex);
        }
        t->thread_waits = false;
        if (!t->stop) {
                n = t->used < t->size - t->begin ? t->used : t->size - t->begin;
                n = n < TAKE_MAX ? n : TAKE_MAX;
                *ret = t->ring + t->begin;
        }
        (void) pthread_mutex_unlock(&t->mutex);
        return n;
}

static void give_back(ScanThread *t, size_t n)
{
        (void) pthread_mutex_lock(&t->mutex);
        t->begin = (t->begin + n) % t->size;
        t->used -= n;
        if (t->feeder_waits && t->size - t->used >= FEED_ROOM)
                (void) pthread_cond_broadcast(&t->changed);
        (void) pthread_mutex_unlock(&t->mutex);
}

static void *run(void *userdata)
{
        ScanThread *t = userdata;
        const unsigned char *piece;
        size_t n;

        while ((n = wait_for_piece(t, &piece)) > 0) {
                TbError *e = NULL;

                if (layer_scan_feed(t->scan, piece, n, &e) < 0) {
                        fail(t, e);
                        break;
                }
                give_back(t, n);
        }
        return NULL;
}

int scan_thread_new(const LayerLimits *limits, size_t ring_size, ScanThread **ret, TbError **err)
{
        _cleanup_(scan_thread_freep) ScanThread *t = calloc(1, sizeof(*t));
        sigset_t all, old;
        int r;

        if (!t)
                return tb_error_oom(err);
        (void) pthread_mutex_init(&t->mutex, NULL);
        (void) pthread_cond_init(&t->changed, NULL);
        t->size = MAX2(ring_size, 2 * (size_t) FEED_ROOM);
        t->ring = malloc(t->size);
        if (!t->ring)
                return tb_error_oom(err);
        r = layer_scan_new(limits, &t->scan, err);
        if (r < 0)
                return r;
        /* Signals are the main thread's. */
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&t->thread, NULL, run, t);
        (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r != 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -r, "cannot start a thread");
        t->started = true;
        *ret = TAKE_PTR(t);
        return 0;
}

/* With the mutex held. */
static int take_error(ScanThread *t, TbError **err)
{
        if (!t->failed)
                return 0;
        if (!t->error)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "a layer scan that failed goes on");
        return tb_error_move(err, &t->error);
}

int scan_thread_feed(ScanThread *t, const void *data, size_t size, TbError **err)
{
        int r = 0;

        (void) pthread_mutex_lock(&t->mutex);
        while (size > 0) {
                size_t at, n;

                t->feeder_waits = t->used == t->size;
                while (t->feeder_waits && t->size - t->used < FEED_ROOM && !t->failed)
                        (void) pthread_cond_wait(&t->changed, &t->mutex);
                t->feeder_waits = false;
                r = take_error(t, err);
                if (r < 0)
                        break;
                at = (t->begin + t->used) % t->size;
                n = t->size - t->used < t->size - at ? t->size - t->used : t->size - at;
                n = n < size ? n : size;
                memcpy(t->ring + at, data, n);
                t->used += n;
                data = (const unsigned char *) data + n;
                size -= n;
                if (t->thread_waits && t->used >= TAKE_MAX)
                        (void) pthread_cond_broadcast(&t->changed);
        }
        (void) pthread_mutex_unlock(&t->mutex);
        return r;
}

static void join(ScanThread *t, bool stop)
{
        if (!t->started || t->joined)
                return;
        (void) pthread_mutex_lock(&t->mutex);
        t->over = true;
        t->stop = t->stop || stop;
        (void) pthread_cond_broadcast(&t->changed);
        (void) pthread_mutex_unlock(&t->mutex);
        (void) pthread_join(t->thread, NULL);
        t->joined = true;
}

int scan_thread_finish(ScanThread *t, const TbDigest *diff_id, LayerScan **ret, TbError **err)
{
        int r;

        join(t, false);
        r = take_error(t, err);
        if (r < 0)
                return r;
        r = layer_scan_finish(t->scan, diff_id, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(t->scan);
        return 0;
}

ScanThread *scan_thread_free(ScanThread *t)
{
        if (!t)
                return NULL;
        join(t, true);
        layer_scan_free(t->scan);
        tb_error_free(t->error);
        (void) pthread_cond_destroy(&t->changed);
        (void) pthread_mutex_destroy(&t->mutex);
        free(t->ring);
        free(t);
        return NULL;
}
