/* A stand-in for a MirageOS `virtio` image: a kernel of its own, booted by `qemu-system-x86_64
 * -kernel`, with the first virtio-net device as its network. Its devices are those of its manifest,
 * in the order of PCI slots, as Solo5 has it; of a disk the first line is printed.
 *
 * It has no clock but the time since its boot. Registers are those of legacy virtio devices
 * (virtio 1.2, 4.1.4.8 and 2.7).
 */
#define TARGET VIRTIO
#include "freestanding.h"
#include "guest.h"
#include "pc.h"
#include "solo5_notes.h"

/* Queues of virtio devices. */

#define MOST 1024 /* descriptors of a queue; QEMU has 256 */

enum { NEXT = 1, WRITE = 2 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct queue {
    int size;
    uint16_t registers, number, seen;
    struct descriptor *descriptors;
    volatile uint16_t *available; /* flags, index, ring */
    volatile uint16_t *used;      /* flags, index, ring of two 32-bit numbers */
    uint8_t memory[16 * MOST + 4096 + 8 * MOST + 8192] __attribute__((aligned(4096)));
};

static void open_queue(struct queue *queue, uint16_t registers, int number)
{
    uint64_t used;
    out16(registers + 14, number);
    queue->size = in16(registers + 12);
    if (queue->size > MOST)
        crash();
    queue->registers = registers;
    queue->number = number;
    queue->descriptors = (struct descriptor *)queue->memory;
    queue->available = (uint16_t *)(queue->descriptors + queue->size);
    used = ((uint64_t)(queue->available + 3 + queue->size) + 4095) & ~4095ull;
    queue->used = (uint16_t *)used;
    out32(registers + 8, (uint64_t)queue->memory / 4096);
}

static void offer(struct queue *queue, uint16_t descriptor)
{
    queue->available[2 + queue->available[1] % queue->size] = descriptor;
    __sync_synchronize();
    queue->available[1]++;
    __sync_synchronize();
    out16(queue->registers + 16, queue->number);
}

/* Whether the device is done with something more: which descriptor, and how much it wrote. */
static int done(struct queue *queue, uint32_t *descriptor, uint32_t *length)
{
    const volatile uint32_t *ring = (const volatile uint32_t *)(queue->used + 2);
    const int at = queue->seen % queue->size;
    if (queue->used[1] == queue->seen)
        return 0;
    *descriptor = ring[2 * at];
    *length = ring[2 * at + 1];
    queue->seen++;
    return 1;
}

static void start_device(uint16_t registers)
{
    out8(registers + 18, 0);
    out8(registers + 18, 1 | 2); /* seen, and known how to drive */
    out32(registers + 4, 0);     /* no feature is needed */
}

/* virtio-net: every frame stands behind a header of ten bytes (5.1.6), which may be zero. */

#define HEADER 10
#define BUFFERS 64

static uint16_t network; /* its registers */
static struct queue receiving, transmitting;
static uint8_t received[BUFFERS][2048], sent[BUFFERS][2048];
static uint8_t own_mac[6];

__attribute__((interrupt)) static void on_network(struct frame *frame)
{
    (void)frame;
    in8(network + 19);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static void start_network(uint16_t registers)
{
    network = registers;
    start_device(registers);
    for (int i = 0; i < 6; i++)
        own_mac[i] = in8(registers + 20 + i);
    open_queue(&receiving, registers, 0);
    open_queue(&transmitting, registers, 1);
    transmitting.available[0] = 1; /* no interrupt for what was sent */
    out8(registers + 18, 1 | 2 | 4);
    for (int i = 0; i < BUFFERS; i++) {
        receiving.descriptors[i] = (struct descriptor){(uint64_t)received[i], 2048, WRITE, 0};
        offer(&receiving, i);
    }
}

static int receive(uint8_t *frame)
{
    uint32_t descriptor, length;
    /* Nothing can come between the look and the wait: `sti` holds for one instruction more. */
    __asm__ volatile("cli");
    if (!network || receiving.used[1] == receiving.seen)
        __asm__ volatile("sti; hlt");
    __asm__ volatile("sti");
    if (!network || !done(&receiving, &descriptor, &length))
        return 0;
    length = length > HEADER ? length - HEADER : 0;
    memcpy(frame, received[descriptor] + HEADER, length);
    offer(&receiving, descriptor);
    return length;
}

static void rest(int long_ms)
{
    const uint64_t start = milliseconds();
    while (milliseconds() - start < (uint64_t)long_ms)
        receive((uint8_t[2048]){0});
}

static void transmit(const uint8_t *frame, int length)
{
    static uint32_t count;
    uint32_t descriptor, written;
    const int at = count % BUFFERS;
    if (!network)
        return;
    while (done(&transmitting, &descriptor, &written))
        ;
    /* All are on their way: the device is given time to be done with one. */
    while ((uint16_t)(transmitting.available[1] - transmitting.seen) >= BUFFERS)
        done(&transmitting, &descriptor, &written);
    memcpy(sent[at] + HEADER, frame, length);
    transmitting.descriptors[at] = (struct descriptor){(uint64_t)sent[at], HEADER + length, 0, 0};
    offer(&transmitting, at);
    count++;
}

static void plug(uint8_t *mac, uint32_t *secret)
{
    memcpy(mac, own_mac, 6);
    *secret = __builtin_ia32_rdtsc();
}

/* virtio-blk (5.2.6): print the first line of a disk. */
static void show_disk(const char *name, uint16_t registers)
{
    static struct queue requests;
    static struct {
        uint32_t kind, reserved;
        uint64_t sector;
    } request;
    static char sector[512 + 1];
    static volatile uint8_t status = 255;
    uint32_t descriptor, length;
    char *end_of_line;

    requests.seen = 0;
    memset(requests.memory, 0, sizeof requests.memory);
    start_device(registers);
    open_queue(&requests, registers, 0);
    requests.available[0] = 1;
    out8(registers + 18, 1 | 2 | 4);
    requests.descriptors[0] = (struct descriptor){(uint64_t)&request, sizeof request, NEXT, 1};
    requests.descriptors[1] = (struct descriptor){(uint64_t)sector, 512, NEXT | WRITE, 2};
    requests.descriptors[2] = (struct descriptor){(uint64_t)&status, 1, WRITE, 0};
    offer(&requests, 0);
    while (!done(&requests, &descriptor, &length))
        ;
    end_of_line = strchr(sector, '\n');
    if (end_of_line)
        *end_of_line = 0;
    print(name, ": ", status ? "cannot be read" : sector);
}

/* The devices in PCI's order have to be those of the manifest. Return the network's interrupt. */
static int start_devices(void)
{
    int found = 0, irq = 0;
    for (int slot = 0; slot < 32; slot++) {
        const int kind = pci(slot, 0x2c) >> 16; /* virtio 1.2, 5: 1 is a network, 2 a disk */
        const uint16_t registers = pci(slot, 0x10) & ~3;
        const struct device *device = &manifest_note.device[1 + found];
        if ((pci(slot, 0) & 0xffff) != 0x1af4 || (kind != 1 && kind != 2))
            continue;
        if (found == DEVICE_COUNT || device->kind != (kind == 1 ? NET_BASIC : BLOCK_BASIC)) {
            print("Solo5: the manifest has no such device in this place", "", "");
            crash();
        }
        found++;
        pci(slot, 4);
        out32(0xcfc, 5); /* its ports are heard, and it may write to memory */
        print("Solo5: application acquired '", device->name,
              kind == 1 ? "' as network device" : "' as block device");
        if (kind == 2)
            show_disk(device->name, registers);
        else if (!network) {
            start_network(registers);
            irq = pci(slot, 0x3c) & 15;
        }
    }
    if (found < DEVICE_COUNT) {
        print("Solo5: device '", manifest_note.device[1 + found].name, "' not attached");
        crash();
    }
    return irq;
}

static int take_own(const char *word)
{
    (void)word;
    return 0;
}

/* The last of multiboot's information that is looked at (3.3). */
struct multiboot {
    uint32_t flags, memory[2], boot_device, command_line;
};

_Noreturn void kernel(const struct multiboot *multiboot);

_Noreturn void kernel(const struct multiboot *multiboot)
{
    /* QEMU puts the image's path before the arguments. */
    const char *arguments = strchr((const char *)(uint64_t)multiboot->command_line, ' ');
    print("Solo5: a stand-in for a virtio image", "", "");
    start_interrupts(start_devices(), on_network);
    guest(&guest_note.built, arguments ? arguments : "");
}
