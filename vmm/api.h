/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api: HTTP on a Unix socket, by libmicrohttpd.
 *
 *   GET /                        what there is
 *   GET /memory/VIEW             a view of source.h; /memory/page takes ?gpa=0x1000&vm=vm0
 *   PUT /memory/ACTION           an action of control.h, its request as JSON
 *
 * 200 with JSON, 204 without content, or {"fault_message": TEXT} with 400 (the request is wrong), 404 (no such path),
 * 405 (not with this method), 409 (cannot be done now), 413 (too long). One thread a connection, at most 16.
 *
 * It answers before the VMs run, and whatever the main thread is at: what is not there yet is refused with 409 and the
 * phase. Views of memory can be seen as soon as the first VM is made; devices and actions have to wait until all run.
 */
#ifndef VMM_API_H
#define VMM_API_H

#include "vmm/control.h"

struct api;

struct api_config {
    int listen_fd;                 /* of socket.h */
    const struct control *control; /* used until api_stop */
    /* The first request came, and cannot be served: @text says why. From a thread of the API; may be NULL. */
    void (*on_error)(void *ctx, const char *text);
    void *ctx;
};

/*
 * api_start - serves at listen_fd, which is the API's from here on, after an error too. A thread waits for the first
 * request, and loads the library then: it is larger than all else that a VM costs. 0 and *out, or -1 with @diag
 * (EXIT_HOST).
 */
int api_start(const struct api_config *config, struct api **out, struct diag *diag);
/* Waits for requests under way. The socket's file stays: its owner removes it. */
void api_stop(struct api *api);

#endif
