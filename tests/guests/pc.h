/* A PC as QEMU has it: ports, console, the way out, interrupts, and the time since the boot. */
#ifndef PC_H
#define PC_H

#include "words.h"

#define DEFINE_PORT(bits, suffix)                                                               \
    static void out##bits(uint16_t port, uint##bits##_t what)                                   \
    {                                                                                           \
        __asm__ volatile("out" suffix " %0, %1" : : "a"(what), "Nd"(port) : "memory");          \
    }                                                                                           \
    static inline uint##bits##_t in##bits(uint16_t port)                                        \
    {                                                                                           \
        uint##bits##_t what;                                                                    \
        __asm__ volatile("in" suffix " %1, %0" : "=a"(what) : "Nd"(port) : "memory");           \
        return what;                                                                            \
    }

DEFINE_PORT(8, "b")
DEFINE_PORT(16, "w")
DEFINE_PORT(32, "l")

static uint32_t pci(int slot, int offset)
{
    out32(0xcf8, 0x80000000 | slot << 11 | offset);
    return in32(0xcfc);
}

/* COM1. */
static void put(const char *text, int length)
{
    for (; length--; text++) {
        while (!(in8(0x3f8 + 5) & 0x20))
            ;
        out8(0x3f8, *text);
    }
}

/* QEMU's isa-debug-exit, at its default port; Solo5 writes 41 there, which QEMU ends with 83 for. */
static _Noreturn void leave(void)
{
    out16(0x501, 41);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static _Noreturn void end(int code)
{
    struct text text = {0};
    add(&text, "Solo5: solo5_exit(");
    add_number(&text, code, 10, 1);
    add(&text, ") called");
    line(&text);
    leave();
}

static _Noreturn void crash(void)
{
    print("Solo5: solo5_abort() called", "", "");
    leave();
}

/* Interrupts: the timer, a hundred times a second, and one device's. They wake `hlt`. */

static volatile uint64_t ticks;

struct frame;

__attribute__((interrupt)) static void on_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    out8(0x20, 0x20);
}

__attribute__((interrupt)) static void on_trap(struct frame *frame)
{
    (void)frame;
    print("Solo5: trap", "", "");
    crash();
}

static void on(int vector, void (*handler)(struct frame *))
{
    static struct gate {
        uint16_t low, segment, kind, middle;
        uint32_t high, reserved;
    } gates[48];
    static struct __attribute__((packed)) {
        uint16_t limit;
        struct gate *gates;
    } pointer = {sizeof gates - 1, gates};
    const uint64_t at = (uint64_t)handler;
    gates[vector] = (struct gate){at, 8, 0x8e00, at >> 16, at >> 32, 0};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* The device has interrupt 0 where there is none. */
static void start_interrupts(int device_irq, void (*on_device)(struct frame *))
{
    /* Both 8259A, with vectors from 32 on; then the 8254's channel 0, at 1193182 / 100 Hz. */
    static const uint8_t setup[][2] = {
        {0x20, 0x11}, {0xa0, 0x11}, {0x21, 32}, {0xa1, 40}, {0x21, 4}, {0xa1, 2}, {0x21, 1},
        {0xa1, 1}, {0x43, 0x34}, {0x40, 11932 & 255}, {0x40, 11932 >> 8},
    };
    uint16_t heard = 1 | 1 << 2;
    for (unsigned i = 0; i < sizeof setup / sizeof *setup; i++)
        out8(setup[i][0], setup[i][1]);
    for (int vector = 0; vector < 32; vector++)
        on(vector, on_trap);
    on(32, on_tick);
    if (device_irq) {
        on(32 + device_irq, on_device);
        heard |= 1 << device_irq;
    }
    out8(0x21, ~heard);
    out8(0xa1, ~heard >> 8);
    __asm__ volatile("sti");
}

static uint64_t milliseconds(void)
{
    return ticks * 10;
}

static void add_date(struct text *text)
{
    const uint64_t seconds = ticks / 100;
    add(text, "1970-01-01T");
    add_number(text, seconds / 3600 % 24, 10, 2);
    add(text, ":");
    add_number(text, seconds / 60 % 60, 10, 2);
    add(text, ":");
    add_number(text, seconds % 60, 10, 2);
    add(text, "-00:00");
}

#endif
