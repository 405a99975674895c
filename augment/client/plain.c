/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Plain mode: a container that no agent runs behaves as if the image had never been augmented
 *
 * init is a parent and nothing else: it starts the program in its own session (with the terminal, if there
 * is one), passes every signal on, reaps what is orphaned, and ends the moment the program ends, with its
 * status. What a terminal sends (Ctrl-C, hang-up, resize) goes to the program directly, from the kernel.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/pid1.h"
#include "augment/client/signals.h"
#include "augment/client/util.h"

/* Docker's: 128+n for a signal. */
static int status_to_exit(int status)
{
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Reaps all that has ended; true if main was among it. */
static bool reap(pid_t main_pid, int *ret_status)
{
        bool ended = false;
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (pid == main_pid) {
                        *ret_status = status;
                        ended = true;
                }
        return ended;
}

static int follow(pid_t main_pid, int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct signalfd_siginfo si;
        int status;

        /* It may have ended before the first poll: the CHLD for that is pending, so poll returns at once. */
        for (;;) {
                if (poll(&p, 1, -1) < 0 && errno != EINTR)
                        return EXIT_INIT_FAILED;
                while (read(fd, &si, sizeof(si)) == (ssize_t) sizeof(si)) {
                        if (si.ssi_signo == SIGCHLD)
                                continue;
                        /* What the kernel sends to a whole foreground group, main has got already; what comes in our own name
                         * is about the terminal that we gave up. */
                        if (si.ssi_code != SI_KERNEL && si.ssi_pid != (uint32_t) getpid())
                                (void) kill(main_pid, (int) si.ssi_signo);
                }
                if (reap(main_pid, &status))
                        return status_to_exit(status);
        }
}

int plain_run(const MainSpec *spec, uint64_t mask)
{
        MainSession session;
        int tty, fd;
        pid_t pid;

        fd = signal_fd_new(UINT64_MAX);
        if (fd < 0) {
                say("cannot wait for signals: %s", strerror(-fd));
                return EXIT_INIT_FAILED;
        }
        tty = session_tty();
        session = main_session_choose(tty, false);
        main_session_prepare(session, tty);

        pid = fork();
        if (pid < 0) {
                say("cannot start %s: %s", spec->argv[0] ? spec->argv[0] : "anything", strerror(errno));
                return EXIT_INIT_FAILED;
        }
        if (pid == 0)
                _exit(main_exec(spec, session, tty, mask));
        return follow(pid, fd);
}
