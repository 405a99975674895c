/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/cli.h"
#include "common/engine.h"
#include "common/error.h"

/*
 * Where an image comes from: what the command line does so that the agent can be asked for it
 *
 *         NAME, docker://NAME                    nothing, but for the caller's own credentials for that registry
 *         oci:DIR[:TAG]  docker-archive:FILE[:NAME]  docker-daemon:NAME  dockerfile:PATH|URL
 *
 * The others are copied into the testbed's registry first, as mirror/<transport>/<user>/<name>, and the request names what
 * is there, by digest. All of that happens with the rights of the caller: the agent, which is root, opens no file, asks no
 * engine and fetches no URL in somebody's name.
 */

typedef struct CliSource {
        const char *file;          /* --file: the Dockerfile; NULL = as the source says */
        const char *build_context; /* --build-context: a directory; NULL = as the source says */
} CliSource;

/* The options, for getopt_long() and the help. */
#define CLI_SOURCE_OPTIONS                                                      \
        {"file", required_argument, NULL, CLI_OPT_FILE},                        \
        {                                                                       \
                "build-context", required_argument, NULL, CLI_OPT_BUILD_CONTEXT \
        }
enum {
        CLI_OPT_FILE = 0x200,
        CLI_OPT_BUILD_CONTEXT,
        CLI_OPT_POLICY
};

/* Sets `image` of the request, and `auths` when there are credentials; its platform and project must be set before. */
int cli_source_take(Cli *c, const char *image, const CliSource *options, json_t *body, TbError **err)
        _warn_unused_;

/* ---- cli-engine.c: the engine, in the caller's name ---- */

/* `endpoint` is used unless $DOCKER_HOST names another one. */
int cli_engine_connect(Cli *c, const char *endpoint, TbEngine **ret, TbError **err) _warn_unused_;
/* The image as `docker save` writes it, in a file without a name. *ret_tag (may be NULL when it has none; the caller's) is
 * its first name. */
int cli_engine_export(TbEngine *engine, const char *name, int *ret_fd, char **ret_tag, TbError **err)
        _warn_unused_;
/* Builds the context (a tar file, from its beginning) and exports the image; the engine keeps nothing of it. */
int cli_engine_build(TbEngine *engine, int context, const char *dockerfile, const char *platform, bool show,
        int *ret_fd, TbError **err) _warn_unused_;

/* A file without a name, where there is room for large ones: $TMPDIR, else /var/tmp. */
int cli_temp_file(int *ret_fd, TbError **err) _warn_unused_;

/* ---- cli-context.c: build contexts ---- */

/* `where` is a directory, a Dockerfile, or the http(s) URL of a Dockerfile or of a tar file. *ret_fd is a tar file,
 * *ret_dockerfile the name of the Dockerfile in it. */
int cli_context_make(Cli *c, const char *where, const CliSource *options, int *ret_fd, char **ret_dockerfile,
        TbError **err) _warn_unused_;

/* The content of an http:// or https:// URL; redirections are followed, but for those to less security. */
int cli_download(Cli *c, const char *url, int *ret_fd, uint64_t *ret_size, TbError **err) _warn_unused_;

/* Is `path` left out by this .dockerignore? For tests. -EINVAL: a pattern is none. */
int cli_context_is_ignored(const char *dockerignore, const char *path, bool *ret, TbError **err)
        _warn_unused_;
