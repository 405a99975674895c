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

/* main always; syslog only if nobody has /dev/log (it may be mounted from the host). */
static bool service_wanted(Service s)
{
        struct stat st;

        return s != SERVICE_SYSLOG || lstat("/dev/log", &st) < 0;
}

static int lay_out_service(const char *rundir, Service s)
{
        char path[PATH_MAX];
        int r;

        format_path(path, sizeof(path), "%s/service/%s", rundir, service_to_string(s));
        r = make_dir(path, 0755);
        if (r < 0)
                return r;
        format_path(path, sizeof(path), "%s/service/%s/run", rundir, service_to_string(s));
        if (symlink(TBNODE_INIT_PATH, path) < 0)
                return -errno;
        if (s != SERVICE_MAIN)
                return 0;
        format_path(path, sizeof(path), "%s/service/%s/finish", rundir, service_to_string(s));
        return symlink(TBNODE_INIT_PATH, path) < 0 ? -errno : 0;
}

/* runsvdir waits until the second is over in which its directory changed (it compares whole seconds): make it an old one. */
static int age_directory(const char *path)
{
        const struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

        return utimensat(AT_FDCWD, path, old, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int lay_out_at(const char *parent, const char *rundir)
{
        static const char *const stale[] = {"service", "main.status", STOPPING_FILE};
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
        return r < 0 ? r : age_directory(path);
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

pid_t services_start(const char *rundir, int spec_fd, int event_fd, uint64_t mask)
{
        char directory[PATH_MAX], fds[64], run[PATH_MAX], svdir[PATH_MAX];
        char *argv[] = {(char *) "runsvdir", directory, NULL};
        char *env[] = {(char *) "PATH=" TBNODE_BIN_DIR, fds, run, svdir, NULL};
        pid_t pid;

        format_path(directory, sizeof(directory), "%s/service", rundir);
        format_path(svdir, sizeof(svdir), "SVDIR=%s/service", rundir);
        format_path(run, sizeof(run), ENV_RUNDIR "=%s", rundir);
        snprintf(fds, sizeof(fds), ENV_FDS "=%d,%d", spec_fd, event_fd);

        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid > 0)
                return pid;

        if (signal_mask_set(mask, NULL) >= 0)
                execve(TBNODE_BIN_DIR "/runsvdir", argv, env);
        say("exec %s/runsvdir: %s", TBNODE_BIN_DIR, strerror(errno));
        _exit(EXIT_NOT_FOUND);
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

int service_main(const char *what, char **argv)
{
        const char *rundir = getenv(ENV_RUNDIR), *name;
        char directory[PATH_MAX];
        int spec_fd, event_fd, service;
        uint64_t mask;
        NodeConf conf;

        /* Quiet until everything is in place: a terminal's foreground changes hands below. */
        if (signal_mask_set(UINT64_MAX, &mask) < 0)
                return EXIT_INIT_FAILED;
        if (!rundir || strlen(rundir) > RUNDIR_MAX || inherited_fds(&spec_fd, &event_fd) < 0 ||
                !getcwd(directory, sizeof(directory))) {
                say("%s: this is run by runsv only", what);
                return EXIT_INIT_FAILED;
        }
        name = strrchr(directory, '/');
        service = service_from_string(name ? name + 1 : directory);

        if (strcmp(what, "finish") == 0)
                return service == SERVICE_MAIN ? service_finish_main(event_fd, argv) : 0;

        if (node_conf_load(TBNODE_RUN_DIR "/node.conf", &conf) == 0)
                node_conf_parse("", &conf);
        if (service == SERVICE_MAIN)
                return service_run_main(rundir, spec_fd, event_fd, conf.on_exit, mask);

        /* The container's stdout is main's alone. */
        if (null_stdio() < 0 || signal_mask_set(mask, NULL) < 0)
                return EXIT_INIT_FAILED;
        if (service == SERVICE_SSHD)
                return service_run_sshd(rundir, &conf, image_path(spec_fd));
        if (service == SERVICE_SYSLOG)
                return service_run_syslog(rundir);
        return EXIT_INIT_FAILED;
}
