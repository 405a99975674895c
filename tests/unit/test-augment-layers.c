/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "augment/image-files.h"
#include "augment/layer-scan.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "tests/unit/tar-writer.h"

static int scan(const Tar *t, const LayerLimits *limits, LayerScan **ret, TbError **err)
{
        _cleanup_(layer_scan_freep) LayerScan *s = NULL;
        int r;

        if ((r = layer_scan_new(limits, &s, err)) < 0 ||
                (r = layer_scan_feed(s, t->data, t->size, err)) < 0 ||
                (r = layer_scan_finish(s, NULL, err)) < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

static void assert_same_files(const FileTree *a, const FileTree *b)
{
        for (uint32_t i = 1; i < file_tree_count(a); i++) {
                char *path = file_tree_path(a, i);
                uint32_t in_a, in_b;
                int r;

                assert_non_null(path);
                r = file_tree_find(a, path, false, &in_a);
                assert_int_equal(r, file_tree_find(b, path, false, &in_b));
                if (r == 0) {
                        assert_int_equal(file_tree_type(a, in_a), file_tree_type(b, in_b));
                        assert_int_equal(file_tree_mode(a, in_a), file_tree_mode(b, in_b));
                        assert_true(!file_tree_data(a, in_a, NULL) == !file_tree_data(b, in_b, NULL));
                }
                free(path);
        }
        assert_int_equal(file_tree_mode(a, FILE_TREE_ROOT), file_tree_mode(b, FILE_TREE_ROOT));
}

/* Applies layers to an empty tree, the lowest first, in both ways that there are. */
static FileTree *merge(const Tar *layers, size_t n)
{
        _cleanup_(file_tree_freep) FileTree *other = NULL;
        _cleanup_error_ TbError *err = NULL;
        FileTree *tree = NULL;

        assert_ok(file_tree_new(10000, 1U << 20, &tree, &err), err);
        assert_ok(file_tree_new(10000, 1U << 20, &other, &err), err);
        for (size_t i = 0; i < n; i++) {
                LayerScan *s = NULL;

                assert_ok(scan(&layers[i], NULL, &s, &err), err);
                assert_ok(file_tree_apply(other, layer_scan_tree(s), &err), err);
                assert_ok(file_tree_take(tree, layer_scan_use_up(s), &err), err);
                layer_scan_free(s);
        }
        assert_same_files(tree, other);
        assert_same_files(other, tree);
        return tree;
}

static uint32_t pick(uint32_t *x, uint32_t n)
{
        *x = *x * 1664525U + 1013904223U;
        return (*x >> 8) % n;
}

/* A layer of whatever: few names, so that they meet; what can't be added is left out. */
static FileTree *random_layer(uint32_t *x)
{
        static const char *const names[] = {"a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"};
        static const char *const more[] = {"", "/a", "/b", "/c", "/.wh.a", "/.wh.c", "/.wh..wh..opq"};
        static const FileType types[] = {FILE_DIRECTORY, FILE_DIRECTORY, FILE_REGULAR, FILE_SYMLINK};
        FileTree *t;

        assert_int_equal(file_tree_new(10000, 1U << 20, &t, NULL), 0);
        for (uint32_t n = pick(x, 14); n > 0; n--) {
                char path[64];
                FileType type = types[pick(x, ELEMENTSOF(types))];
                uint32_t node;

                (void) snprintf(path, sizeof(path), "%s%s%s",
                        pick(x, 20) ? names[pick(x, ELEMENTSOF(names))] : "",
                        more[pick(x, ELEMENTSOF(more))], more[pick(x, ELEMENTSOF(more))]);
                if (path[0] == '/' ||
                        file_tree_add(t, path[0] ? path : ".", path[0] ? type : FILE_DIRECTORY, "a", false,
                                0700 + pick(x, 8), &node, NULL) < 0)
                        continue;
                if (node != FILE_TREE_ROOT && type == FILE_REGULAR && pick(x, 2))
                        assert_int_equal(file_tree_set_data(t, node, path, strlen(path), NULL), 0);
        }
        return t;
}

/* Over or under: the same files, whichever tree is the larger one. */
static void test_take_is_apply(void **state)
{
        uint32_t x = 11;

        for (unsigned run = 0; run < 2000; run++) {
                _cleanup_(file_tree_freep) FileTree *applied = NULL, *taken = NULL;

                assert_int_equal(file_tree_new(10000, 1U << 20, &applied, NULL), 0);
                assert_int_equal(file_tree_new(10000, 1U << 20, &taken, NULL), 0);
                for (unsigned layer = pick(&x, 5); layer > 0; layer--) {
                        FileTree *upper = random_layer(&x);

                        assert_int_equal(file_tree_apply(applied, upper, NULL), 0);
                        assert_int_equal(file_tree_take(taken, upper, NULL), 0);
                        file_tree_free(upper);
                        assert_same_files(applied, taken);
                        assert_same_files(taken, applied);
                }
        }
}

/* Files f0 ... in `prefix`, 1000 in each directory, every tenth a symlink and every eleventh another name of that. */
static FileTree *large_layer(const char *prefix, uint32_t from, uint32_t count, FileBudget *budget)
{
        _cleanup_error_ TbError *err = NULL;
        char path[128], link[128] = "";
        uint32_t node;
        FileTree *t;

        assert_ok(file_tree_new(200000, 1U << 25, &t, &err), err);
        file_tree_set_budget(t, budget);
        for (uint32_t i = from; i < from + count; i++) {
                bool symlink = i % 10 == 0, hard = i % 11 == 0 && link[0];

                (void) snprintf(path, sizeof(path), "%s/d%u/a-name-of-usual-length-%u", prefix, i / 1000, i);
                assert_ok(file_tree_add(t, path, symlink && !hard ? FILE_SYMLINK : FILE_REGULAR,
                                  hard ? link : path + 1, hard, 0600 + i % 8, &node, &err),
                        err);
                if (symlink && !hard)
                        (void) snprintf(link, sizeof(link), "%s", path);
                else if (!hard && i % 5000 == 1)
                        assert_ok(file_tree_set_data(t, node, path, strlen(path), &err), err);
        }
        return t;
}

/* Trees of several blocks, of which those go that were read: nothing of them is missed. The budget follows. */
static void test_blocks_and_budget(void **state)
{
        static const struct {
                const char *prefix;
                uint32_t from, count;
        } layers[] = {
                {"a", 0, 30000},
                {"b", 0, 45000},     /* stays in place */
                {"a", 15000, 25000}, /* replaces some, goes over it */
                {"a", 0, 40000},
                {"c", 0, 1},
        };
        _cleanup_(file_tree_freep) FileTree *applied = NULL, *taken = NULL, *more = NULL;
        FileBudget budget = {.max = 40U << 20};
        _cleanup_error_ TbError *err = NULL;
        uint32_t node, after;
        int r = 0;

        assert_ok(file_tree_new(200000, 1U << 25, &applied, &err), err);
        assert_ok(file_tree_new(200000, 1U << 25, &taken, &err), err);
        file_tree_set_budget(taken, &budget);
        for (size_t i = 0; i < ELEMENTSOF(layers); i++) {
                FileTree *upper = large_layer(layers[i].prefix, layers[i].from, layers[i].count, &budget);

                assert_ok(file_tree_apply(applied, upper, &err), err);
                assert_ok(file_tree_take(taken, upper, &err), err);
                file_tree_free(upper);
                assert_same_files(applied, taken);
                assert_same_files(taken, applied);
        }
        /* What was replaced takes nothing more. */
        assert_true(file_tree_count(taken) < 87000);
        assert_true(budget.used > 85000 * FILE_NODE_COST && budget.used < budget.max);
        after = budget.used;
        assert_ok(file_tree_new(2000000, 1U << 28, &more, &err), err);
        file_tree_set_budget(more, &budget);
        for (uint32_t i = 0; r >= 0; i++) {
                char path[32];

                (void) snprintf(path, sizeof(path), "%u", i);
                r = file_tree_add(more, path, FILE_REGULAR, NULL, false, 0600, &node, &err);
        }
        assert_error(r, -ENOBUFS, err);
        more = file_tree_free(more);
        assert_int_equal(budget.used, after);
        taken = file_tree_free(taken);
        assert_int_equal(budget.used, 0);
}

static void assert_text(const FileTree *t, const char *path, const char *want)
{
        uint32_t node;

        assert_int_equal(file_tree_find(t, path, true, &node), 0);
        assert_non_null(file_tree_data(t, node, NULL));
        assert_string_equal(file_tree_data(t, node, NULL), want);
}

static void assert_find(const FileTree *t, const char *path, int want)
{
        uint32_t node;

        assert_int_equal(file_tree_find(t, path, true, &node), want);
}

static void done(Tar *layers, size_t n)
{
        for (size_t i = 0; i < n; i++)
                tar_donep(&layers[i]);
}

/* image-spec layer.md, "Changeset over existing files", "Whiteouts", "Opaque Whiteout" */
static void test_merge(void **state)
{
        _cleanup_(file_tree_freep) FileTree *t = NULL;
        Tar l[3] = {};
        uint32_t node;

        tar_dir(&l[0], "./");
        tar_file(&l[0], "./etc/passwd", "root:x:0:0::/:/bin/sh\n", 0644);
        tar_file(&l[0], "./etc/group", "old", 0644);
        tar_file(&l[0], "./a/deep/passwd", "a", 0644);
        tar_file(&l[0], "./gone/x/passwd", "x", 0644);
        tar_file(&l[0], "./opaque/passwd", "hidden", 0644);
        tar_file(&l[0], "./dir/below", "", 0644);
        tar_symlink(&l[0], "./link", "etc");
        tar_file(&l[0], "./file", "", 0644);

        tar_file(&l[1], "etc/group", "new", 0644);
        tar_file(&l[1], ".wh.gone", "", 0);
        tar_file(&l[1], "opaque/group", "kept", 0644);
        tar_file(&l[1], "opaque/.wh..wh..opq", "", 0);
        tar_file(&l[1], "a/.wh.deep", "", 0);
        tar_file(&l[1], "a/deep/group", "again", 0644);
        tar_file(&l[1], "dir", "now a file", 0644);
        tar_file(&l[1], ".wh..wh.plnk", "", 0);
        tar_file(&l[1], "link/passwd", "in a real directory", 0644);

        tar_dir(&l[2], "file");
        tar_file(&l[2], "gone/passwd", "back", 0644);
        tar_file(&l[2], "etc/.wh.passwd", "", 0);
        tar_symlink(&l[2], "opaque", "/etc");

        t = merge(l, 3);
        assert_text(t, "etc/group", "new");
        assert_find(t, "/etc/passwd", -ENOENT);
        assert_find(t, "/gone/x", -ENOENT);
        assert_text(t, "gone/passwd", "back");
        assert_find(t, "/a/deep/passwd", -ENOENT);
        assert_text(t, "/a/deep/group", "again");
        assert_text(t, "/opaque/group", "new");
        assert_find(t, "/dir/below", -ENOTDIR);
        assert_find(t, "/.wh..wh.plnk", -ENOENT);
        /* The directory that "link/passwd" needed hides the symlink. */
        assert_text(t, "/link/passwd", "in a real directory");
        assert_find(t, "/link/group", -ENOENT);
        assert_int_equal(file_tree_find(t, "file/..//./file", false, &node), 0);
        assert_int_equal(file_tree_type(t, node), FILE_DIRECTORY);
        done(l, 3);
}

static void test_links(void **state)
{
        _cleanup_(file_tree_freep) FileTree *t = NULL;
        _cleanup_free_ char *path = NULL;
        Tar l[3] = {};
        uint32_t node;

        tar_symlink(&l[0], "bin", "usr/bin");
        tar_file(&l[0], "usr/bin/dash", "", 0755);
        tar_symlink(&l[0], "usr/bin/sh", "/etc/alternatives/sh");
        /* Below a symlink of the same layer. */
        tar_file(&l[0], "bin/true", "", 0755);
        tar_file(&l[0], "ostree/objects/4f.file", "NAME=X\nID=x\n", 0644);
        tar_hardlink(&l[0], "usr/lib/os-release", "ostree/objects/4f.file");
        tar_hardlink(&l[0], "usr/lib/absolute", "/ostree/objects/4f.file");
        tar_symlink(&l[0], "etc/loop", "loop2");
        tar_symlink(&l[0], "etc/loop2", "../etc/loop");
        tar_symlink(&l[0], "etc/self", ".");

        tar_symlink(&l[1], "etc/alternatives/sh", "/bin/dash");
        tar_symlink(&l[1], "etc/os-release", "../usr/lib/os-release");
        tar_symlink(&l[1], "up", "../../../../etc");
        tar_hardlink(&l[1], "usr/lib/lower", "ostree/objects/4f.file");

        /* A link in the middle of the chain moves. */
        tar_symlink(&l[2], "etc/alternatives/sh", "../../usr/local/bash");
        tar_file(&l[2], "usr/local/bash", "", 0755);

        t = merge(l, 2);
        assert_int_equal(file_tree_find(t, "/bin/sh", true, &node), 0);
        path = file_tree_path(t, node);
        assert_string_equal(path, "/usr/bin/dash");
        assert_find(t, "/usr/bin/true", 0);
        assert_text(t, "/etc/os-release", "NAME=X\nID=x\n");
        assert_text(t, "/usr/lib/absolute", "NAME=X\nID=x\n");
        assert_find(t, "/usr/lib/lower", 0);
        assert_find(t, "/etc/loop", -ELOOP);
        assert_find(t, "/etc/self/self/self/os-release", 0);
        assert_text(t, "/up/os-release", "NAME=X\nID=x\n");
        assert_int_equal(file_tree_find(t, "/etc/loop", false, &node), 0);
        assert_string_equal(file_tree_link(t, node), "loop2");
        file_tree_free(TAKE_PTR(t));

        t = merge(l, 3);
        free(path);
        assert_int_equal(file_tree_find(t, "/bin/sh", true, &node), 0);
        path = file_tree_path(t, node);
        assert_string_equal(path, "/usr/local/bash");
        done(l, 3);
}

static void refuse(Tar *t, int code)
{
        TbError *err = NULL;
        LayerScan *s = NULL;

        tar_end(t);
        assert_error(scan(t, NULL, &s, &err), code, err);
        tar_donep(t);
        *t = (Tar){};
}

static void test_refused(void **state)
{
        Tar t = {};
        char name[300];

        tar_file(&t, "/etc/passwd", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, "../etc/passwd", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, "etc/../../passwd", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, "a", "", 0644);
        tar_file(&t, "./a", "", 0644);
        refuse(&t, -EBADMSG);
        tar_dir(&t, "a");
        tar_symlink(&t, "a", "b");
        refuse(&t, -EBADMSG);
        tar_file(&t, "a", "", 0644);
        tar_file(&t, "a/b", "", 0644);
        refuse(&t, -EBADMSG);
        tar_symlink(&t, "a", "nowhere");
        tar_file(&t, "a/b", "", 0644);
        refuse(&t, -EBADMSG);
        tar_symlink(&t, "a", "a");
        tar_file(&t, "a/b", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, ".", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, "x/.wh.", "", 0644);
        refuse(&t, -EBADMSG);
        tar_file(&t, "x/.wh...", "", 0644);
        refuse(&t, -EBADMSG);
        tar_dir(&t, "d");
        tar_hardlink(&t, "e", "d");
        refuse(&t, -EBADMSG);
        tar_hardlink(&t, "e", "../d");
        refuse(&t, -EBADMSG);

        memset(name, 'n', sizeof(name));
        name[256] = 0;
        tar_special(&t, 'L', name, 257);
        tar_file(&t, "x", "", 0644);
        refuse(&t, -ENAMETOOLONG);
        {
                char *path = malloc(5000);

                assert_non_null(path);
                for (size_t i = 0; i < 5000; i++)
                        path[i] = i % 2 ? '/' : 'a';
                tar_special(&t, 'L', path, 5000);
                tar_file(&t, "x", "", 0644);
                refuse(&t, -ENAMETOOLONG);
                free(path);
        }
        (void) tar_append(&t, "not a tar", 9);
        refuse(&t, -EBADMSG);
}

static void test_limits(void **state)
{
        LayerLimits files = layer_limits_default, names = layer_limits_default, size = layer_limits_default;
        _cleanup_tar_ Tar t = {}, bomb = {}, packed = {};
        LayerScan *s = NULL;
        TbError *err = NULL;
        uLongf packed_size;

        for (unsigned i = 0; i < 1000; i++) {
                char name[32];

                (void) snprintf(name, sizeof(name), "d%u/file", i);
                tar_file(&t, name, "", 0644);
        }
        tar_end(&t);
        assert_ok(scan(&t, NULL, &s, &err), err);
        assert_int_equal(file_tree_count(layer_scan_tree(s)), 2001);
        s = layer_scan_free(s);
        files.files_max = 2000;
        assert_error(scan(&t, &files, &s, &err), -E2BIG, err);
        names.names_max = 5000;
        assert_error(scan(&t, &names, &s, &err), -E2BIG, err);
        size.unpacked_max = t.size - 1;
        assert_error(scan(&t, &size, &s, &err), -EFBIG, err);

        /* 300 MiB of zeros that gzip packs 1000 times: a layer that no one made of files. */
        (void) tar_header(&bomb, "zeros", '0', "", 300U << 20, 0644);
        packed.data = calloc(1, 1U << 20);
        assert_non_null(packed.data);
        {
                z_stream z = {};
                static unsigned char zeros[1U << 20];

                assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
                z.next_out = packed.data;
                z.avail_out = 1U << 20;
                z.next_in = bomb.data;
                z.avail_in = (unsigned) bomb.size;
                assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
                for (size_t i = 0; i < 300; i++) {
                        z.next_in = zeros;
                        z.avail_in = sizeof(zeros);
                        assert_int_equal(deflate(&z, i == 299 ? Z_FINISH : Z_NO_FLUSH),
                                i == 299 ? Z_STREAM_END : Z_OK);
                }
                packed_size = z.total_out;
                deflateEnd(&z);
        }
        packed.size = packed_size;
        assert_error(scan(&packed, NULL, &s, &err), -EFBIG, err);
}

static void test_diff_id(void **state)
{
        _cleanup_(layer_scan_freep) LayerScan *s = NULL;
        _cleanup_error_ TbError *ok = NULL;
        _cleanup_tar_ Tar t = {};
        TbError *err = NULL;
        TbDigest right, wrong;

        tar_file(&t, "a", "b", 0644);
        tar_end(&t);
        assert_ok(tb_digest_of(t.data, t.size, &right, &ok), ok);
        assert_ok(tb_digest_of("", 0, &wrong, &ok), ok);
        for (size_t i = 0; i < 2; i++) {
                assert_ok(layer_scan_new(NULL, &s, &ok), ok);
                for (size_t n = 0; n < t.size; n += 100)
                        assert_ok(layer_scan_feed(s, t.data + n, t.size - n < 100 ? t.size - n : 100, &ok),
                                ok);
                if (i == 0)
                        assert_ok(layer_scan_finish(s, &right, &ok), ok);
                else
                        assert_error(layer_scan_finish(s, &wrong, &err), -EBADMSG, err);
                assert_int_equal(layer_scan_unpacked(s), t.size);
                s = layer_scan_free(s);
        }
}

typedef struct DistroCase {
        const char *file, *text, *file2, *text2;
        const char *distro, *version;
} DistroCase;

static void test_distros(void **state)
{
        static const DistroCase cases[] = {
                {"usr/lib/os-release",
                        "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
                        "etc/debian_version", "12.5\n", "debian", "12"},
                {"usr/lib/os-release", "ID=debian\n", "etc/debian_version", "trixie/sid\n", "debian", "sid"},
                {"etc/debian_version", "8.11\n", NULL, NULL, "debian", "8.11"},
                {"etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=16.04\n", "etc/os-release",
                        "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"16.04\"\n", "ubuntu", "16.04"},
                {"etc/os-release", "ID=alpine\nVERSION_ID=3.19.1\n", "etc/alpine-release", "3.19.1\n",
                        "alpine", "3.19.1"},
                {"etc/alpine-release", "2.7.9\n", NULL, NULL, "alpine", "2.7.9"},
                {"etc/os-release", "ID=\"centos\"\nVERSION_ID=\"7\"\nID_LIKE='rhel fedora'\n",
                        "etc/centos-release", "CentOS Linux release 7.9.2009 (Core)\n", "centos",
                        "7.9.2009"},
                {"etc/redhat-release", "CentOS release 6.10 (Final)\n", NULL, NULL, "centos", "6.10"},
                {"etc/redhat-release", "Red Hat Enterprise Linux Server release 6.8 (Santiago)\n", NULL,
                        NULL, "rhel", "6.8"},
                {"etc/os-release", "ID=fedora\nVERSION_ID=39\n", "etc/fedora-release",
                        "Fedora release 39 (Thirty Nine)\n", "fedora", "39"},
                {"etc/os-release", "ID=\"almalinux\"\nVERSION_ID=\"9.3\"\n", "etc/redhat-release",
                        "AlmaLinux release 9.3 (Shamrock Pampas Cat)\n", "almalinux", "9.3"},
                {"etc/os-release", "ID=\"amzn\"\nVERSION_ID=\"2023\"\n", "etc/system-release",
                        "Amazon Linux release 2023 (Amazon Linux)\n", "amzn", "2023"},
                {"etc/os-release", "# ID=no\nID=first\nID=arch # rolling\nVERSION_ID=\n", NULL, NULL, "arch",
                        NULL},
                {"etc/os-release", "ID=\"a b\"\nVERSION_ID=\"\x01\"\n", NULL, NULL, NULL, NULL},
                {"nix/store/abc-os-release", "ID=nixos\nVERSION_ID=\"23.11\"\n", "etc/os-release", NULL,
                        "nixos", "23.11"},
                {"bin/busybox", "", NULL, NULL, NULL, NULL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(image_files_freep) ImageFiles *f = NULL, *again = NULL;
                _cleanup_(file_tree_freep) FileTree *t = NULL;
                _cleanup_error_ TbError *err = NULL;
                _cleanup_json_ json_t *j = NULL, *k = NULL;
                Tar l = {};

                tar_file(&l, cases[i].file, cases[i].text, 0644);
                if (cases[i].text2)
                        tar_file(&l, cases[i].file2, cases[i].text2, 0644);
                else if (cases[i].file2)
                        tar_symlink(&l, cases[i].file2, "/nix/store/abc-os-release");
                t = merge(&l, 1);
                assert_ok(image_files_collect(t, l.size, &f, &err), err);
                if (!tb_streq(f->distro, cases[i].distro) || !tb_streq(f->version, cases[i].version))
                        fail_msg("case %zu: %s %s", i, f->distro ?: "-", f->version ?: "-");
                assert_ok(image_files_to_json(f, &j, &err), err);
                assert_ok(image_files_from_json(j, &again, &err), err);
                assert_ok(image_files_to_json(again, &k, &err), err);
                assert_true(json_equal(j, k));
                tar_donep(&l);
        }
}

static void test_programs(void **state)
{
        _cleanup_(image_files_freep) ImageFiles *f = NULL;
        _cleanup_(file_tree_freep) FileTree *t = NULL;
        _cleanup_error_ TbError *err = NULL;
        Tar l = {};

        tar_symlink(&l, "bin", "usr/bin");
        tar_symlink(&l, "lib64", "usr/lib64");
        tar_symlink(&l, "sbin", "usr/sbin");
        tar_symlink(&l, "var/run", "/run");
        tar_dir(&l, "lib");
        tar_symlink(&l, "usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld.so");
        tar_file(&l, "usr/lib/x86_64-linux-gnu/ld.so", "", 0755);
        tar_file(&l, "usr/bin/dash", "", 0755);
        tar_symlink(&l, "usr/bin/sh", "dash");
        tar_file(&l, "usr/bin/bash", "", 0644); /* not executable */
        tar_file(&l, "usr/bin/apt-get", "", 0755);
        tar_file(&l, "usr/bin/perl", "", 0755);
        tar_symlink(&l, "usr/sbin/init", "/lib/systemd/systemd");
        tar_file(&l, "lib/systemd/systemd", "", 0755);
        tar_file(&l, "usr/sbin/sshd", "", 0755);
        tar_file(&l, "etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0644);
        tar_symlink(&l, "tbnode", "/nowhere");
        t = merge(&l, 1);
        assert_ok(image_files_collect(t, l.size, &f, &err), err);
        assert_int_equal(f->libc, IMAGE_LIBC_GLIBC);
        assert_int_equal(f->packages, IMAGE_PACKAGES_APT);
        assert_string_equal(f->shell, "/usr/bin/dash");
        assert_string_equal(f->init, "/lib/systemd/systemd");
        assert_string_equal(f->sshd, "/usr/sbin/sshd");
        assert_null(f->syslog);
        assert_false(f->has_bash);
        assert_true(f->has_perl && f->has_passwd && f->usrmerge && f->has_root);
        assert_false(f->has_group);
        assert_true(tb_strv_contains(f->links, "/var/run") && tb_strv_contains(f->links, "/bin"));
        assert_false(tb_strv_contains(f->links, "/lib"));
        tar_donep(&l);
}

static void test_scratch(void **state)
{
        _cleanup_(image_files_freep) ImageFiles *f = NULL;
        _cleanup_(file_tree_freep) FileTree *t = NULL;
        _cleanup_error_ TbError *err = NULL;
        Tar l = {};

        tar_file(&l, "hello",
                "\x7f"
                "ELF",
                0755);
        t = merge(&l, 1);
        assert_ok(image_files_collect(t, l.size, &f, &err), err);
        assert_null(f->distro);
        assert_null(f->shell);
        assert_int_equal(f->libc, IMAGE_LIBC_NONE);
        assert_int_equal(f->packages, IMAGE_PACKAGES_NONE);
        assert_int_equal(f->n_files, 1);
        assert_false(f->has_root || f->usrmerge || f->has_passwd);
        tar_donep(&l);
}

/* What a mount on /tbnode leaves in a snapshot of a node is not in the way; anything in it is. */
static void test_empty_root(void **state)
{
        for (int i = 0; i < 2; i++) {
                _cleanup_(image_files_freep) ImageFiles *f = NULL;
                _cleanup_(file_tree_freep) FileTree *t = NULL;
                _cleanup_error_ TbError *err = NULL;
                Tar l = {};

                tar_dir(&l, "tbnode");
                if (i > 0)
                        tar_file(&l, "tbnode/x", "", 0644);
                t = merge(&l, 1);
                assert_ok(image_files_collect(t, l.size, &f, &err), err);
                assert_int_equal(f->has_root, i > 0);
                tar_donep(&l);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_take_is_apply),
                cmocka_unit_test(test_blocks_and_budget),
                cmocka_unit_test(test_merge),
                cmocka_unit_test(test_links),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_diff_id),
                cmocka_unit_test(test_distros),
                cmocka_unit_test(test_programs),
                cmocka_unit_test(test_scratch),
                cmocka_unit_test(test_empty_root),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
