/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swapfile: a file or block device becomes a swap area.
 *
 *   path does not exist   a file of size_bytes is made without a name (O_TMPFILE; else made with mode 0600 and unlinked
 *                         at once), so nothing is left behind however the process ends
 *   file or device        used if it has a swap header, is large enough and nobody else uses it; it keeps its name
 *   anything else         refused and left as it is
 */
#ifndef VMM_SWAPFILE_H
#define VMM_SWAPFILE_H

#include "mm/swap/area.h"
#include "vmm/diag.h"

#define SWAPFILE_MIN_PAGES 16u

#define SWAPFILE_DISCARD 1u /* give room of emptied clusters back to the file system or device */
/* For tests and benchmarks: ways not taken. */
#define SWAPFILE_NO_DIRECT 2u
#define SWAPFILE_NO_URING 4u
#define SWAPFILE_NO_TMPFILE 8u

/*
 * swapfile_add - adds the area to @set under the name @path.
 * @size_bytes: of the area, header included, rounded down to pages; 0: as large as the existing file or device says.
 * @priority: as swap_area_add. @flags: SWAPFILE_*.
 * Returns 0, or -1 with @diag: EXIT_USAGE (what the user can choose otherwise), EXIT_HOST (disk full and the like).
 * After an error nothing has been made or changed.
 */
must_check int swapfile_add(struct swap_set *set, const char *path, uint64_t size_bytes, int priority, unsigned flags,
                            struct diag *diag);

#endif
