/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * tbnode-augment-worker: one request, one answer, in a process of its own
 *
 * It reads what strangers wrote (manifests, configurations, layers), so it has nothing to lose: an unprivileged user,
 * no capabilities, no way to gain any. The agent sets the user and the limits before it starts this program; what is done
 * here is what a program can only do to itself (augment/sandbox.h), and a check that the agent did its part.
 *
 * It may be started before there is a request for it, and waits on standard input then: what doesn't depend on the
 * request (libraries, their tables) is made ready first, so that the request doesn't wait for it.
 *
 * Contract: augment/augment.h.
 */

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "augment/inventory.h"
#include "augment/payload.h"
#include "augment/run.h"
#include "augment/sandbox.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define REQUEST_MAX (64u * 1024)
#define TABLE_SIZE (256 * 1024)
#define PAYLOAD_FOLDERS_MAX 16U /* more architectures than Linux images have */

static const char help_text[] =
        "tbnode-augment-worker [--allow-root]\n"
        "\n"
        "Reads one request (JSON) from standard input, augments an image, and writes\n"
        "events (JSON lines) to standard output. Started by tbnoded; not for use by hand.\n"
        "\n"
        "  --allow-root  run as root (for tests)\n"
        "  --help        this text\n"
        "  --version     the version\n";

/* Takes `event`. One write(2) per line, so that lines never mix. Fails only when nobody reads any more: then nobody waits either. */
static int emit(json_t *event, TbError **err)
{
        _cleanup_json_ json_t *owned = event;
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = tb_json_dump(owned, false, &text, &size, err);
        if (r < 0)
                return r;
        text[size] = '\n';
        return tb_write_all(STDOUT_FILENO, text, size + 1, err);
}

static void on_progress(const AugmentProgress *p, void *userdata)
{
        json_t *event = json_pack("{s:s, s:s, s:s?, s:I, s:I}", "event", "progress", "stage", p->stage,
                "blob", p->blob, "done", (json_int_t) p->done, "total", (json_int_t) p->total);

        if (event)
                (void) emit(event, NULL);
}

static int emit_error(const TbError *error)
{
        json_t *event = json_pack("{s:s, s:s, s:i, s:s, s:b}", "event", "error", "kind",
                tb_error_kind_to_string(error->kind), "code", error->code, "message", error->message,
                "retryable", error->retryable);

        return event ? emit(event, NULL) : -ENOMEM;
}

static int emit_result(const AugmentResult *result, AugmentOp op, TbError **err)
{
        json_t *event;
        int r;

        r = augment_result_to_json(result, &event, err);
        if (r < 0)
                return r;
        if ((r = tb_json_set_string(event, "event", "result", err)) < 0 ||
                (r = tb_json_set_string(event, "op", augment_op_to_string(op), err)) < 0) {
                json_decref(event);
                return r;
        }
        return emit(event, err);
}

static int read_request(TbBuffer *b, TbError **err)
{
        char chunk[4096];
        ssize_t n;
        int r;

        for (;;) {
                n = read(STDIN_FILENO, chunk, sizeof(chunk));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read the request");
                if (n == 0)
                        return 0;
                r = tb_buffer_append(b, chunk, (size_t) n, err);
                if (r < 0)
                        return r;
        }
}

static int harden(bool allow_root, TbError **err)
{
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot set no_new_privs");
        if ((getuid() == 0 || geteuid() == 0) && !allow_root)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPERM,
                        "the augmentation worker does not run as root; set the agent's worker user");
        return 0;
}

/* The folder of an architecture may be a link to somewhere else; what is allowed is where it leads. */
static int add_folders(const char *dir, char ***list, TbError **err)
{
        _cleanup_closedir_ DIR *d = opendir(dir);
        const struct dirent *e;
        int r = 0;

        for (unsigned n = 0; d && r >= 0 && n < PAYLOAD_FOLDERS_MAX && (e = readdir(d));)
                if (e->d_type == DT_LNK && ++n)
                        r = tb_strv_consume(list, tb_asprintf("%s/%s", dir, e->d_name), err);
        return r;
}

/* Not earlier: /proc/self belongs to root when this program can't be looked into, and the agent passes the credentials as an
 * open file, /proc/self/fd/3. */
static int on_prepared(void *userdata, TbError **err)
{
        const AugmentRequest *request = userdata;
        const char *dir = request->payload_dir ?: augment_payload_dir();
        const char *const more[] = {dir, getenv("SSL_CERT_FILE"), getenv("SSL_CERT_DIR")};
        _cleanup_strv_ char **read = NULL;
        SandboxReport got;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(more); i++)
                r = more[i] ? tb_strv_append(&read, more[i], err) : 0;
        if (r < 0 || (r = add_folders(dir, &read, err)) < 0)
                return r;
        r = sandbox_enter(
                &(SandboxOptions){.read = (const char *const *) read, .write_dir = request->state_dir}, &got,
                err);
        if (r >= 0)
                log_debug("sandbox: landlock %d, seccomp %s", got.landlock, got.seccomp ? "yes" : "no");
        return r;
}

/* What the first client of a process pays for: the initialisation of libcurl and of OpenSSL. */
static int warm_up(TbError **err)
{
        _cleanup_(registry_client_freep) RegistryClient *client = NULL;

        return registry_client_new(NULL, &client, err);
}

static int work(bool allow_root, TbError **err)
{
        _cleanup_buffer_ TbBuffer input = TB_BUFFER_INIT(REQUEST_MAX);
        _cleanup_augment_request_ AugmentRequest request = {};
        _cleanup_augment_result_ AugmentResult result = {};
        const AugmentRunHooks hooks = {
                .progress = on_progress,
                .prepared = on_prepared,
                .userdata = &request,
        };
        AugmentOp op = _AUGMENT_OP_INVALID;
        int r;

        if ((r = harden(allow_root, err)) < 0 || (r = warm_up(err)) < 0 ||
                (r = read_request(&input, err)) < 0 ||
                (r = augment_request_from_json(
                         input.data ? input.data : "", input.size, &request, &op, err)) < 0 ||
                (r = op == AUGMENT_OP_IMAGES ? augment_inventory(&request, &hooks, &result.report, err)
                                             : augment_run(&request, op, &hooks, &result, err)) < 0)
                return r;
        return emit_result(&result, op, err);
}

int main(int argc, char *argv[])
{
        _cleanup_error_ TbError *error = NULL;
        bool allow_root = false;

        tb_log_open("tbnode-augment-worker");
        /* The tables of a layer's files grow by doubling and go when it was merged: as mappings they move without a copy, and
         * what they leave goes back to the system. glibc's own threshold grows with what is freed. */
        (void) mallopt(M_MMAP_THRESHOLD, TABLE_SIZE);
        for (int i = 1; i < argc; i++) {
                if (tb_streq(argv[i], "--allow-root")) {
                        allow_root = true;
                } else if (tb_streq(argv[i], "--help")) {
                        (void) fputs(help_text, stdout);
                        return EXIT_SUCCESS;
                } else if (tb_streq(argv[i], "--version")) {
                        (void) puts("tbnode-augment-worker " TBNODE_VERSION);
                        return EXIT_SUCCESS;
                } else {
                        (void) fprintf(stderr, "tbnode-augment-worker: unknown argument; see --help\n");
                        return 2;
                }
        }
        (void) signal(SIGPIPE, SIG_IGN);
        if (work(allow_root, &error) >= 0)
                return EXIT_SUCCESS;
        (void) emit_error(error);
        return EXIT_FAILURE;
}
