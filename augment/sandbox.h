/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/error.h"

/*
 * What the worker gives up before it reads what strangers wrote
 *
 * The agent starts it as an unprivileged user, without capabilities, with limits (agent/worker-spawn.c). From here on it
 * can't get them back (no_new_privs), nobody of the same user can look into it (not dumpable), memory never becomes
 * executable (MDWE, Linux 6.3), and
 *
 *  - landlock: of the file system it sees /etc, /usr, /lib and what the caller names, and writes only below `write_dir`;
 *    it executes nothing, listens on no TCP port, and signals and abstract sockets stay inside;
 *  - seccomp: the system calls of a program that talks TCP and unpacks. No new process, no other program, no socket but
 *    IPv4, IPv6 and (for the resolver) netlink; a call that only an attack makes ends the process, others that are not on
 *    the list fail with EPERM.
 *
 * What a kernel doesn't have is left out, and said in the result: the rest still holds.
 */

typedef struct SandboxOptions {
        const char *const
                *read;         /* more paths to read, NULL-terminated; those that don't exist are left out */
        const char *write_dir; /* may be written below; NULL = nothing may */
} SandboxOptions;

typedef struct SandboxReport {
        int landlock; /* ABI version; 0 = the kernel has none */
        bool seccomp;
} SandboxReport;

/* Call it before the first thread is started. There is no way back. *ret may be NULL. */
int sandbox_enter(const SandboxOptions *options, SandboxReport *ret, TbError **err) _warn_unused_;
/* What this kernel would give. */
void sandbox_probe(SandboxReport *ret);
