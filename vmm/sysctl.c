/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/sysctl.h"

#include "vmm/suggest.h"
#include "vmm/views.h"

#include <string.h>

struct setting {
    const char *name;
    int64_t least, most; /* what may be written; most < least: nothing */
    /* NULL: is not read, is not written */
    int64_t (*read)(struct mm_host *host);
    int (*write)(struct mm_thread *thread, struct mm_host *host, int64_t value, json_t *out);
};

static int compact_all(struct mm_thread *thread, struct mm_host *host, int64_t value, json_t *out)
{
    uint64_t all = 0, runs;

    (void)value;
    for (unsigned node = 0; node < mm_nr_nodes(host); node++) {
        if (mm_compact(thread, node, &runs))
            return -1;
        all += runs;
    }
    view_put(out, "compacted_blocks", all);
    return 0;
}

static int64_t read_proactiveness(struct mm_host *host)
{
    struct mm_compaction now;

    mm_compaction_get(host, &now);
    return now.proactiveness;
}

static int write_proactiveness(struct mm_thread *thread, struct mm_host *host, int64_t value, json_t *out)
{
    struct mm_compaction now;

    (void)thread;
    (void)out;
    mm_compaction_get(host, &now);
    now.proactiveness = (uint32_t)value;
    return mm_compaction_set(host, &now);
}

static int64_t read_threshold(struct mm_host *host)
{
    struct mm_compaction now;

    mm_compaction_get(host, &now);
    return now.extfrag_threshold;
}

static int write_threshold(struct mm_thread *thread, struct mm_host *host, int64_t value, json_t *out)
{
    struct mm_compaction now;

    (void)thread;
    (void)out;
    mm_compaction_get(host, &now);
    now.extfrag_threshold = (uint32_t)value;
    return mm_compaction_set(host, &now);
}

static int64_t read_min_free(struct mm_host *host)
{
    struct mm_host_stat stat;

    mm_host_stat(host, &stat);
    return (int64_t)stat.wmark_pages[WMARK_MIN] * (int64_t)(PAGE_BYTES / 1024);
}

static const struct setting settings[] = {
    {"vm.compact_memory", 1, 1, NULL, compact_all},
    {"vm.compaction_proactiveness", 0, 100, read_proactiveness, write_proactiveness},
    {"vm.extfrag_threshold", 0, 1000, read_threshold, write_threshold},
    {"vm.min_free_kbytes", 0, -1, read_min_free, NULL},
};

static const struct setting *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

static int unknown(const char *name, struct diag *diag)
{
    const char *names[ARRAY_LEN(settings) + 1] = {NULL};
    char near[SUGGEST_TEXT];

    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        names[i] = settings[i].name;
    return diag_set(diag, EXIT_USAGE, "sysctl: there is no %.60s%s `ebb sysctl` lists them", name,
                    *suggest_text(near, name, names) ? near : ";");
}

int sysctl_check(const char *name, const int64_t *value, struct diag *diag)
{
    const struct setting *setting = find(name);

    if (!setting)
        return unknown(name, diag);
    if (!value && !setting->read)
        return diag_set(diag, EXIT_USAGE, "sysctl: %s can only be written: `ebb sysctl %s=%lld`", name, name,
                        (long long)setting->least);
    if (value && !setting->write)
        return diag_set(diag, EXIT_USAGE, "sysctl: %s can only be read; the budget decides it", name);
    if (value && setting->least == setting->most && *value != setting->least)
        return diag_set(diag, EXIT_USAGE, "sysctl: %s takes %lld only", name, (long long)setting->least);
    if (value && (*value < setting->least || *value > setting->most))
        return diag_set(diag, EXIT_USAGE, "sysctl: %s must be from %lld to %lld", name, (long long)setting->least,
                        (long long)setting->most);
    return 0;
}

json_t *sysctl_read(struct mm_host *host, const char *name, struct diag *diag)
{
    if (name && sysctl_check(name, NULL, diag))
        return NULL;
    json_t *out = json_object();
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if (settings[i].read && (!name || strcmp(name, settings[i].name) == 0))
            json_object_set_new(out, settings[i].name, json_integer(settings[i].read(host)));
    return out;
}

int sysctl_write(struct mm_thread *thread, struct mm_host *host, const char *name, int64_t value, json_t **out,
                 struct diag *diag)
{
    *out = NULL;
    if (sysctl_check(name, &value, diag))
        return -1;
    json_t *answer = json_object();
    json_object_set_new(answer, name, json_integer(value));
    if (find(name)->write(thread, host, value, answer)) {
        json_decref(answer);
        return diag_set(diag, EXIT_GUEST, "sysctl %s: not done, the run is over", name);
    }
    *out = answer;
    return 0;
}
