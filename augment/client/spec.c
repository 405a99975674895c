/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/spec.h"
#include "augment/client/util.h"

#define MAGIC "tbnode-main-1"

static size_t vector_size(char *const *v, size_t *ret_count)
{
        size_t size = 0, n = 0;

        for (; v[n]; n++)
                size += strlen(v[n]) + 1;
        *ret_count = n;
        return size;
}

static char *put_string(char *p, const char *s)
{
        size_t n = strlen(s) + 1;

        memcpy(p, s, n);
        return p + n;
}

static char *put_number(char *p, unsigned n, bool octal)
{
        char number[16];

        snprintf(number, sizeof(number), octal ? "%o" : "%u", n);
        return put_string(p, number);
}

static char *put_vector(char *p, char *const *v, size_t n)
{
        p = put_number(p, (unsigned) n, false);
        for (size_t i = 0; i < n; i++)
                p = put_string(p, v[i]);
        return p;
}

int main_spec_encode(const MainSpec *s, char **ret, size_t *ret_size)
{
        const char *user = s->user ? s->user : "";
        size_t n_argv, n_env, room;
        char *text, *p;

        room = vector_size(s->argv, &n_argv) + vector_size(s->env, &n_env) + strlen(user) + strlen(s->cwd) +
                256;
        if (room > MAIN_SPEC_MAX)
                return -E2BIG;
        p = text = malloc(room);
        if (!text)
                return -ENOMEM;

        p = put_string(p, MAGIC);
        p = put_number(p, (unsigned) s->umask, true);
        p = put_string(p, s->keep_home ? "1" : "0");
        p = put_string(p, user);
        p = put_string(p, s->cwd);
        p = put_vector(p, s->argv, n_argv);
        p = put_vector(p, s->env, n_env);
        *ret = text;
        *ret_size = (size_t) (p - text);
        return 0;
}

static const char *get_string(char **p, const char *end)
{
        char *s = *p, *nul;

        nul = memchr(s, '\0', (size_t) (end - s));
        if (!nul)
                return NULL;
        *p = nul + 1;
        return s;
}

static char **get_vector(char **p, const char *end)
{
        const char *count = get_string(p, end);
        uint32_t n;
        char **v;

        /* Every string takes at least its NUL, so this bounds the allocation too. */
        if (!count || parse_u32(count, (uint32_t) (end - *p), &n) < 0)
                return NULL;
        v = calloc((size_t) n + 1, sizeof(char *));
        if (!v)
                return NULL;
        for (uint32_t i = 0; i < n; i++) {
                v[i] = (char *) get_string(p, end);
                if (!v[i]) {
                        free(v);
                        return NULL;
                }
        }
        return v;
}

static int get_umask(const char *s, mode_t *ret)
{
        unsigned v = 0;

        if (!s || !*s || strlen(s) > 4)
                return -EBADMSG;
        for (; *s; s++) {
                if (*s < '0' || *s > '7')
                        return -EBADMSG;
                v = v * 8 + (unsigned) (*s - '0');
        }
        if (v > 0777)
                return -EBADMSG;
        *ret = (mode_t) v;
        return 0;
}

int main_spec_decode(char *text, size_t size, MainSpec *ret)
{
        const char *end = text + size, *magic, *keep_home;
        MainSpec s = {.memory = text};
        char *p = text;

        magic = get_string(&p, end);
        if (!magic || strcmp(magic, MAGIC) != 0)
                goto bad;
        if (get_umask(get_string(&p, end), &s.umask) < 0)
                goto bad;
        keep_home = get_string(&p, end);
        if (!keep_home || (strcmp(keep_home, "0") != 0 && strcmp(keep_home, "1") != 0))
                goto bad;
        s.keep_home = *keep_home == '1';
        s.user = get_string(&p, end);
        s.cwd = get_string(&p, end);
        if (!s.user || !s.cwd || *s.cwd != '/')
                goto bad;
        if (!*s.user)
                s.user = NULL;
        s.argv = get_vector(&p, end);
        if (!s.argv || !s.argv[0])
                goto bad;
        s.env = get_vector(&p, end);
        if (!s.env || p != end)
                goto bad;
        *ret = s;
        return 0;

bad:
        main_spec_done(&s);
        return -EBADMSG;
}

void main_spec_done(MainSpec *s)
{
        free(s->argv);
        free(s->env);
        free(s->memory);
        *s = (MainSpec){};
}

int main_spec_to_fd(const MainSpec *s)
{
        char *text = NULL;
        size_t size;
        int fd, r;

        r = main_spec_encode(s, &text, &size);
        if (r < 0)
                return r;

        fd = memfd_create("tbnode-main", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        if (fd < 0) {
                r = -errno;
                goto out;
        }
        r = write_all(fd, text, size);
        if (r >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                r = -errno;
        if (r < 0)
                close(fd);
        else
                r = fd;
out:
        free(text);
        return r;
}

int main_spec_from_fd(int fd, MainSpec *ret)
{
        size_t done = 0, size;
        struct stat st;
        char *text;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size <= 0 || st.st_size > (off_t) MAIN_SPEC_MAX)
                return -EBADMSG;
        size = (size_t) st.st_size;
        text = malloc(size);
        if (!text)
                return -ENOMEM;

        /* The offset is shared with everybody who inherited the descriptor: pread. */
        while (done < size) {
                ssize_t n = pread(fd, text + done, size - done, (off_t) done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        int r = n < 0 ? -errno : -EBADMSG;

                        free(text);
                        return r;
                }
                done += (size_t) n;
        }
        return main_spec_decode(text, size, ret);
}
