# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for tbnode-registry. tests/unit/test-registry-completion.py compares it with what --help says.
# Nothing here asks a registry: a key press must not become a network request.
# shellcheck shell=bash disable=SC2207

_tbnode_registry_hosts() {
    # The registries that docker's configuration knows.
    sed -n 's/^[[:space:]]*"\([^"{}]*[.:][^"{}]*\)":[[:space:]]*{.*/\1/p' \
        "${DOCKER_CONFIG:-$HOME/.docker}/config.json" 2>/dev/null |
        sed 's|^https\{0,1\}://||; s|/.*||; s|^index\.docker\.io$|docker.io|'
}

_tbnode_registry() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' options i
    local commands='ping inspect manifest config ls tags referrers copy blob delete login logout'
    local everywhere='--json --plain-http --unix-socket --tls-ca --tls-cert --tls-key --insecure --docker-config
        --debug --help'

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --platform | --parallel | --resume-dir | --output | -o | --artifact-type | --username | -u | --plain-http | \
                --unix-socket | --tls-ca | --tls-cert | --tls-key | --insecure | --docker-config)
                i=$((i + 1))
                # bash splits HOST=FILE into three words
                [ "${COMP_WORDS[i + 1]-}" = "=" ] && i=$((i + 2))
                ;;
            -* | = | :) ;;
            *)
                command=${COMP_WORDS[i]}
                break
                ;;
        esac
    done

    # The value behind an option.
    if [ "$prev" = "=" ] || [ "$cur" = "=" ]; then
        case ${COMP_WORDS[COMP_CWORD - 3]-}${COMP_WORDS[COMP_CWORD - 2]-} in
            *--tls-* | *--unix-socket*)
                [ "$cur" = "=" ] && cur=''
                COMPREPLY=($(compgen -f -- "$cur"))
                return
                ;;
        esac
    fi
    case $prev in
        --output | -o | --docker-config)
            COMPREPLY=($(compgen -f -- "$cur"))
            return
            ;;
        --resume-dir)
            COMPREPLY=($(compgen -d -- "$cur"))
            return
            ;;
        --platform)
            COMPREPLY=($(compgen -W 'linux/amd64 linux/arm64 linux/arm/v7 linux/386 linux/ppc64le linux/s390x linux/riscv64' \
                -- "$cur"))
            return
            ;;
        --parallel)
            COMPREPLY=($(compgen -W '1 2 4 8 16' -- "$cur"))
            return
            ;;
        --plain-http | --insecure | --unix-socket | --tls-ca | --tls-cert | --tls-key)
            COMPREPLY=($(compgen -W "$(_tbnode_registry_hosts)" -- "$cur"))
            return
            ;;
        --artifact-type | --username | -u) return ;;
    esac

    if [ -z "$command" ]; then
        case $cur in
            -*) COMPREPLY=($(compgen -W "$everywhere --version" -- "$cur")) ;;
            *) COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
        esac
        return
    fi

    case $command in
        inspect) options='--platform' ;;
        manifest | config) options='--platform --output' ;;
        referrers) options='--artifact-type' ;;
        copy) options='--platform --all-platforms --parallel --resume-dir' ;;
        blob) options='--output' ;;
        delete) options='--dry-run --tag-only' ;;
        login) options='--username --password-stdin' ;;
        *) options='' ;;
    esac
    case $command:$cur in
        *:-*) COMPREPLY=($(compgen -W "$options $everywhere --version" -- "$cur")) ;;
        ping:* | ls:* | login:* | logout:*) COMPREPLY=($(compgen -W "$(_tbnode_registry_hosts)" -- "$cur")) ;;
        copy:*)
            case ${COMP_WORDS[COMP_CWORD - 2]-}$prev in
                *oci:) COMPREPLY=($(compgen -d -- "$cur")) ;;
                *docker-archive:) COMPREPLY=($(compgen -f -- "$cur")) ;;
                *)
                    COMPREPLY=($(compgen -W 'oci: docker-archive:' -- "$cur"))
                    compopt -o nospace 2>/dev/null
                    ;;
            esac
            ;;
    esac
}

complete -F _tbnode_registry tbnode-registry
