/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Credentials of one host on their way to another process
 *
 * A program that speaks for its user hands over what the user's docker configuration has for the one host that it is
 * about, in the same form: a config.json with one entry of `auths`. Helpers run here, where the user is; whoever gets the
 * text needs none.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

int registry_client_add_docker_config(
        RegistryClient *c, const char *data, size_t size, const char *what, TbError **err)
{
        RegistryDockerConfig *config;
        int r;

        r = registry_docker_config_parse(data, size, what, &config, err);
        if (r < 0)
                return r;
        config->next = c->configs; /* later ones win: in front */
        c->configs = config;
        return 0;
}

/* {"auths": {KEY: {...}}} */
static int entry_text(const RegistryCredentials *given, const char *host, char **ret, TbError **err)
{
        const char *key = registry_helper_server(host);
        json_t *j = NULL;

        if (given->identity_token)
                j = json_pack("{s:{s:{s:s}}}", "auths", key, "identitytoken", given->identity_token);
        else if (given->registry_token)
                j = json_pack("{s:{s:{s:s}}}", "auths", key, "registrytoken", given->registry_token);
        else {
                _cleanup_secret_ char *plain = tb_asprintf("%s:%s", given->user, given->password);
                _cleanup_secret_ char *coded = plain ? registry_base64_encode(plain, strlen(plain)) : NULL;

                if (coded)
                        j = json_pack("{s:{s:{s:s}}}", "auths", key, "auth", coded);
        }
        if (!j)
                return tb_error_oom(err);
        *ret = json_dumps(j, JSON_COMPACT | JSON_ENSURE_ASCII);
        registry_json_wipe(j);
        return *ret ? 1 : tb_error_oom(err);
}

#define EXPORT_MAX (512U * 1024)

typedef struct ExportOp {
        RegistryOp op;
        char *host;
        const RegistryDockerConfig *file; /* is looked at now; NULL = no more */
        RegistryHelperRun *run;           /* its helper */
        RegistryCredentials *answer;      /* what that said */
        sd_event_source *later;           /* the first step is taken from the loop */
} ExportOp;

static void export_destroy(RegistryOp *op)
{
        ExportOp *o = (ExportOp *) op;

        sd_event_source_disable_unref(o->later);
        registry_helper_free(o->run);
        registry_credentials_free(o->answer);
        free(o->host);
        if (op->blob.data)
                explicit_bzero(op->blob.data, op->blob.allocated);
}

static bool has_something(const RegistryCredentials *c)
{
        return c && (c->identity_token || c->registry_token || (c->user && c->password));
}

static void export_finish(ExportOp *o, const RegistryCredentials *given)
{
        _cleanup_secret_ char *text = NULL;
        _cleanup_error_ TbError *e = NULL;

        if (entry_text(given, o->host, &text, &e) < 0 ||
                tb_buffer_append(&o->op.blob, text, strlen(text), &e) < 0)
                registry_op_fail(&o->op, e);
        else
                registry_op_finish(&o->op, 1, NULL);
}

static void export_step(ExportOp *o);

/* The file's helper knows nothing: its own entry, else the next file. */
static void export_without_helper(ExportOp *o)
{
        const char *helper;
        const RegistryCredentials *own = registry_docker_config_find(o->file, o->host, &helper);

        if (has_something(own)) {
                export_finish(o, own);
                return;
        }
        o->file = o->file->next;
        export_step(o);
}

static void on_answer(
        RegistryHelperRun *run, const RegistryHelperAnswer *answer, const TbError *err, void *userdata)
{
        ExportOp *o = userdata;
        _cleanup_error_ TbError *e = NULL;

        if (err)
                registry_op_fail(&o->op, err);
        else if (answer->not_found) {
                o->run = registry_helper_free(o->run);
                export_without_helper(o);
        } else if (registry_helper_answer_parse(answer->output, answer->output_size, o->answer, &e) < 0)
                registry_op_fail(&o->op, e);
        else
                export_finish(o, o->answer);
}

static void export_step(ExportOp *o)
{
        RegistryClient *c = o->op.client;
        _cleanup_error_ TbError *e = NULL;
        const RegistryCredentials *known;
        const TbError *known_error;
        const char *helper = NULL;

        if (!o->file) {
                registry_op_finish(&o->op, 0, NULL);
                return;
        }
        (void) registry_docker_config_find(o->file, o->host, &helper);
        if (!helper)
                export_without_helper(o);
        else if (registry_credentials_recent(c, o->host, &known, &known_error)) {
                if (known_error)
                        registry_op_fail(&o->op, known_error);
                else if (known)
                        export_finish(o, known);
                else
                        export_without_helper(o);
        } else if (registry_helper_start(c->event, c->helper_path, c->helper_timeout_usec, helper, "get",
                           registry_helper_server(o->host), on_answer, o, &o->run, &e) < 0)
                registry_op_fail(&o->op, e);
}

static int on_later(sd_event_source *s, void *userdata)
{
        ExportOp *o = userdata;

        o->later = sd_event_source_disable_unref(o->later);
        export_step(o);
        return 0;
}

int registry_client_export_credentials_start(RegistryClient *c, const char *host, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(ExportOp), export_destroy, done, userdata, err);
        ExportOp *o = (ExportOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        op->blob = TB_BUFFER_INIT(EXPORT_MAX);
        o->file = c->configs;
        o->host = strdup(host);
        o->answer = calloc(1, sizeof(*o->answer));
        if (!o->host || !o->answer)
                return tb_error_oom(err);
        r = sd_event_add_defer(c->event, &o->later, on_later, o);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop");
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_client_export_credentials(RegistryClient *c, const char *host, char **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        char *text;
        int r;

        r = registry_client_export_credentials_start(c, host, NULL, NULL, &op, err);
        if (r >= 0)
                r = registry_op_wait(op, err);
        if (r <= 0)
                return r;
        text = registry_op_steal_blob(op, NULL);
        if (!text)
                return tb_error_oom(err);
        *ret = text;
        return 1;
}
