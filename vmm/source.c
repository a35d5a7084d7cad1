/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/source.h"

#include "devices/balloon/balloon.h"
#include "devices/mem/mem.h"
#include "vmm/machine.h"
#include "vmm/source_access.h"
#include "vmm/source_numa.h"
#include "vmm/suggest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* mm_zone_stat: two zones a node. */
#define MAX_POOL_ZONES (2 * MM_MAX_NODES)
/* Largest number of pages whose age is read for one answer, chosen: about a millisecond. */
#define MAX_AGE_SAMPLES 16384u
#define MAX_CACHES 64
#define MAX_CLASSES 256

int source_init(struct source *source, struct mm_host *mm, const char *algo, unsigned max_vms)
{
    memset(source, 0, sizeof(*source));
    source->mm = mm;
    source->algo = algo;
    source->max_vms = max_vms;
    source->vms = calloc(max_vms, sizeof(*source->vms));
    if (!source->vms)
        return -ENOMEM;
    pthread_mutex_init(&source->lock, NULL);
    pthread_cond_init(&source->put, NULL);
    return 0;
}

void source_fini(struct source *source)
{
    pthread_cond_destroy(&source->put);
    pthread_mutex_destroy(&source->lock);
    free(source->vms);
}

void source_vm_add(struct source *source, const char *name, struct mm_vm *mm, struct machine *machine)
{
    pthread_mutex_lock(&source->lock);
    struct source_vm *vm = &source->vms[source->nr_vms++];
    snprintf(vm->name, sizeof(vm->name), "%s", name);
    vm->there = true;
    vm->mm = mm;
    vm->machine = machine;
    pthread_mutex_unlock(&source->lock);
}

void source_vm_gone(struct source *source, const char *name)
{
    pthread_mutex_lock(&source->lock);
    for (unsigned i = 0; i < source->nr_vms; i++) {
        struct source_vm *vm = &source->vms[i];
        if (strcmp(vm->name, name) != 0)
            continue;
        vm->there = false;
        while (vm->nr_users)
            pthread_cond_wait(&source->put, &source->lock);
    }
    pthread_mutex_unlock(&source->lock);
}

/* The VM that @name names, or the first one; NULL with diag. source.lock is held. */
static struct source_vm *find_vm(struct source *source, const char *name, struct diag *diag)
{
    for (unsigned i = 0; i < source->nr_vms; i++) {
        struct source_vm *vm = &source->vms[i];
        if (vm->there && (!name || strcmp(name, vm->name) == 0))
            return vm;
    }
    diag_set(diag, EXIT_USAGE, "no VM %.20s is running; `ebb show free` lists them", name ? name : "at all");
    return NULL;
}

struct source_vm *source_vm_get(struct source *source, const char *name, struct diag *diag)
{
    pthread_mutex_lock(&source->lock);
    struct source_vm *vm = find_vm(source, name, diag);
    if (vm)
        vm->nr_users++;
    pthread_mutex_unlock(&source->lock);
    return vm;
}

void source_vm_put(struct source *source, struct source_vm *vm)
{
    pthread_mutex_lock(&source->lock);
    if (--vm->nr_users == 0)
        pthread_cond_broadcast(&source->put);
    pthread_mutex_unlock(&source->lock);
}

/* --- collecting ---------------------------------------------------------------------------------------- */

static enum view_state state_of(const char *name)
{
    for (unsigned s = 0; s < NR_VIEW_STATES; s++)
        if (strcmp(view_state_names[s], name) == 0)
            return (enum view_state)s;
    return VIEW_ABSENT;
}

/* Pages by state, one entry after another; a block mapped as one counts as 512 at once. */
static void count_region(struct mm_vm *vm, struct view_region *region)
{
    uint64_t end = region->start.v + region->bytes;
    struct mm_page_info info;

    for (uint64_t at = region->start.v; at < end;) {
        uint64_t step = PAGE_BYTES;
        if (mm_page_info(vm, (gpa_t){at}, &info) == 0) {
            if (info.huge && at % BLOCK_BYTES == 0)
                step = BLOCK_BYTES;
            region->pages[state_of(info.state)] += step / PAGE_BYTES;
        }
        at += step;
    }
}

static void collect_regions(struct mm_vm *mm, struct view_vm_stat *out)
{
    struct mm_region regions[MM_MAX_REGIONS];

    out->nr_regions = mm_regions(mm, regions, MM_MAX_REGIONS);
    for (unsigned i = 0; i < out->nr_regions; i++) {
        out->regions[i] = (struct view_region){.start = regions[i].start, .bytes = regions[i].bytes};
        count_region(mm, &out->regions[i]);
    }
}

static void collect_ages(struct mm_vm *mm, struct view_vm_stat *out)
{
    struct mm_region regions[MM_MAX_REGIONS];
    unsigned nr = mm_regions(mm, regions, MM_MAX_REGIONS);
    uint64_t pages = out->stat.memory_bytes / PAGE_BYTES;
    struct mm_page_info info;

    out->age_stride = (uint32_t)MAX_OF((pages + MAX_AGE_SAMPLES - 1) / MAX_AGE_SAMPLES, 1);
    for (unsigned i = 0; i < nr; i++)
        for (uint64_t at = 0; at < regions[i].bytes; at += out->age_stride * PAGE_BYTES)
            if (mm_page_info(mm, (gpa_t){regions[i].start.v + at}, &info) == 0 && state_of(info.state) == VIEW_RESIDENT)
                out->age_pages[info.age % ARRAY_LEN(out->age_pages)]++;
}

/*
 * Statistics of every VM that is there, and with @more of its pages. Returns how many; *out is the caller's to free,
 * NULL when memory ran out. source.lock is held.
 */
static unsigned collect_vms(struct source *source, void (*more)(struct mm_vm *, struct view_vm_stat *),
                            struct view_vm_stat **out)
{
    unsigned nr = 0;

    *out = calloc(source->nr_vms + 1, sizeof(**out));
    if (!*out)
        return 0;
    for (unsigned i = 0; i < source->nr_vms; i++) {
        struct view_vm_stat *vm = &(*out)[nr];
        if (!source->vms[i].there)
            continue;
        vm->name = source->vms[i].name;
        mm_vm_stat(source->vms[i].mm, &vm->stat);
        if (more)
            more(source->vms[i].mm, vm);
        nr++;
    }
    return nr;
}

static struct zram_stat collect_zram(struct source *source)
{
    struct zram_stat stat = {0};

    if (mm_zram(source->mm))
        zram_stat(mm_zram(source->mm), &stat);
    return stat;
}

/* --- one function a view; source.lock is held, but for those of machines ------------------------------------------------------------ */

struct request {
    struct source *source;
    const char *vm, *gpa;
    struct diag *diag;
};

static json_t *make_vmstat(const struct request *r)
{
    struct mm_host_stat host;
    struct zram_stat zram = collect_zram(r->source);

    mm_host_stat(r->source->mm, &host);
    return view_vmstat(&host, &zram);
}

static json_t *make_zoneinfo(const struct request *r)
{
    struct mm_zone_stat zones[MAX_POOL_ZONES];
    struct mm_host_stat host;
    unsigned nr = mm_zone_stat(r->source->mm, zones, ARRAY_LEN(zones));

    mm_host_stat(r->source->mm, &host);
    return view_zoneinfo(&host, zones, nr);
}

static json_t *make_buddyinfo(const struct request *r)
{
    struct mm_zone_stat zones[MAX_POOL_ZONES];

    return view_buddyinfo(zones, mm_zone_stat(r->source->mm, zones, ARRAY_LEN(zones)));
}

static json_t *make_pagetypeinfo(const struct request *r)
{
    struct mm_zone_stat zones[MAX_POOL_ZONES];

    return view_pagetypeinfo(zones, mm_zone_stat(r->source->mm, zones, ARRAY_LEN(zones)));
}

static json_t *make_extfrag(const struct request *r)
{
    struct mm_zone_stat zones[MAX_POOL_ZONES];

    return view_extfrag(zones, mm_zone_stat(r->source->mm, zones, ARRAY_LEN(zones)));
}

static json_t *make_slabinfo(const struct request *r)
{
    struct slab_stat caches[MAX_CACHES];

    return view_slabinfo(caches, mm_slab_stat(r->source->mm, caches, ARRAY_LEN(caches)));
}

static json_t *make_lru(const struct request *r)
{
    struct mm_host_stat host;
    struct view_vm_stat *vms;
    unsigned nr = collect_vms(r->source, collect_ages, &vms);

    mm_host_stat(r->source->mm, &host);
    json_t *view = view_lru(&host, vms, nr);
    free(vms);
    return view;
}

static json_t *make_pageclass(const struct request *r)
{
    uint64_t pages[MM_NR_PAGE_CLASSES];

    mm_page_classes(r->source->mm, pages);
    return view_pageclass(pages);
}

static json_t *make_zram(const struct request *r)
{
    struct zram *zram = mm_zram(r->source->mm);
    struct zram_class_stat classes[MAX_CLASSES];
    struct zram_stat stat = collect_zram(r->source);

    return view_zram(zram ? r->source->algo : NULL, &stat, classes,
                     zram ? zram_class_stat(zram, classes, ARRAY_LEN(classes)) : 0);
}

static json_t *make_swaps(const struct request *r)
{
    struct swap_area_stat areas[MAX_SWAP_AREAS];

    return view_swaps(areas, swap_stat(mm_swap_set(r->source->mm), areas, ARRAY_LEN(areas)));
}

static json_t *make_stage2(const struct request *r)
{
    struct mm_host_stat host;
    struct view_vm_stat *vms;
    unsigned nr = collect_vms(r->source, collect_regions, &vms);

    mm_host_stat(r->source->mm, &host);
    json_t *view = view_stage2(&host, vms, nr);
    free(vms);
    return view;
}

static json_t *make_regions(const struct request *r)
{
    struct view_vm_stat *vms;
    unsigned nr = collect_vms(r->source, collect_regions, &vms);
    json_t *view = view_regions(vms, nr);

    free(vms);
    return view;
}

static json_t *make_free(const struct request *r)
{
    struct swap_area_stat areas[MAX_SWAP_AREAS];
    struct mm_host_stat host;
    struct view_vm_stat *vms;
    struct zram_stat zram = collect_zram(r->source);
    unsigned nr_areas = swap_stat(mm_swap_set(r->source->mm), areas, ARRAY_LEN(areas));
    unsigned nr = collect_vms(r->source, NULL, &vms);

    mm_host_stat(r->source->mm, &host);
    json_t *view = view_free(&host, &zram, areas, nr_areas, vms, nr);
    free(vms);
    return view;
}

static json_t *make_page(const struct request *r)
{
    struct mm_page_info info;
    struct source_vm *vm = find_vm(r->source, r->vm, r->diag);
    char *end = NULL;
    gpa_t gpa = {0};

    if (!vm)
        return NULL;
    errno = 0;
    if (r->gpa && *r->gpa >= '0' && *r->gpa <= '9')
        gpa.v = strtoull(r->gpa, &end, 0);
    if (!end || *end || errno) {
        diag_set(r->diag, EXIT_USAGE, "page needs a guest physical address, as in `ebb show page 0x1200000`");
        return NULL;
    }
    if (gpa.v >> 44 || mm_page_info(vm->mm, gpa, &info)) {
        diag_set(r->diag, EXIT_USAGE, "%s has no memory at 0x%llx; `ebb show regions` says where it has", vm->name,
                 (unsigned long long)gpa.v);
        return NULL;
    }
    return view_page(vm->name, gpa, &info);
}

static json_t *make_numa(const struct request *r)
{
    return source_numa(r->source);
}

static json_t *make_tiers(const struct request *r)
{
    return source_tiers(r->source);
}

static json_t *make_idle(const struct request *r)
{
    return source_idle(r->source);
}

static json_t *make_heatmap(const struct request *r)
{
    struct source_vm *vm = find_vm(r->source, r->vm, r->diag);

    return vm ? source_heatmap(vm) : NULL;
}

/* VM @index, where it is there and has a machine: it stays until source_vm_put. */
static struct source_vm *hold_machine(struct source *source, unsigned index)
{
    pthread_mutex_lock(&source->lock);
    struct source_vm *vm = index < source->nr_vms ? &source->vms[index] : NULL;
    bool held = vm && vm->there && vm->machine;
    if (held)
        vm->nr_users++;
    pthread_mutex_unlock(&source->lock);
    return held ? vm : NULL;
}

/*
 * One object a VM that is there: its name, and what @add says of it. A device answers under its own lock, which it may
 * hold while it waits for a page, and the page for the memory of another VM, which source_vm_gone lets go: so one VM is
 * held at a time, and not source.lock.
 */
static json_t *list_machines(const struct request *r, void (*add)(const struct machine *machine, json_t *out))
{
    json_t *vms = json_array();

    for (unsigned i = 0; i < r->source->max_vms; i++) {
        struct source_vm *vm = hold_machine(r->source, i);
        if (!vm)
            continue;
        json_t *o = json_pack("{s:s}", "vm", vm->name);
        add(vm->machine, o);
        json_array_append_new(vms, o);
        source_vm_put(r->source, vm);
    }
    return json_pack("{s:o}", "vms", vms);
}

static void add_balloon(const struct machine *machine, json_t *out)
{
    struct balloon *balloon = machine_balloon(machine);
    struct mem *mem = machine_mem(machine);
    struct balloon_stats stats;
    struct balloon_info info;
    struct mem_info plug;

    if (balloon) {
        balloon_info(balloon, &info);
        balloon_stats(balloon, &stats);
        view_put_balloon(out, &info, &stats);
    }
    if (mem) {
        mem_info(mem, &plug);
        view_put_mem(out, &plug);
    }
}

static json_t *make_balloon(const struct request *r)
{
    return list_machines(r, add_balloon);
}

static void add_devices(const struct machine *machine, json_t *out)
{
    json_object_set_new(out, "devices", machine_devices_json(machine));
}

static json_t *make_devices(const struct request *r)
{
    return list_machines(r, add_devices);
}

static json_t *(*const makers[])(const struct request *) = {
    make_vmstat,    make_zoneinfo, make_buddyinfo, make_pagetypeinfo, make_extfrag, make_slabinfo, make_lru,
    make_pageclass, make_zram,     make_swaps,     make_stage2,       make_regions, make_free,     make_page,
    make_balloon,   make_devices,  make_numa,      make_tiers,        make_idle,    make_heatmap,
};

/* In the order of makers[]. */
const struct view_name source_views[] = {
    {"vmstat", "counters: faults, reclaim, zram, swap, pool", false},
    {"zoneinfo", "the pool and its zones: sizes, free pages, watermarks", false},
    {"buddyinfo", "free blocks by order, with and without physical pages", false},
    {"pagetypeinfo", "the same by migrate type; pageblocks by type", false},
    {"extfrag", "how fragmented free memory is, by order: extfrag_index, unusable_index", false},
    {"slabinfo", "caches of the memory manager's own objects", false},
    {"lru", "active blocks, standby pages, ages", false},
    {"pageclass", "what can be done with the budget's pages, in the order of reclaim", false},
    {"zram", "the compressed store: what it holds and what it costs", false},
    {"swaps", "swap areas and their use", false},
    {"stage2", "guest page tables: size, and pages by state", false},
    {"regions", "each VM's memory by region and state", false},
    {"free", "one screen about it all, like free(1)", false},
    {"page", "one guest page: where it is (ebb show page GPA [--vm NAME])", false},
    {"balloon", "balloon and plugged memory of each VM, and how the guest fares", true},
    {"devices", "virtio devices: requests, interrupts, what the guest did wrong", true},
    {"numa", "nodes of this host: memory, budget, distances, pages of each VM", false},
    {"tiers", "tiers of memory: sizes, use, what moved between them", false},
    {"idle", "how long memory has not been touched, working sets, what samples cost", false},
    {"heatmap", "which memory a VM touched when (also: ebb heatmap --png FILE)", false},
    {NULL, NULL, false},
};
_Static_assert(ARRAY_LEN(makers) + 1 == ARRAY_LEN(source_views), "a maker for each view");
_Static_assert(ARRAY_LEN(source_views) <= SOURCE_MAX_VIEWS, "room for the names");

void source_view_names(const char *out[SOURCE_MAX_VIEWS])
{
    for (unsigned i = 0; i < ARRAY_LEN(source_views); i++)
        out[i] = source_views[i].name;
}

static json_t *make_locked(json_t *(*maker)(const struct request *), const struct request *request)
{
    pthread_mutex_lock(&request->source->lock);
    json_t *view = maker(request);
    pthread_mutex_unlock(&request->source->lock);
    return view;
}

json_t *source_view(struct source *source, const char *name, const char *vm, const char *gpa, struct diag *diag)
{
    struct request request = {source, vm, gpa, diag};
    const char *names[SOURCE_MAX_VIEWS];
    char near[SUGGEST_TEXT];

    for (unsigned i = 0; i < ARRAY_LEN(makers); i++) {
        if (strcmp(source_views[i].name, name) != 0)
            continue;
        if (!source->mm && !source_views[i].of_machine) {
            diag_set(diag, EXIT_GUEST,
                     "with --backend kernel the kernel keeps the guests' memory; see /proc/vmstat and /proc/swaps");
            return NULL;
        }
        json_t *view = source_views[i].of_machine ? makers[i](&request) : make_locked(makers[i], &request);
        if (!view)
            diag_set(diag, EXIT_GUEST, "out of memory while making the view");
        return view;
    }
    source_view_names(names);
    diag_set(diag, EXIT_USAGE, "there is no view %.40s%s `ebb show help` lists them", name,
             *suggest_text(near, name, names) ? near : ";");
    return NULL;
}

uint64_t source_reclaim(struct source *source, struct mm_thread *thread, uint64_t pages)
{
    uint64_t freed = 0;

    pthread_mutex_lock(&source->lock);
    for (unsigned i = 0; i < source->nr_vms && freed < pages; i++)
        if (source->vms[i].there)
            freed += mm_reclaim(thread, source->vms[i].mm, pages - freed, true);
    pthread_mutex_unlock(&source->lock);
    return freed;
}
