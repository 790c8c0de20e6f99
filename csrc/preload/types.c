/* types.c: what datatypes and reductions of MPI are to our core. */
#include <ctype.h>
#include <string.h>

#include "preload.h"

enum kind { NOTHING, SIGNED, UNSIGNED, FLOATING, COMPLEX, LOGICAL, BITS };

/* Libraries name their predefined types as MPI does, whatever their handles are. Fortran's LOGICAL is not here: which values of
 * it are true is the compiler's affair. */
static enum kind kind_of(const char *name)
{
    static const struct {
        const char *name;
        enum kind kind;
    } all[] = {
        {"SIGNED_CHAR", SIGNED},
        {"SHORT", SIGNED},
        {"INT", SIGNED},
        {"LONG", SIGNED},
        {"LONG_LONG", SIGNED},
        {"LONG_LONG_INT", SIGNED},
        {"INT8_T", SIGNED},
        {"INT16_T", SIGNED},
        {"INT32_T", SIGNED},
        {"INT64_T", SIGNED},
        {"INTEGER", SIGNED},
        {"INTEGER1", SIGNED},
        {"INTEGER2", SIGNED},
        {"INTEGER4", SIGNED},
        {"INTEGER8", SIGNED},
        {"AINT", SIGNED},
        {"OFFSET", SIGNED},
        {"COUNT", SIGNED},
        {"UNSIGNED_CHAR", UNSIGNED},
        {"UNSIGNED_SHORT", UNSIGNED},
        {"UNSIGNED", UNSIGNED},
        {"UNSIGNED_LONG", UNSIGNED},
        {"UNSIGNED_LONG_LONG", UNSIGNED},
        {"UINT8_T", UNSIGNED},
        {"UINT16_T", UNSIGNED},
        {"UINT32_T", UNSIGNED},
        {"UINT64_T", UNSIGNED},
        {"FLOAT", FLOATING},
        {"DOUBLE", FLOATING},
        {"REAL", FLOATING},
        {"REAL4", FLOATING},
        {"REAL8", FLOATING},
        {"DOUBLE_PRECISION", FLOATING},
        {"C_COMPLEX", COMPLEX},
        {"C_FLOAT_COMPLEX", COMPLEX},
        {"C_DOUBLE_COMPLEX", COMPLEX},
        {"COMPLEX", COMPLEX},
        {"COMPLEX8", COMPLEX},
        {"COMPLEX16", COMPLEX},
        {"DOUBLE_COMPLEX", COMPLEX},
        {"CXX_FLOAT_COMPLEX", COMPLEX},
        {"CXX_DOUBLE_COMPLEX", COMPLEX},
        {"C_BOOL", LOGICAL},
        {"CXX_BOOL", LOGICAL},
        {"BYTE", BITS},
    };
    if (strncmp(name, "MPI_", 4) != 0) return NOTHING;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name + 4, all[i].name)) return all[i].kind;
    return NOTHING;
}

static int dtype_of(enum kind kind, size_t size)
{
    static const struct {
        enum kind kind;
        size_t size;
        int dtype;
    } all[] = {
        {SIGNED, 1, PCM_INT8},      {SIGNED, 2, PCM_INT16},      {SIGNED, 4, PCM_INT32},
        {SIGNED, 8, PCM_INT64},     {UNSIGNED, 1, PCM_UINT8},    {UNSIGNED, 2, PCM_UINT16},
        {UNSIGNED, 4, PCM_UINT32},  {UNSIGNED, 8, PCM_UINT64},   {FLOATING, 4, PCM_FLOAT32},
        {FLOATING, 8, PCM_FLOAT64}, {COMPLEX, 8, PCM_COMPLEX64}, {COMPLEX, 16, PCM_COMPLEX128},
        {LOGICAL, 1, PCM_BOOL},     {BITS, 1, PCM_UINT8},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].kind == kind && all[i].size == size) return all[i].dtype;
    return -1;
}

static bool look(mpi_handle handle, struct type *t, bool *predefined)
{
    const struct mpi_library *mpi = preload_mpi();
    int a, b, c, combiner, size;
    intptr_t lower;
    char name[512] = "";
    if (more.type_get_envelope(handle, &a, &b, &c, &combiner) || mpi->type_size(handle, &size) || size < 0 ||
        more.type_get_extent(handle, &lower, &t->extent))
        return false;
    *predefined = combiner == more.named;
    if (*predefined && more.type_get_name(handle, name, &a)) return false;
    enum kind kind = *predefined ? kind_of(name) : NOTHING;
    t->handle = handle, t->size = (size_t)size;
    t->dtype = dtype_of(kind, t->size), t->bits = kind == BITS;
    t->plain = *predefined && lower == 0 && t->extent == size;
    return true;
}

bool preload_type(mpi_handle handle, struct type *out)
{
    enum { SLOTS = 256 }; /* more than MPI has predefined types, which are never freed */
    static struct type known[SLOTS];
    static atomic_int used[SLOTS]; /* 0: free, 1: being filled, 2: filled, and never changed again */
    unsigned slot = (unsigned)((uint64_t)handle * 0x9e3779b97f4a7c15u >> 56);
    for (unsigned i = 0; i < SLOTS; i++, slot = (slot + 1) % SLOTS) {
        int state = atomic_load_explicit(&used[slot], memory_order_acquire);
        if (state == 2 && known[slot].handle == handle) {
            *out = known[slot];
            return true;
        }
        if (!state) break;
    }
    bool predefined;
    if (!look(handle, out, &predefined)) return false;
    int unused = 0;
    if (predefined && atomic_compare_exchange_strong(&used[slot], &unused, 1)) {
        known[slot] = *out;
        atomic_store_explicit(&used[slot], 2, memory_order_release);
    }
    return true;
}

int preload_op(mpi_handle handle, const struct type *type)
{
    const struct mpi_library *mpi = preload_mpi();
    int op = 0, dtype = type->dtype;
    while (op < PCM_NOPS && (!mpi->ops[op] || mpi->ops[op] != handle)) op++;
    if (op == PCM_NOPS || dtype < 0) return -1;
    bool integer = dtype >= PCM_INT8 && dtype <= PCM_UINT64 && !type->bits;
    bool complex = dtype == PCM_COMPLEX64 || dtype == PCM_COMPLEX128, logical = dtype == PCM_BOOL;
    switch (op) {
    case PCM_SUM:
    case PCM_PROD: return logical || type->bits ? -1 : op;
    case PCM_MIN:
    case PCM_MAX: return logical || complex || type->bits ? -1 : op;
    case PCM_LAND:
    case PCM_LOR:
    case PCM_LXOR: return integer || logical ? op : -1;
    default: return integer || type->bits ? op : -1;
    }
}
