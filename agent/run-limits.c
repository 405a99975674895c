/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/run-limits.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define NANO_DIGITS 9U

int run_limits_parse_cpus(const char *s, uint64_t *ret, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(s, 40), *whole = strdup(s);
        char fraction[NANO_DIGITS + 1] = "000000000", *dot;
        uint32_t integer, nano = 0;
        bool ok = true;

        if (!shown || !whole)
                return tb_error_oom(err);
        dot = strchr(whole, '.');
        if (dot) {
                size_t n = strlen(dot + 1);

                *dot = 0;
                ok = n > 0 && n <= NANO_DIGITS && strspn(dot + 1, "0123456789") == n;
                if (ok)
                        memcpy(fraction, dot + 1, n);
        }
        if (!ok || tb_parse_u32(whole, 0, RUN_CPUS_MAX, &integer, NULL) < 0 ||
                tb_parse_u32(fraction, 0, 999999999, &nano, NULL) < 0 || (integer == 0 && nano == 0))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "cpus: '%s' is no number of processors; give one like 2 or 0.5", shown);
        *ret = integer * UINT64_C(1000000000) + nano;
        return 0;
}

static int parse_memory(const char *s, uint64_t *ret, TbError **err)
{
        int r = tb_parse_size(s, ret, err);

        if (r < 0) {
                if (err && *err)
                        (*err)->kind = TB_ERROR_CONFIG;
                (void) tb_error_prefix(err, "memory");
                return r;
        }
        if (*ret < RUN_MEMORY_MIN || *ret > INT64_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "memory: '%s' is less than 6 MB, or more than there is anywhere", s);
        return 0;
}

int run_limits_parse(const json_t *body, RunLimits *ret, TbError **err)
{
        const char *cpus = NULL, *memory = NULL;
        RunLimits l = {};
        int r;

        r = tb_json_get_string(body, "cpus", &cpus, err);
        if (r > 0)
                r = run_limits_parse_cpus(cpus, &l.nano_cpus, err);
        if (r >= 0)
                r = tb_json_get_string(body, "memory", &memory, err);
        if (r > 0)
                r = parse_memory(memory, &l.memory, err);
        if (r >= 0)
                r = tb_json_get_u64(body, "pids", &l.pids, err);
        if (r > 0 && (l.pids == 0 || l.pids > RUN_PIDS_MAX))
                return tb_error_set(err, TB_ERROR_CONFIG, -ERANGE,
                        "pids: a limit of processes is a number from 1 to %u", RUN_PIDS_MAX);
        if (r < 0)
                return r;
        *ret = l;
        return 0;
}

int run_limits_add(const RunLimits *l, json_t *host, TbError **err)
{
        int r = 0;

        if (l->nano_cpus > 0)
                r = tb_json_set_u64(host, "NanoCpus", l->nano_cpus, err);
        if (r >= 0 && l->memory > 0)
                r = tb_json_set_u64(host, "Memory", l->memory, err);
        /* By itself the engine gives as much swap on top. */
        if (r >= 0 && l->memory > 0)
                r = tb_json_set_u64(host, "MemorySwap", l->memory, err);
        if (r >= 0 && l->pids > 0)
                r = tb_json_set_u64(host, "PidsLimit", l->pids, err);
        return r;
}
