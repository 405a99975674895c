/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-commands.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "augment/client/client-link.h"
#include "augment/client/client-system.h"
#include "augment/client/client-text.h"
#include "augment/client/util.h"

#define ANSWER_MS 30000
#define TIMEOUT_MAX (365U * 86400U)

typedef struct Asker {
        const char *socket;
        bool json;
        char **args; /* behind the command, NULL-terminated */
} Asker;

/* ---- Asking and printing -------------------------------------------------------------------------------------------- */

/* Text of others on a terminal: without what a terminal would obey. */
static void put(const char *s)
{
        for (; *s; s++)
                putchar((unsigned char) *s < 0x20 || *s == 0x7f ? '?' : *s);
}

static void put_field(const char *s, int width)
{
        int used = 0;

        for (const char *p = s; *p; p++)
                used += ((unsigned char) *p & 0xc0) != 0x80;
        put(s);
        for (; used < width; used++)
                putchar(' ');
}

static int usage(const char *what)
{
        say("tbnode-client: %s; tbnode-client --help lists the commands", what);
        return CLIENT_USAGE;
}

/* Consumes the request. A status to exit with; CLIENT_DONE: *ret is the answer. */
static int ask(const Asker *a, json_t *request, int timeout_ms, json_t **ret)
{
        char why[512] = "";
        int r;

        if (!request) {
                say("tbnode-client: out of memory");
                return CLIENT_FAILED;
        }
        r = link_ask(a->socket, request, timeout_ms, ret, why, sizeof(why));
        if (r >= 0)
                return CLIENT_DONE;
        for (char *p = why; *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7f)
                        *p = '?';
        say("tbnode-client: %s", why);
        return r == -ENOTCONN ? CLIENT_NO_AGENT : CLIENT_FAILED;
}

static int ask_op(const Asker *a, const char *op, json_t **ret)
{
        return ask(a, json_pack("{s:s}", "op", op), ANSWER_MS, ret);
}

static int print_json(const json_t *j)
{
        _cleanup_free_ char *text = json_dumps(j ? j : json_null(), JSON_INDENT(2) | JSON_ENCODE_ANY);

        if (!text)
                return CLIENT_FAILED;
        puts(text);
        return CLIENT_DONE;
}

/* ---- State ---------------------------------------------------------------------------------------------------------- */

/* What the service of this node wrote (client-service.c); NULL when there is none. */
static json_t *local_state(void)
{
        static const char *const places[] = {
                "/run/tbnode/client/state.json", "/dev/.tbnode/client/state.json"};

        for (size_t i = 0; i < ELEMENTSOF(places); i++) {
                _cleanup_free_ char *text = NULL;
                size_t size = 0;

                if (read_text_file(places[i], LINK_LINE_MAX, &text, &size) >= 0)
                        return message_parse(text, size);
        }
        return NULL;
}

static void put_outcome(const json_t *job)
{
        const json_t *status = json_object_get(job, "status");

        put(member_string(job, "state", "not started"));
        if (json_is_integer(status))
                printf(" %d", (int) json_integer_value(status));
        if (member_string(job, "reason", NULL)) {
                fputs(": ", stdout);
                put(member_string(job, "reason", ""));
        }
}

static int command_status(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL, *state = local_state(), *all = NULL;
        const char *experiment, *problem_text;
        const json_t *item;
        size_t i;
        int r;

        r = ask_op(a, "declaration", &d);
        if (r != CLIENT_DONE)
                return r;
        experiment = member_string(d, "experiment", NULL);
        if (a->json) {
                all = json_pack("{s:O?, s:O?, s:O?, s:O?}", "node", json_object_get(d, "node"), "experiment",
                        json_object_get(d, "experiment"), "generation", json_object_get(d, "generation"),
                        "client", state);
                return print_json(all);
        }
        fputs("node        ", stdout);
        put(member_string(d, "node", "?"));
        if (experiment) {
                fputs("\nexperiment  ", stdout);
                put(experiment);
        }
        fputs("\nstate       ", stdout);
        put(member_string(state, "state", "the client service does not run"));
        if (json_is_object(json_object_get(d, "startup"))) {
                fputs("\nstartup     ", stdout);
                put_outcome(json_object_get(state, "startup"));
        }
        putchar('\n');
        json_array_foreach (json_object_get(state, "problems"), i, item) {
                problem_text = json_string_value(item);
                fputs("problem     ", stdout);
                put(problem_text ? problem_text : "?");
                putchar('\n');
        }
        problem_text = member_string(state, "reason", NULL);
        if (problem_text && json_array_size(json_object_get(state, "problems")) == 0) {
                fputs("problem     ", stdout);
                put(problem_text);
                putchar('\n');
        }
        return CLIENT_DONE;
}

static int command_programs(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL, *state = local_state();
        const json_t *program;
        size_t i;
        int r = ask_op(a, "declaration", &d);

        if (r != CLIENT_DONE)
                return r;
        if (a->json) {
                _cleanup_json_ json_t *list = json_array();

                json_array_foreach (json_object_get(d, "programs"), i, program) {
                        json_t *one = json_copy((json_t *) program);
                        json_t *how = json_object_get(
                                json_object_get(state, "programs"), member_string(program, "name", ""));

                        (void) json_object_update_missing(one, how);
                        (void) json_array_append_new(list, one);
                }
                return print_json(list);
        }
        json_array_foreach (json_object_get(d, "programs"), i, program) {
                put_field(member_string(program, "name", "?"), 20);
                putchar(' ');
                put_outcome(json_object_get(
                        json_object_get(state, "programs"), member_string(program, "name", "")));
                putchar('\n');
        }
        return CLIENT_DONE;
}

static int command_startstatus(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL, *state = local_state();
        int r = ask_op(a, "declaration", &d);

        if (r != CLIENT_DONE)
                return r;
        if (!json_is_object(json_object_get(d, "startup"))) {
                say("tbnode-client: no startup command is declared for this node");
                return CLIENT_FAILED;
        }
        if (a->json)
                return print_json(json_object_get(state, "startup"));
        put_outcome(json_object_get(state, "startup"));
        putchar('\n');
        return CLIENT_DONE;
}

/* ---- The declaration ------------------------------------------------------------------------------------------------ */

static int command_nodeid(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL;
        int r = ask_op(a, "declaration", &d);

        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(json_object_get(d, "node"));
        put(member_string(d, "node", "?"));
        putchar('\n');
        return CLIENT_DONE;
}

static void put_host(const json_t *host)
{
        const json_t *alias;
        size_t i;

        put_field(member_string(host, "address", "?"), 15);
        putchar(' ');
        put(member_string(host, "name", "?"));
        json_array_foreach (json_object_get(host, "aliases"), i, alias) {
                putchar(' ');
                put(json_is_string(alias) ? json_string_value(alias) : "?");
        }
        putchar('\n');
}

static void put_interface(const json_t *interface)
{
        char name[IF_NAMESIZE];
        const char *mac = member_string(interface, "mac", "?"), *found = interface_by_mac(mac, name);
        uint64_t prefix = 0;

        put_field(found ? found : "-", 8);
        putchar(' ');
        put_field(member_string(interface, "network", "?"), 15);
        putchar(' ');
        put_field(mac, 17);
        putchar(' ');
        put(member_string(interface, "address", "-"));
        if (member_number(interface, "prefix", 128, &prefix) >= 0)
                printf("/%u", (unsigned) prefix);
        putchar('\n');
}

static void put_route(const json_t *route)
{
        put(member_string(route, "to", "?"));
        fputs(" via ", stdout);
        put(member_string(route, "via", "?"));
        putchar('\n');
}

static void put_mount(const json_t *mount)
{
        put(member_string(mount, "target", "?"));
        puts(json_is_true(json_object_get(mount, "read_only")) ? " read-only" : "");
}

static int print_list(const Asker *a, const char *member, void (*print)(const json_t *))
{
        _cleanup_json_ json_t *d = NULL;
        const json_t *item;
        int r = ask_op(a, "declaration", &d);
        size_t i;

        if (r != CLIENT_DONE)
                return r;
        if (a->json) {
                _cleanup_json_ json_t *none = json_array();
                const json_t *list = json_object_get(d, member);

                return print_json(list ? list : none);
        }
        json_array_foreach (json_object_get(d, member), i, item)
                print(item);
        return CLIENT_DONE;
}

static int command_hostnames(const Asker *a)
{
        return print_list(a, "hosts", put_host);
}

static int command_interfaces(const Asker *a)
{
        return print_list(a, "interfaces", put_interface);
}

static int command_routes(const Asker *a)
{
        return print_list(a, "routes", put_route);
}

static int command_mounts(const Asker *a)
{
        return print_list(a, "mounts", put_mount);
}

static void put_accounts(const json_t *accounts)
{
        const json_t *item, *group;
        size_t i, k;

        json_array_foreach (json_object_get(accounts, "groups"), i, item) {
                fputs("group ", stdout);
                put_field(member_string(item, "name", "?"), 16);
                printf(" gid %u\n", (unsigned) json_integer_value(json_object_get(item, "gid")));
        }
        json_array_foreach (json_object_get(accounts, "users"), i, item) {
                fputs("user  ", stdout);
                put_field(member_string(item, "name", "?"), 16);
                printf(" uid %u gid %u", (unsigned) json_integer_value(json_object_get(item, "uid")),
                        (unsigned) json_integer_value(json_object_get(item, "gid")));
                json_array_foreach (json_object_get(item, "groups"), k, group) {
                        fputs(k == 0 ? " groups " : ",", stdout);
                        put(json_is_string(group) ? json_string_value(group) : "?");
                }
                puts(json_is_true(json_object_get(item, "root")) ? " root" : "");
        }
}

static int command_accounts(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL;
        int r = ask_op(a, "declaration", &d);

        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(json_object_get(d, "accounts"));
        put_accounts(json_object_get(d, "accounts"));
        return CLIENT_DONE;
}

static int command_environment(const Asker *a)
{
        _cleanup_json_ json_t *d = NULL;
        const char *name;
        json_t *value;
        int r = ask_op(a, "declaration", &d);

        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(json_object_get(d, "environment"));
        json_object_foreach (json_object_get(d, "environment"), name, value) {
                put(name);
                putchar('=');
                put(json_is_string(value) ? json_string_value(value) : "?");
                putchar('\n');
        }
        return CLIENT_DONE;
}

/* ---- The experiment ------------------------------------------------------------------------------------------------- */

static int command_experiment(const Asker *a)
{
        _cleanup_json_ json_t *answer = NULL;
        const json_t *node;
        int r = ask_op(a, "experiment", &answer);
        size_t i;

        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(json_object_get(answer, "nodes"));
        json_array_foreach (json_object_get(answer, "nodes"), i, node) {
                put_field(member_string(node, "node", "?"), 20);
                putchar(' ');
                put_field(member_string(node, "state", "-"), 12);
                putchar(' ');
                put_field(member_string(node, "client", "-"), 8);
                if (json_is_object(json_object_get(node, "startup"))) {
                        fputs(" startup ", stdout);
                        put_outcome(json_object_get(node, "startup"));
                }
                putchar('\n');
        }
        return CLIENT_DONE;
}

static int command_ready(const Asker *a)
{
        _cleanup_json_ json_t *answer = NULL;
        int r = ask_op(a, "ready", &answer);

        return r == CLIENT_DONE && a->json ? print_json(answer) : r;
}

static int command_readycount(const Asker *a)
{
        _cleanup_json_ json_t *answer = NULL;
        int r = ask_op(a, "readycount", &answer);

        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(answer);
        printf("%lld of %lld nodes are ready\n",
                (long long) json_integer_value(json_object_get(answer, "ready")),
                (long long) json_integer_value(json_object_get(answer, "total")));
        return CLIENT_DONE;
}

static int take_number(
        const char *option, const char *text, uint32_t max, json_t *request, const char *member)
{
        uint32_t value = 0;
        char what[128];

        if (text && parse_u32(text, max, &value) >= 0)
                return json_object_set_new(request, member, json_integer(value)) < 0 ? CLIENT_FAILED
                                                                                     : CLIENT_DONE;
        snprintf(what, sizeof(what), "%s needs a number of at most %u", option, max);
        return usage(what);
}

static int command_sync(const Asker *a)
{
        _cleanup_json_ json_t *request = json_pack("{s:s}", "op", "sync"), *answer = NULL;
        int r = CLIENT_DONE;

        for (char **arg = a->args; r == CLIENT_DONE && *arg; arg += 2) {
                const char *value = arg[1];

                if (strcmp(*arg, "-n") == 0 && value && program_name_is_valid(value))
                        (void) json_object_set_new(request, "name", json_string(value));
                else if (strcmp(*arg, "-n") == 0)
                        return usage("sync -n needs the name of a barrier: letters, digits, '_', '.', '-', "
                                     "at most 64");
                else if (strcmp(*arg, "-c") == 0)
                        r = take_number("sync -c", value, 65536, request, "count");
                else if (strcmp(*arg, "-t") == 0)
                        r = take_number("sync -t", value, TIMEOUT_MAX, request, "timeout");
                else
                        return usage("sync takes -n NAME, -c COUNT and -t SECONDS");
        }
        if (r != CLIENT_DONE)
                return r;
        /* Without an own time limit: the others may come tomorrow. The agent keeps -t. */
        r = ask(a, request, -1, &answer);
        request = NULL;
        if (r != CLIENT_DONE)
                return r;
        if (a->json)
                return print_json(answer);
        printf("%lld nodes are here\n", (long long) json_integer_value(json_object_get(answer, "count")));
        return CLIENT_DONE;
}

static int command_state(const Asker *a)
{
        static const char *const states[] = {"booting", "up", "failed"};
        _cleanup_json_ json_t *answer = NULL;
        bool known = false;
        int r;

        for (size_t i = 0; a->args[0] && i < ELEMENTSOF(states); i++)
                known |= strcmp(a->args[0], states[i]) == 0;
        if (!known)
                return usage("state takes booting, up, or failed and a reason");
        r = ask(a, json_pack("{s:s, s:s, s:s*}", "op", "state", "state", a->args[0], "reason", a->args[1]),
                ANSWER_MS, &answer);
        return r == CLIENT_DONE && a->json ? print_json(answer) : r;
}

/* ---- Dispatch ------------------------------------------------------------------------------------------------------- */

static const struct {
        const char *name;
        int (*run)(const Asker *a);
        int args; /* at most */
        const char *usage, *help;
} commands[] = {
        {"status", command_status, 0, "",
                "this node: name, experiment, state, startup command, what is wrong"},
        {"nodeid", command_nodeid, 0, "", "the node's name"},
        {"hostnames", command_hostnames, 0, "", "names and addresses of the experiment"},
        {"interfaces", command_interfaces, 0, "", "interfaces on the experiment's networks"},
        {"accounts", command_accounts, 0, "", "declared groups and users"},
        {"routes", command_routes, 0, "", "declared routes"},
        {"mounts", command_mounts, 0, "", "declared mounts"},
        {"environment", command_environment, 0, "", "declared variables"},
        {"programs", command_programs, 0, "", "declared programs and how they do"},
        {"startstatus", command_startstatus, 0, "", "how the startup command did"},
        {"experiment", command_experiment, 0, "", "the experiment's nodes and how they do"},
        {"sync", command_sync, 6, "[-n NAME] [-c COUNT] [-t SECONDS]",
                "wait until COUNT (all) nodes are at barrier NAME"},
        {"ready", command_ready, 0, "", "this node is ready"},
        {"readycount", command_readycount, 0, "", "how many nodes are"},
        {"state", command_state, 2, "STATE [REASON]", "report booting, up or failed (root only)"},
};

void client_commands_help(void)
{
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                char left[64];

                snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].usage);
                printf("  %-44s %s\n", left, commands[i].help);
        }
}

int client_command(const char *socket, bool json, char **argv)
{
        Asker asker = {.socket = socket, .json = json, .args = argv + 1};
        char what[128];
        int n = 0, r;

        while (asker.args[n])
                n++;
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                if (strcmp(commands[i].name, argv[0]) != 0)
                        continue;
                if (n > commands[i].args) {
                        snprintf(what, sizeof(what), "%s takes %s", argv[0],
                                commands[i].usage[0] ? commands[i].usage : "no arguments");
                        return usage(what);
                }
                r = commands[i].run(&asker);
                if (r == CLIENT_DONE && fflush(stdout) != 0) {
                        say("tbnode-client: cannot write the answer: %s", strerror(errno));
                        return CLIENT_FAILED;
                }
                return r;
        }
        snprintf(what, sizeof(what), "there is no command %.60s", argv[0]);
        return usage(what);
}
