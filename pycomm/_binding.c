/* _binding.c: see _binding.h. */
#include <stdlib.h>

#include "pycomm.h"
#include "flow.h"
#include "simulate.h"
#include "squeeze.h"
#include "_binding.h"

int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status)
{
    int rc = pcm_wait(*request, seconds, status);
    if (rc != PCM_AGAIN) *request = NULL;
    return rc;
}

void pycomm_free(void *memory) { free(memory); }

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
