/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a call does when the registry wants to know who we are. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/call.h"
#include "registry-client/internal.h"

#define CHALLENGES_MAX 3U /* of one try: "who are you", and then "that is not enough" */

/* What the registry asks for itself goes in front: some look at the first scope only. */
static int add_scope_in_front(RegistryCall *call, const char *scope, TbError **err)
{
        _cleanup_strv_ char **v = NULL;
        int r = tb_strv_append(&v, scope, err);

        for (size_t i = 0; r >= 0 && call->scopes && call->scopes[i]; i++)
                r = tb_strv_append(&v, call->scopes[i], err);
        if (r < 0)
                return r;
        tb_strv_free(call->scopes);
        call->scopes = TAKE_PTR(v);
        return 0;
}

/* 1 = there are new ones. */
static int add_challenge_scopes(RegistryCall *call, const char *scope, TbError **err)
{
        _cleanup_free_ char *copy = strdup(scope);
        char *save = NULL;
        int r, added = 0;

        if (!copy)
                return tb_error_oom(err);
        for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
                if (tb_strv_contains(call->scopes, s) || registry_scope_is_covered(call->scopes, s))
                        continue;
                if (tb_strv_length(call->scopes) >= 8)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: asks for too many scopes",
                                call->o.host->name);
                r = add_scope_in_front(call, s, err);
                if (r < 0)
                        return r;
                added = 1;
        }
        return added;
}

/* The best of all challenges in all headers. One that nobody can read does not count when there is another. */
static int find_challenge(RegistryCall *call, RegistryChallenge *ret, TbError **err)
{
        _cleanup_error_ TbError *first = NULL;
        const char *header;

        for (size_t i = 0; (header = tb_http_request_header_nth(call->request, "WWW-Authenticate", i));
                i++) {
                _cleanup_error_ TbError *e = NULL;

                if (registry_challenge_parse(header, ret, &e) < 0 && !first)
                        first = TAKE_PTR(e);
        }
        if (ret->scheme != REGISTRY_AUTH_NONE || !first)
                return 0;
        tb_error_prefix(&first, "%s", call->o.host->name);
        return tb_error_move(err, &first);
}

int registry_call_challenge(RegistryCall *call, TbError **err)
{
        _cleanup_registry_challenge_ RegistryChallenge best = {0};
        const RegistryCredentials *cred;
        int r;

        if (registry_call_status(call) != 401 || !call->home || call->o.authorization ||
                call->challenges >= CHALLENGES_MAX)
                return 0;
        r = find_challenge(call, &best, err);
        if (r < 0)
                return r;
        if (best.scheme == REGISTRY_AUTH_NONE)
                return 0;
        if (!call->helper_asked) {
                call->helper_asked = true;
                r = registry_credentials_prepare(call->client, call->o.host, call, call->token != NULL, err);
                if (r < 0)
                        return r;
                if (r == 0) {
                        call->state = CALL_HELPER;
                        return 1;
                }
        }
        cred = registry_client_find_credentials(call->client, call->o.host->name);
        if (best.scheme == REGISTRY_AUTH_BASIC && (!cred || !cred->user || call->token))
                return 0; /* nothing to offer, or refused already */
        if (!registry_call_may_repeat(call))
                return 0;
        r = best.scope ? add_challenge_scopes(call, best.scope, err) : 0;
        if (r < 0)
                return r;
        if (call->challenges > 0 && r == 0)
                return 0; /* it says the same again */
        call->challenges++;
        call->refused = call->token != NULL;
        if (call->consumed)
                call->repeats++;
        registry_challenge_done(&call->o.host->challenge);
        call->o.host->challenge = best;
        best = (RegistryChallenge){0};
        r = registry_call_attempt(call, err);
        return r < 0 ? r : 1;
}
