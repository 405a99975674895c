/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Copies of one client that want the same blob at the same registry
 *
 * The first one that has to move it says so; the others wait until it is done and look again: in the same repository
 * they find it, in another one they mount it. When the first one fails, the next one moves it. The client remembers
 * where it has put blobs, so that later copies can mount them too: a hint only, a wrong one costs one request.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/copy.h"

#define REMEMBERED_MAX 2048U

struct RegistryShare {
        RegistryShare *next;
        char *host, *repository;
        TbDigest digest;
        bool done; /* it is there; else somebody is at work */
        RegistryShareWait *waits;
};

struct RegistryShareWait {
        RegistryShareWait *next;
        RegistryShare *share; /* NULL = it has ended */
        void (*fn)(void *userdata);
        void *userdata;
        sd_event_source *source;
};

static RegistryShare *share_free(RegistryShare *s)
{
        if (!s)
                return NULL;
        free(s->host);
        free(s->repository);
        free(s);
        return NULL;
}

static void share_unlink(RegistryClient *c, RegistryShare *s)
{
        for (RegistryShare **p = &c->shares; *p; p = &(*p)->next)
                if (*p == s) {
                        *p = s->next;
                        c->n_shares--;
                        return;
                }
}

static int on_turn(sd_event_source *source, void *userdata)
{
        RegistryShareWait *w = userdata;

        w->fn(w->userdata); /* frees it */
        return 0;
}

/* Each is called from the loop, and asks again. */
static void wake(RegistryShare *s)
{
        RegistryShareWait *w = TAKE_PTR(s->waits);

        while (w) {
                RegistryShareWait *next = w->next;

                w->next = NULL;
                w->share = NULL;
                (void) sd_event_source_set_enabled(w->source, SD_EVENT_ONESHOT);
                w = next;
        }
}

static void forget_oldest(RegistryClient *c)
{
        RegistryShare *oldest = NULL;

        for (RegistryShare *s = c->shares; s; s = s->next)
                if (s->done)
                        oldest = s; /* new ones are put in front */
        if (oldest) {
                share_unlink(c, oldest);
                share_free(oldest);
        }
}

void registry_share_end(RegistryClient *c, RegistryShare *s, bool there)
{
        if (!s)
                return;
        s->done = there;
        if (!there)
                share_unlink(c, s);
        wake(s);
        if (!there)
                share_free(s);
        else if (c->n_shares > REMEMBERED_MAX)
                forget_oldest(c);
}

void registry_client_forget_shares(RegistryClient *c)
{
        while (c->shares) {
                RegistryShare *s = c->shares;

                c->shares = s->next;
                share_free(s);
        }
        c->n_shares = 0;
}

RegistryShareWait *registry_share_wait_free(RegistryShareWait *w)
{
        if (!w)
                return NULL;
        for (RegistryShareWait **p = w->share ? &w->share->waits : NULL; p && *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        break;
                }
        sd_event_source_disable_unref(w->source);
        free(w);
        return NULL;
}

static int wait_new(RegistryClient *c, RegistryShare *s, void (*fn)(void *userdata), void *userdata,
        RegistryShareWait **ret, TbError **err)
{
        RegistryShareWait *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return tb_error_oom(err);
        *w = (RegistryShareWait){.share = s, .fn = fn, .userdata = userdata};
        r = sd_event_add_defer(c->event, &w->source, on_turn, w);
        if (r >= 0)
                r = sd_event_source_set_enabled(w->source, SD_EVENT_OFF);
        if (r < 0) {
                sd_event_source_disable_unref(w->source);
                free(w);
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop");
        }
        w->next = s->waits;
        s->waits = w;
        *ret = w;
        return 0;
}

static int share_new(RegistryClient *c, const RegistryRef *target, const TbDigest *digest,
        RegistryShare **ret, TbError **err)
{
        RegistryShare *s = calloc(1, sizeof(*s));

        if (!s)
                return tb_error_oom(err);
        s->host = strdup(target->host);
        s->repository = strdup(target->repository);
        s->digest = *digest;
        if (!s->host || !s->repository) {
                share_free(s);
                return tb_error_oom(err);
        }
        s->next = c->shares;
        c->shares = s;
        c->n_shares++;
        *ret = s;
        return 0;
}

int registry_share_ask(RegistryClient *c, const RegistryRef *target, const TbDigest *digest,
        void (*fn)(void *userdata), void *userdata, RegistryShareAnswer *ret, RegistryShare **ret_share,
        RegistryShareWait **ret_wait, char **ret_mount_from, TbError **err)
{
        int r;

        for (RegistryShare *s = c->shares, *next; s; s = next) {
                next = s->next;
                if (!tb_digest_equal(&s->digest, digest) || strcasecmp(s->host, target->host) != 0)
                        continue;
                if (!s->done) {
                        r = wait_new(c, s, fn, userdata, ret_wait, err);
                        *ret = REGISTRY_SHARE_WAIT;
                        return r;
                }
                if (tb_streq(s->repository, target->repository)) { /* it was there once */
                        share_unlink(c, s);
                        share_free(s);
                } else if (!*ret_mount_from && !(*ret_mount_from = strdup(s->repository)))
                        return tb_error_oom(err);
        }
        *ret = REGISTRY_SHARE_YOURS;
        return share_new(c, target, digest, ret_share, err);
}
