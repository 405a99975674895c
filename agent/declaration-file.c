/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/declaration-file.h"

#include <stdlib.h>
#include <string.h>

#include "agent/declaration.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define SUFFIX ".json"
#define FILE_MAX (4 * DECLARATION_MAX) /* indented */

char *declaration_file_dir(const Manager *m)
{
        return tb_asprintf("%s/declarations", m->config.state_dir);
}

static char *file_path(const Manager *m, const char *key)
{
        return tb_asprintf("%s/declarations/%s" SUFFIX, m->config.state_dir, key);
}

int declaration_file_load(const Manager *m, const char *key, json_t **ret, TbError **err)
{
        _cleanup_free_ char *path = file_path(m, key);
        _cleanup_json_ json_t *j = NULL;
        json_t *declaration = NULL;
        TbError *cause = NULL;
        uint64_t version = 0;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_json_load_file(path, FILE_MAX, &j, &cause);
        if (r == -ENOENT) {
                tb_error_free(cause);
                return 0;
        }
        if (r >= 0)
                r = tb_json_get_u64(j, "version", &version, &cause);
        if (r >= 0 && version != DECLARATION_FILE_VERSION)
                r = tb_error_set(&cause, TB_ERROR_CONFIG, -EPROTONOSUPPORT, "version %lu is not %d",
                        (unsigned long) version, DECLARATION_FILE_VERSION);
        if (r >= 0)
                r = tb_json_get_object(j, "declaration", &declaration, &cause);
        if (r == 0)
                r = tb_error_set(&cause, TB_ERROR_CONFIG, -EINVAL, "there is no declaration in it");
        if (r >= 0)
                r = declaration_check(declaration, ret, &cause);
        if (r < 0) {
                (void) tb_error_prefix(&cause,
                        "cannot use the saved declaration in %s (declare it anew: tbnode declare)", path);
                return tb_error_move(err, &cause);
        }
        return 1;
}

int declaration_file_save(const Manager *m, const char *key, const json_t *declaration, TbError **err)
{
        _cleanup_free_ char *path = file_path(m, key), *dir = declaration_file_dir(m), *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        int r;

        if (!path || !dir)
                return tb_error_oom(err);
        if (!declaration) {
                declaration_file_remove(m, key);
                return 0;
        }
        j = json_pack("{s:i, s:O}", "version", DECLARATION_FILE_VERSION, "declaration", declaration);
        if (!j)
                return tb_error_oom(err);
        r = tb_json_dump_pretty(j, &text, err);
        if (r >= 0)
                r = tb_mkdir_p(m->config.state_dir, 0755, err);
        if (r >= 0)
                r = tb_mkdir_p(dir, 0700, err);
        if (r >= 0)
                r = tb_file_write_atomic(path, text, strlen(text), 0600, err);
        if (r < 0)
                (void) tb_error_prefix(err, "cannot save the declaration");
        return r;
}

void declaration_file_remove(const Manager *m, const char *key)
{
        _cleanup_free_ char *path = file_path(m, key);

        if (path && unlink(path) < 0 && errno != ENOENT)
                log_warning("cannot remove %s: %s", path, strerror(errno));
}
