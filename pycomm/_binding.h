/* _binding.h: what the Python binding adds to pycomm.h. */
#ifndef PYCOMM_BINDING_H
#define PYCOMM_BINDING_H

/* pcm_wait that also forgets the request, in the same crossing, once it has been freed. */
int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status);

#endif
