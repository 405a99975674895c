/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/recipe.h"
#include "common/buffer.h"
#include "common/error.h"

/*
 * The text of a recipe. The same recipe gives the same bytes. It builds with the classic builder and with BuildKit,
 * from a context that holds the payload layers it adds; the build argument BASE names another place to take the base
 * from.
 *
 * Quoting (https://docs.docker.com/reference/dockerfile/, moby's instruction parser): ENTRYPOINT, CMD and RUN are
 * written as JSON arrays, in which nothing is expanded; everything but printable text is a \u escape. LABEL and
 * USER values are quoted words, in which $, " and \ are escaped, since variables are expanded there. A line of the
 * parser holds at most 64 KiB, so long arrays are broken by continuation lines, also inside of strings.
 */
int dockerfile_render(const Recipe *r, char **ret, TbError **err) _warn_unused_;

/* One instruction without its comment and newline: "ADD basic.tar.gz /". */
int dockerfile_render_step(const RecipeStep *step, TbBuffer *b, TbError **err) _warn_unused_;
