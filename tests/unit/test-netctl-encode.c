/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <linux/rtnetlink.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/apply.h"
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
        Op op = {.kind = OP_LEAF_ADD,
                .device = 5,
                .leaf = {.kind = LEAF_PFIFO, .major = TC_MAJOR_FIFO, .limit = 50}};
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
        Op op = {
                .kind = OP_LEAF_CHANGE,
                .device = 5,
                .leaf = {.kind = LEAF_NETEM,
                        .major = TC_MAJOR_NETEM | TC_SEEDED,
                        .netem = {.latency = 20000000,
                                .limit = 1000,
                                .loss = 0x028f5c29,
                                .seeded = true,
                                .seed = 7}},
        };
        expect_bytes(&op,
                "98000000 2400 0100 00000000 00000000 | 00000000 05000000 00001075 01006274 00000000"
                "| 0a00 0100 6e6574656d00 0000"
                "| 6800 0200" /* TCA_OPTIONS: tc_netem_qopt (latency in ticks, limit, loss, gap, duplicate, jitter), then: */
                "b4c40400 e8030000 295c8f02 00000000 00000000 00000000"
                "| 1000 0100 000000000000000000000000" /* CORR */
                "| 0c00 0300 0000000000000000"         /* REORDER */
                "| 0c00 0400 0000000000000000"         /* CORRUPT */
                "| 0c00 0a00 002d310100000000"         /* LATENCY64 */
                "| 0c00 0b00 0000000000000000"         /* JITTER64 */
                "| 0c00 0f00 0700000000000000" /* PRNG_SEED */);
}

/* What is encoded is decoded, as if the kernel had sent it back. */
static void test_leaf_round_trip(void **state)
{
        Leaf leaf = {
                .kind = LEAF_NETEM,
                .major = TC_MAJOR_NETEM | SHAPE_PARETO | TC_SEEDED,
                .netem = {.latency = UINT64_C(60000000001),
                        .jitter = 77,
                        .limit = 9,
                        .delay_correlation = 1,
                        .loss = 2,
                        .loss_correlation = 3,
                        .duplicate = 4,
                        .duplicate_correlation = 5,
                        .corrupt = 6,
                        .corrupt_correlation = 7,
                        .reorder = 8,
                        .reorder_correlation = 9,
                        .gap = 10,
                        .seeded = true,
                        .seed = UINT64_MAX},
        };
        _cleanup_nlw_ NlWriter w = {};
        Op op = {.kind = OP_LEAF_REPLACE, .device = 3, .leaf = leaf};
        Qdisc q;

        op_encode(&w, &op);
        assert_int_equal(w.error, 0);
        assert_true(qdisc_decode((const struct nlmsghdr *) w.data, &q));
        assert_int_equal(q.ifindex, 3);
        assert_string_equal(q.kind, "netem");
        assert_int_equal(q.leaf.major, leaf.major);
        assert_true(leaf_netem_vtable.equal(&q.leaf, &leaf));
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
        for (ShapeDistribution d = SHAPE_NORMAL; d < _SHAPE_DISTRIBUTION_MAX; d++) {
                size_t n = 0;
                const int16_t *t = netem_distribution(d, &n);
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
                assert_true(deviation > (d == SHAPE_NORMAL ? 0.98 : 0.6) && deviation < 1.02);
        }
        size_t n;
        assert_null(netem_distribution(SHAPE_UNIFORM, &n));
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
        Op op = {.kind = OP_LEAF_ADD, .device = 5, .leaf = {.kind = LEAF_NETEM}};
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
                cmocka_unit_test(test_distributions),
                cmocka_unit_test(test_truncated_messages),
                cmocka_unit_test(test_error_texts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
