/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/http-internal.h"
#include "common/strv.h"

/*
 * CURLcode -> TbError, the only place where curl's numbers are looked at. See libcurl-errors(3).
 *
 * `retryable` asks whether the same request may succeed a moment later with nobody changing anything: yes
 * for what networks and restarting servers do, no for names, certificates and settings that are wrong. A
 * name that cannot be resolved is retryable because curl does not tell "no such name" from "the name server
 * did not answer".
 */
typedef struct HttpErrorRow {
        CURLcode code;
        TbErrorKind kind;
        int error;
        bool retryable;
        const char *text;   /* what happened */
        const char *advice; /* what to do, or NULL */
} HttpErrorRow;

static const HttpErrorRow rows[] = {
        {CURLE_UNSUPPORTED_PROTOCOL, TB_ERROR_REMOTE, EPROTO, false, "the answer is not HTTP",
                "check the port, something else listens there"},
        {CURLE_URL_MALFORMAT, TB_ERROR_CONFIG, EINVAL, false, "malformed address", "check host and port"},
        {CURLE_COULDNT_RESOLVE_PROXY, TB_ERROR_REMOTE, EHOSTUNREACH, true, "cannot resolve the proxy's name",
                "check the http_proxy and https_proxy settings"},
        {CURLE_COULDNT_RESOLVE_HOST, TB_ERROR_REMOTE, EHOSTUNREACH, true, "cannot resolve the host's name",
                "check the name and this host's DNS settings"},
        {CURLE_COULDNT_CONNECT, TB_ERROR_REMOTE, ECONNREFUSED, true, "cannot connect",
                "check that the service is running and reachable"},
        {CURLE_WEIRD_SERVER_REPLY, TB_ERROR_REMOTE, EPROTO, false, "the answer is not valid HTTP", NULL},
        {CURLE_HTTP2, TB_ERROR_REMOTE, EPROTO, true, "HTTP/2 connection failed", NULL},
        {CURLE_HTTP2_STREAM, TB_ERROR_REMOTE, EPROTO, true, "HTTP/2 stream failed", NULL},
        {CURLE_PARTIAL_FILE, TB_ERROR_REMOTE, ECONNRESET, true,
                "the connection ended in the middle of the answer", NULL},
        {CURLE_OUT_OF_MEMORY, TB_ERROR_RESOURCE, ENOMEM, true, "out of memory", NULL},
        {CURLE_OPERATION_TIMEDOUT, TB_ERROR_REMOTE, ETIMEDOUT, true, "timed out", NULL},
        {CURLE_SSL_CONNECT_ERROR, TB_ERROR_REMOTE, EPROTO, false, "TLS handshake failed",
                "check that the service speaks TLS 1.2 or newer on this port"},
        {CURLE_GOT_NOTHING, TB_ERROR_REMOTE, ECONNRESET, true, "the connection was closed without an answer",
                NULL},
        {CURLE_SEND_ERROR, TB_ERROR_REMOTE, EPIPE, true, "the connection broke while sending", NULL},
        {CURLE_RECV_ERROR, TB_ERROR_REMOTE, ECONNRESET, true, "the connection broke while receiving", NULL},
        {CURLE_SEND_FAIL_REWIND, TB_ERROR_REMOTE, ECONNRESET, true,
                "the connection closed during the upload", NULL},
        {CURLE_SSL_CERTPROBLEM, TB_ERROR_CONFIG, EINVAL, false,
                "cannot use the client certificate or its key", "check both files"},
        {CURLE_SSL_CLIENTCERT, TB_ERROR_CONFIG, EACCES, false, "the service demands a client certificate",
                "configure one for this host"},
        {CURLE_PEER_FAILED_VERIFICATION, TB_ERROR_REMOTE, EKEYREJECTED, false,
                "cannot verify the TLS certificate",
                "install the CA certificate of this host, or fix the certificate"},
        {CURLE_SSL_CACERT_BADFILE, TB_ERROR_CONFIG, EINVAL, false, "cannot use the CA certificate file",
                "check that it exists and holds PEM certificates"},
        {CURLE_BAD_CONTENT_ENCODING, TB_ERROR_REMOTE, EPROTO, false,
                "unknown content encoding in the answer", NULL},
        {CURLE_NO_CONNECTION_AVAILABLE, TB_ERROR_RESOURCE, EAGAIN, true, "no connection available", NULL},
        {CURLE_UNRECOVERABLE_POLL, TB_ERROR_SYSTEM, EIO, true, "waiting for the network failed", NULL},
        {CURLE_PROXY, TB_ERROR_REMOTE, EPROTO, true, "the proxy refused",
                "check the http_proxy and https_proxy settings"},
        {CURLE_FAILED_INIT, TB_ERROR_RESOURCE, EIO, false, "cannot set up the transfer", NULL},
        {CURLE_BAD_FUNCTION_ARGUMENT, TB_ERROR_BUG, EINVAL, false, "wrong use of libcurl", NULL},
        {CURLE_UNKNOWN_OPTION, TB_ERROR_ENVIRONMENT, EOPNOTSUPP, false, "this libcurl lacks an option",
                "install the libcurl version that tbnode was built for"},
        {CURLE_NOT_BUILT_IN, TB_ERROR_ENVIRONMENT, EOPNOTSUPP, false, "this libcurl lacks a feature",
                "install the libcurl version that tbnode was built for"},
        {CURLE_AUTH_ERROR, TB_ERROR_REMOTE, EACCES, false, "authentication failed", NULL},
};

static const HttpErrorRow other = {CURLE_OK, TB_ERROR_REMOTE, EIO, false, "transfer failed", NULL};

static const HttpErrorRow *find_row(CURLcode code)
{
        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                if (rows[i].code == code)
                        return &rows[i];
        return &other;
}

/* What connect(2) said, if it was connect(2): the difference between "not running" and "not allowed". */
static int connect_error(TbError **err, const TbHttpRequest *r, int os_errno)
{
        char buf[128];
        const char *reason = strerror_r(os_errno, buf, sizeof(buf)), *advice;
        TbErrorKind kind = TB_ERROR_REMOTE;
        bool retryable = true;

        if (os_errno == EACCES || os_errno == EPERM) {
                kind = TB_ERROR_ENVIRONMENT;
                retryable = false;
                advice = r->unix_socket ? "run as a user that may open the socket"
                                        : "a local firewall or policy forbids it";
        } else if (r->unix_socket)
                advice = "check that the service is running";
        else if (os_errno == ECONNREFUSED)
                advice = "check that the service is running and listens on this port";
        else
                advice = "check the network to this host";

        tb_error_set(err, kind, os_errno, "%s: cannot connect%s%s: %s; %s", r->label,
                r->unix_socket ? " to " : "", r->unix_socket ?: "", reason, advice);
        if (retryable)
                tb_error_set_retryable(err);
        return -os_errno;
}

int http_error_from_curl(TbError **err, const TbHttpRequest *r, CURLcode code)
{
        const HttpErrorRow *row = find_row(code);
        _cleanup_free_ char *detail = NULL;
        bool retryable = row->retryable;
        long os_errno = 0;

        (void) curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &os_errno);
        if (code == CURLE_COULDNT_CONNECT && os_errno > 0)
                return connect_error(err, r, (int) os_errno);
        if (code == CURLE_OUT_OF_MEMORY) {
                curl_off_t connected = 0;

                /* curl's word for a header line of more than 100 kB (lib/dynbuf.h). Memory that really ran out between
                 * the connection and the body would be called so, too. */
                (void) curl_easy_getinfo(r->easy, CURLINFO_CONNECT_TIME_T, &connected);
                if (connected > 0 && !r->headers_complete)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                                "%s: a header line of the answer is too long", r->label);
                return tb_error_oom(err);
        }
        /* A handshake cut off by the network is worth another try, one refused by the peer is not. */
        if (code == CURLE_SSL_CONNECT_ERROR && (os_errno == ECONNRESET || os_errno == EPIPE))
                retryable = true;

        /* curl's text may quote what the peer sent. */
        detail = tb_escape(r->curl_error[0] ? r->curl_error : curl_easy_strerror(code), 200);
        tb_error_set(err, row->kind, row->error, "%s: %s: %s%s%s", r->label, row->text, detail ?: "?",
                row->advice ? "; " : "", row->advice ?: "");
        if (retryable)
                tb_error_set_retryable(err);
        return -row->error;
}

int http_error_from_multi(TbError **err, CURLMcode code, const char *what)
{
        if (code == CURLM_OUT_OF_MEMORY)
                return tb_error_oom(err);
        return tb_error_set(err, TB_ERROR_BUG, -EIO, "%s: %s", what, curl_multi_strerror(code));
}

int http_error_from_setopt(TbError **err, CURLcode code, const char *option)
{
        const HttpErrorRow *row = find_row(code);

        if (code == CURLE_OUT_OF_MEMORY)
                return tb_error_oom(err);
        return tb_error_set(err, row->kind, row->error, "cannot set %s: %s%s%s", option,
                curl_easy_strerror(code), row->advice ? "; " : "", row->advice ?: "");
}
