/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/exec-session.h"
#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

void exec_spec_done(ExecSpec *s)
{
        tb_strv_free(s->cmd);
        tb_strv_free(s->env);
        free(s->user);
        free(s->workdir);
        *s = (ExecSpec){};
}

static int take_words(const json_t *body, const char *key, char ***ret, TbError **err)
{
        int r = tb_json_get_strv(body, key, ret, err);

        if (r > 0 && tb_strv_length(*ret) > EXEC_WORDS_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "%s has more than %u entries", key, EXEC_WORDS_MAX);
        return r;
}

static int take_size(const json_t *body, const char *key, uint16_t *ret, TbError **err)
{
        uint64_t v = 0;
        int r = tb_json_get_u64(body, key, &v, err);

        if (r > 0 && v > UINT16_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE, "%s is more than %d", key, UINT16_MAX);
        if (r > 0)
                *ret = (uint16_t) v;
        return r;
}

static int check(const ExecSpec *s, TbError **err)
{
        if (!s->cmd || !s->cmd[0] || s->cmd[0][0] == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "no command is given");
        for (char **e = s->env; e && *e; e++)
                if (!strchr(*e, '=') || **e == '=') {
                        _cleanup_free_ char *shown = tb_escape(*e, 60);

                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "'%s' in env is not of the form NAME=VALUE", shown ?: "");
                }
        if (s->workdir && s->workdir[0] != '/')
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "workdir is not an absolute path");
        return 0;
}

int exec_spec_parse(const json_t *body, ExecSpec *ret, TbError **err)
{
        static const char *const known[] = {
                "cmd", "tty", "stdin", "user", "workdir", "env", "rows", "columns", NULL};
        _cleanup_exec_spec_ ExecSpec s = {};
        int r;

        r = request_body_check_members(body, known, err);
        if (r >= 0)
                r = take_words(body, "cmd", &s.cmd, err);
        if (r >= 0)
                r = take_words(body, "env", &s.env, err);
        if (r >= 0)
                r = request_body_take_string(body, "user", &s.user, err);
        if (r >= 0)
                r = request_body_take_string(body, "workdir", &s.workdir, err);
        if (r >= 0)
                r = tb_json_get_bool(body, "tty", &s.tty, err);
        if (r >= 0)
                r = tb_json_get_bool(body, "stdin", &s.takes_stdin, err);
        if (r >= 0)
                r = take_size(body, "rows", &s.rows, err);
        if (r >= 0)
                r = take_size(body, "columns", &s.columns, err);
        if (r >= 0)
                r = check(&s, err);
        if (r < 0)
                return r;
        *ret = s;
        s = (ExecSpec){};
        return 0;
}
