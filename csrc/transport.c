/* transport.c: the compiled transports, checked for completeness when they are first looked up. */
#include <assert.h>
#include <string.h>

#include "core.h"

static const struct pcm_transport *const transports[] = {&pcm_shm,    &pcm_tcp,  &pcm_mpi,
                                                         &pcm_inproc, &pcm_null, &pcm_chaos};

bool pcm_transport_complete(const struct pcm_transport *t)
{
    return t->name && t->open && t->address && t->reaches && t->connect && t->reserve && t->commit && t->peek &&
           t->release && t->notice && t->close && t->shut &&
           (t->lend ? t->path && t->returned && t->fetch && t->withdraw : !t->returned && !t->fetch && !t->withdraw) &&
           (t->muster ? t->dismiss && t->offers && t->launch && t->landed
                      : !t->dismiss && !t->offers && !t->launch && !t->landed);
}

const struct pcm_transport *pcm_transport_compiled(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof transports / sizeof *transports; i++) {
        const struct pcm_transport *t = transports[i];
        if (strlen(t->name) != length || strncmp(t->name, name, length)) continue;
        assert(pcm_transport_complete(t));
        return t;
    }
    return NULL;
}

const struct pcm_transport *pcm_transport_find(const char *name, size_t length)
{
    const struct pcm_transport *t = pcm_transport_compiled(name, length);
    return t ? t : pcm_plugin_find(name, length);
}

const char *pcm_transports(void) { return "shm,tcp,mpi,inproc,null,chaos"; }
