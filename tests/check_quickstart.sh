#!/usr/bin/env bash
# quickstart in a copied tree: the cache of the tree that it was copied from goes, one of its own stays.
set -euo pipefail
source_tree=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mkdir -p "$folder/first/build"
grep -v -e '^main "\$@"$' -e '^cd ' "$source_tree/quickstart" >"$folder/first/quickstart"
printf 'CMAKE_HOME_DIRECTORY:INTERNAL=%s\nCMAKE_CACHEFILE_DIR:INTERNAL=%s\n' "$folder/first" "$folder/first/build" \
    >"$folder/first/build/CMakeCache.txt"
touch "$folder/first/build/build.ninja"
cp -r "$folder/first" "$folder/second"

forget() { (cd "$1" && source ./quickstart && forget_other_tree); }

said=$(forget "$folder/first")
[ -z "$said" ] && [ -f "$folder/first/build/CMakeCache.txt" ] || { echo "its own cache did not stay: $said"; exit 1; }
said=$(forget "$folder/second")
[[ "$said" == *"build/ is of $folder/first: making it anew"* ]] || { echo "nothing was said: '$said'"; exit 1; }
for file in CMakeCache.txt build.ninja; do
    [ ! -e "$folder/second/build/$file" ] || { echo "$file of the other tree stayed"; exit 1; }
done
