/* flow.h: maximum flows, and the minimum cuts that prove them; on machines of up to thousands of links, many times. */
#ifndef PYCOMM_FLOW_H
#define PYCOMM_FLOW_H

#include <stdint.h>

#include "pycomm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A network. Arcs come in pairs that are each other's residual: arc a ends at head[a] and begins at head[a ^ 1]. */
struct pcm_flow_network {
    int32_t vertices;
    int32_t arcs;         /* an even number */
    const int32_t *head;  /* [arcs]: vertices, which is not checked */
    double *capacity;     /* [arcs]: what an arc can still carry; the flow is taken off */
    double nothing;       /* capacities up to this are rounding; 0 where all of them are whole numbers */
};

/* The greatest flow from source to sink, by Dinic's algorithm ("Algorithm for solution of a problem of maximum flow in
 * networks with power estimation", 1970). It is not looked for beyond `enough`. side[v] says whether v is in the
 * smallest source side of a cut that allows no more; where enough was found there is none, and side[source] is 0.
 * PCM_ERR_ARGUMENT for ends that do not exist or are one vertex,
 * PCM_ERR_SYSTEM without memory. */
PCM_API int pcm_max_flow(struct pcm_flow_network *network, int32_t source, int32_t sink, double enough, double *flow,
                         uint8_t *side);

#ifdef __cplusplus
}
#endif
#endif
