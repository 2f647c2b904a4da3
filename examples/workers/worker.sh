#!/bin/sh
# Prints every Stripe event. Run as many as you like: DATABASE_URL=… sh worker.sh
# psql cannot wait for a notification, so this one asks every second.
set -eu
tab=$(printf '\t')
running=1
trap 'running=' TERM INT

sql() { psql "$DATABASE_URL" -XqAt -F "$tab" -v ON_ERROR_STOP=1; }

# The work, at least once for each event: it fails by its exit code.
handle() { # position, id, type, object
    [ "$3" != "${FAIL_TYPE:-}" ] || return 1 # to watch what becomes of an event that fails
    printf '%s %s %s\n' "$1" "$2" "$3"
}

echo "SELECT tollgate.create_consumer('shell', start => 'earliest', if_not_exists => true)" | sql >/dev/null
while [ "$running" ]; do
    # Whoever can sign an event chooses its texts: a line or column must not begin within one.
    batch=$(sql <<'SQL'
SELECT claim, position, regexp_replace(event_id, '[[:cntrl:]]', '?', 'g'),
       regexp_replace(type, '[[:cntrl:]]', '?', 'g'), regexp_replace(object_id, '[[:cntrl:]]', '?', 'g')
FROM tollgate.claim('shell', 100, bodies => false)
SQL
    )
    [ "$batch" ] || { sleep 1; continue; }
    { # each event is settled as soon as it is done, all of them over one connection
        printf '%s\n' "$batch" | while IFS=$tab read -r claim position id type object; do
            if handle "$position" "$id" "$type" "$object" >&3 </dev/null; then
                echo "SELECT tollgate.ack($claim, ARRAY[$position]::bigint[]);"
            else
                echo "SELECT tollgate.nack($claim, $position, 'handle failed');"
            fi
        done | sql >/dev/null
    } 3>&1
done
