/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/ssh-outside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/util.h"

#define DROPBEAR TBNODE_BIN_DIR "/dropbear"
#define DIRECTORY "/dev/.tbnode-ssh"
#define USUAL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum {
        PART_ED25519,
        PART_ECDSA,
        PART_AUTHORIZED,
        PART_CONNECTION,
};

/* Where each part goes, and how long it may be. */
static const struct {
        const char *path;
        uint32_t max;
} parts[SSH_OUTSIDE_PARTS] = {
        [PART_ED25519] = {DIRECTORY "/host_key_ed25519", 1024},
        [PART_ECDSA] = {DIRECTORY "/host_key_ecdsa", 1024},
        [PART_AUTHORIZED] = {DIRECTORY "/authorized_keys", 65536},
        [PART_CONNECTION] = {NULL, 160},
};

int ssh_outside_parse(const char *line, size_t ret[static SSH_OUTSIDE_PARTS])
{
        static const char magic[] = "tbnode-ssh 1";
        size_t sizes[SSH_OUTSIDE_PARTS];

        if (strncmp(line, magic, strlen(magic)) != 0)
                return -EINVAL;
        line += strlen(magic);
        for (size_t i = 0; i < SSH_OUTSIDE_PARTS; i++) {
                char number[12];
                size_t n = strspn(line + (*line == ' '), "0123456789");
                uint32_t value;

                if (*line != ' ' || n == 0 || n >= sizeof(number))
                        return -EINVAL;
                memcpy(number, line + 1, n);
                number[n] = '\0';
                if (parse_u32(number, parts[i].max, &value) < 0)
                        return -EINVAL;
                sizes[i] = value;
                line += 1 + n;
        }
        if (*line)
                return -EINVAL;
        memcpy(ret, sizes, sizeof(sizes));
        return 0;
}

/* Not one byte more: what follows is the client's. */
static int read_exactly(char *ret, size_t size)
{
        while (size > 0) {
                ssize_t n = read(STDIN_FILENO, ret, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ENODATA;
                ret += n;
                size -= (size_t) n;
        }
        return 0;
}

static int read_header(size_t ret[static SSH_OUTSIDE_PARTS])
{
        char line[SSH_OUTSIDE_HEADER_MAX];

        for (size_t n = 0; n < sizeof(line); n++) {
                int r = read_exactly(line + n, 1);

                if (r < 0)
                        return r;
                if (line[n] != '\n')
                        continue;
                line[n] = '\0';
                return ssh_outside_parse(line, ret);
        }
        return -EINVAL;
}

static bool has_content(const char *path, const char *data, size_t size)
{
        char *found = NULL;
        size_t found_size = 0;
        bool same = read_text_file(path, size, &found, &found_size) >= 0 && found_size == size &&
                memcmp(found, data, size) == 0;

        free(found);
        return same;
}

/* Several connections may do so at once, with the same content: whoever reads has the old or the new one, whole. */
static int lay_down(const char *path, const char *data, size_t size)
{
        char temp[PATH_MAX];
        int fd, r;

        if (has_content(path, data, size))
                return 0;
        format_path(temp, sizeof(temp), "%s.%ld", path, (long) getpid());
        fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        r = write_all(fd, data, size);
        if (close(fd) < 0 && r >= 0)
                r = -errno;
        if (r >= 0 && rename(temp, path) < 0)
                r = -errno;
        if (r < 0)
                (void) unlink(temp);
        return r;
}

static int make_private_dir(void)
{
        struct stat st;
        int r = make_dir(DIRECTORY, 0700);

        if (r < 0)
                return r;
        if (lstat(DIRECTORY, &st) < 0)
                return -errno;
        if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
                return -EPERM;
        return chmod(DIRECTORY, 0700) < 0 ? -errno : 0;
}

static int take_part(size_t i, size_t size, char *connection, size_t connection_size)
{
        char *data = malloc(size + 1);
        int r;

        if (!data)
                return -ENOMEM;
        r = read_exactly(data, size);
        data[size] = '\0';
        if (r >= 0 && parts[i].path)
                r = lay_down(parts[i].path, data, size);
        else if (r >= 0)
                (void) snprintf(connection, connection_size, "TBNODE_SSH_CONNECTION=%s", data);
        free(data);
        return r;
}

int ssh_outside_run(void)
{
        char *argv[] = {(char *) "dropbear", (char *) "-i", (char *) "-e", (char *) "-D", (char *) DIRECTORY,
                (char *) "-r", (char *) parts[PART_ED25519].path, (char *) "-r",
                (char *) parts[PART_ECDSA].path, NULL};
        char path[8192], connection[256] = "";
        char *env[] = {path, connection, NULL};
        const char *image_path = getenv("PATH");
        size_t sizes[SSH_OUTSIDE_PARTS];
        int r;

        (void) umask(077);
        r = read_header(sizes);
        if (r >= 0)
                r = make_private_dir();
        for (size_t i = 0; r >= 0 && i < SSH_OUTSIDE_PARTS; i++)
                r = take_part(i, sizes[i], connection, sizeof(connection));
        if (r < 0) {
                say("cannot begin an ssh session: %s", strerror(-r));
                return EXIT_INIT_FAILED;
        }
        (void) umask(022);
        /* The image's own tools first; the mounted ones for what it lacks. */
        if (!image_path || !*image_path || strlen(image_path) > sizeof(path) - 64)
                image_path = USUAL_PATH;
        format_path(path, sizeof(path), "PATH=%s:%s", image_path, TBNODE_BIN_DIR);
        if (chdir("/") < 0)
                return EXIT_INIT_FAILED;
        execve(DROPBEAR, argv, env);
        say("cannot run %s: %s", DROPBEAR, strerror(errno));
        return EXIT_NOT_FOUND;
}
