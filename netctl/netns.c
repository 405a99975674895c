/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/netns.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

void netns_list_done(NetnsList *l)
{
        for (size_t i = 0; i < l->n; i++)
                free(l->v[i].path);
        free(l->v);
        *l = (NetnsList){};
}

static int take_nsid(const struct nlmsghdr *h, void *userdata)
{
        int32_t *ret = userdata;
        uint32_t v;
        NlIter i = nl_message_attributes(h, sizeof(struct rtgenmsg));

        if (h->nlmsg_type != RTM_NEWNSID)
                return -EBADMSG;
        for (NlAttr a; nl_iter_next(&i, &a);)
                if (a.type == NETNSA_NSID && nl_attr_u32(&a, &v))
                        *ret = (int32_t) v;
        return 0;
}

int netns_id(Rtnl *r, int fd, int32_t *ret, bool *ret_known, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        struct rtgenmsg m = {.rtgen_family = AF_UNSPEC};
        int32_t id = NETNSA_NSID_NOT_ASSIGNED;

        nlw_begin(&w, RTM_GETNSID, 0, &m, sizeof(m));
        nlw_put_u32(&w, NETNSA_FD, (uint32_t) fd);
        nlw_end(&w);
        int k = rtnl_get(r, &w, take_nsid, &id, err);
        if (k < 0) {
                tb_error_prefix(err, "cannot identify a network namespace");
                return k;
        }
        *ret = id;
        *ret_known = id >= 0;
        return 0;
}

void netns_take_own_id(Rtnl *r, int fd)
{
        _cleanup_nlw_ NlWriter w = {};
        const struct rtgenmsg m = {.rtgen_family = AF_UNSPEC};
        RtnlResult result;

        nlw_begin(&w, RTM_NEWNSID, 0, &m, sizeof(m));
        nlw_put_u32(&w, NETNSA_FD, (uint32_t) fd);
        nlw_put_u32(&w, NETNSA_NSID, (uint32_t) NETNSA_NSID_NOT_ASSIGNED); /* whichever is free */
        nlw_end(&w);
        /* EEXIST: it has one. Nothing depends on it but speed. */
        if (rtnl_batch(r, &w, &result, NULL, NULL) < 0 || (result.code < 0 && result.code != -EEXIST))
                log_debug("the host's network namespace has no number of its own");
}

int netns_open(const Netns *x)
{
        int fd = open(x->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct statfs fs;
        struct stat st;

        if (fd < 0)
                return -EBADF;
        if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC || fstat(fd, &st) < 0 || st.st_ino != x->ino ||
                st.st_dev != x->dev)
                return tb_close(fd);
        return fd;
}

static bool listed(const NetnsList *l, const struct stat *st)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i].ino == st->st_ino && l->v[i].dev == st->st_dev)
                        return true;
        return false;
}

static int add_directory(NetnsList *l, const char *directory, TbError **err)
{
        _cleanup_closedir_ DIR *d = opendir(directory);

        if (!d)
                return 0;
        for (const struct dirent *e; l->n < NETNS_MAX && (e = readdir(d));) {
                struct stat st;
                if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                        !S_ISREG(st.st_mode) || listed(l, &st))
                        continue;
                Netns *v = reallocarray(l->v, l->n + 1, sizeof(*v));
                if (!v)
                        return tb_error_oom(err);
                l->v = v;
                char *path = tb_asprintf("%s/%s", directory, e->d_name);
                if (!path)
                        return tb_error_oom(err);
                l->v[l->n++] = (Netns){.path = path, .dev = st.st_dev, .ino = st.st_ino};
        }
        return 0;
}

int netns_list(char *const *directories, NetnsList *ret, TbError **err)
{
        static const char *const usual[] = {"/run/docker/netns", "/run/netns", NULL};
        _cleanup_netns_list_ NetnsList l = {};

        for (const char *const *p = directories ? (const char *const *) directories : usual; *p; p++) {
                int r = add_directory(&l, *p, err);
                if (r < 0)
                        return r;
        }
        *ret = l;
        l = (NetnsList){};
        return 0;
}
