/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-job.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "augment/client/client-supervise.h"
#include "augment/client/client-text.h"
#include "augment/client/util.h"

static const char *const state_names[] = {
        [JOB_NONE] = NULL,
        [JOB_STARTING] = "running",
        [JOB_RUNNING] = "running",
        [JOB_EXITED] = "exited",
        [JOB_SIGNALED] = "signaled",
        [JOB_TIMEOUT] = "timeout",
        [JOB_FAILED] = "failed",
};
_Static_assert(ELEMENTSOF(state_names) == _JOB_STATE_MAX, "a name for each state");

const char *job_state_to_string(JobState s)
{
        return state_names[s];
}

bool job_parse(const char *line, Job *ret)
{
        char word[16];
        size_t n = strcspn(line, " \n");
        const char *rest = line + n + (line[n] == ' ');
        char number[16];
        uint32_t value = 0;

        if (n >= sizeof(word))
                return false;
        snprintf(word, sizeof(word), "%.*s", (int) n, line);
        snprintf(number, sizeof(number), "%.*s", (int) MIN2(strcspn(rest, "\n"), (size_t) 15), rest);
        for (JobState s = JOB_RUNNING; s < _JOB_STATE_MAX; s++) {
                if (strcmp(word, state_names[s]) != 0)
                        continue;
                if (s != JOB_TIMEOUT && s != JOB_FAILED && parse_u32(number, INT32_MAX, &value) < 0)
                        return false;
                ret->state = s;
                ret->pid = s == JOB_RUNNING ? (pid_t) value : 0;
                ret->status = s == JOB_RUNNING ? 0 : (int) value;
                ret->reason[0] = '\0';
                if (s == JOB_FAILED)
                        snprintf(ret->reason, sizeof(ret->reason), "%.*s",
                                (int) MIN2(strcspn(rest, "\n"), (size_t) 250), rest);
                return true;
        }
        return false;
}

static void read_state(Job *j, const char *directory)
{
        _cleanup_free_ char *text = NULL;
        char path[PATH_MAX];

        format_path(path, sizeof(path), "%s/%s.run", directory, j->name);
        if (read_text_file(path, 1024, &text, NULL) >= 0)
                (void) job_parse(text, j);
}

/* proc(5), stat: field 22, behind the name in parentheses, which may hold anything. 0: no such process. */
static unsigned long long start_time(pid_t pid)
{
        _cleanup_free_ char *text = NULL;
        unsigned long long value = 0;
        char path[64], *p;

        format_path(path, sizeof(path), "/proc/%d/stat", (int) pid);
        if (read_text_file(path, 4096, &text, NULL) < 0)
                return 0;
        p = strrchr(text, ')');
        for (int field = 2; p && field < 22; field++)
                p = strchr(p + 1, ' ');
        if (p)
                value = strtoull(p + 1, NULL, 10);
        return value;
}

static int open_pidfd(pid_t pid)
{
        int fd = (int) syscall(SYS_pidfd_open, pid, 0);

        return fd < 0 ? -errno : fd;
}

/* It has ended without an outcome: somebody killed it. */
static void supervisor_lost(Job *j, const char *directory)
{
        if (j->state != JOB_STARTING && j->state != JOB_RUNNING)
                return;
        j->state = JOB_FAILED;
        j->pid = 0;
        snprintf(j->reason, sizeof(j->reason), "its supervisor was killed; how it ended is not known");
        (void) !supervise_write_outcome(directory, j->name, "failed", j->reason);
}

void job_load(Job *j, const char *directory, const char *name)
{
        _cleanup_free_ char *text = NULL;
        unsigned long long started = 0;
        char path[PATH_MAX];
        int pid = 0;

        *j = (Job){.pidfd = -1, .ready_fd = -1};
        snprintf(j->name, sizeof(j->name), "%.80s", name);
        read_state(j, directory);
        format_path(path, sizeof(path), "%s/%s.job", directory, j->name);
        if (read_text_file(path, 256, &text, NULL) < 0 || sscanf(text, "%d %llu", &pid, &started) != 2 ||
                pid <= 0)
                return;
        if (j->state == JOB_NONE)
                j->state = JOB_STARTING;
        if (j->state != JOB_STARTING && j->state != JOB_RUNNING)
                return;
        j->pidfd = open_pidfd((pid_t) pid);
        if (j->pidfd >= 0 && start_time((pid_t) pid) == started)
                return;
        if (j->pidfd >= 0)
                close(j->pidfd);
        j->pidfd = -1;
        read_state(j, directory); /* between the first look and the second */
        supervisor_lost(j, directory);
}

int job_start(Job *j, const char *directory, const JobSpec *spec)
{
        char path[PATH_MAX], text[64];
        int ready[2], r;
        pid_t pid;

        if (j->pidfd >= 0)
                return -EALREADY;
        format_path(path, sizeof(path), "%s/%s.run", directory, j->name);
        (void) unlink(path);
        if (pipe2(ready, O_CLOEXEC) < 0)
                return -errno;
        pid = fork();
        if (pid < 0) {
                r = -errno;
                close(ready[0]);
                close(ready[1]);
                return r;
        }
        if (pid == 0)
                _exit(supervise(directory, j->name, spec, ready[1]));
        close(ready[1]);

        j->pidfd = open_pidfd(pid);
        j->ready_fd = ready[0];
        j->state = JOB_STARTING;
        j->pid = 0;
        j->reason[0] = '\0';
        format_path(path, sizeof(path), "%s/%s.job", directory, j->name);
        format_path(text, sizeof(text), "%d %llu\n", (int) pid, start_time(pid));
        r = write_text_file(path, 0600, text);
        /* Without the file it runs all the same; only the next client won't know it. */
        return j->pidfd < 0 ? j->pidfd : r == -ENOSPC ? 0 : r;
}

static bool is_readable(int fd)
{
        struct timeval none = {};
        fd_set set;

        if (fd < 0 || fd >= FD_SETSIZE)
                return false;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        return select(fd + 1, &set, NULL, NULL, &none) == 1;
}

bool job_update(Job *j, const char *directory)
{
        Job before = *j;

        if (is_readable(j->ready_fd)) {
                close(j->ready_fd);
                j->ready_fd = -1;
        }
        if (is_readable(j->pidfd)) {
                (void) waitid(P_PIDFD, (id_t) j->pidfd, &(siginfo_t){}, WEXITED | WNOHANG);
                close(j->pidfd);
                j->pidfd = -1;
        }
        read_state(j, directory);
        if (j->pidfd < 0)
                supervisor_lost(j, directory);
        return before.state != j->state || before.status != j->status || before.pid != j->pid;
}

int job_stop(Job *j)
{
        if (j->pidfd < 0)
                return -ESRCH;
        return syscall(SYS_pidfd_send_signal, j->pidfd, SIGTERM, NULL, 0) < 0 ? -errno : 0;
}

int job_kill(Job *j, int signal)
{
        siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};

        if (j->pidfd < 0)
                return -ESRCH;
        info.si_value.sival_int = signal;
        return syscall(SYS_pidfd_send_signal, j->pidfd, SIGUSR1, &info, 0) < 0 ? -errno : 0;
}

void job_done(Job *j)
{
        if (j->pidfd >= 0)
                close(j->pidfd);
        if (j->ready_fd >= 0)
                close(j->ready_fd);
        j->pidfd = j->ready_fd = -1;
}
