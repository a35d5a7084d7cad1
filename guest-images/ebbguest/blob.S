/* SPDX-License-Identifier: Apache-2.0 */
/* The guest kernel's image inside ebb, on pages of its own so that it can be mapped into a VM as it is. */
    .section .rodata, "a"
    .balign 4096
    .global ebbguest_image
    .type   ebbguest_image, @object
ebbguest_image:
    .incbin EBBGUEST_IMAGE
    .balign 4096
    .size   ebbguest_image, . - ebbguest_image
    .global ebbguest_image_end
ebbguest_image_end:

    .section .note.GNU-stack, "", @progbits
