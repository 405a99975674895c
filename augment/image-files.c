/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "augment/facts.h"
#include "augment/image-distro.h"
#include "augment/image-files.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* No image has more layers that anybody would run. */
#define IMAGE_FILES_OWN_MAX 1024u

static const char *const libc_table[] = {
        [IMAGE_LIBC_NONE] = "none",
        [IMAGE_LIBC_GLIBC] = "glibc",
        [IMAGE_LIBC_MUSL] = "musl",
        [IMAGE_LIBC_UCLIBC] = "uclibc",
};
static_assert(ELEMENTSOF(libc_table) == _IMAGE_LIBC_MAX, "one name for each ImageLibc");

static const char *const packages_table[] = {
        [IMAGE_PACKAGES_NONE] = "none",
        [IMAGE_PACKAGES_APT] = "apt",
        [IMAGE_PACKAGES_APK] = "apk",
        [IMAGE_PACKAGES_DNF] = "dnf",
        [IMAGE_PACKAGES_MICRODNF] = "microdnf",
        [IMAGE_PACKAGES_YUM] = "yum",
        [IMAGE_PACKAGES_ZYPPER] = "zypper",
        [IMAGE_PACKAGES_PACMAN] = "pacman",
        [IMAGE_PACKAGES_OPKG] = "opkg",
        [IMAGE_PACKAGES_XBPS] = "xbps",
        [IMAGE_PACKAGES_EMERGE] = "emerge",
        [IMAGE_PACKAGES_NIX] = "nix",
};
static_assert(ELEMENTSOF(packages_table) == _IMAGE_PACKAGES_MAX, "one name for each ImagePackages");

/* The program that installs packages; in the order in which one is preferred where an image has several. */
static const char *const packages_program[] = {
        [IMAGE_PACKAGES_APT] = "apt-get",
        [IMAGE_PACKAGES_APK] = "apk",
        [IMAGE_PACKAGES_DNF] = "dnf",
        [IMAGE_PACKAGES_MICRODNF] = "microdnf",
        [IMAGE_PACKAGES_YUM] = "yum",
        [IMAGE_PACKAGES_ZYPPER] = "zypper",
        [IMAGE_PACKAGES_PACMAN] = "pacman",
        [IMAGE_PACKAGES_OPKG] = "opkg",
        [IMAGE_PACKAGES_XBPS] = "xbps-install",
        [IMAGE_PACKAGES_EMERGE] = "emerge",
        [IMAGE_PACKAGES_NIX] = "nix-env",
};
static_assert(ELEMENTSOF(packages_program) == _IMAGE_PACKAGES_MAX, "one program for each ImagePackages");

const char *image_libc_to_string(ImageLibc l)
{
        return l >= 0 && l < _IMAGE_LIBC_MAX ? libc_table[l] : NULL;
}

ImageLibc image_libc_from_string(const char *s)
{
        for (int i = 0; i < _IMAGE_LIBC_MAX; i++)
                if (tb_streq(s, libc_table[i]))
                        return (ImageLibc) i;
        return _IMAGE_LIBC_INVALID;
}

const char *image_packages_to_string(ImagePackages p)
{
        return p >= 0 && p < _IMAGE_PACKAGES_MAX ? packages_table[p] : NULL;
}

ImagePackages image_packages_from_string(const char *s)
{
        for (int i = 0; i < _IMAGE_PACKAGES_MAX; i++)
                if (tb_streq(s, packages_table[i]))
                        return (ImagePackages) i;
        return _IMAGE_PACKAGES_INVALID;
}

ImageFiles *image_files_free(ImageFiles *f)
{
        if (!f)
                return NULL;
        free(f->distro);
        free(f->distro_like);
        free(f->version);
        free(f->codename);
        free(f->pretty_name);
        free(f->shell);
        free(f->init);
        free(f->sshd);
        free(f->syslog);
        tb_strv_free(f->links);
        free(f->own);
        free(f);
        return NULL;
}

/* ---- Questions to the tree ---- */

static const char *text_at(const FileTree *t, const char *path)
{
        uint32_t node;

        return file_tree_find(t, path, true, &node) == 0 ? file_tree_data(t, node, NULL) : NULL;
}

static bool exists(const FileTree *t, const char *path)
{
        uint32_t node;

        return file_tree_find(t, path, true, &node) == 0;
}

/* A regular file that somebody may execute. */
static bool find_program_at(const FileTree *t, const char *path, uint32_t *ret)
{
        return file_tree_find(t, path, true, ret) == 0 && file_tree_type(t, *ret) == FILE_REGULAR &&
                (file_tree_mode(t, *ret) & 0111);
}

#define PROGRAM_PATH_MAX 64

/* In the directories of the engines' default PATH. `ret_path`: where it was found, may be NULL. */
static bool find_program(const FileTree *t, const char *name, char ret_path[PROGRAM_PATH_MAX])
{
        static const char *const directories[] = {
                "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};

        for (size_t i = 0; i < ELEMENTSOF(directories); i++) {
                char path[PROGRAM_PATH_MAX];
                uint32_t node;

                (void) snprintf(path, sizeof(path), "%s/%s", directories[i], name);
                if (!find_program_at(t, path, &node))
                        continue;
                if (ret_path)
                        memcpy(ret_path, path, sizeof(path));
                return true;
        }
        return false;
}

/* The first of several that is there; *ret stays NULL when none is. */
static int find_one_of(const FileTree *t, const char *const *names, char **ret, TbError **err)
{
        char path[PROGRAM_PATH_MAX];

        for (; *names; names++)
                if (find_program(t, *names, path)) {
                        *ret = strdup(path);
                        return *ret ? 0 : tb_error_oom(err);
                }
        return 0;
}

/* ---- Distribution ---- */

/* Moves text into *target if it isn't set yet. */
static void set_once(char **target, char **text)
{
        if (!*target)
                *target = TAKE_PTR(*text);
        free(*text);
        *text = NULL;
}

static int variable_once(const char *data, const char *key, char **target, TbError **err)
{
        char *text = NULL;
        int r;

        if (!data || *target)
                return 0;
        r = distro_variable(data, key, &text, err);
        if (r > 0)
                set_once(target, &text);
        return r < 0 ? r : 0;
}

static int identifier_once(const char *data, const char *key, char **target, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int r;

        r = variable_once(data, key, &text, err);
        if (r < 0)
                return r;
        if (text && !*target)
                *target = distro_identifier(text);
        return 0;
}

static int collect_redhat(const FileTree *t, ImageFiles *f, TbError **err)
{
        static const char *const files[] = {
                "/etc/centos-release", "/etc/fedora-release", "/etc/redhat-release", "/etc/system-release"};

        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                const char *data = text_at(t, files[i]);
                char *id = NULL, *version = NULL;
                int r;

                r = data ? distro_redhat(data, &id, &version, err) : 0;
                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                /* centos-release has the full version, where os-release has "7". */
                if (version && tb_streq(id, "centos") && (!f->distro || tb_streq(f->distro, "centos"))) {
                        free(f->version);
                        f->version = NULL;
                }
                if (!f->distro || tb_streq(f->distro, id))
                        set_once(&f->version, &version);
                set_once(&f->distro, &id);
                free(version);
                return 0;
        }
        return 0;
}

/* Distributions that only have a file of their own. */
static int collect_version_file(
        const FileTree *t, const char *path, const char *id, ImageFiles *f, TbError **err)
{
        const char *data = text_at(t, path);
        char *version = NULL, *name;
        int r;

        if (!data || (f->distro && !tb_streq(f->distro, id)))
                return 0;
        r = distro_version_line(data, &version, err);
        if (r < 0)
                return r;
        name = strdup(id);
        if (!name) {
                free(version);
                return tb_error_oom(err);
        }
        set_once(&f->distro, &name);
        set_once(&f->version, &version);
        return 0;
}

static int collect_distro(const FileTree *t, ImageFiles *f, TbError **err)
{
        const char *lsb = text_at(t, "/etc/lsb-release");
        const char *os = text_at(t, "/etc/os-release") ?: text_at(t, "/usr/lib/os-release");
        int r;

        if ((r = identifier_once(lsb, "DISTRIB_ID", &f->distro, err)) < 0 ||
                (f->distro && (r = variable_once(lsb, "DISTRIB_RELEASE", &f->version, err)) < 0) ||
                (r = identifier_once(os, "ID", &f->distro, err)) < 0 ||
                (r = variable_once(os, "VERSION_ID", &f->version, err)) < 0 ||
                (r = variable_once(os, "ID_LIKE", &f->distro_like, err)) < 0 ||
                (r = variable_once(os, "VERSION_CODENAME", &f->codename, err)) < 0 ||
                (r = variable_once(lsb, "DISTRIB_CODENAME", &f->codename, err)) < 0 ||
                (r = variable_once(os, "PRETTY_NAME", &f->pretty_name, err)) < 0 ||
                (r = variable_once(lsb, "DISTRIB_DESCRIPTION", &f->pretty_name, err)) < 0 ||
                (r = collect_redhat(t, f, err)) < 0 ||
                (r = collect_version_file(t, "/etc/alpine-release", "alpine", f, err)) < 0 ||
                (r = collect_version_file(t, "/etc/debian_version", "debian", f, err)) < 0)
                return r;
        if (tb_streq(f->distro, "debian") && !f->version && !(f->version = strdup("sid")))
                return tb_error_oom(err);
        return 0;
}

/* ---- The rest ---- */

static ImageLibc find_libc(const FileTree *t)
{
        /* The dynamic loaders' paths are part of the ABIs: glibc sysdeps/unix/sysv/linux/<arch>/shlib-versions and ldconfig.h; musl
         * dynamic linker names. */
        static const struct {
                ImageLibc libc;
                const char *path;
        } loaders[] = {
                {IMAGE_LIBC_GLIBC, "/lib64/ld-linux-x86-64.so.2"},
                {IMAGE_LIBC_GLIBC, "/lib/ld-linux-aarch64.so.1"},
                {IMAGE_LIBC_GLIBC, "/lib/ld-linux-armhf.so.3"},
                {IMAGE_LIBC_GLIBC, "/lib/ld-linux.so.2"},
                {IMAGE_LIBC_GLIBC, "/lib64/ld64.so.2"},
                {IMAGE_LIBC_GLIBC, "/lib/ld64.so.1"},
                {IMAGE_LIBC_GLIBC, "/lib/ld-linux-riscv64-lp64d.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-x86_64.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-aarch64.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-armhf.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-armv7.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-i386.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-s390x.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-powerpc64le.so.1"},
                {IMAGE_LIBC_MUSL, "/lib/ld-musl-riscv64.so.1"},
                {IMAGE_LIBC_UCLIBC, "/lib/ld-uClibc.so.0"},
                {IMAGE_LIBC_UCLIBC, "/lib/ld-uClibc.so.1"},
                {IMAGE_LIBC_UCLIBC, "/lib/ld64-uClibc.so.0"},
        };

        for (size_t i = 0; i < ELEMENTSOF(loaders); i++)
                if (exists(t, loaders[i].path))
                        return loaders[i].libc;
        return IMAGE_LIBC_NONE;
}

static int collect_programs(const FileTree *t, ImageFiles *f, TbError **err)
{
        static const char *const sshds[] = {"sshd", "dropbear", "tinysshd", NULL};
        static const char *const syslogs[] = {"rsyslogd", "syslog-ng", "syslogd", NULL};
        uint32_t node;
        int r;

        for (int i = 1; i < _IMAGE_PACKAGES_MAX && f->packages == IMAGE_PACKAGES_NONE; i++)
                if (find_program(t, packages_program[i], NULL))
                        f->packages = (ImagePackages) i;
        if (f->packages == IMAGE_PACKAGES_NONE && exists(t, "/nix/store"))
                f->packages = IMAGE_PACKAGES_NIX;
        f->has_bash = find_program(t, "bash", NULL);
        f->has_sudo = find_program(t, "sudo", NULL);
        f->has_python = find_program(t, "python3", NULL) || find_program(t, "python", NULL);
        f->has_perl = find_program(t, "perl", NULL);
        if ((r = find_one_of(t, sshds, &f->sshd, err)) < 0 ||
                (r = find_one_of(t, syslogs, &f->syslog, err)) < 0)
                return r;
        if (find_program_at(t, "/bin/sh", &node) && !(f->shell = file_tree_path(t, node)))
                return tb_error_oom(err);
        if (find_program_at(t, "/sbin/init", &node) && !(f->init = file_tree_path(t, node)))
                return tb_error_oom(err);
        return 0;
}

static int collect_links(const FileTree *t, ImageFiles *f, TbError **err)
{
        static const char *const paths[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
                "/usr/sbin", "/var/run", "/var/lock", "/etc/mtab", "/run", "/tmp"};

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                uint32_t node;
                int r;

                if (file_tree_find(t, paths[i], false, &node) < 0 || file_tree_type(t, node) != FILE_SYMLINK)
                        continue;
                if (tb_streq(paths[i], "/bin")) {
                        const char *target = file_tree_link(t, node);

                        target += strspn(target, "/");
                        f->usrmerge = tb_streq(target, "usr/bin") || tb_streq(target, "usr/bin/");
                }
                r = tb_strv_append(&f->links, paths[i], err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int image_files_collect(const FileTree *tree, uint64_t unpacked, ImageFiles **ret, TbError **err)
{
        _cleanup_(image_files_freep) ImageFiles *f = calloc(1, sizeof(*f));
        uint32_t node;
        int r;

        if (!f)
                return tb_error_oom(err);
        if ((r = collect_distro(tree, f, err)) < 0 || (r = collect_programs(tree, f, err)) < 0 ||
                (r = collect_links(tree, f, err)) < 0)
                return r;
        f->libc = find_libc(tree);
        f->has_passwd = exists(tree, "/etc/passwd");
        f->has_group = exists(tree, "/etc/group");
        f->has_shadow = exists(tree, "/etc/shadow");
        /* Also a symlink that leads nowhere is in our way; an empty directory is not: a node at level none that had our programs
         * mounted there leaves it to its snapshots. */
        f->has_root = file_tree_find(tree, AUGMENT_ROOT, false, &node) == 0 &&
                !file_tree_is_empty_directory(tree, node);
        f->n_files = file_tree_count(tree) - 1;
        f->unpacked = unpacked;
        *ret = TAKE_PTR(f);
        return 0;
}

/* ---- JSON ---- */

typedef struct TextMember {
        const char *key;
        size_t offset;
} TextMember;

static const TextMember text_members[] = {
        {"distro", offsetof(ImageFiles, distro)},
        {"distro_like", offsetof(ImageFiles, distro_like)},
        {"version", offsetof(ImageFiles, version)},
        {"codename", offsetof(ImageFiles, codename)},
        {"pretty_name", offsetof(ImageFiles, pretty_name)},
        {"shell", offsetof(ImageFiles, shell)},
        {"init", offsetof(ImageFiles, init)},
        {"sshd", offsetof(ImageFiles, sshd)},
        {"syslog", offsetof(ImageFiles, syslog)},
};

static const TextMember bool_members[] = {
        {"bash", offsetof(ImageFiles, has_bash)},
        {"sudo", offsetof(ImageFiles, has_sudo)},
        {"python", offsetof(ImageFiles, has_python)},
        {"perl", offsetof(ImageFiles, has_perl)},
        {"passwd", offsetof(ImageFiles, has_passwd)},
        {"group", offsetof(ImageFiles, has_group)},
        {"shadow", offsetof(ImageFiles, has_shadow)},
        {"usrmerge", offsetof(ImageFiles, usrmerge)},
        {"tbnode_directory", offsetof(ImageFiles, has_root)},
};

static int set_own(json_t *j, const ImageFiles *f, TbError **err)
{
        json_t *own = json_array();

        if (!own)
                return tb_error_oom(err);
        for (size_t i = 0; i < f->n_own; i++)
                if (json_array_append_new(own, json_integer(f->own[i])) < 0) {
                        json_decref(own);
                        return tb_error_oom(err);
                }
        return tb_json_set_new(j, "tbnode_layers", own, err);
}

static int take_own(const json_t *j, ImageFiles *f, TbError **err)
{
        json_t *own = NULL, *value;
        size_t i;
        int r;

        r = tb_json_get_array(j, "tbnode_layers", &own, err);
        if (r <= 0)
                return r;
        if (json_array_size(own) > IMAGE_FILES_OWN_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "tbnode_layers is too long");
        f->own = calloc(json_array_size(own) + 1, sizeof(*f->own));
        if (!f->own)
                return tb_error_oom(err);
        json_array_foreach (own, i, value) {
                if (!json_is_integer(value) || json_integer_value(value) < 0 ||
                        json_integer_value(value) > UINT32_MAX)
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EBADMSG, "tbnode_layers[%zu] is no number", i);
                f->own[f->n_own++] = (uint32_t) json_integer_value(value);
        }
        return 0;
}

int image_files_to_json(const ImageFiles *f, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *j = json_object();
        int r;

        if (!j)
                return tb_error_oom(err);
        for (size_t i = 0; i < ELEMENTSOF(text_members); i++) {
                char *const *text =
                        (char *const *) (const void *) ((const char *) f + text_members[i].offset);

                r = tb_json_set_string(j, text_members[i].key, *text, err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < ELEMENTSOF(bool_members); i++) {
                const bool *value =
                        (const bool *) (const void *) ((const char *) f + bool_members[i].offset);

                r = tb_json_set_bool(j, bool_members[i].key, *value, err);
                if (r < 0)
                        return r;
        }
        if ((r = tb_json_set_string(j, "libc", image_libc_to_string(f->libc), err)) < 0 ||
                (r = tb_json_set_string(j, "packages", image_packages_to_string(f->packages), err)) < 0 ||
                (r = tb_json_set_new(
                         j, "links", f->links ? tb_json_from_strv(f->links) : json_array(), err)) < 0 ||
                (r = set_own(j, f, err)) < 0 || (r = tb_json_set_u64(j, "files", f->n_files, err)) < 0 ||
                (r = tb_json_set_u64(j, "unpacked", f->unpacked, err)) < 0)
                return r;
        *ret = TAKE_PTR(j);
        return 0;
}

static int members_from_json(const json_t *j, ImageFiles *f, TbError **err)
{
        for (size_t i = 0; i < ELEMENTSOF(text_members); i++) {
                char **text = (char **) (void *) ((char *) f + text_members[i].offset);
                const char *value = NULL;
                int r;

                r = tb_json_get_string(j, text_members[i].key, &value, err);
                if (r < 0)
                        return r;
                if (value && !(*text = strdup(value)))
                        return tb_error_oom(err);
        }
        for (size_t i = 0; i < ELEMENTSOF(bool_members); i++) {
                bool *value = (bool *) (void *) ((char *) f + bool_members[i].offset);
                int r = tb_json_get_bool(j, bool_members[i].key, value, err);

                if (r < 0)
                        return r;
        }
        return 0;
}

int image_files_from_json(const json_t *j, ImageFiles **ret, TbError **err)
{
        _cleanup_(image_files_freep) ImageFiles *f = calloc(1, sizeof(*f));
        const char *libc = NULL, *packages = NULL;
        uint64_t files = 0;
        int r;

        if (!f)
                return tb_error_oom(err);
        if ((r = members_from_json(j, f, err)) < 0 || (r = tb_json_get_string(j, "libc", &libc, err)) < 0 ||
                (r = tb_json_get_string(j, "packages", &packages, err)) < 0 ||
                (r = tb_json_get_strv(j, "links", &f->links, err)) < 0 || (r = take_own(j, f, err)) < 0 ||
                (r = tb_json_get_u64(j, "files", &files, err)) < 0 ||
                (r = tb_json_get_u64(j, "unpacked", &f->unpacked, err)) < 0)
                return r;
        f->libc = image_libc_from_string(libc);
        f->packages = image_packages_from_string(packages);
        if (f->libc < 0 || f->packages < 0 || files > UINT32_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the facts about the image's files are not what this version writes");
        f->n_files = (uint32_t) files;
        *ret = TAKE_PTR(f);
        return 0;
}
