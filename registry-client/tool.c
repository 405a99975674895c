/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Running one verb: signals, errors, exit status. */

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-event.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/tool.h"

int tool_usage(Tool *t, TbError **err, const char *fmt, ...)
{
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int n;

        t->usage = true;
        va_start(ap, fmt);
        n = vasprintf(&text, fmt, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                return tb_error_oom(err);
        }
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s; see tbnode-registry %s%s--help", text,
                t->verb ? t->verb->name : "", t->verb ? " " : "");
}

int tool_parse_ref(Tool *t, const char *arg, RegistryRef **ret, TbError **err)
{
        const char *name = tb_startswith(arg, "docker://"); /* as skopeo and podman write it */
        int r = registry_ref_parse(name ? name : arg, ret, err);

        if (r == -EINVAL)
                t->usage = true;
        return r;
}

bool tool_is_host(const char *arg)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

        return registry_ref_new(arg, "x", NULL, NULL, &ref, NULL) >= 0;
}

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        Tool *t = userdata;

        registry_client_cancel(t->client);
        return 0;
}

/* So that whatever is interrupted closes its uploads. */
static int catch_signals(Tool *t, TbError **err)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        sigset_t set;
        int r;

        sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot block signals");
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = sd_event_add_signal(registry_client_event(t->client), NULL, signals[i], on_signal, t);
                if (r < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch signals");
        }
        return 0;
}

static void on_warning(const char *host, const char *text, void *userdata)
{
        tool_end_progress(userdata);
        fprintf(stderr, "tbnode-registry: %s says: %s\n", host, text);
}

static int run(Tool *t, int argc, char **argv, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        int first, r;

        r = tool_parse(t, argc, argv, &first, err);
        if (r <= 0)
                return r;
        r = registry_protect_process(err);
        if (r < 0)
                return r;
        registry_client_set_warning_handler(t->client, on_warning, t);
        r = registry_client_set_certs_dir(t->client, NULL, err);
        if (r < 0)
                return r;
        r = registry_client_load_docker_config(t->client, t->docker_config, &e);
        /* login makes the file that was named, and logout has nothing to do without it. */
        if (r < 0 && !(r == -ENOENT && (t->verb->fn == tool_login || t->verb->fn == tool_logout)))
                return tb_error_move(err, &e);
        r = catch_signals(t, err);
        if (r < 0)
                return r;
        return t->verb->fn(t, argv + first, err);
}

int tool_main(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        Tool t = {0};
        int r;

        r = registry_client_new(NULL, &t.client, &err);
        if (r >= 0)
                r = run(&t, argc, argv, &err);
        tool_end_progress(&t);
        tool_options_done(&t);
        t.client = registry_client_free(t.client);
        if (r < 0)
                fprintf(stderr, "tbnode-registry: %s\n", tb_error_message(err));
        else if (fflush(stdout) != 0) {
                fprintf(stderr, "tbnode-registry: cannot write to stdout: %m\n");
                return 1;
        }
        return r >= 0 ? 0 : t.usage ? 2 : 1;
}
