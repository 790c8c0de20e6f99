/* plugin.c: transports in shared objects of their own: found, checked, and kept for as long as the process lives. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

#define SYMBOL "pycomm_transport_v1" /* ends in PCM_TRANSPORT_VERSION */

enum { LONGEST_NAME = 255 }; /* what an address has room for */

struct loaded {
    const struct pcm_transport *transport;
    struct loaded *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loaded *list;

/* Worlds hold on to the table, so nothing is ever unloaded. */
static const struct pcm_transport *known(const char *name, size_t length)
{
    for (struct loaded *l = list; l; l = l->next)
        if (strlen(l->transport->name) == length && !memcmp(l->transport->name, name, length)) return l->transport;
    return NULL;
}

static int check(const struct pcm_plugin *plugin, const char *path)
{
    if (plugin->version != PCM_TRANSPORT_VERSION || plugin->transport_bytes != sizeof(struct pcm_transport) ||
        plugin->channel_bytes != sizeof(struct pcm_channel) || plugin->endpoint_bytes != sizeof(struct pcm_endpoint))
        return pcm_fail(PCM_ERR_SYSTEM, -1,
                        "%s was built for another pycomm (version %u of the contract, a table of %u bytes; here %u and "
                        "%zu): build it again with this one's pycomm/transport.h",
                        path, plugin->version, plugin->transport_bytes, PCM_TRANSPORT_VERSION,
                        sizeof(struct pcm_transport));
    const struct pcm_transport *t = plugin->transport;
    if (!t || !pcm_transport_complete(t))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "the transport in %s lacks slots that every transport has", path);
    size_t length = strlen(t->name);
    if (!length || length > LONGEST_NAME || strpbrk(t->name, "/:,;"))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "the transport in %s calls itself `%s`, which is no name", path, t->name);
    const struct pcm_transport *other = pcm_transport_compiled(t->name, length);
    if (!other) other = known(t->name, length);
    if (other && other != t)
        return pcm_fail(PCM_ERR_SYSTEM, -1, "the transport in %s calls itself %s, as another does that is there", path,
                        t->name);
    return PCM_OK;
}

static int load(const char *path, const struct pcm_transport **transport)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) return pcm_fail(PCM_ERR_ARGUMENT, -1, "%s", dlerror());
    const struct pcm_plugin *plugin = dlsym(object, SYMBOL);
    int rc = plugin ? check(plugin, path)
                    : pcm_fail(PCM_ERR_SYSTEM, -1,
                               "%s has no " SYMBOL ": it is no transport, or one for another version of pycomm", path);
    struct loaded *entry = NULL;
    if (!rc && !known(plugin->transport->name, strlen(plugin->transport->name))) {
        entry = malloc(sizeof *entry);
        if (!entry) rc = pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the transport in %s", path);
    }
    if (rc) {
        dlclose(object);
        return rc;
    }
    if (entry) *entry = (struct loaded){plugin->transport, list}, list = entry;
    *transport = plugin->transport;
    return PCM_OK;
}

int pcm_transport_load(const char *path)
{
    const struct pcm_transport *transport;
    pthread_mutex_lock(&lock);
    int rc = load(path, &transport);
    pthread_mutex_unlock(&lock);
    return rc;
}

const struct pcm_transport *pcm_plugin_find(const char *name, size_t length)
{
    char file[4096];
    bool path = memchr(name, '/', length);
    int needed = snprintf(file, sizeof file, path ? "%.*s" : "libpycomm-transport-%.*s.so", (int)length, name);
    if (needed < 0 || (size_t)needed >= sizeof file) {
        pcm_fail(PCM_ERR_ARGUMENT, -1, "the name of a transport has %zu letters", length);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    const struct pcm_transport *found = path ? NULL : known(name, length);
    if (!found && load(file, &found) != PCM_OK) {
        struct pcm_error why = *pcm_last_error();
        if (why.code ==
            PCM_ERR_ARGUMENT) /* there is no such file; what is wrong with one that is there stands by itself */
            pcm_fail(PCM_ERR_ARGUMENT, -1, "there is no transport called %.*s: have %s; and no plugin: %s", (int)length,
                     name, pcm_transports(), why.text);
    } else if (!path && (strlen(found->name) != length || memcmp(found->name, name, length))) {
        pcm_fail(PCM_ERR_ARGUMENT, -1, "the transport in %s calls itself %s", file, found->name);
        found = NULL;
    }
    pthread_mutex_unlock(&lock);
    return found;
}
