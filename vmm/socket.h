/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket: the Unix sockets of the API. A run without --api has one at DIRECTORY/PID.sock, where DIRECTORY is /run/ebb
 * for root and $XDG_RUNTIME_DIR/ebb for others; that is where `ebb show` looks.
 */
#ifndef VMM_SOCKET_H
#define VMM_SOCKET_H

#include "mm/base/types.h"
#include "vmm/diag.h"

#define SOCKET_PATH_BYTES 108 /* sun_path, unix(7) */

/*
 * socket_listen - a listening socket at @path, mode 0600. A socket file that nobody listens at is replaced; any other
 * file stays. Returns the descriptor, or -1 with @diag (EXIT_USAGE; EXIT_HOST: no descriptors or memory) and nothing
 * left.
 */
int socket_listen(const char *path, struct diag *diag);

/*
 * socket_listen_default - the same at the default place, made if need be; dead sockets there are removed. Fills @path.
 * Returns the descriptor; -1: there is no such place, the run goes on without.
 */
int socket_listen_default(char path[SOCKET_PATH_BYTES]);

/* Path of the youngest socket at the default place that somebody listens at. 0, or -1 with @diag (EXIT_USAGE). */
int socket_find(char path[SOCKET_PATH_BYTES], struct diag *diag);

/*
 * socket_connect - @wait_ms: 1 .. 60000, how long who listens at @path has to take the connection. Connected descriptor,
 * or -1 with @diag: EXIT_USAGE, or EXIT_GUEST when the time is over.
 */
int socket_connect(const char *path, unsigned wait_ms, struct diag *diag);

#endif
