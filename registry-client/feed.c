/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A blob from a file, pushed like a download
 *
 * A deferred event source gives one piece per turn of the loop, so that uploads have their turns; it is off while the
 * sink is full. The sink verifies: a file is no more trustworthy than a registry.
 */

#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "registry-client/store.h"

#define PIECE (128U * 1024)

struct RegistryFeed {
        RegistryFeedOptions o;
        sd_event_source *source;
        uint64_t position;
        char *buffer;
};

RegistryFeed *registry_feed_free(RegistryFeed *f)
{
        if (!f)
                return NULL;
        sd_event_source_disable_unref(f->source);
        (void) tb_close(f->o.region.fd);
        free(f->buffer);
        free(f);
        return NULL;
}

static void feed_freep(RegistryFeed **f)
{
        (void) registry_feed_free(*f);
}

void registry_feed_resume(RegistryFeed *f)
{
        if (f->source && f->position < f->o.region.size)
                (void) sd_event_source_set_enabled(f->source, SD_EVENT_ON);
}

/* 1 = goes on, 0 = complete or paused. */
static int push_piece(RegistryFeed *f, TbError **err)
{
        uint64_t left = f->o.region.size - f->position;
        size_t want = (size_t) MIN2(left, (uint64_t) PIECE);
        ssize_t n;
        int r;

        do
                n = pread(f->o.region.fd, f->buffer, want, (off_t) (f->o.region.offset + f->position));
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, n < 0 ? -errno : -EIO,
                        "%s: cannot read a blob (did the file shrink?)", f->o.name);
        r = (int) f->o.sink(f->buffer, (size_t) n, f->o.userdata, err);
        if (r == TB_HTTP_PAUSE) {
                (void) sd_event_source_set_enabled(f->source, SD_EVENT_OFF);
                return 0;
        }
        if (r < 0)
                return r;
        f->position += (uint64_t) n;
        return 1;
}

static int on_turn(sd_event_source *s, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryFeed *f = userdata;
        int r = 0;

        if (f->position < f->o.region.size)
                r = push_piece(f, &e);
        if (r >= 0 && f->position < f->o.region.size)
                return 0;
        f->source = sd_event_source_disable_unref(f->source);
        if (r < 0 && !e)
                (void) tb_error_oom(&e);
        f->o.done(e, f->o.userdata); /* may free it */
        return 0;
}

int registry_feed_start(
        RegistryClient *c, const RegistryFeedOptions *options, RegistryFeed **ret, TbError **err)
{
        _cleanup_(feed_freep) RegistryFeed *f = calloc(1, sizeof(*f));
        int r;

        if (!f) {
                (void) tb_close(options->region.fd);
                return tb_error_oom(err);
        }
        f->o = *options;
        f->buffer = malloc(PIECE);
        if (!f->buffer)
                return tb_error_oom(err);
        r = sd_event_add_defer(c->event, &f->source, on_turn, f);
        if (r >= 0)
                r = sd_event_source_set_enabled(f->source, SD_EVENT_ON);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop");
        *ret = TAKE_PTR(f);
        return 0;
}
