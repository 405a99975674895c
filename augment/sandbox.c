/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "augment/sandbox.h"
#include "common/cleanup.h"

/* ---- Landlock ---------------------------------------------------------------------------------------------------- */

/* linux/landlock.h of Debian 12 is older than what kernels have: the layout grows at its end, so it is written down here
 * (Documentation/userspace-api/landlock.rst). */
typedef struct LandlockRuleset {
        uint64_t handled_fs;
        uint64_t handled_net; /* since ABI 4 */
        uint64_t scoped;      /* since ABI 6 */
} LandlockRuleset;

typedef struct __attribute__((packed)) LandlockPathBeneath {
        uint64_t allowed;
        int32_t parent_fd;
} LandlockPathBeneath;

#define LANDLOCK_VERSION_FLAG 1U
#define LANDLOCK_PATH_BENEATH 1
#define LANDLOCK_FS_WRITE_FILE (UINT64_C(1) << 1)
#define LANDLOCK_FS_READ_FILE (UINT64_C(1) << 2)
#define LANDLOCK_FS_READ_DIR (UINT64_C(1) << 3)
#define LANDLOCK_FS_REMOVE_FILE (UINT64_C(1) << 5)
#define LANDLOCK_FS_MAKE_REG (UINT64_C(1) << 8)
#define LANDLOCK_FS_TRUNCATE (UINT64_C(1) << 14)
#define LANDLOCK_FS_FILE_ONLY (LANDLOCK_FS_WRITE_FILE | LANDLOCK_FS_READ_FILE | LANDLOCK_FS_TRUNCATE)
#define LANDLOCK_NET_BIND_TCP (UINT64_C(1) << 0)
#define LANDLOCK_SCOPES UINT64_C(3) /* abstract unix sockets, signals */

/* Bits of the file system that an ABI knows. */
static uint64_t landlock_fs_all(int abi)
{
        unsigned bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;

        return (UINT64_C(1) << bits) - 1;
}

static int landlock_abi(void)
{
        long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_FLAG);

        return r > 0 ? (int) r : 0;
}

static int landlock_allow(int ruleset, const char *path, uint64_t access, TbError **err)
{
        _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
        LandlockPathBeneath rule = {.allowed = access, .parent_fd = fd};
        struct stat st;

        if (fd < 0) /* what isn't there, or may not be reached, needs no permission */
                return 0;
        if (fstat(fd, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot look at %s", path);
        if (!S_ISDIR(st.st_mode))
                rule.allowed &= LANDLOCK_FS_FILE_ONLY;
        if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_PATH_BENEATH, &rule, 0) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot add %s to the sandbox", path);
        return 0;
}

static int landlock_enter(const SandboxOptions *o, int abi, TbError **err)
{
        /* Names are resolved with what lies in these: /etc/resolv.conf may lead to /run. */
        static const char *const base[] = {"/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve",
                "/run/resolvconf", "/dev/null", "/dev/urandom", NULL};
        const uint64_t read = LANDLOCK_FS_READ_FILE | LANDLOCK_FS_READ_DIR;
        uint64_t all = landlock_fs_all(abi);
        LandlockRuleset attr = {
                .handled_fs = all,
                .handled_net = abi >= 4 ? LANDLOCK_NET_BIND_TCP : 0,
                .scoped = abi >= 6 ? LANDLOCK_SCOPES : 0,
        };
        size_t size = abi >= 6 ? sizeof(attr)
                : abi >= 4     ? offsetof(LandlockRuleset, scoped)
                               : offsetof(LandlockRuleset, handled_net);
        _cleanup_close_ int ruleset = (int) syscall(SYS_landlock_create_ruleset, &attr, size, 0);
        int r = 0;

        if (ruleset < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a landlock ruleset");
        for (size_t i = 0; r >= 0 && base[i]; i++)
                r = landlock_allow(ruleset, base[i], read, err);
        for (size_t i = 0; r >= 0 && o->read && o->read[i]; i++)
                r = landlock_allow(ruleset, o->read[i], read, err);
        if (r >= 0 && o->write_dir)
                r = landlock_allow(ruleset, o->write_dir,
                        all &
                                (read | LANDLOCK_FS_FILE_ONLY | LANDLOCK_FS_REMOVE_FILE |
                                        LANDLOCK_FS_MAKE_REG),
                        err);
        if (r < 0)
                return r;
        if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot enter the landlock sandbox");
        return 0;
}

/* ---- Seccomp ----------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef FILTER_ARCH

/* What a TCP client that unpacks archives and writes one directory needs, by this libc and its neighbours; threads, but no
 * processes. Those with conditions are in the program below. */
static const int allowed[] = {
        /* data */
        SYS_read,
        SYS_write,
        SYS_readv,
        SYS_writev,
        SYS_pread64,
        SYS_pwrite64,
        SYS_lseek,
        SYS_close,
        SYS_close_range,
        SYS_dup,
        SYS_dup3,
        SYS_fcntl,
        SYS_ioctl,
        SYS_pipe2,
        SYS_fsync,
        SYS_fdatasync,
        SYS_ftruncate,
        SYS_fallocate,
        SYS_flock,
        /* names; which ones is landlock's and the user's business */
        SYS_openat,
        SYS_fstat,
        SYS_newfstatat,
        SYS_statx,
        SYS_faccessat,
        SYS_faccessat2,
        SYS_readlinkat,
        SYS_getdents64,
        SYS_unlinkat,
        SYS_mkdirat,
        SYS_getcwd,
        /* memory */
        SYS_brk,
        SYS_mmap,
        SYS_munmap,
        SYS_mprotect,
        SYS_mremap,
        SYS_madvise,
        /* waiting */
        SYS_ppoll,
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_epoll_pwait,
        SYS_epoll_pwait2,
        SYS_pselect6,
        SYS_timerfd_create,
        SYS_timerfd_settime,
        SYS_timerfd_gettime,
        SYS_eventfd2,
        SYS_nanosleep,
        SYS_clock_nanosleep,
        SYS_restart_syscall,
        /* sockets */
        SYS_connect,
        SYS_bind,
        SYS_getsockname,
        SYS_getpeername,
        SYS_setsockopt,
        SYS_getsockopt,
        SYS_sendto,
        SYS_recvfrom,
        SYS_sendmsg,
        SYS_recvmsg,
        SYS_sendmmsg,
        SYS_recvmmsg,
        SYS_shutdown,
        SYS_socketpair,
        /* threads, signals, time, identity */
        SYS_futex,
        SYS_set_robust_list,
        SYS_get_robust_list,
        SYS_rseq,
        SYS_sched_yield,
        SYS_sched_getaffinity,
        SYS_membarrier,
        SYS_exit,
        SYS_exit_group,
        SYS_rt_sigaction,
        SYS_rt_sigprocmask,
        SYS_rt_sigreturn,
        SYS_rt_sigtimedwait,
        SYS_sigaltstack,
        SYS_signalfd4,
        SYS_tgkill,
        SYS_gettid,
        SYS_getpid,
        SYS_getppid,
        SYS_getuid,
        SYS_geteuid,
        SYS_getgid,
        SYS_getegid,
        SYS_clock_gettime,
        SYS_clock_getres,
        SYS_gettimeofday,
        SYS_getrandom,
        SYS_uname,
        SYS_sysinfo,
        SYS_getrusage,
        SYS_prctl,
#ifdef __x86_64__
        /* the old names, which libc still calls here */
        SYS_open,
        SYS_stat,
        SYS_lstat,
        SYS_access,
        SYS_readlink,
        SYS_unlink,
        SYS_mkdir,
        SYS_poll,
        SYS_epoll_wait,
        SYS_select,
        SYS_pipe,
        SYS_dup2,
        SYS_time,
        SYS_getrlimit,
#endif
};

/* A program with a hole in it that somebody uses looks like this. */
static const int deadly[] = {
        SYS_execve,
        SYS_execveat,
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_unshare,
        SYS_setns,
        SYS_mount,
        SYS_bpf,
        SYS_keyctl,
        SYS_add_key,
        SYS_io_uring_setup,
        SYS_userfaultfd,
        SYS_perf_event_open,
        SYS_memfd_create,
};

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARG(i)                        \
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, \
                offsetof(struct seccomp_data, args[i])) /* the low half: both are little-endian */
#define IF_EQUAL(value, then, otherwise) \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) (value), then, otherwise)
#define IF_BITS(value, then, otherwise) \
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t) (value), then, otherwise)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define REFUSE(code) RETURN(SECCOMP_RET_ERRNO | (uint32_t) (code))

/* Conditions first, as each reloads the number's place with an argument and so must end in a verdict. */
static const struct sock_filter head[] = {
        LOAD(arch),
        IF_EQUAL(FILTER_ARCH, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        /* Its flags lie in memory, where a filter can't look; libc then takes clone. */
        IF_EQUAL(SYS_clone3, 0, 1),
        REFUSE(ENOSYS),
        IF_EQUAL(SYS_clone, 0, 4),
        LOAD_ARG(0),
        IF_BITS(CLONE_THREAD, 0, 1),
        RETURN(SECCOMP_RET_ALLOW),
        REFUSE(EPERM),
        IF_EQUAL(SYS_socket, 0, 6),
        LOAD_ARG(0),
        IF_EQUAL(AF_INET, 3, 0),
        IF_EQUAL(AF_INET6, 2, 0),
        IF_EQUAL(AF_NETLINK, 1, 0),
        REFUSE(EAFNOSUPPORT),
        RETURN(SECCOMP_RET_ALLOW),
};

#define FILTER_MAX (ELEMENTSOF(head) + 2 * (ELEMENTSOF(allowed) + ELEMENTSOF(deadly)) + 1)

static int seccomp_enter(bool *ret, TbError **err)
{
        struct sock_filter filter[FILTER_MAX];
        struct sock_fprog program = {.filter = filter};
        size_t n = ELEMENTSOF(head);

        memcpy(filter, head, sizeof(head));
        for (size_t i = 0; i < ELEMENTSOF(allowed); i++) {
                filter[n++] = (struct sock_filter) IF_EQUAL(allowed[i], 0, 1);
                filter[n++] = (struct sock_filter) RETURN(SECCOMP_RET_ALLOW);
        }
        for (size_t i = 0; i < ELEMENTSOF(deadly); i++) {
                filter[n++] = (struct sock_filter) IF_EQUAL(deadly[i], 0, 1);
                filter[n++] = (struct sock_filter) RETURN(SECCOMP_RET_KILL_PROCESS);
        }
        filter[n++] = (struct sock_filter) REFUSE(EPERM);
        program.len = (unsigned short) n;
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0)
                *ret = true;
        else if (errno != EINVAL && errno != ENOSYS) /* those: a kernel without it */
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot load the system call filter");
        return 0;
}

static bool seccomp_available(void)
{
        uint32_t action = SECCOMP_RET_KILL_PROCESS;

        return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

#else /* another architecture: nobody has made a list for it */

static int seccomp_enter(bool *ret, TbError **err)
{
        return 0;
}

static bool seccomp_available(void)
{
        return false;
}

#endif

/* ---- All of it --------------------------------------------------------------------------------------------------- */

int sandbox_enter(const SandboxOptions *options, SandboxReport *ret, TbError **err)
{
        SandboxReport got = {.landlock = landlock_abi()};
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot set no_new_privs");
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot forbid core dumps");
#if defined(__SANITIZE_ADDRESS__)
        /* It reads /proc, starts processes for its reports and unmaps in ways of its own. */
        (void) options;
        (void) landlock_enter;
        (void) seccomp_enter;
        got.landlock = 0;
        r = 0;
#else
#ifndef PR_SET_MDWE /* linux/prctl.h, since 6.3 */
#define PR_SET_MDWE 65
#endif
        (void) prctl(PR_SET_MDWE, 1UL, 0UL, 0UL, 0UL);
        if (got.landlock > 0 && (r = landlock_enter(options, got.landlock, err)) < 0)
                return r;
        r = seccomp_enter(&got.seccomp, err);
#endif
        if (r >= 0 && ret)
                *ret = got;
        return r;
}

void sandbox_probe(SandboxReport *ret)
{
        *ret = (SandboxReport){.landlock = landlock_abi(), .seccomp = seccomp_available()};
}
