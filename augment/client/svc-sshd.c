/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sshd: dropbear, with host keys that belong to this node alone
 *
 * The keys are made at the node's first start and stay over its restarts. They must not end up in an image, which a
 * snapshot of the node is, so the agent mounts a volume for them on /tbnode/keys: it lives as long as the container, and
 * no commit takes it along. Without that volume they lie in <rundir>/ssh. There, a file beside them says whose they
 * are: a node that finds keys of somebody else makes new ones.
 *
 * Who may log in is read at each login: /tbnode/run/authorized_keys (the agent's: as anybody), <rundir>/keys/USER (the
 * client's: as USER).
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "augment/client/services.h"
#include "augment/client/util.h"

#define DROPBEAR TBNODE_BIN_DIR "/dropbear"
#define DROPBEARKEY TBNODE_BIN_DIR "/dropbearkey"
#define VOLUME_DIR "/tbnode/keys"
#define MOUNTINFO_MAX (4U * 1024 * 1024)

/* ed25519 for everybody; ecdsa for what is older. An RSA key takes seconds to make. */
static const char *const key_types[] = {"ed25519", "ecdsa"};

static void key_path(char *ret, const char *directory, size_t i)
{
        format_path(ret, PATH_MAX, "%s/host_key_%s", directory, key_types[i]);
}

static int make_key(const char *type, const char *path)
{
        char *argv[] = {
                (char *) "dropbearkey", (char *) "-t", (char *) type, (char *) "-f", (char *) path, NULL};
        char *env[] = {(char *) "PATH=" TBNODE_BIN_DIR, NULL};
        int status;
        pid_t pid;

        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                execve(DROPBEARKEY, argv, env);
                _exit(EXIT_NOT_FOUND);
        }
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* Makes <rundir>/ssh hold keys of this node: those that are there, or new ones. */
static int prepare_keys(const char *directory, const char *owner)
{
        char path[PATH_MAX], *found = NULL;
        bool ours;
        int r;

        format_path(path, sizeof(path), "%s/owner", directory);
        ours = read_text_file(path, 4096, &found, NULL) >= 0 && strcmp(found, owner) == 0;
        free(found);
        if (!ours) {
                r = remove_tree(directory);
                if (r < 0)
                        return r;
        }
        r = make_dir(directory, 0700);
        if (r < 0)
                return r;
        if (chmod(directory, 0700) < 0)
                return -errno;
        if (!ours) {
                r = write_text_file(path, 0600, owner);
                if (r < 0)
                        return r;
        }

        for (size_t i = 0; i < ELEMENTSOF(key_types); i++) {
                struct stat st;

                key_path(path, directory, i);
                if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
                        continue;
                r = remove_tree(path);
                if (r >= 0)
                        r = make_key(key_types[i], path);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Is something mounted there that can be written? Device numbers don't tell: with the storage driver vfs the container's
 * root and its volumes lie in one file system. */
static bool have_volume(void)
{
        char *text = NULL, *rest, *line;
        bool mounted = false;

        if (access(VOLUME_DIR, W_OK) < 0 ||
                read_text_file("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL) < 0)
                return false;
        rest = text;
        while (!mounted && (line = strsep(&rest, "\n"))) {
                const char *target = "";

                /* proc(5): id, parent, device, root, mount point */
                for (int i = 0; line && i < 5; i++)
                        target = strsep(&line, " ");
                mounted = target && strcmp(target, VOLUME_DIR) == 0;
        }
        free(text);
        return mounted;
}

int service_run_sshd(const char *rundir, const NodeConf *conf, const char *image_path)
{
        char directory[PATH_MAX], keys[ELEMENTSOF(key_types)][PATH_MAX], pid[PATH_MAX], port[16],
                users[PATH_MAX];
        char owner[2 * NODE_NAME_MAX + 512], host[256] = "", path[8192], svdir[PATH_MAX];
        char *argv[] = {(char *) "dropbear", (char *) "-F", (char *) "-e", (char *) "-D",
                (char *) TBNODE_RUN_DIR, (char *) "-U", users, (char *) "-P", pid, (char *) "-p", port,
                (char *) "-r", keys[0], (char *) "-r", keys[1], NULL};
        char *env[] = {path, svdir, NULL};
        int r;

        (void) gethostname(host, sizeof(host) - 1);
        snprintf(owner, sizeof(owner), "%s/%s/%s\n", conf->experiment, conf->node, host);
        format_path(directory, sizeof(directory), "%s/ssh", have_volume() ? VOLUME_DIR : rundir);
        format_path(users, sizeof(users), "%s/keys", rundir);
        (void) umask(077);
        r = prepare_keys(directory, owner);
        (void) umask(022);
        if (r < 0)
                return EXIT_INIT_FAILED; /* runsv tries again in a second */

        for (size_t i = 0; i < ELEMENTSOF(key_types); i++)
                key_path(keys[i], directory, i);
        format_path(pid, sizeof(pid), "%s/sshd.pid", rundir);
        snprintf(port, sizeof(port), "%u", conf->ssh_port);
        /* The image's own tools first; the payload's for what it lacks. */
        if (!image_path || !*image_path || strlen(image_path) > sizeof(path) - 64)
                image_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        format_path(path, sizeof(path), "PATH=%s:%s", image_path, TBNODE_BIN_DIR);
        format_path(svdir, sizeof(svdir), "SVDIR=%s/service", rundir);

        if (chdir("/") < 0)
                return EXIT_INIT_FAILED;
        execve(DROPBEAR, argv, env);
        return EXIT_NOT_FOUND;
}
