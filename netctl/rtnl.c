/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/rtnl.h"

#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/cleanup.h"
#include "netctl/netctl.h"

/* The kernel answers a dump in pieces of at most 32 kB when the reader's buffer allows it. */
#define RECEIVE_SIZE (64 * 1024)
/* ... and takes memory of the size that the reader had in mind at his largest read, also where an answer has 300 bytes. So what is
 * asked for a thousand times has a socket of its own, which reads little, but several datagrams with one call: the answer
 * and the end of the dump, or the answers to many questions. */
#define SMALL_SIZE (8 * 1024)
#define SMALL_SLOTS 32
/* Messages and bytes per sendmsg: the send buffer must hold the request, the receive buffer an answer for each message. */
#define CHUNK_MESSAGES 2048
#define CHUNK_BYTES (512 * 1024)
#define SOCKET_BUFFER (8 * 1024 * 1024)

struct Rtnl {
        int fd;
        uint32_t seq;
        uint8_t *buffer; /* `slots` of them, `slot_size` bytes each */
        size_t slot_size;
        unsigned slots;
        size_t received
                [SMALL_SLOTS]; /* bytes in the slots at .. filled - 1, which nobody has looked at yet */
        unsigned at, filled;
        Rtnl *small;
};

Rtnl *rtnl_free(Rtnl *r)
{
        if (!r)
                return NULL;
        rtnl_free(r->small);
        tb_close(r->fd);
        free(r->buffer);
        free(r);
        return NULL;
}

static int set_option(int fd, int level, int name, int value)
{
        return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* `batches`: it will carry more than a request at a time, whose answers must all find room. */
static int open_socket(bool batches, Rtnl **ret, TbError **err)
{
        _cleanup_rtnl_ Rtnl *r = calloc(1, sizeof(*r));
        if (!r)
                return tb_error_oom(err);
        r->fd = -EBADF;
        r->slot_size = batches ? RECEIVE_SIZE : SMALL_SIZE;
        r->slots = batches ? 1 : SMALL_SLOTS;
        r->buffer = malloc(r->slot_size * r->slots);
        if (!r->buffer)
                return tb_error_oom(err);

        r->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (r->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot open an rtnetlink socket");

        /* *FORCE needs CAP_NET_ADMIN in the first user namespace; without it the defaults hold some 200 answers, which is
         * enough for everything but mass failures. */
        if (batches && set_option(r->fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER) < 0)
                (void) set_option(r->fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER);
        if (batches && set_option(r->fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER) < 0)
                (void) set_option(r->fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER);
        /* Linux 4.12 and 4.3: messages in words, and errors without a copy of the request. */
        if (batches) {
                (void) set_option(r->fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
                (void) set_option(r->fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
        }

        struct timeval timeout = {
                .tv_sec = NETCTL_TIMEOUT_MS / 1000, .tv_usec = NETCTL_TIMEOUT_MS % 1000 * 1000};
        if (setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot bound waiting for rtnetlink");
        if (batches) {
                int k = open_socket(false, &r->small, err);
                if (k < 0)
                        return k;
        }

        *ret = TAKE_PTR(r);
        return 0;
}

int rtnl_new(Rtnl **ret, TbError **err)
{
        return open_socket(true, ret, err);
}

static uint32_t port_of(const Rtnl *r)
{
        struct sockaddr_nl a = {.nl_family = AF_NETLINK};
        socklen_t size = sizeof(a);

        /* A socket gets its port when it first sends, if nobody asked for one. */
        if (getsockname(r->fd, (struct sockaddr *) &a, &size) < 0)
                return 0;
        if (a.nl_pid == 0 &&
                (bind(r->fd, (struct sockaddr *) &(struct sockaddr_nl){.nl_family = AF_NETLINK}, sizeof(a)) <
                                0 ||
                        getsockname(r->fd, (struct sockaddr *) &a, &size) < 0))
                return 0;
        return a.nl_pid;
}

void rtnl_ports(const Rtnl *r, uint32_t ret[static RTNL_PORTS])
{
        ret[0] = port_of(r);
        ret[1] = r->small ? port_of(r->small) : ret[0];
}

int rtnl_in_netns(
        int netns_fd, int home_fd, int (*fn)(void *userdata, TbError **err), void *userdata, TbError **err)
{
        if (setns(netns_fd, CLONE_NEWNET) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot enter the container's network namespace");
        int r = fn(userdata, err);
        if (setns(home_fd, CLONE_NEWNET) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_BUG, errno, "cannot come back from a container's network namespace");
        return r;
}

typedef struct Fresh {
        Rtnl *rtnl;
        bool batches;
} Fresh;

static int new_here(void *userdata, TbError **err)
{
        Fresh *f = userdata;

        return open_socket(f->batches, &f->rtnl, err);
}

int rtnl_new_in(int netns_fd, int home_fd, bool batches, Rtnl **ret, TbError **err)
{
        Fresh fresh = {.batches = batches};

        int r = rtnl_in_netns(netns_fd, home_fd, new_here, &fresh, err);
        if (r < 0) {
                rtnl_free(fresh.rtnl);
                return r;
        }
        *ret = fresh.rtnl;
        return 0;
}

static int rtnl_send(Rtnl *r, const void *data, size_t size, TbError **err)
{
        struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
        struct iovec iov = {.iov_base = (void *) data, .iov_len = size};
        struct msghdr m = {
                .msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n;

        do
                n = sendmsg(r->fd, &m, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot send to rtnetlink");
        return 0;
}

/* Waits for one datagram and takes with it what else is there, as far as there are slots. */
static int fill_slots(Rtnl *r, unsigned slots, TbError **err)
{
        struct sockaddr_nl from[SMALL_SLOTS];
        struct iovec iov[SMALL_SLOTS];
        struct mmsghdr m[SMALL_SLOTS];
        int n;

        for (unsigned i = 0; i < slots; i++) {
                from[i].nl_pid = 0;
                iov[i] = (struct iovec){.iov_base = r->buffer + i * r->slot_size, .iov_len = r->slot_size};
                m[i] = (struct mmsghdr){.msg_hdr = {.msg_name = from + i,
                                                .msg_namelen = sizeof(from[i]),
                                                .msg_iov = iov + i,
                                                .msg_iovlen = 1}};
        }
        do
                n = recvmmsg(r->fd, m, slots, MSG_WAITFORONE, NULL);
        while (n < 0 && errno == EINTR);
        if (n < 0) {
                int code = errno == EAGAIN ? ETIMEDOUT : errno;
                (void) tb_error_set_errno(err, TB_ERROR_SYSTEM, code, "no answer from rtnetlink");
                tb_error_set_retryable(err);
                return -code;
        }
        r->at = 0;
        r->filled = (unsigned) n;
        for (int i = 0; i < n; i++) {
                r->received[i] =
                        from[i].nl_pid == 0 ? m[i].msg_len : 0; /* else: another process, not the kernel */
                if (m[i].msg_hdr.msg_flags & MSG_TRUNC) {
                        r->filled = 0;
                        return tb_error_set(
                                err, TB_ERROR_SYSTEM, -EMSGSIZE, "an answer from rtnetlink is too long");
                }
        }
        return 0;
}

/* One datagram from the kernel; it stays where it is until the next call. `expected`: so many may be there. */
static int rtnl_receive(Rtnl *r, unsigned expected, const uint8_t **ret, size_t *ret_size, TbError **err)
{
        for (;;) {
                while (r->at < r->filled) {
                        unsigned i = r->at++;
                        if (r->received[i] == 0)
                                continue;
                        *ret = r->buffer + i * r->slot_size;
                        *ret_size = r->received[i];
                        return 0;
                }
                int k = fill_slots(r, MIN2(expected, r->slots), err);
                if (k < 0)
                        return k;
        }
}

static const struct nlmsghdr *message_next(const uint8_t **p, size_t *left)
{
        const struct nlmsghdr *h = (const struct nlmsghdr *) *p;

        if (*left < sizeof(*h) || h->nlmsg_len < sizeof(*h) || h->nlmsg_len > *left)
                return NULL;
        size_t step = NLMSG_ALIGN(h->nlmsg_len);
        if (step > *left)
                step = *left;
        *p += step;
        *left -= step;
        return h;
}

/* Code and words of an NLMSG_ERROR or NLMSG_DONE message. */
static int read_error(const struct nlmsghdr *h, char *text, size_t text_size)
{
        int32_t code;

        text[0] = '\0';
        if (h->nlmsg_len < NLMSG_HDRLEN + sizeof(code))
                return -EBADMSG;
        memcpy(&code, (const uint8_t *) h + NLMSG_HDRLEN, sizeof(code));

        if (h->nlmsg_flags & NLM_F_ACK_TLVS) {
                size_t skip = h->nlmsg_type == NLMSG_DONE ? NLMSG_HDRLEN + sizeof(code)
                                                          : NLMSG_HDRLEN + sizeof(struct nlmsgerr);
                if (h->nlmsg_type == NLMSG_ERROR && !(h->nlmsg_flags & NLM_F_CAPPED) &&
                        h->nlmsg_len >= NLMSG_HDRLEN + sizeof(struct nlmsgerr)) {
                        const struct nlmsgerr *e = (const void *) ((const uint8_t *) h + NLMSG_HDRLEN);
                        if (e->msg.nlmsg_len >= NLMSG_HDRLEN)
                                skip += NLMSG_ALIGN(e->msg.nlmsg_len - NLMSG_HDRLEN);
                }
                if (h->nlmsg_len > skip) {
                        NlIter i = nl_iter((const uint8_t *) h + skip, h->nlmsg_len - skip);
                        for (NlAttr a; nl_iter_next(&i, &a);)
                                if (a.type == NLMSGERR_ATTR_MSG)
                                        nl_attr_string(&a, text, text_size);
                }
        }
        return code > 0 ? -EBADMSG : code;
}

static void stamp(NlWriter *w, size_t i, uint32_t seq, uint16_t flags)
{
        struct nlmsghdr h;

        memcpy(&h, w->data + w->offsets[i], sizeof(h));
        h.nlmsg_seq = seq;
        h.nlmsg_flags |= flags;
        memcpy(w->data + w->offsets[i], &h, sizeof(h));
}

/* Messages first .. last - 1 in one sendmsg; results of all of them. */
static int batch_chunk(Rtnl *r, NlWriter *w, size_t first, size_t last, RtnlResult *results, TbError **err)
{
        uint32_t base = r->seq + 1;
        size_t end = last < w->n_messages ? w->offsets[last] : w->size;

        for (size_t i = first; i < last; i++) {
                stamp(w, i, base + (uint32_t) (i - first), i + 1 == last ? NLM_F_ACK : 0);
                results[i] = (RtnlResult){};
        }
        r->seq += (uint32_t) (last - first);

        int k = rtnl_send(r, w->data + w->offsets[first], end - w->offsets[first], err);
        if (k < 0)
                return k;

        for (;;) {
                const uint8_t *p;
                size_t left;
                k = rtnl_receive(r, 1, &p, &left, err);
                if (k < 0)
                        return k;
                for (const struct nlmsghdr *h; (h = message_next(&p, &left));) {
                        uint32_t index = h->nlmsg_seq - base;
                        if (h->nlmsg_type != NLMSG_ERROR || index >= last - first)
                                continue; /* a late answer to a request that timed out */
                        RtnlResult *result = results + first + index;
                        result->code = read_error(h, result->text, sizeof(result->text));
                        if (index + 1 == last - first)
                                return 0;
                }
        }
}

int rtnl_batch(Rtnl *r, NlWriter *w, RtnlResult *results, unsigned long *sends, TbError **err)
{
        int k = nlw_finish(w, err);
        if (k < 0)
                return k;

        for (size_t first = 0; first < w->n_messages;) {
                size_t last = first + 1;
                while (last < w->n_messages && last - first < CHUNK_MESSAGES) {
                        size_t end = last + 1 < w->n_messages ? w->offsets[last + 1] : w->size;
                        if (end - w->offsets[first] > CHUNK_BYTES)
                                break;
                        last++;
                }
                k = batch_chunk(r, w, first, last, results, err);
                if (k < 0)
                        return k;
                if (sends)
                        (*sends)++;
                first = last;
        }
        return 0;
}

static int exchange(Rtnl *r, NlWriter *w, bool dump, RtnlMessageFn fn, void *userdata, TbError **err)
{
        bool interrupted = false;

        int k = nlw_finish(w, err);
        if (k < 0)
                return k;
        uint32_t seq = ++r->seq;
        stamp(w, 0, seq, dump ? NLM_F_DUMP : 0);
        k = rtnl_send(r, w->data, w->size, err);
        if (k < 0)
                return k;

        int failed = 0;
        for (;;) {
                const uint8_t *p;
                size_t left;
                k = rtnl_receive(r, dump ? 2 : 1, &p, &left, err);
                if (k < 0)
                        return k;
                for (const struct nlmsghdr *h; (h = message_next(&p, &left));) {
                        if (h->nlmsg_seq != seq)
                                continue;
                        interrupted |= dump && (h->nlmsg_flags & NLM_F_DUMP_INTR);
                        if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
                                char text[128];
                                int code = read_error(h, text, sizeof(text));
                                if (failed < 0)
                                        return failed;
                                if (code < 0)
                                        return tb_error_set(err, TB_ERROR_SYSTEM, code, "rtnetlink: %s%s%s",
                                                strerror(-code), text[0] ? ": " : "", text);
                                if (interrupted) {
                                        (void) tb_error_set(err, TB_ERROR_SYSTEM, -EINTR,
                                                "the kernel's tables changed while they were read");
                                        tb_error_set_retryable(err);
                                        return -EINTR;
                                }
                                return 0;
                        }
                        if (failed == 0) {
                                failed = fn(h, userdata);
                                if (failed < 0)
                                        (void) tb_error_set_errno(err, TB_ERROR_SYSTEM, failed,
                                                "cannot take an answer from rtnetlink");
                        }
                        if (!dump)
                                return failed;
                }
        }
}

int rtnl_dump(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err)
{
        return exchange(r, w, true, fn, userdata, err);
}

int rtnl_dump_small(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err)
{
        return exchange(r->small ?: r, w, true, fn, userdata, err);
}

int rtnl_answer_error(const struct nlmsghdr *h)
{
        char text[128];

        return h->nlmsg_type == NLMSG_ERROR ? read_error(h, text, sizeof(text)) : 0;
}

/* The answers to messages first .. last - 1. */
static int get_chunk(
        Rtnl *r, NlWriter *w, size_t first, size_t last, RtnlAnswerFn fn, void *userdata, TbError **err)
{
        uint32_t base = r->seq + 1;
        size_t end = last < w->n_messages ? w->offsets[last] : w->size;

        for (size_t i = first; i < last; i++)
                stamp(w, i, base + (uint32_t) (i - first), i + 1 == last ? NLM_F_ACK : 0);
        r->seq += (uint32_t) (last - first);
        int k = rtnl_send(r, w->data + w->offsets[first], end - w->offsets[first], err);
        for (bool more = true; k >= 0 && more;) {
                const uint8_t *p;
                size_t left;
                k = rtnl_receive(r, SMALL_SLOTS, &p, &left, err);
                for (const struct nlmsghdr *h; k >= 0 && (h = message_next(&p, &left));) {
                        uint32_t index = h->nlmsg_seq - base;
                        if (index >= last - first)
                                continue;
                        if (h->nlmsg_type != NLMSG_ERROR || rtnl_answer_error(h) < 0)
                                k = fn(first + index, h, userdata);
                        if (h->nlmsg_type == NLMSG_ERROR && index + 1 == last - first)
                                more = false;
                }
                if (k < 0 && err && !*err)
                        (void) tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, k, "cannot take an answer from rtnetlink");
        }
        return k;
}

int rtnl_get_many(Rtnl *r, NlWriter *w, RtnlAnswerFn fn, void *userdata, TbError **err)
{
        Rtnl *s = r->small ?: r;

        int k = nlw_finish(w, err);
        for (size_t first = 0, last; k >= 0 && first < w->n_messages; first = last) {
                last = MIN2(first + SMALL_SLOTS - 1, w->n_messages);
                k = get_chunk(s, w, first, last, fn, userdata, err);
        }
        return k;
}

int rtnl_get(Rtnl *r, NlWriter *w, RtnlMessageFn fn, void *userdata, TbError **err)
{
        return exchange(r, w, false, fn, userdata, err);
}
