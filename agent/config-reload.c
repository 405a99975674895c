/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <systemd/sd-daemon.h>

#include "agent/api.h"
#include "agent/config-reload.h"
#include "agent/message.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

static void swap(void *a, void *b, size_t size)
{
        char *x = a, *y = b;

        for (size_t i = 0; i < size; i++) {
                char t = x[i];

                x[i] = y[i];
                y[i] = t;
        }
}

int config_update(Config *current, Config *new, char **ret_restart, size_t *ret_changed, TbError **err)
{
        _cleanup_strv_ char **restart = NULL;
        size_t changed = 0, offset, size;

        /* First what can fail. */
        for (size_t i = 0; config_key_live(i, &offset, &size); i++) {
                const char *value, *help;

                if (tb_streq(current->given[i], new->given[i]) || size > 0)
                        continue;
                if (tb_strv_append(&restart, config_key_at(i, &value, &help), err) < 0)
                        return -ENOMEM;
        }
        *ret_restart = restart ? tb_strv_join(restart, ", ") : NULL;
        if (restart && !*ret_restart)
                return tb_error_oom(err);
        for (size_t i = 0; config_key_live(i, &offset, &size); i++) {
                if (tb_streq(current->given[i], new->given[i]) || size == 0)
                        continue;
                swap((char *) current + offset, (char *) new + offset, size);
                swap(&current->given[i], &new->given[i], sizeof(current->given[i]));
                changed++;
        }
        *ret_changed = changed;
        return 0;
}

static int reload(Manager *m, char **ret_restart, size_t *ret_changed, TbError **err)
{
        _cleanup_config_ Config new = {};
        int r;

        r = config_init(&new, err);
        if (r >= 0)
                r = config_load(&new, m->config.path, err);
        if (r >= 0)
                r = api_check_groups(&new, err);
        if (r >= 0)
                r = config_update(&m->config, &new, ret_restart, ret_changed, err);
        return r < 0 ? r : api_reload(m->api, err);
}

void config_reload(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *restart = NULL;
        size_t changed = 0;

        (void) sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lu", (unsigned long) tb_now_us());
        if (reload(m, &restart, &changed, &err) < 0) {
                log_message(LOG_ERR, MESSAGE_CONFIG_REFUSED,
                        "the new configuration is not used, the old one stays in force: %s",
                        tb_error_message(err));
                event_log_add(m->log, "config-refused", json_pack("{s:s}", "reason", tb_error_message(err)));
        } else {
                log_message(restart ? LOG_WARNING : LOG_NOTICE, MESSAGE_CONFIG_RELOADED,
                        "configuration read again: %zu change(s) hold now%s%s", changed,
                        restart ? "; after a restart of tbnoded also " : "", restart ?: "");
                event_log_add(m->log, "config-reloaded",
                        json_pack("{s:I, s:s?}", "changed", (json_int_t) changed, "needs_restart", restart));
        }
        (void) sd_notify(0, "READY=1");
        manager_update_status(m);
}
