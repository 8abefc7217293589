/* The clocks of one process, moved while it runs: preloaded, it takes the place of the kernel's own function in the vdso,
 * which is where both the C library and programs that do without it read the time. What waits for a time to pass is not
 * moved, as in a machine that sleeps. The file that EPITHET_TEST_CLOCK names says how far; see set_clock.rs. */

#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct shift {
    int64_t calendar; /* seconds by which the calendar is ahead */
    int64_t slept;    /* seconds that the machine has slept */
    int64_t stands;   /* the Unix time at which the calendar stands still; 0 when it goes */
};

static const volatile struct shift *shift;

static long system_time(clockid_t clock, struct timespec *time)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_clock_gettime), "D"((long)clock), "S"(time)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = SYS_clock_gettime;
    register long result __asm__("x0") = clock;
    register struct timespec *second __asm__("x1") = time;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(number), "r"(second) : "memory");
    return result;
#else
#error "the system calls of this processor are not known here"
#endif
}

static long moved_time(clockid_t clock, struct timespec *time)
{
    long result = system_time(clock, time);
    if (result != 0)
        return result;
    if (clock == CLOCK_BOOTTIME) {
        time->tv_sec += shift->slept;
    } else if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        int64_t stands = shift->stands;
        time->tv_sec = stands != 0 ? stands : time->tv_sec + shift->calendar;
    }
    return 0;
}

static void fail(const char *what)
{
    perror(what);
    _exit(70);
}

/* Lets a function begin with a jump to ours. */
static void lead_here(unsigned char *code)
{
    void *target = (void *)moved_time;
#if defined(__x86_64__)
    unsigned char jump[12] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0 }; /* mov target, %rax; jmp *%rax */
    memcpy(jump + 2, &target, sizeof target);
#else
    uint32_t jump[4] = { 0x58000050, 0xd61f0200 }; /* ldr x16, .+8; br x16 */
    memcpy(jump + 2, &target, sizeof target);
#endif
    memcpy(code, jump, sizeof jump);
    __builtin___clear_cache((char *)code, (char *)code + sizeof jump);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("EPITHET_TEST_CLOCK");
    if (path == NULL)
        return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        fail(path);
    shift = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (shift == MAP_FAILED)
        fail(path);
    close(file);

    unsigned char *vdso = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
    if (vdso == NULL)
        fail("this kernel has no vdso");
    Elf64_Ehdr *header = (Elf64_Ehdr *)vdso;
    Elf64_Phdr *segments = (Elf64_Phdr *)(vdso + header->e_phoff);
    Elf64_Dyn *dynamic = NULL;
    uintptr_t base = 0;
    size_t length = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD) {
            base = (uintptr_t)vdso + segments[i].p_offset - segments[i].p_vaddr;
            length = segments[i].p_offset + segments[i].p_memsz;
        } else if (segments[i].p_type == PT_DYNAMIC) {
            dynamic = (Elf64_Dyn *)(vdso + segments[i].p_offset);
        }
    }

    /* The kernel lets nobody write there, so a copy takes its place. */
    long page = sysconf(_SC_PAGESIZE);
    length = (length + page - 1) / page * page;
    unsigned char *copy = malloc(length);
    if (copy == NULL)
        fail("memory");
    memcpy(copy, vdso, length);
    if (mmap(vdso, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        fail("the vdso cannot be replaced");
    memcpy(vdso, copy, length);
    free(copy);

    const char *names = NULL;
    Elf64_Sym *symbols = NULL;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_STRTAB)
            names = (const char *)(base + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_SYMTAB)
            symbols = (Elf64_Sym *)(base + dynamic->d_un.d_ptr);
    }
    int found = 0;
    /* The names follow the symbols. */
    for (Elf64_Sym *symbol = symbols; (const char *)symbol < names; symbol++) {
        const char *name = names + symbol->st_name;
        if (strcmp(name, "__vdso_clock_gettime") == 0 || strcmp(name, "__kernel_clock_gettime") == 0) {
            lead_here((unsigned char *)(base + symbol->st_value));
            found = 1;
        }
    }
    if (!found || mprotect(vdso, length, PROT_READ | PROT_EXEC) != 0)
        fail("the vdso's clock cannot be replaced");
}
