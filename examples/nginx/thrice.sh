# For scripts that load from mirrors, which fail for a moment at times: `thrice COMMAND` runs it up to three times.
thrice() { "$@" || { sleep 10 && "$@"; } || { sleep 30 && "$@"; }; }
