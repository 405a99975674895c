/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "common/http.h"

/*
 * tbnode: the command line
 *
 * A thin client: it checks arguments, asks tbnoded over its unix socket and prints the answer. With --json one object
 * (or JSON lines, for streams) goes to stdout and nothing else. Errors are one line on stderr.
 */

typedef enum CliExit {
        CLI_OK = 0,
        CLI_FAILED = 1,
        CLI_USAGE = 2,
        CLI_NO_AGENT = 3,
} CliExit;

typedef struct Cli Cli;

typedef struct CliVerb {
        const char *name;
        const char *usage;                        /* behind "tbnode " */
        const char *summary;                      /* one line */
        const char *details;                      /* options, one per line; NULL = none */
        int (*fn)(Cli *c, int argc, char **argv); /* argv[0] is the verb; returns a CliExit */
} CliVerb;

struct Cli {
        const char *socket; /* of the agent */
        bool json;
        const CliVerb *verb;
        sd_event *event;
        TbHttp *http;
};

/* The table; ends with an entry without name. */
extern const CliVerb cli_verbs[];

int cli_main(int argc, char **argv);

/* Says the error and gives the exit status that it means (CLI_NO_AGENT when the agent did not answer). Frees it. */
int cli_fail(TbError *err);
/* Says what is wrong with the call, and how it is used. */
int cli_usage(const Cli *c, const char *fmt, ...) _printf_(2, 3);
/* What every verb knows. */
#define CLI_OPTIONS                            \
        {"json", no_argument, NULL, 'j'},      \
        {                                      \
                "help", no_argument, NULL, 'h' \
        }
/* getopt_long() met something wrong (it has said what), or --help was asked for. */
int cli_getopt_other(const Cli *c, int opt);
/* Options of a verb that has none of its own. -1 = go on, at optind; else the exit status. */
int cli_parse_plain(Cli *c, int argc, char **argv);

/* One exchange: an answer >= 400 is its error. *ret is the caller's (NULL when the answer has no body). */
int cli_call(Cli *c, const char *method, const char *path, const json_t *body, json_t **ret, TbError **err)
        _warn_unused_;
/* An exchange that answers with JSON lines. `line` = 0 go on, negative with *err = stop. */
typedef int (*CliLineFn)(const json_t *line, void *userdata, TbError **err);
int cli_stream(Cli *c, const char *method, const char *path, const json_t *body, CliLineFn line,
        void *userdata, TbError **err) _warn_unused_;
/* An exchange whose answer goes to stdout as it is. */
int cli_copy(Cli *c, const char *path, TbError **err) _warn_unused_;
/* "/v1/nodes/<escaped>[suffix]". NULL when out of memory. */
char *cli_node_path(const char *node, const char *suffix);
/* Long work: shows progress on a terminal, gives the result line's member `member` (or the whole line when NULL). */
int cli_long(Cli *c, const char *path, const json_t *body, const char *member, json_t **ret, TbError **err)
        _warn_unused_;

/* A declaration out of a file ("-": stdin): an object; the agent checks what is in it. */
int cli_load_declaration(const char *path, json_t **ret, TbError **err) _warn_unused_;

/* Runs a program in a node (`body` as the API has it; its `tty` and `stdin` say what is connected) with this process's
 * standard input, output and error. *ret: the program's exit status. cli-exec-wire.c */
int cli_exec_connect(Cli *c, const char *node, json_t *body, int *ret, TbError **err) _warn_unused_;
/* Nobody answers at the agent's socket: why, and what to do. -ENOTCONN, kind ENVIRONMENT. */
int cli_agent_error(const Cli *c, const TbError *cause, TbError **err);
/* An answer of the agent with a status >= 400, as an error of ours. */
int cli_answer_error(unsigned status, const json_t *answer, TbError **err);

/* Prints an object for scripts. */
int cli_print_json(const json_t *j, TbError **err) _warn_unused_;
const char *cli_text(const json_t *obj, const char *key, const char *otherwise);

/* A table with columns as wide as their widest cell. */
/* What a result says that its user should know: on stderr. */
void cli_notice(const json_t *result);

typedef struct CliTable CliTable;
int cli_table_new(const char *const *columns, CliTable **ret, TbError **err) _warn_unused_;
/* `cells`: as many as columns. */
int cli_table_add(CliTable *t, const char *const *cells, TbError **err) _warn_unused_;
void cli_table_print(const CliTable *t);
CliTable *cli_table_free(CliTable *t);
TB_DEFINE_CLEANUP(CliTable *, cli_table_free)

int cli_augment(Cli *c, int argc, char **argv);
int cli_dockerfile(Cli *c, int argc, char **argv);
int cli_run(Cli *c, int argc, char **argv);
int cli_ps(Cli *c, int argc, char **argv);
int cli_inspect(Cli *c, int argc, char **argv);
int cli_shape(Cli *c, int argc, char **argv);
int cli_link_check(Cli *c, int argc, char **argv); /* of `shape check`; argv[0] is "check" */
int cli_firewall(Cli *c, int argc, char **argv);
int cli_keys(Cli *c, int argc, char **argv);
/* Adds every key of a .pub or authorized_keys file to "ssh_keys" of the request. FILE may also be the private key: its .pub is taken. */
int cli_add_keys(json_t *body, const char *path, TbError **err) _warn_unused_;
/* A request about a node that answers it; what it prints and its exit status. cli-shape.c */
int cli_node_change(Cli *c, const char *method, const char *node, const char *suffix, const json_t *body);
int cli_declare(Cli *c, int argc, char **argv);
int cli_programs(Cli *c, int argc, char **argv);
int cli_program(Cli *c, int argc, char **argv);
int cli_startup(Cli *c, int argc, char **argv);
int cli_snapshot(Cli *c, int argc, char **argv);
int cli_stop(Cli *c, int argc, char **argv);
int cli_start(Cli *c, int argc, char **argv);
int cli_restart(Cli *c, int argc, char **argv);
int cli_rm(Cli *c, int argc, char **argv);
int cli_exec(Cli *c, int argc, char **argv);
int cli_ssh(Cli *c, int argc, char **argv);
int cli_logs(Cli *c, int argc, char **argv);
int cli_images(Cli *c, int argc, char **argv);
int cli_prune(Cli *c, int argc, char **argv);
int cli_status(Cli *c, int argc, char **argv);
int cli_events(Cli *c, int argc, char **argv);
int cli_doctor(Cli *c, int argc, char **argv);
