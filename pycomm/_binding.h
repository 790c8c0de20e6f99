/* _binding.h: the few functions that the Python binding adds to pycomm.h, so that a call on numpy arrays is one crossing. */
#ifndef PYCOMM_BINDING_H
#define PYCOMM_BINDING_H

/* Not one of pcm_status: the arrays are not plain (not contiguous, unknown dtype, sizes that do not fit): look closer in Python. */
enum { PYCOMM_LOOK = -1 };

/* Tells which pcm_dtype a numpy type number is; for the types that packages such as ml_dtypes add at run time. */
int pycomm_know_dtype(int type_number, int dtype);

/* Tells the id() of None ("no buffer on this rank"), of IN_PLACE, and of the type numpy.ndarray. */
void pycomm_know_objects(uintptr_t none, uintptr_t in_place, uintptr_t array_type);

/* pcm_run for two objects, given by their id(), which must be plain numpy arrays, None or IN_PLACE (else: PYCOMM_LOOK); the
 * caller holds references. The count follows from the arrays' sizes and the collective. Few, plain arguments, because
 * each costs: comm is a pcm_comm *, and what = collective | op << 8 | root << 32. */
int pycomm_run_arrays(uintptr_t comm, int64_t what, uintptr_t in, uintptr_t out);

/* pcm_wait that also forgets the request, in the same crossing, once it has been freed. */
int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status);

/* pcm_run for memory that is given by addresses, 0 for none; the caller keeps it alive. count is in elements a block, and what
 * is as above. The same address means IN_PLACE; an input of allgather that is the own block of the output does too.
 * PYCOMM_LOOK: the buffers overlap in another way, or there is no communicator. */
int pycomm_run_pointers(uintptr_t comm, int64_t what, uintptr_t in, uintptr_t out, uint64_t count, int dtype);

#endif
