/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/declaration.h"
#include "agent/request-body.h"
#include "agent/run-spec.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/fw.h"
#include "netctl/shape-rule.h"

void run_spec_done(RunSpec *s)
{
        augment_request_done(&s->augment);
        free(s->node);
        free(s->experiment);
        free(s->container);
        tb_strv_free(s->networks);
        free(s->shape);
        free(s->firewall);
        tb_strv_free(s->ssh_keys);
        tb_strv_free(s->env);
        tb_strv_free(s->volumes);
        tb_strv_free(s->publish);
        free(s->user);
        free(s->workdir);
        free(s->entrypoint);
        tb_strv_free(s->cmd);
        json_decref(s->declare);
        *s = (RunSpec){};
}

static int take_list(const json_t *body, const char *key, char ***ret, TbError **err)
{
        int r;

        r = tb_json_get_strv(body, key, ret, err);
        if (r < 0)
                return r;
        if (tb_strv_length(*ret) > RUN_LIST_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "%s has more than %u entries", key, RUN_LIST_MAX);
        for (char **i = *ret; i && *i; i++)
                if (strlen(*i) > REQUEST_TEXT_MAX)
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -EINVAL, "an entry of %s is too long", key);
        return 0;
}

static int check_known(const json_t *body, TbError **err)
{
        static const char *const known[] = {"image", "level", "builder", "platform", "project", "update",
                "policy", "auths", "name", "experiment", "networks", "shape", "firewall", "on_exit",
                "ssh_keys", "env", "volumes", "publish", "user", "workdir", "entrypoint", "cmd", "declare",
                "cpus", "memory", "pids", NULL};

        return request_body_check_members(body, known, err);
}

/* What only the client can do needs an image that has it. */
static int take_declaration(const json_t *body, RunSpec *s, TbError **err)
{
        const json_t *declare = json_object_get(body, "declare");
        int r;

        if (!declare || json_is_null(declare))
                return 0;
        r = declaration_check(declare, &s->declare, err);
        if (r >= 0)
                r = declaration_check_sources(s->declare, err);
        if (r < 0)
                return r;
        if (declaration_needs_client(s->declare) && s->augment.level < AUGMENT_LEVEL_CORE) {
                s->augment.level = AUGMENT_LEVEL_CORE;
                s->level_raised = true;
        }
        return 0;
}

/* "docker.io/library/nginx:1.25" -> "nginx-3fa2" */
static int make_name(RunSpec *s, TbError **err)
{
        const char *base = strrchr(s->augment.image, '/');
        char text[48];
        uint16_t random;
        size_t n = 0;

        base = base ? base + 1 : s->augment.image;
        for (; *base && *base != ':' && *base != '@' && n < 40; base++)
                if ((*base >= 'a' && *base <= 'z') || (*base >= '0' && *base <= '9') ||
                        (n > 0 && *base == '-'))
                        text[n++] = *base;
        text[n] = 0;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make up a name");
        s->node = tb_asprintf("%s%s%04x", n > 0 ? text : "node", "-", random);
        return s->node ? 0 : tb_error_oom(err);
}

static int parse_names(const json_t *body, RunSpec *s, TbError **err)
{
        int r;

        r = request_body_take_string(body, "name", &s->node, err);
        if (r >= 0)
                r = request_body_take_string(body, "experiment", &s->experiment, err);
        if (r >= 0 && !s->node)
                r = make_name(s, err);
        if (r >= 0)
                r = node_name_check("name", s->node, err);
        if (r >= 0 && s->experiment)
                r = node_name_check("experiment", s->experiment, err);
        if (r < 0)
                return r;
        s->container = s->experiment ? tb_asprintf("%s.%s", s->experiment, s->node) : strdup(s->node);
        return s->container ? 0 : tb_error_oom(err);
}

static int parse_links(const json_t *body, const Config *config, RunSpec *s, TbError **err)
{
        _cleanup_free_ char *on_exit = NULL;
        _cleanup_link_shape_ LinkShape shape = {};
        _cleanup_fw_rules_ FwRules rules = {};
        FwStyle style;
        int r;

        r = take_list(body, "networks", &s->networks, err);
        if (r >= 0)
                r = request_body_take_string(body, "shape", &s->shape, err);
        if (r >= 0)
                r = request_body_take_string(body, "firewall", &s->firewall, err);
        if (r >= 0)
                r = request_body_take_string(body, "on_exit", &on_exit, err);
        for (char **n = s->networks; r >= 0 && n && *n; n++) {
                r = node_name_check("network", *n, err);
                if (r >= 0 && tb_streq(*n, config->control_network))
                        r = tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "network %s is the control network, which every node has", *n);
                for (char **m = s->networks; r >= 0 && m < n; m++)
                        if (tb_streq(*m, *n))
                                r = tb_error_set(
                                        err, TB_ERROR_CONFIG, -EINVAL, "network %s is given twice", *n);
        }
        if (r >= 0 && s->shape) {
                r = link_shape_parse_complete(s->shape, &shape, err);
                if (r < 0)
                        (void) tb_error_prefix(err, "shape");
        }
        if (r < 0)
                return r;
        if (s->shape && !s->networks)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "a shape is for experiment networks, and none is given; add --network NAME");
        if (s->firewall) {
                r = fw_firewall_parse(s->firewall, &style, &rules, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "firewall");
                        return r;
                }
        }
        s->on_exit = on_exit ? node_on_exit_from_string(on_exit) : NODE_ON_EXIT_STAY;
        if (s->on_exit < 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "there is no such on-exit policy; use stay, stop or restart");
        return 0;
}

int run_spec_check_keys(char *const *keys, TbError **err)
{
        for (; keys && *keys; keys++)
                for (const char *c = *keys; *c; c++)
                        if ((unsigned char) *c < 0x20 && *c != '\t')
                                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                        "an ssh key has control characters in it");
        return 0;
}

static int check_volumes(char *const *volumes, TbError **err)
{
        for (; volumes && *volumes; volumes++) {
                const char *target = strchr(*volumes, ':');

                if (!target || target == *volumes || target[1] != '/')
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "volume '%s' is not SOURCE:/TARGET[:OPTIONS]", *volumes);
                if (tb_startswith(target + 1, "/tbnode"))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "volume '%s': /tbnode belongs to tbnode", *volumes);
        }
        return 0;
}

int run_spec_parse(const json_t *body, const Config *config, RunSpec *ret, TbError **err)
{
        _cleanup_run_spec_ RunSpec s = {};
        int r;

        r = check_known(body, err);
        if (r >= 0)
                r = request_body_take_augment(body, config, &s.augment, err);
        if (r >= 0)
                r = augment_request_for_host(&s.augment, err);
        if (r >= 0)
                r = parse_names(body, &s, err);
        if (r >= 0)
                r = parse_links(body, config, &s, err);
        if (r >= 0)
                r = take_list(body, "ssh_keys", &s.ssh_keys, err);
        if (r >= 0)
                r = run_spec_check_keys(s.ssh_keys, err);
        if (r >= 0)
                r = take_list(body, "env", &s.env, err);
        if (r >= 0)
                r = take_list(body, "volumes", &s.volumes, err);
        if (r >= 0)
                r = check_volumes(s.volumes, err);
        if (r >= 0)
                r = take_list(body, "publish", &s.publish, err);
        if (r >= 0)
                r = request_body_take_string(body, "user", &s.user, err);
        if (r >= 0)
                r = request_body_take_string(body, "workdir", &s.workdir, err);
        if (r >= 0)
                r = request_body_take_string(body, "entrypoint", &s.entrypoint, err);
        if (r >= 0)
                r = take_list(body, "cmd", &s.cmd, err);
        if (r >= 0)
                r = run_limits_parse(body, &s.limits, err);
        if (r >= 0)
                r = take_declaration(body, &s, err);
        if (r < 0)
                return r;
        *ret = s;
        s = (RunSpec){};
        return 0;
}

char *run_spec_authorized_keys(const RunSpec *s)
{
        _cleanup_free_ char *lines = tb_strv_join(s->ssh_keys ?: (char *[]){NULL}, "\n");

        return lines ? tb_asprintf("%s%s", lines, lines[0] ? "\n" : "") : NULL;
}
