/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Closing upload sessions that nobody wants any more
 *
 * A DELETE alone is not enough. docker-registry serves it while the handler of a broken-off PATCH still writes what is
 * left in its socket: files come back behind the DELETE, and stay for ever. So the request that is under way is brought
 * to an orderly end first (its body just ends; nothing is committed without the final PUT), and the DELETE goes to the
 * Location of its answer. That also catches a session whose POST has not been answered yet.
 *
 * This runs in the background, bounded by DEADLINE for each of the two steps. Failures are nobody's to handle:
 * registries purge old sessions by themselves.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"

#define DEADLINE_USEC (10 * USEC_PER_SEC)

struct RegistryClosing {
        RegistryClosing *next;
        RegistryClient *client;
        RegistryHost *host;
        RegistryCall *call;
        char *location, *scope;
        sd_event_source *deadline;
};

static void closing_free(RegistryClosing *s)
{
        for (RegistryClosing **p = &s->client->closing; *p; p = &(*p)->next)
                if (*p == s) {
                        *p = s->next;
                        break;
                }
        registry_call_free(s->call);
        sd_event_source_disable_unref(s->deadline);
        free(s->location);
        free(s->scope);
        free(s);
}

static void on_deleted(RegistryCall *call, const TbError *err, void *userdata)
{
        closing_free(userdata);
}

static void delete_session(RegistryClosing *s)
{
        RegistryCallOptions o = {
                .host = s->host,
                .method = "DELETE",
                .url = s->location,
                .scopes = {s->scope},
                .tries = 1,
                .timeout_usec = DEADLINE_USEC,
                .done = on_deleted,
                .userdata = s,
        };

        s->deadline = sd_event_source_disable_unref(s->deadline);
        s->call = registry_call_free(s->call);
        if (!s->location || registry_call_start(s->client, &o, &s->call, NULL) < 0)
                closing_free(s);
}

static void on_ended(RegistryCall *call, const TbError *err, void *userdata)
{
        RegistryClosing *s = userdata;
        char *location = NULL;
        unsigned status = registry_call_status(call);

        if (!err &&
                (status == 201 ||
                        status == 200)) { /* mounted, or committed in the last moment: no session */
                closing_free(s);
                return;
        }
        if (!err && registry_upload_location(s->client, s->host, call, &location, NULL) > 0) {
                free(s->location);
                s->location = location;
        }
        delete_session(s);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
        delete_session(userdata);
        return 0;
}

static ssize_t no_more(TbHttpRequest *r, void *buf, size_t size, void *userdata)
{
        return 0;
}

void registry_session_close(
        RegistryClient *c, RegistryHost *host, const char *scope, char *location, RegistryCall *call)
{
        RegistryClosing *s = calloc(1, sizeof(*s));

        if (!s) {
                registry_call_free(call);
                free(location);
                return;
        }
        s->client = c;
        s->host = host;
        s->location = location;
        s->scope = strdup(scope);
        s->call = call;
        s->next = c->closing;
        c->closing = s;
        if (!s->scope || !call || !registry_call_take_over(call, no_more, on_ended, s) ||
                sd_event_add_time_relative(
                        c->event, &s->deadline, CLOCK_MONOTONIC, DEADLINE_USEC, 10000, on_deadline, s) < 0)
                delete_session(s);
}

void registry_client_stop_closing(RegistryClient *c)
{
        while (c->closing)
                closing_free(c->closing);
}
