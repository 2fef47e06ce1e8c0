#!/bin/bash
# Send messages, each a line of standard input, and print what comes back, as it comes.
#
#     printf '%s\n' 'first' 'second' | send.sh HOST PORT
#
# socat ends its sending side behind the last message. evapid closes when the routes of that have run and their
# answers are sent, so nothing is lost in either direction; who just closes may lose what is still on its way.
set -euo pipefail
export LC_ALL=C # characters are bytes, as lengths count them

[ $# -eq 2 ] || { echo "Usage: send.sh HOST PORT < MESSAGES" >&2; exit 2; }
while IFS= read -r message || [ -n "$message" ]; do
    printf '%d:%s,' "${#message}" "$message"
done | socat -t 60 - "TCP:$1:$2"
