/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/gate-facts.h"
#include "agent/runtime-bundle.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void put(const char *dir, const char *name, const char *text)
{
        char path[512];

        (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

/* A bundle, and Docker's directory of the container beside it. */
typedef struct Files {
        char top[64], bundle[160], docker[224];
} Files;

static void files_make(Files *f)
{
        char text[1024];

        (void) snprintf(f->top, sizeof(f->top), "/tmp/test-gate-XXXXXX");
        assert_non_null(mkdtemp(f->top));
        (void) snprintf(f->bundle, sizeof(f->bundle), "%s/" ID, f->top);
        (void) snprintf(text, sizeof(text), "%s/containers", f->top);
        (void) snprintf(f->docker, sizeof(f->docker), "%s/containers/" ID, f->top);
        assert_int_equal(mkdir(f->bundle, 0700), 0);
        assert_int_equal(mkdir(text, 0700), 0);
        assert_int_equal(mkdir(f->docker, 0700), 0);
        (void) snprintf(text, sizeof(text),
                "{\"mounts\": [{\"destination\": \"/etc/hostname\", \"source\": \"/home/joe/hostname\"},"
                "{\"destination\": \"/etc/hosts\", \"source\": \"%s/hosts\"},"
                "{\"destination\": \"/tbnode/run\", \"source\": \"/var/lib/tbnode/nodes/aa\"}]}",
                f->docker);
        put(f->bundle, "config.json", text);
        put(f->bundle, "init.pid", "4711");
        put(f->docker, "hostconfig.json", "{\"NetworkMode\": \"lan0\"}");
}

static int describe(const Files *f, const char *labels, json_t **ret)
{
        char text[1024];
        TbError *err = NULL;

        (void) snprintf(text, sizeof(text),
                "{\"Name\": \"/aa\", \"Config\": {\"Image\": \"i\", \"Labels\": %s},"
                "\"NetworkSettings\": {\"Networks\": {\"lan0\": {\"NetworkID\": \"c7c9b63d128f\"}}}}",
                labels);
        put(f->docker, "config.v2.json", text);
        int r = runtime_describe(f->bundle, ID, ret, &err);
        assert_ok(r, err);
        return r;
}

static void test_describe(void **state)
{
        _cleanup_json_ json_t *j = NULL;
        TbError *err = NULL;
        GateRequest q;
        Files f;

        files_make(&f);
        assert_int_equal(describe(&f, "null", &j), 0);
        assert_int_equal(describe(&f, "{\"maintainer\": \"x\", \"tbnode\": \"x\"}", &j), 0);
        assert_int_equal(describe(&f, "{\"a\": \"b\", \"tbnode.shape\": \"rate 1mbit\"}", &j), 1);
        assert_ok(gate_request_parse(j, &q, &err), err);
        assert_string_equal(q.id, ID);
        assert_int_equal(q.pid, 4711);
        assert_string_equal(q.name, "aa");
        assert_string_equal(q.network_mode, "lan0");
        assert_string_equal(q.node_dir, "/var/lib/tbnode/nodes/aa");
        assert_string_equal(json_string_value(json_object_get(q.networks, "lan0")), "c7c9b63d128f");

        /* No container of Docker's: not ours. A labelled one without a process: an error, not a start. */
        json_t *none = NULL;
        assert_int_equal(runtime_describe("/nowhere", ID, &none, &err), 0);
        put(f.bundle, "init.pid", "x");
        assert_true(runtime_describe(f.bundle, ID, &none, &err) < 0);
        assert_non_null(strstr(err->message, "process"));
        tb_error_free(err);
        assert_int_equal(tb_rm_rf(f.top, NULL), 0);
}

/* The mount that the bundle has on /tbnode: its source, "" for none. */
static const char *programs_of(const Files *f, json_t **keep)
{
        char path[256];
        const json_t *m;
        size_t i;

        (void) snprintf(path, sizeof(path), "%s/config.json", f->bundle);
        json_decref(*keep);
        assert_int_equal(tb_json_load_file(path, 65536, keep, NULL), 0);
        json_array_foreach (json_object_get(*keep, "mounts"), i, m)
                if (tb_streq(json_string_value(json_object_get(m, "destination")), "/tbnode")) {
                        assert_string_equal(
                                json_string_value(json_array_get(json_object_get(m, "options"), 1)), "ro");
                        return json_string_value(json_object_get(m, "source"));
                }
        return "";
}

static void test_programs(void **state)
{
        static const char keys[] = "{\"tbnode.ssh-keys\": \"ssh-ed25519 A\"}";
        _cleanup_json_ json_t *config = NULL, *request = NULL;
        char tree[80], root[96], text[1024];
        TbError *err = NULL;
        Files f;

        files_make(&f);
        (void) snprintf(tree, sizeof(tree), "%s/tree", f.top);
        (void) snprintf(root, sizeof(root), "%s/root", f.top);
        assert_int_equal(mkdir(tree, 0700), 0);
        assert_int_equal(mkdir(root, 0700), 0);
        (void) snprintf(text, sizeof(text),
                "{\"root\": {\"path\": \"%s\"}, \"mounts\": [{\"destination\": \"/etc/hosts\", \"source\": "
                "\"%s/hosts\"}]}",
                root, f.docker);
        put(f.bundle, "config.json", text);

        /* Not asked for; asked for, but not installed. */
        assert_int_equal(describe(&f, "{\"tbnode.node\": \"a\"}", &request), 1);
        put(tree, "init", "x");
        assert_int_equal(runtime_add_programs(f.bundle, ID, tree, &err), 0);
        json_decref(TAKE_PTR(request));
        assert_int_equal(describe(&f, keys, &request), 1);
        assert_int_equal(runtime_add_programs(f.bundle, ID, "/nowhere", &err), 0);
        assert_string_equal(programs_of(&f, &config), "");

        /* Once; what was there stays. */
        assert_int_equal(runtime_add_programs(f.bundle, ID, tree, &err), 1);
        assert_string_equal(programs_of(&f, &config), tree);
        assert_int_equal(json_array_size(json_object_get(config, "mounts")), 2);
        assert_int_equal(runtime_add_programs(f.bundle, ID, tree, &err), 0);

        /* An image that has them; the place that an earlier start has left. */
        put(f.bundle, "config.json", text);
        (void) snprintf(root + strlen(root), sizeof(root) - strlen(root), "/tbnode");
        assert_int_equal(mkdir(root, 0700), 0);
        put(root, "init", "x");
        assert_int_equal(runtime_add_programs(f.bundle, ID, tree, &err), 0);
        (void) snprintf(root + strlen(root), sizeof(root) - strlen(root), "/init");
        assert_int_equal(unlink(root), 0);
        assert_int_equal(runtime_add_programs(f.bundle, ID, tree, &err), 1);
        assert_int_equal(tb_rm_rf(f.top, NULL), 0);
}

static void test_broken_requests(void **state)
{
        static const char *const texts[] = {
                "{}",
                "{\"version\": 2}",
                "{\"version\": 1, \"id\": \"0011\"}",
                "{\"version\": 1, \"id\": \"" ID "\", \"pid\": 0}",
                "{\"version\": 1, \"id\": \"" ID "\", \"pid\": 99999999999}",
                "{\"version\": 1, \"id\": \"" ID
                "\", \"pid\": 1, \"name\": \"a\", \"labels\": [], \"networks\": {}, "
                "\"network_mode\": \"\", \"image\": \"\"}",
                "{\"version\": 1, \"id\": \"" ID
                "\", \"pid\": 1, \"name\": \"a\", \"labels\": {}, \"networks\": "
                "{\"a\": 1}, \"network_mode\": \"\", \"image\": \"\"}",
                "{\"version\": 1, \"id\": \"" ID
                "\", \"pid\": 1, \"name\": \"a\", \"labels\": {}, \"networks\": {}, "
                "\"network_mode\": \"\", \"image\": \"\", \"node_dir\": \"relative\"}",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_error_ TbError *err = NULL;
                _cleanup_json_ json_t *j = json_loads(texts[i], 0, NULL);
                GateRequest q;

                assert_non_null(j);
                assert_int_equal(gate_request_parse(j, &q, &err), -EPROTO);
                assert_non_null(strstr(err->message, "start gate"));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_describe),
                cmocka_unit_test(test_programs),
                cmocka_unit_test(test_broken_requests),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
