/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A client on somebody else's event loop
 *
 * sd-event keeps everything it waits for in one epoll set: sockets, and one timerfd for each clock. So its descriptor is
 * readable exactly when something is due, provided that it was told to look: sd_event_prepare() arms the timers and
 * finds the sources that are due without a descriptor (deferred ones). This is why registry_client_dispatch() goes on
 * until prepare and wait agree that there is nothing left, and why callers have to come by after starting something.
 */

#include <systemd/sd-event.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"

/* Callbacks in one go. Whoever has more to do than that has to let the caller's other sources have their turn. */
#define SHARE 64U

int registry_client_get_fd(const RegistryClient *c)
{
        return sd_event_get_fd(c->event);
}

int registry_client_dispatch(RegistryClient *c, TbError **err)
{
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;

        if (sd_event_get_state(c->event) != SD_EVENT_INITIAL)
                return tb_error_set(err, TB_ERROR_BUG, -EBUSY,
                        "registry_client_dispatch() must not be called from a callback of the same client");
        event = sd_event_ref(c->event); /* a callback may free the client */
        for (unsigned i = 0; i < SHARE; i++) {
                int r = sd_event_prepare(event);

                if (r == 0)
                        r = sd_event_wait(event, 0);
                if (r == 0)
                        return 0;
                if (r > 0)
                        r = sd_event_dispatch(event);
                if (r == -ESTALE || (r >= 0 && sd_event_get_state(event) == SD_EVENT_FINISHED))
                        return tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "the event loop has ended");
                if (r < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "the event loop failed");
        }
        return 1;
}
