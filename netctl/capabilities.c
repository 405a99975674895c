/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/capabilities.h"

/* Before anything that includes linux/if.h: the other way round they clash. */
#include <net/if.h>
#include <netinet/in.h>

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_arp.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "netctl/apply.h"
#include "netctl/nft-table.h"
#include "netctl/observe.h"
#include "netctl/state.h"

#define LOOPBACK 1             /* in every namespace */
#define PROBE_TIMEOUT_MS 30000 /* an emulated machine has been seen to need more than 10 s */

static const struct {
        const char *name, *module, *advice;
} table[] = {
        [CAPABILITY_VETH] = {"veth", "veth", "containers need it"},
        [CAPABILITY_IFB] = {"ifb", "ifb",
                "shapes of direction 'up' need it; boot a kernel with CONFIG_IFB (Debian: "
                "linux-image-amd64)"},
        [CAPABILITY_BRIDGE] = {"bridge", "bridge", "container networks need it"},
        [CAPABILITY_HTB] = {"htb", "sch_htb",
                "all shapes need it; boot a kernel with CONFIG_NET_SCH_HTB (Debian: linux-image-amd64)"},
        [CAPABILITY_TBF] = {"tbf", "sch_tbf", "not needed by tbnode; others may want it"},
        [CAPABILITY_NETEM] = {"netem", "sch_netem",
                "delay, jitter, loss, duplicate, corrupt, reorder and slot need it; boot a kernel with "
                "CONFIG_NET_SCH_NETEM "
                "(Debian: linux-image-amd64)"},
        [CAPABILITY_NETEM_SEED] = {"netem-seed", "sch_netem", "'seed' in shapes needs Linux 6.6 or later"},
        [CAPABILITY_NETEM_LOSS] = {"netem-loss", "sch_netem",
                "'loss state' and 'loss gemodel' need it (Debian: linux-image-amd64)"},
        [CAPABILITY_NETEM_ECN] = {"netem-ecn", "sch_netem",
                "'ecn' with a loss needs it (Debian: linux-image-amd64)"},
        [CAPABILITY_NETEM_DISTRIBUTION] = {"netem-distribution", "sch_netem",
                "'distribution' needs it (Debian: linux-image-amd64)"},
        [CAPABILITY_NETEM_SLOT] = {"netem-slot", "sch_netem",
                "'slot' needs Linux 4.16 or later (Debian: linux-image-amd64)"},
        [CAPABILITY_NETEM_SLOT_DISTRIBUTION] = {"netem-slot-distribution", "sch_netem",
                "'slot distribution' needs Linux 4.19 or later (Debian: linux-image-amd64)"},
        [CAPABILITY_PFIFO] = {"pfifo", "sch_fifo", "all shapes need it"},
        [CAPABILITY_BFIFO] = {"bfifo", "sch_fifo", "a limit in bytes needs it"},
        [CAPABILITY_RED] = {"red", "sch_red",
                "'queue red' needs it; boot a kernel with CONFIG_NET_SCH_RED (Debian: linux-image-amd64)"},
        [CAPABILITY_BLACKHOLE] = {"blackhole", "sch_blackhole",
                "'link down' needs it; boot a kernel of Linux 4.19 or later with CONFIG_NET_SCHED"},
        [CAPABILITY_INGRESS] = {"ingress", "sch_ingress",
                "shapes of direction 'up' need it; boot a kernel with CONFIG_NET_SCH_INGRESS"},
        [CAPABILITY_U32] = {"u32", "cls_u32",
                "shapes of direction 'up' need it; boot a kernel with CONFIG_NET_CLS_U32"},
        [CAPABILITY_MIRRED] = {"mirred", "act_mirred",
                "shapes of direction 'up' need it; boot a kernel with CONFIG_NET_ACT_MIRRED"},
        [CAPABILITY_IPTABLES_FILTER] = {"iptables-filter", "iptable_filter",
                "the iptables firewall needs the legacy filter table (CONFIG_IP_NF_FILTER, from Linux 6.17 "
                "on also "
                "CONFIG_NETFILTER_XTABLES_LEGACY)"},
        [CAPABILITY_IPTABLES_NAT] = {"iptables-nat", "iptable_nat", "ssh through a host port needs it"},
        [CAPABILITY_IP6TABLES_FILTER] = {"ip6tables-filter", "ip6table_filter",
                "IPv6 is not filtered without it"},
        [CAPABILITY_NF_TABLES] = {"nf-tables", "nf_tables", "the nftables firewall needs it"},
        [CAPABILITY_NF_TABLES_BRIDGE] = {"nf-tables-bridge", "nf_tables_bridge",
                "without it MAC, ARP and IPv6 addresses of nodes are not pinned, tags and bridge protocols "
                "pass, and experiments share broadcasts; boot a kernel with CONFIG_NF_TABLES_BRIDGE"},
        [CAPABILITY_NF_TABLES_ARP] = {"nf-tables-arp", "nf_tables",
                "without it a node whose control interface is no bridge's port gets no firewall, because "
                "its "
                "ARP could not be pinned; boot a kernel with CONFIG_NF_TABLES_ARP (Debian: "
                "linux-image-amd64)"},
        [CAPABILITY_NF_TABLES_INET] = {"nf-tables-inet", "nft_chain_nat",
                "the nftables firewall needs it (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, "
                "CONFIG_NFT_FIB_INET, CONFIG_NFT_LIMIT, CONFIG_NFT_LOG, CONFIG_NFT_CT)"},
        [CAPABILITY_NFT_BRIDGE_META] = {"nft-bridge-meta", "nft_meta_bridge",
                "without it, two unknown ports of a managed bridge can exchange what is not IP; boot a "
                "kernel with CONFIG_NFT_BRIDGE_META (Debian: linux-image-amd64)"},
        [CAPABILITY_BR_NETFILTER] = {"br-netfilter", "br_netfilter",
                "bridged packets pass by iptables without it; run 'modprobe br_netfilter'"},
        [CAPABILITY_XT_PHYSDEV] = {"xt-physdev", "xt_physdev", "firewall rules for bridge ports need it"},
        [CAPABILITY_XT_CONNTRACK] = {"xt-conntrack", "xt_conntrack", "styles basic and closed need it"},
};
static_assert(ELEMENTSOF(table) == _CAPABILITY_MAX, "one row per capability");

const char *capability_to_string(Capability c)
{
        return c < _CAPABILITY_MAX ? table[c].name : NULL;
}

const char *capability_module(Capability c)
{
        return c < _CAPABILITY_MAX ? table[c].module : NULL;
}

const char *capability_advice(Capability c)
{
        return c < _CAPABILITY_MAX ? table[c].advice : NULL;
}

static void note(Capabilities *caps, Capability c, int code)
{
        caps->has[c] = code == 0;
        caps->error[c] = code;
}

/* Runs one message; its errno. */
static int try_message(Rtnl *r, NlWriter *w)
{
        RtnlResult result = {};

        int k = rtnl_batch(r, w, &result, NULL, NULL);
        return k < 0 ? k : result.code;
}

static int try_link(Rtnl *r, const char *name, const char *kind, uint32_t ifindex)
{
        _cleanup_nlw_ NlWriter w = {};
        struct ifinfomsg i = {.ifi_index = (int) ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

        nlw_begin(&w, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
        nlw_put_string(&w, IFLA_IFNAME, name);
        size_t info = nlw_nest(&w, IFLA_LINKINFO);
        nlw_put_string(&w, IFLA_INFO_KIND, kind);
        nlw_nest_end(&w, info);
        nlw_end(&w);
        return try_message(r, &w);
}

static int try_op(Rtnl *r, const Op *op)
{
        _cleanup_nlw_ NlWriter w = {};

        op_encode(&w, op);
        return try_message(r, &w);
}

static int try_tbf(Rtnl *r, uint32_t device)
{
        _cleanup_nlw_ NlWriter w = {};
        struct tcmsg m = {.tcm_ifindex = (int) device, .tcm_handle = 1 << 16, .tcm_parent = TC_H_ROOT};
        struct tc_tbf_qopt opt = {
                .rate = {.linklayer = TC_LINKLAYER_ETHERNET, .rate = 125000, .cell_log = 3},
                .limit = 10000,
                .buffer = 1000000,
        };
        /* tbf refuses a rate without table even where it computes. */
        uint32_t rtab[256] = {};

        nlw_begin(&w, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
        nlw_put_string(&w, TCA_KIND, "tbf");
        size_t nest = nlw_nest(&w, TCA_OPTIONS);
        nlw_put(&w, TCA_TBF_PARMS, &opt, sizeof(opt));
        nlw_put_u32(&w, TCA_TBF_BURST, 5000);
        nlw_put(&w, TCA_TBF_RTAB, rtab, sizeof(rtab));
        nlw_nest_end(&w, nest);
        nlw_end(&w);
        return try_message(r, &w);
}

/* What of a shape wants which leaf; tried as a shape would be made, and believed when it reads back the same: older kernels
 * ignore what they don't know. */
static const struct {
        Capability capability;
        const char *spec;
} leaf_probes[] = {
        {CAPABILITY_PFIFO, "rate 1mbit limit 10"},
        {CAPABILITY_BFIFO, "rate 1mbit limit 64kb"},
        {CAPABILITY_RED, "rate 1mbit queue red"},
        {CAPABILITY_BLACKHOLE, "link down"},
        {CAPABILITY_NETEM, "delay 1ms"},
        {CAPABILITY_NETEM_LOSS, "loss gemodel 1%"},
        {CAPABILITY_NETEM_ECN, "loss 1% ecn"},
        {CAPABILITY_NETEM_DISTRIBUTION, "delay 2ms 1ms distribution normal"},
        {CAPABILITY_NETEM_SLOT, "slot 1ms 2ms"},
        {CAPABILITY_NETEM_SLOT_DISTRIBUTION, "slot distribution normal 2ms 1ms"},
        {CAPABILITY_NETEM_SEED, "seed 7"},
};

typedef struct LeafCheck {
        const Leaf *leaf;
        bool same;
} LeafCheck;

static int take_leaf(const struct nlmsghdr *h, void *userdata)
{
        LeafCheck *c = userdata;
        Qdisc q;

        if (qdisc_decode(h, &q) && q.parent == TC_HANDLE_CLASS && q.leaf.kind == c->leaf->kind)
                c->same = leaf_vtable(q.leaf.kind)->equal(&q.leaf, c->leaf);
        return 0;
}

/* The one class of `device` gets this leaf, which goes again. */
static int try_leaf(Rtnl *r, uint32_t device, const char *spec)
{
        _cleanup_nlw_ NlWriter w = {};
        struct tcmsg m = {.tcm_ifindex = (int) device};
        Leaf leaf;
        const Op op = {.kind = OP_LEAF_REPLACE, .device = device, .leaf = &leaf};
        LeafCheck check = {.leaf = &leaf};
        ShapePair pair;

        int k = shape_spec_parse_complete(spec, &pair, NULL);
        if (k < 0)
                return k;
        leaf_from_shape(&pair.up, 1500, NULL, false, 1, &leaf);
        k = try_op(r, &op);
        if (k < 0)
                return k;
        nlw_begin(&w, RTM_GETQDISC, 0, &m, sizeof(m));
        nlw_end(&w);
        k = rtnl_dump(r, &w, take_leaf, &check, NULL);
        return k < 0 ? k : check.same ? 0 : -EOPNOTSUPP;
}

static void probe_tc(Rtnl *r, Capabilities *caps)
{
        enum {
                DUMMY = 100,
                SECOND = 101,
        };
        Op op = {.kind = OP_ROOT_ADD, .device = DUMMY};

        note(caps, CAPABILITY_IFB, try_link(r, "probe0", "ifb", DUMMY));
        note(caps, CAPABILITY_BRIDGE, try_link(r, "probe1", "bridge", SECOND));
        note(caps, CAPABILITY_VETH, try_link(r, "probe2", "veth", 102));

        /* Any device does for the qdiscs. */
        uint32_t device = caps->has[CAPABILITY_IFB] ? DUMMY : caps->has[CAPABILITY_VETH] ? 102 : SECOND;
        op.device = device;
        int htb = try_op(r, &op);
        if (htb == 0) {
                op.kind = OP_CLASS_ADD;
                htb_class_for_rate(10000000, 1500, &op.htb_class);
                htb = try_op(r, &op);
        }
        note(caps, CAPABILITY_HTB, htb);

        for (size_t i = 0; i < ELEMENTSOF(leaf_probes); i++)
                note(caps, leaf_probes[i].capability,
                        htb == 0 ? try_leaf(r, device, leaf_probes[i].spec) : htb);

        op.kind = OP_ROOT_DELETE;
        (void) try_op(r, &op);
        note(caps, CAPABILITY_TBF, try_tbf(r, device));

        op = (Op){.kind = OP_INGRESS_ADD, .device = device};
        note(caps, CAPABILITY_INGRESS, try_op(r, &op));
        op = (Op){.kind = OP_FILTER_ADD, .device = device, .redirect = device};
        int filter = caps->has[CAPABILITY_INGRESS] ? try_op(r, &op) : -ENOENT;
        note(caps, CAPABILITY_U32, filter);
        note(caps, CAPABILITY_MIRRED, filter);
}

static int try_table(int family, int protocol, int level, int option, const char *name)
{
        struct {
                char name[XT_TABLE_MAXNAMELEN];
                uint32_t rest[64];
        } info = {};
        socklen_t size = level == SOL_IPV6 ? sizeof(struct ip6t_getinfo) : sizeof(struct ipt_getinfo);

        _cleanup_close_ int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, protocol);
        if (fd < 0)
                return -errno;
        (void) strncpy(info.name, name, sizeof(info.name) - 1);
        return getsockopt(fd, level, option, &info, &size) < 0 ? -errno : 0;
}

static int try_match(const char *name, uint8_t revision)
{
        struct xt_get_revision rev = {.revision = revision};
        socklen_t size = sizeof(rev);

        _cleanup_close_ int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
        if (fd < 0)
                return -errno;
        (void) strncpy(rev.name, name, sizeof(rev.name) - 1);
        return getsockopt(fd, IPPROTO_IP, IPT_SO_GET_REVISION_MATCH, &rev, &size) < 0 ? -errno : 0;
}

/* A table with one chain and one rule that uses what matters, in the throw-away namespace. */
static int try_table_of(Nft *nft, uint8_t family, const char *type, uint32_t hook, int32_t priority,
        void (*expressions)(NlWriter *w))
{
        _cleanup_nft_scope_ NftScope scope = {};
        _cleanup_nft_table_ NftTable t = {};
        _cleanup_error_ TbError *err = NULL;
        const NftTable *all[] = {&t};
        unsigned long commits = 0;

        nft_table_init(&t, family, "probe");
        t.permanent = true;
        nft_add_base_chain(&t, "probe", type, hook, priority);
        NlWriter *w = nft_rule(&t);
        expressions(w);
        nft_rule_end(&t, "probe");
        if (nft_scope_init(&scope, 0, NULL) < 0)
                return -ENOMEM;
        return nft_sync(nft, all, 1, &scope, &commits, &err);
}

static void bridge_expressions(NlWriter *w)
{
        nfe_ether_type(w, ETH_P_ARP);
        nfe_limit(w, 1, 1);
        nfe_log(w, "probe");
}

static void bridge_meta(NlWriter *w)
{
        nfe_meta(w, NFT_META_BRI_IIFNAME, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, (char[IFNAMSIZ]){"probe"}, IFNAMSIZ);
}

static void arp_expressions(NlWriter *w)
{
        nfe_ether_type(w, ETH_P_ARP);
        nfe_counter(w);
}

static void inet_expressions(NlWriter *w)
{
        uint16_t port = 0;

        nfe_meta_u8(w, NFT_META_NFPROTO, NFPROTO_IPV4);
        nfe_ct_state(w, NFT_REG_1);
        nfe_destination_type(w, NFT_REG_1);
        nfe_immediate(w, NFT_REG_2, &port, sizeof(port));
        nfe_dnat(w, NFT_REG_1, NFT_REG_2);
}

static void probe_nf_tables(Capabilities *caps)
{
        _cleanup_nft_ Nft *nft = NULL;
        int code = nft_new(&nft, NULL);

        note(caps, CAPABILITY_NF_TABLES_BRIDGE,
                code < 0 ? code
                         : try_table_of(nft, NFPROTO_BRIDGE, "filter", NF_BR_PRE_ROUTING, -310,
                                   bridge_expressions));
        note(caps, CAPABILITY_NFT_BRIDGE_META,
                code < 0
                        ? code
                        : try_table_of(nft, NFPROTO_BRIDGE, "filter", NF_BR_PRE_ROUTING, -310, bridge_meta));
        note(caps, CAPABILITY_NF_TABLES_ARP,
                code < 0 ? code
                         : try_table_of(nft, NFPROTO_ARP, "filter", NF_ARP_IN, -310, arp_expressions));
        note(caps, CAPABILITY_NF_TABLES_INET,
                code < 0 ? code
                         : try_table_of(
                                   nft, NFPROTO_INET, "nat", NF_INET_PRE_ROUTING, -101, inet_expressions));
}

/* Asks nf_tables for its generation: no side effect, answered by every version. */
static int try_nf_tables(void)
{
        struct {
                struct nlmsghdr h;
                struct nfgenmsg g;
        } ask = {
                .h = {.nlmsg_len = sizeof(ask),
                        .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
                        .nlmsg_flags = NLM_F_REQUEST,
                        .nlmsg_seq = 1},
        };
        union {
                struct nlmsghdr h;
                uint8_t bytes[512];
        } answer;
        struct timeval timeout = {.tv_sec = 2};

        _cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
                send(fd, &ask, sizeof(ask), 0) < 0)
                return -errno;
        ssize_t n = recv(fd, &answer, sizeof(answer), 0);
        if (n < (ssize_t) sizeof(struct nlmsghdr))
                return n < 0 ? -errno : -EBADMSG;
        if (answer.h.nlmsg_type == NLMSG_ERROR) {
                const struct nlmsgerr *e = (const void *) (answer.bytes + NLMSG_HDRLEN);
                return e->error < 0 ? e->error : -EBADMSG;
        }
        return 0;
}

static void probe_firewall(Capabilities *caps)
{
        note(caps, CAPABILITY_IPTABLES_FILTER,
                try_table(AF_INET, IPPROTO_RAW, IPPROTO_IP, IPT_SO_GET_INFO, "filter"));
        note(caps, CAPABILITY_IPTABLES_NAT,
                try_table(AF_INET, IPPROTO_RAW, IPPROTO_IP, IPT_SO_GET_INFO, "nat"));
        note(caps, CAPABILITY_IP6TABLES_FILTER,
                try_table(AF_INET6, IPPROTO_RAW, SOL_IPV6, IP6T_SO_GET_INFO, "filter"));
        note(caps, CAPABILITY_XT_PHYSDEV, try_match("physdev", 0));
        note(caps, CAPABILITY_XT_CONNTRACK, try_match("conntrack", 3));
        note(caps, CAPABILITY_NF_TABLES, try_nf_tables());
        probe_nf_tables(caps);
        note(caps, CAPABILITY_BR_NETFILTER,
                access("/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK) < 0 ? -errno : 0);
}

/* What could not be asked for want of descriptors or memory is not what the kernel lacks. */
static int shortage(const Capabilities *caps)
{
        for (Capability c = 0; c < _CAPABILITY_MAX; c++) {
                int code = abs(caps->error[c]);

                if (code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS)
                        return -code;
        }
        return 0;
}

static _Noreturn void child(int fd)
{
        struct {
                int code;
                Capabilities caps;
        } answer = {};
        Rtnl *r = NULL;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNET) < 0)
                answer.code = -errno;
        else
                answer.code = rtnl_new(&r, NULL);
        if (answer.code == 0) {
                probe_tc(r, &answer.caps);
                probe_firewall(&answer.caps);
                answer.code = shortage(&answer.caps);
        }
        /* Smaller than PIPE_BUF: written at once or not at all. */
        _exit(write(fd, &answer, sizeof(answer)) == (ssize_t) sizeof(answer) ? 0 : 1);
}

bool capability_has_netem(Rtnl *r)
{
        _cleanup_nlw_ NlWriter w = {};
        const struct tcmsg m = {.tcm_ifindex = LOOPBACK, .tcm_parent = TC_H_ROOT};

        nlw_begin(&w, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_EXCL, &m, sizeof(m));
        nlw_put_string(&w, TCA_KIND, "netem");
        nlw_end(&w);
        return try_message(r, &w) == -EINVAL;
}

int capabilities_probe(Capabilities *ret, TbError **err)
{
        struct {
                int code;
                Capabilities caps;
        } answer = {};
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot make a pipe");
        _cleanup_close_ int in = fds[0];
        _cleanup_close_ int out = fds[1];

        pid_t pid = fork();
        if (pid < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot fork to probe the kernel");
        if (pid == 0)
                child(out);
        out = tb_close(out);

        uint64_t deadline = tb_now_ns() / 1000000 + PROBE_TIMEOUT_MS;
        ssize_t n = -1;
        int code = -ETIMEDOUT;
        for (;;) {
                uint64_t now = tb_now_ns() / 1000000;
                struct pollfd p = {.fd = in, .events = POLLIN};
                int k = poll(&p, 1, now < deadline ? (int) (deadline - now) : 0);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k > 0) {
                        n = read(in, &answer, sizeof(answer));
                        code = n < 0 ? -errno : -EPIPE;
                }
                break;
        }
        if (n != (ssize_t) sizeof(answer))
                (void) kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        if (n != (ssize_t) sizeof(answer))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, code, "cannot probe what the kernel can do");
        if (answer.code == -EPERM)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPERM,
                        "cannot make a network namespace to probe the kernel: not permitted; run as root");
        if (answer.code < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, answer.code, "cannot probe what the kernel can do");
        *ret = answer.caps;
        return 0;
}
