/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The container of `tbnode run` in the engine's terms (POST /containers/create). */

#include <arpa/inet.h>
#include <string.h>
#include <sys/random.h>

#include "agent/key-volumes.h"
#include "agent/run-spec.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define INIT "/tbnode/init"
#define NODE_DIR_TARGET "/tbnode/run"
/*
 * What a node writes for itself lies in volumes of the container's own, so that neither `docker commit` nor `tbnode snapshot`
 * takes it along: sshd's host keys, and init's run-time directory with logs, the declared environment and who may log in
 * (augment/client/README.md). Not a tmpfs: logs stay over a restart, and do not count as the node's memory.
 */
static const char *const node_volumes[] = {"/tbnode/keys", "/run/tbnode"};
/* The programs of a node that is served from outside: outside-ssh.h */
#define PROGRAMS_TARGET "/tbnode"

static json_t *image_config(const json_t *inspect, const char *key)
{
        return json_object_get(json_object_get(inspect, "Config"), key);
}

bool run_image_is_augmented(const json_t *inspect)
{
        return tb_streq(json_string_value(json_array_get(image_config(inspect, "Entrypoint"), 0)), INIT);
}

/* PORT, HOSTPORT:PORT, IP:HOSTPORT:PORT, each with an optional /tcp, /udp or /sctp. */
static int add_port(json_t *exposed, json_t *bindings, const char *text, TbError **err)
{
        _cleanup_free_ char *copy = strdup(text), *shown = tb_escape(text, 60), *port = NULL;
        char *slash, *container, *host = NULL, *ip = NULL, *colon;
        struct in_addr in;
        uint32_t number;
        json_t *list;

        if (!copy || !shown)
                return tb_error_oom(err);
        slash = strrchr(copy, '/');
        if (slash)
                *slash++ = 0;
        container = copy;
        colon = strrchr(copy, ':');
        if (colon) {
                *colon = 0;
                container = colon + 1;
                host = copy;
                colon = strrchr(copy, ':');
                if (colon) {
                        *colon = 0;
                        host = colon + 1;
                        ip = copy;
                }
        }
        if ((slash && !tb_streq(slash, "tcp") && !tb_streq(slash, "udp") && !tb_streq(slash, "sctp")) ||
                tb_parse_u32(container, 1, 65535, &number, NULL) < 0 ||
                (host && host[0] && tb_parse_u32(host, 0, 65535, &number, NULL) < 0) ||
                (ip && inet_pton(AF_INET, ip, &in) != 1))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "'%s' is not [[IP:]HOSTPORT:]PORT[/tcp|udp|sctp]", shown);
        port = tb_asprintf("%s/%s", container, slash ?: "tcp");
        if (!port || json_object_set_new(exposed, port, json_object()) < 0)
                return tb_error_oom(err);
        list = json_object_get(bindings, port);
        if (!list) {
                list = json_array();
                if (json_object_set_new(bindings, port, list) < 0)
                        return tb_error_oom(err);
        }
        if (json_array_append_new(
                    list, json_pack("{s:s, s:s}", "HostIp", ip ?: "", "HostPort", host ?: "")) < 0)
                return tb_error_oom(err);
        return 0;
}

static bool append(json_t *a, const char *s)
{
        return json_array_append_new(a, json_string(s)) >= 0;
}

/*
 * The entrypoint of an augmented image is ["/tbnode/init", OPTIONS..., "--", ORIGINAL...]. An entrypoint of the caller's
 * must not replace init, so it is put in its place behind it.
 */
static int wrap_entrypoint(const RunSpec *s, const json_t *original, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *e = json_array();
        bool ok = e != NULL;
        json_t *value;
        size_t i;

        json_array_foreach (original, i, value) {
                if (!json_is_string(value))
                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                                "the image's entrypoint is no list of strings");
                if (tb_streq(json_string_value(value), "--"))
                        break;
                ok = ok && json_array_append(e, value) >= 0;
        }
        if (!ok || !append(e, "--") || !append(e, s->entrypoint))
                return tb_error_oom(err);
        *ret = TAKE_PTR(e);
        return 0;
}

static int add_command(const RunSpec *s, const json_t *inspect, json_t *body, TbError **err)
{
        json_t *own = NULL;
        int r;

        if (s->cmd && json_object_set_new(body, "Cmd", tb_json_from_strv(s->cmd)) < 0)
                return tb_error_oom(err);
        if (!run_image_is_augmented(inspect)) {
                if (s->user && json_object_set_new(body, "User", json_string(s->user)) < 0)
                        return tb_error_oom(err);
                if (s->entrypoint &&
                        json_object_set_new(body, "Entrypoint", json_pack("[s]", s->entrypoint)) < 0)
                        return tb_error_oom(err);
                return 0;
        }
        r = run_spec_add_user(s, inspect, body, err);
        if (r < 0 || !s->entrypoint)
                return r;
        /* With an entrypoint the engine drops the image's Cmd, as it would have for docker run. */
        r = wrap_entrypoint(s, image_config(inspect, "Entrypoint"), &own, err);
        if (r < 0)
                return r;
        return json_object_set_new(body, "Entrypoint", own) < 0 ? tb_error_oom(err) : 0;
}

/* No image's label has the same text: see outside-label.h. */
static char *make_keys_label(const RunSpec *s)
{
        _cleanup_free_ char *keys = run_spec_authorized_keys(s);
        uint64_t random;

        if (!keys || getrandom(&random, sizeof(random), 0) != sizeof(random))
                return NULL;
        return tb_asprintf("# %016llx\n%s", (unsigned long long) random, keys);
}

static int add_labels(const RunSpec *s, const json_t *inspect, bool outside, json_t *body, TbError **err)
{
        _cleanup_free_ char *keys = outside ? make_keys_label(s) : NULL;
        _cleanup_json_ json_t *l = json_object();
        int r;

        if (!l || (outside && !keys))
                return tb_error_oom(err);
        r = tb_json_set_string(l, "tbnode.node", s->node, err);
        if (r >= 0 && s->experiment)
                r = tb_json_set_string(l, "tbnode.experiment", s->experiment, err);
        if (r >= 0 && s->shape)
                r = tb_json_set_string(l, "tbnode.shape", s->shape, err);
        if (r >= 0)
                r = tb_json_set_string(l, "tbnode.on-exit", node_on_exit_to_string(s->on_exit), err);
        if (r >= 0 && s->owner != 0) {
                char owner[16];

                (void) snprintf(owner, sizeof(owner), "%u", s->owner);
                r = tb_json_set_string(l, "tbnode.owner", owner, err);
        }
        if (r >= 0 && keys)
                r = tb_json_set_string(l, "tbnode.ssh-keys", keys, err);
        else if (r >= 0 && json_object_get(image_config(inspect, "Labels"), "tbnode.ssh-keys"))
                r = tb_json_set_string(l, "tbnode.ssh-keys", "", err);
        /* Without a style a node still cannot send with somebody else's address. */
        if (r >= 0)
                r = tb_json_set_string(l, "tbnode.firewall", s->firewall ?: "open", err);
        if (r >= 0 && json_object_set(body, "Labels", l) < 0)
                r = tb_error_oom(err);
        return r;
}

/* Not binds: these fail when the source is missing, instead of making it; and take any path. */
static int add_mounts(const RunSpec *s, bool is_node, const char *programs, json_t *host, TbError **err)
{
        _cleanup_json_ json_t *list = json_array();
        const json_t *mount;
        size_t i;

        if (!list)
                return tb_error_oom(err);
        json_array_foreach (json_object_get(s->declare, "mounts"), i, mount) {
                json_t *m = json_pack("{s:s, s:O, s:O, s:b}", "Type", "bind", "Source",
                        json_object_get(mount, "source"), "Target", json_object_get(mount, "target"),
                        "ReadOnly", json_is_true(json_object_get(mount, "read_only")));

                if (!m || json_array_append_new(list, m) < 0)
                        return tb_error_oom(err);
        }
        /* NoCopy: what an image has there is another node's. */
        for (size_t v = 0; is_node && v < ELEMENTSOF(node_volumes); v++)
                if (json_array_append_new(list,
                            json_pack("{s:s, s:s, s:{s:b, s:{s:s}}}", "Type", "volume", "Target",
                                    node_volumes[v], "VolumeOptions", "NoCopy", 1, "Labels",
                                    KEY_VOLUME_LABEL, s->container)) < 0)
                        return tb_error_oom(err);
        if (programs &&
                json_array_append_new(list,
                        json_pack("{s:s, s:s, s:s, s:b}", "Type", "bind", "Source", programs, "Target",
                                PROGRAMS_TARGET, "ReadOnly", 1)) < 0)
                return tb_error_oom(err);
        return json_array_size(list) > 0 && json_object_set(host, "Mounts", list) < 0 ? tb_error_oom(err)
                                                                                      : 0;
}

static int add_host_config(const RunSpec *s, const char *control, const char *node_dir, const char *programs,
        json_t *body, TbError **err)
{
        _cleanup_json_ json_t *h = json_object(), *binds = json_array(), *exposed = json_object(),
                              *bindings = json_object();
        int r;

        if (!h || !binds || !exposed || !bindings)
                return tb_error_oom(err);
        for (char **v = s->volumes; v && *v; v++)
                if (!append(binds, *v))
                        return tb_error_oom(err);
        if (node_dir) {
                _cleanup_free_ char *bind = tb_asprintf("%s:" NODE_DIR_TARGET ":ro", node_dir);

                if (!bind || !append(binds, bind))
                        return tb_error_oom(err);
        }
        for (char **p = s->publish; p && *p; p++) {
                r = add_port(exposed, bindings, *p, err);
                if (r < 0)
                        return r;
        }
        r = add_mounts(s, node_dir, programs, h, err);
        if (r >= 0)
                r = tb_json_set_string(h, "NetworkMode", control, err);
        if (r >= 0)
                r = run_limits_add(&s->limits, h, err);
        if (r < 0)
                return r;
        if (json_object_set(h, "Binds", binds) < 0 || json_object_set(h, "PortBindings", bindings) < 0 ||
                json_object_set(body, "HostConfig", h) < 0 ||
                json_object_set(body, "ExposedPorts", exposed) < 0)
                return tb_error_oom(err);
        return 0;
}

int run_spec_container(const RunSpec *s, const char *image, const json_t *inspect,
        const char *control_network, const char *node_dir, const char *programs, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *body = json_object();
        int r;

        if (!body)
                return tb_error_oom(err);
        r = tb_json_set_string(body, "Image", image, err);
        if (r >= 0)
                r = tb_json_set_string(body, "Hostname", s->node, err);
        if (r >= 0 && s->workdir)
                r = tb_json_set_string(body, "WorkingDir", s->workdir, err);
        if (r >= 0 && s->env && json_object_set_new(body, "Env", tb_json_from_strv(s->env)) < 0)
                r = tb_error_oom(err);
        if (r >= 0)
                r = add_command(s, inspect, body, err);
        if (r >= 0)
                r = add_labels(s, inspect, programs, body, err);
        if (r >= 0)
                r = add_host_config(s, control_network, node_dir, programs, body, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(body);
        return 0;
}
