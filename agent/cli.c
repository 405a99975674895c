/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "agent/config.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

#define AUGMENT_OPTIONS                                                                                   \
        "  --level LEVEL      none, basic, core, buildenv or full: how much is added\n"                   \
        "  --builder BUILDER  native or docker\n"                                                         \
        "  --platform OS/ARCH the image's platform, like linux/arm64 (default: augment\n"                 \
        "                     makes all of an index, others are about this host's)\n"                     \
        "  --project NAME     keep the images for this project, which sees them alone\n"                  \
        "  --policy POLICY    latest (ask what the tag is now) or cached (while it is mirrored, don't)\n" \
        "  --update           ask the registry, and augment again what is augmented already\n"            \
        "  --file FILE        the Dockerfile of an image that is built, when it is another one\n"         \
        "  --build-context DIR   of an image that is built, when the Dockerfile does not lie there\n"     \
        "  IMAGE: [docker://]NAME in a registry, oci:DIR[:TAG], docker-archive:FILE[:NAME],\n"            \
        "  docker-daemon:NAME, dockerfile:DIR, dockerfile:FILE, dockerfile:URL\n"

const CliVerb cli_verbs[] = {
        {"augment", "augment [OPTIONS] IMAGE", "Add init, sshd and testbed software to an image",
                AUGMENT_OPTIONS, cli_augment},
        {"dockerfile", "dockerfile [OPTIONS] IMAGE", "Print the Dockerfile of an augmentation",
                AUGMENT_OPTIONS "  --context DIR      write it and its build context into DIR\n",
                cli_dockerfile},
        {"run", "run [OPTIONS] IMAGE [CMD...]", "Make a node of an image",
                "  --name NAME        of the node (default: made up from the image)\n"
                "  --experiment NAME  the node belongs to\n" AUGMENT_OPTIONS
                "  --network NAME     experiment network, made when missing; may be given more than once\n"
                "  --shape SPEC       of every experiment interface, like 'rate 10mbit delay 20ms'\n"
                "  --firewall STYLE   none, open, basic, closed or elabinelab, then rules: 'closed; allow "
                "tcp to port 80' (default\n"
                "                     open)\n"
                "  --on-exit WHAT     stay, stop or restart when its program has ended (default stay)\n"
                "  --ssh-key FILE     public key(s) that may log in, or none (default: your "
                "~/.ssh/id_*.pub)\n"
                "  --declare FILE     what the node is to be (see tbnode declare); its level is core then\n"
                "  --startup COMMAND  to be run once the node is set up, by --startup-user USER (default "
                "root)\n"
                "  -e, --env NAME=VALUE      -v, --volume SOURCE:/TARGET[:ro]   -p, --publish "
                "[[IP:]PORT:]PORT[/udp]\n"
                "  -u, --user USER           -w, --workdir DIR                  --entrypoint PROGRAM\n"
                "  --cpus N           processors' time, like 0.5\n"
                "  -m, --memory SIZE  like 512m, swap included\n"
                "  --pids-limit N     processes and threads\n",
                cli_run},
        {"images", "images", "List the images in the testbed's registry, and who uses them", NULL,
                cli_images},
        {"prune", "prune [--keep-days N] [--dry-run]", "Remove images that nobody uses",
                "  --keep-days N  those that were used in the last N days stay (default 30)\n"
                "  -n, --dry-run  only say what would go\n"
                "  What a container uses stays, and what images that stay are made from. Only for root.\n",
                cli_prune},
        {"ps", "ps", "List the nodes", NULL, cli_ps},
        {"inspect", "inspect NODE", "Everything about a node, with what the kernel has for it", NULL,
                cli_inspect},
        {"shape",
                "shape show [NODE] | check [--no-rate] [NODE [IFACE]] | set NODE IFACE SPEC...|--rules FILE "
                "[for TIME] | "
                "down|up NODE IFACE [for TIME] | flap NODE IFACE DOWN UP [COUNT] [for TIME] | clear NODE "
                "IFACE",
                "Show or change the shaping of links",
                "  IFACE is a Docker network or an interface's name inside the node. SPEC has the words of "
                "tc(8):\n"
                "  rate 10mbit delay 20ms 2ms distribution normal loss 1% limit 200 reorder 5% duplicate 1% "
                "corrupt 0.1%\n"
                "  'up' (from the node) or 'down' (to it) in front sets one direction. set changes only "
                "what it names.\n"
                "  Some of the traffic: 'to ADDRESS[/BITS] [tcp|udp|icmp] [port P[-Q]] SPEC', '... pass', "
                "'... "
                "default'; parts\n"
                "  are separated by ';'. --rules FILE: these are all rules that there shall be, one in a "
                "line.\n"
                "  'for TIME' takes the change back afterwards. down lets nothing pass either way until up; "
                "flap "
                "is down\n"
                "  for DOWN, up for UP, and so on. The interface itself stays as it is.\n"
                "  --replace-foreign  delete what somebody else put where the shape belongs, this once\n"
                "  check measures what links really do and shows it beside what is declared; --no-rate does "
                "not "
                "fill them.\n",
                cli_shape},
        {"firewall",
                "firewall show [NODE] | set NODE STYLE [RULES] | explain NODE tcp|udp|icmp ADDRESS[:PORT] "
                "[in|out]",
                "Show the nodes' firewall as the kernel has it, change it, or say which rule would decide",
                NULL, cli_firewall},
        {"keys", "keys show NODE | set NODE FILE... | clear NODE",
                "Show or change who may log in to a node in which no sshd of ours runs",
                "  FILE has public keys, one a line. They hold from the next connection on, instead of "
                "those "
                "of the\n"
                "  label tbnode.ssh-keys, until clear. Who is logged in stays.\n",
                cli_keys},
        {"declare", "declare NODE FILE | --show NODE",
                "Say what a node is to be: accounts, hosts, routes, programs, ...",
                "  FILE is a JSON object (docs/node-protocol.md), - is standard input. It takes the place "
                "of what "
                "was declared.\n"
                "  --show             print what is declared (without password hashes)\n",
                cli_declare},
        {"programs", "programs NODE", "The declared programs of a node and how they are", NULL,
                cli_programs},
        {"program", "program [--signal SIGNAL] NODE start|stop|kill NAME",
                "Control a declared program of a node",
                "  -s, --signal SIGNAL   for kill, instead of KILL\n", cli_program},
        {"startup", "startup NODE", "Run a node's startup command once more", NULL, cli_startup},
        {"snapshot", "snapshot [OPTIONS] NODE [NAME]", "Make an image of a node, in the testbed's registry",
                "  NAME[:TAG]         of the image (default: the node's own name, with its experiment; tag "
                "latest)\n"
                "  --project NAME     who may use it (default: the project of the node's image, else its "
                "owner alone)\n"
                "  --no-pause         let the node go on while its files are read\n"
                "  The image has the node's files and, for the rest, the settings of the image that the "
                "node "
                "was made of.\n",
                cli_snapshot},
        {"stop", "stop NODE...", "Stop nodes", NULL, cli_stop},
        {"start", "start NODE...", "Start stopped nodes", NULL, cli_start},
        {"restart", "restart NODE...", "Stop nodes and start them again", NULL, cli_restart},
        {"rm", "rm NODE...", "Remove nodes", NULL, cli_rm},
        {"exec", "exec [OPTIONS] NODE [-it] CMD...", "Run a program in a node",
                "  -i, --interactive  give it our standard input\n"
                "  -t, --tty          give it a terminal\n"
                "  -u, --user USER[:GROUP]   -w, --workdir DIR   -e, --env NAME=VALUE\n"
                "  Exit status: the program's. It gets a hang-up (SIGHUP) when this command goes away.\n",
                cli_exec},
        {"ssh", "ssh [SSH-OPTIONS] [USER@]NODE [CMD...]", "Log in to a node",
                "  -l, --login USER   instead of root\n"
                "  -i, --identity KEY private key file\n"
                "  Other options are ssh's. For programs that call ssh: rsync -e 'tbnode ssh', scp -S "
                "tbnode-ssh.\n",
                cli_ssh},
        {"logs", "logs [OPTIONS] NODE | logs --experiment NAME --collect DIR|TAR [--files GLOB...]",
                "What a node and its container logged; or that of all nodes of an experiment, into files",
                "  Of one node, what the container printed and what went to /dev/log, in the order of "
                "time:\n"
                "  -f, --follow       go on with what comes\n"
                "  --since TIME       how long ago (90s, 10m, 1h30m, 2d), or when (2026-11-21T20:38:50Z)\n"
                "  -n, --tail N       the last N lines only\n"
                "  -s, --syslog       only what went to /dev/log\n"
                "  --no-syslog        only what the container printed\n"
                "  --json             one object for each line: time, node, source, text\n"
                "  Of an experiment, each node's logs, state and files:\n"
                "  --experiment NAME  which one\n"
                "  --collect DIR|TAR  into a directory that is made, or into a .tar, .tar.gz or .tar.zst\n"
                "  --files GLOB       files in the nodes, like '/var/log/*.log'; directories with all in "
                "them\n",
                cli_logs},
        {"status", "status", "The agent, its engine and its nodes in numbers", NULL, cli_status},
        {"events", "events [--follow]", "What happened", "  -f, --follow       go on with what comes\n",
                cli_events},
        {"doctor", "doctor [--config FILE]", "What this host has and lacks, and what to do",
                "  --config FILE      the agent's configuration, when it does not run\n", cli_doctor},
        {},
};

static int help(void)
{
        printf("tbnode [--json] [--socket PATH] VERB ...\n\n"
               "Nodes of a network testbed out of any container image.\n\n");
        for (const CliVerb *v = cli_verbs; v->name; v++)
                printf("  %-11s %s\n", v->name, v->summary);
        printf("\n  --json         print one JSON object (JSON lines for streams) and nothing else\n"
               "  --socket PATH  of the agent (default %s, or $TBNODE_SOCKET)\n"
               "  --version      print the version\n\n"
               "tbnode VERB --help tells more. Exit status: 0 done, 1 failed, 2 wrong usage, 3 agent not "
               "reachable.\n",
                AGENT_SOCKET);
        return CLI_OK;
}

int cli_usage(const Cli *c, const char *fmt, ...)
{
        va_list ap;

        fprintf(stderr, "tbnode %s: ", c->verb->name);
        va_start(ap, fmt);
        (void) vfprintf(stderr, fmt, ap);
        va_end(ap);
        fprintf(stderr, "; usage: tbnode %s\n", c->verb->usage);
        return CLI_USAGE;
}

int cli_getopt_other(const Cli *c, int opt)
{
        if (opt != 'h')
                return CLI_USAGE;
        printf("tbnode %s\n\n%s.\n%s%s", c->verb->usage, c->verb->summary, c->verb->details ? "\n" : "",
                c->verb->details ?: "");
        return CLI_OK;
}

int cli_parse_plain(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {CLI_OPTIONS, {}};
        int opt;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 'j')
                        c->json = true;
                else
                        return cli_getopt_other(c, opt);
        return -1;
}

int cli_fail(TbError *err)
{
        /* -ENOTCONN is what cli_call() gives when nobody answers, and nothing else. */
        int status = err && err->code == -ENOTCONN && err->kind == TB_ERROR_ENVIRONMENT ? CLI_NO_AGENT
                                                                                        : CLI_FAILED;

        fprintf(stderr, "tbnode: %s\n", tb_error_message(err));
        tb_error_free(err);
        return status;
}

static int run_verb(Cli *c, int argc, char **argv)
{
        static char program[64]; /* what getopt(3) puts in front of its messages */
        TbError *err = NULL;
        int r;

        for (const CliVerb *v = cli_verbs; v->name; v++)
                if (tb_streq(v->name, argv[0]))
                        c->verb = v;
        if (!c->verb) {
                _cleanup_free_ char *shown = tb_escape(argv[0], 40);

                fprintf(stderr, "tbnode: there is no verb '%s'; see tbnode --help\n", shown ?: "");
                return CLI_USAGE;
        }
        r = sd_event_new(&c->event);
        if (r < 0) {
                (void) tb_error_set_errno(&err, TB_ERROR_SYSTEM, r, "cannot make an event loop");
                return cli_fail(err);
        }
        if (tb_http_new(c->event, &c->http, &err) < 0)
                return cli_fail(err);
        (void) snprintf(program, sizeof(program), "tbnode %s", c->verb->name);
        argv[0] = program;
        optind = 0; /* getopt(3): start over, with another table */
        return c->verb->fn(c, argc, argv);
}

int cli_main(int argc, char **argv)
{
        enum {
                OPT_JSON = 0x100,
                OPT_SOCKET,
                OPT_VERSION
        };
        static const struct option options[] = {
                {"json", no_argument, NULL, OPT_JSON},
                {"socket", required_argument, NULL, OPT_SOCKET},
                {"version", no_argument, NULL, OPT_VERSION},
                {"help", no_argument, NULL, 'h'},
                {},
        };
        Cli c = {.socket = getenv("TBNODE_SOCKET") ?: AGENT_SOCKET};
        int opt, status;

        tb_log_open("tbnode");
        /* For scp -S and others that take one word. All options are ssh's then. */
        if (tb_streq(program_invocation_short_name, "tbnode-ssh")) {
                argv[0] = (char *) "ssh";
                return run_verb(&c, argc, argv);
        }
        while ((opt = getopt_long(argc, argv, "+h", options, NULL)) >= 0)
                switch (opt) {
                case OPT_JSON:
                        c.json = true;
                        break;
                case OPT_SOCKET:
                        c.socket = optarg;
                        break;
                case OPT_VERSION:
                        printf("tbnode %s\n", TBNODE_VERSION);
                        return CLI_OK;
                case 'h':
                        return help();
                default:
                        return CLI_USAGE;
                }
        if (optind >= argc) {
                fprintf(stderr, "tbnode: no verb is given; see tbnode --help\n");
                return CLI_USAGE;
        }
        status = run_verb(&c, argc - optind, argv + optind);
        tb_http_free(c.http);
        sd_event_unref(c.event);
        if (fflush(stdout) != 0 && status == CLI_OK) {
                fprintf(stderr, "tbnode: cannot write the answer: %s\n", strerror(errno));
                return CLI_FAILED;
        }
        return status;
}
