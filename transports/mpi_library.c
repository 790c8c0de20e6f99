/* mpi_library.c: see mpi_library.h. */
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mpi_library.h"

/* ---- finding it: dlsym(RTLD_DEFAULT) would not do, as mpi4py loads its library for itself alone ------------------- */

enum { MOST_CANDIDATES = 8 };

struct candidates { /* files that may be it; "" is the program itself, which may be linked statically */
    char names[MOST_CANDIDATES][512];
    int count;
};

static const char *file_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int collect(struct dl_phdr_info *info, size_t bytes, void *user)
{
    (void)bytes;
    /* libmpicxx, libmpifort and their like only lead to these */
    static const char *const known[] = {"libmpi.so", "libmpi_abi.so", "libmpich.so"};
    struct candidates *c = user;
    bool wanted = !*info->dlpi_name && !c->count;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        wanted |= !strncmp(file_of(info->dlpi_name), known[i], strlen(known[i]));
    if (wanted && c->count < MOST_CANDIDATES && strlen(info->dlpi_name) < sizeof c->names[0])
        strcpy(c->names[c->count++], info->dlpi_name);
    return 0;
}

static bool is_running(void *handle)
{
    int (*initialized)(int *) = (int (*)(int *))dlsym(handle, "PMPI_Initialized");
    int flag = 0;
    return initialized && initialized(&flag) == 0 && flag;
}

/* The handle of the library that was initialized, and whether it speaks the standard ABI; NULL if there is none. Kept open:
 * who has loaded MPI must not unload it under us. */
static void *find(bool *standard)
{
    struct candidates c = {.count = 0};
    dl_iterate_phdr(collect, &c); /* which must not be left while dlopen is called */
    for (int i = 0; i < c.count; i++) {
        void *handle = dlopen(*c.names[i] ? c.names[i] : NULL, RTLD_LAZY | RTLD_NOLOAD);
        if (!handle) continue;
        if (is_running(handle)) {
            Dl_info where;
            bool known = dladdr(dlsym(handle, "PMPI_Initialized"), &where);
            *standard = known && !strncmp(file_of(where.dli_fname), "libmpi_abi.so", 13);
            return handle;
        }
        dlclose(handle);
    }
    return NULL;
}

/* ---- its constants ------------------------------------------------------------------------------------------------ */

struct constant { /* what of MPI's stands for one of ours, in each family of libraries */
    int ours;
    const char *openmpi;
    int mpich, standard;
};

/* Those that MPI has no type for, float16 and smaller ones, are not here; nor AVG, which is no reduction of MPI's. */
static const struct constant types[] = {
    {PCM_BOOL, "ompi_mpi_c_bool", 0x4c00013f, 0x238},
    {PCM_INT8, "ompi_mpi_int8_t", 0x4c000137, 0x240},
    {PCM_UINT8, "ompi_mpi_uint8_t", 0x4c00013b, 0x241},
    {PCM_INT16, "ompi_mpi_int16_t", 0x4c000238, 0x248},
    {PCM_UINT16, "ompi_mpi_uint16_t", 0x4c00023c, 0x249},
    {PCM_INT32, "ompi_mpi_int32_t", 0x4c000439, 0x250},
    {PCM_UINT32, "ompi_mpi_uint32_t", 0x4c00043d, 0x251},
    {PCM_INT64, "ompi_mpi_int64_t", 0x4c00083a, 0x258},
    {PCM_UINT64, "ompi_mpi_uint64_t", 0x4c00083e, 0x259},
    {PCM_FLOAT32, "ompi_mpi_float", 0x4c00040a, 0x210},
    {PCM_FLOAT64, "ompi_mpi_double", 0x4c00080b, 0x214},
    {PCM_COMPLEX64, "ompi_mpi_c_float_complex", 0x4c000840, 0x212},
    {PCM_COMPLEX128, "ompi_mpi_c_double_complex", 0x4c001041, 0x216},
};

static const struct constant reductions[] = {
    {PCM_SUM, "ompi_mpi_op_sum", 0x58000003, 0x21},   {PCM_PROD, "ompi_mpi_op_prod", 0x58000004, 0x24},
    {PCM_MIN, "ompi_mpi_op_min", 0x58000002, 0x22},   {PCM_MAX, "ompi_mpi_op_max", 0x58000001, 0x23},
    {PCM_LAND, "ompi_mpi_op_land", 0x58000005, 0x30}, {PCM_LOR, "ompi_mpi_op_lor", 0x58000007, 0x31},
    {PCM_LXOR, "ompi_mpi_op_lxor", 0x58000009, 0x32}, {PCM_BAND, "ompi_mpi_op_band", 0x58000006, 0x28},
    {PCM_BOR, "ompi_mpi_op_bor", 0x58000008, 0x29},   {PCM_BXOR, "ompi_mpi_op_bxor", 0x5800000a, 0x2a},
};

/* The type, or 0 if the library was built without it. The second byte of MPICH's handles is the size. */
static mpi_handle sized(const struct mpi_library *l, mpi_handle type, int mpich)
{
    int size = 0;
    return type && l->type_size(type, &size) == 0 && size == (mpich >> 8 & 255) ? type : 0;
}

static void set_constants(struct mpi_library *l, void *handle, bool standard)
{
    bool openmpi = dlsym(handle, "ompi_mpi_comm_world");
#define PICK(SYMBOL, MPICH, STANDARD) (openmpi ? (mpi_handle)dlsym(handle, SYMBOL) : standard ? (STANDARD) : (MPICH))
    l->comm_world = PICK("ompi_mpi_comm_world", 0x44000000, 0x101);
    l->comm_self = PICK("ompi_mpi_comm_self", 0x44000001, 0x102);
    l->byte = PICK("ompi_mpi_byte", 0x4c00010d, 0x247);
    l->errors_return = PICK("ompi_mpi_errors_return", 0x54000001, 0x143);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        l->dtypes[types[i].ours] = sized(l, PICK(types[i].openmpi, types[i].mpich, types[i].standard), types[i].mpich);
    for (size_t i = 0; i < sizeof reductions / sizeof *reductions; i++)
        l->ops[reductions[i].ours] = PICK(reductions[i].openmpi, reductions[i].mpich, reductions[i].standard);
#undef PICK
    l->in_place = (void *)(intptr_t)(openmpi || standard ? 1 : -1);
    l->any_source = openmpi || standard ? -1 : -2;
    l->tag_ub = openmpi ? 0 : standard ? 501 : 0x64400001;
    l->thread_multiple = standard ? 4096 : 3;
    void *convert = openmpi ? dlsym(handle, "PMPI_Comm_f2c") : standard ? dlsym(handle, "PMPI_Comm_fromint") : NULL;
    memcpy(&l->comm_f2c, &convert, sizeof convert);
}

/* ---- its functions ------------------------------------------------------------------------------------------------ */

static const char *set_functions(struct mpi_library *l, void *handle)
{
    const struct {
        const char *name;
        void *slot;
    } all[] = {
        {"PMPI_Initialized", &l->initialized},
        {"PMPI_Finalized", &l->finalized},
        {"PMPI_Query_thread", &l->query_thread},
        {"PMPI_Get_library_version", &l->get_library_version},
        {"PMPI_Error_string", &l->error_string},
        {"PMPI_Type_size", &l->type_size},
        {"PMPI_Comm_test_inter", &l->comm_test_inter},
        {"PMPI_Comm_rank", &l->comm_rank},
        {"PMPI_Comm_size", &l->comm_size},
        {"PMPI_Comm_dup", &l->comm_dup},
        {"PMPI_Comm_free", &l->comm_free},
        {"PMPI_Comm_group", &l->comm_group},
        {"PMPI_Comm_create_group", &l->comm_create_group},
        {"PMPI_Group_incl", &l->group_incl},
        {"PMPI_Group_free", &l->group_free},
        {"PMPI_Comm_set_errhandler", &l->comm_set_errhandler},
        {"PMPI_Comm_create_keyval", &l->comm_create_keyval},
        {"PMPI_Comm_free_keyval", &l->comm_free_keyval},
        {"PMPI_Comm_set_attr", &l->comm_set_attr},
        {"PMPI_Comm_get_attr", &l->comm_get_attr},
        {"PMPI_Comm_delete_attr", &l->comm_delete_attr},
        {"PMPI_Isend", &l->isend},
        {"PMPI_Irecv", &l->irecv},
        {"PMPI_Test", &l->test},
        {"PMPI_Cancel", &l->cancel},
        {"PMPI_Allgather", &l->allgather},
        {"PMPI_Ibarrier", &l->ibarrier},
        {"PMPI_Ibcast", &l->ibcast},
        {"PMPI_Iallreduce", &l->iallreduce},
        {"PMPI_Ireduce", &l->ireduce},
        {"PMPI_Ireduce_scatter_block", &l->ireduce_scatter_block},
        {"PMPI_Iallgather", &l->iallgather},
        {"PMPI_Ialltoall", &l->ialltoall},
        {"PMPI_Igather", &l->igather},
        {"PMPI_Iscatter", &l->iscatter},
        {"PMPI_Iscan", &l->iscan},
        {"PMPI_Iexscan", &l->iexscan},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *function = dlsym(handle, all[i].name);
        if (!function) return all[i].name;
        memcpy(all[i].slot, &function, sizeof function);
    }
    return NULL;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mpi_library bound;
static bool is_bound;
static void *bound_handle;

const struct mpi_library *mpi_library(void)
{
    pthread_mutex_lock(&lock);
    if (!is_bound) {
        bool standard;
        void *handle = find(&standard);
        if (!handle) {
            pthread_mutex_unlock(&lock);
            pcm_fail(PCM_ERR_SYSTEM, -1,
                     "this process has no running MPI: start it with the mpiexec of an MPI, and call "
                     "MPI_Init, or import mpi4py.MPI, first");
            return NULL;
        }
        const char *missing = set_functions(&bound, handle);
        if (missing) {
            pthread_mutex_unlock(&lock);
            pcm_fail(PCM_ERR_SYSTEM, -1, "the MPI of this process has no %s: it must speak MPI 3.0 or later", missing);
            return NULL;
        }
        set_constants(&bound, handle, standard);
        bound_handle = handle;
        is_bound = true;
    }
    pthread_mutex_unlock(&lock);
    int finalized = 0;
    if (bound.finalized(&finalized) || finalized) {
        pcm_fail(PCM_ERR_SYSTEM, -1, "MPI was finalized");
        return NULL;
    }
    return &bound;
}

void *mpi_function(const char *name) { return mpi_library() ? dlsym(bound_handle, name) : NULL; }
