/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "augment/image-files.h"
#include "common/error.h"

/*
 * The distribution's packages that levels buildenv and full add
 *
 * Our own software comes as layers and runs anywhere; compilers and tools come from the image's own distribution, by its own
 * package tool, and so need a build with RUN. What is installed is Emulab's list (reference a.2) under the names that
 * each family has for it, in two parts: what must be there, and what is left out where a release does not have it.
 *
 * A release that has reached its end is no longer on the mirrors its image names. Which those are changes with every
 * year, so no table says it: when the mirrors fail, the build turns to the archive that the distribution keeps
 * (archive.debian.org, old-releases.ubuntu.com, vault.centos.org, archives.fedoraproject.org) and tries again. Nothing is
 * left changed in the image: the lists of mirrors are put back, caches are removed.
 */

/* There are packages for this distribution. */
bool augment_packages_known(const ImageFiles *files);
/* The commands for a POSIX shell under `set -eu`, one per line, without it. Pure: the same facts give the same text.
 * -EOPNOTSUPP: a distribution (or none) that there are no packages for. */
int augment_packages_script(const ImageFiles *files, AugmentLevel level, char **ret, TbError **err)
        _warn_unused_;
