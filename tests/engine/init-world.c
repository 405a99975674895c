/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dumps the world of a process as one JSON line, then does what its arguments say. test_init.py runs it in the original
 * and in the augmented image and compares. Static, so that it runs in any image.
 *
 *      exit N     ends with N
 *      kill N     dies of signal N
 *      hold       waits for a signal, prints its number, ends with 0
 *      orphan     leaves a grandchild that ends at once, then prints how many zombies there are
 *      cat FILE   prints the file, then goes on
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

static void text(const char *s)
{
        putchar('"');
        for (; *s; s++)
                if (*s == '"' || *s == '\\')
                        printf("\\%c", *s);
                else if ((unsigned char) *s < 32)
                        printf("\\u%04x", (unsigned char) *s);
                else
                        putchar(*s);
        putchar('"');
}

static void strings(const char *name, char **v)
{
        printf(",\"%s\":[", name);
        for (int i = 0; v[i]; i++) {
                if (i)
                        putchar(',');
                text(v[i]);
        }
        putchar(']');
}

static void groups(void)
{
        gid_t list[256];
        int n = getgroups(256, list);

        printf(",\"groups\":[");
        for (int i = 0; i < n; i++)
                printf("%s%u", i ? "," : "", list[i]);
        putchar(']');
}

/* number, kind, owner, open flags, can it be opened again by name */
static void descriptors(void)
{
        printf(",\"fds\":[");
        for (int fd = 0, first = 1; fd < 256; fd++) {
                char path[64];
                struct stat st;
                int again;

                if (fstat(fd, &st) < 0)
                        continue;
                snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                again = open(path, (fd ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
                printf("%s[%d,%u,%u,%d,%d]", first ? "" : ",", fd, st.st_mode & S_IFMT, st.st_uid,
                        fcntl(fd, F_GETFL) & O_ACCMODE, again >= 0);
                if (again >= 0)
                        close(again);
                first = 0;
        }
        putchar(']');
}

static void status_lines(void)
{
        static const char *const wanted[] = {"SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff",
                "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed",
                "Mems_allowed_list", "Uid", "Gid"};
        FILE *f = fopen("/proc/self/status", "r");
        char line[512];

        while (f && fgets(line, sizeof(line), f)) {
                char *colon = strchr(line, ':');

                line[strcspn(line, "\n")] = '\0';
                if (!colon)
                        continue;
                *colon = '\0';
                for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
                        if (strcmp(line, wanted[i]) == 0) {
                                printf(",\"%s\":", line);
                                text(colon + 1 + strspn(colon + 1, "\t "));
                        }
        }
        if (f)
                fclose(f);
}

static void terminal(void)
{
        struct winsize w = {};
        int tty = open("/dev/tty", O_RDWR | O_NOCTTY);

        printf(",\"isatty\":[%d,%d,%d]", isatty(0), isatty(1), isatty(2));
        printf(",\"leads_session\":%d,\"leads_group\":%d", getsid(0) == getpid(), getpgrp() == getpid());
        printf(",\"has_terminal\":%d,\"in_foreground\":%d", tty >= 0,
                tty >= 0 && tcgetpgrp(tty) == getpgrp());
        if (tty >= 0 && ioctl(tty, TIOCGWINSZ, &w) == 0)
                printf(",\"size\":[%d,%d]", w.ws_row, w.ws_col);
        if (tty >= 0)
                close(tty);
}

static void limits(void)
{
        printf(",\"limits\":[");
        for (int i = 0; i < 16; i++) {
                struct rlimit l = {};

                getrlimit(i, &l);
                printf("%s[%lld,%lld]", i ? "," : "", (long long) l.rlim_cur, (long long) l.rlim_max);
        }
        putchar(']');
}

static int zombies(void)
{
        DIR *proc = opendir("/proc");
        struct dirent *de;
        int n = 0;

        while (proc && (de = readdir(proc))) {
                char path[300], line[512], *state;
                FILE *f;

                snprintf(path, sizeof(path), "/proc/%s/stat", de->d_name);
                f = fopen(path, "r");
                if (f && fgets(line, sizeof(line), f) && (state = strrchr(line, ')')) &&
                        strstr(state, ") Z"))
                        n++;
                if (f)
                        fclose(f);
        }
        return n;
}

/* What prctl(2), sched(7), personality(2) and proc(5) tell and a parent could have changed. */
static void attributes(void)
{
        char score[32] = "";
        int fd = open("/proc/self/oom_score_adj", O_RDONLY), death = 0;

        if (fd >= 0) {
                (void) !read(fd, score, sizeof(score) - 1);
                close(fd);
        }
        score[strcspn(score, "\n")] = '\0';
        (void) prctl(PR_GET_PDEATHSIG, &death);
        printf(",\"oom_score_adj\":\"%s\",\"dumpable\":%d,\"keepcaps\":%d,\"securebits\":%d,\"death_"
               "signal\":%d",
                score, prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS), prctl(PR_GET_SECUREBITS), death);
        printf(",\"personality\":%d,\"scheduler\":%d,\"timer_slack\":%d", personality(0xffffffff),
                sched_getscheduler(0), prctl(PR_GET_TIMERSLACK));
}

/* Mount points and kinds, in the order of /proc/self/mounts. */
static void mounts(void)
{
        FILE *f = fopen("/proc/self/mounts", "r");
        char line[4096], point[1024], type[64];
        int n = 0;

        printf(",\"mounts\":[");
        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "%*s %1023s %63s", point, type) == 2) {
                        printf("%s[", n++ ? "," : "");
                        text(point);
                        putchar(',');
                        text(type);
                        putchar(']');
                }
        if (f)
                fclose(f);
        putchar(']');
}

static int print_file(const char *path)
{
        FILE *f = fopen(path, "r");
        int c;

        if (!f)
                return -1;
        while ((c = getc(f)) != EOF)
                putchar(c);
        fclose(f);
        return 0;
}

/* Our grandchild ends when its parent has: the pipe tells us when. */
static void orphan(void)
{
        int fds[2];
        char c;

        if (pipe(fds) < 0)
                exit(98);
        if (fork() == 0) {
                pid_t parent = getpid();

                if (fork() == 0) {
                        while (getppid() == parent)
                                usleep(1000);
                        _exit(0);
                }
                _exit(0);
        }
        close(fds[1]);
        wait(NULL);
        (void) !read(fds[0], &c, 1);
        usleep(200000);
        printf("{\"zombies\":%d}\n", zombies());
}

static void unblock_all(void)
{
        unsigned long long none = 0;

        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
}

int main(int argc, char **argv)
{
        unsigned long long all = ~0ULL, old = 0;
        char cwd[4096] = "";
        mode_t mask;

        mask = umask(0);
        umask(mask);
        (void) !getcwd(cwd, sizeof(cwd));
        printf("{\"uid\":%u,\"gid\":%u,\"umask\":%u,\"cwd\":", getuid(), getgid(), mask);
        text(cwd);
        strings("argv", argv);
        strings("env", environ);
        groups();
        status_lines();
        terminal();
        limits();
        attributes();
        mounts();
        descriptors();
        printf(",\"nice\":%d}\n", getpriority(PRIO_PROCESS, 0));
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
        fflush(stdout);

        for (int i = 1; i < argc; i++) {
                int n = i + 1 < argc ? atoi(argv[i + 1]) : 0;

                if (!strcmp(argv[i], "exit"))
                        return n;
                if (!strcmp(argv[i], "kill")) {
                        unblock_all();
                        kill(getpid(), n);
                        return 99;
                }
                if (!strcmp(argv[i], "hold")) {
                        struct timespec *forever = NULL;
                        unsigned long long wanted = ~0ULL & ~(1ULL << (SIGCHLD - 1));
                        long s = syscall(SYS_rt_sigtimedwait, &wanted, NULL, forever, 8);

                        printf("{\"signal\":%ld}\n", s);
                        fflush(stdout);
                        return 0;
                }
                if (!strcmp(argv[i], "cat") && i + 1 < argc && print_file(argv[i + 1]) < 0)
                        return 97;
                if (!strcmp(argv[i], "orphan")) {
                        orphan();
                        return 0;
                }
        }
        return 0;
}
