/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an agent sends, in pieces of every size, and what the client makes of a declaration in it. */
#include <stdlib.h>
#include <string.h>

#include "augment/client/client-apply.h"
#include "augment/client/client-hosts.h"
#include "augment/client/client-job.h"
#include "augment/client/client-link.h"
#include "augment/client/client-system.h"
#include "tests/fuzz/fuzz.h"

static const char mountinfo[] =
        "22 1 0:20 / / rw - overlay overlay rw\n30 22 8:1 / /a\\040b ro - ext4 /dev/sda rw\n";

static void use(const json_t *message)
{
        char **env = declared_environment(message), *hosts;
        Problems p = {};

        for (size_t i = 0; env && env[i]; i++)
                fuzz_assert(strchr(env[i], '=') && !strchr(env[i], '\n'));
        environment_free(env);
        hosts = hosts_edit("127.0.0.1 localhost", json_object_get(message, "hosts"), &p);
        fuzz_assert(hosts && strncmp(hosts, "127.0.0.1 localhost\n", 20) == 0);
        free(hosts);
        mounts_check(mountinfo, json_object_get(message, "mounts"), &p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        size_t piece = size > 0 ? data[0] + 1U : 1, length;
        LineReader reader = {};
        const char *line;
        json_t *message;
        char *text;
        Job job;

        for (size_t i = 0; i < size; i += piece) {
                if (line_reader_feed(&reader, (const char *) data + i, MIN2(piece, size - i)) < 0)
                        break;
                while ((line = line_reader_next(&reader, &length))) {
                        fuzz_assert(!memchr(line, '\n', length));
                        message = message_parse(line, length);
                        if (message)
                                use(message);
                        json_decref(message);
                }
        }
        line_reader_done(&reader);

        text = strndup((const char *) data, size);
        if (text && job_parse(text, &job))
                fuzz_assert(job.state > JOB_STARTING && job.state < _JOB_STATE_MAX && job.status >= 0);
        free(text);
        return 0;
}
