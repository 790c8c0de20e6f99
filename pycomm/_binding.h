/* _binding.h: the few functions that the Python binding adds to pycomm.h, so that a call on numpy arrays is one crossing. */
#ifndef PYCOMM_BINDING_H
#define PYCOMM_BINDING_H

/* Not one of pcm_status: the arrays are not plain (not contiguous, unknown dtype, sizes that do not fit): look closer in Python. */
enum { PYCOMM_LOOK = -1 };

/* Tells which pcm_dtype a numpy type number is; for the types that packages such as ml_dtypes add at run time. */
int pycomm_know_dtype(int type_number, int dtype);

/* pcm_run for two numpy.ndarray objects, given by their id() (that of None, `none`: no buffer on this rank): the caller
 * holds references and has checked the types. The count follows from the arrays' sizes and the collective. */
int pycomm_run_arrays(pcm_comm *comm, int collective, uintptr_t in, uintptr_t out, int op, int root, uintptr_t none);

#endif
