/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * A tar archive of plain files, written: POSIX.1-2017, pax, "Interchange Format"
 *
 * For the daemon, which has no other use of libarchive; that brings an XML library, ICU and a C++ run time with it, two
 * megabytes of a process that is always there. A header is ustar; what does not fit there (a name of more than 100 bytes, a
 * time before 1970) is in an extended header before it.
 */
typedef struct PaxWriter {
        int fd;        /* borrowed; blocking */
        uint64_t left; /* of the content of the entry that is being written */
        unsigned pad;  /* behind it */
} PaxWriter;

/* Starts a regular file of `size` bytes, mode 0644; the one before must be complete. `name` is no empty one. */
int pax_file(PaxWriter *w, const char *name, uint64_t size, int64_t mtime, TbError **err) _warn_unused_;
/* More of its content; -EOVERFLOW (a bug) beyond `size`. */
int pax_data(PaxWriter *w, const void *data, size_t size, TbError **err) _warn_unused_;
/* The archive's end. */
int pax_end(PaxWriter *w, TbError **err) _warn_unused_;
