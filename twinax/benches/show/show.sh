# What people do to learn which cable is whose: ask in each namespace, and match the numbers after
# @if. The first argument says what is wanted, then how a namespace is entered; the second of
# `peer` is the link. Standard input has what enters each: process numbers, or names.
set -e
wanted=$1 by=$2 link=$3
inside() {
    case $by in
    nsenter) nsenter -t "$1" -n "$2" -o "$3" ;;
    ip) ip -n "$1" -o "$3" ;;
    esac
}
case $wanted in
map)
    {
        for what in link addr route; do ip -o $what; done
        while read -r who; do
            echo "in $who"
            for what in link addr route; do inside "$who" ip $what; done
        done
    } | awk '
        $1 == "in" { who = $2; next }
        match($2, /@if[0-9]+:$/) {
            number = substr($2, RSTART + 3, RLENGTH - 4)
            if (who == "") { index_of[$1 + 0] = $2 } else { print who, $2, index_of[number] }
        }
        $3 ~ /^inet/ { print who, $2, $4 }
        $1 == "default" { print who, $0 }'
    ;;
peer)
    number=$(ip -o link show "$link" | cut -d: -f1)
    while read -r who; do
        echo "in $who"
        inside "$who" ip link
    done | awk -v end="@if$number:" '$1 == "in" { who = $2 } index($2, end) { print who, $0 }'
    ;;
esac
