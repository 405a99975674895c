/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/link-probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/units.h"

#define NS_PER_S UINT64_C(1000000000)
#define BATCH 64
#define SOCKET_BUFFER (64 << 20)
/* The two ends find each other with packets of this number, which the measurement does not know. */
#define NUMBER_GREETING UINT32_MAX
#define GREETINGS 20
#define GREETING_WAIT_MS 250

/* What a packet carries; network byte order is of no use between two sockets of one host. */
typedef struct Packet {
        uint64_t secret;
        uint64_t sent_ns; /* CLOCK_REALTIME */
        uint32_t number;
        uint32_t padding;
} Packet;

typedef struct Probe {
        const LinkProbeTrain *train;
        uint64_t secret;
        int sender, receiver; /* sockets */
        int stop;             /* eventfd: the receiver shall end */
        int greeted;          /* eventfd: a greeting has arrived */
        size_t payload;
        /* of the receiver's thread, read after it has ended */
        uint64_t *arrivals; /* CLOCK_REALTIME, in order of arrival */
        uint64_t *delays;   /* of first arrivals */
        uint8_t *seen;      /* one bit per number */
        size_t n_arrivals, max_arrivals;
        uint32_t received, duplicates, reordered, overrun;
} Probe;

static void probe_done(Probe *p)
{
        tb_close(p->sender);
        tb_close(p->receiver);
        tb_close(p->stop);
        tb_close(p->greeted);
        free(p->arrivals);
        free(p->delays);
        free(p->seen);
}

static uint64_t realtime_ns(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t) t.tv_sec * NS_PER_S + (uint64_t) t.tv_nsec;
}

/* Any difference to what it was tells that somebody set the clock; slewing (adjtime(3)) moves 0.05 % and passes. */
static int64_t clock_offset_ns(void)
{
        return (int64_t) (realtime_ns() - tb_now_ns());
}

static size_t header_bytes(sa_family_t family)
{
        return 14 + (family == AF_INET6 ? 40 : 20) + 8;
}

static socklen_t address_size(sa_family_t family)
{
        return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static struct sockaddr_storage with_port(const struct sockaddr_storage *address, in_port_t port)
{
        struct sockaddr_storage a = *address;

        if (a.ss_family == AF_INET6)
                ((struct sockaddr_in6 *) &a)->sin6_port = port;
        else
                ((struct sockaddr_in *) &a)->sin_port = port;
        return a;
}

static int check_mtu(int fd, const LinkProbeEnd *end, uint32_t frame_bytes, TbError **err)
{
        struct ifreq q = {};

        memcpy(q.ifr_name, end->ifname, sizeof(q.ifr_name));
        if (ioctl(fd, SIOCGIFMTU, &q) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno,
                        "cannot read the MTU of the container's interface %s", end->ifname);
        if (frame_bytes > (uint32_t) q.ifr_mtu + 14)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "frames of %u bytes are larger than interface %s takes (MTU %d); take at most %d",
                        frame_bytes, end->ifname, q.ifr_mtu, q.ifr_mtu + 14);
        return 0;
}

/* A UDP socket on the interface, bound to its address and a port of the kernel's choice. */
static int open_end(const LinkProbeEnd *end, uint32_t frame_bytes, int *ret, TbError **err)
{
        const struct sockaddr_storage any = with_port(&end->address, 0);
        const int size = SOCKET_BUFFER, on = 1;
        _cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd = -EBADF;

        if (home < 0 || setns(end->netns_fd, CLONE_NEWNET) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, errno, "cannot enter the container's network namespace");
        fd = socket(end->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int saved = errno;
        if (setns(home, CLONE_NEWNET) < 0)
                _exit(EXIT_FAILURE); /* nothing may go on in the wrong namespace */
        if (fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, saved, "cannot open a UDP socket in the container");
        if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, end->ifname,
                    (socklen_t) strnlen(end->ifname, IFNAMSIZ)) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, errno, "cannot use interface %s", end->ifname);
        if (bind(fd, (const struct sockaddr *) &any, address_size(any.ss_family)) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno,
                        "cannot use the address that interface %s is known by", end->ifname);
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 ||
                setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 ||
                setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
                setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(on)) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, errno, "cannot set up a measuring socket");
        int r = check_mtu(fd, end, frame_bytes, err);
        if (r < 0)
                return r;
        *ret = TAKE_FD(fd);
        return 0;
}

/* The sender is connected to where the receiver listens; the receiver takes packets from anywhere and knows its own by the
 * secret (a node that rewrites sources is still measured). */
static int connect_ends(const Probe *p, const LinkProbeEnd *to, TbError **err)
{
        struct sockaddr_storage local = {};
        socklen_t size = sizeof(local);

        if (getsockname(p->receiver, (struct sockaddr *) &local, &size) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot learn a measuring socket's port");
        in_port_t port = local.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &local)->sin6_port
                                                     : ((struct sockaddr_in *) &local)->sin_port;
        local = with_port(&to->address, port);
        if (connect(p->sender, (const struct sockaddr *) &local, address_size(local.ss_family)) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, errno, "no route to the other end of the link");
        return 0;
}

/* Time of arrival; takes the count of overruns along. 0: the kernel told none. */
static uint64_t arrival_ns(struct msghdr *m, uint32_t *overrun)
{
        uint64_t ns = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                if (c->cmsg_level != SOL_SOCKET)
                        continue;
                if (c->cmsg_type == SO_TIMESTAMPNS) {
                        struct timespec t;
                        memcpy(&t, CMSG_DATA(c), sizeof(t));
                        ns = (uint64_t) t.tv_sec * NS_PER_S + (uint64_t) t.tv_nsec;
                } else if (c->cmsg_type == SO_RXQ_OVFL)
                        memcpy(overrun, CMSG_DATA(c), sizeof(*overrun));
        }
        return ns;
}

static void take_packet(Probe *p, const Packet *k, uint64_t now, uint32_t *highest)
{
        if (k->number >= p->train->packets || p->n_arrivals >= p->max_arrivals)
                return;
        p->arrivals[p->n_arrivals++] = now;
        if (p->seen[k->number / 8] & (1U << (k->number % 8))) {
                p->duplicates++;
                return;
        }
        p->seen[k->number / 8] |= (uint8_t) (1U << (k->number % 8));
        p->delays[p->received++] = now > k->sent_ns ? now - k->sent_ns : 0;
        if (k->number < *highest)
                p->reordered++;
        else
                *highest = k->number;
}

static void *receive(void *userdata)
{
        Probe *p = userdata;
        uint8_t data[BATCH][sizeof(Packet)], control[BATCH][128];
        struct mmsghdr messages[BATCH];
        struct iovec parts[BATCH];
        uint32_t highest = 0, overrun = 0;

        for (;;) {
                struct pollfd fds[] = {
                        {.fd = p->receiver, .events = POLLIN}, {.fd = p->stop, .events = POLLIN}};

                for (size_t i = 0; i < BATCH; i++) {
                        parts[i] = (struct iovec){.iov_base = data[i], .iov_len = sizeof(data[i])};
                        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i],
                                                               .msg_iovlen = 1,
                                                               .msg_control = control[i],
                                                               .msg_controllen = sizeof(control[i])}};
                }
                int n = recvmmsg(p->receiver, messages, BATCH, MSG_DONTWAIT, NULL);
                for (int i = 0; i < n; i++) {
                        uint64_t now = arrival_ns(&messages[i].msg_hdr, &overrun);
                        Packet k;

                        memcpy(&k, data[i], sizeof(k));
                        if (messages[i].msg_len < sizeof(k) || k.secret != p->secret || now == 0)
                                continue;
                        if (k.number == NUMBER_GREETING)
                                (void) eventfd_write(p->greeted, 1);
                        else
                                take_packet(p, &k, now, &highest);
                }
                if (n > 0)
                        continue;
                if (poll(fds, ELEMENTSOF(fds), -1) < 0 && errno != EINTR)
                        break;
                /* What has arrived before the end is taken first. */
                if (fds[1].revents && !fds[0].revents)
                        break;
        }
        p->overrun = overrun;
        return NULL;
}

static void wait_until(uint64_t monotonic_ns)
{
        const struct timespec t = {
                .tv_sec = (time_t) (monotonic_ns / NS_PER_S), .tv_nsec = (long) (monotonic_ns % NS_PER_S)};

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
                ;
}

static void greet(Probe *p, uint8_t *data)
{
        Packet k = {.secret = p->secret, .number = NUMBER_GREETING};

        for (int i = 0; i < GREETINGS; i++) {
                struct pollfd fd = {.fd = p->greeted, .events = POLLIN};

                k.sent_ns = realtime_ns();
                memcpy(data, &k, sizeof(k));
                (void) send(p->sender, data, p->payload, 0); /* lost or refused: the next one */
                if (poll(&fd, 1, GREETING_WAIT_MS) > 0)
                        return;
        }
}

/* Sends the train; takes down how many the kernel took, how late, and the first and last time of sending. */
static void send_train(
        const Probe *p, uint8_t *data, LinkProbeResult *ret, uint64_t *ret_begin, uint64_t *ret_end)
{
        const LinkProbeTrain *t = p->train;
        const uint64_t begin = tb_now_ns();
        struct mmsghdr messages[BATCH];
        struct iovec parts[BATCH];
        uint32_t number = 0;

        for (size_t i = 0; i < BATCH; i++) {
                parts[i] = (struct iovec){.iov_base = data + i * p->payload, .iov_len = p->payload};
                messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
        }
        while (number < t->packets) {
                uint64_t due = begin + number * t->interval_ns, now = tb_now_ns();
                unsigned n = 1;

                if (due > now)
                        wait_until(due);
                else if (t->interval_ns == 0 || (now - due) / t->interval_ns >= BATCH)
                        n = BATCH;
                else
                        n += (unsigned) ((now - due) / t->interval_ns);
                ret->late_max_ns = MAX2(ret->late_max_ns, due > now ? 0 : now - due);
                n = MIN2(n, t->packets - number); /* BATCH at most already */
                for (unsigned i = 0; i < n; i++) {
                        Packet k = {.secret = p->secret, .number = number + i, .sent_ns = realtime_ns()};
                        memcpy(parts[i].iov_base, &k, sizeof(k));
                }
                int done = sendmmsg(p->sender, messages, n, 0);
                /* What the kernel refuses (ECONNREFUSED of an earlier one, ENOBUFS) never was on the link. */
                ret->sent += done > 0 ? (uint32_t) done : 0;
                number += done > 0 ? (uint32_t) done : 1;
        }
        *ret_begin = begin;
        *ret_end = tb_now_ns();
}

static int compare_u64(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

/* Bit/s between arrivals `first` and `last`: what came behind the first, over the time between them. */
static uint64_t rate_between(const Probe *p, size_t first, size_t last)
{
        uint64_t span = last > first ? p->arrivals[last] - p->arrivals[first] : 0;
        __extension__ typedef unsigned __int128 u128;

        return span == 0 ? 0
                         : (uint64_t) ((u128) (last - first) * p->train->frame_bytes * 8 * NS_PER_S / span);
}

static void evaluate(Probe *p, LinkProbeResult *ret)
{
        size_t second = 0, warm = 0;

        ret->received = p->received;
        ret->duplicates = p->duplicates;
        ret->reordered = p->reordered;
        ret->overrun = p->overrun;
        if (p->received > 0) {
                qsort(p->delays, p->received, sizeof(*p->delays), compare_u64);
                ret->delay_min_ns = p->delays[0];
                ret->delay_median_ns = p->delays[p->received / 2];
                ret->delay_p90_ns = p->delays[(size_t) p->received * 90 / 100];
                ret->delay_p99_ns = p->delays[(size_t) p->received * 99 / 100];
                ret->delay_max_ns = p->delays[p->received - 1];
        }
        if (p->n_arrivals < 2)
                return;
        /* Arrivals are in order but for what two cores stamp at the same moment. */
        qsort(p->arrivals, p->n_arrivals, sizeof(*p->arrivals), compare_u64);
        while (second + 1 < p->n_arrivals && p->arrivals[second + 1] - p->arrivals[0] <= NS_PER_S)
                second++;
        while (warm < p->n_arrivals && p->arrivals[warm] - p->arrivals[0] < p->train->warmup_ns)
                warm++;
        ret->first_second_bps = rate_between(p, 0, second);
        if (warm < p->n_arrivals - 1) {
                ret->rate_bps = rate_between(p, warm, p->n_arrivals - 1);
                ret->span_ns = p->arrivals[p->n_arrivals - 1] - p->arrivals[warm];
        }
}

static int check_train(
        const LinkProbeEnd *from, const LinkProbeEnd *to, const LinkProbeTrain *t, TbError **err)
{
        if (from->address.ss_family != to->address.ss_family ||
                (from->address.ss_family != AF_INET && from->address.ss_family != AF_INET6))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "both ends of a link need an address of the same family, IPv4 or IPv6");
        if (t->frame_bytes < LINK_PROBE_FRAME_MIN || t->frame_bytes > LINK_PROBE_FRAME_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "frames of %u bytes: %u to %u can be measured with", t->frame_bytes,
                        LINK_PROBE_FRAME_MIN, LINK_PROBE_FRAME_MAX);
        if (t->packets == 0 || t->packets > LINK_PROBE_PACKETS_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%u packets: 1 to %u can be measured with", t->packets, LINK_PROBE_PACKETS_MAX);
        if (t->interval_ns > LINK_PROBE_DURATION_MAX / t->packets || t->quiet_ns > LINK_PROBE_QUIET_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "the train would take longer than %llu s; send fewer packets or faster",
                        (unsigned long long) (LINK_PROBE_DURATION_MAX / NS_PER_S));
        return 0;
}

static int probe_open(Probe *p, const LinkProbeEnd *from, const LinkProbeEnd *to, TbError **err)
{
        const LinkProbeTrain *t = p->train;

        p->payload = t->frame_bytes - header_bytes(from->address.ss_family);
        p->max_arrivals = (size_t) t->packets * 2; /* what `duplicate 100%` makes of it */
        p->arrivals = calloc(p->max_arrivals, sizeof(*p->arrivals));
        p->delays = calloc(t->packets, sizeof(*p->delays));
        p->seen = calloc(t->packets / 8 + 1, 1);
        if (!p->arrivals || !p->delays || !p->seen)
                return tb_error_oom(err);
        p->stop = eventfd(0, EFD_CLOEXEC);
        p->greeted = eventfd(0, EFD_CLOEXEC);
        if (p->stop < 0 || p->greeted < 0 ||
                getrandom(&p->secret, sizeof(p->secret), 0) != (ssize_t) sizeof(p->secret))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot prepare a measurement");
        int r = open_end(from, t->frame_bytes, &p->sender, err);
        if (r >= 0)
                r = open_end(to, t->frame_bytes, &p->receiver, err);
        return r < 0 ? r : connect_ends(p, to, err);
}

int link_probe(const LinkProbeEnd *from, const LinkProbeEnd *to, const LinkProbeTrain *train,
        LinkProbeResult *ret, TbError **err)
{
        _cleanup_(probe_done) Probe p = {
                .train = train, .sender = -EBADF, .receiver = -EBADF, .stop = -EBADF, .greeted = -EBADF};
        _cleanup_free_ uint8_t *data = NULL;
        LinkProbeResult result = {};
        uint64_t begin, end;
        pthread_t thread;

        int r = check_train(from, to, train, err);
        if (r >= 0)
                r = probe_open(&p, from, to, err);
        if (r < 0)
                return r;
        data = calloc(BATCH, p.payload);
        if (!data)
                return tb_error_oom(err);
        r = pthread_create(&thread, NULL, receive, &p);
        if (r != 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, r, "cannot start a measuring thread");

        greet(&p, data);
        int64_t offset = clock_offset_ns();
        send_train(&p, data, &result, &begin, &end);
        wait_until(end + train->quiet_ns);
        (void) eventfd_write(p.stop, 1);
        (void) pthread_join(thread, NULL);

        int64_t moved = clock_offset_ns() - offset;
        result.clock_stepped = llabs(moved) > (int64_t) MAX2((end - begin) / 1000, UINT64_C(1000000));
        if (end > begin && result.sent > 1)
                result.offered_bps = (uint64_t) ((double) result.sent * train->frame_bytes * 8.0 *
                        (double) NS_PER_S / (double) (end - begin));
        evaluate(&p, &result);
        *ret = result;
        return 0;
}
