/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-json.h"

#include "common/json.h"

static int add_rules(json_t *list, const FwRuleCount *v, size_t n)
{
        char text[FW_RULE_TEXT_MAX];

        for (size_t i = 0; i < n; i++)
                if (json_array_append_new(list,
                            json_pack("{s:s, s:s, s:s, s:I, s:I}", "direction",
                                    fw_direction_to_string(v[i].rule.direction), "rule",
                                    fw_rule_print(&v[i].rule, text), "from",
                                    fw_origin_to_string(v[i].rule.origin), "packets",
                                    (json_int_t) v[i].packets, "bytes", (json_int_t) v[i].bytes)) < 0)
                        return -ENOMEM;
        return 0;
}

static json_t *counters_json(const FwCounters *c)
{
        json_t *o = json_object();

        for (FwDirection d = 0; d < _FW_DIRECTION_MAX; d++)
                if (json_object_set_new(o, fw_direction_to_string(d),
                            json_pack("{s:I, s:I}", "packets", (json_int_t) c->packets[d], "bytes",
                                    (json_int_t) c->bytes[d])) < 0)
                        goto fail;
        if (json_object_set_new(o, "dropped",
                    json_pack("{s:I, s:I, s:I}", "identity", (json_int_t) c->dropped_identity, "isolation",
                            (json_int_t) c->dropped_isolation, "rules", (json_int_t) c->dropped_rules)) < 0)
                goto fail;
        return o;
fail:
        json_decref(o);
        return NULL;
}

json_t *fw_readback_json(const FwReadback *b)
{
        _cleanup_json_ json_t *rules = json_array(), *found = json_array();

        for (FwDirection d = 0; d < _FW_DIRECTION_MAX; d++)
                if (add_rules(rules, b->rules[d], b->n_rules[d]) < 0 ||
                        add_rules(found, b->found[d], b->n_found[d]) < 0)
                        return NULL;
        return json_pack("{s:b, s:b, s:o, s:O, s:O}", "present", b->present, "intact", b->intact, "counters",
                counters_json(&b->counters), "rules", rules, "found", found);
}
