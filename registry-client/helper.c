/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Credential helpers: docker-credential-NAME (docker/docker-credential-helpers, "Development")
 *
 * One verb per run: "get" gets a server's name on stdin and answers {"ServerURL", "Username", "Secret"} on stdout; "store"
 * and "erase" answer nothing. A helper that fails exits with another status than 0 and says why on stdout.
 *
 * What a helper can do to us: nothing. It runs without a shell, in a session of its own, with none of our descriptors,
 * default signals, and an environment of the few variables that helpers need (no LD_*); its output is bounded, and so is
 * its time. Who can make us run something: the name consists of harmless characters, the directories are absolute, and
 * neither the program nor its directory may be writable for others than root and ourselves.
 *
 * The child is watched through a pidfd: SIGCHLD and other children of the program are none of our business. What it
 * leaves behind and still holds its stdout (gpg-agent) is not waited for: the exit of the helper itself ends the run.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define OUTPUT_MAX (256U * 1024)
#define TIMEOUT_USEC \
        (60 * USEC_PER_SEC) /* when nobody says another; it may ask a person to unlock a key ring */
#define SECRET_MAX (64U * 1024)

static const char not_found_message[] = "credentials not found in native keychain";

extern char **environ;

struct RegistryHelperRun {
        char *name, *verb;
        pid_t pid; /* 0 = not started, or reaped */
        int pidfd, in, out;
        char *input; /* secret when it is a "store" */
        size_t input_size, written;
        TbBuffer output;
        uint64_t timeout_usec;
        sd_event_source *exit, *writable, *readable, *timer;
        RegistryHelperDoneFn done;
        void *userdata;
};

static void kill_and_reap(RegistryHelperRun *run)
{
        siginfo_t info;

        if (run->pid == 0)
                return;
        (void) kill(-run->pid, SIGKILL); /* setsid(2) made it the leader of a group */
        (void) kill(run->pid, SIGKILL);
        while (waitid(P_PID, (id_t) run->pid, &info, WEXITED) < 0 && errno == EINTR)
                ;
        run->pid = 0;
}

RegistryHelperRun *registry_helper_free(RegistryHelperRun *run)
{
        if (!run)
                return NULL;
        sd_event_source_disable_unref(run->exit);
        sd_event_source_disable_unref(run->writable);
        sd_event_source_disable_unref(run->readable);
        sd_event_source_disable_unref(run->timer);
        kill_and_reap(run);
        tb_close(run->pidfd);
        tb_close(run->in);
        tb_close(run->out);
        if (run->input)
                explicit_bzero(run->input, run->input_size);
        free(run->input);
        if (run->output.data)
                explicit_bzero(run->output.data, run->output.allocated);
        tb_buffer_done(&run->output);
        free(run->name);
        free(run->verb);
        free(run);
        return NULL;
}

static void run_freep(RegistryHelperRun **run)
{
        registry_helper_free(*run);
}

const char *registry_helper_server(const char *host)
{
        return strcasecmp(host, "docker.io") == 0 ? REGISTRY_HUB_KEY : host;
}

/* ---- which program ---- */

static bool is_ours(const struct stat *st)
{
        return st->st_uid == 0 || st->st_uid == geteuid();
}

/* 1 = *ret, 0 = not in this directory, -EPERM = there, but not to be trusted. */
static int find_in(const char *dir, size_t n, const char *name, char **ret)
{
        _cleanup_free_ char *path = NULL, *directory = NULL;
        struct stat st, parent;

        if (n == 0 || dir[0] != '/')
                return 0;
        directory = strndup(dir, n);
        path = directory ? tb_asprintf("%s/docker-credential-%s", directory, name) : NULL;
        if (!path)
                return -ENOMEM;
        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || access(path, X_OK) < 0)
                return 0;
        if (stat(directory, &parent) < 0 || !is_ours(&st) || !is_ours(&parent) ||
                st.st_mode & (S_IWGRP | S_IWOTH) || parent.st_mode & S_IWOTH)
                return -EPERM;
        *ret = TAKE_PTR(path);
        return 1;
}

static int find_program(const char *path, const char *name, char **ret, TbError **err)
{
        bool untrusted = false;

        for (const char *p = path; *p; p += *p == ':') {
                size_t n = strcspn(p, ":");
                int r = find_in(p, n, name, ret);

                if (r == -ENOMEM)
                        return tb_error_oom(err);
                if (r > 0)
                        return 0;
                untrusted = untrusted || r == -EPERM;
                p += n;
        }
        if (untrusted)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPERM,
                        "credential helper docker-credential-%s: others could have written it; make the "
                        "program and its "
                        "directory writable for their owner only",
                        name);
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                "credential helper docker-credential-%s is not installed in %s", name,
                *path ? path : "any directory (helpers are switched off)");
}

/* ---- its environment ---- */

/* What published helpers read: where their store is, how to reach a person, which cloud account. */
static bool wanted_variable(const char *line)
{
        static const char *const names[] = {
                "HOME=", "USER=", "LOGNAME=", "LANG=", "LC_ALL=", "TZ=", "TMPDIR=", "XDG_RUNTIME_DIR=",
                "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "DBUS_SESSION_BUS_ADDRESS=", "DISPLAY=",
                "WAYLAND_DISPLAY=", "XAUTHORITY=", "GNUPGHOME=", "GPG_TTY=", "PASSWORD_STORE_DIR=",
                "DOCKER_CONFIG=", "CLOUDSDK_CONFIG=", "GOOGLE_APPLICATION_CREDENTIALS=", "https_proxy=",
                "HTTPS_PROXY=", "http_proxy=", "HTTP_PROXY=", "no_proxy=", "NO_PROXY="};
        static const char *const prefixes[] = {"AWS_", "AZURE_"};

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (tb_startswith(line, names[i]))
                        return true;
        for (size_t i = 0; i < ELEMENTSOF(prefixes); i++)
                if (tb_startswith(line, prefixes[i]))
                        return true;
        return false;
}

static int make_environment(const char *path, char ***ret, TbError **err)
{
        _cleanup_strv_ char **env = NULL;
        int r;

        r = tb_strv_consume(&env, tb_asprintf("PATH=%s", *path ? path : "/usr/bin:/bin"), err);
        for (char **e = environ; r >= 0 && e && *e; e++)
                if (wanted_variable(*e))
                        r = tb_strv_append(&env, *e, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(env);
        return 0;
}

/* ---- starting it ---- */

/* A copy above the standard descriptors, which a program may have closed; takes fd. */
static int move_up(int fd)
{
        int up = fcntl(fd, F_DUPFD_CLOEXEC, 3);

        close(fd);
        return up;
}

/* stdin is a socket: writing to a helper that has gone raises no SIGPIPE there. */
static int make_channels(int ret_in[static 2], int ret_out[static 2])
{
        int *const all[] = {&ret_in[0], &ret_in[1], &ret_out[0], &ret_out[1]};

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_in) < 0)
                return -errno;
        if (pipe2(ret_out, O_CLOEXEC) < 0)
                return -errno;
        for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                *all[i] = move_up(*all[i]);
                if (*all[i] < 0)
                        return -errno;
        }
        for (size_t i = 0; i < 2; i++) {
                int fd = i == 0 ? ret_in[0] : ret_out[0], flags = fcntl(fd, F_GETFL);

                if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                        return -errno;
        }
        return 0;
}

static int spawn(RegistryHelperRun *run, const char *program, char *const *env, int in, int out)
{
        const char *const argv[] = {program, run->verb, NULL};
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        sigset_t none, all;
        int r;

        (void) sigemptyset(&none);
        (void) sigfillset(&all);
        r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        r = posix_spawnattr_init(&attr);
        if (r != 0) {
                (void) posix_spawn_file_actions_destroy(&actions);
                return -r;
        }
        if ((r = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO)) == 0 &&
                (r = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO)) == 0 &&
                (r = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)) ==
                        0 &&
                (r = posix_spawn_file_actions_addclosefrom_np(&actions, 3)) == 0 &&
                (r = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
                (r = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
                (r = posix_spawnattr_setflags(
                         &attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID)) == 0)
                r = posix_spawn(&run->pid, program, &actions, &attr, (char *const *) (uintptr_t) argv, env);
        (void) posix_spawnattr_destroy(&attr);
        (void) posix_spawn_file_actions_destroy(&actions);
        if (r != 0)
                run->pid = 0;
        return -r;
}

/* ---- while it runs ---- */

static void finish(RegistryHelperRun *run, const RegistryHelperAnswer *answer, TbError *err)
{
        _cleanup_error_ TbError *e = err;

        run->readable = sd_event_source_disable_unref(run->readable);
        run->writable = sd_event_source_disable_unref(run->writable);
        run->timer = sd_event_source_disable_unref(run->timer);
        run->exit = sd_event_source_disable_unref(run->exit);
        kill_and_reap(run);
        run->done(run, answer, e, run->userdata); /* may free it */
}

/* 0 = end or nothing more now, -EMSGSIZE, -errno. */
static int drain(RegistryHelperRun *run)
{
        char piece[4096];
        int r = 0;

        for (;;) {
                ssize_t n = read(run->out, piece, sizeof(piece));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno != EAGAIN)
                        r = -errno;
                if (n == 0)
                        run->readable = sd_event_source_disable_unref(run->readable);
                if (n <= 0)
                        break;
                r = tb_buffer_append(&run->output, piece, (size_t) n, NULL);
                if (r < 0)
                        break;
        }
        explicit_bzero(piece, sizeof(piece));
        return r;
}

static int failed(RegistryHelperRun *run, int r, TbError **err)
{
        if (r == -EMSGSIZE)
                return tb_error_set(err, TB_ERROR_CONFIG, r,
                        "docker-credential-%s %s: wrote more than %u bytes", run->name, run->verb,
                        OUTPUT_MAX);
        return tb_error_set_errno(
                err, TB_ERROR_SYSTEM, r, "docker-credential-%s %s: cannot talk to it", run->name, run->verb);
}

static int on_readable(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        RegistryHelperRun *run = userdata;
        TbError *e = NULL;
        int r = drain(run);

        if (r < 0) {
                (void) failed(run, r, &e);
                finish(run, NULL, e);
        }
        return 0;
}

/* Hands over what the socket takes; a helper that does not listen is not our trouble. */
static void feed(RegistryHelperRun *run)
{
        while (run->written < run->input_size) {
                ssize_t n = send(run->in, run->input + run->written, run->input_size - run->written,
                        MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return;
                if (n <= 0)
                        break;
                run->written += (size_t) n;
        }
        run->writable = sd_event_source_disable_unref(run->writable);
        run->in = tb_close(run->in);
}

static int on_writable(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        feed(userdata);
        return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        RegistryHelperRun *run = userdata;
        TbError *e = NULL;

        (void) tb_error_set(&e, TB_ERROR_CONFIG, -ETIMEDOUT,
                "docker-credential-%s %s: did not answer within %.3g s; run it by hand to see what it waits "
                "for",
                run->name, run->verb, (double) run->timeout_usec / (double) USEC_PER_SEC);
        finish(run, NULL, e);
        return 0;
}

/* The helper's own words, which are an error text and no secret when it failed. */
static int refused(RegistryHelperRun *run, const siginfo_t *info, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(run->output.data ? run->output.data : "", 300);

        if (info->si_code != CLD_EXITED)
                return tb_error_set(err, TB_ERROR_CONFIG, -EREMOTEIO,
                        "docker-credential-%s %s: killed by signal %d", run->name, run->verb,
                        info->si_status);
        return tb_error_set(err, TB_ERROR_CONFIG, -EREMOTEIO,
                "docker-credential-%s %s: failed with status %d: %s", run->name, run->verb, info->si_status,
                shown && *shown ? shown : "no message");
}

static int on_exit_of_helper(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        RegistryHelperRun *run = userdata;
        RegistryHelperAnswer answer = {0};
        siginfo_t info = {0};
        TbError *e = NULL;
        bool known;
        size_t n;
        int r;

        do
                r = waitid(P_PID, (id_t) run->pid, &info, WEXITED | WNOHANG);
        while (r < 0 && errno == EINTR);
        /* ECHILD: the program ignores SIGCHLD, or reaps everything itself. Then the answer has to speak for itself. */
        known = r >= 0 && info.si_pid == run->pid;
        if (r >= 0 && !known)
                return 0;
        run->pid = 0;
        r = drain(run);
        if (r < 0) {
                (void) failed(run, r, &e);
                finish(run, NULL, e);
                return 0;
        }
        n = run->output.size;
        while (n > 0 && strchr(" \t\r\n", run->output.data[n - 1]))
                n--;
        answer.output = run->output.data ? run->output.data : "";
        answer.output_size = run->output.size;
        answer.not_found =
                n == strlen(not_found_message) && memcmp(run->output.data, not_found_message, n) == 0;
        if (known && (info.si_code != CLD_EXITED || info.si_status != 0) && !answer.not_found) {
                (void) refused(run, &info, &e);
                finish(run, NULL, e);
        } else
                finish(run, &answer, NULL);
        return 0;
}

static int watch(RegistryHelperRun *run, sd_event *event)
{
        int r;

        run->pidfd = pidfd_open(run->pid, 0); /* close-on-exec by itself */
        if (run->pidfd < 0)
                return -errno;
        if ((r = sd_event_add_io(event, &run->exit, run->pidfd, EPOLLIN, on_exit_of_helper, run)) < 0 ||
                (r = sd_event_add_io(event, &run->readable, run->out, EPOLLIN, on_readable, run)) < 0 ||
                (r = sd_event_add_io(event, &run->writable, run->in, EPOLLOUT, on_writable, run)) < 0)
                return r;
        return sd_event_add_time_relative(
                event, &run->timer, CLOCK_MONOTONIC, run->timeout_usec, 100000, on_timeout, run);
}

int registry_helper_start(sd_event *event, const char *path, uint64_t timeout_usec, const char *name,
        const char *verb, const char *input, RegistryHelperDoneFn done, void *userdata,
        RegistryHelperRun **ret, TbError **err)
{
        _cleanup_(run_freep) RegistryHelperRun *run = NULL;
        _cleanup_close_ int in = -EBADF, out = -EBADF;
        _cleanup_free_ char *program = NULL;
        _cleanup_strv_ char **env = NULL;
        int ins[2] = {-EBADF, -EBADF}, outs[2] = {-EBADF, -EBADF}, r;

        if (!registry_helper_name_is_valid(name))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad name of a credential helper");
        if (!path)
                path = getenv("PATH") ? getenv("PATH") : "/usr/local/bin:/usr/bin:/bin";
        r = find_program(path, name, &program, err);
        if (r >= 0)
                r = make_environment(path, &env, err);
        if (r < 0)
                return r;
        run = calloc(1, sizeof(*run));
        if (!run)
                return tb_error_oom(err);
        run->pidfd = run->in = run->out = -EBADF;
        run->output = TB_BUFFER_INIT(OUTPUT_MAX);
        run->timeout_usec = timeout_usec > 0 ? timeout_usec : TIMEOUT_USEC;
        run->done = done;
        run->userdata = userdata;
        run->name = strdup(name);
        run->verb = strdup(verb);
        run->input = strdup(input);
        if (!run->name || !run->verb || !run->input)
                return tb_error_oom(err);
        run->input_size = strlen(input);

        r = make_channels(ins, outs);
        run->in = ins[0];
        in = ins[1];
        run->out = outs[0];
        out = outs[1];
        if (r >= 0)
                r = spawn(run, program, env, in, out);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot run %s", program);
        r = watch(run, event);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch %s", program);
        *ret = TAKE_PTR(run);
        return 0;
}

/* ---- its answer ---- */

int registry_helper_answer_parse(const char *data, size_t size, RegistryCredentials *ret, TbError **err)
{
        _cleanup_(registry_json_wipep) json_t *j = NULL;
        const char *user = NULL, *secret = NULL;
        char *copy, *kept;
        bool token;
        int r;

        r = tb_json_parse_secret(data, size, OUTPUT_MAX, "answer of the credential helper", &j, err);
        if (r < 0)
                return r;
        if ((r = tb_json_get_string(j, "Username", &user, err)) < 0 ||
                (r = tb_json_get_string(j, "Secret", &secret, err)) < 0)
                return r;
        if (!user || !secret || !*user || !*secret)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPROTO,
                        "the answer of the credential helper lacks Username or Secret");
        token = tb_streq(user, "<token>");
        if (strlen(secret) > SECRET_MAX || strlen(user) > SECRET_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE,
                        "the credential helper gave a secret of more than %u bytes", SECRET_MAX);
        for (const char *p = secret; token && *p; p++)
                if (*p <= ' ' || *p > '~')
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the credential helper gave an identity token that is none");
        if (!token && strchr(user, ':')) /* RFC 7617: a user-id has no colon */
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "the credential helper gave a user name with \":\", which cannot be sent");
        copy = token ? NULL : strdup(user);
        kept = registry_secret_keep(secret);
        if ((!token && !copy) || !kept) {
                free(copy);
                registry_secret_drop(kept);
                return tb_error_oom(err);
        }
        ret->user = copy;
        *(token ? &ret->identity_token : &ret->password) = kept;
        return 0;
}
