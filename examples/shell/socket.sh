#!/bin/sh
# Speaking to the socket with nothing of fanoutd installed: socket.sh '{"jsonrpc": "2.0", "id": 1, "method": "daemon.ping"}'
set -eu
socket=${FANOUTD_SOCKET:-/run/fanoutd/fanoutd.sock}

if command -v nc >/dev/null && nc -h 2>&1 | grep -q -- '-U'; then
    printf '%s\n' "$1" | nc -U -N "$socket"     # OpenBSD's nc; -N: closes our side, so that the daemon does too
else
    python3 - "$socket" "$1" <<'END'
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(sys.argv[2].encode() + b"\n")
    print(s.makefile().readline(), end="")
END
fi
