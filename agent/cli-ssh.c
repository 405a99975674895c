/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * tbnode ssh: ssh(1) with a node's name in place of an address
 *
 * It takes what ssh takes, so that programs that call ssh can call it: rsync -e 'tbnode ssh', scp -S tbnode-ssh (a name of
 * this program, because scp's -S is one word), GIT_SSH.
 */

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* ssh(1), OpenSSH 9. They are passed on as they are, but -l, which we must know of. */
#define SSH_OPTIONS "+46AaCfGgKkMNnqsTtVvXxYyB:b:c:D:E:e:F:I:i:J:L:l:m:O:o:p:Q:R:S:W:w:h"

/*
 * The node is on a bridge of this host and the agent pins its address to its veth, so nobody stands between; and its
 * host key is made when it starts. Checking keys would only teach people to remove lines from known_hosts. Several
 * attempts, because the sshd of a node that was started this moment may still be making its key. ssh takes the first value
 * that it is given, so the caller's go before these.
 */
static const char *const defaults[] = {"-o", "StrictHostKeyChecking=no", "-o",
        "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", "-o",
        "ConnectionAttempts=5"};

static int pass_on(char ***args, int opt, const char *value, TbError **err)
{
        const char flag[] = {'-', (char) opt, 0};
        int r = tb_strv_append(args, flag, err);

        return r >= 0 && value ? tb_strv_append(args, value, err) : r;
}

/* A node that is served from outside has its ssh on a port of this host. */
static int outside_port(const json_t *answer, const char *node, uint16_t *ret, TbError **err)
{
        const char *missing = cli_text(answer, "ssh_missing", NULL);
        json_int_t port = json_integer_value(json_object_get(answer, "ssh_port"));

        if (missing || port <= 0 || port > UINT16_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EADDRNOTAVAIL,
                        "node %s has no ssh: %s. tbnode exec -it %s sh needs none", node,
                        missing ?: "no port was given to it", node);
        *ret = (uint16_t) port;
        return 0;
}

/* *ret_port: 0 = ssh's own. */
static int node_address(Cli *c, const char *node, char **ret, uint16_t *ret_port, TbError **err)
{
        _cleanup_free_ char *path = cli_node_path(node, "");
        _cleanup_json_ json_t *answer = NULL;
        const char *ip;
        int r;

        r = path ? cli_call(c, "GET", path, NULL, &answer, err) : tb_error_oom(err);
        if (r < 0)
                return r;
        ip = cli_text(answer, "ip", NULL);
        *ret_port = 0;
        if (tb_streq(cli_text(answer, "ssh", NULL), "outside")) {
                r = outside_port(answer, node, ret_port, err);
                if (r < 0)
                        return r;
                ip = "127.0.0.1";
        }
        if (!ip)
                return tb_error_set(err, TB_ERROR_CONFIG, -EADDRNOTAVAIL, "node %s is %s and has no address",
                        node, cli_text(answer, "state", ""));
        *ret = strdup(ip);
        return *ret ? 0 : tb_error_oom(err);
}

/* "USER@NODE", or "NODE" (root's, when no -l says otherwise), with the node's address. */
static int add_target(Cli *c, char ***args, const char *where, bool has_login, TbError **err)
{
        const char *at = strrchr(where, '@');
        _cleanup_free_ char *ip = NULL, *target = NULL, *option = NULL;
        uint16_t port = 0;
        int r;

        r = node_address(c, at ? at + 1 : where, &ip, &port, err);
        if (r >= 0 && port != 0) {
                option = tb_asprintf("-p%u", port);
                r = option ? tb_strv_append(args, option, err) : tb_error_oom(err);
        }
        if (r < 0)
                return r;
        if (at)
                target = tb_asprintf("%.*s@%s", (int) (at - where), where, ip);
        else
                target = tb_asprintf("%s%s", has_login ? "" : "root@", ip);
        r = target ? tb_strv_append(args, "--", err) : tb_error_oom(err);
        return r < 0 ? r : tb_strv_append(args, target, err);
}

int cli_ssh(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {
                {"login", required_argument, NULL, 'l'},
                {"identity", required_argument, NULL, 'i'},
                CLI_OPTIONS,
                {},
        };
        _cleanup_strv_ char **args = NULL;
        bool has_login = false;
        TbError *err = NULL;
        int opt, r;

        r = tb_strv_append(&args, "ssh", &err);
        while (r >= 0 && (opt = getopt_long(argc, argv, SSH_OPTIONS, options, NULL)) >= 0)
                switch (opt) {
                case 'h':
                case '?':
                        return cli_getopt_other(c, opt);
                case 'j': /* the session has the output to itself */
                        break;
                default:
                        has_login = has_login || opt == 'l';
                        r = pass_on(&args, opt, optarg, &err);
                }
        if (r >= 0 && optind >= argc)
                return cli_usage(c, "no node is given");
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(defaults); i++)
                r = tb_strv_append(&args, defaults[i], &err);
        if (r >= 0)
                r = add_target(c, &args, argv[optind], has_login, &err);
        for (int i = optind + 1; r >= 0 && i < argc; i++)
                r = tb_strv_append(&args, argv[i], &err);
        if (r < 0)
                return cli_fail(err);
        (void) execvp("ssh", args);
        (void) tb_error_set_errno(
                &err, TB_ERROR_ENVIRONMENT, -errno, "cannot run ssh; install the package openssh-client");
        return cli_fail(err);
}
