/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix stream sockets, where a device meets programs of the host. All descriptors do not block and close on exec.
 */
#ifndef DEVICES_UNIX_SOCKET_H
#define DEVICES_UNIX_SOCKET_H

#include "mm/base/types.h"

#include <sys/un.h>

#define UNIX_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path) /* with its end */

/* True for an errno (positive) of bind that another path may not meet, and false for a lack that all of them would. */
bool unix_path_refused(int err);
/*
 * unix_listen - listens at @path, for the user alone (mode 0600). A socket where nobody listens any more is replaced;
 * anything else that is there stays. Returns the descriptor, or -errno with one line in @why.
 */
must_check int unix_listen(const char *path, int backlog, char *why, size_t why_bytes);
/* Closes @fd and takes @path away. -1: nothing. */
void unix_unlisten(int fd, const char *path);
/* The descriptor, or -errno: -EAGAIN too (nobody has called accept for long). Does not wait. */
must_check int unix_connect(const char *path);
/* The descriptor, or -errno: -EAGAIN when nobody waits. */
must_check int unix_accept(int listen_fd);
/* As send and recv, without signals and without waiting; interrupted calls are done again. -errno on errors. */
must_check ptrdiff_t unix_send(int fd, const void *bytes, size_t nr);
must_check ptrdiff_t unix_recv(int fd, void *bytes, size_t nr);

#endif
