/* SPDX-License-Identifier: Apache-2.0 */
/*
 * option_table: a row for each option of `ebb run`, which says how its value is read and what --help prints of it. Rows
 * stand in groups, as in --help, in the options_*.c that is about them: a new option is one more row, and what reads it.
 */
#ifndef VMM_OPTION_TABLE_H
#define VMM_OPTION_TABLE_H

#include "vmm/options.h"

#include <stddef.h>

struct option;

/* What a reader gets. */
struct option_parse {
    const struct option *option; /* the one that is being read */
    struct run_options *out;
    struct diag *diag;
};

enum option_value { NO_VALUE, HAS_VALUE, MAY_HAVE_VALUE };

/* What an option is for; options.c refuses it where that is not. */
#define USE_LINUX 1u  /* a Linux guest */
#define USE_DEVICE 2u /* adds a device to the guest */
#define USE_DRIVER 4u /* is nothing without a driver: a Linux guest, or a workload that was asked for */
#define USE_OURS 8u   /* memory that Ebb manages */

struct option {
    const char *name; /* without -- */
    enum option_value value;
    unsigned use; /* USE_* */
    /* @value: NULL where there is none. 0, or -1 with p->diag (EXIT_USAGE): what is wrong, what would be right. */
    int (*read)(struct option_parse *p, const char *value);
    const char *help; /* lines of --help; NULL: they stand with another option */
    /* Of use to some readers. */
    size_t at;                /* where in struct run_options; OPTION_AT */
    unsigned most;            /* counts: 1 .. most */
    const char *const *words; /* NULL-terminated */
    const char *need;         /* what a text must not be empty for */
};

#define OPTION_AT(member) .at = offsetof(struct run_options, member)

/* Readers for rows: they fill what is at OPTION_AT. */
int option_set(struct option_parse *p, const char *value);        /* bool: true */
int option_clear(struct option_parse *p, const char *value);      /* bool: false */
int option_read_count(struct option_parse *p, const char *value); /* unsigned */
int option_read_pages(struct option_parse *p, const char *value); /* uint32_t: a power of two, 1 .. 64 */
int option_read_word(struct option_parse *p, const char *value);  /* an enum: index in words */
int option_read_text(struct option_parse *p, const char *value);  /* const char *: the value itself */

/* For other readers. What is at OPTION_AT. */
void *option_target(const struct option_parse *p);
/* -1 with diag: "--NAME VALUE: RIGHT". */
int option_bad(struct option_parse *p, const char *value, const char *right);
/* As size_parse, with diag. */
int option_parse_size(struct option_parse *p, const char *value, uint64_t *out);
/* A whole decimal number, or -EINVAL. */
int option_parse_long(const char *text, long *out);

struct option_group {
    const char *head; /* its line in --help */
    const struct option *options;
    unsigned nr;
    const char *foot; /* lines behind its options, or NULL */
};

extern const struct option_group option_group_vm, option_group_linux, option_group_store, option_group_numa,
    option_group_how, option_group_output;

#define OPTIONS_MAX 64u

/* The groups in the order of --help, OPTIONS_MAX options at most. NULL at the end. */
extern const struct option_group *const option_groups[];

#endif
