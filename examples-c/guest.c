/*
 * Writes four tiny guests into a directory: ELF files of a few dozen instructions, which Firecracker boots in
 * milliseconds. A real operator has a Linux kernel instead; the examples need none.
 *
 *   halt.elf   says hello on the serial console, then halts for ever and hears nothing
 *   obey.elf   says hello, then powers off when Ctrl-Alt-Del is pressed
 *   off.elf    says hello, then powers off
 *   report.elf says hello, then counts in its memory and prints each number, some fifty a second
 *
 * Behind the instructions stands the same in words, for firecracker-sim, which runs no machine code.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LOAD = 0x1000000, PAGE = 0x1000 };

static const uint8_t HALT[] = {0xf4, 0xeb, 0xfd}; /* hlt; jmp back */
static const uint8_t OFF[] = {0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd}; /* out 0x64, 0xfe: reset; hlt */
static const uint8_t OBEY[] = {
    0xf3, 0x90,             /* look: pause */
    0xe4, 0x64, 0xa8, 0x01, /* has the keyboard controller a key? */
    0x74, 0xf8,             /* no: look again */
    0xe4, 0x60, 0x3c, 0x71, /* is it Del? */
    0x75, 0xf2,             /* no: look again */
    0xb0, 0xfe, 0xe6, 0x64, /* reset */
    0xf4, 0xeb, 0xfd,
};
static const uint8_t REPORT[] = {
    0xbb, 0x00, 0x00, 0x00, 0x02,                   /* count: the number stands at 32 MiB */
    0x48, 0xff, 0x03, 0x48, 0x8b, 0x33,             /* inc qword [rbx]; mov rsi, [rbx] */
    0xb9, 0x10, 0x00, 0x00, 0x00,                   /* sixteen digits */
    0x48, 0xc1, 0xc6, 0x04, 0x89, 0xf0, 0x24, 0x0f, /* digit: the next four bits */
    0x04, 0x30, 0x3c, 0x39, 0x76, 0x02, 0x04, 0x27, /* 0 to 9, a to f */
    0xee, 0xff, 0xc9, 0x75, 0xeb,                   /* printed; digit again */
    0xb0, 0x0a, 0xee,                               /* a new line */
    0x0f, 0x31, 0x89, 0xc7,                         /* the time stamp counter, kept */
    0x0f, 0x31, 0x29, 0xf8,                         /* wait: */
    0x3d, 0x80, 0xf0, 0xfa, 0x02, 0x72, 0xf5,       /* until 50 000 000 ticks have gone by */
    0x66, 0xba, 0xf8, 0x03,                         /* the serial port again */
    0xeb, 0xc3,                                     /* count on */
};

static size_t put(uint8_t *at, const void *bytes, size_t length) {
  memcpy(at, bytes, length);
  return length;
}

/* mov dx, 0x3f8, then for each character: mov al, c; out dx, al */
static size_t say(uint8_t *at, const char *text) {
  const uint8_t port[] = {0x66, 0xba, 0xf8, 0x03};
  size_t length = put(at, port, sizeof port);
  for (; *text != '\0'; text++) {
    const uint8_t out[] = {0xb0, (uint8_t)*text, 0xee};
    length += put(at + length, out, sizeof out);
  }
  return length;
}

static int write_guest(const char *directory, const char *name, const uint8_t *tail, size_t length) {
  static uint8_t file[2 * PAGE];
  char path[4096], script[128];
  uint8_t *code = file + PAGE;
  memset(file, 0, sizeof file);
  size_t end = say(code, "hello from the guest\n");
  end += put(code + end, tail, length);
  int words = snprintf(script, sizeof script, "#!mvm-guest\nsay hello from the guest\n%s\n", name);
  put(code + end, script, (size_t)words + 1);

  const uint64_t size = PAGE;
  const uint8_t ident[16] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
  const uint16_t kind[] = {2, 62};                       /* an executable, x86_64 */
  const uint16_t sizes[] = {64, 56, 1, 0, 0, 0};         /* header, one program header */
  const uint32_t one = 1, segment[] = {1, 7}, flags = 0; /* loaded; readable, writable, executable */
  const uint64_t offsets[] = {LOAD, 64, 0};
  const uint64_t program[] = {PAGE, LOAD, LOAD, size, size, PAGE};
  size_t at = put(file, ident, sizeof ident);
  at += put(file + at, kind, sizeof kind);
  at += put(file + at, &one, sizeof one);
  at += put(file + at, offsets, sizeof offsets);
  at += put(file + at, &flags, sizeof flags);
  at += put(file + at, sizes, sizeof sizes);
  at += put(file + at, segment, sizeof segment);
  put(file + at, program, sizeof program);

  snprintf(path, sizeof path, "%s/%s.elf", directory, name);
  FILE *out = fopen(path, "wb");
  if (out == NULL || fwrite(file, 1, sizeof file, out) != sizeof file || fclose(out) != 0) {
    perror(path);
    return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: guest DIRECTORY\n");
    return 2;
  }
  return write_guest(argv[1], "halt", HALT, sizeof HALT) | write_guest(argv[1], "obey", OBEY, sizeof OBEY) |
         write_guest(argv[1], "off", OFF, sizeof OFF) | write_guest(argv[1], "report", REPORT, sizeof REPORT);
}
