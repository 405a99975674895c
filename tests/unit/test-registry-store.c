/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Places and what lies in files: OCI layouts and docker-archives, well made and hostile. skopeo, umoci and the engine judge the
 * well made ones in tests/engine/test_registry_copy.py. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/test.h"

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/copy.h"

#undef assert_error

/* ---- places ---- */

#define WITH_DIGEST \
        "docker-archive:x:y@sha256:0000000000000000000000000000000000000000000000000000000000000000"

static void test_places(void **state)
{
        static const struct {
                const char *text, *shown;
                RegistryPlaceKind kind;
        } good[] = {
                {"nginx", "docker.io/library/nginx:latest", REGISTRY_PLACE_REGISTRY},
                {"docker://127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", REGISTRY_PLACE_REGISTRY},
                {"oci:/tmp/x", "oci:/tmp/x", REGISTRY_PLACE_OCI_LAYOUT},
                {"oci:x:1.2", "oci:x:1.2", REGISTRY_PLACE_OCI_LAYOUT},
                {"oci:x:docker.io/library/nginx:1", "oci:x:docker.io/library/nginx:1",
                        REGISTRY_PLACE_OCI_LAYOUT},
                {"docker-archive:a.tar", "docker-archive:a.tar", REGISTRY_PLACE_DOCKER_ARCHIVE},
                {"docker-archive:a.tar:x", "docker-archive:a.tar:docker.io/library/x:latest",
                        REGISTRY_PLACE_DOCKER_ARCHIVE},
        };
        static const char *const bad[] = {"", "oci:", "oci::x", "oci:x:", "oci:x:a b", "oci:x:\xff",
                "docker-archive:", "docker-archive:x:UPPER", "docker://", "docker-archive:x:", WITH_DIGEST};

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_(registry_place_freep) RegistryPlace *p = NULL;
                _cleanup_free_ char *shown = NULL;

                assert_int_equal(registry_place_parse(good[i].text, &p, NULL), 0);
                assert_int_equal(p->kind, good[i].kind);
                shown = registry_place_to_string(p);
                assert_string_equal(shown, good[i].shown);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(registry_place_freep) RegistryPlace *p = NULL;
                _cleanup_error_ TbError *e = NULL;

                if (registry_place_parse(bad[i], &p, &e) != -EINVAL)
                        fail_msg("\"%s\" was taken for a place", bad[i]);
                assert_non_null(e);
        }
}

/* ---- archives ---- */

typedef struct Tar {
        TbBuffer b;
} Tar;

static void add_block(Tar *t, const char *name, char type, const char *link, const void *data, size_t size)
{
        unsigned char h[512];
        static const char zeros[512];
        unsigned sum = 0;

        registry_tar_header(h, name, size);
        h[156] = (unsigned char) type;
        if (link)
                memcpy(h + 157, link, strlen(link));
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
                sum += h[i];
        snprintf((char *) h + 148, 8, "%06o", sum);
        assert_int_equal(tb_buffer_append(&t->b, h, 512, NULL), 0);
        assert_int_equal(tb_buffer_append(&t->b, data, size, NULL), 0);
        assert_int_equal(tb_buffer_append(&t->b, zeros, (512 - size % 512) % 512, NULL), 0);
}

static void add(Tar *t, const char *name, const void *data, size_t size)
{
        add_block(t, name, '0', NULL, data, size);
}

static void add_text(Tar *t, const char *name, const char *text)
{
        add(t, name, text, strlen(text));
}

static int tar_fd(const Tar *t, size_t size)
{
        int fd = memfd_create("tar", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(tb_write_all(fd, t->b.data, MIN2(size, t->b.size), NULL), 0);
        return fd;
}

/* An archive as an image: a file's name. */
static char *tar_path(int fd)
{
        return tb_asprintf("/proc/self/fd/%d", fd);
}

#define LAYER "the bytes of a layer, which nobody unpacks here"

static void layer_digest(TbDigest *ret)
{
        assert_int_equal(tb_digest_of(LAYER, strlen(LAYER), ret, NULL), 0);
}

static char *config_text(const char *diff_id)
{
        TbDigest d;

        layer_digest(&d);
        return tb_asprintf("{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\","
                           "\"diff_ids\":[\"%s\"]}}",
                diff_id ? diff_id : d.text);
}

static int open_tar(const Tar *t, size_t size, const char *name, RegistryStore **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_close_ int fd = tar_fd(t, size);
        _cleanup_free_ char *path = tar_path(fd);

        if (name)
                assert_int_equal(registry_ref_parse(name, &ref, NULL), 0);
        return registry_archive_open(path, ref, false, ret, err);
}

#define LIST "[{\"Config\":\"c.json\",\"RepoTags\":[\"x:1\",\"other/y:2\"],\"Layers\":[\"l.tar\"]}]"

static void good_tar(Tar *t)
{
        _cleanup_free_ char *config = config_text(NULL);

        add_text(t, "c.json", config);
        add_text(t, "./l.tar", LAYER);
        add_text(t, "manifest.json", LIST);
}

static void test_archive(void **state)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        RegistryRegion region;
        char buf[64] = "";
        TbDigest d;
        Tar t = {0};

        good_tar(&t);
        layer_digest(&d);
        /* without the zero blocks at the end it is complete all the same */
        assert_int_equal(open_tar(&t, SIZE_MAX, "other/y:2", &s, NULL), 0);
        assert_int_equal(s->ops->get_manifest(s, NULL, &m, NULL), 0);
        assert_int_equal(m->kind, REGISTRY_DOCKER_MANIFEST);
        assert_int_equal(m->n_layers, 1);
        assert_string_equal(m->layers[0].digest.text, d.text);
        assert_int_equal(s->ops->open_blob(s, m->layers, &region, NULL), 0);
        assert_int_equal(region.size, strlen(LAYER));
        assert_int_equal(pread(region.fd, buf, region.size, (off_t) region.offset), (ssize_t) region.size);
        assert_string_equal(buf, LAYER);
        close(region.fd);
        tb_buffer_done(&t.b);
}

static void refused(const Tar *t, size_t size, int code, const char *why)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r = open_tar(t, size, NULL, &s, &e);

        if (r != code || !strstr(tb_error_message(e), why))
                fail_msg("%d \"%s\", expected %d \"%s\"", r, tb_error_message(e), code, why);
}

static void test_archive_truncated(void **state)
{
        Tar t = {0};

        good_tar(&t);
        for (size_t n = 0; n + 1 < t.b.size - 512; n += 37) {
                _cleanup_(registry_store_freep) RegistryStore *s = NULL;
                _cleanup_error_ TbError *e = NULL;

                assert_true(open_tar(&t, n, NULL, &s, &e) < 0);
                assert_non_null(e);
        }
        tb_buffer_done(&t.b);
}

/* Ways of naming what is not there, twice there, or elsewhere. */
static void test_archive_hostile(void **state)
{
        static const struct {
                const char *list;
                int code;
                const char *why;
        } lists[] = {
                {"", -EINVAL, "manifest.json"},
                {"{}", -EPROTO, "list"},
                {"[]", -ENOENT, "no image"},
                {"[1]", -EINVAL, "object"},
                {"[{}]", -EPROTO, "Config"},
                {"[{\"Config\":\"/etc/passwd\",\"Layers\":[\"l.tar\"]}]", -ENOENT, "/etc/passwd"},
                {"[{\"Config\":\"../c.json\",\"Layers\":[\"l.tar\"]}]", -ENOENT, "../c.json"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"../../etc/passwd\"]}]", -ENOENT, "layer 1"},
                {"[{\"Config\":\"c.json\",\"Layers\":[]}]", -EBADMSG, "0 layers"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"l.tar\",\"l.tar\"]}]", -EBADMSG, "2 layers"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"gone.tar\"]}]", -ENOENT, "gone.tar"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"twice\"]}]", -EBADMSG, "two files"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"out\"]}]", -EBADMSG, "leads out"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"absolute\"]}]", -EBADMSG, "leads out"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"round\"]}]", -ELOOP, "too many links"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"device\"]}]", -EBADMSG, "not a plain file"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"folder\"]}]", -ENOENT, "folder"},
                {"[{\"Config\":\"l.tar\",\"Layers\":[\"l.tar\"]}]", -EINVAL, "configuration"},
                {"[{\"Config\":\"c.json\",\"Layers\":[\"l.tar\"]},{\"Config\":\"c.json\",\"Layers\":[\"l."
                 "tar\"]}]",
                        -EINVAL, "several images"},
        };

        for (size_t i = 0; i < ELEMENTSOF(lists); i++) {
                _cleanup_free_ char *config = config_text(NULL);
                Tar t = {0};

                add_text(&t, "c.json", config);
                add_text(&t, "l.tar", LAYER);
                add_text(&t, "twice", LAYER);
                add_text(&t, "./twice", "something else");
                add_block(&t, "out", '2', "../../etc/passwd", NULL, 0);
                add_block(&t, "absolute", '2', "/l.tar", NULL, 0);
                add_block(&t, "round", '2', "round", NULL, 0);
                add_block(&t, "device", '3', NULL, NULL, 0);
                add_block(&t, "folder", '5', NULL, NULL, 0);
                add_text(&t, "manifest.json", lists[i].list);
                refused(&t, SIZE_MAX, lists[i].code, lists[i].why);
                tb_buffer_done(&t.b);
        }
}

static void test_archive_links(void **state)
{
        static const char *const names[] = {
                "abc/layer.tar", "hard.tar", "l.tar", "deep/er/up.tar", "../l.tar"};

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_(registry_store_freep) RegistryStore *s = NULL;
                _cleanup_free_ char *config = config_text(NULL);
                char list[256];
                Tar t = {0};

                snprintf(list, sizeof(list),
                        "[{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[\"%s\"]}]", names[i]);
                add_block(&t, "abc/layer.tar", '2', "../l.tar", NULL, 0); /* as docker save writes it */
                add_block(&t, "hard.tar", '1', "l.tar", NULL, 0);
                add_block(&t, "deep/er/up.tar", '2', "./../../abc//layer.tar", NULL, 0);
                add_text(&t, "c.json", config);
                add_text(&t, "l.tar", LAYER);
                add_text(&t, "manifest.json", list);
                assert_int_equal(open_tar(&t, SIZE_MAX, NULL, &s, NULL), i == 4 ? -ENOENT : 0);
                tb_buffer_done(&t.b);
        }
}

/* A compressed layer must unpack to its diff_id. (Plain ones are looked at while they are copied.) */
static void test_archive_compressed_layer(void **state)
{
        /* printf LAYER | gzip -n */
        static const char not_it[] = "\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"; /* of nothing */
        _cleanup_free_ char *config = config_text(NULL);
        Tar t = {0}, cut = {0};

        add_text(&t, "c.json", config);
        add(&t, "l.tar", not_it, sizeof(not_it) - 1);
        add_text(&t, "manifest.json", LIST);
        refused(&t, SIZE_MAX, -EBADMSG, "unpacks to sha256:e3b0c44298fc");
        add_text(&cut, "c.json", config);
        add(&cut, "l.tar", not_it, sizeof(not_it) - 4);
        add_text(&cut, "manifest.json", LIST);
        refused(&cut, SIZE_MAX, -EBADMSG, "layer 1");
        tb_buffer_done(&t.b);
        tb_buffer_done(&cut.b);
}

static void test_tar_headers(void **state)
{
        _cleanup_(registry_tar_freep) RegistryTar *tar = NULL;
        static const char pax[] = "21 path=a/long/name\n11 size=11\n", longname[] = "gnu/long/name";
        uint64_t offset, size;
        Tar t = {0};
        int fd;

        add_block(&t, "x", 'x', NULL, pax, 20);
        add(&t, "short", "one", 3);
        add_block(&t, "././@LongLink", 'L', NULL, longname, sizeof(longname));
        add(&t, "short", "two", 3);
        add_block(&t, "g", 'g', NULL, "not looked at", 13);
        add(&t, "/absolute", "three", 5);
        add(&t, "a/../up", "four", 4);
        add(&t, "./dots/./and//slashes/", "five", 4);
        fd = tar_fd(&t, SIZE_MAX);
        assert_int_equal(registry_tar_open(fd, t.b.size, &tar, NULL), -EBADMSG); /* 20 cuts the record */
        tb_buffer_done(&t.b);
        close(fd);

        t = (Tar){0};
        add_block(&t, "x", 'x', NULL, "20 path=a/long/name\n", 20);
        add(&t, "short", "one", 3);
        add_block(&t, "././@LongLink", 'L', NULL, longname, sizeof(longname));
        add(&t, "short", "two", 3);
        add_block(&t, "g", 'g', NULL, "not looked at", 13);
        add(&t, "/absolute", "three", 5);
        add(&t, "a/../up", "four", 4);
        add(&t, "./dots/./and//slashes/", "five", 4);
        fd = tar_fd(&t, SIZE_MAX);
        assert_int_equal(registry_tar_open(fd, t.b.size, &tar, NULL), 0);
        assert_int_equal(registry_tar_find(tar, "a/long/name", &offset, &size, NULL), 0);
        assert_memory_equal(t.b.data + offset, "one", 3);
        assert_int_equal(registry_tar_find(tar, "gnu/long/name", &offset, &size, NULL), 0);
        assert_memory_equal(t.b.data + offset, "two", 3);
        assert_int_equal(registry_tar_find(tar, "dots/and/slashes", &offset, &size, NULL), 0);
        assert_int_equal(size, 4);
        assert_int_equal(registry_tar_find(tar, "short", &offset, &size, NULL), -ENOENT);
        assert_int_equal(registry_tar_find(tar, "/absolute", &offset, &size, NULL), -ENOENT);
        assert_int_equal(registry_tar_find(tar, "absolute", &offset, &size, NULL), -ENOENT);
        assert_int_equal(registry_tar_find(tar, "up", &offset, &size, NULL), -ENOENT);
        tb_buffer_done(&t.b);
        close(fd);
}

static void test_tar_writes_large_sizes(void **state)
{
        unsigned char h[512];

        registry_tar_header(h, "x", (1ULL << 33) - 1);
        assert_memory_equal(h + 124, "77777777777", 12);
        registry_tar_header(h, "x", 1ULL << 33);
        assert_memory_equal(h + 124, "\x80\0\0\0\0\0\0\2\0\0\0\0", 12);
}

/* ---- layouts ---- */

#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ENTRY(digest, name)                                                                       \
        "{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST "\",\"size\":2,\"digest\":\"" digest "\"," \
        "\"annotations\":{\"org.opencontainers.image.ref.name\":\"" name "\"}}"

static void test_layout_index(void **state)
{
        static const char two[] = "{\"schemaVersion\":2,\"own\":1,\"manifests\":[" ENTRY(
                DIGEST_A, "a") "," ENTRY(DIGEST_B, "b") "]}";
        static const char clash[] =
                "{\"schemaVersion\":2,\"manifests\":[" ENTRY(DIGEST_A, "a") "," ENTRY(DIGEST_B, "a") "]}";
        static const char same[] =
                "{\"schemaVersion\":2,\"manifests\":[" ENTRY(DIGEST_A, "a") "," ENTRY(DIGEST_A, "b") "]}";
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0}, e = {0}, g = {0};
        _cleanup_free_ char *text = NULL, *again = NULL;
        size_t size;

        assert_int_equal(registry_layout_select(two, strlen(two), "b", &d, NULL), 0);
        assert_string_equal(d.digest.text, DIGEST_B);
        assert_int_equal(registry_layout_select(two, strlen(two), "c", &e, NULL), -ENOENT);
        assert_int_equal(registry_layout_select(two, strlen(two), NULL, &e, NULL), -EINVAL);
        assert_int_equal(registry_layout_select(clash, strlen(clash), "a", &e, NULL), -EBADMSG);
        assert_int_equal(registry_layout_select(same, strlen(same), NULL, &e, NULL), 0);
        assert_int_equal(registry_layout_select("[]", 2, NULL, &g, NULL), -EPROTO);

        assert_int_equal(
                registry_manifest_parse(two, strlen(two), REGISTRY_TYPE_OCI_INDEX, NULL, &m, NULL), 0);
        assert_int_equal(registry_layout_add(two, strlen(two), "a", m, &text, &size, NULL), 0);
        assert_non_null(strstr(text, "\"own\":1")); /* others' fields stay */
        assert_non_null(strstr(text, DIGEST_B));
        assert_null(strstr(text, DIGEST_A)); /* the name has moved */
        assert_int_equal(registry_layout_select(text, size, "a", &g, NULL), 0);
        assert_string_equal(g.digest.text, m->digest.text);
        assert_int_equal(registry_layout_add(NULL, 0, NULL, m, &again, &size, NULL), 0);
        assert_non_null(strstr(again, m->digest.text));
}

/* Files that are not what they seem. */
static void test_layout_hostile(void **state)
{
        _cleanup_free_ char *dir = NULL, *path = NULL, *blob = NULL, *index = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        RegistryStore *s = NULL;
        RegistryRegion region;
        RegistryDescriptor d = {.size = 3};
        _cleanup_error_ TbError *e = NULL;

        assert_int_equal(tb_mkdtemp("/tmp/test-store-XXXXXX", &dir, NULL), 0);
        path = tb_asprintf("%s/layout", dir);
        assert_int_equal(registry_layout_open(dir, NULL, &s, &e), -ENOENT); /* no layout */
        assert_int_equal(registry_layout_create(path, "x", &s, NULL), 0);
        s = registry_store_free(s);
        assert_int_equal(registry_layout_open(path, "x", &s, NULL), 0);
        assert_int_equal(s->ops->get_manifest(s, NULL, &m, NULL), -ENOENT); /* no index.json */

        /* a blob that is a link to a secret, a directory, or a pipe nobody writes to */
        assert_int_equal(tb_digest_of("abc", 3, &d.digest, NULL), 0);
        blob = tb_asprintf("%s/blobs/sha256/%s", path, tb_digest_hex(&d.digest));
        assert_int_equal(symlink("/etc/passwd", blob), 0);
        assert_int_equal(s->ops->open_blob(s, &d, &region, NULL), -ELOOP);
        assert_int_equal(s->ops->has_blob(s, &d, NULL), 0);
        assert_int_equal(unlink(blob), 0);
        assert_int_equal(mkdir(blob, 0755), 0);
        assert_int_equal(s->ops->open_blob(s, &d, &region, NULL), -EBADMSG);
        assert_int_equal(rmdir(blob), 0);
        assert_int_equal(mkfifo(blob, 0644), 0);
        assert_int_equal(s->ops->open_blob(s, &d, &region, NULL), -EBADMSG);
        assert_int_equal(unlink(blob), 0);
        /* of the right size, but other content */
        assert_int_equal(tb_file_write_atomic(blob, "abd", 3, 0644, NULL), 0);
        assert_int_equal(s->ops->has_blob(s, &d, NULL), 0);
        assert_int_equal(tb_file_write_atomic(blob, "abc", 3, 0644, NULL), 0);
        assert_int_equal(s->ops->has_blob(s, &d, NULL), 1);

        index = tb_asprintf("%s/index.json", path);
        assert_int_equal(symlink("/etc/passwd", index), 0);
        assert_int_equal(s->ops->get_manifest(s, NULL, &m, NULL), -ELOOP);
        registry_store_free(s);
        assert_int_equal(tb_rm_rf(dir, NULL), 0);
}

/* ---- the tap's unpacking ---- */

typedef struct Seen {
        TbBuffer data;
        unsigned begins, ends;
} Seen;

static int on_begin(const RegistryDescriptor *layer, void *userdata, TbError **err)
{
        Seen *seen = userdata;

        seen->begins++;
        tb_buffer_done(&seen->data);
        seen->data = TB_BUFFER_INIT(0);
        return 0;
}

static int on_data(
        const RegistryDescriptor *layer, const void *data, size_t size, void *userdata, TbError **err)
{
        return tb_buffer_append(&((Seen *) userdata)->data, data, size, err);
}

static int on_end(const RegistryDescriptor *layer, RegistryCopyHow how, void *userdata, TbError **err)
{
        ((Seen *) userdata)->ends++;
        return 0;
}

static void test_tap_unpacks(void **state)
{
        static const char packed[] = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\x28"
                                     "\x49\x2c\x00\x00\x89\xd4\xd2\x6e\x09\x00\x00\x00";
        const size_t size = sizeof(packed) - 1;
        Seen seen = {0};
        const RegistryCopyTap tap = {
                .begin = on_begin, .data = on_data, .end = on_end, .userdata = &seen, .unpacked = true};
        const RegistryDescriptor layer = {.size = size};
        CopyTap t = {.tap = &tap, .layer = &layer};
        _cleanup_error_ TbError *e = NULL;

        /* it breaks off, comes again from the beginning in single bytes, and is complete */
        assert_int_equal(copy_tap_data(&t, packed, size / 2, NULL), 0);
        copy_tap_restart(&t);
        for (size_t i = 0; i < size; i++)
                assert_int_equal(copy_tap_data(&t, packed + i, 1, NULL), 0);
        assert_int_equal(copy_tap_end(&t, REGISTRY_COPY_STREAMED, NULL), 0);
        assert_int_equal(seen.begins, 2);
        assert_int_equal(seen.ends, 1);
        assert_int_equal(seen.data.size, 9);
        assert_memory_equal(seen.data.data, "hello tap", 9);
        /* a layer that ends too early is not whole, although its digest was right */
        copy_tap_restart(&t);
        assert_int_equal(copy_tap_data(&t, packed, size - 1, NULL), 0);
        assert_int_equal(copy_tap_end(&t, REGISTRY_COPY_STREAMED, &e), -EBADMSG);
        assert_int_equal(seen.ends, 1);
        copy_tap_restart(&t);
        tb_buffer_done(&seen.data);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_places),
                cmocka_unit_test(test_archive),
                cmocka_unit_test(test_archive_truncated),
                cmocka_unit_test(test_archive_hostile),
                cmocka_unit_test(test_archive_links),
                cmocka_unit_test(test_archive_compressed_layer),
                cmocka_unit_test(test_tar_headers),
                cmocka_unit_test(test_tar_writes_large_sizes),
                cmocka_unit_test(test_layout_index),
                cmocka_unit_test(test_layout_hostile),
                cmocka_unit_test(test_tap_unpacks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
