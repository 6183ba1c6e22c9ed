#!/bin/sh
# A tour: serves the sample mail over the built-in POP3 server on this machine, runs examples/demo.lua on it, shows what came out.
# usage: sh examples/demo.sh [BINARY]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$here/../build/mailmill}
case $binary in /*) ;; *) binary=$(pwd)/$binary ;; esac
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mailmill-demo.XXXXXX")
server=
end() {
        if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
        rm -rf "$tmp"
}
trap end EXIT
trap 'exit 130' INT TERM

mailmill() { "$binary" --state "$tmp/state" "$@"; }
title() { printf '\n\033[1m%s\033[0m\n' "$1"; }
[ -t 1 ] || title() { printf '\n%s\n' "$1"; }
value() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$tmp/server"; }

title "1. A POP3 server over examples/mail/sample.mbox, on this machine only"
"$binary" serve "$here/mail/sample.mbox" --json >"$tmp/server" &
server=$!
tries=0
while [ ! -s "$tmp/server" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then echo "the server did not start" >&2; exit 1; fi
        sleep 0.1
done
port=$(value port)
DEMO_PASSWORD=$(value password)
export DEMO_PASSWORD
echo "$(value messages) messages on 127.0.0.1 port $port, with a generated password"

title "2. The script: examples/demo.lua"
sed -n '/^mail.rule/,$p' "$here/demo.lua"

title "3. What it would do: mailmill --dry-run demo.lua --port $port"
mailmill --dry-run "$here/demo.lua" --port "$port" -o "$tmp/Mail" | head -12
echo "    …"

title "4. Done: mailmill demo.lua --port $port"
mailmill "$here/demo.lua" --port "$port" -o "$tmp/Mail" 2>&1 | sed '/ warning: /d'        # of step 5
(cd "$tmp/Mail" && find . -type f | LC_ALL=C sort | sed 's|^\./||; s#/\(new\|cur\)/[0-9][^/]*$#/\1/…#' | uniq -c |
        sed 's/^ *\([0-9][0-9]*\) \(.*\)/    \2 × \1/; s/ × 1$//')

title "5. The forward is durable in the outbox until a smarthost takes it (none listens here): mailmill outbox"
mailmill outbox

title "6. A second run finds nothing new"
mailmill --json "$here/demo.lua" --port "$port" -o "$tmp/Mail" | sed -n 's/.*"event":"end","messages":\([0-9]*\).*"skipped":\([0-9]*\).*/\1 messages, \2 seen before/p'

title "7. Any archive, one line: mailmill -e 'print(m.from, m.subject)' examples/mail/inbox"
mailmill -e 'print(m.from, m.subject)' "$here/mail/inbox"
echo
echo "The lessons in examples/ go on from here: examples/README.md"
