/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/job-credentials.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

#define HOSTS_MAX 2U

typedef struct HostCredentials {
        JobCredentials *all;
        char *host;
        RegistryOp *op;
        char *text; /* secret */
} HostCredentials;

struct JobCredentials {
        HostCredentials hosts[HOSTS_MAX];
        size_t n_hosts, n_running;
        JobCredentialsFn done;
        void *userdata;
};

static void forget(char *secret)
{
        if (secret)
                explicit_bzero(secret, strlen(secret));
        free(secret);
}

JobCredentials *job_credentials_free(JobCredentials *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_hosts; i++) {
                registry_op_free(c->hosts[i].op);
                forget(c->hosts[i].text);
                free(c->hosts[i].host);
        }
        free(c);
        return NULL;
}

/* NULL = none, or no memory: then without. */
static char *merge(const JobCredentials *c)
{
        json_t *all = json_object(), *whole;
        char *text = NULL;

        for (size_t i = 0; all && i < c->n_hosts; i++) {
                json_t *one = c->hosts[i].text ? json_loads(c->hosts[i].text, 0, NULL) : NULL;

                (void) json_object_update(all, json_object_get(one, "auths"));
                json_decref(one);
        }
        whole = json_object_size(all) > 0 ? json_pack("{s:O}", "auths", all) : NULL;
        if (whole)
                text = json_dumps(whole, JSON_COMPACT);
        json_decref(whole);
        json_decref(all);
        return text;
}

static void on_exported(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        HostCredentials *h = userdata;
        JobCredentials *c = h->all;
        char *config;

        if (result < 0)
                log_warning("going on without credentials for %s: %s", h->host, tb_error_message(err));
        else if (result > 0)
                h->text = registry_op_steal_blob(op, NULL);
        h->op = registry_op_free(h->op);
        if (--c->n_running > 0)
                return;
        config = merge(c);
        c->done(c, config, c->userdata);
        forget(config);
}

int job_credentials_start(RegistryClient *client, const char *host, const char *second,
        JobCredentialsFn done, void *userdata, JobCredentials **ret, TbError **err)
{
        _cleanup_(job_credentials_freep) JobCredentials *c = calloc(1, sizeof(*c));
        const char *names[HOSTS_MAX] = {host, second && !tb_streq(host, second) ? second : NULL};

        if (!c)
                return tb_error_oom(err);
        c->done = done;
        c->userdata = userdata;
        for (size_t i = 0; i < HOSTS_MAX && names[i]; i++) {
                HostCredentials *h = &c->hosts[c->n_hosts++];
                int r;

                h->all = c;
                h->host = strdup(names[i]);
                if (!h->host)
                        return tb_error_oom(err);
                r = registry_client_export_credentials_start(client, h->host, on_exported, h, &h->op, err);
                if (r < 0)
                        return r;
                c->n_running++;
        }
        *ret = TAKE_PTR(c);
        return 0;
}
