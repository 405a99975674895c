/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <errno.h>
#include <netlink/errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/event-nl.h"

/*
 * The owner's callbacks run inside nl_recvmsgs_default(). They may free the source (on_io() notices), but not the
 * socket: libnl still uses it when they return. A kernel answer with an error ends nl_recvmsgs_default() unless the
 * owner has an error callback (nl_socket_modify_err_cb()), and what else the same datagram held is lost then: owners
 * that have several requests under way must set one.
 */

/* Datagrams in one turn of the loop; the rest waits for the next one, so that others get their turn. */
#define BATCH_MAX 64u

struct TbNlSource {
        struct nl_sock *sock;
        sd_event_source *io;
        TbNlErrorFn on_error;
        void *userdata;
        bool *freed; /* set while callbacks run */
};

int tb_nl_errno(int nle)
{
        static const int table[] = {
                [NLE_SUCCESS] = 0,
                [NLE_FAILURE] = EIO,
                [NLE_INTR] = EINTR,
                [NLE_BAD_SOCK] = EBADF,
                [NLE_AGAIN] = EAGAIN,
                [NLE_NOMEM] = ENOMEM,
                [NLE_EXIST] = EEXIST,
                [NLE_INVAL] = EINVAL,
                [NLE_RANGE] = ERANGE,
                [NLE_MSGSIZE] = EMSGSIZE,
                [NLE_OPNOTSUPP] = EOPNOTSUPP,
                [NLE_AF_NOSUPPORT] = EAFNOSUPPORT,
                [NLE_OBJ_NOTFOUND] = ENOENT,
                [NLE_NOATTR] = ENODATA,
                [NLE_MISSING_ATTR] = EINVAL,
                [NLE_AF_MISMATCH] = EAFNOSUPPORT,
                [NLE_SEQ_MISMATCH] = EPROTO,
                [NLE_MSG_OVERFLOW] = EOVERFLOW,
                [NLE_MSG_TRUNC] = EMSGSIZE,
                [NLE_NOADDR] = EADDRNOTAVAIL,
                [NLE_SRCRT_NOSUPPORT] = EOPNOTSUPP,
                [NLE_MSG_TOOSHORT] = EBADMSG,
                [NLE_MSGTYPE_NOSUPPORT] = EOPNOTSUPP,
                [NLE_OBJ_MISMATCH] = EINVAL,
                [NLE_NOCACHE] = ENODATA,
                [NLE_BUSY] = EBUSY,
                [NLE_PROTO_MISMATCH] = EPROTO,
                [NLE_NOACCESS] = EACCES,
                [NLE_PERM] = EPERM,
                [NLE_PKTLOC_FILE] = ENOENT,
                [NLE_PARSE_ERR] = EBADMSG,
                [NLE_NODEV] = ENODEV,
                [NLE_IMMUTABLE] = EPERM,
                [NLE_DUMP_INTR] = EINTR,
                [NLE_ATTRSIZE] = EMSGSIZE,
        };
        static_assert(ELEMENTSOF(table) == NLE_MAX + 1, "one errno for each libnl error");

        nle = abs(nle);
        return nle < (int) ELEMENTSOF(table) ? -table[nle] : -EIO;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        TbNlSource *s = userdata;
        bool freed = false;
        int r = 0, code;

        s->freed = &freed;
        for (unsigned i = 0; i < BATCH_MAX && r >= 0; i++) {
                r = nl_recvmsgs_default(s->sock);
                if (freed)
                        return 0;
        }
        s->freed = NULL;
        if (r >= 0 || r == -NLE_AGAIN)
                return 0;

        /* libnl folds recvmsg()'s ENOBUFS into NLE_NOMEM. Either way messages are lost. */
        code = r == -NLE_NOMEM ? -ENOBUFS : tb_nl_errno(r);
        /* A closed descriptor would wake us for ever. */
        if (code == -EBADF)
                (void) sd_event_source_set_enabled(s->io, SD_EVENT_OFF);
        if (s->on_error)
                s->on_error(code, s->userdata); /* may free s */
        return 0;
}

int tb_nl_source_new(sd_event *event, struct nl_sock *sock, const char *description, TbNlErrorFn on_error,
        void *userdata, TbNlSource **ret, TbError **err)
{
        _cleanup_(tb_nl_source_freep) TbNlSource *s = NULL;
        int r;

        r = nl_socket_set_nonblocking(sock);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, tb_nl_errno(r), "cannot make a netlink socket non-blocking");

        s = calloc(1, sizeof(*s));
        if (!s)
                return tb_error_oom(err);
        *s = (TbNlSource){.sock = sock, .on_error = on_error, .userdata = userdata};

        r = sd_event_add_io(event, &s->io, nl_socket_get_fd(sock), EPOLLIN, on_io, s);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch a netlink socket");
        if (description)
                (void) sd_event_source_set_description(s->io, description);

        *ret = TAKE_PTR(s);
        return 0;
}

TbNlSource *tb_nl_source_free(TbNlSource *s)
{
        if (!s)
                return NULL;

        if (s->freed)
                *s->freed = true;
        sd_event_source_disable_unref(s->io);
        free(s);
        return NULL;
}
