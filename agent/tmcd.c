/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/tmcd.h"

#include <ctype.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define SSL_TAG "ISPEAKSSL_TMCDV10"

/*
 * Order counts. Names without a meaning here are in it, too: an Emulab client that asks them at boot gets an empty answer,
 * as from a testbed that has nothing to say. `full`: part of a virtual node's full configuration.
 */
static const struct {
        const char *name;
        TmcdCommand command;
        bool full;
} commands[] = {
        {"reboot", TMCD_NOTHING, false},
        {"nodeid", TMCD_NODEID, true},
        {"nodetype", TMCD_NOTHING, true},
        {"nodeuuid", TMCD_NOTHING, true},
        {"manifest", TMCD_NOTHING, true},
        {"status", TMCD_STATUS, false},
        {"ifconfig", TMCD_IFCONFIG, true},
        {"accounts", TMCD_ACCOUNTS, true},
        {"delay", TMCD_NOTHING, true},
        {"bridges", TMCD_NOTHING, true},
        {"linkdelay", TMCD_NOTHING, true},
        {"hostnames", TMCD_HOSTNAMES, false},
        {"rpms", TMCD_NOTHING, true},
        {"deltas", TMCD_NOTHING, false},
        {"tarballs", TMCD_NOTHING, true},
        {"blobs", TMCD_NOTHING, true},
        {"startupcmd", TMCD_STARTUPCMD, true},
        {"startstatus", TMCD_STARTSTATUS, false},
        {"startstat", TMCD_STARTSTATUS, false},
        {"readycount", TMCD_READYCOUNT, false},
        {"ready", TMCD_READY, false},
        {"storageconfig", TMCD_NOTHING, true},
        {"mounts", TMCD_MOUNTS, true},
        {"sfshostid", TMCD_NOTHING, false},
        {"loadinfo", TMCD_NOTHING, false},
        {"reset", TMCD_NOTHING, false},
        {"routing", TMCD_ROUTING, true},
        {"trafgens", TMCD_NOTHING, true},
        {"nseconfigs", TMCD_NOTHING, true},
        {"creator", TMCD_CREATOR, true},
        {"state", TMCD_STATE, false},
        {"tunnels", TMCD_NOTHING, true},
        {"vnodelist", TMCD_NOTHING, false},
        {"subnodelist", TMCD_NOTHING, false},
        {"isalive", TMCD_UPDATE, false},
        {"ipodinfo", TMCD_NOTHING, false},
        {"ntpinfo", TMCD_NOTHING, false},
        {"ntpdrift", TMCD_NOTHING, false},
        {"jailconfig", TMCD_NOTHING, true},
        {"plabconfig", TMCD_NOTHING, true},
        {"subconfig", TMCD_NOTHING, false},
        {"sdparams", TMCD_NOTHING, false},
        {"programs", TMCD_PROGRAMS, true},
        {"syncserver", TMCD_SYNCSERVER, true},
        {"keyhash", TMCD_NOTHING, true},
        {"eventkey", TMCD_NOTHING, true},
        {"fullconfig", TMCD_FULLCONFIG, false},
        {"routelist", TMCD_NOTHING, false},
        {"role", TMCD_NOTHING, false},
        {"rusage", TMCD_UPDATE, false},
        {"watchdoginfo", TMCD_NOTHING, true},
        {"hostkeys", TMCD_NOTHING, false},
        {"tmcctest", TMCD_NOTHING, false},
        {"firewallinfo", TMCD_FIREWALLINFO, true},
        {"hostinfo", TMCD_NOTHING, false},
        {"emulabconfig", TMCD_NOTHING, false},
        {"eplabconfig", TMCD_NOTHING, false},
        {"localization", TMCD_NOTHING, false},
        {"rootpswd", TMCD_NOTHING, false},
        {"booterrno", TMCD_NOTHING, false},
        {"bootlog", TMCD_NOTHING, false},
        {"battery", TMCD_NOTHING, false},
        {"topomap", TMCD_NOTHING, false},
        {"userenv", TMCD_USERENV, true},
        {"tiptunnels", TMCD_NOTHING, true},
        {"traceinfo", TMCD_NOTHING, true},
        {"ltmap", TMCD_NOTHING, false},
        {"ltpmap", TMCD_NOTHING, false},
        {"elvindport", TMCD_NOTHING, false},
        {"plabeventkeys", TMCD_NOTHING, false},
        {"intfcmap", TMCD_NOTHING, false},
        {"motelog", TMCD_NOTHING, true},
        {"portregister", TMCD_NOTHING, false},
        {"bootwhat", TMCD_NOTHING, false},
        {"tpmblob", TMCD_NOTHING, true},
        {"tpmpubkey", TMCD_NOTHING, true},
        {"tpmdummy", TMCD_NOTHING, true},
        {"dhcpdconf", TMCD_NOTHING, true},
        {"securestate", TMCD_NOTHING, false},
        {"quoteprep", TMCD_NOTHING, false},
        {"imagekey", TMCD_NOTHING, false},
        {"nodeattributes", TMCD_NOTHING, true},
        {"disks", TMCD_NOTHING, true},
        {"arpinfo", TMCD_NOTHING, false},
        {"hwinfo", TMCD_NOTHING, false},
        {"tiplineinfo", TMCD_NOTHING, false},
        {"imageinfo", TMCD_NOTHING, false},
        {"imagesize", TMCD_NOTHING, false},
        {"pnetnodeattrs", TMCD_NOTHING, false},
        {"serviceinfo", TMCD_NOTHING, false},
        {"subbossinfo", TMCD_NOTHING, false},
        {"publicaddrinfo", TMCD_NOTHING, false},
        {"hwcollect", TMCD_NOTHING, false},
        {"geni_", TMCD_NOTHING, false},
};

/* What may stand in front of the command. Only the version means something here. */
static const char *const leading[] = {
        "VNODEID=", "PROXYFOR=", "PRIVKEY=", "IDKEY=", "USEUDP=", "REDIRECT=", "NEWREDIRECT=", "VERSION="};

typedef struct Words {
        const char *at, *end;
} Words;

static bool next_word(Words *w, const char **ret, size_t *ret_size)
{
        while (w->at < w->end && isspace((unsigned char) *w->at))
                w->at++;
        if (w->at == w->end)
                return false;
        *ret = w->at;
        while (w->at < w->end && !isspace((unsigned char) *w->at))
                w->at++;
        *ret_size = (size_t) (w->at - *ret);
        return true;
}

static bool begins(const char *s, size_t size, const char *with)
{
        return size >= strlen(with) && memcmp(s, with, strlen(with)) == 0;
}

static const char *leading_word(const char *s, size_t size)
{
        for (size_t i = 0; i < ELEMENTSOF(leading); i++)
                if (begins(s, size, leading[i]))
                        return leading[i];
        return NULL;
}

static bool parse_version(const char *s, size_t size, unsigned *ret)
{
        char text[12];
        uint32_t version;

        if (size == 0 || size >= sizeof(text))
                return false;
        memcpy(text, s, size);
        text[size] = 0;
        if (tb_parse_u32(text, 0, 1000000, &version, NULL) < 0)
                return false;
        *ret = version;
        return true;
}

/* Up to the command; the word that is it in *ret, or NULL when there is none (yet). -EINVAL: a version that is none. */
static int read_head(Words *w, unsigned *ret_version, const char **ret, size_t *ret_size)
{
        const char *word, *kind;
        size_t size;

        *ret = NULL;
        *ret_version = TMCD_VERSION_DEFAULT;
        while (next_word(w, &word, &size)) {
                kind = leading_word(word, size);
                if (!kind) {
                        *ret = word;
                        *ret_size = size;
                        return 0;
                }
                if (tb_streq(kind, "VERSION=") &&
                        !parse_version(word + strlen(kind), size - strlen(kind), ret_version))
                        return -EINVAL;
        }
        return 0;
}

bool tmcd_request_wants_ssl(const char *data, size_t size)
{
        return begins(data, size, SSL_TAG);
}

bool tmcd_request_is_whole(const char *data, size_t size, bool tcp, bool eof)
{
        Words w = {data, data + size};
        unsigned version;
        const char *word;
        size_t word_size;

        if (eof || !tcp || tmcd_request_wants_ssl(data, size))
                return true;
        return read_head(&w, &version, &word, &word_size) < 0 || (word && version < TMCD_VERSION_TO_EOF);
}

int tmcd_request_parse(const char *data, size_t size, TmcdRequest *ret, TbError **err)
{
        Words w = {data, data + size};
        _cleanup_free_ char *shown = NULL, *copy = NULL;
        TmcdRequest request = {};
        const char *word;
        size_t word_size = 0;

        if (size > TMCD_PACKET_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "a request of more than %u bytes", TMCD_PACKET_MAX);
        if (read_head(&w, &request.version, &word, &word_size) < 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "VERSION= is no number");
        if (!word)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a request without a command");
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                if (!begins(word, word_size, commands[i].name))
                        continue;
                request.command = commands[i].command;
                request.name = commands[i].name;
                request.arguments = word + strlen(commands[i].name);
                request.arguments_size = (size_t) (data + size - request.arguments);
                *ret = request;
                return 0;
        }
        copy = strndup(word, word_size);
        shown = copy ? tb_escape(copy, 40) : NULL;
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "there is no command '%s'", shown ?: "");
}

bool tmcd_request_argument(const TmcdRequest *r, char *ret, size_t size)
{
        Words w = {r->arguments, r->arguments + r->arguments_size};
        const char *word;
        size_t n;

        if (!next_word(&w, &word, &n) || n >= size || memchr(word, 0, n))
                return false;
        memcpy(ret, word, n);
        ret[n] = 0;
        return true;
}

int tmcd_print_full(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                int r;

                if (!commands[i].full)
                        continue;
                r = tb_buffer_printf(out, err, "*** %s\n", commands[i].name);
                if (r >= 0)
                        r = tmcd_print(commands[i].command, version, f, out, err);
                if (r >= 0)
                        r = tb_buffer_printf(out, err, "*** %s\n", commands[i].name);
                if (r < 0)
                        return r;
        }
        return 0;
}
