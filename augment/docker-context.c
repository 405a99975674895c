/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "augment/docker-context.h"
#include "common/cleanup.h"
#include "common/macro.h"

#define BLOCK 512u

/* POSIX.1-1988 ustar, IEEE Std 1003.1 pax(1), "ustar Interchange Format". */
typedef struct UstarHeader {
        char name[100];
        char mode[8];
        char uid[8];
        char gid[8];
        char size[12];
        char mtime[12];
        char chksum[8];
        char typeflag;
        char linkname[100];
        char magic[6];
        char version[2];
        char uname[32];
        char gname[32];
        char devmajor[8];
        char devminor[8];
        char prefix[155];
        char pad[12];
} UstarHeader;

/* A member is its header, its content (from memory or from a file) and zeros up to the next block. */
typedef struct Member {
        UstarHeader header;
        char *data;
        int fd;
        uint64_t size;
} Member;

struct DockerContext {
        Member members[1 + _AUGMENT_LEVEL_MAX];
        size_t n_members;
        size_t current;  /* member that is being read; n_members = the end of the archive */
        uint64_t offset; /* in it, header included */
};

static uint64_t padded(uint64_t size)
{
        return (size + BLOCK - 1) / BLOCK * BLOCK;
}

static uint64_t member_size(const Member *m)
{
        return BLOCK + padded(m->size);
}

static void fill_header(Member *m, const char *name)
{
        UstarHeader *h = &m->header;
        const unsigned char *bytes = (const unsigned char *) h;
        unsigned sum = 0;

        static_assert(sizeof(UstarHeader) == BLOCK, "a header is one block");
        (void) snprintf(h->name, sizeof(h->name), "%s", name);
        (void) snprintf(h->mode, sizeof(h->mode), "%07o", 0644u);
        (void) snprintf(h->uid, sizeof(h->uid), "%07o", 0u);
        (void) snprintf(h->gid, sizeof(h->gid), "%07o", 0u);
        (void) snprintf(h->size, sizeof(h->size), "%011llo", (unsigned long long) m->size);
        (void) snprintf(h->mtime, sizeof(h->mtime), "%011o", 0u);
        h->typeflag = '0';
        memcpy(h->magic, "ustar", 6);
        memcpy(h->version, "00", 2);
        memset(h->chksum, ' ', sizeof(h->chksum));
        for (size_t i = 0; i < sizeof(*h); i++)
                sum += bytes[i];
        (void) snprintf(h->chksum, sizeof(h->chksum), "%06o", sum);
}

static int add_layer(DockerContext *c, PayloadLayer *layer, TbError **err)
{
        Member *m;
        int r;

        r = payload_layer_verify(layer, err);
        if (r < 0)
                return r;
        m = &c->members[c->n_members];
        m->fd = open(layer->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (m->fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, -errno, "cannot open the payload layer %s", layer->path);
        c->n_members++;
        m->size = layer->size;
        fill_header(m, layer->file);
        return 0;
}

int docker_context_new(
        const char *dockerfile, Payload *payload, AugmentLevel level, DockerContext **ret, TbError **err)
{
        _cleanup_(docker_context_freep) DockerContext *c = calloc(1, sizeof(*c));
        PayloadLayers layers;
        Member *m;
        int r;

        if (!c)
                return tb_error_oom(err);
        m = &c->members[c->n_members++];
        m->fd = -EBADF;
        m->data = strdup(dockerfile);
        if (!m->data)
                return tb_error_oom(err);
        m->size = strlen(dockerfile);
        fill_header(m, "Dockerfile");
        r = payload_layers(payload, level, &layers, err);
        for (size_t i = 0; r >= 0 && i < layers.n; i++)
                r = add_layer(c, layers.layer[i], err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

DockerContext *docker_context_free(DockerContext *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_members; i++) {
                free(c->members[i].data);
                tb_close(c->members[i].fd);
        }
        free(c);
        return NULL;
}

uint64_t docker_context_size(const DockerContext *c)
{
        uint64_t size = 2 * BLOCK;

        for (size_t i = 0; i < c->n_members; i++)
                size += member_size(&c->members[i]);
        return size;
}

static ssize_t read_member(const Member *m, uint64_t offset, void *buf, size_t size)
{
        if (offset < BLOCK) {
                size = MIN2(size, (size_t) (BLOCK - offset));
                memcpy(buf, (const char *) &m->header + offset, size);
                return (ssize_t) size;
        }
        offset -= BLOCK;
        if (offset >= m->size) {
                size = (size_t) MIN2((uint64_t) size, padded(m->size) - offset);
                memset(buf, 0, size);
                return (ssize_t) size;
        }
        size = (size_t) MIN2((uint64_t) size, m->size - offset);
        if (m->data) {
                memcpy(buf, m->data + offset, size);
                return (ssize_t) size;
        }
        for (;;) {
                ssize_t n = pread(m->fd, buf, size, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                return n < 0 ? -errno : n == 0 ? -EIO : n;
        }
}

ssize_t docker_context_read(DockerContext *c, void *buf, size_t size)
{
        ssize_t n;

        if (size == 0)
                return 0;
        if (c->current == c->n_members) {
                /* Two blocks of zeros end an archive. */
                size = (size_t) MIN2((uint64_t) size, 2 * BLOCK - c->offset);
                memset(buf, 0, size);
                c->offset += size;
                return (ssize_t) size;
        }
        n = read_member(&c->members[c->current], c->offset, buf, size);
        if (n < 0)
                return n;
        c->offset += (uint64_t) n;
        if (c->offset == member_size(&c->members[c->current])) {
                c->current++;
                c->offset = 0;
        }
        return n;
}
