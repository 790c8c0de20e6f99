/* tcp_cipher.c: encrypted streams. What goes over a connection is cut into records, each sealed with AES-256-GCM:
 *
 *     how many bytes are sealed (32 bits) | those bytes | their tag (16 bytes)
 *
 * A record holds frames, so also their headers are hidden. The two directions of a connection have keys of their own,
 * which both ends derive from the job's secret and the nonces of the handshake; so no key is ever used for two connections.
 * The nonce is the record's number in its direction, and its length is signed with it: a record that is changed, left out,
 * sent twice or comes in another order does not open. (AES-GCM: NIST SP 800-38D, whose deterministic nonces these are;
 * section 8.2.1.)
 *
 * The cipher is OpenSSL's, which is looked for when it is asked for. Nothing else here needs it, so pycomm is not linked to it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tcp.h"

enum {
    LENGTH = 4,
    TAG = 16,
    NONCE = 12,
    MOST = sizeof(struct tcp_wire) + PCM_FRAGMENT, /* bytes that are sealed at once: the longest frame */
    RECORD = LENGTH + MOST + TAG,
};

/* ---- OpenSSL's libcrypto ------------------------------------------------------------------------------------------ */

/* As in its openssl/evp.h and openssl/crypto.h, since 1.1.0. */
enum { GET_TAG = 0x10, SET_TAG = 0x11 };
static const uint64_t NO_ATEXIT = 0x80000; /* it shall stay as it is while threads of ours run */

typedef void context, cipher;

static struct {
    int (*init)(uint64_t options, const void *settings);
    const cipher *(*aes_256_gcm)(void);
    context *(*create)(void);
    void (*release)(context *);
    int (*begin)(context *, const cipher *, void *engine, const uint8_t *key, const uint8_t *nonce, int encrypts);
    int (*control)(context *, int command, int number, void *bytes);
    int (*update)(context *, uint8_t *out, int *written, const uint8_t *in, int bytes);
    int (*end)(context *, uint8_t *out, int *written);
} crypto;
static bool found;

static void find(void)
{
    static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so"};
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"OPENSSL_init_crypto", &crypto.init},  {"EVP_aes_256_gcm", &crypto.aes_256_gcm},
        {"EVP_CIPHER_CTX_new", &crypto.create}, {"EVP_CIPHER_CTX_free", &crypto.release},
        {"EVP_CipherInit_ex", &crypto.begin},   {"EVP_CIPHER_CTX_ctrl", &crypto.control},
        {"EVP_CipherUpdate", &crypto.update},   {"EVP_CipherFinal_ex", &crypto.end},
    };
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++) library = dlopen(names[i], RTLD_NOW);
    bool all = library;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && all; i++) {
        void *symbol = dlsym(library, wanted[i].name);
        memcpy(wanted[i].function, &symbol, sizeof symbol); /* C has no cast from the one to the other */
        all = symbol;
    }
    found = all && crypto.init(NO_ATEXIT, NULL);
}

int tcp_find_cipher(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return found ? PCM_OK
                 : pcm_fail(PCM_ERR_ARGUMENT, -1,
                            "encryption is asked for, and there is no OpenSSL (libcrypto.so.3, or 1.1) on this host: "
                            "install it, or do without encryption on all ranks");
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

struct direction {
    context *context;
    uint64_t record; /* number of the next */
};

struct tcp_cipher {
    struct direction out, in;
    size_t plain;              /* bytes that are sealed in the record under way; 0: there is none */
    size_t at, end;            /* of the record under way: sent, in all */
    size_t first, have;        /* of what has come: where the next record begins, and where it ends */
    uint8_t going[RECORD];
    uint8_t come[2 * RECORD];
};

static bool open_direction(struct direction *direction, const uint8_t key[32], bool encrypts)
{
    direction->context = crypto.create();
    return direction->context && crypto.begin(direction->context, crypto.aes_256_gcm(), NULL, key, NULL, encrypts) == 1;
}

struct tcp_cipher *tcp_cipher_create(const struct pcm_keys *keys)
{
    struct tcp_cipher *cipher = malloc(sizeof *cipher);
    if (!cipher) return NULL;
    memset(cipher, 0, offsetof(struct tcp_cipher, going));
    if (open_direction(&cipher->out, keys->out, true) && open_direction(&cipher->in, keys->in, false)) return cipher;
    tcp_cipher_free(cipher);
    return NULL;
}

void tcp_cipher_free(struct tcp_cipher *cipher)
{
    if (!cipher) return;
    if (cipher->out.context) crypto.release(cipher->out.context);
    if (cipher->in.context) crypto.release(cipher->in.context);
    free(cipher);
}

/* Begins a record: its number, and its length, which goes before it. */
static bool begin(struct direction *direction, int encrypts, const uint8_t length[LENGTH])
{
    uint8_t nonce[NONCE] = {0};
    int none;
    memcpy(nonce + NONCE - sizeof direction->record, &direction->record, sizeof direction->record);
    return crypto.begin(direction->context, NULL, NULL, NULL, nonce, encrypts) == 1 &&
           crypto.update(direction->context, NULL, &none, length, LENGTH) == 1;
}

/* Seals as many whole pieces as a record holds. */
static bool seal(struct tcp_cipher *cipher, const struct iovec *pieces, int count)
{
    size_t plain = 0;
    int written;
    for (int i = 0; i < count && plain + pieces[i].iov_len <= MOST; i++) plain += pieces[i].iov_len;
    uint32_t length = (uint32_t)plain;
    memcpy(cipher->going, &length, LENGTH);
    bool good = begin(&cipher->out, 1, cipher->going);
    uint8_t *to = cipher->going + LENGTH;
    for (size_t left = plain; good && left > 0; pieces++) {
        good = crypto.update(cipher->out.context, to, &written, pieces->iov_base, (int)pieces->iov_len) == 1;
        to += pieces->iov_len;
        left -= pieces->iov_len;
    }
    good = good && crypto.end(cipher->out.context, to, &written) == 1 &&
           crypto.control(cipher->out.context, GET_TAG, TAG, to) == 1;
    cipher->out.record++;
    cipher->at = 0, cipher->end = LENGTH + plain + TAG;
    cipher->plain = plain;
    return good;
}

ssize_t tcp_cipher_send(struct tcp_cipher *cipher, int fd, const struct iovec *pieces, int count)
{
    if (!cipher->plain && !seal(cipher, pieces, count)) {
        errno = EIO;
        return -1;
    }
    while (cipher->at < cipher->end) {
        ssize_t written = send(fd, cipher->going + cipher->at, cipher->end - cipher->at, MSG_NOSIGNAL);
        if (written < 0) return -1;
        cipher->at += (size_t)written;
    }
    size_t plain = cipher->plain;
    cipher->plain = 0;
    return (ssize_t)plain;
}

/* Opens a record where it lies, or elsewhere; false: it is not the one that was sealed as the next. */
static bool open_record(struct tcp_cipher *cipher, uint8_t *record, uint32_t length, uint8_t *to)
{
    struct direction *in = &cipher->in;
    int written;
    uint8_t *tag = record + LENGTH + length;
    return begin(in, 0, record) && crypto.update(in->context, to, &written, record + LENGTH, (int)length) == 1 &&
           crypto.control(in->context, SET_TAG, TAG, tag) == 1 && crypto.end(in->context, to + length, &written) == 1;
}

bool tcp_cipher_holds(const struct tcp_cipher *cipher)
{
    uint32_t length;
    size_t have = cipher->have - cipher->first;
    if (have < LENGTH) return false;
    memcpy(&length, cipher->come + cipher->first, LENGTH);
    return length > MOST || have >= LENGTH + (size_t)length + TAG;
}

ssize_t tcp_cipher_receive(struct tcp_cipher *cipher, int fd, const uint8_t **bytes)
{
    while (!tcp_cipher_holds(cipher)) {
        memmove(cipher->come, cipher->come + cipher->first, cipher->have - cipher->first);
        cipher->have -= cipher->first;
        cipher->first = 0;
        ssize_t got = recv(fd, cipher->come + cipher->have, sizeof cipher->come - cipher->have, 0);
        if (got <= 0) return got;
        cipher->have += (size_t)got;
    }
    uint8_t *record = cipher->come + cipher->first;
    uint32_t length;
    memcpy(&length, record, LENGTH);
    if (!length || length > MOST || !open_record(cipher, record, length, record + LENGTH)) {
        errno = EBADMSG;
        return -1;
    }
    cipher->in.record++;
    cipher->first += LENGTH + (size_t)length + TAG;
    *bytes = record + LENGTH;
    return (ssize_t)length;
}

ssize_t tcp_cipher_glance(struct tcp_cipher *cipher, int fd, void *to, size_t bytes)
{
    uint8_t record[LENGTH + 256 + TAG], plain[256];
    uint32_t length;
    ssize_t there = recv(fd, record, sizeof record, MSG_PEEK | MSG_DONTWAIT);
    if (there < LENGTH) return there;
    memcpy(&length, record, LENGTH);
    if (length < bytes || length > sizeof plain || (size_t)there < LENGTH + length + TAG) return LENGTH;
    if (!open_record(cipher, record, length, plain)) return LENGTH;
    memcpy(to, plain, bytes);
    return (ssize_t)bytes;
}
