# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for tbnode. Verbs and options are those that --help tells; names of nodes come from the agent, with a limit of
# time, and from nowhere when it does not answer.
# shellcheck shell=bash disable=SC2207

_tbnode_nodes() {
    timeout 2 tbnode ps --json 2>/dev/null | grep -o '"node": *"[^"]*"' | cut -d'"' -f4
}

_tbnode_images() {
    timeout 2 tbnode images --json 2>/dev/null | grep -o '"source": *"[^"]*"' | cut -d'"' -f4 | sort -u
}

_tbnode_interfaces() {
    timeout 2 tbnode inspect --json "$1" 2>/dev/null | grep -o '"network": *"[^"]*"' | cut -d'"' -f4 | sort -u
}

_tbnode_words() {
    COMPREPLY+=($(compgen -W "$1" -- "$cur"))
}

# What comes behind a verb; $1: the verb, $2: how many words without dash there are already, $3: the first of them.
_tbnode_arguments() {
    case $1 in
        inspect | programs | startup | logs | declare | program | stop | start | restart | rm | ssh | exec | snapshot)
            case $1:$2 in
                *:0 | stop:* | start:* | restart:* | rm:*) _tbnode_words "$(_tbnode_nodes)" ;;
                declare:1) COMPREPLY=($(compgen -f -- "$cur")) ;;
                program:1) _tbnode_words 'start stop kill' ;;
            esac
            ;;
        shape)
            case $2:$3 in
                0:) _tbnode_words 'show check set clear down up flap' ;;
                1:*) _tbnode_words "$(_tbnode_nodes)" ;;
                2:show) ;;
                2:*) _tbnode_words "$(_tbnode_interfaces "${words[1]}")" ;;
                *:set) _tbnode_words 'up down rate delay loss limit reorder duplicate corrupt seed for' ;;
            esac
            ;;
        firewall)
            case $2:$3 in
                0:) _tbnode_words 'show set explain' ;;
                1:*) _tbnode_words "$(_tbnode_nodes)" ;;
                2:set) _tbnode_words 'none open basic closed elabinelab' ;;
                2:explain) _tbnode_words 'tcp udp icmp' ;;
                4:explain) _tbnode_words 'in out' ;;
            esac
            ;;
        keys)
            case $2:$3 in
                0:) _tbnode_words 'show set clear' ;;
                1:*) _tbnode_words "$(_tbnode_nodes)" ;;
                *:set) COMPREPLY=($(compgen -f -- "$cur")) ;;
            esac
            ;;
        augment | dockerfile | run) [ "$2" != 0 ] || _tbnode_words "$(_tbnode_images)" ;;
    esac
}

# The value of an option; fails when it takes none that is known here.
_tbnode_value() {
    case $1 in
        --level) _tbnode_words 'none basic core buildenv full' ;;
        --builder) _tbnode_words 'native docker' ;;
        --platform) _tbnode_words 'linux/amd64 linux/arm64' ;;
        --policy) _tbnode_words 'latest cached' ;;
        --on-exit) _tbnode_words 'stay stop restart' ;;
        --firewall) _tbnode_words 'none open basic closed elabinelab' ;;
        --network) _tbnode_words "$(timeout 2 docker network ls --format '{{.Name}}' 2>/dev/null)" ;;
        --socket | --file | --declare | --ssh-key | --identity | -i | --rules | --config) COMPREPLY=($(compgen -f -- "$cur")) ;;
        --context | --build-context) COMPREPLY=($(compgen -d -- "$cur")) ;;
        --collect | --files) COMPREPLY=($(compgen -f -- "$cur")) ;;
        --project) COMPREPLY=($(compgen -g -- "$cur")) ;;
        --name | --experiment | --shape | --startup | --startup-user | --tail | --since | -n | --keep-days | --signal | --login | -l | -e | --env | \
            -v | --volume | -p | --publish | -u | --user | -w | --workdir | --entrypoint) ;;
        *) return 1 ;;
    esac
}

_tbnode() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
    local -a words=()

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --json | --follow | --syslog | --no-syslog | --update | --dry-run | --no-rate | --show) ;;
            --*) i=$((i + 1)) ;;
            -*) ;;
            *) if [ -z "$verb" ]; then verb=${COMP_WORDS[i]}; else words+=("${COMP_WORDS[i]}"); fi ;;
        esac
    done
    if _tbnode_value "$prev"; then
        return
    fi
    if [ -z "$verb" ]; then
        _tbnode_words "$(tbnode --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p') --json --socket --help --version"
    elif [[ $cur == -* ]]; then
        _tbnode_words "$(tbnode "$verb" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+' | sort -u) --json --help"
    else
        _tbnode_arguments "$verb" "${#words[@]}" "${words[0]-}"
    fi
}

complete -F _tbnode tbnode
