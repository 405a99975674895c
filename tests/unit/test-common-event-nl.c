/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/event-nl.h"

static TbNlSource *source;
static unsigned links, errors;
static int last_error;
static bool free_in_callback;

static int on_link(struct nl_msg *msg, void *userdata)
{
        if (nlmsg_hdr(msg)->nlmsg_type == RTM_NEWLINK)
                links++;
        if (free_in_callback)
                source = tb_nl_source_free(source);
        return NL_OK;
}

static void on_error(int code, void *userdata)
{
        errors++;
        last_error = code;
}

static struct nl_sock *open_route(void)
{
        struct nl_sock *sock = nl_socket_alloc();

        assert_non_null(sock);
        assert_int_equal(nl_connect(sock, NETLINK_ROUTE), 0);
        nl_socket_disable_seq_check(sock);
        assert_int_equal(nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, on_link, NULL), 0);
        links = errors = 0;
        last_error = 0;
        free_in_callback = false;
        return sock;
}

static void request_links(struct nl_sock *sock)
{
        struct rtgenmsg gen = {.rtgen_family = AF_UNSPEC};

        assert_true(nl_send_simple(sock, RTM_GETLINK, NLM_F_DUMP, &gen, sizeof(gen)) >= 0);
}

static void test_receives(void **state)
{
        struct ifinfomsg nobody = {.ifi_family = AF_UNSPEC, .ifi_index = INT32_MAX};
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = open_route();
        sd_event *event = NULL;
        TbError *err = NULL;

        assert_true(sd_event_new(&event) >= 0);
        assert_ok(tb_nl_source_new(event, sock, "test", on_error, NULL, &source, &err), err);
        request_links(sock);
        while (links == 0)
                assert_true(sd_event_run(event, 5 * 1000 * 1000) > 0);
        assert_int_equal(errors, 0);
        assert_int_equal(sd_event_run(event, 0), 0); /* drained: nothing wakes us */

        /* The kernel's refusal arrives as an errno. */
        assert_true(nl_send_simple(sock, RTM_GETLINK, 0, &nobody, sizeof(nobody)) >= 0);
        while (errors == 0)
                assert_true(sd_event_run(event, 5 * 1000 * 1000) > 0);
        assert_int_equal(last_error, -ENODEV);

        source = tb_nl_source_free(source);
        assert_null(tb_nl_source_free(NULL));
        sd_event_unref(event);
}

static void test_free_in_callback(void **state)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = open_route();
        sd_event *event = NULL;
        TbError *err = NULL;

        assert_true(sd_event_new(&event) >= 0);
        assert_ok(tb_nl_source_new(event, sock, NULL, NULL, NULL, &source, &err), err);
        free_in_callback = true;
        request_links(sock);
        while (source)
                assert_true(sd_event_run(event, 5 * 1000 * 1000) > 0);
        assert_true(links > 0);
        sd_event_unref(event);
}

static void test_overrun(void **state)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = open_route();
        sd_event *event = NULL;
        TbError *err = NULL;
        int small = 1;

        /* So little room that answers are lost: the owner must hear of it. */
        assert_int_equal(
                setsockopt(nl_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
        assert_true(sd_event_new(&event) >= 0);
        assert_ok(tb_nl_source_new(event, sock, "test", on_error, NULL, &source, &err), err);
        for (unsigned i = 0; i < 64; i++) {
                struct rtgenmsg gen = {.rtgen_family = AF_UNSPEC};

                (void) nl_send_simple(sock, RTM_GETLINK + 1000, NLM_F_ACK, &gen, sizeof(gen));
        }
        for (unsigned i = 0; i < 200 && last_error != -ENOBUFS; i++)
                if (sd_event_run(event, 100 * 1000) == 0)
                        break;
        assert_int_equal(last_error, -ENOBUFS);
        source = tb_nl_source_free(source);
        sd_event_unref(event);
}

static void test_errno(void **state)
{
        assert_int_equal(tb_nl_errno(0), 0);
        assert_int_equal(tb_nl_errno(-NLE_EXIST), -EEXIST);
        assert_int_equal(tb_nl_errno(NLE_EXIST), -EEXIST);
        assert_int_equal(tb_nl_errno(-NLE_OBJ_NOTFOUND), -ENOENT);
        assert_int_equal(tb_nl_errno(-NLE_PERM), -EPERM);
        assert_int_equal(tb_nl_errno(-NLE_DUMP_INTR), -EINTR);
        assert_int_equal(tb_nl_errno(-9999), -EIO);
        for (int i = 1; i <= NLE_MAX; i++)
                assert_true(tb_nl_errno(-i) < 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_receives),
                cmocka_unit_test(test_free_in_callback),
                cmocka_unit_test(test_overrun),
                cmocka_unit_test(test_errno),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
