/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb show VIEW`: asks a running ebb for a view and prints it as a table, or as it came. */
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/render.h"
#include "vmm/source.h"
#include "vmm/suggest.h"

#include <string.h>

/* The word behind --name or in --name=word; NULL when argv[*i] is another option. */
static const char *value_of(const char *name, int argc, char *const argv[], int *i)
{
    size_t len = strlen(name);

    if (strncmp(argv[*i], name, len) != 0)
        return NULL;
    if (argv[*i][len] == '=')
        return argv[*i] + len + 1;
    return argv[*i][len] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

int client_options_parse(const char *command, int argc, char *const argv[], struct client_options *out,
                         struct diag *diag)
{
    const char *value;

    *out = (struct client_options){0};
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            out->help = true;
        else if (strcmp(argv[i], "--json") == 0)
            out->json = true;
        else if ((value = value_of("--api", argc, argv, &i)))
            out->api_path = value;
        else if ((value = value_of("--vm", argc, argv, &i)))
            out->vm = value;
        else if (argv[i][0] == '-')
            return diag_set(diag, EXIT_USAGE, "%s: %.60s is no option, or its value is missing; see `ebb help %s`",
                            command, argv[i], command);
        else if (out->nr_words == (int)(sizeof(out->words) / sizeof(out->words[0])))
            return diag_set(diag, EXIT_USAGE, "%s: %.60s is one word too many; see `ebb help %s`", command, argv[i],
                            command);
        else
            out->words[out->nr_words++] = argv[i];
    }
    return 0;
}

static int list_views(void)
{
    printf("Views of `ebb show VIEW`:\n");
    for (const struct view_name *view = source_views; view->name; view++)
        printf("  %-12s %s\n", view->name, view->what);
    printf("\n`ebb help show` says how to ask for them.\n");
    return 0;
}

/* Path of the request, checked here so that a wrong word is told without a server. */
static int make_path(const struct client_options *options, char *out, size_t out_bytes, struct diag *diag)
{
    const char *names[SOURCE_MAX_VIEWS], *view = options->words[0];
    bool page = strcmp(view, "page") == 0, of_vm = page || strcmp(view, "heatmap") == 0, known = false;
    char near[SUGGEST_TEXT];

    source_view_names(names);
    for (unsigned i = 0; names[i]; i++)
        known |= strcmp(names[i], view) == 0;
    if (!known)
        return diag_set(diag, EXIT_USAGE, "show: there is no view %.40s%s `ebb show help` lists them", view,
                        *suggest_text(near, view, names) ? near : ";");
    if (page != (options->nr_words == 2))
        return diag_set(diag, EXIT_USAGE,
                        page ? "show page: name one guest physical address, as in 0x1200000"
                             : "show: one view at a time; `ebb show help` lists them");
    if (options->vm && !of_vm)
        return diag_set(diag, EXIT_USAGE,
                        "show %s: --vm is for the views page and heatmap; leave it out: all VMs are shown", view);
    const char *argument = page ? options->words[1] : "";
    if (argument[strspn(argument, "0123456789abcdefABCDEFxX")] ||
        (options->vm && options->vm[strspn(options->vm, "abcdefghijklmnopqrstuvwxyz0123456789")]))
        return diag_set(diag, EXIT_USAGE, "show %s: an address is a number as in 0x1200000, a VM a name as in vm0",
                        view);
    snprintf(out, out_bytes, "/memory/%s%s%.40s%s%.40s", view, page ? "?gpa=" : "", argument,
             !options->vm ? ""
             : page       ? "&vm="
                          : "?vm=",
             options->vm ? options->vm : "");
    return 0;
}

int cmd_show(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    char path[160];
    json_t *json;

    if (client_options_parse("show", argc, argv, &options, diag))
        return -1;
    if (options.help)
        return help_print("show");
    if (options.nr_words == 0)
        return diag_set(diag, EXIT_USAGE, "show: name a view; `ebb show help` lists them");
    if (strcmp(options.words[0], "help") == 0)
        return list_views();
    if (make_path(&options, path, sizeof(path), diag) ||
        client_request(options.api_path, "GET", path, NULL, &json, diag))
        return -1;
    int error = 0;
    if (options.json) {
        error = json_dumpf(json, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        error = render_view(options.words[0], json, stdout);
    }
    json_decref(json);
    if (error && !ferror(stdout)) /* that one is main's to tell */
        return diag_set(diag, EXIT_GUEST, "show: out of memory, the view is not whole");
    return 0;
}
