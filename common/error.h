/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/macro.h"

/*
 * Errors
 *
 * Every fallible function returns 0 (or a documented positive condition) or a negative errno, and takes a
 * `TbError **err` as its last parameter. The integer is for code, the object is for people: it carries who
 * is to act (kind), whether trying again can help, and a message that grows context on its way up:
 *
 *         r = tb_file_read(path, MAX, &data, &size, err);
 *         if (r < 0)
 *                 return tb_error_prefix(err, "cannot load payload manifest");
 *
 * Rules:
 *  - `err` may be NULL everywhere: the caller does not want the object.
 *  - When a function fails and err is not NULL, *err is set. When it succeeds, *err is untouched.
 *  - *err must be NULL on entry (an error is never overwritten; a second one is dropped, the first one
 * counts).
 *  - Foreign codes (CURLcode, NLE_*, iptc, libarchive, OpenSSL, jansson) are translated to negative errno at
 * the place where the library is called, never passed upward.
 *  - A message says what failed, on what, and why, in one line without a trailing period; where the user can
 * do something, it ends in "; " and the advice.
 */

TB_BEGIN_DECLS

typedef enum TbErrorKind {
        TB_ERROR_BUG,         /* our own mistake: report it */
        TB_ERROR_CONFIG,      /* what the user wrote (config file, label, argument) is wrong */
        TB_ERROR_ENVIRONMENT, /* the host lacks something: kernel module, engine, permission */
        TB_ERROR_RESOURCE,    /* memory, disk, descriptors, a limit of ours */
        TB_ERROR_SYSTEM,      /* a system call failed unexpectedly */
        TB_ERROR_REMOTE,      /* the registry, the engine or the network answered badly or not at all */
        TB_ERROR_CANCELLED,   /* somebody asked for the work to stop */
        _TB_ERROR_KIND_MAX,
} TbErrorKind;

typedef struct TbError {
        TbErrorKind kind;
        int code;       /* negative errno */
        bool retryable; /* the same call may succeed later without anybody changing anything */
        char *message;  /* never NULL */
} TbError;

/* Creates *err and returns `code` (negative errno; a positive one is negated, 0 becomes -EIO). */
int tb_error_set(TbError **err, TbErrorKind kind, int code, const char *fmt, ...) _printf_(4, 5);

/* As tb_error_set(), but appends ": <strerror(code)>" to the message. */
int tb_error_set_errno(TbError **err, TbErrorKind kind, int code, const char *fmt, ...) _printf_(4, 5);

/* The error for memory exhaustion; returns -ENOMEM. Never allocates. */
int tb_error_oom(TbError **err);

/* Puts "<fmt>: " before the message and returns the error's code (-EIO if there is no object to read it
 * from: prefer `tb_error_prefix(err, ...); return r;` where err may be NULL). */
int tb_error_prefix(TbError **err, const char *fmt, ...) _printf_(2, 3);

/* Marks the error as retryable; NULL and empty are fine. */
void tb_error_set_retryable(TbError **err);

/* Moves *source into *dest (frees it when dest is NULL or taken) and returns its code. */
int tb_error_move(TbError **dest, TbError **source);

/* Returns a copy, or the static out-of-memory error. NULL gives NULL. */
TbError *tb_error_copy(const TbError *err);

/* The message, or "unknown error" for NULL. */
const char *tb_error_message(const TbError *err);

/* "bug", "config", ...: the words used in JSON and logs. */
const char *tb_error_kind_to_string(TbErrorKind kind);
/* The reverse; returns a TbErrorKind or -EINVAL. */
int tb_error_kind_from_string(const char *s);

TbError *tb_error_free(TbError *err);
TB_DEFINE_CLEANUP(TbError *, tb_error_free)

#define _cleanup_error_ _cleanup_(tb_error_freep)

TB_END_DECLS
