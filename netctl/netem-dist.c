/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tables of netem's delay distributions. Entry i of a computed one is the quantile (i + 1/2) / n of a distribution with mean
 * 0 and standard deviation 1, times NETEM_DIST_SCALE, as 16 bits (sch_netem.c, tabledist()).
 *
 * uniform       -1 .. 1: what netem does without a table; only sent to a netem that has another one, because the kernel has
 *               no way to take a table away
 * normal        the standard normal distribution
 * pareto        Pareto with shape 3 and scale 1, moved to mean 0 and divided by its standard deviation: mean 3/2,
 *               variance 3/4
 * paretonormal  sum of 1/4 of a normal and 3/4 of a pareto variable (the mix that tc's table of this name has), put
 *               to deviation 1; quantiles of the sum by merging a grid of both
 */

#include "netctl/netem-dist.h"

#include <dirent.h>
#include <linux/pkt_sched.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "common/units.h"

#define ENTRIES 4096
#define GRID 256 /* per variable: GRID * GRID = 16 samples for each entry */

enum {
        TABLE_NORMAL = 1,
        TABLE_PARETO,
        TABLE_PARETONORMAL,
        _TABLE_BUILTIN_MAX,
};

static const char *const builtin_names[_TABLE_BUILTIN_MAX] = {
        [TABLE_NORMAL] = "normal",
        [TABLE_PARETO] = "pareto",
        [TABLE_PARETONORMAL] = "paretonormal",
};

static int16_t tables[_TABLE_BUILTIN_MAX][ENTRIES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Quantile of the standard normal distribution: bisection of erfc, exact to the last bit that matters. */
static double normal_quantile(double p)
{
        double low = -8, high = 8;

        for (int i = 0; i < 60; i++) {
                double mid = (low + high) / 2;
                if (0.5 * erfc(-mid * M_SQRT1_2) < p)
                        low = mid;
                else
                        high = mid;
        }
        return (low + high) / 2;
}

static double pareto_quantile(double p)
{
        return (1 / cbrt(1 - p) - 1.5) / sqrt(0.75);
}

static int16_t scaled(double v)
{
        double x = rint(v * NETEM_DIST_SCALE);

        return x > INT16_MAX ? INT16_MAX : x < INT16_MIN ? INT16_MIN : (int16_t) x;
}

static int compare_double(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

static void fill_paretonormal(int16_t *table)
{
        static double sums[GRID * GRID];
        const double deviation = sqrt(0.25 * 0.25 + 0.75 * 0.75);

        for (int i = 0; i < GRID; i++) {
                double n = normal_quantile((i + 0.5) / GRID);
                for (int j = 0; j < GRID; j++)
                        sums[i * GRID + j] =
                                (0.25 * n + 0.75 * pareto_quantile((j + 0.5) / GRID)) / deviation;
        }
        qsort(sums, GRID * GRID, sizeof(sums[0]), compare_double);
        for (int i = 0; i < ENTRIES; i++)
                table[i] = scaled(sums[i * (GRID * GRID / ENTRIES) + GRID * GRID / ENTRIES / 2]);
}

static void fill(void)
{
        for (int i = 0; i < ENTRIES; i++) {
                double p = (i + 0.5) / ENTRIES;
                tables[NETEM_TABLE_UNIFORM][i] = scaled(2 * p - 1);
                tables[TABLE_NORMAL][i] = scaled(normal_quantile(p));
                tables[TABLE_PARETO][i] = scaled(pareto_quantile(p));
        }
        fill_paretonormal(tables[TABLE_PARETONORMAL]);
}

/* A table that was read. */
typedef struct Table {
        ShapeName name; /* without "file:" */
        uint32_t id;
        bool current; /* the last one of its name */
        struct stat file;
        int16_t *entries;
        size_t n;
} Table;

#define FILE_ID UINT32_C(0x40000000)
#define FILE_SIZE_MAX (256U * 1024)
#define SUFFIX ".dist"

#ifdef __x86_64__
#define MULTIARCH "/usr/lib/x86_64-linux-gnu/tc"
#elif defined(__aarch64__)
#define MULTIARCH "/usr/lib/aarch64-linux-gnu/tc"
#else
#define MULTIARCH "/usr/lib/tc"
#endif
static const char *const iproute_directories[] = {"/usr/lib/tc", MULTIARCH, "/usr/share/tc"};

static Table *cache[NETEM_TABLES_MAX];
static size_t n_cached;

int netem_table_parse(const char *text, size_t size, int16_t **ret, size_t *ret_n, TbError **err)
{
        _cleanup_free_ int16_t *v = calloc(NETEM_TABLE_ENTRIES_MAX, sizeof(*v));
        size_t n = 0;
        unsigned line = 1;

        if (!v)
                return tb_error_oom(err);
        for (size_t i = 0; i < size;) {
                char word[8];
                size_t length = 0;
                uint32_t number;

                if (text[i] == '#') {
                        while (i < size && text[i] != '\n')
                                i++;
                        continue;
                }
                if (strchr(" \t\r\n", text[i]) && text[i] != '\0') {
                        line += text[i++] == '\n';
                        continue;
                }
                bool negative = text[i] == '-';
                i += negative;
                while (i < size && length < sizeof(word) - 1 && text[i] >= '0' && text[i] <= '9')
                        word[length++] = text[i++];
                word[length] = '\0';
                if ((i < size && (text[i] == '\0' || !strchr(" \t\r\n#", text[i]))) ||
                        tb_parse_u32(word, 0, negative ? 32768 : 32767, &number, NULL) < 0)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "line %u: expected numbers from -32768 to 32767", line);
                if (n == NETEM_TABLE_ENTRIES_MAX)
                        return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "line %u: more than %u numbers",
                                line, NETEM_TABLE_ENTRIES_MAX);
                v[n++] = (int16_t) (negative ? -(int32_t) number : (int32_t) number);
        }
        if (n == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "there is no number in it");
        *ret = TAKE_PTR(v);
        *ret_n = n;
        return 0;
}

/* FNV-1a over name and entries. */
static uint32_t table_hash(const Table *t)
{
        const uint8_t *bytes[] = {(const uint8_t *) t->name.text, (const uint8_t *) t->entries};
        const size_t sizes[] = {sizeof(t->name.text), t->n * sizeof(*t->entries)};
        uint32_t h = UINT32_C(2166136261);

        for (size_t k = 0; k < ELEMENTSOF(bytes); k++)
                for (size_t i = 0; i < sizes[k]; i++)
                        h = (h ^ bytes[k][i]) * UINT32_C(16777619);
        return FILE_ID | (h & (FILE_ID - 1));
}

static bool same_file(const struct stat *a, const struct stat *b)
{
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
                a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static Table *find_current(const ShapeName *name)
{
        for (size_t i = 0; i < n_cached; i++)
                if (cache[i]->current && memcmp(&cache[i]->name, name, sizeof(*name)) == 0)
                        return cache[i];
        return NULL;
}

static Table *find_id(uint32_t id)
{
        for (size_t i = 0; i < n_cached; i++)
                if (cache[i]->id == id)
                        return cache[i];
        return NULL;
}

static void table_free(Table *t)
{
        if (t)
                free(t->entries);
        free(t);
}
TB_DEFINE_CLEANUP(Table *, table_free)

/* -ENOENT: there is no such file; *err is not set then. */
static int load_file(const char *directory, const ShapeName *name, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/%s" SUFFIX, directory, name->text), *text = NULL;
        _cleanup_(table_freep) Table *t = calloc(1, sizeof(*t));
        Table *old = find_current(name);
        size_t size = 0;

        if (!path || !t)
                return tb_error_oom(err);
        if (stat(path, &t->file) < 0)
                return -ENOENT;
        if (old && same_file(&old->file, &t->file))
                return 0;
        int r = tb_file_read(path, FILE_SIZE_MAX, &text, &size, err);
        if (r >= 0)
                r = netem_table_parse(text, size, &t->entries, &t->n, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot use the distribution %s", path);
                return r == -ENOENT ? -EIO : r;
        }
        t->name = *name;
        t->id = table_hash(t);
        Table *known = find_id(t->id); /* it was this before */
        if (!known && n_cached == NETEM_TABLES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "more than %u distributions; restart to forget those that are not used any more",
                        NETEM_TABLES_MAX);
        if (old)
                old->current = false;
        if (known) {
                known->file = t->file;
                known->current = true;
                return 0;
        }
        t->current = true;
        cache[n_cached++] = TAKE_PTR(t);
        return 0;
}

/* The file's name of a table that is not ours; false for one of ours. */
static bool file_name(const ShapeName *name, ShapeName *ret)
{
        const char *rest = tb_startswith(name->text, "file:");

        *ret = (ShapeName){};
        if (!rest) {
                for (uint32_t i = 1; i < _TABLE_BUILTIN_MAX; i++)
                        if (tb_streq(name->text, builtin_names[i]))
                                return false;
                rest = name->text;
        }
        (void) snprintf(ret->text, sizeof(ret->text), "%s", rest);
        return rest[0] != '\0';
}

int netem_table_load(const char *directory, const ShapeName *name, TbError **err)
{
        ShapeName file;

        if (!directory)
                directory = NETEM_TABLES_DIRECTORY;
        if (!file_name(name, &file))
                return 0;
        int r = load_file(directory, &file, err);
        for (size_t i = 0; r == -ENOENT && i < ELEMENTSOF(iproute_directories); i++)
                r = load_file(iproute_directories[i], &file, err);
        if (r == -ENOENT)
                return tb_error_set(err, TB_ERROR_CONFIG, r,
                        "there is no distribution '%s'; known are uniform, normal, pareto, paretonormal and "
                        "files "
                        "%s/NAME" SUFFIX,
                        file.text, directory);
        return r;
}

static void load_directory(const char *directory)
{
        DIR *d = opendir(directory);

        if (!d)
                return;
        for (const struct dirent *e; (e = readdir(d));) {
                ShapeName name = {};
                size_t n = strlen(e->d_name), suffix = strlen(SUFFIX);
                if (n > suffix && n - suffix < sizeof(name.text) &&
                        tb_streq(e->d_name + n - suffix, SUFFIX)) {
                        memcpy(name.text, e->d_name, n - suffix);
                        if (!find_current(&name))
                                (void) load_file(directory, &name, NULL);
                }
        }
        closedir(d);
}

void netem_table_load_all(const char *directory)
{
        load_directory(directory ? directory : NETEM_TABLES_DIRECTORY);
        for (size_t i = 0; i < ELEMENTSOF(iproute_directories); i++)
                load_directory(iproute_directories[i]);
}

uint32_t netem_table_id(const ShapeName *name)
{
        ShapeName file;

        if (file_name(name, &file)) {
                const Table *t = find_current(&file);
                return t ? t->id : NETEM_TABLE_UNIFORM;
        }
        for (uint32_t i = 1; i < _TABLE_BUILTIN_MAX; i++)
                if (tb_streq(name->text, builtin_names[i]))
                        return i;
        return NETEM_TABLE_UNIFORM;
}

bool netem_table_name(uint32_t id, ShapeName *ret)
{
        ShapeName name = {}, file;

        if (id > 0 && id < _TABLE_BUILTIN_MAX) {
                (void) snprintf(name.text, sizeof(name.text), "%s", builtin_names[id]);
        } else if (id != NETEM_TABLE_UNIFORM) {
                const Table *t = find_id(id);
                if (!t)
                        return false;
                name = t->name;
                /* A file with a name of ours has to say that it is one. */
                if (!file_name(&name, &file))
                        (void) snprintf(name.text, sizeof(name.text), "file:%.26s", t->name.text);
        }
        *ret = name;
        return true;
}

const int16_t *netem_table_entries(uint32_t id, size_t *ret_n)
{
        const Table *t = NULL;

        if (id >= _TABLE_BUILTIN_MAX) {
                t = find_id(id);
                if (!t)
                        return NULL;
                *ret_n = t->n;
                return t->entries;
        }
        (void) pthread_once(&once, fill);
        *ret_n = ENTRIES;
        return tables[id];
}
