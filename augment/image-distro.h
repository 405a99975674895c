/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "common/error.h"

/* The texts that name a distribution. Pure; input is whatever an image has in these files. */

/*
 * The value of a variable in os-release(5) or lsb-release: "KEY=VALUE" lines as a shell assigns them, quotes and
 * backslashes taken off; the last assignment counts. 1 = *ret is set (the caller owns it), 0 = there is none, or what
 * there is isn't printable UTF-8 of at most 128 bytes.
 */
int distro_variable(const char *data, const char *key, char **ret, TbError **err) _warn_unused_;

/* An identifier as os-release(5) defines ID: lower case letters, digits, ".", "_", "-"; upper case is turned into lower. NULL
 * when `s` has anything else, or when out of memory. */
char *distro_identifier(const char *s);

/*
 * "CentOS Linux release 7.9.2009 (Core)": the identifier that os-release has for it ("centos") and the version
 * ("7.9.2009"; NULL = none). 1 = known, 0 = not.
 */
int distro_redhat(const char *data, char **ret_id, char **ret_version, TbError **err) _warn_unused_;

/* The first line without what surrounds it, if it looks like a version ("12.5", "3.19.1"). 1 or 0. */
int distro_version_line(const char *data, char **ret, TbError **err) _warn_unused_;
