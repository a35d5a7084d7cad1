/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image: a kernel or an initrd as a loader reads it: a file, or a vmlinux that was unpacked from one into guest memory.
 * Nothing in it is trusted, and a file may change under us: what is read is a copy, checked, then used.
 */
#ifndef VMM_BOOT_IMAGE_H
#define VMM_BOOT_IMAGE_H

#include "mm/map/guest_mem.h"
#include "vmm/diag.h"

#include <stdatomic.h>

/* Where the loaders may put a kernel. */
struct boot_room {
    const struct guest_mem *mem;
    uint64_t end; /* of low memory: kernels lie in [BOOT_KERNEL_GPA, end) */
    /* boot_config's; NULL: zeros are written */
    void (*forget)(void *ctx, gpa_t gpa, uint64_t bytes);
    void *ctx;
};

struct boot_image {
    const char *role; /* "kernel" or "initrd" */
    const char *path;
    int fd; /* -1: in guest memory */
    uint64_t size_bytes;
    const atomic_bool *stop; /* boot_config's; NULL: never */
    /* in guest memory: [gpa, room->end) is for it, whole pages; what lies before offset @forgotten is zeros again */
    const struct boot_room *room;
    gpa_t gpa;
    uint64_t forgotten;
};

/* A regular file that is not empty. 0, or -1 with @diag and nothing open: EXIT_USAGE when it is not there, not ours to
 * read or not a file; EXIT_HOST for anything else. */
must_check int boot_image_open(struct boot_image *image, const char *role, const char *path, struct diag *diag);
void boot_image_close(struct boot_image *image);

/* @format (printf) after "kernel PATH: ", EXIT_USAGE. Returns -1. */
int boot_image_bad(const struct boot_image *image, struct diag *diag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 0, or -1 with @diag (EXIT_HOST): told to stop. */
must_check int boot_image_go_on(const struct boot_image *image, struct diag *diag);

/* All of [offset, offset + bytes) into @to. 0, or -1 with @diag: EXIT_USAGE beyond the end, EXIT_HOST: cannot be read, or
 * told to stop. */
must_check int boot_image_read(const struct boot_image *image, uint64_t offset, void *to, uint64_t bytes,
                               struct diag *diag);

/*
 * boot_image_load - the same into guest memory at @gpa, which the caller has checked and which is zeros: pages of zeros
 * are not written, so they take no memory. After an error a part is there.
 */
must_check int boot_image_load(const struct boot_image *image, uint64_t offset, const struct guest_mem *mem, gpa_t gpa,
                               uint64_t bytes, struct diag *diag);

/*
 * boot_image_forget - nothing before offset @end will be read again. In guest memory: its whole blocks, and with
 * size_bytes as @end everything, are given back, and zeros from now on. Of a file: nothing to do.
 */
void boot_image_forget(struct boot_image *image, uint64_t end);

#endif
