/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * TLS settings in docker's layout (moby, registry/registry.go, ReadCertsDirectory)
 *
 *         DIR/HOST[:PORT]/NAME.crt        a CA, accepted beside the system's
 *         DIR/HOST[:PORT]/NAME.cert       a client certificate, with its key in NAME.key
 *
 * A certificate without its key, or a key without its certificate, is a mistake that docker refuses, and so do we: the
 * operator wanted something that would silently not happen.
 */

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define FILES_MAX 64U
#define PEM_MAX (1024U * 1024)

static int add_ca(TbBuffer *b, const char *path, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = tb_file_read(path, PEM_MAX, &data, &size, err);
        if (r < 0)
                return r;
        if (!strstr(data, "-----BEGIN CERTIFICATE-----"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s: no PEM certificate in it; files called *.crt must be CA certificates", path);
        r = tb_buffer_append(b, data, size, err);
        if (r >= 0)
                r = tb_buffer_append_str(b, "\n", err);
        return r;
}

static char *with_ending(const char *path, const char *from, const char *to)
{
        return tb_asprintf("%.*s%s", (int) (strlen(path) - strlen(from)), path, to);
}

static int take_client_certificate(RegistryHost *h, const char *path, TbError **err)
{
        _cleanup_free_ char *key = with_ending(path, ".cert", ".key");

        if (!key)
                return tb_error_oom(err);
        if (access(key, R_OK) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno,
                        "%s: no key %s for this client certificate (CA certificates must be called *.crt)",
                        path, key);
        if (h->client_cert) /* the first in the order of names */
                return 0;
        h->client_cert = strdup(path);
        h->client_key = TAKE_PTR(key);
        return h->client_cert ? 0 : tb_error_oom(err);
}

static int check_key(const char *path, TbError **err)
{
        _cleanup_free_ char *cert = with_ending(path, ".key", ".cert");

        if (!cert)
                return tb_error_oom(err);
        if (access(cert, R_OK) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno,
                        "%s: no client certificate %s for this key", path, cert);
        return 0;
}

static int take_file(RegistryHost *h, TbBuffer *b, const char *path, TbError **err)
{
        if (tb_endswith(path, ".crt"))
                return add_ca(b, path, err);
        if (tb_endswith(path, ".cert"))
                return take_client_certificate(h, path, err);
        if (tb_endswith(path, ".key"))
                return check_key(path, err);
        return 0;
}

static int read_directory(RegistryHost *h, const char *dir, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(4 * PEM_MAX);
        struct dirent **entries = NULL;
        int n, r = 0;

        n = scandir(dir, &entries, NULL, alphasort);
        if (n < 0 && (errno == ENOENT || errno == ENOTDIR))
                return 0;
        if (n < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot read %s", dir);
        if ((unsigned) n > FILES_MAX + 2)
                r = tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "%s: more than %u files", dir, FILES_MAX);
        for (int i = 0; i < n; i++) {
                if (r >= 0 && entries[i]->d_name[0] != '.') {
                        _cleanup_free_ char *path = tb_asprintf("%s/%s", dir, entries[i]->d_name);

                        r = path ? take_file(h, &b, path, err) : tb_error_oom(err);
                }
                free(entries[i]);
        }
        free(entries);
        if (r < 0 || b.size == 0)
                return r;
        h->ca_pem = tb_buffer_steal(&b, NULL);
        return h->ca_pem ? 0 : tb_error_oom(err);
}

int registry_host_load_certs(const RegistryClient *c, RegistryHost *h, TbError **err)
{
        _cleanup_free_ char *dir = NULL;
        int r;

        if (h->certs_loaded || h->tls_given || !c->certs_dir)
                return 0;
        dir = tb_asprintf("%s/%s", c->certs_dir, h->name); /* a valid host: no "/" in it */
        if (!dir)
                return tb_error_oom(err);
        r = read_directory(h, dir, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", h->name);
                return r;
        }
        h->certs_loaded = true;
        return 0;
}

int registry_client_set_certs_dir(RegistryClient *c, const char *dir, TbError **err)
{
        char *copy = strdup(dir ? dir : "/etc/docker/certs.d");

        if (!copy)
                return tb_error_oom(err);
        free(c->certs_dir);
        c->certs_dir = copy;
        return 0;
}
