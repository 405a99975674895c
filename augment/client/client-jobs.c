/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-jobs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "augment/client/client-apply.h"
#include "augment/client/client-supervise.h"
#include "augment/client/client-text.h"
#include "augment/client/util.h"

#define COMMAND_MAX 65536

void jobs_load(Jobs *jobs, const char *directory, const ServiceOptions *options)
{
        *jobs = (Jobs){.directory = directory, .options = options};
        job_load(&jobs->startup, directory, "startup");
}

void jobs_done(Jobs *jobs)
{
        job_done(&jobs->startup);
        for (size_t i = 0; i < jobs->n; i++)
                job_done(&jobs->programs[i].job);
        environment_free(jobs->environment);
        json_decref(jobs->declaration);
}

static const json_t *declared_program(const Jobs *jobs, const char *name)
{
        const json_t *program;
        size_t i;

        json_array_foreach (json_object_get(jobs->declaration, "programs"), i, program)
                if (strcmp(member_string(program, "name", ""), name) == 0)
                        return program;
        return NULL;
}

static Program *find_program(Jobs *jobs, const char *name)
{
        for (size_t i = 0; i < jobs->n; i++)
                if (strcmp(jobs->programs[i].name, name) == 0)
                        return &jobs->programs[i];
        return NULL;
}

Program *jobs_find(Jobs *jobs, const char *name)
{
        Program *p = find_program(jobs, name);

        return p && p->declared ? p : NULL;
}

static void add_program(Jobs *jobs, const char *name)
{
        char job[JOB_NAME_MAX + 1];
        Program *p = find_program(jobs, name);

        if (!p) {
                if (jobs->n == PROGRAMS_MAX || !program_name_is_valid(name) ||
                        strlen(name) > PROGRAM_NAME_MAX)
                        return;
                p = &jobs->programs[jobs->n++];
                *p = (Program){};
                snprintf(p->name, sizeof(p->name), "%.64s", name);
                snprintf(job, sizeof(job), "program-%.64s", name);
                job_load(&p->job, jobs->directory, job);
        }
        p->declared = true;
}

void jobs_declare(Jobs *jobs, json_t *declaration)
{
        const json_t *program;
        size_t i;

        json_decref(jobs->declaration);
        jobs->declaration = json_incref(declaration);
        environment_free(jobs->environment);
        jobs->environment = declared_environment(declaration);
        for (i = 0; i < jobs->n; i++)
                jobs->programs[i].declared = false;
        json_array_foreach (json_object_get(declaration, "programs"), i, program)
                add_program(jobs, member_string(program, "name", ""));
        for (i = 0; i < jobs->n; i++)
                if (!jobs->programs[i].declared)
                        (void) !job_stop(&jobs->programs[i].job);
        jobs_forget(jobs);
}

void jobs_forget(Jobs *jobs)
{
        for (size_t i = 0; i < jobs->n;) {
                Program *p = &jobs->programs[i];

                if (p->declared || p->job.pidfd >= 0) {
                        i++;
                        continue;
                }
                job_done(&p->job);
                *p = jobs->programs[--jobs->n];
        }
}

static void start(Jobs *jobs, Job *job, const json_t *declared, const char *log, size_t log_max)
{
        JobSpec spec = {
                .command = member_string(declared, "command", ""),
                .user = member_string(declared, "user", NULL),
                .directory = member_string(declared, "directory", NULL),
                .image_env = jobs->options->image_env,
                .declared = jobs->environment,
                .rundir = jobs->options->rundir,
                .log_path = log,
                .log_max = log_max,
        };
        const char *why = NULL;
        int r = 0;

        if (!spec.command[0] || strlen(spec.command) > COMMAND_MAX)
                why = "no command is declared";
        else if (member_number(declared, "timeout", UINT32_MAX, &spec.timeout) == -EINVAL)
                why = "its timeout is no number of seconds";
        else
                r = job_start(job, jobs->directory, &spec);
        if (r == -EALREADY)
                return;
        if (r < 0)
                why = strerror(-r);
        if (why) {
                job->state = JOB_FAILED;
                snprintf(job->reason, sizeof(job->reason), "%s", why);
                (void) !supervise_write_outcome(jobs->directory, job->name, "failed", why);
        }
}

void jobs_start_startup(Jobs *jobs)
{
        char log[PATH_MAX];

        format_path(log, sizeof(log), "%s/startup.log", jobs->options->rundir);
        start(jobs, &jobs->startup, json_object_get(jobs->declaration, "startup"), log, STARTUP_LOG_MAX);
}

void jobs_start_program(Jobs *jobs, Program *p)
{
        char log[PATH_MAX];

        format_path(log, sizeof(log), "%s/programs", jobs->options->rundir);
        (void) !make_dir(log, 0755);
        format_path(log, sizeof(log), "%s/programs/%s.log", jobs->options->rundir, p->name);
        start(jobs, &p->job, declared_program(jobs, p->name), log, PROGRAM_LOG_MAX);
}

static size_t poll_job(const Job *j, struct pollfd *ret)
{
        size_t n = 0;

        if (j->pidfd >= 0)
                ret[n++] = (struct pollfd){.fd = j->pidfd, .events = POLLIN};
        if (j->ready_fd >= 0)
                ret[n++] = (struct pollfd){.fd = j->ready_fd, .events = POLLIN};
        return n;
}

size_t jobs_poll(const Jobs *jobs, struct pollfd *ret)
{
        size_t n = poll_job(&jobs->startup, ret);

        for (size_t i = 0; i < jobs->n; i++)
                n += poll_job(&jobs->programs[i].job, ret + n);
        return n;
}

json_t *job_to_json(const Job *j)
{
        json_t *obj = json_object();

        if (!obj || j->state == JOB_NONE)
                return obj;
        (void) json_object_set_new(obj, "state", json_string(job_state_to_string(j->state)));
        if (j->state == JOB_EXITED || j->state == JOB_SIGNALED)
                (void) json_object_set_new(obj, "status", json_integer(j->status));
        if (j->state == JOB_FAILED)
                (void) json_object_set_new(obj, "reason", json_string(j->reason));
        if (j->state == JOB_RUNNING && j->pid > 0)
                (void) json_object_set_new(obj, "pid", json_integer(j->pid));
        return obj;
}

json_t *jobs_to_json(const Jobs *jobs)
{
        json_t *obj = json_object();

        for (size_t i = 0; obj && i < jobs->n; i++)
                if (jobs->programs[i].declared && jobs->programs[i].job.state != JOB_NONE)
                        (void) json_object_set_new(
                                obj, jobs->programs[i].name, job_to_json(&jobs->programs[i].job));
        return obj;
}
