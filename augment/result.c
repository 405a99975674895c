/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "augment/augment.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

void augment_result_done(AugmentResult *r)
{
        free(r->source_name);
        free(r->notice);
        free(r->project);
        free(r->image);
        free(r->platform);
        free(r->key_tag);
        free(r->payload_version);
        free(r->base);
        free(r->dockerfile);
        json_decref(r->facts);
        json_decref(r->report);
        json_decref(r->platforms);
        *r = (AugmentResult){};
}

static const char *digest_or_null(const TbDigest *d)
{
        return tb_digest_is_set(d) ? d->text : NULL;
}

/* { name_key: name, "digest": digest }, or null when both are unset. */
static int set_pair(json_t *obj, const char *key, const char *name_key, const char *name,
        const TbDigest *digest, TbError **err)
{
        json_t *pair = name || tb_digest_is_set(digest) ? json_object() : json_null();
        int r;

        if (!pair)
                return tb_error_oom(err);
        r = tb_json_set_new(obj, key, pair, err);
        if (r < 0 || json_is_null(pair))
                return r;
        r = tb_json_set_string(pair, name_key, name, err);
        return r < 0 ? r : tb_json_set_string(pair, "digest", digest_or_null(digest), err);
}

static int set_timings(json_t *obj, const AugmentTimings *t, TbError **err)
{
        const struct {
                const char *key;
                uint64_t usec;
        } items[] = {
                {"resolve", t->resolve},
                {"mirror", t->mirror},
                {"facts", t->facts},
                {"build", t->build},
                {"push", t->push},
                {"total", t->total},
        };
        json_t *timings = json_object();
        int r;

        if (!timings)
                return tb_error_oom(err);
        r = tb_json_set_new(obj, "timings_ms", timings, err);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(items); i++) {
                json_t *ms = json_real((double) items[i].usec / 1000.0);

                r = ms ? tb_json_set_new(timings, items[i].key, ms, err) : tb_error_oom(err);
        }
        return r;
}

static int set_bytes(json_t *obj, const AugmentBytes *b, TbError **err)
{
        json_t *bytes = json_object();
        int r;

        if (!bytes)
                return tb_error_oom(err);
        if ((r = tb_json_set_new(obj, "bytes", bytes, err)) < 0 ||
                (r = tb_json_set_u64(bytes, "downloaded", b->downloaded, err)) < 0 ||
                (r = tb_json_set_u64(bytes, "uploaded", b->uploaded, err)) < 0 ||
                (r = tb_json_set_u64(bytes, "mounted", b->mounted, err)) < 0)
                return r;
        return tb_json_set_u64(bytes, "resumed", b->resumed, err);
}

static int set_source(json_t *obj, const AugmentResult *r, TbError **err)
{
        json_t *source;
        int k;

        k = set_pair(obj, "source", "name", r->source_name, &r->source_digest, err);
        if (k < 0)
                return k;
        source = json_object_get(obj, "source");
        if (!json_is_object(source))
                return 0;
        k = tb_json_set_string(source, "from", augment_from_to_string(r->from), err);
        return k < 0 ? k : tb_json_set_bool(source, "private", r->private, err);
}

int augment_result_to_json(const AugmentResult *r, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *obj = json_object();
        int k;

        if (!obj)
                return tb_error_oom(err);
        if (r->report) {
                k = tb_json_set_new(obj, "report", json_incref(r->report), err);
                if (k >= 0)
                        *ret = TAKE_PTR(obj);
                return k;
        }
        if ((k = set_source(obj, r, err)) < 0 || (k = tb_json_set_string(obj, "image", r->image, err)) < 0 ||
                (k = tb_json_set_string(obj, "digest", digest_or_null(&r->digest), err)) < 0 ||
                (k = tb_json_set_string(obj, "level", augment_level_to_string(r->level), err)) < 0 ||
                (k = tb_json_set_string(obj, "builder", augment_builder_to_string(r->builder), err)) < 0 ||
                (k = tb_json_set_string(obj, "cache", r->cache_hit ? "hit" : "miss", err)) < 0 ||
                (k = tb_json_set_bool(obj, "as_is", r->as_is, err)) < 0 ||
                (k = tb_json_set_string(obj, "platform", r->platform, err)) < 0 ||
                (k = tb_json_set_bool(obj, "index", r->index, err)) < 0 ||
                (k = tb_json_set_string(obj, "key", r->key_tag, err)) < 0 ||
                (k = set_pair(obj, "payload", "version", r->payload_version, &r->payload_digest, err)) < 0 ||
                (k = set_pair(obj, "base", "image", r->base, &r->base_digest, err)) < 0 ||
                (k = set_timings(obj, &r->timings, err)) < 0 || (k = set_bytes(obj, &r->bytes, err)) < 0)
                return k;
        if (r->platforms && (k = tb_json_set_new(obj, "platforms", json_incref(r->platforms), err)) < 0)
                return k;
        if ((r->notice && (k = tb_json_set_string(obj, "notice", r->notice, err)) < 0) ||
                (r->project && (k = tb_json_set_string(obj, "project", r->project, err)) < 0))
                return k;
        if (r->facts && (k = tb_json_set_new(obj, "facts", json_incref(r->facts), err)) < 0)
                return k;
        if (r->dockerfile && (k = tb_json_set_string(obj, "dockerfile", r->dockerfile, err)) < 0)
                return k;
        *ret = TAKE_PTR(obj);
        return 0;
}

static int take_string(const json_t *obj, const char *key, char **ret, TbError **err)
{
        const char *s = NULL;
        int r = tb_json_get_string(obj, key, &s, err);

        if (r <= 0)
                return r;
        *ret = strdup(s);
        return *ret ? 1 : tb_error_oom(err);
}

static int take_digest(const json_t *obj, const char *key, TbDigest *ret, TbError **err)
{
        const char *s = NULL;
        int r = tb_json_get_string(obj, key, &s, err);

        return r <= 0 ? r : tb_digest_parse(s, ret, err);
}

static int take_pair(const json_t *obj, const char *key, const char *name_key, char **ret_name,
        TbDigest *ret_digest, TbError **err)
{
        json_t *pair = NULL;
        int r;

        r = tb_json_get_object(obj, key, &pair, err);
        if (r <= 0)
                return r;
        r = take_string(pair, name_key, ret_name, err);
        return r < 0 ? r : take_digest(pair, "digest", ret_digest, err);
}

static int take_source(const json_t *obj, AugmentResult *r, TbError **err)
{
        const char *from = NULL;
        json_t *source = NULL;
        int k;

        if ((k = take_pair(obj, "source", "name", &r->source_name, &r->source_digest, err)) < 0 ||
                (k = tb_json_get_object(obj, "source", &source, err)) <= 0 ||
                (k = tb_json_get_bool(source, "private", &r->private, err)) < 0 ||
                (k = tb_json_get_string(source, "from", &from, err)) < 0)
                return k;
        r->from = from ? augment_from_from_string(from) : AUGMENT_FROM_REGISTRY;
        if (r->from < 0)
                return tb_error_set(err, TB_ERROR_BUG, -EBADMSG, "source.from is not a known word");
        return 0;
}

static int take_timings(const json_t *obj, AugmentTimings *t, TbError **err)
{
        const struct {
                const char *key;
                uint64_t *usec;
        } items[] = {
                {"resolve", &t->resolve},
                {"mirror", &t->mirror},
                {"facts", &t->facts},
                {"build", &t->build},
                {"push", &t->push},
                {"total", &t->total},
        };
        json_t *timings = NULL;
        int r;

        r = tb_json_get_object(obj, "timings_ms", &timings, err);
        if (r <= 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(items); i++) {
                const json_t *ms = json_object_get(timings, items[i].key);
                double value = json_number_value(ms);

                if (ms && (!json_is_number(ms) || !(value >= 0) || value > 1e12))
                        return tb_error_set(
                                err, TB_ERROR_BUG, -EBADMSG, "timings_ms.%s is not a time", items[i].key);
                *items[i].usec = (uint64_t) llround(value * 1000.0);
        }
        return 0;
}

static int take_bytes(const json_t *obj, AugmentBytes *b, TbError **err)
{
        json_t *bytes = NULL;
        int r;

        r = tb_json_get_object(obj, "bytes", &bytes, err);
        if (r <= 0)
                return r;
        if ((r = tb_json_get_u64(bytes, "downloaded", &b->downloaded, err)) < 0 ||
                (r = tb_json_get_u64(bytes, "uploaded", &b->uploaded, err)) < 0 ||
                (r = tb_json_get_u64(bytes, "mounted", &b->mounted, err)) < 0)
                return r;
        return tb_json_get_u64(bytes, "resumed", &b->resumed, err);
}

static int take_words(const json_t *j, AugmentResult *r, TbError **err)
{
        const char *level = NULL, *builder = NULL, *cache = NULL;
        int k;

        if ((k = tb_json_get_string(j, "level", &level, err)) < 0 ||
                (k = tb_json_get_string(j, "builder", &builder, err)) < 0 ||
                (k = tb_json_get_string(j, "cache", &cache, err)) < 0)
                return k;
        r->level = augment_level_from_string(level);
        r->builder = augment_builder_from_string(builder);
        if (r->level < 0 || r->builder < 0 || !cache ||
                (!tb_streq(cache, "hit") && !tb_streq(cache, "miss")))
                return tb_error_set(
                        err, TB_ERROR_BUG, -EBADMSG, "level, builder or cache is not a known word");
        r->cache_hit = tb_streq(cache, "hit");
        return 0;
}

static int take_platforms(const json_t *j, AugmentResult *r, TbError **err)
{
        json_t *list = NULL, *value;
        size_t i;
        int k;

        k = tb_json_get_array(j, "platforms", &list, err);
        if (k <= 0)
                return k;
        json_array_foreach (list, i, value) {
                const char *platform = NULL;
                TbDigest digest = {};

                if (!json_is_object(value) || tb_json_get_string(value, "platform", &platform, NULL) <= 0 ||
                        take_digest(value, "digest", &digest, NULL) < 0 || !tb_digest_is_set(&digest))
                        return tb_error_set(err, TB_ERROR_BUG, -EBADMSG,
                                "platforms[%zu] names no platform or no digest", i);
        }
        r->platforms = json_incref(list);
        return 0;
}

int augment_result_from_json(const json_t *j, AugmentResult *ret, TbError **err)
{
        _cleanup_augment_result_ AugmentResult r = {};
        json_t *facts = NULL, *report = NULL;
        int k;

        if (tb_json_get_object(j, "report", &report, NULL) > 0) {
                r.report = json_incref(report);
                *ret = r;
                r = (AugmentResult){};
                return 0;
        }
        if ((k = take_words(j, &r, err)) < 0 || (k = take_source(j, &r, err)) < 0 ||
                (k = take_string(j, "notice", &r.notice, err)) < 0 ||
                (k = take_string(j, "project", &r.project, err)) < 0 ||
                (k = take_string(j, "image", &r.image, err)) < 0 ||
                (k = take_digest(j, "digest", &r.digest, err)) < 0 ||
                (k = tb_json_get_bool(j, "as_is", &r.as_is, err)) < 0 ||
                (k = take_string(j, "platform", &r.platform, err)) < 0 ||
                (k = tb_json_get_bool(j, "index", &r.index, err)) < 0 ||
                (k = take_platforms(j, &r, err)) < 0 || (k = take_string(j, "key", &r.key_tag, err)) < 0 ||
                (k = take_pair(j, "payload", "version", &r.payload_version, &r.payload_digest, err)) < 0 ||
                (k = take_pair(j, "base", "image", &r.base, &r.base_digest, err)) < 0 ||
                (k = take_timings(j, &r.timings, err)) < 0 || (k = take_bytes(j, &r.bytes, err)) < 0 ||
                (k = take_string(j, "dockerfile", &r.dockerfile, err)) < 0 ||
                (k = tb_json_get_object(j, "facts", &facts, err)) < 0)
                return k;
        if (!r.source_name || !tb_digest_is_set(&r.source_digest))
                return tb_error_set(err, TB_ERROR_BUG, -EBADMSG, "the result names no source");
        r.facts = json_incref(facts);
        *ret = r;
        r = (AugmentResult){};
        return 0;
}

void augment_event_done(AugmentEvent *e)
{
        free(e->progress.stage);
        free(e->progress.blob);
        augment_result_done(&e->result);
        tb_error_free(e->error);
        *e = (AugmentEvent){};
}

static int parse_error(const json_t *line, TbError **ret, TbError **err)
{
        const char *kind = NULL, *message = NULL;
        _cleanup_free_ char *shown = NULL;
        const json_t *code = json_object_get(line, "code");
        bool retryable = false;
        int r, k;

        if ((r = tb_json_get_string(line, "kind", &kind, err)) < 0 ||
                (r = tb_json_get_string(line, "message", &message, err)) < 0 ||
                (r = tb_json_get_bool(line, "retryable", &retryable, err)) < 0)
                return r;
        k = kind ? tb_error_kind_from_string(kind) : -EINVAL;
        if (k < 0 || !message || !json_is_integer(code) || json_integer_value(code) >= 0 ||
                json_integer_value(code) < -4095)
                return tb_error_set(err, TB_ERROR_BUG, -EBADMSG, "an error without kind, code or message");
        /* One line, whatever the worker was made to say. */
        shown = strdup(message);
        if (!shown)
                return tb_error_oom(err);
        for (char *p = shown; *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7f)
                        *p = ' ';
        (void) tb_error_set(ret, (TbErrorKind) k, (int) json_integer_value(code), "%s", shown);
        if (retryable)
                tb_error_set_retryable(ret);
        return 0;
}

static int parse_event(const json_t *line, AugmentEvent *e, TbError **err)
{
        const char *event = NULL;
        int r;

        r = tb_json_get_string(line, "event", &event, err);
        if (r < 0)
                return r;
        if (r > 0 && tb_streq(event, "progress")) {
                e->type = AUGMENT_EVENT_PROGRESS;
                if ((r = take_string(line, "stage", &e->progress.stage, err)) < 0 ||
                        (r = take_string(line, "blob", &e->progress.blob, err)) < 0 ||
                        (r = tb_json_get_u64(line, "done", &e->progress.done, err)) < 0 ||
                        (r = tb_json_get_u64(line, "total", &e->progress.total, err)) < 0)
                        return r;
                if (!e->progress.stage)
                        return tb_error_set(err, TB_ERROR_BUG, -EBADMSG, "progress without a stage");
                return 0;
        }
        if (r > 0 && tb_streq(event, "result")) {
                e->type = AUGMENT_EVENT_RESULT;
                return augment_result_from_json(line, &e->result, err);
        }
        if (r > 0 && tb_streq(event, "error")) {
                e->type = AUGMENT_EVENT_ERROR;
                return parse_error(line, &e->error, err);
        }
        return tb_error_set(err, TB_ERROR_BUG, -EBADMSG, "not an event of the worker");
}

int augment_event_parse(const json_t *line, AugmentEvent *ret, TbError **err)
{
        _cleanup_augment_event_ AugmentEvent e = {};
        _cleanup_error_ TbError *why = NULL;

        if (parse_event(line, &e, &why) < 0)
                return tb_error_set(
                        err, TB_ERROR_BUG, -EBADMSG, "the worker's output: %s", tb_error_message(why));
        *ret = e;
        e = (AugmentEvent){};
        return 0;
}
