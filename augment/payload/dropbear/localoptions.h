/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What differs from dropbear's default_options.h, which includes this file. The server in the payload lets people in
 * by public key only, finds everything it needs under /tbnode, and takes its host keys and port from its command line.
 */
#ifndef TBNODE_LOCALOPTIONS_H
#define TBNODE_LOCALOPTIONS_H

/* Nobody logs in with a password: no crypt(), no shadow, no guessing. */
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_SVR_PUBKEY_AUTH 1

/* init names the host keys with -r; these would only be looked at without it. */
#define RSA_PRIV_FILENAME "/run/tbnode/ssh/host_key_rsa"
#define ECDSA_PRIV_FILENAME "/run/tbnode/ssh/host_key_ecdsa"
#define ED25519_PRIV_FILENAME "/run/tbnode/ssh/host_key_ed25519"
#define DROPBEAR_PIDFILE "/run/tbnode/ssh/pid"

/* The image's own programs first, the payload's last. init hands the image's own PATH down (-e), which wins. */
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin:/tbnode/bin"
#define DEFAULT_ROOT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/tbnode/bin"

/* The message of the day of an image says nothing about the node. */
#define DO_MOTD 0

/* Scripts log in to many nodes, and many times to one node, from one control host at once: all of them come from one
 * address, the network's gateway. There is no password to be guessed; who only holds a connection loses it soon. */
#define MAX_UNAUTH_PER_IP 250
#define MAX_UNAUTH_CLIENTS 300
#define AUTH_TIMEOUT 60

/* Running the program anew for each connection gives each its own address space layout; ours is fixed. */
#define DROPBEAR_REEXEC 0

/* 24 kB, the default, is far too little for copies over anything but a LAN. */
#define DEFAULT_RECV_WINDOW 1048576

#define DROPBEAR_SFTPSERVER 1
#define SFTPSERVER_PATH "/tbnode/bin/sftp-server"
/* No program for it is in the payload. */
#define DROPBEAR_X11FWD 0
/* -i: for nodes that are served from outside, see pipes.c. */
#define INETD_MODE 1

/* SHA-1 has no place in new deployments; every client of the last ten years knows the others. */
#define DROPBEAR_RSA_SHA1 0
#define DROPBEAR_DH_GROUP14_SHA1 0
#define DROPBEAR_SHA1_HMAC 0

#endif
