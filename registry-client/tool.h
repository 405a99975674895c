/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * tbnode-registry: the registry client by hand
 *
 *   tool.c            runs a verb: signals, errors, exit status
 *   tool-options.c    the tables of verbs and options; --help and what belongs to what come from them
 *   tool-print.c      JSON, text and progress
 *   tool-inspect.c    ping inspect
 *   tool-read.c       manifest config blob
 *   tool-list.c       ls tags referrers
 *   tool-copy.c       copy
 *   tool-delete.c     delete
 *   tool-login.c      login logout
 *
 * It uses registry.h as any program would. Each verb ends in one printout on stdout: text for people, or with --json one
 * object and nothing else. Errors are one line on stderr.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry-client/registry.h"

#define TOOL_PLATFORMS_MAX 16U

typedef struct ToolVerb ToolVerb;

typedef struct ToolHost { /* what --tls-ca and the like said about one host */
        struct ToolHost *next;
        char *name;
        const char *ca_file, *client_cert, *client_key, *unix_socket;
        bool insecure, tls; /* tls: something was said about it */
} ToolHost;

typedef struct Tool {
        RegistryClient *client;
        const ToolVerb *verb;
        bool usage; /* the error is the caller's: exit status 2 */

        bool json, dry_run, all_platforms, password_stdin, tag_only;
        RegistryPlatform platforms[TOOL_PLATFORMS_MAX]; /* more than one: copy */
        size_t n_platforms;
        unsigned parallel;
        const char *output, *docker_config, *user, *artifact_type, *resume_dir;
        ToolHost *hosts;

        bool progress_shown;
        uint64_t started_usec;
} Tool;

/* Returns 0 or a negative errno with *err set. */
typedef int (*ToolFn)(Tool *t, char **args, TbError **err);

struct ToolVerb {
        const char *name;
        int min_args, max_args;
        ToolFn fn;
        uint32_t options; /* which of the options that are not for every verb: TOOL_* */
        const char *args, *help;
        const char *more; /* paragraphs for "VERB --help" */
};

enum { /* the options that only some verbs take */
        TOOL_PLATFORM = 1 << 0,
        TOOL_ALL_PLATFORMS = 1 << 1,
        TOOL_PARALLEL = 1 << 2,
        TOOL_OUTPUT = 1 << 3,
        TOOL_DRY_RUN = 1 << 4,
        TOOL_TAG_ONLY = 1 << 5,
        TOOL_USERNAME = 1 << 6,
        TOOL_PASSWORD_STDIN = 1 << 7,
        TOOL_ARTIFACT_TYPE = 1 << 8,
        TOOL_RESUME_DIR = 1 << 9,
};

/* tool.c: the program; returns the exit status. */
int tool_main(int argc, char **argv);
/* What the caller wrote is wrong: exit status 2. Returns -EINVAL. */
int tool_usage(Tool *t, TbError **err, const char *fmt, ...) _printf_(3, 4);
/* HOST or HOST:PORT, nothing else. */
bool tool_is_host(const char *arg);
/* A name that the caller wrote. */
int tool_parse_ref(Tool *t, const char *arg, RegistryRef **ret, TbError **err) _warn_unused_;

/* tool-options.c */
extern const ToolVerb tool_verbs[];
/* 1 = go on with t->verb and its arguments at argv[*ret_first], 0 = done (help was printed), -EINVAL. */
int tool_parse(Tool *t, int argc, char **argv, int *ret_first, TbError **err) _warn_unused_;
void tool_options_done(Tool *t);

/* tool-print.c */
int tool_print_json(const json_t *j, TbError **err) _warn_unused_;
/* Takes ownership of j; NULL is out of memory. */
int tool_print_json_new(json_t *j, TbError **err) _warn_unused_;
/* "key   value": aligned lines for people. A value that came from outside is made fit for a terminal. */
void tool_print_field(const char *key, const char *value);
void tool_print_fieldf(const char *key, const char *fmt, ...) _printf_(2, 3);
/* To --output or stdout. */
int tool_write_out(const Tool *t, const void *data, size_t size, TbError **err) _warn_unused_;
/* The line on the terminal: drawn over the last one, and taken away. */
void tool_show_progress(Tool *t, const RegistryCopyProgress *p);
void tool_end_progress(Tool *t);
json_t *tool_descriptor_to_json(const RegistryDescriptor *d);
json_t *tool_descriptors_to_json(const RegistryDescriptor *d, size_t n);

/* tool-inspect.c: the image for --platform, or for this machine, through an index (*ret_index, may be NULL, gets it). */
int tool_get_image(Tool *t, const RegistryRef *ref, RegistryManifest **ret, RegistryManifest **ret_index,
        TbError **err) _warn_unused_;
int tool_get_config(Tool *t, const RegistryRef *ref, const RegistryManifest *m, char **ret, size_t *ret_size,
        TbError **err) _warn_unused_;

/* Verbs. */
int tool_ping(Tool *t, char **args, TbError **err);
int tool_inspect(Tool *t, char **args, TbError **err);
int tool_manifest(Tool *t, char **args, TbError **err);
int tool_config(Tool *t, char **args, TbError **err);
int tool_blob(Tool *t, char **args, TbError **err);
int tool_ls(Tool *t, char **args, TbError **err);
int tool_tags(Tool *t, char **args, TbError **err);
int tool_referrers(Tool *t, char **args, TbError **err);
int tool_copy(Tool *t, char **args, TbError **err);
int tool_delete(Tool *t, char **args, TbError **err);
int tool_login(Tool *t, char **args, TbError **err);
int tool_logout(Tool *t, char **args, TbError **err);
