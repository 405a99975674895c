/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * head-loop PORT REPOSITORY TAG COUNT: latency of COUNT manifest HEADs on one connection, in turns
 *
 * ours: registry_resolve(); bare: the same request (as long, byte for byte nearly) by send(2) and recv(2). They alternate in
 * blocks, so that the machine's moods hit both. Prints {"ours_us": ..., "bare_us": ...}, each per request.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "registry-client/registry.h"

#define BLOCK 50

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

static int bare_connect(int port)
{
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (fd < 0 || connect(fd, (struct sockaddr *) &to, sizeof(to)) < 0)
                exit(1);
        return fd;
}

static void bare_head(int fd, const char *request)
{
        size_t size = strlen(request), n = 0;
        char answer[4096];

        if (send(fd, request, size, 0) != (ssize_t) size)
                exit(1);
        for (;;) {
                ssize_t r = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);

                if (r <= 0)
                        exit(1);
                n += (size_t) r;
                answer[n] = 0;
                if (strstr(answer, "\r\n\r\n"))
                        break;
        }
        if (strncmp(answer, "HTTP/1.1 200", 12) != 0)
                exit(1);
}

int main(int argc, char **argv)
{
        _cleanup_(registry_client_freep) RegistryClient *client = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_error_ TbError *err = NULL;
        uint64_t ours = 0, bare = 0, start;
        char name[512], request[1024];
        unsigned count, done = 0;
        int fd;

        if (argc != 5)
                return 2;
        count = (unsigned) strtoul(argv[4], NULL, 10);
        (void) snprintf(name, sizeof(name), "127.0.0.1:%s/%s:%s", argv[1], argv[2], argv[3]);
        (void) snprintf(request, sizeof(request),
                "HEAD /v2/%s/manifests/%s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUser-Agent: bare\r\nAccept: %s, "
                "%s, %s, %s\r\n\r\n",
                argv[2], argv[3], argv[1], REGISTRY_TYPE_OCI_INDEX, REGISTRY_TYPE_DOCKER_LIST,
                REGISTRY_TYPE_OCI_MANIFEST, REGISTRY_TYPE_DOCKER_MANIFEST);
        if (registry_client_new(NULL, &client, &err) < 0 || registry_ref_parse(name, &ref, &err) < 0)
                goto failed;
        fd = bare_connect((int) strtol(argv[1], NULL, 10));
        while (done < count) {
                start = now_ns();
                for (unsigned i = 0; i < BLOCK; i++) {
                        RegistryDescriptor d = {0};

                        if (registry_resolve(client, ref, &d, &err) <= 0)
                                goto failed;
                        registry_descriptor_done(&d);
                }
                ours += now_ns() - start;
                start = now_ns();
                for (unsigned i = 0; i < BLOCK; i++)
                        bare_head(fd, request);
                bare += now_ns() - start;
                done += BLOCK;
        }
        printf("{\"ours_us\": %.2f, \"bare_us\": %.2f}\n", (double) ours / 1000 / done,
                (double) bare / 1000 / done);
        return 0;

failed:
        fprintf(stderr, "head-loop: %s\n", tb_error_message(err));
        return 1;
}
