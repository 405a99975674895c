/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/services.h"
#include "augment/client/signals.h"
#include "augment/client/spec.h"
#include "augment/client/util.h"

/* Offset of the wanted state ('u' or 'd') in runsv's supervise/status; runit's sv.c reads the same byte. */
#define STATUS_WANT_OFFSET 17

/* Tells our runsv "once": what is running now goes on, and is not started again unless somebody says so (sv
 * start, sv restart). runsv(8). */
static void want_once(void)
{
        int fd = open("supervise/control", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

        if (fd < 0)
                return;
        if (write_all(fd, "o", 1) < 0)
                say("main: cannot tell runsv: %s", strerror(errno));
        close(fd);
}

static bool wants_up(void)
{
        char status[STATUS_WANT_OFFSET + 1];
        bool up;
        int fd;

        fd = open("supervise/status", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return false;
        up = pread(fd, status, sizeof(status), 0) == (ssize_t) sizeof(status) &&
                status[STATUS_WANT_OFFSET] == 'u';
        close(fd);
        return up;
}

int service_run_main(const char *rundir, int spec_fd, int event_fd, OnExit on_exit, uint64_t mask)
{
        MainEvent event = {.kind = MAIN_EVENT_STARTED, .pid = getpid()};
        char path[PATH_MAX];
        MainSpec spec;
        int r, tty;

        format_path(path, sizeof(path), "%s/stopping", rundir);
        if (access(path, F_OK) == 0) {
                /* init is about to end everything; main has had its time. Its TERM is waited for. */
                if (signal_mask_set(mask, NULL) < 0)
                        return EXIT_INIT_FAILED;
                for (;;)
                        (void) pause();
        }

        if (on_exit != ON_EXIT_RESTART)
                want_once();
        r = write_all(event_fd, &event, sizeof(event));
        if (r >= 0)
                r = main_spec_from_fd(spec_fd, &spec);
        if (r < 0) {
                say("main: cannot get its description from init: %s", strerror(-r));
                return EXIT_INIT_FAILED;
        }

        tty = session_tty();
        /* runsv leads no session here, so a program without a terminal can lead its own, as it would in the
         * original. */
        return main_exec(&spec, tty < 0 ? MAIN_SESSION_NEW : MAIN_SESSION_FOREGROUND, tty, mask);
}

int service_finish_main(int event_fd, char **argv)
{
        MainEvent event = {.kind = MAIN_EVENT_ENDED, .code = -1};
        uint32_t n;

        /* runsv(8): ./finish gets the exit status, or -1, and the low byte of the wait status. */
        if (!argv[1] || !argv[2])
                return EXIT_INIT_FAILED;
        if (parse_u32(argv[1], 255, &n) >= 0)
                event.code = (int32_t) n;
        else if (parse_u32(argv[2], 255, &n) >= 0)
                event.signal = (int32_t) (n & 0x7f);
        event.starts_anew = wants_up();
        return write_all(event_fd, &event, sizeof(event)) < 0 ? EXIT_INIT_FAILED : 0;
}
