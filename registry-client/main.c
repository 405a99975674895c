/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "common/log.h"
#include "registry-client/tool.h"

int main(int argc, char **argv)
{
        tb_log_open("tbnode-registry");
        return tool_main(argc, argv);
}
