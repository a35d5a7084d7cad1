/* SPDX-License-Identifier: Apache-2.0 */
/* control: what a running ebb can be told to do, with the request as JSON. Called from the API's threads. */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "vmm/memhost.h"
#include "vmm/phase.h"
#include "vmm/source.h"

struct control {
    /* once the phase is PHASE_MAKE */
    struct memhost *mh;
    struct source *source;
    struct phase *phase; /* NULL: all is there */
};

struct control_action {
    const char *name;
    const char *body; /* what the request looks like */
    /* Returns 0 and *out (NULL: nothing to say); -1 with diag: EXIT_USAGE for what the caller got wrong, EXIT_GUEST
     * for what cannot be done now. */
    int (*act)(const struct control *control, const json_t *body, json_t **out, struct diag *diag);
};
/* NULL name at the end. */
extern const struct control_action control_actions[];

#endif
