# What the scripts share; sourced, never run. bash.

# The Python to use: $PYTHON, else the newest python3 that is new enough.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "killswitch needs Python 3.11 or newer; set PYTHON to one" >&2
  return 1
}

# make_environment FOLDER PYTHON: a virtual environment, made once.
make_environment() {
  local folder=$1 python=$2
  if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    return
  fi
  if ! "$python" -m venv "$folder"; then
    echo "$python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
    return 1
  fi
}

# install_locked FOLDER FILE: exactly what FILE pins, and nothing when that was done before.
install_locked() {
  local folder=$1 file=$2 stamp
  stamp="$folder/.installed-$(basename "$file")"
  if [ -f "$stamp" ] && cmp -s "$file" "$stamp"; then
    return
  fi
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement "$file"
  cp "$file" "$stamp"
}
