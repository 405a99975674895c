/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/http-upgrade.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

int tb_http_upgrade_request(const char *host, const char *path, const char *protocol, const json_t *body,
        TbBuffer *ret, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        int r;

        if (body) {
                r = tb_json_dump(body, false, &text, &size, err);
                if (r < 0)
                        return r;
        }
        return tb_buffer_printf(ret, err,
                "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                path, host, protocol, size, text ?: "");
}

static int bad(TbError **err, const char *why)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "this is no HTTP answer: %s", why);
}

/* "HTTP/1.1 101 UPGRADED" */
static int parse_status(const char *line, unsigned *ret, TbError **err)
{
        const char *p = tb_startswith(line, "HTTP/1.1 ") ?: tb_startswith(line, "HTTP/1.0 ");
        char digits[4] = {};
        uint32_t v;

        if (!p || strnlen(p, 3) < 3 || (p[3] != 0 && p[3] != ' '))
                return bad(err, "its first line has no status");
        memcpy(digits, p, 3);
        if (tb_parse_u32(digits, 100, 599, &v, NULL) < 0)
                return bad(err, "its first line has no status");
        *ret = v;
        return 0;
}

/* The head without its empty line, NUL-terminated and without NULs in it. Only how long the body is, is of interest. */
static int parse_head(TbHttpUpgrade *u, char *head, TbError **err)
{
        char *save = NULL, *line = strtok_r(head, "\r\n", &save);
        unsigned status;
        uint32_t v;
        int r;

        r = line ? parse_status(line, &status, err) : bad(err, "it is empty");
        if (r < 0)
                return r;
        u->expected = SIZE_MAX;
        while ((line = strtok_r(NULL, "\r\n", &save))) {
                static const char name[] = "Content-Length:";

                if (strncasecmp(line, name, sizeof(name) - 1) != 0)
                        continue;
                line += sizeof(name) - 1;
                line += strspn(line, " \t");
                line[strcspn(line, " \t")] = 0;
                if (u->expected != SIZE_MAX || tb_parse_u32(line, 0, UINT32_MAX, &v, NULL) < 0)
                        return bad(err, "its length is no number");
                u->expected = v;
        }
        u->status = status;
        return 0;
}

static int feed_body(TbHttpUpgrade *u, const char *data, size_t size, TbError **err)
{
        size_t room;

        if (u->status == 101) {
                u->done = true;
                return size > 0 ? tb_buffer_append(&u->body, data, size, err) : 0;
        }
        /* What is too long is a message that nobody would read to its end. */
        room = MIN2(u->expected, (size_t) HTTP_UPGRADE_BODY_MAX) - u->body.size;
        if (size > 0 && room > 0) {
                int r = tb_buffer_append(&u->body, data, MIN2(size, room), err);

                if (r < 0)
                        return r;
        }
        u->done = u->body.size >= MIN2(u->expected, (size_t) HTTP_UPGRADE_BODY_MAX);
        return 0;
}

int tb_http_upgrade_feed(TbHttpUpgrade *u, const void *data, size_t size, TbError **err)
{
        const char *p = data, *end;
        size_t old = u->head.size, used, length;
        int r;

        if (size == 0 && u->status != 0 && u->status != 101 && u->expected == SIZE_MAX) {
                u->done = true;
                return 0;
        }
        if (size == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -ECONNRESET, "the connection ended in the answer");
        if (u->status != 0)
                return feed_body(u, p, size, err);
        r = tb_buffer_append(&u->head, p, MIN2(size, (size_t) HTTP_UPGRADE_HEAD_MAX - u->head.size), err);
        if (r < 0)
                return r;
        end = memmem(u->head.data, u->head.size, "\r\n\r\n", 4);
        if (!end)
                return u->head.size >= HTTP_UPGRADE_HEAD_MAX ? bad(err, "its head does not end") : 0;
        length = (size_t) (end - u->head.data);
        if (memchr(u->head.data, 0, length))
                return bad(err, "there is a NUL in its head");
        used = length + 4 - old;
        u->head.data[length] = 0;
        r = parse_head(u, u->head.data, err);
        return r < 0 ? r : feed_body(u, p + used, size - used, err);
}

void tb_http_upgrade_done(TbHttpUpgrade *u)
{
        tb_buffer_done(&u->head);
        tb_buffer_done(&u->body);
}
