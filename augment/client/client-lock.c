/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/client-text.h"
#include "augment/client/util.h"

#define WAIT_SECONDS 10

static const char *const lock_names[] = {"passwd", "group", "shadow", "gshadow"};
_Static_assert(ELEMENTSOF(lock_names) == ACCOUNT_LOCKS_MAX, "a lock for each file");

static void on_alarm(int signal)
{
}

/* F_SETLKW has no bound of its own: an alarm ends it (lckpwdf(3) does the same). */
static int lock_with_bound(int fd)
{
        struct sigaction handler = {.sa_handler = on_alarm}, before;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        sigset_t alarm_set, mask;
        int r;

        if (fcntl(fd, F_SETLK, &lock) == 0)
                return 0;
        (void) sigaction(SIGALRM, &handler, &before);
        (void) sigemptyset(&alarm_set);
        (void) sigaddset(&alarm_set, SIGALRM);
        (void) sigprocmask(SIG_UNBLOCK, &alarm_set, &mask);
        (void) alarm(WAIT_SECONDS);
        r = fcntl(fd, F_SETLKW, &lock) < 0 ? (errno == EINTR ? -EBUSY : -errno) : 0;
        (void) alarm(0);
        (void) sigprocmask(SIG_SETMASK, &mask, NULL);
        (void) sigaction(SIGALRM, &before, NULL);
        return r;
}

static bool is_stale(const char *path)
{
        _cleanup_free_ char *text = NULL;
        uint32_t pid;

        if (read_text_file(path, 64, &text, NULL) < 0)
                return false;
        text[strcspn(text, "\n")] = '\0';
        return parse_u32(text, INT32_MAX, &pid) >= 0 && pid > 0 && kill((pid_t) pid, 0) < 0 &&
                errno == ESRCH;
}

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until something in the directory goes, or the time is over. */
static int wait_for_change(int watch, int64_t deadline)
{
        struct pollfd p = {.fd = watch, .events = POLLIN};
        int64_t left = deadline - now_ms();
        char events[4096];

        if (left <= 0 || poll(&p, 1, (int) left) == 0)
                return -EBUSY;
        (void) !read(watch, events, sizeof(events));
        return 0;
}

static int take_lock_file(const char *etc, const char *name, int64_t deadline, char *ret_path, size_t size)
{
        _cleanup_close_ int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        char temp[256], pid[32], path[256];
        int r;

        if (watch >= 0)
                (void) inotify_add_watch(watch, etc, IN_DELETE | IN_MOVED_FROM);
        snprintf(path, sizeof(path), "%.200s/%s.lock", etc, name);
        snprintf(temp, sizeof(temp), "%.200s/%s.%d", etc, name, (int) getpid());
        snprintf(pid, sizeof(pid), "%d", (int) getpid());
        r = write_text_file(temp, 0600, pid);
        if (r < 0)
                return r;
        for (;;) {
                r = link(temp, path) < 0 ? -errno : 0;
                if (r != -EEXIST)
                        break;
                if (is_stale(path))
                        r = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
                else
                        r = watch >= 0 ? wait_for_change(watch, deadline) : -EBUSY;
                if (r < 0)
                        break;
        }
        (void) unlink(temp);
        if (r >= 0)
                snprintf(ret_path, size, "%s", path);
        return r;
}

int account_lock(AccountLock *l, const char *etc)
{
        int64_t deadline = now_ms() + WAIT_SECONDS * 1000;
        char path[256];
        int r;

        *l = (AccountLock){.fd = -1};
        snprintf(path, sizeof(path), "%.200s/.pwd.lock", etc);
        l->fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (l->fd < 0)
                return -errno;
        r = lock_with_bound(l->fd);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(lock_names); i++) {
                r = take_lock_file(etc, lock_names[i], deadline, l->path[l->n], sizeof(l->path[0]));
                if (r >= 0)
                        l->n++;
        }
        if (r < 0)
                account_unlock(l);
        return r;
}

void account_unlock(AccountLock *l)
{
        while (l->n > 0)
                (void) unlink(l->path[--l->n]);
        if (l->fd >= 0)
                close(l->fd);
        l->fd = -1;
}
