/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "netctl/shape.h"

/*
 * The reader of SPEC, from the inside: shape-parse.c has the words and the table of items, shape-parse-link.c the items of
 * the shaper and its queue, shape-parse-netem.c those of netem.
 *
 * Items are read with one word of look-ahead: on entry the current word is the item's keyword, on return it is the first
 * word behind the item.
 */

#define SHAPE_WORD_MAX 64

typedef enum Direction {
        DIRECTION_UP = 1 << 0,
        DIRECTION_DOWN = 1 << 1,
        DIRECTION_BOTH = DIRECTION_UP | DIRECTION_DOWN,
} Direction;

typedef struct Parser {
        const char *next; /* not yet read */
        char word[SHAPE_WORD_MAX + 1];
        bool have; /* `word` holds the current word */
        Direction direction;
        /* Fields of up, down that an item for both directions set: these may be overridden. */
        uint64_t common[2];
        ShapePair pair;
} Parser;

/* Steps to the next word; p->have tells whether there was one. */
int parser_next(Parser *p, TbError **err);
/* Steps to a word that must be there. */
int parser_need(Parser *p, const char *keyword, const char *what, TbError **err);
/* Does the current word look like a number with a unit? (Keywords start with a letter.) */
bool parser_at_number(const Parser *p);
/* "unexpected WORD; ADVICE" */
int parser_fail(const char *word, TbError **err, const char *advice);
/* Says before the message of `err` which keyword it is about; returns r. */
int parser_prefix(int r, TbError **err, const char *keyword);

/* Marks f in the directions that hold. Twice is a mistake somebody made, but for one direction's own value over that of
 * both. */
int parser_mark(Parser *p, ShapeField f, const char *keyword, TbError **err);
/* Sets a field of `size` bytes at `member` of each direction that holds. */
int parser_put(Parser *p, ShapeField f, const char *keyword, size_t member, const void *value, size_t size,
        TbError **err);
/* `value` is an object of the member's type. */
#define PUT(p, f, keyword, member, value, err)                                                         \
        parser_put(p, f, keyword, offsetof(Shape, member), (1 ? &(value) : &((Shape *) NULL)->member), \
                sizeof(((Shape *) NULL)->member), err)

/* The current word as a time of at most `max`; does not step on. */
int parse_time_word(
        Parser *p, const char *keyword, uint64_t max, const char *max_text, uint64_t *ret, TbError **err);
/* The current word as a probability; steps on. */
int parse_percent_word(Parser *p, const char *keyword, uint32_t *ret, TbError **err);
/* The word behind the keyword as bytes, 0 or min..max, or as a number; steps on. */
int parse_bytes(Parser *p, const char *keyword, const char *example, uint32_t min, uint32_t max,
        uint32_t *ret, TbError **err);
int parse_number(
        Parser *p, const char *keyword, const char *example, uint32_t max, uint32_t *ret, TbError **err);
/* A word that is there or (with "off" behind it) not. */
int parse_switch(Parser *p, const char *keyword, ShapeField f, size_t member, TbError **err);

/* Items: shape-parse-link.c */
int parse_rate(Parser *p, TbError **err);
int parse_overhead(Parser *p, TbError **err);
int parse_mpu(Parser *p, TbError **err);
int parse_linklayer(Parser *p, TbError **err);
int parse_burst(Parser *p, TbError **err);
int parse_quantum(Parser *p, TbError **err);
int parse_limit(Parser *p, TbError **err);
int parse_queue(Parser *p, TbError **err);
int parse_link(Parser *p, TbError **err);
int parse_offload(Parser *p, TbError **err);

/* Items: shape-parse-netem.c */
int parse_delay(Parser *p, TbError **err);
int parse_distribution(Parser *p, TbError **err);
int parse_loss(Parser *p, TbError **err);
int parse_duplicate(Parser *p, TbError **err);
int parse_corrupt(Parser *p, TbError **err);
int parse_reorder(Parser *p, TbError **err);
int parse_gap(Parser *p, TbError **err);
int parse_slot(Parser *p, TbError **err);
int parse_seed(Parser *p, TbError **err);
