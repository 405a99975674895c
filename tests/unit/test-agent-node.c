/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What nodes and their agent say to each other, as far as it is pure: declarations, barriers, TMCD, rates. */

#include "tests/unit/test.h"

#include <string.h>

#include "agent/barrier.h"
#include "agent/declaration.h"
#include "agent/node-request.h"
#include "agent/tmcd.h"
#include "agent/token-bucket.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

static json_t *parse(const char *text)
{
        json_t *j = NULL;
        TbError *err = NULL;

        assert_ok(tb_json_parse(text, strlen(text), 1 << 20, "test", &j, &err), err);
        return j;
}

/* ---- Declarations ---- */

static const char whole[] =
        "{\"accounts\":{\"groups\":[{\"name\":\"proj\",\"gid\":6001},{\"name\":\"extra\",\"gid\":6002}],"
        "\"users\":[{\"name\":\"joe\",\"uid\":20001,\"gid\":6001,\"groups\":[\"extra\",\"wheel\"],\"root\":"
        "true,"
        "\"full_name\":\"Joe\",\"home\":\"/users/joe\",\"shell\":\"/bin/bash\",\"password_hash\":\"$6$a$b\","
        "\"keys\":[\"ssh-ed25519 AAAA joe\"]},{\"name\":\"mary\",\"uid\":20002,\"gid\":6001}]},"
        "\"hosts\":[{\"name\":\"server-lan0\",\"address\":\"10.1.1.3\",\"aliases\":[\"server\",\"s\"]},"
        "{\"name\":\"six\",\"address\":\"fd00::1\"}],"
        "\"routes\":[{\"to\":\"10.1.2.0/24\",\"via\":\"10.1.1.3\"},{\"to\":\"10.9.9.9/"
        "32\",\"via\":\"10.1.1.4\"}],"
        "\"mounts\":[{\"source\":\"/proj/p\",\"target\":\"/proj/p\",\"read_only\":true}],"
        "\"startup\":{\"command\":\"/bin/run.sh 'a b'\",\"user\":\"joe\"},"
        "\"programs\":[{\"name\":\"prog0\",\"command\":\"ls\",\"user\":\"joe\",\"directory\":\"/"
        "tmp\",\"timeout\":10,"
        "\"expected_exit_code\":0},{\"name\":\"p-1\",\"command\":\"true\"}],"
        "\"environment\":{\"NAME\":\"value\",\"EMPTY\":\"\"},\"creator\":\"joe\",\"swapper\":\"mary\","
        "\"project\":\"proj\"}";

static void test_declaration(void **state)
{
        _cleanup_json_ json_t *j = parse(whole), *d = NULL, *nothing = parse("{}"), *public = NULL;
        json_t *user;
        TbError *err = NULL;

        assert_ok(declaration_check(j, &d, &err), err);
        assert_true(json_equal(j, d));
        assert_ptr_not_equal(j, d);
        assert_true(declaration_needs_client(d));
        assert_true(declaration_same_mounts(d, j));
        assert_false(declaration_same_mounts(d, NULL));
        assert_true(declaration_same_mounts(nothing, NULL));
        assert_false(declaration_needs_client(nothing));
        public = declaration_public_accounts(json_object_get(d, "accounts"));
        user = json_array_get(json_object_get(public, "users"), 0);
        assert_null(json_object_get(user, "password_hash"));
        assert_null(json_object_get(user, "keys"));
        assert_non_null(json_object_get(user, "home"));
        assert_true(json_equal(j, d));
}

static void test_declaration_without_client(void **state)
{
        _cleanup_json_ json_t *j = parse("{\"routes\":[],\"mounts\":[]}");

        assert_false(declaration_needs_client(j));
}

static void test_bad_declarations(void **state)
{
        static const char *const table[][2] = {
                {"[]", "expected an object"},
                {"{\"x\":1}", "x: there is no such member"},
                {"{\"accounts\":[]}", "accounts: expected an object"},
                {"{\"accounts\":{\"groups\":{}}}", "accounts.groups: expected a list"},
                {"{\"accounts\":{\"groups\":[{\"name\":\"a\"}]}}", "accounts.groups[0]: 'gid' is missing"},
                {"{\"accounts\":{\"groups\":[{\"name\":\"a\",\"gid\":1},{\"name\":\"b\",\"gid\":1}]}}",
                        "accounts.groups[1]: there are two entries with this gid"},
                {"{\"accounts\":{\"groups\":[{\"name\":\"a\",\"gid\":4294967295}]}}",
                        "accounts.groups[0].gid"},
                {"{\"accounts\":{\"groups\":[{\"name\":\"-a\",\"gid\":1}]}}", "accounts.groups[0].name"},
                {"{\"accounts\":{\"groups\":[{\"name\":\"a\",\"gid\":1.5}]}}", "accounts.groups[0].gid"},
                {"{\"accounts\":{\"users\":[{\"name\":\"a\",\"uid\":1,\"gid\":1,\"shell\":\"a b\"}]}}",
                        ".shell"},
                {"{\"accounts\":{\"users\":[{\"name\":\"a\",\"uid\":1,\"gid\":1,\"full_name\":\"a:b\"}]}}",
                        "colons"},
                {"{\"accounts\":{\"users\":[{\"name\":\"a\",\"uid\":1,\"gid\":1,\"home\":\"/a:b\"}]}}",
                        "without colons"},
                {"{\"accounts\":{\"users\":[{\"name\":\"a\",\"uid\":1,\"gid\":1,\"home\":\"a\"}]}}",
                        "an absolute path"},
                {"{\"accounts\":{\"users\":[{\"name\":\"a\",\"uid\":1,\"gid\":1,\"keys\":[\"ssh-rsa "
                 "A\\nB\"]}]}}",
                        "keys[0]: control characters"},
                {"{\"hosts\":[{\"name\":\"a..b\",\"address\":\"10.0.0.1\"}]}", "'a..b' is not a host name"},
                {"{\"hosts\":[{\"name\":\"a\",\"address\":\"10.0.0.1\",\"aliases\":[\"-\"]}]}",
                        "aliases[0]"},
                {"{\"routes\":[{\"to\":\"10.0.0.0\",\"via\":\"10.0.0.1\"}]}", "routes[0].to"},
                {"{\"routes\":[{\"to\":\"10.0.0.0/33\",\"via\":\"10.0.0.1\"}]}", "routes[0].to"},
                {"{\"routes\":[{\"to\":\"10.0.0.0/8\",\"via\":\"fd00::1\"}]}", "routes[0].via"},
                {"{\"routes\":[{\"to\":\"10.0.0.0/8\",\"via\":\"10.0.0.1\"},{\"to\":\"10.0.0.0/"
                 "8\",\"via\":\"10.0.0.2\"}]}",
                        "two entries with this to"},
                {"{\"mounts\":[{\"source\":\"/a\",\"target\":\"//\"}]}", "the node's root"},
                {"{\"mounts\":[{\"source\":\"/a\",\"target\":\"/tbnode\"}]}", "testbed's own"},
                {"{\"mounts\":[{\"source\":\"/a/./b\",\"target\":\"/x\"}]}", "mounts[0].source"},
                {"{\"startup\":{}}", "'command' is missing"},
                {"{\"startup\":{\"command\":\"\"}}", "it is empty"},
                {"{\"programs\":[{\"name\":\"a b\",\"command\":\"x\"}]}", "programs[0].name"},
                {"{\"programs\":[{\"name\":\"a\",\"command\":\"x\",\"expected_exit_code\":256}]}",
                        "expected_exit_code"},
                {"{\"environment\":{\"A=B\":\"x\"}}", "environment.A=B"},
                {"{\"environment\":{\"A\":5}}", "environment.A: expected a string"},
                {"{\"creator\":null}", "creator: expected a string"},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_json_ json_t *j = parse(table[i][0]);
                json_t *d = NULL;
                TbError *err = NULL;

                assert_int_equal(declaration_check(j, &d, &err), -EINVAL);
                assert_int_equal(err->kind, TB_ERROR_CONFIG);
                if (!strstr(err->message, table[i][1]))
                        fail_msg("%s: %s", table[i][0], err->message);
                assert_null(d);
                tb_error_free(err);
        }
}

/* ---- Barriers ---- */

static void on_open(unsigned count, void *userdata)
{
        *(unsigned *) userdata += count;
}

static void test_barrier(void **state)
{
        unsigned told[4] = {}, count = 0;
        BarrierWait *w[4] = {};
        Barriers *b = NULL;
        TbError *err = NULL;

        assert_ok(barriers_new(&b, &err), err);
        assert_int_equal(barrier_enter(b, "e", "x", 3, 9, on_open, &told[0], &w[0], &count, &err), 0);
        assert_int_equal(barrier_enter(b, "e", "x", 0, 9, on_open, &told[1], &w[1], &count, &err), 0);
        /* another experiment's barrier of that name is another one */
        assert_int_equal(barrier_enter(b, "f", "x", 1, 9, on_open, &told[3], &w[3], &count, &err), 1);
        assert_int_equal(count, 1);
        assert_int_equal(barrier_enter(b, "e", "x", 2, 9, on_open, &told[2], &w[2], &count, &err), -EINVAL);
        err = tb_error_free(err);
        assert_int_equal(barrier_enter(b, "e", "x", 3, 9, on_open, &told[2], &w[2], &count, &err), 1);
        assert_int_equal(count, 3);
        assert_int_equal(told[0], 3);
        assert_int_equal(told[1], 3);
        assert_int_equal(told[2], 0);
        /* it starts anew, and who leaves does not count */
        assert_int_equal(barrier_enter(b, "e", "x", 2, 9, on_open, &told[0], &w[0], &count, &err), 0);
        w[0] = barrier_leave(w[0]);
        assert_int_equal(barrier_enter(b, "e", "x", 2, 9, on_open, &told[0], &w[0], &count, &err), 0);
        assert_int_equal(barrier_enter(b, "e", "x", 2, 9, on_open, &told[1], &w[1], &count, &err), 1);
        assert_int_equal(told[0], 5);
        /* all of the experiment, as large as it becomes */
        assert_int_equal(barrier_enter(b, "e", "all", 0, 3, on_open, &told[0], &w[0], &count, &err), 0);
        assert_int_equal(barrier_enter(b, "e", "all", 0, 3, on_open, &told[1], &w[1], &count, &err), 0);
        barrier_set_population(b, "f", 1);
        assert_int_equal(told[0], 5);
        barrier_set_population(b, "e", 2);
        assert_int_equal(told[0], 7);
        assert_int_equal(told[1], 5);
        /* what still waits at the end is freed */
        assert_int_equal(barrier_enter(b, "e", "end", 2, 3, on_open, &told[0], &w[0], &count, &err), 0);
        barriers_free(b);
        assert_int_equal(told[0], 7);
}

/* ---- TMCD ---- */

static void assert_command(const char *text, TmcdCommand command, unsigned version, const char *argument)
{
        char word[32] = "";
        TmcdRequest r;
        TbError *err = NULL;

        assert_ok(tmcd_request_parse(text, strlen(text), &r, &err), err);
        assert_int_equal(r.command, command);
        assert_int_equal(r.version, version);
        assert_int_equal(tmcd_request_argument(&r, word, sizeof(word)), argument != NULL);
        if (argument)
                assert_string_equal(word, argument);
}

static void test_tmcd_request(void **state)
{
        static const char *const bad[] = {"", "   ", "VERSION=", "VERSION=x status", "VERSION=-1 status",
                "nothing", "VERSION=99999999999 status", "stat", "VNODEID=x", "VERSION=40"};
        static char large[TMCD_PACKET_MAX + 1];

        assert_command("VERSION=40 status ", TMCD_STATUS, 40, NULL);
        assert_command("status", TMCD_STATUS, TMCD_VERSION_DEFAULT, NULL);
        assert_command(
                "VNODEID=pcvm5-1 PRIVKEY=ab IDKEY=1 USEUDP=1 VERSION=3 state ISUP ", TMCD_STATE, 3, "ISUP");
        assert_command("VERSION=40 startstatus 7 ", TMCD_STARTSTATUS, 40, "7");
        assert_command("VERSION=40 startstat 7 ", TMCD_STARTSTATUS, 40, "7");
        assert_command("VERSION=40 startupcmd ", TMCD_STARTUPCMD, 40, NULL);
        assert_command("VERSION=40 readycount ", TMCD_READYCOUNT, 40, NULL);
        assert_command("VERSION=40 ready ", TMCD_READY, 40, NULL);
        assert_command("VERSION=40 mountsXYZ a", TMCD_MOUNTS, 40, "XYZ");
        assert_command("\tVERSION=40\n\nkeyhash\r\n", TMCD_NOTHING, 40, NULL);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                TmcdRequest r;
                TbError *err = NULL;

                assert_error(tmcd_request_parse(bad[i], strlen(bad[i]), &r, &err), -EINVAL, err);
        }
        memset(large, ' ', sizeof(large));
        memcpy(large, "status", 6);
        assert_int_equal(tmcd_request_parse(large, sizeof(large), &(TmcdRequest){}, NULL), -EINVAL);
        assert_int_equal(tmcd_request_parse(large, sizeof(large) - 1, &(TmcdRequest){}, NULL), 0);
}

static void test_tmcd_framing(void **state)
{
        static const struct {
                const char *text;
                bool tcp, eof, whole;
        } table[] = {
                {"VERSION=40 status ", false, false, true},
                {"VERSION=40 status ", true, false, false},
                {"VERSION=40 status ", true, true, true},
                {"VERSION=22 status ", true, false, false},
                {"VERSION=21 status ", true, false, true},
                {"status ", true, false, true},
                {"VERSION=2 ", true, false, false},
                {"VERSION=junk ", true, false, true},
                {"ISPEAKSSL_TMCDV10", true, false, true},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                assert_int_equal(tmcd_request_is_whole(
                                         table[i].text, strlen(table[i].text), table[i].tcp, table[i].eof),
                        table[i].whole);
        assert_true(tmcd_request_wants_ssl("ISPEAKSSL_TMCDV10\x16", 18));
        assert_false(tmcd_request_wants_ssl("ISPEAKSSL", 9));
}

static json_t *make_view(void)
{
        json_t *view = parse(whole);

        assert_int_equal(
                json_object_update_new(view,
                        parse("{\"node\":\"node0\",\"experiment\":\"exp\",\"interfaces\":[{\"network\":"
                              "\"lan0\","
                              "\"mac\":\"02:aa:bb:cc:dd:ee\",\"address\":\"10.1.1.2\",\"prefix\":24}]}")),
                0);
        return view;
}

static void test_tmcd_answers(void **state)
{
        static const struct {
                TmcdCommand command;
                unsigned version;
                const char *answer;
        } table[] = {
                {TMCD_NODEID, 40, "node0\n"},
                {TMCD_STATUS, 40, "ALLOCATED=proj/exp NICKNAME=node0\n"},
                {TMCD_IFCONFIG, 40,
                        "INTERFACE IFACETYPE=any INET=10.1.1.2 MASK=255.255.255.0 MAC=02aabbccddee "
                        "SPEED=10000Mbps "
                        "DUPLEX=full IFACE= RTABID= LAN=lan0\n"},
                {TMCD_ACCOUNTS, 40,
                        "ADDGROUP NAME=proj GID=6001\nADDGROUP NAME=extra GID=6002\n"
                        "ADDUSER LOGIN=joe PSWD=$6$a$b UID=20001 GID=6001 ROOT=1 NAME=\"Joe\" "
                        "HOMEDIR=/users/joe "
                        "GLIST=\"6002\" SERIAL=1 EMAIL=\"\" SHELL=bash\n"
                        "PUBKEY LOGIN=joe KEY=\"ssh-ed25519 AAAA joe\"\n"
                        "ADDUSER LOGIN=mary PSWD=* UID=20002 GID=6001 ROOT=0 NAME=\"mary\" "
                        "HOMEDIR=/home/mary "
                        "GLIST=\"\" SERIAL=1 EMAIL=\"\" SHELL=sh\n"},
                {TMCD_HOSTNAMES, 40,
                        "NAME=server-lan0 IP=10.1.1.3 ALIASES='server s'\nNAME=six IP=fd00::1 ALIASES=''\n"},
                {TMCD_ROUTING, 40,
                        "ROUTERTYPE=static\nROUTE DEST=10.1.2.0 DESTTYPE=net DESTMASK=255.255.255.0 "
                        "NEXTHOP=10.1.1.3 COST=1 SRC=10.1.1.2\nROUTE DEST=10.9.9.9 DESTTYPE=host "
                        "DESTMASK=255.255.255.255 NEXTHOP=10.1.1.4 COST=1 SRC=10.1.1.2\n"},
                {TMCD_MOUNTS, 40, "FSTYPE=LOCAL\nREMOTE=host.x.net:/proj/p LOCAL=/proj/p\n"},
                {TMCD_MOUNTS, 32, "FSTYPE=LOCAL\nREMOTE=host.x.net:/proj/p LOCAL=/proj/p\n"},
                {TMCD_MOUNTS, 31, "REMOTE=host.x.net:/proj/p LOCAL=/proj/p\n"},
                {TMCD_STARTUPCMD, 40, "CMD='/bin/run.sh 'a b'' UID=joe\n"},
                {TMCD_READYCOUNT, 40, "READY=3 TOTAL=5\n"},
                {TMCD_SYNCSERVER, 40, "SYNCSERVER SERVER='node1' ISSERVER=0\n"},
                {TMCD_CREATOR, 40, "CREATOR=joe SWAPPER=mary\n"},
                {TMCD_PROGRAMS, 40,
                        "UID=mary\nAGENT=prog0 DIR=/tmp TIMEOUT=10 EXPECTED_EXIT_CODE=0 COMMAND='ls'\n"
                        "AGENT=p-1 COMMAND='true'\n"},
                {TMCD_USERENV, 40, "NAME=value\nEMPTY=\n"},
                {TMCD_UPDATE, 40, "UPDATE=0\n"},
                {TMCD_FIREWALLINFO, 40, "TYPE=none\n"},
                {TMCD_NOTHING, 40, ""},
                {TMCD_READY, 40, ""},
        };
        _cleanup_json_ json_t *view = make_view();
        const TmcdFacts f = {
                .view = view, .ready = 3, .total = 5, .sync_server = "node1", .host = "host.x.net"};

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_buffer_ TbBuffer out = TB_BUFFER_INIT(65536);
                TbError *err = NULL;

                assert_ok(tmcd_print(table[i].command, table[i].version, &f, &out, &err), err);
                assert_string_equal(out.data ?: "", table[i].answer);
        }
}

static void test_tmcd_empty_node(void **state)
{
        _cleanup_json_ json_t *view =
                parse("{\"node\":\"n\",\"experiment\":null,\"interfaces\":[],\"hosts\":[]}");
        const TmcdFacts f = {.view = view, .total = 1, .sync_server = "n", .host = "h"};
        _cleanup_buffer_ TbBuffer out = TB_BUFFER_INIT(65536), small = TB_BUFFER_INIT(16);
        TbError *err = NULL;

        assert_ok(tmcd_print_full(40, &f, &out, &err), err);
        assert_non_null(strstr(out.data, "*** routing\nROUTERTYPE=none\n*** routing\n"));
        assert_non_null(strstr(out.data, "*** startupcmd\n*** startupcmd\n"));
        assert_non_null(strstr(out.data, "*** creator\n*** creator\n"));
        assert_null(strstr(out.data, "*** hostnames"));
        assert_error(tmcd_print_full(40, &f, &small, &err), -EMSGSIZE, err);
}

/* ---- Requests and rates ---- */

static void test_requests(void **state)
{
        static const char *const bad[] = {"", "{", "[]", "5", "{\"op\":5}", "{}",
                "{\"op\":\"a\",\"id\":\"x\"}", "{\"op\":\"a\",\"op\":\"b\"}", "{\"op\":\"a\"} x",
                "{\"op\":\"\\u0000\"}"};
        _cleanup_json_ json_t *j = NULL;
        const char *op = NULL;
        TbError *err = NULL;

        assert_ok(node_request_parse("{\"id\":1,\"op\":\"sync\"}", 20, &j, &op, &err), err);
        assert_string_equal(op, "sync");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                json_t *none = NULL;

                assert_true(node_request_parse(bad[i], strlen(bad[i]), &none, &op, &err) < 0);
                assert_null(none);
                err = tb_error_free(err);
        }
}

static void test_token_bucket(void **state)
{
        TokenBucket b = {};
        uint64_t now = 1000000;

        for (unsigned i = 0; i < 5; i++)
                assert_true(token_bucket_take(&b, 10, 5, now));
        assert_false(token_bucket_take(&b, 10, 5, now));
        assert_int_equal(token_bucket_wait(&b, 10, 5, now), 100000);
        assert_false(token_bucket_take(&b, 10, 5, now + 99999));
        assert_true(token_bucket_take(&b, 10, 5, now + 100000));
        assert_false(token_bucket_take(&b, 10, 5, now + 100000));
        /* a long pause fills it, no more than that */
        for (unsigned i = 0; i < 5; i++)
                assert_true(token_bucket_take(&b, 10, 5, now + 100000000));
        assert_false(token_bucket_take(&b, 10, 5, now + 100000000));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_declaration),
                cmocka_unit_test(test_declaration_without_client),
                cmocka_unit_test(test_bad_declarations),
                cmocka_unit_test(test_barrier),
                cmocka_unit_test(test_tmcd_request),
                cmocka_unit_test(test_tmcd_framing),
                cmocka_unit_test(test_tmcd_answers),
                cmocka_unit_test(test_tmcd_empty_node),
                cmocka_unit_test(test_requests),
                cmocka_unit_test(test_token_bucket),
        };

        return cmocka_run_group_tests_name("agent-node", tests, NULL, NULL);
}
