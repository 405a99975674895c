/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/services.h"
#include "augment/client/signals.h"
#include "augment/client/spec.h"
#include "augment/client/util.h"

#define ENV_FDS "TBNODE_FDS"
#define ENV_RUNDIR "TBNODE_RUNDIR"
#define ENV_STOP_SIGNAL "TBNODE_STOP_SIGNAL"
#define STOPPING_FILE "stopping"

/* In order of preference. /dev is a tmpfs of the container's own, also with --read-only. */
static const struct {
        const char *parent;
        const char *path;
} places[] = {
        {"/run", "/run/tbnode"},
        {"/dev", "/dev/.tbnode"},
};

static const char *const service_table[] = {
        [SERVICE_MAIN] = "main",
        [SERVICE_SSHD] = "sshd",
        [SERVICE_SYSLOG] = "syslog",
        [SERVICE_CLIENT] = "client",
};
static_assert(ELEMENTSOF(service_table) == _SERVICE_MAX, "one name for each Service");

const char *service_to_string(Service s)
{
        return s >= 0 && s < _SERVICE_MAX ? service_table[s] : NULL;
}

int service_from_string(const char *s)
{
        for (int i = 0; i < _SERVICE_MAX; i++)
                if (strcmp(s, service_table[i]) == 0)
                        return i;
        return _SERVICE_INVALID;
}

/* main always; syslog only if nobody has /dev/log (it may be mounted from the host); client if the image's level has it. */
static bool service_wanted(Service s)
{
        struct stat st;

        if (s == SERVICE_CLIENT)
                return access(TBNODE_CLIENT_PATH, X_OK) == 0;
        return s != SERVICE_SYSLOG || lstat("/dev/log", &st) < 0;
}

/* One of our programs in a service's directory. */
static int link_program(const char *directory, const char *name)
{
        char path[PATH_MAX];

        format_path(path, sizeof(path), "%s/%s", directory, name);
        return symlink(TBNODE_INIT_PATH, path) < 0 ? -errno : 0;
}

static int lay_out_service(const char *rundir, Service s)
{
        char path[PATH_MAX], control[PATH_MAX];
        int r;

        format_path(path, sizeof(path), "%s/service/%s", rundir, service_to_string(s));
        r = make_dir(path, 0755);
        if (r >= 0)
                r = link_program(path, "run");
        if (r < 0 || s != SERVICE_MAIN)
                return r;
        r = link_program(path, "finish");
        if (r < 0)
                return r;
        format_path(control, sizeof(control), "%s/service/%s/control", rundir, service_to_string(s));
        r = make_dir(control, 0755);
        return r < 0 ? r : link_program(control, "t");
}

static int lay_out_at(const char *parent, const char *rundir)
{
        static const char *const stale[] = {
                "service", "main.status", STOPPING_FILE, "client", "keys", "environment"};
        char path[PATH_MAX];
        int r;

        (void) mkdir(parent, 0755);
        r = make_dir(rundir, 0755);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(stale); i++) {
                format_path(path, sizeof(path), "%s/%s", rundir, stale[i]);
                r = remove_tree(path);
                if (r < 0)
                        return r;
        }

        format_path(path, sizeof(path), "%s/service", rundir);
        r = make_dir(path, 0755);
        for (int s = 0; r >= 0 && s < _SERVICE_MAX; s++)
                if (service_wanted((Service) s))
                        r = lay_out_service(rundir, (Service) s);
        return r;
}

int services_lay_out(const char **ret_rundir)
{
        int r = -EROFS;

        for (size_t i = 0; i < ELEMENTSOF(places); i++) {
                r = lay_out_at(places[i].parent, places[i].path);
                if (r >= 0) {
                        *ret_rundir = places[i].path;
                        return 0;
                }
        }
        return r;
}

void service_context_to_env(const ServiceContext *c, char *memory, char **env)
{
        char *p = memory, *end = memory + SERVICE_ENV_SIZE;
        size_t n = 0;

        env[n++] = (char *) "PATH=" TBNODE_BIN_DIR;
        env[n++] = p;
        p += snprintf(p, (size_t) (end - p), ENV_FDS "=%d,%d", c->spec_fd, c->event_fd) + 1;
        env[n++] = p;
        p += snprintf(p, (size_t) (end - p), ENV_RUNDIR "=%.*s", RUNDIR_MAX, c->rundir) + 1;
        env[n++] = p;
        p += snprintf(p, (size_t) (end - p), ENV_STOP_SIGNAL "=%d", c->stop_signal) + 1;
        env[n++] = p;
        (void) snprintf(p, (size_t) (end - p), "SVDIR=%.*s/service", RUNDIR_MAX, c->rundir);
        env[n] = NULL;
}

int services_mark_stopping(const char *rundir)
{
        char path[PATH_MAX];

        format_path(path, sizeof(path), "%s/" STOPPING_FILE, rundir);
        return write_text_file(path, 0600, "");
}

static int inherited_fds(int *ret_spec, int *ret_event)
{
        const char *value = getenv(ENV_FDS);
        char first[16];
        uint32_t spec, event;
        size_t n;

        if (!value)
                return -ENOENT;
        n = strcspn(value, ",");
        if (n >= sizeof(first) || value[n] != ',')
                return -EINVAL;
        snprintf(first, sizeof(first), "%.*s", (int) n, value);
        if (parse_u32(first, 1U << 20, &spec) < 0 || parse_u32(value + n + 1, 1U << 20, &event) < 0)
                return -EINVAL;
        if (set_cloexec((int) spec) < 0 || set_cloexec((int) event) < 0)
                return -EBADF;
        *ret_spec = (int) spec;
        *ret_event = (int) event;
        return 0;
}

/* The image's PATH, for ssh sessions; static. */
static const char *image_path(int spec_fd)
{
        static MainSpec spec;

        if (main_spec_from_fd(spec_fd, &spec) < 0)
                return NULL;
        return env_get(spec.env, "PATH");
}

static int context_from_env(ServiceContext *ret)
{
        const char *rundir = getenv(ENV_RUNDIR), *stop = getenv(ENV_STOP_SIGNAL);
        ServiceContext c = {.rundir = rundir};
        uint32_t signal;

        if (!rundir || strlen(rundir) > RUNDIR_MAX || !stop || parse_u32(stop, SIGNAL_MAX, &signal) < 0 ||
                inherited_fds(&c.spec_fd, &c.event_fd) < 0)
                return -EINVAL;
        c.stop_signal = (int) signal;
        *ret = c;
        return 0;
}

static int run_service(Service service, const ServiceContext *c, const NodeConf *conf, uint64_t mask)
{
        if (service == SERVICE_MAIN)
                return service_run_main(c, mask);

        /* The container's stdout is main's alone. */
        if (null_stdio() < 0 || signal_mask_set(mask, NULL) < 0)
                return EXIT_INIT_FAILED;
        if (service == SERVICE_SSHD)
                return service_run_sshd(c->rundir, conf, image_path(c->spec_fd));
        if (service == SERVICE_SYSLOG)
                return service_run_syslog(c->rundir);
        if (service == SERVICE_CLIENT)
                return service_run_client(c->rundir, c->spec_fd);
        return EXIT_INIT_FAILED;
}

int service_main(const char *what, char **argv)
{
        char directory[PATH_MAX];
        ServiceContext c;
        const char *name;
        uint64_t mask;
        int service;
        NodeConf conf;

        /* Quiet until everything is in place: a terminal's foreground changes hands below. */
        if (signal_mask_set(UINT64_MAX, &mask) < 0)
                return EXIT_INIT_FAILED;
        if (context_from_env(&c) < 0 || !getcwd(directory, sizeof(directory))) {
                say("%s: this is run by runsv only", what);
                return EXIT_INIT_FAILED;
        }
        name = strrchr(directory, '/');
        service = service_from_string(name ? name + 1 : directory);

        if (node_conf_load(TBNODE_RUN_DIR "/node.conf", &conf) == 0)
                node_conf_parse("", &conf);
        if (strcmp(what, "run") == 0)
                return run_service((Service) service, &c, &conf, mask);
        if (service != SERVICE_MAIN)
                return 0;
        return strcmp(what, "finish") == 0 ? service_finish_main(&c, conf.on_exit, argv)
                                           : service_stop_main(&c);
}
