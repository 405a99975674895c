/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/nft.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/cleanup.h"
#include "netctl/netctl.h"

#define RECEIVE_SIZE 65536
#define RECEIVE_BUFFER (8 << 20) /* a transaction that fails has an answer for each of its messages */
#define OWN_GENERATIONS 64

struct Nft {
        int fd;
        uint32_t sequence;
        uint8_t *buffer;
};

/* Written by nft_commit(): notes which changes are this process's own. */
static uint32_t own_generations[OWN_GENERATIONS];
static size_t own_next;

bool nft_generation_is_ours(uint32_t generation)
{
        for (size_t i = 0; i < OWN_GENERATIONS; i++)
                if (generation != 0 && own_generations[i] == generation)
                        return true;
        return false;
}

int nft_new(Nft **ret, TbError **err)
{
        _cleanup_nft_ Nft *n = calloc(1, sizeof(*n));
        struct sockaddr_nl address = {.nl_family = AF_NETLINK};
        struct timeval timeout = {
                .tv_sec = NETCTL_TIMEOUT_MS / 1000, .tv_usec = NETCTL_TIMEOUT_MS % 1000 * 1000};
        int one = 1, size = RECEIVE_BUFFER;

        if (!n)
                return tb_error_oom(err);
        n->buffer = malloc(RECEIVE_SIZE);
        n->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
        if (!n->buffer)
                return tb_error_oom(err);
        if (n->fd < 0 && errno != EPROTONOSUPPORT && errno != EAFNOSUPPORT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot ask nf_tables");
        if (n->fd < 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                        "this kernel has no nf_tables (module nf_tables); see 'tbnode doctor'");
        if (bind(n->fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
                setsockopt(n->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot set up a socket to nf_tables");
        if (setsockopt(n->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void) setsockopt(n->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        (void) setsockopt(n->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
        (void) setsockopt(n->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
        *ret = TAKE_PTR(n);
        return 0;
}

Nft *nft_free(Nft *n)
{
        if (!n)
                return NULL;
        tb_close(n->fd);
        free(n->buffer);
        free(n);
        return NULL;
}

void nft_begin(NlWriter *w, uint16_t type, uint16_t flags, uint8_t family)
{
        struct nfgenmsg g = {.nfgen_family = family, .version = NFNETLINK_V0};

        nlw_begin(w, (uint16_t) (NFNL_SUBSYS_NFTABLES << 8 | type), flags, &g, sizeof(g));
}

void nft_put_be32(NlWriter *w, uint16_t type, uint32_t v)
{
        nlw_put_u32(w, type, htonl(v));
}

void nft_put_be64(NlWriter *w, uint16_t type, uint64_t v)
{
        nlw_put_u64(w, type, htobe64(v));
}

uint32_t nft_get_be32(const NlAttr *a)
{
        uint32_t v = 0;

        return nl_attr_u32(a, &v) ? ntohl(v) : 0;
}

uint64_t nft_get_be64(const NlAttr *a)
{
        uint64_t v = 0;

        return nl_attr_u64(a, &v) ? be64toh(v) : 0;
}

static int nft_send(Nft *n, const void *data, size_t size, TbError **err)
{
        struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
        ssize_t k;

        do
                k = sendto(n->fd, data, size, 0, (struct sockaddr *) &kernel, sizeof(kernel));
        while (k < 0 && errno == EINTR);
        if (k < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot send %zu bytes to nf_tables", size);
        return 0;
}

static int nft_receive(Nft *n, size_t *ret, TbError **err)
{
        for (;;) {
                struct sockaddr_nl from = {};
                socklen_t size = sizeof(from);
                ssize_t k = recvfrom(n->fd, n->buffer, RECEIVE_SIZE, 0, (struct sockaddr *) &from, &size);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0) {
                        int code = errno == EAGAIN ? ETIMEDOUT : errno;
                        (void) tb_error_set_errno(err, TB_ERROR_SYSTEM, code, "nf_tables does not answer");
                        tb_error_set_retryable(err);
                        return -code;
                }
                if (from.nl_pid != 0)
                        continue;
                *ret = (size_t) k;
                return 0;
        }
}

/* What an NLMSG_ERROR says: 0 or a negative errno, and the kernel's words. */
static int error_code(const struct nlmsghdr *h, char text[static 128])
{
        const struct nlmsgerr *e = nl_message_header(h, sizeof(*e));

        text[0] = '\0';
        if (!e)
                return -EBADMSG;
        if (h->nlmsg_flags & NLM_F_ACK_TLVS) {
                size_t skip = sizeof(*e);
                if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->msg.nlmsg_len > sizeof(e->msg))
                        skip += e->msg.nlmsg_len - sizeof(e->msg);
                NlIter i = nl_message_attributes(h, skip);
                NlAttr a;
                while (nl_iter_next(&i, &a))
                        if (a.type == NLMSGERR_ATTR_MSG)
                                nl_attr_string(&a, text, 128);
        }
        return e->error;
}

static void prepare(Nft *n, NlWriter *w, uint16_t flags)
{
        struct nlmsghdr h;

        memcpy(&h, w->data, sizeof(h));
        h.nlmsg_seq = ++n->sequence;
        h.nlmsg_flags |= flags;
        memcpy(w->data, &h, sizeof(h));
}

typedef struct Answers {
        NftMessageFn fn;
        void *userdata;
        bool dump, answered, interrupted, done;
        int code;
        char text[128];
} Answers;

static int take_answers(Nft *n, size_t size, Answers *a)
{
        NlIter messages = nl_iter(n->buffer, size);
        const struct nlmsghdr *h;

        while ((h = nl_next_message(&messages))) {
                if (h->nlmsg_seq != n->sequence)
                        continue;
                a->interrupted |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
                if (h->nlmsg_type == NLMSG_DONE) {
                        const int *code = nl_message_header(h, sizeof(*code));
                        a->code = code && *code < 0 ? *code : 0;
                        a->done = true;
                } else if (h->nlmsg_type == NLMSG_ERROR) {
                        a->code = error_code(h, a->text);
                        a->done = true;
                } else {
                        int r = a->fn(h, a->userdata);
                        if (r < 0)
                                return r;
                        a->answered = true;
                        a->done |= !a->dump;
                }
                if (a->done)
                        break;
        }
        return 0;
}

static int ask(Nft *n, NlWriter *w, uint16_t flags, Answers *a, TbError **err)
{
        int failed = 0;

        int r = nlw_finish(w, err);
        if (r < 0)
                return r;
        prepare(n, w, flags);
        r = nft_send(n, w->data, w->size, err);
        if (r < 0)
                return r;
        while (!a->done) {
                size_t size;
                r = nft_receive(n, &size, err);
                if (r < 0)
                        return r;
                if (failed == 0)
                        failed = take_answers(n, size, a);
                if (failed < 0 && !a->dump)
                        break;
                if (failed < 0) {
                        /* The rest of the dump is read and thrown away. */
                        Answers rest = {.fn = NULL, .dump = true};
                        NlIter messages = nl_iter(n->buffer, size);
                        const struct nlmsghdr *h;
                        while ((h = nl_next_message(&messages)))
                                rest.done |= h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR;
                        a->done = rest.done;
                }
        }
        if (failed < 0)
                return failed == -ENOMEM ? tb_error_oom(err)
                                         : tb_error_set_errno(err, TB_ERROR_SYSTEM, failed,
                                                   "cannot understand an answer of nf_tables");
        return 0;
}

int nft_dump(Nft *n, NlWriter *w, NftMessageFn fn, void *userdata, TbError **err)
{
        Answers a = {.fn = fn, .userdata = userdata, .dump = true};

        int r = ask(n, w, NLM_F_DUMP, &a, err);
        if (r < 0)
                return r;
        if (a.interrupted || a.code == -EINTR) {
                (void) tb_error_set(err, TB_ERROR_SYSTEM, -EINTR, "nf_tables changed while it was read");
                tb_error_set_retryable(err);
                return -EINTR;
        }
        if (a.code < 0 && a.code != -ENOENT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, a.code, "cannot read nf_tables");
        return 0;
}

int nft_get(Nft *n, NlWriter *w, NftMessageFn fn, void *userdata, TbError **err)
{
        Answers a = {.fn = fn, .userdata = userdata};

        int r = ask(n, w, 0, &a, err);
        if (r < 0)
                return r;
        if (a.answered)
                return 0;
        if (a.code == -ENOENT)
                return -ENOENT;
        return tb_error_set_errno(
                err, TB_ERROR_SYSTEM, a.code < 0 ? a.code : -EBADMSG, "cannot read nf_tables");
}

static int take_generation(const struct nlmsghdr *h, void *userdata)
{
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        NlAttr a;

        while (nl_iter_next(&i, &a))
                if (a.type == NFTA_GEN_ID)
                        *(uint32_t *) userdata = nft_get_be32(&a);
        return 0;
}

int nft_generation(Nft *n, uint32_t *ret, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        uint32_t generation = 0;

        nft_begin(&w, NFT_MSG_GETGEN, 0, AF_UNSPEC);
        nlw_end(&w);
        int r = nft_get(n, &w, take_generation, &generation, err);
        if (r < 0)
                return r == -ENOENT ? tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                                              "this kernel has no nf_tables (module nf_tables); see "
                                              "'tbnode doctor'")
                                    : r;
        *ret = generation;
        return 0;
}

int nft_open(Nft **ret, TbError **err)
{
        _cleanup_nft_ Nft *n = NULL;
        _cleanup_error_ TbError *e = NULL;
        uint32_t generation;

        *ret = NULL;
        int r = nft_new(&n, &e);
        if (r >= 0)
                r = nft_generation(n, &generation, &e);
        if (r < 0)
                return r == -ENOENT ? 0 : tb_error_move(err, &e);
        *ret = TAKE_PTR(n);
        return 1;
}

static void batch_marker(NlWriter *w, uint16_t type, uint32_t generation)
{
        struct nfgenmsg g = {.version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};

        nlw_begin(w, type, 0, &g, sizeof(g));
        if (type == NFNL_MSG_BATCH_BEGIN)
                nft_put_be32(w, NFNL_BATCH_GENID, generation);
        nlw_end(w);
}

static const char *message_name(uint16_t type)
{
        switch (type & 0xff) {
        case NFT_MSG_NEWTABLE:
                return "a table";
        case NFT_MSG_NEWCHAIN:
        case NFT_MSG_DELCHAIN:
                return "a chain";
        case NFT_MSG_NEWRULE:
        case NFT_MSG_DELRULE:
                return "a rule";
        case NFT_MSG_NEWSET:
        case NFT_MSG_DELSET:
                return "a set";
        default:
                return "an element of a set";
        }
}

/* The whole of a transaction must be one datagram. */
static void ensure_send_buffer(Nft *n, size_t size)
{
        int want = (int) (size + 4096);

        if (setsockopt(n->fd, SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want)) < 0)
                (void) setsockopt(n->fd, SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
}

/* Reads answers until that of the last message or one to the whole batch. */
static int collect(Nft *n, uint32_t first, uint32_t last, const NlWriter *w, TbError **err)
{
        int code = 0;
        char text[128] = "";
        uint16_t culprit = 0;

        for (;;) {
                size_t size;
                int r = nft_receive(n, &size, err);
                if (r < 0)
                        return r;
                NlIter answers = nl_iter(n->buffer, size);
                const struct nlmsghdr *h;
                while ((h = nl_next_message(&answers))) {
                        char words[128];
                        if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq < first || h->nlmsg_seq > last)
                                continue;
                        int k = error_code(h, words);
                        if (k < 0 && code == 0) {
                                code = k;
                                memcpy(text, words, sizeof(text));
                                if (h->nlmsg_seq != first) {
                                        struct nlmsghdr m;
                                        memcpy(&m, w->data + w->offsets[h->nlmsg_seq - first], sizeof(m));
                                        culprit = m.nlmsg_type;
                                }
                        }
                        if (h->nlmsg_seq == last || (h->nlmsg_seq == first && k < 0))
                                goto done;
                }
        }
done:
        if (code == 0)
                return 0;
        if (code == -ERESTART)
                return -ERESTART;
        if (code == -EPERM)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPERM,
                        "cannot write nf_tables: not permitted; run as root");
        return tb_error_set_errno(err,
                code == -ENOENT || code == -EOPNOTSUPP ? TB_ERROR_ENVIRONMENT : TB_ERROR_SYSTEM, code,
                "nf_tables refuses %s%s%s", culprit ? message_name(culprit) : "the transaction",
                text[0] ? ", " : "", text);
}

int nft_commit(Nft *n, uint32_t generation, const NlWriter *messages, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};

        int r = nlw_finish(messages, err);
        if (r < 0 || messages->n_messages == 0)
                return r;
        batch_marker(&w, NFNL_MSG_BATCH_BEGIN, generation);
        for (size_t i = 0; i < messages->n_messages; i++) {
                struct nlmsghdr h;
                memcpy(&h, messages->data + messages->offsets[i], sizeof(h));
                nlw_begin(&w, h.nlmsg_type, h.nlmsg_flags,
                        messages->data + messages->offsets[i] + NLMSG_HDRLEN, h.nlmsg_len - NLMSG_HDRLEN);
                nlw_end(&w);
        }
        batch_marker(&w, NFNL_MSG_BATCH_END, 0);
        r = nlw_finish(&w, err);
        if (r < 0)
                return r;
        uint32_t first = n->sequence + 1;
        for (size_t i = 0; i < w.n_messages; i++) {
                struct nlmsghdr h;
                memcpy(&h, w.data + w.offsets[i], sizeof(h));
                h.nlmsg_seq = ++n->sequence;
                /* The answer to the last message that can have one means that all is done. */
                if (i + 2 == w.n_messages)
                        h.nlmsg_flags |= NLM_F_ACK;
                memcpy(w.data + w.offsets[i], &h, sizeof(h));
        }
        ensure_send_buffer(n, w.size);
        /* Before it is sent: who watches may be told of it earlier than we get our answer. */
        uint32_t *own = own_generations + own_next;
        own_next = (own_next + 1) % OWN_GENERATIONS;
        *own = generation + 1;
        r = nft_send(n, w.data, w.size, err);
        if (r >= 0)
                r = collect(n, first, n->sequence - 1, &w, err);
        if (r < 0)
                *own = 0;
        return r;
}
