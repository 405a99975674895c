/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * GET blob: streamed, verified, resumed
 *
 * `position` counts the bytes that the sink took, and the hasher has seen exactly these. When an exchange breaks off,
 * the next one asks for "Range: bytes=<position>-"; a server that answers 206 must begin there, one that answers 200
 * gives everything again and the first `position` bytes are dropped. So the sink sees every byte once, in order, and the
 * digest at the end covers all of them, wherever they came from.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/digest.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

struct RegistryDownload {
        RegistryClient *client;
        RegistryDownloadOptions o;
        RegistryHost *host;
        RegistryCall *call;
        TbHasher *hasher;
        uint64_t position;
        uint64_t drop; /* bytes of this exchange still to be dropped */
        bool begun;    /* the first bytes of this exchange came */
};

RegistryDownload *registry_download_free(RegistryDownload *d)
{
        if (!d)
                return NULL;
        registry_call_free(d->call);
        tb_hasher_free(d->hasher);
        free(d);
        return NULL;
}

static void download_freep(RegistryDownload **d)
{
        registry_download_free(*d);
}

void registry_download_resume(RegistryDownload *d)
{
        if (d->call)
                registry_call_resume(d->call);
}

/* It must begin where we stopped, and be of a blob of the right size. */
static int check_range(RegistryDownload *d, const char *header, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        RegistryContentRange range;

        if (header && registry_content_range_parse(header, &range) && range.first == d->position &&
                (d->o.size == UINT64_MAX || range.total == UINT64_MAX || range.total == d->o.size))
                return 0;
        shown = header ? tb_escape(header, 80) : NULL;
        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                "%s: asked for the rest of a blob from byte %llu on, got Content-Range \"%s\"",
                d->host->name, (unsigned long long) d->position, shown ? shown : "");
}

static int begin_exchange(RegistryDownload *d, TbError **err)
{
        d->begun = true;
        d->drop = 0;
        if (registry_call_status(d->call) == 206)
                return check_range(d, registry_call_header(d->call, "Content-Range"), err);
        d->drop = d->position;
        return 0;
}

static int check_bounds(RegistryDownload *d, size_t size, TbError **err)
{
        if (d->o.size != UINT64_MAX && size > d->o.size - d->position)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob %s is larger than the %llu bytes its descriptor says", d->host->name,
                        d->o.digest.text, (unsigned long long) d->o.size);
        if (size > d->o.max || d->position > d->o.max - size)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: blob %s is larger than %llu bytes",
                        d->host->name, d->o.digest.text, (unsigned long long) d->o.max);
        return 0;
}

static ssize_t take(RegistryDownload *d, const char *data, size_t size, TbError **err)
{
        uint64_t dropped;
        ssize_t n;
        int r;

        if (!d->begun) {
                r = begin_exchange(d, err);
                if (r < 0)
                        return r;
        }
        dropped = MIN2(d->drop, (uint64_t) size);
        data += dropped;
        size -= (size_t) dropped;
        if (size > 0) {
                r = check_bounds(d, size, err);
                if (r < 0)
                        return r;
                n = d->o.sink(data, size, d->o.userdata, err);
                if (n < 0) /* also TB_HTTP_PAUSE: the whole piece will come again */
                        return n;
                r = d->hasher ? tb_hasher_update(d->hasher, data, size, err) : 0;
                if (r < 0)
                        return r;
                d->position += size;
                registry_call_progress(d->call);
        }
        d->drop -= dropped;
        return 0;
}

static ssize_t on_write(RegistryCall *call, const void *data, size_t size, void *userdata)
{
        RegistryDownload *d = userdata;
        TbError *e = NULL;
        ssize_t n = take(d, data, size, &e);

        if (n < 0 && n != TB_HTTP_PAUSE)
                registry_call_abort_reason(call, TAKE_PTR(e));
        tb_error_free(e);
        return n;
}

static int on_again(RegistryCall *call, char ***headers, void *userdata, TbError **err)
{
        RegistryDownload *d = userdata;

        d->begun = false;
        if (d->position == 0)
                return 0;
        return tb_strv_consume(
                headers, tb_asprintf("Range: bytes=%llu-", (unsigned long long) d->position), err);
}

static int verify(RegistryDownload *d, TbError **err)
{
        TbDigest got;
        int r;

        if (!d->hasher)
                return 0;
        if (d->o.size != UINT64_MAX && d->position != d->o.size)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob %s: got %llu bytes, its descriptor says %llu", d->host->name,
                        d->o.digest.text, (unsigned long long) d->position, (unsigned long long) d->o.size);
        r = tb_hasher_final(d->hasher, &got, err);
        if (r < 0)
                return r;
        if (!tb_digest_equal(&got, &d->o.digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob does not match its digest: asked for %s, got content with %s",
                        d->host->name, d->o.digest.text, got.text);
        return 0;
}

static void on_done(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryDownload *d = userdata;
        unsigned status = registry_call_status(call);

        /* A connection that breaks behind the last byte is no harm. */
        if (err && !(d->o.size != UINT64_MAX && d->o.size > 0 && d->position == d->o.size)) {
                d->o.done(d, err, d->o.userdata);
                return;
        }
        if (status == 200 || status == 206)
                (void) verify(d, &e);
        else
                (void) registry_status_error(call, &e, "cannot get blob %s", d->o.digest.text);
        d->o.done(d, e, d->o.userdata);
}

int registry_download_start(
        RegistryClient *c, const RegistryDownloadOptions *options, RegistryDownload **ret, TbError **err)
{
        _cleanup_(download_freep) RegistryDownload *d = NULL;
        _cleanup_free_ char *url = NULL, *scope = NULL;
        RegistryCallOptions o = {
                .method = "GET",
                .write = on_write,
                .again = on_again,
                .prepare = true,
                .done = on_done,
        };
        int r;

        d = calloc(1, sizeof(*d));
        if (!d)
                return tb_error_oom(err);
        d->client = c;
        d->o = *options;
        d->o.repository = NULL; /* only for this call */
        d->position = d->o.position;
        if (!d->o.sink_verifies && (r = tb_hasher_new(&d->hasher, err)) < 0)
                return r;
        r = registry_client_get_host(c, options->repository->host, &d->host, err);
        if (r < 0)
                return r;
        url = registry_host_url(d->host, "%s/blobs/%s", options->repository->repository, d->o.digest.text);
        scope = tb_asprintf("repository:%s:pull", options->repository->repository);
        if (!url || !scope)
                return tb_error_oom(err);
        o.host = d->host;
        o.url = url;
        o.scopes[0] = scope;
        o.userdata = d;
        r = registry_call_start(c, &o, &d->call, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(d);
        return 0;
}
