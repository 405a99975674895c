/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What verbs print: JSON, aligned text, and the line of progress. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/tool.h"

#define KEY_WIDTH 12
#define VALUE_MAX 400U

int tool_print_json(const json_t *j, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int r = tb_json_dump_pretty(j, &text, err);

        if (r < 0)
                return r;
        if (puts(text) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write to stdout");
        return 0;
}

int tool_print_json_new(json_t *j, TbError **err)
{
        _cleanup_json_ json_t *own = j;

        return own ? tool_print_json(own, err) : tb_error_oom(err);
}

void tool_print_field(const char *key, const char *value)
{
        _cleanup_free_ char *shown = tb_escape_control(value, VALUE_MAX);

        printf("%-*s%s%s\n", KEY_WIDTH, key, shown ? shown : "?", strlen(value) > VALUE_MAX ? "..." : "");
}

void tool_print_fieldf(const char *key, const char *fmt, ...)
{
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vasprintf(&text, fmt, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;
        else
                tool_print_field(key, text);
}

int tool_write_out(const Tool *t, const void *data, size_t size, TbError **err)
{
        if (t->output)
                return tb_file_write_atomic(t->output, data, size, 0644, err);
        return tb_write_all(STDOUT_FILENO, data, size, err);
}

static unsigned terminal_width(void)
{
        struct winsize w;

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) >= 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void tool_show_progress(Tool *t, const RegistryCopyProgress *p)
{
        char done[TB_UNIT_TEXT_MAX], total[TB_UNIT_TEXT_MAX], rate[TB_UNIT_TEXT_MAX];
        _cleanup_free_ char *line = NULL;
        uint64_t usec = tb_now_us() - t->started_usec;
        uint64_t bps = usec > 0 ? (uint64_t) ((double) p->bytes_done * 1e6 / (double) usec) : 0;

        line = tb_asprintf("%zu/%zu blobs, %s of %s, %s/s", p->blobs_done, p->blobs_total,
                tb_format_bytes(done, p->bytes_done), tb_format_bytes(total, p->bytes_total),
                tb_format_bytes(rate, bps));
        if (!line)
                return;
        /* A line that wraps could not be drawn over. */
        fprintf(stderr, "\r\033[K%.*s", (int) terminal_width() - 1, line);
        t->progress_shown = true;
}

void tool_end_progress(Tool *t)
{
        if (t->progress_shown)
                fputs("\r\033[K", stderr);
        t->progress_shown = false;
}

json_t *tool_descriptor_to_json(const RegistryDescriptor *d)
{
        _cleanup_free_ char *platform = d->platform.os ? registry_platform_to_string(&d->platform) : NULL;
        json_t *o = json_pack("{s:s, s:s, s:I}", "digest", d->digest.text, "mediaType", d->media_type,
                "size", (json_int_t) d->size);

        if (!o)
                return NULL;
        if (platform)
                (void) json_object_set_new(o, "platform", json_string(platform));
        if (d->attestation)
                (void) json_object_set_new(o, "attestation", json_true());
        return o;
}

json_t *tool_descriptors_to_json(const RegistryDescriptor *d, size_t n)
{
        json_t *list = json_array();

        for (size_t i = 0; i < n && list; i++)
                if (json_array_append_new(list, tool_descriptor_to_json(d + i)) < 0) {
                        json_decref(list);
                        list = NULL;
                }
        return list;
}
