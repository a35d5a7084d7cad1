/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`: how it works, and what is seen of it. */
#include "vmm/option_table.h"

#include <stdlib.h>
#include <string.h>

static int read_sample(struct option_parse *p, const char *value)
{
    char *end;
    double pct = strtod(value, &end);

    if (end == value || *end || !(pct >= 0 && pct <= 100) || strspn(value, "0123456789.") != strlen(value))
        return option_bad(p, value, "must be a percentage of one CPU, 0 to 100, as in 0.5; 0: no samples");
    p->out->sample_mpct = (uint32_t)(pct * 1000 + 0.5);
    return 0;
}

static int read_thp_collapse(struct option_parse *p, const char *value)
{
    long pct;

    if (option_parse_long(value, &pct) || pct < 0 || pct > 100)
        return option_bad(p, value, "must be a whole number from 0 (never) to 100 (percent of one CPU)");
    p->out->mm.collapse_pct = (uint32_t)pct;
    return 0;
}

static const char *const backends[] = {"ebb", "kernel", NULL};
static const char *const transports[] = {"auto", "move", "copy", NULL};
static const char *const pins[] = {"auto", "none", NULL};
static const char *const accesses[] = {"refault", "damon", "page_idle", "auto", NULL};
/* option_read_word fills them. */
_Static_assert(sizeof(enum backend) == sizeof(unsigned) && sizeof(enum transport) == sizeof(unsigned) &&
                   sizeof(enum pin) == sizeof(unsigned) && sizeof(enum access_mode) == sizeof(unsigned),
               "an enum is an unsigned");

static const struct option how[] = {
    {"backend", HAS_VALUE, 0, option_read_word,
     .help = "  --backend ebb|kernel      who manages the memory; kernel: a memory cgroup with the budget as\n"
             "                            limit and the kernel's own zram, for comparison; default ebb\n",
     OPTION_AT(backend), .words = backends},
    {"transport", HAS_VALUE, 0, option_read_word,
     .help = "  --transport auto|move|copy  how pages travel; auto takes move where the kernel has it (6.8)\n",
     OPTION_AT(transport), .words = transports},
    {"no-thp", NO_VALUE, 0, option_clear, .help = "  --no-thp                  no 2 MiB frames at all\n",
     OPTION_AT(mm.thp)},
    {"thp-collapse", HAS_VALUE, USE_OURS, read_thp_collapse,
     .help =
         "  --thp-collapse PCT        how much of one CPU may go into making 2 MiB frames again of blocks that are\n"
         "                            hot in single pages, 0 to 100 percent; 0 for never; default 1\n"},
    {"readahead", HAS_VALUE, 0, option_read_pages,
     .help = "  --readahead PAGES         the most pages that come along with one from zram or swap: 1, 2, 4 .. 64\n",
     OPTION_AT(mm.readahead_pages)},
    {"fault-around", HAS_VALUE, 0, option_read_pages,
     .help = "  --fault-around PAGES      pages brought in at a first touch: 1, 2, 4 .. 64\n",
     OPTION_AT(mm.fault_around_pages)},
    {"pin", HAS_VALUE, 0, option_read_word,
     .help = "  --pin auto|none           auto: vCPUs, and the threads that answer their faults, stay on one CPU\n",
     OPTION_AT(pin), .words = pins},
    {"access", HAS_VALUE, USE_OURS, option_read_word,
     .help = "  --access refault|damon|page_idle|auto\n"
             "                            by what it is learnt which memory is in use: by taking a little of it\n"
             "                            home for a moment (refault, the default), or by the kernel's DAMON or\n"
             "                            idle page bitmap where it has them; auto: the first of those, or refault\n",
     OPTION_AT(access), .words = accesses},
    {"sample", HAS_VALUE, USE_OURS, read_sample,
     .help = "  --sample PCT              what refault may cost, in percent of one CPU; 0: nothing is taken for that\n"
             "                            alone; default 1\n"},
};

const struct option_group option_group_how = {"How", how, ARRAY_LEN(how), NULL};

static const struct option output[] = {
    {"api", HAS_VALUE, 0, option_read_text,
     .help = "  --api SOCKET        where `ebb show` finds this run; none for no API; default: a socket in\n"
             "                      /run/ebb or $XDG_RUNTIME_DIR/ebb, which `ebb show` finds by itself\n",
     OPTION_AT(api_path), .need = "needs the path of a socket, or none"},
    {"json", HAS_VALUE, 0, option_read_text,
     .help = "  --json FILE         all results as JSON at the end; - for standard output\n", OPTION_AT(json_path),
     .need = "needs a file name, or - for standard output"},
    {"quiet", NO_VALUE, 0, option_set, .help = "  --quiet             nothing but errors\n", OPTION_AT(quiet)},
    {"help", NO_VALUE, 0, option_set, .help = NULL, OPTION_AT(want_help)},
};

const struct option_group option_group_output = {"What you see", output, ARRAY_LEN(output), NULL};
