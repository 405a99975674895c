/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Rules as text: the grammar is in fw.h. The text is cut into words first (white space separates, ";" and "," are words of
 * their own), so that the parser looks at one word at a time.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/fw.h"

#define WORD_MAX 64

typedef struct Text {
        const char *at;
        char word[WORD_MAX]; /* the current one; "" at the end */
        bool too_long;
        size_t rule; /* number of the current rule, from 1 */
} Text;

static void next_word(Text *t)
{
        size_t n;

        t->at += strspn(t->at, " \t\n");
        n = *t->at == ';' || *t->at == ',' ? 1 : strcspn(t->at, " \t\n;,");
        t->too_long = n >= sizeof(t->word);
        if (t->too_long)
                n = sizeof(t->word) - 1;
        memcpy(t->word, t->at, n);
        t->word[n] = '\0';
        t->at += n;
}

static bool accept_word(Text *t, const char *word)
{
        if (t->too_long || !tb_streq(t->word, word))
                return false;
        next_word(t);
        return true;
}

static bool at_end(const Text *t)
{
        return t->word[0] == '\0' || tb_streq(t->word, ";");
}

static int unexpected(const Text *t, const char *expected, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(t->word, WORD_MAX);

        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "rule %zu: %s is expected instead of '%s'; write for example 'allow in tcp from 10.1.0.0/16 "
                "to "
                "port 80'",
                t->rule, expected,
                at_end(t)       ? "the end"
                        : shown ? shown
                                : "?");
}

/* PORT or PORT-PORT. */
static int parse_port(Text *t, FwPorts *ret, TbError **err)
{
        char *dash = strchr(t->word, '-');
        uint32_t first = 0, last;

        if (dash)
                *dash = '\0';
        bool ok = !t->too_long && tb_parse_u32(t->word, 1, UINT16_MAX, &first, NULL) >= 0;
        if (dash)
                *dash = '-';
        last = first;
        if (ok && dash)
                ok = tb_parse_u32(dash + 1, 1, UINT16_MAX, &last, NULL) >= 0 && first <= last;
        if (!ok)
                return unexpected(t, "a port (1 to 65535) or a range like 8000-8010", err);
        *ret = (FwPorts){.first = (uint16_t) first, .last = (uint16_t) last};
        next_word(t);
        return 0;
}

typedef struct Ports {
        FwPorts v[FW_RULES_MAX];
        size_t n;
} Ports;

static int parse_ports(Text *t, Ports *ret, TbError **err)
{
        do {
                if (ret->n == FW_RULES_MAX)
                        return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "rule %zu: more than %d ports",
                                t->rule, FW_RULES_MAX);
                int r = parse_port(t, ret->v + ret->n, err);
                if (r < 0)
                        return r;
                ret->n++;
        } while (accept_word(t, ","));
        return 0;
}

static int parse_end(Text *t, FwNetwork *network, Ports *ports, bool *named, TbError **err)
{
        bool any = accept_word(t, "any");

        if (!any && !at_end(t) && !tb_streq(t->word, "port") && !tb_streq(t->word, "to")) {
                int r = t->too_long ? unexpected(t, "an address", err)
                                    : fw_network_parse(t->word, network, err);
                if (r < 0)
                        return t->too_long ? r : (tb_error_prefix(err, "rule %zu", t->rule), r);
                next_word(t);
                *named = true;
        }
        if (accept_word(t, "port"))
                return parse_ports(t, ports, err);
        return any || *named ? 0 : unexpected(t, "an address, 'any' or 'port'", err);
}

static int parse_what(Text *t, FwRule *rule, TbError **err)
{
        uint32_t number;

        if (accept_word(t, "tcp"))
                rule->protocol = IPPROTO_TCP;
        else if (accept_word(t, "udp"))
                rule->protocol = IPPROTO_UDP;
        else if (accept_word(t, "icmp")) {
                rule->protocol = IPPROTO_ICMP;
                rule->echo = accept_word(t, "echo");
        } else if (accept_word(t, "proto")) {
                if (t->too_long || tb_parse_u32(t->word, 1, 254, &number, NULL) < 0)
                        return unexpected(t, "a protocol's number (1 to 254)", err);
                /* One name for each: "proto 58" would be the other family's ICMP. */
                if (number == IPPROTO_ICMPV6)
                        number = IPPROTO_ICMP;
                rule->protocol = (uint8_t) number;
                next_word(t);
        } else
                (void) accept_word(t, "any");
        return 0;
}

static int add_rule(const Text *t, FwRules *rules, const FwRule *rule, TbError **err)
{
        if (rules->n >= FW_RULES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "rule %zu: more than %d rules (several ports count as several)", t->rule,
                        FW_RULES_MAX);
        return fw_rules_add(rules, rule, err);
}

/* One rule for each pair of port ranges. */
static int add_rules(
        const Text *t, FwRules *rules, FwRule *rule, const Ports *from, const Ports *to, TbError **err)
{
        for (size_t i = 0; i < MAX2(from->n, (size_t) 1); i++)
                for (size_t k = 0; k < MAX2(to->n, (size_t) 1); k++) {
                        rule->source_ports = from->n > 0 ? from->v[i] : (FwPorts){};
                        rule->destination_ports = to->n > 0 ? to->v[k] : (FwPorts){};
                        int r = add_rule(t, rules, rule, err);
                        if (r < 0)
                                return r;
                }
        return 0;
}

static int parse_rule(Text *t, FwOrigin origin, FwRules *rules, TbError **err)
{
        FwRule rule = {.origin = origin};
        Ports from = {}, to = {};
        bool has_from = false, has_to = false, in = false, out = false;
        int r;

        if (accept_word(t, "deny"))
                rule.verdict = FW_DENY;
        else if (!accept_word(t, "allow"))
                return unexpected(t, "'allow' or 'deny'", err);
        rule.log = accept_word(t, "log");
        in = accept_word(t, "in");
        out = !in && accept_word(t, "out");
        r = parse_what(t, &rule, err);
        if (r >= 0 && accept_word(t, "from"))
                r = parse_end(t, &rule.source, &from, &has_from, err);
        if (r >= 0 && accept_word(t, "to"))
                r = parse_end(t, &rule.destination, &to, &has_to, err);
        if (r < 0)
                return r;
        if (!at_end(t))
                return unexpected(t, "'from', 'to' or ';'", err);

        rule.direction = out || (!in && has_to && !has_from) ? FW_OUT : FW_IN;
        if (has_from && has_to && rule.source.family != rule.destination.family)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "rule %zu: one address is IPv4, the other one IPv6", t->rule);
        rule.family = has_from ? rule.source.family : rule.destination.family;
        if ((from.n > 0 || to.n > 0) && rule.protocol != IPPROTO_TCP && rule.protocol != IPPROTO_UDP)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "rule %zu: ports need 'tcp' or 'udp' before them", t->rule);
        return add_rules(t, rules, &rule, &from, &to, err);
}

static int parse_rules(Text *t, FwOrigin origin, FwRules *ret, TbError **err)
{
        for (t->rule = 1;; t->rule++) {
                while (accept_word(t, ";"))
                        ;
                if (t->word[0] == '\0')
                        return 0;
                int r = parse_rule(t, origin, ret, err);
                if (r < 0)
                        return r;
        }
}

static int begin_text(Text *t, const char *text, TbError **err)
{
        if (strlen(text) > FW_RULES_TEXT_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "rules of more than %d bytes", FW_RULES_TEXT_MAX);
        *t = (Text){.at = text};
        next_word(t);
        return 0;
}

int fw_rules_parse(const char *text, FwOrigin origin, FwRules *ret, TbError **err)
{
        _cleanup_fw_rules_ FwRules rules = {};
        Text t;

        int r = begin_text(&t, text, err);
        if (r >= 0)
                r = parse_rules(&t, origin, &rules, err);
        if (r < 0)
                return r;
        *ret = rules;
        rules = (FwRules){};
        return 0;
}

int fw_firewall_parse(const char *text, FwStyle *ret_style, FwRules *ret, TbError **err)
{
        _cleanup_fw_rules_ FwRules rules = {};
        Text t;

        int r = begin_text(&t, text, err);
        if (r < 0)
                return r;
        FwStyle style = t.too_long ? _FW_STYLE_INVALID : fw_style_from_string(t.word);
        if (style < 0) {
                _cleanup_free_ char *shown = tb_escape(t.word, WORD_MAX);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "'%s': there is no such style; use none, open, basic, closed or elabinelab",
                        shown ? shown : "?");
        }
        next_word(&t);
        if (!at_end(&t))
                return unexpected(&t, "';' behind the style", err);
        r = parse_rules(&t, FW_ORIGIN_USER, &rules, err);
        if (r < 0)
                return r;
        if (style == FW_NONE && rules.n > 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "style none means no firewall at all, so it can't have rules; use open");
        *ret_style = style;
        *ret = rules;
        rules = (FwRules){};
        return 0;
}

/* ---- Printing ---------------------------------------------------------------------------------------------------- */

static void print_end(char *buf, size_t size, const char *word, const FwNetwork *n, FwPorts p)
{
        char network[FW_NETWORK_TEXT_MAX], ports[16] = "";

        buf[0] = '\0';
        if (n->family == AF_UNSPEC && p.last == 0)
                return;
        if (p.last != 0 && p.first == p.last)
                (void) snprintf(ports, sizeof(ports), "%u", p.first);
        else if (p.last != 0)
                (void) snprintf(ports, sizeof(ports), "%u-%u", p.first, p.last);
        (void) snprintf(buf, size, " %s%s%s%s%s", word, n->family != AF_UNSPEC ? " " : "",
                n->family != AF_UNSPEC ? fw_network_print(n, network) : "", p.last ? " port " : "", ports);
}

static void print_what(char *buf, size_t size, const FwRule *r)
{
        buf[0] = '\0';
        if (r->states & FW_STATE_UNTRACKED)
                (void) snprintf(buf, size, " neighbour-discovery");
        else if (r->states)
                (void) snprintf(buf, size, " replies");
        else if (r->protocol == IPPROTO_TCP)
                (void) snprintf(buf, size, " tcp");
        else if (r->protocol == IPPROTO_UDP)
                (void) snprintf(buf, size, " udp");
        else if (r->protocol == IPPROTO_ICMP)
                (void) snprintf(buf, size, r->echo ? " icmp echo" : " icmp");
        else if (r->protocol)
                (void) snprintf(buf, size, " proto %u", r->protocol);
}

const char *fw_rule_print(const FwRule *r, char buf[static FW_RULE_TEXT_MAX])
{
        char what[32], from[FW_NETWORK_TEXT_MAX + 32], to[FW_NETWORK_TEXT_MAX + 32];

        print_what(what, sizeof(what), r);
        print_end(from, sizeof(from), "from", &r->source, r->source_ports);
        print_end(to, sizeof(to), "to", &r->destination, r->destination_ports);
        (void) snprintf(buf, FW_RULE_TEXT_MAX, "%s%s %s%s%s%s", r->verdict == FW_ALLOW ? "allow" : "deny",
                r->log ? " log" : "", r->direction == FW_IN ? "in" : "out", what, from, to);
        return buf;
}

char *fw_firewall_print(FwStyle style, const FwRules *rules)
{
        _cleanup_free_ char *text = strdup(fw_style_to_string(style));

        for (size_t i = 0; text && rules && i < rules->n; i++) {
                char rule[FW_RULE_TEXT_MAX];
                char *longer = tb_asprintf("%s; %s", text, fw_rule_print(rules->v + i, rule));
                free(text);
                text = longer;
        }
        return TAKE_PTR(text);
}
