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
