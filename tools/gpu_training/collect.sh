#!/bin/sh
# collect.sh FOLDER joins what a call of run.sh brought back (the folder in which its files lie) into out/gpu/back.
# collect.sh alone copies the weights that came back into weights/mini.
set -eu
back=${BACK:-out/gpu/back}
mkdir -p "$back"
if [ $# = 0 ]; then
    mkdir -p weights/mini
    for part in "$back"/weights/mini/*; do
        rm -rf "weights/mini/${part##*/}"
        cp -r "$part" weights/mini/
    done
    ls weights/mini
else
    cat "$1"/made.tar.gz.* | tar -xz -C "$back"
    find "$back" -name '*.png' -o -name config.json
fi
