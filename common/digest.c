/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/digest.h"
#include "common/strv.h"

#define SHA256_SIZE 32
#define SHA256_HEX (2 * SHA256_SIZE)

struct TbHasher {
        EVP_MD_CTX *ctx;
        bool finished;
};

bool tb_digest_equal(const TbDigest *a, const TbDigest *b)
{
        return strcmp(a->text, b->text) == 0;
}

static bool is_lower_hex(const char *s)
{
        return s[strspn(s, "0123456789abcdef")] == 0;
}

/* OCI image-spec, descriptor.md: algorithm ::= component (separator component)*, component ::= [a-z0-9]+,
 * separator ::= [+._-]; encoded ::= [a-zA-Z0-9=_-]+ */
static bool is_well_formed_digest(const char *s)
{
        const char *p = s;

        for (;;) {
                size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789");

                if (n == 0)
                        return false;
                p += n;
                if (*p == ':')
                        break;
                if (!*p || !strchr("+._-", *p))
                        return false;
                p++;
        }
        p++;
        return *p && p[strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=_-")] == 0;
}

int tb_digest_parse(const char *s, TbDigest *ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        const char *hex;

        hex = s ? tb_startswith(s, "sha256:") : NULL;
        if (hex && strnlen(hex, SHA256_HEX + 1) == SHA256_HEX && is_lower_hex(hex)) {
                memcpy(ret->text, s, sizeof(ret->text));
                return 0;
        }

        shown = tb_escape(s ?: "", 80);
        if (!shown)
                return tb_error_oom(err);
        if (s && !hex && strnlen(s, 1024) < 1024 && is_well_formed_digest(s))
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "digest \"%s\" uses an unsupported algorithm; only sha256 is supported", shown);
        return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL,
                "\"%s\" is not a digest; expected \"sha256:\" and 64 lower-case hex digits", shown);
}

/* OpenSSL keeps its errors in a per-thread queue; the topmost tells what failed. */
static int openssl_error(TbError **err, const char *what)
{
        char text[256] = "unknown reason";
        unsigned long e = ERR_get_error();

        if (e != 0)
                ERR_error_string_n(e, text, sizeof(text));
        ERR_clear_error();
        return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "%s: %s", what, text);
}

int tb_hasher_new(TbHasher **ret, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *h = calloc(1, sizeof(*h));

        if (!h)
                return tb_error_oom(err);
        h->ctx = EVP_MD_CTX_new();
        if (!h->ctx)
                return tb_error_oom(err);
        if (EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1)
                return openssl_error(err, "cannot start a SHA-256 computation");

        *ret = TAKE_PTR(h);
        return 0;
}

int tb_hasher_copy(const TbHasher *h, TbHasher **ret, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *copy = calloc(1, sizeof(*copy));

        if (!copy)
                return tb_error_oom(err);
        copy->ctx = EVP_MD_CTX_new();
        if (!copy->ctx)
                return tb_error_oom(err);
        if (h->finished || EVP_MD_CTX_copy_ex(copy->ctx, h->ctx) != 1)
                return openssl_error(err, "cannot copy a SHA-256 computation");

        *ret = TAKE_PTR(copy);
        return 0;
}

int tb_hasher_update(TbHasher *h, const void *data, size_t size, TbError **err)
{
        if (h->finished)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "data was added to a finished digest");
        if (size > 0 && EVP_DigestUpdate(h->ctx, data, size) != 1)
                return openssl_error(err, "cannot compute a SHA-256 digest");
        return 0;
}

int tb_hasher_final(TbHasher *h, TbDigest *ret, TbError **err)
{
        static const char digits[] = "0123456789abcdef";
        unsigned char raw[SHA256_SIZE];
        unsigned n = 0;
        char *p;

        if (h->finished)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "a digest was finished twice");
        h->finished = true;

        if (EVP_DigestFinal_ex(h->ctx, raw, &n) != 1 || n != sizeof(raw))
                return openssl_error(err, "cannot finish a SHA-256 digest");

        p = mempcpy(ret->text, "sha256:", 7);
        for (size_t i = 0; i < sizeof(raw); i++) {
                *p++ = digits[raw[i] >> 4];
                *p++ = digits[raw[i] & 15];
        }
        *p = 0;
        return 0;
}

TbHasher *tb_hasher_free(TbHasher *h)
{
        if (!h)
                return NULL;

        EVP_MD_CTX_free(h->ctx);
        free(h);
        return NULL;
}

int tb_digest_of(const void *data, size_t size, TbDigest *ret, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *h = NULL;
        int r;

        r = tb_hasher_new(&h, err);
        if (r < 0)
                return r;
        r = tb_hasher_update(h, data, size, err);
        if (r < 0)
                return r;
        return tb_hasher_final(h, ret, err);
}
