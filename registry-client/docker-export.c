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

typedef struct AskOp {
        RegistryOp op;
        RegistryHelperRun *run;
        RegistryCredentials *answer;
} AskOp;

static void ask_destroy(RegistryOp *op)
{
        AskOp *o = (AskOp *) op;

        registry_helper_free(o->run);
        registry_credentials_free(o->answer);
}

static void on_answer(
        RegistryHelperRun *run, const RegistryHelperAnswer *answer, const TbError *err, void *userdata)
{
        AskOp *o = userdata;
        _cleanup_error_ TbError *e = NULL;

        if (err)
                registry_op_fail(&o->op, err);
        else if (answer->not_found)
                registry_op_finish(&o->op, 0, NULL);
        else if (registry_helper_answer_parse(answer->output, answer->output_size, o->answer, &e) < 0)
                registry_op_fail(&o->op, e);
        else
                registry_op_finish(&o->op, 1, NULL);
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

static int ask_helper(RegistryClient *c, const char *helper, const char *host, char **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(AskOp), ask_destroy, NULL, NULL, err);
        AskOp *o = (AskOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        o->answer = calloc(1, sizeof(*o->answer));
        if (!o->answer)
                return tb_error_oom(err);
        r = registry_helper_start(c->event, c->helper_path, helper, "get", registry_helper_server(host),
                on_answer, o, &o->run, err);
        if (r >= 0)
                r = registry_op_wait(op, err);
        return r <= 0 ? r : entry_text(o->answer, host, ret, err);
}

int registry_client_export_credentials(RegistryClient *c, const char *host, char **ret, TbError **err)
{
        for (const RegistryDockerConfig *f = c->configs; f; f = f->next) {
                const char *helper;
                const RegistryCredentials *own = registry_docker_config_find(f, host, &helper);
                int r = helper ? ask_helper(c, helper, host, ret, err) : 0;

                if (r != 0)
                        return r;
                if (own && (own->identity_token || own->registry_token || (own->user && own->password)))
                        return entry_text(own, host, ret, err);
        }
        return 0;
}
