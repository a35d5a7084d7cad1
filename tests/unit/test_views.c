/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views from the memory manager to the text: a small memory host over the fake one, asked for every view, directly and
 * through the API on a socket.
 */
#include "tests/fake/fail_syscall.h"
#include "tests/fake/fake_host.h"
#include "vmm/api.h"
#include "vmm/client.h"
#include "vmm/render.h"
#include "vmm/socket.h"
#include "vmm/source.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (16 * MIB)
#define NR_TOUCHED 600u /* pages */

struct rig {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread;
    struct mm_vm *vm;
    struct source source;
    char directory[32];
    bool gone; /* by take_vm_away; read after it was joined, or while it must be false */
};

static void touch(struct rig *rig, gfn_t gfn)
{
    vmid_t id = mm_vm_id(rig->vm);
    uint64_t word = gfn * UINT64_C(0x9e3779b97f4a7c15);

    while (fake_host_guest_write(rig->fh, id, gfn, 64, &word, sizeof(word)) == -EFAULT)
        ck_assert_int_eq(mm_fault(rig->thread, rig->vm, gpa_of(gfn), MM_FAULT_WRITE), 0);
}

static void make_directory(struct rig *rig)
{
    strcpy(rig->directory, "/tmp/ebb-views-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(rig->directory));
}

static void set_up_memory(struct rig *rig)
{
    const struct mm_config config = {
        .budget_bytes = 8 * MIB, .zram = {.algo = ZRAM_LZ4, .limit_bytes = 4 * MIB}, .fault_around_pages = 1};
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    rig->gone = false;

    rig->fh = fake_host_create(mm_arena_slots(&config));
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(rig->fh), rig->fh, fake_host_arena(rig->fh), &rig->host), 0);
    ck_assert_int_eq(mm_thread_create(rig->host, &rig->thread), 0);
    ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &rig->vm), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(rig->vm), VM_BYTES / PAGE_BYTES);
    ck_assert_int_eq(source_init(&rig->source, rig->host, "lz4", 2), 0);
    source_vm_add(&rig->source, "vm0", rig->vm, NULL);
    for (gfn_t gfn = 0; gfn < NR_TOUCHED; gfn++)
        touch(rig, gfn);
}

static void set_up(struct rig *rig)
{
    set_up_memory(rig);
    make_directory(rig);
}

static void tear_down(struct rig *rig)
{
    vmid_t id = mm_vm_id(rig->vm);

    source_vm_gone(&rig->source, "vm0");
    mm_vm_destroy(rig->thread, rig->vm);
    fake_host_remove_vm(rig->fh, id);
    mm_thread_destroy(rig->thread);
    mm_host_destroy(rig->host);
    source_fini(&rig->source);
    fake_host_destroy(rig->fh);
    rmdir(rig->directory);
}

static uint64_t number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    ck_assert_msg(json_is_integer(value), "%s is missing", name);
    return (uint64_t)json_integer_value(value);
}

static json_t *get(struct rig *rig, const char *view)
{
    struct diag diag = {0};
    json_t *json = source_view(&rig->source, view, NULL, strcmp(view, "page") == 0 ? "0x1000" : NULL, &diag);

    ck_assert_msg(json != NULL, "%s: %s", view, diag.text);
    return json;
}

START_TEST(test_views_vmstat_counts_what_happened)
{
    struct rig rig;
    set_up(&rig);
    json_t *vmstat = get(&rig, "vmstat");
    struct mm_vm_stat stat;
    mm_vm_stat(rig.vm, &stat);
    ck_assert_uint_gt(number(vmstat, "pgfault"), 0);
    ck_assert_uint_eq(number(vmstat, "pgfault"), stat.nr_minor + stat.nr_major);
    ck_assert_uint_ge(number(vmstat, "nr_active_anon"), NR_TOUCHED);
    ck_assert_uint_eq(number(vmstat, "nr_active_anon"), stat.resident_bytes / PAGE_BYTES);
    ck_assert_uint_eq(json_object_size(vmstat), 5 + NR_VM_EVENTS);
    json_decref(vmstat);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_regions_and_stage2_sum_up_to_the_memory)
{
    struct rig rig;
    set_up(&rig);
    mm_reclaim(rig.thread, rig.vm, 100, true);
    json_t *regions = get(&rig, "regions"), *stage2 = get(&rig, "stage2"), *free_view = get(&rig, "free");
    json_t *row = json_array_get(json_object_get(json_array_get(json_object_get(regions, "vms"), 0), "regions"), 0);
    json_t *vm = json_array_get(json_object_get(stage2, "vms"), 0);
    uint64_t sum = 0, sum2 = 0;
    char name[32];
    for (unsigned s = 0; s < NR_VIEW_STATES; s++) {
        snprintf(name, sizeof(name), "%s_pages", view_state_names[s]);
        sum += number(row, name);
        sum2 += number(vm, name);
    }
    ck_assert_uint_eq(sum, VM_BYTES / PAGE_BYTES);
    ck_assert_uint_eq(sum2, VM_BYTES / PAGE_BYTES);
    ck_assert_uint_gt(number(row, "zram_pages"), 0);
    vm = json_array_get(json_object_get(free_view, "vms"), 0);
    ck_assert_uint_eq(number(vm, "untouched_bytes"), number(row, "absent_pages") * PAGE_BYTES);
    ck_assert_uint_eq(number(vm, "zram_bytes"), number(row, "zram_pages") * PAGE_BYTES);
    ck_assert_uint_eq(number(json_object_get(free_view, "budget"), "total_bytes"), 8 * MIB);
    json_decref(regions);
    json_decref(stage2);
    json_decref(free_view);
    tear_down(&rig);
}
END_TEST

/* Node, zone and plane of two rows are the same. */
static bool same_place(const json_t *a, const json_t *b)
{
    return number(a, "node") == number(b, "node") &&
           json_equal(json_object_get(a, "zone"), json_object_get(b, "zone")) &&
           json_equal(json_object_get(a, "plane"), json_object_get(b, "plane"));
}

START_TEST(test_views_pagetypeinfo_types_sum_up_to_buddyinfo)
{
    struct rig rig;
    set_up(&rig);
    mm_reclaim(rig.thread, rig.vm, 300, true);
    json_t *buddy = get(&rig, "buddyinfo"), *types = get(&rig, "pagetypeinfo");
    size_t i, k;
    json_t *zone, *row;
    json_array_foreach(json_object_get(buddy, "zones"), i, zone)
    {
        for (size_t order = 0; order <= MAX_ORDER; order++) {
            json_int_t sum = 0;
            json_array_foreach(json_object_get(types, "free"), k, row) if (same_place(zone, row)) sum +=
                json_integer_value(json_array_get(json_object_get(row, "free_blocks"), order));
            ck_assert_int_eq(sum, json_integer_value(json_array_get(json_object_get(zone, "free_blocks"), order)));
        }
    }
    uint64_t blocks = 0, reclaimable = 0;
    json_array_foreach(json_object_get(types, "blocks"), i, row)
    {
        blocks += number(row, "Unmovable") + number(row, "Movable") + number(row, "Reclaimable");
        reclaimable += number(row, "Reclaimable");
        ck_assert_uint_eq(number(row, "Isolate"), 0);
    }
    ck_assert_uint_eq(blocks, 4 + 5); /* 8 MiB, and a quarter more for zone Normal */
    ck_assert_uint_gt(reclaimable, 0);
    json_decref(buddy);
    json_decref(types);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_extfrag_says_what_would_succeed)
{
    struct rig rig;
    set_up(&rig);
    json_t *buddy = get(&rig, "buddyinfo"), *extfrag = get(&rig, "extfrag");
    size_t i;
    json_t *zone;
    json_array_foreach(json_object_get(buddy, "zones"), i, zone)
    {
        const json_t *row = json_array_get(json_object_get(extfrag, "zones"), i);
        ck_assert(same_place(zone, row));
        bool there = false;
        for (size_t order = MAX_ORDER + 1; order-- > 0;) {
            json_int_t index =
                json_integer_value(json_array_get(json_object_get(row, "extfrag_index_thousandths"), order));
            json_int_t unusable =
                json_integer_value(json_array_get(json_object_get(row, "unusable_index_thousandths"), order));
            there |= json_integer_value(json_array_get(json_object_get(zone, "free_blocks"), order)) > 0;
            ck_assert_int_eq(index == -1000, there);
            ck_assert_int_eq(unusable == 1000, !there);
        }
    }
    json_decref(buddy);
    json_decref(extfrag);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_lru_ages_sum_up_to_the_resident_pages)
{
    struct rig rig;
    uint64_t sum = 0;
    set_up(&rig);
    json_t *lru = get(&rig, "lru"), *vm = json_array_get(json_object_get(lru, "vms"), 0);
    json_t *ages = json_object_get(vm, "resident_pages_by_age");
    for (size_t i = 0; i < json_array_size(ages); i++)
        sum += (uint64_t)json_integer_value(json_array_get(ages, i));
    ck_assert_uint_eq(number(vm, "sampled_one_of_pages"), 1);
    ck_assert_uint_eq(sum, number(vm, "resident_pages"));
    json_decref(lru);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_page_says_where_it_is)
{
    struct diag diag = {0};
    struct rig rig;
    set_up(&rig);
    json_t *page = source_view(&rig.source, "page", "vm0", "0x1000", &diag);
    ck_assert_str_eq(json_string_value(json_object_get(page, "state")), "resident");
    json_decref(page);
    page = source_view(&rig.source, "page", NULL, "16773120", &diag);
    ck_assert_str_eq(json_string_value(json_object_get(page, "state")), "absent");
    json_decref(page);
    tear_down(&rig);
}
END_TEST

static const struct {
    const char *view, *vm, *gpa;
    enum exit_code code;
    const char *says;
} refused[] = {
    {"vmstats", NULL, NULL, EXIT_USAGE, "did you mean vmstat?"},
    {"xyzzy", NULL, NULL, EXIT_USAGE, "show help"},
    {"page", NULL, NULL, EXIT_USAGE, "address"},
    {"page", NULL, "", EXIT_USAGE, "address"},
    {"page", NULL, "0x", EXIT_USAGE, "address"},
    {"page", NULL, "12z", EXIT_USAGE, "address"},
    {"page", NULL, "-1", EXIT_USAGE, "address"},
    {"page", NULL, "0x1000000", EXIT_USAGE, "no memory"},
    {"page", NULL, "0xffffffffffffffff", EXIT_USAGE, "no mem"},
    {"page", "vm7", "0", EXIT_USAGE, "vm7"},
    {"page", NULL, "0x1ffffffffffffffff", EXIT_USAGE, "addr"},
};

START_TEST(test_views_wrong_requests_are_refused)
{
    struct diag diag = {0};
    struct rig rig;
    set_up(&rig);
    ck_assert_ptr_null(source_view(&rig.source, refused[_i].view, refused[_i].vm, refused[_i].gpa, &diag));
    ck_assert_int_eq(diag.code, refused[_i].code);
    ck_assert_msg(strstr(diag.text, refused[_i].says), "\"%s\" does not say \"%s\"", diag.text, refused[_i].says);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_a_vm_that_is_gone_is_left_out)
{
    struct diag diag = {0};
    struct rig rig;
    set_up(&rig);
    source_vm_gone(&rig.source, "vm0");
    json_t *view = get(&rig, "regions");
    ck_assert_uint_eq(json_array_size(json_object_get(view, "vms")), 0);
    json_decref(view);
    ck_assert_ptr_null(source_view(&rig.source, "page", NULL, "0", &diag));
    ck_assert_uint_eq(source_reclaim(&rig.source, rig.thread, 10), 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_without_a_memory_manager_say_why)
{
    struct diag diag = {0};
    struct source source;
    ck_assert_int_eq(source_init(&source, NULL, NULL, 1), 0);
    ck_assert_ptr_null(source_view(&source, "vmstat", NULL, NULL, &diag));
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_ptr_nonnull(strstr(diag.text, "--backend kernel"));
    source_fini(&source);
}
END_TEST

START_TEST(test_views_text_that_is_not_utf8_is_kept_readable)
{
    json_t *text = view_text("a\xff"
                             "b");
    ck_assert_str_eq(json_string_value(text), "a?b");
    json_decref(text);
    text = view_text("gr\xc3\xbc\xc3\x9f");
    ck_assert_str_eq(json_string_value(text), "gr\xc3\xbc\xc3\x9f");
    json_decref(text);
}
END_TEST

START_TEST(test_views_idle_sums_up_to_the_memory)
{
    struct rig rig;
    set_up(&rig);
    for (unsigned i = 0; i < 100; i++) {
        fake_host_advance_ns(rig.fh, 100000000);
        access_scan(rig.thread);
    }
    json_t *view = get(&rig, "idle"), *all = json_object_get(view, "all");
    json_t *vm = json_array_get(json_object_get(view, "vms"), 0), *ages = json_object_get(vm, "idle");
    struct mm_vm_stat stat;
    mm_vm_stat(rig.vm, &stat);
    ck_assert_str_eq(json_string_value(json_object_get(view, "source")), "refault");
    ck_assert_uint_eq(number(vm, "memory_bytes"), VM_BYTES);
    ck_assert_uint_eq(number(all, "memory_bytes"), VM_BYTES);
    ck_assert_uint_eq(number(vm, "never_touched_bytes"), stat.untouched_bytes);
    ck_assert_uint_eq(json_array_size(ages), ACCESS_IDLE_STEPS);
    ck_assert_uint_eq(number(json_array_get(ages, 0), "seconds"), 1);
    ck_assert_uint_eq(number(json_array_get(ages, 0), "bytes"), VM_BYTES - stat.untouched_bytes);
    ck_assert_uint_eq(number(json_array_get(ages, 10), "bytes"), 0);
    ck_assert_uint_eq(number(json_array_get(json_object_get(vm, "working_set"), 2), "seconds"), 60);
    ck_assert_uint_gt(number(view, "nr_samples"), 0);
    ck_assert_double_le(json_real_value(json_object_get(view, "sample_cpu_pct")), 1.0);
    json_decref(view);
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_heatmap_of_a_vm_that_is_not_there_is_refused)
{
    struct diag diag = {0};
    struct rig rig;
    set_up(&rig);
    ck_assert_ptr_null(source_view(&rig.source, "heatmap", "vm9", NULL, &diag));
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_ptr_nonnull(strstr(diag.text, "vm9"));
    tear_down(&rig);
}
END_TEST

/* Three VMs are columns and a sum; a hundred are the sum alone. */
START_TEST(test_views_idle_of_many_vms_is_a_table_that_fits)
{
    static struct view_idle vms[100];
    const struct access_stat stat = {.source = "refault", .source_err = -EIO, .quota_pct = 1};
    for (unsigned i = 0; i < 100; i++) {
        vms[i].name = "vm";
        vms[i].idle.memory_bytes = 16 * MIB;
        vms[i].idle.idle_bytes[0] = 3 * MIB;
    }
    for (unsigned nr = 0; nr <= 100; nr += nr < 20 ? 1 : 80) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        json_t *json = view_idle(&stat, vms, nr);
        ck_assert_int_eq(render_view("idle", json, out), 0);
        fclose(out);
        ck_assert_ptr_nonnull(strstr(text, "another source broke"));
        ck_assert_msg(!strstr(text, " all\n") == (nr == 1), "%s", text);
        json_decref(json);
        free(text);
    }
}
END_TEST

START_TEST(test_views_every_one_renders)
{
    struct rig rig;
    set_up(&rig);
    mm_reclaim(rig.thread, rig.vm, 100, true);
    for (const struct view_name *view = source_views; view->name; view++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        json_t *json = get(&rig, view->name);
        ck_assert_int_eq(render_view(view->name, json, out), 0);
        fclose(out);
        /* no swap area, and no machine, is here */
        if (strcmp(view->name, "swaps") != 0 && !view->of_machine)
            ck_assert_msg(bytes > 40, "%s: %s", view->name, text);
        for (char *at = text; (at = strstr(at, " \n")); at++)
            ck_abort_msg("%s: blanks at a line's end", view->name);
        json_decref(json);
        free(text);
    }
    tear_down(&rig);
}
END_TEST

START_TEST(test_views_balloon_shows_what_the_guest_says)
{
    const struct balloon_info info = {
        .live = true, .target_bytes = 128 * MIB, .actual_bytes = 96 * MIB, .memory_bytes = 256 * MIB};
    const struct balloon_stats stats = {
        .valid = 1u << VIRTIO_BALLOON_S_MEMFREE, .value = {[VIRTIO_BALLOON_S_MEMFREE] = 40 * MIB}, .nr_updates = 7};
    const struct mem_info plug = {.region_bytes = 512 * MIB, .plugged_bytes = 64 * MIB, .start = {UINT64_C(1) << 32}};
    json_t *vm = json_pack("{s:s}", "vm", "vm3"), *json = json_pack("{s:[o]}", "vms", vm);
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    view_put_balloon(vm, &info, &stats);
    view_put_mem(vm, &plug);
    ck_assert_uint_eq(number(json_object_get(vm, "balloon"), "target_bytes"), 128 * MIB);
    ck_assert_int_eq(render_view("balloon", json, out), 0);
    fclose(out);
    static const char *const words[] = {"vm3\n", "96 MiB", "128 MiB", "yes", "40 MiB", "64 MiB", "0x100000000"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        ck_assert_msg(strstr(text, words[i]) != NULL, "%s is missing in:\n%s", words[i], text);
    /* a tag that the guest did not give is not there */
    ck_assert_uint_eq(json_object_size(json_object_get(json_object_get(vm, "balloon"), "stats")), 1);
    json_decref(json);
    free(text);
}
END_TEST

static void *take_vm_away(void *arg)
{
    struct rig *rig = arg;
    source_vm_gone(&rig->source, "vm0");
    __atomic_store_n(&rig->gone, true, __ATOMIC_RELEASE);
    return NULL;
}

/* Until take_vm_away waits. */
static bool source_vm_is_there(struct rig *rig)
{
    pthread_mutex_lock(&rig->source.lock);
    bool there = rig->source.vms[0].there;
    pthread_mutex_unlock(&rig->source.lock);
    return there;
}

START_TEST(test_views_vm_that_is_held_is_not_gone_before)
{
    struct rig rig;
    struct diag diag = {0};
    set_up(&rig);
    ck_assert_ptr_null(source_vm_get(&rig.source, "vm9", &diag));
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    struct source_vm *vm = source_vm_get(&rig.source, NULL, &diag);
    ck_assert_ptr_nonnull(vm);
    ck_assert_str_eq(vm->name, "vm0");
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, take_vm_away, &rig), 0);
    for (unsigned i = 0; i < 1000 && source_vm_is_there(&rig); i++)
        usleep(1000);
    ck_assert(!__atomic_load_n(&rig.gone, __ATOMIC_ACQUIRE));
    source_vm_put(&rig.source, vm);
    pthread_join(thread, NULL);
    ck_assert(rig.gone);
    tear_down(&rig);
}
END_TEST

/* --- through the API ---------------------------------------------------------------------------------------- */

struct served {
    struct rig rig;
    struct control control;
    struct phase phase;
    struct api *api;
    char path[64];
};

static void start_serving(struct served *s)
{
    struct diag diag = {0};

    snprintf(s->path, sizeof(s->path), "%s/api.sock", s->rig.directory);
    int fd = socket_listen(s->path, &diag);
    ck_assert_msg(fd >= 0, "%s", diag.text);
    const struct api_config config = {.listen_fd = fd, .control = &s->control};
    ck_assert_msg(api_start(&config, &s->api, &diag) == 0, "%s", diag.text);
}

static void serve(struct served *s)
{
    set_up(&s->rig);
    phase_init(&s->phase);
    phase_set(&s->phase, PHASE_RUN, 0, 0);
    s->control = (struct control){.mh = NULL, .source = &s->rig.source, .phase = &s->phase};
    start_serving(s);
}

static void stop_serving(struct served *s)
{
    api_stop(s->api);
    phase_fini(&s->phase);
    unlink(s->path);
    tear_down(&s->rig);
}

START_TEST(test_api_serves_every_view)
{
    struct diag diag = {0};
    struct served s;
    json_t *json;
    char path[64];
    serve(&s);
    for (const struct view_name *view = source_views; view->name; view++) {
        snprintf(path, sizeof(path), "/memory/%s%s", view->name, strcmp(view->name, "page") == 0 ? "?gpa=0x2000" : "");
        ck_assert_msg(client_request(s.path, "GET", path, NULL, &json, &diag) == 0, "%s: %s", path, diag.text);
        ck_assert(json_is_object(json));
        json_decref(json);
    }
    ck_assert_int_eq(client_request(s.path, "GET", "/", NULL, &json, &diag), 0);
    ck_assert_ptr_nonnull(json_object_get(json_object_get(json, "PUT"), "/memory/reclaim"));
    json_decref(json);
    stop_serving(&s);
}
END_TEST

static int fetch(const struct served *s, const char *path, struct diag *diag)
{
    json_t *json = NULL;
    *diag = (struct diag){0};
    int error = client_request(s->path, "GET", path, NULL, &json, diag);
    json_decref(json);
    return error;
}

static int reclaim_nothing(const struct served *s, struct diag *diag)
{
    json_t *json = NULL, *body = json_pack("{s:i}", "bytes", 0);
    *diag = (struct diag){0};
    int error = client_request(s->path, "PUT", "/memory/reclaim", body, &json, diag);
    json_decref(body);
    json_decref(json);
    return error;
}

/* Who asked waited until all VMs ran, and was told that ebb hangs. */
START_TEST(test_api_says_how_far_a_start_is_to_who_asks_for_what_is_not_there)
{
    struct diag diag;
    struct served s;
    serve(&s);
    phase_set(&s.phase, PHASE_HOST, 0, 0);
    ck_assert_int_eq(fetch(&s, "/memory/free", &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_ptr_nonnull(strstr(diag.text, "preparing memory"));
    ck_assert_int_eq(fetch(&s, "/", &diag), 0);
    for (enum phase_step step = PHASE_MAKE; step <= PHASE_START; step++) {
        const char *says = step == PHASE_MAKE ? "making VM 3 of 40" : "starting VM 3 of 40";
        phase_set(&s.phase, step, 3, 40);
        ck_assert_msg(fetch(&s, "/memory/free", &diag) == 0, "%s", diag.text);
        ck_assert_int_eq(fetch(&s, "/memory/balloon", &diag), -1);
        ck_assert_msg(diag.code == EXIT_GUEST && strstr(diag.text, says), "%s", diag.text);
        ck_assert_int_eq(fetch(&s, "/memory/heatmap?vm=vm7", &diag), -1);
        ck_assert_msg(diag.code == EXIT_GUEST && strstr(diag.text, says), "%s", diag.text);
        ck_assert_int_eq(reclaim_nothing(&s, &diag), -1);
        ck_assert_msg(diag.code == EXIT_GUEST && strstr(diag.text, says), "%s", diag.text);
    }
    phase_set(&s.phase, PHASE_RUN, 0, 0);
    ck_assert_int_eq(fetch(&s, "/memory/balloon", &diag), 0);
    ck_assert_int_eq(fetch(&s, "/memory/heatmap?vm=vm7", &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_int_eq(reclaim_nothing(&s, &diag), -1);
    ck_assert_msg(diag.code == EXIT_USAGE && strstr(diag.text, "bytes"), "%s", diag.text);
    stop_serving(&s);
}
END_TEST

static void *ask_while_starting(void *arg)
{
    const struct served *s = arg;
    struct diag diag;
    for (unsigned i = 0; i < 20; i++)
        if (fetch(s, i % 2 ? "/memory/free" : "/memory/regions", &diag) && diag.code != EXIT_GUEST)
            abort();
    return NULL;
}

/* In the order of `ebb run`: the API comes first. */
START_TEST(test_api_shows_the_vms_there_are_while_more_are_made)
{
    struct diag diag;
    struct served s = {.control = {.source = &s.rig.source, .phase = &s.phase}};
    pthread_t thread;
    make_directory(&s.rig);
    phase_init(&s.phase);
    start_serving(&s);
    ck_assert_int_eq(pthread_create(&thread, NULL, ask_while_starting, &s), 0);
    set_up_memory(&s.rig);
    phase_set(&s.phase, PHASE_MAKE, 1, 2);
    usleep(20000);
    source_vm_add(&s.rig.source, "vm1", s.rig.vm, NULL);
    phase_set(&s.phase, PHASE_MAKE, 2, 2);
    pthread_join(thread, NULL);
    ck_assert_msg(fetch(&s, "/memory/page?gpa=0x2000&vm=vm1", &diag) == 0, "%s", diag.text);
    stop_serving(&s);
}
END_TEST

START_TEST(test_api_that_nobody_asked_ends)
{
    struct served s;
    serve(&s);
    stop_serving(&s);
}
END_TEST

static const struct {
    const char *method, *path, *body, *says;
} faults[] = {
    {"GET", "/memory/vmstats", NULL, "did you mean vmstat?"},
    {"GET", "/etc/passwd", NULL, "GET / lists"},
    {"GET", "/memory/", NULL, "GET / lists"},
    {"GET", "/memory/page?gpa=x", NULL, "address"},
    {"GET", "/memory/reclaim", NULL, "PUT"},
    {"PUT", "/memory/vmstat", "{}", "GET"},
    {"PUT", "/memory/swapon", "{}", "path"},
    {"PUT", "/memory/swapon", "{\"path\": 7}", "path"},
    {"PUT", "/memory/swapon", "{\"path\": \"a\", \"size_bytes\": -1}", "size_bytes"},
    {"PUT", "/memory/swapon", "{\"path\": \"a\", \"priority\": 40000}", "priority"},
    {"PUT", "/memory/swapoff", "[]", "JSON object"},
    {"PUT", "/memory/reclaim", "{\"bytes\": \"1M\"}", "bytes"},
    {"PUT", "/memory/reclaim", NULL, "JSON object"},
    {"DELETE", "/memory/vmstat", NULL, "GET"},
};

START_TEST(test_api_wrong_requests_get_a_fault_message)
{
    struct diag diag = {0};
    struct served s;
    json_t *json, *body = faults[_i].body ? json_loads(faults[_i].body, 0, NULL) : NULL;
    serve(&s);
    ck_assert_int_eq(client_request(s.path, faults[_i].method, faults[_i].path, body, &json, &diag), -1);
    ck_assert_msg(strstr(diag.text, faults[_i].says), "\"%s\" does not say \"%s\"", diag.text, faults[_i].says);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    json_decref(body);
    stop_serving(&s);
}
END_TEST

START_TEST(test_api_a_request_that_is_too_long_is_refused_and_the_next_served)
{
    struct diag diag = {0};
    struct served s;
    json_t *json, *body = json_object();
    char *text = calloc(1, 8192);
    serve(&s);
    memset(text, 'a', 8000);
    json_object_set_new(body, "path", json_string(text));
    ck_assert_int_eq(client_request(s.path, "PUT", "/memory/swapon", body, &json, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "longer than"));
    diag.text[0] = '\0';
    ck_assert_int_eq(client_request(s.path, "GET", "/memory/vmstat", NULL, &json, &diag), 0);
    json_decref(json);
    json_decref(body);
    free(text);
    stop_serving(&s);
}
END_TEST

static void note_error(void *ctx, const char *text)
{
    struct diag *diag = ctx;
    diag_set(diag, EXIT_HOST, "%s", text);
}

/* Where the library gives up: without a thread it closes the socket, without an eventfd it does not. */
static const struct {
    int nr;
    uint32_t flags;
    int err;
} gives_up[] = {{SYS_clone, CLONE_THREAD, EAGAIN}, {SYS_eventfd2, 0, EMFILE}};

/* Once it was closed, another thread could have opened a descriptor of that number, and lost it. */
START_TEST(test_api_that_cannot_start_closes_its_socket_once)
{
    struct diag diag = {0}, told = {0}, refused_diag = {0};
    char path[64], directory[] = "/tmp/ebb-api-XXXXXX";
    const struct control control = {0};
    struct api *api;
    json_t *json = NULL;

    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/api.sock", directory);
    struct api_config config = {.control = &control, .on_error = note_error, .ctx = &told};
    config.listen_fd = socket_listen(path, &diag);
    ck_assert_msg(config.listen_fd >= 0, "%s", diag.text);
    ck_assert_msg(api_start(&config, &api, &diag) == 0, "%s", diag.text);
    /* What clone3 is for cannot be seen: the C library takes clone instead. */
    ck_assert_int_eq(fail_syscall(SYS_clone3, 0, ENOSYS), 0);
    ck_assert_int_eq(fail_syscall(gives_up[_i].nr, gives_up[_i].flags, gives_up[_i].err), 0);
    ck_assert_int_ne(client_request(path, "GET", "/memory/vmstat", NULL, &json, &refused_diag), 0);
    api_stop(api);
    ck_assert_msg(strstr(told.text, "threads"), "%s", told.text);
    ck_assert_uint_eq(fail_syscall_bad_closes(), 0);
    ck_assert_int_eq(fcntl(config.listen_fd, F_GETFD), -1);
    ck_assert_int_eq(socket_connect(path, 1000, &diag), -1); /* nobody holds a copy of it either */
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* It said to take a path in a directory that can be written, with the exit code for wrong usage. */
START_TEST(test_socket_that_the_host_refuses_is_not_the_paths_fault)
{
    char path[64], directory[] = "/tmp/ebb-socket-XXXXXX";
    struct diag nowhere = {0}, refused_diag = {0};

    ck_assert_int_eq(socket_listen("/tmp/ebb-no-such-directory/api.sock", &nowhere), -1);
    ck_assert_int_eq(nowhere.code, EXIT_USAGE);
    ck_assert_ptr_nonnull(strstr(nowhere.text, "directory that can be written"));
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/api.sock", directory);
    ck_assert_int_eq(fail_syscall(SYS_listen, 0, ENOMEM), 0);
    ck_assert_int_eq(socket_listen(path, &refused_diag), -1);
    ck_assert_int_eq(refused_diag.code, EXIT_HOST);
    ck_assert_msg(!strstr(refused_diag.text, "directory"), "%s", refused_diag.text);
    ck_assert_int_eq(rmdir(directory), 0); /* nothing is left there */
}
END_TEST

START_TEST(test_socket_in_use_is_refused_and_a_dead_one_replaced)
{
    char path[64], directory[] = "/tmp/ebb-socket-XXXXXX";
    struct diag diag = {0}, busy = {0}, other = {0}, gone = {0};
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/api.sock", directory);
    int fd = socket_listen(path, &diag);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(socket_listen(path, &busy), -1);
    ck_assert_int_eq(busy.code, EXIT_USAGE);
    ck_assert_ptr_nonnull(strstr(busy.text, "in use"));
    close(fd);
    ck_assert_int_eq(socket_connect(path, 1000, &gone), -1);
    fd = socket_listen(path, &diag);
    ck_assert_int_ge(fd, 0);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    close(fd);
    unlink(path);
    fclose(fopen(path, "w"));
    ck_assert_int_eq(socket_listen(path, &other), -1);
    ck_assert_ptr_nonnull(strstr(other.text, "no socket"));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(test_socket_path_of_108_bytes_is_too_long)
{
    char path[200];
    struct diag diag = {0};
    memset(path, 'a', sizeof(path));
    memcpy(path, "/tmp/", 5);
    path[108] = '\0';
    ck_assert_int_eq(socket_listen(path, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "longer than 107"));
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    path[107] = '\0';
    diag.text[0] = '\0';
    int fd = socket_listen(path, &diag);
    ck_assert_msg(fd >= 0, "%s", diag.text);
    close(fd);
    unlink(path);
}
END_TEST

static void add_views(TCase *tc)
{
    tcase_add_test(tc, test_views_vmstat_counts_what_happened);
    tcase_add_test(tc, test_views_regions_and_stage2_sum_up_to_the_memory);
    tcase_add_test(tc, test_views_pagetypeinfo_types_sum_up_to_buddyinfo);
    tcase_add_test(tc, test_views_extfrag_says_what_would_succeed);
    tcase_add_test(tc, test_views_lru_ages_sum_up_to_the_resident_pages);
    tcase_add_test(tc, test_views_page_says_where_it_is);
    tcase_add_loop_test(tc, test_views_wrong_requests_are_refused, 0, ARRAY_LEN(refused));
    tcase_add_test(tc, test_views_a_vm_that_is_gone_is_left_out);
    tcase_add_test(tc, test_views_without_a_memory_manager_say_why);
    tcase_add_test(tc, test_views_text_that_is_not_utf8_is_kept_readable);
    tcase_add_test(tc, test_views_idle_sums_up_to_the_memory);
    tcase_add_test(tc, test_views_heatmap_of_a_vm_that_is_not_there_is_refused);
    tcase_add_test(tc, test_views_idle_of_many_vms_is_a_table_that_fits);
    tcase_add_test(tc, test_views_every_one_renders);
    tcase_add_test(tc, test_views_balloon_shows_what_the_guest_says);
    tcase_add_test(tc, test_views_vm_that_is_held_is_not_gone_before);
}

int main(void)
{
    Suite *suite = suite_create("views");
    TCase *views = tcase_create("views"), *api = tcase_create("api");
    add_views(views);
    tcase_add_test(api, test_api_serves_every_view);
    tcase_add_loop_test(api, test_api_wrong_requests_get_a_fault_message, 0, ARRAY_LEN(faults));
    tcase_add_test(api, test_api_a_request_that_is_too_long_is_refused_and_the_next_served);
    tcase_add_test(api, test_api_says_how_far_a_start_is_to_who_asks_for_what_is_not_there);
    tcase_add_test(api, test_api_shows_the_vms_there_are_while_more_are_made);
    tcase_add_test(api, test_api_that_nobody_asked_ends);
    tcase_add_loop_test(api, test_api_that_cannot_start_closes_its_socket_once, 0, ARRAY_LEN(gives_up));
    tcase_add_test(api, test_socket_that_the_host_refuses_is_not_the_paths_fault);
    tcase_add_test(api, test_socket_in_use_is_refused_and_a_dead_one_replaced);
    tcase_add_test(api, test_socket_path_of_108_bytes_is_too_long);
    suite_add_tcase(suite, views);
    suite_add_tcase(suite, api);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
