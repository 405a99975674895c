/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs a fuzz target over corpus files and directories given as arguments, so that every compiler checks
 * what the fuzzers once found. An empty corpus fails: a moved directory must not pass unnoticed.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (16 * 1024 * 1024)

static int run_file(const char *path)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *data = NULL;
        _cleanup_free_ uint8_t *exact = NULL;
        size_t size;

        if (tb_file_read(path, INPUT_MAX, &data, &size, &err) < 0) {
                fprintf(stderr, "%s\n", tb_error_message(err));
                return -1;
        }

        /* A copy of exactly this size, without the terminator that tb_file_read() adds: overreads show. */
        exact = malloc(size > 0 ? size : 1);
        if (!exact) {
                fprintf(stderr, "%s: out of memory\n", path);
                return -1;
        }
        if (size > 0)
                memcpy(exact, data, size);
        fprintf(stderr, "%s (%zu bytes)\n", path, size);
        (void) LLVMFuzzerTestOneInput(exact, size);
        return 1;
}

static int run_path(const char *path)
{
        _cleanup_closedir_ DIR *dir = NULL;
        const struct dirent *de;
        int count = 0;

        dir = opendir(path);
        if (!dir) {
                if (errno == ENOTDIR)
                        return run_file(path);
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                return -1;
        }
        while ((de = readdir(dir))) {
                _cleanup_free_ char *full = NULL;

                if (de->d_name[0] == '.')
                        continue;
                full = tb_asprintf("%s/%s", path, de->d_name);
                if (!full || run_file(full) < 0)
                        return -1;
                count++;
        }
        return count;
}

int main(int argc, char *argv[])
{
        int total = 0;

        for (int i = 1; i < argc; i++) {
                int n = run_path(argv[i]);

                if (n < 0)
                        return EXIT_FAILURE;
                total += n;
        }
        if (total == 0) {
                fprintf(stderr, "No corpus files; give files or directories as arguments.\n");
                return EXIT_FAILURE;
        }
        fprintf(stderr, "%d inputs passed\n", total);
        return EXIT_SUCCESS;
}
