/* dtype.c: sizes of the dtypes, and names of dtypes, ops and collectives for messages and traces. */
#include "pycomm.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[PCM_NDTYPES] = {
    [PCM_BOOL] = {"bool", 1},
    [PCM_INT8] = {"int8", 1},
    [PCM_UINT8] = {"uint8", 1},
    [PCM_INT16] = {"int16", 2},
    [PCM_UINT16] = {"uint16", 2},
    [PCM_INT32] = {"int32", 4},
    [PCM_UINT32] = {"uint32", 4},
    [PCM_INT64] = {"int64", 8},
    [PCM_UINT64] = {"uint64", 8},
    [PCM_FLOAT16] = {"float16", 2},
    [PCM_BFLOAT16] = {"bfloat16", 2},
    [PCM_FLOAT32] = {"float32", 4},
    [PCM_FLOAT64] = {"float64", 8},
    [PCM_COMPLEX64] = {"complex64", 8},
    [PCM_COMPLEX128] = {"complex128", 16},
    [PCM_FLOAT8_E4M3] = {"float8_e4m3fn", 1},
    [PCM_FLOAT8_E5M2] = {"float8_e5m2", 1},
};

static const char *const ops[PCM_NOPS] = {
    [PCM_SUM] = "SUM",   [PCM_PROD] = "PROD", [PCM_MIN] = "MIN",   [PCM_MAX] = "MAX",
    [PCM_AVG] = "AVG",   [PCM_LAND] = "LAND", [PCM_LOR] = "LOR",   [PCM_LXOR] = "LXOR",
    [PCM_BAND] = "BAND", [PCM_BOR] = "BOR",   [PCM_BXOR] = "BXOR",
};

static const char *const collectives[PCM_NCOLLECTIVES] = {
    [PCM_ALLREDUCE] = "allreduce",
    [PCM_REDUCE] = "reduce",
    [PCM_BROADCAST] = "broadcast",
    [PCM_ALLGATHER] = "allgather",
    [PCM_REDUCE_SCATTER] = "reduce_scatter",
    [PCM_GATHER] = "gather",
    [PCM_SCATTER] = "scatter",
    [PCM_ALLTOALL] = "alltoall",
    [PCM_SCAN] = "scan",
    [PCM_EXSCAN] = "exscan",
    [PCM_BARRIER] = "barrier",
    [PCM_POINT_TO_POINT] = "point_to_point",
};

size_t pcm_dtype_size(int dtype) { return dtype >= 0 && dtype < PCM_NDTYPES ? dtypes[dtype].size : 0; }

const char *pcm_dtype_name(int dtype) { return dtype >= 0 && dtype < PCM_NDTYPES ? dtypes[dtype].name : "?"; }

const char *pcm_op_name(int op) { return op >= 0 && op < PCM_NOPS ? ops[op] : "?"; }

const char *pcm_collective_name(int coll) { return coll >= 0 && coll < PCM_NCOLLECTIVES ? collectives[coll] : "?"; }
