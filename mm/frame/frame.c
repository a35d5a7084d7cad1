/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/frame/frame.h"

void frame_list_init(struct frame_list *list)
{
    *list = (struct frame_list){.head = FN_NONE, .tail = FN_NONE};
}

void frame_list_push_tail(struct frame_list *list, struct frame *frames, fn_t fn)
{
    frames[fn].next = FN_NONE;
    frames[fn].prev = list->tail;
    if (list->tail == FN_NONE)
        list->head = fn;
    else
        frames[list->tail].next = fn;
    list->tail = fn;
    list->nr++;
}

void frame_list_replace(struct frame_list *list, struct frame *frames, fn_t fn, fn_t by)
{
    fn_t next = frames[fn].next, prev = frames[fn].prev;
    frames[by].next = next;
    frames[by].prev = prev;
    if (prev == FN_NONE)
        list->head = by;
    else
        frames[prev].next = by;
    if (next == FN_NONE)
        list->tail = by;
    else
        frames[next].prev = by;
    frames[fn].next = FN_NONE;
    frames[fn].prev = FN_NONE;
}

fn_t frame_list_pop_head(struct frame_list *list, struct frame *frames)
{
    fn_t fn = list->head;
    if (fn != FN_NONE)
        frame_list_remove(list, frames, fn);
    return fn;
}

fn_t frame_list_pop_tail(struct frame_list *list, struct frame *frames)
{
    fn_t fn = list->tail;
    if (fn != FN_NONE)
        frame_list_remove(list, frames, fn);
    return fn;
}
