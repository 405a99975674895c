/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The answer of a token server: distribution, docs/spec/auth/token.md, "Token Response Fields". */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "registry-client/internal.h"

#define ANSWER_MAX (256U * 1024)
#define TOKEN_MAX (64U * 1024)
#define EXPIRES_MIN_SEC 60U /* also the default: "never less than 60" for old clients */
#define EXPIRES_MAX_SEC 86400U

/* The token goes into a header line: nothing but visible ASCII, so that a token server cannot add headers. */
static bool fit_for_header(const char *s)
{
        for (; *s; s++)
                if (*s <= ' ' || *s > '~')
                        return false;
        return true;
}

int registry_token_parse(
        const char *body, size_t size, char **ret_token, uint64_t *ret_expires_sec, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        const char *token = NULL;
        uint64_t expires = 0;
        char *copy;
        int r;

        r = tb_json_parse(body, size, ANSWER_MAX, "token answer", &j, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(j, "token", &token, err);
        if (r < 0)
                return r;
        if (r == 0 || !*token) { /* OAuth2's name for the same */
                r = tb_json_get_string(j, "access_token", &token, err);
                if (r < 0)
                        return r;
        }
        if (!token || !*token)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "the token server's answer has no token");
        if (strlen(token) > TOKEN_MAX)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EMSGSIZE, "the token is larger than %u bytes", TOKEN_MAX);
        if (!fit_for_header(token))
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EPROTO, "the token has characters that no token may have");
        r = tb_json_get_u64(j, "expires_in", &expires, err);
        if (r < 0)
                return r;

        copy = strdup(token);
        if (!copy)
                return tb_error_oom(err);
        *ret_token = copy;
        *ret_expires_sec =
                expires < EXPIRES_MIN_SEC ? EXPIRES_MIN_SEC : MIN2(expires, (uint64_t) EXPIRES_MAX_SEC);
        return 0;
}
