/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Paginated lists: tags/list and _catalog (distribution-spec "Listing Tags", distribution api.md "Catalog")
 *
 * The next page is where the Link header says. A server could send us in circles for ever: no page is asked for twice,
 * and pages and entries are bounded.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define PAGE_SIZE 1000
#define PAGE_BYTES_MAX (8U * 1024 * 1024)

typedef struct ListOp {
        RegistryOp op;
        RegistryHost *host;
        RegistryCall *call;
        const char *key; /* "tags", "repositories" */
        char *scope;
        char **entries;
        size_t n, allocated;
        RegistryPages seen;
} ListOp;

static void list_destroy(RegistryOp *op)
{
        ListOp *o = (ListOp *) op;

        registry_call_free(o->call);
        free(o->scope);
        tb_strv_free(o->entries);
        free(o->seen.hashes);
}

static int add_entry(ListOp *o, const char *s, TbError **err)
{
        if (o->n >= REGISTRY_TAGS_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: more than %u %s", o->host->name,
                        REGISTRY_TAGS_MAX, o->key);
        if (o->n + 2 > o->allocated) {
                size_t more = MAX2(o->allocated * 2, (size_t) 64);
                char **v = reallocarray(o->entries, more, sizeof(*v));

                if (!v)
                        return tb_error_oom(err);
                o->entries = v;
                o->allocated = more;
        }
        o->entries[o->n] = strdup(s);
        if (!o->entries[o->n])
                return tb_error_oom(err);
        o->entries[++o->n] = NULL;
        return 0;
}

static int take_page(ListOp *o, RegistryCall *call, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        json_t *list = NULL, *entry;
        const char *body;
        size_t size, i;
        int r;

        if (registry_call_status(call) != 200)
                return registry_status_error(call, err, "cannot list %s", o->key);
        body = registry_call_body(call, &size);
        r = tb_json_parse(body, size, PAGE_BYTES_MAX, o->key, &j, err);
        if (r < 0)
                return r;
        r = tb_json_get_array(j, o->key, &list, err); /* null: a repository whose tags were all deleted */
        if (r < 0)
                return r;
        json_array_foreach (list, i, entry) {
                const char *s = json_string_value(entry);

                if (!s ||
                        !(tb_streq(o->key, "tags") ? registry_tag_is_valid(s)
                                                   : registry_repository_is_valid(s)))
                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "%s: %s[%zu] is not a valid name",
                                o->host->name, o->key, i);
                r = add_entry(o, s, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static uint64_t hash_of(const char *s)
{
        uint64_t h =
                0xcbf29ce484222325; /* FNV-1a; a collision only ends a list that a server made to collide */

        for (; *s; s++)
                h = (h ^ (uint8_t) *s) * 0x100000001b3;
        return h;
}

int registry_pages_next(
        RegistryPages *seen, const RegistryCall *call, const char *target, char **ret, TbError **err)
{
        const char *from = registry_call_url(call), *name = registry_call_host(call)->name;
        _cleanup_free_ char *url = NULL;
        uint64_t h, *v;
        int r;

        if (seen->n + 1 >= REGISTRY_PAGES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: more than %u pages of a list",
                        name, REGISTRY_PAGES_MAX);
        r = registry_url_resolve(from, target, &url, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s: Link", name);
                return r;
        }
        r = registry_call_check_target(registry_call_client(call), registry_call_host(call), from, url, err);
        if (r < 0)
                return r;
        h = hash_of(url);
        if (h == hash_of(from))
                return tb_error_set(err, TB_ERROR_REMOTE, -ELOOP,
                        "%s: a page of a list names itself as the next one", name);
        for (size_t i = 0; i < seen->n; i++)
                if (seen->hashes[i] == h)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ELOOP,
                                "%s: the pages of a list go round in a circle", name);
        v = reallocarray(seen->hashes, seen->n + 2, sizeof(*v));
        if (!v)
                return tb_error_oom(err);
        seen->hashes = v;
        if (seen->n == 0)
                seen->hashes[seen->n++] = hash_of(from);
        seen->hashes[seen->n++] = h;
        *ret = TAKE_PTR(url);
        return 0;
}

static int get_page(ListOp *o, const char *url, TbError **err);

/* 1 = the next page is on its way, 0 = that was the last one. */
static int follow_link(ListOp *o, RegistryCall *call, TbError **err)
{
        const char *header = registry_call_header(call, "Link");
        _cleanup_free_ char *target = NULL, *url = NULL;
        int r;

        if (!header)
                return 0;
        r = registry_link_next(header, &target, err);
        if (r <= 0)
                return r;
        r = registry_pages_next(&o->seen, call, target, &url, err);
        if (r < 0)
                return r;
        r = get_page(o, url, err);
        return r < 0 ? r : 1;
}

static void on_page(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        ListOp *o = userdata;
        int r;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        r = take_page(o, call, &e);
        if (r >= 0)
                r = follow_link(o, call, &e);
        if (r < 0)
                registry_op_fail(&o->op, e);
        else if (r == 0) {
                o->op.names = TAKE_PTR(o->entries);
                registry_op_finish(&o->op, 0, NULL);
        }
}

static int get_page(ListOp *o, const char *url, TbError **err)
{
        RegistryCallOptions options = {
                .host = o->host,
                .method = "GET",
                .url = url,
                .scopes = {o->scope},
                .response_max = PAGE_BYTES_MAX,
                .timeout_usec = 60 * USEC_PER_SEC,
                .done = on_page,
                .userdata = o,
        };

        o->call = registry_call_free(o->call);
        return registry_call_start(o->op.client, &options, &o->call, err);
}

static int list_start(RegistryClient *c, const char *host, const char *path, const char *scope,
        const char *key, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(ListOp), list_destroy, done, userdata, err);
        _cleanup_free_ char *url = NULL;
        ListOp *o = (ListOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        r = registry_client_get_host(c, host, &o->host, err);
        if (r < 0)
                return r;
        o->key = key;
        o->scope = strdup(scope);
        url = registry_host_url(o->host, "%s?n=%d", path, PAGE_SIZE);
        o->entries = calloc(1, sizeof(*o->entries));
        o->allocated = 1;
        if (!o->scope || !url || !o->entries)
                return tb_error_oom(err);
        r = get_page(o, url, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

static int list_wait(RegistryOp *op, char ***ret, TbError **err)
{
        int r = registry_op_wait(op, err);

        if (r >= 0)
                *ret = registry_op_steal_names(op);
        return r;
}

int registry_list_tags_start(RegistryClient *c, const RegistryRef *repository, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/tags/list", repository->repository);
        _cleanup_free_ char *scope = tb_asprintf("repository:%s:pull", repository->repository);

        if (!path || !scope)
                return tb_error_oom(err);
        return list_start(c, repository->host, path, scope, "tags", done, userdata, ret, err);
}

int registry_list_tags(RegistryClient *c, const RegistryRef *repository, char ***ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_list_tags_start(c, repository, NULL, NULL, &op, err);

        return r < 0 ? r : list_wait(op, ret, err);
}

int registry_list_repositories_start(RegistryClient *c, const char *host, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        return list_start(
                c, host, "_catalog", "registry:catalog:*", "repositories", done, userdata, ret, err);
}

int registry_list_repositories(RegistryClient *c, const char *host, char ***ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_list_repositories_start(c, host, NULL, NULL, &op, err);

        return r < 0 ? r : list_wait(op, ret, err);
}

char **registry_names_free(char **names)
{
        return tb_strv_free(names);
}
