/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-backend.h"
#include "netctl/fw-rules.h"

/* Between the files of the iptables back end. */

#define FW_TABLES_MAX 3

/* errno of libiptc, translated. */
int fw_iptables_error(const XtFamily *family, XtTable table, const char *what, TbError **err);

/* FwBackend.read: fw-iptables-read.c */
int fw_iptables_read(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err);
