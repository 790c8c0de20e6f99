/* tcp_address.c: where a rank listens, which addresses it publishes, how they are dialled, and by which rails. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tcp.h"

static const char MARK[4] = {'t', 'c', 'p', 2}; /* before the places in a published address; of who encrypts ... */
static const char MARK_SEALED[4] = {'t', 'c', 's', 2}; /* ... this */

static bool place_from(const struct sockaddr *address, struct tcp_place *place)
{
    *place = (struct tcp_place){0};
    if (address && address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const void *)address;
        place->family = 4;
        memcpy(place->bytes, &four->sin_addr, 4);
        return true;
    }
    if (address && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)address;
        place->family = 6;
        memcpy(place->bytes, &six->sin6_addr, 16);
        return true;
    }
    return false;
}

/* Such an address means something by an interface alone: fe80::1%eth0. */
static bool is_link_local(const struct tcp_place *place)
{
    return place->family == 6 && place->bytes[0] == 0xfe && (place->bytes[1] & 0xc0) == 0x80;
}

static socklen_t place_to(const struct tcp_place *place, unsigned scope, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof *address);
    if (place->family == 4) {
        struct sockaddr_in *four = (void *)address;
        four->sin_family = AF_INET;
        four->sin_port = htons(place->port);
        memcpy(&four->sin_addr, place->bytes, 4);
        return sizeof *four;
    }
    struct sockaddr_in6 *six = (void *)address;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(place->port);
    memcpy(&six->sin6_addr, place->bytes, 16);
    if (is_link_local(place)) six->sin6_scope_id = scope;
    return sizeof *six;
}

void tcp_place_name(const struct tcp_place *place, char *text, size_t capacity)
{
    char host[INET6_ADDRSTRLEN] = "?";
    inet_ntop(place->family == 4 ? AF_INET : AF_INET6, place->bytes, host, sizeof host);
    snprintf(text, capacity, place->family == 4 ? "%s:%u" : "[%s]:%u", host, place->port);
}

static void add(struct tcp_place *places, int *count, const struct tcp_place *place)
{
    for (int i = 0; i < *count; i++)
        if (!memcmp(&places[i], place, sizeof *place)) return;
    if (*count < TCP_PLACES) places[(*count)++] = *place;
}

/* Adds the addresses of an interface, or (NULL) of all that lead out of this host; family 0: any. */
static int add_interfaces(const char *name, int family, struct tcp_place *places, int *count)
{
    struct ifaddrs *all, *each;
    int before = *count;
    if (getifaddrs(&all)) return 0;
    for (each = all; each; each = each->ifa_next) {
        struct tcp_place place;
        if (name ? strcmp(name, each->ifa_name) != 0 : each->ifa_flags & IFF_LOOPBACK || !(each->ifa_flags & IFF_UP))
            continue;
        if (!place_from(each->ifa_addr, &place) || is_link_local(&place)) continue;
        if (!family || place.family == family) add(places, count, &place);
    }
    freeifaddrs(all);
    return *count - before;
}

/* Adds the places that a word means: an address, an interface's name or a host's name. A link-local address counts if it says
 * by which interface, and if all do by the same. */
static int add_word(const char *word, struct tcp_place *places, int *count, unsigned *scope)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found = NULL, *each;
    int before = *count;
    if (getaddrinfo(word, NULL, &hints, &found)) {
        if (add_interfaces(word, 0, places, count)) return *count - before;
        hints.ai_flags = AI_ADDRCONFIG;
        if (getaddrinfo(word, NULL, &hints, &found)) return 0;
    }
    for (each = found; each; each = each->ai_next) {
        struct tcp_place place;
        if (!place_from(each->ai_addr, &place)) continue;
        if (is_link_local(&place)) {
            unsigned by = ((const struct sockaddr_in6 *)(const void *)each->ai_addr)->sin6_scope_id;
            if (!by || (*scope && by != *scope)) continue;
            *scope = by;
        }
        add(places, count, &place);
    }
    freeaddrinfo(found);
    return *count - before;
}

static bool is_wildcard(const struct tcp_place *place)
{
    static const uint8_t zeros[16];
    return !memcmp(place->bytes, zeros, sizeof zeros);
}

/* Fills in what to publish: `advertise`, or where we listen, or every way into this host if that is everywhere. */
static int publish(const struct pcm_world_config *config, const struct tcp_place *bound, struct tcp_endpoint *endpoint)
{
    struct tcp_place *places = endpoint->places;
    int *count = &endpoint->nplaces;
    *count = 0;
    if (config->advertise) {
        char words[512];
        if (strlen(config->advertise) >= sizeof words)
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "`advertise` is longer than %zu characters", sizeof words - 1);
        strcpy(words, config->advertise);
        char *rest = words, *word;
        while ((word = strtok_r(rest, ", ", &rest)))
            if (!add_word(word, places, count, &endpoint->scope))
                return pcm_fail(PCM_ERR_ARGUMENT, -1, "`advertise` names %s, which is no address, interface or host",
                                word);
    } else if (!is_wildcard(bound)) {
        add(places, count, bound);
    } else if (!add_interfaces(NULL, bound->family == 4 ? 4 : 0, places, count)) {
        add_word(bound->family == 4 ? "127.0.0.1" : "::1", places, count, &endpoint->scope);
    }
    if (!*count) return pcm_fail(PCM_ERR_ARGUMENT, -1, "`advertise` is empty: name an address that peers can reach");
    for (int i = 0; i < *count; i++) places[i].port = bound->port;
    return PCM_OK;
}

int tcp_listen(const struct pcm_world_config *config, int *listening, struct tcp_endpoint *endpoint)
{
    const char *where = config->listen ? config->listen : "127.0.0.1";
    struct tcp_place bound;
    endpoint->nplaces = 0;
    if (!add_word(where, endpoint->places, &endpoint->nplaces, &endpoint->scope))
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "`listen` is %s, which is no address, interface or host", where);
    bound = endpoint->places[0];
    struct sockaddr_storage address;
    socklen_t length = place_to(&bound, endpoint->scope, &address);
    int off = 0, fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bound.family == 6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (fd < 0 || bind(fd, (void *)&address, length) || listen(fd, SOMAXCONN) ||
        getsockname(fd, (void *)&address, &length)) {
        int status = pcm_fail(PCM_ERR_SYSTEM, -1, "cannot listen on %s: %m", where);
        if (fd >= 0) close(fd);
        return status;
    }
    bound.port = ntohs(bound.family == 4 ? ((struct sockaddr_in *)&address)->sin_port
                                         : ((struct sockaddr_in6 *)&address)->sin6_port);
    int status = publish(config, &bound, endpoint);
    if (status)
        close(fd);
    else
        *listening = fd;
    return status;
}

int tcp_write_address(const struct tcp_place *places, int count, bool sealed, void *address, size_t *bytes)
{
    size_t needed = sizeof MARK + (size_t)count * sizeof *places, given = *bytes;
    *bytes = needed;
    if (given < needed)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "the tcp address needs %zu bytes, not %zu", needed, given);
    memcpy(address, sealed ? MARK_SEALED : MARK, sizeof MARK);
    memcpy((char *)address + sizeof MARK, places, (size_t)count * sizeof *places);
    return PCM_OK;
}

int tcp_read_address(const void *address, size_t bytes, struct tcp_place *places, bool *sealed)
{
    size_t count = (bytes - sizeof MARK) / sizeof *places;
    if (bytes <= sizeof MARK || (bytes - sizeof MARK) % sizeof *places || count > TCP_PLACES) return 0;
    *sealed = !memcmp(address, MARK_SEALED, sizeof MARK);
    if (!*sealed && memcmp(address, MARK, sizeof MARK)) return 0;
    memcpy(places, (const char *)address + sizeof MARK, count * sizeof *places);
    for (size_t i = 0; i < count; i++)
        if (places[i].family != 4 && places[i].family != 6) return 0;
    return (int)count;
}

int tcp_dial(const struct tcp_endpoint *endpoint, const struct tcp_rail *rail)
{
    struct sockaddr_storage address;
    socklen_t length = place_to(&rail->peer, endpoint->scope, &address);
    int on = 1, fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    bool bound = true;
    if (rail->own.family) {
        struct tcp_place own = rail->own;
        struct sockaddr_storage from;
        own.port = 0;
        socklen_t bytes = place_to(&own, endpoint->scope, &from);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on,
                   sizeof on); /* as many as there are with connect alone */
        bound = !bind(fd, (void *)&from, bytes);
    }
    if (!bound || (connect(fd, (void *)&address, length) && errno != EINPROGRESS && errno != EINTR)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* ---- rails ------------------------------------------------------------------------------------------------------- */

bool tcp_same_host(const struct tcp_place *a, const struct tcp_place *b)
{
    return a->family == b->family && !memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

/* A place without what a socket for both families puts around an IPv4 address. */
static bool place_of(const struct sockaddr_storage *address, struct tcp_place *place)
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    place_from((const void *)address, place);
    place->port =
        ntohs(address->ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)address)->sin_port
                                            : ((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    if (place->family == 6 && !memcmp(place->bytes, MAPPED, sizeof MAPPED)) {
        memmove(place->bytes, place->bytes + sizeof MAPPED, 4);
        memset(place->bytes + 4, 0, sizeof MAPPED);
        place->family = 4;
    }
    return place->family;
}

bool tcp_ends(int fd, struct tcp_place *own, struct tcp_place *peer)
{
    struct sockaddr_storage here, there;
    socklen_t length = sizeof here, bytes = sizeof there;
    return !getsockname(fd, (void *)&here, &length) && !getpeername(fd, (void *)&there, &bytes) &&
           place_of(&here, own) && place_of(&there, peer);
}

static bool has(const struct tcp_place *places, int count, const struct tcp_place *place)
{
    for (int i = 0; i < count; i++)
        if (tcp_same_host(&places[i], place)) return true;
    return false;
}

int tcp_foreign(const struct tcp_endpoint *endpoint, struct tcp_place *places, int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (has(endpoint->places, endpoint->nplaces, &places[i])) continue;
        struct tcp_place place = places[i];
        places[kept++] = place;
    }
    return kept ? kept : count; /* the lists are moved only where something else stays */
}

/* The network that an address of this host lies in. */
struct net {
    unsigned index; /* of the interface; 0: none has it */
    bool loopback;
    uint8_t mask[16];
};

static bool within(const uint8_t *mask, const struct tcp_place *a, const struct tcp_place *b)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < sizeof a->bytes; i++) differ |= (uint8_t)((a->bytes[i] ^ b->bytes[i]) & mask[i]);
    return a->family == b->family && !differ;
}

static struct net net_of(const struct ifaddrs *all, const struct tcp_place *place)
{
    for (; all; all = all->ifa_next) {
        struct tcp_place address, mask;
        if (!all->ifa_netmask || !place_from(all->ifa_addr, &address)) continue;
        place_from(all->ifa_netmask, &mask);
        struct net net = {.index = if_nametoindex(all->ifa_name), .loopback = all->ifa_flags & IFF_LOOPBACK};
        memcpy(net.mask, mask.bytes, sizeof net.mask);
        /* Any address of loopback's network is one's own. */
        if (net.loopback ? within(net.mask, &address, place) : tcp_same_host(&address, place)) return net;
    }
    return (struct net){0};
}

/* The address that the kernel would send from to a place. */
static bool source_for(const struct tcp_place *place, unsigned scope, struct tcp_place *own)
{
    struct sockaddr_storage address;
    struct tcp_place peer;
    socklen_t length = place_to(place, scope, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool known = !connect(fd, (void *)&address, length) && tcp_ends(fd, own, &peer); /* sends nothing */
    close(fd);
    return known;
}

struct finding { /* of rails, under way */
    const struct tcp_endpoint *endpoint;
    struct net nets[TCP_PLACES]; /* of the endpoint's places */
    struct tcp_rail *rails;
    int count;
};

/* Each address is an end of one rail at most, and so is each interface of this host: its addresses share what it carries. */
static bool is_free(const struct finding *finding, int own, const struct tcp_place *peer)
{
    const struct tcp_place *places = finding->endpoint->places;
    for (int i = 0; i < finding->count; i++) {
        const struct tcp_rail *rail = &finding->rails[i];
        if (tcp_same_host(&rail->own, &places[own]) || tcp_same_host(&rail->peer, peer)) return false;
        if (finding->nets[own].loopback) continue;
        for (int k = 0; k < finding->endpoint->nplaces; k++)
            if (tcp_same_host(&rail->own, &places[k]) && finding->nets[k].index == finding->nets[own].index)
                return false;
    }
    return finding->count < TCP_MOST_STREAMS;
}

static void consider(struct finding *finding, int own, const struct tcp_place *peer)
{
    if (!finding->nets[own].index || !is_free(finding, own, peer)) return;
    finding->rails[finding->count++] = (struct tcp_rail){finding->endpoint->places[own], *peer};
}

int tcp_find_rails(const struct tcp_endpoint *endpoint, const struct tcp_place *places, int count,
                   struct tcp_rail *rails)
{
    struct finding finding = {.endpoint = endpoint, .rails = rails, .count = 1};
    struct ifaddrs *all = NULL;
    if (endpoint->nplaces < 2 || count < 2 || has(endpoint->places, endpoint->nplaces, &rails[0].peer)) return 1;
    if (getifaddrs(&all)) return 1;
    for (int i = 0; i < endpoint->nplaces; i++) finding.nets[i] = net_of(all, &endpoint->places[i]);
    freeifaddrs(all);
    for (int i = 0; i < endpoint->nplaces; i++) /* first those on one network, then those that a router joins */
        for (int k = 0; k < count; k++)
            if (within(finding.nets[i].mask, &endpoint->places[i], &places[k])) consider(&finding, i, &places[k]);
    for (int k = 0; k < count; k++) {
        struct tcp_place own;
        if (!source_for(&places[k], endpoint->scope, &own)) continue;
        for (int i = 0; i < endpoint->nplaces; i++)
            if (tcp_same_host(&endpoint->places[i], &own)) consider(&finding, i, &places[k]);
    }
    return finding.count;
}
