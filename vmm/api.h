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
 */
#ifndef VMM_API_H
#define VMM_API_H

#include "vmm/control.h"

struct api;

/*
 * api_start - serves at @listen_fd (of socket.h), which is the API's from here on, after an error too. @control is used
 * until api_stop. Who calls it when the first request waits there saves the library's memory until then. 0 and *out, or
 * -1 with @diag (EXIT_HOST).
 */
int api_start(int listen_fd, const struct control *control, struct api **out, struct diag *diag);
/* Waits for requests under way. The socket's file stays: its owner removes it. */
void api_stop(struct api *api);

#endif
