/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/fw-watch.h"

#include <sys/epoll.h>

#include "agent/firewall-watch.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "netctl/nft-watch.h"

static int on_change(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Manager *m = userdata;

        if (!nft_watch_read(m->fw_watch))
                return 0;
        firewall_watch_poke(m);
        if (m->config.managed_bridges) { /* their guard is there without any node */
                m->want_sweep = true;
                reconcile_schedule(m);
        }
        return 0;
}

int fw_watch_start(Manager *m, TbError **err)
{
        _cleanup_error_ TbError *none = NULL;
        int r;

        r = nft_watch_new(&m->fw_watch, &none);
        if (r == -ENOENT) {
                log_debug("not watching the firewall: %s", tb_error_message(none));
                return 0;
        }
        if (r < 0)
                return tb_error_move(err, &none);
        r = sd_event_add_io(m->event, &m->fw_watch_source, nft_watch_fd(m->fw_watch), EPOLLIN, on_change, m);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, r, "cannot watch the firewall");
        (void) sd_event_source_set_description(m->fw_watch_source, "firewall");
        return 0;
}

void fw_watch_stop(Manager *m)
{
        m->fw_watch_source = sd_event_source_disable_unref(m->fw_watch_source);
        m->fw_watch = nft_watch_free(m->fw_watch);
}
