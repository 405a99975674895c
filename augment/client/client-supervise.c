/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/client-file.h"
#include "augment/client/client-log.h"
#include "augment/client/client-text.h"
#include "augment/client/client-users.h"
#include "augment/client/signals.h"
#include "augment/client/user.h"
#include "augment/client/util.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

typedef struct Supervisor {
        const char *directory, *name;
        const JobSpec *spec;
        pid_t job;
        bool timed_out;
        int64_t stop_at; /* ms of CLOCK_MONOTONIC; -1: no time limit */
        int64_t kill_at; /* -1: it wasn't told to end */
} Supervisor;

/* Who the job runs as. */
typedef struct Person {
        UserIds ids;
        char name[64], home[1024], shell[PATH_MAX];
} Person;

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int supervise_write_outcome(const char *directory, const char *name, const char *word, const char *rest)
{
        char path[PATH_MAX], text[512];

        format_path(path, sizeof(path), "%s/%s.run", directory, name);
        format_path(text, sizeof(text), "%s %s\n", word, rest);
        return write_text_file(path, 0644, text);
}

static int fail(const Supervisor *s, const char *why)
{
        (void) !supervise_write_outcome(s->directory, s->name, "failed", why);
        return 1;
}

/* ---- Who ------------------------------------------------------------------------------------------------------------ */

/* The first passwd line with this uid, "" for fields that aren't there. */
static void person_from_passwd(const char *passwd, Person *p)
{
        for (const char *line = passwd ? passwd : ""; *line;) {
                size_t size = strcspn(line, "\n");
                _cleanup_free_ char *copy = strndup(line, size);
                char *field[7] = {}, *next = copy;
                uint32_t uid;

                line += size + (line[size] == '\n');
                for (size_t i = 0; next && i < ELEMENTSOF(field); i++)
                        field[i] = strsep(&next, ":");
                if (!field[6] || parse_u32(field[2], UINT32_MAX, &uid) < 0 || uid != p->ids.uid)
                        continue;
                snprintf(p->name, sizeof(p->name), "%s", field[0]);
                snprintf(p->home, sizeof(p->home), "%s", field[5]);
                snprintf(p->shell, sizeof(p->shell), "%s", field[6]);
                return;
        }
}

static bool refuses_login(const char *shell)
{
        const char *base = strrchr(shell, '/');

        base = base ? base + 1 : shell;
        return strcmp(base, "nologin") == 0 || strcmp(base, "false") == 0;
}

static int find_person(const JobSpec *spec, const char *path, Person *ret, char *why, size_t why_size)
{
        _cleanup_free_ char *passwd = NULL, *group = NULL;
        char wanted[PATH_MAX];
        const char *user = spec->user ? spec->user : "0";
        size_t length = strcspn(user, ":");
        int r;

        (void) !image_file_read("/etc/passwd", &passwd);
        (void) !image_file_read("/etc/group", &group);
        r = user_resolve(strcmp(user, "root") == 0 ? "0" : user, passwd, group, &ret->ids, why, why_size);
        if (r < 0)
                return r;
        snprintf(ret->home, sizeof(ret->home), "/");
        person_from_passwd(passwd, ret);
        if (length > 0 && length < sizeof(ret->name) && (user[0] < '0' || user[0] > '9'))
                snprintf(ret->name, sizeof(ret->name), "%.*s", (int) length, user);
        else if (!ret->name[0])
                snprintf(ret->name, sizeof(ret->name), "%u", ret->ids.uid);
        snprintf(wanted, sizeof(wanted), "%s",
                ret->shell[0] && !refuses_login(ret->shell) ? ret->shell : "/bin/sh");
        users_find_shell("", path, wanted, ret->shell);
        return 0;
}

static bool set_variable(char **env, size_t *n, size_t max, const char *variable)
{
        size_t name = strcspn(variable, "=");
        char *copy = strdup(variable);

        if (!copy || variable[name] != '=') {
                free(copy);
                return copy != NULL;
        }
        for (size_t i = 0; i < *n; i++)
                if (strncmp(env[i], variable, name + 1) == 0) {
                        free(env[i]);
                        env[i] = copy;
                        return true;
                }
        if (*n >= max) {
                free(copy);
                return true;
        }
        env[(*n)++] = copy;
        return true;
}

static size_t count(char *const *list)
{
        size_t n = 0;

        while (list && list[n])
                n++;
        return n;
}

char **job_environment(const JobSpec *spec, const char *name, const char *home, const char *shell)
{
        const char *path = spec->image_env ? env_get(spec->image_env, "PATH") : NULL;
        size_t max = count(spec->image_env) + count(spec->declared) + 6, n = 0;
        char **env = calloc(max + 1, sizeof(*env));
        bool good = env != NULL;
        const struct {
                const char *name, *value, *more;
        } own[] = {
                {"HOME", home, ""},
                {"USER", name, ""},
                {"LOGNAME", name, ""},
                {"SHELL", shell, ""},
                {"PATH", path && *path ? path : DEFAULT_PATH, ":" TBNODE_BIN_DIR},
                {"SVDIR", spec->rundir, "/service"},
        };

        for (size_t i = 0; good && spec->image_env && spec->image_env[i]; i++)
                good = set_variable(env, &n, max, spec->image_env[i]);
        for (size_t i = 0; good && i < ELEMENTSOF(own); i++) {
                _cleanup_free_ char *variable = NULL;
                Text t = {};

                text_addf(&t, "%s=%s%s", own[i].name, own[i].value, own[i].more);
                variable = text_take(&t);
                good = variable && set_variable(env, &n, max, variable);
        }
        for (size_t i = 0; good && spec->declared && spec->declared[i]; i++)
                good = set_variable(env, &n, max, spec->declared[i]);
        if (good)
                return env;
        for (size_t i = 0; env && i < n; i++)
                free(env[i]);
        free(env);
        return NULL;
}

/* ---- The job's own process ------------------------------------------------------------------------------------------ */

static int become(const Person *p)
{
        static gid_t groups[USER_GROUPS_MAX + 1];
        size_t n = 0;

        /* root needs no capability to stay what it is. */
        if (p->ids.uid == geteuid() && p->ids.gid == getegid() && p->ids.uid == 0 && p->ids.n_groups == 0)
                return 0;
        groups[n++] = p->ids.gid;
        for (size_t i = 0; i < p->ids.n_groups; i++)
                groups[n++] = p->ids.groups[i];
        if (setgroups(n, groups) < 0 && !(errno == EPERM && p->ids.uid == 0))
                return -errno;
        if (p->ids.gid != getegid() && setgid(p->ids.gid) < 0)
                return -errno;
        return setuid(p->ids.uid) < 0 ? -errno : 0;
}

static int go_to_directory(const JobSpec *spec, const Person *p)
{
        if (spec->directory)
                return chdir(spec->directory) < 0 ? -errno : 0;
        if (chdir(p->home) == 0)
                return 0;
        return chdir("/") < 0 ? -errno : 0;
}

/* Never returns. What goes wrong before exec is written to `error_fd`, which exec closes. */
static void run_job(const JobSpec *spec, const Person *p, int output, int error_fd)
{
        char *argv[] = {NULL, (char *) "-c", (char *) spec->command, NULL}, **env;
        struct sigaction normal = {.sa_handler = SIG_DFL};
        const char *base = strrchr(p->shell, '/'), *where = "its directory";
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC), r = null < 0 ? -errno : 0;
        char text[200];

        argv[0] = (char *) (base ? base + 1 : p->shell);
        (void) setsid();
        for (int i = 1; i < NSIG; i++)
                (void) sigaction(i, &normal, NULL);
        (void) !signal_mask_set(0, NULL);
        (void) umask(022);
        if (r >= 0 && (dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0))
                r = -errno;
        if (r >= 0) {
                where = p->name;
                r = become(p);
        }
        if (r >= 0) {
                where = spec->directory ? spec->directory : p->home;
                r = go_to_directory(spec, p);
        }
        if (r >= 0) {
                env = job_environment(spec, p->name, p->home, p->shell);
                where = p->shell;
                if (env)
                        execve(p->shell, argv, env);
                r = env ? -errno : -ENOMEM;
        }
        snprintf(text, sizeof(text), "%.100s: %s", where, strerror(-r));
        (void) !write_all(error_fd, text, strlen(text));
        _exit(EXIT_NOT_FOUND);
}

/* Everything but the standard three and `keep`: the client's connections are not ours to hold open. */
static void close_others(const int *keep, size_t n)
{
        for (int fd = 3; fd < 1024; fd++) {
                bool kept = false;

                for (size_t i = 0; i < n; i++)
                        kept |= keep[i] == fd;
                if (!kept)
                        close(fd);
        }
}

static int start_logger(const JobSpec *spec, const Person *p, int input)
{
        BoundedLog log;
        pid_t pid;
        int r;

        r = log_open(&log, spec->log_path, spec->log_max, p->ids.uid, p->ids.gid);
        if (r < 0)
                return r;
        pid = fork();
        if (pid == 0) {
                const int keep[] = {log.fd, input};

                close_others(keep, ELEMENTSOF(keep));
                /* It ends when nobody writes any more, also when everything is being ended. */
                (void) !signal_mask_set(UINT64_MAX, NULL);
                log_copy(&log, input);
                _exit(0);
        }
        r = pid < 0 ? -errno : 0;
        log_close(&log);
        return r;
}

/* ---- Watching ------------------------------------------------------------------------------------------------------- */

static void end_job(Supervisor *s)
{
        if (s->kill_at >= 0)
                return;
        (void) kill(-s->job, SIGTERM);
        (void) kill(-s->job, SIGCONT);
        s->kill_at = now_ms() + JOB_STOP_MS;
}

static void handle_signals(Supervisor *s, int fd)
{
        struct signalfd_siginfo si;

        while (read(fd, &si, sizeof(si)) == (ssize_t) sizeof(si)) {
                if (si.ssi_signo == SIGTERM)
                        end_job(s);
                else if (si.ssi_signo == SIGUSR1 && si.ssi_int > 0 && si.ssi_int < NSIG)
                        (void) kill(-s->job, si.ssi_int);
        }
}

static int poll_timeout(const Supervisor *s)
{
        int64_t at = s->kill_at >= 0 ? s->kill_at : s->stop_at, left;

        if (at < 0)
                return -1;
        left = at - now_ms();
        return left <= 0 ? 0 : (int) MIN2(left, (int64_t) INT32_MAX);
}

static void handle_time(Supervisor *s)
{
        int64_t now = now_ms();

        if (s->kill_at >= 0 && now >= s->kill_at) {
                (void) kill(-s->job, SIGKILL);
                s->kill_at = INT64_MAX / 2;
        } else if (s->kill_at < 0 && s->stop_at >= 0 && now >= s->stop_at) {
                s->timed_out = true;
                end_job(s);
        }
}

/* Until the job has ended; the logger's end is nothing to us. */
static int watch(Supervisor *s, int signals)
{
        for (;;) {
                struct pollfd p = {.fd = signals, .events = POLLIN};
                siginfo_t ended = {};
                int status;

                if (waitid(P_PID, (id_t) s->job, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                        ended.si_pid == s->job) {
                        /* What was told to end and is still there has lost who it belonged to. Its number is still ours. */
                        if (s->kill_at >= 0)
                                (void) kill(-s->job, SIGKILL);
                        return waitpid(s->job, &status, 0) == s->job ? status : 0;
                }
                if (poll(&p, 1, poll_timeout(s)) < 0 && errno != EINTR)
                        return -1;
                handle_signals(s, signals);
                handle_time(s);
        }
}

static int write_end(const Supervisor *s, int status)
{
        char number[16];

        if (s->timed_out)
                return supervise_write_outcome(s->directory, s->name, "timeout", "");
        if (WIFEXITED(status)) {
                snprintf(number, sizeof(number), "%d", WEXITSTATUS(status));
                return supervise_write_outcome(s->directory, s->name, "exited", number);
        }
        snprintf(number, sizeof(number), "%d", WTERMSIG(status));
        return supervise_write_outcome(s->directory, s->name, "signaled", number);
}

static int start_job(Supervisor *s, const Person *p, int *ret_error)
{
        int output[2] = {-1, -1}, error[2] = {-1, -1}, r;

        if (pipe2(output, O_CLOEXEC) < 0 || pipe2(error, O_CLOEXEC) < 0)
                return -errno;
        r = start_logger(s->spec, p, output[0]);
        close(output[0]);
        if (r < 0)
                return r;
        s->job = fork();
        if (s->job == 0)
                run_job(s->spec, p, output[1], error[1]);
        r = s->job < 0 ? -errno : 0;
        close(output[1]);
        close(error[1]);
        *ret_error = error[0];
        return r;
}

int supervise(const char *directory, const char *name, const JobSpec *spec, int ready_fd)
{
        const char *path = spec->image_env ? env_get(spec->image_env, "PATH") : NULL;
        Supervisor s = {.directory = directory, .name = name, .spec = spec, .stop_at = -1, .kill_at = -1};
        static Person person;
        int signals, error_fd = -1, r;
        char text[256] = "";
        ssize_t n;

        close_others(&ready_fd, 1);
        (void) setsid();
        (void) prctl(PR_SET_NAME, "tbnode-job");
        if (signal_mask_set(UINT64_MAX, NULL) < 0)
                return fail(&s, "cannot block signals");
        signals = signal_fd_new(UINT64_MAX);
        if (signals < 0)
                return fail(&s, strerror(-signals));
        if (find_person(spec, path ? path : DEFAULT_PATH, &person, text, sizeof(text)) < 0)
                return fail(&s, text);
        r = start_job(&s, &person, &error_fd);
        if (r < 0)
                return fail(&s, strerror(-r));
        if (spec->timeout > 0)
                s.stop_at = now_ms() + (int64_t) MIN2(spec->timeout, (uint64_t) INT32_MAX) * 1000;

        /* Ends with exec, or with the reason why there is none. */
        do
                n = read(error_fd, text, sizeof(text) - 1);
        while (n < 0 && errno == EINTR);
        if (n > 0) {
                text[n] = '\0';
                return fail(&s, text);
        }
        close(error_fd);
        snprintf(text, sizeof(text), "%d", (int) s.job);
        (void) !supervise_write_outcome(directory, name, "running", text);
        close(ready_fd);
        return write_end(&s, watch(&s, signals)) < 0;
}
