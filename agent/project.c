/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/project.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define GROUPS_MAX 65536

static bool is_member(uid_t uid, const char *group)
{
        const struct group *g = getgrnam(group);
        _cleanup_free_ gid_t *list = NULL;
        const struct passwd *pw;
        gid_t gid;
        int n = 64;

        if (!g)
                return false;
        gid = g->gr_gid;
        pw = getpwuid(uid);
        if (!pw)
                return false;
        for (;;) {
                int room = n;
                gid_t *larger = reallocarray(list, (size_t) room, sizeof(*list));

                if (!larger)
                        return false;
                list = larger;
                if (getgrouplist(pw->pw_name, pw->pw_gid, list, &n) >= 0)
                        break;
                if (n <= room || n > GROUPS_MAX)
                        return false;
        }
        for (int i = 0; i < n; i++)
                if (list[i] == gid)
                        return true;
        return false;
}

bool project_may_act(uid_t uid, const char *project)
{
        char own[32];

        (void) snprintf(own, sizeof(own), "user-%u", uid);
        return uid == 0 || tb_streq(project, own) || is_member(uid, project);
}

bool project_is_testbed(const char *host, const char *registry_host)
{
        return tb_streq(host, registry_host) || tb_startswith(host, "localhost") ||
                tb_startswith(host, "127.") || tb_startswith(host, "[::1]");
}

/* "projects/<p>/..." */
static int check_image(const AugmentRequest *request, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *host = NULL;
        const char *rest;
        bool plain;
        size_t n;
        int r;

        if ((r = registry_ref_parse(request->image, &ref, err)) < 0 ||
                (r = augment_registry_parse(request->registry, &host, &plain, err)) < 0)
                return r;
        rest = project_is_testbed(ref->host, host) ? tb_startswith(ref->repository, "projects/") : NULL;
        if (!rest)
                return 0;
        n = strcspn(rest, "/");
        if (request->project && strlen(request->project) == n && memcmp(request->project, rest, n) == 0)
                return 0;
        return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                "%s belongs to project %.*s; name it with --project if you are in it", request->image,
                (int) MIN2(n, (size_t) 64), rest);
}

int project_check(AugmentRequest *request, uid_t uid, TbError **err)
{
        free(request->private_project);
        request->private_project = tb_asprintf("user-%u", uid);
        if (!request->private_project)
                return tb_error_oom(err);
        if (request->project && !project_may_act(uid, request->project)) {
                _cleanup_free_ char *shown = tb_escape(request->project, 64);

                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "you are not in project '%s': only root and members of the group of that name may "
                        "act for it",
                        shown ?: "");
        }
        return check_image(request, err);
}
