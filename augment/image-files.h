/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "augment/file-tree.h"
#include "common/error.h"

/*
 * What the files of an image say about it
 *
 * Read from the merged tree of all layers, never by running anything of the image: a scratch image has facts as well as
 * a distribution, and none of them can be made up by a shell that the image brings.
 *
 * The distribution is found by Emulab's rules (reference: its analyze script, in this order) and what they miss:
 * lsb-release, os-release (freedesktop.org os-release(5): /etc before /usr/lib), redhat-release and centos-release,
 * which has the full version, alpine-release, debian_version. All texts are bounded and printable; what isn't is left out.
 */

typedef enum ImageLibc {
        IMAGE_LIBC_NONE, /* static programs only */
        IMAGE_LIBC_GLIBC,
        IMAGE_LIBC_MUSL,
        IMAGE_LIBC_UCLIBC,
        _IMAGE_LIBC_MAX,
        _IMAGE_LIBC_INVALID = -EINVAL,
} ImageLibc;

typedef enum ImagePackages {
        IMAGE_PACKAGES_NONE,
        IMAGE_PACKAGES_APT,
        IMAGE_PACKAGES_APK,
        IMAGE_PACKAGES_DNF,
        IMAGE_PACKAGES_MICRODNF,
        IMAGE_PACKAGES_YUM,
        IMAGE_PACKAGES_ZYPPER,
        IMAGE_PACKAGES_PACMAN,
        IMAGE_PACKAGES_OPKG,
        IMAGE_PACKAGES_XBPS,
        IMAGE_PACKAGES_EMERGE,
        IMAGE_PACKAGES_NIX,
        _IMAGE_PACKAGES_MAX,
        _IMAGE_PACKAGES_INVALID = -EINVAL,
} ImagePackages;

const char *image_libc_to_string(ImageLibc l);
ImageLibc image_libc_from_string(const char *s);
const char *image_packages_to_string(ImagePackages p);
ImagePackages image_packages_from_string(const char *s);

typedef struct ImageFiles {
        char *distro;      /* "debian", "ubuntu", "alpine", "centos", ...; NULL = not known */
        char *distro_like; /* ID_LIKE: "rhel fedora"; NULL = none */
        char *version;     /* "12", "22.04", "3.19.1", "7.9.2009"; "sid" for a Debian without; NULL = none */
        char *codename;    /* "bookworm"; NULL = none */
        char *pretty_name;
        ImageLibc libc;
        ImagePackages packages;
        char *shell; /* the file that /bin/sh is in the end; NULL = no shell */
        bool has_bash, has_sudo, has_python, has_perl;
        bool has_passwd, has_group, has_shadow;
        char *init;    /* the file that /sbin/init is in the end; NULL = none */
        char *sshd;    /* path of an ssh server; NULL = none */
        char *syslog;  /* path of a syslog daemon; NULL = none */
        bool usrmerge; /* /bin is a symlink to usr/bin */
        char **links; /* of the hazards "/bin", "/sbin", "/lib", "/lib64", "/var/run", ...: those that are symlinks */
        bool has_root; /* there is something at AUGMENT_ROOT already */
        uint32_t *
                own; /* numbers of the layers, lowest first, that hold nothing but AUGMENT_ROOT: an augmentation's */
        size_t n_own;
        uint32_t n_files;
        uint64_t unpacked; /* bytes of all layers */
} ImageFiles;

/* `unpacked` is taken over as it is. */
int image_files_collect(const FileTree *tree, uint64_t unpacked, ImageFiles **ret, TbError **err)
        _warn_unused_;
ImageFiles *image_files_free(ImageFiles *f);
TB_DEFINE_CLEANUP(ImageFiles *, image_files_free)

/* The object that is member "files" of an image's facts. The caller owns *ret. */
int image_files_to_json(const ImageFiles *f, json_t **ret, TbError **err) _warn_unused_;
/* -EBADMSG: not what image_files_to_json() writes. */
int image_files_from_json(const json_t *j, ImageFiles **ret, TbError **err) _warn_unused_;
