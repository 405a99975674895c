/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/memory.h"

#include <link.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"
#include "common/units.h"

#define QUIET_USEC (UINT64_C(5) * 1000000)
#define SLACK_USEC (UINT64_C(1) * 1000000)

static bool is_traced(void)
{
        _cleanup_free_ char *status = NULL;

        return tb_file_read("/proc/self/status", 64 * 1024, &status, NULL, NULL) < 0 ||
                !strstr(status, "\nTracerPid:\t0\n");
}

static bool has_text_relocations(const struct dl_phdr_info *info, const ElfW(Phdr) * p)
{
        for (const ElfW(Dyn) *d = (const void *) (uintptr_t) (info->dlpi_addr + p->p_vaddr);
                d->d_tag != DT_NULL; d++)
                if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL)))
                        return true;
        return false;
}

static int on_object(struct dl_phdr_info *info, size_t size, void *userdata)
{
        uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
        const struct {
                const ElfW(Phdr) * first;
                size_t n;
        } h = {info->dlpi_phdr, info->dlpi_phnum};

        for (size_t i = 0; i < h.n; i++)
                if (h.first[i].p_type == PT_DYNAMIC && has_text_relocations(info, &h.first[i]))
                        return 0;
        for (size_t i = 0; i < h.n; i++) {
                const ElfW(Phdr) *p = &h.first[i];
                uintptr_t from = info->dlpi_addr + p->p_vaddr, to = from + p->p_filesz;

                if (p->p_type != PT_LOAD || (p->p_flags & PF_W))
                        continue;
                from = (from + page - 1) & ~(page - 1); /* whole pages, that nothing else can lie in */
                to &= ~(page - 1);
                /* The kernel's own object is no file's, and refuses. */
                if (from < to)
                        (void) madvise((void *) from, to - from, MADV_DONTNEED);
        }
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        Manager *m = userdata;
        uint64_t due = m->memory_touched_us + QUIET_USEC;

        if (usec < due) {
                (void) sd_event_source_set_time(s, due);
                (void) sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
                return 0;
        }
        (void) malloc_trim(0);
        if (!is_traced())
                (void) dl_iterate_phdr(on_object, NULL);
        m->memory_timer = sd_event_source_disable_unref(s);
        return 0;
}

void memory_touch(Manager *m)
{
        if (sd_event_now(m->event, CLOCK_MONOTONIC, &m->memory_touched_us) < 0 || m->memory_timer)
                return;
        if (sd_event_add_time(m->event, &m->memory_timer, CLOCK_MONOTONIC, m->memory_touched_us + QUIET_USEC,
                    SLACK_USEC, on_timer, m) < 0)
                log_debug("cannot set the timer of memory");
        else
                (void) sd_event_source_set_description(m->memory_timer, "memory");
}

void memory_stop(Manager *m)
{
        m->memory_timer = sd_event_source_disable_unref(m->memory_timer);
}
