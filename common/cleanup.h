/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Scope-bound release of what libc and our libraries hand out. Types of ours declare their own in their
 * header with TB_DEFINE_CLEANUP(). */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/macro.h"

static inline void tb_freep(void *p)
{
        free(*(void **) p);
}

/* Closes without touching errno, so that it can run on the way out of a failed function. */
static inline int tb_close(int fd)
{
        if (fd >= 0) {
                int saved = errno;
                (void) close(fd);
                errno = saved;
        }
        return -EBADF;
}

static inline void tb_closep(int *fd)
{
        *fd = tb_close(*fd);
}

static inline void tb_fclosep(FILE **f)
{
        if (*f) {
                int saved = errno;
                (void) fclose(*f);
                errno = saved;
        }
}

static inline void tb_closedirp(DIR **d)
{
        if (*d) {
                int saved = errno;
                (void) closedir(*d);
                errno = saved;
        }
}

#define _cleanup_free_ _cleanup_(tb_freep)
#define _cleanup_close_ _cleanup_(tb_closep)
#define _cleanup_fclose_ _cleanup_(tb_fclosep)
#define _cleanup_closedir_ _cleanup_(tb_closedirp)
