/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/worker-process.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

/* What one blob may leave behind on disk while it is on its way (registry-client/spool.c keeps no larger ones). */
#define FILE_SIZE_MAX (UINT64_C(10) << 30)
#define FILES_MAX 256U
/* Threads; processes it can't make (augment/sandbox.h). Counted for all of the user's together. */
#define TASKS_MAX 4096U

static const struct passwd *find_user(const char *name, TbError **err)
{
        const struct passwd *pw = getpwnam(name ?: "tbnode-worker");

        if (!pw && !name)
                pw = getpwnam("nobody");
        if (!pw)
                (void) tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no user '%s' to run workers as; set worker-user in the configuration",
                        name ?: "nobody");
        return pw;
}

/* The user is looked up once: with NSS modules that ask elsewhere it costs more than anything else of a start. */
static int check(const char *path, const char *user, uid_t *ret_uid, gid_t *ret_gid, TbError **err)
{
        int r = worker_user(user, ret_uid, ret_gid, err);

        if (r < 0)
                return r;
        if (*ret_uid == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPERM,
                        "workers must not run as root; set worker-user to an unprivileged user");
        if (access(path, X_OK) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot run the augmentation worker %s; install tbnode completely", path);
        return 0;
}

int worker_check(const char *path, const char *user, TbError **err)
{
        uid_t uid;
        gid_t gid;

        return check(path, user, &uid, &gid, err);
}

/* ---- In the child: only async-signal-safe calls ---------------------------------------------------------------- */

typedef struct ChildPlan {
        int fds[WORKER_FD_CONFIG + 1];
        uid_t uid;
        gid_t gid;
        pid_t parent;
        uint64_t memory;
        uint64_t cpu_sec;
        char **argv;
        char **env;
} ChildPlan;

static void child_limit(int what, uint64_t value)
{
        struct rlimit l = {.rlim_cur = value, .rlim_max = value};

        if (setrlimit((__rlimit_resource_t) what, &l) < 0)
                _exit(124);
}

static void child_place_fds(const int *fds)
{
        int moved[WORKER_FD_CONFIG + 1];

        /* Above them first, so that nothing is overwritten before it was moved. */
        for (int i = 0; i <= WORKER_FD_CONFIG; i++)
                if ((moved[i] = fcntl(fds[i], F_DUPFD, 10)) < 0)
                        _exit(124);
        for (int i = 0; i <= WORKER_FD_CONFIG; i++)
                if (dup2(moved[i], i) < 0)
                        _exit(124);
        if (close_range(WORKER_FD_CONFIG + 1, UINT_MAX, 0) < 0)
                _exit(124);
}

static void child_set_limits(const ChildPlan *p)
{
#if !defined(__SANITIZE_ADDRESS__) /* its shadow memory needs terabytes of address space */
        child_limit(RLIMIT_AS, p->memory);
#endif
        child_limit(RLIMIT_NOFILE, FILES_MAX);
        child_limit(RLIMIT_FSIZE, FILE_SIZE_MAX);
        child_limit(RLIMIT_CPU, p->cpu_sec);
        child_limit(RLIMIT_NPROC, TASKS_MAX);
        child_limit(RLIMIT_CORE, 0);
        child_limit(RLIMIT_MEMLOCK, 0);
        child_limit(RLIMIT_MSGQUEUE, 0);
}

static void child_drop_privileges(const ChildPlan *p)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};

        /* Needs CAP_SETPCAP, which the unit doesn't leave the agent; no_new_privs keeps the set from ever being used. */
        for (unsigned long cap = 0; cap <= CAP_LAST_CAP; cap++)
                (void) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        (void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if (setgroups(0, NULL) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 ||
                setresuid(p->uid, p->uid, p->uid) < 0 || syscall(SYS_capset, &header, none) < 0)
                _exit(124);
        /* After the change of user, which clears it (prctl(2)); the parent may have died before. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != p->parent)
                _exit(124);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                _exit(124);
}

static _Noreturn void child_run(const ChildPlan *p)
{
        sigset_t none;

        child_place_fds(p->fds);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) signal(SIGPIPE, SIG_DFL);
        (void) umask(0077);
        child_set_limits(p);
        child_drop_privileges(p);
        if (chdir("/") < 0)
                _exit(124);
        (void) setsid();
        (void) execve(p->argv[0], p->argv, p->env);
        _exit(123);
}

/* ---- Parent ---------------------------------------------------------------------------------------------------- */

static const char *const passed_env[] = {"TBNODE_PAYLOAD_DIR", "TBNODE_LOG_LEVEL", "SSL_CERT_FILE",
        "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ASAN_OPTIONS",
        "UBSAN_OPTIONS", "TMPDIR"};

static int make_env(char ***ret, TbError **err)
{
        _cleanup_strv_ char **env = NULL;
        int r;

        r = tb_strv_append(&env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", err);
        if (r >= 0)
                r = tb_strv_append(&env, "HOME=/nonexistent", err);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(passed_env); i++) {
                const char *value = getenv(passed_env[i]);

                if (value)
                        r = tb_strv_consume(&env, tb_asprintf("%s=%s", passed_env[i], value), err);
        }
        if (r < 0)
                return r;
        *ret = TAKE_PTR(env);
        return 0;
}

static int make_pipe(int ret[static 2], TbError **err)
{
        if (pipe2(ret, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "cannot make a pipe");
        return 0;
}

static int open_fds(WorkerProcess *p, int child[static WORKER_FD_CONFIG + 1], TbError **err)
{
        int pair[2], r;

        if ((r = make_pipe(pair, err)) < 0)
                return r;
        child[STDIN_FILENO] = pair[0];
        p->in = pair[1];
        if ((r = make_pipe(pair, err)) < 0)
                return r;
        p->out = pair[0];
        child[STDOUT_FILENO] = pair[1];
        if ((r = make_pipe(pair, err)) < 0)
                return r;
        p->err = pair[0];
        child[STDERR_FILENO] = pair[1];
        if ((r = tb_set_nonblock(p->out, err)) < 0 || (r = tb_set_nonblock(p->err, err)) < 0)
                return r;
        /* The worker can open it although it may not read the file that its content comes from. */
        p->config = memfd_create("docker-config", MFD_CLOEXEC);
        if (p->config < 0 || fchmod(p->config, 0444) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a memory file");
        child[WORKER_FD_CONFIG] = p->config;
        return 0;
}

static int start(const WorkerProcessOptions *o, WorkerProcess *p, const int *child, uid_t uid, gid_t gid,
        TbError **err)
{
        _cleanup_strv_ char **env = NULL;
        char *argv[] = {(char *) o->path, NULL};
        ChildPlan plan = {
                .parent = getpid(),
                .memory = o->memory,
                .cpu_sec = o->cpu_sec,
                .argv = argv,
                .uid = uid,
                .gid = gid,
        };
        int r;

        r = make_env(&env, err);
        if (r < 0)
                return r;
        plan.env = env;
        memcpy(plan.fds, child, sizeof(plan.fds));
        p->pid = fork();
        if (p->pid < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, -errno, "cannot start the augmentation worker");
        if (p->pid == 0)
                child_run(&plan);
        return 0;
}

int worker_process_start(const WorkerProcessOptions *o, WorkerProcess *ret, TbError **err)
{
        WorkerProcess p = WORKER_PROCESS_INIT;
        int child[WORKER_FD_CONFIG + 1] = {-EBADF, -EBADF, -EBADF, -EBADF};
        uid_t uid = 0;
        gid_t gid = 0;
        int r;

        r = check(o->path, o->user, &uid, &gid, err);
        if (r >= 0)
                r = open_fds(&p, child, err);
        if (r >= 0)
                r = start(o, &p, child, uid, gid, err);
        for (int i = 0; i < WORKER_FD_CONFIG; i++) /* the last one is both's */
                tb_close(child[i]);
        if (r < 0) {
                worker_process_close(&p);
                return r;
        }
        *ret = p;
        return 0;
}

void worker_process_close(WorkerProcess *p)
{
        p->in = tb_close(p->in);
        p->out = tb_close(p->out);
        p->err = tb_close(p->err);
        p->config = tb_close(p->config);
}

int worker_user(const char *name, uid_t *ret_uid, gid_t *ret_gid, TbError **err)
{
        const struct passwd *pw = find_user(name, err);

        if (!pw)
                return -ENOENT;
        *ret_uid = pw->pw_uid;
        *ret_gid = pw->pw_gid;
        return 0;
}
