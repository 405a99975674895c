/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <netinet/in.h>

#include "netctl/shape.h"

/*
 * Shapes of a link: one that holds for everything at an interface, and rules for some of its traffic.
 *
 *   text  := part { ";" part }
 *   part  := SPEC                            (shape.h) what holds where no rule does; the first part, or none
 *          | MATCH RULE
 *   MATCH := { "to" ADDRESS["/"BITS] | "to any" | "from" ADDRESS["/"BITS] | "from any"
 *          | "tcp" | "udp" | "sctp" | "icmp" | "icmp6" | "proto" NUMBER | "port" P["-"Q] | "sport" P["-"Q] }
 *   RULE  := SPEC | ["up" | "down"] "pass" | ["up" | "down"] "default"
 *
 * Example: "delay 5ms; to 10.1.0.7 delay 20ms rate 10mbit; to 10.2.0.0/16 udp port 53 loss 1%; to 10.9.0.1 pass".
 *
 * A match is written as seen from the node: `to` and `port` are the far end, `from` and `sport` the node's own. It holds for
 * both directions of that traffic: of packets from the node ("up") `to` is the destination, of packets to the node ("down")
 * it is the source. "up"/"down" in the SPEC make a rule for one direction only; the other stays under the default.
 *
 * The most specific match wins: the longer `to` network, then the longer `from` network, then one with a family, then one
 * with a protocol, then the narrower `port` range, then the narrower `sport` range; of two that are still equal the one with
 * the lower ports. Two rules with the same match are a mistake.
 *
 * Ports are those of TCP, UDP, UDP-Lite, SCTP and DCCP; packets that do not show theirs (fragments but the first, IPv6
 * behind extension headers) match no rule with ports. "icmp" is ICMPv6 in IPv6. Other than IP follows the default.
 *
 * "pass" lets the traffic pass unshaped; "default" takes a rule away again and only has a meaning in a change.
 */

#define SHAPE_RULES_MAX 4096U
/* The longest text of a whole link. */
#define SHAPE_LINK_MAX (1024U * 1024U)

typedef struct ShapeAddress {
        int family;     /* AF_INET, AF_INET6; AF_UNSPEC: any address of any family */
        uint8_t prefix; /* bits */
        uint8_t bytes[16];
} ShapeAddress;

typedef struct ShapeMatch {
        ShapeAddress to, from;
        bool has_protocol, has_port, has_sport;
        uint8_t protocol;
        uint16_t port, port_last;
        uint16_t sport, sport_last;
} ShapeMatch;

/* Less than 0: a is looked at before b; 0: they are the same match. */
int shape_match_compare(const ShapeMatch *a, const ShapeMatch *b);
/* AF_INET or AF_INET6 when the match can only hold for one of them, else AF_UNSPEC. */
int shape_match_family(const ShapeMatch *m);

#define SHAPE_MATCH_TEXT_MAX 192
/* Parses back to the same match; begins with "to". Returns buf. */
const char *shape_match_print(const ShapeMatch *m, char buf[static SHAPE_MATCH_TEXT_MAX]);

typedef enum ShapeRuleAction {
        SHAPE_RULE_NONE,    /* no rule for this direction */
        SHAPE_RULE_SHAPE,   /* the shape; an empty one lets everything pass */
        SHAPE_RULE_PASS,    /* (changes only) as an empty shape, whatever the rule had */
        SHAPE_RULE_DEFAULT, /* (changes only) the rule is taken away */
} ShapeRuleAction;

typedef struct ShapeRule {
        ShapeMatch match;
        ShapeRuleAction up_action, down_action;
        Shape up, down;
} ShapeRule;

/* A default and its rules, in the order in which they are looked at. */
typedef struct LinkShape {
        ShapePair base;
        ShapeRule *rules;
        size_t n_rules;
} LinkShape;
void link_shape_done(LinkShape *l);
#define _cleanup_link_shape_ _cleanup_(link_shape_done)

/* Nothing at all is shaped. */
static inline bool link_shape_is_empty(const LinkShape *l)
{
        return shape_is_empty(&l->base.up) && shape_is_empty(&l->base.down) && l->n_rules == 0;
}
/* Has this direction something of its own: a default, or a rule? */
bool link_shape_has_up(const LinkShape *l);
bool link_shape_has_down(const LinkShape *l);

/*
 * Reads a text as a change, see shape_spec_parse(). Errors: TB_ERROR_CONFIG -EINVAL, -ERANGE, -E2BIG (more than
 * SHAPE_RULES_MAX rules, longer than SHAPE_LINK_MAX); the message names the rule.
 */
int link_shape_parse(const char *text, LinkShape *ret, TbError **err) _warn_unused_;

/* The same as a whole: zeros dropped, every shape validated. */
int link_shape_parse_complete(const char *text, LinkShape *ret, TbError **err) _warn_unused_;

/* Puts a change over a whole: properties over properties, rule by rule; new rules are added. With `replace_rules` the rules
 * of the change are all that is left. The result is complete and validated. */
int link_shape_merge(const LinkShape *base, const LinkShape *change, bool replace_rules, LinkShape *ret,
        TbError **err) _warn_unused_;

/* What holds for all traffic to and from one IPv4 address: its most specific rule without further conditions, else the
 * default. */
void link_shape_for_peer(const LinkShape *l, struct in_addr peer, ShapePair *ret);

int link_shape_copy(const LinkShape *l, LinkShape *ret, TbError **err) _warn_unused_;
bool link_shape_equal(const LinkShape *a, const LinkShape *b);

/* The canonical text of a whole; parses back to the same. NULL when out of memory. */
char *link_shape_print(const LinkShape *l);
