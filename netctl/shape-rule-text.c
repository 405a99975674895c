/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The text of a link's shape: reading and printing. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/shape-rule.h"

/* ---- Printing ---------------------------------------------------------------------------------------------------- */

static const struct {
        const char *name;
        uint8_t number;
} protocols[] = {
        {"tcp", IPPROTO_TCP},
        {"udp", IPPROTO_UDP},
        {"sctp", IPPROTO_SCTP},
        {"icmp", IPPROTO_ICMP},
        {"icmp6", IPPROTO_ICMPV6},
};

static const char *print_address(const ShapeAddress *a, char buf[static INET6_ADDRSTRLEN + 8])
{
        if (a->family == AF_UNSPEC || !inet_ntop(a->family, a->bytes, buf, INET6_ADDRSTRLEN))
                return "any";
        if (a->prefix != (a->family == AF_INET ? 32 : 128))
                (void) snprintf(buf + strlen(buf), 8, "/%u", a->prefix);
        return buf;
}

static void print_ports(char *buf, const char *word, uint16_t first, uint16_t last)
{
        size_t n = strlen(buf);

        if (first == last)
                (void) snprintf(buf + n, SHAPE_MATCH_TEXT_MAX - n, " %s %u", word, first);
        else
                (void) snprintf(buf + n, SHAPE_MATCH_TEXT_MAX - n, " %s %u-%u", word, first, last);
}

const char *shape_match_print(const ShapeMatch *m, char buf[static SHAPE_MATCH_TEXT_MAX])
{
        char address[INET6_ADDRSTRLEN + 8];
        const char *name = NULL;

        (void) snprintf(buf, SHAPE_MATCH_TEXT_MAX, "to %s", print_address(&m->to, address));
        if (m->from.family != AF_UNSPEC) {
                size_t n = strlen(buf);
                (void) snprintf(
                        buf + n, SHAPE_MATCH_TEXT_MAX - n, " from %s", print_address(&m->from, address));
        }
        if (m->has_protocol) {
                size_t n = strlen(buf);
                for (size_t i = 0; i < ELEMENTSOF(protocols); i++)
                        if (protocols[i].number == m->protocol)
                                name = protocols[i].name;
                if (name)
                        (void) snprintf(buf + n, SHAPE_MATCH_TEXT_MAX - n, " %s", name);
                else
                        (void) snprintf(buf + n, SHAPE_MATCH_TEXT_MAX - n, " proto %u", m->protocol);
        }
        if (m->has_port)
                print_ports(buf, "port", m->port, m->port_last);
        if (m->has_sport)
                print_ports(buf, "sport", m->sport, m->sport_last);
        return buf;
}

static void print_part(FILE *f, bool *first, const ShapeMatch *m, const char *what)
{
        char match[SHAPE_MATCH_TEXT_MAX];

        fprintf(f, "%s%s %s", *first ? "" : "; ", shape_match_print(m, match), what);
        *first = false;
}

static void print_rule(FILE *f, bool *first, const ShapeRule *r)
{
        bool up = r->up_action == SHAPE_RULE_SHAPE, down = r->down_action == SHAPE_RULE_SHAPE;
        bool up_pass = up && shape_is_empty(&r->up), down_pass = down && shape_is_empty(&r->down);
        ShapePair pair = {};
        char text[SHAPE_TEXT_MAX];

        if (up_pass && down_pass) {
                print_part(f, first, &r->match, "pass");
                return;
        }
        if (up_pass)
                print_part(f, first, &r->match, "up pass");
        if (down_pass)
                print_part(f, first, &r->match, "down pass");
        if (up)
                pair.up = r->up;
        if (down)
                pair.down = r->down;
        if (!shape_is_empty(&pair.up) || !shape_is_empty(&pair.down))
                print_part(f, first, &r->match, shape_pair_print(&pair, text));
}

char *link_shape_print(const LinkShape *l)
{
        _cleanup_free_ char *text = NULL;
        char base[SHAPE_TEXT_MAX];
        bool first = true;
        size_t size = 0;

        FILE *f = open_memstream(&text, &size);
        if (!f)
                return NULL;
        (void) shape_pair_print(&l->base, base);
        if (base[0] != '\0') {
                fputs(base, f);
                first = false;
        }
        for (size_t i = 0; i < l->n_rules; i++)
                print_rule(f, &first, l->rules + i);
        bool bad = ferror(f) != 0;
        return fclose(f) == 0 && !bad ? TAKE_PTR(text) : NULL;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

#define WORD_MAX 64

typedef struct Words {
        const char *next;
        const char *start; /* of the current word */
        char word[WORD_MAX + 1];
} Words;

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* False at the end. A word that is too long is cut: none of the words that we know is that long. */
static bool words_next(Words *w)
{
        size_t n = 0;

        while (is_space(*w->next))
                w->next++;
        w->start = w->next;
        while (*w->next != '\0' && !is_space(*w->next)) {
                if (n < WORD_MAX)
                        w->word[n++] = *w->next;
                w->next++;
        }
        w->word[n] = '\0';
        return n > 0;
}

static int bad_rule(TbError **err, const char *part, int code, const char *why)
{
        _cleanup_free_ char *shown = tb_escape(part + strspn(part, " \t\n"), 80);

        return tb_error_set(
                err, TB_ERROR_CONFIG, code, "bad shape: rule '%s': %s", shown ? shown : "?", why);
}

static int parse_number(const char *s, unsigned max, unsigned *ret)
{
        unsigned v = 0;

        if (*s == '\0' || strlen(s) > 5)
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                v = v * 10 + (unsigned) (*s - '0');
        }
        if (v > max)
                return -EINVAL;
        *ret = v;
        return 0;
}

/* Is every bit behind the prefix zero? */
static bool is_network(const ShapeAddress *a)
{
        for (unsigned bit = a->prefix; bit < 128; bit++)
                if (a->bytes[bit / 8] & (0x80U >> (bit % 8)))
                        return false;
        return true;
}

static int parse_address(char *word, const char *part, ShapeAddress *ret, TbError **err)
{
        ShapeAddress a = {};
        unsigned bits;

        if (tb_streq(word, "any")) {
                *ret = a;
                return 0;
        }
        char *slash = strchr(word, '/');
        if (slash)
                *slash++ = '\0';
        a.family = strchr(word, ':') ? AF_INET6 : AF_INET;
        if (inet_pton(a.family, word, a.bytes) != 1)
                return bad_rule(err, part, -EINVAL,
                        "an address or network is needed behind 'to' and 'from', such as 10.1.0.7 or "
                        "fd00::/64, or 'any'");
        bits = a.family == AF_INET ? 32 : 128;
        if (slash && parse_number(slash, bits, &bits) < 0)
                return bad_rule(err, part, -ERANGE, "the number of bits behind '/' is out of range");
        a.prefix = (uint8_t) bits;
        if (!is_network(&a))
                return bad_rule(err, part, -EINVAL,
                        "the network's address has bits set behind its prefix, as in 10.1.0.7/16; write "
                        "10.1.0.0/16");
        *ret = a;
        return 0;
}

static int parse_ports(char *word, const char *part, uint16_t *first, uint16_t *last, TbError **err)
{
        char *dash = strchr(word, '-');
        unsigned p, q;

        if (dash)
                *dash++ = '\0';
        if (parse_number(word, 65535, &p) < 0 || (dash ? parse_number(dash, 65535, &q) : (q = p, 0)) < 0 ||
                q < p)
                return bad_rule(err, part, -EINVAL,
                        "a port or range of ports is needed behind 'port' and 'sport', such as 53 or "
                        "5000-5999");
        *first = (uint16_t) p;
        *last = (uint16_t) q;
        return 0;
}

static bool protocol_has_ports(uint8_t p)
{
        return p == IPPROTO_TCP || p == IPPROTO_UDP || p == IPPROTO_UDPLITE || p == IPPROTO_SCTP ||
                p == IPPROTO_DCCP;
}

static const char *protocol_name(const char *word, uint8_t *ret)
{
        for (size_t i = 0; i < ELEMENTSOF(protocols); i++)
                if (tb_streq(word, protocols[i].name)) {
                        *ret = protocols[i].number;
                        return protocols[i].name;
                }
        return NULL;
}

static bool is_match_word(const char *word)
{
        uint8_t p;

        return tb_streq(word, "to") || tb_streq(word, "from") || tb_streq(word, "proto") ||
                tb_streq(word, "port") || tb_streq(word, "sport") || protocol_name(word, &p);
}

enum {
        SEEN_TO = 1 << 0,
        SEEN_FROM = 1 << 1,
        SEEN_PROTOCOL = 1 << 2,
        SEEN_PORT = 1 << 3,
        SEEN_SPORT = 1 << 4,
};

/* One condition; the current word is its keyword. */
static int parse_condition(Words *w, const char *part, ShapeMatch *m, unsigned *seen, TbError **err)
{
        char keyword = w->word[0];
        unsigned bit, number;
        int r = 0;

        if (protocol_name(w->word, &m->protocol)) {
                bit = SEEN_PROTOCOL;
                m->has_protocol = true;
        } else {
                bit = keyword == 't'                ? SEEN_TO
                        : keyword == 'f'            ? SEEN_FROM
                        : keyword == 's'            ? SEEN_SPORT
                        : tb_streq(w->word, "port") ? SEEN_PORT
                                                    : SEEN_PROTOCOL;
                if (!words_next(w))
                        return bad_rule(err, part, -EINVAL, "its last word needs a value behind it");
                switch (bit) {
                case SEEN_TO:
                        r = parse_address(w->word, part, &m->to, err);
                        break;
                case SEEN_FROM:
                        r = parse_address(w->word, part, &m->from, err);
                        break;
                case SEEN_PORT:
                        m->has_port = true;
                        r = parse_ports(w->word, part, &m->port, &m->port_last, err);
                        break;
                case SEEN_SPORT:
                        m->has_sport = true;
                        r = parse_ports(w->word, part, &m->sport, &m->sport_last, err);
                        break;
                default:
                        if (parse_number(w->word, 255, &number) < 0)
                                return bad_rule(err, part, -EINVAL, "'proto' needs a number up to 255");
                        m->has_protocol = true;
                        m->protocol = (uint8_t) number;
                        break;
                }
        }
        if (r < 0)
                return r;
        if (*seen & bit)
                return bad_rule(err, part, -EINVAL, "the same kind of condition is given twice");
        *seen |= bit;
        return 0;
}

static int check_match(const ShapeMatch *m, const char *part, TbError **err)
{
        if (m->to.family != AF_UNSPEC && m->from.family != AF_UNSPEC && m->to.family != m->from.family)
                return bad_rule(err, part, -EINVAL, "'to' and 'from' are of different address families");
        if ((m->has_port || m->has_sport) && m->has_protocol && !protocol_has_ports(m->protocol))
                return bad_rule(err, part, -EINVAL, "that protocol has no ports; use tcp or udp");
        return 0;
}

static int parse_action(const char *rest, const char *part, ShapeRule *rule, TbError **err)
{
        Words w = {.next = rest};
        ShapePair pair = {};
        bool up = true, down = true;

        (void) words_next(&w);
        if (tb_streq(w.word, "up") || tb_streq(w.word, "down")) {
                up = w.word[0] == 'u';
                down = !up;
                (void) words_next(&w);
        }
        if (tb_streq(w.word, "pass") || tb_streq(w.word, "default")) {
                ShapeRuleAction a = w.word[0] == 'p' ? SHAPE_RULE_PASS : SHAPE_RULE_DEFAULT;
                if (words_next(&w))
                        return bad_rule(err, part, -EINVAL, "nothing may follow 'pass' or 'default'");
                rule->up_action = up ? a : SHAPE_RULE_NONE;
                rule->down_action = down ? a : SHAPE_RULE_NONE;
                return 0;
        }
        int r = shape_spec_parse(rest, &pair, err);
        if (r < 0) {
                char match[SHAPE_MATCH_TEXT_MAX];
                tb_error_prefix(err, "rule '%s'", shape_match_print(&rule->match, match));
                return r;
        }
        rule->up_action = pair.up.set != 0 ? SHAPE_RULE_SHAPE : SHAPE_RULE_NONE;
        rule->down_action = pair.down.set != 0 ? SHAPE_RULE_SHAPE : SHAPE_RULE_NONE;
        rule->up = pair.up;
        rule->down = pair.down;
        return 0;
}

static int parse_rule(const char *part, ShapeRule *ret, TbError **err)
{
        Words w = {.next = part};
        ShapeRule rule = {};
        unsigned seen = 0;

        while (words_next(&w)) {
                if (!is_match_word(w.word))
                        break;
                int r = parse_condition(&w, part, &rule.match, &seen, err);
                if (r < 0)
                        return r;
        }
        int r = check_match(&rule.match, part, err);
        if (r < 0)
                return r;
        if (w.word[0] == '\0')
                return bad_rule(
                        err, part, -EINVAL, "it says nothing; add a shape such as 'delay 20ms', or 'pass'");
        r = parse_action(w.start, part, &rule, err);
        if (r < 0)
                return r;
        *ret = rule;
        return 0;
}

static int compare_rule(const void *a, const void *b)
{
        return shape_match_compare(&((const ShapeRule *) a)->match, &((const ShapeRule *) b)->match);
}

/* Two parts with the same match may speak of different directions. */
static int join_rules(LinkShape *l, TbError **err)
{
        size_t n = 0;

        if (l->n_rules > 1)
                qsort(l->rules, l->n_rules, sizeof(*l->rules), compare_rule);
        for (size_t i = 0; i < l->n_rules; i++) {
                ShapeRule *r = l->rules + i, *last = n > 0 ? l->rules + n - 1 : NULL;
                if (!last || shape_match_compare(&last->match, &r->match) != 0) {
                        l->rules[n++] = *r;
                        continue;
                }
                if ((last->up_action && r->up_action) || (last->down_action && r->down_action)) {
                        char match[SHAPE_MATCH_TEXT_MAX];
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "bad shape: there are two rules '%s'", shape_match_print(&r->match, match));
                }
                if (r->up_action) {
                        last->up_action = r->up_action;
                        last->up = r->up;
                } else {
                        last->down_action = r->down_action;
                        last->down = r->down;
                }
        }
        l->n_rules = n;
        return 0;
}

/* One part, of `n` bytes; `first`: nothing was in the ones before. Returns 1 when there is something in it. */
static int parse_part(const char *text, size_t n, bool first, LinkShape *l, TbError **err)
{
        char part[SHAPE_SPEC_MAX + 1];
        Words w = {.next = part};

        if (n > SHAPE_SPEC_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "bad shape: one part is longer than %d bytes", SHAPE_SPEC_MAX);
        memcpy(part, text, n);
        part[n] = '\0';
        if (!words_next(&w))
                return 0;
        if (is_match_word(w.word)) {
                int r = parse_rule(part, l->rules + l->n_rules, err);
                return r < 0 ? r : 1;
        }
        if (!first)
                return bad_rule(err, part, -EINVAL,
                        "only the first part may be without a match; begin with 'to ADDRESS'");
        int r = shape_spec_parse(part, &l->base, err);
        return r < 0 ? r : 1;
}

int link_shape_parse(const char *text, LinkShape *ret, TbError **err)
{
        _cleanup_link_shape_ LinkShape l = {};
        size_t n_parts = 1;
        bool any = false;

        if (strnlen(text, SHAPE_LINK_MAX + 1) > SHAPE_LINK_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "bad shape: longer than %u bytes", SHAPE_LINK_MAX);
        for (const char *p = text; *p; p++)
                n_parts += *p == ';';
        /* Twice as many parts as rules are enough for one part in each direction. */
        if (n_parts > 2 * (size_t) SHAPE_RULES_MAX + 2)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "bad shape: more than %u rules at one interface", SHAPE_RULES_MAX);
        l.rules = calloc(n_parts, sizeof(*l.rules));
        if (!l.rules)
                return tb_error_oom(err);
        for (size_t i = 0; i < n_parts; i++) {
                size_t n = strcspn(text, ";");
                int r = parse_part(text, n, !any, &l, err);
                if (r < 0)
                        return r;
                any |= r > 0;
                const ShapeRule *rule = l.rules + l.n_rules;
                bool said = rule->up_action || rule->down_action;
                l.n_rules += said;
                text += n + (text[n] == ';');
        }
        if (!any)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "bad shape: nothing is given, such as 'rate 10mbit'");
        int r = join_rules(&l, err);
        if (r < 0)
                return r;
        if (l.n_rules > SHAPE_RULES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "bad shape: %zu rules at one interface; at most %u are possible", l.n_rules,
                        SHAPE_RULES_MAX);
        *ret = l;
        l = (LinkShape){};
        return 0;
}
