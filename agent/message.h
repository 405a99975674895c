/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/log.h"

/*
 * Messages that an operator may have to act on have a number (MESSAGE_ID, sd_journal_print(3)), and under it data/tbnoded.catalog
 * says what they mean and what to do: journalctl -x. A test compares the two. A number is never used for something else.
 */
#define MESSAGE_READY "58b2a2055bb54bcba37d2f2a4276b0bd"
#define MESSAGE_STOPPING "066548bbcded4077afcfe3fb2c3ea935"
#define MESSAGE_START_FAILED "9680cbf9a0f444f7a3b2c9780175e3ff"
#define MESSAGE_ENGINE_LOST "9918f2191616416ca655998523f8a6e7"
#define MESSAGE_ENGINE_FOUND "68d3705797a84cb1a47db8c2b7a8912d"
#define MESSAGE_NODE_FAILED "e18ead32b53e40fba3d93a3c91b089f7"
#define MESSAGE_BATCH_FAILED "f6bc9ffbe57a4966aea07430ea689c2e"
#define MESSAGE_REMOVAL_FAILED "640e43c1a5fa4762a8897c0d4aed5f11"
#define MESSAGE_FIREWALL_REPAIRED "0c85a1c381e542aea95401a9f6ea4de0"
#define MESSAGE_DRIFT_REPAIRED "6d1f7b02a9c34e58a0b7c1d24f9e3358"
#define MESSAGE_FIREWALL_UNWATCHED "051bacd7705b4071a70228e972f4e235"
#define MESSAGE_LEFTOVERS_REMOVED "9ffb74e8d88e4e92af7ff16909dea770"
#define MESSAGE_BRIDGE_NF_ENABLED "a44231961c404d98acd509316fa34037"
#define MESSAGE_LINK_NOT_AS_DECLARED "97d561fb1c934eb9a790c7cb0c3a3c48"
#define MESSAGE_RUN_FAILED "f5434819ba8b4f83af922e66046cbadf"
#define MESSAGE_TMCD_FAILED "bc3acb6586234657adebf8b190af4c54"
#define MESSAGE_CONFIG_RELOADED "f7ff870061c54b0ba2d3c92b12758a75"
#define MESSAGE_STATE_BROKEN "c1d5f0e4a3f24b6d9a5b7d3be0a6f2c8"
#define MESSAGE_CONFIG_REFUSED "5082e9ba8c81413cacadddad2d914798"

#define log_message(_level, _id, ...) \
        tb_log_fields((_level), ((const char *const[]){"MESSAGE_ID=" _id, NULL}), __VA_ARGS__)
