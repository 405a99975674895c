/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/config.h"
#include "agent/event-log.h"
#include "agent/histogram.h"
#include "agent/node.h"
#include "common/engine.h"
#include "common/error.h"
#include "common/http.h"
#include "netctl/netctl.h"

/*
 * The daemon as a whole: one loop, one engine connection, all nodes. manager_run() is its life in order.
 *
 *         lock -> state file -> netctl -> engine events (subscribe) -> list + inspect -> one batch -> sweep -> READY -> loop
 *
 * Nothing here blocks except netctl (milliseconds) and the atomic write of the state file. When it stops, the kernel
 * is left as it is: nodes stay shaped, and the next start finds them so.
 */

typedef struct Api Api;
typedef struct Barriers Barriers;
typedef struct DockerEvents DockerEvents;
typedef struct ExecSession ExecSession;
typedef struct JobQueue JobQueue;
typedef struct RunJob RunJob;
typedef struct TmcdServer TmcdServer;

/* Numbers of experiments in firewall rules: node-firewall.h */
typedef struct FirewallGroup {
        char *experiment;
        uint16_t number;
} FirewallGroup;

typedef struct FirewallWatch FirewallWatch;

/* Augmentations that ended. */
typedef struct AugmentStats {
        uint64_t hits, misses, failures;
        uint64_t downloaded, uploaded, mounted; /* bytes */
} AugmentStats;

typedef struct ManagerStats {
        AugmentStats augment;
        Histogram plan, apply, configure;
        uint64_t firewall_repairs; /* nodes whose rules were put back */
        uint64_t shape_repairs;    /* nodes whose queues or links were put back: link-watch.h */
        uint64_t resyncs;          /* the kernel had more to tell than was read in time */
        uint64_t batches;
        uint64_t kernel_writes;
        uint64_t nodes_applied;
        uint64_t outside_connections, outside_refused; /* outside-ssh.h */
        uint64_t engine_connects;
        uint64_t events;
} ManagerStats;

struct Manager {
        Config config;
        sd_event *event;
        TbHttp *http;
        TbEngine *engine;
        Netctl *netctl;
        EventLog *log;
        DockerEvents *docker;
        Api *api;
        struct MetricsListener *metrics;
        JobQueue *jobs;
        struct RegistrySession *sessions; /* list of those that go: registry-session.c */
        sd_event_source *sessions_source;
        struct Usage *usage;
        sd_event_source *memory_timer; /* memory.h */
        uint64_t memory_touched_us;
        struct ImagesJob *images;                   /* list, see images.h */
        RunJob *runs;                               /* list */
        struct SnapshotJob *snapshots;              /* list, see snapshot.h */
        struct SnapshotSweep *sweep;                /* a look that is under way, see snapshot-sweep.h */
        struct ControlInterface *control_interface; /* a look that is under way, see control-interface.h */
        struct RunSweep *run_sweep;                 /* a look that is under way, see run-unfinished.h */
        struct KeyVolumes *key_volumes;             /* a look that is under way, see key-volumes.h */
        struct FilesOp *files;                      /* list, see api-files-op.c */
        ExecSession *execs;                         /* list, see exec-session.h */
        struct NetworkJob *networks;                /* list, see network.c */
        int lock_fd;
        FwSite site; /* what netctl is told of the surroundings: config.site, and where the agent's own port is */
        FirewallGroup *groups;
        size_t n_groups;
        FirewallWatch *firewall_watch;
        struct LinkWatch *link_watch;
        TmcdServer *tmcd;
        Barriers *barriers;
        struct Gate *gate;
        sd_event_source *experiment_check; /* deferred: see experiment.h */
        unsigned node_connections;         /* of all nodes */
        unsigned link_checks;              /* that run, see link-check.h */
        struct LinkCheck *link_check;      /* the one after configuration */
        sd_event_source *link_timer;

        Node **nodes; /* sorted by id */
        size_t n_nodes;
        size_t nodes_allocated;
        unsigned inspects; /* in flight */

        sd_event_source *batch;       /* deferred: runs when the loop has nothing else to do */
        sd_event_source *shape_timer; /* the next end of a live change, or flap of a link: node-shape.c */
        char **packet_networks;       /* where frames of one segment are sent: segmentation.h */
        uint64_t shape_seen_us;       /* CLOCK_BOOTTIME: up to when these were worked off */
        sd_event_source *batch_retry; /* after a removal that failed */
        sd_event_source *lock_retry;  /* another program holds the iptables lock: reconcile-lock.c */
        uint64_t lock_delay_us;       /* 0: nothing waits for it */
        struct NftWatch *fw_watch;    /* see fw-watch.h; NULL: nothing to watch */
        sd_event_source *fw_watch_source;
        bool nodes_known; /* so the API may say which there are */
        bool synced;      /* the first list was worked off: batches may run */
        bool want_sweep;  /* the next batch looks for leftovers as well */
        bool ready;
        bool engine_has_gate; /* it knows a runtime called GATE_RUNTIME */
        uint64_t started_us;  /* CLOCK_REALTIME */
        uint64_t ready_us;    /* how long READY took */
        ManagerStats stats;
        json_t *saved_nodes; /* state file: what nodes that we have not seen yet had */
};

int manager_new(Config *config, Manager **ret, TbError **err)
        _warn_unused_; /* takes the content of *config */
Manager *manager_free(Manager *m);
TB_DEFINE_CLEANUP(Manager *, manager_free)

/* From the lock to the end of the loop; returns when told to stop by a signal. */
int manager_run(Manager *m, TbError **err) _warn_unused_;

Node *manager_find(const Manager *m, const char *id);
int manager_add(Manager *m, Node *n, TbError **err) _warn_unused_;
void manager_remove(Manager *m, const Node *n);
/* By display name, experiment.name, experiment/name, container name, or a unique id prefix of at least 4 digits.
 * -ENOENT, or -ENOTUNIQ when several have that name. Only among those that `may` lets (NULL: all). */
int manager_lookup(const Manager *m, const char *name, bool (*may)(const Node *n, const void *userdata),
        const void *userdata, Node **ret, TbError **err) _warn_unused_;

/* Called by nodes. */
void manager_node_changed(Manager *m, Node *n, NodeState old);
void manager_inspect(Manager *m, Node *n);
void manager_inspect_cancel(Manager *m, Node *n);

/* Called by docker-events.c: the answer of a list was worked off (inspects may be in flight). */
void manager_listed(Manager *m);
/* STATUS= line for systemctl status, and READY when it is time. */
void manager_update_status(Manager *m);
