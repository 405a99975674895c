/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/api.h"
#include "agent/augment-job.h"
#include "agent/docker-events.h"
#include "agent/metrics.h"
#include "agent/outside-ssh.h"
#include "agent/reconcile.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

/* A thousand nodes with eight interfaces each need 20 MB; what is beyond is no answer any more. */
#define METRICS_MAX (64U * 1024 * 1024)

/* The first failure is kept: nobody looks at each line. */
typedef struct Out {
        TbBuffer text;
        TbError *error;
} Out;

static void out_done(Out *o)
{
        tb_buffer_done(&o->text);
        tb_error_free(o->error);
}

#define line(_o, ...)                                                                             \
        do {                                                                                      \
                if (!(_o)->error && tb_buffer_printf(&(_o)->text, &(_o)->error, __VA_ARGS__) < 0) \
                        log_debug("metrics: %s", tb_error_message((_o)->error));                  \
        } while (0)

static void family(Out *o, const char *name, const char *type, const char *help)
{
        line(o, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(Out *o, const char *name, const char *type, const char *help, uint64_t v)
{
        family(o, name, type, help);
        line(o, "%s %" PRIu64 "\n", name, v);
}

static void seconds(Out *o, const char *name, const char *type, const char *help, uint64_t us)
{
        family(o, name, type, help);
        line(o, "%s %" PRIu64 ".%06" PRIu64 "\n", name, us / 1000000, us % 1000000);
}

static void histogram(Out *o, const char *name, const char *help, const Histogram *h)
{
        uint64_t sum = 0;

        family(o, name, "histogram", help);
        for (size_t i = 0; i < ELEMENTSOF(histogram_bounds_ns); i++) {
                sum += h->counts[i];
                line(o, "%s_bucket{le=\"%" PRIu64 ".%05" PRIu64 "\"} %" PRIu64 "\n", name,
                        histogram_bounds_ns[i] / 1000000000, histogram_bounds_ns[i] % 1000000000 / 10000,
                        sum);
        }
        sum += h->counts[ELEMENTSOF(histogram_bounds_ns)];
        line(o,
                "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %" PRIu64 ".%09" PRIu64 "\n%s_count %" PRIu64
                "\n",
                name, sum, name, h->sum_ns / 1000000000, h->sum_ns % 1000000000, name, sum);
}

/* ---- The agent --------------------------------------------------------------------------------------------------- */

static void process(Out *o)
{
        unsigned long pages = 0, fds = 0;
        FILE *f = fopen("/proc/self/statm", "re");
        DIR *d = opendir("/proc/self/fd");

        if (f) {
                if (fscanf(f, "%*u %lu", &pages) == 1)
                        value(o, "process_resident_memory_bytes", "gauge", "Resident memory of the agent.",
                                (uint64_t) pages * (uint64_t) sysconf(_SC_PAGESIZE));
                (void) fclose(f);
        }
        if (d) {
                while (readdir(d))
                        fds++;
                (void) closedir(d);
                value(o, "process_open_fds", "gauge", "Open file descriptors of the agent.",
                        fds > 3 ? fds - 3 : 0); /* ".", ".." and the directory itself */
        }
}

static void agent(Out *o, const Manager *m)
{
        family(o, "tbnode_build_info", "gauge", "Version of the agent.");
        line(o, "tbnode_build_info{version=\"%s\"} 1\n", TBNODE_VERSION);
        seconds(o, "process_start_time_seconds", "gauge", "When the agent started, Unix time.",
                m->started_us);
        seconds(o, "tbnode_ready_seconds", "gauge",
                "From the agent's start until all nodes were as declared.", m->ready ? m->ready_us : 0);
        value(o, "tbnode_engine_connected", "gauge", "Whether the engine's events are being followed.",
                docker_events_is_connected(m->docker));
        value(o, "tbnode_engine_connects_total", "counter", "Connections to the engine.",
                m->stats.engine_connects);
        value(o, "tbnode_engine_events_total", "counter", "Events of the engine.", m->stats.events);
        value(o, "tbnode_batches_total", "counter", "Batches written to the kernel.", m->stats.batches);
        value(o, "tbnode_kernel_writes_total", "counter",
                "Netlink changes, firewall commits and sysctls that were written.", m->stats.kernel_writes);
        value(o, "tbnode_nodes_applied_total", "counter", "Nodes that were brought to what is declared.",
                m->stats.nodes_applied);
        family(o, "tbnode_drift_repairs_total", "counter",
                "What somebody else had changed, and was put right.");
        line(o, "tbnode_drift_repairs_total{kind=\"firewall\"} %" PRIu64 "\n", m->stats.firewall_repairs);
        line(o, "tbnode_drift_repairs_total{kind=\"shape\"} %" PRIu64 "\n", m->stats.shape_repairs);
        value(o, "tbnode_kernel_resyncs_total", "counter",
                "Times that the kernel had more to tell than was read in time, and everything was looked at "
                "again.",
                m->stats.resyncs);
        histogram(o, "tbnode_plan_duration_seconds",
                "Comparing the declared with the kernel, for one batch.", &m->stats.plan);
        histogram(o, "tbnode_apply_duration_seconds",
                "Writing a batch to the kernel and reading it back, with looking at it first.",
                &m->stats.apply);
        histogram(o, "tbnode_configure_duration_seconds",
                "From the event about a container until its node was configured.", &m->stats.configure);
        value(o, "tbnode_log_lines_dropped_total", "counter", "Log lines that nobody took.",
                tb_log_dropped());
}

static void api(Out *o, const Manager *m)
{
        if (!m->api)
                return;
        value(o, "tbnode_api_connections", "gauge", "Connections to the API.", api_connections(m->api));
        value(o, "tbnode_api_requests_total", "counter", "Requests to the API.", api_requests_total(m->api));
        value(o, "tbnode_api_refused_connections_total", "counter",
                "Connections that were cut off: too many, or too slow.", api_refused_total(m->api));
}

static void outside(Out *o, const Manager *m)
{
        OutsideCounts counts = outside_ssh_counts(m);

        value(o, "tbnode_outside_ssh_connections", "gauge",
                "Connections by ssh to nodes without an sshd, carried by the agent.", counts.open);
        value(o, "tbnode_outside_ssh_connections_total", "counter", "Such connections that were taken.",
                counts.total);
        value(o, "tbnode_outside_ssh_refused_total", "counter",
                "Such connections that a node's firewall, or want of memory, turned away.", counts.refused);
}

static void augmentations(Out *o, const Manager *m)
{
        const AugmentStats *s = &m->stats.augment;

        value(o, "tbnode_augment_jobs", "gauge", "Augmentations under way.", job_queue_running(m->jobs));
        family(o, "tbnode_augmentations_total", "counter", "Augmentations that ended.");
        line(o, "tbnode_augmentations_total{result=\"hit\"} %" PRIu64 "\n", s->hits);
        line(o, "tbnode_augmentations_total{result=\"miss\"} %" PRIu64 "\n", s->misses);
        line(o, "tbnode_augmentations_total{result=\"failed\"} %" PRIu64 "\n", s->failures);
        family(o, "tbnode_augment_bytes_total", "counter",
                "Bytes of image layers, by what was done with them.");
        line(o, "tbnode_augment_bytes_total{direction=\"downloaded\"} %" PRIu64 "\n", s->downloaded);
        line(o, "tbnode_augment_bytes_total{direction=\"uploaded\"} %" PRIu64 "\n", s->uploaded);
        line(o, "tbnode_augment_bytes_total{direction=\"mounted\"} %" PRIu64 "\n", s->mounted);
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------- */

static void states(Out *o, Node *const *nodes, size_t n)
{
        size_t counts[_NODE_STATE_MAX] = {};

        for (size_t i = 0; i < n; i++)
                counts[nodes[i]->state]++;
        family(o, "tbnode_nodes", "gauge", "Nodes by state.");
        for (NodeState s = 0; s < _NODE_STATE_MAX; s++)
                line(o, "tbnode_nodes{state=\"%s\"} %zu\n", node_state_to_string(s), counts[s]);
}

/* Values of labels: backslash, quote and line break are escaped. Docker's names have none of these, so this is for what nobody
 * foresees. */
static void label_value(char *out, size_t size, const char *s)
{
        size_t k = 0;

        for (; s && *s && k + 3 < size; s++) {
                if (*s == '\\' || *s == '"' || *s == '\n')
                        out[k++] = '\\';
                out[k++] = *s;
                if (*s == '\n')
                        out[k - 1] = 'n';
        }
        out[k] = 0;
}

typedef struct Series {
        const char *name, *type, *help;
        uint64_t (*get)(const NetctlDirection *d, const Shape *requested);
} Series;

#define COUNTER(_field)                                                                \
        static uint64_t get_##_field(const NetctlDirection *d, const Shape *requested) \
        {                                                                              \
                return d->_field;                                                      \
        }
COUNTER(bytes)
COUNTER(packets)
COUNTER(drops)
COUNTER(overlimits)
COUNTER(backlog_packets)

static uint64_t get_rate(const NetctlDirection *d, const Shape *requested)
{
        return d->shape.rate_bps;
}

static uint64_t get_requested(const NetctlDirection *d, const Shape *requested)
{
        return requested->rate_bps;
}

static const Series series[] = {
        {"tbnode_shape_bytes_total", "counter", "Bytes that passed a shape.", get_bytes},
        {"tbnode_shape_packets_total", "counter", "Packets that passed a shape.", get_packets},
        {"tbnode_shape_drops_total", "counter", "Packets that a shape's queue dropped.", get_drops},
        {"tbnode_shape_overlimits_total", "counter", "Times that a shape's rate held a packet back.",
                get_overlimits},
        {"tbnode_shape_backlog_packets", "gauge", "Packets in a shape's queue.", get_backlog_packets},
        {"tbnode_shape_requested_bits_per_second", "gauge", "Rate that is declared; 0 = none.",
                get_requested},
        {"tbnode_shape_kernel_bits_per_second", "gauge", "Rate that the kernel has; 0 = none.", get_rate},
};

static void interface_lines(Out *o, Node *n, const NetctlInterfaceStatus *s, const Series *what)
{
        char node[160], experiment[160], network[280];
        _cleanup_link_shape_ LinkShape requested = {};

        if (node_shape(n, s->network, &requested, NULL) < 0)
                requested = (LinkShape){};
        label_value(node, sizeof(node), node_display_name(n));
        label_value(experiment, sizeof(experiment), n->labels.experiment);
        label_value(network, sizeof(network), s->network);
        for (unsigned up = 0; up < 2; up++) {
                const NetctlDirection *d = up ? &s->up : &s->down;

                if (d->present)
                        line(o,
                                "%s{node=\"%s\",experiment=\"%s\",network=\"%s\",container=\"%.12s\","
                                "direction=\"%s\"} %" PRIu64 "\n",
                                what->name, node, experiment, network, n->id, up ? "up" : "down",
                                what->get(d, up ? &requested.base.up : &requested.base.down));
        }
}

static void shapes(Out *o, Node *const *nodes, size_t n)
{
        for (size_t k = 0; k < ELEMENTSOF(series); k++) {
                family(o, series[k].name, series[k].type, series[k].help);
                for (size_t i = 0; i < n; i++)
                        for (size_t j = 0; nodes[i]->has_status && j < nodes[i]->status.n_interfaces; j++)
                                interface_lines(o, nodes[i], &nodes[i]->status.interfaces[j], &series[k]);
        }
}

int metrics_text(Manager *m, const Caller *caller, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_(out_done) Out o = {.text = TB_BUFFER_INIT(METRICS_MAX)};
        _cleanup_free_ Node **nodes = NULL;
        size_t n;
        int r;

        r = access_visible(m, caller, &nodes, &n, err);
        if (r < 0)
                return r;
        reconcile_show_many(m, nodes, n);
        agent(&o, m);
        process(&o);
        api(&o, m);
        outside(&o, m);
        augmentations(&o, m);
        states(&o, nodes, n);
        shapes(&o, nodes, n);
        if (o.error)
                return tb_error_move(err, &o.error);
        *ret = tb_buffer_steal(&o.text, ret_size);
        return *ret ? 0 : tb_error_oom(err);
}
