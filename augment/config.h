/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/digest.h"
#include "common/error.h"

/*
 * Image configurations
 *
 * The JSON document that a manifest's `config` points to: OCI image-spec, config.md, and Docker's superset
 * of it (moby image/spec/v1.2.md: Healthcheck, OnBuild, Shell, ArgsEscaped). An ImageConfig is the parsed
 * document plus a checked view of what augmentation reads. Changes are made in the document itself, so
 * fields that we do not know, the difference between null and [], and the order of keys survive.
 *
 * What the view holds is checked strictly (a string where an array belongs is an error, not an empty list);
 * what it does not hold is not looked at.
 */

typedef struct ImageConfig {
        json_t *document; /* the whole object, owned */
        json_t *config;   /* its `config` member, borrowed; NULL when absent or null */

        char *os, *architecture, *variant; /* variant may be NULL */
        bool has_entrypoint, has_cmd;      /* present and not null */
        char **entrypoint, **cmd;          /* NULL when empty or absent */
        char *user;                        /* NULL when absent or "" */
        char *working_dir;                 /* the same */
        char *stop_signal;                 /* the same */
        char **env;
        char **on_build;
        char **volumes;       /* the keys of Volumes */
        bool has_healthcheck; /* Healthcheck.Test is there and not empty */
        TbDigest *diff_ids;   /* of the unpacked layers, bottom first */
        size_t n_diff_ids;
} ImageConfig;

/* The limit for a configuration document; larger ones are refused (-EMSGSIZE). */
#define IMAGE_CONFIG_MAX (8u * 1024 * 1024)

/* -EINVAL (kind REMOTE): not an image configuration. -EOPNOTSUPP: an image for another operating system. */
int image_config_parse(const char *data, size_t size, ImageConfig **ret, TbError **err) _warn_unused_;
ImageConfig *image_config_free(ImageConfig *c);
TB_DEFINE_CLEANUP(ImageConfig *, image_config_free)
#define _cleanup_image_config_ _cleanup_(image_config_freep)

/* A label's value (borrowed), or NULL. */
const char *image_config_label(const ImageConfig *c, const char *name);

/* `config`, made when it is missing. Borrowed. */
int image_config_ensure(ImageConfig *c, json_t **ret, TbError **err) _warn_unused_;

/* Compact JSON in the document's own order of keys. */
int image_config_dump(const ImageConfig *c, char **ret, size_t *ret_size, TbError **err) _warn_unused_;
