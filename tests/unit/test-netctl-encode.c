/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <linux/rtnetlink.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "netctl/apply.h"
#include "netctl/netem-dist.h"
#include "netctl/observe.h"

/* Messages byte by byte as the kernel's headers define them (linux/pkt_sched.h, little endian hosts), written down by
 * hand from the headers; "|" and spaces are for the reader. */

static void expect_bytes(const Op *op, const char *golden)
{
        _cleanup_nlw_ NlWriter w = {};
        _cleanup_free_ char *hex = NULL;
        char want[8192];
        size_t n = 0;

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
        skip();
#endif
        op_encode(&w, op);
        assert_int_equal(w.error, 0);
        hex = calloc(w.size * 2 + 1, 1);
        assert_non_null(hex);
        for (size_t i = 0; i < w.size; i++)
                (void) snprintf(hex + 2 * i, 3, "%02x", w.data[i]);
        for (const char *p = golden; *p; p++)
                if (*p != ' ' && *p != '|')
                        want[n++] = *p;
        want[n] = '\0';
        assert_string_equal(hex, want);
}

static void test_class(void **state)
{
        Op op = {.kind = OP_CLASS_ADD, .device = 5};

        op.htb_class = (HtbClass){.rate = 1250000, .buffer = 0x13e0c, .quantum = 60000};
        expect_bytes(&op,
                /* nlmsghdr: length, RTM_NEWTCLASS, REQUEST|EXCL|CREATE, seq, port; tcmsg: ifindex, handle, parent, info */
                "78000000 2800 0106 00000000 00000000 | 00000000 05000000 01006274 00006274 00000000"
                "| 0800 0100 68746200" /* TCA_KIND "htb" */
                "| 4c00 0200"          /* TCA_OPTIONS */
                "| 3000 0100" /* TCA_HTB_PARMS: ratespec rate, ceil; buffer, cbuffer, quantum, level, prio */
                "00 01 0000 0000 0000 d0121300 | 00 01 0000 0000 0000 d0121300"
                "0c3e0100 0c3e0100 60ea0000 00000000 00000000"
                "| 0c00 0600 d012130000000000" /* RATE64 */
                "| 0c00 0700 d012130000000000" /* CEIL64 */);
}

static void test_fifo_and_ingress(void **state)
{
        const Leaf leaf = {.kind = LEAF_PFIFO, .major = 0x7463, .limit = 50};
        Op op = {.kind = OP_LEAF_ADD, .device = 5, .leaf = &leaf};
        expect_bytes(&op,
                "38000000 2400 0106 00000000 00000000 | 00000000 05000000 00006374 01006274 00000000"
                "| 0a00 0100 706669666f00 0000 | 0800 0200 32000000");
        op = (Op){.kind = OP_INGRESS_ADD, .device = 5};
        expect_bytes(&op,
                "30000000 2400 0106 00000000 00000000 | 00000000 05000000 0000ffff f1ffffff 00000000"
                "| 0c00 0100 696e677265737300");
}

static void test_netem(void **state)
{
        const Leaf leaf = {
                .kind = LEAF_NETEM,
                .major = 0x7510,
                .netem = {.latency = 20000000, .limit = 1000, .loss = 0x028f5c29, .seeded = true, .seed = 7},
        };
        const Op op = {.kind = OP_LEAF_CHANGE, .device = 5, .leaf = &leaf};
        expect_bytes(&op,
                "e0000000 2400 0100 00000000 00000000 | 00000000 05000000 00001075 01006274 00000000"
                "| 0a00 0100 6e6574656d00 0000"
                "| b000 0200" /* TCA_OPTIONS: tc_netem_qopt (latency in ticks, limit, loss, gap, duplicate, jitter), then: */
                "b4c40400 e8030000 295c8f02 00000000 00000000 00000000"
                "| 1000 0100 000000000000000000000000"            /* CORR */
                "| 0c00 0300 0000000000000000"                    /* REORDER */
                "| 0c00 0400 0000000000000000"                    /* CORRUPT */
                "| 0c00 0a00 002d310100000000"                    /* LATENCY64 */
                "| 0c00 0b00 0000000000000000"                    /* JITTER64 */
                "| 1400 0600 00000000 00000080 00000000 00000000" /* RATE: what is noted there: seeded */
                "| 0800 0700 00000000"                            /* ECN */
                "| 2c00 0c00 00000000 00000000 00000000 00000000 00000000" /* SLOT */
                "00000000 00000000 00000000 00000000 00000000"
                "| 0c00 0f00 0700000000000000" /* PRNG_SEED */);
}

static void round_trip(const Leaf *leaf)
{
        _cleanup_nlw_ NlWriter w = {};
        Op op = {.kind = OP_LEAF_REPLACE, .device = 3, .leaf = leaf};
        const LeafVtable *v = leaf_vtable(leaf->kind);
        Qdisc q;

        op_encode(&w, &op);
        assert_int_equal(w.error, 0);
        assert_true(qdisc_decode((const struct nlmsghdr *) w.data, &q));
        assert_int_equal(q.ifindex, 3);
        assert_string_equal(q.kind, v->kind);
        assert_int_equal(q.leaf.kind, leaf->kind);
        assert_int_equal(q.leaf.major, leaf->major);
        assert_true(v->equal(&q.leaf, leaf));
}

/* What is encoded is decoded, as if the kernel had sent it back. */
static void test_leaf_round_trip(void **state)
{
        Leaf leaf = {
                .kind = LEAF_NETEM,
                .major = leaf_major(LEAF_NETEM, true, 7),
                .netem = {.latency = UINT64_C(60000000001),
                        .jitter = 77,
                        .table = 2,
                        .limit = 9,
                        .delay_correlation = 1,
                        .loss = 2,
                        .loss_correlation = 3,
                        .ecn = true,
                        .duplicate = 4,
                        .duplicate_correlation = 5,
                        .corrupt = 6,
                        .corrupt_correlation = 7,
                        .reorder = 8,
                        .reorder_correlation = 9,
                        .gap = 10,
                        .slot_delay = UINT64_C(5000000000),
                        .slot_jitter = 3,
                        .slot_table = 3,
                        .slot_packets = 12,
                        .slot_bytes = 13,
                        .seeded = true,
                        .seed = UINT64_MAX},
        };
        round_trip(&leaf);
        leaf.netem.loss_model = NETEM_STATE;
        for (uint32_t i = 0; i < _SHAPE_STATE_MAX; i++)
                leaf.netem.loss_state[i] = 1000 + i;
        round_trip(&leaf);
        leaf.netem.loss_model = NETEM_GEMODEL;
        for (uint32_t i = 0; i < _SHAPE_GE_MAX; i++)
                leaf.netem.loss_gemodel[i] = 2000 + i;
        round_trip(&leaf);
        leaf.netem.slot_delay = leaf.netem.slot_jitter = 0;
        leaf.netem.slot_min = 5;
        leaf.netem.slot_max = UINT64_C(50000000000);
        round_trip(&leaf);

        round_trip(&(Leaf){.kind = LEAF_PFIFO, .major = leaf_major(LEAF_PFIFO, false, 1), .limit = 7});
        round_trip(&(Leaf){.kind = LEAF_BFIFO, .major = leaf_major(LEAF_BFIFO, false, 1), .limit = 70000});
        round_trip(&(Leaf){.kind = LEAF_BLACKHOLE, .major = leaf_major(LEAF_BLACKHOLE, false, 1)});
        Leaf red = {
                .kind = LEAF_RED,
                .major = leaf_major(LEAF_RED, false, 4096),
                .red = {.limit = 400000,
                        .min = 30000,
                        .max = 90000,
                        .probability = 85899345,
                        .ecn = true,
                        .harddrop = true},
        };
        red_compute(&red.red, 10000000);
        round_trip(&red);
        red.red.adaptive = true;
        round_trip(&red);
}

/* One handle cannot change its kind: each kind of each class has its own, all below ffff, where ingress is. */
static void test_leaf_handles(void **state)
{
        for (LeafKind k = LEAF_PFIFO; k < LEAF_OTHER; k++)
                for (LeafKind other = LEAF_PFIFO; other < k; other++)
                        assert_int_not_equal(leaf_major(k, false, 3), leaf_major(other, false, 3));
        assert_int_not_equal(leaf_major(LEAF_NETEM, true, 1), leaf_major(LEAF_NETEM, false, 1));
        assert_true(leaf_major(LEAF_BLACKHOLE, false, 1) < leaf_major(LEAF_PFIFO, false, 2));
        assert_true(leaf_major(LEAF_BLACKHOLE, false, 2) < leaf_major(LEAF_NETEM, true, 3));
        assert_true(leaf_major(LEAF_BLACKHOLE, false, 4096) < 0xfff0);
        assert_true(leaf_is_slotted(&(Leaf){.kind = LEAF_NETEM, .major = leaf_major(LEAF_NETEM, true, 9)}));
        assert_false(
                leaf_is_slotted(&(Leaf){.kind = LEAF_NETEM, .major = leaf_major(LEAF_NETEM, false, 9)}));
}

static void test_class_round_trip(void **state)
{
        _cleanup_nlw_ NlWriter w = {};
        Op op = {.kind = OP_CLASS_CHANGE, .device = 3};
        uint32_t ifindex, handle;
        HtbClass c;

        htb_class_for_rate(UINT64_C(40000000000), 1500, &op.htb_class);
        assert_true(op.htb_class.rate > UINT32_MAX);
        op_encode(&w, &op);
        assert_true(class_decode((const struct nlmsghdr *) w.data, &ifindex, &handle, &c));
        assert_int_equal(handle, TC_HANDLE_CLASS);
        assert_int_equal(c.rate, UINT64_C(5000000000));
        assert_int_equal(c.buffer, op.htb_class.buffer);
        assert_int_equal(c.quantum, op.htb_class.quantum);
}

static void test_filter_round_trip(void **state)
{
        _cleanup_nlw_ NlWriter w = {};
        Op op = {.kind = OP_FILTER_ADD, .device = 3, .redirect = 4711};
        IngressState s = {.owner = TC_FOREIGN};

        op_encode(&w, &op);
        ingress_decode_filter((const struct nlmsghdr *) w.data, &s);
        assert_true(s.filtered);
        assert_int_equal(s.redirect, 4711);
        assert_int_equal(s.n_foreign, 0);

        /* Another preference is somebody else's filter. */
        struct tcmsg *t = (struct tcmsg *) (w.data + NLMSG_HDRLEN);
        t->tcm_info ^= 1U << 16;
        s = (IngressState){.owner = TC_FOREIGN};
        ingress_decode_filter((const struct nlmsghdr *) w.data, &s);
        assert_false(s.filtered);
        assert_int_equal(s.n_foreign, 1);
}

static void test_distributions(void **state)
{
        static const char *const names[] = {"normal", "pareto", "paretonormal"};

        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                ShapeName name = {}, back;
                size_t n = 0;
                assert_true(shape_name_set(&name, names[k]));
                uint32_t id = netem_table_id(&name);
                assert_true(netem_table_name(id, &back));
                assert_string_equal(back.text, names[k]);
                const int16_t *t = netem_table_entries(id, &n);
                double sum = 0, squares = 0;
                assert_non_null(t);
                assert_int_equal(n, 4096);
                for (size_t i = 0; i < n; i++) {
                        sum += t[i];
                        squares += (double) t[i] * t[i];
                        assert_true(i == 0 || t[i - 1] <= t[i]);
                }
                double mean = sum / (double) n / NETEM_DIST_SCALE;
                double deviation = sqrt(squares / (double) n) / NETEM_DIST_SCALE;
                assert_true(fabs(mean) < 0.03);
                /* 16 bits cut the long tail of the pareto ones at 4 deviations. */
                assert_true(deviation > (k == 0 ? 0.98 : 0.6) && deviation < 1.02);
        }
        /* What takes a table's place: all of -1 .. 1, evenly. */
        size_t n;
        const int16_t *t = netem_table_entries(NETEM_TABLE_UNIFORM, &n);
        assert_int_equal(t[0], 2 - NETEM_DIST_SCALE);
        assert_int_equal(t[n - 1], NETEM_DIST_SCALE - 2);
        for (size_t i = 1; i < n; i++)
                assert_int_equal(t[i] - t[i - 1], 4);
}

static void write_table(const char *path, const char *text)
{
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void test_table_files(void **state)
{
        char directory[] = "/tmp/tbnode-test-XXXXXX", path[64];
        ShapeName name = {}, back;
        TbError *err = NULL;
        size_t n;

        assert_non_null(mkdtemp(directory));
        (void) snprintf(path, sizeof(path), "%s/wifi-5.dist", directory);
        assert_true(shape_name_set(&name, "file:wifi-5"));
        assert_error(netem_table_load(directory, &name, &err), -ENOENT, err);

        write_table(path, "# comment 99999\n  -32768 0\n\n32767 # more\n7");
        assert_ok(netem_table_load(directory, &name, &err), err);
        uint32_t id = netem_table_id(&name);
        const int16_t *t = netem_table_entries(id, &n);
        assert_int_equal(n, 4);
        assert_true(t[0] == -32768 && t[1] == 0 && t[2] == 32767 && t[3] == 7);
        assert_true(netem_table_name(id, &back));
        assert_string_equal(back.text, "wifi-5");
        assert_true(id != NETEM_TABLE_UNIFORM && (id & 0x80000000U) == 0);

        /* Unchanged: the same; another content: another table, and the old one is still known. */
        assert_ok(netem_table_load(directory, &name, &err), err);
        assert_int_equal(netem_table_id(&name), id);
        write_table(path, "1 2 3 4 5 6");
        assert_ok(netem_table_load(directory, &name, &err), err);
        assert_int_not_equal(netem_table_id(&name), id);
        assert_non_null(netem_table_entries(id, &n));

        static const char *const bad[] = {
                "", "# nothing\n", "1 2 x", "32768", "-32769", "1.5", "- 3", "1-2"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                int16_t *v = NULL;
                assert_error(netem_table_parse(bad[i], strlen(bad[i]), &v, &n, &err), -EINVAL, err);
                err = tb_error_free(err);
        }
        write_table(path, "1 2\n3 y");
        int r = netem_table_load(directory, &name, &err);
        assert_int_equal(r, -EINVAL);
        assert_non_null(strstr(err->message, "line 2"));
        assert_non_null(strstr(err->message, path));
        tb_error_free(err);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(directory), 0);
}

/* The rules of tc-red(8) by hand: min 30000, max 90000, burst (2 * 30000 + 90000) / 3000 = 50, 10 Mbit/s. */
static void test_red_parameters(void **state)
{
        Red red = {.limit = 360000, .min = 30000, .max = 90000, .probability = 85899345};

        red_compute(&red, 10000000);
        assert_int_equal(red.plog, 22); /* 60000 / 0.02 = 3e6 < 2^22 */
        /* 21 packets are missing; 50 packets give 25.5 at a weight of 1/32, and 15.8 at 1/16. */
        assert_int_equal(red.wlog, 5);
        assert_true(red.cell_log > 0 && red.cell_log < 31);

        /* Whatever is asked, the kernel's own check (red_check_params()) is met. */
        for (uint64_t rate = SHAPE_RATE_MIN; rate <= SHAPE_RATE_MAX; rate *= 10)
                for (uint32_t max = 2; max < SHAPE_RED_BYTES_MAX; max *= 2) {
                        Red r = {.limit = max, .min = max / 3 + 1, .max = max + 1, .probability = 1};
                        red_compute(&r, rate);
                        assert_true(32 - __builtin_clz(r.max) + r.wlog < 32);
                        assert_true(r.cell_log < 32 && r.plog < 32 && r.wlog > 0);
                }
}

static void test_truncated_messages(void **state)
{
        _cleanup_nlw_ NlWriter w = {};
        Op op = {.kind = OP_FILTER_ADD, .device = 3, .redirect = 4711};

        op_encode(&w, &op);
        for (uint32_t size = NLMSG_HDRLEN; size <= w.size; size++) {
                _cleanup_free_ uint8_t *copy = malloc(size);
                IngressState s = {};
                Qdisc q;
                Link l;
                uint32_t a, b;
                HtbClass c;
                assert_non_null(copy);
                memcpy(copy, w.data, size);
                memcpy(copy, &size, sizeof(size));
                ingress_decode_filter((const struct nlmsghdr *) copy, &s);
                (void) qdisc_decode((const struct nlmsghdr *) copy, &q);
                (void) class_decode((const struct nlmsghdr *) copy, &a, &b, &c);
                (void) link_decode((const struct nlmsghdr *) copy, &l);
        }
}

static void test_error_texts(void **state)
{
        const Leaf leaf = {.kind = LEAF_NETEM};
        Op op = {.kind = OP_LEAF_ADD, .device = 5, .leaf = &leaf};
        RtnlResult missing = {.code = -ENOENT, .text = "Specified qdisc kind is unknown"},
                   gone = {.code = -ENODEV};
        TbError *err = NULL;

        assert_int_equal(op_error(&op, &missing, &err), -ENOENT);
        assert_int_equal(err->kind, TB_ERROR_ENVIRONMENT);
        assert_non_null(strstr(err->message, "sch_netem"));
        assert_non_null(strstr(err->message, "linux-image-amd64"));
        assert_non_null(strstr(err->message, "Specified qdisc kind is unknown"));
        err = tb_error_free(err);
        assert_error(op_error(&op, &gone, &err), -ENODEV, err);
        op.kind = OP_ROOT_DELETE;
        assert_int_equal(op_error(&op, &gone, &err), 0);
        assert_null(err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_class),
                cmocka_unit_test(test_fifo_and_ingress),
                cmocka_unit_test(test_netem),
                cmocka_unit_test(test_leaf_round_trip),
                cmocka_unit_test(test_class_round_trip),
                cmocka_unit_test(test_filter_round_trip),
                cmocka_unit_test(test_leaf_handles),
                cmocka_unit_test(test_distributions),
                cmocka_unit_test(test_table_files),
                cmocka_unit_test(test_red_parameters),
                cmocka_unit_test(test_truncated_messages),
                cmocka_unit_test(test_error_texts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
