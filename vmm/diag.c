/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/diag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int diag_set(struct diag *diag, enum exit_code code, const char *format, ...)
{
    int saved = errno;

    if (!diag->text[0]) {
        va_list args;
        va_start(args, format);
        vsnprintf(diag->text, sizeof(diag->text), format, args);
        va_end(args);
        /* One line for the user, whatever a path or a guest put into it. */
        for (char *at = diag->text; *at; at++)
            if ((unsigned char)*at < ' ' || *at == 0x7f)
                *at = '?';
        diag->code = code;
    }
    errno = saved;
    return -1;
}
