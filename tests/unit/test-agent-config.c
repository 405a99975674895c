/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <string.h>

#include "agent/config.h"
#include "common/strv.h"

static int parse(const char *text, Config *c, TbError **err)
{
        assert_int_equal(config_init(c, err), 0);
        return config_parse(c, "test.conf", text, strlen(text), err);
}

static void test_defaults_and_values(void **state)
{
        _cleanup_config_ Config c = {};
        TbError *err = NULL;

        assert_ok(parse("# nothing\n\n", &c, &err), err);
        assert_string_equal(c.registry, "http://127.0.0.1:5000");
        assert_string_equal(config_socket(&c), "/run/tbnode/tbnoded.sock");
        config_done(&c);
        assert_ok(parse("registry=https://r.example\ndocker = unix:///x.sock\nrun-dir=/run/other\n"
                        "augment-jobs=9\naugment-timeout=90s\naugment-memory=1gb\nfirewall=nftables\n"
                        "managed-bridges=br0,br-nodes\n"
                        "control-network=ctl\ncontrol-interface=eno2\ncontrol-subnet=172.30.0.0/"
                        "16\nlevel=none\nbuilder=docker\n"
                        "gate=optional\nnodes-max=20\nstart-timeout=1500ms\nprune-grace=0s\ntmcd=10.0.0.1:"
                        "99\n",
                          &c, &err),
                err);
        assert_string_equal(c.registry, "https://r.example");
        assert_string_equal(c.docker, "unix:///x.sock");
        assert_string_equal(config_socket(&c), "/run/other/tbnoded.sock");
        assert_int_equal(c.jobs_max, 9);
        assert_int_equal(c.job_timeout_usec, 90000000);
        assert_int_equal(c.start_timeout_usec, 1500000);
        assert_int_equal(c.job_memory, 1 << 30);
        assert_int_equal(c.level, AUGMENT_LEVEL_NONE);
        assert_int_equal(c.builder, AUGMENT_BUILDER_DOCKER);
        assert_int_equal(c.nodes_max, 20);
        assert_true(c.tmcd.enabled);
        assert_int_equal(c.tmcd.address.s_addr, htonl(0x0a000001));
        assert_int_equal(c.tmcd.port, 99);
}

static void test_bad_values(void **state)
{
        static const char *const bad[] = {
                "nosuchkey=http://x\n",
                "registry=x\n",
                "registry=http://x/y\n",
                "registry=http://a\nregistry=http://b\n",
                "docker=tcp://x:1\n",
                "[section]\n",
                "augment-jobs=0\n",
                "augment-jobs=65\n",
                "augment-timeout=90\n",
                "augment-timeout=1ms\n",
                "prune-grace=900\n",
                "prune-grace=2000h\n",
                "augment-memory=1kb\n",
                "firewall=x\n",
                "managed-bridges=a,,b\n",
                "managed-bridges=a/b\n",
                "managed-bridges=longer-than-a-name\n",
                "gate=x\n",
                "control-network=-x\n",
                "control-interface=a/b\n",
                "control-interface=averyverylongname\n",
                "control-subnet=10.0.0.0\n",
                "control-subnet=10.0.0.1/24\n",
                "control-subnet=10.0.0.0/31\n",
                "run-dir=relative\n",
                "level=everything\n",
                "builder=kaniko\n",
                "nodes-max=x\n",
                "tmcd=0\n",
                "tmcd=65536\n",
                "tmcd=10.0.0.1:\n",
                "tmcd=0.0.0.0\n",
                "tmcd=10.0.0:7777\n",
                "tmcd=on\n",
                "tmcd=fd00::1\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_config_ Config c = {};
                TbError *err = NULL;

                if (parse(bad[i], &c, &err) >= 0)
                        fail_msg("accepted: %s", bad[i]);
                assert_non_null(err);
                if (!strstr(err->message, "test.conf:"))
                        fail_msg("no place in: %s", err->message);
                assert_null(strchr(err->message, '\n'));
                tb_error_free(err);
        }
}

/* Each key of the table has a help text, and is documented. */
static void test_table(void **state)
{
        const char *key, *value, *help;
        size_t n = 0;

        for (; (key = config_key_at(n, &value, &help)); n++) {
                assert_true(strlen(value) > 0);
                assert_true(strlen(help) > 10);
        }
        assert_true(n > 10);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults_and_values),
                cmocka_unit_test(test_bad_values),
                cmocka_unit_test(test_table),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
