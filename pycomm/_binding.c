/* _binding.c: reads numpy arrays by numpy's own macros, without asking Python; see _binding.h. Nothing here changes an
 * object or a reference count, so that none of it needs the interpreter's lock. */
#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/ndarraytypes.h>

#include "pycomm.h"
#include "_binding.h"

enum { TYPES = 512 };

/* numpy's type numbers; filled with its own names, so that a renumbering there cannot mislead us here */
static signed char dtypes[TYPES] = {
    [NPY_BOOL] = PCM_BOOL + 1,          [NPY_BYTE] = PCM_INT8 + 1,        [NPY_UBYTE] = PCM_UINT8 + 1,
    [NPY_SHORT] = PCM_INT16 + 1,        [NPY_USHORT] = PCM_UINT16 + 1,    [NPY_INT] = PCM_INT32 + 1,
    [NPY_UINT] = PCM_UINT32 + 1,        [NPY_LONG] = PCM_INT64 + 1,       [NPY_ULONG] = PCM_UINT64 + 1,
    [NPY_LONGLONG] = PCM_INT64 + 1,     [NPY_ULONGLONG] = PCM_UINT64 + 1, [NPY_HALF] = PCM_FLOAT16 + 1,
    [NPY_FLOAT] = PCM_FLOAT32 + 1,      [NPY_DOUBLE] = PCM_FLOAT64 + 1,   [NPY_CFLOAT] = PCM_COMPLEX64 + 1,
    [NPY_CDOUBLE] = PCM_COMPLEX128 + 1,
};
_Static_assert(sizeof(long) == 8, "pycomm is for 64-bit Linux");

int pycomm_know_dtype(int type_number, int dtype)
{
    if (type_number < 0 || type_number >= TYPES) return PYCOMM_LOOK;
    dtypes[type_number] = (signed char)(dtype + 1);
    return 0;
}

struct array {
    void *data;
    uint64_t count;
    int dtype;
};

static uintptr_t none, in_place, array_type;

void pycomm_know_objects(uintptr_t none_, uintptr_t in_place_, uintptr_t array_type_)
{
    none = none_, in_place = in_place_, array_type = array_type_;
}

static int look(uintptr_t object, int writes, struct array *array)
{
    if ((uintptr_t)Py_TYPE((PyObject *)object) != array_type) return PYCOMM_LOOK;
    PyArrayObject *a = (PyArrayObject *)object;
    int need = NPY_ARRAY_C_CONTIGUOUS | (writes ? NPY_ARRAY_WRITEABLE : 0);
    int type = PyArray_TYPE(a);
    if ((PyArray_FLAGS(a) & need) != need || type < 0 || type >= TYPES || !dtypes[type]) return PYCOMM_LOOK;
    if (PyArray_DESCR(a)->byteorder == NPY_OPPBYTE) return PYCOMM_LOOK;
    array->data = PyArray_DATA(a);
    array->dtype = dtypes[type] - 1;
    array->count = 1;
    for (int i = 0; i < PyArray_NDIM(a); i++) array->count *= (uint64_t)PyArray_DIMS(a)[i];
    return 0;
}

int pycomm_run_arrays(uintptr_t handle, int64_t what, uintptr_t in, uintptr_t out)
{
    pcm_comm *comm = (pcm_comm *)handle;
    struct array i = {0}, o = {0};
    if (in == in_place) in = out;
    if (!comm || (out != none && look(out, 1, &o)) || (in != none && look(in, 0, &i))) return PYCOMM_LOOK;
    if (in == none) i = o, i.data = NULL;
    if (out == none) o = i, o.data = NULL;
    uint64_t size = (uint64_t)pcm_comm_size(comm), in_blocks = 1, out_blocks = 1;
    uint8_t collective = (uint8_t)what;
    uint32_t op = (uint32_t)(what >> 8) & 0xFFFFFF;
    if (op >= PCM_NOPS) return PYCOMM_LOOK;
    switch (collective) {
    case PCM_ALLGATHER: out_blocks = size; break;
    case PCM_REDUCE_SCATTER: in_blocks = size; break;
    case PCM_ALLTOALL: in_blocks = out_blocks = size; break;
    case PCM_BARRIER: i.dtype = o.dtype = PCM_UINT8; break;
    case PCM_EXSCAN:
        if (pcm_comm_rank(comm) == 0) o.data = NULL; /* there is nothing before it */
    }
    uint64_t most =
        in_blocks > out_blocks ? in_blocks : out_blocks; /* in place, one buffer is as long as the longer side */
    uint64_t count = in != out ? i.count / in_blocks : most == 1 ? i.count : i.count / most;
    if (in == out && (in == none) != (collective == PCM_BARRIER)) return PYCOMM_LOOK;
    if (in == out ? count * most != i.count : count * in_blocks != i.count || count * out_blocks != o.count)
        return PYCOMM_LOOK;
    if (i.dtype != o.dtype || (in != out && i.data == o.data && in_blocks != out_blocks)) return PYCOMM_LOOK;
    struct pcm_call call = {.collective = collective,
                            .dtype = (uint8_t)i.dtype,
                            .op = (uint8_t)op,
                            .root = (int32_t)(what >> 32),
                            .in = i.data,
                            .out = o.data,
                            .count = count};
    return pcm_run(comm, &call, 0.2);
}

int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status)
{
    int rc = pcm_wait(*request, seconds, status);
    if (rc != PCM_AGAIN) *request = NULL;
    return rc;
}

int pycomm_run_pointers(uintptr_t handle, int64_t what, uintptr_t in, uintptr_t out, uint64_t count, int dtype)
{
    pcm_comm *comm = (pcm_comm *)handle;
    uint32_t op = (uint32_t)(what >> 8) & 0xFFFFFF;
    if (!comm || op >= PCM_NOPS) return PYCOMM_LOOK;
    uint64_t size = (uint64_t)pcm_comm_size(comm), in_blocks = 1, out_blocks = 1;
    uint8_t collective = (uint8_t)what;
    switch (collective) {
    case PCM_ALLGATHER: out_blocks = size; break;
    case PCM_REDUCE_SCATTER: in_blocks = size; break;
    case PCM_ALLTOALL: in_blocks = out_blocks = size; break;
    }
    uint64_t block = count * pcm_dtype_size(dtype);
    if (collective == PCM_ALLGATHER && in == out + block * (uint64_t)pcm_comm_rank(comm))
        in = out; /* the own block lies at its place */
    else if (in != out ? in && out && in < out + block * out_blocks && out < in + block * in_blocks
                       : in_blocks != out_blocks)
        return PYCOMM_LOOK;
    struct pcm_call call = {.collective = collective,
                            .dtype = (uint8_t)dtype,
                            .op = (uint8_t)op,
                            .root = (int32_t)(what >> 32),
                            .in = (const void *)in,
                            .out = (void *)out,
                            .count = count};
    return pcm_run(comm, &call, 0.2);
}
