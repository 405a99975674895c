/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agent/main-status.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define STATUS_TEXT_MAX 32

bool main_status_is_valid(const char *text)
{
        const char *number = tb_startswith(text, "exited ") ?: tb_startswith(text, "signaled ");
        uint32_t v;

        return number && tb_parse_u32(number, 0, 255, &v, NULL) >= 0;
}

static int open_inside(int root, const char *path)
{
        const struct open_how how = {
                .flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));

        return fd < 0 ? -errno : (int) fd;
}

int container_root_open(const ProcessIdentity *identity, TbError **err)
{
        _cleanup_close_ int root = -EBADF;
        ProcessIdentity now;
        char path[40];

        (void) snprintf(path, sizeof(path), "/proc/%d/root", (int) identity->pid);
        root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot look into the container");
        /* The pid was not reused before the open: then what was opened is the container's. */
        if (process_identity_read(identity->pid, &now, NULL) < 0 || !process_identity_equal(identity, &now))
                return tb_error_set(err, TB_ERROR_SYSTEM, -ESRCH, "the container's process is gone");
        return TAKE_FD(root);
}

int main_status_read(const ProcessIdentity *identity, char **ret, TbError **err)
{
        static const char *const paths[] = {"run/tbnode/main.status", "dev/.tbnode/main.status"};
        _cleanup_close_ int root = container_root_open(identity, err);

        if (root < 0)
                return root;
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                _cleanup_close_ int fd = open_inside(root, paths[i]);
                char text[STATUS_TEXT_MAX];
                struct stat st;
                ssize_t n;

                if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                        continue;
                n = read(fd, text, sizeof(text) - 1);
                if (n < 0)
                        continue;
                text[n] = 0;
                text[strcspn(text, "\n")] = 0;
                if (!main_status_is_valid(text))
                        continue;
                *ret = strdup(text);
                return *ret ? 1 : tb_error_oom(err);
        }
        return 0;
}
