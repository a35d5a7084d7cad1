/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock, virtio 1.2 section 5.10: stream sockets between programs of the guest and programs of the host, which
 * meet it at Unix sockets:
 *
 *   host to guest    connect to PATH, write "CONNECT <port>\n", read "OK <port of this end>\n", then it is the stream.
 *                    The end of file instead of OK: nobody listens there in the guest.
 *   guest to host    the guest connects to CID 2, port N: somebody listens at PATH_N, or the guest is refused
 *
 * Credit: each side says how much it buffers and how much of it was passed on; nobody sends more than that. A buffer is
 * VSOCK_BUFFER_BYTES here. A slow program of the host is waited for by the guest's program, and the other way round;
 * other connections go on. While the guest has no driver, or the table is full, programs of the host wait to be
 * accepted.
 *
 * What a hostile driver can do: connect to whatever listens at PATH_N, so choose PATH where only such sockets are;
 * fill the table, and its own buffers. Whoever sends more than it has credit for is reset. What belongs to no connection
 * is answered with a reset, out of a list of fixed size: when it is full, the guest's queue waits.
 */
#ifndef DEVICES_VSOCK_VSOCK_H
#define DEVICES_VSOCK_VSOCK_H

#include "devices/virtio/device.h"

#define VSOCK_MAX_CONNECTIONS 64
#define VSOCK_BUFFER_BYTES (64u << 10) /* from the guest, for each connection; touched when it is used */
#define VSOCK_MIN_CID 3                /* 0..2 are reserved */

struct vsock;

struct vsock_config {
    uint64_t guest_cid; /* VSOCK_MIN_CID..UINT32_MAX - 1 */
    const char *path;
};

struct vsock_stat {
    unsigned nr_open;                     /* connections now */
    uint64_t nr_from_host, nr_from_guest; /* that were opened */
    uint64_t nr_refused;                  /* by the guest, or by the host because nobody listens or the table is full */
    uint64_t in_bytes, out_bytes;         /* to the guest, from it */
    uint64_t nr_resets;                   /* sent to the guest */
    uint64_t nr_malformed;                /* packets and buffers of the driver that made no sense */
    uint64_t nr_credit_breaches;
};

/*
 * vsock_create - @config is copied. @env->loop need not run yet. 0, or -errno with one line in @why and nothing left:
 * -EINVAL, -ENAMETOOLONG, -ENOMEM, those of sockets.
 */
must_check int vsock_create(const struct vsock_config *config, const struct device_env *env, struct vsock **out,
                            char *why, size_t why_bytes);
/* The loop does not run any more, no transport is attached. */
void vsock_destroy(struct vsock *vsock);
struct virtio_device *vsock_device(struct vsock *vsock);
/* Any thread. */
void vsock_stats(struct vsock *vsock, struct vsock_stat *out);
/* Tables and counts agree. False and *why on a breach. Takes the lock. */
bool vsock_check(struct vsock *vsock, const char **why);

#endif
