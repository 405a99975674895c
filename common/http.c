/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/http-internal.h"
#include "common/http.h"
#include "common/strv.h"

/*
 * curl's multi socket interface on an sd-event loop
 *
 * curl tells us which descriptors it wants watched (socket_callback) and when it wants to be called in any
 * case (timer_callback); we tell it what became ready (curl_multi_socket_action). See libcurl-multi(3),
 * "MULTI_SOCKET".
 *
 * Two rules of curl shape this file:
 *
 *  - Inside a callback of curl nothing may be done to the multi handle (CURLM_RECURSIVE_API_CALL), and
 * pausing from there re-enters other callbacks. `in_curl` counts how deep we are; whatever an owner asks for
 * meanwhile (start, resume, free) is noted in the request and carried out by on_kick() or, for frees, as
 * soon as curl has returned.
 *
 *  - A request's end is reported as a message to be read after the call, so `done` callbacks always run with
 * in_curl
 *    == 0: they may free, start, and even free the TbHttp. The latter only marks it dead while one of our
 * event handlers is on the stack (`busy`); http_leave() then destroys it.
 *
 * When watching a descriptor fails, the one request it belongs to fails. Reporting that to curl instead
 * would kill the whole multi handle for good.
 */

/* Idle connections that are kept for reuse. */
#define CONNECTIONS_MAX 32L

struct HttpSocket {
        TbHttp *http;
        curl_socket_t fd;
        sd_event_source *source;
        LIST_ENTRY(HttpSocket) siblings;
};

static void curl_global_init_once(void)
{
        (void) curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void http_reap(TbHttp *h)
{
        TbHttpRequest *r;

        while (h->in_curl == 0 && (r = LIST_FIRST(&h->graveyard)))
                http_request_destroy(r);
}

/* Reads what curl has finished and tells the owners. */
static void http_collect(TbHttp *h)
{
        int left;

        http_reap(h);
        while (!h->dead) {
                TbHttpRequest *r = NULL;
                const CURLMsg *m = curl_multi_info_read(h->multi, &left);

                if (!m)
                        break;
                if (m->msg != CURLMSG_DONE)
                        continue;
                /* The message is curl's and dies with the removal of the handle: take what we need first. */
                if (curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **) &r) != CURLE_OK || !r)
                        continue;
                http_request_finish(r, m->data.result);
                http_reap(h);
        }
}

static void http_socket_action(TbHttp *h, curl_socket_t fd, int events)
{
        int running;

        h->in_curl++;
        (void) curl_multi_socket_action(h->multi, fd, events, &running);
        h->in_curl--;
        http_collect(h);
}

static void http_destroy(TbHttp *h);

static void http_enter(TbHttp *h)
{
        h->busy++;
}

static void http_leave(TbHttp *h)
{
        h->busy--;
        if (h->busy > 0)
                return;
        http_reap(h);
        if (h->dead)
                http_destroy(h);
}

static void http_arm_kick(TbHttp *h)
{
        if (h->kick && !h->dead)
                (void) sd_event_source_set_enabled(h->kick, SD_EVENT_ONESHOT);
}

void http_schedule(TbHttp *h, TbHttpRequest *r)
{
        if (!r->is_pending) {
                TAILQ_INSERT_TAIL(&h->queue, r, pending);
                r->is_pending = true;
                h->n_pending++;
        }
        http_arm_kick(h);
}

static void http_unschedule(TbHttp *h, TbHttpRequest *r)
{
        if (!r->is_pending)
                return;
        TAILQ_REMOVE(&h->queue, r, pending);
        r->is_pending = false;
        h->n_pending--;
}

/* Hands a queued request to curl; the caller is not inside curl. */
int http_add(TbHttp *h, TbHttpRequest *r, TbError **err)
{
        CURLMcode c;

        h->in_curl++;
        c = curl_multi_add_handle(h->multi, r->easy);
        h->in_curl--;
        if (c != CURLM_OK)
                return http_error_from_multi(err, c, r->label);
        r->state = HTTP_RUNNING;
        return 0;
}

/* Takes the request out of curl and out of our queue; the caller is not inside curl. */
void http_forget(TbHttp *h, TbHttpRequest *r)
{
        http_unschedule(h, r);
        if (r->state == HTTP_RUNNING) {
                h->in_curl++;
                (void) curl_multi_remove_handle(h->multi, r->easy);
                h->in_curl--;
        }
        r->state = HTTP_DONE;
}

/* Carries out what was asked for from inside curl. */
static void http_run_pending(TbHttp *h, TbHttpRequest *r)
{
        if (r->state == HTTP_QUEUED) {
                if (http_add(h, r, &r->abort_reason) < 0) {
                        http_request_finish(r, CURLE_FAILED_INIT);
                        return;
                }
        }

        if (r->state == HTTP_RUNNING && r->abort_code == 0 && r->want_resume &&
                (r->read_paused || r->write_paused)) {
                r->read_paused = r->write_paused = false;
                if (r->low_speed_bps > 0)
                        (void) curl_easy_setopt(r->easy, CURLOPT_LOW_SPEED_LIMIT, (long) r->low_speed_bps);
                r->want_resume = false;

                /* This delivers what curl had to keep back, so it calls the owner. */
                h->in_curl++;
                (void) curl_easy_pause(r->easy, CURLPAUSE_CONT);
                h->in_curl--;
        } else
                r->want_resume = false;

        /* An abort inside curl_easy_pause() is not reported by a message, and one of socket_callback()
         * neither. */
        if (r->state == HTTP_RUNNING && r->abort_code != 0 && !r->freed)
                http_request_finish(r, CURLE_ABORTED_BY_CALLBACK);
}

static int on_kick(sd_event_source *s, void *userdata)
{
        TbHttp *h = userdata;

        http_enter(h);

        /* What a callback adds now waits for the next turn, so that nobody can keep the loop to himself. */
        for (size_t n = h->n_pending; n > 0 && !h->dead; n--) {
                TbHttpRequest *r = TAILQ_FIRST(&h->queue);

                if (!r)
                        break;
                http_unschedule(h, r);
                http_run_pending(h, r);
                http_collect(h);
        }
        if (h->n_pending > 0)
                http_arm_kick(h);

        if (h->timeout_due && !h->dead) {
                h->timeout_due = false;
                http_socket_action(h, CURL_SOCKET_TIMEOUT, 0);
        }

        http_leave(h);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        TbHttp *h = userdata;

        http_enter(h);
        if (!h->dead)
                http_socket_action(h, CURL_SOCKET_TIMEOUT, 0);
        http_leave(h);
        return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        HttpSocket *sock = userdata;
        TbHttp *h = sock->http;
        int events = 0;

        if (revents & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
                events |= CURL_CSELECT_IN;
        if (revents & EPOLLOUT)
                events |= CURL_CSELECT_OUT;
        if (revents & EPOLLERR)
                events |= CURL_CSELECT_ERR;

        http_enter(h);
        if (!h->dead)
                http_socket_action(h, fd, events); /* may free sock */
        http_leave(h);
        return 0;
}

static void http_socket_free(HttpSocket *sock)
{
        LIST_REMOVE(sock, siblings);
        sd_event_source_disable_unref(sock->source);
        free(sock);
}

static int http_socket_watch(TbHttp *h, HttpSocket *sock, curl_socket_t fd, uint32_t events)
{
        int r;

        if (sock) {
                r = sd_event_source_set_io_events(sock->source, events);
                if (r < 0)
                        return r;
                return sd_event_source_set_enabled(sock->source, SD_EVENT_ON);
        }

        sock = calloc(1, sizeof(*sock));
        if (!sock)
                return -ENOMEM;
        *sock = (HttpSocket){.http = h, .fd = fd};
        r = sd_event_add_io(h->event, &sock->source, fd, events, on_io, sock);
        if (r < 0) {
                free(sock);
                return r;
        }
        (void) sd_event_source_set_description(sock->source, "http-socket");
        LIST_INSERT_HEAD(&h->sockets, sock, siblings);
        if (curl_multi_assign(h->multi, fd, sock) != CURLM_OK) {
                http_socket_free(sock);
                return -EBADF;
        }
        return 0;
}

static int socket_callback(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socket_data)
{
        TbHttp *h = userdata;
        HttpSocket *sock = socket_data;
        TbHttpRequest *r = NULL;
        uint32_t events = 0;
        int k;

        if (what == CURL_POLL_REMOVE) {
                if (sock) {
                        (void) curl_multi_assign(h->multi, fd, NULL);
                        http_socket_free(sock);
                }
                return 0;
        }
        if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
                events |= EPOLLIN;
        if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
                events |= EPOLLOUT;

        k = http_socket_watch(h, sock, fd, events);
        if (k < 0 && curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &r) == CURLE_OK && r) {
                tb_error_set_errno(
                        &r->abort_reason, TB_ERROR_RESOURCE, k, "%s: cannot watch a socket", r->label);
                r->abort_code = k;
                http_schedule(h, r);
        }
        return 0;
}

static int timer_callback(CURLM *multi, long timeout_ms, void *userdata)
{
        TbHttp *h = userdata;

        h->timeout_due = timeout_ms == 0;
        if (timeout_ms <= 0) {
                (void) sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
                if (timeout_ms == 0)
                        http_arm_kick(h);
                return 0;
        }

        if (sd_event_source_set_time_relative(h->timer, (uint64_t) timeout_ms * 1000) < 0)
                return 0;
        (void) sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
        return 0;
}

static int http_setup_multi(TbHttp *h, TbError **err)
{
        CURLMcode c;

        h->multi = curl_multi_init();
        if (!h->multi)
                return tb_error_oom(err);

        c = curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
        if (c == CURLM_OK)
                c = curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
        if (c == CURLM_OK)
                c = curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, timer_callback);
        if (c == CURLM_OK)
                c = curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
        if (c == CURLM_OK)
                c = curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_MAX);
        if (c != CURLM_OK)
                return http_error_from_multi(err, c, "cannot set up the HTTP client");
        return 0;
}

static int http_setup_sources(TbHttp *h, TbError **err)
{
        int r;

        /* Accuracy 1 us: the default of 250 ms is made for saving wake-ups, and curl's timers are short and
         * rare. */
        r = sd_event_add_time_relative(h->event, &h->timer, CLOCK_MONOTONIC, 0, 1, on_timer, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(h->event, &h->kick, on_kick, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->kick, SD_EVENT_OFF);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r, "cannot attach the HTTP client to the event loop");
        (void) sd_event_source_set_description(h->timer, "http-timer");
        (void) sd_event_source_set_description(h->kick, "http-kick");
        return 0;
}

int tb_http_new(sd_event *event, TbHttp **ret, TbError **err)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        _cleanup_(tb_http_freep) TbHttp *h = NULL;
        int r;

        (void) pthread_once(&once, curl_global_init_once);

        h = calloc(1, sizeof(*h));
        if (!h)
                return tb_error_oom(err);
        LIST_INIT(&h->sockets);
        LIST_INIT(&h->requests);
        LIST_INIT(&h->graveyard);
        TAILQ_INIT(&h->queue);
        h->event = sd_event_ref(event);

        r = http_setup_sources(h, err);
        if (r < 0)
                return r;
        r = http_setup_multi(h, err);
        if (r < 0)
                return r;
        r = tb_http_set_user_agent(h, "tbnode/" TBNODE_VERSION, err);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(h);
        return 0;
}

static void http_destroy(TbHttp *h)
{
        TbHttpRequest *r;
        HttpSocket *sock;

        while ((r = LIST_FIRST(&h->requests)))
                http_request_detach(r);
        http_reap(h);

        h->in_curl++;
        if (h->multi)
                (void) curl_multi_cleanup(h->multi);
        while ((sock = LIST_FIRST(&h->sockets)))
                http_socket_free(sock);

        sd_event_source_disable_unref(h->timer);
        sd_event_source_disable_unref(h->kick);
        sd_event_unref(h->event);
        free(h->user_agent);
        free(h);
}

TbHttp *tb_http_free(TbHttp *h)
{
        if (!h)
                return NULL;

        if (h->busy > 0)
                h->dead = true;
        else
                http_destroy(h);
        return NULL;
}

int tb_http_set_user_agent(TbHttp *h, const char *agent, TbError **err)
{
        char *copy;

        if (strpbrk(agent, "\r\n"))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "a user agent must not contain line breaks");
        copy = strdup(agent);
        if (!copy)
                return tb_error_oom(err);
        free(h->user_agent);
        h->user_agent = copy;
        return 0;
}

sd_event *tb_http_event(TbHttp *h)
{
        return h->event;
}

int tb_http_perform(TbHttp *h, const TbHttpOptions *options, TbHttpRequest **ret, TbError **err)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        TbHttpOptions copy = *options;
        int k;

        copy.done = NULL;
        k = tb_http_start(h, &copy, &r, err);
        if (k < 0)
                return k;

        while (r->state != HTTP_DONE) {
                k = sd_event_run(h->event, UINT64_MAX);
                if (k < 0 && k != -ESTALE)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, k, "%s: the event loop failed", r->label);
                if (r->state != HTTP_DONE && sd_event_get_state(h->event) == SD_EVENT_FINISHED)
                        return tb_error_set(
                                err, TB_ERROR_CANCELLED, -ECANCELED, "%s: stopped by request", r->label);
        }
        if (r->error)
                return tb_error_move(err, &r->error);

        *ret = TAKE_PTR(r);
        return 0;
}
