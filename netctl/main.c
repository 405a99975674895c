/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode-netctl: traffic shaping and firewall of containers by hand. */

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/fw-json.h"
#include "netctl/tool.h"

enum {
        EXIT_DONE = 0,
        EXIT_FAILED = 1,
        EXIT_USAGE = 2,
};

static bool arg_json;
static const char *arg_id;
static bool arg_replace_foreign;
static uint32_t arg_times = 1;
static NetctlFirewall arg_firewall = NETCTL_FIREWALL_AUTO;
static char **arg_managed;

static int open_netctl(const FwSite *site, Netctl **ret, TbError **err)
{
        NetctlOptions options = {
                .enable_bridge_nf = true,
                .site = site,
                .firewall = arg_firewall,
                .managed_bridges = arg_managed,
        };

        return netctl_new(&options, ret, err);
}

/* Takes ownership of j. */
static int print_json(json_t *j)
{
        bool ok = j && json_dumpf(j, stdout, JSON_INDENT(2)) >= 0 && putchar('\n') != EOF;

        json_decref(j);
        if (!ok) {
                fprintf(stderr, "tbnode-netctl: cannot print the answer\n");
                return EXIT_FAILED;
        }
        return EXIT_DONE;
}

static int fail(const TbError *err)
{
        fprintf(stderr, "tbnode-netctl: %s\n", tb_error_message(err));
        return err && err->kind == TB_ERROR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
}

static int cmd_caps(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        Capabilities caps;

        if (capabilities_probe(&caps, &err) < 0)
                return fail(err);
        if (arg_json) {
                json_t *o = json_object();
                for (Capability c = 0; c < _CAPABILITY_MAX; c++)
                        (void) json_object_set_new(o, capability_to_string(c), json_boolean(caps.has[c]));
                return print_json(o);
        }
        for (Capability c = 0; c < _CAPABILITY_MAX; c++) {
                if (caps.has[c])
                        printf("%-16s yes\n", capability_to_string(c));
                else
                        printf("%-16s NO   module %s: %s (%s)\n", capability_to_string(c),
                                capability_module(c), capability_advice(c), strerror(-caps.error[c]));
        }
        return EXIT_DONE;
}

static int cmd_veth(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_container_ Container c = {};
        _cleanup_links_ Links links = {};
        _cleanup_close_ int fd = -EBADF;
        json_t *list = json_array();

        if (tool_open_netns(argv[1], &fd, &err) < 0 || tool_container(fd, &c, &links, &err) < 0) {
                json_decref(list);
                return fail(err);
        }
        for (size_t i = 0; i < c.n; i++) {
                const ContainerInterface *inside = NULL;
                const Link *l = &c.interfaces[i].link, *host = NULL;
                _cleanup_error_ TbError *e = NULL;
                char mac[18];

                if (l->flags & IFF_LOOPBACK)
                        continue;
                (void) mac_print(l->mac, mac);
                int r = container_resolve(&c, &links, l->mac, &inside, &host, &e);
                if (!arg_json && r < 0)
                        printf("%s (%u) %s: %s\n", l->name, l->ifindex, mac, tb_error_message(e));
                else if (!arg_json)
                        printf("%s (%u) %s <-> %s (%u)\n", inside->link.name, inside->link.ifindex, mac,
                                host->name, host->ifindex);
                (void) json_array_append_new(list,
                        r < 0 ? json_pack("{s:s, s:i, s:s, s:s}", "ifname", l->name, "ifindex",
                                        (int) l->ifindex, "mac", mac, "error", tb_error_message(e))
                              : json_pack("{s:s, s:i, s:s, s:s, s:i}", "ifname", l->name, "ifindex",
                                        (int) l->ifindex, "mac", mac, "host_ifname", host->name,
                                        "host_ifindex", (int) host->ifindex));
        }
        if (arg_json)
                return print_json(list);
        json_decref(list);
        return EXIT_DONE;
}

/* What the library holds, and what it held at most, beside what was there before: bytes. */
typedef struct Memory {
        size_t heap, peak;
} Memory;

/* Not getrusage(2): its ru_maxrss is also that of the program which started this one. */
static size_t peak_now(void)
{
        _cleanup_free_ char *text = NULL;
        const char *line;
        uint64_t kb = 0;

        if (tb_file_read("/proc/self/status", 65536, &text, NULL, NULL) < 0)
                return 0;
        line = strstr(text, "\nVmHWM:");
        return line && sscanf(line + 7, "%" SCNu64, &kb) == 1 ? (size_t) kb * 1024 : 0;
}

/* From here on the peak is counted anew (proc(5): clear_refs), beside what is there now. */
static Memory memory_begin(void)
{
        struct mallinfo2 m = mallinfo2();
        int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

        if (fd >= 0 && write(fd, "5", 1) < 0)
                log_debug("the peak of memory is that of the whole process");
        tb_close(fd);
        return (Memory){.heap = m.uordblks + m.hblkhd, .peak = peak_now()};
}

static Memory memory_end(void)
{
        struct mallinfo2 m = mallinfo2();

        return (Memory){.heap = m.uordblks + m.hblkhd, .peak = peak_now()};
}

static int finish(const NetctlReport *report, uint64_t start, const Memory *before, const Memory *after)
{
        if (!arg_json)
                return tool_report_print(report) > 0 ? EXIT_FAILED : EXIT_DONE;
        json_t *j = tool_report_json(report, tb_now_ns() - start);
        if (j)
                (void) json_object_set_new(j, "memory",
                        json_pack("{s:I, s:I}", "held", (json_int_t) (after->heap - before->heap), "peak",
                                (json_int_t) (after->peak - before->peak)));
        int r = print_json(j);
        for (size_t i = 0; i < report->n_nodes && r == EXIT_DONE; i++)
                if (report->nodes[i].error) {
                        fprintf(stderr, "tbnode-netctl: %s\n", tb_error_message(report->nodes[i].error));
                        r = EXIT_FAILED;
                }
        return r;
}

static int run_nodes(const FwSite *site, const NetctlNode *nodes, size_t n, bool write)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(netctl_freep) Netctl *netctl = NULL;
        _cleanup_netctl_report_ NetctlReport report = {};
        const Memory before = memory_begin();
        uint64_t start = tb_now_ns();

        int r = open_netctl(site, &netctl, &err);
        /* All but the last one, whose report it will be. */
        for (uint32_t i = 1; r >= 0 && i < arg_times; i++) {
                _cleanup_netctl_report_ NetctlReport earlier = {};
                r = write ? netctl_apply(netctl, nodes, n, &earlier, &err)
                          : netctl_show(netctl, nodes, n, &earlier, &err);
                start = tb_now_ns();
        }
        if (r >= 0)
                r = write ? netctl_apply(netctl, nodes, n, &report, &err)
                          : netctl_show(netctl, nodes, n, &report, &err);
        if (r < 0)
                return fail(err);
        const Memory after = memory_end();
        return finish(&report, start, &before, &after);
}

static int cmd_apply(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_tool_nodes_ ToolNodes t = {};

        if (tool_nodes_load(argv[1], &t, &err) < 0)
                return fail(err);
        return run_nodes(&t.site, t.nodes, t.n, tb_streq(argv[0], "apply"));
}

/* What the kernel has of their firewall. */
static int cmd_firewall(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_tool_nodes_ ToolNodes t = {};
        _cleanup_(netctl_freep) Netctl *netctl = NULL;

        if (tool_nodes_load(argv[1], &t, &err) < 0)
                return fail(err);
        _cleanup_free_ FwReadback *back = calloc(t.n + 1, sizeof(*back));
        if (!back || open_netctl(&t.site, &netctl, &err) < 0 ||
                netctl_firewall_show(netctl, t.nodes, t.n, back, &err) < 0)
                return fail(err);
        json_t *list = json_array();
        for (size_t i = 0; i < t.n; i++) {
                (void) json_array_append_new(list,
                        json_pack(
                                "{s:s, s:o}", "id", t.nodes[i].id, "firewall", fw_readback_json(back + i)));
                fw_readback_done(back + i);
        }
        return print_json(list);
}

/* The node of commands that take a PID: all veths of the container, or the named one. */
typedef struct Single {
        char id[NETCTL_ID_MAX + 1];
        int fd;
        Container container;
        Links links;
        NetctlInterface *interfaces;
        NetctlNode node;
} Single;

static void single_done(Single *s)
{
        tb_close(s->fd);
        container_done(&s->container);
        links_done(&s->links);
        free(s->interfaces);
}

static int single_load(Single *s, const char *pid, const char *ifname, TbError **err)
{
        int r = tool_open_netns(pid, &s->fd, err);
        if (r >= 0)
                r = tool_container(s->fd, &s->container, &s->links, err);
        if (r < 0)
                return r;
        s->interfaces = calloc(s->container.n + 1, sizeof(*s->interfaces));
        if (!s->interfaces)
                return tb_error_oom(err);
        (void) snprintf(s->id, sizeof(s->id), "%s%s", arg_id ? arg_id : "pid", arg_id ? "" : pid);
        s->node = (NetctlNode){.replace_foreign = arg_replace_foreign,
                .thorough = true,
                .id = s->id,
                .netns_fd = s->fd,
                .interfaces = s->interfaces};
        if (ifname) {
                const ContainerInterface *i = container_find_name(&s->container, ifname);
                if (!i) {
                        _cleanup_free_ char *shown = tb_escape(ifname, 40);
                        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENXIO,
                                "the container has no interface '%s'", shown ? shown : "?");
                }
                memcpy(s->interfaces[s->node.n_interfaces++].mac, i->link.mac, 6);
                return 0;
        }
        for (size_t i = 0; i < s->container.n; i++) {
                const Link *l = &s->container.interfaces[i].link;
                const ContainerInterface *inside;
                const ContainerPeer *peer;
                if (container_find(&s->container, l->mac, &inside, &peer, NULL) >= 0 &&
                        tb_streq(l->kind, "veth"))
                        memcpy(s->interfaces[s->node.n_interfaces++].mac, l->mac, 6);
        }
        return 0;
}

static int cmd_shape(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(single_done) Single s = {.fd = -EBADF};
        _cleanup_link_shape_ LinkShape shape = {};

        if (link_shape_parse_complete(argv[3], &shape, &err) < 0 ||
                single_load(&s, argv[1], argv[2], &err) < 0)
                return fail(err);
        s.node.parts = NETCTL_SHAPES;
        s.interfaces[0].up = &shape.base.up;
        s.interfaces[0].down = &shape.base.down;
        s.interfaces[0].rules = shape.rules;
        s.interfaces[0].n_rules = shape.n_rules;
        return run_nodes(NULL, &s.node, 1, true);
}

static int cmd_show(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(single_done) Single s = {.fd = -EBADF};

        if (single_load(&s, argv[1], NULL, &err) < 0)
                return fail(err);
        return run_nodes(NULL, &s.node, 1, false);
}

static int report_count(const char *key, unsigned long count)
{
        if (arg_json)
                return print_json(json_pack("{s:I}", key, (json_int_t) count));
        printf("%s: %lu\n", key, count);
        return EXIT_DONE;
}

static int cmd_clear(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(netctl_freep) Netctl *netctl = NULL;
        _cleanup_(single_done) Single s = {.fd = -EBADF};
        unsigned long writes = 0;

        int r = single_load(&s, argv[1], argc > 2 ? argv[2] : NULL, &err);
        s.node.parts = NETCTL_SHAPES;
        if (r >= 0 && argc > 2)
                return run_nodes(NULL, &s.node, 1, true);
        if (r >= 0)
                r = open_netctl(NULL, &netctl, &err);
        if (r >= 0)
                r = netctl_remove(netctl, &s.node, &writes, &err);
        return r < 0 ? fail(err) : report_count("writes", writes);
}

static int cmd_remove(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(netctl_freep) Netctl *netctl = NULL;
        unsigned long writes = 0;

        int r = open_netctl(NULL, &netctl, &err);
        for (int i = 1; r >= 0 && i < argc; i++) {
                NetctlNode node = {.id = argv[i], .netns_fd = -EBADF};
                unsigned long n = 0;
                r = netctl_remove(netctl, &node, &n, &err);
                writes += n;
        }
        return r < 0 ? fail(err) : report_count("writes", writes);
}

static int cmd_sweep(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(netctl_freep) Netctl *netctl = NULL;
        unsigned long removed = 0;

        int r = open_netctl(NULL, &netctl, &err);
        if (r >= 0)
                r = netctl_sweep(netctl, argv + 1, &removed, &err);
        return r < 0 ? fail(err) : report_count("removed", removed);
}

static int cmd_fw(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(single_done) Single s = {.fd = -EBADF};
        FwStyle style = fw_style_from_string(argv[3]);

        if (style < 0) {
                fprintf(stderr, "tbnode-netctl: bad style '%s'; styles are none, open, basic, closed\n",
                        argv[3]);
                return EXIT_USAGE;
        }
        if (single_load(&s, argv[1], argv[2], &err) < 0)
                return fail(err);
        s.node.parts = NETCTL_FIREWALL;
        s.node.style = style;
        s.interfaces[0].filtered = s.interfaces[0].pinned = true;
        return run_nodes(NULL, &s.node, 1, true);
}

static int cmd_probe(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_close_ int from_fd = -EBADF, to_fd = -EBADF;
        LinkProbeEnd from, to;
        LinkProbeTrain train;
        LinkProbeResult result;

        int r = tool_probe_parse(argv + 5, &train, &err);
        if (r >= 0)
                r = tool_open_netns(argv[1], &from_fd, &err);
        if (r >= 0)
                r = tool_open_netns(argv[3], &to_fd, &err);
        if (r >= 0)
                r = tool_probe_end(from_fd, argv[2], &from, &err);
        if (r >= 0)
                r = tool_probe_end(to_fd, argv[4], &to, &err);
        if (r >= 0)
                r = link_probe(&from, &to, &train, &result, &err);
        if (r < 0)
                return fail(err);
        if (arg_json)
                return print_json(tool_probe_json(&train, &result));
        tool_probe_print(&result);
        return EXIT_DONE;
}

static const struct {
        const char *name;
        int min, max; /* arguments behind the verb */
        int (*fn)(int argc, char **argv);
        const char *arguments, *help;
} verbs[] = {
        {"caps", 0, 0, cmd_caps, "", "what this kernel can do"},
        {"veth", 1, 1, cmd_veth, "PID", "the container's interfaces and their host sides"},
        {"shape", 3, 3, cmd_shape, "PID IFACE SPEC",
                "shape one interface (what SPEC leaves out is taken away)"},
        {"show", 1, 1, cmd_show, "PID", "shapes as the kernel has them"},
        {"clear", 1, 2, cmd_clear, "PID [IFACE]", "take away all of ours, or the shape of one interface"},
        {"fw", 3, 3, cmd_fw, "PID IFACE STYLE", "firewall of one interface: none, open, basic, closed"},
        {"probe", 4, 18, cmd_probe, "PID IFACE PID IFACE [...]",
                "measure what packets experience from one container to another"},
        {"apply", 1, 1, cmd_apply, "FILE", "bring all nodes of a JSON file to what it declares"},
        {"firewall", 1, 1, cmd_firewall, "FILE",
                "what the kernel has of the firewall of these nodes, as JSON"},
        {"read", 1, 1, cmd_apply, "FILE", "read the state of these nodes"},
        {"remove", 1, INT32_MAX, cmd_remove, "ID...",
                "take away all of these node ids, also when they are gone"},
        {"sweep", 0, INT32_MAX, cmd_sweep, "[ID...]", "take away all of ours but of these ids"},
};

static void help(FILE *f)
{
        fprintf(f,
                "Usage: tbnode-netctl [--json] [--id ID] [--replace-foreign] [--firewall BACKEND]\n"
                "       [--managed BRIDGE]... [--times N] COMMAND ...\n\n"
                "Shapes and firewalls containers on the host side of their veths.\n\n");
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                fprintf(f, "  %-7s%-26s%s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
        fprintf(f,
                "\n  probe takes " TOOL_PROBE_WORDS "\n"
                "\n  --json   print one JSON object\n"
                "  --id ID  the node's id (default: pid<PID>)\n"
                "  --replace-foreign  shape: delete qdiscs of somebody else that are in the way\n"
                "  --firewall auto|iptables|nftables  who filters (default: auto)\n"
                "  --managed BRIDGE  a bridge where unknown ports pass nothing\n"
                "  --times N  apply, read: N times in a row, as a program does that goes on; the last one "
                "is told of\n"
                "  --help, --version\n\n"
                "SPEC: [up|down] rate 10mbit delay 20ms 2ms distribution normal loss 1%% limit 200 ...\n"
                "      ; to 10.1.0.7 delay 5ms ; to 10.2.0.0/16 udp port 53 loss 1%% ; to 10.9.0.1 pass "
                "...\n"
                "Exit status: 0 done, 1 failed, 2 wrong usage.\n");
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"json", no_argument, NULL, 'j'},
                {"id", required_argument, NULL, 'i'},
                {"replace-foreign", no_argument, NULL, 'r'},
                {"firewall", required_argument, NULL, 'f'},
                {"managed", required_argument, NULL, 'm'},
                {"times", required_argument, NULL, 't'},
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, 'V'},
                {},
        };
        _cleanup_error_ TbError *err = NULL;

        for (int c; (c = getopt_long(argc, argv, "+h", options, NULL)) != -1;)
                switch (c) {
                case 'j':
                        arg_json = true;
                        break;
                case 'i':
                        arg_id = optarg;
                        break;
                case 'r':
                        arg_replace_foreign = true;
                        break;
                case 'f':
                        arg_firewall = netctl_firewall_from_string(optarg);
                        if (arg_firewall >= 0)
                                break;
                        fprintf(stderr,
                                "tbnode-netctl: --firewall %s: there is no such back end; use auto, "
                                "iptables or "
                                "nftables\n",
                                optarg);
                        return EXIT_USAGE;
                case 'm':
                        if (tb_strv_append(&arg_managed, optarg, NULL) >= 0)
                                break;
                        fprintf(stderr, "tbnode-netctl: out of memory\n");
                        return EXIT_FAILED;
                case 't':
                        if (tb_parse_u32(optarg, 1, 1000, &arg_times, &err) >= 0)
                                break;
                        fprintf(stderr, "tbnode-netctl: --times: %s\n", tb_error_message(err));
                        return EXIT_USAGE;
                case 'h':
                        help(stdout);
                        return EXIT_DONE;
                case 'V':
                        puts("tbnode-netctl " TBNODE_VERSION);
                        return EXIT_DONE;
                default:
                        return EXIT_USAGE;
                }
        argc -= optind;
        argv += optind;
        if (argc == 0) {
                fprintf(stderr, "tbnode-netctl: no command; see 'tbnode-netctl --help'\n");
                return EXIT_USAGE;
        }
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++) {
                if (!tb_streq(verbs[i].name, argv[0]))
                        continue;
                /* --json is also taken behind the verb, where people type it. */
                if (argc > 1 && tb_streq(argv[argc - 1], "--json")) {
                        arg_json = true;
                        argv[--argc] = NULL;
                }
                /* Else `sweep --help` would sweep. No id, interface or SPEC begins so. */
                for (int k = 1; k < argc; k++)
                        if (tb_streq(argv[k], "--help") || tb_streq(argv[k], "-h")) {
                                help(stdout);
                                return EXIT_DONE;
                        } else if (argv[k][0] == '-') {
                                fprintf(stderr, "tbnode-netctl: %s: options come before the command\n",
                                        argv[k]);
                                return EXIT_USAGE;
                        }
                if (argc - 1 < verbs[i].min || argc - 1 > verbs[i].max) {
                        fprintf(stderr, "tbnode-netctl: usage: tbnode-netctl %s %s\n", verbs[i].name,
                                verbs[i].arguments);
                        return EXIT_USAGE;
                }
                return verbs[i].fn(argc, argv);
        }
        fprintf(stderr, "tbnode-netctl: unknown command '%s'; see 'tbnode-netctl --help'\n", argv[0]);
        return EXIT_USAGE;
}
