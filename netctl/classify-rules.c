/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The rules that the programs of classify.c carry behind their code: one word in each instruction. */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/classify-rules.h"

static unsigned family_bits(const ShapeAddress *a)
{
        return a->family == AF_INET6 ? 2 : a->family == AF_INET ? 1 : 0;
}

static unsigned put_address(const ShapeAddress *a, uint32_t *w)
{
        unsigned n = family_bits(a) == 2 ? 4 : family_bits(a);

        memcpy(w, a->bytes, 4 * (size_t) n);
        for (unsigned i = 0; i < n; i++)
                w[i] = ntohl(w[i]);
        return n;
}

unsigned classify_encode_rule(const ClassifyRule *r, uint32_t w[static CLASSIFY_RECORD_MAX])
{
        const ShapeMatch *m = &r->match;
        unsigned n = 2;

        w[0] = r->minor;
        w[1] = (uint32_t) m->to.prefix << 24 | (uint32_t) m->from.prefix << 16 |
                (m->has_protocol ? (uint32_t) m->protocol << 8 : 0) | family_bits(&m->to) |
                family_bits(&m->from) << 2 | (m->has_protocol ? 1U << 4 : 0) | (m->has_port ? 1U << 5 : 0) |
                (m->has_sport ? 1U << 6 : 0);
        n += put_address(&m->to, w + n);
        n += put_address(&m->from, w + n);
        if (m->has_port)
                w[n++] = (uint32_t) m->port << 16 | m->port_last;
        if (m->has_sport)
                w[n++] = (uint32_t) m->sport << 16 | m->sport_last;
        return n;
}

static bool get_address(
        unsigned family, uint8_t prefix, const uint32_t **w, const uint32_t *end, ShapeAddress *ret)
{
        static const unsigned words[] = {0, 1, 4}, bits[] = {0, 32, 128};
        ShapeAddress a = {.prefix = prefix};

        if (family > 2 || prefix > bits[family] || (size_t) (end - *w) < words[family])
                return false;
        a.family = family == 2 ? AF_INET6 : family == 1 ? AF_INET : AF_UNSPEC;
        for (unsigned i = 0; i < words[family]; i++) {
                uint32_t word = htonl(*(*w)++);
                memcpy(a.bytes + 4 * (size_t) i, &word, sizeof(word));
        }
        *ret = a;
        return true;
}

static bool get_ports(bool has, const uint32_t **w, const uint32_t *end, uint16_t *first, uint16_t *last)
{
        if (!has)
                return true;
        if (*w == end)
                return false;
        *first = (uint16_t) (**w >> 16);
        *last = (uint16_t) * (*w)++;
        return *first <= *last;
}

static bool decode_rule(const uint32_t **w, const uint32_t *end, ClassifyRule *ret)
{
        ClassifyRule r = {};
        ShapeMatch *m = &r.match;

        if (end - *w < 2)
                return false;
        r.minor = (uint16_t) (*w)[0];
        uint32_t v = (*w)[1];
        *w += 2;
        m->has_protocol = v & 1U << 4;
        m->has_port = v & 1U << 5;
        m->has_sport = v & 1U << 6;
        m->protocol = m->has_protocol ? (uint8_t) (v >> 8) : 0;
        if (!get_address(v & 3, (uint8_t) (v >> 24), w, end, &m->to) ||
                !get_address(v >> 2 & 3, (uint8_t) (v >> 16), w, end, &m->from) ||
                !get_ports(m->has_port, w, end, &m->port, &m->port_last) ||
                !get_ports(m->has_sport, w, end, &m->sport, &m->sport_last))
                return false;
        *ret = r;
        return true;
}

int classify_decode(const Programs *p, Arena *arena, ClassifyRule **ret, size_t *ret_n)
{
        size_t total = 0, n_words = 0, n = 0;

        for (size_t i = 0; i < p->n; i++)
                total += p->v[i].n;
        _cleanup_free_ uint32_t *words = reallocarray(NULL, total + 1, sizeof(*words));
        ClassifyRule *rules = arena_alloc(arena, total / 2 + 1, sizeof(*rules));
        if (!words || !rules)
                return -ENOMEM;
        for (size_t i = 0; i < p->n; i++)
                for (size_t k = 0; k < p->v[i].n; k++)
                        if (p->v[i].ops[k].code == CLASSIFY_OP_WORD)
                                words[n_words++] = p->v[i].ops[k].k;
        const uint32_t *w = words, *end = words + n_words;
        while (w < end)
                if (!decode_rule(&w, end, rules + n++))
                        return -EBADMSG;
        *ret = rules;
        *ret_n = n;
        return 0;
}
