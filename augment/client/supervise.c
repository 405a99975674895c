/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/signals.h"
#include "augment/client/supervise.h"
#include "augment/client/util.h"

#define AGAIN_MS 1000
#define KILL_ROUNDS 20
#define KILL_ROUND_NS 50000000L

static bool is_laid_out(const Supervisor *s, Service service)
{
        char path[PATH_MAX];

        format_path(path, sizeof(path), "%s/service/%s/run", s->context.rundir, service_to_string(service));
        return access(path, F_OK) == 0;
}

/* In the child. The terminal's session is for main only: Ctrl-C is not meant for sshd. */
static void become_runsv(const Supervisor *s, Service service)
{
        char directory[PATH_MAX], *env[SERVICE_ENV_MAX], memory[SERVICE_ENV_SIZE];
        char *argv[] = {(char *) "runsv", directory, NULL};

        format_path(directory, sizeof(directory), "%s/service/%s", s->context.rundir,
                service_to_string(service));
        service_context_to_env(&s->context, memory, env);
        if (service != SERVICE_MAIN)
                (void) setsid();
        if (fcntl(s->context.spec_fd, F_SETFD, 0) < 0 || fcntl(s->context.event_fd, F_SETFD, 0) < 0 ||
                signal_mask_set(s->mask, NULL) < 0)
                return;
        execve(TBNODE_BIN_DIR "/runsv", argv, env);
}

static int start_runsv(Supervisor *s, Service service)
{
        pid_t pid;

        s->due[service] = 0;
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                become_runsv(s, service);
                say("exec " TBNODE_BIN_DIR "/runsv: %s", strerror(errno));
                _exit(EXIT_NOT_FOUND);
        }
        s->runsv[service] = pid;
        return 0;
}

int supervisor_start(Supervisor *s)
{
        for (int i = 0; i < _SERVICE_MAX; i++) {
                int r;

                if (!is_laid_out(s, (Service) i))
                        continue;
                r = start_runsv(s, (Service) i);
                if (r >= 0)
                        continue;
                if (i == SERVICE_MAIN)
                        return r;
                say("tbnode: cannot start service %s: %s", service_to_string((Service) i), strerror(-r));
        }
        return 0;
}

/* What runsv(8) wrote down counts only if that process is ours now. */
static void end_orphan(const Supervisor *s, Service service)
{
        char path[PATH_MAX], *text = NULL;
        siginfo_t si;
        uint32_t pid;

        format_path(path, sizeof(path), "%s/service/%s/supervise/pid", s->context.rundir,
                service_to_string(service));
        if (read_text_file(path, 64, &text, NULL) < 0)
                return;
        text[strcspn(text, "\n")] = '\0';
        if (parse_u32(text, INT32_MAX, &pid) >= 0 && pid > 1 &&
                waitid(P_PID, pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0)
                (void) kill((pid_t) pid, SIGTERM);
        free(text);
}

Service supervisor_reaped(Supervisor *s, pid_t pid, int64_t now)
{
        for (int i = 0; i < _SERVICE_MAX; i++) {
                if (s->runsv[i] != pid)
                        continue;
                s->runsv[i] = 0;
                if (i != SERVICE_MAIN) {
                        end_orphan(s, (Service) i);
                        supervisor_again(s, (Service) i, false, now);
                }
                return (Service) i;
        }
        return _SERVICE_INVALID;
}

void supervisor_again(Supervisor *s, Service service, bool down, int64_t now)
{
        char path[PATH_MAX];

        format_path(path, sizeof(path), "%s/service/%s/down", s->context.rundir, service_to_string(service));
        if (!down)
                (void) unlink(path);
        else if (write_text_file(path, 0644, "") < 0)
                return; /* better no main than one too many */
        s->due[service] = now + AGAIN_MS;
}

int64_t supervisor_due(const Supervisor *s)
{
        int64_t first = 0;

        for (int i = 0; i < _SERVICE_MAX; i++)
                if (s->due[i] > 0 && (first == 0 || s->due[i] < first))
                        first = s->due[i];
        return first;
}

void supervisor_dispatch(Supervisor *s, int64_t now)
{
        for (int i = 0; i < _SERVICE_MAX; i++)
                if (s->due[i] > 0 && s->due[i] <= now && start_runsv(s, (Service) i) < 0)
                        s->due[i] = now + AGAIN_MS;
}

/* The fourth field of /proc/PID/stat; the second one, in parentheses, may contain anything. */
static bool is_our_child(const char *pid)
{
        char path[PATH_MAX], *text = NULL, *p;
        bool ours = false;

        format_path(path, sizeof(path), "/proc/%.20s/stat", pid);
        if (read_text_file(path, 4096, &text, NULL) < 0)
                return false;
        p = strrchr(text, ')');
        if (p && strlen(p) > 4)
                ours = strtol(p + 4, NULL, 10) == (long) getpid();
        free(text);
        return ours;
}

size_t children_signal(int signal)
{
        DIR *proc = opendir("/proc");
        struct dirent *de;
        size_t n = 0;

        while (proc && (de = readdir(proc))) {
                uint32_t pid;

                if (parse_u32(de->d_name, INT32_MAX, &pid) < 0 || pid <= 1 || !is_our_child(de->d_name))
                        continue;
                /* Nobody but us reaps it, so the number is still its own. */
                (void) kill((pid_t) pid, signal);
                n++;
        }
        if (proc)
                closedir(proc);
        return n;
}

void children_kill(void)
{
        const struct timespec pause = {.tv_nsec = KILL_ROUND_NS};
        uint64_t chld = UINT64_C(1) << (SIGCHLD - 1);

        for (int i = 0; i < KILL_ROUNDS; i++) {
                pid_t pid;

                (void) children_signal(SIGKILL);
                (void) signal_wait(chld, &pause);
                while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
                        ;
                if (pid < 0 && errno == ECHILD)
                        return;
        }
}
