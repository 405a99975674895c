/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * tbnode-runtime: the start gate
 *
 * An OCI runtime for dockerd (--add-runtime tbnode=..., or as default-runtime) that is the real runtime, runc or crun, but for one
 * moment: before `start` it asks the agent whether the container's links are shaped and its rules are in the kernel, and waits.
 * Between `create` and `start` the container's network namespace and its interfaces exist and no code of the user's has run: what
 * is in place then precedes the first packet. Every other verb, and containers without a label of ours, go straight through.
 *
 * Before `create` it adds one mount to containers whose label asks for it: the programs for ssh from outside (outside-ssh.h).
 *
 * It keeps nothing: killed at any instant it leaves a container that has not started.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/runtime-bundle.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define CONFIG_FILE "/etc/tbnode/tbnoded.conf"
#define CONFIG_OPTION "--tbnode-config="
#define CONFIG_MAX (1024U * 1024)
#define ANSWER_MAX 16384U
#define SOCKET_NAME "gate.sock"
/* An agent that is being restarted is back well before that. */
#define ABSENT_NS (UINT64_C(10) * 1000000000)
/* The agent gives up first and says why; this is for one that hangs. */
#define ANSWER_NS (UINT64_C(120) * 1000000000)

typedef struct Settings {
        char *runtime;
        char *run_dir;
        char *ssh_tree;
        bool optional;
} Settings;

typedef struct Call {
        const char *verb, *id;
        const char *root, *log; /* --root, --log */
        const char *bundle;     /* --bundle of `create` */
        bool log_json;
} Call;

/* ---- Configuration --------------------------------------------------------------------------------------------- */

/* The agent's file; what is in it for others is skipped, and whether it is right `tbnoded --check-config` says. */
static void settings_take(Settings *s, char *line)
{
        char *value = strchr(line, '=');
        size_t n;

        if (line[0] == '#' || line[0] == ';' || !value)
                return;
        *value++ = '\0';
        for (n = strlen(line); n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'); n--)
                line[n - 1] = '\0';
        value += strspn(value, " \t");
        for (n = strlen(value);
                n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t' || value[n - 1] == '\r'); n--)
                value[n - 1] = '\0';
        if (tb_streq(line, "oci-runtime") && *value) {
                free(s->runtime);
                s->runtime = strdup(value);
        } else if (tb_streq(line, "run-dir") && value[0] == '/') {
                free(s->run_dir);
                s->run_dir = strdup(value);
        } else if (tb_streq(line, "ssh-tree") && value[0] == '/') {
                free(s->ssh_tree);
                s->ssh_tree = strdup(value);
        } else if (tb_streq(line, "gate"))
                s->optional = tb_streq(value, "optional");
}

static void settings_done(Settings *s)
{
        free(s->runtime);
        free(s->run_dir);
        free(s->ssh_tree);
}

static int settings_load(Settings *s, const char *path, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        char *save = NULL;
        size_t size;

        s->runtime = strdup("runc");
        s->run_dir = strdup("/run/tbnode");
        s->ssh_tree = strdup(TBNODE_LIBEXECDIR "/node");
        if (tb_file_read(path, CONFIG_MAX, &text, &size, NULL) >= 0)
                for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                        settings_take(s, line + strspn(line, " \t"));
        return s->runtime && s->run_dir && s->ssh_tree ? 0 : tb_error_oom(err);
}

/* ---- The command line ------------------------------------------------------------------------------------------ */

/* Does this global option of runc or crun take the next word as its value? */
static bool takes_value(const char *option)
{
        static const char *const with[] = {"--root", "--log", "--log-format", "--log-level", "--criu",
                "--rootless", "--cgroup-manager", "-root", "-log", "-log-format", NULL};

        for (const char *const *w = with; *w; w++)
                if (tb_streq(*w, option))
                        return true;
        return false;
}

static const char *option_value(char **argv, int *i, const char *name)
{
        const char *rest = tb_startswith(argv[*i], name);

        if (!rest)
                return NULL;
        if (*rest == '=')
                return rest + 1;
        return *rest == '\0' ? argv[*i + 1] : NULL;
}

static void parse_call(char **argv, Call *ret)
{
        *ret = (Call){};
        for (int i = 1; argv[i]; i++) {
                const char *value;

                if (ret->verb) { /* options of the verb; the id is its last word */
                        if (argv[i][0] != '-')
                                ret->id = argv[i];
                        else if ((value = option_value(argv, &i, "--bundle")) ||
                                (value = option_value(argv, &i, "-b")))
                                ret->bundle = value;
                        continue;
                }
                if (argv[i][0] != '-') {
                        ret->verb = argv[i];
                        continue;
                }
                if ((value = option_value(argv, &i, "--root")))
                        ret->root = value;
                else if ((value = option_value(argv, &i, "--log-format")))
                        ret->log_json = tb_streq(value, "json");
                else if ((value = option_value(argv, &i, "--log")))
                        ret->log = value;
                if (takes_value(argv[i]) && argv[i + 1])
                        i++;
        }
}

/* ---- Words to the caller ---------------------------------------------------------------------------------------- */

/* As the real runtime does: on stderr, and into the log file that containerd's shim reads the reason from. */
static void say(const Call *c, const char *level, const char *message)
{
        _cleanup_json_ json_t *line = NULL;
        _cleanup_free_ char *text = NULL;
        struct timespec now;
        struct tm tm;
        char when[64];

        fprintf(stderr, "tbnode-runtime: %s\n", message);
        if (!c->log || !c->log_json)
                return;
        (void) clock_gettime(CLOCK_REALTIME, &now);
        if (!gmtime_r(&now.tv_sec, &tm) || strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                return;
        line = json_pack("{s:s, s:s, s:s}", "level", level, "msg", message, "time", when);
        text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        int fd = text ? open(c->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
        if (fd < 0)
                return;
        (void) dprintf(fd, "%s\n", text); /* the text is on stderr all the same */
        (void) close(fd);
}

/* ---- The gate --------------------------------------------------------------------------------------------------- */

static int wait_for(int fd, short events, uint64_t deadline)
{
        for (;;) {
                uint64_t now = tb_now_ns();
                struct pollfd p = {.fd = fd, .events = events};

                if (now >= deadline)
                        return -ETIMEDOUT;
                int n = poll(&p, 1, (int) ((deadline - now) / 1000000 + 1));
                if (n > 0)
                        return 0;
                if (n < 0 && errno != EINTR)
                        return -errno;
        }
}

/* An agent that hangs must not hold dockerd for ever: SO_SNDTIMEO bounds connect(2) to a full queue, too (unix(7)). */
static int gate_socket(TbError **err)
{
        struct timeval limit = {.tv_sec = ANSWER_NS / 1000000000};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot make a socket");
        return TAKE_FD(fd);
}

/* A new socket in the directory is worth another try; inotify(7) instead of asking again and again. */
static int gate_connect(const char *dir, uint64_t deadline, int *ret, TbError **err)
{
        _cleanup_close_ int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        char events[4096];
        int r;

        if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/" SOCKET_NAME, dir) >= (int) sizeof(a.sun_path))
                return tb_error_set(err, TB_ERROR_CONFIG, -ENAMETOOLONG, "run-dir is too long for a socket");
        if (watch >= 0)
                (void) inotify_add_watch(watch, dir, IN_CREATE | IN_MOVED_TO);
        for (;;) {
                _cleanup_close_ int fd = gate_socket(err);

                if (fd < 0)
                        return fd;
                if (connect(fd, (struct sockaddr *) &a, sizeof(a)) == 0) {
                        *ret = TAKE_FD(fd);
                        return 0;
                }
                r = -errno;
                if (watch < 0 || (r != -ENOENT && r != -ECONNREFUSED) ||
                        wait_for(watch, POLLIN, deadline) < 0)
                        return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, r,
                                "the testbed's agent (tbnoded) does not answer at %s; start it, or set "
                                "gate=optional",
                                a.sun_path);
                while (read(watch, events, sizeof(events)) > 0)
                        ;
        }
}

/* An agent that is killed with this request in its queue must not take the runtime with it: no SIGPIPE. (Ignoring the signal would
 * be inherited by the real runtime.) */
static int gate_send(int fd, const char *request, TbError **err)
{
        for (size_t done = 0, size = strlen(request); done < size;) {
                ssize_t n = send(fd, request + done, size - done, MSG_NOSIGNAL);

                if (n >= 0)
                        done += (size_t) n;
                else if (errno == EAGAIN)
                        return tb_error_set(err, TB_ERROR_SYSTEM, -ETIMEDOUT,
                                "the testbed's agent (tbnoded) does not take requests; see its log");
                else if (errno != EINTR)
                        return tb_error_set(err, TB_ERROR_SYSTEM, -EPIPE,
                                "the testbed's agent (tbnoded) ended meanwhile");
        }
        return 0;
}

static int gate_exchange(int fd, const char *request, char *answer, TbError **err)
{
        uint64_t deadline = tb_now_ns() + ANSWER_NS;
        size_t n = 0;

        int r = gate_send(fd, request, err);
        if (r < 0)
                return r;
        for (;;) {
                if (wait_for(fd, POLLIN, deadline) < 0)
                        return tb_error_set(err, TB_ERROR_SYSTEM, -ETIMEDOUT,
                                "the testbed's agent (tbnoded) took the request and did not answer; see its "
                                "log");
                ssize_t k = read(fd, answer + n, ANSWER_MAX - n);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k <= 0) /* it was restarted, or killed: another one will take the request */
                        return tb_error_set(err, TB_ERROR_SYSTEM, -EPIPE,
                                "the testbed's agent (tbnoded) ended meanwhile");
                n += (size_t) k;
                if (memchr(answer, '\n', n)) {
                        answer[n] = '\0';
                        return 0;
                }
                if (n == ANSWER_MAX)
                        return tb_error_set(err, TB_ERROR_SYSTEM, -EMSGSIZE,
                                "the testbed's agent gave no proper answer");
        }
}

/* 0: the container may start. -ECONNREFUSED: `message` in *err, and nobody decided. */
static int gate_ask(const Settings *s, const json_t *description, TbError **err)
{
        _cleanup_free_ char *text = json_dumps(description, JSON_COMPACT), *request = NULL,
                            *answer = malloc(ANSWER_MAX + 1);
        _cleanup_json_ json_t *j = NULL;
        uint64_t deadline = tb_now_ns() + ABSENT_NS;

        request = text ? tb_asprintf("%s\n", text) : NULL;
        if (!request || !answer)
                return tb_error_oom(err);
        for (;;) {
                _cleanup_error_ TbError *broken = NULL;
                _cleanup_close_ int fd = -EBADF;

                if (gate_connect(s->run_dir, deadline, &fd, err) < 0)
                        return -ECONNREFUSED;
                int r = gate_exchange(fd, request, answer, &broken);
                if (r >= 0)
                        break;
                if (r != -EPIPE || tb_now_ns() >= deadline + ANSWER_NS)
                        return tb_error_move(err, &broken);
                deadline = tb_now_ns() + ABSENT_NS;
        }
        if (tb_json_parse(answer, strlen(answer), ANSWER_MAX, "the agent's answer", &j, err) < 0)
                return -EBADMSG;
        if (json_is_true(json_object_get(j, "ok")))
                return 0;
        return tb_error_set(err, TB_ERROR_CONFIG, -EPERM, "%s",
                json_string_value(json_object_get(j, "error"))
                        ?: "the testbed's agent refused the container");
}

static int gate(const Settings *s, const Call *c)
{
        _cleanup_free_ char *bundle = runtime_find_bundle(c->root, c->id), *message = NULL;
        _cleanup_json_ json_t *description = NULL;
        _cleanup_error_ TbError *err = NULL;
        int r = bundle ? runtime_describe(bundle, c->id, &description, &err) : 0;

        if (r == 0)
                return 0;
        if (r > 0)
                r = gate_ask(s, description, &err);
        if (r >= 0)
                return 0;
        if (r == -ECONNREFUSED && s->optional) {
                message = tb_asprintf(
                        "starting without the testbed's shaping and rules: %s", tb_error_message(err));
                say(c, "warning", message ?: tb_error_message(err));
                return 0;
        }
        message = tb_asprintf("tbnode: %s", tb_error_message(err));
        say(c, "error", message ?: tb_error_message(err));
        return r;
}

/* A container without them starts all the same, and its ssh says why there is none. */
static void add_programs(const Settings *s, const Call *c)
{
        _cleanup_error_ TbError *err = NULL;

        if (c->bundle && runtime_add_programs(c->bundle, c->id, s->ssh_tree, &err) < 0)
                say(c, "warning", tb_error_message(err));
}

int main(int argc, char **argv)
{
        const char *config = CONFIG_FILE;
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(settings_done) Settings s = {};
        Call c;

        if (argc == 2 && tb_streq(argv[1], "--tbnode-help")) {
                printf("Usage: tbnode-runtime [" CONFIG_OPTION "FILE] WORDS OF THE REAL RUNTIME...\n\n"
                       "An OCI runtime for dockerd: runc (oci-runtime in " CONFIG_FILE "), which starts a\n"
                       "container with labels tbnode.* when tbnoded has shaped its links and set its "
                       "rules.\n");
                return EXIT_SUCCESS;
        }
        for (; argc > 1 && tb_startswith(argv[1], CONFIG_OPTION); argc--, argv++)
                config = argv[1] + strlen(CONFIG_OPTION);
        if (settings_load(&s, config, &err) < 0) {
                fprintf(stderr, "tbnode-runtime: %s\n", tb_error_message(err));
                return EXIT_FAILURE;
        }
        parse_call(argv, &c);
        if (c.id && tb_streq(c.verb, "create"))
                add_programs(&s, &c);
        if (c.id && tb_streq(c.verb, "start") && gate(&s, &c) < 0)
                return EXIT_FAILURE;
        argv[0] = s.runtime;
        (void) execvp(s.runtime, argv);
        fprintf(stderr, "tbnode-runtime: cannot run %s: %s; set oci-runtime in %s\n", s.runtime,
                strerror(errno), config);
        return 127;
}
