/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* For the tests of log.c: where the lines go is otherwise found out by tb_log_open(). */

#define LOG_JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Sends to the journal socket at this path (-errno when there is none), or to stderr when it is NULL. */
int log_set_journal_socket(const char *path);
