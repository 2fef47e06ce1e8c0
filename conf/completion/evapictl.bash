# Completion of evapictl for bash. Tags and clients are those of the evapid that runs, which is asked when they are wanted.

# Complete with lines of a list, one word each. Tags are what applications call themselves: what bash would take for more than
# a word is quoted, and nothing is expanded (as compgen -W would). A backslash before one of ":=@" makes it no end of a word.
_evapictl_words() {
    local word quoted end
    while IFS= read -r word; do
        printf -v quoted %q "$word"
        [[ $quoted == \$\'* ]] || for end in : = @; do quoted=${quoted//"$end"/"\\$end"}; done
        [[ -z $word || ($quoted != "$cur"* && $word != "$cur"*) ]] || COMPREPLY+=("$quoted")
    done <<< "$1"
}

_evapictl_names() {
    _evapictl_words "$(evapictl "${own_socket[@]}" names "$1" 2> /dev/null)"
}

_evapictl_files() {
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}

# The command, and how many words stand behind it before the one that is being completed.
_evapictl_look() {
    local i word
    command='' behind=0 own_socket=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -s | --socket) own_socket=(--socket "${COMP_WORDS[++i]}") ;;
        -i | --instance) own_socket=(--instance "${COMP_WORDS[++i]}") ;;
        -w | --watch | --sort | --tag | --address | --state | --limit | --idle | --direction | --client | --match | --count) ((i++)) ;;
        -*) ;;
        *) if [ -z "$command" ]; then command=$word; else ((behind++)); fi ;;
        esac
    done
}

_evapictl_options() {
    local options='--socket --instance --json --version --help'
    case $command in
    clients) options+=' --watch --sort --tag --address --state --slow --idle --limit' ;;
    tag | close) options+=' --tag --address --state --slow --idle --yes' ;;
    tags) options+=' --watch --limit' ;;
    tail) options+=' --tag --client --direction --match --count' ;;
    relay | multicast | unicast) options+=' --allow-none' ;;
    stats) options+=' --watch --reset' ;;
    status | client | listeners | kamailio | config | top) options+=' --watch' ;;
    esac
    _evapictl_words "${options// /$'\n'}"
}

_evapictl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command behind own_socket
    COMPREPLY=()
    _evapictl_look
    case $prev in
    -s | --socket) _evapictl_files && return ;;
    -i | --instance) _evapictl_words "$(compgen -G '/run/evapid-*' | sed 's|^/run/evapid-||')" && return ;;
    --sort) _evapictl_words $'index\naddress\ntag\nqueued\ndropped\ndelivered\nsent\nmessages\nreceived' && return ;;
    --state) _evapictl_words $'admitting\nopen\nfinishing\nflushing\ngone' && return ;;
    --direction) _evapictl_words $'in\nout' && return ;;
    --tag) _evapictl_names tags && return ;;
    --client) _evapictl_names clients && return ;;
    -w | --watch | --address | --idle | --limit | --match | --count) return ;;
    esac
    if [[ $cur == -* ]]; then
        _evapictl_options
        return
    fi
    case $command:$behind in
    :*) _evapictl_names commands ;;
    client:0 | close:0 | tag:0 | send:0) _evapictl_names clients ;;
    tag:1 | multicast:0 | unicast:0 | forget:0) _evapictl_names tags ;;
    log:0) _evapictl_words $'error\nwarning\nnotice\ninfo\ndebug' ;;
    names:0) _evapictl_words $'commands\ntags\nclients' ;;
    check:0) _evapictl_files ;;
    esac
}

complete -F _evapictl evapictl
