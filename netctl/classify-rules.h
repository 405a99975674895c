/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/classify.h"

/* Between classify.c and classify-rules.c. */

/* An instruction that is not executed; the code has no other of this kind. */
#define CLASSIFY_OP_WORD (BPF_LD | BPF_W | BPF_IMM)
#define CLASSIFY_RECORD_MAX 12U

/* One rule as words; their number. */
unsigned classify_encode_rule(const ClassifyRule *r, uint32_t w[static CLASSIFY_RECORD_MAX]);
