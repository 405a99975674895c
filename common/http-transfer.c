/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/http-internal.h"

/*
 * What curl calls while an exchange runs
 *
 * Every callback first looks whether anybody still cares (`freed`, `dead`, `abort_code`), calls the owner,
 * and looks again, because the owner may have freed the request meanwhile; its memory stays until curl has
 * returned.
 */

static bool request_is_stopped(const TbHttpRequest *r)
{
        return r->freed || r->abort_code != 0 || r->http->dead;
}

/* The first reason counts. */
void http_request_abort(TbHttpRequest *r, int code)
{
        if (r->abort_code == 0)
                r->abort_code = code < 0 ? code : -EIO;
}

/* ---- response headers ---- */

void http_request_reset_headers(TbHttpRequest *r)
{
        for (size_t i = 0; i < r->n_headers; i++)
                free(r->headers[i].name);
        r->n_headers = 0;
}

static const char *skip_space(const char *p, const char *end)
{
        while (p < end && (*p == ' ' || *p == '\t'))
                p++;
        return p;
}

static const char *trim_end(const char *begin, const char *end)
{
        while (end > begin && strchr(" \t\r\n", end[-1]))
                end--;
        return end;
}

/* "HTTP/1.1 200 OK", "HTTP/2 200": curl has checked the form. */
static int header_status_line(TbHttpRequest *r, const char *line, size_t size)
{
        const char *end = line + size, *p = memchr(line, ' ', size);
        unsigned status = 0, digits = 0;

        for (p = p ? skip_space(p, end) : end; p < end && isdigit((unsigned char) *p) && digits < 3;
                p++, digits++)
                status = status * 10 + (unsigned) (*p - '0');
        if (digits != 3)
                return tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EPROTO,
                        "%s: the answer does not start with an HTTP status", r->label);

        http_request_reset_headers(r);
        r->status = status;
        return 0;
}

/* RFC 9112 section 5.2: a folded line is joined with a space. */
static int header_folded(TbHttpRequest *r, const char *p, const char *end)
{
        HttpHeader *h;
        size_t name, value, more;
        char *grown;

        p = skip_space(p, end);
        if (r->n_headers == 0 || p == end)
                return 0;
        h = &r->headers[r->n_headers - 1];
        name = strlen(h->name);
        value = strlen(h->value);
        more = (size_t) (end - p);
        grown = realloc(h->name, name + 1 + value + 1 + more + 1);
        if (!grown)
                return tb_error_oom(&r->abort_reason);
        h->name = grown;
        h->value = grown + name + 1;
        h->value[value] = ' ';
        memcpy(h->value + value + 1, p, more);
        h->value[value + 1 + more] = 0;
        return 0;
}

static int header_field(TbHttpRequest *r, const char *line, const char *end)
{
        const char *colon = memchr(line, ':', (size_t) (end - line)), *value, *name_end;
        size_t name_size, value_size;
        char *name;

        if (!colon || memchr(line, 0, (size_t) (end - line)))
                return tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EPROTO,
                        "%s: malformed header in the answer", r->label);
        if (r->n_headers >= HTTP_HEADERS_MAX)
                return tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: more than %u headers in the answer", r->label, HTTP_HEADERS_MAX);

        name_end = trim_end(line, colon);
        value = skip_space(colon + 1, end);
        name_size = (size_t) (name_end - line);
        value_size = (size_t) (end - value);
        name = malloc(name_size + value_size + 2);
        if (!name)
                return tb_error_oom(&r->abort_reason);
        memcpy(name, line, name_size);
        name[name_size] = 0;
        memcpy(name + name_size + 1, value, value_size);
        name[name_size + 1 + value_size] = 0;
        r->headers[r->n_headers++] = (HttpHeader){.name = name, .value = name + name_size + 1};
        return 0;
}

/*
 * curl hands over each line of every response: interim ones (1xx) first, the final one, then trailers. Only
 * the final one's are kept: each status line starts anew, and after the final blank line nothing counts any
 * more. The bound on bytes is over everything, so that no flood of interim responses or trailers passes.
 */
static int header_line(TbHttpRequest *r, const char *line, size_t size)
{
        const char *end = trim_end(line, line + size);

        r->header_bytes += size;
        if (r->header_bytes > HTTP_HEADER_BYTES_MAX)
                return tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: more than %u bytes of headers in the answer", r->label, HTTP_HEADER_BYTES_MAX);

        if (r->headers_complete)
                return 0;
        if (size >= 5 && memcmp(line, "HTTP/", 5) == 0)
                return header_status_line(r, line, size);
        if (line == end) {
                r->headers_complete = r->status >= 200 || r->status == 101;
                return 0;
        }
        if (*line == ' ' || *line == '\t')
                return header_folded(r, line, end);
        return header_field(r, line, end);
}

size_t http_on_header(char *data, size_t size, size_t n, void *userdata)
{
        TbHttpRequest *r = userdata;
        int k;

        if (request_is_stopped(r))
                return 0;
        k = header_line(r, data, size * n);
        if (k < 0) {
                http_request_abort(r, k);
                return 0;
        }
        return size * n;
}

/* ---- bodies ---- */

size_t http_on_write(char *data, size_t size, size_t n, void *userdata)
{
        TbHttpRequest *r = userdata;
        ssize_t k;

        size *= n;
        if (request_is_stopped(r))
                return 0;
        if (size == 0)
                return 0;

        if (r->write)
                k = r->write(r, data, size, r->userdata);
        else {
                k = tb_buffer_append(&r->response, data, size, &r->abort_reason);
                if (k < 0)
                        (void) tb_error_prefix(&r->abort_reason, "%s: cannot keep the answer", r->label);
        }

        if (request_is_stopped(r))
                return 0;
        if (k == TB_HTTP_PAUSE) {
                r->write_paused = true;
                return CURL_WRITEFUNC_PAUSE;
        }
        if (k < 0) {
                http_request_abort(r, (int) k);
                return 0;
        }
        r->received += size;
        return size;
}

static ssize_t read_from_owner(TbHttpRequest *r, void *buf, size_t size)
{
        ssize_t k;

        if (r->read_size != UINT64_MAX) {
                uint64_t left = r->read_size - r->sent;

                if (left == 0)
                        return 0;
                if (size > left)
                        size = (size_t) left;
        }

        k = r->read(r, buf, size, r->userdata);
        if (request_is_stopped(r) || k < 0)
                return k;
        if ((size_t) k > size)
                return tb_error_set(&r->abort_reason, TB_ERROR_BUG, -EOVERFLOW,
                        "%s: the request body's source gave more than it was asked for", r->label);
        /* The peer waits for what Content-Length announced: without this, both sides would wait. */
        if (k == 0 && r->read_size != UINT64_MAX)
                return tb_error_set(&r->abort_reason, TB_ERROR_BUG, -EPIPE,
                        "%s: the request body ended after %llu of %llu bytes", r->label,
                        (unsigned long long) r->sent, (unsigned long long) r->read_size);
        return k;
}

static ssize_t read_from_memory(TbHttpRequest *r, void *buf, size_t size)
{
        size_t n = r->body_size - (size_t) r->sent;

        if (n > size)
                n = size;
        if (n > 0)
                memcpy(buf, r->body + r->sent, n);
        return (ssize_t) n;
}

size_t http_on_read(char *buf, size_t size, size_t n, void *userdata)
{
        TbHttpRequest *r = userdata;
        ssize_t k;

        if (request_is_stopped(r))
                return CURL_READFUNC_ABORT;
        k = r->read ? read_from_owner(r, buf, size * n) : read_from_memory(r, buf, size * n);
        if (request_is_stopped(r))
                return CURL_READFUNC_ABORT;
        if (k == TB_HTTP_PAUSE) {
                r->read_paused = true;
                /* curl exempts paused receivers from the speed check, but not paused senders. */
                if (r->low_speed_bps > 0)
                        (void) curl_easy_setopt(r->easy, CURLOPT_LOW_SPEED_LIMIT, 0L);
                return CURL_READFUNC_PAUSE;
        }
        if (k < 0) {
                http_request_abort(r, (int) k);
                return CURL_READFUNC_ABORT;
        }
        r->sent += (uint64_t) k;
        return (size_t) k;
}

/* curl repeats a request by itself when a kept connection turns out to be closed before any answer. A body
 * in memory can be sent again; a stream only while nothing was taken from it. */
int http_on_seek(void *userdata, curl_off_t offset, int origin)
{
        TbHttpRequest *r = userdata;

        if (offset != 0 || origin != SEEK_SET)
                return CURL_SEEKFUNC_FAIL;
        if (r->read && r->sent > 0)
                return CURL_SEEKFUNC_FAIL;
        r->sent = 0;
        return CURL_SEEKFUNC_OK;
}
