/* _binding.c: see _binding.h. */
#include "pycomm.h"
#include "_binding.h"

int pycomm_wait(pcm_request **request, double seconds, struct pcm_status_info *status)
{
    int rc = pcm_wait(*request, seconds, status);
    if (rc != PCM_AGAIN) *request = NULL;
    return rc;
}
