/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session over standard input and output (dropbear -i), for nodes that are served from outside: /tbnode/init ssh
 *
 * dropbear means inetd's way by -i: one socket as descriptor 0. What the engine gives a program is a pair of pipes, without addresses.
 * Linked in with -Wl,--wrap=common_session_init,--wrap=get_socket_address. Only -i ever has descriptor 0 as its connection: a listening
 * dropbear keeps it open for something else.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tbnode-passwd.h"

void __real_common_session_init(int sock_in, int sock_out);
void __wrap_common_session_init(int sock_in, int sock_out);
void __real_get_socket_address(int fd, char **local_host, char **local_port, char **remote_host,
        char **remote_port, int host_lookup);
void __wrap_get_socket_address(int fd, char **local_host, char **local_port, char **remote_host,
        char **remote_port, int host_lookup);

void __wrap_common_session_init(int sock_in, int sock_out)
{
        __real_common_session_init(sock_in, sock_in == STDIN_FILENO ? STDOUT_FILENO : sock_out);
}

/* "REMOTE-ADDRESS REMOTE-PORT LOCAL-ADDRESS LOCAL-PORT", as in SSH_CONNECTION. */
static char addresses[4][64] = {"unknown", "0", "unknown", "0"};

static void take_addresses(void)
{
        const char *text = getenv(TBNODE_CONNECTION);

        if (!text)
                return;
        (void) sscanf(text, "%63s %63s %63s %63s", addresses[0], addresses[1], addresses[2], addresses[3]);
        (void) unsetenv(TBNODE_CONNECTION); /* sessions inherit the environment */
}

static void hand_out(char **ret, const char *text)
{
        if (ret && !(*ret = strdup(text)))
                abort();
}

void __wrap_get_socket_address(int fd, char **local_host, char **local_port, char **remote_host,
        char **remote_port, int host_lookup)
{
        if (fd != STDIN_FILENO) {
                __real_get_socket_address(fd, local_host, local_port, remote_host, remote_port, host_lookup);
                return;
        }
        take_addresses();
        hand_out(remote_host, addresses[0]);
        hand_out(remote_port, addresses[1]);
        hand_out(local_host, addresses[2]);
        hand_out(local_port, addresses[3]);
}
