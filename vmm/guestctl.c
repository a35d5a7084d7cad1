/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb balloon`, `ebb mem`, `ebb hint`, `ebb dump`: what a running ebb can be told to do with its guests. */
#include "vmm/ctl.h"
#include "vmm/size.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A guest that has made no progress for so long is left to itself. Chosen: a guest under pressure takes breaks. */
#define PATIENCE_MS 3000u
#define POLL_MS 50u

/* What a guest follows: a size that is asked for, one that it has reached, and whether it has a driver. */
struct follow {
    const char *view;                    /* member of "vms" of the balloon view */
    const char *wanted, *reached, *what; /* "in the balloon" */
};

static void nap_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static uint64_t number(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* The member of the first VM, or of the one that options name, in the balloon view. A new reference; NULL with diag. */
static json_t *get_state(const struct client_options *options, const struct follow *f, struct diag *diag)
{
    json_t *view, *vm, *state = NULL;
    size_t i;

    if (client_request(options->api_path, "GET", "/memory/balloon", NULL, &view, diag))
        return NULL;
    json_array_foreach(json_object_get(view, "vms"), i, vm)
    {
        const char *name = json_string_value(json_object_get(vm, "vm"));
        if (!state && name && (!options->vm || strcmp(options->vm, name) == 0))
            state = json_incref(json_object_get(vm, f->view));
    }
    json_decref(view);
    if (!state)
        diag_set(diag, EXIT_GUEST, "the VM has ended");
    return state;
}

/* A line that is written over, on a terminal; nothing in a pipe. NULL: ends it. */
static void show_progress(const char *text)
{
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K%s", text ? text : "");
    fflush(stderr);
}

/* Until what is reached is what is wanted, or the guest stands still. Prints how far it came. 0, or -1 with diag. */
static int follow(const struct client_options *options, const struct follow *f, struct diag *diag)
{
    char wanted_text[SIZE_TEXT], reached_text[SIZE_TEXT], line[160];
    uint64_t wanted, reached, last = UINT64_MAX;
    bool driver;

    for (unsigned still_ms = 0;;) {
        json_t *state = get_state(options, f, diag);
        if (!state)
            return -1;
        wanted = number(state, f->wanted);
        reached = number(state, f->reached);
        driver = json_is_true(json_object_get(state, "driver"));
        json_decref(state);
        still_ms = reached == last ? still_ms + POLL_MS : 0;
        last = reached;
        size_text(wanted_text, wanted);
        size_text(reached_text, reached);
        snprintf(line, sizeof(line), "%s of %s %s", reached_text, wanted_text, f->what);
        if (reached == wanted || !driver || still_ms >= PATIENCE_MS)
            break;
        show_progress(line);
        nap_ms(POLL_MS);
    }
    show_progress(NULL);
    if (reached == wanted)
        printf("%s %s\n", reached_text, f->what);
    else
        printf("%s; %s\n", line,
               driver ? "the guest goes on as it can" : "the guest has no driver for it yet, and follows when it has");
    return 0;
}

/* "NAME SIZE": PUT, then follow. */
static int set_size(const char *command, const char *key, const struct follow *f, int argc, char *const argv[],
                    struct diag *diag)
{
    struct client_options options;
    char path[40];
    uint64_t bytes = 0;
    json_t *out = NULL;

    if (ctl_one_word(command, "size", argc, argv, &options, diag))
        return diag->text[0] ? -1 : 0;
    if (size_parse(options.words[0], &bytes) || bytes > INT64_MAX)
        return diag_set(diag, EXIT_USAGE, "%s %.60s: is not a size; write it as 64M", command, options.words[0]);
    json_t *body = json_pack("{s:I}", key, (json_int_t)bytes);
    if (options.vm)
        json_object_set_new(body, "vm", json_string(options.vm));
    snprintf(path, sizeof(path), "/memory/%s", command);
    if (ctl_put(&options, path, body, &out, diag))
        return -1;
    json_decref(out);
    return follow(&options, f, diag);
}

int cmd_balloon(int argc, char *const argv[], struct diag *diag)
{
    static const struct follow balloon = {"balloon", "target_bytes", "actual_bytes", "in the balloon"};

    return set_size("balloon", "target_bytes", &balloon, argc, argv, diag);
}

int cmd_mem(int argc, char *const argv[], struct diag *diag)
{
    static const struct follow mem = {"virtio_mem", "requested_bytes", "plugged_bytes", "plugged"};

    return set_size("mem", "requested_bytes", &mem, argc, argv, diag);
}

int cmd_hint(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    char hinted[SIZE_TEXT], kept[SIZE_TEXT], freed[SIZE_TEXT];
    json_t *out = NULL;

    if (client_options_parse("hint", argc, argv, &options, diag))
        return -1;
    if (options.help)
        return help_print("hint");
    if (options.nr_words)
        return diag_set(diag, EXIT_USAGE, "hint: takes no words; see `ebb help hint`");
    if (ctl_put(&options, "/memory/hint", options.vm ? json_pack("{s:s}", "vm", options.vm) : json_object(), &out,
                diag))
        return -1;
    printf("%s came free of %s that the guest called free; %s were in use again\n",
           size_text(freed, number(out, "freed_bytes")), size_text(hinted, number(out, "hinted_bytes")),
           size_text(kept, number(out, "kept_bytes")));
    if (!json_is_true(json_object_get(out, "complete")))
        printf("The guest did not come to the end of its list.\n");
    json_decref(out);
    return 0;
}

int cmd_dump(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    char path[PATH_MAX], memory[SIZE_TEXT], written[SIZE_TEXT], zero[SIZE_TEXT], unused[SIZE_TEXT];
    json_t *out = NULL;

    if (ctl_one_word("dump", "file", argc, argv, &options, diag) || ctl_absolute_path(options.words[0], path, diag))
        return diag->text[0] ? -1 : 0;
    json_t *body = json_pack("{s:s}", "path", path);
    if (options.vm)
        json_object_set_new(body, "vm", json_string(options.vm));
    if (ctl_put(&options, "/memory/dump", body, &out, diag))
        return -1;
    printf("%s of memory: %s written, %s zeros, %s free in the guest\n", size_text(memory, number(out, "memory_bytes")),
           size_text(written, number(out, "written_bytes")), size_text(zero, number(out, "zero_bytes")),
           size_text(unused, number(out, "free_bytes")));
    json_decref(out);
    return 0;
}
