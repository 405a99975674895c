/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The state file: those of older versions (tests/unit/state has them as these wrote them), newer ones, and what is none at all. */

#include "tests/unit/test.h"

#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/node-firewall.h"
#include "agent/node-shape.h"
#include "agent/outside-ssh.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

typedef struct World {
        char dir[64];
        char *path;
        Manager manager;
        Node a, b, *nodes[2];
} World;

static int set_up(void **state)
{
        World *w = calloc(1, sizeof(*w));

        (void) snprintf(w->dir, sizeof(w->dir), "%s/tbnode-state-XXXXXX", getenv("TMPDIR") ?: "/tmp");
        assert_non_null(mkdtemp(w->dir));
        w->path = tb_asprintf("%s/state.json", w->dir);
        w->manager.config.state_dir = w->dir;
        w->nodes[0] = &w->a;
        w->nodes[1] = &w->b;
        memcpy(w->a.id, A, sizeof(A));
        memcpy(w->b.id, B, sizeof(B));
        w->a.manager = w->b.manager = &w->manager;
        *state = w;
        return 0;
}

static void forget(World *w)
{
        for (size_t i = 0; i < 2; i++) {
                Node *n = w->nodes[i];

                for (size_t k = 0; k < n->n_overrides; k++)
                        shape_override_done(&n->overrides[k]);
                free(n->overrides);
                free(n->firewall_override);
                free(n->ssh_keys_override);
                n->overrides = NULL;
                n->n_overrides = 0;
                n->firewall_override = n->ssh_keys_override = NULL;
                n->ssh_port = 0;
                n->label_error = tb_error_free(n->label_error);
        }
        json_decref(w->manager.saved_nodes);
        w->manager.saved_nodes = NULL;
        w->manager.nodes = NULL;
        w->manager.n_nodes = 0;
}

static int tear_down(void **state)
{
        World *w = *state;
        _cleanup_free_ char *pattern = tb_asprintf("%s/*", w->dir);
        glob_t g = {};

        forget(w);
        if (glob(pattern, 0, NULL, &g) == 0)
                for (size_t i = 0; i < g.gl_pathc; i++)
                        (void) unlink(g.gl_pathv[i]);
        globfree(&g);
        (void) rmdir(w->dir);
        free(w->path);
        free(w);
        return 0;
}

static void put(const World *w, const char *text, size_t size)
{
        assert_works(tb_file_write_atomic(w->path, text, size, 0600, err));
}

static char *get(const char *path)
{
        char *text = NULL;

        assert_works(tb_file_read(path, 1 << 20, &text, NULL, err));
        return text;
}

static void restore(World *w)
{
        assert_works(state_file_load(&w->manager, err));
        assert_works(state_file_restore(&w->manager, &w->a, err));
        assert_works(state_file_restore(&w->manager, &w->b, err));
        assert_null(w->a.label_error);
        assert_null(w->b.label_error);
        w->manager.nodes = w->nodes;
        w->manager.n_nodes = 2;
}

static void check_shapes(const World *w)
{
        static const struct {
                const char *network, *shape;
                bool down;
        } shapes[] = {{"lan0", "up rate 10mbit delay 5ms", false}, {"lan1", "rate 2mbit loss 1%", true}};

        assert_int_equal(w->a.n_overrides, ELEMENTSOF(shapes));
        for (size_t i = 0; i < ELEMENTSOF(shapes); i++) {
                const ShapeOverride *o = node_override(&w->a, shapes[i].network);
                _cleanup_free_ char *text = o ? link_shape_print(&o->shape) : NULL;

                assert_string_equal(text, shapes[i].shape);
                assert_true(o->keep_up);
                assert_int_equal(o->keep_down, shapes[i].down);
        }
}

/* Read as they were meant, written as the newest, and that one read again. */
static void migrate(World *w, const char *name, const char *firewall, uint16_t port)
{
        _cleanup_free_ char *source = tb_asprintf("%s/tests/unit/state/%s", getenv("srcdir"), name),
                            *text = get(source);

        put(w, text, strlen(text));
        for (unsigned i = 0; i < 3; i++) {
                _cleanup_free_ char *now = NULL;

                forget(w);
                restore(w);
                check_shapes(w);
                assert_string_equal(w->a.firewall_override, firewall);
                assert_int_equal(w->b.ssh_port, port);
                if (i == 0) { /* until something changes it is the old agent's, which may come back */
                        now = get(w->path);
                        assert_string_equal(now, text);
                        continue;
                }
                if (i == 1)
                        assert_works(node_set_ssh_keys_override(&w->b, "ssh-ed25519 AAAA joe", err));
                else
                        assert_string_equal(w->b.ssh_keys_override, "ssh-ed25519 AAAA joe");
                assert_works(state_file_save(&w->manager, err));
                now = get(w->path);
                assert_non_null(strstr(now, "\"version\": 2"));
        }
}

static void test_first_version(void **state)
{
        migrate(*state, "first.json", "closed", 0);
}

static void test_version_before(void **state)
{
        World *w = *state;

        migrate(w, "version-1.json", "closed; allow in icmp", 20001);
        assert_int_equal(node_override(&w->a, "lan0")->flap.down_us, 2000000);
        assert_int_equal(node_override(&w->a, "lan0")->flap.up_us, 5000000);
}

static void test_newer_version(void **state)
{
        static const char text[] = "{\"version\": 3, \"nodes\": {\"" A "\": {\"new\": 1}}, \"more\": []}";
        World *w = *state;
        _cleanup_free_ char *now = NULL;

        put(w, text, strlen(text));
        assert_fails(
                state_file_load(&w->manager, err), -EPROTONOSUPPORT, "version 3, this one knows up to 2");
        assert_fails(state_file_load(&w->manager, err), -EPROTONOSUPPORT, "move the file away");
        assert_null(w->manager.saved_nodes);
        now = get(w->path);
        assert_string_equal(now, text);
}

static void test_nothing_there(void **state)
{
        World *w = *state;

        restore(w);
        assert_int_equal(json_object_size(w->manager.saved_nodes), 0);
}

static void test_broken(void **state)
{
        static const char *const texts[] = {"", "{\"version\": 2, \"nodes\": {\"" A "\": {\"shap", "[]",
                "null", "\xff\xfe garbage", "{}", "{\"version\": 0}", "{\"version\": \"2\"}",
                "{\"version\": 2, \"nodes\": []}"};
        World *w = *state;

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_free_ char *pattern = tb_asprintf("%s.broken-*", w->path), *kept = NULL;
                glob_t g = {};

                put(w, texts[i], strlen(texts[i]));
                restore(w);
                assert_int_equal(json_object_size(w->manager.saved_nodes), 0);
                assert_int_equal(access(w->path, F_OK), -1);
                assert_int_equal(glob(pattern, 0, NULL, &g), 0);
                assert_int_equal(g.gl_pathc, 1);
                kept = get(g.gl_pathv[0]);
                assert_string_equal(kept, texts[i]);
                (void) unlink(g.gl_pathv[0]);
                globfree(&g);
                w->a.ssh_port = 7; /* life goes on */
                assert_works(state_file_save(&w->manager, err));
                forget(w);
                restore(w);
                assert_int_equal(w->a.ssh_port, 7);
                forget(w);
        }
}

/* One node's part makes no sense: that is this node's error, and the others have theirs. */
static void test_broken_node(void **state)
{
        static const char *const parts[] = {"7", "{\"shapes\": []}",
                "{\"shapes\": {\"lan0\": {\"spec\": \"rate x\"}}}", "{\"firewall\": \"none such\"}",
                "{\"ssh_keys\": \"\"}", "{\"ssh_port\": \"x\"}"};
        World *w = *state;

        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                _cleanup_free_ char *text = tb_asprintf("{\"version\": 2, \"nodes\": {\"" A "\": %s, \"" B
                                                        "\": {\"ssh_port\": 7}}}",
                        parts[i]);

                put(w, text, strlen(text));
                assert_works(state_file_load(&w->manager, err));
                assert_works(state_file_restore(&w->manager, &w->a, err));
                assert_works(state_file_restore(&w->manager, &w->b, err));
                assert_non_null(w->a.label_error);
                assert_non_null(strstr(tb_error_message(w->a.label_error), "saved state"));
                assert_null(w->b.label_error);
                assert_int_equal(w->b.ssh_port, 7);
                forget(w);
        }
}

/* It cannot be read: nobody knows whether it is broken, so nothing is done to it. */
static void test_unreadable(void **state)
{
        World *w = *state;

        assert_int_equal(symlink(w->dir, w->path), 0);
        assert_true(state_file_load(&w->manager, NULL) < 0);
        assert_int_equal(access(w->path, F_OK), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_first_version, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_version_before, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_newer_version, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_nothing_there, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_broken, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_broken_node, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_unreadable, set_up, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
