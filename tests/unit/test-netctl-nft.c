/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

/* Before anything of linux/: the other way round they clash. */
#include <netinet/in.h>

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/cleanup.h"
#include "netctl/nft-table.h"
#include "netctl/nft-watch.h"

/* What the kernel says of its tables, as it says it and as it must not. */

#define NEST(type) ((uint16_t) (NLA_F_NESTED | (type)))

static void put_chain(NlWriter *w, const char *table, const char *name)
{
        nft_begin(w, NFT_MSG_NEWCHAIN, 0, NFPROTO_INET);
        nlw_put_string(w, NFTA_CHAIN_TABLE, table);
        nlw_put_string(w, NFTA_CHAIN_NAME, name);
        nlw_end(w);
}

static void put_rule(NlWriter *w, const char *chain, const char *comment, uint64_t packets)
{
        uint8_t data[64] = {0, (uint8_t) (strlen(comment) + 1)};

        memcpy(data + 2, comment, strlen(comment) + 1);
        nft_begin(w, NFT_MSG_NEWRULE, 0, NFPROTO_INET);
        nlw_put_string(w, NFTA_RULE_TABLE, "tbnode");
        nlw_put_string(w, NFTA_RULE_CHAIN, chain);
        size_t list = nlw_nest(w, NEST(NFTA_RULE_EXPRESSIONS)), e = nlw_nest(w, NEST(NFTA_LIST_ELEM));
        nlw_put_string(w, NFTA_EXPR_NAME, "counter");
        size_t values = nlw_nest(w, NEST(NFTA_EXPR_DATA));
        nft_put_be64(w, NFTA_COUNTER_PACKETS, packets);
        nlw_nest_end(w, values);
        nlw_nest_end(w, e);
        nlw_nest_end(w, list);
        nlw_put(w, NFTA_RULE_USERDATA, data, 3 + strlen(comment));
        nlw_end(w);
}

static void put_element(NlWriter *w, const void *key, size_t size)
{
        nft_begin(w, NFT_MSG_NEWSETELEM, 0, NFPROTO_INET);
        nlw_put_string(w, NFTA_SET_ELEM_LIST_TABLE, "tbnode");
        size_t list = nlw_nest(w, NEST(NFTA_SET_ELEM_LIST_ELEMENTS)), e = nlw_nest(w, NEST(NFTA_LIST_ELEM)),
               k = nlw_nest(w, NEST(NFTA_SET_ELEM_KEY));
        nlw_put(w, NFTA_DATA_VALUE, key, size);
        nlw_nest_end(w, k);
        nlw_nest_end(w, e);
        nlw_nest_end(w, list);
        nlw_end(w);
}

/* Sorted after each: the tests say things in any order. */
static void take_all(const NlWriter *w, const NftTable *t, NftSeen *s)
{
        NlIter i = nl_iter(w->data, w->size);
        const struct nlmsghdr *h;

        assert_int_equal(w->error, 0);
        while ((h = nl_next_message(&i))) {
                assert_int_equal(nft_seen_take(s, t, 0, h), 0);
                nft_seen_sort(s);
        }
}

static void test_table_is_seen(void **state)
{
        _cleanup_nft_table_ NftTable t = {};
        _cleanup_nft_seen_ NftSeen s = {};
        _cleanup_nlw_ NlWriter w = {};
        uint32_t key = 7;

        nft_table_init(&t, NFPROTO_INET, "tbnode");
        nft_add_set(&t, "ports", NFT_TYPE_IFINDEX, 4, 0, 0);
        put_chain(&w, "tbnode", "nb-out");
        put_chain(&w, "tbnode", "na-in");
        put_chain(&w, "theirs", "forward");
        put_rule(&w, "nb-out", "all #1", 3);
        put_rule(&w, "na-in", "all #2", 5);
        put_rule(&w, "na-in", "1: deny #3", 1ULL << 40);
        put_rule(&w, "unheard-of", "x", 1);
        put_element(&w, &key, sizeof(key));
        take_all(&w, &t, &s);
        assert_int_equal(s.n_chains, 2);
        const NftSeenChain *c = nft_seen_chain(&s, "na-in");
        assert_non_null(c);
        assert_int_equal(c->n, 2);
        assert_string_equal(s.rules[c->first].comment, "all #2");
        assert_string_equal(s.rules[c->first + 1].comment, "1: deny #3");
        assert_int_equal(s.rules[c->first + 1].packets, 1ULL << 40);
        assert_int_equal(nft_seen_chain(&s, "nb-out")->n, 1);
        assert_null(nft_seen_chain(&s, "forward"));
        assert_int_equal(s.n_elements, 1);
        assert_int_equal(s.elements[0].key_size, 4);
        assert_memory_equal(s.elements[0].key, &key, 4);
}

/* Names, keys and comments that are longer than any of ours are cut or left out, and are not ours. */
static void test_what_is_too_long(void **state)
{
        _cleanup_nft_table_ NftTable t = {};
        _cleanup_nft_seen_ NftSeen s = {};
        _cleanup_nlw_ NlWriter w = {};
        uint8_t key[NFT_KEY_MAX + 1] = {1};
        char name[200];

        nft_table_init(&t, NFPROTO_INET, "tbnode");
        nft_add_set(&t, "ports", NFT_TYPE_IFINDEX, 4, 0, 0);
        memset(name, 'n', sizeof(name));
        name[sizeof(name) - 1] = '\0';
        put_chain(&w, "tbnode", name);
        put_chain(&w, name, "na-in");
        put_element(&w, key, sizeof(key));
        take_all(&w, &t, &s);
        assert_int_equal(s.n_chains, 1);
        assert_int_equal(strlen(s.chains[0].name), NFT_NAME_MAX - 1);
        assert_int_equal(s.n_elements, 1);
        assert_int_equal(s.elements[0].key_size, 0);
}

/* A set of another kind under one of our names: the table is made anew. */
static void test_wrong_set(void **state)
{
        _cleanup_nft_table_ NftTable t = {};
        _cleanup_nft_seen_ NftSeen s = {};
        _cleanup_nlw_ NlWriter w = {};

        nft_table_init(&t, NFPROTO_INET, "tbnode");
        nft_add_set(&t, "ports", NFT_TYPE_IFINDEX, 4, 0, 0);
        for (uint32_t size = 4; size <= 8; size += 4) {
                nft_begin(&w, NFT_MSG_NEWSET, 0, NFPROTO_INET);
                nlw_put_string(&w, NFTA_SET_TABLE, "tbnode");
                nlw_put_string(&w, NFTA_SET_NAME, "ports");
                nft_put_be32(&w, NFTA_SET_KEY_TYPE, NFT_TYPE_IFINDEX);
                nft_put_be32(&w, NFTA_SET_KEY_LEN, size);
                nlw_end(&w);
                take_all(&w, &t, &s);
                assert_true(s.has_set[0]);
                assert_int_equal(s.wrong_sets, size != 4);
        }
}

static void test_end_of_a_datagram(void **state)
{
        struct {
                struct nlmsghdr h[2];
                uint8_t rest;
        } d = {.h = {{.nlmsg_len = sizeof(d.h[0])}, {.nlmsg_len = sizeof(d.h[1]) + 1}}};
        size_t both = 2 * sizeof(d.h[0]);

        /* The last one's length is no multiple of 4: nothing comes after it. */
        NlIter i = nl_iter(&d, both + 1);
        assert_ptr_equal(nl_next_message(&i), d.h);
        assert_ptr_equal(nl_next_message(&i), d.h + 1);
        assert_null(nl_next_message(&i));
        assert_int_equal(i.left, 0);
        /* Longer than what there is, and shorter than its header. */
        i = nl_iter(&d, both);
        assert_ptr_equal(nl_next_message(&i), d.h);
        assert_null(nl_next_message(&i));
        d.h[0].nlmsg_len = 3;
        i = nl_iter(&d, both);
        assert_null(nl_next_message(&i));
        assert_null(nl_next_message(&i));
}

static bool told(bool *touched, uint16_t type, const char *table)
{
        _cleanup_nlw_ NlWriter w = {};

        nft_begin(&w, type, 0, NFPROTO_INET);
        if (table)
                nlw_put_string(&w, NFTA_TABLE_NAME, table);
        else
                nft_put_be32(&w, NFTA_GEN_ID, 77);
        nlw_end(&w);
        assert_int_equal(w.error, 0);
        return nft_watch_take(touched, (const void *) w.data);
}

static void test_watch(void **state)
{
        bool touched = false;
        struct nlmsghdr bare = {
                .nlmsg_len = sizeof(bare), .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELRULE};

        assert_false(told(&touched, NFT_MSG_NEWRULE, "theirs"));
        assert_false(told(&touched, NFT_MSG_NEWGEN, NULL));
        assert_false(told(&touched, NFT_MSG_DELRULE, "tbnode"));
        assert_false(told(&touched, NFT_MSG_NEWRULE, "theirs"));
        assert_true(told(&touched, NFT_MSG_NEWGEN, NULL));
        assert_false(told(&touched, NFT_MSG_NEWGEN, NULL));
        assert_false(told(&touched, NFT_MSG_DELTABLE, "tbnode-guard"));
        assert_true(told(&touched, NFT_MSG_NEWGEN, NULL));
        assert_false(nft_watch_take(&touched, &bare));
        assert_false(touched);
}

/* A guard that is left out because nobody could ask is no guard. */
static void test_no_descriptor_is_not_no_nf_tables(void **state)
{
        _cleanup_error_ TbError *err = NULL;
        struct rlimit old, none;
        Nft *nft = NULL;
        NftWatch *watch = NULL;
        int opened, watched;

        assert_return_code(getrlimit(RLIMIT_NOFILE, &old), errno);
        none = old;
        none.rlim_cur = 0;
        assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
        opened = nft_open(&nft, &err);
        watched = nft_watch_new(&watch, NULL);
        assert_return_code(setrlimit(RLIMIT_NOFILE, &old), errno);
        assert_int_equal(opened, -EMFILE);
        assert_int_equal(err->code, -EMFILE);
        assert_int_equal(watched, -EMFILE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_table_is_seen),
                cmocka_unit_test(test_what_is_too_long),
                cmocka_unit_test(test_wrong_set),
                cmocka_unit_test(test_end_of_a_datagram),
                cmocka_unit_test(test_watch),
                cmocka_unit_test(test_no_descriptor_is_not_no_nf_tables),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
