/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * first-act FIFO ID PORT ADDRESS...: waits for the FIFO, as a container's program waits for runc, and then does first what it must not
 * be able to: sends three datagrams "ID INDEX" to each ADDRESS. The FIFO is gone when they are sent. Stays until it is killed.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
        struct sockaddr_in to = {.sin_family = AF_INET};
        char text[128];
        char go;
        int on = 1;

        if (argc < 5) {
                fprintf(stderr, "usage: first-act FIFO ID PORT ADDRESS...\n");
                return 2;
        }
        to.sin_port = htons((uint16_t) strtoul(argv[3], NULL, 10));
        int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (s < 0 || setsockopt(s, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)) < 0) {
                perror("first-act: socket");
                return 1;
        }
        int fifo = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (fifo < 0 || read(fifo, &go, 1) != 1) {
                perror(argv[1]);
                return 1;
        }
        for (int k = 0; k < 3; k++)
                for (int i = 4; i < argc; i++) {
                        int n = snprintf(text, sizeof(text), "%s %d", argv[2], i - 4);
                        if (n < 0 || inet_pton(AF_INET, argv[i], &to.sin_addr) != 1)
                                return 2;
                        /* A kernel that refuses it is as good as one that drops it. */
                        if (sendto(s, text, (size_t) n, 0, (struct sockaddr *) &to, sizeof(to)) < 0 &&
                                errno != EPERM)
                                perror(argv[i]);
                }
        if (unlink(argv[1]) < 0)
                perror(argv[1]);
        for (;;)
                (void) pause();
}
