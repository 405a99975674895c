/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Measuring links, on demand. */

#include <stdlib.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/link-check.h"
#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

typedef struct LinkOp {
        ApiRequest *request;
        LinkCheck *check;
} LinkOp;

static void on_link(const json_t *link, void *userdata)
{
        LinkOp *o = userdata;

        api_stream_line(o->request, json_pack("{s:s, s:O}", "event", "link", "link", (json_t *) link), true);
}

static void on_done(size_t measured, const TbError *err, void *userdata)
{
        LinkOp *o = userdata;

        api_stream_line(o->request,
                err ? json_pack("{s:s, s:o}", "event", "error", "error", api_error_to_json(err))
                    : json_pack("{s:s, s:{s:I}}", "event", "result", "result", "measured",
                              (json_int_t) measured),
                true);
        api_stream_end(o->request);
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        LinkOp *o = userdata;

        link_check_free(o->check);
        free(o);
}

/* "node", "network" (or the name of an interface in that node) and "rate", all optional. */
static int parse(ApiRequest *r, LinkCheckOptions *ret, TbError **err)
{
        static const char *const members[] = {"node", "network", "rate", NULL};
        const json_t *body = api_request_body(r);
        const char *node = NULL;
        Node *n = NULL;

        ret->rate = true;
        int k = request_body_check_members(body, members, err);
        if (k >= 0)
                k = tb_json_get_string(body, "node", &node, err);
        if (k >= 0)
                k = tb_json_get_string(body, "network", &ret->network, err);
        if (k >= 0)
                k = tb_json_get_bool(body, "rate", &ret->rate, err);
        if (api_blame_caller(k, err) < 0)
                return k;
        if (!node && !api_request_caller(r)->is_operator)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "all links are measured for root and operators only; name one of your nodes");
        if (!node)
                return 0;
        k = access_lookup(api_request_manager(r), api_request_caller(r), node, &n, err);
        if (k < 0)
                return k;
        ret->node = n;
        for (size_t i = 0; ret->network && n->has_status && i < n->status.n_interfaces; i++)
                if (tb_streq(n->status.interfaces[i].ifname, ret->network))
                        ret->network = n->status.interfaces[i].network;
        return 0;
}

void op_links_check(ApiRequest *r)
{
        LinkCheckOptions options = {.link = on_link, .done = on_done};
        _cleanup_error_ TbError *err = NULL;
        LinkOp *o = calloc(1, sizeof(*o));

        if (!o) {
                api_reply(r, 507, NULL);
                return;
        }
        o->request = r;
        options.userdata = o;
        if (parse(r, &options, &err) < 0 ||
                link_check_start(api_request_manager(r), &options, &o->check, &err) < 0) {
                api_reply_error(r, err);
                free(o);
                return;
        }
        api_stream_start(r);
        api_request_on_gone(r, on_gone, o);
}
