/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Numbers with units as tc(8) writes them ("PARAMETERS", "UNITS"), kept as 64-bit integers end to end.
 *
 * All parsers take the whole string (no trailing bytes), accept a decimal fraction, work in exact integer
 * arithmetic and ROUND TO NEAREST, halves up; a value that is not zero but would round to zero is an error
 * (-ERANGE), so is one that does not fit. No sign, no exponent, no "inf"/"nan", no white space inside.
 * Errors: -EINVAL (not such a number), -ERANGE (too big or too small); the message quotes the text and shows
 * an example.
 */

/* bit/s. Suffixes, case-insensitive: bit kbit mbit gbit tbit (10^3), kibit mibit gibit tibit (2^10), bps
 * kbps mbps gbps tbps (BYTES per second, as tc), kibps ...; without suffix: bit/s. */
int tb_parse_rate(const char *s, uint64_t *ret_bps, TbError **err) _warn_unused_;

/* ns. Suffixes: s sec secs, ms msec msecs, us usec usecs, ns nsec nsecs; without suffix: MICROSECONDS, as
 * tc. */
int tb_parse_time(const char *s, uint64_t *ret_ns, TbError **err) _warn_unused_;

/* Bytes. Suffixes: b, k kb (2^10), m mb (2^20), g gb (2^30), kbit mbit gbit (2^10 ... bits, as tc); none:
 * bytes. */
int tb_parse_size(const char *s, uint64_t *ret_bytes, TbError **err) _warn_unused_;

/* Probability in units of 1/2^32 as netem takes it: 100% is UINT32_MAX. "5%", "0.1%", or a fraction "0.001".
 */
int tb_parse_percent(const char *s, uint32_t *ret_p32, TbError **err) _warn_unused_;

int tb_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret, TbError **err) _warn_unused_;
int tb_parse_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret, TbError **err) _warn_unused_;
int tb_parse_bool(const char *s, bool *ret, TbError **err) _warn_unused_;

/* The shortest text that parses back to the same value: "10mbit", "1500kbit", "20ms", "400us", "1%". */
#define TB_UNIT_TEXT_MAX 48
const char *tb_format_rate(char buf[static TB_UNIT_TEXT_MAX], uint64_t bps);
const char *tb_format_time(char buf[static TB_UNIT_TEXT_MAX], uint64_t ns);
const char *tb_format_percent(char buf[static TB_UNIT_TEXT_MAX], uint32_t p32);
/* For people, two decimals: "12.34 MB" (powers of 1000). Not for parsing. */
const char *tb_format_bytes(char buf[static TB_UNIT_TEXT_MAX], uint64_t bytes);

/* CLOCK_MONOTONIC in ns and us. */
uint64_t tb_now_ns(void);
uint64_t tb_now_us(void);
