#!/usr/bin/env bash
# From nothing to a finished, sealed and private run of three devices on one machine, then all of
# it stopped. The same commands on three machines are in docs/deploy/README.md.
#
#   examples/deploy/demo.sh [FOLDER]      a new temporary folder by default; it is kept, to look at
#
# Needs calyx on the PATH. Listens on 127.0.0.1 only; SERVER_PORT, AUTHORITY_PORT and ROUNDS may be set.
set -euo pipefail
command -v calyx >/dev/null || { echo "calyx is not on the PATH; activate its environment"; exit 2; }

home=${1:-$(mktemp -d -t calyx-demo-XXXXXX)}
server_port=${SERVER_PORT:-9440} authority_port=${AUTHORITY_PORT:-9443}
mkdir -p "$home" && cd "$home"
# The digits are the same in every demonstration, and records have one budget for each user.
export XDG_STATE_HOME="$PWD/state"
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || { kill -TERM "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" || true; }
}
trap finish EXIT
in_background() { local log=$1; shift; calyx "$@" >"$log" 2>&1 & pids+=("$!"); }
until_it_says() { # FILE WORDS: wait until a log has them; give up with its last line
  for _ in $(seq 300); do
    grep -q "$2" "$1" && return 0
    kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.2
  done
  echo "$1: $(tail -n 1 "$1")" >&2
  return 1
}

echo "1. the key authority and the server make their keys and certificates"
calyx authority init authority --port "$authority_port" --min-contributors 3 >/dev/null
calyx server init server --port "$server_port" >/dev/null
calyx server authority server "127.0.0.1:$authority_port" authority/for-server
in_background authority.log authority serve authority
until_it_says authority.log "ready"
in_background server.log server up server
until_it_says server.log "ready on"

echo "2. three devices enrol, each with its own records; both operators approve them"
for k in 0 1 2; do
  made=$(calyx client enroll "device-$k" --name "device-$k" --server "127.0.0.1:$server_port" \
    --ca server/for-devices/ca.pem --authority-key authority/for-server/authority.pub \
    --partition "$k/3" --json 2>/dev/null)
  # From the device's own screen; on three machines its owner reads it out to both operators.
  fingerprint=$(sed -n 's/.*"fingerprint": "\([0-9a-f-]*\)".*/\1/p' <<<"$made")
  calyx server approve server "device-$k/request.json" --fingerprint "$fingerprint"
  calyx authority approve authority "device-$k/request.json" --fingerprint "$fingerprint" >/dev/null
  in_background "device-$k.log" client join "device-$k"
done
for k in 0 1 2; do until_it_says "device-$k.log" "connected to"; done

echo "3. a run: sealed sums, record-level privacy"
calyx server run server digits-cnn --name demo --set federation.clients=3 \
  --set secure_aggregation.min_contributors=3 --set training.rounds="${ROUNDS:-25}" \
  --set federation.server_learning_rate=1 --set federation.average_decay=0.8

echo
echo "4. what it cost the records of one device, and what the authority released"
calyx client budget device-0/ledger.sqlite
calyx authority log authority | sed -n 1p
echo "everything is in $home"
