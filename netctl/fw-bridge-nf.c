/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-bridge-nf.h"

#include <fcntl.h>

#include "common/cleanup.h"

#define DIRECTORY "/proc/sys/net/bridge/"

static int ensure(const char *name, bool enable, FwOutcome *outcome, TbError **err)
{
        char path[64], value = 0;

        (void) snprintf(path, sizeof(path), DIRECTORY "%s", name);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: module br_netfilter is not loaded; run 'modprobe "
                        "br_netfilter'");
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot open %s", path);
        if (pread(fd, &value, 1, 0) == 1 && value == '1')
                return 0;
        if (!enable)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: %s is off; run 'sysctl net.bridge.%s=1'", name, name);
        if (pwrite(fd, "1", 1, 0) != 1)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot write %s", path);
        outcome->bridge_nf_enabled = true;
        outcome->sysctl_writes++;
        return 0;
}

int fw_bridge_nf_ensure(bool enable, FwOutcome *outcome, TbError **err)
{
        int r = ensure("bridge-nf-call-iptables", enable, outcome, err);

        return r < 0 ? r : ensure("bridge-nf-call-ip6tables", enable, outcome, err);
}
