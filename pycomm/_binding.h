/* _binding.h: what the Python binding adds to pycomm.h. */
#ifndef PYCOMM_BINDING_H
#define PYCOMM_BINDING_H

/* pcm_wait that also forgets the request, in the same crossing, once it has been freed. */
int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status);

/* free() of the C library that the core is linked to, for what pcm_recv_any_start has allocated. */
void pycomm_free(void *memory);

/* Not one of pcm_status: the buffers lie in a way that is for Python to look at. */
enum { PYCOMM_LOOK = -1 };

/* pcm_run for memory that is given by addresses, 0 for none; the caller keeps it alive. count is in elements a block, and
 * what = collective | op << 8 | root << 32. The same address means IN_PLACE; an input of allgather that is the own block of the output does too.
 * PYCOMM_LOOK: the buffers overlap in another way, or there is no communicator. */
int pycomm_run_pointers(uintptr_t comm, int64_t what, uintptr_t in, uintptr_t out, uint64_t count, int dtype);

#endif
