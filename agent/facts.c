/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/facts.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

void container_facts_done(ContainerFacts *f)
{
        free(f->name);
        free(f->image);
        free(f->node_dir);
        free(f->network_mode);
        for (size_t i = 0; i < f->n_endpoints; i++) {
                free(f->endpoints[i].network);
                free(f->endpoints[i].network_id);
        }
        free(f->endpoints);
        json_decref(f->labels);
        *f = (ContainerFacts){};
}

bool container_id_is_valid(const char *s)
{
        return s && strlen(s) == CONTAINER_ID_LEN && strspn(s, "0123456789abcdef") == CONTAINER_ID_LEN;
}

const Endpoint *container_facts_endpoint(const ContainerFacts *f, const char *network)
{
        for (size_t i = 0; i < f->n_endpoints; i++)
                if (tb_streq(f->endpoints[i].network, network))
                        return &f->endpoints[i];
        return NULL;
}

static int get_string_copy(const json_t *obj, const char *key, char **ret, TbError **err)
{
        const char *s = NULL;
        char *copy;
        int r;

        r = tb_json_get_string(obj, key, &s, err);
        if (r < 0)
                return r;
        copy = strdup(r > 0 ? s : "");
        if (!copy)
                return tb_error_oom(err);
        *ret = copy;
        return r;
}

/* Six pairs of hex digits: ether_aton(3) also takes shorter forms, Docker never writes them. */
static bool parse_mac(const char *s, struct ether_addr *ret)
{
        static const char hex[] = "0123456789abcdef";
        struct ether_addr mac;

        if (strlen(s) != 17)
                return false;
        for (size_t i = 0; i < 6; i++) {
                const char *p = s + 3 * i;
                const char *hi = p[0] ? strchr(hex, p[0] | 0x20) : NULL;
                const char *lo = p[1] ? strchr(hex, p[1] | 0x20) : NULL;

                if (!hi || !lo || (i < 5 && p[2] != ':'))
                        return false;
                mac.ether_addr_octet[i] = (uint8_t) ((hi - hex) << 4 | (lo - hex));
        }
        *ret = mac;
        return true;
}

static int get_address(const json_t *j, const char *key, struct in_addr *ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        const char *text = NULL;
        int r;

        r = tb_json_get_string(j, key, &text, err);
        if (r <= 0 || text[0] == 0 || inet_pton(AF_INET, text, ret) == 1)
                return r;
        shown = tb_escape(text, 64);
        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "%s: '%s' is no IPv4 address", key, shown ?: "");
}

static int parse_endpoint(const char *network, const json_t *j, Endpoint *ret, TbError **err)
{
        const char *mac = NULL, *ipv6 = NULL;
        uint64_t prefix = 0;
        int r;

        r = tb_json_get_string(j, "MacAddress", &mac, err);
        if (r < 0)
                return r;
        if (r > 0 && mac[0] != 0) {
                if (!parse_mac(mac, &ret->mac)) {
                        _cleanup_free_ char *shown = tb_escape(mac, 32);
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EPROTO, "'%s' is no MAC address", shown ?: "");
                }
                ret->has_mac = true;
        }
        r = get_address(j, "IPAddress", &ret->address, err);
        if (r >= 0)
                r = get_address(j, "Gateway", &ret->gateway, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(j, "GlobalIPv6Address", &ipv6, err);
        if (r < 0)
                return r;
        ret->has_ipv6 = r > 0 && ipv6[0] != 0;
        if (ret->has_ipv6 && inet_pton(AF_INET6, ipv6, &ret->ipv6) != 1)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "GlobalIPv6Address is no IPv6 address");
        r = tb_json_get_u64(j, "IPPrefixLen", &prefix, err);
        if (r < 0)
                return r;
        if (prefix > 32)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "prefix length %lu is beyond 32",
                        (unsigned long) prefix);
        ret->prefix = (unsigned) prefix;
        r = get_string_copy(j, "NetworkID", &ret->network_id, err);
        if (r < 0)
                return r;
        ret->network = strdup(network);
        return ret->network ? 0 : tb_error_oom(err);
}

static int parse_endpoints(const json_t *networks, ContainerFacts *f, TbError **err)
{
        size_t n = json_object_size(networks);
        const char *network;
        json_t *j;
        int r;

        if (n > FACTS_ENDPOINTS_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "it has %zu networks, more than %u", n,
                        FACTS_ENDPOINTS_MAX);
        if (n == 0)
                return 0;
        f->endpoints = calloc(n, sizeof(*f->endpoints));
        if (!f->endpoints)
                return tb_error_oom(err);
        json_object_foreach ((json_t *) networks, network, j) {
                if (json_is_null(j))
                        continue;
                f->n_endpoints++; /* counted first: a half-filled one is freed, too */
                r = parse_endpoint(network, j, &f->endpoints[f->n_endpoints - 1], err);
                if (r < 0) {
                        _cleanup_free_ char *shown = tb_escape(network, 64);
                        (void) tb_error_prefix(err, "network '%s'", shown ?: "");
                        return r;
                }
        }
        return 0;
}

static int parse_state(const json_t *state, ContainerFacts *f, TbError **err)
{
        uint64_t pid = 0, code = 0;
        int r;

        r = tb_json_get_bool(state, "Running", &f->running, err);
        if (r < 0)
                return r;
        r = tb_json_get_bool(state, "Paused", &f->paused, err);
        if (r < 0)
                return r;
        r = tb_json_get_u64(state, "Pid", &pid, err);
        if (r < 0)
                return r;
        if (pid > INT32_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "its pid is %lu", (unsigned long) pid);
        f->pid = f->running ? (pid_t) pid : 0;
        r = tb_json_get_u64(state, "ExitCode", &code, err);
        if (r < 0)
                return r;
        f->exit_code = (int) (code & 0xffff);
        return 0;
}

const char *container_mount_source(const json_t *mounts, const char *target)
{
        const json_t *mount;
        size_t i;

        json_array_foreach ((json_t *) mounts, i, mount) {
                const char *source = json_string_value(json_object_get(mount, "Source"));

                if (source && source[0] == '/' &&
                        tb_streq(json_string_value(json_object_get(mount, "Destination")), target))
                        return source;
        }
        return NULL;
}

static int parse_mounts(const json_t *inspect, ContainerFacts *f, TbError **err)
{
        const char *source;
        json_t *mounts = NULL;
        int r;

        r = tb_json_get_array(inspect, "Mounts", &mounts, err);
        if (r < 0)
                return r;
        source = container_mount_source(mounts, "/tbnode/run");
        if (!source)
                return 0;
        f->node_dir = strdup(source);
        return f->node_dir ? 0 : tb_error_oom(err);
}

static int facts_fill(const json_t *inspect, ContainerFacts *f, TbError **err)
{
        json_t *state, *config, *host = NULL, *settings = NULL, *networks = NULL, *labels = NULL;
        const char *id, *name;
        int r;

        r = tb_json_get_string(inspect, "Id", &id, err);
        if (r < 0)
                return r;
        if (r == 0 || !container_id_is_valid(id))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "it has no valid Id");
        memcpy(f->id, id, CONTAINER_ID_LEN + 1);

        r = tb_json_get_string(inspect, "Name", &name, err);
        if (r < 0)
                return r;
        f->name = strdup(r == 0 ? id : name[0] == '/' ? name + 1 : name);
        if (!f->name)
                return tb_error_oom(err);

        r = tb_json_get_object(inspect, "State", &state, err);
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "it has no State");
        if (r < 0)
                return r;
        r = parse_state(state, f, err);
        if (r < 0)
                return r;

        r = tb_json_get_object(inspect, "Config", &config, err);
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "it has no Config");
        if (r < 0)
                return r;
        r = get_string_copy(config, "Image", &f->image, err);
        if (r < 0)
                return r;
        r = tb_json_get_object(config, "Labels", &labels, err);
        if (r < 0)
                return r;
        f->labels = r > 0 ? json_incref(labels) : NULL;
        r = parse_mounts(inspect, f, err);
        if (r < 0)
                return r;

        r = tb_json_get_object(inspect, "HostConfig", &host, err);
        if (r < 0)
                return r;
        r = get_string_copy(r > 0 ? host : config, "NetworkMode", &f->network_mode, err);
        if (r < 0)
                return r;

        r = tb_json_get_object(inspect, "NetworkSettings", &settings, err);
        if (r > 0)
                r = tb_json_get_object(settings, "Networks", &networks, err);
        if (r < 0)
                return r;
        return r > 0 ? parse_endpoints(networks, f, err) : 0;
}

int container_facts_parse(const json_t *inspect, ContainerFacts *ret, TbError **err)
{
        _cleanup_container_facts_ ContainerFacts f = {};
        int r;

        r = facts_fill(inspect, &f, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "the engine's description of a container is broken");
                if (r == -ENOMEM)
                        return r;
                if (err && *err)
                        (*err)->code = -EPROTO;
                return -EPROTO;
        }
        *ret = f;
        f = (ContainerFacts){};
        return 0;
}

/* Field 22 of /proc/PID/stat, counted behind the command's last ')': the command may contain anything. */
static int parse_start_time(char *stat, uint64_t *ret)
{
        char *p = strrchr(stat, ')'), *save = NULL;

        if (!p)
                return -EPROTO;
        p = strtok_r(p + 1, " ", &save); /* field 3 */
        for (unsigned field = 3; p && field < 22; field++)
                p = strtok_r(NULL, " ", &save);
        return p ? tb_parse_u64(p, 0, UINT64_MAX, ret, NULL) : -EPROTO;
}

int process_identity_read(pid_t pid, ProcessIdentity *ret, TbError **err)
{
        _cleanup_close_ int dir = -EBADF, fd = -EBADF;
        char path[32], stat_text[1024];
        struct stat st;
        ssize_t n;
        ProcessIdentity id = {.pid = pid};

        /* One descriptor for the process' directory: both reads are of the same process, or fail with ESRCH. */
        (void) snprintf(path, sizeof(path), "/proc/%d", (int) pid);
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno == ENOENT ? -ESRCH : -errno,
                        "cannot find the container's process %d", (int) pid);
        fd = openat(dir, "stat", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (n = read(fd, stat_text, sizeof(stat_text) - 1)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno == ENOENT ? -ESRCH : -errno,
                        "cannot read about the container's process %d", (int) pid);
        stat_text[n] = 0;
        if (parse_start_time(stat_text, &id.start_time) < 0)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EPROTO, "cannot read %s/stat", path);
        if (fstatat(dir, "ns/net", &st, 0) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM,
                        errno == ENOENT || errno == ESRCH ? -ESRCH : -errno,
                        "cannot see the network namespace of process %d", (int) pid);
        id.netns = st.st_ino;
        *ret = id;
        return 0;
}

bool process_identity_equal(const ProcessIdentity *a, const ProcessIdentity *b)
{
        return a->pid == b->pid && a->start_time == b->start_time && a->netns == b->netns;
}

bool process_identity_is_over(const ProcessIdentity *id)
{
        ProcessIdentity now;
        int r;

        if (id->pid == 0)
                return true;
        r = process_identity_read(id->pid, &now, NULL);
        return r >= 0 ? !process_identity_equal(&now, id) : r == -ESRCH;
}

/* libnetwork/drivers/bridge */
#define BRIDGE_PREFIX "br-"
#define BRIDGE_ID_LEN 12

void endpoint_bridge(const Endpoint *e, char ret[static IFNAMSIZ])
{
        ret[0] = '\0';
        if (tb_streq(e->network, "bridge"))
                (void) snprintf(ret, IFNAMSIZ, "docker0");
        else if (e->network_id && strlen(e->network_id) >= BRIDGE_ID_LEN)
                (void) snprintf(ret, IFNAMSIZ, BRIDGE_PREFIX "%.*s", BRIDGE_ID_LEN, e->network_id);
}
