/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * What a burst of work left behind is given back once it is over
 *
 * The daemon works in bursts (its own start, the start of an experiment) and then waits, for days. Two kinds of memory stay
 * resident after a burst without being used:
 *
 * - free blocks of the heap that lie below one in use: malloc_trim(3);
 * - pages of programs and libraries that ran once. The dynamic linker reads the symbol tables of each of some forty libraries
 *   (libcurl and libmicrohttpd bring Kerberos, LDAP, SSH, PKCS#11, ... of which nothing is ever called), and the kernel maps
 *   sixteen pages for each that is touched. They are taken out of our page tables with MADV_DONTNEED; which is no I/O, and
 *   loses nothing: they are clean pages of files, they stay in the page cache as long as the host has room, and one that is
 *   used again costs a minor fault of about a microsecond. What the host gains is small as long as others map the same
 *   libraries; what is exact is the resident set, which then is what the daemon uses, not what it was linked with.
 *
 * Only segments that can't be written to: what the linker relocated stays, and so does everything of a library with
 * relocations in its text. Not under a debugger, whose breakpoints are written into such pages.
 */

/* Something was done: some seconds after the last call of this, memory is given back, once. */
void memory_touch(Manager *m);
void memory_stop(Manager *m);
