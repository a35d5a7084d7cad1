# SPDX-License-Identifier: Apache-2.0
#
# The embedded guest kernel: $(BUILD)/guest/ebbguest.o holds its image as ebbguest_image .. ebbguest_image_end.
# Wants BUILD and CC. mm/frame and mm/base are compiled once more, freestanding.

GUEST_DIR := guest-images/ebbguest
GUEST_MM := mm/base/lock.c mm/frame/frame.c mm/frame/zone.c mm/frame/migratetype.c mm/frame/pageblock.c mm/frame/watermark.c
GUEST_OBJS := $(patsubst %,$(BUILD)/guest/%.o,$(sort $(wildcard $(GUEST_DIR)/*.c)) $(GUEST_DIR)/entry.S $(GUEST_MM))
# Position independent code in a fixed place: addresses lie above 2 GiB, where only relative ones are short.
GUEST_CFLAGS := -std=c11 -O2 -g -ffreestanding -fpie -fvisibility=hidden -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
	-mno-red-zone -mno-sse -mgeneral-regs-only -DEBB_FREESTANDING -I. \
	-Wall -Wextra -Wundef -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Werror

$(BUILD)/guest/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/guest/%.S.o: %.S
	@mkdir -p $(@D)
	$(CC) -I. -MMD -MP -c -o $@ $<

$(BUILD)/guest/ebbguest.elf: $(GUEST_OBJS) $(GUEST_DIR)/ebbguest.lds
	ld -static -nostdlib -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments -T $(GUEST_DIR)/ebbguest.lds \
		-o $@ $(GUEST_OBJS)

$(BUILD)/guest/ebbguest.bin: $(BUILD)/guest/ebbguest.elf
	objcopy -O binary -j .rom $< $@

$(BUILD)/guest/ebbguest.o: $(GUEST_DIR)/blob.S $(BUILD)/guest/ebbguest.bin
	$(CC) -DEBBGUEST_IMAGE='"$(BUILD)/guest/ebbguest.bin"' -c -o $@ $<

-include $(GUEST_OBJS:.o=.d)
