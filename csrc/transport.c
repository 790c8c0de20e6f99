/* transport.c: the compiled transports, checked for completeness when they are first looked up. */
#include <assert.h>
#include <string.h>

#include "transport.h"

static const struct pcm_transport *const transports[] = {&pcm_shm,    &pcm_tcp,  &pcm_mpi,
                                                         &pcm_inproc, &pcm_null, &pcm_chaos};

const struct pcm_transport *pcm_transport_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof transports / sizeof *transports; i++) {
        const struct pcm_transport *t = transports[i];
        if (strlen(t->name) != length || strncmp(t->name, name, length)) continue;
        assert(t->open && t->address && t->reaches && t->connect && t->reserve && t->commit && t->peek && t->release);
        assert(t->notice && t->close && t->shut);
        assert(t->lend ? t->returned && t->fetch && t->withdraw : !t->returned && !t->fetch && !t->withdraw);
        assert(t->offers ? t->launch && t->landed : !t->launch && !t->landed);
        return t;
    }
    return NULL;
}

const char *pcm_transports(void) { return "shm,tcp,mpi,inproc,null,chaos"; }
