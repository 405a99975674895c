/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of a RegistryCall: call.c's own. */

#include "registry-client/internal.h"

typedef enum CallState {
        CALL_HELPER,  /* waits for credentials.c; the 401 is still there to be looked at */
        CALL_TOKEN,   /* waits for auth.c */
        CALL_RUNNING, /* an HTTP exchange is under way */
        CALL_PAUSE,   /* the timer runs until the next try */
        CALL_DONE,    /* `done` was called; answer and body can be read */
} CallState;

struct RegistryCall {
        RegistryClient *client;
        RegistryCallOptions o; /* its strings are not ours: only what is copied below may be used later */
        CallState state;
        char *first_url, *url;
        bool home;    /* url is at the registry itself */
        bool proxied; /* the exchange goes through a proxy */
        char **headers, **scopes;
        char *authorization; /* given */
        char *token;         /* found: "Bearer ..." or "Basic ..." */
        void *request_body;
        unsigned tries_left, tried, redirects;
        unsigned challenges; /* how many 401 this try has answered */
        unsigned repeats;    /* how often the owner has to rewind */
        bool helper_asked;   /* about this answer */
        bool refused;        /* `token` is the one that was refused */
        bool consumed;       /* the owner gave or got body bytes in this exchange */
        bool progressed;     /* among them some that it had not got before */
        bool heard_enough;   /* we broke off the body of an error answer */
        size_t error_body_size;
        TbBuffer body;
        TbError *abort_reason;
        TbHttpRequest *request;
        sd_event_source *timer;
};

/* Gets what the Authorization header needs, then sends; may have to wait for a token. */
int registry_call_attempt(RegistryCall *call, TbError **err) _warn_unused_;
/* Can the body be sent, or be taken, once more? */
bool registry_call_may_repeat(const RegistryCall *call);
/* Of a 401: 1 = tries again with credentials, 0 = the answer stands. */
int registry_call_challenge(RegistryCall *call, TbError **err) _warn_unused_;
int registry_call_use_token(RegistryCall *call, const char *token, TbError **err) _warn_unused_;
