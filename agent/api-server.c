/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The API's socket, and libmicrohttpd's place in our loop. */

#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/api-internal.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

#define CLIENT_TIMEOUT_SEC (API_SEND_USEC / 1000000)

/* ---- Loop -------------------------------------------------------------------------------------------------- */

static void api_run(Api *a)
{
        MHD_UNSIGNED_LONG_LONG ms;

        if (MHD_run(a->daemon) == MHD_NO)
                log_debug("the API server could not run");
        if (MHD_get_timeout(a->daemon, &ms) == MHD_NO) {
                (void) sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
                return;
        }
        if (sd_event_source_set_time_relative(a->timer, ms * 1000) < 0 ||
                sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the API's timer");
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        api_run(userdata);
        return 0;
}

void api_kick(Api *a)
{
        if (sd_event_source_set_time_relative(a->timer, 0) < 0 ||
                sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the API's timer");
}

static int on_run_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        api_run(userdata);
        return 0;
}

int api_check_groups(const Config *c, TbError **err)
{
        return c->operators_group && !getgrnam(c->operators_group)
                ? tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "there is no group '%s' (operators-group)",
                          c->operators_group)
                : 0;
}

int api_reload(Api *a, TbError **err)
{
        const Config *c = &a->manager->config;
        const struct group *group = getgrnam(c->operators_group ?: "tbnode-operators");

        if (!group && c->operators_group)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no group '%s' (operators-group)", c->operators_group);
        a->operators = group ? group->gr_gid : (gid_t) -1;
        return 0;
}

unsigned api_connections(const Api *a)
{
        return api_connections_count(a->connections);
}

uint64_t api_requests_total(const Api *a)
{
        return a->n_requests;
}

uint64_t api_refused_total(const Api *a)
{
        return api_connections_refused(a->connections);
}

static int api_listen(Api *a, TbError **err)
{
        const Config *c = &a->manager->config;
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        const char *path = config_socket(c);
        const struct group *group;

        if (strlen(path) >= sizeof(sa.sun_path))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENAMETOOLONG, "the socket path %s is too long", path);
        memcpy(sa.sun_path, path, strlen(path) + 1);
        a->path = strdup(path);
        if (!a->path)
                return tb_error_oom(err);
        a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (a->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a socket");
        /* We hold the lock, so a socket that is there is a dead agent's. */
        if (unlink(path) < 0 && errno != ENOENT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot remove the old %s", path);
        if (bind(a->fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot bind %s", path);
        group = getgrnam(c->socket_group ?: "tbnode");
        if (!group && c->socket_group)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "there is no group '%s' (socket-group)",
                        c->socket_group);
        if (chown(path, 0, group ? group->gr_gid : 0) < 0 || chmod(path, 0660) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot set the owner of %s", path);
        if (listen(a->fd, 128) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot listen on %s", path);
        return 0;
}

static int api_setup(Api *a, TbError **err)
{
        sd_event *event = a->manager->event;
        const union MHD_DaemonInfo *info;
        int r;

        r = api_reload(a, err);
        if (r >= 0)
                r = api_listen(a, err);
        if (r >= 0)
                r = api_connections_new(event, &a->connections, err);
        if (r < 0)
                return r;
        a->daemon = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0, NULL,
                NULL, api_on_access, a, MHD_OPTION_LISTEN_SOCKET, a->fd, MHD_OPTION_NOTIFY_COMPLETED,
                api_on_completed, a, MHD_OPTION_CONNECTION_LIMIT, API_CONNECTIONS_MAX,
                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) CLIENT_TIMEOUT_SEC, MHD_OPTION_NOTIFY_CONNECTION,
                api_connections_notify, a->connections, MHD_OPTION_UNESCAPE_CALLBACK, api_on_unescape, a,
                MHD_OPTION_EXTERNAL_LOGGER, api_on_mhd_log, a, MHD_OPTION_END);
        if (!a->daemon)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot start the API server");
        a->fd = -EBADF; /* MHD closes it */
        info = MHD_get_daemon_info(a->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "the API server has no epoll descriptor");
        r = sd_event_add_io(event, &a->io, info->epoll_fd, EPOLLIN, on_io, a);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &a->timer, CLOCK_MONOTONIC, 0, 1000, on_run_timer, a);
        if (r >= 0)
                r = sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &a->known, CLOCK_MONOTONIC, 0, 0, api_on_known, a);
        if (r >= 0)
                r = sd_event_source_set_enabled(a->known, SD_EVENT_OFF);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r, "cannot attach the API to the event loop");
        (void) sd_event_source_set_description(a->io, "api");
        (void) sd_event_source_set_description(a->timer, "api-timer");
        return 0;
}

int api_new(Manager *m, Api **ret, TbError **err)
{
        Api *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return tb_error_oom(err);
        a->manager = m;
        a->fd = -EBADF;
        r = api_setup(a, err);
        if (r < 0) {
                api_free(a);
                return r;
        }
        *ret = a;
        return 0;
}

Api *api_free(Api *a)
{
        if (!a)
                return NULL;
        /* MHD demands that nothing is suspended when it stops. */
        for (ApiRequest *r = a->requests; r; r = r->next) {
                api_request_gone(r);
                api_upgrade_end(r);
                if (r->suspended) {
                        r->suspended = false;
                        MHD_resume_connection(r->connection);
                }
        }
        a->stopping = true;
        sd_event_source_disable_unref(a->io);
        sd_event_source_disable_unref(a->timer);
        sd_event_source_disable_unref(a->known);
        if (a->daemon)
                MHD_stop_daemon(a->daemon);
        api_connections_free(a->connections);
        tb_close(a->fd);
        if (a->path)
                (void) unlink(a->path);
        free(a->path);
        free(a);
        return NULL;
}
