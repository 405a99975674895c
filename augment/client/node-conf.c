/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/client/node-conf.h"
#include "augment/client/util.h"

#define NODE_CONF_MAX (64U * 1024)

static const char *const on_exit_table[] = {
        [ON_EXIT_STAY] = "stay",
        [ON_EXIT_STOP] = "stop",
        [ON_EXIT_RESTART] = "restart",
};
static_assert(ELEMENTSOF(on_exit_table) == _ON_EXIT_MAX, "one word for each OnExit");

static int on_exit_from_string(const char *s)
{
        for (int i = 0; i < _ON_EXIT_MAX; i++)
                if (strcmp(s, on_exit_table[i]) == 0)
                        return i;
        return _ON_EXIT_INVALID;
}

static int copy_name(const char *s, char *ret)
{
        if (strlen(s) > NODE_NAME_MAX)
                return -ENAMETOOLONG;
        snprintf(ret, NODE_NAME_MAX + 1, "%s", s);
        return 0;
}

static int set_keep_home(NodeConf *c, const char *value)
{
        if (strcmp(value, "yes") == 0)
                c->keep_home = KEEP_HOME_YES;
        else if (strcmp(value, "no") == 0)
                c->keep_home = KEEP_HOME_NO;
        else
                return -EINVAL;
        return 0;
}

static int set_value(NodeConf *c, const char *key, const char *value)
{
        uint32_t port;
        int r;

        if (strcmp(key, "on-exit") == 0) {
                r = on_exit_from_string(value);
                if (r < 0)
                        return r;
                c->on_exit = (OnExit) r;
                return 0;
        }
        if (strcmp(key, "ssh-port") == 0) {
                r = parse_u32(value, 65535, &port);
                if (r < 0)
                        return r;
                if (port == 0)
                        return -ERANGE;
                c->ssh_port = port;
                return 0;
        }
        if (strcmp(key, "user") == 0) {
                snprintf(c->user, sizeof(c->user), "%s", value);
                return strlen(value) > NODE_NAME_MAX ? -ENAMETOOLONG : 0;
        }
        if (strcmp(key, "keep-home") == 0)
                return set_keep_home(c, value);
        if (strcmp(key, "node") == 0)
                return copy_name(value, c->node);
        if (strcmp(key, "experiment") == 0)
                return copy_name(value, c->experiment);
        return 0; /* written for a later init */
}

void node_conf_parse(const char *text, NodeConf *ret)
{
        char line[1024];

        *ret = (NodeConf){.on_exit = ON_EXIT_STAY, .ssh_port = 22};

        while (*text) {
                size_t n = strcspn(text, "\n");
                char *equals;

                snprintf(line, sizeof(line), "%.*s", (int) MIN2(n, sizeof(line)), text);
                text += n + (text[n] == '\n');
                if (line[0] == '\0' || line[0] == '#')
                        continue;
                equals = strchr(line, '=');
                if (equals)
                        *equals = '\0';
                if (!equals || set_value(ret, line, equals + 1) < 0 || n >= sizeof(line))
                        say("%s/node.conf: bad line \"%.100s%s%.100s\"", TBNODE_RUN_DIR, line,
                                equals ? "=" : "", equals ? equals + 1 : "");
        }
}

int node_conf_load(const char *path, NodeConf *ret)
{
        char *text = NULL;
        int r;

        r = read_text_file(path, NODE_CONF_MAX, &text, NULL);
        if (r == -ENOENT || r == -ENOTDIR)
                return 0;
        if (r < 0)
                say("%s: %s; going on with the defaults", path, strerror(-r));
        node_conf_parse(text ? text : "", ret);
        free(text);
        return 1;
}
