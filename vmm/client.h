/* SPDX-License-Identifier: Apache-2.0 */
/* client: one HTTP/1.0 request to a running ebb, for `ebb show` and its like. The server is libmicrohttpd. */
#ifndef VMM_CLIENT_H
#define VMM_CLIENT_H

#include "vmm/diag.h"

#include <jansson.h>

/*
 * client_request - @method "GET" or "PUT"; @socket_path NULL for the youngest running ebb; @body may be NULL, is only
 * read. Returns 0 and *out, a new reference or NULL for an answer without content; -1 with @diag: what the server says
 * is wrong (4xx of the caller: EXIT_USAGE; 503: EXIT_HOST; other: EXIT_GUEST), no server, or an answer that is not one.
 */
int client_request(const char *socket_path, const char *method, const char *path, const json_t *body, json_t **out,
                   struct diag *diag);

#endif
