/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Images out of the engine, with the caller's own right to use it. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli-source.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

#define EXPORT_MAX (UINT64_C(64) << 30)

int cli_temp_file(int *ret_fd, TbError **err)
{
        const char *dir = getenv("TMPDIR");
        _cleanup_free_ char *path = NULL;
        int fd;

        if (!dir || dir[0] != '/')
                dir = "/var/tmp";
        fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
                path = tb_asprintf("%s/tbnode-XXXXXX", dir);
                if (!path)
                        return tb_error_oom(err);
                fd = mkostemp(path, O_CLOEXEC);
                if (fd >= 0)
                        (void) unlink(path);
        }
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot make a temporary file in %s; set TMPDIR to a directory with room", dir);
        *ret_fd = fd;
        return 0;
}

int cli_engine_connect(Cli *c, const char *endpoint, TbEngine **ret, TbError **err)
{
        const char *wanted = getenv("DOCKER_HOST");

        return tb_engine_new(c->http, wanted && wanted[0] ? wanted : endpoint, ret, err);
}

/* ---- Export ------------------------------------------------------------------------------------------------------ */

typedef struct Export {
        int fd;
        uint64_t size;
        TbError *error;
} Export;

static ssize_t on_data(TbEngineRequest *r, const void *data, size_t size, void *userdata)
{
        Export *e = userdata;
        int k;

        e->size += size;
        if (e->size > EXPORT_MAX)
                k = tb_error_set(&e->error, TB_ERROR_RESOURCE, -EFBIG, "the image is larger than %llu GiB",
                        (unsigned long long) (EXPORT_MAX >> 30));
        else
                k = tb_write_all(e->fd, data, size, &e->error);
        return k < 0 ? k : 0;
}

static int export_image(TbEngine *engine, const char *name, int *ret_fd, TbError **err)
{
        _cleanup_free_ char *escaped = tb_engine_escape(name);
        _cleanup_free_ char *path = escaped ? tb_asprintf("/images/%s/get", escaped) : NULL;
        _cleanup_close_ int fd = -EBADF;
        Export e = {};
        TbError *failed = NULL;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = cli_temp_file(&fd, err);
        if (r < 0)
                return r;
        e.fd = fd;
        r = tb_engine_perform(engine,
                &(TbEngineCall){.method = "GET", .path = path, .data = on_data, .userdata = &e}, NULL, NULL,
                &failed);
        if (r < 0) {
                if (e.error) {
                        tb_error_free(failed);
                        failed = e.error;
                }
                return tb_error_move(err, &failed);
        }
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int cli_engine_export(TbEngine *engine, const char *name, int *ret_fd, char **ret_tag, TbError **err)
{
        _cleanup_free_ char *escaped = tb_engine_escape(name);
        _cleanup_free_ char *path = escaped ? tb_asprintf("/images/%s/json", escaped) : NULL;
        _cleanup_json_ json_t *image = NULL;
        const char *id = NULL, *tag;
        unsigned status = 0;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_engine_perform(engine, &(TbEngineCall){.method = "GET", .path = path}, &status, &image, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(image, "Id", &id, err);
        if (r <= 0)
                return r < 0
                        ? r
                        : tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "the engine told no id of the image");
        tag = json_string_value(json_array_get(json_object_get(image, "RepoTags"), 0));
        if (tag && !(*ret_tag = strdup(tag)))
                return tb_error_oom(err);
        /* By its id: then the archive has this one image. */
        return export_image(engine, id, ret_fd, err);
}

/* ---- Build ------------------------------------------------------------------------------------------------------- */

typedef struct Build {
        int context;
        off_t offset;
        bool show;
        bool cached, from; /* of the step that runs */
        char made[65];     /* the last image that this build has made */
} Build;

static ssize_t on_context(TbEngineRequest *r, void *buf, size_t size, void *userdata)
{
        Build *b = userdata;
        ssize_t n;

        do
                n = pread(b->context, buf, size, b->offset);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        b->offset += n;
        return n;
}

/* "Step 2/3 : COPY . /", " ---> Using cache", " ---> 0123456789ab" (moby builder/dockerfile) */
static void note_step(Build *b, const char *text)
{
        const char *rest = tb_startswith(text, "Step "), *id = tb_startswith(text, " ---> ");
        size_t n;

        if (rest) {
                rest = strstr(rest, " : ");
                b->cached = false;
                b->from = rest && strncasecmp(rest + 3, "FROM", 4) == 0;
                if (b->from)
                        b->made[0] = 0;
                return;
        }
        if (!id)
                return;
        n = strspn(id, "0123456789abcdef");
        if (strncmp(id, "Using cache", 11) == 0)
                b->cached = true;
        else if (n >= 12 && n < sizeof(b->made) && !id[n + strspn(id + n, "\r\n")] && !b->from) {
                memcpy(b->made, id, n);
                b->made[b->cached ? 0 : n] = 0;
        }
}

static int on_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        const char *failure = json_string_value(json_object_get(line, "error"));
        const char *text = json_string_value(json_object_get(line, "stream"));
        Build *b = userdata;

        if (failure) {
                _cleanup_free_ char *shown = tb_escape(failure, 1024);

                return tb_error_set(err, TB_ERROR_REMOTE, -EREMOTEIO, "the engine says: %s", shown ?: "?");
        }
        if (!text)
                return 0;
        note_step(b, text);
        if (b->show && text[strspn(text, " \r\n")]) {
                _cleanup_free_ char *copy = strndup(text, strcspn(text, "\r\n"));
                _cleanup_free_ char *shown = copy ? tb_escape(copy, 100) : NULL;

                fprintf(stderr, "\r\033[Kbuild: %s", shown ?: "");
        }
        return 0;
}

static void remove_image(TbEngine *engine, const char *name)
{
        _cleanup_free_ char *path = tb_asprintf("/images/%s", name);
        _cleanup_error_ TbError *err = NULL;

        /* What refuses is in use by somebody by now. */
        if (path &&
                tb_engine_perform(
                        engine, &(TbEngineCall){.method = "DELETE", .path = path}, NULL, NULL, &err) < 0)
                return;
}

static int build_path(
        const char *dockerfile, const char *platform, const char *name, char **ret, TbError **err)
{
        _cleanup_free_ char *file = tb_engine_escape(dockerfile),
                            *os_arch = tb_engine_escape(platform ?: "");

        *ret = file && os_arch ? tb_asprintf("/build?t=%s&dockerfile=%s&rm=1&forcerm=1%s%s", name, file,
                                         platform ? "&platform=" : "", os_arch)
                               : NULL;
        return *ret ? 0 : tb_error_oom(err);
}

int cli_engine_build(TbEngine *engine, int context, const char *dockerfile, const char *platform, bool show,
        int *ret_fd, TbError **err)
{
        static const char *const headers[] = {"Content-Type: application/x-tar", NULL};
        Build b = {.context = context, .show = show};
        _cleanup_free_ char *path = NULL;
        unsigned long long random;
        char name[48];
        struct stat st;
        int r;

        if (fstat(context, &st) < 0 || getrandom(&random, sizeof(random), 0) != (ssize_t) sizeof(random))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot prepare the build");
        (void) snprintf(name, sizeof(name), "tbnode-build:%016llx", random);
        r = build_path(dockerfile, platform, name, &path, err);
        if (r < 0)
                return r;
        r = tb_engine_perform(engine,
                &(TbEngineCall){
                        .method = "POST",
                        .path = path,
                        .headers = headers,
                        .read = on_context,
                        .read_size = (uint64_t) st.st_size,
                        .line = on_line,
                        .userdata = &b,
                },
                NULL, NULL, err);
        if (show)
                fputs("\r\033[K", stderr);
        if (r < 0) {
                tb_error_prefix(err, "cannot build %s", dockerfile);
                if (b.made[0])
                        remove_image(engine, b.made);
                return r;
        }
        r = export_image(engine, name, ret_fd, err);
        remove_image(engine, name);
        return r;
}
