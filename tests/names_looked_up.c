/* Preloaded: no name is resolved and nothing but this machine is reached; what was asked for goes to $LOOKED_UP. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int local(const char *name) {
    if (name && !strncmp(name, "::ffff:", 7)) name += 7; /* IPv4 by a socket of IPv6 */
    return !name || !*name || !strcmp(name, "localhost") || !strcmp(name, "::1") || !strncmp(name, "127.", 4) ||
           !strcmp(name, "0.0.0.0") || !strcmp(name, "::");
}

static void tell(const char *what, const char *name) {
    const char *file = getenv("LOOKED_UP");
    FILE *out = file ? fopen(file, "a") : NULL;
    if (out) {
        fprintf(out, "%s %s\n", what, name);
        fclose(out);
    }
}

static int foreign(const struct sockaddr *to) {
    char text[INET6_ADDRSTRLEN] = "";
    if (!to) return 0;
    if (to->sa_family == AF_INET) inet_ntop(AF_INET, &((const struct sockaddr_in *)to)->sin_addr, text, sizeof text);
    else if (to->sa_family == AF_INET6) inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)to)->sin6_addr, text, sizeof text);
    else return 0;
    if (local(text)) return 0;
    tell("connect", text);
    return 1;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (local(name)) return real(name, service, hints, found);
    tell("look up", name);
    return EAI_NONAME;
}

struct hostent *gethostbyname(const char *name) {
    tell("look up", name);
    h_errno = HOST_NOT_FOUND;
    return NULL;
}

int connect(int socket, const struct sockaddr *to, socklen_t size) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (!foreign(to)) return real(socket, to, size);
    errno = ENETUNREACH;
    return -1;
}

ssize_t sendto(int socket, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    if (!foreign(to)) return real(socket, data, length, flags, to, size);
    errno = ENETUNREACH;
    return -1;
}
