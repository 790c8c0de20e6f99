/* flow.c: Dinic's algorithm: flows along all shortest ways at once, until there is no way. */
#include "flow.h"

#include <stdlib.h>

#include "core.h"

struct search {
    const struct pcm_flow_network *net;
    int32_t *start, *order;    /* the arcs that begin at v are order[start[v]] to order[start[v + 1] - 1] */
    int32_t *level;            /* distance from the source in arcs; -1: not reached */
    int32_t *left, *queue;     /* the next arc that v has not tried; vertices, later the arcs of a way */
};

static int usable(const struct search *s, int32_t arc) { return s->net->capacity[arc] > s->net->nothing; }

static void sort_arcs(struct search *s)
{
    const struct pcm_flow_network *net = s->net;
    for (int32_t v = 0; v <= net->vertices; v++) s->start[v] = 0;
    for (int32_t a = 0; a < net->arcs; a++) s->start[net->head[a ^ 1] + 1]++;
    for (int32_t v = 0; v < net->vertices; v++) s->start[v + 1] += s->start[v];
    for (int32_t v = 0; v < net->vertices; v++) s->left[v] = s->start[v];
    for (int32_t a = 0; a < net->arcs; a++) s->order[s->left[net->head[a ^ 1]]++] = a;
}

/* Number the vertices by their distance; the search ends with the layer of the sink. */
static void find_levels(struct search *s, int32_t source, int32_t sink)
{
    int32_t first = 0, last = 0;
    for (int32_t v = 0; v < s->net->vertices; v++) s->level[v] = -1;
    s->level[source] = 0;
    s->queue[last++] = source;
    while (first < last && s->level[sink] < 0) {
        const int32_t u = s->queue[first++];
        for (int32_t i = s->start[u]; i < s->start[u + 1]; i++) {
            const int32_t v = s->net->head[s->order[i]];
            if (s->level[v] >= 0 || !usable(s, s->order[i])) continue;
            s->level[v] = s->level[u] + 1;
            s->queue[last++] = v;
        }
    }
}

/* Send along ways that climb one level an arc, until there is none. */
static double block(struct search *s, int32_t source, int32_t sink)
{
    double total = 0, *const capacity = s->net->capacity;
    int32_t *const way = s->queue, length = 0, u = source;
    for (int32_t v = 0; v < s->net->vertices; v++) s->left[v] = s->start[v];
    for (;;) {
        if (u == sink) {
            double amount = capacity[way[0]];
            for (int32_t i = 1; i < length; i++)
                if (capacity[way[i]] < amount) amount = capacity[way[i]];
            int32_t full = length;
            for (int32_t i = length - 1; i >= 0; i--) {
                capacity[way[i]] -= amount;
                capacity[way[i] ^ 1] += amount;
                if (!usable(s, way[i])) full = i;
            }
            total += amount;
            length = full;
            u = s->net->head[way[full] ^ 1];
        }
        while (s->left[u] < s->start[u + 1]) {
            const int32_t arc = s->order[s->left[u]];
            if (usable(s, arc) && s->level[s->net->head[arc]] == s->level[u] + 1) break;
            s->left[u]++;
        }
        if (s->left[u] < s->start[u + 1]) {
            way[length++] = s->order[s->left[u]];
            u = s->net->head[way[length - 1]];
        } else {
            if (u == source) return total;
            s->level[u] = -1; /* leads nowhere */
            u = s->net->head[way[--length] ^ 1];
        }
    }
}

int pcm_max_flow(struct pcm_flow_network *network, int32_t source, int32_t sink, double enough, double *flow,
                 uint8_t *side)
{
    const int32_t n = network->vertices;
    if (source < 0 || source >= n || sink < 0 || sink >= n || source == sink)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "a flow from vertex %d to %d among %d", (int)source, (int)sink, (int)n);
    int32_t *const memory = malloc((4 * (size_t)n + 1 + (size_t)network->arcs) * sizeof *memory);
    if (!memory) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a flow among %d vertices", (int)n);
    struct search s = {network, memory, memory + 4 * n + 1, memory + n + 1, memory + 2 * n + 1, memory + 3 * n + 1};
    sort_arcs(&s);
    *flow = 0;
    for (int32_t v = 0; v < n; v++) side[v] = 0;
    while (*flow < enough) {
        find_levels(&s, source, sink);
        if (s.level[sink] < 0) {
            for (int32_t v = 0; v < n; v++) side[v] = s.level[v] >= 0;
            break;
        }
        *flow += block(&s, source, sink);
    }
    free(memory);
    return PCM_OK;
}
