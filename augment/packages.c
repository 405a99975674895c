/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/packages.h"
#include "augment/packages/scripts.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"

typedef struct PackageList {
        const char *needed, *wanted; /* separated by blanks */
} PackageList;

typedef struct PackageFamily {
        PackageList buildenv, full; /* full adds to buildenv */
        const char *script;         /* with @NEEDED@ and @WANTED@ */
} PackageFamily;

static const PackageFamily apt = {
        .buildenv = {"ca-certificates gcc g++ make libc6-dev patch wget sudo flex byacc git libssl-dev "
                     "libpcap-dev",
                "libtool-bin libtool libboost-dev python3 python3-dev python python-dev perl file"},
        .full = {"openssh-server rsyslog iproute2 iputils-ping net-tools less",
                "bridge-utils vlan logrotate tcpdump traceroute rsync nano psmisc tcsh zsh ksh libwww-perl"},
        .script = packages_script_apt,
};

static const PackageFamily apk = {
        .buildenv = {"ca-certificates gcc g++ make musl-dev patch wget sudo flex git",
                "byacc libtool openssl-dev libressl-dev libpcap-dev boost-dev linux-headers python3 "
                "python3-dev "
                "perl file bash"},
        .full = {"openssh rsyslog iproute2 iputils net-tools less",
                "bridge-utils bridge vlan logrotate tcpdump rsync nano psmisc tcsh zsh shadow"},
        .script = packages_script_apk,
};

static const PackageFamily rpm = {
        .buildenv = {"ca-certificates gcc gcc-c++ make glibc-devel patch sudo flex git openssl-devel",
                "wget byacc libtool libpcap-devel boost-devel python3 python3-devel python python-devel "
                "perl file tar"},
        .full = {"openssh-server rsyslog iproute iputils less",
                "net-tools bridge-utils logrotate tcpdump traceroute rsync nano psmisc tcsh zsh ksh "
                "perl-libwww-perl"},
        .script = packages_script_rpm,
};

static const PackageFamily *find_family(const ImageFiles *f)
{
        switch (f->packages) {
        case IMAGE_PACKAGES_APT:
                return &apt;
        case IMAGE_PACKAGES_APK:
                return &apk;
        case IMAGE_PACKAGES_DNF:
        case IMAGE_PACKAGES_MICRODNF:
        case IMAGE_PACKAGES_YUM:
                return &rpm;
        case IMAGE_PACKAGES_NONE:
        case IMAGE_PACKAGES_ZYPPER:
        case IMAGE_PACKAGES_PACMAN:
        case IMAGE_PACKAGES_OPKG:
        case IMAGE_PACKAGES_XBPS:
        case IMAGE_PACKAGES_EMERGE:
        case IMAGE_PACKAGES_NIX:
        case _IMAGE_PACKAGES_MAX:
        case _IMAGE_PACKAGES_INVALID:
                break;
        }
        return NULL;
}

bool augment_packages_known(const ImageFiles *files)
{
        return find_family(files) != NULL;
}

static int append_names(TbBuffer *b, const char *first, const char *second, TbError **err)
{
        return tb_buffer_printf(b, err, "%s%s%s", first, second ? " " : "", second ? second : "");
}

int augment_packages_script(const ImageFiles *files, AugmentLevel level, char **ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(64U * 1024);
        const PackageFamily *family = find_family(files);
        const PackageList *full;

        if (!family)
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "level %s installs the distribution's packages, and the image is %s%s, for which "
                        "there are "
                        "none (there are for apt, apk, dnf, microdnf and yum); use --level core",
                        augment_level_to_string(level),
                        files->distro ? files->distro : "of an unknown distribution",
                        files->packages == IMAGE_PACKAGES_NONE ? " without a package tool" : "");
        full = level == AUGMENT_LEVEL_FULL ? &family->full : NULL;
        for (const char *p = family->script; *p;) {
                size_t n = strcspn(p, "@");
                int r;

                r = tb_buffer_append(&b, p, n, err);
                p += n;
                if (r >= 0 && tb_startswith(p, "@NEEDED@"))
                        r = append_names(&b, family->buildenv.needed, full ? full->needed : NULL, err);
                else if (r >= 0 && tb_startswith(p, "@WANTED@"))
                        r = append_names(&b, family->buildenv.wanted, full ? full->wanted : NULL, err);
                if (r < 0)
                        return r;
                p += *p ? strlen("@NEEDED@") : 0;
        }
        *ret = tb_buffer_steal(&b, NULL);
        return *ret ? 0 : tb_error_oom(err);
}
