/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The shell scripts of this folder without their comments, made into C by embed when the tree is built. @NEEDED@ and
 * @WANTED@ stand where lists of packages go. */

extern const char packages_script_apt[];
extern const char packages_script_apk[];
extern const char packages_script_rpm[];
