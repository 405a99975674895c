/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/config.h"
#include "augment/augment.h"
#include "common/error.h"

/* What the bodies of API requests have in common. Pure: nothing here knows of connections. */

#define REQUEST_TEXT_MAX 32768U /* one string: an environment entry, an argument, a name */

/* Refuses members that are not in the NULL-terminated list. */
int request_body_check_members(const json_t *body, const char *const *known, TbError **err) _warn_unused_;
/* A copy of a string member in *ret, which stays as it is when the member is absent. */
int request_body_take_string(const json_t *body, const char *key, char **ret, TbError **err) _warn_unused_;
/* `image`, `level`, `builder`, `platform`, `project`, `update`, with the configuration's defaults; other members are not
 * looked at. On failure *ret may be partly filled. */
int request_body_take_augment(const json_t *body, const Config *config, AugmentRequest *ret, TbError **err)
        _warn_unused_;
