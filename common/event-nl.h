/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <systemd/sd-event.h>

#include "common/error.h"

/*
 * libnl socket <-> sd-event. The socket is made non-blocking; when it is readable all pending messages are
 * received and handed to the callbacks that the owner set with nl_socket_modify_cb(). A receive error (for
 * example -ENOBUFS: messages were lost and the owner must dump again) goes to `on_error`.
 */
typedef struct TbNlSource TbNlSource;
typedef void (*TbNlErrorFn)(int code, void *userdata);

/* The socket stays the caller's and must outlive the source. */
int tb_nl_source_new(sd_event *event, struct nl_sock *sock, const char *description, TbNlErrorFn on_error,
        void *userdata, TbNlSource **ret, TbError **err) _warn_unused_;
TbNlSource *tb_nl_source_free(TbNlSource *s);
TB_DEFINE_CLEANUP(TbNlSource *, tb_nl_source_free)

/* Translates -NLE_* to a negative errno (libnl's numbering is its own). */
int tb_nl_errno(int nle);

static inline void tb_nl_socket_freep(struct nl_sock **s)
{
        if (*s)
                nl_socket_free(*s);
}
static inline void tb_nl_msg_freep(struct nl_msg **m)
{
        if (*m)
                nlmsg_free(*m);
}
