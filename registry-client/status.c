/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* HTTP answers -> TbError: the one place that knows what a status means and what a user can do about it. */

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define ERROR_BODY_MAX (64U * 1024)

/* Codes: distribution-spec "Error Codes". */
static const struct {
        unsigned status;
        TbErrorKind kind;
        int code;
        const char *text, *advice;
} statuses[] = {
        {400, TB_ERROR_REMOTE, -EREMOTEIO, "the registry calls the request bad", NULL},
        {401, TB_ERROR_CONFIG, -EACCES, "authentication is required",
                "log in with \"docker login %s\" or give credentials"},
        {403, TB_ERROR_CONFIG, -EACCES, "access is denied", "check that this account may do that on %s"},
        {404, TB_ERROR_REMOTE, -ENOENT, "not found", NULL},
        {405, TB_ERROR_REMOTE, -EOPNOTSUPP, "the registry does not allow this operation", NULL},
        {408, TB_ERROR_REMOTE, -ETIMEDOUT, "the registry timed out", "try again later"},
        {413, TB_ERROR_REMOTE, -EFBIG, "too large for the registry",
                "raise the body limit of %s or of the proxy in front of it"},
        {416, TB_ERROR_REMOTE, -EPROTO, "the registry does not accept this range", NULL},
        {429, TB_ERROR_REMOTE, -EAGAIN, "too many requests", "wait, or log in to %s for a higher limit"},
        {500, TB_ERROR_REMOTE, -EREMOTEIO, "internal error of the registry", "look into the log of %s"},
        {502, TB_ERROR_REMOTE, -EREMOTEIO, "bad gateway", "check the registry behind %s"},
        {503, TB_ERROR_REMOTE, -EREMOTEIO, "service unavailable", "try again later"},
        {504, TB_ERROR_REMOTE, -EREMOTEIO, "gateway timeout", "check the registry behind %s"},
        {507, TB_ERROR_REMOTE, -ENOSPC, "the registry is out of space", "free space on %s"},
};

bool registry_status_is_retryable(unsigned status)
{
        return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
                status == 504;
}

uint64_t registry_retry_after_usec(const char *header)
{
        uint64_t seconds;
        int64_t at, now;

        if (!header)
                return 0;
        header += strspn(header, " \t");
        if (isdigit((unsigned char) *header)) {
                if (tb_parse_u64(header, 0, 86400, &seconds, NULL) < 0)
                        return 86400 * USEC_PER_SEC;
                return seconds * USEC_PER_SEC;
        }
        if (!registry_parse_http_date(header, &at))
                return 0;
        now = time(NULL);
        return at > now ? (uint64_t) MIN2(at - now, (int64_t) 86400) * USEC_PER_SEC : 0;
}

char *registry_error_text(const char *body, size_t size)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *safe_code = NULL, *safe_message = NULL;
        const char *code = NULL, *message = NULL;
        json_t *list = NULL, *first;

        if (size == 0 || tb_json_parse(body, size, ERROR_BODY_MAX, "error answer", &j, NULL) < 0 ||
                tb_json_get_array(j, "errors", &list, NULL) <= 0)
                return NULL;
        first = json_array_get(list, 0);
        if (!first || tb_json_get_string(first, "code", &code, NULL) < 0 ||
                tb_json_get_string(first, "message", &message, NULL) < 0 || (!code && !message))
                return NULL;
        safe_code = code ? tb_escape(code, 60) : NULL;
        safe_message = message ? tb_escape(message, 240) : NULL;
        if (safe_code && safe_message && *safe_code && *safe_message)
                return tb_asprintf("%s: %s", safe_code, safe_message);
        return safe_code && *safe_code ? TAKE_PTR(safe_code) : TAKE_PTR(safe_message);
}

int registry_status_error_full(const char *host, unsigned status, const char *body, size_t size,
        const char *retry_after, const char *what, TbError **err)
{
        _cleanup_free_ char *text = registry_error_text(body, size);
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        TbErrorKind kind = TB_ERROR_REMOTE;
        const char *words = "unexpected answer", *advice = NULL;
        uint64_t wait = registry_retry_after_usec(retry_after);
        int code = -EREMOTEIO, r;

        for (size_t i = 0; i < ELEMENTSOF(statuses); i++)
                if (statuses[i].status == status) {
                        kind = statuses[i].kind;
                        code = statuses[i].code;
                        words = statuses[i].text;
                        advice = statuses[i].advice;
                }
        if ((status >= 200 && status < 300) || status < 200)
                code = -EPROTO; /* a success that does not fit the request */

        r = tb_buffer_printf(&b, NULL, "%s: %s: %s (HTTP %u", host, what, words, status);
        if (r >= 0)
                r = text ? tb_buffer_printf(&b, NULL, ", %s)", text) : tb_buffer_append_str(&b, ")", NULL);
        if (r >= 0 && status == 429 && wait > 0)
                r = tb_buffer_printf(&b, NULL, ", the registry asks to wait %llu s",
                        (unsigned long long) (wait / USEC_PER_SEC));
        if (r >= 0 && advice) {
                const char *at = strstr(advice, "%s"); /* the one placeholder of the table above */

                r = at ? tb_buffer_printf(&b, NULL, "; %.*s%s%s", (int) (at - advice), advice, host, at + 2)
                       : tb_buffer_printf(&b, NULL, "; %s", advice);
        }
        if (r < 0)
                return tb_error_oom(err);
        tb_error_set(err, kind, code, "%s", b.data);
        if (registry_status_is_retryable(status))
                tb_error_set_retryable(err);
        return code;
}

/* Whoever asked for credentials and got wrong ones, or none because the helper failed, hears about those. */
static int status_error(const RegistryCall *call, const char *what, TbError **err)
{
        const RegistryHost *host = registry_call_host(call);
        const RegistryCredentials *cred =
                registry_client_find_credentials(registry_call_client(call), host->name);
        unsigned status = registry_call_status(call);
        const char *body;
        size_t size;
        int r;

        if (status == 401 && cred)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "%s: %s: the registry refuses the %s (HTTP 401); %s", host->name, what,
                        cred->user ? "credentials" : "token",
                        cred->user ? "check user name and password" : "log in again");
        body = registry_call_body(call, &size);
        if ((status == 401 || status == 403) && host->helper_error) {
                r = tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "%s: %s: access is denied (HTTP %u), and no credentials could be had: %s",
                        host->name, what, status, tb_error_message(host->helper_error));
                return r;
        }
        return registry_status_error_full(
                host->name, status, body, size, registry_call_header(call, "Retry-After"), what, err);
}

int registry_status_error(const RegistryCall *call, TbError **err, const char *fmt, ...)
{
        _cleanup_free_ char *what = NULL;
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vasprintf(&what, fmt, ap);
        va_end(ap);
        if (n < 0) {
                what = NULL;
                return tb_error_oom(err);
        }
        return status_error(call, what, err);
}
