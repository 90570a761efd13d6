#!/bin/sh
# NAME lays a note into the folder notes. A tool reads one JSON object from stdin and prints one; its log is stderr.
# ZHIYUN_KEY is the same whenever the same call is made again. Try it: zhiyun tool test .
set -eu

fail() {
  echo "$2" >&2
  printf '{"error": {"code": "%s", "message": "%s", "retry": false}}\n' "$1" "$2"
  exit 1
}

if [ "${1:-}" = --describe ]; then
  exec cat "$(dirname "$0")/tool.json"
fi

# Without a JSON program at hand: take exactly the one field, spelt as engines spell it. An undo gets "done" beside it.
input=$(tr -d '\n')
if [ -n "${ZHIYUN_UNDO:-}" ]; then
  name=$(printf '%s' "$input" | sed -n 's/.*"name" *: *"\([a-z0-9-]*\)".*/\1/p')
else
  name=$(printf '%s' "$input" | sed -n 's/^ *{ *"name" *: *"\([a-z0-9-]*\)" *} *$/\1/p')
fi
[ -n "$name" ] || fail input.invalid 'give an object with the one field name: small letters, digits and dashes'

notes=${ZHIYUN_ROOT:?}/notes
note=$notes/$name

if [ -n "${ZHIYUN_UNDO:-}" ]; then
  # Only what this key has made, and no error if it has made nothing.
  if [ "$(cat "$note" 2>/dev/null)" = "$ZHIYUN_KEY" ]; then rm -f "$note"; fi
  rm -f "$note.tmp"
  rmdir "$notes" 2>/dev/null || true
  echo '{}'
  exit
fi

if [ -n "${ZHIYUN_PLAN:-}" ]; then
  printf '{"touches": [{"kind": "file", "name": "notes/%s", "change": "is made"}], "output": {"path": "notes/%s"}}\n' "$name" "$name"
  exit
fi

if [ -e "$note" ] && [ "$(cat "$note")" != "$ZHIYUN_KEY" ]; then
  fail note.taken "the note $name is there already, by another call"
fi
# Half a note is never seen: it is written beside its place, then moved there.
mkdir -p "$notes"
printf '%s' "$ZHIYUN_KEY" > "$note.tmp"
mv "$note.tmp" "$note"
echo "laid $note" >&2
printf '{"path": "notes/%s"}\n' "$name"
