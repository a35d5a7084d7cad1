/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that go through a stream and come back. One end runs exchange_run(), the other sends back what it gets. Used by
 * the guest's init, and by tests/lab/peer.c on the host's side.
 */
#ifndef LINUX_EXCHANGE_H
#define LINUX_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXCHANGE_SILENCE_MS 60000

struct exchange {
    int fd;            /* blocking */
    uint64_t nr_bytes; /* a multiple of 8 */
    uint64_t seed;     /* what the bytes follow from */
    bool has_end;      /* the stream has an end in each direction: a socket. Then it must come, and not too early */
    /* May be NULL; is called now and then while bytes are under way. False: the exchange has failed. */
    bool (*meanwhile)(void *ctx);
    void *ctx;
};

/*
 * exchange_run - sends nr_bytes in pieces of all sizes, reads as many, and compares each byte.
 * A child process sends. Returns 0; -1 with the reason in @why, also when nothing comes for EXCHANGE_SILENCE_MS.
 */
int exchange_run(const struct exchange *exchange, char *why, size_t why_bytes);

/* Sends back what comes, until the end of the stream; then ends the other direction. Returns the bytes, or -errno. */
int64_t exchange_echo(int fd);

#endif
