/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/uplink.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "netctl/observe.h"
#include "netctl/rtnl.h"

/* A record is text: "interface NAME", "bridge NAME", then one line for each object, "address HEX" or "route HEX": the family header
 * and the attributes that the kernel told. */
#define RECORD_MAX (256U << 10)
#define OBJECTS_MAX 256U
#define OBJECT_MAX 2048U

typedef struct Object {
        bool route;
        size_t size;
        uint8_t data[OBJECT_MAX];
} Object;

typedef struct Record {
        char interface[IFNAMSIZ], bridge[IFNAMSIZ];
        Object *objects;
        size_t n;
        uint32_t ifindex; /* while it is collected */
        TbError *error;
} Record;

static void record_done(Record *r)
{
        free(r->objects);
        tb_error_free(r->error);
}
#define _cleanup_record_ _cleanup_(record_done)

static Object *record_add(Record *r, bool route)
{
        if (r->n == OBJECTS_MAX)
                return NULL;
        if (!r->objects)
                r->objects = calloc(OBJECTS_MAX, sizeof(*r->objects));
        if (!r->objects)
                return NULL;
        r->objects[r->n] = (Object){.route = route};
        return &r->objects[r->n++];
}

/* ---- What there is ----------------------------------------------------------------------------------------------- */

static int keep(Record *r, bool route, const struct nlmsghdr *h)
{
        size_t size = h->nlmsg_len - NLMSG_HDRLEN;
        Object *o = size <= OBJECT_MAX ? record_add(r, route) : NULL;

        if (!o)
                return -E2BIG;
        memcpy(o->data, NLMSG_DATA(h), size);
        o->size = size;
        return 0;
}

static int take_address(const struct nlmsghdr *h, void *userdata)
{
        const struct ifaddrmsg *m = nl_message_header(h, sizeof(*m));
        Record *r = userdata;

        if (h->nlmsg_type != RTM_NEWADDR || !m || m->ifa_index != r->ifindex ||
                (m->ifa_family == AF_INET6 && m->ifa_scope == RT_SCOPE_LINK))
                return 0;
        return keep(r, false, h);
}

static int take_route(const struct nlmsghdr *h, void *userdata)
{
        const struct rtmsg *m = nl_message_header(h, sizeof(*m));
        NlIter i = nl_message_attributes(h, sizeof(*m));
        Record *r = userdata;
        uint32_t out = 0;
        NlAttr a;

        if (h->nlmsg_type != RTM_NEWROUTE || !m || m->rtm_type != RTN_UNICAST ||
                m->rtm_flags & RTM_F_CLONED || m->rtm_protocol == RTPROT_KERNEL ||
                m->rtm_protocol == RTPROT_RA)
                return 0;
        while (nl_iter_next(&i, &a)) {
                if (a.type == RTA_OIF)
                        (void) nl_attr_u32(&a, &out);
                if (a.type != RTA_MULTIPATH)
                        continue;
                for (NlIter k = nl_iter_nested(&a); k.left >= sizeof(struct rtnexthop);) {
                        struct rtnexthop hop;

                        memcpy(&hop, k.p, sizeof(hop));
                        if (hop.rtnh_ifindex == (int) r->ifindex)
                                return tb_error_set(&r->error, TB_ERROR_ENVIRONMENT, -EOPNOTSUPP,
                                        "a route with several next hops leads through %s: it cannot be "
                                        "moved",
                                        r->interface);
                        size_t step = RTNH_ALIGN((size_t) hop.rtnh_len);
                        if (step < sizeof(hop) || step > k.left)
                                break;
                        k.p += step;
                        k.left -= step;
                }
        }
        return out == r->ifindex ? keep(r, true, h) : 0;
}

static int dump(Rtnl *rtnl, uint16_t type, const void *header, size_t size, RtnlMessageFn fn, Record *r,
        TbError **err)
{
        size_t before = r->n;

        for (int tries = 0;; tries++) {
                _cleanup_nlw_ NlWriter w = {};
                _cleanup_error_ TbError *e = NULL;

                r->n = before;
                nlw_begin(&w, type, 0, header, size);
                nlw_end(&w);
                int k = rtnl_dump(rtnl, &w, fn, r, &e);
                if (k == -EINTR && tries < 5)
                        continue;
                if (k < 0 && r->error)
                        return tb_error_move(err, &r->error);
                return k < 0 ? tb_error_move(err, &e) : 0;
        }
}

static int observe_uplink(Rtnl *rtnl, uint32_t ifindex, Record *r, TbError **err)
{
        static const uint8_t families[] = {AF_INET, AF_INET6};
        int k = 0;

        r->ifindex = ifindex;
        for (size_t i = 0; k >= 0 && i < ELEMENTSOF(families); i++) {
                struct ifaddrmsg m = {.ifa_family = families[i]};

                k = dump(rtnl, RTM_GETADDR, &m, sizeof(m), take_address, r, err);
        }
        for (size_t i = 0; k >= 0 && i < ELEMENTSOF(families); i++) {
                struct rtmsg m = {.rtm_family = families[i]};

                k = dump(rtnl, RTM_GETROUTE, &m, sizeof(m), take_route, r, err);
        }
        return k;
}

static bool has_addresses(const Record *r)
{
        return r->n > 0 && !r->objects[0].route;
}

/* ---- The record -------------------------------------------------------------------------------------------------- */

static int record_write(const Record *r, const char *path, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);

        if (!f)
                return tb_error_oom(err);
        fprintf(f, "interface %s\nbridge %s\n", r->interface, r->bridge);
        for (size_t i = 0; i < r->n; i++) {
                const Object *o = r->objects + i;

                fprintf(f, "%s ", o->route ? "route" : "address");
                for (size_t k = 0; k < o->size; k++)
                        fprintf(f, "%02x", o->data[k]);
                fputc('\n', f);
        }
        if (fclose(f) != 0)
                return tb_error_oom(err);
        return tb_file_write_atomic(path, text, size, 0600, err);
}

static int hex_digit(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_object(Record *r, bool route, const char *hex)
{
        size_t n = strlen(hex), minimum = route ? sizeof(struct rtmsg) : sizeof(struct ifaddrmsg);
        Object *o = n % 2 == 0 && n / 2 <= OBJECT_MAX && n / 2 >= minimum ? record_add(r, route) : NULL;

        if (!o)
                return false;
        for (o->size = 0; o->size < n / 2; o->size++) {
                int high = hex_digit(hex[2 * o->size]), low = hex_digit(hex[2 * o->size + 1]);

                if (high < 0 || low < 0)
                        return false;
                o->data[o->size] = (uint8_t) (high << 4 | low);
        }
        return true;
}

static bool read_name(char ret[static IFNAMSIZ], const char *name)
{
        if (!*name || strlen(name) >= IFNAMSIZ)
                return false;
        (void) snprintf(ret, IFNAMSIZ, "%s", name);
        return true;
}

/* 0: there is none. */
static int record_read(Record *r, const char *path, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        char *save = NULL;
        size_t size;
        bool good = true;

        if (access(path, F_OK) < 0 && errno == ENOENT)
                return 0;
        int k = tb_file_read(path, RECORD_MAX, &text, &size, err);
        if (k < 0)
                return k;
        for (char *line = strtok_r(text, "\n", &save); good && line; line = strtok_r(NULL, "\n", &save)) {
                const char *value;

                if ((value = tb_startswith(line, "interface ")))
                        good = read_name(r->interface, value);
                else if ((value = tb_startswith(line, "bridge ")))
                        good = read_name(r->bridge, value);
                else if ((value = tb_startswith(line, "address ")))
                        good = read_object(r, false, value);
                else
                        good = (value = tb_startswith(line, "route ")) && read_object(r, true, value);
        }
        if (!good || !r->interface[0] || !r->bridge[0])
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EBADMSG,
                        "%s is no record of an interface that was moved; remove it when the addresses are "
                        "right",
                        path);
        return 1;
}

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

static void copy_attributes(NlWriter *w, const Object *o, size_t header, bool label)
{
        NlIter i = nl_iter(o->data + NLMSG_ALIGN(header), o->size - NLMSG_ALIGN(header));
        NlAttr a;

        while (nl_iter_next(&i, &a))
                if (o->route ? a.type != RTA_OIF && a.type != RTA_CACHEINFO
                             : a.type != IFA_FLAGS && (label || a.type != IFA_LABEL))
                        nlw_put(w, a.type, a.data, a.size);
}

static void put_address(NlWriter *w, const Object *o, uint16_t type, uint32_t ifindex, bool label)
{
        struct ifaddrmsg m;
        NlIter i = nl_iter(o->data + sizeof(m), o->size - sizeof(m));
        uint32_t flags = 0;
        NlAttr a;

        memcpy(&m, o->data, sizeof(m));
        flags = m.ifa_flags;
        while (nl_iter_next(&i, &a))
                if (a.type == IFA_FLAGS)
                        (void) nl_attr_u32(&a, &flags);
        /* It is known to be nobody else's: it was here. */
        flags &= (uint32_t) (IFA_F_NOPREFIXROUTE | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR |
                IFA_F_MCAUTOJOIN);
        if (m.ifa_family == AF_INET6)
                flags |= IFA_F_NODAD;
        m.ifa_flags = 0;
        m.ifa_index = ifindex;
        nlw_begin(w, type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_REPLACE : 0, &m, sizeof(m));
        copy_attributes(w, o, sizeof(m), label);
        nlw_put_u32(w, IFA_FLAGS, flags);
        nlw_end(w);
}

static bool has_gateway(const Object *o)
{
        NlIter i = nl_iter(o->data + sizeof(struct rtmsg), o->size - sizeof(struct rtmsg));
        NlAttr a;

        while (nl_iter_next(&i, &a))
                if (a.type == RTA_GATEWAY || a.type == RTA_VIA)
                        return true;
        return false;
}

static void put_route(NlWriter *w, const Object *o, uint32_t ifindex)
{
        struct rtmsg m;

        memcpy(&m, o->data, sizeof(m));
        m.rtm_flags &= RTNH_F_ONLINK;
        nlw_begin(w, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &m, sizeof(m));
        copy_attributes(w, o, sizeof(m), true);
        nlw_put_u32(w, RTA_OIF, ifindex);
        nlw_end(w);
}

static void put_link(NlWriter *w, uint32_t ifindex, bool set_master, uint32_t master)
{
        struct ifinfomsg m = {.ifi_family = AF_UNSPEC,
                .ifi_index = (int) ifindex,
                .ifi_flags = IFF_UP,
                .ifi_change = IFF_UP};

        nlw_begin(w, RTM_NEWLINK, 0, &m, sizeof(m));
        if (set_master)
                nlw_put_u32(w, IFLA_MASTER, master);
        nlw_end(w);
}

/* Everything of the record goes to `to`, and from `from` (0: that is gone), while the interface becomes a port of `master`. */
static void plan(
        NlWriter *w, const Record *r, uint32_t interface, uint32_t master, uint32_t to, uint32_t from)
{
        bool label = to == interface;

        put_link(w, to, false, 0);
        for (size_t i = 0; i < r->n; i++)
                if (!r->objects[i].route)
                        put_address(w, r->objects + i, RTM_NEWADDR, to, label);
        if (master)
                put_link(w, interface, true, master);
        for (int gateways = 0; gateways < 2;
                gateways++) /* what leads to a gateway comes before what leads through it */
                for (size_t i = 0; i < r->n; i++)
                        if (r->objects[i].route && has_gateway(r->objects + i) == (gateways == 1))
                                put_route(w, r->objects + i, to);
        if (!master && from)
                put_link(w, interface, true, 0);
        for (size_t i = r->n; from && i-- > 0;)
                if (!r->objects[i].route)
                        put_address(w, r->objects + i, RTM_DELADDR, from, !label);
}

static int run(Rtnl *rtnl, NlWriter *w, const char *what, TbError **err)
{
        int k = nlw_finish(w, err);

        if (k < 0)
                return k;
        _cleanup_free_ RtnlResult *results = calloc(w->n_messages + 1, sizeof(*results));
        if (!results)
                return tb_error_oom(err);
        k = rtnl_batch(rtnl, w, results, NULL, err);
        for (size_t i = 0; k >= 0 && i < w->n_messages; i++)
                if (results[i].code < 0 && results[i].code != -EEXIST && results[i].code != -EADDRNOTAVAIL)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, results[i].code, "%s%s%s", what,
                                results[i].text[0] ? ": " : "", results[i].text);
        return k;
}

/* ---- Neighbours -------------------------------------------------------------------------------------------------- */

/* While the addresses were the bridge's, neighbours may have learned its MAC (a solicitation carries it). Back at the interface, frames
 * to that would be nobody's: a gratuitous ARP request and an unsolicited advertisement tell everybody. */

static size_t arp_frame(uint8_t *f, const uint8_t mac[static 6], const uint8_t *address)
{
        static const uint8_t head[] = {0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1};

        memset(f, 0xff, 6);
        memcpy(f + 6, mac, 6);
        memcpy(f + 12, head, sizeof(head));
        memcpy(f + 22, mac, 6);
        memcpy(f + 28, address, 4);
        memset(f + 32, 0, 6);
        memcpy(f + 38, address, 4);
        return 42;
}

static uint16_t icmp6_checksum(const uint8_t *packet, size_t payload)
{
        uint32_t sum = IPPROTO_ICMPV6 + (uint32_t) payload;

        for (size_t i = 8; i < 40 + payload; i += 2) /* both addresses, then the message */
                sum += (uint32_t) packet[i] << 8 | packet[i + 1];
        while (sum >> 16)
                sum = (sum & 0xffff) + (sum >> 16);
        return (uint16_t) ~sum;
}

static size_t advertisement_frame(uint8_t *f, const uint8_t mac[static 6], const uint8_t *address)
{
        static const uint8_t all_nodes_mac[] = {0x33, 0x33, 0, 0, 0, 1};
        static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
        uint8_t *ip = f + 14, *icmp = ip + 40;
        enum {
                PAYLOAD = 32,
        };

        memset(f, 0, 14 + 40 + PAYLOAD);
        memcpy(f, all_nodes_mac, 6);
        memcpy(f + 6, mac, 6);
        f[12] = 0x86;
        f[13] = 0xdd;
        ip[0] = 0x60;
        ip[5] = PAYLOAD;
        ip[6] = IPPROTO_ICMPV6;
        ip[7] = 255;
        memcpy(ip + 8, address, 16);
        memcpy(ip + 24, all_nodes, 16);
        icmp[0] = 136;  /* RFC 4861, 4.4 */
        icmp[4] = 0x20; /* override */
        memcpy(icmp + 8, address, 16);
        icmp[24] = 2;
        icmp[25] = 1;
        memcpy(icmp + 26, mac, 6);
        uint16_t sum = icmp6_checksum(ip, PAYLOAD);
        icmp[2] = (uint8_t) (sum >> 8);
        icmp[3] = (uint8_t) sum;
        return 14 + 40 + PAYLOAD;
}

static const uint8_t *address_of(const Object *o, size_t *ret_size)
{
        struct ifaddrmsg m;
        NlIter k = nl_iter(o->data + sizeof(m), o->size - sizeof(m));
        const uint8_t *address = NULL;
        NlAttr a;

        memcpy(&m, o->data, sizeof(m));
        *ret_size = m.ifa_family == AF_INET ? 4 : 16;
        while (nl_iter_next(&k, &a)) /* IFA_LOCAL is IPv4's, and comes after IFA_ADDRESS */
                if ((a.type == IFA_LOCAL || (a.type == IFA_ADDRESS && !address)) && a.size == *ret_size)
                        address = a.data;
        return address;
}

/* Best effort: who does not hear it asks again after some seconds. */
static void announce(const Record *r, const Link *port)
{
        struct sockaddr_ll to = {
                .sll_family = AF_PACKET, .sll_ifindex = (int) port->ifindex, .sll_halen = 6};
        _cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

        for (size_t i = 0; fd >= 0 && i < r->n; i++) {
                const Object *o = r->objects + i;
                const uint8_t *address;
                uint8_t frame[128];
                size_t size;

                if (o->route || !(address = address_of(o, &size)))
                        continue;
                size = size == 4 ? arp_frame(frame, port->mac, address)
                                 : advertisement_frame(frame, port->mac, address);
                memcpy(to.sll_addr, frame, 6);
                (void) sendto(fd, frame, size, MSG_DONTWAIT, (struct sockaddr *) &to, sizeof(to));
        }
}

/* ---- The two ways ------------------------------------------------------------------------------------------------ */

/* Are all addresses of the record at the bridge? Docker takes IPv6 addresses off its bridges whenever it starts. */
static int is_complete(Rtnl *rtnl, const Record *r, uint32_t bridge, TbError **err)
{
        _cleanup_record_ Record there = {};
        size_t size, other;

        int k = observe_uplink(rtnl, bridge, &there, err);
        if (k < 0)
                return k;
        for (size_t i = 0; i < r->n; i++) {
                const uint8_t *want = r->objects[i].route ? NULL : address_of(r->objects + i, &size);
                bool found = !want;

                for (size_t j = 0; !found && j < there.n; j++) {
                        const uint8_t *has =
                                there.objects[j].route ? NULL : address_of(there.objects + j, &other);
                        found = has && other == size && memcmp(has, want, size) == 0;
                }
                if (!found)
                        return 0;
        }
        return 1;
}

static int absent(const char *what, const char *name, TbError **err)
{
        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENODEV, "there is no %s %s", what, name);
}

int uplink_attach(const char *interface, const char *bridge, const char *record, TbError **err)
{
        _cleanup_rtnl_ Rtnl *rtnl = NULL;
        _cleanup_links_ Links links = {};
        _cleanup_record_ Record old = {}, now = {};
        const Link *port, *master;

        int known = record_read(&old, record, err);
        int k = known < 0 ? known : rtnl_new(&rtnl, err);
        if (k >= 0)
                k = links_dump(rtnl, &links, err);
        if (k < 0)
                return k;
        port = links_find_name(&links, interface);
        master = links_find_name(&links, bridge);
        if (!port || !master)
                return absent(port ? "bridge" : "interface", port ? bridge : interface, err);
        if (known > 0 && !tb_streq(old.interface, interface))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EBUSY,
                        "%s is the control network's interface; `tbnoded --release-control-interface` gives "
                        "it back",
                        old.interface);
        if (port->master != 0 && port->master != master->ifindex)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EBUSY,
                        "%s is a port of another bridge or bond", interface);
        (void) snprintf(now.interface, sizeof(now.interface), "%s", interface);
        (void) snprintf(now.bridge, sizeof(now.bridge), "%s", bridge);
        k = observe_uplink(rtnl, port->ifindex, &now, err);
        if (k < 0)
                return k;
        bool is_port = port->master == master->ifindex;
        if (is_port && !has_addresses(&now)) {
                k = is_complete(rtnl, &old, master->ifindex, err);
                if (k != 0)
                        return k < 0 ? k : 0;
        }
        const Record *r = known > 0 && (is_port || !has_addresses(&now)) ? &old : &now;
        if (r == &now) {
                k = record_write(&now, record, err);
                if (k < 0)
                        return k;
        }
        _cleanup_nlw_ NlWriter w = {}, back = {};
        _cleanup_error_ TbError *ignored = NULL;
        plan(&w, r, port->ifindex, master->ifindex, master->ifindex, port->ifindex);
        k = run(rtnl, &w, "cannot make the interface a port of the control network's bridge", err);
        if (k < 0) {
                plan(&back, r, port->ifindex, 0, port->ifindex, master->ifindex);
                if (run(rtnl, &back, "cannot put it back", &ignored) >= 0) {
                        announce(r, port);
                        (void) unlink(record);
                }
                (void) tb_error_prefix(err, "%s", interface);
                return k;
        }
        return 1;
}

int uplink_release(const char *record, TbError **err)
{
        _cleanup_rtnl_ Rtnl *rtnl = NULL;
        _cleanup_links_ Links links = {};
        _cleanup_record_ Record r = {};
        _cleanup_nlw_ NlWriter w = {};
        const Link *port, *master;

        int k = record_read(&r, record, err);
        if (k <= 0)
                return k;
        k = rtnl_new(&rtnl, err);
        if (k >= 0)
                k = links_dump(rtnl, &links, err);
        if (k < 0)
                return k;
        port = links_find_name(&links, r.interface);
        if (!port)
                return absent("interface", r.interface, err);
        master = links_find_name(&links, r.bridge);
        plan(&w, &r, port->ifindex, 0, port->ifindex, master ? master->ifindex : 0);
        k = run(rtnl, &w, "cannot give the interface back its addresses", err);
        if (k < 0)
                return k;
        announce(&r, port);
        if (unlink(record) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot remove %s", record);
        return 1;
}
