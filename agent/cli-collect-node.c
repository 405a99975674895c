/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/cli-collect-node.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/node-files.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

#define JSON_ANSWER_MAX (16U * 1024 * 1024)
/* Of one log; the rest is left out, and said to be. */
#define LOG_MAX (UINT64_C(512) << 20)
/* The archive of files: what the agent sends at most, with headers. */
#define ARCHIVE_MAX (NODE_FILES_BYTES_MAX + (UINT64_C(16) << 20))
/* An agent from which nothing comes for so long hangs. (It may have to wait for its turn with files.) */
#define SILENCE_SECONDS 900

/* What the client in the node keeps of its jobs; where init's directory may be. They go without that path. */
const char *const collect_own_patterns[] = {"/run/tbnode/startup.log*", "/run/tbnode/programs/*.log",
        "/dev/.tbnode/startup.log*", "/dev/.tbnode/programs/*.log", NULL};
static const char *const own_prefixes[] = {
        NODE_FILES_PREFIX "run/tbnode/", NODE_FILES_PREFIX "dev/.tbnode/"};

typedef enum Step {
        STEP_INSPECT,
        STEP_FIREWALL,
        STEP_OUTPUT,
        STEP_SYSLOG,
        STEP_FILES,
        _STEP_MAX,
} Step;

static const char *const step_files[_STEP_MAX] = {
        [STEP_INSPECT] = "inspect.json",
        [STEP_FIREWALL] = "firewall.json",
        [STEP_OUTPUT] = "output.log",
        [STEP_SYSLOG] = "syslog.log",
};

static void next_step(CollectNode *n);

void collect_node_free(CollectNode *n)
{
        tb_http_request_free(n->request);
        tb_close(n->fd);
        tb_buffer_done(&n->answer);
        free(n->name);
        free(n->id);
        free(n->where);
        json_decref(n->errors);
        json_decref(n->notes);
}

static void add(json_t *list, const char *what, const char *text)
{
        _cleanup_free_ char *line = tb_asprintf("%s: %s", what, text);

        if (line)
                (void) json_array_append_new(list, json_string(line));
}

static void failed(CollectNode *n, const char *what, const TbError *err)
{
        add(n->errors, what, tb_error_message(err));
}

/* ---- What the agent sends -------------------------------------------------------------------------------------------- */

static int open_file(CollectNode *n, TbError **err)
{
        return n->step == STEP_FILES ? store_scratch(n->store, &n->fd, err)
                                     : store_create(n->store, n->where, step_files[n->step], &n->fd, err);
}

static ssize_t on_data(TbHttpRequest *r, const void *data, size_t size, void *userdata)
{
        CollectNode *n = userdata;
        uint64_t max = n->step == STEP_FILES ? ARCHIVE_MAX : LOG_MAX;
        TbError *err = NULL;
        int k = 0;

        if (tb_http_request_status(r) >= 400 || n->step == STEP_INSPECT)
                k = tb_buffer_append(&n->answer, data, size, &err);
        else if (n->written + size > max)
                k = tb_error_set(&err, TB_ERROR_CONFIG, -EFBIG,
                        "it is more than %llu MiB; what is here is the beginning",
                        (unsigned long long) (max >> 20));
        else {
                k = n->fd >= 0 ? 0 : open_file(n, &err);
                if (k >= 0)
                        k = tb_write_all(n->fd, data, size, &err);
        }
        if (k < 0) {
                tb_http_request_abort_reason(r, err);
                return k;
        }
        n->written += size;
        n->bytes += size;
        n->progress(n, n->userdata);
        return 0;
}

/* -ENOENT, -ENOTCONN as codes of the agent's: there is no such thing now, which is no failure. */
static bool refusal(CollectNode *n, unsigned status, TbError **ret)
{
        _cleanup_json_ json_t *j = NULL;
        const char *code;

        if (tb_json_parse(n->answer.data ?: "", n->answer.size, JSON_ANSWER_MAX, "answer of tbnoded", &j,
                    NULL) < 0)
                j = NULL; /* then the status is all that is known */
        code = json_string_value(json_object_get(json_object_get(j, "error"), "code"));
        (void) cli_answer_error(status, j, ret);
        return tb_streq(code, "ENOENT") || tb_streq(code, "ENOTCONN");
}

static int write_json(CollectNode *n, const char *name, json_t *take, TbError **err)
{
        _cleanup_json_ json_t *j = take;
        int r = store_write_json(n->store, n->where, name, j, err);

        n->files += r >= 0;
        return r;
}

/* All that is known of the node; and by itself what became of its programs. */
static int take_inspect(CollectNode *n, TbError **err)
{
        _cleanup_json_ json_t *node = NULL;
        const json_t *client;
        int r;

        r = tb_json_parse(
                n->answer.data ?: "", n->answer.size, JSON_ANSWER_MAX, "answer of tbnoded", &node, err);
        if (r < 0)
                return r;
        client = json_object_get(node, "client");
        r = write_json(n, "inspect.json", json_incref(node), err);
        if (r < 0)
                return r;
        return write_json(n, "status.json",
                json_pack("{s:O?, s:O?, s:O?, s:O?, s:O?, s:O?}", "state", json_object_get(node, "state"),
                        "reason", json_object_get(node, "reason"), "main", json_object_get(node, "main"),
                        "client", json_object_get(client, "state"), "startup",
                        json_object_get(client, "startup"), "programs", json_object_get(client, "programs")),
                err);
}

/* ---- The archive of files -------------------------------------------------------------------------------------------- */

static bool is_own_pattern(const char *path)
{
        for (const char *const *p = collect_own_patterns; *p; p++)
                if (tb_streq(*p, path))
                        return true;
        return false;
}

/* The name in the node's directory of one in the archive: ours without the path that the node has them under. */
static const char *file_name(const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(own_prefixes); i++) {
                const char *rest = tb_startswith(name, own_prefixes[i]);

                if (rest && (tb_startswith(rest, "startup.log") || tb_startswith(rest, "programs/")))
                        return rest;
        }
        return tb_startswith(name, NODE_FILES_PREFIX) ? name : NULL;
}

static int copy_out(struct archive *a, int fd, TbError **err)
{
        static char buffer[64 * 1024];

        for (;;) {
                ssize_t k = archive_read_data(a, buffer, sizeof(buffer));

                if (k == 0)
                        return 0;
                if (k < 0)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EIO, "what the agent sent broke off: %s",
                                archive_error_string(a) ?: "");
                int r = tb_write_all(fd, buffer, (size_t) k, err);
                if (r < 0)
                        return r;
        }
}

static int take_report(CollectNode *n, struct archive *a, TbError **err)
{
        _cleanup_buffer_ TbBuffer text = TB_BUFFER_INIT(JSON_ANSWER_MAX);
        _cleanup_json_ json_t *j = NULL;
        const json_t *s;
        char buffer[4096];
        ssize_t got;
        size_t i;
        int r = 0;

        while (r >= 0 && (got = archive_read_data(a, buffer, sizeof(buffer))) > 0)
                r = tb_buffer_append(&text, buffer, (size_t) got, err);
        if (r >= 0)
                r = tb_json_parse(text.data ?: "", text.size, JSON_ANSWER_MAX, NODE_FILES_REPORT, &j, err);
        (*n->answered)++;
        json_array_foreach (json_object_get(j, "skipped"), i, s) {
                const char *path = cli_text(s, "path", ""), *reason = cli_text(s, "reason", "");

                if (is_own_pattern(path))
                        continue;
                for (size_t k = 0; n->options->files && n->options->files[k]; k++)
                        n->missing[k] +=
                                tb_streq(n->options->files[k], path) && tb_streq(reason, NODE_FILES_NOTHING);
                add(tb_streq(reason, NODE_FILES_NOTHING) ? n->notes : n->errors, path, reason);
        }
        return r;
}

static int take_entry(CollectNode *n, struct archive *a, struct archive_entry *e, TbError **err)
{
        const char *name = archive_entry_pathname(e), *to;
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (archive_entry_filetype(e) != S_IFREG || archive_entry_hardlink(e) || archive_entry_symlink(e) ||
                !name)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EPROTO, "the agent sent something that is no file");
        if (tb_streq(name, NODE_FILES_REPORT))
                return take_report(n, a, err);
        to = file_name(name);
        r = to ? store_create(n->store, n->where, to, &fd, err)
               : tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "the agent sent a file of a wrong name");
        if (r >= 0)
                r = copy_out(a, fd, err);
        n->files += r >= 0;
        return r;
}

static int unpack(CollectNode *n, TbError **err)
{
        struct archive *a = archive_read_new();
        struct archive_entry *e;
        bool complete = false;
        int r = 0, k = ARCHIVE_EOF;

        if (!a)
                return tb_error_oom(err);
        if (n->fd < 0 || lseek(n->fd, 0, SEEK_SET) < 0 || archive_read_support_format_tar(a) != ARCHIVE_OK ||
                archive_read_open_fd(a, n->fd, 64 * 1024) != ARCHIVE_OK)
                r = tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot read the archive: %s",
                        archive_error_string(a) ?: "nothing came");
        while (r >= 0 && !complete && (k = archive_read_next_header(a, &e)) >= ARCHIVE_WARN) {
                complete = tb_streq(archive_entry_pathname(e), NODE_FILES_REPORT);
                r = take_entry(n, a, e, err);
        }
        if (r >= 0 && !complete)
                r = tb_error_set(err, TB_ERROR_REMOTE, -EPIPE,
                        "what the agent sent broke off (the node ended, or it took too long): files are "
                        "missing");
        archive_read_free(a);
        return r;
}

/* ---- Steps ----------------------------------------------------------------------------------------------------------- */

static void on_done(TbHttpRequest *r, const TbError *cause, void *userdata)
{
        CollectNode *n = userdata;
        unsigned status = tb_http_request_status(r);
        const char *what = step_files[n->step] ?: "files";
        _cleanup_error_ TbError *err = NULL;

        if (cause && n->step == STEP_FILES && status < 400) {
                (void) tb_error_set(&err, cause->kind, cause->code,
                        "the agent broke off while it sent them, so files are missing (what reads them was "
                        "killed or took too long: tbnoded's log has the reason; or the agent ended): %s",
                        tb_error_message(cause));
                failed(n, what, err);
        } else if (cause)
                failed(n, what, cause);
        else if (status >= 400) {
                bool absent = refusal(n, status, &err);

                /* Files that somebody asked for are to be there. */
                if (absent && (n->step == STEP_SYSLOG || (n->step == STEP_FILES && !n->options->files)))
                        add(n->notes, what, tb_error_message(err));
                else
                        failed(n, what, err);
        } else if (n->step == STEP_INSPECT || n->step == STEP_FILES) {
                if ((n->step == STEP_FILES ? unpack(n, &err) : take_inspect(n, &err)) < 0)
                        failed(n, what, err);
        } else if (n->fd < 0 && open_file(n, &err) < 0) /* a log in which there is nothing */
                failed(n, what, err);
        else
                n->files++;
        n->step++;
        next_step(n);
}

static char *step_path(const CollectNode *n)
{
        _cleanup_free_ char *since = n->options->since ? tb_engine_escape(n->options->since) : strdup("");
        const char *with = n->options->since ? "&since=" : "";

        if (!since)
                return NULL;
        switch ((Step) n->step) {
        case STEP_INSPECT:
                return tb_asprintf("http://tbnoded/v1/nodes/%s", n->id);
        case STEP_FIREWALL:
                return tb_asprintf("http://tbnoded/v1/nodes/%s/firewall", n->id);
        case STEP_OUTPUT:
                return tb_asprintf("http://tbnoded/v1/nodes/%s/logs?source=output&timestamps=1%s%s", n->id,
                        with, since);
        case STEP_SYSLOG:
                return tb_asprintf("http://tbnoded/v1/nodes/%s/logs?source=syslog%s%s", n->id, with, since);
        case STEP_FILES:
                return tb_asprintf("http://tbnoded/v1/nodes/%s/files", n->id);
        case _STEP_MAX:
                break;
        }
        return NULL;
}

static int start_step(CollectNode *n, TbError **err)
{
        _cleanup_free_ char *url = step_path(n), *body = NULL;
        size_t size = 0;

        n->request = tb_http_request_free(n->request);
        tb_close(n->fd);
        n->fd = -EBADF;
        n->written = 0;
        tb_buffer_done(&n->answer);
        n->answer = TB_BUFFER_INIT(JSON_ANSWER_MAX);
        if (!url)
                return tb_error_oom(err);
        if (n->step == STEP_FILES) {
                _cleanup_json_ json_t *j = json_pack("{s:O}", "paths", n->patterns);
                int r;

                r = j ? tb_json_dump(j, false, &body, &size, err) : tb_error_oom(err);
                if (r < 0)
                        return r;
        }
        return tb_http_start(n->cli->http,
                &(TbHttpOptions){
                        .method = body ? "POST" : "GET",
                        .url = url,
                        .unix_socket = n->cli->socket,
                        .body = body,
                        .body_size = size,
                        .write = on_data,
                        .low_speed_bps = 1,
                        .low_speed_sec = SILENCE_SECONDS,
                        .done = on_done,
                        .userdata = n,
                },
                &n->request, err);
}

static void next_step(CollectNode *n)
{
        while (n->step < _STEP_MAX) {
                _cleanup_error_ TbError *err = NULL;

                if (start_step(n, &err) >= 0)
                        return;
                failed(n, step_files[n->step] ?: "files", err);
                n->step++;
        }
        n->running = false;
        n->done(n, n->userdata);
}

void collect_node_start(CollectNode *n)
{
        n->running = true;
        n->fd = -EBADF;
        next_step(n);
}
