/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-backend.h"
#include "netctl/fw-rules.h"

/* Between the files of the iptables back end. */

#define FW_TABLES_MAX 3

const char *fw_iptables_table_name(XtTable table);
/* Is there such a table already? (Asking for its content would make it.) */
bool fw_iptables_exists(const XtFamily *family, XtTable table);
/* ... or can it be made? */
bool fw_iptables_available(const XtFamily *family, XtTable table);
/* Bridged packets only meet iptables with this on (it is a setting of the network namespace). */
int fw_iptables_bridge_nf(const XtFamily *family, bool enable, FwOutcome *outcome, TbError **err)
        _warn_unused_;

/* errno of libiptc, translated. */
int fw_iptables_error(const XtFamily *family, XtTable table, const char *what, TbError **err);

/* FwBackend.read: fw-iptables-read.c */
int fw_iptables_read(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err);
