/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Platforms "os/architecture[/variant]", in Go's words (image-spec, image-index.md "platform"). */

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define PART_MAX 32U

static bool part_valid(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > PART_MAX)
                return false;
        return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* containerd's platforms.normalizeArch(): the names people and uname(2) use for what Go calls otherwise. */
static const struct {
        const char *name, *architecture, *variant;
} aliases[] = {
        {"x86_64", "amd64", NULL},
        {"x86-64", "amd64", NULL},
        {"i386", "386", NULL},
        {"i686", "386", NULL},
        {"aarch64", "arm64", NULL},
        {"armhf", "arm", "v7"},
        {"armel", "arm", "v6"},
        {"armv7l", "arm", "v7"},
        {"armv6l", "arm", "v6"},
        {"mips64el", "mips64le", NULL},
};

int registry_platform_init(
        RegistryPlatform *ret, const char *os, const char *architecture, const char *variant, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform p = {0};

        for (size_t i = 0; i < ELEMENTSOF(aliases); i++)
                if (tb_streq(architecture, aliases[i].name)) {
                        architecture = aliases[i].architecture;
                        if (!variant)
                                variant = aliases[i].variant;
                        break;
                }
        if (tb_streq(architecture, "arm64") && (tb_streq(variant, "v8") || tb_streq(variant, "8")))
                variant = NULL; /* the only arm64 there is, unless a higher one is named */
        if (tb_streq(architecture, "arm") && !variant)
                variant = "v7";

        p.os = strdup(os);
        p.architecture = strdup(architecture);
        p.variant = variant ? strdup(variant) : NULL;
        if (!p.os || !p.architecture || (variant && !p.variant))
                return tb_error_oom(err);
        *ret = p;
        p = (RegistryPlatform){0};
        return 0;
}

int registry_platform_parse(const char *s, RegistryPlatform *ret, TbError **err)
{
        _cleanup_free_ char *copy = NULL;
        char *architecture, *variant = NULL;

        if (strlen(s) > 3 * PART_MAX)
                goto bad;
        copy = strdup(s);
        if (!copy)
                return tb_error_oom(err);
        for (char *p = copy; *p; p++)
                if (*p >= 'A' && *p <= 'Z')
                        *p = (char) (*p - 'A' + 'a');
        architecture = strchr(copy, '/');
        if (!architecture)
                goto bad;
        *architecture++ = 0;
        variant = strchr(architecture, '/');
        if (variant)
                *variant++ = 0;
        if (!part_valid(copy) || !part_valid(architecture) || (variant && !part_valid(variant)))
                goto bad;
        return registry_platform_init(ret, copy, architecture, variant, err);

bad : {
        _cleanup_free_ char *shown = tb_escape(s, 60);

        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "platform \"%s\" is not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT; write for example "
                "linux/amd64",
                shown ? shown : "?");
}
}

int registry_platform_host(RegistryPlatform *ret, TbError **err)
{
        struct utsname u;

        if (uname(&u) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot find out the machine's architecture");
        return registry_platform_init(ret, "linux", u.machine, NULL, err);
}

char *registry_platform_to_string(const RegistryPlatform *p)
{
        return tb_asprintf("%s/%s%s%s", p->os ? p->os : "unknown",
                p->architecture ? p->architecture : "unknown", p->variant ? "/" : "",
                p->variant ? p->variant : "");
}

void registry_platform_done(RegistryPlatform *p)
{
        free(p->os);
        free(p->architecture);
        free(p->variant);
        *p = (RegistryPlatform){0};
}

/* "v7" -> 7; 0 when it is not of that form. */
static int variant_number(const char *v)
{
        if (!v || v[0] != 'v' || v[1] < '1' || v[1] > '9' || v[2] != 0)
                return 0;
        return v[1] - '0';
}

unsigned registry_platform_match(const RegistryPlatform *have, const RegistryPlatform *want)
{
        int h, w;

        if (!tb_streq(have->os, want->os) || !tb_streq(have->architecture, want->architecture))
                return 0;
        if (tb_streq(have->variant, want->variant))
                return 100;
        if (!have->variant)
                return 10; /* says nothing against it */
        h = variant_number(have->variant);
        w = variant_number(want->variant);
        if (tb_streq(want->architecture, "arm"))
                return h > 0 && h < w ? 20U + (unsigned) h : 0;
        if (tb_streq(want->architecture,
                    "amd64")) /* v1 is the base line; without a wish higher ones might not run */
                return h > 0 && h <= MAX2(w, 1) ? 20U + (unsigned) h : 0;
        return h > 0 && w > h ? 20U + (unsigned) h : 0;
}
