/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <sys/stat.h>

#include "agent/registry-session.h"
#include "augment/cache.h"
#include "common/strv.h"

#define PRIVATE_MAX 1024U

/* What tells one content of the credentials file from another without reading it. */
typedef struct FileIdentity {
        dev_t dev;
        ino_t ino;
        off_t size;
        struct timespec mtime;
} FileIdentity;

struct RegistrySession {
        Manager *manager;
        RegistrySession *next; /* of those that nobody needs any more */
        unsigned refs;
        RegistryClient *client;
        RegistryClient *anonymous;
        FileIdentity credentials;
        char **private; /* names that took credentials */
};

static FileIdentity file_identity(const char *path)
{
        struct stat st;

        if (!path || stat(path, &st) < 0)
                return (FileIdentity){};
        return (FileIdentity){
                .dev = st.st_dev,
                .ino = st.st_ino,
                .size = st.st_size,
                .mtime = st.st_mtim,
        };
}

static bool file_identity_equal(const FileIdentity *a, const FileIdentity *b)
{
        return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
                a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

static RegistrySession *session_free(RegistrySession *s)
{
        registry_client_free(s->client);
        registry_client_free(s->anonymous);
        tb_strv_free(s->private);
        free(s);
        return NULL;
}
TB_DEFINE_CLEANUP(RegistrySession *, session_free)

void registry_sessions_drop(Manager *m)
{
        m->sessions_source = sd_event_source_disable_unref(m->sessions_source);
        while (m->sessions) {
                RegistrySession *s = m->sessions;

                m->sessions = s->next;
                session_free(s);
        }
}

static int on_drop(sd_event_source *source, void *userdata)
{
        registry_sessions_drop(userdata);
        return 0;
}

/* A client must not be freed from inside a callback of its own, which is where its last user often lets go of it. */
RegistrySession *registry_session_unref(RegistrySession *s)
{
        Manager *m;

        if (!s || --s->refs > 0)
                return NULL;
        m = s->manager;
        s->next = m->sessions;
        m->sessions = s;
        if (!m->sessions_source && sd_event_add_defer(m->event, &m->sessions_source, on_drop, m) < 0)
                m->sessions_source = NULL; /* with the next one, then, or at the end */
        return NULL;
}

static int registry_session_new(
        Manager *m, const AugmentRequest *request, RegistrySession **ret, TbError **err)
{
        _cleanup_(session_freep) RegistrySession *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return tb_error_oom(err);
        s->manager = m;
        s->refs = 1;
        /* Before the file is read: a change in between makes one session too many, never one that is out of date. */
        s->credentials = file_identity(request->docker_config);
        r = registry_client_new(m->event, &s->client, err);
        if (r >= 0)
                r = augment_client_setup(s->client, request, err);
        if (r >= 0)
                r = registry_client_new(m->event, &s->anonymous, err);
        if (r >= 0)
                r = augment_client_setup_anonymous(s->anonymous, request, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

int registry_session_get(Manager *m, RegistrySession **current, const AugmentRequest *request,
        RegistrySession **ret, TbError **err)
{
        FileIdentity now = file_identity(request->docker_config);
        int r;

        /* The caller's own credentials are for this request alone: nobody else gets its tokens. */
        if (request->auth)
                return registry_session_new(m, request, ret, err);
        if (*current && !file_identity_equal(&(*current)->credentials, &now))
                *current = registry_session_unref(*current);
        if (!*current) {
                r = registry_session_new(m, request, current, err);
                if (r < 0)
                        return r;
        }
        (*current)->refs++;
        *ret = *current;
        return 0;
}

RegistryClient *registry_session_client(RegistrySession *s)
{
        return s->client;
}

RegistryClient *registry_session_anonymous(RegistrySession *s)
{
        return s->anonymous;
}

bool registry_session_is_private(const RegistrySession *s, const char *image)
{
        return tb_strv_contains(s->private, image);
}

void registry_session_note_private(RegistrySession *s, const char *image)
{
        _cleanup_error_ TbError *err = NULL;

        if (registry_session_is_private(s, image) || tb_strv_length(s->private) >= PRIVATE_MAX)
                return;
        if (tb_strv_append(&s->private, image, &err) < 0)
                return; /* found out again, then */
}

int registry_session_add_rate_limits(json_t *all, const RegistryClient *client)
{
        const char *host;
        RegistryRateLimit l;

        for (size_t i = 0; (host = registry_client_rate_limit_nth(client, i, &l)); i++) {
                char told[EVENT_TIME_MAX], until[EVENT_TIME_MAX];
                json_t *j = json_pack("{s:s, s:o*, s:o*, s:o*, s:s, s:s*}", "registry", host, "limit",
                        l.limit == UINT64_MAX ? NULL : json_integer((json_int_t) l.limit), "remaining",
                        l.remaining == UINT64_MAX ? NULL : json_integer((json_int_t) l.remaining),
                        "window_s", l.window_sec == 0 ? NULL : json_integer((json_int_t) l.window_sec),
                        "told", event_time_format(told, l.told_at_usec), "refused_until",
                        l.refused_until_usec == 0 ? NULL : event_time_format(until, l.refused_until_usec));

                if (json_array_append_new(all, j) < 0)
                        return -ENOMEM;
        }
        return 0;
}
