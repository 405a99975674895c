/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode keys: who may log in to a node that is served from outside; and files of keys. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

#define KEY_FILE_MAX (256U * 1024)

static int add_line(json_t *body, const char *line, TbError **err)
{
        json_t *list = json_object_get(body, "ssh_keys");

        if (!list) {
                list = json_array();
                if (json_object_set_new(body, "ssh_keys", list) < 0)
                        return tb_error_oom(err);
        }
        if (json_array_append_new(list, json_string(line)) < 0)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "the key '%s' is not valid UTF-8 text", line);
        return 0;
}

int cli_add_keys(json_t *body, const char *path, TbError **err)
{
        _cleanup_free_ char *public_path = NULL, *data = NULL;
        char *save = NULL;
        int r;

        if (!tb_endswith(path, ".pub")) {
                public_path = tb_asprintf("%s.pub", path);
                if (!public_path)
                        return tb_error_oom(err);
                if (access(public_path, R_OK) >= 0)
                        path = public_path;
        }
        r = tb_file_read(path, KEY_FILE_MAX, &data, NULL, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "cannot read the ssh key");
                return r;
        }
        if (strstr(data, "PRIVATE KEY"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s is a private key; give the public one (it ends in .pub)", path);
        for (char *line = strtok_r(data, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
                if (line[0] == 0 || line[0] == '#')
                        continue;
                r = add_line(body, line, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int set(Cli *c, const char *node, char **files)
{
        _cleanup_json_ json_t *body = json_object();
        TbError *err = NULL;
        int r = body ? 0 : tb_error_oom(&err);

        for (char **f = files; r >= 0 && *f; f++)
                r = cli_add_keys(body, *f, &err);
        if (r >= 0 && !json_object_get(body, "ssh_keys"))
                r = tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL,
                        "there is no key in %s; nobody could log in any more", files[0]);
        return r < 0 ? cli_fail(err) : cli_node_change(c, "PUT", node, "/ssh-keys", body);
}

static int show(Cli *c, const char *node)
{
        _cleanup_free_ char *path = cli_node_path(node, "");
        _cleanup_json_ json_t *answer = NULL, *keys = NULL;
        TbError *err = NULL;
        int r;

        r = path ? cli_call(c, "GET", path, NULL, &answer, &err) : tb_error_oom(&err);
        if (r >= 0 && c->json) {
                keys = json_pack("{s:s, s:O?, s:O?}", "node", cli_text(answer, "node", ""), "ssh_keys",
                        json_object_get(answer, "ssh_keys"), "changed",
                        json_object_get(answer, "ssh_keys_changed"));
                r = keys ? cli_print_json(keys, &err) : tb_error_oom(&err);
        } else if (r >= 0 && cli_text(answer, "ssh_keys", NULL))
                printf("%s\n", cli_text(answer, "ssh_keys", ""));
        return r < 0 ? cli_fail(err) : CLI_OK;
}

int cli_keys(Cli *c, int argc, char **argv)
{
        int r, n;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        argv += optind;
        n = argc - optind;
        if (n == 2 && tb_streq(argv[0], "show"))
                return show(c, argv[1]);
        if (n >= 3 && tb_streq(argv[0], "set"))
                return set(c, argv[1], argv + 2);
        if (n == 2 && tb_streq(argv[0], "clear"))
                return cli_node_change(c, "DELETE", argv[1], "/ssh-keys", NULL);
        return cli_usage(c, "show NODE, set NODE FILE..., or clear NODE is expected");
}
