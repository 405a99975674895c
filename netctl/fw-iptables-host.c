/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host has: tables, and whether bridged packets meet them. */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "netctl/fw-iptables.h"

#define NAMES_MAX 4096

static const char *const table_names[] = {[XT_FILTER] = "filter", [XT_NAT] = "nat"};

const char *fw_iptables_table_name(XtTable table)
{
        return table_names[table];
}

bool fw_iptables_exists(const XtFamily *f, XtTable table)
{
        _cleanup_free_ char *names = NULL;
        size_t n = strlen(table_names[table]);

        if (tb_file_read(f->names_path, NAMES_MAX, &names, NULL, NULL) < 0)
                return false;
        for (const char *p = names; *p; p += strcspn(p, "\n") + (p[strcspn(p, "\n")] == '\n'))
                if (strncmp(p, table_names[table], n) == 0 && (p[n] == '\n' || p[n] == '\0'))
                        return true;
        return false;
}

bool fw_iptables_available(const XtFamily *f, XtTable table)
{
        if (fw_iptables_exists(f, table))
                return true;
        struct xtc_handle *h = f->init(table_names[table]);
        if (h)
                f->free(h);
        return h != NULL;
}

static void look_at(const XtFamily *f, XtTable table, bool *ours, bool *others)
{
        struct xtc_handle *h = f->init(table_names[table]);

        for (const char *c = h ? f->first_chain(h) : NULL; c; c = f->next_chain(h)) {
                char id[FW_ID_LENGTH + 1];
                struct xt_counters counters;
                const char *policy = f->get_policy(c, &counters, h);
                if (!policy) {
                        bool mine = fw_chain_is_common(c) || fw_chain_id(c, id);
                        *ours |= mine;
                        *others |= !mine;
                        continue;
                }
                *others |= !tb_streq(policy, "ACCEPT");
                for (const void *e = f->first_rule(c, h); e; e = f->next_rule(e, h))
                        *others |= !fw_chain_is_common(f->get_target(e, h));
        }
        if (h)
                f->free(h);
}

void fw_iptables_use(bool *ret_ours, bool *ret_others)
{
        static const XtFamily *const families[] = {&xt_ipv4, &xt_ipv6};

        *ret_ours = *ret_others = false;
        for (size_t i = 0; i < ELEMENTSOF(families); i++)
                for (size_t t = 0; t < ELEMENTSOF(table_names); t++)
                        if (fw_iptables_exists(families[i], (XtTable) t))
                                look_at(families[i], (XtTable) t, ret_ours, ret_others);
}

int fw_iptables_bridge_nf(const XtFamily *f, bool enable, FwOutcome *outcome, TbError **err)
{
        const char *name = f->family == AF_INET6 ? "bridge-nf-call-ip6tables" : "bridge-nf-call-iptables";
        char value = 0;

        _cleanup_close_ int fd = open(f->bridge_nf, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: module br_netfilter is not loaded; run 'modprobe "
                        "br_netfilter'");
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot open %s", f->bridge_nf);
        if (pread(fd, &value, 1, 0) == 1 && value == '1')
                return 0;
        if (!enable)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: %s is off; run 'sysctl net.bridge.%s=1'", name, name);
        if (pwrite(fd, "1", 1, 0) != 1)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot write %s", f->bridge_nf);
        outcome->bridge_nf_enabled = true;
        outcome->sysctl_writes++;
        return 0;
}
