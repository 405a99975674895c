/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/services.h"
#include "augment/client/signals.h"
#include "augment/client/spec.h"
#include "augment/client/util.h"

/* Offset of the wanted state ('u' or 'd') in runsv's supervise/status; runit's sv.c reads the same byte. */
#define STATUS_WANT_OFFSET 17
/* Somebody has told runsv to end main (or to end it and start it anew); until the next start. */
#define ASKED_FILE "asked"
/* runsv takes what is written to its control pipe at once, unless it waits for a ./control program. */
#define HEARD_BOUND_MS 1000

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

/* Tells our runsv "down" and comes back when it has heard it: it would start main again when we end. It writes a new
 * supervise/status then, which is what is waited for. Without inotify (a user has 128 of them) there is no waiting. */
static void want_down(void)
{
        int control = open("supervise/control", O_WRONLY | O_NONBLOCK | O_CLOEXEC),
            notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        struct pollfd p = {.fd = notify, .events = POLLIN};
        char events[1024];

        if (notify >= 0 && inotify_add_watch(notify, "supervise", IN_MOVED_TO) < 0)
                p.fd = -1;
        if (control >= 0 && write_all(control, "d", 1) < 0)
                say("main: cannot tell runsv: %s", strerror(errno));
        while (p.fd >= 0 && control >= 0 && wants_up() && poll(&p, 1, HEARD_BOUND_MS) > 0)
                (void) !read(notify, events, sizeof(events));
        if (control >= 0)
                close(control);
        if (notify >= 0)
                close(notify);
}

int service_run_main(const ServiceContext *c, uint64_t mask)
{
        MainEvent event = {.kind = MAIN_EVENT_STARTED, .pid = getpid()};
        char path[PATH_MAX];
        MainSpec spec;
        int r;

        format_path(path, sizeof(path), "%s/stopping", c->rundir);
        if (access(path, F_OK) == 0) {
                /* init is about to end everything; main has had its time. Its TERM is waited for. */
                if (signal_mask_set(mask, NULL) < 0)
                        return EXIT_INIT_FAILED;
                for (;;)
                        (void) pause();
        }

        (void) unlink(ASKED_FILE);
        r = write_all(c->event_fd, &event, sizeof(event));
        if (r >= 0)
                r = main_spec_from_fd(c->spec_fd, &spec);
        if (r < 0) {
                say("main: cannot get its description from init: %s", strerror(-r));
                return EXIT_INIT_FAILED;
        }
        return main_exec(&spec, session_tty(), mask);
}

int service_finish_main(const ServiceContext *c, OnExit on_exit, char **argv)
{
        MainEvent event = {.kind = MAIN_EVENT_ENDED, .code = -1};
        char path[PATH_MAX];
        uint32_t n;

        /* runsv(8): ./finish gets the exit status, or -1, and the low byte of the wait status. */
        if (!argv[1] || !argv[2])
                return EXIT_INIT_FAILED;
        if (parse_u32(argv[1], 255, &n) >= 0)
                event.code = (int32_t) n;
        else if (parse_u32(argv[2], 255, &n) >= 0)
                event.signal = (int32_t) (n & 0x7f);

        format_path(path, sizeof(path), "%s/stopping", c->rundir);
        event.starts_anew = wants_up();
        if (event.starts_anew &&
                ((on_exit != ON_EXIT_RESTART && access(ASKED_FILE, F_OK) < 0) || access(path, F_OK) == 0)) {
                want_down();
                event.starts_anew = false;
        }
        return write_all(c->event_fd, &event, sizeof(event)) < 0 ? EXIT_INIT_FAILED : 0;
}

int service_stop_main(const ServiceContext *c)
{
        char *text = NULL;
        uint32_t pid;
        int fd, r;

        fd = open(ASKED_FILE, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0)
                close(fd);
        /* runsv waits for us, so it has not reaped main: the number is main's. */
        if (read_text_file("supervise/pid", 64, &text, NULL) < 0)
                return EXIT_INIT_FAILED;
        text[strcspn(text, "\n")] = '\0';
        r = parse_u32(text, INT32_MAX, &pid) >= 0 && pid > 1 ? kill((pid_t) pid, c->stop_signal) : -1;
        free(text);
        return r < 0 ? EXIT_INIT_FAILED : 0; /* then runsv sends TERM */
}
