/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outfile: a result that is written at the end of long work, into a file whose faults are found before it. The file
 * appears whole or not at all, and nothing is left of it when the process dies in between (on file systems that have
 * O_TMPFILE). Several may be open for one path: the last one that is committed stays.
 */
#ifndef VMM_OUTFILE_H
#define VMM_OUTFILE_H

#include "vmm/diag.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct outfile {
    char *path;      /* NULL: standard output */
    char *temporary; /* name of fd's file until it gets its own; NULL: it has none, or its own */
    int fd;          /* a file in path's directory, without a name where that can be, or what is written directly */
    bool rename;     /* fd gets its name at the end */
};

/*
 * outfile_open - @what: "--json", for messages. @path: "-" is standard output. What is no regular file (a pipe, /dev/null) is written directly.
 * Returns 0, or -1 with @diag (EXIT_USAGE).
 */
int outfile_open(const char *what, const char *path, struct outfile *out, struct diag *diag);
/* Writes @json and closes. 0, or -1 with @diag (EXIT_GUEST) and the old file, if there was one, unchanged. */
int outfile_commit(struct outfile *out, const json_t *json, struct diag *diag);
/* The same for @nr bytes of anything. */
int outfile_commit_bytes(struct outfile *out, const void *bytes, size_t nr, struct diag *diag);
/*
 * A regular file that its owner has written through fd is brought to the disk, gets its name, and is closed. 0, or -1 as
 * outfile_commit.
 */
int outfile_keep(struct outfile *out, struct diag *diag);
/* Closes without writing. */
void outfile_cancel(struct outfile *out);

#endif
