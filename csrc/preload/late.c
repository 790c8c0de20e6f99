/* late.c: leads a module that is loaded already, and bound to MPI, to the entries of this library: pycomm.mpi.enable().
 *
 * A module calls functions of other libraries through a table of addresses that the dynamic linker fills (System V ABI, "Global
 * Offset Table"); those of MPI's functions that have an entry here are replaced, and put back at the end.
 */
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload.h"

#if defined(__aarch64__)
enum { GLOB_DAT = R_AARCH64_GLOB_DAT, JUMP_SLOT = R_AARCH64_JUMP_SLOT };
#else
enum { GLOB_DAT = R_X86_64_GLOB_DAT, JUMP_SLOT = R_X86_64_JUMP_SLOT };
#endif

enum { MOST_SLOTS = 512, NAME = 64 };

static struct replaced {
    _Atomic uintptr_t *slot;
    uintptr_t before;
} replaced[MOST_SLOTS];
static int count;

struct module { /* of which the dynamic linker tells */
    const char *file;
    uintptr_t base;
    const ElfW(Dyn) * dynamic;
    uintptr_t sealed, sealed_end; /* what is read-only once it was filled */
};

static int find(struct dl_phdr_info *info, size_t bytes, void *user)
{
    (void)bytes;
    struct module *m = user;
    if (strcmp(info->dlpi_name, m->file) != 0) return 0;
    m->base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_DYNAMIC) m->dynamic = (const void *)(m->base + part->p_vaddr);
        if (part->p_type == PT_GNU_RELRO)
            m->sealed = m->base + part->p_vaddr, m->sealed_end = m->sealed + part->p_memsz;
    }
    return 1;
}

/* The entry of this library with a name of MPI's, if the MPI that runs has such a function too; or 0. */
static uintptr_t entry_of(void *own, const char *name)
{
    char profiling[NAME];
    if (strncmp(name, "MPI_", 4) != 0 || (size_t)snprintf(profiling, sizeof profiling, "P%s", name) >= sizeof profiling)
        return 0;
    void *entry = dlsym(own, name);
    Dl_info here, there; /* dlsym looks into what this library needs, too */
    bool ours = entry && dladdr(entry, &there) && dladdr(replaced, &here) && here.dli_fbase == there.dli_fbase;
    return ours && mpi_function(profiling) ? (uintptr_t)entry : 0;
}

static void replace(_Atomic uintptr_t *slot, uintptr_t entry)
{
    uintptr_t before = atomic_load(slot);
    if (before == entry || count == MOST_SLOTS) return; /* the first: it was in front from the beginning */
    replaced[count++] = (struct replaced){slot, before};
    atomic_store(slot, entry);
}

/* Goes through a table of relocations, and replaces what leads to MPI, unless it only counts. */
static int lead(const struct module *m, void *own, const ElfW(Rela) * table, size_t bytes, const ElfW(Sym) * symbols,
                const char *names, bool replaces)
{
    int led = 0;
    for (const ElfW(Rela) *r = table; r < table + bytes / sizeof *table; r++) {
        unsigned type = ELF64_R_TYPE(r->r_info);
        if (type != GLOB_DAT && type != JUMP_SLOT) continue;
        uintptr_t entry = entry_of(own, names + symbols[ELF64_R_SYM(r->r_info)].st_name);
        if (!entry) continue;
        if (replaces) replace((_Atomic uintptr_t *)(m->base + r->r_offset), entry);
        led++;
    }
    return led;
}

/* Opens to writing what the linker has sealed, or seals it. */
static bool seal(const struct module *m, bool sealed)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = m->sealed & ~(page - 1);
    size_t bytes = (m->sealed_end & ~(page - 1)) - from; /* as the linker does */
    return !bytes || !mprotect((void *)from, bytes, sealed ? PROT_READ : PROT_READ | PROT_WRITE);
}

static struct module module;

/* glibc's linker turns what a module says of itself into addresses, musl's does not. */
static const void *at(const struct module *m, uintptr_t said)
{
    return (const void *)(said < m->base ? m->base + said : said);
}

int pycomm_late_begin(const char *file, int replaces)
{
    struct module m = {.file = file};
    Dl_info here;
    if (!preload_mpi() || !dl_iterate_phdr(find, &m) || !m.dynamic || !dladdr(replaced, &here)) return -1;
    void *own = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    const void *jumps = NULL, *others = NULL, *symbols = NULL, *names = NULL;
    size_t jump_bytes = 0, other_bytes = 0;
    for (const ElfW(Dyn) *d = m.dynamic; d->d_tag != DT_NULL; d++) switch (d->d_tag) {
        case DT_JMPREL: jumps = at(&m, d->d_un.d_ptr); break;
        case DT_PLTRELSZ: jump_bytes = d->d_un.d_val; break;
        case DT_RELA: others = at(&m, d->d_un.d_ptr); break;
        case DT_RELASZ: other_bytes = d->d_un.d_val; break;
        case DT_SYMTAB: symbols = at(&m, d->d_un.d_ptr); break;
        case DT_STRTAB: names = at(&m, d->d_un.d_ptr); break;
        default: break;
        }
    if (!own || !symbols || !names || !seal(&m, false)) return -1;
    int led = lead(&m, own, jumps, jump_bytes, symbols, names, replaces);
    led += lead(&m, own, others, other_bytes, symbols, names, replaces);
    seal(&m, true);
    dlclose(own);
    m.file = NULL; /* it is the caller's */
    module = m;
    if (replaces) report_start();
    return led;
}

void pycomm_late_end(void)
{
    if (preload_mpi()) preload_forget_all(); /* which waits for what was started */
    if (!count || !seal(&module, false)) return;
    while (count) {
        count--;
        atomic_store(replaced[count].slot, replaced[count].before);
    }
    seal(&module, true);
}
