#!/bin/bash
# Print events as they come, each on a line of its own; comes back whenever the connection is lost.
#
#     tail.sh HOST PORT [HELLO]
#
# HELLO is a message that is sent first, each time: one, perhaps, by which the routing script gives this client a tag.
# Nothing but bash is needed. It is for text: bash's variables hold no NUL.
set -uo pipefail
export LC_ALL=C # characters are bytes, as lengths count them

[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "Usage: tail.sh HOST PORT [HELLO]" >&2; exit 2; }
host=$1 port=$2 hello=${3:-}
max_payload=$((4 << 20))
first_pause_ms=100 longest_pause_ms=10000

# Whether $length is one of a netstring. Digits without a leading zero, so that no arithmetic sees anything else.
is_length() {
    [[ $length =~ ^(0|[1-9][0-9]{0,7})$ ]] && [ "$length" -le "$max_payload" ]
}

# Events from standard input. Ends at the end of the stream, or where it is no netstring.
events() {
    local length event comma
    while IFS= read -r -d : -n 9 length; do
        is_length || { echo "no length: $length" >&2; return; }
        event=
        [ "$length" -eq 0 ] || IFS= read -r -N "$length" event || return
        IFS= read -r -N 1 comma || return
        [ "$comma" = , ] || { echo 'no comma after the payload' >&2; return; }
        printf '%s\n' "$event"
    done
}

pause_ms=$first_pause_ms
while :; do
    since=$SECONDS
    if { exec {connection}<> "/dev/tcp/$host/$port"; } 2> /dev/null; then
        echo "connected to $host:$port" >&2
        [ -z "$hello" ] || printf '%d:%s,' "${#hello}" "$hello" >&"$connection"
        events <&"$connection"
        exec {connection}>&-
    fi
    # A connection that is accepted and closed at once (max_clients, say) is a failure as well.
    [ $((SECONDS - since)) -le 10 ] || pause_ms=$first_pause_ms
    wait_ms=$((pause_ms / 2 + RANDOM % (pause_ms / 2 + 1))) # not all clients at the same moment
    echo "no connection; again in $wait_ms ms" >&2
    # sleep(1) would outlive this script when it is told to end. Nobody writes to this pipe.
    read -r -t "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))" _ <> <(:)
    pause_ms=$((2 * pause_ms < longest_pause_ms ? 2 * pause_ms : longest_pause_ms))
done
