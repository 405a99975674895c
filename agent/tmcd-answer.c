/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/tmcd-answer.h"

#include <string.h>
#include <sys/utsname.h>

#include "agent/experiment.h"
#include "agent/node-client.h"
#include "agent/tmcd.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/units.h"

static int take_state(Node *n, const TmcdRequest *request, TbError **err)
{
        char state[64];

        if (!tmcd_request_argument(request, state, sizeof(state)))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a state is missing");
        return node_client_report_emulab_state(n, state, err);
}

/* What a shell's $? cannot be is cut to what it can: some send wait(2)'s 16 bits. */
static int take_startstatus(Node *n, const TmcdRequest *request, TbError **err)
{
        _cleanup_json_ json_t *report = NULL;
        char argument[16];
        uint32_t status;

        if (!tmcd_request_argument(request, argument, sizeof(argument)))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "an exit status is missing");
        if (tb_parse_u32(argument, 0, 65535, &status, err) < 0)
                return -EINVAL;
        report = json_pack("{s:s, s:i}", "state", "exited", "status", (int) MIN2(status, 255U));
        return report ? node_client_report_startup(n, report, err) : tb_error_oom(err);
}

static int print(const Node *n, const TmcdRequest *request, bool root, TbBuffer *out, TbError **err)
{
        _cleanup_json_ json_t *view = NULL;
        struct utsname host = {};
        TmcdFacts facts;

        if (n->client && n->client->error)
                return tb_error_set(err, TB_ERROR_CONFIG, -EIO, "%s", tb_error_message(n->client->error));
        view = node_client_view(n, root);
        if (!view)
                return tb_error_oom(err);
        (void) uname(&host);
        facts = (TmcdFacts){
                .view = view,
                .ready = experiment_ready(n),
                .total = experiment_size(n),
                .sync_server = node_display_name(experiment_first(n)),
                .host = host.nodename[0] ? host.nodename : "localhost",
        };
        return request->command == TMCD_FULLCONFIG
                ? tmcd_print_full(request->version, &facts, out, err)
                : tmcd_print(request->command, request->version, &facts, out, err);
}

int tmcd_answer(Node *n, const char *data, size_t size, bool root, TbBuffer *out, TbError **err)
{
        TmcdRequest request;
        int r;

        r = tmcd_request_parse(data, size, &request, err);
        if (r < 0)
                return r;
        if (request.command == TMCD_READY) {
                node_client_report_ready(n);
                return 0;
        }
        if (request.command != TMCD_STATE && request.command != TMCD_STARTSTATUS)
                return print(n, &request, root, out, err);
        if (!root)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPERM, "only root of the node may say this");
        return request.command == TMCD_STATE ? take_state(n, &request, err)
                                             : take_startstatus(n, &request, err);
}
