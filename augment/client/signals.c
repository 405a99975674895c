/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "augment/client/signals.h"
#include "augment/client/util.h"

static const struct {
        const char *name;
        int number;
} signal_names[] = {
        {"ABRT", SIGABRT},
        {"ALRM", SIGALRM},
        {"BUS", SIGBUS},
        {"CHLD", SIGCHLD},
        {"CLD", SIGCHLD},
        {"CONT", SIGCONT},
        {"FPE", SIGFPE},
        {"HUP", SIGHUP},
        {"ILL", SIGILL},
        {"INT", SIGINT},
        {"IO", SIGIO},
        {"IOT", SIGIOT},
        {"KILL", SIGKILL},
        {"PIPE", SIGPIPE},
        {"POLL", SIGPOLL},
        {"PROF", SIGPROF},
        {"PWR", SIGPWR},
        {"QUIT", SIGQUIT},
        {"SEGV", SIGSEGV},
        {"STKFLT", SIGSTKFLT},
        {"STOP", SIGSTOP},
        {"SYS", SIGSYS},
        {"TERM", SIGTERM},
        {"TRAP", SIGTRAP},
        {"TSTP", SIGTSTP},
        {"TTIN", SIGTTIN},
        {"TTOU", SIGTTOU},
        {"URG", SIGURG},
        {"USR1", SIGUSR1},
        {"USR2", SIGUSR2},
        {"VTALRM", SIGVTALRM},
        {"WINCH", SIGWINCH},
        {"XCPU", SIGXCPU},
        {"XFSZ", SIGXFSZ},
};

/* The part after RTMIN or RTMAX: nothing, or a sign and a number. */
static int realtime_signal(int base, char sign, const char *s)
{
        uint32_t n;

        if (!*s)
                return base;
        if (*s != sign || parse_u32(s + 1, SIGNAL_MAX - SIGNAL_RTMIN, &n) < 0)
                return -EINVAL;
        return sign == '+' ? base + (int) n : base - (int) n;
}

int signal_from_string(const char *s)
{
        uint32_t n;

        if (parse_u32(s, SIGNAL_MAX, &n) >= 0)
                return n > 0 ? (int) n : -EINVAL;
        if (strncasecmp(s, "SIG", 3) == 0)
                s += 3;
        if (strncasecmp(s, "RTMIN", 5) == 0)
                return realtime_signal(SIGNAL_RTMIN, '+', s + 5);
        if (strncasecmp(s, "RTMAX", 5) == 0)
                return realtime_signal(SIGNAL_MAX, '-', s + 5);
        for (size_t i = 0; i < ELEMENTSOF(signal_names); i++)
                if (strcasecmp(s, signal_names[i].name) == 0)
                        return signal_names[i].number;
        return -EINVAL;
}

int stop_signal_from_string(const char *s)
{
        int n = s ? signal_from_string(s) : -EINVAL;

        return n > 0 ? n : SIGTERM;
}

int signal_mask_set(uint64_t mask, uint64_t *ret_old)
{
        uint64_t old = 0;

        if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, sizeof(mask)) < 0)
                return -errno;
        if (ret_old)
                *ret_old = old;
        return 0;
}

int signal_wait(uint64_t mask, const struct timespec *timeout)
{
        long n = syscall(SYS_rt_sigtimedwait, &mask, NULL, timeout, sizeof(mask));

        return n < 0 ? -errno : (int) n;
}

int signal_fd_new(uint64_t mask)
{
        long fd = syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC | SFD_NONBLOCK);

        return fd < 0 ? -errno : (int) fd;
}
