/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a URL has, in a file without a name: bounded, and as the caller sees the network. */

#include <stdlib.h>
#include <string.h>

#include "agent/cli-source.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

#define DOWNLOAD_MAX (UINT64_C(1) << 30)
#define REDIRECTS_MAX 5U
#define TIMEOUT_USEC (UINT64_C(600) * 1000000)

typedef struct Download {
        int fd;
        uint64_t size;
} Download;

static ssize_t on_download(TbHttpRequest *r, const void *data, size_t size, void *userdata)
{
        Download *d = userdata;
        TbError *err = NULL;
        int k;

        if (tb_http_request_status(r) != 200)
                return 0;
        d->size += size;
        if (d->size > DOWNLOAD_MAX)
                k = tb_error_set(&err, TB_ERROR_CONFIG, -EFBIG, "it is larger than %llu MiB",
                        (unsigned long long) (DOWNLOAD_MAX >> 20));
        else
                k = tb_write_all(d->fd, data, size, &err);
        if (k < 0)
                tb_http_request_abort_reason(r, err);
        return k < 0 ? k : 0;
}

static int resolve_location(const char *url, const char *location, char **ret, TbError **err)
{
        const char *host = strstr(url, "://");

        if (tb_startswith(location, "https://") ||
                (tb_startswith(location, "http://") && tb_startswith(url, "http://")))
                *ret = strdup(location);
        else if (location[0] == '/' && location[1] != '/' && host)
                *ret = tb_asprintf(
                        "%.*s%s", (int) (host + 3 + strcspn(host + 3, "/?#") - url), url, location);
        else
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "the server leads elsewhere, to where tbnode does not go (a relative or an insecure "
                        "address)");
        return *ret ? 0 : tb_error_oom(err);
}

int cli_download(Cli *c, const char *first, int *ret_fd, uint64_t *ret_size, TbError **err)
{
        _cleanup_free_ char *url = strdup(first);
        _cleanup_close_ int fd = -EBADF;
        const char *host;
        Download d;
        int r;

        if (!url)
                return tb_error_oom(err);
        host = strstr(url, "://") + 3;
        if (memchr(host, '@', strcspn(host, "/?#")))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "the URL of a Dockerfile must not hold a password");
        r = cli_temp_file(&fd, err);
        if (r < 0)
                return r;
        d = (Download){.fd = fd};
        for (unsigned i = 0; i <= REDIRECTS_MAX; i++) {
                _cleanup_(tb_http_request_freep) TbHttpRequest *request = NULL;
                const char *location;
                char *next = NULL;
                unsigned status;

                r = tb_http_perform(c->http,
                        &(TbHttpOptions){
                                .method = "GET",
                                .url = url,
                                .write = on_download,
                                .timeout_usec = TIMEOUT_USEC,
                                .low_speed_bps = 1024,
                                .low_speed_sec = 60,
                                .userdata = &d,
                        },
                        &request, err);
                if (r < 0)
                        return r;
                status = tb_http_request_status(request);
                if (status == 200) {
                        *ret_size = d.size;
                        *ret_fd = TAKE_FD(fd);
                        return 0;
                }
                location = tb_http_request_header(request, "Location");
                if (status < 300 || status >= 400 || !location)
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -ENOENT, "the server answers with status %u", status);
                r = resolve_location(url, location, &next, err);
                if (r < 0)
                        return r;
                free(url);
                url = next;
        }
        return tb_error_set(err, TB_ERROR_REMOTE, -ELOOP, "more than %u redirections", REDIRECTS_MAX);
}
