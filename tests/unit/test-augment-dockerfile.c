/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/test.h"

#include "common/json.h"
#include "tests/unit/augment-fixture.h"

/* Configurations of the shape that published images have (tests/unit/data/augment/NAME.json) and the Dockerfile that is
 * expected for each. TBNODE_UPDATE_GOLDEN=1 writes the expected files anew: read the difference before committing. */
static const char *const golden[] = {
        "nginx",
        "postgres",
        "memcached",
        "httpd",
        "mongo",
        "python",
        "kong",
        "health-shell",
        "health-root",
        "shell-form",
        "odd-text",
        "empty-cmd",
        "nothing",
        "no-config",
        "root-user",
        "onbuild",
        "volume-near",
        "augmented",
        "unknown-fields",
        "long-args",
};

/* The expected files don't know the version. */
static char *hide_version(const char *text)
{
        static const char version[] = TBNODE_VERSION, mark[] = "@VERSION@";
        char *out = malloc(strlen(text) * sizeof(mark) + 1), *end = out;

        assert_non_null(out);
        while (*text) {
                if (strncmp(text, version, strlen(version)) == 0) {
                        end = stpcpy(end, mark);
                        text += strlen(version);
                } else {
                        *end++ = *text++;
                }
        }
        *end = 0;
        return out;
}

static void check_golden(const Fixture *f, const char *suffix)
{
        _cleanup_free_ char *raw = NULL, *text = NULL, *path = NULL, *expected = NULL;
        _cleanup_error_ TbError *err = NULL;
        size_t size;

        assert_ok(dockerfile_render(f->recipe, &raw, &err), err);
        text = hide_version(raw);
        path = tb_asprintf("%s%s.Dockerfile", f->path, suffix);
        assert_non_null(path);
        if (getenv("TBNODE_UPDATE_GOLDEN"))
                assert_ok(tb_file_write_atomic(path, text, strlen(text), 0644, &err), err);
        assert_ok(tb_file_read(path, 1024 * 1024, &expected, &size, &err), err);
        if (strcmp(text, expected) != 0)
                fail_msg("%s: expected\n%s\ngot\n%s", path, expected, text);
}

static void test_golden(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(golden); i++) {
                _cleanup_fixture_ Fixture f = {};

                fixture_load(&f, golden[i]);
                fixture_make_recipe(&f);
                check_golden(&f, "");
        }
}

static void test_golden_core(void **state)
{
        _cleanup_fixture_ Fixture f = {};

        fixture_load(&f, "memcached");
        fixture_make_recipe_at(&f, AUGMENT_LEVEL_CORE);
        check_golden(&f, "-core");
}

/* Levels with packages: the image's SHELL doesn't read the script, and its user comes back. */
static void test_golden_packages(void **state)
{
        static const struct {
                ImagePackages packages;
                AugmentLevel level;
                const char *suffix;
        } cases[] = {
                {IMAGE_PACKAGES_APT, AUGMENT_LEVEL_BUILDENV, "-buildenv-apt"},
                {IMAGE_PACKAGES_APK, AUGMENT_LEVEL_FULL, "-full-apk"},
                {IMAGE_PACKAGES_YUM, AUGMENT_LEVEL_FULL, "-full-yum"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_fixture_ Fixture f = {};

                fixture_load(&f, "memcached");
                f.facts->files = calloc(1, sizeof(*f.facts->files));
                assert_non_null(f.facts->files);
                f.facts->files->packages = cases[i].packages;
                fixture_make_recipe_at(&f, cases[i].level);
                assert_true(f.recipe->has_run);
                check_golden(&f, cases[i].suffix);
        }
}

/* Joins continuation lines as the parsers of docker do (see dockerfile.c) and returns the instruction's rest. */
static char *read_instruction(const char *text, const char *name)
{
        char *out = malloc(strlen(text) + 1), *end = out;
        const char *p = text;
        size_t n = strlen(name);

        assert_non_null(out);
        while (strncmp(p, name, n) != 0 || p[n] != ' ') {
                p = strchr(p, '\n');
                if (!p || !p[1]) {
                        free(out);
                        return NULL;
                }
                p++;
        }
        for (p += n;;) {
                size_t line = strcspn(p, "\n");

                assert_true(line < 65536);
                /* A line that begins with '#' behind blanks would vanish. */
                assert_true(p[strspn(p, " \t")] != '#');
                memcpy(end, p, line);
                end += line;
                if (line == 0 || end[-1] != '\\')
                        break;
                end--;
                assert_true(line < 2 || end[-1] != '\\');
                p += line + 1;
        }
        *end = 0;
        return out;
}

/* What docker would read out of the text is what went in, byte for byte. */
static void check_array(const char *text, const char *instruction, char *const *expected)
{
        _cleanup_free_ char *line = read_instruction(text, instruction);
        _cleanup_json_ json_t *array = NULL;
        _cleanup_error_ TbError *err = NULL;
        const char *json;
        json_t *value;
        size_t i;

        if (!line)
                fail_msg("no %s in\n%s", instruction, text);
        json = strchr(line, '[');
        assert_non_null(json);
        assert_ok(tb_json_parse(json, strlen(json), 1 << 24, instruction, &array, &err), err);
        assert_int_equal(json_array_size(array), tb_strv_length(expected));
        json_array_foreach (array, i, value)
                assert_string_equal(json_string_value(value), expected[i]);
}

static void test_values_survive(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(golden); i++) {
                _cleanup_fixture_ Fixture f = {};
                _cleanup_error_ TbError *err = NULL;
                _cleanup_free_ char *text = NULL;

                fixture_load(&f, golden[i]);
                fixture_make_recipe(&f);
                assert_ok(dockerfile_render(f.recipe, &text, &err), err);
                for (size_t k = 0; k < f.recipe->n_steps; k++) {
                        const RecipeStep *s = &f.recipe->steps[k];

                        if (s->op == RECIPE_ENTRYPOINT)
                                check_array(text, "ENTRYPOINT", s->args);
                        if (s->op == RECIPE_CMD)
                                check_array(text, "CMD", s->args);
                }
        }
}

/* A directory with programs that only write down how they were called. */
static char *make_fakes(const char *const *names)
{
        char *dir = strdup("/tmp/tbnode-packages-XXXXXX");
        _cleanup_error_ TbError *err = NULL;

        assert_non_null(dir);
        assert_non_null(mkdtemp(dir));
        for (; *names; names++) {
                _cleanup_free_ char *path = tb_asprintf("%s/%s", dir, *names);
                _cleanup_free_ char *text = tb_asprintf(
                        "#!/bin/sh\necho \"%s $*\" >>%s/calls\n"
                        "case \"$*\" in *--version*) echo 4.14.0 ;; *policy*) echo '  Candidate: "
                        "1' ;; *search*) echo found ;; esac\n",
                        *names, dir);

                assert_true(path && text);
                assert_ok(tb_file_write_atomic(path, text, strlen(text), 0755, &err), err);
        }
        return dir;
}

/* The scripts are shell that runs: as the Dockerfile's text has them, with fakes of all that would change the machine. */
static void test_scripts_run(void **state)
{
        static const char *const fakes[] = {
                "apt-get", "apt-cache", "apk", "dnf", "rm", "cp", "mv", "sed", NULL};
        static const struct {
                ImagePackages packages;
                const char *wanted;
        } cases[] = {
                {IMAGE_PACKAGES_APT, "apt-get install -y --no-install-recommends ca-certificates gcc"},
                {IMAGE_PACKAGES_APK, "apk add ca-certificates gcc"},
                {IMAGE_PACKAGES_DNF, "dnf -y install ca-certificates gcc"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *dir = make_fakes(fakes), *calls = NULL, *line = NULL, *path = NULL,
                                    *log = NULL;
                _cleanup_free_ char *text = NULL;
                _cleanup_json_ json_t *array = NULL;
                _cleanup_error_ TbError *err = NULL;
                _cleanup_fixture_ Fixture f = {};
                size_t size;
                pid_t pid;
                int status;

                fixture_load(&f, "memcached");
                f.facts->files = calloc(1, sizeof(*f.facts->files));
                assert_non_null(f.facts->files);
                f.facts->files->packages = cases[i].packages;
                fixture_make_recipe_at(&f, AUGMENT_LEVEL_FULL);
                assert_ok(dockerfile_render(f.recipe, &text, &err), err);
                line = read_instruction(text, "RUN");
                assert_non_null(line);
                assert_ok(tb_json_parse(strchr(line, '['), strlen(strchr(line, '[')), 1 << 20, "RUN", &array,
                                  &err),
                        err);
                assert_int_equal(json_array_size(array), 3);

                path = tb_asprintf("PATH=%s:/usr/bin:/bin", dir);
                log = tb_asprintf("%s/calls", dir);
                assert_true(path && log);
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        char *argv[] = {(char *) "sh", (char *) "-euc",
                                (char *) json_string_value(json_array_get(array, 2)), NULL};
                        char *env[] = {path, NULL};

                        execve(json_string_value(json_array_get(array, 0)), argv, env);
                        _exit(127);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
                assert_ok(tb_file_read(log, 1 << 20, &calls, &size, &err), err);
                if (!strstr(calls, cases[i].wanted))
                        fail_msg("no '%s' in\n%s", cases[i].wanted, calls);
                assert_ok(tb_rm_rf(dir, &err), err);
        }
}

static void test_deterministic(void **state)
{
        _cleanup_fixture_ Fixture a = {}, b = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *one = NULL, *two = NULL;

        fixture_load(&a, "shell-form");
        fixture_make_recipe(&a);
        fixture_load(&b, "shell-form");
        fixture_make_recipe(&b);
        assert_ok(dockerfile_render(a.recipe, &one, &err), err);
        assert_ok(dockerfile_render(b.recipe, &two, &err), err);
        assert_string_equal(one, two);
}

/* Labels are words in which variables are expanded. */
static void test_label_quoting(void **state)
{
        char *args[] = {(char *) "a.b", (char *) "say \"$HOME\" and \\n", NULL};
        char *bad[] = {(char *) "a", (char *) "two\nlines", NULL};
        RecipeStep step = {.op = RECIPE_LABEL, .args = args};
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(4096);
        _cleanup_error_ TbError *err = NULL;

        assert_ok(dockerfile_render_step(&step, &b, &err), err);
        assert_string_equal(b.data, "LABEL \"a.b\"=\"say \\\"\\$HOME\\\" and \\\\n\"");
        step.args = bad;
        assert_error(dockerfile_render_step(&step, &b, &err), -EINVAL, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_golden),
                cmocka_unit_test(test_golden_core),
                cmocka_unit_test(test_golden_packages),
                cmocka_unit_test(test_scripts_run),
                cmocka_unit_test(test_values_survive),
                cmocka_unit_test(test_deterministic),
                cmocka_unit_test(test_label_quoting),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
