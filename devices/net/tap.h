/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a tap. Frames are read and written one a call, each behind a struct virtio_net_hdr_v1.
 */
#ifndef DEVICES_NET_TAP_H
#define DEVICES_NET_TAP_H

#include "mm/base/types.h"

#define TAP_HEADER_BYTES 12

/* The descriptor, which does not block, or -errno with one line in @why, see net_create. The tap must exist. */
must_check int tap_open(const char *name, char *why, size_t why_bytes);
/*
 * tap_set_offload - what the reader of @fd takes beyond plain frames, of VIRTIO_NET_F_GUEST_*. 0, or -errno: it is no
 * tap, or cannot; then it gives plain frames.
 */
must_check int tap_set_offload(int fd, uint64_t guest_features);

#endif
