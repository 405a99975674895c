/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Metrics over TCP: the smallest server that Prometheus can ask. */

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/metrics.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

#define LISTENER_CONNECTIONS_MAX 16U
#define LISTENER_TIMEOUT_SEC 10U

struct MetricsListener {
        Manager *manager;
        struct MHD_Daemon *daemon;
        sd_event_source *io;
        sd_event_source *timer;
};

static enum MHD_Result answer(
        struct MHD_Connection *c, unsigned status, const char *type, char *text, size_t size)
{
        struct MHD_Response *response = MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
        enum MHD_Result r;

        if (!response) {
                free(text);
                return MHD_NO;
        }
        r = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
        if (r == MHD_YES)
                r = MHD_queue_response(c, status, response);
        MHD_destroy_response(response);
        return r;
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned status, const char *why)
{
        char *text = tb_asprintf("%s\n", why);

        return text ? answer(c, status, "text/plain", text, strlen(text)) : MHD_NO;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
        const char *version, const char *data, size_t *size, void **con_cls)
{
        static const Caller everything = {.uid = 0, .is_operator = true};
        MetricsListener *l = cls;
        _cleanup_error_ TbError *err = NULL;
        char *text;
        size_t n;

        /* At once, also to a request with a body: it is not read then. */
        if (!tb_streq(url, "/metrics"))
                return refuse(c, 404, "there is only /metrics here");
        if (!tb_streq(method, "GET"))
                return refuse(c, 405, "/metrics is for GET");
        if (metrics_text(l->manager, &everything, &text, &n, &err) < 0)
                return refuse(c, 500, tb_error_message(err));
        return answer(c, 200, METRICS_TYPE, text, n);
}

static void run(MetricsListener *l)
{
        MHD_UNSIGNED_LONG_LONG ms;

        if (MHD_run(l->daemon) == MHD_NO)
                log_debug("the metrics server could not run");
        if (MHD_get_timeout(l->daemon, &ms) == MHD_NO) {
                (void) sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
                return;
        }
        if (sd_event_source_set_time_relative(l->timer, ms * 1000) < 0 ||
                sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the timer of the metrics server");
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        run(userdata);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        run(userdata);
        return 0;
}

static void on_mhd_log(void *cls, const char *fmt, va_list ap)
{
        /* What strangers send is no concern of the log. */
}

static int listen_on(const ConfigListener *where, int *ret, TbError **err)
{
        const struct sockaddr_in sa = {
                .sin_family = AF_INET, .sin_addr = where->address, .sin_port = htons(where->port)};
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        char text[INET_ADDRSTRLEN];
        const int on = 1;

        (void) inet_ntop(AF_INET, &where->address, text, sizeof(text));
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
                bind(fd, (const struct sockaddr *) (const void *) &sa, sizeof(sa)) < 0 || listen(fd, 16) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot serve metrics on %s:%u (metrics=); choose another port or address", text,
                        where->port);
        *ret = TAKE_FD(fd);
        return 0;
}

int metrics_listener_new(Manager *m, MetricsListener **ret, TbError **err)
{
        const union MHD_DaemonInfo *info = NULL;
        _cleanup_close_ int fd = -EBADF;
        MetricsListener *l;
        int r;

        if (m->config.metrics.port == 0) {
                *ret = NULL;
                return 0;
        }
        r = listen_on(&m->config.metrics, &fd, err);
        if (r < 0)
                return r;
        l = calloc(1, sizeof(*l));
        if (!l)
                return tb_error_oom(err);
        l->manager = m;
        l->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access, l,
                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, LISTENER_CONNECTIONS_MAX,
                MHD_OPTION_CONNECTION_TIMEOUT, LISTENER_TIMEOUT_SEC, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                (size_t) 8192, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_END);
        if (l->daemon) {
                fd = -EBADF; /* MHD closes it */
                info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        }
        r = info ? sd_event_add_io(m->event, &l->io, info->epoll_fd, EPOLLIN, on_io, l) : -EIO;
        if (r >= 0)
                r = sd_event_add_time_relative(m->event, &l->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, l);
        if (r >= 0)
                r = sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
        if (r < 0) {
                metrics_listener_free(l);
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot start the metrics server");
        }
        (void) sd_event_source_set_description(l->io, "metrics");
        *ret = l;
        return 0;
}

MetricsListener *metrics_listener_free(MetricsListener *l)
{
        if (!l)
                return NULL;
        sd_event_source_disable_unref(l->io);
        sd_event_source_disable_unref(l->timer);
        if (l->daemon)
                MHD_stop_daemon(l->daemon);
        free(l);
        return NULL;
}
