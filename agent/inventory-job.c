/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/augment-job.h"
#include "agent/inventory-job.h"
#include "agent/job-credentials.h"
#include "augment/cache.h"
#include "common/cleanup.h"

struct InventoryJob {
        Manager *manager;
        AugmentRequest request;
        RegistrySession *session;
        JobCredentials *credentials;
        Worker *worker;
        InventoryFn done;
        void *userdata;
};

InventoryJob *inventory_job_free(InventoryJob *j)
{
        if (!j)
                return NULL;
        job_credentials_free(j->credentials);
        worker_pool_return(job_queue_workers(j->manager->jobs), j->worker);
        registry_session_unref(j->session);
        augment_request_done(&j->request);
        free(j);
        return NULL;
}

static void on_progress(Worker *w, const AugmentProgress *p, void *userdata)
{
}

static void on_done(Worker *w, const AugmentResult *result, const TbError *err, void *userdata)
{
        InventoryJob *j = userdata;

        j->done(j, result, err, j->userdata);
}

static int start_worker(InventoryJob *j, const char *config, TbError **err)
{
        AugmentRequest request = j->request; /* borrowed contents */
        _cleanup_free_ char *text = NULL;
        int r;

        request.docker_config = config ? (char *) WORKER_DOCKER_CONFIG : NULL;
        r = augment_request_to_json(&request, AUGMENT_OP_IMAGES, &text, err);
        return r < 0 ? r
                     : worker_pool_start(job_queue_workers(j->manager->jobs),
                               &(WorkerJob){
                                       .docker_config = config,
                                       .progress = on_progress,
                                       .done = on_done,
                                       .userdata = j,
                               },
                               text, &j->worker, err);
}

static void on_credentials(JobCredentials *c, const char *config, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        InventoryJob *j = userdata;

        if (start_worker(j, config, &err) < 0)
                j->done(j, NULL, err, j->userdata);
}

int inventory_job_start(Manager *m, InventoryFn done, void *userdata, InventoryJob **ret, TbError **err)
{
        _cleanup_(inventory_job_freep) InventoryJob *j = calloc(1, sizeof(*j));
        _cleanup_free_ char *host = NULL;
        bool plain;
        int r;

        if (!j)
                return tb_error_oom(err);
        *j = (InventoryJob){.manager = m, .done = done, .userdata = userdata};
        if ((r = job_queue_own_request(m->jobs, &j->request, err)) < 0 ||
                (r = job_queue_session(m->jobs, &j->session, err)) < 0 ||
                (r = augment_registry_parse(j->request.registry, &host, &plain, err)) < 0 ||
                (r = job_credentials_start(registry_session_client(j->session), host, NULL, on_credentials,
                         j, &j->credentials, err)) < 0)
                return r;
        *ret = TAKE_PTR(j);
        return 0;
}
