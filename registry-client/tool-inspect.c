/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ping and inspect: what is there. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/tool.h"

#define CONFIG_BLOB_MAX (8U * 1024 * 1024)

int tool_ping(Tool *t, char **args, TbError **err)
{
        uint64_t start = tb_now_us();
        const char *scheme;
        double ms;
        int r;

        r = registry_ping(t->client, args[0], err);
        if (r < 0) {
                t->usage = !tool_is_host(args[0]);
                return r;
        }
        ms = (double) (tb_now_us() - start) / 1000;
        scheme = registry_client_auth_scheme(t->client, args[0]);
        if (t->json)
                return tool_print_json_new(
                        json_pack("{s:s, s:s, s:f}", "host", args[0], "auth", scheme, "ms", ms), err);
        printf("%s answers (%.1f ms, authentication: %s)\n", args[0], ms, scheme);
        return 0;
}

int tool_get_image(
        Tool *t, const RegistryRef *ref, RegistryManifest **ret, RegistryManifest **ret_index, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform host = {0};
        int r;

        if (t->n_platforms == 0) {
                r = registry_platform_host(&host, err);
                if (r < 0)
                        return r;
        }
        return registry_get_image(
                t->client, ref, t->n_platforms > 0 ? t->platforms : &host, ret, ret_index, err);
}

int tool_get_config(Tool *t, const RegistryRef *ref, const RegistryManifest *m, char **ret, size_t *ret_size,
        TbError **err)
{
        if (!tb_digest_is_set(&m->config.digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -ENOENT,
                        "%s/%s: this manifest has no configuration: it is an index or an artifact",
                        ref->host, ref->repository);
        return registry_get_blob(
                t->client, ref, &m->config.digest, m->config.size, CONFIG_BLOB_MAX, ret, ret_size, err);
}

/* ---- inspect ---- */

typedef struct Inspection {
        RegistryRef *ref;
        RegistryManifest *top, *image; /* image: NULL when the index has none for us; may be top itself */
        json_t *config;                /* NULL = none, or not an image's */
        RegistryReferrers referrers;
        bool have_referrers;
} Inspection;

static void inspection_done(Inspection *i)
{
        registry_ref_free(i->ref);
        if (i->image != i->top)
                registry_manifest_free(i->image);
        registry_manifest_free(i->top);
        json_decref(i->config);
        registry_referrers_done(&i->referrers);
}

static bool config_is_readable(const RegistryManifest *m)
{
        return tb_digest_is_set(&m->config.digest) &&
                (tb_streq(m->config.media_type, REGISTRY_TYPE_OCI_CONFIG) ||
                        tb_streq(m->config.media_type, REGISTRY_TYPE_DOCKER_CONFIG));
}

/* The image behind an index: the one asked for, or, when nobody asked, this machine's if there is one. */
static int inspect_child(Tool *t, Inspection *i, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *pinned = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r;

        r = registry_ref_with(i->ref, i->ref->tag, &i->top->digest, &pinned, err);
        if (r < 0)
                return r;
        r = tool_get_image(t, pinned, &i->image, NULL, &e);
        if (r == -ENOENT && t->n_platforms == 0)
                return 0;
        return r < 0 ? tb_error_move(err, &e) : 0;
}

static int inspect_config(Tool *t, Inspection *i, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        if (!i->image || !config_is_readable(i->image))
                return 0;
        r = tool_get_config(t, i->ref, i->image, &data, &size, err);
        if (r < 0)
                return r;
        return tb_json_parse(data, size, CONFIG_BLOB_MAX, "image configuration", &i->config, err);
}

static int inspect_referrers(Tool *t, Inspection *i, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *pinned = NULL;
        int r;

        r = registry_ref_with(i->ref, NULL, &i->top->digest, &pinned, err);
        if (r < 0)
                return r;
        /* Extra knowledge: a registry that refuses this question has still told what the image is. */
        i->have_referrers = registry_list_referrers(t->client, pinned, NULL, &i->referrers, NULL) >= 0;
        return 0;
}

static uint64_t image_size(const RegistryManifest *m)
{
        uint64_t total = m->config.size;

        for (size_t i = 0; i < m->n_layers; i++)
                total += m->layers[i].size;
        return total;
}

/* What a user wants to know of a configuration, under the names it has there. */
static json_t *config_summary(const json_t *config)
{
        static const char *const outer[] = {
                "created", "author", "architecture", "variant", "os", "os.version"};
        const json_t *inner = json_object_get(config, "config");
        json_t *summary = json_object(), *value;
        const char *key;

        for (size_t i = 0; i < ELEMENTSOF(outer) && summary; i++)
                if ((value = json_object_get(config, outer[i])))
                        (void) json_object_set(summary, outer[i], value);
        json_object_foreach ((json_t *) inner, key, value)
                if (!json_is_null(value))
                        (void) json_object_set(summary, key, value);
        return summary;
}

static json_t *image_to_json(const Inspection *i)
{
        const RegistryManifest *m = i->image;
        json_t *j = json_pack("{s:s, s:s, s:I, s:o}", "digest", m->digest.text, "mediaType",
                registry_manifest_kind_to_media_type(m->kind), "size", (json_int_t) image_size(m), "layers",
                tool_descriptors_to_json(m->layers, m->n_layers));

        if (j && tb_digest_is_set(&m->config.digest))
                (void) json_object_set_new(j, "config", json_string(m->config.digest.text));
        if (j && i->config)
                (void) json_object_set_new(j, "configuration", config_summary(i->config));
        return j;
}

static int print_inspection_json(const Inspection *i, const char *name, TbError **err)
{
        const json_t *annotations = json_object_get(i->top->json, "annotations");
        json_t *j = json_pack("{s:s, s:s, s:s}", "name", name, "digest", i->top->digest.text, "mediaType",
                registry_manifest_kind_to_media_type(i->top->kind));

        if (!j)
                return tb_error_oom(err);
        if (i->top->artifact_type)
                (void) json_object_set_new(j, "artifactType", json_string(i->top->artifact_type));
        if (tb_digest_is_set(&i->top->subject.digest))
                (void) json_object_set_new(j, "subject", tool_descriptor_to_json(&i->top->subject));
        if (json_object_size(annotations) > 0)
                (void) json_object_set(j, "annotations", (json_t *) annotations);
        if (registry_manifest_is_index(i->top))
                (void) json_object_set_new(
                        j, "platforms", tool_descriptors_to_json(i->top->entries, i->top->n_entries));
        if (i->image)
                (void) json_object_set_new(j, "image", image_to_json(i));
        (void) json_object_set_new(j, "referrers",
                i->have_referrers ? json_integer((json_int_t) i->referrers.n_entries) : json_null());
        return tool_print_json_new(j, err);
}

static void print_descriptor(const char *key, const RegistryDescriptor *d)
{
        char size[TB_UNIT_TEXT_MAX];
        _cleanup_free_ char *platform = d->platform.os ? registry_platform_to_string(&d->platform) : NULL;

        tool_print_fieldf(key, "%s  %10s  %s%s", d->digest.text, tb_format_bytes(size, d->size),
                platform ? platform : d->media_type, d->attestation ? " (attestation)" : "");
}

/* ["a", "b c"] as people write it: a "b c". */
static void print_words(const char *key, const json_t *list)
{
        _cleanup_free_ char *text = NULL;
        size_t i;
        json_t *word;

        json_array_foreach (list, i, word) {
                const char *s = json_string_value(word);
                bool quote = s && (!*s || strpbrk(s, " \t\n\"'\\$;&|<>()"));
                char *longer = tb_asprintf("%s%s%s%s%s", text ? text : "", text ? " " : "",
                        quote ? "\"" : "", s ? s : "?", quote ? "\"" : "");

                if (!longer)
                        return;
                free(text);
                text = longer;
        }
        if (text)
                tool_print_field(key, text);
}

static void print_object(const char *key, const json_t *object, bool values)
{
        const char *name;
        json_t *value;

        json_object_foreach ((json_t *) object, name, value) {
                if (values)
                        tool_print_fieldf(
                                key, "%s=%s", name, json_is_string(value) ? json_string_value(value) : "?");
                else
                        tool_print_field(key, name);
                key = "";
        }
}

static void print_string(const char *key, const json_t *object, const char *name)
{
        const char *s = json_string_value(json_object_get(object, name));

        if (s && *s)
                tool_print_field(key, s);
}

static void print_config(const json_t *config)
{
        const json_t *c = json_object_get(config, "config");
        const json_t *env = json_object_get(c, "Env");
        const char *key = "Env";
        size_t i;
        json_t *value;

        print_string("Created", config, "created");
        tool_print_fieldf("Platform", "%s/%s", json_string_value(json_object_get(config, "os")) ?: "?",
                json_string_value(json_object_get(config, "architecture")) ?: "?");
        print_words("Entrypoint", json_object_get(c, "Entrypoint"));
        print_words("Cmd", json_object_get(c, "Cmd"));
        print_string("User", c, "User");
        print_string("WorkingDir", c, "WorkingDir");
        print_string("StopSignal", c, "StopSignal");
        json_array_foreach (env, i, value) {
                if (json_is_string(value))
                        tool_print_field(key, json_string_value(value));
                key = "";
        }
        print_object("Ports", json_object_get(c, "ExposedPorts"), false);
        print_object("Volumes", json_object_get(c, "Volumes"), false);
        print_object("Labels", json_object_get(c, "Labels"), true);
}

static void print_image(const Inspection *i)
{
        const RegistryManifest *m = i->image;
        char size[TB_UNIT_TEXT_MAX];

        if (m != i->top)
                tool_print_field("Image", m->digest.text);
        tool_print_fieldf("Size", "%s in %zu %s", tb_format_bytes(size, image_size(m)), m->n_layers,
                m->n_layers == 1 ? "layer" : "layers");
        for (size_t k = 0; k < m->n_layers; k++)
                print_descriptor(k == 0 ? "Layers" : "", m->layers + k);
        if (tb_digest_is_set(&m->config.digest))
                print_descriptor("Config", &m->config);
        if (i->config)
                print_config(i->config);
}

static void print_inspection(const Inspection *i, const char *name)
{
        tool_print_field("Name", name);
        tool_print_field("Digest", i->top->digest.text);
        tool_print_field("Type", registry_manifest_kind_to_media_type(i->top->kind));
        if (i->top->artifact_type)
                tool_print_field("Artifact", i->top->artifact_type);
        if (tb_digest_is_set(&i->top->subject.digest))
                print_descriptor("Subject", &i->top->subject);
        print_object("Annotations", json_object_get(i->top->json, "annotations"), true);
        for (size_t k = 0; registry_manifest_is_index(i->top) && k < i->top->n_entries; k++)
                print_descriptor(k == 0 ? "Entries" : "", i->top->entries + k);
        if (i->image)
                print_image(i);
        else
                tool_print_field("Image", "none for this machine's platform; choose one with --platform");
        if (i->have_referrers)
                tool_print_fieldf("Referrers", "%zu%s", i->referrers.n_entries,
                        i->referrers.n_entries > 0 ? " (tbnode-registry referrers lists them)" : "");
}

int tool_inspect(Tool *t, char **args, TbError **err)
{
        _cleanup_(inspection_done) Inspection i = {0};
        _cleanup_free_ char *name = NULL;
        int r;

        r = tool_parse_ref(t, args[0], &i.ref, err);
        if (r < 0)
                return r;
        name = registry_ref_to_string(i.ref);
        if (!name)
                return tb_error_oom(err);
        r = registry_get_manifest(t->client, i.ref, &i.top, err);
        if (r < 0)
                return r;
        if (registry_manifest_is_index(i.top))
                r = inspect_child(t, &i, err);
        else
                i.image = i.top;
        if (r < 0 || (r = inspect_config(t, &i, err)) < 0 || (r = inspect_referrers(t, &i, err)) < 0)
                return r;
        if (t->json)
                return print_inspection_json(&i, name, err);
        print_inspection(&i, name);
        return 0;
}
