/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The jobs of a node: the startup command and the declared programs. */

#include <jansson.h>
#include <poll.h>

#include "augment/client/client-job.h"
#include "augment/client/client-service.h"

#define PROGRAMS_MAX 64
#define PROGRAM_NAME_MAX 64
#define JOBS_FDS_MAX (2 * (PROGRAMS_MAX + 1))
#define STARTUP_LOG_MAX (8U * 1024 * 1024)
#define PROGRAM_LOG_MAX (1U * 1024 * 1024)

typedef struct Program {
        char name[PROGRAM_NAME_MAX + 1];
        bool declared; /* one that isn't any more is ended and then forgotten */
        Job job;
} Program;

typedef struct Jobs {
        const char *directory;
        const ServiceOptions *options;
        json_t *declaration; /* what was declared last */
        char **environment;  /* of it */
        Job startup;
        Program programs[PROGRAMS_MAX];
        size_t n;
} Jobs;

/* What an earlier client of this container left. */
void jobs_load(Jobs *jobs, const char *directory, const ServiceOptions *options);
void jobs_done(Jobs *jobs);

/* Programs that are new are there now, those that are gone are told to end. */
void jobs_declare(Jobs *jobs, json_t *declaration);
/* Forgets what isn't declared and doesn't run. */
void jobs_forget(Jobs *jobs);
/* A declared program, or NULL. */
Program *jobs_find(Jobs *jobs, const char *name);

/* Nothing happens while it runs; why it can't is in its state. */
void jobs_start_startup(Jobs *jobs);
void jobs_start_program(Jobs *jobs, Program *p);

/* Fills what has to be polled (JOBS_FDS_MAX at most); returns how many. */
size_t jobs_poll(const Jobs *jobs, struct pollfd *ret);

/* {"state", "status", "reason", "pid"} as reports have them; {} of a job that never ran. */
json_t *job_to_json(const Job *j);
/* {NAME: {...}} of the declared programs that have run. */
json_t *jobs_to_json(const Jobs *jobs);
