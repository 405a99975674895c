/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/error.h"

/*
 * What a node is declared to be (docs/node-protocol.md, "The declaration"): accounts, hosts, routes, mounts, startup
 * command, programs, environment. Kept as the JSON that it came as, after everything in it was checked: whoever reads
 * a checked declaration need not look at types, sizes or characters again.
 *
 * Pure: nothing here knows of nodes or files, except where said.
 */

#define DECLARATION_MAX (192U * 1024) /* bytes as text: half of what a request to the agent may have */

#define DECLARATION_GROUPS_MAX 256U
#define DECLARATION_USERS_MAX 512U
#define DECLARATION_KEYS_MAX 64U /* of a user */
#define DECLARATION_HOSTS_MAX 2048U
#define DECLARATION_ALIASES_MAX 16U /* of a host */
#define DECLARATION_ROUTES_MAX 256U
#define DECLARATION_MOUNTS_MAX 64U
#define DECLARATION_PROGRAMS_MAX 64U
#define DECLARATION_ENVIRONMENT_MAX 256U
#define DECLARATION_COMMAND_MAX 4096U /* bytes of a command */

/* *ret is a checked deep copy (the caller's). Errors are of kind CONFIG and name the place:
 * "declaration: accounts.users[2].uid: ...". */
int declaration_check(const json_t *j, json_t **ret, TbError **err) _warn_unused_;

/* Does something in it need the client inside the node? (Routes and mounts are made from outside.) */
bool declaration_needs_client(const json_t *d);
/* Are the mounts of both the same? They can't change while the container exists. NULL stands for an empty declaration. */
bool declaration_same_mounts(const json_t *a, const json_t *b);
/* Looks at the host: is the source of every mount a directory? */
int declaration_check_sources(const json_t *d, TbError **err) _warn_unused_;
/* `accounts` as any user of the node may see them: a new object without password hashes and keys. NULL when out of
 * memory. */
json_t *declaration_public_accounts(const json_t *accounts);

/* A name of a user or a group: a letter or '_', then letters, digits, '_', '.', '-', at most 32, a '$' may end it. */
bool declaration_user_name_is_valid(const char *s);
/* A program: letters, digits, '_', '.', '-', at most 64. Barriers have such names, too. */
bool declaration_program_name_is_valid(const char *s);
