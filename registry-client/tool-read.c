/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* manifest, config and blob: bytes as they are. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/tool.h"

/* With --json: what it is, and the document itself under `key`; in the file, if one was named, still the bytes. */
static int print_document(Tool *t, const RegistryRef *ref, const RegistryDescriptor *d, const char *key,
        const json_t *document, const void *data, size_t size, TbError **err)
{
        _cleanup_free_ char *name = NULL;
        json_t *j;
        int r;

        if (!t->json || t->output) {
                r = tool_write_out(t, data, size, err);
                if (r < 0 || !t->json)
                        return r;
        }
        name = registry_ref_to_string(ref);
        if (!name)
                return tb_error_oom(err);
        j = json_pack("{s:s, s:s, s:s, s:I, s:O}", "name", name, "digest", d->digest.text, "mediaType",
                d->media_type, "size", (json_int_t) d->size, key, document);
        if (j && t->output)
                (void) json_object_set_new(j, "file", json_string(t->output));
        return tool_print_json_new(j, err);
}

int tool_manifest(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        RegistryDescriptor d;
        int r;

        r = tool_parse_ref(t, args[0], &ref, err);
        if (r < 0)
                return r;
        r = t->n_platforms > 0 ? tool_get_image(t, ref, &m, NULL, err)
                               : registry_get_manifest(t->client, ref, &m, err);
        if (r < 0)
                return r;
        d = (RegistryDescriptor){
                .media_type = (char *) registry_manifest_kind_to_media_type(m->kind),
                .digest = m->digest,
                .size = m->size,
        };
        return print_document(t, ref, &d, "manifest", m->json, m->data, m->size, err);
}

int tool_config(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_json_ json_t *document = NULL;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        if ((r = tool_parse_ref(t, args[0], &ref, err)) < 0 ||
                (r = tool_get_image(t, ref, &m, NULL, err)) < 0 ||
                (r = tool_get_config(t, ref, m, &data, &size, err)) < 0)
                return r;
        if (t->json) {
                r = tb_json_parse(data, size, size, "image configuration", &document, err);
                if (r < 0)
                        return r;
        }
        return print_document(t, ref, &m->config, "config", document, data, size, err);
}

/* ---- blob ---- */

typedef struct BlobSink {
        Tool *t;
        int fd;
        uint64_t size, shown_usec;
        bool show;
} BlobSink;

static int to_fd(const void *data, size_t size, void *userdata, TbError **err)
{
        BlobSink *s = userdata;
        uint64_t now = tb_now_us();

        s->size += size;
        if (s->show && now - s->shown_usec >= 100000) {
                RegistryCopyProgress p = {.bytes_done = s->size, .bytes_total = s->size, .blobs_total = 1};

                s->shown_usec = now;
                tool_show_progress(s->t, &p);
        }
        return tb_write_all(s->fd, data, size, err);
}

/* Into a file that has its name only when every byte was right: an O_TMPFILE could not replace an older one. */
static int blob_to_file(Tool *t, const RegistryRef *ref, BlobSink *s, TbError **err)
{
        _cleanup_free_ char *temporary = tb_asprintf("%s.XXXXXX", t->output);
        int r;

        if (!temporary)
                return tb_error_oom(err);
        s->fd = mkostemp(temporary, O_CLOEXEC);
        if (s->fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot create a file beside %s", t->output);
        r = registry_read_blob(t->client, ref, &ref->digest, UINT64_MAX, to_fd, s, err);
        if (r >= 0 && (fchmod(s->fd, 0644) < 0 || fsync(s->fd) < 0 || rename(temporary, t->output) < 0))
                r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write %s", t->output);
        if (r < 0)
                (void) unlink(temporary);
        (void) close(s->fd);
        return r;
}

int tool_blob(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *name = NULL;
        BlobSink sink = {.t = t, .fd = STDOUT_FILENO};
        int r;

        r = tool_parse_ref(t, args[0], &ref, err);
        if (r < 0)
                return r;
        if (!tb_digest_is_set(&ref->digest))
                return tool_usage(t, err,
                        "blob: name it by digest, REPOSITORY@sha256:...; \"inspect\" shows the digests");
        if (t->json && !t->output)
                return tool_usage(t, err, "blob: --json needs --output FILE for the bytes");
        name = registry_ref_name(ref);
        if (!name)
                return tb_error_oom(err);
        t->started_usec = tb_now_us();
        sink.show = !t->json && isatty(STDERR_FILENO) && (t->output || !isatty(STDOUT_FILENO));
        r = t->output ? blob_to_file(t, ref, &sink, err)
                      : registry_read_blob(t->client, ref, &ref->digest, UINT64_MAX, to_fd, &sink, err);
        if (r < 0 || !t->json)
                return r;
        return tool_print_json_new(
                json_pack("{s:s, s:s, s:I, s:s}", "repository", name, "digest", ref->digest.text, "size",
                        (json_int_t) sink.size, "file", t->output),
                err);
}
