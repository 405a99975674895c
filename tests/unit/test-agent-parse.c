/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the agent reads from others: labels, the engine's descriptions, paths, requests. */

#include "tests/unit/test.h"

#include <string.h>
#include <unistd.h>

#include "agent/api.h"
#include "agent/facts.h"
#include "agent/labels.h"
#include "agent/main-status.h"
#include "agent/run-limits.h"
#include "agent/run-spec.h"
#include "agent/run-turn.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/json.h"
#include "common/strv.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* One byte too long. */
#define LONG_NAME "0123456789012345678901234567890123456789012345678901234567890123"

static json_t *parse(const char *text)
{
        json_t *j = NULL;
        TbError *err = NULL;

        assert_ok(tb_json_parse(text, strlen(text), 1 << 20, "test", &j, &err), err);
        return j;
}

/* ---- Labels ---- */

static void test_labels(void **state)
{
        _cleanup_json_ json_t *j =
                parse("{\"tbnode.shape\":\"rate 1mbit\",\"tbnode.shape.lan.1\":\"rate 2mbit\","
                      "\"tbnode.firewall\":\"closed\",\"tbnode.node\":\"a-b_c.d\","
                      "\"tbnode.experiment\":\"E1\",\"tbnode.on-exit\":\"restart\",\"other\":\"x\","
                      "\"tbnode.ssh-keys\":\"ssh-ed25519 A a\\nssh-ed25519 B b\"}");
        _cleanup_node_labels_ NodeLabels l = {};
        TbError *err = NULL;

        assert_true(node_labels_is_managed(j));
        assert_ok(node_labels_parse(j, &l, &err), err);
        assert_string_equal(l.node, "a-b_c.d");
        assert_string_equal(l.experiment, "E1");
        assert_string_equal(l.firewall, "closed");
        assert_string_equal(l.ssh_keys, "ssh-ed25519 A a\nssh-ed25519 B b");
        assert_int_equal(l.on_exit, NODE_ON_EXIT_RESTART);
        assert_string_equal(node_labels_shape(&l, "lan.1"), "rate 2mbit");
        assert_string_equal(node_labels_shape(&l, "other"), "rate 1mbit");
}

static void test_labels_not_ours(void **state)
{
        _cleanup_json_ json_t *j = parse("{\"org.tbnode.level\":\"basic\",\"tbnodex\":\"1\",\"a\":5}");
        _cleanup_node_labels_ NodeLabels l = {};

        assert_false(node_labels_is_managed(j));
        assert_false(node_labels_is_managed(NULL));
        assert_int_equal(node_labels_parse(NULL, &l, NULL), 0);
        assert_null(node_labels_shape(&l, "x"));
}

/* docker-compose's labels fill in what ours do not say. */
static void test_labels_compose(void **state)
{
        static const struct {
                const char *ours, *project, *service, *number, *oneoff;
                const char *experiment, *node;
                bool implied;
        } cases[] = {
                {"\"tbnode.shape\":\"rate 1mbit\"", "bt", "peer", "7", "False", "bt", "peer-7", true},
                {"\"tbnode.shape\":\"rate 1mbit\"", "bt", "peer", "1", "False", "bt", "peer-1", true},
                {"\"tbnode.node\":\"p\"", "bt", "peer", "1", "False", "bt", "p", true},
                {"\"tbnode.node\":\"p\"", "bt", "peer", "2", "False", "bt", "p-2", true},
                {"\"tbnode.node\":\"p\"", "bt", "peer", "2", "True", "bt", NULL, true},
                {"\"tbnode.experiment\":\"E\"", "bt", "peer", "2", "False", "E", "peer-2", false},
                {"\"tbnode.shape\":\"\"", "-x", "peer", "2", "False", NULL, "peer-2", false},
                {"\"tbnode.shape\":\"\"", "bt", "_peer", "2", "False", "bt", NULL, true},
                {"\"tbnode.shape\":\"\"", "bt", "peer", "0", "False", "bt", NULL, true},
                {"\"tbnode.shape\":\"\"", "bt", "peer", "x", "False", "bt", NULL, true},
                {"\"tbnode.shape\":\"\"", "bt", LONG_NAME, "2", "False", "bt", NULL, true},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = tb_asprintf(
                        "{%s,\"com.docker.compose.project\":\"%s\",\"com.docker.compose.service\":\"%s\","
                        "\"com.docker.compose.container-number\":\"%s\",\"com.docker.compose.oneoff\":\"%"
                        "s\"}",
                        cases[i].ours, cases[i].project, cases[i].service, cases[i].number, cases[i].oneoff);
                _cleanup_json_ json_t *j = parse(text);
                _cleanup_node_labels_ NodeLabels l = {};
                TbError *err = NULL;

                assert_ok(node_labels_parse(j, &l, &err), err);
                assert_true(tb_streq(l.experiment, cases[i].experiment));
                assert_true(tb_streq(l.node, cases[i].node));
                assert_int_equal(l.implied, cases[i].implied);
        }
        _cleanup_json_ json_t *j =
                parse("{\"tbnode.shape\":\"rate 1mbit\",\"tbnode.shape.lan\":\"rate 2mbit\","
                      "\"tbnode.shape.bt_x\":\"rate "
                      "3mbit\",\"com.docker.compose.container-number\":\"1\",\"com.docker.compose.project\":"
                      "\"bt\"}");
        _cleanup_json_ json_t *image =
                parse("{\"tbnode.shape\":\"rate "
                      "1mbit\",\"com.docker.compose.project\":\"bt\",\"com.docker.compose.service\":\"x\"}");
        _cleanup_node_labels_ NodeLabels of_image = {};
        assert_int_equal(node_labels_parse(image, &of_image, NULL), 0);
        assert_null(of_image.experiment);
        assert_null(of_image.node);
        _cleanup_node_labels_ NodeLabels l = {};
        assert_int_equal(node_labels_parse(j, &l, NULL), 0);
        assert_string_equal(node_labels_shape(&l, "bt_lan"), "rate 2mbit");
        assert_string_equal(node_labels_shape(&l, "lan"), "rate 2mbit");
        assert_string_equal(node_labels_shape(&l, "bt_x"), "rate 3mbit");
        assert_string_equal(node_labels_shape(&l, "btlan"), "rate 1mbit");
        assert_string_equal(node_labels_shape(&l, "other_lan"), "rate 1mbit");
}

static void test_labels_bad(void **state)
{
        static const char *const bad[] = {
                "{\"tbnode.shap\":\"x\"}",
                "{\"tbnode.\":\"x\"}",
                "{\"tbnode.shape.\":\"rate 1mbit\"}",
                "{\"tbnode.node\":\"\"}",
                "{\"tbnode.node\":\"-a\"}",
                "{\"tbnode.node\":\"a/b\"}",
                "{\"tbnode.node\":\"a\\nb\"}",
                "{\"tbnode.experiment\":\"" LONG_NAME "\"}",
                "{\"tbnode.on-exit\":\"Stay\"}",
                "{\"tbnode.shape\":5}",
                "{\"tbnode.shape\":null}",
                "{\"tbnode.ssh-keys\":\" \\n\"}",
                "{\"tbnode.ssh-keys\":\"ssh-ed25519 A\\u0007\"}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_json_ json_t *j = parse(bad[i]);
                NodeLabels l = {};
                TbError *err = NULL;

                assert_true(node_labels_is_managed(j));
                assert_error(node_labels_parse(j, &l, &err), -EINVAL, err);
        }
}

/* ---- Facts ---- */

#define INSPECT(state, networks)                                                                      \
        "{\"Id\":\"" ID "\",\"Name\":\"/web\",\"State\":{" state "},\"Config\":{\"Image\":\"nginx\"," \
        "\"Labels\":{\"tbnode.shape\":\"rate 1mbit\"}},\"HostConfig\":{\"NetworkMode\":\"lan0\"},"    \
        "\"NetworkSettings\":{\"Networks\":{" networks "}}}"

static void test_facts(void **state)
{
        _cleanup_json_ json_t *j = parse(INSPECT("\"Running\":true,\"Pid\":42",
                "\"lan0\":{\"MacAddress\":\"02:42:0a:C9:00:02\",\"IPAddress\":\"10.1.0.2\",\"IPPrefixLen\":"
                "24,"
                "\"Gateway\":\"10.1.0.1\",\"NetworkID\":\"n\"},\"idle\":{\"MacAddress\":\"\",\"IPAddress\":"
                "\"\"}"));
        _cleanup_container_facts_ ContainerFacts f = {};
        TbError *err = NULL;
        const Endpoint *e;

        assert_ok(container_facts_parse(j, &f, &err), err);
        assert_string_equal(f.name, "web");
        assert_string_equal(f.network_mode, "lan0");
        assert_true(f.running);
        assert_int_equal(f.pid, 42);
        assert_int_equal(f.n_endpoints, 2);
        e = container_facts_endpoint(&f, "lan0");
        assert_non_null(e);
        assert_true(e->has_mac);
        assert_int_equal(e->mac.ether_addr_octet[3], 0xc9);
        assert_int_equal(ntohl(e->address.s_addr), 0x0a010002);
        assert_int_equal(ntohl(e->gateway.s_addr), 0x0a010001);
        assert_false(container_facts_endpoint(&f, "idle")->has_mac);
}

static void test_facts_bad(void **state)
{
        static const char *const bad[] = {
                "{}",
                "[]",
                "{\"Id\":\"abc\"}",
                INSPECT("\"Running\":\"yes\"", ""),
                INSPECT("\"Running\":true,\"Pid\":99999999999", ""),
                INSPECT("\"Running\":true,\"Pid\":-1", ""),
                INSPECT("\"Running\":true,\"Pid\":1", "\"a\":{\"MacAddress\":\"02:42\"}"),
                INSPECT("\"Running\":true,\"Pid\":1", "\"a\":{\"MacAddress\":\"02:42:0a:c9:00:0g\"}"),
                INSPECT("\"Running\":true,\"Pid\":1", "\"a\":{\"IPAddress\":\"10.0.0.999\"}"),
                INSPECT("\"Running\":true,\"Pid\":1", "\"a\":{\"IPPrefixLen\":33}"),
                INSPECT("\"Running\":true,\"Pid\":1", "\"a\":5"),
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_json_ json_t *j = parse(bad[i]);
                ContainerFacts f = {};
                TbError *err = NULL;

                assert_error(container_facts_parse(j, &f, &err), -EPROTO, err);
        }
}

static void test_identity(void **state)
{
        ProcessIdentity a, b;
        TbError *err = NULL;

        assert_ok(process_identity_read(getpid(), &a, &err), err);
        assert_ok(process_identity_read(getpid(), &b, &err), err);
        assert_true(process_identity_equal(&a, &b));
        assert_true(a.start_time > 0);
        b.start_time++;
        assert_false(process_identity_equal(&a, &b));
        assert_error(process_identity_read(0x7ffffff0, &b, &err), -ESRCH, err);
}

/* ---- Engine ---- */

static void test_engine_version(void **state)
{
        static const struct {
                const char *text;
                int r;
                unsigned minor;
        } cases[] = {
                {"{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}", 0, 41},
                {"{\"ApiVersion\":\"1.47\",\"MinAPIVersion\":\"1.24\"}", 0, 47},
                {"{\"ApiVersion\":\"1.52\",\"MinAPIVersion\":\"1.44\"}", 0, 47},
                {"{\"ApiVersion\":\"1.43\"}", 0, 43},
                {"{\"ApiVersion\":\"1.40\"}", -EPROTONOSUPPORT, 0},
                {"{\"ApiVersion\":\"1.60\",\"MinAPIVersion\":\"1.48\"}", -EPROTONOSUPPORT, 0},
                {"{\"ApiVersion\":\"2.0\"}", -EPROTO, 0},
                {"{\"ApiVersion\":\"1.4x\"}", -EPROTO, 0},
                {"{}", -EPROTO, 0},
                {"{\"ApiVersion\":7}", -EINVAL, 0},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_t *j = parse(cases[i].text);
                TbError *err = NULL;
                unsigned minor = 0;
                int r = tb_engine_choose_version(j, &minor, &err);

                assert_int_equal(r, cases[i].r);
                assert_int_equal(minor, cases[i].minor);
                tb_error_free(err);
        }
}

static void test_engine_endpoint(void **state)
{
        _cleanup_free_ char *path = NULL;
        TbError *err = NULL;
        char *escaped;

        assert_ok(tb_engine_parse_endpoint("unix:///run/docker.sock", &path, &err), err);
        assert_string_equal(path, "/run/docker.sock");
        assert_error(tb_engine_parse_endpoint("tcp://1.2.3.4:2375", &path, &err), -EOPNOTSUPP, err);
        assert_error(tb_engine_parse_endpoint("unix://relative", &path, &err), -EINVAL, err);
        assert_error(tb_engine_parse_endpoint("/run/docker.sock", &path, &err), -EINVAL, err);
        escaped = tb_engine_escape("a/b c%\xc3\xa4");
        assert_string_equal(escaped, "a%2Fb%20c%25%C3%A4");
        free(escaped);
}

/* ---- API ---- */

static void test_api_paths(void **state)
{
        static const struct {
                const char *method, *path;
                int r;
                const char *pattern, *argument;
        } cases[] = {
                {"GET", "/v1/nodes", 0, "/v1/nodes", NULL},
                {"GET", "/v1/nodes/web", 0, "/v1/nodes/{}", "web"},
                {"GET", "/v1/nodes/a%2Fb", 0, "/v1/nodes/{}", "a/b"},
                {"PUT", "/v1/nodes/x/shape/lan0", 0, "/v1/nodes/{}/shape/{}", "x"},
                {"PUT", "/v1/nodes", -ENOTSUP, NULL, NULL},
                {"GET", "/v1/nodes/", -ENOENT, NULL, NULL},
                {"GET", "/v1", 0, "/v1", NULL},
                {"GET", "/", -ENOENT, NULL, NULL},
                {"GET", "/", -ENOENT, NULL, NULL},
                {"GET", "/v1/nodes/x/y", -ENOENT, NULL, NULL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_ char **segments = NULL;
                const ApiOperation *o = NULL;
                size_t args[API_SEGMENTS_MAX] = {};
                TbError *err = NULL;

                assert_ok(api_split_path(cases[i].path, &segments, &err), err);
                assert_int_equal(api_match(cases[i].method, segments, tb_strv_length(segments), &o, args),
                        cases[i].r);
                if (cases[i].pattern)
                        assert_string_equal(o->path, cases[i].pattern);
                if (cases[i].argument)
                        assert_string_equal(segments[args[0]], cases[i].argument);
        }
}

static void test_api_bad_paths(void **state)
{
        static const char *const bad[] = {"", "x", "/%", "/%1", "/%zz", "/a%00b", "/1/2/3/4/5/6/7/8/9"};

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char **segments = NULL;
                TbError *err = NULL;

                assert_error(api_split_path(bad[i], &segments, &err), -EINVAL, err);
        }
}

/* ---- Run ---- */

static void test_run_spec(void **state)
{
        _cleanup_json_ json_t *j =
                parse("{\"image\":\"nginx:1\",\"experiment\":\"e\",\"networks\":[\"lan0\"],"
                      "\"shape\":\"rate 1mbit\",\"ssh_keys\":[\"ssh-ed25519 AAAA me\"]}");
        _cleanup_json_ json_t *inspect =
                parse("{\"Config\":{\"Entrypoint\":[\"/tbnode/init\",\"--user\",\"app\","
                      "\"--level\",\"basic\",\"--\",\"/start\"],\"Cmd\":[\"x\"]}}");
        _cleanup_config_ Config config = {};
        _cleanup_run_spec_ RunSpec s = {};
        _cleanup_json_ json_t *body = NULL;
        _cleanup_free_ char *conf = NULL, *keys = NULL, *text = NULL;
        TbError *err = NULL;

        assert_ok(config_init(&config, &err), err);
        assert_ok(run_spec_parse(j, &config, &s, &err), err);
        assert_memory_equal(s.node, "nginx-", 6);
        assert_memory_equal(s.container, "e.nginx-", 8);
        assert_ok(run_spec_node_conf(&s, inspect, &conf, &err), err);
        keys = run_spec_authorized_keys(&s);
        assert_non_null(strstr(conf, "on-exit=stay\n"));
        assert_non_null(strstr(conf, "experiment=e\n"));
        assert_string_equal(keys, "ssh-ed25519 AAAA me\n");

        /* A caller's entrypoint takes the place of the image's, behind init. */
        s.entrypoint = strdup("/bin/sh");
        assert_ok(run_spec_container(&s, "r@d", inspect, "ctl", "/dir", NULL, &body, &err), err);
        assert_ok(tb_json_dump(json_object_get(body, "Entrypoint"), false, &text, NULL, &err), err);
        assert_string_equal(
                text, "[\"/tbnode/init\",\"--user\",\"app\",\"--level\",\"basic\",\"--\",\"/bin/sh\"]");
        assert_null(json_object_get(body, "Cmd"));
}

/* A node starts as root; init and the health check are told who main is. */
static void test_run_user(void **state)
{
        static const struct {
                const char *user, *env, *config, *conf, *container_user, *test;
        } cases[] = {
                {NULL, NULL, "{}", "keep-home=no\n", NULL, NULL},
                {NULL, NULL, "{\"Healthcheck\":{\"Test\":[\"CMD\",\"x\"]},\"Env\":[\"HOME=/h\"]}",
                        "keep-home=yes\n", NULL, NULL},
                {NULL, NULL, "{\"User\":\"app\",\"Healthcheck\":{\"Test\":[\"CMD\",\"x\",\"y\"]}}",
                        "user=app\nkeep-home=no\n", "0",
                        "[\"CMD\",\"/tbnode/init\",\"as-user\",\"app\",\"--\",\"x\",\"y\"]"},
                {"1:2", "HOME=/y", "{\"User\":\"app\",\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"a b\"]}}",
                        "user=1:2\nkeep-home=yes\n", "0",
                        "[\"CMD\",\"/tbnode/init\",\"as-user\",\"1:2\",\"--keep-home\",\"--\",\"/bin/"
                        "sh\",\"-c\",\"a "
                        "b\"]"},
                {NULL, "HOME=",
                        "{\"User\":\"7\",\"Env\":[\"HOME=/h\"],\"Shell\":[\"/bin/bash\",\"-e\",\"-c\"],"
                        "\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"a\"]}}",
                        "user=7\nkeep-home=no\n", "0",
                        "[\"CMD\",\"/tbnode/init\",\"as-user\",\"7\",\"--\",\"/bin/"
                        "bash\",\"-e\",\"-c\",\"a\"]"},
                {NULL, "HOME",
                        "{\"User\":\"7\",\"Env\":[\"HOME=/h\"],\"Healthcheck\":{\"Test\":[\"NONE\"]}}",
                        "user=7\nkeep-home=no\n", "0", NULL},
                {"root", "HOMER=1", "{\"User\":\"app\"}", "user=root\nkeep-home=no\n", "0", NULL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_t *config = parse(cases[i].config), *inspect = NULL,
                                      *body = json_object();
                _cleanup_run_spec_ RunSpec s = {.node = strdup("n")};
                _cleanup_free_ char *conf = NULL, *test = NULL;
                TbError *err = NULL;

                inspect = json_pack("{s:O}", "Config", config);
                assert_true(inspect && body && s.node);
                if (cases[i].user)
                        s.user = strdup(cases[i].user);
                if (cases[i].env)
                        assert_ok(tb_strv_append(&s.env, cases[i].env, &err), err);
                assert_ok(run_spec_node_conf(&s, inspect, &conf, &err), err);
                assert_memory_equal(conf, "on-exit=stay\nnode=n\n", 20);
                assert_string_equal(conf + 20, cases[i].conf);
                assert_ok(run_spec_add_user(&s, inspect, body, &err), err);
                if (cases[i].container_user)
                        assert_string_equal(
                                json_string_value(json_object_get(body, "User")), cases[i].container_user);
                else
                        assert_null(json_object_get(body, "User"));
                if (cases[i].test) {
                        assert_ok(tb_json_dump(json_object_get(json_object_get(body, "Healthcheck"), "Test"),
                                          false, &test, NULL, &err),
                                err);
                        assert_string_equal(test, cases[i].test);
                } else {
                        assert_null(json_object_get(body, "Healthcheck"));
                }
        }
}

static void test_run_user_bad(void **state)
{
        _cleanup_json_ json_t *line = parse("{\"Config\":{\"User\":\"a\\non-exit=stop\"}}"),
                              *none = parse("{}");
        _cleanup_run_spec_ RunSpec s = {.node = strdup("n"), .user = NULL};
        _cleanup_free_ char *conf = NULL;
        TbError *err = NULL;

        assert_error(run_spec_node_conf(&s, line, &conf, &err), -EINVAL, err);
        s.user = calloc(1, 300);
        assert_non_null(s.user);
        memset(s.user, 'u', 299);
        assert_error(run_spec_node_conf(&s, none, &conf, &err), -ENAMETOOLONG, err);
}

static void test_run_spec_bad(void **state)
{
        static const char *const bad[] = {
                "{}",
                "{\"image\":\"\"}",
                "{\"image\":5}",
                "{\"image\":\"x\",\"nonsense\":1}",
                "{\"image\":\"x\",\"name\":\"../x\"}",
                "{\"image\":\"x\",\"experiment\":\"a/b\"}",
                "{\"image\":\"x\",\"shape\":\"rate 1mbit\"}",
                "{\"image\":\"x\",\"networks\":[\"a\",\"a\"]}",
                "{\"image\":\"x\",\"networks\":[\"tbnode-control\"]}",
                "{\"image\":\"x\",\"networks\":[\"a\"],\"shape\":\"rate\"}",
                "{\"image\":\"x\",\"networks\":\"a\"}",
                "{\"image\":\"x\",\"ssh_keys\":[\"a\\nb\"]}",
                "{\"image\":\"x\",\"volumes\":[\"/x\"]}",
                "{\"image\":\"x\",\"volumes\":[\"/x:/tbnode/bin\"]}",
                "{\"image\":\"x\",\"on_exit\":\"never\"}",
                "{\"image\":\"x\",\"firewall\":\"\"}",
                "{\"image\":\"x\",\"level\":\"most\"}",
        };
        _cleanup_config_ Config config = {};
        TbError *err = NULL;

        assert_ok(config_init(&config, &err), err);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_json_ json_t *j = parse(bad[i]);
                _cleanup_run_spec_ RunSpec s = {};

                assert_true(run_spec_parse(j, &config, &s, &err) < 0);
                assert_non_null(err);
                err = tb_error_free(err);
        }
}

static void test_main_status(void **state)
{
        assert_true(main_status_is_valid("exited 0"));
        assert_true(main_status_is_valid("signaled 9"));
        assert_false(main_status_is_valid("exited"));
        assert_false(main_status_is_valid("exited 256"));
        assert_false(main_status_is_valid("exited -1"));
        assert_false(main_status_is_valid("exited 1; rm"));
}

static void test_run_turn(void **state)
{
        const uid_t one[] = {1, 1, 1}, mixed[] = {1, 1, 2, 3}, both[] = {1, 2};

        assert_int_equal(run_turn_choose(NULL, 0, mixed, 4), 0); /* nobody has anything: the oldest */
        assert_int_equal(run_turn_choose(one, 3, mixed, 4), 2);  /* not the one who has three */
        assert_int_equal(run_turn_choose(both, 2, mixed, 4), 3); /* the one who has none */
        assert_int_equal(run_turn_choose(both, 2, mixed, 3), 0); /* as many: the oldest */
        assert_int_equal(run_turn_choose(one, 3, one, 3), 0);
}

static void test_run_cpus(void **state)
{
        static const char *const bad[] = {
                "", "0", "0.0", ".5", "1.", "-1", "1e3", "1.0000000001", "4097", "1.5x", "1,5", "0x1", " 1"};
        TbError *err = NULL;
        uint64_t v;

        assert_ok(run_limits_parse_cpus("2", &v, &err), err);
        assert_int_equal(v, UINT64_C(2000000000));
        assert_ok(run_limits_parse_cpus("0.5", &v, &err), err);
        assert_int_equal(v, 500000000);
        assert_ok(run_limits_parse_cpus("0.000000001", &v, &err), err);
        assert_int_equal(v, 1);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(run_limits_parse_cpus(bad[i], &v, NULL), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_run_turn),
                cmocka_unit_test(test_run_cpus),
                cmocka_unit_test(test_labels),
                cmocka_unit_test(test_labels_not_ours),
                cmocka_unit_test(test_labels_compose),
                cmocka_unit_test(test_labels_bad),
                cmocka_unit_test(test_facts),
                cmocka_unit_test(test_facts_bad),
                cmocka_unit_test(test_identity),
                cmocka_unit_test(test_engine_version),
                cmocka_unit_test(test_engine_endpoint),
                cmocka_unit_test(test_api_paths),
                cmocka_unit_test(test_api_bad_paths),
                cmocka_unit_test(test_run_spec),
                cmocka_unit_test(test_run_user),
                cmocka_unit_test(test_run_user_bad),
                cmocka_unit_test(test_run_spec_bad),
                cmocka_unit_test(test_main_status),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
