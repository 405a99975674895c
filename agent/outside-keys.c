/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/outside-keys.h"

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/obj_mac.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

#define SECRET_FILE "ssh-host-secret"
#define SCALAR_SIZE 32U /* of both curves */
#define POINT_SIZE 65U  /* uncompressed: SEC 1, 2.3.3 */

int outside_secret_read(const char *state_dir, unsigned char ret[static OUTSIDE_SECRET_SIZE], TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/" SECRET_FILE, state_dir), *data = NULL;
        _cleanup_error_ TbError *cause = NULL;
        size_t size = 0;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_file_read(path, OUTSIDE_SECRET_SIZE, &data, &size, &cause);
        if (r == -ENOENT) {
                if (getrandom(ret, OUTSIDE_SECRET_SIZE, 0) != (ssize_t) OUTSIDE_SECRET_SIZE)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make host keys");
                r = tb_mkdir_p(state_dir, 0755, err);
                return r < 0 ? r : tb_file_write_atomic(path, ret, OUTSIDE_SECRET_SIZE, 0600, err);
        }
        if (r < 0)
                return tb_error_move(err, &cause);
        if (size != OUTSIDE_SECRET_SIZE)
                return tb_error_set(err, TB_ERROR_CONFIG, -EBADMSG,
                        "%s is broken; remove it, and nodes at level none get new host keys", path);
        memcpy(ret, data, size);
        OPENSSL_cleanse(data, size);
        return 0;
}

/* A number of this node's for one purpose and try. */
static int derive(const unsigned char *secret, const char *id, const char *purpose, unsigned attempt,
        unsigned char ret[static SCALAR_SIZE], TbError **err)
{
        char text[128];
        unsigned size = 0;
        int n = snprintf(text, sizeof(text), "%s %u %s", purpose, attempt, id);

        if (n < 0 || (size_t) n >= sizeof(text) ||
                !HMAC(EVP_sha256(), secret, (int) OUTSIDE_SECRET_SIZE, (const unsigned char *) text,
                        (size_t) n, ret, &size) ||
                size != SCALAR_SIZE)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot derive a host key");
        return 0;
}

static int put_u32(TbBuffer *b, size_t value, TbError **err)
{
        const unsigned char p[] = {(unsigned char) (value >> 24), (unsigned char) (value >> 16),
                (unsigned char) (value >> 8), (unsigned char) value};

        return tb_buffer_append(b, p, sizeof(p), err);
}

/* RFC 4251, 5: string. */
static int put_string(TbBuffer *b, const void *data, size_t size, TbError **err)
{
        int r = put_u32(b, size, err);

        return r < 0 ? r : tb_buffer_append(b, data, size, err);
}

/* RFC 4251, 5: mpint, of a number that is not negative. */
static int put_mpint(TbBuffer *b, const unsigned char *p, size_t size, TbError **err)
{
        unsigned char padded[SCALAR_SIZE + 1] = {};

        while (size > 0 && *p == 0) {
                p++;
                size--;
        }
        if (size == 0 || p[0] < 0x80)
                return put_string(b, p, size, err);
        memcpy(padded + 1, p, size);
        return put_string(b, padded, size + 1, err);
}

int outside_key_ed25519(
        const unsigned char secret[static OUTSIDE_SECRET_SIZE], const char *id, TbBuffer *ret, TbError **err)
{
        static const char name[] = "ssh-ed25519";
        unsigned char pair[2 * SCALAR_SIZE];
        size_t size = SCALAR_SIZE;
        EVP_PKEY *key;
        bool ok;
        int r;

        r = derive(secret, id, "ed25519", 0, pair, err);
        if (r < 0)
                return r;
        key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, pair, SCALAR_SIZE);
        ok = key && EVP_PKEY_get_raw_public_key(key, pair + SCALAR_SIZE, &size) == 1 && size == SCALAR_SIZE;
        EVP_PKEY_free(key);
        if (!ok)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot make an ed25519 host key");
        r = put_string(ret, name, strlen(name), err);
        if (r >= 0)
                r = put_string(ret, pair, sizeof(pair), err);
        OPENSSL_cleanse(pair, sizeof(pair));
        return r;
}

/* The public point of a private number. 0: it is none of this curve (one of 2^32 is not). */
static int ecdsa_point(const unsigned char *scalar, unsigned char ret[static POINT_SIZE])
{
        EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
        BIGNUM *k = BN_bin2bn(scalar, (int) SCALAR_SIZE, NULL);
        EC_POINT *point = group ? EC_POINT_new(group) : NULL;
        int r = -EIO;

        if (group && k && (BN_is_zero(k) || BN_cmp(k, EC_GROUP_get0_order(group)) >= 0))
                r = 0;
        else if (point && k && EC_POINT_mul(group, point, k, NULL, NULL, NULL) == 1 &&
                EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret, POINT_SIZE, NULL) ==
                        POINT_SIZE)
                r = 1;
        EC_POINT_free(point);
        BN_clear_free(k);
        EC_GROUP_free(group);
        return r;
}

int outside_key_ecdsa(
        const unsigned char secret[static OUTSIDE_SECRET_SIZE], const char *id, TbBuffer *ret, TbError **err)
{
        static const char name[] = "ecdsa-sha2-nistp256", curve[] = "nistp256";
        unsigned char scalar[SCALAR_SIZE], point[POINT_SIZE];
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 4; i++) {
                r = derive(secret, id, "ecdsa", i, scalar, err);
                if (r < 0)
                        return r;
                r = ecdsa_point(scalar, point);
        }
        if (r <= 0)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot make an ecdsa host key");
        r = put_string(ret, name, strlen(name), err);
        if (r >= 0)
                r = put_string(ret, curve, strlen(curve), err);
        if (r >= 0)
                r = put_string(ret, point, sizeof(point), err);
        if (r >= 0)
                r = put_mpint(ret, scalar, sizeof(scalar), err);
        OPENSSL_cleanse(scalar, sizeof(scalar));
        return r;
}
