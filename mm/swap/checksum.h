/* SPDX-License-Identifier: Apache-2.0 */
/* The checksum of stored data: guards against damage in RAM, not against an adversary. */
#ifndef MM_SWAP_CHECKSUM_H
#define MM_SWAP_CHECKSUM_H

#include "mm/base/types.h"

/* The low 32 bits of XXH3; the same on every CPU. */
uint32_t checksum32(const void *data, size_t len_bytes);

#endif
