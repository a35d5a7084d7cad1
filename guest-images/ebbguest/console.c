/* SPDX-License-Identifier: Apache-2.0 */
/* A line is put into the shared page and sent by one OUT; memory functions that compilers expect. */
#include <stdarg.h>

#include "guest-images/ebbguest/gate.h"
#include "guest-images/ebbguest/kernel.h"

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *at, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    char *at = to;
    const char *source = from;

    if ((uintptr_t)to - (uintptr_t)from >= bytes)
        return memcpy(to, from, bytes);
    while (bytes-- > 0)
        at[bytes] = source[bytes];
    return to;
}

void *memset(void *at, int value, size_t bytes)
{
    void *start = at;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const unsigned char *x = a, *y = b;

    for (; bytes > 0; bytes--, x++, y++) {
        if (*x != *y)
            return *x < *y ? -1 : 1;
    }
    return 0;
}

struct line {
    char *at, *end; /* end: last byte, for the closing 0 */
};

static void put(struct line *line, char c)
{
    if (line->at < line->end)
        *line->at++ = c;
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[20];
    unsigned nr = 0;

    do {
        digits[nr++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    while (nr > 0)
        put(line, digits[--nr]);
}

static void put_argument(struct line *line, const char **format, va_list *args)
{
    bool is_long = **format == 'l';

    *format += is_long;
    if (**format == 's') {
        for (const char *text = va_arg(*args, const char *); *text; text++)
            put(line, *text);
    } else {
        uint64_t value = is_long ? va_arg(*args, uint64_t) : va_arg(*args, uint32_t);
        put_number(line, value, **format == 'x' ? 16 : 10);
    }
    ++*format;
}

void print_line(struct cpu *cpu, const char *format, ...)
{
    struct line line = {cpu->shared->line, cpu->shared->line + EBB_LINE_BYTES - 1};
    va_list args;

    va_start(args, format);
    while (*format) {
        if (*format == '%') {
            format++;
            put_argument(&line, &format, &args);
        } else {
            put(&line, *format++);
        }
    }
    va_end(args);
    *line.at = 0;
    gate(GATE_OUT, EBB_PORT_LINE, cpu->number);
}

void leave(enum ebb_exit code)
{
    for (;;)
        gate(GATE_OUT, EBB_PORT_EXIT, code);
}
