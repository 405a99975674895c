/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * flock(2) knows no time-out, and interrupting it by a signal has no place in a library. But the lock belongs to the open file,
 * which a forked child shares: a child waits for it, and we wait for the child, as long as we like. The lock is ours when
 * the child has it; the child only says so and ends. When time is up the child is killed, and if it got the lock in that very
 * moment, closing our descriptor gives it back.
 */

#include "netctl/xtables-lock.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "netctl/fw.h"

const char *xtables_lock_path(void)
{
        const char *path = secure_getenv("XTABLES_LOCKFILE");

        return path && *path ? path : FW_LOCK_PATH;
}

int xtables_lock_open(int *ret_fd, TbError **err)
{
        _cleanup_close_ int fd = open(xtables_lock_path(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600);

        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno,
                        "cannot open the iptables lock %s", xtables_lock_path());
        int r = flock(fd, LOCK_EX | LOCK_NB);
        if (r < 0 && errno != EWOULDBLOCK)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot take the iptables lock %s",
                        xtables_lock_path());
        *ret_fd = TAKE_FD(fd);
        return r < 0 ? 0 : 1;
}

static _Noreturn void wait_for_lock(int fd, int answer)
{
        int code;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        do
                code = flock(fd, LOCK_EX) < 0 ? errno : 0;
        while (code == EINTR);
        _exit(write(answer, &code, sizeof(code)) == (ssize_t) sizeof(code) ? 0 : 1);
}

static int busy(TbError **err, const char *since)
{
        (void) tb_error_set(err, TB_ERROR_RESOURCE, -EBUSY,
                "another program holds the iptables lock%s; see who with 'fuser -v %s'", since,
                xtables_lock_path());
        tb_error_set_retryable(err);
        return -EBUSY;
}

int xtables_lock_is_busy(TbError **err)
{
        return busy(err, "");
}

int xtables_lock_wait(int fd, int timeout_ms, TbError **err)
{
        int fds[2], code = ETIMEDOUT;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, errno, "cannot wait for the iptables lock");
        _cleanup_close_ int in = fds[0];
        _cleanup_close_ int out = fds[1];
        pid_t pid = fork();
        if (pid < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, errno, "cannot wait for the iptables lock");
        if (pid == 0)
                wait_for_lock(fd, out);
        out = tb_close(out);

        uint64_t deadline = tb_now_ns() / 1000000 + (uint64_t) timeout_ms;
        for (;;) {
                uint64_t now = tb_now_ns() / 1000000;
                struct pollfd p = {.fd = in, .events = POLLIN};
                int k = poll(&p, 1, now < deadline ? (int) (deadline - now) : 0);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k > 0 && read(in, &code, sizeof(code)) != (ssize_t) sizeof(code))
                        code = EIO;
                break;
        }
        if (code != 0)
                (void) kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        if (code == ETIMEDOUT) {
                char since[48];
                (void) snprintf(since, sizeof(since), " for more than %d s", timeout_ms / 1000);
                return busy(err, since);
        }
        if (code != 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, code, "cannot wait for the iptables lock");
        return 0;
}
