/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/facts.h"
#include "agent/network.h"
#include "agent/run-unfinished.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

/* {"label": ["org.tbnode.run"]} */
#define LIST "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22" RUN_LABEL "%22%5D%7D"

/* An engine that was asked for a container has it by then, or never will. */
#define FORGET_SEC 3600

struct RunSweep {
        Manager *manager;
        TbEngineRequest *call;
        NetworkJob *network;
        char **numbers; /* cut short */
        char **ids;     /* containers that are still to be removed, and the number of each */
        char **ids_numbers;
        size_t next;
        bool removed;
        bool again;
};

static char *mark_path(const Manager *m, const char *number)
{
        return tb_asprintf("%s/runs/%s", m->config.state_dir, number);
}

static bool number_is_valid(const char *number)
{
        return strlen(number) == RUN_NUMBER_LEN && strspn(number, "0123456789abcdef") == RUN_NUMBER_LEN;
}

int run_mark(const Manager *m, char ret[static RUN_NUMBER_LEN + 1], TbError **err)
{
        _cleanup_free_ char *dir = tb_asprintf("%s/runs", m->config.state_dir), *path = NULL;
        uint8_t bytes[RUN_NUMBER_LEN / 2];
        int r;

        if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot get random bytes");
        for (size_t i = 0; i < sizeof(bytes); i++)
                (void) snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
        path = mark_path(m, ret);
        if (!dir || !path)
                return tb_error_oom(err);
        r = tb_mkdir_p(dir, 0700, err);
        return r < 0 ? r : tb_file_write_atomic(path, "", 0, 0600, err);
}

void run_unmark(const Manager *m, const char *number)
{
        _cleanup_free_ char *path = mark_path(m, number);

        if (path && unlink(path) < 0 && errno != ENOENT)
                log_warning("cannot remove %s: %m", path);
}

/* ---- The look ---------------------------------------------------------------------------------------------------- */

void run_sweep_stop(Manager *m)
{
        struct RunSweep *s = TAKE_PTR(m->run_sweep);

        if (!s)
                return;
        tb_engine_request_free(s->call);
        network_job_free(s->network);
        tb_strv_free(s->numbers);
        tb_strv_free(s->ids);
        tb_strv_free(s->ids_numbers);
        free(s);
}

static void finish(struct RunSweep *s)
{
        Manager *m = s->manager;
        bool again = s->again;

        run_sweep_stop(m);
        if (again)
                run_sweep(m);
}

static void on_networks_removed(const char *made_id, const TbError *err, void *userdata)
{
        struct RunSweep *s = userdata;

        s->network = NULL;
        if (err)
                log_warning("cannot remove networks of runs that were cut short: %s", tb_error_message(err));
        finish(s);
}

static void remove_networks(struct RunSweep *s)
{
        _cleanup_error_ TbError *err = NULL;

        if (s->removed && network_remove_unused(s->manager, on_networks_removed, s, &s->network, &err) >= 0)
                return;
        if (err)
                log_warning("cannot remove networks of runs that were cut short: %s", tb_error_message(err));
        finish(s);
}

static void remove_next(struct RunSweep *s);

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct RunSweep *s = userdata;
        const char *id = s->ids[s->next], *number = s->ids_numbers[s->next];

        s->next++;
        s->call = tb_engine_request_free(s->call);
        if (err && status != 404)
                log_warning("cannot remove container %.12s of a run that was cut short: %s", id,
                        tb_error_message(err));
        else {
                log_info("removed container %.12s of a run that was cut short", id);
                run_unmark(s->manager, number);
                s->removed = true;
        }
        remove_next(s);
}

static void remove_next(struct RunSweep *s)
{
        _cleanup_error_ TbError *err = NULL;
        char path[CONTAINER_ID_LEN + 32];

        if (s->next >= tb_strv_length(s->ids)) {
                remove_networks(s);
                return;
        }
        (void) snprintf(path, sizeof(path), "/containers/%s?force=1&v=1", s->ids[s->next]);
        if (tb_engine_call(s->manager->engine,
                    &(TbEngineCall){.method = "DELETE", .path = path, .done = on_removed, .userdata = s},
                    &s->call, &err) >= 0)
                return;
        log_warning("cannot remove containers of runs that were cut short: %s", tb_error_message(err));
        s->again = false;
        finish(s);
}

/* Their containers; a number without one is forgotten after a while. */
static void take(struct RunSweep *s, const json_t *list)
{
        const json_t *c;
        size_t i;

        json_array_foreach (list, i, c) {
                const char *id = NULL, *number = NULL;
                json_t *labels = NULL;

                if (tb_json_get_string(c, "Id", &id, NULL) > 0 && container_id_is_valid(id) &&
                        tb_json_get_object(c, "Labels", &labels, NULL) > 0 &&
                        tb_json_get_string(labels, RUN_LABEL, &number, NULL) > 0 &&
                        tb_strv_contains(s->numbers, number) && !run_is_under_way(s->manager, number) &&
                        (tb_strv_append(&s->ids, id, NULL) < 0 ||
                                tb_strv_append(&s->ids_numbers, number, NULL) < 0))
                        break;
        }
        for (char **n = s->numbers; n && *n; n++) {
                _cleanup_free_ char *path = mark_path(s->manager, *n);
                struct stat st;

                if (path && !tb_strv_contains(s->ids_numbers, *n) && stat(path, &st) == 0 &&
                        st.st_mtime + FORGET_SEC < time(NULL))
                        run_unmark(s->manager, *n);
        }
}

static void on_listed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct RunSweep *s = userdata;

        if (err)
                log_warning(
                        "cannot look for containers of runs that were cut short: %s", tb_error_message(err));
        else
                take(s, body);
        s->call = tb_engine_request_free(s->call);
        remove_next(s);
}

static char **unfinished(const Manager *m)
{
        _cleanup_free_ char *path = tb_asprintf("%s/runs", m->config.state_dir);
        DIR *dir = path ? opendir(path) : NULL;
        char **numbers = NULL;

        if (!dir)
                return NULL;
        for (const struct dirent *e; (e = readdir(dir));)
                if (number_is_valid(e->d_name) && !run_is_under_way(m, e->d_name) &&
                        tb_strv_append(&numbers, e->d_name, NULL) < 0)
                        break;
        (void) closedir(dir);
        return numbers;
}

void run_sweep(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        struct RunSweep *s;
        char **numbers;

        if (m->run_sweep) {
                m->run_sweep->again = true;
                return;
        }
        numbers = unfinished(m);
        if (!numbers)
                return;
        s = calloc(1, sizeof(*s));
        if (!s) {
                tb_strv_free(numbers);
                return;
        }
        s->manager = m;
        s->numbers = numbers;
        m->run_sweep = s;
        if (tb_engine_call(m->engine,
                    &(TbEngineCall){.method = "GET", .path = LIST, .done = on_listed, .userdata = s},
                    &s->call, &err) < 0) {
                log_debug("cannot look for containers of runs: %s", tb_error_message(err));
                run_sweep_stop(m);
        }
}

void run_sweep_created(Manager *m, const char *number)
{
        _cleanup_free_ char *path = number_is_valid(number) ? mark_path(m, number) : NULL;

        if (path && !run_is_under_way(m, number) && access(path, F_OK) == 0)
                run_sweep(m);
}
