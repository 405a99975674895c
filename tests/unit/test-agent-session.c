/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The last user of a session often lets go of it from inside a callback of its client. */

#include "tests/unit/test.h"

#include <string.h>

#include "agent/registry-session.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "tests/unit/registry-server.h"

typedef struct Fixture {
        Manager manager;
        RegistrySession *session;
        RegistryOp *op;
        unsigned done;
} Fixture;

static void serve(Exchange *e)
{
        exchange_text(e, 200, "", "{}");
}

static void on_pinged(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        Fixture *f = userdata;
        RegistryClient *client = registry_session_client(f->session);

        assert_int_equal(result, 0);
        f->op = registry_op_free(op);
        f->session = registry_session_unref(f->session);
        /* Nobody has it any more; it stands until its client is out of the callback. */
        assert_non_null(f->manager.sessions);
        assert_ptr_equal(registry_client_event(client), f->manager.event);
        f->done++;
}

static void ping(Fixture *f, RegistrySession **current, const char *host, const char *auth)
{
        _cleanup_free_ char *registry = tb_asprintf("http://%s", host);
        const AugmentRequest request = {
                .registry = registry, .image = (char *) "127.0.0.1:1/a:1", .auth = (char *) auth};
        _cleanup_error_ TbError *err = NULL;
        unsigned done = f->done;

        assert_ok(registry_session_get(&f->manager, current, &request, &f->session, &err), err);
        assert_ok(registry_ping_start(registry_session_client(f->session), host, on_pinged, f, &f->op, &err),
                err);
        if (*current)
                *current = registry_session_unref(*current); /* the job's reference is the last one */
        while (f->done == done || f->manager.sessions)
                assert_true(sd_event_run(f->manager.event, UINT64_C(20000000)) > 0);
        assert_null(f->manager.sessions_source);
}

static void test_freed_from_the_loop(void **state)
{
        Server *server = server_new(serve, NULL);
        RegistrySession *shared = NULL;
        Fixture f = {};

        assert_true(sd_event_new(&f.manager.event) >= 0);
        /* The caller's own credentials: a client for this request alone. Without: the one of all. */
        ping(&f, &shared, server_host(server), "{\"auths\":{\"127.0.0.1:1\":{\"auth\":\"YTpi\"}}}");
        ping(&f, &shared, server_host(server), NULL);
        assert_int_equal(f.done, 2);
        sd_event_unref(f.manager.event);
        server_free(server);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_freed_from_the_loop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
