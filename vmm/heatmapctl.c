/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb heatmap`: asks a running ebb for a VM's heat map, and draws it into a file, or prints it. */
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/heatmap.h"
#include "vmm/outfile.h"

#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 16

/* Takes --png FILE or --png=FILE out of the words; the others are in @rest. Returns how many, or -1 with diag. */
static int take_png(int argc, char *const argv[], char *rest[MAX_WORDS], const char **png, struct diag *diag)
{
    int nr = 0;

    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--png=", 6) == 0) {
            *png = argv[i] + 6;
        } else if (strcmp(argv[i], "--png") == 0) {
            *png = i + 1 < argc ? argv[++i] : "";
        } else if (nr == MAX_WORDS) {
            return diag_set(diag, EXIT_USAGE, "heatmap: too many words; see `ebb help heatmap`");
        } else {
            rest[nr++] = argv[i];
        }
        if (*png && !**png)
            return diag_set(diag, EXIT_USAGE, "heatmap: --png needs a file name, or - for standard output");
    }
    return nr;
}

static int check(const struct client_options *options, const char *png, struct diag *diag)
{
    const char *vm = options->vm;

    if (options->nr_words)
        return diag_set(diag, EXIT_USAGE, "heatmap: %.40s is one word too many; see `ebb help heatmap`",
                        options->words[0]);
    if (png && options->json)
        return diag_set(diag, EXIT_USAGE, "heatmap: --json or --png, one at a time");
    if (vm && (!*vm || vm[strspn(vm, "abcdefghijklmnopqrstuvwxyz0123456789")]))
        return diag_set(diag, EXIT_USAGE, "heatmap: a VM has a name as in vm0");
    return 0;
}

static int draw(const json_t *json, struct outfile *file, struct diag *diag)
{
    struct heatmap map;
    unsigned char *png = NULL;
    size_t nr = 0;

    if (heatmap_parse(json, &map, diag))
        return -1;
    int error = heatmap_draw(&map, &png, &nr, diag);
    heatmap_fini(&map);
    if (!error)
        error = outfile_commit_bytes(file, png, nr, diag);
    free(png);
    return error;
}

static int print(const json_t *json, bool as_json, struct diag *diag)
{
    struct heatmap map;

    if (as_json) {
        int error = json_dumpf(json, stdout, JSON_COMPACT);
        putchar('\n');
        return error && !ferror(stdout) ? diag_set(diag, EXIT_GUEST, "heatmap: out of memory") : 0;
    }
    if (heatmap_parse(json, &map, diag))
        return -1;
    heatmap_print(&map, stdout);
    heatmap_fini(&map);
    return 0;
}

int cmd_heatmap(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    struct outfile file = {.fd = -1};
    const char *png = NULL;
    char *rest[MAX_WORDS], path[80];
    json_t *json = NULL;
    int nr = take_png(argc, argv, rest, &png, diag);

    if (nr < 0 || client_options_parse("heatmap", nr, rest, &options, diag))
        return -1;
    if (options.help)
        return help_print("heatmap");
    /* a file that cannot be written is told before a long run is asked */
    if (check(&options, png, diag) || (png && outfile_open("--png", png, &file, diag)))
        return -1;
    snprintf(path, sizeof(path), "/memory/heatmap%s%.40s", options.vm ? "?vm=" : "", options.vm ? options.vm : "");
    int error = client_request(options.api_path, "GET", path, NULL, &json, diag);
    if (!error)
        error = png ? draw(json, &file, diag) : print(json, options.json, diag);
    outfile_cancel(&file);
    json_decref(json);
    return error;
}
