/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Namespaces that host sides of veths are in. A call enters each of them once, keeps a socket there while it lasts, and
 * holds none of them longer: Docker removes an overlay network's namespace when the last container leaves.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "netctl/netctl-internal.h"
#include "netctl/netns.h"

static void space_done(Space *s, bool borrowed)
{
        if (!borrowed) {
                rtnl_free(s->rtnl);
                tb_close(s->fd);
        }
        free(s->path);
        links_done(&s->links);
        plan_done(&s->plan);
}

void spaces_done(Work *w)
{
        for (size_t i = 0; i < w->n_spaces; i++)
                space_done(w->spaces + i, i == 0);
        free(w->spaces);
}

int spaces_begin(Netctl *n, Work *w, bool list, TbError **err)
{
        w->spaces = calloc(1, sizeof(*w->spaces));
        if (!w->spaces)
                return tb_error_oom(err);
        w->spaces[0] = (Space){.fd = n->host_fd, .rtnl = n->rtnl};
        w->n_spaces = 1;
        return list ? links_dump(n->rtnl, &w->spaces[0].links, err) : 0;
}

/* Something of ours may be there from now on. */
static void remember(Netctl *n, const Space *s)
{
        for (size_t i = 0; i < n->n_spaces; i++)
                if (n->spaces[i].ino == s->ino && n->spaces[i].dev == s->dev)
                        return;
        if (n->n_spaces == NETCTL_SPACES_MAX) {
                n->looked = false; /* too many to tell apart: look at all */
                return;
        }
        n->spaces[n->n_spaces].dev = s->dev;
        n->spaces[n->n_spaces++].ino = s->ino;
}

static int enter(Netctl *n, int fd, const char *path, Space *ret, TbError **err)
{
        Space s = {.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), .path = strdup(path)};

        int r = s.fd < 0 || !s.path ? tb_error_oom(err) : rtnl_new_in(s.fd, n->host_fd, true, &s.rtnl, err);
        if (r >= 0)
                r = links_dump(s.rtnl, &s.links, err);
        if (r < 0) {
                tb_error_prefix(err, "network namespace %s", path);
                space_done(&s, false);
                return r;
        }
        *ret = s;
        return 0;
}

int spaces_add(Netctl *n, Work *w, int fd, const char *path, size_t *ret, TbError **err)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "network namespace %s", path);
        for (size_t i = 1; i < w->n_spaces; i++)
                if (w->spaces[i].ino == st.st_ino && w->spaces[i].dev == st.st_dev) {
                        *ret = i;
                        return 0;
                }
        Space *grown = reallocarray(w->spaces, w->n_spaces + 1, sizeof(*grown));
        if (!grown)
                return tb_error_oom(err);
        w->spaces = grown;
        Space *s = grown + w->n_spaces;
        int r = enter(n, fd, path, s, err);
        if (r < 0)
                return r;
        s->dev = st.st_dev;
        s->ino = st.st_ino;
        remember(n, s);
        *ret = w->n_spaces++;
        return 0;
}

static bool has_ours(const Links *links)
{
        for (size_t i = 0; i < links->n; i++) {
                char id[TC_ALIAS_MAX];
                uint32_t veth;
                if (ifb_parse_alias(links->v[i].alias, id, &veth))
                        return true;
        }
        return false;
}

static bool is_known(const Netctl *n, const Netns *x)
{
        for (size_t i = 0; i < n->n_spaces; i++)
                if (n->spaces[i].ino == x->ino && n->spaces[i].dev == x->dev)
                        return true;
        return false;
}

int spaces_add_known(Netctl *n, Work *w, TbError **err)
{
        _cleanup_netns_list_ NetnsList list = {};
        struct stat host;

        if (n->looked && n->n_spaces == 0)
                return 0;
        int r = netns_list(n->options.netns_directories, &list, err);
        if (r < 0)
                return r;
        if (fstat(n->host_fd, &host) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "the host's network namespace");
        for (size_t i = 0; i < list.n; i++) {
                const Netns *x = list.v + i;
                _cleanup_error_ TbError *e = NULL;
                Space s;
                size_t at;
                if ((x->ino == host.st_ino && x->dev == host.st_dev) || (n->looked && !is_known(n, x)))
                        continue;
                _cleanup_close_ int fd = netns_open(x);
                if (fd < 0)
                        continue;
                if (!is_known(n, x)) {
                        /* Only those that have something are worth keeping open. */
                        r = enter(n, fd, x->path, &s, &e);
                        if (r == 0) {
                                bool ours = has_ours(&s.links);
                                space_done(&s, false);
                                if (!ours)
                                        continue;
                        }
                }
                if (!e)
                        r = spaces_add(n, w, fd, x->path, &at, &e);
                if (e && e->kind == TB_ERROR_BUG) /* not back at home */
                        return tb_error_move(err, &e);
                if (e)
                        log_debug("left out: %s", tb_error_message(e));
        }
        n->looked = true;
        return 0;
}

const Links *work_links(const Work *w, size_t i)
{
        return &w->spaces[w->ifaces[i].space].links;
}

/* Where somebody is known to have changed something it may be a class that nobody declared. */
static IfaceState to_observe(const Work *w, size_t i)
{
        const Iface *x = w->ifaces + i;

        return (IfaceState){
                .veth = x->host.ifindex,
                .ruled = x->want->n_rules > 0 || w->nodes[x->node].repair,
                .thorough = w->nodes[x->node].thorough,
        };
}

/* Those of the interfaces that are in one space, read together. */
static int observe_space(Work *w, size_t space, IfaceState *states, IfaceState *some, TbError **err)
{
        size_t n = 0;

        for (size_t i = 0; i < w->n_ifaces; i++)
                if (w->ifaces[i].space == space)
                        some[n++] = to_observe(w, i);
        int r = observe(w->spaces[space].rtnl, &w->spaces[space].links, some, n, false, &w->arena, err);
        n = 0;
        for (size_t i = 0; i < w->n_ifaces && r >= 0; i++)
                if (w->ifaces[i].space == space)
                        states[i] = some[n++];
        return r;
}

int work_observe(Work *w, IfaceState *states, TbError **err)
{
        if (w->n_spaces == 1) {
                for (size_t i = 0; i < w->n_ifaces; i++)
                        states[i] = to_observe(w, i);
                return observe(
                        w->spaces[0].rtnl, &w->spaces[0].links, states, w->n_ifaces, w->few, &w->arena, err);
        }
        _cleanup_free_ IfaceState *some = calloc(w->n_ifaces + 1, sizeof(*some));
        if (!some)
                return tb_error_oom(err);
        for (size_t s = 0; s < w->n_spaces; s++) {
                int r = observe_space(w, s, states, some, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int work_observe_again(Work *w, IfaceState *states, TbError **err)
{
        if (w->few) {
                int r = work_read_few_links(w, err);
                return r < 0 ? r : work_observe(w, states, err);
        }
        for (size_t s = 0; s < w->n_spaces; s++) {
                links_done(&w->spaces[s].links);
                int r = links_dump(w->spaces[s].rtnl, &w->spaces[s].links, err);
                if (r < 0)
                        return r;
        }
        return work_observe(w, states, err);
}

int work_apply(Work *w, TbError **errors, ApplyCounts *counts, TbError **err)
{
        for (size_t s = 0; s < w->n_spaces; s++) {
                int r = apply_plan(w->spaces[s].rtnl, w->few ? NULL : &w->spaces[s].links,
                        &w->spaces[s].plan, errors, counts, err);
                if (r < 0)
                        return r;
                plan_done(&w->spaces[s].plan);
        }
        return 0;
}
