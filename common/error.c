/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"

/* Memory exhaustion must be reportable without memory: this object is shared, never freed and never
 * modified. */
static char oom_message[] = "out of memory";
static TbError oom_error = {
        .kind = TB_ERROR_RESOURCE,
        .code = -ENOMEM,
        .retryable = true,
        .message = oom_message,
};

static const char *const kind_names[] = {
        [TB_ERROR_BUG] = "bug",
        [TB_ERROR_CONFIG] = "config",
        [TB_ERROR_ENVIRONMENT] = "environment",
        [TB_ERROR_RESOURCE] = "resource",
        [TB_ERROR_SYSTEM] = "system",
        [TB_ERROR_REMOTE] = "remote",
        [TB_ERROR_CANCELLED] = "cancelled",
};
static_assert(ELEMENTSOF(kind_names) == _TB_ERROR_KIND_MAX, "one name for each kind of error");

static int normalize_code(int code)
{
        if (code == 0)
                return -EIO;
        return code > 0 ? -code : code;
}

/* Takes ownership of message; NULL means that there was no memory for it. */
static void error_install(TbError **err, TbErrorKind kind, int code, char *message)
{
        TbError *e;

        if (!message) {
                *err = &oom_error;
                return;
        }

        e = malloc(sizeof(*e));
        if (!e) {
                free(message);
                *err = &oom_error;
                return;
        }

        *e = (TbError){.kind = kind, .code = code, .message = message};
        *err = e;
}

static _printf_(1, 0) char *format_message(const char *fmt, va_list ap)
{
        char *s = NULL;

        if (vasprintf(&s, fmt, ap) < 0)
                return NULL;
        return s;
}

int tb_error_set(TbError **err, TbErrorKind kind, int code, const char *fmt, ...)
{
        va_list ap;

        code = normalize_code(code);
        if (!err || *err)
                return code;

        va_start(ap, fmt);
        error_install(err, kind, code, format_message(fmt, ap));
        va_end(ap);
        return code;
}

int tb_error_set_errno(TbError **err, TbErrorKind kind, int code, const char *fmt, ...)
{
        _cleanup_free_ char *text = NULL;
        char buf[128], *full = NULL;
        va_list ap;

        code = normalize_code(code);
        if (!err || *err)
                return code;

        va_start(ap, fmt);
        text = format_message(fmt, ap);
        va_end(ap);

        /* The GNU strerror_r() is thread-safe and returns the string to use, which need not be buf. */
        if (text && asprintf(&full, "%s: %s", text, strerror_r(-code, buf, sizeof(buf))) < 0)
                full = NULL;
        error_install(err, kind, code, full);
        return code;
}

int tb_error_oom(TbError **err)
{
        if (err && !*err)
                *err = &oom_error;
        return -ENOMEM;
}

int tb_error_prefix(TbError **err, const char *fmt, ...)
{
        _cleanup_free_ char *prefix = NULL;
        char *full = NULL;
        va_list ap;

        if (!err || !*err)
                return -EIO;
        if (*err == &oom_error)
                return oom_error.code;

        va_start(ap, fmt);
        prefix = format_message(fmt, ap);
        va_end(ap);

        /* Without memory the message stays as it was: less context beats losing the cause. */
        if (prefix && asprintf(&full, "%s: %s", prefix, (*err)->message) >= 0) {
                free((*err)->message);
                (*err)->message = full;
        }
        return (*err)->code;
}

void tb_error_set_retryable(TbError **err)
{
        if (err && *err && *err != &oom_error)
                (*err)->retryable = true;
}

int tb_error_move(TbError **dest, TbError **source)
{
        int code;

        if (!source || !*source)
                return -EIO;

        code = (*source)->code;
        if (dest && !*dest)
                *dest = TAKE_PTR(*source);
        else
                *source = tb_error_free(*source);
        return code;
}

TbError *tb_error_copy(const TbError *err)
{
        TbError *copy = NULL;

        if (!err)
                return NULL;
        if (err == &oom_error)
                return &oom_error;

        error_install(&copy, err->kind, err->code, strdup(err->message));
        if (err->retryable)
                tb_error_set_retryable(&copy);
        return copy;
}

const char *tb_error_message(const TbError *err)
{
        return err ? err->message : "unknown error";
}

const char *tb_error_kind_to_string(TbErrorKind kind)
{
        if ((int) kind < 0 || (size_t) kind >= ELEMENTSOF(kind_names))
                return "unknown";
        return kind_names[kind];
}

int tb_error_kind_from_string(const char *s)
{
        if (!s)
                return -EINVAL;
        for (size_t i = 0; i < ELEMENTSOF(kind_names); i++)
                if (strcmp(kind_names[i], s) == 0)
                        return (int) i;
        return -EINVAL;
}

TbError *tb_error_free(TbError *err)
{
        if (!err || err == &oom_error)
                return NULL;

        free(err->message);
        free(err);
        return NULL;
}
