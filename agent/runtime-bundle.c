/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/runtime-bundle.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define DOCUMENT_MAX (16U * 1024 * 1024)
#define PID_MAX_TEXT 32U
#define LABEL_PREFIX "tbnode."
#define SSH_KEYS_LABEL "tbnode.ssh-keys"
#define PROGRAMS_TARGET "/tbnode"

static json_t *load(const char *dir, const char *name)
{
        _cleanup_free_ char *path = tb_asprintf("%s/%s", dir, name);
        json_t *j = NULL;

        if (!path || tb_json_load_file(path, DOCUMENT_MAX, &j, NULL) < 0)
                return NULL;
        return j;
}

static const char *mount_source(const json_t *spec, const char *target)
{
        const json_t *mount;
        size_t i;

        json_array_foreach (json_object_get(spec, "mounts"), i, mount)
                if (tb_streq(json_string_value(json_object_get(mount, "destination")), target))
                        return json_string_value(json_object_get(mount, "source"));
        return NULL;
}

/* Docker's directory of the container: DATA-ROOT/containers/ID. A file of the user's own mounted there instead does not end in the
 * container's id and Docker's name for it. */
static char *container_dir(const json_t *spec, const char *id)
{
        static const char *const files[] = {"hostname", "hosts", "resolv.conf"};

        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                _cleanup_free_ char *target = tb_asprintf("/etc/%s", files[i]);
                _cleanup_free_ char *tail = tb_asprintf("/containers/%s/%s", id, files[i]);
                const char *source = target ? mount_source(spec, target) : NULL;

                if (source && tail && tb_endswith(source, tail))
                        return strndup(source, strlen(source) - strlen(files[i]) - 1);
        }
        return tb_asprintf("/var/lib/docker/containers/%s", id);
}

static bool is_labelled(const json_t *labels)
{
        const char *key;
        json_t *value;

        json_object_foreach ((json_t *) labels, key, value)
                if (tb_startswith(key, LABEL_PREFIX))
                        return true;
        return false;
}

/* {NAME: {"NetworkID": ID, ...}} to {NAME: ID}. */
static json_t *networks(const json_t *docker)
{
        _cleanup_json_ json_t *out = json_object();
        const char *name;
        json_t *value;

        json_object_foreach (
                json_object_get(json_object_get(docker, "NetworkSettings"), "Networks"), name, value) {
                const char *id = json_string_value(json_object_get(value, "NetworkID"));
                if (json_object_set_new(out, name, json_string(id ?: "")) < 0)
                        return NULL;
        }
        return TAKE_PTR(out);
}

static int read_pid(const char *bundle, uint32_t *ret, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/init.pid", bundle), *text = NULL;
        size_t size;

        int r = path ? tb_file_read(path, PID_MAX_TEXT, &text, &size, err) : tb_error_oom(err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        return tb_parse_u32(text, 1, INT32_MAX, ret, err);
}

/* Is something at or below /tbnode already: a mount, or the programs in an augmented image? A directory that is empty may be what an
 * earlier start of this container has left: the place of this very mount. */
static bool has_programs(const char *bundle, const json_t *spec)
{
        const char *root = json_string_value(json_object_get(json_object_get(spec, "root"), "path"));
        _cleanup_free_ char *path = NULL;
        const json_t *mount;
        struct stat st;
        size_t i;

        json_array_foreach (json_object_get(spec, "mounts"), i, mount) {
                const char *rest = tb_startswith(
                        json_string_value(json_object_get(mount, "destination")) ?: "", PROGRAMS_TARGET);

                if (rest && (*rest == '\0' || *rest == '/'))
                        return true;
        }
        if (!root)
                return true;
        path = root[0] == '/' ? tb_asprintf("%s" PROGRAMS_TARGET "/init", root)
                              : tb_asprintf("%s/%s" PROGRAMS_TARGET "/init", bundle, root);
        return !path || lstat(path, &st) >= 0;
}

int runtime_add_programs(const char *bundle, const char *id, const char *tree, TbError **err)
{
        _cleanup_json_ json_t *spec = load(bundle, "config.json"), *docker = NULL;
        _cleanup_free_ char *dir = spec ? container_dir(spec, id) : NULL, *path = NULL, *text = NULL;
        json_t *mounts;
        struct stat st;

        docker = dir ? load(dir, "config.v2.json") : NULL;
        if (!json_is_string(json_object_get(
                    json_object_get(json_object_get(docker, "Config"), "Labels"), SSH_KEYS_LABEL)))
                return 0;
        path = tb_asprintf("%s/init", tree);
        if (!path)
                return tb_error_oom(err);
        if (has_programs(bundle, spec) || stat(path, &st) < 0)
                return 0;
        mounts = json_object_get(spec, "mounts");
        if (!json_is_array(mounts) ||
                json_array_append_new(mounts,
                        json_pack("{s:s, s:s, s:s, s:[s,s,s,s]}", "destination", PROGRAMS_TARGET, "type",
                                "bind", "source", tree, "options", "rbind", "ro", "nosuid", "nodev")) < 0)
                return tb_error_oom(err);
        free(path);
        path = tb_asprintf("%s/config.json", bundle);
        text = json_dumps(spec, JSON_COMPACT);
        if (!path || !text)
                return tb_error_oom(err);
        int r = stat(path, &st) < 0
                ? -errno
                : tb_file_write_atomic(path, text, strlen(text), st.st_mode & 07777, err);
        if (r < 0)
                tb_error_prefix(err, "cannot add the programs for ssh to the container");
        return r < 0 ? r : 1;
}

int runtime_describe(const char *bundle, const char *id, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *spec = load(bundle, "config.json"), *docker = NULL, *host = NULL, *j = NULL;
        _cleanup_free_ char *dir = spec ? container_dir(spec, id) : NULL;
        const json_t *config, *labels;
        uint32_t pid;

        docker = dir ? load(dir, "config.v2.json") : NULL;
        config = json_object_get(docker, "Config");
        labels = json_object_get(config, "Labels");
        if (!is_labelled(labels))
                return 0;
        int r = read_pid(bundle, &pid, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot learn the container's process");
                return r;
        }
        host = load(dir, "hostconfig.json");
        const char *name = json_string_value(json_object_get(docker, "Name"));
        j = json_pack("{s:i, s:s, s:i, s:s, s:O, s:o, s:s, s:s, s:s*}", "version", 1, "id", id, "pid",
                (int) pid, "name",
                !name                    ? id
                        : name[0] == '/' ? name + 1
                                         : name,
                "labels", labels, "networks", networks(docker), "network_mode",
                json_string_value(json_object_get(host, "NetworkMode")) ?: "", "image",
                json_string_value(json_object_get(config, "Image")) ?: "", "node_dir",
                mount_source(spec, "/tbnode/run"));
        if (!j)
                return tb_error_oom(err);
        *ret = TAKE_PTR(j);
        return 1;
}

/* state.json of runc has "bundle=PATH" among its labels (libcontainer), status of crun has a member. */
static char *bundle_of_state(const char *dir)
{
        _cleanup_json_ json_t *runc = load(dir, "state.json"), *crun = runc ? NULL : load(dir, "status");
        const char *path = json_string_value(json_object_get(crun, "bundle"));
        const json_t *label;
        size_t i;

        json_array_foreach (json_object_get(json_object_get(runc, "config"), "labels"), i, label)
                path = tb_startswith(json_string_value(label) ?: "", "bundle=") ?: path;
        return path && path[0] == '/' ? strdup(path) : NULL;
}

char *runtime_find_bundle(const char *root, const char *id)
{
        _cleanup_free_ char *dir = NULL;
        char here[PATH_MAX];
        const char *base;

        if (getcwd(here, sizeof(here)) && (base = strrchr(here, '/')) && tb_streq(base + 1, id))
                return strdup(here);
        dir = root ? tb_asprintf("%s/%s", root, id) : NULL;
        return dir ? bundle_of_state(dir) : NULL;
}
