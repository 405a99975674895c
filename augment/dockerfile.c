/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "augment/dockerfile.h"
#include "common/cleanup.h"
#include "common/strv.h"

/*
 * How a Dockerfile is read, as far as it decides what may be written (moby's and BuildKit's frontend/dockerfile/parser):
 * the text is cut into lines of at most 64 KiB; a line that ends in a backslash goes on in the next one, whose bytes are
 * appended as they are, unless it is empty or its first byte that is not white space is '#': such lines vanish. In newer
 * versions a backslash before that last backslash makes it none. Only then is the instruction looked at, so a JSON array
 * may be broken anywhere, also in a string, as long as the next piece begins with something harmless.
 */

/* Arrays whose text is longer get a line per element. */
#define ARRAY_LINE_MAX 140u
/* And strings are broken when a line has grown so long. Far from 64 KiB, near enough to be read by editors. */
#define STRING_LINE_MAX 8192u
/* No configuration that fits into IMAGE_CONFIG_MAX comes near. */
#define DOCKERFILE_MAX (64u * 1024 * 1024)

/* Decodes one character of valid UTF-8 (jansson and argv checks saw to that); a stray byte counts as itself. */
static uint32_t decode_utf8(const unsigned char *s, size_t *ret_size)
{
        size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 1;
        uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));

        for (size_t i = 1; i < n; i++) {
                if ((s[i] & 0xc0) != 0x80) {
                        *ret_size = 1;
                        return s[0];
                }
                c = c << 6 | (s[i] & 0x3f);
        }
        *ret_size = n;
        return c;
}

/* Characters that people can't see, or that turn the text around them about, are written as escapes. */
static bool is_printable(uint32_t c)
{
        static const struct {
                uint32_t first, last;
        } hidden[] = {
                {0x00, 0x1f},
                {0x7f, 0xa0},
                {0xad, 0xad},
                {0x61c, 0x61c},
                {0x180e, 0x180e},
                {0x2000, 0x200f},
                {0x2028, 0x202f},
                {0x205f, 0x206f},
                {0x3000, 0x3000},
                {0xd800, 0xf8ff},
                {0xfe00, 0xfe0f},
                {0xfeff, 0xfeff},
                {0xfff0, 0xffff},
                {0xe0000, 0x10ffff},
        };

        for (size_t i = 0; i < ELEMENTSOF(hidden); i++)
                if (c >= hidden[i].first && c <= hidden[i].last)
                        return false;
        return true;
}

static int append_escape(TbBuffer *b, uint32_t c, TbError **err)
{
        if (c > 0xffff) {
                c -= 0x10000;
                return tb_buffer_printf(b, err, "\\u%04x\\u%04x", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
        }
        return tb_buffer_printf(b, err, "\\u%04x", c);
}

/* One character of a JSON string. `force` writes it as an escape in any case. */
static int append_json_char(TbBuffer *b, uint32_t c, const char *s, size_t size, bool force, TbError **err)
{
        if (!force && (c == '"' || c == '\\'))
                return tb_buffer_printf(b, err, "\\%c", (char) c);
        if (!force && c == '\n')
                return tb_buffer_append_str(b, "\\n", err);
        if (!force && c == '\t')
                return tb_buffer_append_str(b, "\\t", err);
        if (force || !is_printable(c))
                return append_escape(b, c, err);
        return tb_buffer_append(b, s, size, err);
}

/* A line may end before this character, when what was written last allows it. */
static bool may_begin_line(uint32_t c)
{
        return c != '#' && c != ' ' && c != '\t';
}

/* A script: each line of it on a line of its own. The first must begin with no blank; comments vanish in a Dockerfile's
 * continuation lines, so there must be none. */
static int append_json_script(TbBuffer *b, const char *s, TbError **err)
{
        int r = tb_buffer_append_str(b, "\"", err);

        while (r >= 0 && *s) {
                size_t size;
                uint32_t c = decode_utf8((const unsigned char *) s, &size);

                r = append_json_char(b, c, s, size, false, err);
                s += size;
                if (r >= 0 && c == '\n' && *s)
                        r = tb_buffer_append_str(b, "\\\n", err);
        }
        return r < 0 ? r : tb_buffer_append_str(b, "\"", err);
}

static int append_json_string(TbBuffer *b, const char *s, TbError **err)
{
        size_t line = b->size, size;
        int r;

        r = tb_buffer_append_str(b, "\"", err);
        for (; r >= 0 && *s; s += size) {
                uint32_t c = decode_utf8((const unsigned char *) s, &size);
                bool full = b->size - line > STRING_LINE_MAX;

                if (full && may_begin_line(c) && b->data[b->size - 1] != '\\') {
                        r = tb_buffer_append_str(b, "\\\n", err);
                        if (r < 0)
                                return r;
                        line = b->size;
                        full = false;
                }
                /* A run of nothing but backslashes, blanks or '#' offers no place to break: an escape does. */
                r = append_json_char(b, c, s, size, full, err);
        }
        return r < 0 ? r : tb_buffer_append_str(b, "\"", err);
}

/* ["/bin/sh", "-euc", script]: the array form, because in the other one the image's SHELL would read it. */
static int append_run(TbBuffer *b, char *const *v, TbError **err)
{
        int r = tb_buffer_append_str(b, "RUN [", err);

        for (size_t i = 0; r >= 0 && v[i]; i++) {
                bool script = strchr(v[i], '\n');

                r = tb_buffer_append_str(b, i == 0 ? "" : script ? ", \\\n" : ", ", err);
                if (r >= 0)
                        r = script ? append_json_script(b, v[i], err) : append_json_string(b, v[i], err);
        }
        return r < 0 ? r : tb_buffer_append_str(b, "]", err);
}

static int append_json_array(TbBuffer *b, char *const *v, TbError **err)
{
        bool broken;
        size_t n = 0;
        int r;

        for (char *const *s = v; s && *s; s++)
                n += strlen(*s) + 4;
        broken = n > ARRAY_LINE_MAX;

        r = tb_buffer_append_str(b, "[", err);
        for (size_t i = 0; r >= 0 && v && v[i]; i++) {
                r = tb_buffer_append_str(b, broken ? (i ? ", \\\n    " : " \\\n    ") : i ? ", " : "", err);
                if (r >= 0)
                        r = append_json_string(b, v[i], err);
        }
        return r < 0 ? r : tb_buffer_append_str(b, broken ? " \\\n    ]" : "]", err);
}

/* A double-quoted word in which variables are expanded: \" \\ \$ are the escapes (buildkit shell/lex.go). */
static int append_word(TbBuffer *b, const char *s, TbError **err)
{
        int r = tb_buffer_append_str(b, "\"", err);

        for (; r >= 0 && *s; s++) {
                if ((unsigned char) *s < 0x20 || *s == 0x7f)
                        return tb_error_set(err, TB_ERROR_BUG, -EINVAL,
                                "a control character can't be written in a LABEL or USER instruction");
                if (strchr("\"\\$", *s))
                        r = tb_buffer_append_str(b, "\\", err);
                if (r >= 0)
                        r = tb_buffer_append(b, s, 1, err);
        }
        return r < 0 ? r : tb_buffer_append_str(b, "\"", err);
}

static int append_labels(TbBuffer *b, char *const *v, TbError **err)
{
        int r = tb_buffer_append_str(b, "LABEL ", err);

        for (size_t i = 0; r >= 0 && v[i] && v[i + 1]; i += 2) {
                if (i > 0)
                        r = tb_buffer_append_str(b, " \\\n      ", err);
                if (r >= 0)
                        r = append_word(b, v[i], err);
                if (r >= 0)
                        r = tb_buffer_append_str(b, "=", err);
                if (r >= 0)
                        r = append_word(b, v[i + 1], err);
        }
        return r;
}

int dockerfile_render_step(const RecipeStep *step, TbBuffer *b, TbError **err)
{
        int r;

        switch (step->op) {
        case RECIPE_ADD:
                return tb_buffer_printf(b, err, "ADD %s /", step->layer->file);
        case RECIPE_USER:
                r = tb_buffer_append_str(b, "USER ", err);
                return r < 0 ? r : append_word(b, step->args[0], err);
        case RECIPE_RUN:
                return append_run(b, step->args, err);
        case RECIPE_LABEL:
                return append_labels(b, step->args, err);
        case RECIPE_ENTRYPOINT:
                r = tb_buffer_append_str(b, "ENTRYPOINT ", err);
                return r < 0 ? r : append_json_array(b, step->args, err);
        case RECIPE_CMD:
                r = tb_buffer_append_str(b, "CMD ", err);
                return r < 0 ? r : append_json_array(b, step->args, err);
        case _RECIPE_OP_MAX:
        case _RECIPE_OP_INVALID:
        default:
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "unknown recipe step %d", (int) step->op);
        }
}

static int append_comment(TbBuffer *b, const char *text, TbError **err)
{
        int r = 0;

        while (r >= 0 && *text) {
                size_t n = strcspn(text, "\n");

                r = tb_buffer_printf(b, err, "#%s%.*s\n", n > 0 ? " " : "", (int) n, text);
                text += n;
                text += *text == '\n';
        }
        return r;
}

/* The first line must not look like a parser directive ("# name=value"). */
static int append_header(TbBuffer *b, const Recipe *r, TbError **err)
{
        int k;

        k = tb_buffer_printf(b, err,
                "# %s as a testbed node: level %s, %s. Written by tbnode " TBNODE_VERSION ".\n"
                "#\n"
                "# Build it where the files that it adds are: docker build .\n"
                "# To take the base image from a mirror: docker build --build-arg "
                "BASE=mirror/name@sha256:... .\n",
                r->base_name, augment_level_to_string(r->level), r->platform);
        if (k >= 0 && r->has_on_build)
                k = append_comment(b,
                        "\nThe base image has ONBUILD triggers: docker build runs them right after FROM, "
                        "the native\n"
                        "builder of tbnode leaves them in place.",
                        err);
        if (k < 0)
                return k;
        return tb_buffer_printf(
                b, err, "\nARG BASE=%s@%s\nFROM ${BASE}\n", r->base_name, r->base_digest.text);
}

int dockerfile_render(const Recipe *r, char **ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(DOCKERFILE_MAX);
        char *text;
        int k;

        k = append_header(&b, r, err);
        for (size_t i = 0; k >= 0 && i < r->n_steps; i++) {
                if ((k = tb_buffer_append_str(&b, "\n", err)) < 0 ||
                        (k = append_comment(&b, r->steps[i].why, err)) < 0 ||
                        (k = dockerfile_render_step(&r->steps[i], &b, err)) < 0)
                        break;
                k = tb_buffer_append_str(&b, "\n", err);
        }
        if (k < 0)
                return k;
        text = tb_buffer_steal(&b, NULL);
        if (!text)
                return tb_error_oom(err);
        *ret = text;
        return 0;
}
