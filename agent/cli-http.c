/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How the command line talks to the agent. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/json-lines.h"
#include "common/json.h"
#include "common/strv.h"

#define ANSWER_MAX (64U * 1024 * 1024)
#define LINE_MAX_BYTES (32U * 1024 * 1024)

char *cli_node_path(const char *node, const char *suffix)
{
        _cleanup_free_ char *escaped = tb_engine_escape(node);

        return escaped ? tb_asprintf("/v1/nodes/%s%s", escaped, suffix) : NULL;
}

/* Nobody answers: why, and what to do. The socket knows more than curl does. */
int cli_agent_error(const Cli *c, const TbError *cause, TbError **err)
{
        struct stat st;

        if (stat(c->socket, &st) < 0 && errno != EACCES)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                        "tbnoded is not running (there is no %s); start it: systemctl start tbnoded",
                        c->socket);
        if (access(c->socket, R_OK | W_OK) < 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                        "no permission to use %s; run as root or as a member of its group", c->socket);
        if (cause->code == -ECONNREFUSED)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                        "tbnoded is not running (nobody listens at %s); start it: systemctl start tbnoded",
                        c->socket);
        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                "lost the connection to tbnoded at %s: %s; see its log", c->socket, tb_error_message(cause));
}

/* {"error": {"kind", "message", ...}} as an error of ours. */
int cli_answer_error(unsigned status, const json_t *answer, TbError **err)
{
        json_t *e = NULL;
        const char *kind = NULL, *message = NULL;
        int k;

        if (tb_json_get_object(answer, "error", &e, NULL) <= 0 ||
                tb_json_get_string(e, "message", &message, NULL) <= 0 ||
                tb_json_get_string(e, "kind", &kind, NULL) <= 0)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EPROTO, "tbnoded answered with status %u", status);
        k = tb_error_kind_from_string(kind);
        return tb_error_set(err, k < 0 ? TB_ERROR_REMOTE : (TbErrorKind) k, status == 404 ? -ENOENT : -EIO,
                "%s", message);
}

typedef struct Exchange {
        Cli *cli;
        TbHttpOptions options;
        char *url;
        char *body;
} Exchange;

static void exchange_done(Exchange *x)
{
        free(x->url);
        free(x->body);
}

static int exchange_init(
        Exchange *x, Cli *c, const char *method, const char *path, const json_t *body, TbError **err)
{
        size_t size = 0;

        x->cli = c;
        x->url = tb_asprintf("http://tbnoded%s", path);
        if (!x->url)
                return tb_error_oom(err);
        if (body && tb_json_dump(body, false, &x->body, &size, err) < 0)
                return -ENOMEM;
        x->options = (TbHttpOptions){
                .method = method,
                .url = x->url,
                .unix_socket = c->socket,
                .body = x->body,
                .body_size = size,
                .response_max = ANSWER_MAX,
        };
        return 0;
}

static int exchange_run(Exchange *x, TbHttpRequest **ret, TbError **err)
{
        TbError *cause = NULL;
        TbHttpRequest *request = NULL;
        int r;

        r = tb_http_perform(x->cli->http, &x->options, &request, &cause);
        if (r >= 0) {
                *ret = request;
                return 0;
        }
        /* Our own callbacks' errors are not about the connection. */
        if (cause && (cause->kind == TB_ERROR_REMOTE || cause->kind == TB_ERROR_ENVIRONMENT) &&
                cause->code != -EBADMSG && cause->code != -EMSGSIZE)
                (void) cli_agent_error(x->cli, cause, err);
        else
                return tb_error_move(err, &cause);
        tb_error_free(cause);
        return -ENOTCONN;
}

int cli_call(Cli *c, const char *method, const char *path, const json_t *body, json_t **ret, TbError **err)
{
        _cleanup_(exchange_done) Exchange x = {};
        _cleanup_(tb_http_request_freep) TbHttpRequest *request = NULL;
        _cleanup_json_ json_t *answer = NULL;
        const char *data;
        size_t size = 0;
        int r;

        r = exchange_init(&x, c, method, path, body, err);
        if (r >= 0)
                r = exchange_run(&x, &request, err);
        if (r < 0)
                return r;
        data = tb_http_request_body(request, &size);
        if (size > 0) {
                r = tb_json_parse(data, size, ANSWER_MAX, "answer of tbnoded", &answer, err);
                if (r < 0)
                        return r;
        }
        if (tb_http_request_status(request) >= 400)
                return cli_answer_error(tb_http_request_status(request), answer, err);
        if (ret)
                *ret = TAKE_PTR(answer);
        return 0;
}

typedef struct Stream {
        TbJsonLines *lines;
        TbBuffer refused; /* body of a status >= 400 */
        FILE *copy;
} Stream;

static ssize_t on_data(TbHttpRequest *r, const void *data, size_t size, void *userdata)
{
        Stream *s = userdata;
        TbError *err = NULL;
        int k;

        if (tb_http_request_status(r) >= 400)
                k = tb_buffer_append(&s->refused, data, size, &err);
        else if (s->lines)
                k = tb_json_lines_feed(s->lines, data, size, &err);
        else if (fwrite(data, 1, size, s->copy) != size || fflush(s->copy) != 0)
                k = tb_error_set_errno(&err, TB_ERROR_SYSTEM, -errno, "cannot write the answer");
        else
                k = 0;
        if (k < 0 && err)
                tb_http_request_abort_reason(r, err);
        return k;
}

static int stream_run(
        Cli *c, const char *method, const char *path, const json_t *body, Stream *s, TbError **err)
{
        _cleanup_(exchange_done) Exchange x = {};
        _cleanup_(tb_http_request_freep) TbHttpRequest *request = NULL;
        _cleanup_json_ json_t *answer = NULL;
        int r;

        r = exchange_init(&x, c, method, path, body, err);
        if (r < 0)
                return r;
        x.options.write = on_data;
        x.options.userdata = s;
        r = exchange_run(&x, &request, err);
        if (r < 0)
                return r;
        if (tb_http_request_status(request) < 400)
                return s->lines ? tb_json_lines_finish(s->lines, err) : 0;
        if (tb_json_parse(s->refused.data ?: "", s->refused.size, ANSWER_MAX, "answer of tbnoded", &answer,
                    NULL) < 0)
                answer = NULL;
        return cli_answer_error(tb_http_request_status(request), answer, err);
}

int cli_stream(Cli *c, const char *method, const char *path, const json_t *body, CliLineFn line,
        void *userdata, TbError **err)
{
        Stream s = {.refused = TB_BUFFER_INIT(1024 * 1024)};
        int r;

        r = tb_json_lines_new("answer of tbnoded", LINE_MAX_BYTES, line, userdata, &s.lines, err);
        if (r >= 0)
                r = stream_run(c, method, path, body, &s, err);
        tb_json_lines_free(s.lines);
        tb_buffer_done(&s.refused);
        return r;
}

int cli_copy(Cli *c, const char *path, TbError **err)
{
        Stream s = {.refused = TB_BUFFER_INIT(1024 * 1024), .copy = stdout};
        int r;

        r = stream_run(c, "GET", path, NULL, &s, err);
        tb_buffer_done(&s.refused);
        return r;
}
