/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/classify.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_sched.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/classify-rules.h"

/* The dimensions. IPv4 uses one word of each address. */
enum {
        DIM_DESTINATION = 0,
        DIM_SOURCE = 4,
        DIM_PROTOCOL = 8,
        DIM_DPORT = 9,
        DIM_SPORT = 10,
        N_DIMS = 11,
};
/* The value of the port dimensions for a packet without ports. */
#define NO_PORT 0x10000U
/* So many rules are compared one by one. */
#define LEAF_RULES 3
/* Code of one program; the rest is for the rules that it carries. */
#define CODE_MAX 2400U

/* BPF memory */
enum {
        MEM_DPORT,
        MEM_SPORT,
        MEM_PROTOCOL,
};

typedef struct Box {
        uint32_t lo[N_DIMS], hi[N_DIMS];
        uint32_t answer;
} Box;

typedef struct Code {
        struct sock_filter ops[CLASSIFY_OPS_MAX];
        unsigned n, max;
        bool full;
} Code;

typedef struct Compiler {
        bool ipv6;
        Code code;
        Program out[CLASSIFY_ALL_MAX]; /* on the heap, with room to the end */
        size_t n_out;
} Compiler;

static uint32_t dim_max(int dim)
{
        return dim < DIM_PROTOCOL ? UINT32_MAX : dim == DIM_PROTOCOL ? 255 : NO_PORT;
}

static void box_all(Box *b)
{
        memset(b->lo, 0, sizeof(b->lo));
        for (int d = 0; d < N_DIMS; d++)
                b->hi[d] = dim_max(d);
}

static void box_set_address(Box *b, int dim, const ShapeAddress *a)
{
        for (unsigned i = 0; i < (a->family == AF_INET6 ? 4U : 1U) && a->family != AF_UNSPEC; i++) {
                uint32_t word;
                unsigned bits = a->prefix > 32 * i ? a->prefix - 32 * i : 0;
                memcpy(&word, a->bytes + 4 * (size_t) i, sizeof(word));
                b->lo[dim + (int) i] = ntohl(word);
                b->hi[dim + (int) i] = ntohl(word) |
                        (bits == 0                   ? UINT32_MAX
                                        : bits >= 32 ? 0
                                                     : UINT32_MAX >> bits);
        }
}

static void box_set_ports(Box *b, int dim, bool has, uint16_t first, uint16_t last)
{
        if (has) {
                b->lo[dim] = first;
                b->hi[dim] = last;
        }
}

static void box_from_rule(const ClassifyRule *r, bool to_node, bool ipv6, uint32_t major, Box *ret)
{
        const ShapeMatch *m = &r->match;

        box_all(ret);
        ret->answer = TC_H_MAKE(major << 16, r->minor);
        box_set_address(ret, to_node ? DIM_SOURCE : DIM_DESTINATION, &m->to);
        box_set_address(ret, to_node ? DIM_DESTINATION : DIM_SOURCE, &m->from);
        box_set_ports(ret, to_node ? DIM_SPORT : DIM_DPORT, m->has_port, m->port, m->port_last);
        box_set_ports(ret, to_node ? DIM_DPORT : DIM_SPORT, m->has_sport, m->sport, m->sport_last);
        if (m->has_protocol) {
                uint8_t p = ipv6 && m->protocol == IPPROTO_ICMP ? IPPROTO_ICMPV6 : m->protocol;
                ret->lo[DIM_PROTOCOL] = ret->hi[DIM_PROTOCOL] = p;
        }
}

static bool box_overlaps(const Box *b, const Box *region)
{
        for (int d = 0; d < N_DIMS; d++)
                if (b->lo[d] > region->hi[d] || b->hi[d] < region->lo[d])
                        return false;
        return true;
}

static bool box_covers(const Box *b, const Box *region)
{
        for (int d = 0; d < N_DIMS; d++)
                if (b->lo[d] > region->lo[d] || b->hi[d] < region->hi[d])
                        return false;
        return true;
}

/* ---- Code -------------------------------------------------------------------------------------------------------- */

static unsigned emit(Code *c, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
        if (c->n >= c->max) {
                c->full = true;
                return 0;
        }
        c->ops[c->n] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
        return c->n++;
}

static void emit_return(Code *c, uint32_t answer)
{
        (void) emit(c, BPF_RET | BPF_K, 0, 0, answer);
}

/* Loads relative to the network header, which is right for tagged frames as well. */
static uint32_t net(uint32_t offset)
{
        return (uint32_t) SKF_NET_OFF + offset;
}

static void emit_load(const Compiler *c, Code *code, int dim)
{
        static const uint32_t memory[] = {
                [DIM_PROTOCOL - DIM_PROTOCOL] = MEM_PROTOCOL,
                [DIM_DPORT - DIM_PROTOCOL] = MEM_DPORT,
                [DIM_SPORT - DIM_PROTOCOL] = MEM_SPORT,
        };

        if (dim >= DIM_PROTOCOL)
                (void) emit(code, BPF_LD | BPF_MEM, 0, 0, memory[dim - DIM_PROTOCOL]);
        else {
                uint32_t word = 4 * ((uint32_t) dim % 4), base;
                if (dim >= DIM_SOURCE)
                        base = c->ipv6 ? 8 : 12;
                else
                        base = c->ipv6 ? 24 : 16;
                (void) emit(code, BPF_LD | BPF_W | BPF_ABS, 0, 0, net(base + word));
        }
}

/* Protocol and ports into memory. */
static void emit_transport(const Compiler *c, Code *code)
{
        static const uint8_t with_ports[] = {
                IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_DCCP, IPPROTO_UDPLITE};
        const unsigned n = ELEMENTSOF(with_ports), ports = c->ipv6 ? 4 : 7;

        (void) emit(code, BPF_LD | BPF_B | BPF_ABS, 0, 0, net(c->ipv6 ? 6 : 9));
        (void) emit(code, BPF_ST, 0, 0, MEM_PROTOCOL);
        (void) emit(code, BPF_LDX | BPF_W | BPF_IMM, 0, 0, NO_PORT);
        (void) emit(code, BPF_STX, 0, 0, MEM_DPORT);
        (void) emit(code, BPF_STX, 0, 0, MEM_SPORT);
        for (unsigned i = 0; i < n; i++)
                (void) emit(code, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t) (n - 1 - i + 1), 0, with_ports[i]);
        (void) emit(code, BPF_JMP | BPF_JA, 0, 0, ports);
        if (c->ipv6) {
                /* Behind extension headers there is another "protocol". */
                (void) emit(code, BPF_LD | BPF_H | BPF_ABS, 0, 0, net(40));
                (void) emit(code, BPF_ST, 0, 0, MEM_SPORT);
                (void) emit(code, BPF_LD | BPF_H | BPF_ABS, 0, 0, net(42));
                (void) emit(code, BPF_ST, 0, 0, MEM_DPORT);
                return;
        }
        /* Only the first fragment has ports; the header's length counts its options. */
        (void) emit(code, BPF_LD | BPF_H | BPF_ABS, 0, 0, net(6));
        (void) emit(code, BPF_JMP | BPF_JSET | BPF_K, 5, 0, 0x1fff);
        (void) emit(code, BPF_LDX | BPF_B | BPF_MSH, 0, 0, net(0));
        (void) emit(code, BPF_LD | BPF_H | BPF_IND, 0, 0, net(0));
        (void) emit(code, BPF_ST, 0, 0, MEM_SPORT);
        (void) emit(code, BPF_LD | BPF_H | BPF_IND, 0, 0, net(2));
        (void) emit(code, BPF_ST, 0, 0, MEM_DPORT);
}

/* One rule after the other. */
static void emit_leaf(
        const Compiler *c, Code *code, const Box *const *boxes, size_t n, const Box *region, int loaded)
{
        for (size_t i = 0; i < n; i++) {
                unsigned fails[2 * N_DIMS], n_fails = 0;
                int first = -1;
                bool several = false;

                for (int d = 0; d < N_DIMS; d++) {
                        const Box *b = boxes[i];
                        bool low = b->lo[d] > region->lo[d], high = b->hi[d] < region->hi[d];
                        if (!low && !high)
                                continue;
                        if (loaded != d)
                                emit_load(c, code, d);
                        loaded = d;
                        several |= first >= 0;
                        first = first < 0 ? d : first;
                        if (b->lo[d] == b->hi[d])
                                fails[n_fails++] = emit(code, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, b->lo[d]);
                        else {
                                if (low)
                                        fails[n_fails++] =
                                                emit(code, BPF_JMP | BPF_JGE | BPF_K, 0, 1, b->lo[d]);
                                if (high)
                                        fails[n_fails++] =
                                                emit(code, BPF_JMP | BPF_JGT | BPF_K, 1, 0, b->hi[d]);
                        }
                }
                emit_return(code, boxes[i]->answer);
                for (unsigned k = 0; k < n_fails && !code->full; k++) {
                        struct sock_filter *op = code->ops + fails[k];
                        uint8_t distance = (uint8_t) (code->n - fails[k] - 1);
                        if (op->jf)
                                op->jf = distance;
                        else
                                op->jt = distance;
                }
                /* Where a rule of several dimensions failed is not known. */
                loaded = several ? -1 : loaded;
                if (n_fails == 0) /* it has the whole region */
                        return;
        }
        emit_return(code, 0);
}

/* ---- Cutting ----------------------------------------------------------------------------------------------------- */

static int compare_u32(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

        return x < y ? -1 : x > y;
}

/* The middle one of the values at which a box begins or ends inside the region; false when there is none. */
static bool middle_border(
        const Box *const *boxes, size_t n, const Box *region, int dim, uint32_t *scratch, uint32_t *ret)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++) {
                if (boxes[i]->lo[dim] > region->lo[dim])
                        scratch[k++] = boxes[i]->lo[dim];
                if (boxes[i]->hi[dim] < region->hi[dim])
                        scratch[k++] = boxes[i]->hi[dim] + 1;
        }
        if (k == 0)
                return false;
        qsort(scratch, k, sizeof(*scratch), compare_u32);
        *ret = scratch[k / 2];
        return true;
}

/* Where to cut: both halves must have clearly fewer rules, and few rules may be in both. */
static bool choose_cut(
        const Box *const *boxes, size_t n, const Box *region, uint32_t *scratch, int *ret_dim, uint32_t *ret)
{
        size_t best = SIZE_MAX;

        for (int d = 0; d < N_DIMS; d++) {
                uint32_t v;
                size_t left = 0, right = 0;
                if (!middle_border(boxes, n, region, d, scratch, &v))
                        continue;
                for (size_t i = 0; i < n; i++) {
                        left += boxes[i]->lo[d] < v;
                        right += boxes[i]->hi[d] >= v;
                }
                size_t worse = left > right ? left : right;
                if (worse * 4 > n * 3 + 2 || left + right > n + n / 4 + 2 || worse >= best)
                        continue;
                best = worse;
                *ret_dim = d;
                *ret = v;
        }
        return best != SIZE_MAX;
}

/* Those of `boxes` that reach into the region, up to the first that has all of it. */
static size_t narrow(const Box *const *boxes, size_t n, const Box *region, const Box **ret)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++) {
                if (!box_overlaps(boxes[i], region))
                        continue;
                ret[k++] = boxes[i];
                if (box_covers(boxes[i], region))
                        break;
        }
        return k;
}

static int compile_region(Compiler *c, const Box *const *boxes, size_t n, const Box *region, int loaded)
{
        Code *code = &c->code;
        uint32_t value = 0;
        int dim = 0;

        if (code->full)
                return 0;
        _cleanup_free_ uint32_t *scratch = reallocarray(NULL, 2 * n + 1, sizeof(*scratch));
        _cleanup_free_ const Box **half = reallocarray(NULL, n + 1, sizeof(Box *));
        if (!scratch || !half)
                return -ENOMEM;
        if (n <= LEAF_RULES || !choose_cut(boxes, n, region, scratch, &dim, &value)) {
                emit_leaf(c, code, boxes, n, region, loaded);
                return 0;
        }
        Box right = *region, left = *region;
        right.lo[dim] = value;
        left.hi[dim] = value - 1;
        if (loaded != dim)
                emit_load(c, code, dim);
        (void) emit(code, BPF_JMP | BPF_JGE | BPF_K, 1, 0, value);
        unsigned jump = emit(code, BPF_JMP | BPF_JA, 0, 0, 0);

        int r = compile_region(c, half, narrow(boxes, n, &right, half), &right, dim);
        if (r < 0)
                return r;
        if (!code->full)
                code->ops[jump].k = code->n - jump - 1;
        return compile_region(c, half, narrow(boxes, n, &left, half), &left, dim);
}

static bool needs_transport(const Box *const *boxes, size_t n, const Box *region)
{
        for (int d = DIM_PROTOCOL; d < N_DIMS; d++) {
                if (region->lo[d] > 0 || region->hi[d] < dim_max(d))
                        return true;
                for (size_t i = 0; i < n; i++)
                        if (boxes[i]->lo[d] > 0 || boxes[i]->hi[d] < dim_max(d))
                                return true;
        }
        return false;
}

/* One program for one region, into c->code; c->code.full tells that it did not fit. */
static int compile_program(Compiler *c, const Box *const *boxes, size_t n, const Box *region)
{
        Code *code = &c->code;
        int loaded = -1;

        *code = (Code){.max = CODE_MAX};
        (void) emit(code, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t) (SKF_AD_OFF + SKF_AD_PROTOCOL));
        (void) emit(code, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, c->ipv6 ? ETH_P_IPV6 : ETH_P_IP);
        emit_return(code, 0);
        if (needs_transport(boxes, n, region))
                emit_transport(c, code);
        for (int d = 0; d < N_DIMS; d++) {
                bool low = region->lo[d] > 0, high = region->hi[d] < dim_max(d);
                if (!low && !high)
                        continue;
                emit_load(c, code, d);
                loaded = d;
                if (low) {
                        (void) emit(code, BPF_JMP | BPF_JGE | BPF_K, 1, 0, region->lo[d]);
                        emit_return(code, 0);
                }
                if (high) {
                        (void) emit(code, BPF_JMP | BPF_JGT | BPF_K, 0, 1, region->hi[d]);
                        emit_return(code, 0);
                }
        }
        return compile_region(c, boxes, n, region, loaded);
}

static int add_program(Compiler *c, const struct sock_filter *ops, unsigned n, TbError **err)
{
        Program p = {.ops = malloc(sizeof(c->code.ops)), .n = (uint16_t) n};

        if (!p.ops)
                return tb_error_oom(err);
        memcpy(p.ops, ops, n * sizeof(*ops));
        c->out[c->n_out++] = p;
        return 0;
}

/* As many programs as it takes. */
static int compile_family(Compiler *c, const Box *const *boxes, size_t n, const Box *region, TbError **err)
{
        uint32_t value = 0;
        int dim = 0;

        int r = compile_program(c, boxes, n, region);
        if (r < 0)
                return tb_error_oom(err);
        if (!c->code.full && c->n_out < CLASSIFY_PROGRAMS_MAX) {
                return add_program(c, c->code.ops, c->code.n, err);
        }
        _cleanup_free_ uint32_t *scratch = reallocarray(NULL, 2 * n + 1, sizeof(*scratch));
        _cleanup_free_ const Box **half = reallocarray(NULL, n + 1, sizeof(Box *));
        if (!scratch || !half)
                return tb_error_oom(err);
        if (c->n_out >= CLASSIFY_PROGRAMS_MAX || !choose_cut(boxes, n, region, scratch, &dim, &value))
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "bad shape: its %zu rules overlap too much to be told apart for each packet; use "
                        "fewer "
                        "networks and port ranges that lie across each other",
                        n);
        Box right = *region, left = *region;
        right.lo[dim] = value;
        left.hi[dim] = value - 1;
        r = compile_family(c, half, narrow(boxes, n, &left, half), &left, err);
        return r < 0 ? r : compile_family(c, half, narrow(boxes, n, &right, half), &right, err);
}

static int carry_rules(Compiler *c, const ClassifyRule *rules, size_t n, TbError **err)
{
        size_t p = 0;

        for (size_t i = 0; i < n; i++) {
                uint32_t words[CLASSIFY_RECORD_MAX];
                unsigned count = classify_encode_rule(rules + i, words);
                /* One is for the return that every program must end with. */
                while (p < c->n_out && c->out[p].n + count + 1 > CLASSIFY_OPS_MAX)
                        p++;
                if (p == c->n_out) {
                        static const struct sock_filter none = {.code = BPF_RET | BPF_K};
                        int r = add_program(c, &none, 1, err);
                        if (r < 0)
                                return r;
                }
                for (unsigned k = 0; k < count; k++)
                        c->out[p].ops[c->out[p].n++] =
                                (struct sock_filter){.code = CLASSIFY_OP_WORD, .k = words[k]};
        }
        for (p = 0; p < c->n_out; p++)
                c->out[p].ops[c->out[p].n++] = (struct sock_filter){.code = BPF_RET | BPF_K};
        return 0;
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

static void compiler_free(Compiler **c)
{
        for (size_t i = 0; *c && i < (*c)->n_out; i++)
                free((*c)->out[i].ops);
        free(*c);
}

static int compile_rules(
        Compiler *c, const ClassifyRule *rules, size_t n, bool to_node, uint32_t major, TbError **err)
{
        Box region;

        _cleanup_free_ Box *boxes = reallocarray(NULL, n, sizeof(*boxes));
        _cleanup_free_ const Box **order = reallocarray(NULL, n, sizeof(Box *));
        if (!boxes || !order)
                return tb_error_oom(err);
        box_all(&region);
        for (int six = 0; six < 2; six++) {
                size_t count = 0;
                for (size_t i = 0; i < n; i++) {
                        int family = shape_match_family(&rules[i].match);
                        if (family != AF_UNSPEC && (family == AF_INET6) != six)
                                continue;
                        box_from_rule(rules + i, to_node, six, major, boxes + count);
                        order[count] = boxes + count;
                        count++;
                }
                if (count == 0)
                        continue;
                c->ipv6 = six;
                /* What is behind a rule for everything is never reached. */
                const size_t used = narrow(order, count, &region, order);
                int r = compile_family(c, order, used, &region, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int classify_compile(const ClassifyRule *rules, size_t n, bool to_node, uint32_t major, Arena *arena,
        Programs *ret, TbError **err)
{
        if (n == 0) {
                *ret = (Programs){};
                return 0;
        }
        _cleanup_(compiler_free) Compiler *c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        int r = compile_rules(c, rules, n, to_node, major, err);
        if (r >= 0)
                r = carry_rules(c, rules, n, err);
        if (r < 0)
                return r;
        Program *v = arena_alloc(arena, c->n_out, sizeof(*v));
        if (!v)
                return tb_error_oom(err);
        for (size_t i = 0; i < c->n_out; i++) {
                v[i] = (Program){
                        .n = c->out[i].n, .ops = arena_alloc(arena, c->out[i].n, sizeof(*v[i].ops))};
                if (!v[i].ops)
                        return tb_error_oom(err);
                memcpy(v[i].ops, c->out[i].ops, v[i].n * sizeof(*v[i].ops));
        }
        *ret = (Programs){.v = v, .n = c->n_out};
        return 0;
}

bool programs_equal(const Programs *a, const Programs *b)
{
        if (a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++)
                if (a->v[i].n != b->v[i].n ||
                        memcmp(a->v[i].ops, b->v[i].ops, a->v[i].n * sizeof(*a->v[i].ops)) != 0)
                        return false;
        return true;
}
